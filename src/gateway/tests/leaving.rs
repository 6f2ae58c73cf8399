//! A drain, and the end.

use super::bench::*;

/// Input: a drain, and the answer that the points are gone, before the watch has told who else registered until
/// then. Output: the node goes on serving until it is told; alone, it leaves then.
#[test]
fn a_drain_waits_to_be_told_who_else_is_there() {
    let mut bench = Bench::ready(1);
    bench.own_all();
    bench.observe(Event::Drain);
    let [Effect::Register(registration)] = &bench.next()[..] else {
        panic!("it registers without points");
    };
    bench.revision += 2;
    bench.observe(Event::Registered(RegisterOutcome::Done {
        registration: registration.clone(),
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
        unable: Some(Unable::default()),
        fitness: Some(Fitness::default()),
        time: None,
        kernel: None,
        ipv6: None,
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
    assert!(matches!(&effects[..], [Effect::Register(it)] if it.points.is_empty()));
    let mut second = bench.gateway.clone();

    bench.observe(Event::Registered(RegisterOutcome::Done {
        registration: registration(Vec::new()),
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

/// Input: a stop while bgpd has a process that does not act, or none. Output: the first goes on showing what it
/// showed, so that the guard must stay; the second shows nothing.
#[test]
fn a_daemon_that_is_stopped_goes_on_showing_what_it_showed() {
    let stopped = FrrDaemons {
        bgpd: true,
        ospfd: false,
    };
    for (stopped, expected) in [
        (stopped, Exit::Unfinished),
        (FrrDaemons::NONE, Exit::Stopped),
    ] {
        let mut bench = Bench::ready(1);
        bench.own_all();
        bench.observe(Event::Health(Health {
            bgpd: None,
            stopped,
            ..healthy()
        }));
        bench.observe(Event::Stop);
        let exit = (0..100).find_map(|_| {
            for effect in bench.next() {
                match effect {
                    Effect::ResetRoutes { .. } => {
                        bench.observe(Event::RoutesReset(FrrDaemons::NONE))
                    }
                    Effect::ChangeRoutes(changes) => {
                        assert!(changes.iter().all(|change| change.evpn.is_none()));
                        bench.observe(Event::RoutesChanged { failed: Vec::new() });
                    }
                    Effect::Exit(exit) => return Some(exit),
                    other => panic!("{other:?}"),
                }
            }
            bench.wait(secs(1));
            None
        });
        assert_eq!(exit, Some(expected), "{stopped:?}");
    }
}
