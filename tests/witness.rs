//! Early detection with real daemons on a real etcd: the dead are replaced before their lease ends, the living are
//! not, whatever becomes of their datagrams.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::exposition::{get, scrape};
use common::node::{Node, Shown, refs, share};
use common::proxy::Proxy;
use common::rows::{cluster, table, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{eventually, free_ports, loopback, put_leased, then};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value as Json, json};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use wmgwd::etcd::{Client, Op, WatchEvent};
use wmgwd::model::types::Revision;
use wmgwd::schema::{self, Key, Value};
use wmgwd::witness::siphash;
use wmgwd::witness::{Contact, Epoch, Run, Standing};

/// A lease that outlives each test: who is replaced is so by its witnesses.
const TTL: u64 = 120;
const EPOCHS: &[u8] = b"/wmgwd/meta/witness/";

fn key(node: &Node) -> Vec<u8> {
    Key::Epoch(node.name.clone()).bytes()
}

fn epoch_of(client: &Client, node: &Node) -> Option<Epoch> {
    let key = Key::Epoch(node.name.clone());
    let reply = client.get(&key.bytes()).unwrap();
    match schema::read_value(&key, &reply.kvs.first()?.value).0 {
        Value::Standing(Standing::Epoch(epoch)) => Some(epoch),
        _ => None,
    }
}

/// Whom a node names, in alphabetical order; `None` if it has no epoch.
fn named(client: &Client, node: &Node) -> Option<Vec<String>> {
    let epoch = epoch_of(client, node)?;
    let names = epoch.witnesses.iter().map(|it| it.name.to_string());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Some(names)
}

/// Waits until each of `nodes` names all others of them.
fn until_witnessed(client: &Client, nodes: &[&Node]) {
    eventually("each node names all others", || {
        let names_all = |node: &&Node| {
            let others = nodes.iter().filter(|it| it.name != node.name);
            let mut others: Vec<String> = others.map(|it| it.name.to_string()).collect();
            others.sort();
            named(client, node) == Some(others)
        };
        nodes.iter().all(names_all).then_some(())
    });
}

/// A `wmgwd witness`, without root where the test has it; ended with the test.
struct Bystander {
    name: String,
    child: Child,
}

impl Bystander {
    fn start(name: &str, etcd: &Etcd) -> Bystander {
        let name = format!("{name}-{}", std::process::id());
        let mut command = common::program::wmgwd();
        command.args(["witness", "--name", &name]);
        // A port that is free: another test may have the usual one.
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        command.args(["--beat-address", &format!("127.0.0.1:{port}")]);
        command.args(["--etcd", &etcd.endpoint().to_string()]);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        Bystander { name, child }
    }

    fn term(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What happened to keys with this prefix since `from`, up to now.
fn since(client: &Client, prefix: &[u8], from: Revision) -> Vec<WatchEvent> {
    let bound = Duration::from_secs(2);
    let watch = client.watch(prefix, from.next(), bound).unwrap();
    watch.flat_map(|batch| batch.unwrap().events).collect()
}

fn now(client: &Client) -> Revision {
    client.revision(b"/wmgwd/").unwrap()
}

/// What an event put into an epoch key.
fn standing(event: &WatchEvent) -> Option<Standing> {
    let key = Key::read(&event.kv.key).unwrap();
    match schema::read_value(&key, &event.kv.value).0 {
        Value::Standing(standing) if !event.deleted => Some(standing),
        _ => None,
    }
}

/// A firewall that drops nothing yet: the chain `input` of the table `ip drops`.
fn make_firewall() {
    run("nft", "add table ip drops");
    run(
        "nft",
        "add chain ip drops input { type filter hook input priority 0 ; }",
    );
}

/// Has it drop the datagrams from an address (`saddr`) or to it (`daddr`).
fn drop_datagrams(direction: &str, address: &str) {
    let match_it = format!("ip {direction} {address} meta l4proto udp");
    run("nft", &format!("add rule ip drops input {match_it} drop"));
}

/// No node was evicted since `before`.
fn assert_none_evicted(client: &Client, before: Revision) {
    let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
    assert!(!since(client, EPOCHS, before).iter().any(is_evicted));
}

fn nodes(count: u64, etcd: &Etcd) -> Vec<Node> {
    let node = |i| Node::new(i, etcd.endpoint()).with("--lease-ttl", TTL);
    let mut nodes: Vec<Node> = (1..=count).map(node).collect();
    nodes.iter_mut().for_each(Node::start);
    nodes
}

/// Runs `test` in a network of its own, where datagrams can be dropped. Without root it says so and passes.
fn in_a_network(test: impl FnOnce() + Send + 'static) {
    if !geteuid().is_root() {
        println!("needs root");
        return;
    }
    let isolated = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", "link set lo up");
        test();
    };
    thread::spawn(isolated).join().unwrap();
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments}");
}

