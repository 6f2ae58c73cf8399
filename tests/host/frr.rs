//! The FRR lane, seen from an access point and from ospfd.

use crate::namespace::{self, eventually, sh};
use crate::router::{self, PROGRAMS, advertised, configure, cost, running_config, signal};
use crate::{routes, vni};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wmgwd::guard::address::Address;
use wmgwd::guard::protocol::{Order, VERSION};
use wmgwd::guard::supervisor::GuardSupervisor;
use wmgwd::host::frr::{Frr, FrrConfig};
use wmgwd::host::{Announce, Cost, Error, FrrDaemons, RouteChange, Router};
use wmgwd::model::frr::EvpnFilter;
use wmgwd::model::types::{Lease, LeaseId, VniRange};
use wmgwd::sys::clock;

fn frr(last: u32, filter: EvpnFilter) -> Frr {
    let range = VniRange::new(vni(1), vni(last)).unwrap();
    Frr::new(FrrConfig {
        filter,
        timeout: Duration::from_secs(2),
        ..FrrConfig::new(range)
    })
}

fn change(number: u32, evpn: bool, cost: u16) -> RouteChange {
    RouteChange {
        vni: vni(number),
        evpn: Some(evpn),
        cost: Some(Cost(cost)),
    }
}

fn claim(number: u32) -> RouteChange {
    change(number, true, 100)
}

fn release(number: u32) -> RouteChange {
    change(number, false, 65535)
}

fn advertises(vnis: &[u32]) {
    let vnis = BTreeSet::from_iter(vnis.iter().copied());
    eventually(&format!("exactly {vnis:?} advertised"), || {
        advertised() == vnis
    });
}

#[track_caller]
fn applied(frr: &mut Frr, changes: &[RouteChange]) {
    let failures = frr.apply(changes, &|| true);
    assert!(failures.is_empty(), "{failures:?}");
}

/// Input: the whole life of a gateway. Output: what the access point hears, and the costs.
fn life(filter: EvpnFilter) {
    let mut frr = frr(6, filter);
    frr.withdraw_all().unwrap();
    assert_eq!(frr.warnings(), Vec::<String>::new());
    advertises(&[]);
    assert_eq!(router::heard_type_3(), 5, "flooding goes on");
    assert!((1..=5).all(|i| cost(i) == Some(65535)));
    // br6 is yet to come, and must not come with the default cost.
    assert!(running_config("ospfd").contains("interface br6\n ip ospf cost 65535"));

    applied(&mut frr, &[claim(2), claim(3)]);
    advertises(&[2, 3]);
    assert_eq!([cost(1), cost(2), cost(3)], [65535, 100, 100].map(Some));

    applied(&mut frr, &[claim(5), release(3)]);
    advertises(&[2, 5]);
    assert_eq!([cost(3), cost(5)], [65535, 100].map(Some));

    // One part at a time, as a migration does it.
    let part = |evpn, cost: Option<u16>| RouteChange {
        vni: vni(2),
        evpn,
        cost: cost.map(Cost),
    };
    applied(&mut frr, &[part(None, Some(65535))]);
    advertises(&[2, 5]);
    assert_eq!(cost(2), Some(65535));
    applied(&mut frr, &[part(Some(false), None)]);
    advertises(&[5]);

    let failures = frr.apply(&[claim(1), release(5)], &|| false);
    assert!(
        matches!(&failures[..], [f] if f.vni == vni(1) && matches!(f.error, Error::NotPermitted)),
        "{failures:?}"
    );
    advertises(&[]);
    assert_eq!([cost(1), cost(5)], [65535, 65535].map(Some));

    // A bad change does not sink the others.
    let failures = frr.apply(&[claim(1), change(2, true, 0), claim(3)], &|| true);
    assert!(
        matches!(&failures[..], [f] if f.vni == vni(2) && matches!(f.error, Error::Refused { .. })),
        "{failures:?}"
    );
    assert_eq!([cost(1), cost(2), cost(3)], [100, 65535, 100].map(Some));
    applied(&mut frr, &[release(2)]);
    advertises(&[1, 3]);

    // Another process (a guard, the next run) finds what this one left, and what the Go wmgwd would leave.
    configure("bgpd", "route-map filter-vni permit 14\nmatch evpn vni 4\n");
    let mut next = self::frr(6, filter);
    applied(&mut next, &[release(3)]);
    next.withdraw_all().unwrap();
    advertises(&[]);
    assert!((1..=5).all(|i| cost(i) == Some(65535)));
    let (bgpd, ospfd) = (running_config("bgpd"), running_config("ospfd"));
    next.withdraw_all().unwrap();
    assert_eq!(
        (bgpd, ospfd),
        (running_config("bgpd"), running_config("ospfd"))
    );
}

