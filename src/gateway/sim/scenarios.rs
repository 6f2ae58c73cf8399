//! Stories with names: what an operator would try first. All without chance in them.

use super::cluster::{Cluster, Settings, ms};
use super::faults::Fault;
use super::node::Process;
use super::table;
use super::tables::Family;
use crate::gateway::{Exit, FrrDaemons};
use crate::model::fitness::{Rank, Sign, SignSet};
use crate::model::types::Vni;
use crate::schema::Key;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// `nodes` nodes that have come to rest.
fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(9, Settings::default());
    for n in 1..=nodes {
        cluster.add(&format!("gw{n}"), false);
    }
    rest(&mut cluster, "start");
    cluster
}

fn rest(cluster: &mut Cluster, what: &str) -> Duration {
    let took = cluster.run_until_done(LONG, what, Cluster::converged);
    good(cluster);
    took
}

fn good(cluster: &Cluster) {
    assert_eq!(cluster.failure, None);
}

/// Who owns each VNI, by etcd.
fn owners(cluster: &Cluster) -> Vec<Option<String>> {
    let owner = |vni| {
        let row = table::row(&cluster.etcd, vni);
        row.current.map(|name| name.name.to_string())
    };
    cluster.vnis().map(owner).collect()
}

fn vnis_of(cluster: &Cluster, n: usize) -> usize {
    let me = cluster.nodes[n].name().to_string();
    owners(cluster)
        .iter()
        .filter(|owner| owner.as_ref() == Some(&me))
        .count()
}

/// Input: three nodes start at once on an empty etcd. Output: every VNI has one owner, and nothing is
/// written from then on.
#[test]
fn three_nodes_share_the_vnis() {
    let mut cluster = cluster(3);
    assert!(
        (0..3).all(|n| vnis_of(&cluster, n) > 0),
        "{:?}",
        owners(&cluster)
    );
    cluster.check_rest();
    good(&cluster);
}

/// Input: one node dies. Output: the others serve its VNIs within its lease and a few seconds; the dead
/// node's own kernel is silent by then.
#[test]
fn others_take_over_from_a_dead_node() {
    let mut cluster = cluster(3);
    let kept: Vec<_> = owners(&cluster);
    cluster.strike(Fault::Crash(0));
    let served = |cluster: &Cluster| {
        let dead = |vni| {
            cluster.nodes[1..]
                .iter()
                .all(|node| !node.host.answers(vni))
        };
        let missing = cluster.vnis().filter(|&vni| dead(vni)).count();
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} unserved"))
        }
    };
    let took = cluster.run_until_done(LONG, "takeover", served);
    good(&cluster);
    let bound = cluster.settings.ttl + ms(500);
    assert!(took <= bound, "took {took:?}");
    rest(&mut cluster, "after the takeover");
    for (before, after) in kept.iter().zip(owners(&cluster)) {
        assert!(*before == after || before.as_deref() == Some("gw1"));
    }
}

/// Input: SIGTERM for one of three. Output: its VNIs move without a moment unserved, it withdraws, and
/// its key in etcd is gone.
#[test]
fn a_drained_node_hands_over_and_leaves() {
    let mut cluster = cluster(3);
    cluster.checker.available = true;
    cluster.strike(Fault::Drain(0));
    let left = |cluster: &Cluster| match cluster.nodes[0].process {
        Process::Down => Ok(()),
        _ => Err("still there".to_owned()),
    };
    let took = cluster.run_until_done(LONG, "drain", left);
    good(&cluster);
    assert!(took < ms(8_000), "took {took:?}");
    assert_eq!(cluster.nodes[0].exit, Some(Exit::Stopped));
    assert!(cluster.nodes[0].host.shows_nothing());
    cluster.run_for(ms(100));
    let key = Key::Node(cluster.nodes[0].name().clone()).bytes();
    assert_eq!(cluster.etcd.get(&key), None);
    assert!(cluster.checker.overlaps[0] > 0, "make before break");
    rest(&mut cluster, "after the drain");
}