/// Input: clusters of two and of three, each with a lease of two minutes; the daemon and the guard of one are killed
/// at the same moment, as if its machine had lost power. Output: its witnesses evict it, and its VNIs are served by the
/// others, long before its lease would end.
#[test]
fn the_dead_are_replaced_before_their_lease_ends() {
    for count in [2, 3] {
        let etcd = Etcd::start();
        let client = etcd.client();
        let mut nodes = nodes(count, &etcd);
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        let before = now(&client);
        assert!(table(&client).owned_by(&nodes[0]) > 0);
        nodes[0].kill_guard();
        nodes[0].kill9();
        // The daemon may have started another one in between.
        nodes[0].kill_guard();
        let took = until_settled_without(&client, &refs(&nodes[1..]), &[]);
        println!("{count} nodes: {took:?}");
        let events = since(&client, &key(&nodes[0]), before);
        assert_eq!(standing(&events[0]), Some(Standing::Evicted), "{events:?}");
        assert!(events[1].deleted, "with its lease");
        assert!(!table(&client).has(&nodes[0]));
    }
}

/// Input: two gateways, and a witness that serves nothing; one gateway dies; later the witness ends. Output: both name the
/// witness, which is in no ring and has no VNI; it and the other gateway evict the dead one; the survivor is proved by
/// it all along, and by its lease alone once it has gone, orderly.
#[test]
fn a_witness_that_serves_nothing_proves_the_survivor() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut witness = Bystander::start("third", &etcd);
    let mut nodes = nodes(2, &etcd);
    until_settled(&client, &refs(&nodes));
    let has_both = |node: &Node, other: &str| {
        let named = named(&client, node).unwrap_or_default();
        named.len() == 2 && named.contains(&witness.name) && named.iter().any(|it| it == other)
    };
    eventually("each names the other and the witness", || {
        let [one, two] = &nodes[..] else { return None };
        let both = has_both(one, two.name.as_str()) && has_both(two, one.name.as_str());
        both.then_some(())
    });
    let registered = client.range(b"/wmgwd/node/").unwrap().kvs;
    assert_eq!(registered.len(), 2, "it is no node of the ring");
    let before = now(&client);
    nodes[0].kill_guard();
    nodes[0].kill9();
    nodes[0].kill_guard();
    until_settled_without(&client, &refs(&nodes[1..]), &[]);
    let events = since(&client, &key(&nodes[0]), before);
    assert_eq!(standing(&events[0]), Some(Standing::Evicted), "{events:?}");
    let only = vec![witness.name.clone()];
    eventually("the survivor names the witness alone", || {
        (named(&client, &nodes[1]).as_ref() == Some(&only)).then_some(())
    });
    assert_eq!(nodes[1].logged("too few witnesses"), 0);
    assert_eq!(witness.term(), Some(0));
    let contact = Key::Contact(witness.name.parse().unwrap());
    assert!(
        client.get(&contact.bytes()).unwrap().kvs.is_empty(),
        "its lease is revoked"
    );
    eventually("the survivor names no witness", || {
        (named(&client, &nodes[1]) == Some(Vec::new())).then_some(())
    });
    assert_eq!(nodes[1].logged("is evicted"), 0);
    assert!(nodes[1].answering() > 0);
}

