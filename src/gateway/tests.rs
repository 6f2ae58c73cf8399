//! Single decisions of a node, one event at a time. (Whole clusters: `sim`.)

#![allow(clippy::unwrap_used)]
mod bench;
mod commits;
mod scale;

use super::*;
use crate::schema::Meta;
use bench::*;

/// Input: a start. Output: the host is silenced and reset before anything is known; the node registers
/// once it has a lease, a snapshot and a clean host, and writes no row before it is registered.
#[test]
fn nothing_is_claimed_before_the_host_is_clean() {
    let mut bench = Bench::new(2);
    bench.observe(Event::Health(healthy()));
    let (parts, keep) = (Parts::ALL, BTreeSet::new());
    assert_eq!(bench.next(), [Effect::ResetRoutes { parts, keep }]);
    bench.lease();
    assert_eq!(bench.next(), []);
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: Vec::new(),
    });
    assert_eq!(bench.next(), [], "the reset is still under way");
    bench.observe(Event::RoutesReset(Parts::ALL));
    let points = vec![1 << 63];
    let lease = LEASE;
    assert_eq!(bench.next(), [Effect::Register { lease, points }]);
}

/// Input: as above, but FRR refuses the reset. Output: registered all the same, without ring points.
#[test]
fn a_node_without_frr_registers_without_points() {
    let mut bench = Bench::new(1);
    bench.lease();
    bench.observe(Event::Snapshot {
        revision: Revision(1),
        changes: Vec::new(),
    });
    bench.observe(Event::Health(Health::default()));
    bench.next();
    bench.observe(Event::RoutesReset(Parts::NONE));
    let register = Effect::Register {
        lease: LEASE,
        points: Vec::new(),
    };
    assert_eq!(bench.next(), [register]);
}

/// Input: FRR goes down, then comes back, under a node that is registered. Output: its points go, and
/// come back after a reset.
#[test]
fn points_follow_frr() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    let down = Health {
        ospfd: None,
        ..healthy()
    };
    bench.observe(Event::Health(down));
    let ospfd = Parts {
        bgpd: false,
        ospfd: true,
    };
    // What is served here stays as it is.
    let reset = Effect::ResetRoutes {
        parts: ospfd,
        keep: BTreeSet::from([vni(1)]),
    };
    let register = |points| Effect::Register {
        lease: LEASE,
        points,
    };
    let registered = |revision, points| {
        Event::Registered(RegisterOutcome::Done {
            points,
            lease: LEASE,
            revision: Revision(revision),
        })
    };
    assert_eq!(bench.next(), [reset.clone(), register(Vec::new())]);
    bench.observe(registered(50, Vec::new()));
    bench.observe(Event::RoutesReset(Parts::NONE));
    assert_eq!(bench.next(), []);
    bench.observe(Event::Health(Health {
        ospfd: Some(9),
        ..healthy()
    }));
    let points = vec![1 << 63];
    assert_eq!(bench.next(), [reset, register(points.clone())]);
    bench.observe(registered(51, points));
    bench.observe(Event::RoutesReset(ospfd));
    assert!(matches!(bench.next()[..], [Effect::ChangeRoutes(_)]));
}

/// Input: 1 200 VNIs are owned at once. Output: announced 500 at a time with a pause between.
#[test]
fn announcements_are_paced() {
    let mut bench = Bench::ready(1_200);
    bench.own_all();
    bench.wait(secs(60));
    bench.settle();
    bench.wait(Duration::from_millis(1));
    let mut announced = Vec::new();
    for _ in 0..1_000 {
        for effect in bench.plan() {
            if let Effect::Announce(vnis) = effect {
                announced.push((bench.now, vnis.len()));
                bench.observe(Event::Announced(vnis));
            }
        }
        bench.now = bench.now + Duration::from_millis(10);
    }
    assert!(announced.iter().all(|&(_, count)| count <= 500));
    assert!(announced.len() > 2);
    for pair in announced.windows(2) {
        assert!(pair[1].0.since(pair[0].0) >= Duration::from_millis(50));
    }
}

/// Input: a settle time that is longer than the pause between two announcements. Output: the successor goes
/// on that long after the first of them.
#[test]
fn repeated_announcements_do_not_hold_up_a_migration() {
    let mut bench = Bench::ready(1);
    bench.gateway.config.settle = secs(3);
    bench.row(vni(1), 7, "gw2");
    bench.change(
        Key::Next(vni(1)),
        Some(Value::Name(Some(name("gw1")))),
        Some(LEASE),
    );
    for _ in 0..6 {
        assert_eq!(bench.writes(), []);
        bench.wait(secs(1) / 2);
    }
    let sent = crate::fsm::Phase::GratuitousArpSent;
    assert_eq!(bench.writes(), [Write::Advance(sent)]);
}