/// Input: SIGTERM for the only node; SIGTERM twice for one of two. Output: both leave at once.
#[test]
fn a_drain_ends_without_others_and_with_a_second_signal() {
    let mut cluster = cluster(1);
    cluster.strike(Fault::Drain(0));
    cluster.run_for(ms(2_000));
    good(&cluster);
    assert_eq!(cluster.nodes[0].exit, Some(Exit::Stopped));
    assert!(cluster.nodes[0].host.shows_nothing());

    let mut cluster = self::cluster(2);
    cluster.strike(Fault::Drain(0));
    cluster.run_for(ms(20));
    cluster.strike(Fault::Stop(0));
    cluster.run_for(ms(1_000));
    good(&cluster);
    assert_eq!(cluster.nodes[0].exit, Some(Exit::Stopped));
    assert!(cluster.nodes[0].host.shows_nothing());
    rest(&mut cluster, "after the stop");
}

/// Input: a third node joins two. Output: it takes nothing from a living owner before its hold-down is
/// over, and its share after.
#[test]
fn a_node_that_joins_waits_before_it_pulls() {
    let mut cluster = cluster(2);
    cluster.checker.available = true;
    let n = cluster.add("gw3", false);
    cluster.run_for(cluster.settings.join_hold - ms(500));
    good(&cluster);
    assert_eq!(vnis_of(&cluster, n), 0);
    rest(&mut cluster, "after the join");
    assert!(vnis_of(&cluster, n) > 0);
}

/// Input: a node that is killed and restarted every few seconds. Output: others serve its VNIs from its
/// first death on, and not one goes back to it.
#[test]
fn a_node_that_flaps_gets_nothing_back() {
    let mut cluster = cluster(3);
    cluster.strike(Fault::Crash(0));
    rest(&mut cluster, "after its first death");
    let settled = owners(&cluster);
    for _ in 0..8 {
        cluster.strike(Fault::Start(0));
        cluster.run_for(ms(12_000));
        assert_eq!(owners(&cluster), settled);
        cluster.strike(Fault::Crash(0));
        cluster.run_for(ms(3_000));
        assert_eq!(owners(&cluster), settled);
    }
    good(&cluster);
}

/// Input: etcd is away for less than the lease. Output: nothing is withdrawn and no row is written.
#[test]
fn a_short_outage_of_etcd_changes_nothing() {
    let mut cluster = cluster(3);
    cluster.checker.available = true;
    let before = cluster.etcd.range(b"/wmgwd/vni/").kvs;
    cluster.strike(Fault::EtcdDown);
    cluster.run_for(ms(4_500));
    cluster.strike(Fault::EtcdUp);
    cluster.run_for(ms(20_000));
    good(&cluster);
    assert_eq!(cluster.etcd.range(b"/wmgwd/vni/").kvs, before);
}

/// Input: etcd is away for an hour. Output: everything is withdrawn meanwhile, and is back soon after.
#[test]
fn a_long_outage_of_etcd_fences_and_heals() {
    let mut cluster = cluster(3);
    cluster.strike(Fault::EtcdDown);
    cluster.run_for(ms(12_000));
    assert!(cluster.nodes.iter().all(|node| node.host.shows_nothing()));
    cluster.run_for(Duration::from_secs(3_600));
    assert!(cluster.nodes.iter().all(|node| node.host.shows_nothing()));
    cluster.strike(Fault::EtcdUp);
    let took = rest(&mut cluster, "after the outage");
    assert!(took <= ms(10_000), "took {took:?}");
}

/// Input: one node is cut from etcd for longer than its lease. Output: it is silent before the others
/// take over, and gets back what is its own.
#[test]
fn a_node_that_is_cut_off_is_silent_in_time() {
    let mut cluster = cluster(3);
    let before = owners(&cluster);
    cluster.strike(Fault::Cut(1));
    cluster.run_for(cluster.settings.ttl + ms(1_000));
    good(&cluster);
    assert!(cluster.nodes[1].host.shows_nothing());
    assert_eq!(vnis_of(&cluster, 1), 0);
    cluster.strike(Fault::Heal(1));
    rest(&mut cluster, "after the cut");
    assert_eq!(owners(&cluster), before);
}