#[test]
fn a_gateways_life_with_a_list() {
    namespace::run("frr::a_gateways_life_with_a_list", PROGRAMS, || {
        router::start(5);
        // vtysh complains of the first in each run, and shows the others in the configuration.
        std::fs::write("/etc/frr/vtysh.conf", "banner nonsense\n").unwrap();
        let words = "description ospfd is not running, it is locked by me";
        configure("bgpd", &format!("ip prefix-list x {words}\n"));
        configure("ospfd", &format!("interface br2\n{words}\n"));
        life(EvpnFilter::List);
    });
}

#[test]
fn a_gateways_life_with_entries() {
    namespace::run("frr::a_gateways_life_with_entries", PROGRAMS, || {
        router::start(5);
        life(EvpnFilter::Entries);
    });
}

/// Input: br3 is the host's own, without the VXLAN port of VNI 3. Output: its OSPF cost stays the operator's.
#[test]
fn a_bridge_of_the_hosts_own_keeps_its_cost() {
    namespace::run(
        "frr::a_bridge_of_the_hosts_own_keeps_its_cost",
        PROGRAMS,
        || {
            router::start(3);
            namespace::sh("ip link set vxlan3 nomaster");
            configure("ospfd", "interface br3\nip ospf cost 7\n");
            frr(4, EvpnFilter::List).withdraw_all().unwrap();
            assert_eq!([cost(1), cost(2)], [65535, 65535].map(Some));
            let config = running_config("ospfd");
            assert!(
                config.contains("interface br3\n ip ospf cost 7\n"),
                "{config}"
            );
        },
    );
}

/// The same with the configuration that we tell operators to use.
#[test]
fn a_gateways_life_with_our_example() {
    namespace::run("frr::a_gateways_life_with_our_example", PROGRAMS, || {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/frr.conf.example");
        let Ok(example) = std::fs::read_to_string(path) else {
            println!("skipped: no frr.conf.example");
            return;
        };
        let config = example
            .replace("10.0.1.11", "10.0.0.1")
            .replace("10.0.1.17", "10.0.0.2")
            .replace("10.64.0.0/10", "10.16.0.0/12");
        router::start_with(5, &config);
        advertises(&[]);
        life(EvpnFilter::List);
    });
}

