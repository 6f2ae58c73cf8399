//! etcd that is away, slow, dead, cut off or stale, for one gateway or for all.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::{Etcd, EtcdCluster};
use common::node::{Node, TTL, refs, share};
use common::proxy::Proxy;
use common::rows::{table, unsettled, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{compact, endpoint, eventually, loopback, put, then};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Three nodes on one etcd, the first one behind a proxy.
fn proxied(ttl: u64) -> (Etcd, Proxy, Vec<Node>) {
    let etcd = Etcd::start();
    let proxy = Proxy::start(loopback(etcd.port()));
    let first = Node::new(1, endpoint(proxy.addr()));
    let others = (2..=3).map(|i| Node::new(i, etcd.endpoint()));
    let mut nodes: Vec<Node> = [first].into_iter().chain(others).collect();
    for node in &mut nodes {
        node.set("--lease-ttl", ttl);
        node.start();
    }
    until_settled(&etcd.client(), &refs(&nodes));
    (etcd, proxy, nodes)
}

fn nobody_answers(nodes: &[Node]) -> Option<()> {
    (nodes.iter().all(|node| node.answering() == 0)).then_some(())
}

/// Input: the connections of one node are dead: nothing passes, nothing is closed; twice, healed once by
/// carrying what was held back, once by cutting. Output: it is silent before etcd ends its lease (the sampler
/// knows), the others take over, and it is back soon after the heal.
#[test]
fn dead_connections_to_etcd() {
    let (etcd, proxy, nodes) = proxied(4);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    for cut in [false, true] {
        proxy.blackhole();
        let took = until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]));
        println!("failover of a node without etcd: {took:?}");
        proxy.pass();
        if cut {
            proxy.cut();
        }
        let healed = Instant::now();
        eventually("it is registered again", || {
            table(&client).has(&nodes[0]).then_some(())
        });
        let registered = healed.elapsed();
        until_settled(&client, &refs(&nodes));
        let settled = healed.elapsed();
        println!("after the heal: registered {registered:?}, its share back {settled:?}");
    }
    sampler.finish().assert_clean();
}

/// Input: the connections to an etcd that has a name are cut, again and again, after the user of a gateway has as many
/// processes as the limit allows: no thread can be started to look the name up. Output: no row changes, and the gateway
/// serves when its lease would have ended.
#[test]
fn an_etcd_with_a_name_and_no_thread_left() {
    /// Of no other process.
    const USER: u32 = 54_321;
    if !nix::unistd::geteuid().is_root() {
        let reason = "needs root to be another user: the limit does not hold for root";
        common::skipped("no thread left", reason);
        return;
    }
    let etcd = Etcd::start();
    let client = etcd.client();
    let proxy = Proxy::start(loopback(etcd.port()));
    let name = format!("http://localhost:{}", proxy.addr().port());
    let mut node = Node::new(1, name).with_user(USER);
    node.start();
    until_settled(&client, &[&node]);
    let before = table(&client);
    let limited = Command::new("prlimit")
        .uid(USER)
        .args(["--pid", &node.pid().to_string(), "--nproc=1:1"])
        .status();
    assert!(limited.unwrap().success());
    let begun = Instant::now();
    while begun.elapsed() < 3 * Duration::from_secs(TTL) {
        proxy.cut();
        sleep(Duration::from_millis(500));
    }
    assert_eq!(table(&client), before);
    until_settled(&client, &[&node]);
}

/// Input: etcd restarted, and stopped, for less than the lease. Output: no row changes, nobody is unserved.
#[test]
fn etcd_away_for_less_than_the_lease() {
    let mut etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=2)
        .map(|i| Node::new(i, etcd.endpoint()).with("--lease-ttl", 20))
        .collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let before = table(&client);
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    etcd.restart();
    assert_eq!(table(&client), before);
    etcd.stop();
    sleep(Duration::from_secs(2));
    etcd.cont();
    assert_eq!(table(&client), before);
    assert_eq!(unsettled(&client, &refs(&nodes), &[]), Ok(()));
    sampler.finish().assert_unbroken();
}

