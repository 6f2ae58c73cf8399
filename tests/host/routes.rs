//! `--announce routes`, seen from the kernel of an upstream router that hears the gateway over OSPF or BGP.

use crate::namespace::{self, eventually, sh, try_sh};
use crate::router::{self, DOCUMENTED, PROGRAMS, configure, signal};
use crate::vni;
use std::collections::BTreeSet;
use std::time::Duration;
use wmgwd::host::frr::{Frr, FrrConfig};
use wmgwd::host::routes::{PROTOCOL, RouteBook, RouteMonitor};
use wmgwd::host::{Announce, Cost, Error, FrrDaemons, RouteChange, Router};
use wmgwd::model::types::VniRange;

/// What frr.conf.example has for zebra: which halves are the gateway's own, and that those of other gateways stay out
/// of its kernel.
const LISTS: &str = "
ip prefix-list halves seq 5 permit 10.16.0.0/12 ge 25 le 25
route-map own permit 10
 match ip address prefix-list halves
";
const OSPF: &str = "
router ospf
 ospf router-id 10.0.0.1
 passive-interface default
 no passive-interface up1
 network 10.9.0.0/24 area 0.0.0.0
 redistribute kernel metric-type 1 route-map own
";
const BGP: &str = "
router bgp 65000
 neighbor 10.9.0.2 remote-as 65001
 neighbor 10.9.0.2 timers connect 1
 no bgp ebgp-requires-policy
 address-family ipv4 unicast
  neighbor 10.9.0.2 activate
  redistribute kernel route-map own
 exit-address-family
";
const UPSTREAM_OSPF: &str = "
router ospf
 ospf router-id 10.0.0.9
 network 10.9.0.0/24 area 0.0.0.0
 timers lsa min-arrival 0
";
const UPSTREAM_BGP: &str = "
router bgp 65001
 bgp router-id 10.0.0.9
 no bgp ebgp-requires-policy
 neighbor 10.9.0.1 remote-as 65000
 neighbor 10.9.0.1 timers connect 1
";

fn config(announce: Announce, last: u32, book: &RouteBook) -> FrrConfig {
    FrrConfig {
        announce,
        book: book.clone(),
        timeout: Duration::from_secs(2),
        ..FrrConfig::new(VniRange::new(vni(1), vni(last)).unwrap())
    }
}

fn frr(last: u32) -> Frr {
    Frr::new(config(Announce::Routes, last, &RouteBook::default()))
}

