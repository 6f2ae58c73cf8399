//! Whose a VNI is, and when a node writes that it is its own.

use super::bench::*;
use crate::witness::{Epoch, Number, Standing};

/// Input: garbage in each key of an owned row. Output: the row is written again, and served all along.
#[test]
fn a_spoiled_row_is_said_again() {
    let keys: [fn(Vni) -> Key; 3] = [Key::Kind, Key::Current, Key::Next];
    for key in keys {
        let mut bench = Bench::ready(1);
        bench.own_all();
        bench.change(key(vni(1)), Some(Value::Unreadable), None);
        let rows = bench.settle();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].write, Write::Own);
        bench.done(&rows);
        assert_eq!(bench.settle(), []);
    }
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.change(Key::Kind(vni(1)), None, None);
    assert_eq!(bench.writes(), [Write::Own]);
    bench.change(Key::Kind(vni(1)), Some(Value::Unreadable), None);
    assert_eq!(bench.writes(), [Write::Own], "what it held before is lost");
}

/// Input: a node meets a row whose owner it cannot read. Output: it waits until that owner would have
/// repaired it or lost its lease.
#[test]
fn an_unreadable_owner_is_given_its_time() {
    let mut bench = Bench::new(1);
    bench.lease();
    bench.observe(Event::Health(healthy()));
    let read = |key, value| Change {
        key,
        value: Some(value),
        lease: None,
        revision: Revision(1),
    };
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: vec![
            read(
                Key::Kind(vni(1)),
                Value::Kind(crate::model::fsm::Kind::Idle),
            ),
            read(Key::Current(vni(1)), Value::Unreadable),
        ],
    });
    assert_eq!(bench.writes(), []);
    bench.wait(secs(6));
    bench.wait(secs(5));
    assert_eq!(bench.writes(), []);
    bench.wait(secs(2));
    assert_eq!(bench.writes(), [Write::Claim]);
}

/// Input: an owner whose node is gone, although its name stays in the row.
/// Output: claimed.
#[test]
fn a_remembered_owner_does_not_outlive_its_node() {
    let mut bench = Bench::ready(1);
    let node = || Key::Node(name("gw2"));
    let points = Value::Points(vec![(1 << 63) + 1]);
    bench.change(node(), Some(points), Some(OTHERS_LEASE));
    bench.row(vni(1), 1, "gw2");
    bench.change(Key::Current(vni(1)), Some(Value::Unreadable), None);
    assert_eq!(bench.writes(), []);
    bench.change(node(), None, None);
    bench.wait(secs(7));
    bench.wait(secs(7));
    assert_eq!(bench.writes(), [Write::Claim]);
}

/// Input: a living owner; the ring gives the VNI to this node. Output: not pulled before the node has been
/// registered for the hold-down; at once from an owner that has left the ring.
#[test]
fn a_living_owner_is_pulled_from_after_the_hold() {
    let owned_by_gw2 = |points: Vec<u64>| {
        let mut bench = Bench::ready(1);
        bench.change(
            Key::Node(name("gw2")),
            Some(Value::Points(points)),
            Some(OTHERS_LEASE),
        );
        bench.row(vni(1), 1, "gw2");
        bench
    };
    // Position of VNI 1 lies above both points, so it wraps to the smaller.
    let mut bench = owned_by_gw2(vec![(1 << 63) + 1]);
    for _ in 0..JOIN_HOLD / 5 {
        assert_eq!(bench.writes(), []);
        bench.wait(secs(5));
    }
    assert_eq!(bench.writes(), [Write::Pull]);
    assert_eq!(owned_by_gw2(Vec::new()).writes(), [Write::Pull]);
}

/// Input: a Go node writes 0 over a migration whose owner lives (its successor died). Output: claimed, but not
/// before that owner had the time to hear of it.
#[test]
fn a_reset_owner_is_given_a_blink_to_let_go() {
    let mut bench = Bench::ready(1);
    bench.change(
        Key::Node(name("gw2")),
        Some(Value::Points(Vec::new())),
        Some(OTHERS_LEASE),
    );
    bench.row(vni(1), 4, "gw2");
    assert_eq!(bench.writes(), []);
    bench.revision += 1;
    let put = |key, value| Change {
        key,
        value: Some(value),
        lease: None,
        revision: Revision(bench.revision),
    };
    let reset = vec![
        put(
            Key::Kind(vni(1)),
            Value::Kind(crate::model::fsm::Kind::Unassigned),
        ),
        put(Key::Current(vni(1)), Value::Name(None)),
        put(Key::Next(vni(1)), Value::Name(None)),
    ];
    bench.observe(Event::Changed(reset));
    bench.claims_after_a_blink();
}

