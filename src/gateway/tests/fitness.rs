//! A gateway that cannot forward, and the others.

use super::bench::*;
use crate::model::fitness::{Rank, Sign, SignSet};

fn bad(sign: Sign) -> SignSet {
    [sign].into_iter().collect()
}

fn of_rank(rank: Rank) -> Option<Fitness> {
    Some(Fitness {
        rank,
        bad: SignSet::NONE,
    })
}

/// This node owns all of `vnis`, and `gw2` is registered beside it, which says `fitness` of itself.
fn beside(vnis: u32, fitness: Option<Fitness>) -> Bench {
    let mut bench = Bench::ready(vnis);
    bench.own_all();
    bench.says("gw2", OTHERS_LEASE, fitness);
    // So far away from this node's point that it gets nothing while both are fit.
    let points = Some(Value::Points(vec![(1 << 63) + 1]));
    bench.change(Key::Node(name("gw2")), points, Some(OTHERS_LEASE));
    bench.settle();
    bench
}

/// The rows that the node writes within `millis`, and how many requests that takes.
fn written(bench: &mut Bench, millis: u64) -> (Vec<Write>, usize) {
    let end = bench.now + Duration::from_millis(millis);
    let (mut writes, mut requests) = (Vec::new(), 0);
    while bench.now <= end {
        bench.lease();
        let rows = bench.settle();
        bench.echo();
        if rows.is_empty() {
            bench.now = bench.now + Duration::from_millis(10);
            continue;
        }
        requests += 1;
        writes.extend(rows.iter().map(|row| row.write));
        bench.done(&rows);
    }
    (writes, requests)
}

/// Input: a node with 1000 VNIs loses its fabric; another is fit. Output: it says so, keeps its VNIs for 0.05 s, and
/// then gives all of them back in a few requests, and claims none again.
#[test]
fn an_unfit_owner_gives_its_vnis_back_in_batches() {
    let mut bench = beside(1_000, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::FabricLink)));
    assert_eq!(written(&mut bench, 40), (Vec::new(), 0));
    let (writes, requests) = written(&mut bench, 2_000);
    assert_eq!(writes, vec![Write::Vacate; 1_000]);
    assert!(requests <= 12, "{requests} requests");
    let mut vnis = bench.gateway.vnis.iter();
    assert!(vnis.all(|local| local.arp().answers() == Some(false)));
}

/// Input: the same, with a bridge that cannot be silenced. Output: its row is not given back before it is silent.
#[test]
fn an_unfit_owner_gives_back_only_what_is_silent() {
    let mut bench = beside(1, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::FabricLink)));
    let mut silence = Vec::new();
    while silence.is_empty() {
        bench.now = bench.now + Duration::from_millis(10);
        bench.lease();
        let effects = bench.plan();
        for effect in effects {
            match effect {
                Effect::Register { .. } => {
                    bench.registered(&effect);
                    bench.echo();
                }
                Effect::SwitchArp(switches) => silence = switches,
                Effect::Commit { rows, .. } => panic!("{rows:?} while it answers"),
                _ => {}
            }
        }
    }
    assert_eq!(silence, [(vni(1), false)]);
    bench.observe(Event::ArpSwitched(vec![(vni(1), ArpOutcome::Failed)]));
    let gives_back =
        |effects: &[Effect]| effects.iter().any(|it| matches!(it, Effect::Commit { .. }));
    assert!(!gives_back(&bench.plan()));
    let silent = ArpOutcome::Answers(false);
    bench.observe(Event::ArpSwitched(vec![(vni(1), silent)]));
    let effects = bench.plan();
    assert!(gives_back(&effects), "{effects:?}");
}