/// Input: the contact of one of three nodes is removed from etcd by hand. Output: it publishes itself as another run, which
/// is named again; no eviction, no VNI moves.
#[test]
fn a_contact_that_was_removed_is_another_run() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let nodes = nodes(3, &etcd);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let contact = Key::Contact(nodes[0].name.clone());
    let run = || {
        let reply = client.get(&contact.bytes()).unwrap();
        match schema::read_value(&contact, &reply.kvs.first()?.value).0 {
            Value::Contact(contact) => Some(contact.run),
            _ => None,
        }
    };
    let (rows, before, first) = (table(&client).rows, now(&client), run().unwrap());
    let delete = Op::Delete {
        key: contact.bytes(),
    };
    client.txn(&then(vec![delete])).unwrap();
    let second = eventually("there is another", run);
    assert_ne!(first, second);
    eventually("the others name the new run", || {
        let names_it = |node: &Node| {
            let epoch = epoch_of(&client, node)?;
            let it = epoch.witnesses.iter().find(|it| it.name == nodes[0].name)?;
            (it.run == second).then_some(())
        };
        nodes[1..].iter().try_for_each(names_it)
    });
    assert_eq!(table(&client).rows, rows);
    let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
    assert!(!since(&client, EPOCHS, before).iter().any(is_evicted));
}

/// Input: of three, the daemon of one is killed, its guard is not. Output: its guard proves it, so that it is not
/// evicted and goes on answering, also after the others have named other witnesses than its daemon; the next daemon
/// takes all over, and is a witness again. No VNI moves, none is unserved for a moment.
#[test]
fn a_dead_daemon_costs_nothing() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes = nodes(3, &etcd);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let rows = table(&client).rows;
    let before = now(&client);
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    nodes[0].kill9();
    let names_it = |node: &Node| {
        let named = named(&client, node).unwrap();
        named.contains(&nodes[0].name.to_string())
    };
    eventually("the others name it no more", || {
        nodes[1..].iter().all(|it| !names_it(it)).then_some(())
    });
    // Several windows more.
    thread::sleep(Duration::from_secs(2));
    assert!(nodes[0].answering() > 0);
    nodes[0].start();
    until_witnessed(&client, &refs(&nodes));
    assert_eq!(nodes[0].logged("taken over from the run before"), 1);
    assert_eq!(table(&client).rows, rows);
    let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
    assert!(!since(&client, EPOCHS, before).iter().any(is_evicted));
    sampler.finish().assert_unbroken();
}

/// Input: the guard of one of three is killed. Output: its daemon has another one at once, which goes on where the
/// first ended: no node is evicted, no VNI moves.
#[test]
fn a_dead_guard_costs_no_vni() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes = nodes(3, &etcd);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let (rows, before) = (table(&client).rows, now(&client));
    for _ in 0..3 {
        let guard = nodes[0].guard_pid();
        nodes[0].kill_guard();
        eventually("there is another guard", || {
            (nodes[0].guard_pid() != guard).then_some(())
        });
        thread::sleep(Duration::from_secs(1));
        assert!(nodes[0].answering() > 0);
    }
    until_witnessed(&client, &refs(&nodes));
    assert_eq!(table(&client).rows, rows);
    let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
    assert!(!since(&client, EPOCHS, before).iter().any(is_evicted));
    assert!(nodes[0].has_ended().is_none());
}

/// Input: a node whose epoch is overwritten with `evicted`, and no other node to end its lease. Output: it sees that by
/// itself, revokes its lease and serves again under a new one.
#[test]
fn an_evicted_node_begins_anew() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes = nodes(2, &etcd);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let mut left = nodes.pop().unwrap();
    left.term();
    left.wait_exit();
    eventually("it names no witness", || {
        (named(&client, &nodes[0]) == Some(Vec::new())).then_some(())
    });
    let epoch = client.get(&key(&nodes[0])).unwrap().kvs.pop().unwrap();
    let put = put_leased(key(&nodes[0]), br#""evicted""#, epoch.lease);
    client.txn(&then(vec![put])).unwrap();
    nodes[0].until_logged("this node is evicted");
    nodes[0].until_logged("revoked");
    until_settled(&client, &refs(&nodes));
    assert_eq!(nodes[0].logged("granted"), 2);
}