/// Input: a reload of the operator's configuration behind our back, without a restart.
/// Output: the filter is closed at once, the VNIs to apply again are named, and that brings them back.
fn reload(filter: EvpnFilter) {
    router::start(4);
    let mut frr = frr(4, filter);
    frr.withdraw_all().unwrap();
    applied(&mut frr, &[claim(1), claim(2)]);
    assert_eq!(frr.drifted(&|| true).unwrap(), []);

    let entries = "no bgp extcommunity-list standard wmgwd\nno route-map filter-vni permit 10\n";
    let both = "no route-map filter-vni permit 11\nno route-map filter-vni permit 12\n";
    let gone = if filter == EvpnFilter::List {
        entries
    } else {
        both
    };
    configure(
        "bgpd",
        &format!("{gone}no route-map filter-vni deny 65535\n"),
    );
    advertises(&[1, 2, 3, 4]);
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1), vni(2)]);
    advertises(&[]);
    applied(&mut frr, &[claim(1), claim(2)]);
    advertises(&[1, 2]);
    assert_eq!(frr.drifted(&|| true).unwrap(), []);

    assert!(!frr.is_suspect());
    configure(
        "ospfd",
        "interface br3\nno ip ospf cost\ninterface br1\nip ospf cost 7\n",
    );
    assert!(
        frr.is_suspect(),
        "the cost of a VNI that is served is looked at"
    );
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1), vni(3)]);
    applied(&mut frr, &[claim(1), release(3)]);
    assert_eq!([cost(1), cost(3)], [100, 65535].map(Some));
    assert_eq!(frr.drifted(&|| true).unwrap(), []);
    assert!(!frr.is_suspect());

    // Let out by someone else: taken back by the release that is asked for.
    let line = match filter {
        EvpnFilter::List => "bgp extcommunity-list standard wmgwd seq 4 permit rt 65000:4\n",
        EvpnFilter::Entries => "route-map filter-vni permit 99\nmatch evpn vni 4\n",
    };
    configure("bgpd", line);
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(4)]);
    applied(&mut frr, &[release(4)]);
    assert_eq!(frr.drifted(&|| true).unwrap(), []);
    advertises(&[1, 2]);

    // Another VNI changes while the filter is out of shape: what had to be emptied is told.
    configure("bgpd", "no route-map filter-vni deny 65535\n");
    if filter == EvpnFilter::Entries {
        applied(&mut frr, &[claim(3)]);
        assert_eq!(frr.take_lost(), [vni(1), vni(2)]);
        applied(&mut frr, &[release(3)]);
    } else {
        // Also if ospfd, which is compared after it, does not answer.
        router::signal("ospfd", "STOP");
        frr.drifted(&|| true).unwrap_err();
        assert_eq!(frr.take_lost(), [vni(1), vni(2)]);
        router::signal("ospfd", "CONT");
    }
    assert_eq!(frr.take_lost(), []);
    applied(&mut frr, &[claim(1), claim(2)]);
    advertises(&[1, 2]);

    if filter == EvpnFilter::List {
        configure(
            "bgpd",
            "router bgp 65000\naddress-family l2vpn evpn\nvni 2\nroute-target export 65000:9002\n",
        );
        assert_eq!(frr.drifted(&|| true).unwrap(), []);
        advertises(&[1, 9002]);
    }

    assert!(frr.lacks(FrrDaemons::ALL).is_none());
    configure("bgpd", "no router bgp 65000\n");
    frr.withdraw_all().unwrap();
    let lack = frr.lacks(FrrDaemons::ALL).unwrap().to_string();
    assert!(lack.contains("no `router bgp AS`"), "{lack}");
}

#[test]
fn a_reload_is_noticed_with_a_list() {
    namespace::run("frr::a_reload_is_noticed_with_a_list", PROGRAMS, || {
        reload(EvpnFilter::List)
    });
}

#[test]
fn a_reload_is_noticed_with_entries() {
    namespace::run("frr::a_reload_is_noticed_with_entries", PROGRAMS, || {
        reload(EvpnFilter::Entries);
    });
}

/// Input: VNIs whose number does not fit into a route-map's sequence number.
#[test]
fn high_vnis_get_an_entry() {
    namespace::run("frr::high_vnis_get_an_entry", PROGRAMS, || {
        router::start(1);
        let range = VniRange::new(vni(1), vni(16777215)).unwrap();
        let mut frr = Frr::new(FrrConfig {
            filter: EvpnFilter::Entries,
            ..FrrConfig::new(range)
        });
        frr.withdraw_all().unwrap();
        let evpn = |number, evpn| RouteChange {
            vni: vni(number),
            evpn: Some(evpn),
            cost: None,
        };
        applied(
            &mut frr,
            &[evpn(70000, true), evpn(16777215, true), evpn(1, true)],
        );
        let config = running_config("bgpd");
        for entry in [
            "filter-vni permit 4\n match evpn vni 70000\n",
            "filter-vni permit 5\n match evpn vni 16777215\n",
            "filter-vni permit 11\n match evpn vni 1\n",
        ] {
            assert!(config.contains(entry), "{entry} is not in {config}");
        }
        applied(&mut frr, &[evpn(70000, false)]);
        assert!(!running_config("bgpd").contains("vni 70000"));
        advertises(&[1]);
    });
}

