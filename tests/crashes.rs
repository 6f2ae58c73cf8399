//! Daemons and guards that are killed, stopped, restarted and doubled.
#![allow(clippy::unwrap_used)]

mod common;

use common::node::{TTL, VNIS, refs, share};
use common::rows::{cluster, table, unsettled, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{DEADLINE, eventually};
use nix::sys::signal::{Signal, kill};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Input: SIGSTOP past the lease, then SIGCONT. Output: its guard silences it before etcd ends the lease (the
/// sampler knows), the others take over; after SIGCONT it claims nothing before it has a new lease, and gets
/// its share back.
#[test]
fn a_stopped_daemon_is_silenced_by_its_guard() {
    let (etcd, nodes) = cluster(3);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    let old = table(&client).nodes[nodes[0].name.as_str()];
    nodes[0].stop();
    let took = until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]));
    println!("failover of a stopped node: {took:?}");
    assert!(nodes[0].log().contains("the daemon is late"));
    let announced: u32 = (1..=VNIS).map(|vni| nodes[0].announced(vni)).sum();
    nodes[0].cont();
    let begun = Instant::now();
    let new = eventually("a new lease", || {
        let lease = table(&client).nodes.get(nodes[0].name.as_str()).copied();
        let now: u32 = (1..=VNIS).map(|vni| nodes[0].announced(vni)).sum();
        // Announcements come after claims, and claims after the lease: read in the other order.
        assert!(
            lease.is_some() || now == announced,
            "announced without a lease"
        );
        lease
    });
    println!("registered again {:?} after SIGCONT", begun.elapsed());
    assert_ne!(old, new);
    until_settled(&client, &refs(&nodes));
    sampler.finish().assert_clean();
}

/// Input: the daemon killed, and started again within its lease. Output: the same lease, no VNI unserved for
/// a moment, no row written.
#[test]
fn a_restart_within_the_lease_costs_nothing() {
    let (etcd, mut nodes) = cluster(2);
    let client = etcd.client();
    let before = table(&client);
    // The next start draws points: those that are registered must be kept.
    nodes[0].set("--uids", "");
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    let guard = nodes[0].guard_pid();
    for _ in 0..3 {
        nodes[0].kill9();
        let begun = Instant::now();
        nodes[0].start();
        let name = nodes[0].name.clone();
        let runs = nodes[0].logged("taken over from the run before");
        eventually(&format!("{name} adopts"), || {
            (nodes[0].logged("taken over from the run before") > runs).then_some(())
        });
        println!("adopted after {:?}", begun.elapsed());
    }
    // Over the end that the lease would have had without the new run.
    let until = Instant::now() + Duration::from_secs(TTL + 2);
    while Instant::now() < until {
        assert_eq!(unsettled(&client, &refs(&nodes), &[]), Ok(()));
        sleep(Duration::from_millis(50));
    }
    assert_eq!(table(&client), before);
    assert_eq!(
        nodes[0].guard_pid(),
        guard,
        "the guard went from run to run"
    );
    sampler.finish().assert_unbroken();
}

/// Input: the guard killed; then the daemon. Output: another guard, which knows enough to silence the node.
#[test]
fn a_lost_guard_is_replaced() {
    let (etcd, mut nodes) = cluster(2);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    let first = nodes[0].guard_pid();
    nodes[0].kill_guard();
    let second = eventually("another guard", || {
        let pids = nodes[0].guard_pids();
        (pids.len() == 1 && pids[0] != first).then(|| pids[0])
    });
    let memory = common::node::memory(second);
    println!("guard {first}, then {second}, of {memory} kB");
    assert_eq!(unsettled(&client, &refs(&nodes), &[]), Ok(()));
    // A guard that is there is not yet one that was told everything.
    sleep(Duration::from_secs(1));
    nodes[0].kill9();
    until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]));
    sampler.finish().assert_clean();
}

/// Input: the guard stopped, so that it hangs; then SIGTERM. Output: the daemon serves on, and ends in an
/// orderly way without waiting for it.
#[test]
fn a_guard_that_hangs_holds_nothing_up() {
    let (etcd, mut nodes) = cluster(1);
    let guard = nodes[0].guard_pid();
    kill(guard, Signal::SIGSTOP).unwrap();
    // Past the lease that it knows of.
    sleep(Duration::from_secs(TTL + 1));
    assert_eq!(unsettled(&etcd.client(), &refs(&nodes), &[]), Ok(()));
    nodes[0].term();
    assert_eq!(nodes[0].wait_exit().code(), Some(0));
    assert_eq!(nodes[0].answering(), 0);
    assert_eq!(nodes[0].guard_pids(), []);
}

/// Input: daemon and guard killed; `wmgwd withdraw` on the same host. Output: it shows nothing any more.
#[test]
fn withdraw_silences_what_nobody_guards() {
    let (_etcd, mut nodes) = cluster(1);
    nodes[0].kill9();
    nodes[0].kill_guard();
    assert_eq!(nodes[0].answering(), VNIS as usize, "the kernel goes on");
    let status = common::program::wmgwd()
        .args(["withdraw", "--mock", "--maxvni", &VNIS.to_string()])
        .env(wmgwd::host::mock::MIRROR_VARIABLE, &nodes[0].host.0)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let nothing = common::node::Shown::NOTHING;
    assert!(nodes[0].exposure().iter().all(|shown| *shown == nothing));
}