/// Input: a node that exits. Output: it says that it is silent before its lease goes, so that no other node waits.
#[test]
fn who_leaves_says_so() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes = nodes(2, &etcd);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let before = now(&client);
    nodes[0].term();
    assert_eq!(nodes[0].wait_exit().code(), Some(0));
    let events = since(&client, &key(&nodes[0]), before);
    let last: Vec<Option<Standing>> = events.iter().rev().take(2).map(standing).collect();
    assert_eq!(last, [None, Some(Standing::Released)]);
    until_settled(&client, &[&nodes[1]]);
    // The last one is proved by its lease alone.
    eventually("it names no witness", || {
        (named(&client, &nodes[1]) == Some(Vec::new())).then_some(())
    });
}

/// Input: nodes that are told to wait for the end of leases. Output: nothing of early detection is in etcd.
#[test]
fn without_a_window_there_is_nothing_of_it() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut nodes: Vec<Node> = (1..=2)
        .map(|i| Node::new(i, etcd.endpoint()).with("--detect-window", 0))
        .collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    let metas = client.range(b"/wmgwd/meta/").unwrap().kvs;
    let others = metas
        .iter()
        .filter(|kv| !kv.key.starts_with(b"/wmgwd/meta/node/"));
    assert_eq!(others.count(), 0);
}

/// Input: of three nodes that heed no signs, all datagrams from one are dropped, then those to it, then both; each until
/// it is proved otherwise. Output: it proves itself by its lease, or by the nodes that hear it; no node is evicted, no VNI moves, none is
/// unserved for a moment; once datagrams pass, all name each other again.
#[test]
fn dropped_datagrams_move_nothing() {
    in_a_network(|| {
        let etcd = Etcd::start();
        let client = etcd.client();
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            Node::new(i, etcd.endpoint())
                .with("--lease-ttl", TTL)
                .with("--beat-address", address(i))
                // So that a busy machine does not lose what the firewall lets through.
                .with("--detect-window", 2)
                .with("--track", "none")
        };
        let mut nodes: Vec<Node> = (1..=3).map(node).collect();
        nodes.iter_mut().for_each(Node::start);
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        let (rows, before) = (table(&client).rows, now(&client));
        let sampler = Sampler::start(etcd.client(), &refs(&nodes));
        make_firewall();
        for directions in [&["saddr"][..], &["daddr"], &["saddr", "daddr"]] {
            for direction in directions {
                drop_datagrams(direction, &address(1));
            }
            eventually("it names no witness, and no node names it", || {
                let it = nodes[0].name.to_string();
                let is_alone = named(&client, &nodes[0]) == Some(Vec::new());
                let is_named = |node: &Node| named(&client, node).unwrap().contains(&it);
                (is_alone && !nodes[1..].iter().any(is_named)).then_some(())
            });
            // Longer than a window and its margin.
            thread::sleep(Duration::from_secs(3));
            run("nft", "flush chain ip drops input");
            until_witnessed(&client, &refs(&nodes));
        }
        assert_eq!(table(&client).rows, rows);
        assert_none_evicted(&client, before);
        sampler.finish().assert_unbroken();
    });
}

/// Of `wmgwd status --json`: the state, the rank and the bad signs of a node.
fn seen_by_status(etcd: &Etcd, node: &Node) -> [Json; 3] {
    let output = common::program::wmgwd()
        .args(["status", "--json", "--etcd", &etcd.endpoint().to_string()])
        .output()
        .unwrap();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = report["nodes"].as_array().unwrap();
    let it = nodes.iter().find(|it| it["name"] == node.name.as_str());
    ["state", "rank", "bad_signs"].map(|key| it.unwrap()[key].clone())
}