/// Input: bgpd and ospfd stopped, continued, killed, started again. Output: errors that say so within the
/// deadline, the other daemon's part done, and everything back with the same calls.
#[test]
fn daemons_that_stop_and_start() {
    namespace::run("frr::daemons_that_stop_and_start", PROGRAMS, || {
        router::start(3);
        let mut frr = frr(3, EvpnFilter::List);
        frr.withdraw_all().unwrap();
        applied(&mut frr, &[claim(1), claim(2)]);
        let before = frr.health();
        assert!(before.is_up());

        signal("ospfd", "STOP");
        assert_eq!(frr.health().ospfd, None);
        let start = Instant::now();
        let failures = frr.apply(&[release(1), claim(3)], &|| true);
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures.iter().all(|f| matches!(
            f.error,
            Error::TimedOut {
                daemon: "ospfd",
                ..
            }
        )));
        advertises(&[2, 3]);
        assert!(matches!(frr.withdraw_all(), Err(Error::TimedOut { .. })));
        advertises(&[]);
        signal("ospfd", "CONT");
        assert_eq!(frr.health(), before);
        applied(&mut frr, &[release(1), claim(2), claim(3)]);
        assert_eq!([cost(1), cost(3)], [65535, 100].map(Some));

        let ended = |frr: &Frr| {
            let ends = frr.ends();
            let fds = ends.iter().map(|it| PollFd::new(*it, PollFlags::POLLIN));
            let ended = poll(&mut fds.collect::<Vec<_>>(), PollTimeout::ZERO).unwrap();
            (ends.len(), ended)
        };
        assert_eq!(ended(&frr), (3, 0), "bgpd, ospfd and zebra are tied");
        signal("bgpd", "KILL");
        assert_eq!(ended(&frr), (3, 1), "its end is told");
        assert_eq!(frr.health().bgpd, None);
        assert_eq!(ended(&frr), (2, 0), "once");
        let failures = frr.apply(&[release(2)], &|| true);
        assert!(
            matches!(&failures[..], [f] if matches!(f.error, Error::Down { daemon: "bgpd" })),
            "{failures:?}"
        );
        assert_eq!(cost(2), Some(65535));
        router::start_daemon("bgpd");
        let after = frr.health();
        assert_eq!(ended(&frr), (3, 0), "the new one is tied");
        assert!(after.is_up() && after.bgpd != before.bgpd && after.ospfd == before.ospfd);
        // The new bgpd leaks until the filter is closed again; any change does that.
        applied(&mut frr, &[release(2)]);
        advertises(&[]);
        applied(&mut frr, &[claim(3)]);
        advertises(&[3]);
    });
}

/// Input: a zebra that is held up, with a small socket, while addresses are added to forty bridges, so that it loses
/// some. Output: the next audit has it told of them; each has its OSPF network and its type-2 route. An audit that
/// finds nothing runs no vtysh, whatever the number of VNIs that are advertised.
#[test]
fn addresses_that_zebra_missed_are_made_up_for() {
    namespace::run(
        "frr::addresses_that_zebra_missed_are_made_up_for",
        PROGRAMS,
        || {
            const VNIS: u32 = 40;
            router::start(VNIS);
            signal("zebra", "KILL");
            namespace::sh("/usr/lib/frr/zebra -d -A 127.0.0.1 -s 20000");
            let known = || {
                let text = namespace::sh("vtysh -d zebra -c 'show interface brief'");
                (1..=VNIS)
                    .filter(|i| text.contains(&format!(" 172.16.{i}.1/24")))
                    .count()
            };
            signal("zebra", "STOP");
            let add = |i: u32| {
                format!("addr add 172.16.{i}.1/24 dev br{i}\naddr add fd00:{i}::1/64 dev br{i}\n")
            };
            std::fs::write("/run/addresses", (1..=VNIS).map(add).collect::<String>()).unwrap();
            namespace::sh("ip -batch /run/addresses");
            signal("zebra", "CONT");
            // What the kernel tells now comes after all that.
            eventually("zebra has heard all that it will", || {
                namespace::sh("ip address replace 192.0.2.7/32 dev lo");
                namespace::try_sh("vtysh -d zebra -c 'show interface brief' | grep 192.0.2.7").0
            });
            assert!(
                known() < VNIS as usize,
                "zebra lost nothing: the test shows nothing"
            );
            let before = namespace::sh("ip -o address | sort");

            namespace::sh(
                "printf '#!/bin/sh\\necho $2 >>/run/runs\\nexec vtysh \"$@\"\\n' >/run/vtysh; chmod +x /run/vtysh",
            );
            let range = VniRange::new(vni(1), vni(VNIS)).unwrap();
            let mut frr = Frr::new(FrrConfig {
                vtysh: "/run/vtysh".into(),
                ..FrrConfig::new(range)
            });
            frr.drifted(&|| true).unwrap();
            eventually("zebra knows all", || known() == VNIS as usize);
            assert_eq!(namespace::sh("ip -o address | sort"), before);
            let claims: Vec<RouteChange> = (1..=VNIS).map(claim).collect();
            applied(&mut frr, &claims);
            namespace::sh("rm /run/runs");
            frr.drifted(&|| true).unwrap();
            // It asks over the vty sockets.
            let runs = std::fs::read_to_string("/run/runs").unwrap_or_default();
            assert_eq!(runs, "");
        },
    );
}

