//! Single decisions of a node, one event at a time. (Whole clusters: `sim`.)

#![allow(clippy::unwrap_used)]
mod bench;
mod fitness;
mod host;
mod leaving;
mod owners;
mod scale;
mod watch_pause;
mod writer;

use crate::model::fitness::{Rank, Sign, SignSet};
use bench::*;

/// Input: a start. Output: the host is silenced and reset before anything is known; the node registers
/// once it has a lease, a snapshot and a clean host, and writes no row before it is registered.
#[test]
fn nothing_is_claimed_before_the_host_is_clean() {
    let mut bench = Bench::new(2);
    bench.observe(Event::Health(healthy()));
    let (parts, keep) = (FrrDaemons::ALL, BTreeSet::new());
    assert_eq!(bench.next(), [Effect::ResetRoutes { parts, keep }]);
    bench.lease();
    assert_eq!(bench.next(), []);
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: Vec::new(),
    });
    assert_eq!(bench.next(), [], "the reset is still under way");
    bench.observe(Event::RoutesReset(FrrDaemons::ALL));
    let points = vec![1 << 63];
    let register = Effect::Register(registration(points));
    assert_eq!(bench.next(), [register]);
}

/// Input: as above, but FRR does not run. Output: registered all the same; with its points, and as unfit. Where
/// `frr` is not tracked, or beside a node that does not read ranks: without ring points.
#[test]
fn a_node_without_frr_registers_as_unfit() {
    let frr = [Sign::Frr].into_iter().collect();
    let unfit = Fitness {
        rank: Rank::Unfit,
        bad: frr,
    };
    for (track, go, points, fitness) in [
        (SignSet::ALL, false, vec![1 << 63], unfit),
        (SignSet::ALL, true, Vec::new(), unfit),
        (
            SignSet::ALL.without(frr),
            false,
            Vec::new(),
            Fitness::default(),
        ),
    ] {
        let mut bench = Bench::tracking(1, track);
        bench.lease();
        bench.observe(Event::Snapshot {
            revision: Revision(1),
            changes: Vec::new(),
        });
        if go {
            let points = Some(Value::Points(vec![1]));
            bench.change(Key::Node(name("gw2")), points, Some(OTHERS_LEASE));
        }
        bench.observe(Event::Health(Health::default()));
        bench.next();
        bench.observe(Event::RoutesReset(FrrDaemons::NONE));
        let register = Effect::Register(Registration {
            fitness,
            ..registration(points)
        });
        assert_eq!(bench.next(), [register]);
    }
}

/// Input: FRR goes down, then comes back, under a node that is registered. Output: its rank falls at once, and comes
/// back after a reset and the hold.
#[test]
fn the_rank_follows_frr() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    let down = Health {
        ospfd: None,
        ..healthy()
    };
    bench.observe(Event::Health(down));
    let ospfd = FrrDaemons {
        bgpd: false,
        ospfd: true,
    };
    // What is served here stays as it is.
    let reset = Effect::ResetRoutes {
        parts: ospfd,
        keep: BTreeSet::from([vni(1)]),
    };
    let register = |rank, bad: &[Sign]| {
        let bad = bad.iter().copied().collect();
        Effect::Register(Registration {
            fitness: Fitness { rank, bad },
            ..registration(vec![1 << 63])
        })
    };
    let unfit = register(Rank::Unfit, &[Sign::Frr]);
    assert_eq!(bench.next(), [reset.clone(), unfit.clone()]);
    bench.registered(&unfit);
    bench.observe(Event::RoutesReset(FrrDaemons::NONE));
    assert_eq!(bench.next(), []);
    bench.now = bench.now + secs(1);
    bench.lease();
    bench.observe(Event::Health(Health {
        ospfd: Some(9),
        ..healthy()
    }));
    assert_eq!(bench.next(), [reset], "it runs, but may refuse");
    bench.observe(Event::RoutesReset(ospfd));
    let effects = bench.next();
    let held = register(Rank::Unfit, &[]);
    assert!(
        matches!(&effects[..], [Effect::ChangeRoutes(_), again] if *again == held),
        "{effects:?}"
    );
    bench.registered(&held);
    bench.observe(Event::RoutesChanged { failed: Vec::new() });
    bench.settle();
    bench.now = bench.now + secs(10);
    bench.lease();
    assert!(bench.next().contains(&register(Rank::Fit, &[])));
}

/// Input: the lease comes within the margin of its end. Output: everything off at once, nothing written;
/// the deadline is there before, and does not stay in the past after.
#[test]
fn a_lease_that_is_about_to_end_fences() {
    let mut bench = Bench::ready(2);
    bench.own_all();
    bench.now = bench.now + secs(8);
    let effects = bench.plan();
    assert_eq!(effects[0], all_off(2));
    assert!(
        matches!(&effects[1], Effect::ChangeRoutes(changes) if changes.iter().all(|c| !c.claims()))
    );
    assert_eq!(effects.len(), 2);
    bench.settle();
    bench.next_wake();
    bench.now = bench.now + secs(5);
    bench.settle();
    bench.next_wake();
}