/// Input: half a minute passes. Output: ARP is written again for every VNI, whatever it was believed to
/// be, and nothing else happens.
#[test]
fn arp_is_audited() {
    let mut bench = Bench::ready(2);
    bench.own_all();
    bench.wait(secs(31));
    let on = (1..=2).map(|number| (vni(number), true)).collect();
    let effects = bench.plan();
    assert_eq!(effects[0], Effect::SwitchArp(on));
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
    let parts = Parts::ALL;
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
/// mended it or lost its lease.
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
            read(Key::Kind(vni(1)), Value::Kind(crate::fsm::Kind::Idle)),
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

/// Input: an owner that nobody answers for once its node is gone, although its name stays in the row.
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

/// Input: a living owner; the ring says that the VNI is ours. Output: not pulled before the node has been
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
        put(Key::Kind(vni(1)), Value::Kind(crate::fsm::Kind::Unassigned)),
        put(Key::Current(vni(1)), Value::Name(None)),
        put(Key::Next(vni(1)), Value::Name(None)),
    ];
    bench.observe(Event::Changed(reset));
    bench.claims_after_a_blink();
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
    bench.revision += 1;
    let kind = Change {
        lease: None,
        ..put(
            Key::Kind(vni(1)),
            Value::Kind(crate::fsm::Kind::Unassigned),
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

/// Input: FRR has lost what it was told of a VNI that is served here. Output: told once more, and no other.
#[test]
fn what_drifted_is_told_again() {
    let mut bench = Bench::ready(2);
    bench.own_all();
    bench.observe(Event::Drifted(vec![vni(2)]));
    let change = RouteChange {
        vni: vni(2),
        evpn: Some(true),
        cost: Some(Cost::OWNER),
    };
    assert_eq!(bench.next(), [Effect::ChangeRoutes(vec![change])]);
}

/// Input: somebody was faster. Output: not tried again at once, but with a pause that ends.
#[test]
fn a_conflict_is_not_repeated_at_once() {
    let mut bench = Bench::ready(1);
    let rows = bench.settle();
    let each = rows
        .iter()
        .map(|row| (row.vni, row.write, Fate::Beaten))
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

/// Input: etcd says that the node is not registered. Output: it registers again before it writes.
#[test]
fn a_lost_registration_is_made_again() {
    let mut bench = Bench::ready(1);
    bench.settle();
    bench.observe(Event::Committed(CommitOutcome::Fenced));
    assert!(matches!(bench.next()[..], [Effect::Register { .. }]));
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
    bench.observe(Event::RoutesReset(Parts::ALL));
    let mut ended = false;
    for _ in 0..20 {
        match &bench.next()[..] {
            [Effect::Register { .. }] => {
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

/// Input: an older snapshot, and an older change, after newer ones. Output: they undo nothing.
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
        value: Some(Value::Kind(crate::fsm::Kind::Unassigned)),
        lease: None,
        revision: Revision(2),
    }]));
    assert_eq!(bench.next(), []);
}

/// Input: the kernel refuses to silence a bridge. Output: tried again and again, but not in a busy loop.
#[test]
fn a_bridge_that_cannot_be_silenced_is_no_busy_loop() {
    let mut bench = Bench::new(1);
    for _ in 0..10 {
        assert_eq!(bench.plan()[0], all_off(1));
        bench.observe(Event::ArpSwitched(vec![(vni(1), ArpOutcome::Failed)]));
        let effects = bench.plan();
        assert!(
            !effects.contains(&all_off(1)),
            "tried again without a pause"
        );
        let pause = bench.next_wake();
        assert!(pause < secs(2), "{pause:?}");
        bench.wait(secs(2));
    }
}

/// Input: ARP is wanted, but there is no bridge. Output: tried now and then; served when it appears.
#[test]
fn a_bridge_that_appears_is_served() {
    let mut bench = Bench::ready(1);
    let rows = bench.settle();
    bench.done(&rows);
    let on = Effect::SwitchArp(vec![(vni(1), true)]);
    assert!(bench.plan().contains(&on));
    bench.observe(Event::ArpSwitched(vec![(vni(1), ArpOutcome::Absent)]));
    assert!(!bench.plan().contains(&on));
    bench.next_wake();
    bench.observe(Event::Links(vec![vni(1)]));
    assert!(bench.plan().contains(&on));
}

/// Input: a drain, and the answer that the points are gone, before the watch has told who else registered until
/// then. Output: the node goes on serving until it is told; alone, it leaves then.
#[test]
fn a_drain_waits_to_be_told_who_else_is_there() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.observe(Event::Drain);
    let [Effect::Register { points, lease }] = &bench.next()[..] else {
        panic!("it registers without points");
    };
    bench.revision += 2;
    bench.observe(Event::Registered(RegisterOutcome::Done {
        points: points.clone(),
        lease: *lease,
        revision: Revision(bench.revision),
    }));
    assert_eq!(bench.plan(), []);
    bench.observe(Event::Changed(vec![Change {
        key: Key::Node(name("gw1")),
        value: Some(Value::Points(Vec::new())),
        lease: Some(LEASE),
        revision: Revision(bench.revision),
    }]));
    assert_eq!(bench.plan()[0], all_off(1));
}

/// Input: a drain while another node could take the VNI. Output: the points go, the node keeps serving;
/// it leaves once the row names the other. A second signal ends it at once.
#[test]
fn a_drain_waits_for_the_other() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    let meta = Meta {
        version: "1".into(),
        range: VniRange::new(vni(1), vni(1)).unwrap(),
        time: None,
    };
    bench.change(
        Key::Meta(name("gw2")),
        Some(Value::Meta(meta)),
        Some(OTHERS_LEASE),
    );
    bench.change(
        Key::Node(name("gw2")),
        Some(Value::Points(vec![1])),
        Some(OTHERS_LEASE),
    );
    bench.observe(Event::Drain);
    let effects = bench.next();
    assert!(matches!(&effects[..], [Effect::Register { points, .. }] if points.is_empty()));
    let mut second = bench.gateway.clone();

    bench.observe(Event::Registered(RegisterOutcome::Done {
        points: Vec::new(),
        lease: LEASE,
        revision: Revision(50),
    }));
    bench.revision = 50;
    assert_eq!(bench.settle(), [], "the other has not asked yet");
    bench.row(vni(1), 1, "gw2");
    let effects = bench.next();
    assert!(
        matches!(effects[..], [Effect::ChangeRoutes(_)]),
        "{effects:?}"
    );
    bench.observe(Event::RoutesChanged { failed: Vec::new() });
    assert_eq!(bench.next(), [Effect::Exit(Exit::Stopped)]);

    second.observe(bench.now, Event::Stop);
    let effects = second.plan(bench.now);
    assert_eq!(effects[0], all_off(1));
    assert!(matches!(effects[1], Effect::ChangeRoutes(_)));
}