/// Input: etcd is set back to before the VNIs of one node moved to it, while that node's worker hangs for longer than
/// the others wait. Output: the node does not answer any more when they serve what it had.
#[test]
fn a_hanging_worker_answers_nothing_once_etcd_is_set_back() {
    let mut cluster = cluster(3);
    cluster.strike(Fault::TakeOut(2));
    rest(&mut cluster, "without the third node");
    cluster.strike(Fault::Backup);
    cluster.strike(Fault::BringBack(2));
    rest(&mut cluster, "with the third node");
    assert!(vnis_of(&cluster, 2) > 0);
    let hangs = ms(40_000);
    let until = cluster.now + hangs;
    let worker = cluster.own(2).expect("it runs");
    worker.stalled_until = until;
    cluster.strike(Fault::Rewind);
    cluster.run_for(hangs - ms(1_000));
    good(&cluster);
    for family in [Family::Arp, Family::Ip6] {
        assert!(!cluster.nodes[2].host.answers_any(family));
    }
    assert_eq!(vnis_of(&cluster, 2), 0);
    cluster.strike(Fault::BringBack(2));
    rest(&mut cluster, "after the worker hung");
    assert!(vnis_of(&cluster, 2) > 0);
}

/// Input: a process is stopped for much longer than its lease, then goes on. Output: its guard has
/// silenced it in time, and when it wakes it claims nothing without a new lease.
#[test]
fn a_paused_process_claims_nothing_when_it_wakes() {
    let mut cluster = cluster(3);
    cluster.strike(Fault::Pause(0));
    cluster.run_for(ms(60_000));
    good(&cluster);
    assert!(cluster.nodes[0].host.shows_nothing());
    assert_eq!(vnis_of(&cluster, 0), 0);
    cluster.strike(Fault::Resume(0));
    rest(&mut cluster, "after the pause");
    assert!(vnis_of(&cluster, 0) > 0);
}

/// Input: FRR's daemons restart under a node. Output: the costs of VNIs that it does not own are set
/// first; then everything is as before, and no row was written.
#[test]
fn frr_is_told_again_after_a_restart() {
    let mut cluster = cluster(3);
    let before = cluster.etcd.range(b"/wmgwd/vni/").kvs;
    let both = FrrDaemons {
        bgpd: true,
        ospfd: true,
    };
    cluster.strike(Fault::FrrStop(0, both));
    cluster.strike(Fault::FrrStart(0));
    let unset = |cluster: &Cluster, owned: bool| {
        let me = cluster.nodes[0].name().to_string();
        let mine = |vni: Vni| owners(cluster)[vni.get() as usize - 1].as_ref() == Some(&me);
        let bridge = |vni| cluster.nodes[0].host.bridge(vni);
        cluster
            .vnis()
            .filter(|&vni| mine(vni) == owned && bridge(vni).cost == Some(10))
            .count()
    };
    let set = |cluster: &Cluster| match unset(cluster, false) {
        0 => Ok(()),
        left => Err(format!("{left} unowned costs are not set")),
    };
    let took = cluster.run_until_done(ms(5_000), "costs of others", set);
    good(&cluster);
    assert!(took <= ms(1_500), "took {took:?}");
    rest(&mut cluster, "after the restart");
    assert_eq!(cluster.etcd.range(b"/wmgwd/vni/").kvs, before);
}