/// Starts the gateway with VNIs 1 to `vnis`, and the upstream router with zebra and `daemon`.
fn start(vnis: u32, daemon: &str) {
    let own = DOCUMENTED.split("router ospf").next().unwrap();
    let filter = &DOCUMENTED[DOCUMENTED.find("route-map filter-vni permit 1").unwrap()..];
    let (carrier, upstream) = match daemon {
        "ospfd" => (OSPF, UPSTREAM_OSPF),
        _ => (BGP, UPSTREAM_BGP),
    };
    sh("ip link add up1 type veth peer name down1
        ip address add 10.9.0.1/24 dev up1; ip link set up1 up");
    router::start_with(vnis, &format!("{own}{LISTS}{carrier}{filter}"));
    configure("zebra", LISTS);
    std::fs::write("/etc/frr/up.conf", upstream).unwrap();
    std::fs::write("/etc/frr/up-zebra.conf", "hostname up\n").unwrap();
    sh(&format!(
        "ip netns add up; ip link set down1 netns up
         ip -n up address add 10.9.0.2/24 dev down1; ip -n up link set down1 up; ip -n up link set lo up
         mkdir /run/frr/up; chown frr /run/frr/up
         nsenter --net=/run/netns/up /usr/lib/frr/zebra -d -N up -A 127.0.0.1 -f /etc/frr/up-zebra.conf
         nsenter --net=/run/netns/up /usr/lib/frr/{daemon} -d -N up -A 127.0.0.1 -f /etc/frr/up.conf"
    ));
}

fn change(number: u32, evpn: bool, cost: Cost) -> RouteChange {
    RouteChange {
        vni: vni(number),
        evpn: Some(evpn),
        cost: Some(cost),
    }
}

fn claim(number: u32) -> RouteChange {
    change(number, true, Cost::OWNER)
}

fn release(number: u32) -> RouteChange {
    change(number, false, Cost::OTHERS)
}

#[track_caller]
fn applied(frr: &mut Frr, changes: &[RouteChange]) {
    let failures = frr.apply(changes, &|| true);
    assert!(failures.is_empty(), "{failures:?}");
}

/// The halves of VNIs below 256, as `ip route` writes them.
fn halves(vnis: &[u32]) -> BTreeSet<String> {
    let both = |vni: &u32| [format!("10.16.{vni}.0/25"), format!("10.16.{vni}.128/25")];
    vnis.iter().flat_map(both).collect()
}

/// The halves that a namespace's kernel has a route for.
fn listed(arguments: &str) -> BTreeSet<String> {
    let routes = sh(&format!("ip {arguments}"));
    let first = routes
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    first
        .filter(|it| it.ends_with("/25"))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn upstream_has(vnis: &[u32]) {
    let expected = halves(vnis);
    eventually(&format!("upstream has exactly {vnis:?}"), || {
        listed("-n up route") == expected
    });
}

#[track_caller]
fn kernel_has(vnis: &[u32]) {
    let found = listed(&format!("route show proto {PROTOCOL}"));
    assert_eq!(found, halves(vnis));
}

/// Input: the whole life of a gateway. Output: what the upstream router's kernel has.
fn life() {
    let mut frr = frr(6);
    frr.withdraw_all().unwrap();
    assert_eq!(frr.warnings(), Vec::<String>::new());
    assert!(frr.lacks(FrrDaemons::ALL).is_none());
    upstream_has(&[]);

    applied(&mut frr, &[claim(2), claim(3)]);
    upstream_has(&[2, 3]);
    eventually("EVPN of both", || {
        router::advertised() == BTreeSet::from([2, 3])
    });
    // The gateway's own address on the bridge is the source, as on the connected route.
    let route = sh("ip route show 10.16.2.0/25");
    assert!(route.contains("src 10.16.2.1"), "{route}");

    applied(&mut frr, &[claim(5), release(3), claim(2)]);
    upstream_has(&[2, 5]);

    // One part at a time, as a migration does it.
    let part = |evpn, cost| RouteChange {
        vni: vni(2),
        evpn,
        cost,
    };
    applied(&mut frr, &[part(None, Some(Cost::OTHERS))]);
    upstream_has(&[5]);
    eventually("EVPN of both", || {
        router::advertised() == BTreeSet::from([2, 5])
    });

    let failures = frr.apply(&[claim(1), release(5)], &|| false);
    assert!(
        matches!(&failures[..], [f] if f.vni == vni(1) && matches!(f.error, Error::NotPermitted)),
        "{failures:?}"
    );
    kernel_has(&[]);
    upstream_has(&[]);

    // br6 does not exist; the prefix of VNI 4 is somebody else's: each fails alone, and the foreign route stays.
    sh("ip route add 10.16.4.128/25 dev br4 proto static scope link");
    let failures = frr.apply(&[claim(1), claim(4), claim(6), claim(3)], &|| true);
    let failed: Vec<u32> = failures.iter().map(|it| it.vni.get()).collect();
    assert_eq!(failed, [4, 6], "{failures:?}");
    assert!(
        matches!(failures[0].error, Error::Route { .. }),
        "{failures:?}"
    );
    kernel_has(&[1, 3]);
    let foreign = || listed("route show proto static");
    assert!(foreign().contains("10.16.4.128/25"));

    // Another process (a guard, the next run) finds what this one left.
    let mut next = self::frr(6);
    next.withdraw(FrrDaemons::ALL, &BTreeSet::from([vni(3)]), &|| true)
        .unwrap();
    kernel_has(&[3]);
    applied(&mut next, &[claim(3)]);
    next.withdraw_all().unwrap();
    kernel_has(&[]);
    assert!(foreign().contains("10.16.4.128/25"));
    sh("ip route del 10.16.4.128/25");
    upstream_has(&[]);
}

#[test]
fn a_gateways_life_over_ospf() {
    namespace::run("routes::a_gateways_life_over_ospf", PROGRAMS, || {
        start(5, "ospfd");
        life();
    });
}

/// No ospfd runs: bgpd alone carries the routes.
#[test]
fn a_gateways_life_over_bgp() {
    namespace::run("routes::a_gateways_life_over_bgp", PROGRAMS, || {
        start(5, "bgpd");
        signal("ospfd", "KILL");
        sh("rm -f /run/frr/ospfd.pid");
        let health = frr(5).health();
        assert!(health.is_up() && health.ospfd == health.zebra, "{health:?}");
        life();
    });
}

/// Input: what the host does to a bridge of an announced VNI, and to its routes. Output: each is noticed at once, and
/// after the next claim the upstream router has exactly what it should have.
fn repaired() {
    let book = RouteBook::default();
    let mut frr = Frr::new(config(Announce::Routes, 3, &book));
    frr.withdraw_all().unwrap();
    applied(&mut frr, &[claim(1), claim(2)]);
    upstream_has(&[1, 2]);
    let mut monitor = RouteMonitor::open(book).unwrap();
    let is_lost = |monitor: &mut RouteMonitor, what: &str| {
        eventually(what, || monitor.lost().unwrap() == [vni(2)]);
    };
    let nothing = Vec::new();
    assert_eq!(frr.drifted(&|| true).unwrap(), nothing);
    assert_eq!(monitor.lost().unwrap(), nothing);

    sh("ip link set br2 down");
    // The kernel tells of the bridge and not of the routes, and zebra draws the conclusion.
    upstream_has(&[1]);
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(2)]);
    let failures = frr.apply(&[claim(2)], &|| true);
    assert!(matches!(&failures[..], [f] if matches!(f.error, Error::Route { .. })));
    sh("ip link set br2 up");
    applied(&mut frr, &[claim(2)]);
    upstream_has(&[1, 2]);

    sh(&format!(
        "ip route del 10.16.2.128/25 dev br2 proto {PROTOCOL}"
    ));
    is_lost(&mut monitor, "a half is deleted");
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(2)]);
    applied(&mut frr, &[claim(2)]);
    upstream_has(&[1, 2]);

    sh("ip address replace 10.17.2.1/24 dev br2; ip address del 10.16.2.1/24 dev br2");
    is_lost(&mut monitor, "another address");
    assert_eq!(frr.drifted(&|| true).unwrap(), [vni(2)]);
    applied(&mut frr, &[claim(2)]);
    let mut expected = halves(&[1]);
    expected.extend(["10.17.2.0/25", "10.17.2.128/25"].map(str::to_owned));
    eventually("the new subnet upstream", || {
        listed("-n up route") == expected
    });

    // The last address: the kernel drops the routes without telling, and FRR goes on announcing them.
    sh("ip address flush dev br2");
    is_lost(&mut monitor, "the last address goes");
    applied(&mut frr, &[claim(2)]);
    upstream_has(&[1]);
    sh("ip address add 10.16.2.1/24 dev br2");
    is_lost(&mut monitor, "an address comes");
    applied(&mut frr, &[claim(2)]);
    upstream_has(&[1, 2]);
    sh("ip address flush dev br2");
    applied(&mut frr, &[release(2)]);
    upstream_has(&[1]);

    // What an earlier wmgwd may have left, with its bridge's address gone or there.
    sh(&format!(
        "ip address add 10.16.2.1/24 dev br2; ip route add 10.16.3.0/25 dev br3 proto {PROTOCOL} scope link
         ip route add 10.16.2.0/25 dev br2 proto {PROTOCOL} scope link; sleep 0.3; ip address flush dev br2"
    ));
    assert_eq!(frr.drifted(&|| true).unwrap(), nothing);
    kernel_has(&[1]);
    upstream_has(&[1]);
}