/// Input: a node killed together with its guard, and started again. Output: everything is withdrawn at
/// once, the name is free after its lease and not later, everything comes back.
#[test]
fn a_restart_without_guard_waits_for_the_lease_and_no_longer() {
    let (etcd, mut nodes) = cluster(1);
    let client = etcd.client();
    nodes[0].kill9();
    nodes[0].kill_guard();
    eventually("the guard is gone", || {
        nodes[0].guard_pids().is_empty().then_some(())
    });
    let killed = Instant::now();
    nodes[0].start();
    eventually("everything is withdrawn", || {
        (nodes[0].answering() == 0).then_some(())
    });
    let silent = killed.elapsed();
    until_settled(&client, &refs(&nodes));
    println!("silent after {silent:?}, back after {:?}", killed.elapsed());
    assert!(nodes[0].log().contains("waiting for that to end"));
    assert!(silent < killed.elapsed());
}

/// Input: the name of a living node, on its host and on another one. Output: a clear line, status 1, and the
/// living node not touched.
#[test]
fn a_name_in_use_is_refused() {
    let (etcd, nodes) = cluster(2);
    let client = etcd.client();
    let before = table(&client);
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));

    let mut same_host = nodes[0].twin(8, etcd.endpoint());
    same_host.start();
    assert_eq!(same_host.wait_exit().code(), Some(1));
    let log = same_host.log();
    assert!(
        log.contains("another wmgwd of this name runs on this host"),
        "{log}"
    );

    // Another address for the guard, as on another host.
    let localhost = format!("http://localhost:{}", etcd.port());
    let mut other_host = nodes[0].twin(9, localhost);
    let begun = Instant::now();
    other_host.start();
    assert_eq!(other_host.wait_exit().code(), Some(1));
    println!("refused after {:?}", begun.elapsed());
    let log = other_host.log();
    assert!(
        log.contains("is registered in etcd by another live wmgwd"),
        "{log}"
    );
    assert_eq!(other_host.answering(), 0);
    assert_eq!(other_host.guard_pids(), []);

    assert_eq!(table(&client), before);
    assert_eq!(unsettled(&client, &refs(&nodes), &[]), Ok(()));
    sampler.finish().assert_unbroken();
}

/// Input: a node that is killed (its guard too) and started again and again, with a hold-down that it never
/// lives through. Output: its VNIs go to the others once and stay there; idle VNIs are never moved.
#[test]
fn a_flapping_node_does_not_drag_vnis() {
    let (etcd, mut nodes) = cluster(2);
    let client = etcd.client();
    let share = share(&nodes[0], &refs(&nodes));
    assert!(!share.is_empty());
    let mut flapping = nodes.remove(0);
    flapping.set("--join-hold", 60);
    flapping.kill9();
    until_settled_without(&client, &refs(&nodes), &[&flapping]);
    let rows = table(&client).rows;
    for _ in 0..3 {
        flapping.start();
        eventually("it is registered", || {
            table(&client).has(&flapping).then_some(())
        });
        sleep(Duration::from_millis(500));
        flapping.kill9();
        flapping.kill_guard();
        eventually("it is forgotten", || {
            (!table(&client).has(&flapping)).then_some(())
        });
    }
    assert_eq!(table(&client).rows, rows, "nothing was written");
    println!("{} VNIs stayed", share.len());
    assert!(
        DEADLINE < Duration::from_secs(60),
        "the hold-down outlasts the test"
    );
}

/// Input: a daemon killed, and started again within its lease with a narrower range. Output: it does not take
/// over what it could not look after: what is out of its range goes to the other node, with no overlap, and
/// nothing is left on show when it ends.
#[test]
fn a_run_with_another_range_takes_nothing_over() {
    const KEPT: u32 = VNIS / 2;
    let (etcd, mut nodes) = cluster(2);
    let client = etcd.client();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    assert!(
        share(&nodes[0], &refs(&nodes))
            .iter()
            .any(|vni| *vni > KEPT)
    );
    nodes[0].kill9();
    nodes[0].set("--maxvni", KEPT);
    nodes[0].start();
    eventually("the rest goes to the other node", || {
        let table = table(&client);
        (KEPT + 1..=VNIS)
            .all(|vni| table.row(vni).current == nodes[1].name.as_str())
            .then_some(())
    });
    let owned = share(&nodes[0], &refs(&nodes));
    eventually("its own share comes back", || {
        let table = table(&client);
        let back = |vni: &&u32| table.row(**vni).current == nodes[0].name.as_str();
        let within = || owned.iter().filter(|vni| **vni <= KEPT);
        (within().filter(back).count() == within().count()).then_some(())
    });
    nodes[0].term();
    assert_eq!(nodes[0].wait_exit().code(), Some(0));
    assert_eq!(nodes[0].answering(), 0);
    sampler.finish().assert_clean();
}