/// Input: route targets that the operator sets by hand.
/// Output: the VNI is let out by them; one that cannot be told from another is refused and kept in.
#[test]
fn configured_route_targets_are_used() {
    namespace::run("frr::configured_route_targets_are_used", PROGRAMS, || {
        router::start(4);
        configure(
            "bgpd",
            "router bgp 65000\naddress-family l2vpn evpn\n\
             vni 2\nroute-target export 65000:1002\nroute-target export 65000:1102\nexit-vni\n\
             vni 3\nroute-target export 65000:1003\nexit-vni\n\
             vni 4\nroute-target export 65000:1003\nexit-vni\n",
        );
        let mut frr = frr(4, EvpnFilter::List);
        frr.withdraw_all().unwrap();
        advertises(&[]);
        let failures = frr.apply(&[claim(1), claim(2), claim(3)], &|| true);
        assert!(
            matches!(&failures[..], [f] if f.vni == vni(3)
                && matches!(&f.error, Error::Refused { output, .. } if output.contains("VNI 4"))),
            "{failures:?}"
        );
        advertises(&[1, 1002, 1102]);
        assert_eq!(cost(3), Some(65535), "no traffic without its routes");
        applied(&mut frr, &[release(2)]);
        advertises(&[1]);
    });
}

/// Input: neighbours that are activated for EVPN by a line, by their group, by default, and such that are not. Output:
/// those that bgpd exchanges EVPN routes with are named as unfiltered, and no other.
#[test]
fn each_neighbour_that_bgpd_activates_needs_the_filter() {
    let test = "frr::each_neighbour_that_bgpd_activates_needs_the_filter";
    namespace::run(test, PROGRAMS, || {
        router::start(1);
        let mut frr = frr(1, EvpnFilter::List);
        let named = |frr: &mut Frr| {
            frr.drifted(&|| true).unwrap();
            let warnings = frr.warnings();
            let named = warnings
                .iter()
                .filter(|it| it.contains("is not the outbound filter"));
            let words = named.flat_map(|it| it.split([' ', ',', ':']));
            BTreeSet::from_iter(words.filter(|it| it.starts_with("10.")).map(str::to_owned))
        };
        let activated = || {
            let text = sh("vtysh -d bgpd -c 'show bgp l2vpn evpn summary json'");
            let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
            let peers = summary["peers"].as_object().cloned().unwrap_or_default();
            // Two have the filter of their group.
            let peers = peers
                .keys()
                .filter(|it| !["10.0.0.2", "10.0.0.4"].contains(&it.as_str()));
            let peers = peers.cloned();
            BTreeSet::from_iter(peers)
        };
        frr.withdraw_all().unwrap();
        assert_eq!(named(&mut frr), activated());
        let steps = [
            (
                "router bgp 65000\nneighbor quiet peer-group\nneighbor quiet remote-as 65000\n\
                 neighbor 10.0.0.3 remote-as 65000\nneighbor 10.0.0.4 peer-group fabric\n\
                 neighbor 10.0.0.5 peer-group quiet\nneighbor 10.0.0.6 peer-group quiet\n\
                 address-family l2vpn evpn\nneighbor 10.0.0.6 activate\n",
                &["10.0.0.6"][..],
            ),
            (
                "router bgp 65000\nbgp default l2vpn-evpn\nneighbor 10.0.0.7 remote-as 65000\n\
                 neighbor 10.0.0.8 remote-as 65000\n",
                &["10.0.0.6", "10.0.0.7", "10.0.0.8"],
            ),
            (
                "router bgp 65000\naddress-family l2vpn evpn\nno neighbor 10.0.0.7 activate\n\
                 no neighbor 10.0.0.4 activate\n",
                &["10.0.0.6", "10.0.0.8"],
            ),
            (
                "router bgp 65000\nno bgp default l2vpn-evpn\n",
                &["10.0.0.6", "10.0.0.8"],
            ),
        ];
        for (lines, expected) in steps {
            configure("bgpd", lines);
            let expected = BTreeSet::from_iter(expected.iter().map(|it| (*it).to_owned()));
            assert_eq!(activated(), expected, "{lines}");
            assert_eq!(named(&mut frr), expected, "{lines}");
        }
    });
}