/// Input: FRR stays down on one node. Output: the node gives its VNIs away and takes none, until FRR is
/// back.
#[test]
fn a_node_without_frr_gives_its_vnis_away() {
    let mut cluster = cluster(3);
    let bgpd = FrrDaemons {
        bgpd: true,
        ospfd: false,
    };
    cluster.strike(Fault::FrrStop(2, bgpd));
    cluster.run_for(ms(30_000));
    good(&cluster);
    assert_eq!(vnis_of(&cluster, 2), 0);
    // What bgpd cannot do must not keep ospfd from giving way to the new owners.
    assert!(cluster.nodes[2].host.shows_nothing());
    cluster.strike(Fault::FrrStart(2));
    // It is trusted after a while.
    cluster.run_for(ms(15_000));
    rest(&mut cluster, "FRR is back");
    assert!(vnis_of(&cluster, 2) > 0);
}

/// Input: a second instance with the name of one that lives. Output: it waits for one lease, touches
/// nothing, and ends with the reason; the first goes on.
#[test]
fn a_second_instance_of_a_name_ends() {
    let mut cluster = cluster(2);
    let before = cluster.etcd.range(b"/wmgwd/vni/").kvs;
    let twin = cluster.add("gw1", false);
    cluster.run_for(ms(25_000));
    good(&cluster);
    assert_eq!(cluster.nodes[twin].exit, Some(Exit::NameTaken));
    assert!(cluster.nodes[twin].host.shows_nothing());
    assert_eq!(cluster.etcd.range(b"/wmgwd/vni/").kvs, before);
}

/// Input: a crashed node restarts at once. Output: it is back within its old lease and a little more.
#[test]
fn a_restart_waits_for_its_own_old_lease_only() {
    let mut cluster = cluster(1);
    cluster.strike(Fault::Crash(0));
    cluster.run_for(ms(200));
    cluster.strike(Fault::Start(0));
    let took = rest(&mut cluster, "after the restart");
    assert!(took <= cluster.settings.ttl + ms(6_500), "took {took:?}");
}

/// Input: a bridge is missing on the node that the ring names. Output: the present owner keeps the VNI;
/// when the bridge appears the VNI moves.
#[test]
fn a_vni_does_not_move_to_a_missing_bridge() {
    let mut cluster = cluster(2);
    cluster.checker.available = true;
    let n = cluster.add("gw3", false);
    let vnis: Vec<Vni> = cluster.vnis().collect();
    for &vni in &vnis {
        cluster.strike(Fault::RemoveBridge(n, vni));
    }
    cluster.run_for(ms(60_000));
    good(&cluster);
    assert_eq!(vnis_of(&cluster, n), 0);
    for &vni in &vnis {
        cluster.strike(Fault::AddBridge(n, vni));
    }
    cluster.run_until_done(LONG, "the bridges are there", Cluster::told_truly);
    rest(&mut cluster, "the bridges are there");
    assert!(vnis_of(&cluster, n) > 0);
}

/// Input: a Go node joins nodes of this program, and one of these joins Go nodes; then a Go node drains. Output: they
/// share the VNIs, and all of them move.
#[test]
fn go_nodes_and_ours_share_a_cluster() {
    let mut cluster = Cluster::new(
        9,
        Settings {
            vnis: 20,
            ..Settings::default()
        },
    );
    cluster.add("gw1", false);
    let go = cluster.add("gw2", true);
    rest(&mut cluster, "one of each");
    cluster.add("gw3", true);
    cluster.add("gw4", false);
    rest(&mut cluster, "two of each");
    assert!(
        (0..4).all(|n| vnis_of(&cluster, n) > 0),
        "{:?}",
        owners(&cluster)
    );
    cluster.strike(Fault::Drain(go));
    let gone = |cluster: &Cluster| match cluster.nodes[go].exit {
        Some(Exit::Stopped) => Ok(()),
        _ => Err("it runs".to_owned()),
    };
    cluster.run_until_done(LONG, "the Go node drains", gone);
    rest(&mut cluster, "the Go node has drained");
    cluster.strike(Fault::Crash(2));
    rest(&mut cluster, "the other Go node is gone");
}