/// Input: the lease is renewed after a gap. Output: everything is told to the host again, also what it
/// had been told before: the guard may have undone it.
#[test]
fn after_a_gap_the_host_is_told_everything() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.wait(secs(9));
    let effects = bench.plan();
    assert_eq!(effects[0], Effect::SwitchArp(vec![(vni(1), true)]));
    let keep = BTreeSet::from([vni(1)]);
    let parts = FrrDaemons::ALL;
    assert_eq!(effects[1], Effect::ResetRoutes { parts, keep });
    bench.observe(Event::RoutesReset(parts));
    let all = RouteChange {
        vni: vni(1),
        evpn: Some(true),
        cost: Some(Cost::OWNER),
    };
    let told = bench.next();
    assert!(told.contains(&Effect::ChangeRoutes(vec![all])), "{told:?}");
}

/// Input: the guard has fenced, although the lease is held. Output: everything is told to the host again.
#[test]
fn what_the_guard_withdrew_is_told_again() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.observe(Event::GuardFenced);
    let effects = bench.plan();
    assert_eq!(effects[0], Effect::SwitchArp(vec![(vni(1), true)]));
    let keep = BTreeSet::from([vni(1)]);
    let parts = FrrDaemons::ALL;
    assert_eq!(effects[1], Effect::ResetRoutes { parts, keep });
}

/// Input: etcd says that the node is not registered. Output: it registers again before it writes.
#[test]
fn a_lost_registration_is_made_again() {
    let mut bench = Bench::ready(1);
    bench.settle();
    bench.observe(Event::Committed(CommitOutcome::NotRegistered));
    assert!(matches!(bench.next()[..], [Effect::Register(_)]));
}

/// Input: the name is held by another lease for longer than the node waits. Output: it ends; but a node
/// that had the name before waits for ever.
#[test]
fn a_taken_name_ends_a_start() {
    let mut bench = Bench::new(1);
    bench.lease();
    bench.observe(Event::Health(healthy()));
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: Vec::new(),
    });
    bench.next();
    bench.observe(Event::RoutesReset(FrrDaemons::ALL));
    let mut ended = false;
    for _ in 0..20 {
        match &bench.next()[..] {
            [Effect::Register(_)] => {
                bench.observe(Event::Registered(RegisterOutcome::NameTaken));
            }
            [Effect::Exit(exit)] => {
                assert_eq!(*exit, Exit::NameTaken);
                ended = true;
                break;
            }
            other => assert!(other.is_empty(), "{other:?}"),
        }
        bench.wait(secs(2));
    }
    assert!(ended);
}

/// Input: an older snapshot, and an older change, after newer ones. Output: they change nothing.
#[test]
fn news_out_of_order_undoes_nothing() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: Vec::new(),
    });
    bench.observe(Event::Changed(vec![Change {
        key: Key::Kind(vni(1)),
        value: Some(Value::Kind(crate::model::fsm::Kind::Unassigned)),
        lease: None,
        revision: Revision(2),
    }]));
    assert_eq!(bench.next(), []);
}

/// Input: a snapshot that a newer one has overtaken, with a node that is gone since. Output: it stays gone.
#[test]
fn an_overtaken_snapshot_brings_no_node_back() {
    let mut bench = Bench::ready(1);
    let other = Change {
        key: Key::Node(name("gw0")),
        value: Some(Value::Points(vec![0, 1 << 62, 3 << 62])),
        lease: Some(OTHERS_LEASE),
        revision: Revision(10),
    };
    let registered = bench.revision;
    let me = Change {
        key: Key::Node(name("gw1")),
        value: Some(Value::Points(vec![1 << 63])),
        lease: Some(LEASE),
        revision: Revision(registered),
    };
    for (revision, changes) in [(20, vec![me.clone()]), (10, vec![me, other])] {
        bench.observe(Event::Snapshot {
            revision: Revision(revision),
            changes,
        });
    }
    assert!(!bench.gateway.mirror.ring().has(&name("gw0")));
}

/// Input: a node that serves, and an answer of etcd that is older than what is known of it. Output: everything is
/// withdrawn; nothing is written before the others have had time to notice; then all begins anew.
#[test]
fn an_etcd_that_went_back_is_begun_anew() {
    let mut bench = Bench::ready(2);
    bench.own_all();
    bench.change(Key::Node(name("gw0")), None, None);
    bench.revision = 3;
    bench.observe(Event::Rewound);
    assert_eq!(bench.plan()[0], all_off(2));
    bench.observe(Event::RoutesChanged { failed: vec![] });
    bench.observe(Event::Snapshot {
        revision: Revision(bench.revision),
        changes: Vec::new(),
    });
    assert_eq!(bench.writes(), []);
    bench.wait(secs(11));
    assert_eq!(bench.writes(), []);
    bench.wait(bench.next_wake());
    assert_eq!(bench.writes(), [Write::Claim, Write::Claim]);
}