/// Input: the same, where no better node can take the VNIs: none at all, one that is as bad, one of an earlier
/// version, one whose signs are as bad a moment later. Output: the node keeps them.
#[test]
fn an_owner_keeps_what_no_better_node_takes() {
    for fitness in [of_rank(Rank::Unfit), of_rank(Rank::NoUplink), None] {
        let mut bench = beside(3, fitness);
        bench.observe(Event::Signs(bad(Sign::UplinkLink)));
        assert_eq!(written(&mut bench, 30_000), (Vec::new(), 0), "{fitness:?}");
    }
    let mut alone = Bench::ready(3);
    alone.own_all();
    alone.observe(Event::Signs(SignSet::ALL));
    assert_eq!(written(&mut alone, 30_000), (Vec::new(), 0));
    let mut bench = beside(3, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::Ospf)));
    assert_eq!(written(&mut bench, 150), (Vec::new(), 0));
    bench.says("gw2", OTHERS_LEASE, of_rank(Rank::NoUplink));
    assert_eq!(written(&mut bench, 30_000), (Vec::new(), 0));
    // The other is well again, and this one is not.
    bench.says("gw2", OTHERS_LEASE, of_rank(Rank::Fit));
    assert_eq!(written(&mut bench, 1_000).0, [Write::Vacate; 3]);
}

/// Input: an unfit owner whose signs are good again in time. Output: it keeps its VNIs, whatever its rank.
#[test]
fn an_owner_that_can_forward_again_keeps_its_vnis() {
    let mut bench = beside(3, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::FabricLink)));
    assert_eq!(written(&mut bench, 40), (Vec::new(), 0));
    bench.observe(Event::Signs(SignSet::NONE));
    assert_eq!(written(&mut bench, 30_000), (Vec::new(), 0));
}

/// Input: an unfit owner beside this node. Output: this node does not ask for a migration, however long it has been
/// there; once the owner has given the VNI back, it claims it, and answers at once.
#[test]
fn what_an_unfit_owner_gives_back_is_served_at_once() {
    let mut bench = Bench::ready(1);
    bench.says("gw2", OTHERS_LEASE, of_rank(Rank::Unfit));
    // The ring would give the VNI to the other if it were fit.
    let points = Some(Value::Points((0..64).map(|n| (n << 58) + 1).collect()));
    bench.change(Key::Node(name("gw2")), points, Some(OTHERS_LEASE));
    bench.row(vni(1), 1, "gw2");
    assert_eq!(written(&mut bench, 60_000), (Vec::new(), 0));
    bench.change(Key::Kind(vni(1)), Some(Value::Kind(Kind::Unassigned)), None);
    bench.change(Key::Current(vni(1)), Some(Value::Name(None)), None);
    bench.lease();
    let rows = bench.settle();
    assert_eq!(
        rows.iter().map(|row| row.write).collect::<Vec<_>>(),
        [Write::Claim]
    );
    bench.done(&rows);
    let _routes = bench.next();
    let local = bench.gateway.vnis.get(vni(1)).unwrap();
    assert_eq!(local.arp().answers(), Some(true));
}

/// Input: this node falls, and claims nothing between its fall and when etcd knows of it.
#[test]
fn nothing_is_claimed_before_the_rank_is_told() {
    let mut bench = beside(3, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::Evpn)));
    let [register] = &bench.next()[..] else {
        panic!("it registers its rank, and nothing else")
    };
    bench.change(Key::Kind(vni(1)), Some(Value::Kind(Kind::Unassigned)), None);
    bench.change(Key::Current(vni(1)), Some(Value::Name(None)), None);
    let effects = bench.next();
    let claims = effects.iter().any(|it| matches!(it, Effect::Commit { .. }));
    assert!(!claims, "{effects:?}");
    assert!(
        effects.contains(register),
        "still not answered: {effects:?}"
    );
}

/// Input: an unfit owner asks etcd to take a VNI back, etcd does not answer in time, and the signs are good again.
/// Output: it stays silent, since etcd may have taken it, and asks again.
#[test]
fn what_etcd_may_have_taken_back_is_not_served() {
    let mut bench = beside(1, of_rank(Rank::Fit));
    bench.observe(Event::Signs(bad(Sign::FabricLink)));
    assert_eq!(written(&mut bench, 40), (Vec::new(), 0));
    let mut rows = Vec::new();
    while rows.is_empty() {
        bench.now = bench.now + Duration::from_millis(10);
        bench.lease();
        rows = bench.settle();
    }
    assert_eq!(rows[0].write, Write::Vacate);
    bench.observe(Event::Committed(CommitOutcome::Failed(vec![vni(1)])));
    bench.observe(Event::Signs(SignSet::NONE));
    assert_eq!(written(&mut bench, 5_000).0, [Write::Vacate]);
    let local = bench.gateway.vnis.get(vni(1)).unwrap();
    assert_eq!(local.arp().answers(), Some(false));
}