/// Input: an operator takes one of three out, restarts it meanwhile, kills another, and brings it back. Output:
/// its VNIs move without a moment unserved; it stays, takes nothing, not even what the dead one leaves, and gets
/// the same VNIs back.
#[test]
fn a_node_that_is_taken_out_stays_and_takes_nothing() {
    let mut cluster = cluster(3);
    cluster.checker.available = true;
    let before = owners(&cluster);
    cluster.strike(Fault::TakeOut(0));
    let took = rest(&mut cluster, "taken out");
    assert!(took < ms(8_000), "took {took:?}");
    assert_eq!(vnis_of(&cluster, 0), 0);
    assert!(cluster.nodes[0].host.shows_nothing() && cluster.nodes[0].runs());

    cluster.checker.available = false;
    cluster.strike(Fault::Crash(0));
    cluster.run_for(ms(500));
    cluster.strike(Fault::Start(0));
    rest(&mut cluster, "restarted while it is out");
    cluster.strike(Fault::Crash(1));
    rest(&mut cluster, "another died");
    assert_eq!(vnis_of(&cluster, 0), 0);
    assert_eq!(vnis_of(&cluster, 2), cluster.vnis().count());
    cluster.strike(Fault::Start(1));
    rest(&mut cluster, "the other is back");

    cluster.checker.available = true;
    cluster.strike(Fault::BringBack(0));
    cluster.run_for(ms(1_000));
    rest(&mut cluster, "brought back");
    assert_eq!(owners(&cluster), before);
}

/// Input: an operator takes all nodes out. Output: they keep what they have; what a dead one leaves stays
/// unserved until one is brought back; SIGTERM still ends a node that is out.
#[test]
fn without_another_node_a_node_that_is_taken_out_keeps_what_it_has() {
    let mut cluster = cluster(2);
    cluster.checker.available = true;
    cluster.strike(Fault::TakeOut(0));
    rest(&mut cluster, "one is out");
    cluster.strike(Fault::TakeOut(1));
    cluster.run_for(ms(60_000));
    good(&cluster);
    assert_eq!(vnis_of(&cluster, 1), cluster.vnis().count());
    cluster.checker.available = false;
    cluster.strike(Fault::Crash(1));
    cluster.run_for(ms(60_000));
    good(&cluster);
    assert!(cluster.nodes[0].host.shows_nothing());
    cluster.strike(Fault::BringBack(0));
    rest(&mut cluster, "brought back");
    assert_eq!(vnis_of(&cluster, 0), cluster.vnis().count());
    cluster.strike(Fault::TakeOut(0));
    cluster.strike(Fault::Drain(0));
    cluster.run_for(ms(5_000));
    good(&cluster);
    assert_eq!(cluster.nodes[0].exit, Some(Exit::Stopped));
}

/// Every VNI is answered and routed by a node.
fn served(cluster: &Cluster) -> Result<(), String> {
    let is_served = |vni: &Vni| {
        let nodes = cluster.nodes.iter();
        let mut bridges = nodes.map(|node| (node, node.host.bridge(*vni)));
        bridges.any(|(node, it)| node.host.answers(*vni) && it.evpn && it.cost == Some(100))
    };
    let missing: Vec<Vni> = cluster.vnis().filter(|vni| !is_served(vni)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("not served: {missing:?}")),
    }
}

/// The VNIs of node `n`.
fn share(cluster: &Cluster, n: usize) -> Vec<Vni> {
    let me = cluster.nodes[n].name().to_string();
    let owners = owners(cluster);
    let is_mine = |vni: &Vni| owners[vni.get() as usize - 1].as_ref() == Some(&me);
    cluster.vnis().filter(is_mine).collect()
}

/// How many transactions the nodes have sent for rows.
fn commits(cluster: &Cluster) -> u64 {
    cluster.nodes.iter().map(|node| node.commits).sum()
}