/// Input: of three nodes, all datagrams of one are dropped, as if its fabric were cut, for a while; then those of all.
/// Output: it is not evicted, says that it is cut off (log, status, metrics, /readyz) and gives its VNIs to the others,
/// and gets them back; where all lose each other, no VNI moves.
#[test]
fn a_node_that_the_others_go_on_without_gives_its_vnis_away() {
    in_a_network(|| {
        let etcd = Etcd::start();
        let client = etcd.client();
        let [port] = free_ports(1)[..] else { panic!() };
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            Node::new(i, etcd.endpoint())
                .with("--lease-ttl", TTL)
                .with("--beat-address", address(i))
                .with("--fit-hold", 1)
        };
        let mut nodes: Vec<Node> = (1..=3).map(node).collect();
        nodes[0].set("--metrics", format!("127.0.0.1:{port}"));
        nodes.iter_mut().for_each(Node::start);
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        assert!(nodes[0].answering() > 0);
        let signs = || {
            let page = scrape(port);
            let bad = |sign| page.get(&format!("wmgwd_fitness_sign_bad{{sign=\"{sign}\"}}"));
            let rank = page.get("wmgwd_fitness_rank");
            (rank, bad("beats"), bad("evpn"))
        };
        let is_ready = |answer: (&str, &str)| {
            eventually(&format!("/readyz says {answer:?}"), || {
                let (status, body) = get(port, "/readyz")?;
                ((status.as_str(), body.as_str()) == answer).then_some(())
            });
        };
        assert_eq!(signs(), (2.0, 0.0, 0.0));
        let before = now(&client);
        let sampler = Sampler::start(etcd.client(), &refs(&nodes));
        make_firewall();
        for direction in ["saddr", "daddr"] {
            drop_datagrams(direction, &address(1));
        }
        nodes[0].until_logged("this gateway cannot forward: bad=beats rank=0");
        until_settled_without(&client, &refs(&nodes[1..]), &[&nodes[0]]);
        assert_eq!(signs(), (0.0, 1.0, 0.0));
        is_ready((
            "HTTP/1.1 503 Service Unavailable",
            "fitness: beats is bad\n",
        ));
        assert_eq!(
            seen_by_status(&etcd, &nodes[0]),
            [json!("unfit"), json!(0), json!(["beats"])]
        );
        assert_eq!(seen_by_status(&etcd, &nodes[1])[1..], [json!(2), json!([])]);
        run("nft", "flush chain ip drops input");
        nodes[0].until_logged("sign=beats is not bad any more");
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        sampler.finish().assert_clean();
        assert_eq!(signs(), (2.0, 0.0, 0.0));
        is_ready(("HTTP/1.1 200 OK", "ok\n"));
        assert_eq!(seen_by_status(&etcd, &nodes[0])[1..], [json!(2), json!([])]);

        let rows = table(&client).rows;
        let sampler = Sampler::start(etcd.client(), &refs(&nodes));
        run("nft", "add rule ip drops input meta l4proto udp drop");
        eventually("no node names a witness", || {
            let is_alone = |node: &Node| named(&client, node) == Some(Vec::new());
            nodes.iter().all(is_alone).then_some(())
        });
        // Longer than a window and its margin.
        thread::sleep(Duration::from_secs(3));
        run("nft", "flush chain ip drops input");
        until_witnessed(&client, &refs(&nodes));
        assert_eq!(table(&client).rows, rows);
        assert_none_evicted(&client, before);
        sampler.finish().assert_unbroken();
    });
}

/// Input: of four nodes, all datagrams of one that does not track beats are dropped, and then those of one that does.
/// Output: the first keeps its VNIs, and neither its log nor status names beats; the second gives its own away.
#[test]
fn beats_that_are_not_tracked_do_not_count() {
    in_a_network(|| {
        let etcd = Etcd::start();
        let client = etcd.client();
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            Node::new(i, etcd.endpoint())
                .with("--lease-ttl", TTL)
                .with("--beat-address", address(i))
        };
        let mut nodes: Vec<Node> = (1..=4).map(node).collect();
        nodes[0].set("--track", "fabric-link,evpn,uplink-link,ospf,frr");
        nodes.iter_mut().for_each(Node::start);
        let all = refs(&nodes);
        until_settled(&client, &all);
        until_witnessed(&client, &all);
        let of_first = share(all[0], &all);
        assert!(!of_first.is_empty() && !share(all[1], &all).is_empty());
        make_firewall();
        let cut = |i| {
            for direction in ["saddr", "daddr"] {
                drop_datagrams(direction, &address(i));
            }
        };
        cut(1);
        eventually("it names no witness", || {
            (named(&client, &nodes[0]) == Some(Vec::new())).then_some(())
        });
        cut(2);
        nodes[1].until_logged("this gateway cannot forward: bad=beats rank=0");
        eventually("the second has no VNI", || {
            (table(&client).owned_by(&nodes[1]) == 0 && nodes[1].answering() == 0).then_some(())
        });
        let rows = table(&client).rows;
        for vni in &of_first {
            assert_eq!(rows[vni].current, nodes[0].name.as_str(), "VNI {vni}");
        }
        assert_eq!(nodes[0].logged("beats is bad"), 0);
        assert_eq!(nodes[0].logged("cannot forward"), 0);
        assert_eq!(seen_by_status(&etcd, &nodes[0])[1..], [json!(2), json!([])]);
    });
}

