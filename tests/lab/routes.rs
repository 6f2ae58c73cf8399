//! `--announce routes`: the upstream router hears of the owner alone, over OSPF or BGP, beside gateways with costs too.

use super::network::{Daemon, Lab, eventually, points};
use super::probe::{Family, Probe, Way};
use super::{FAST, flows, lost};
use wmgwd::host::routes::PROTOCOL;

/// Two gateways with four VNIs, two stations; what carries routes upstream, as `lab.sh` names it.
fn lab(test: &str, upstream: &str) -> Option<Lab> {
    Lab::with(test, 4, &["--gateways", "2", "--upstream", upstream])
}

/// Starts the daemon of gw1 or gw2.
fn start(lab: &Lab, number: usize, announce: &str) -> Daemon {
    let uids = &points()[number - 1];
    let more = ["--fit-hold", "1", "--uids", uids, "--announce", announce];
    let options = [&FAST[..], &more].concat();
    lab.start(&format!("gw{number}"), &options)
}

/// Probes both stations both ways, and waits until all packets arrive.
fn probe(lab: &Lab) -> Probe {
    let probe = Probe::start(lab, 2, &[Way::Up, Way::Down], &[Family::V4]);
    flows(&probe);
    probe
}

/// Waits until both gateways have their share, and it is seen from outside.
fn shared(lab: &Lab) -> Vec<String> {
    let owners = lab.settled(&["gw1", "gw2"]);
    lab.shows(&owners);
    owners
}

/// Drains a gateway: the other serves all VNIs.
fn drain(lab: &Lab, mut daemon: Daemon) {
    let other = if daemon.node == "gw1" { "gw2" } else { "gw1" };
    lab.signal(&daemon, "TERM");
    assert!(
        daemon.ended(),
        "a drained daemon ends well: {}",
        daemon.log()
    );
    lab.shows(&lab.settled(&[other]));
}

/// Input: a drain and a join, then a power cut. Output: the upstream router always has the owner's routes alone; drain
/// and join lose nothing, and after the power cut the other gateway serves.
fn serves(test: &str, upstream: &str) {
    let Some(lab) = lab(test, upstream) else {
        return;
    };
    let first = start(&lab, 1, "routes");
    let _second = start(&lab, 2, "routes");
    shared(&lab);
    let probe = probe(&lab);
    probe.mark();
    drain(&lab, first);
    let first = start(&lab, 1, "routes");
    shared(&lab);
    flows(&probe);
    let moved = probe.end();
    println!("{test}: drain and join: {moved:?}");
    assert_eq!(lost(&moved), 0, "{moved:?}");

    lab.verb(&["kill", "gw1"]);
    drop(first);
    lab.shows(&lab.settled(&["gw2"]));
}

#[test]
fn serves_by_routes_over_ospf() {
    serves("serves_by_routes_over_ospf", "ospf");
}

#[test]
fn serves_by_routes_over_bgp() {
    serves("serves_by_routes_over_bgp", "bgp");
}

/// Input: a gateway that serves by routes loses etcd; another's daemon and guard are killed at the same moment, and its
/// daemon is started again. Output: a gateway without a lease has no route of any VNI, neither by its own fence nor by
/// a run that finds what was left; the other serves all.
#[test]
fn without_a_lease_there_are_no_routes() {
    let test = "without_a_lease_there_are_no_routes";
    let Some(lab) = lab(test, "ospf") else {
        return;
    };
    let _first = start(&lab, 1, "routes");
    let second = start(&lab, 2, "routes");
    shared(&lab);
    let protocol = PROTOCOL.to_string();
    let routes = |node: &str| lab.ask(node, &["ip", "route", "show", "proto", &protocol]);
    assert!(routes("gw1").contains("dev br"));
    lab.verb(&["cut", "gw1", "mgmt"]);
    eventually("gw1 has withdrawn its routes", || routes("gw1").is_empty());
    lab.shows(&lab.settled(&["gw2"]));
    lab.verb(&["heal", "gw1", "mgmt"]);
    shared(&lab);

    // The guard first: it would withdraw everything soon after its daemon's end.
    for name in ["wmgwd-guard", "wmgwd"] {
        lab.verb(&["signal", "gw2", "KILL", name]);
    }
    drop(second);
    assert!(routes("gw2").contains("dev br"), "no process is left to");
    lab.settled(&["gw1"]);
    let _second = start(&lab, 2, "routes");
    shared(&lab);
}

/// Input: two gateways with costs, which go over to routes one after the other, and back. Output: at each moment the
/// upstream router sends to the owner alone, also while one has costs and the other routes; no packet is lost.
#[test]
fn a_rolling_change_loses_nothing() {
    let test = "a_rolling_change_loses_nothing";
    let Some(lab) = lab(test, "both") else {
        return;
    };
    let mut daemons = [1, 2].map(|number| Some(start(&lab, number, "costs")));
    shared(&lab);
    let probe = probe(&lab);
    probe.mark();
    for announce in ["routes", "costs"] {
        for (number, daemon) in (1..).zip(&mut daemons) {
            drain(&lab, daemon.take().unwrap());
            *daemon = Some(start(&lab, number, announce));
            let owners = shared(&lab);
            let halves = lab.ask("up1", &["sh", "-c", "ip route | grep -c '^10.64.*/25 '"]);
            let by_routes = match (announce, number) {
                ("routes", 1) | ("costs", 1) => 2,
                ("routes", _) => 4,
                _ => 0,
            };
            assert_eq!(halves.trim(), (2 * by_routes).to_string(), "{owners:?}");
            flows(&probe);
        }
    }
    let moved = probe.end();
    println!("{test}: {moved:?}");
    assert_eq!(lost(&moved), 0, "{moved:?}");
}

/// Input: a served VNI's route is deleted; its bridge goes down and comes up again; FRR or one of its daemons is
/// restarted; FRR is reloaded. Output: each time the upstream router has all owners' routes again.
#[test]
fn what_takes_routes_away_is_noticed() {
    let test = "what_takes_routes_away_is_noticed";
    let Some(lab) = lab(test, "ospf") else {
        return;
    };
    let _first = start(&lab, 1, "routes");
    let second = start(&lab, 2, "routes");
    let owners = shared(&lab);
    let vni = 1 + owners.iter().position(|owner| owner == "gw1").unwrap();
    let half = format!("10.64.{vni}.128/25");
    let has = || {
        lab.ask("gw1", &["ip", "route", "show", &half])
            .contains("dev br")
    };
    assert!(has());
    lab.ask("gw1", &["ip", "route", "del", &half]);
    eventually("the route is back", has);
    lab.shows(&owners);

    let bridge = format!("br{vni}");
    lab.ask("gw1", &["ip", "link", "set", &bridge, "down"]);
    eventually("the route is gone", || !has());
    lab.ask("gw1", &["ip", "link", "set", &bridge, "up"]);
    shared(&lab);

    for daemon in ["ospfd", "bgpd", "zebra"] {
        lab.verb(&["frr", "gw1", "restart", daemon]);
        shared(&lab);
    }
    let reload = [
        "/usr/lib/frr/frr-reload.py",
        "--reload",
        "/etc/frr/frr.conf",
    ];
    lab.ask("gw2", &reload);
    eventually("gw2 has noticed", || {
        second
            .log()
            .contains("are not as they were left: told again")
    });
    shared(&lab);
}