/// Input: the owner's bridges are deleted, or the kernel refuses to let them answer; then it drains, at once or
/// later. Output: the drain ends, and others serve its VNIs.
#[test]
fn an_owner_that_cannot_answer_lets_its_vnis_go() {
    for (deleted, later) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut cluster = cluster(3);
        for vni in share(&cluster, 0) {
            if deleted {
                cluster.strike(Fault::RemoveBridge(0, vni));
            } else {
                cluster.strike(Fault::RefuseArp(0, vni, true));
                cluster.nodes[0].host.bridge_mut(vni).arp = false;
            }
        }
        if later {
            // The audit has found it by then.
            cluster.run_for(ms(45_000));
            cluster.run_until_done(LONG, "others serve", served);
            good(&cluster);
        }
        cluster.strike(Fault::Drain(0));
        let left = |cluster: &Cluster| match cluster.nodes[0].exit {
            Some(Exit::Stopped) => Ok(()),
            exit => Err(format!("{exit:?}")),
        };
        cluster.run_until_done(ms(30_000), "drain", left);
        rest(&mut cluster, "after the drain");
    }
}

/// Input: an owner's bridge is deleted. Output: it gives the VNI back, and another node serves it within a second;
/// when the bridge is there again it gets the VNI back, but not at once.
#[test]
fn a_vni_whose_bridge_is_deleted_moves_at_once() {
    let mut cluster = cluster(3);
    let before = owners(&cluster);
    let vni = share(&cluster, 0)[0];
    cluster.strike(Fault::RemoveBridge(0, vni));
    let took = cluster.run_until_done(LONG, "another node serves", served);
    good(&cluster);
    assert!(took <= ms(1_500), "took {took:?}");
    cluster.strike(Fault::AddBridge(0, vni));
    cluster.run_for(ms(10_000));
    assert_ne!(owners(&cluster), before);
    cluster.run_until_done(LONG, "it holds nothing back", Cluster::told_truly);
    rest(&mut cluster, "the bridge is back");
    assert_eq!(owners(&cluster), before);
}

/// Input: an owner dies; another node refuses its VNIs for ever: each of them, or its FRR refuses every change.
/// Output: after about 10 s the third serves them; the node that refuses is tried again, more and more seldom.
#[test]
fn a_node_that_refuses_for_ever_is_passed_over() {
    for (whole, refuses) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let mut cluster = cluster(3);
        let dead = share(&cluster, 0);
        if whole {
            cluster.strike(Fault::RefuseAll(refuses, true));
        } else {
            for &vni in &dead {
                cluster.strike(Fault::RefuseRoutes(refuses, vni, true));
            }
        }
        cluster.strike(Fault::Crash(0));
        cluster.run_for(cluster.settings.ttl);
        let took = cluster.run_until_done(LONG, "another node serves", served);
        good(&cluster);
        assert!(took <= ms(13_000), "took {took:?}");
        cluster.run_for(ms(60_000));
        if whole {
            // What it cannot withdraw it goes on showing, but it does not own it.
            let kept = share(&cluster, refuses);
            assert!(kept.iter().all(|vni| !dead.contains(vni)), "{kept:?}");
        } else {
            rest(&mut cluster, "after the takeover");
        }
        let written = commits(&cluster);
        cluster.run_for(Duration::from_secs(3_600));
        good(&cluster);
        assert_eq!(served(&cluster), Ok(()));
        let written = commits(&cluster) - written;
        assert!(written < 100, "{written} commits in an hour");
    }
}

/// Input: an owner dies, and an FRR that was to take its VNIs over never answers. Output: after about 10 s another node
/// serves them, and soon the VNIs of the node without FRR, too, which leaves the ring. Input: its FRR answers again.
/// Output: it gets its VNIs back.
#[test]
fn a_node_whose_frr_never_answers_is_passed_over() {
    let mut cluster = cluster(3);
    let before = owners(&cluster);
    cluster.strike(Fault::Deaf(1, true));
    cluster.strike(Fault::Crash(0));
    cluster.run_for(cluster.settings.ttl);
    let took = cluster.run_until_done(LONG, "another node serves", served);
    good(&cluster);
    assert!(took <= ms(13_000), "took {took:?}");
    let all_at_the_third = |cluster: &Cluster| match share(cluster, 1).len() {
        0 => Ok(()),
        left => Err(format!("{left} VNIs at the node without FRR")),
    };
    cluster.run_until_done(LONG, "it leaves the ring", all_at_the_third);
    cluster.run_for(Duration::from_secs(3_600));
    good(&cluster);
    assert_eq!(served(&cluster), Ok(()));
    cluster.strike(Fault::Deaf(1, false));
    cluster.strike(Fault::Start(0));
    rest(&mut cluster, "FRR answers");
    assert_eq!(owners(&cluster), before);
}