#[test]
fn what_the_host_takes_away_is_repaired() {
    namespace::run(
        "routes::what_the_host_takes_away_is_repaired",
        PROGRAMS,
        || {
            start(3, "ospfd");
            repaired();
        },
    );
}

/// Input: ospfd dies, a VNI is released and another claimed, ospfd comes back. Output: upstream has what is owned then.
#[test]
fn a_daemon_that_restarts_announces_what_is_owned_then() {
    namespace::run(
        "routes::a_daemon_that_restarts_announces_what_is_owned_then",
        PROGRAMS,
        || {
            start(3, "ospfd");
            let mut frr = frr(3);
            frr.withdraw_all().unwrap();
            applied(&mut frr, &[claim(1), claim(2)]);
            upstream_has(&[1, 2]);
            signal("ospfd", "KILL");
            sh("rm -f /run/frr/ospfd.pid");
            applied(&mut frr, &[release(2), claim(3)]);
            router::start_daemon("ospfd");
            upstream_has(&[1, 3]);
        },
    );
}

/// Input: a reload of FRR, which takes away what is in no file. Output: it is noticed by one look.
#[test]
fn a_reload_is_noticed() {
    namespace::run("routes::a_reload_is_noticed", PROGRAMS, || {
        start(2, "ospfd");
        let mut frr = frr(2);
        frr.withdraw_all().unwrap();
        assert!(!frr.is_suspect());
        applied(&mut frr, &[claim(1), claim(2)]);
        assert!(!frr.is_suspect());
        configure("bgpd", "no route-map filter-vni permit 10\n");
        assert!(frr.is_suspect());
        frr.drifted(&|| true).unwrap();
        applied(&mut frr, &[claim(1), claim(2)]);
        assert!(!frr.is_suspect());
        upstream_has(&[1, 2]);
        eventually("EVPN of both", || {
            router::advertised() == BTreeSet::from([1, 2])
        });
    });
}