/// Input: as above without a Go node: the owner's lease ends. Output: claimed at once, but nothing is shown before
/// that owner, if it lives, had the time to hear of it.
#[test]
fn an_orphan_is_claimed_at_once_and_shown_after_a_blink() {
    let mut bench = Bench::ready(1);
    bench.runs_this_program("gw1", LEASE);
    let points = Value::Points(vec![(1 << 63) + 1]);
    bench.change(Key::Node(name("gw2")), Some(points), Some(OTHERS_LEASE));
    bench.runs_this_program("gw2", OTHERS_LEASE);
    bench.row(vni(1), 1, "gw2");
    assert_eq!(bench.writes(), []);
    bench.change(Key::Current(vni(1)), None, None);
    let rows = bench.settle();
    assert_eq!(rows[0].write, Write::Claim);
    bench.done(&rows);
    let claims = |effects: &[Effect]| {
        effects.iter().any(|effect| match effect {
            Effect::ChangeRoutes(changes) => changes.iter().any(RouteChange::claims),
            Effect::SwitchArp(switches) => switches.iter().any(|&(_, answers)| answers),
            _ => false,
        })
    };
    assert!(!claims(&bench.plan()));
    bench.wait(Duration::from_millis(90));
    assert!(!claims(&bench.plan()));
    assert!(bench.next_wake() <= Duration::from_millis(10));
    bench.wait(Duration::from_millis(20));
    assert!(claims(&bench.plan()));
}

/// Input: the owner's lease ends: after its witnesses had evicted it; after it had said that it was silent; while an
/// epoch of a window of 400 ms was in place. Output: what it served is shown at once; and in the last case not before
/// the window and its margin are over, as its witnesses may have proved it up to the end.
#[test]
fn an_orphan_of_a_node_with_witnesses_is_shown_once_it_is_silent() {
    let epoch = |number| {
        Standing::Epoch(Epoch {
            lease: OTHERS_LEASE,
            window: Duration::from_millis(400),
            number: Number(number),
            witnesses: Vec::new(),
        })
    };
    for (last, silence) in [
        (Standing::Evicted, 0),
        (Standing::Released, 0),
        (epoch(2), 450),
    ] {
        let mut bench = Bench::ready(1);
        bench.runs_this_program("gw1", LEASE);
        let points = Value::Points(vec![(1 << 63) + 1]);
        bench.change(Key::Node(name("gw2")), Some(points), Some(OTHERS_LEASE));
        bench.runs_this_program("gw2", OTHERS_LEASE);
        let key = || Key::Epoch(name("gw2"));
        for standing in [epoch(1), last] {
            bench.change(key(), Some(Value::Standing(standing)), Some(OTHERS_LEASE));
        }
        bench.row(vni(1), 1, "gw2");
        assert_eq!(bench.writes(), []);
        // In whatever order the keys of the lease go.
        bench.change(key(), None, None);
        bench.change(Key::Current(vni(1)), None, None);
        bench.change(Key::Node(name("gw2")), None, None);
        let rows = bench.settle();
        assert_eq!(rows[0].write, Write::Claim);
        bench.done(&rows);
        let answers = |effects: &[Effect]| {
            effects.iter().any(|effect| match effect {
                Effect::SwitchArp(switches) => switches.iter().any(|&(_, answers)| answers),
                _ => false,
            })
        };
        if silence > 0 {
            bench.wait(Duration::from_millis(silence - 10));
            assert!(!answers(&bench.plan()), "{silence}");
            bench.wait(Duration::from_millis(20));
        }
        assert!(answers(&bench.plan()), "{silence}");
    }
}