/// Input: no node can serve a VNI. Output: rows are written seldom. Input: one of them can again. Output: it serves
/// the VNI soon.
#[test]
fn a_vni_that_no_node_can_serve_is_no_busy_loop() {
    let mut cluster = cluster(3);
    let vni = share(&cluster, 0)[0];
    for n in 0..3 {
        cluster.strike(Fault::RefuseRoutes(n, vni, true));
    }
    cluster.strike(Fault::Crash(0));
    cluster.run_for(ms(60_000));
    let written = commits(&cluster);
    cluster.run_for(Duration::from_secs(3_600));
    good(&cluster);
    let written = commits(&cluster) - written;
    assert!(written < 100, "{written} commits in an hour");
    cluster.strike(Fault::RefuseRoutes(2, vni, false));
    let took = cluster.run_until_done(Duration::from_secs(400), "served", served);
    good(&cluster);
    assert!(took < ms(320_000), "took {took:?}");
}

/// Input: VNIs without a bridge on any node. Output: nothing is written for them; when the bridge comes on one
/// node, that node serves the VNI at once.
#[test]
fn a_vni_without_a_bridge_anywhere_costs_nothing() {
    let mut cluster = Cluster::new(8, Settings::default());
    for n in 0..3 {
        let node = cluster.add(&format!("gw{}", n + 1), false);
        let vnis: Vec<Vni> = cluster.vnis().skip(2).collect();
        for vni in vnis {
            cluster.strike(Fault::RemoveBridge(node, vni));
        }
    }
    cluster.run_until_done(LONG, "it is known", Cluster::told_truly);
    rest(&mut cluster, "start");
    cluster.check_rest();
    good(&cluster);
    assert_eq!(owners(&cluster).iter().flatten().count(), 2);
    let vni = cluster.vnis().last();
    cluster.strike(Fault::AddBridge(1, vni.expect("six VNIs")));
    cluster.run_for(ms(3_000));
    good(&cluster);
    assert!(share(&cluster, 1).last() == vni.as_ref());
}

fn signs(signs: &[Sign]) -> SignSet {
    signs.iter().copied().collect()
}

/// Until no VNI is owned by gateway 0 and every one is answered for.
fn until_given_away(cluster: &mut Cluster) -> Duration {
    let given = |cluster: &Cluster| {
        let answered = |vni| cluster.nodes[1..].iter().any(|node| node.host.answers(vni));
        match vnis_of(cluster, 0) == 0 && cluster.vnis().all(answered) {
            true => Ok(()),
            false => Err(format!("{:?}", owners(cluster))),
        }
    };
    let begun = cluster.now;
    while given(cluster).is_err() && cluster.failure.is_none() {
        assert!(cluster.now.since(begun) < LONG, "{:?}", owners(cluster));
        cluster.run_for(ms(10));
    }
    good(cluster);
    cluster.now.since(begun)
}

/// Input: one of three gateways loses its fabric, and has it back after 20 s. Output: the others serve its VNIs
/// within half a second; the others' own do not move; it gets its VNIs back without a moment unserved.
#[test]
fn a_gateway_without_its_fabric_gives_its_vnis_away() {
    let mut cluster = cluster(3);
    cluster.run_for(LONG);
    let before = owners(&cluster);
    cluster.strike(Fault::Signs(0, signs(&[Sign::FabricLink, Sign::Evpn])));
    let took = until_given_away(&mut cluster);
    assert!(took <= ms(500), "{took:?}");
    assert!(cluster.checker.gave_way > 0);
    for (before, after) in before.iter().zip(owners(&cluster)) {
        assert!(before.as_deref() == Some("gw1") || *before == after);
    }
    cluster.run_for(ms(20_000));
    cluster.checker.available = true;
    cluster.strike(Fault::Signs(0, SignSet::NONE));
    cluster.run_for(ms(5_000));
    assert_eq!(vnis_of(&cluster, 0), 0, "it is not trusted yet");
    cluster.run_for(LONG);
    good(&cluster);
    assert_eq!(owners(&cluster), before);
}