/// Input: three nodes, and one of the version before, which does not know the sign `beats`; all datagrams of the first
/// are dropped. Output: its VNIs go to the others by the ring, some to that of the version before, and come back.
#[test]
fn the_version_before_takes_the_vnis_of_a_node_without_beats() {
    let program = match common::previous::wmgwd() {
        Ok(program) => program,
        Err(why) => return common::skipped("beats beside the version before", &why),
    };
    in_a_network(move || {
        let etcd = Etcd::start();
        let client = etcd.client();
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            Node::new(i, etcd.endpoint())
                .with("--beat-address", address(i))
                .with("--fit-hold", 1)
        };
        let mut nodes: Vec<Node> = (1..=4).map(node).collect();
        let all = refs(&nodes);
        let gains = |n: &usize| share(all[*n], &all[1..]).len() > share(all[*n], &all).len();
        let old = (1..4).find(gains).unwrap();
        nodes[old].set_program(Some(program));
        for option in ["--beat-address", "--detect-window"] {
            nodes[old].set(option, "");
        }
        nodes.iter_mut().for_each(Node::start);
        let all = refs(&nodes);
        until_settled(&client, &all);
        let others: Vec<&Node> = all
            .iter()
            .copied()
            .filter(|it| it.name != all[old].name)
            .collect();
        until_witnessed(&client, &others);
        let sampler = Sampler::start(etcd.client(), &all);
        make_firewall();
        for direction in ["saddr", "daddr"] {
            drop_datagrams(direction, &address(1));
        }
        nodes[0].until_logged("this gateway cannot forward: bad=beats rank=0");
        until_settled_without(&client, &all[1..], &all[..1]);
        run("nft", "flush chain ip drops input");
        until_settled(&client, &all);
        sampler.finish().assert_clean();
    });
}

/// Input: etcd is stopped, and then the daemon of one of two gateways, so that the other one has no witness and cannot name
/// none; then both go on. Output: while its lease holds, the other one answers no ARP, but its routes stay; then every VNI is
/// served.
#[test]
fn a_lost_proof_silences_arp_and_nothing_else() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let node = |i| Node::new(i, etcd.endpoint()).with("--lease-ttl", 120);
    let mut nodes = [node(1), node(2)];
    nodes.iter_mut().for_each(Node::start);
    let [one, two] = &nodes;
    until_settled(&client, &[one, two]);
    let owned = one.answering();
    assert!(owned > 0);
    let silent = Shown {
        arp: false,
        ..Shown::ALL
    };
    // On a busy machine the node may have lost its proof a moment before, for another reason, and name none for a
    // while: then its lease alone decides. That is no case of this test.
    let is_shown = (1..=5).any(|_| {
        until_settled(&client, &[one, two]);
        until_witnessed(&client, &[one, two]);
        eventually("it has heard of that", || (!names_none(one)).then_some(()));
        let window = epoch_of(&client, one).map_or(Duration::ZERO, |epoch| epoch.window);
        etcd.stop();
        two.stop();
        eventually("it answers no ARP, or its lease alone decides", || {
            (one.answering() == 0 || names_none(one)).then_some(())
        });
        // Longer than a window and its margin.
        thread::sleep(2 * window);
        let shown = one.exposure().into_iter();
        let count = shown.filter(|it| *it == silent).count();
        let is_case = !names_none(one);
        assert!(!is_case || count == owned, "{count} of {owned} are silent");
        two.cont();
        etcd.cont();
        is_case
    });
    assert!(is_shown, "it named no witness each time");
    until_settled(&client, &[one, two]);
    until_witnessed(&client, &[one, two]);
}

/// Whether the epoch in place of a node, as it logs it, names no witness.
fn names_none(node: &Node) -> bool {
    let log = node.log();
    let last = |part: &str| log.rfind(part);
    last("its lease alone decides") > last("they end this node's lease early")
}