/// Input: the lease of an owner ends that has an epoch of a window of 400 ms. Another node claims the VNI, and loses it
/// before the owner's witnesses have to be silent: it gives its claim back, or its witnesses evict it.
/// Output: this node claims the VNI, and shows it once the first owner is silent.
#[test]
fn a_claim_that_was_lost_does_not_shorten_the_wait_for_the_owner_before() {
    const CLAIMERS_LEASE: LeaseId = LeaseId(9);
    let standing = |lease, last: bool| match last {
        true => Value::Standing(Standing::Evicted),
        false => Value::Standing(Standing::Epoch(Epoch {
            lease,
            window: Duration::from_millis(400),
            number: Number(1),
            witnesses: Vec::new(),
        })),
    };
    let answers = |effects: &[Effect]| {
        effects.iter().any(|effect| match effect {
            Effect::SwitchArp(switches) => switches.iter().any(|&(_, answers)| answers),
            _ => false,
        })
    };
    for is_given_back in [true, false] {
        let mut bench = Bench::ready(1);
        bench.runs_this_program("gw1", LEASE);
        for (at, node, lease) in [(1, "gw2", OTHERS_LEASE), (2, "gw3", CLAIMERS_LEASE)] {
            let points = Value::Points(vec![(1 << 63) + at]);
            bench.change(Key::Node(name(node)), Some(points), Some(lease));
            bench.runs_this_program(node, lease);
            let epoch = standing(lease, false);
            bench.change(Key::Epoch(name(node)), Some(epoch), Some(lease));
        }
        bench.row(vni(1), 1, "gw2");
        assert_eq!(bench.writes(), []);
        bench.change(Key::Current(vni(1)), None, None);
        bench.change(Key::Node(name("gw2")), None, None);
        let claim = bench.settle();
        assert_eq!(claim[0].write, Write::Claim);
        // gw3 is faster.
        bench.change(Key::Kind(vni(1)), Some(Value::Kind(Kind::Failover)), None);
        let gw3 = Value::Name(Some(name("gw3")));
        bench.change(Key::Next(vni(1)), Some(gw3), Some(CLAIMERS_LEASE));
        let beaten = (vni(1), Write::Claim, CommitResult::Beaten);
        bench.observe(Event::Committed(CommitOutcome::Done {
            revision: Revision(bench.revision),
            lease: LEASE,
            each: vec![beaten],
        }));
        assert_eq!(bench.writes(), []);
        bench.wait(Duration::from_millis(150));
        if is_given_back {
            bench.change(Key::Kind(vni(1)), Some(Value::Kind(Kind::Unassigned)), None);
            bench.change(Key::Next(vni(1)), Some(Value::Name(None)), None);
        } else {
            let evicted = Some(standing(CLAIMERS_LEASE, true));
            bench.change(Key::Epoch(name("gw3")), evicted, Some(CLAIMERS_LEASE));
            bench.change(Key::Next(vni(1)), None, None);
            bench.change(Key::Node(name("gw3")), None, None);
        }
        let claim = bench.settle();
        assert_eq!(claim[0].write, Write::Claim);
        bench.done(&claim);
        bench.wait(Duration::from_millis(290));
        assert!(!answers(&bench.plan()), "given back: {is_given_back}");
        bench.wait(Duration::from_millis(20));
        assert!(answers(&bench.plan()), "given back: {is_given_back}");
    }
}

/// Input: a node starts and finds an orphan. Output: the same, since when that lost its owner is not known.
#[test]
fn an_orphan_that_was_found_is_shown_after_a_blink_too() {
    let mut bench = Bench::ready(1);
    bench.runs_this_program("gw1", LEASE);
    bench.change(Key::Kind(vni(1)), Some(Value::Kind(Kind::Idle)), None);
    let rows = bench.settle();
    assert_eq!(rows[0].write, Write::Claim);
    bench.done(&rows);
    assert_eq!(bench.plan(), []);
    bench.wait(Duration::from_millis(110));
    assert_ne!(bench.plan(), []);
}

/// Input: the same reset, but its keys are gone from a snapshot. Output: the same.
#[test]
fn an_owner_that_a_snapshot_does_not_name_is_given_a_blink_too() {
    let mut bench = Bench::ready(1);
    let put = |key, value, lease, revision| Change {
        key,
        value: Some(value),
        lease: Some(lease),
        revision: Revision(revision),
    };
    let points = Value::Points(vec![1 << 63]);
    let me = put(Key::Node(name("gw1")), points, LEASE, bench.revision);
    let other = Key::Node(name("gw2"));
    bench.change(
        other.clone(),
        Some(Value::Points(Vec::new())),
        Some(OTHERS_LEASE),
    );
    let other = put(
        other,
        Value::Points(Vec::new()),
        OTHERS_LEASE,
        bench.revision,
    );
    bench.row(vni(1), 4, "gw2");
    assert_eq!(bench.writes(), []);
    bench.wait(secs(1));
    bench.revision += 1;
    let kind = Change {
        lease: None,
        ..put(
            Key::Kind(vni(1)),
            Value::Kind(crate::model::fsm::Kind::Unassigned),
            LEASE,
            bench.revision,
        )
    };
    bench.observe(Event::Snapshot {
        revision: Revision(bench.revision),
        changes: vec![me, other, kind],
    });
    bench.claims_after_a_blink();
}

/// Input: another node was faster. Output: not tried again at once, but with a pause that ends.
#[test]
fn a_conflict_is_not_repeated_at_once() {
    let mut bench = Bench::ready(1);
    let rows = bench.settle();
    let each = rows
        .iter()
        .map(|row| (row.vni, row.write, CommitResult::Beaten))
        .collect();
    bench.observe(Event::Committed(CommitOutcome::Done {
        revision: Revision(9),
        lease: LEASE,
        each,
    }));
    assert_eq!(bench.settle(), []);
    assert!(bench.next_wake() < secs(1));
    bench.wait(secs(1));
    assert_eq!(bench.writes(), [Write::Claim]);
}

/// Input: no answer from etcd. Output: no call for a moment; the same write again after it.
#[test]
fn an_unanswered_commit_is_repeated_after_a_pause() {
    let mut bench = Bench::ready(1);
    let rows = bench.settle();
    bench.observe(Event::Committed(CommitOutcome::Failed(vec![vni(1)])));
    assert_eq!(bench.settle(), []);
    bench.wait(secs(1));
    assert_eq!(bench.settle(), rows);
}
