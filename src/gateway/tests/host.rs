//! What the host is told, and what becomes of that.

use super::bench::*;

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
    let sent = crate::model::fsm::Phase::GratuitousArpSent;
    assert_eq!(bench.writes(), [Write::Advance(sent)]);
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

/// Input: something on this host deleted a route that announces a VNI that is served here. Output: announced once more;
/// EVPN is left alone.
#[test]
fn what_is_lost_upstream_is_told_again() {
    let mut bench = Bench::ready(2);
    bench.own_all();
    bench.observe(Event::UpstreamLost(vec![vni(2)]));
    let change = RouteChange {
        vni: vni(2),
        evpn: None,
        cost: Some(Cost::OWNER),
    };
    assert_eq!(bench.next(), [Effect::ChangeRoutes(vec![change])]);
}

/// Input: FRR is told a VNI, and the route that announces it, which was made first, is deleted before FRR has taken the
/// rest. Output: announced once more as soon as FRR has taken it; so too if the bridge went and came.
#[test]
fn what_is_lost_upstream_during_a_change_is_told_again() {
    for lost in [Event::UpstreamLost, Event::Links] {
        let mut bench = Bench::ready(1);
        bench.own_all();
        bench.observe(Event::Drifted(vec![vni(1)]));
        assert!(matches!(bench.next()[..], [Effect::ChangeRoutes(_)]));
        bench.observe(lost(vec![vni(1)]));
        let failed = Vec::new();
        bench.observe(Event::RoutesChanged { failed });
        let change = RouteChange {
            vni: vni(1),
            evpn: None,
            cost: Some(Cost::OWNER),
        };
        assert_eq!(bench.next(), [Effect::ChangeRoutes(vec![change])]);
    }
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

/// Input: a VNI is claimed, and there is no bridge; later it comes. Output: the node publishes that, gives the VNI
/// back, and writes nothing more; when the bridge comes it claims the VNI.
#[test]
fn a_vni_without_a_bridge_costs_nothing_and_is_served_when_the_bridge_comes() {
    let mut bench = Bench::ready(1);
    let rows = bench.settle();
    bench.done(&rows);
    let on = Effect::SwitchArp(vec![(vni(1), true)]);
    assert!(bench.plan().contains(&on));
    bench.observe(Event::RoutesChanged { failed: vec![] });
    bench.missing.insert(vni(1));
    bench.observe(Event::ArpSwitched(vec![(vni(1), ArpOutcome::Absent)]));
    let rows = bench.settle();
    assert_eq!(rows[0].write, Write::Vacate);
    bench.done(&rows);
    for _ in 0..100 {
        assert_eq!(bench.writes(), []);
        bench.wait(secs(1));
    }
    let told = [("", ""), ("1", "")].map(|(absent, failing)| (absent.into(), failing.into()));
    assert_eq!(bench.unable, told);

    bench.missing.clear();
    bench.observe(Event::Links(vec![vni(1)]));
    bench.settle();
    bench.wait(secs(1));
    // It went away and came back, so another node would be preferred for a while.
    assert_eq!(bench.unable.last(), Some(&("".into(), "1".into())));
    assert_eq!(bench.writes(), [Write::Claim]);
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
    bench.observe(Event::RoutesReset(FrrDaemons::NONE));
    bench.row(vni(1), 1, "gw2");
    let cost = RouteChange {
        vni: vni(1),
        evpn: None,
        cost: Some(Cost::OTHERS),
    };
    let effects = bench.next();
    assert_eq!(effects[0], Effect::ChangeRoutes(vec![cost]));
}

/// Input: the bridge of an owner is deleted, or the kernel refuses to make it answer; another node asks for the VNI.
/// Output: the owner agrees, at once or after a while of refusals.
#[test]
fn an_owner_that_cannot_answer_does_not_hold_a_migration() {
    for (outcome, refusals) in [(ArpOutcome::Absent, 1), (ArpOutcome::Failed, 7)] {
        let mut bench = Bench::ready(1);
        let points = Some(Value::Points(vec![(1 << 63) + 1]));
        bench.change(Key::Node(name("gw2")), points, Some(OTHERS_LEASE));
        bench.own_all();
        bench.observe(Event::Links(vec![vni(1)]));
        let decided = Some(Value::Kind(Kind::from_number(2).unwrap()));
        bench.change(Key::Kind(vni(1)), decided, None);
        let successor = Some(Value::Name(Some(name("gw2"))));
        bench.change(Key::Next(vni(1)), successor, Some(OTHERS_LEASE));
        for _ in 0..refusals {
            bench.wait(secs(1));
            bench.observe(Event::ArpSwitched(vec![(vni(1), outcome)]));
        }
        let agreed = Write::Advance(crate::model::fsm::Phase::Confirmed);
        assert_eq!(bench.writes(), [agreed], "{outcome:?}");
    }
}

/// What of a VNI is announced ahead of FRR, or no more.
fn upstream(number: u32, cost: Cost) -> RouteChange {
    RouteChange {
        vni: vni(number),
        evpn: None,
        cost: Some(cost),
    }
}

/// A node that owns three VNIs and has told FRR of VNI 1 again, which has not answered yet.
fn busy_with_the_first(announces_itself: bool) -> Bench {
    let mut bench = Bench::ready(3);
    bench.gateway.config.announces_itself = announces_itself;
    bench.own_all();
    bench.observe(Event::Drifted(vec![vni(1)]));
    let effects = bench.next();
    assert!(matches!(&effects[..], [Effect::ChangeRoutes(changes)] if changes.len() == 1));
    bench
}

/// Input: FRR is busy with one VNI; something took the routes of it and of another. Output: the other is announced
/// ahead of FRR, once, and told to FRR afterwards; where FRR alone announces, it waits.
#[test]
fn what_waits_for_frr_is_announced_at_once() {
    for announces_itself in [true, false] {
        let mut bench = busy_with_the_first(announces_itself);
        bench.observe(Event::UpstreamLost(vec![vni(1), vni(2)]));
        let hastened = Effect::HastenRoutes(vec![upstream(2, Cost::OWNER)]);
        let expected = announces_itself.then_some(hastened.clone());
        assert_eq!(bench.next(), Vec::from_iter(expected.clone()));
        assert_eq!(bench.next(), [], "once");
        // Lost once more.
        bench.observe(Event::UpstreamLost(vec![vni(2)]));
        assert_eq!(bench.next(), Vec::from_iter(expected));
        bench.observe(Event::RoutesChanged { failed: vec![] });
        // FRR may have had its turn with the first before that was lost.
        let rest = [1, 2].map(|number| upstream(number, Cost::OWNER));
        assert_eq!(bench.next(), [Effect::ChangeRoutes(rest.to_vec())]);
        bench.observe(Event::RoutesChanged { failed: vec![] });
        assert_eq!(bench.next(), []);
    }
}

/// Input: the same, and the VNI goes to another node before FRR answers. Output: not announced any more, at once; what
/// FRR is told afterwards does not rely on that.
#[test]
fn what_is_given_up_is_withdrawn_ahead_of_frr() {
    let mut bench = busy_with_the_first(true);
    bench.observe(Event::UpstreamLost(vec![vni(2)]));
    bench.next();
    bench.row(vni(2), 1, "gw2");
    let withdrawn = upstream(2, Cost::OTHERS);
    // (The ring gives the VNI to this node, which asks for it.)
    assert_eq!(bench.next()[0], Effect::HastenRoutes(vec![withdrawn]));
    // A VNI whose announcement is known to be the old one is not left to FRR either.
    bench.row(vni(3), 1, "gw2");
    let other = upstream(3, Cost::OTHERS);
    assert_eq!(bench.next()[0], Effect::HastenRoutes(vec![other]));
    bench.observe(Event::RoutesChanged { failed: vec![] });
    let both = [withdrawn, other].map(|change| RouteChange {
        evpn: Some(false),
        ..change
    });
    assert_eq!(bench.next()[0], Effect::ChangeRoutes(both.to_vec()));
}

/// Input: FRR is busy with a reset, or one of its daemons is down or to be reset. Output: nothing is announced ahead of
/// it.
#[test]
fn nothing_is_announced_ahead_of_an_frr_that_is_reset_or_down() {
    let mut resets = Bench::ready(2);
    resets.gateway.config.announces_itself = true;
    resets.own_all();
    let restarted = Health {
        ospfd: Some(9),
        ..healthy()
    };
    resets.observe(Event::Health(restarted));
    assert!(matches!(resets.next()[..], [Effect::ResetRoutes { .. }]));
    resets.observe(Event::UpstreamLost(vec![vni(2)]));
    assert_eq!(resets.next(), [], "a reset is under way");

    for bgpd in [None, Some(9)] {
        let mut bench = busy_with_the_first(true);
        bench.observe(Event::Health(Health { bgpd, ..healthy() }));
        bench.observe(Event::UpstreamLost(vec![vni(2)]));
        let effects = bench.next();
        let hastens = |effect: &Effect| matches!(effect, Effect::HastenRoutes(_));
        assert!(!effects.iter().any(hastens), "{bgpd:?}: {effects:?}");
    }
}

/// Input: FRR has refused a VNI and is busy with another when that is to be tried again. Output: not announced ahead of
/// FRR: without its EVPN routes it would draw traffic for nothing.
#[test]
fn what_frr_refuses_is_not_announced_ahead_of_it() {
    let mut bench = busy_with_the_first(true);
    bench.observe(Event::RoutesChanged { failed: vec![] });
    bench.observe(Event::Drifted(vec![vni(2)]));
    bench.next();
    let failed = vec![vni(2)];
    bench.observe(Event::RoutesChanged { failed });
    bench.observe(Event::Drifted(vec![vni(1)]));
    assert!(matches!(bench.next()[..], [Effect::ChangeRoutes(_)]));
    for _ in 0..20 {
        bench.wait(secs(1) / 10);
        assert_eq!(bench.next(), []);
    }
}