/// Input: etcd killed, then stopped, for longer than the lease, for everybody. Output: everybody is silent;
/// when it is back, one owner for each VNI, without hands.
#[test]
fn etcd_away_for_longer_than_the_lease() {
    let mut etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));

    etcd.kill();
    eventually("all are fenced", || nobody_answers(&nodes));
    etcd.restart();
    println!(
        "back after a restart: {:?}",
        until_settled(&client, &refs(&nodes))
    );

    etcd.stop();
    eventually("all are fenced", || nobody_answers(&nodes));
    // Longer than any lease: etcd ends them all the moment that it goes on.
    sleep(Duration::from_secs(5));
    etcd.cont();
    println!(
        "back after a stop: {:?}",
        until_settled(&client, &refs(&nodes))
    );
    sampler.finish().assert_clean();
    for node in &nodes {
        let lines = node.log().lines().count();
        assert!(
            lines < 300,
            "a log flood of {} has {lines} lines",
            node.name
        );
    }
}

/// Input: a node started while its etcd does not answer; SIGTERM while it does not answer any more. Output: it
/// serves once etcd answers; it ends with status 0, showing nothing, and its guard with it.
#[test]
fn a_start_and_a_drain_without_etcd() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let proxy = Proxy::start(loopback(etcd.port()));
    proxy.blackhole();
    let mut node = Node::new(1, endpoint(proxy.addr()));
    node.start();
    node.until_logged("cannot get a lease");
    assert_eq!(node.answering(), 0);
    proxy.pass();
    println!(
        "serves {:?} after the heal",
        until_settled(&client, &[&node])
    );
    proxy.blackhole();
    let begun = Instant::now();
    node.term();
    assert_eq!(node.wait_exit().code(), Some(0));
    println!("ended {:?} after SIGTERM", begun.elapsed());
    assert_eq!(node.answering(), 0);
    assert_eq!(node.guard_pids(), []);
}

/// Input: what a node did not see is compacted while its watch is away, and a migration waits for it.
/// Output: it reads everything anew, and the migration goes on; its VNIs are served all the time.
#[test]
fn history_compacted_while_the_watch_is_away() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let proxy = Proxy::start(loopback(etcd.port()));
    let mut nodes = vec![
        Node::new(1, endpoint(proxy.addr())).with("--lease-ttl", 20),
        Node::new(2, etcd.endpoint()).with("--join-hold", 0),
    ];
    nodes[0].start();
    until_settled(&client, &[&nodes[0]]);
    proxy.blackhole();
    nodes[1].start();
    let claimed = share(&nodes[1], &refs(&nodes))[0];
    eventually("the second claims", || {
        (table(&client).row(claimed).kind == "2").then_some(())
    });
    let last = client.txn(&then(vec![put("/elsewhere", "")])).unwrap();
    compact(&etcd.endpoint(), last.revision);
    // What is on its way is lost with its connection.
    proxy.cut();
    proxy.pass();
    until_settled(&client, &refs(&nodes));
    nodes[0].until_logged("keeps no changes from before");
}

/// Input: the watch of a node goes silent without an end, everything else works; another node joins.
/// Output: noticed within seconds, and the node takes its part in the migrations.
#[test]
fn a_watch_that_is_silently_stale() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let proxy = Proxy::start(loopback(etcd.port()));
    let mut nodes = vec![
        Node::new(1, endpoint(proxy.addr())),
        Node::new(2, etcd.endpoint()).with("--join-hold", 0),
    ];
    nodes[0].start();
    until_settled(&client, &[&nodes[0]]);
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    proxy.blackhole_those(b"POST /v3/watch ");
    nodes[1].start();
    let begun = Instant::now();
    nodes[0].until_logged("the watch is stale");
    println!("noticed after {:?}", begun.elapsed());
    let first = share(&nodes[1], &refs(&nodes))[0];
    eventually("a migration goes on without a watch", || {
        let kind = table(&client).row(first).kind;
        (kind != "1" && kind != "2").then_some(())
    });
    println!("first answer after {:?}", begun.elapsed());
    proxy.pass();
    println!(
        "settled after the heal: {:?}",
        until_settled(&client, &refs(&nodes))
    );
    sampler.finish().assert_clean();
}

/// Input: every piece of data to and from etcd takes 150 ms. Output: nobody is fenced, and VNIs migrate.
#[test]
fn a_slow_network_to_etcd() {
    let (etcd, proxy, mut nodes) = proxied(4);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    proxy.delay(Duration::from_millis(150));
    nodes[1].term();
    assert_eq!(nodes[1].wait_exit().code(), Some(0));
    until_settled_without(&client, &[&nodes[0], &nodes[2]], &[&nodes[1]]);
    nodes[1].start();
    until_settled(&client, &refs(&nodes));
    proxy.pass();
    sampler.finish().assert_unbroken();
    assert_eq!(nodes[0].logged("fenced"), 0);
}