/// Input: the guard of one of two is stopped for a moment, until it was late to send a beat. Output: that is logged, the
/// window is doubled, and no node is evicted.
#[test]
fn a_guard_that_is_late_doubles_its_window() {
    let window = Duration::from_secs(4);
    let etcd = Etcd::start();
    let client = etcd.client();
    let node = |i| {
        Node::new(i, etcd.endpoint())
            .with("--lease-ttl", TTL)
            .with("--detect-window", window.as_secs())
    };
    let mut nodes = [node(1), node(2)];
    nodes.iter_mut().for_each(Node::start);
    until_settled(&client, &refs(&nodes));
    until_witnessed(&client, &refs(&nodes));
    let before = now(&client);
    let guard = nodes[0].guard_pid();
    eventually("it is careful", || {
        kill(guard, Signal::SIGSTOP).unwrap();
        // A beat is due each fifth of the window, and is late after a sixteenth; the node names other witnesses once none
        // has acknowledged a beat for half of it.
        thread::sleep(window * 28 / 100);
        kill(guard, Signal::SIGCONT).unwrap();
        thread::sleep(window / 2);
        let epoch = epoch_of(&client, &nodes[0])?;
        (epoch.window >= 2 * window).then_some(())
    });
    assert!(nodes[0].logged("the guard was late to send beats") > 0);
    assert_none_evicted(&client, before);
}

/// Input: of three nodes with leases of two minutes, one is cut off from the others and from etcd, each way, and lives.
/// Output: it stops answering before the others, which evict it, answer for its VNIs, and never does again while it is
/// cut off; no two nodes ever answer for a VNI. Once it reaches them again, it takes part with a new lease.
#[test]
fn a_node_that_is_cut_off_is_silent_before_its_lease_ends() {
    in_a_network(|| {
        let etcd = Etcd::start();
        let client = etcd.client();
        let proxy = Proxy::start(loopback(etcd.port()));
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            let endpoint = match i {
                1 => format!("http://{}", proxy.addr()),
                _ => etcd.endpoint().to_string(),
            };
            Node::new(i, endpoint)
                .with("--lease-ttl", TTL)
                .with("--beat-address", address(i))
        };
        let mut nodes: Vec<Node> = (1..=3).map(node).collect();
        nodes.iter_mut().for_each(Node::start);
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        assert!(nodes[0].answering() > 0);
        let before = now(&client);
        let sampler = Sampler::start(etcd.client(), &refs(&nodes));
        run("nft", "add table ip cut");
        run(
            "nft",
            "add chain ip cut input { type filter hook input priority 0 ; }",
        );
        proxy.blackhole();
        for direction in ["saddr", "daddr"] {
            let match_it = format!("ip {direction} {} meta l4proto udp", address(1));
            run("nft", &format!("add rule ip cut input {match_it} drop"));
        }
        eventually("it is silent", || (nodes[0].answering() == 0).then_some(()));
        until_settled_without(&client, &refs(&nodes[1..]), &[]);
        let events = since(&client, &key(&nodes[0]), before);
        let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
        assert!(events.iter().any(is_evicted), "{events:?}");
        // Long enough for its daemon and its guard to try.
        thread::sleep(Duration::from_secs(3));
        assert_eq!(nodes[0].answering(), 0);
        run("nft", "delete table ip cut");
        proxy.pass();
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        sampler.finish().assert_never_two();
    });
}