/// Input: FRR that does not redistribute; then does. Output: wmgwd says so and does without, until it does.
#[test]
fn without_redistribution_the_node_is_not_fit() {
    namespace::run(
        "routes::without_redistribution_the_node_is_not_fit",
        PROGRAMS,
        || {
            start(1, "ospfd");
            configure("ospfd", "router ospf\nno redistribute kernel\n");
            let mut frr = frr(1);
            frr.withdraw_all().unwrap();
            let ospfd = FrrDaemons {
                bgpd: false,
                ..FrrDaemons::ALL
            };
            let lacks = frr.lacks(ospfd);
            assert!(matches!(lacks, Some(Error::NotRedistributed)), "{lacks:?}");
            assert_eq!(frr.warnings().len(), 1);
            configure("ospfd", "router ospf\nredistribute kernel route-map own\n");
            frr.drifted(&|| true).unwrap();
            assert!(frr.lacks(ospfd).is_none() && frr.warnings().is_empty());
        },
    );
}

/// Input: a change from one way to the other, with what a killed run left. Output: the new way leaves nothing of the
/// old one: no routes, and no bridge that OSPF announces cheaply.
#[test]
fn a_change_of_the_way_leaves_nothing_of_the_other() {
    namespace::run(
        "routes::a_change_of_the_way_leaves_nothing_of_the_other",
        PROGRAMS,
        || {
            start(3, "ospfd");
            configure("ospfd", "router ospf\nnetwork 10.16.2.0/24 area 0\n");
            let book = RouteBook::default();
            let mut by_costs = Frr::new(config(Announce::Costs, 3, &book));
            by_costs.withdraw_all().unwrap();
            applied(&mut by_costs, &[claim(2)]);
            assert_eq!(router::cost(2), Some(100));

            let mut by_routes = frr(3);
            by_routes.withdraw_all().unwrap();
            assert_eq!(router::cost(2), Some(65535));
            configure("ospfd", "interface br2\nno ip ospf cost\n");
            by_routes.drifted(&|| true).unwrap();
            assert_eq!(router::cost(2), Some(65535));
            applied(&mut by_routes, &[claim(1)]);
            kernel_has(&[1]);

            Frr::new(config(Announce::Costs, 3, &RouteBook::default()))
                .withdraw_all()
                .unwrap();
            kernel_has(&[]);
            // The VNIs of another range are another wmgwd's.
            sh(&format!(
                "ip route add 10.16.3.0/25 dev br3 proto {PROTOCOL} scope link"
            ));
            frr(2).withdraw_all().unwrap();
            assert!(try_sh("ip route show 10.16.3.0/25").1.contains("br3"));
        },
    );
}