/// Input: bgpd is down and its reset is due, and a VNI goes to another node. Output: ospfd is told all
/// the same.
#[test]
fn one_daemon_that_is_down_does_not_hold_up_the_other() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.observe(Event::Health(Health {
        bgpd: None,
        ..healthy()
    }));
    bench.next();
    bench.observe(Event::RoutesReset(Parts::NONE));
    bench.row(vni(1), 1, "gw2");
    let cost = RouteChange {
        vni: vni(1),
        evpn: None,
        cost: Some(Cost::OTHERS),
    };
    let effects = bench.next();
    assert_eq!(effects[0], Effect::ChangeRoutes(vec![cost]));
}

/// Input: a snapshot that a newer one has overtaken, with a node that is gone since. Output: it stays gone.
#[test]
fn an_overtaken_snapshot_brings_nobody_back() {
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
    assert!(!bench.gateway.ring.has(&name("gw0")));
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

/// Input: a stop on a host that cannot be silenced, or whose FRR runs and refuses. Output: no claim that
/// everything is withdrawn: the guard must not be dismissed.
#[test]
fn an_exit_that_did_not_withdraw_says_so() {
    for (silenced, refused) in [
        (ArpOutcome::Failed, vec![]),
        (ArpOutcome::Answers(false), vec![vni(1)]),
    ] {
        let mut bench = Bench::ready(1);
        bench.own_all();
        bench.observe(Event::Stop);
        let exit = (0..100).find_map(|_| {
            for effect in bench.plan() {
                match effect {
                    Effect::SwitchArp(_) => {
                        bench.observe(Event::ArpSwitched(vec![(vni(1), silenced)]))
                    }
                    Effect::ChangeRoutes(_) => {
                        let failed = refused.clone();
                        bench.observe(Event::RoutesChanged { failed });
                    }
                    Effect::Exit(exit) => return Some(exit),
                    other => panic!("{other:?}"),
                }
            }
            bench.wait(secs(1));
            None
        });
        assert_eq!(exit, Some(Exit::Unfinished), "{silenced:?} {refused:?}");
    }
}