/// Input: three nodes lose etcd, and the beats of one are dropped, but not its acknowledgements. Output: that one has no
/// proof, also when another guard takes over, and acknowledges no beat of the others, which prove each other.
#[test]
fn a_node_without_proof_acknowledges_nothing() {
    in_a_network(|| {
        let etcd = Etcd::start();
        let client = etcd.client();
        let proxy = Proxy::start(loopback(etcd.port()));
        let (port, metrics) = (14789, 14790);
        let address = |i: u64| format!("127.0.0.{}", i + 10);
        let node = |i| {
            Node::new(i, format!("http://{}", proxy.addr()))
                .with("--lease-ttl", TTL)
                .with("--beat-address", format!("{}:{port}", address(i)))
        };
        let mut nodes = vec![
            node(1).with("--metrics", format!("127.0.0.1:{metrics}")),
            node(2),
            node(3),
        ];
        nodes.iter_mut().for_each(Node::start);
        until_settled(&client, &refs(&nodes));
        until_witnessed(&client, &refs(&nodes));
        assert!(nodes[0].answering() > 0);
        let received = |result: &str| {
            let page = scrape(metrics);
            page.get(&format!(
                "wmgwd_beats_received_total{{result=\"{result}\"}}"
            ))
        };
        assert!(received("acknowledged") > 0.0);
        eventually("its guard tells of beats and answers", || {
            let page = scrape(metrics);
            let (sent, answers) = ("wmgwd_beats_sent_total", "wmgwd_beat_answers_total");
            (page.get(sent) >= page.get(answers) && page.get(answers) > 0.0).then_some(())
        });
        make_firewall();
        proxy.blackhole();
        // Its beats go to this port, its acknowledgements come from it.
        let beats = format!("ip saddr {} udp dport {port}", address(1));
        run("nft", &format!("add rule ip drops input {beats} drop"));
        eventually("it is silent", || (nodes[0].answering() == 0).then_some(()));
        let more_dropped = |than: f64, count: f64| {
            eventually("it drops beats", || {
                (received("dropped") >= than + count).then_some(())
            });
        };
        more_dropped(received("dropped"), 1.0);
        let acknowledged = received("acknowledged");
        more_dropped(received("dropped"), 20.0);
        assert_eq!(received("acknowledged"), acknowledged);
        // Another guard must not take the lease alone for the proof.
        let guard = nodes[0].guard_pid();
        nodes[0].kill_guard();
        eventually("there is another guard", || {
            (nodes[0].guard_pid() != guard).then_some(())
        });
        more_dropped(received("dropped"), 20.0);
        assert_eq!(nodes[0].answering(), 0);
        assert_eq!(received("acknowledged"), acknowledged);
        assert!(nodes[1..].iter().all(|node| node.answering() > 0));
    });
}

/// Input: a node that publishes where it receives beats and records what comes; then at each node's address: datagrams
/// of all lengths, the recorded ones, and each with a bit changed, by the thousand. Output: no answer to any of it, no
/// eviction, no VNI moves.
#[test]
fn hostile_datagrams_do_nothing() {
    let (etcd, nodes) = cluster(2);
    let client = etcd.client();
    until_witnessed(&client, &refs(&nodes));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let lease = client.lease_grant(Duration::from_secs(600)).unwrap().id;
    let stranger = "a-stranger".parse().unwrap();
    let contact = Contact {
        run: Run(1),
        key: siphash::Key([1; 16]),
        address: socket.local_addr().unwrap(),
    };
    let published = schema::witness::publish_witness(&stranger, lease, &contact);
    assert!(client.txn(&published).unwrap().succeeded);
    let (rows, before) = (table(&client).rows, now(&client));

    let recorded: Vec<Vec<u8>> = (0..4)
        .map(|_| {
            let mut bytes = vec![0; 2000];
            let (length, _) = socket.recv_from(&mut bytes).unwrap();
            bytes.truncate(length);
            bytes
        })
        .collect();
    let addresses: Vec<SocketAddr> = nodes
        .iter()
        .map(|node| {
            let key = Key::Contact(node.name.clone());
            let reply = client.get(&key.bytes()).unwrap();
            match schema::read_value(&key, &reply.kvs[0].value).0 {
                Value::Contact(contact) => contact.address,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |bytes: &[u8]| {
        for address in &addresses {
            sender.send_to(bytes, address).unwrap();
        }
    };
    for length in 0..1400 {
        send(&vec![0xa5; length]);
    }
    for bytes in &recorded {
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            send(&changed);
        }
    }
    for _ in 0..5_000 {
        recorded.iter().for_each(|bytes| send(bytes));
    }
    sender
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    assert!(sender.recv(&mut [0; 100]).is_err(), "an answer");
    until_witnessed(&client, &refs(&nodes));
    assert_eq!(table(&client).rows, rows);
    let is_evicted = |event: &WatchEvent| standing(event) == Some(Standing::Evicted);
    assert!(!since(&client, EPOCHS, before).iter().any(is_evicted));
}