#[test]
fn the_guard_of_a_run_before_leaves_the_next_run_alone() {
    let test = "frr::the_guard_of_a_run_before_leaves_the_next_run_alone";
    namespace::run(test, PROGRAMS, || guard_of_a_run_before(Announce::Costs));
}

#[test]
fn the_guard_of_a_run_before_leaves_the_next_runs_routes_alone() {
    let test = "frr::the_guard_of_a_run_before_leaves_the_next_runs_routes_alone";
    namespace::run(test, PROGRAMS, || guard_of_a_run_before(Announce::Routes));
}

/// Input: the guard of a run under another name, whose daemon is gone, and which FRR refuses for a while; the next run
/// has that guard retire. Output: that guard has ended, and what the next run shows stays.
fn guard_of_a_run_before(announce: Announce) {
    router::start(3);
    let name = "wmgwd/before";
    let frr = || {
        let range = VniRange::new(vni(1), vni(3)).unwrap();
        Frr::new(FrrConfig {
            announce,
            ..FrrConfig::new(range)
        })
    };
    let is_shown = |number: u32| match announce {
        Announce::Costs => {
            [1, 2, 3].map(cost) == [1, 2, 3].map(|it| Some(if it == number { 100 } else { 65535 }))
        }
        Announce::Routes => routes::announced() == routes::halves(&[number]),
    };
    sh("mkdir /run/bin; touch /run/refuse
            printf '#!/bin/sh\\n[ -e /run/refuse ] && exit 1\\nexec /usr/bin/vtysh \"$@\"\\n' > /run/bin/vtysh
            chmod +x /run/bin/vtysh");
    let mut guard = Command::new(env!("CARGO_BIN_EXE_wmgwd"))
        .args([
            "guard",
            name,
            VERSION,
            "700",
            "1",
            "3",
            "list",
            announce.name(),
            "real",
            "info",
        ])
        .env("PATH", "/run/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut before = frr();
    before.withdraw_all().unwrap();
    applied(&mut before, &[claim(2)]);
    advertises(&[2]);
    assert!(is_shown(2));
    let address = Address::from_argument(name);
    eventually("the guard listens", || address.connect().is_ok());
    let mut daemon = address.connect().unwrap();
    daemon.set_nonblocking(false).unwrap();
    let lease = Lease {
        id: LeaseId(7),
        valid_until: clock::now() + Duration::from_secs(600),
    };
    daemon
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut lines = BufReader::new(daemon.try_clone().unwrap()).lines();
    for order in [Order::Hello, Order::Lease(lease)] {
        daemon.write_all(order.line().as_bytes()).unwrap();
        lines.next().unwrap().unwrap();
    }
    drop((lines, daemon));
    let retired = GuardSupervisor::retire_others(vec![address]);
    assert_eq!(retired.len(), 1);
    let mut next = frr();
    next.withdraw_all().unwrap();
    applied(&mut next, &[claim(3)]);
    advertises(&[3]);
    sh("rm /run/refuse");
    for _ in 0..20 {
        assert_eq!(advertised(), BTreeSet::from([3]));
        assert!(is_shown(3));
        sleep(Duration::from_millis(200));
    }
    assert!(guard.try_wait().unwrap().is_some(), "the guard has ended");
}

/// Input: a VNI of the range that is the L3VNI of the default VRF, so that its route target is on all type-2 routes.
/// Output: it is refused in both modes, by name, and the claim of a VNI lets out no other.
#[test]
fn an_l3vni_is_not_advertised() {
    namespace::run("frr::an_l3vni_is_not_advertised", PROGRAMS, || {
        router::start(5);
        configure("zebra", "vni 5\n");
        eventually("VNI 5 is an L3VNI", || {
            let text = sh("vtysh -d bgpd -c 'show bgp l2vpn evpn vni 5 json'");
            let vni: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            vni["type"] == "L3"
        });
        // By the addresses of the bridges: each route has the route target of VNI 5, too.
        let shows = |vnis: &[u32]| {
            eventually(&format!("exactly {vnis:?}"), || {
                let show = "vtysh -N ap -d bgpd -c 'show bgp l2vpn evpn route type macip'";
                let routes = sh(&format!("{show} 2>/dev/null"));
                let is_shown = |i: &u32| routes.contains(&format!("[10.16.{i}.1]"));
                Vec::from_iter((1..=5).filter(is_shown)) == vnis
            });
        };
        for filter in [EvpnFilter::List, EvpnFilter::Entries] {
            let mut frr = frr(5, filter);
            frr.withdraw_all().unwrap();
            shows(&[]);
            let failures = frr.apply(&[claim(5), claim(1)], &|| true);
            let [failure] = &failures[..] else {
                panic!("{failures:?}");
            };
            assert_eq!(failure.vni, vni(5));
            let text = failure.error.to_string();
            assert!(text.contains("VNI 5 is an L3VNI"), "{text}");
            shows(&[1]);
            applied(&mut frr, &[claim(2)]);
            shows(&[1, 2]);
        }
    });
}

/// Input: an ospf6d that runs on two of three bridges; a cost that an operator changes; an ospf6d that ends, and comes
/// back with what its file says. Output: the costs there are those in ospfd, where it runs and nowhere else; what
/// differs is found, and a host whose ospf6d is away is served as one without.
#[test]
fn costs_in_ospf6d_follow_those_in_ospfd() {
    namespace::run(
        "frr::costs_in_ospf6d_follow_those_in_ospfd",
        PROGRAMS,
        || {
            router::start(3);
            let lines = "interface br1\n ipv6 ospf6 area 0.0.0.0\ninterface br2\n ipv6 ospf6 area 0.0.0.0\nrouter ospf6\n \
                     ospf6 router-id 10.0.0.1\n";
            sh(&format!("printf '{lines}' >>/etc/frr/frr.conf"));
            router::start_daemon("ospf6d");
            let ospf6 = |vni: u32| {
                let text = running_config("ospf6d");
                let vni = self::vni(vni);
                wmgwd::host::frr::config::parse_ospf6(&text)
                    .get(&vni)
                    .map(|cost| cost.0)
            };
            eventually("ospf6d has its configuration", || {
                running_config("ospf6d").matches("ipv6 ospf6 area").count() == 2
            });
            let mut frr = frr(3, EvpnFilter::List);
            frr.withdraw_all().unwrap();
            assert_eq!([1, 2, 3].map(ospf6), [Some(65535), Some(65535), None]);
            assert_eq!(frr.drifted(&|| true).unwrap(), []);
            applied(&mut frr, &[claim(1), claim(3), release(2)]);
            assert_eq!([1, 2, 3].map(ospf6), [Some(100), Some(65535), None]);
            assert_eq!([cost(1), cost(3)], [Some(100), Some(100)]);
            assert!(!frr.is_suspect());
            configure("ospf6d", "interface br1\nipv6 ospf6 cost 7\n");
            assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1)]);
            applied(&mut frr, &[claim(1)]);
            assert_eq!(ospf6(1), Some(100));
            signal("ospf6d", "TERM");
            assert!(frr.is_suspect());
            assert_eq!(frr.drifted(&|| true).unwrap(), []);
            assert!(!frr.is_suspect());
            applied(&mut frr, &[release(1), claim(2)]);
            router::start_daemon("ospf6d");
            eventually("ospf6d is back", || {
                running_config("ospf6d").matches("ipv6 ospf6 area").count() == 2
            });
            assert!(frr.is_suspect());
            assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1), vni(2)]);
            applied(&mut frr, &[release(1), claim(2)]);
            assert_eq!([1, 2, 3].map(ospf6), [Some(65535), Some(100), None]);
            frr.withdraw_all().unwrap();
            assert_eq!([1, 2, 3].map(ospf6), [Some(65535), Some(65535), None]);
        },
    );
}