/// Input: connections cut 50 times, and a neighbour that comes and goes. Output: nobody unserved, and as
/// many threads and descriptors as before.
#[test]
fn cuts_and_migrations_leak_nothing() {
    let (etcd, proxy, mut nodes) = proxied(20);
    let client = etcd.client();
    let before = nodes[0].threads_and_descriptors();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    for _ in 0..50 {
        proxy.cut();
        sleep(Duration::from_millis(50));
    }
    nodes[2].set("--join-hold", 0);
    for _ in 0..3 {
        nodes[2].term();
        assert_eq!(nodes[2].wait_exit().code(), Some(0));
        nodes[2].start();
        until_settled(&client, &refs(&nodes));
        proxy.cut();
    }
    sampler.finish().assert_unbroken();
    let mut after = before;
    eventually(&format!("as many as before: {before:?}"), || {
        after = nodes[0].threads_and_descriptors();
        // One connection for each thread's client may have been opened or closed since.
        (after.0 <= before.0 && after.1 <= before.1 + 2).then_some(())
    });
    println!("threads and descriptors: {before:?}, then {after:?}");
    let lines = nodes[0].log().lines().count();
    assert!(lines < 400, "{lines} lines for 53 cuts");
}

/// Input: three members; each of them killed and started again, then each stopped and continued, one after
/// the other, the leader among them. Output: nothing moves, nobody is unserved.
#[test]
fn one_member_of_three_is_missing() {
    let mut etcd = EtcdCluster::start(3);
    let client = etcd.client();
    let endpoints: Vec<String> = etcd.endpoints().iter().map(ToString::to_string).collect();
    let mut nodes: Vec<Node> = (0..3)
        .map(|i| {
            let mut order = endpoints.clone();
            order.rotate_left(i);
            Node::new(i as u64 + 1, order.join(",")).with("--lease-ttl", 15)
        })
        .collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let before = table(&client);
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    for member in 0..3 {
        etcd.kill(member);
        sleep(Duration::from_secs(2));
        assert_eq!(table(&client), before, "without member {member}");
        etcd.restart(member);
        etcd.stop(member);
        sleep(Duration::from_secs(2));
        assert_eq!(table(&client), before, "while member {member} is stopped");
        etcd.cont(member);
    }
    assert_eq!(unsettled(&client, &refs(&nodes), &[]), Ok(()));
    sampler.finish().assert_unbroken();
}

/// Input: two of three members stopped for longer than the lease, so that nobody has a quorum. Output:
/// everybody is silent; all is back when they go on.
#[test]
fn no_quorum() {
    let etcd = EtcdCluster::start(3);
    let client = etcd.client();
    let mut nodes: Vec<Node> = (0..3)
        .map(|i| Node::new(i as u64 + 1, etcd.endpoint(i)))
        .collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    etcd.stop(0);
    etcd.stop(1);
    eventually("all are fenced", || nobody_answers(&nodes));
    etcd.cont(0);
    etcd.cont(1);
    println!("back: {:?}", until_settled(&client, &refs(&nodes)));
    sampler.finish().assert_clean();
}

/// Input: etcd comes back without its data, its revisions far behind what the nodes have seen. Output: nobody
/// is answered twice, and everything is served again, without hands and without a storm of writes.
#[test]
fn an_etcd_that_lost_its_data() {
    let mut etcd = Etcd::start();
    let client = etcd.client();
    for _ in 0..3000 {
        client.txn(&then(vec![put("elsewhere", "")])).unwrap();
    }
    let mut nodes: Vec<Node> = (1..=3).map(|i| Node::new(i, etcd.endpoint())).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    etcd.lose_data();
    let begun = Instant::now();
    loop {
        let answers: Vec<_> = nodes.iter().map(Node::exposure).collect();
        // Later than this they share their VNIs anew, with a moment in which both answer.
        let all_wait = begun.elapsed() < Duration::from_secs(2 * common::node::TTL);
        for vni in 0..answers[0].len() {
            let count = answers.iter().filter(|shown| shown[vni].arp).count();
            assert!(!all_wait || count < 2, "vni={} is answered twice", vni + 1);
        }
        if unsettled(&client, &refs(&nodes), &[]).is_ok() {
            break;
        }
        assert!(begun.elapsed() < common::DEADLINE, "{}", nodes[0].log());
    }
    println!("settled after {:?}", begun.elapsed());
    for node in &nodes {
        assert!(node.logged("registered name=") < 10, "{}", node.log());
    }
}