/// Input: all gateways lose their OSPF neighbours within 0.15 s of each other, and have them back within 3 s; or all
/// lose their carriers within 0.03 s. Output: no row is written.
#[test]
fn what_strikes_all_gateways_moves_nothing() {
    for (sign, apart) in [(Sign::Ospf, 70), (Sign::UplinkLink, 15)] {
        struck_together(sign, apart);
    }
}

fn struck_together(sign: Sign, apart: u64) {
    let mut cluster = cluster(3);
    cluster.run_for(LONG);
    let (before, written) = (owners(&cluster), commits(&cluster));
    for n in 0..3 {
        let at = ms(apart * n as u64);
        cluster.schedule(at, Fault::Signs(n, signs(&[sign])));
        let back = at + ms(20_000 + 1_500 * n as u64);
        cluster.schedule(back, Fault::Signs(n, SignSet::NONE));
    }
    cluster.run_for(LONG * 3);
    good(&cluster);
    assert_eq!((owners(&cluster), commits(&cluster)), (before, written));
    let ranks = (0..3).map(|n| {
        cluster
            .meta(cluster.nodes[n].name())
            .and_then(|it| it.fitness)
    });
    assert!(ranks.flatten().all(|it| it.rank == Rank::Fit));
}

/// Input: a link of one gateway flaps every 3 s for a minute. Output: its VNIs leave once and come back once.
#[test]
fn a_flapping_gateway_moves_its_vnis_once() {
    let mut cluster = cluster(3);
    cluster.run_for(LONG);
    let before = owners(&cluster);
    let written = commits(&cluster);
    for flap in 0..10 {
        cluster.schedule(
            ms(flap * 6_000),
            Fault::Signs(0, signs(&[Sign::UplinkLink])),
        );
        cluster.schedule(ms(flap * 6_000 + 3_000), Fault::Signs(0, SignSet::NONE));
    }
    let flapping_ends = cluster.now + ms(57_000);
    until_given_away(&mut cluster);
    cluster.run_for(ms(1_000));
    let away = owners(&cluster);
    // The signs are good for 10 s before the rank rises.
    while cluster.now < flapping_ends + ms(9_000) {
        assert_eq!(owners(&cluster), away);
        cluster.run_for(ms(500));
        good(&cluster);
    }
    cluster.run_for(LONG);
    good(&cluster);
    assert_eq!(owners(&cluster), before);
    assert!(
        commits(&cluster) - written < 200,
        "{}",
        commits(&cluster) - written
    );
}

/// Input: the gateways lose their uplinks one after the other, the last one a minute after the second. Output: the
/// last one has taken all VNIs, and keeps them.
#[test]
fn the_last_fit_gateway_keeps_its_vnis() {
    let mut cluster = cluster(3);
    for n in [0, 1] {
        cluster.strike(Fault::Signs(n, signs(&[Sign::UplinkLink])));
        cluster.run_for(LONG);
    }
    assert_eq!(vnis_of(&cluster, 2), 6);
    let written = commits(&cluster);
    cluster.strike(Fault::Signs(2, signs(&[Sign::UplinkLink])));
    cluster.run_for(ms(40));
    assert_eq!((vnis_of(&cluster, 2), commits(&cluster)), (6, written));
    cluster.checker.available = true;
    cluster.run_for(LONG * 3);
    good(&cluster);
    assert_eq!((vnis_of(&cluster, 2), commits(&cluster)), (6, written));
}
