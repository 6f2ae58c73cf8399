//! `--announce routes`, seen from the kernel of an upstream router that hears the gateway over OSPF or BGP.

use crate::namespace::{self, eventually, sh, try_sh};
use crate::router::{self, DOCUMENTED, PROGRAMS, configure, running_config, signal};
use crate::vni;
use std::collections::BTreeSet;
use std::time::Duration;
use wmgwd::host::frr::{Frr, FrrConfig};
use wmgwd::host::links::Bridges;
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::routes::{PROTOCOL, RouteBook, RouteMonitor, Routes};
use wmgwd::host::{Announce, Cost, Error, FrrDaemons, Kernel, RouteChange, Router};
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
    start_with(vnis, daemon, "");
}

/// The same with more of the gateway's configuration.
fn start_with(vnis: u32, daemon: &str, more: &str) {
    let own = DOCUMENTED.split("router ospf").next().unwrap();
    let filter = &DOCUMENTED[DOCUMENTED.find("route-map filter-vni permit 1").unwrap()..];
    let carrier = match daemon {
        "ospfd" => OSPF,
        _ => BGP,
    };
    start_configured(
        vnis,
        daemon,
        &format!("{own}{LISTS}{carrier}{filter}{more}"),
    );
}

/// The same with this configuration of the gateway.
fn start_configured(vnis: u32, daemon: &str, config: &str) {
    let upstream = match daemon {
        "ospfd" => UPSTREAM_OSPF,
        _ => UPSTREAM_BGP,
    };
    sh("ip link add up1 type veth peer name down1
        ip address add 10.9.0.1/24 dev up1; ip link set up1 up");
    router::start_with(vnis, config);
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
pub fn halves(vnis: &[u32]) -> BTreeSet<String> {
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

/// The halves that wmgwd's routes in this kernel announce.
pub fn announced() -> BTreeSet<String> {
    listed(&format!("route show proto {PROTOCOL}"))
}

#[track_caller]
fn kernel_has(vnis: &[u32]) {
    assert_eq!(announced(), halves(vnis));
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

/// frr.conf.example with what it has for `daemon`, in the network of these tests.
fn example(daemon: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/frr.conf.example");
    let text = std::fs::read_to_string(path).unwrap();
    let (mark, router) = match daemon {
        "ospfd" => ("!O ", None),
        _ => ("!B ", Some("router ospf")),
    };
    let mut is_out = false;
    let mut lines = String::new();
    for line in text.lines() {
        let uncovered = ["!R ", mark].iter().find_map(|it| line.strip_prefix(it));
        let line = uncovered.unwrap_or(line);
        is_out |= router == Some(line);
        if !is_out && !line.starts_with(" network 10.64") {
            lines += line;
            lines += "\n";
        }
        is_out &= line != "exit";
    }
    let replaced = [
        ("10.0.1.11", "10.0.0.1"),
        ("10.0.1.17", "10.0.0.2"),
        ("10.64.0.0/10", "10.16.0.0/12"),
        ("interface uplink", "interface up1"),
        ("10.0.2.1 ", "10.9.0.2 "),
        ("10.0.2.0/24", "10.9.0.0/24"),
        ("65100", "65001"),
    ];
    let replace = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    replaced.iter().fold(lines, replace)
}

#[test]
fn a_gateways_life_with_our_example_over_ospf() {
    let test = "routes::a_gateways_life_with_our_example_over_ospf";
    namespace::run(test, PROGRAMS, || {
        start_configured(5, "ospfd", &example("ospfd"));
        life();
    });
}

#[test]
fn a_gateways_life_with_our_example_over_bgp() {
    let test = "routes::a_gateways_life_with_our_example_over_bgp";
    namespace::run(test, PROGRAMS, || {
        start_configured(5, "bgpd", &example("bgpd"));
        signal("ospfd", "KILL");
        sh("rm -f /run/frr/ospfd.pid");
        life();
    });
}

/// Input: ospfd stopped, and continued; bgpd killed, and started again. Output: an ospfd that is stopped keeps nothing
/// back in the kernel, and draws its conclusions afterwards; without bgpd no VNI is announced anew. Without ospfd, which
/// carried the routes, FRR is not up until bgpd carries them.
#[test]
fn daemons_that_stop_and_start() {
    namespace::run("routes::daemons_that_stop_and_start", PROGRAMS, || {
        start(3, "ospfd");
        let mut frr = frr(3);
        frr.withdraw_all().unwrap();
        applied(&mut frr, &[claim(1), claim(2)]);
        upstream_has(&[1, 2]);
        signal("ospfd", "STOP");
        assert_eq!(frr.health().ospfd, None);
        applied(&mut frr, &[release(1), claim(3)]);
        kernel_has(&[2, 3]);
        frr.withdraw_all().unwrap();
        kernel_has(&[]);
        signal("ospfd", "CONT");
        assert!(frr.health().is_up());
        frr.withdraw_all().unwrap();
        assert!(frr.lacks(FrrDaemons::ALL).is_none());
        applied(&mut frr, &[claim(2), claim(3)]);
        upstream_has(&[2, 3]);

        signal("bgpd", "KILL");
        let failures = frr.apply(&[release(2), claim(1)], &|| true);
        let failed: Vec<u32> = failures.iter().map(|it| it.vni.get()).collect();
        assert_eq!(failed, [2, 1], "{failures:?}");
        kernel_has(&[3]);
        upstream_has(&[3]);
        router::start_daemon("bgpd");
        applied(&mut frr, &[release(2), claim(1), claim(3)]);
        upstream_has(&[1, 3]);
        eventually("EVPN of both", || {
            router::advertised() == BTreeSet::from([1, 3])
        });

        signal("ospfd", "KILL");
        eventually("nothing carries the routes", || {
            frr.health().ospfd.is_none()
        });
        configure(
            "bgpd",
            "router bgp 65000\naddress-family ipv4 unicast\nredistribute kernel\n",
        );
        frr.drifted(&|| true).unwrap();
        assert!(frr.health().is_up(), "bgpd does");
    });
}

/// VNI 2 has the route target of VNI 3, so that bgpd's filter cannot let it out.
fn share_a_target() {
    configure(
        "bgpd",
        "router bgp 65000\naddress-family l2vpn evpn\nvni 2\nroute-target export 65000:1003\nexit-vni\n\
         vni 3\nroute-target export 65000:1003\nexit-vni\n",
    );
}

/// Input: a VNI that bgpd's filter cannot let out, as another has its route target. Output: no traffic without its
/// EVPN routes.
#[test]
fn a_vni_that_bgpd_refuses_is_not_announced() {
    let test = "routes::a_vni_that_bgpd_refuses_is_not_announced";
    namespace::run(test, PROGRAMS, || {
        start(3, "ospfd");
        share_a_target();
        let mut frr = frr(3);
        frr.withdraw_all().unwrap();
        for _ in 0..2 {
            let failures = frr.apply(&[claim(1), claim(2)], &|| true);
            assert!(
                matches!(&failures[..], [f] if f.vni == vni(2) && matches!(f.error, Error::Refused { .. })),
                "{failures:?}"
            );
            kernel_has(&[1]);
        }
        upstream_has(&[1]);
    });
}

/// Input: VNIs are announced ahead of FRR, with permission and without, among them one that bgpd refuses, one without a
/// bridge, and one that loses a route before FRR has its turn; then FRR has it. Output: what is permitted is in the
/// kernel and upstream while FRR has heard nothing; FRR's turn makes good what is missing and takes back what is
/// refused. What is given up is gone at once.
#[test]
fn announced_ahead_of_frr() {
    let test = "routes::announced_ahead_of_frr";
    namespace::run(test, PROGRAMS, || {
        start(5, "ospfd");
        share_a_target();
        let book = RouteBook::default();
        let config = config(Announce::Routes, 6, &book);
        let mut monitor = RouteMonitor::open(book.clone()).unwrap();
        let mut frr = Frr::new(FrrConfig {
            book: book.clone(),
            ..config.clone()
        });
        frr.withdraw_all().unwrap();
        let routes = Routes::new(config.range, Bridges::default(), book.clone());
        let mut kernel = ProcKernel::new().announcing(routes);
        let claims = [1, 2, 4, 6].map(claim);
        kernel.hasten(&claims, &|| false);
        kernel_has(&[]);
        kernel.hasten(&claims, &|| true);
        kernel_has(&[1, 2, 4]);
        upstream_has(&[1, 2, 4]);
        assert_eq!(router::advertised(), BTreeSet::new());

        sh("ip route del 10.16.4.128/25 dev br4");
        eventually("the loss is noticed", || {
            monitor.lost().unwrap().contains(&vni(4))
        });
        let failures = frr.apply(&claims, &|| true);
        let failed: BTreeSet<u32> = failures.iter().map(|it| it.vni.get()).collect();
        assert_eq!(failed, BTreeSet::from([2, 6]), "{failures:?}");
        kernel_has(&[1, 4]);
        upstream_has(&[1, 4]);
        eventually("EVPN of both", || {
            router::advertised() == BTreeSet::from([1, 4])
        });

        let failures = frr.apply(&[claim(1), claim(4)], &|| false);
        assert!(!failures.is_empty(), "nothing is permitted");
        kernel_has(&[1, 4]);
        upstream_has(&[1, 4]);

        kernel.hasten(&[release(1)], &|| false);
        kernel_has(&[4]);
        upstream_has(&[4]);
        applied(&mut frr, &[release(1), release(4)]);
        kernel_has(&[]);
    });
}

/// Input: bridges that are the host's own, deleted, or have another name now. Output: the first are not announced, and
/// of the others nothing stays announced.
#[test]
fn bridges_that_are_no_vnis_or_none_any_more() {
    let test = "routes::bridges_that_are_no_vnis_or_none_any_more";
    namespace::run(test, PROGRAMS, || {
        start(5, "ospfd");
        sh("ip link set vxlan3 nomaster");
        configure(
            "ospfd",
            "router ospf\nnetwork 10.16.3.0/24 area 0\ninterface br3\nip ospf cost 7\n",
        );
        let mut frr = frr(5);
        frr.withdraw_all().unwrap();
        let failures = frr.apply(&[claim(3)], &|| true);
        assert!(
            matches!(&failures[..], [f] if matches!(f.error, Error::Foreign { .. })),
            "{failures:?}"
        );
        frr.drifted(&|| true).unwrap();
        let config = running_config("ospfd");
        assert!(
            config.contains("interface br3\n ip ospf cost 7\n"),
            "{config}"
        );
        kernel_has(&[]);

        applied(&mut frr, &[claim(1), claim(2), claim(4), claim(5)]);
        upstream_has(&[1, 2, 4, 5]);
        sh("ip link del br2");
        applied(&mut frr, &[release(2)]);
        upstream_has(&[1, 4, 5]);
        sh("ip link set br4 name lan4");
        applied(&mut frr, &[release(4)]);
        kernel_has(&[1, 5]);
        // Another process has only the name to go by.
        sh("ip link set br5 name lan5");
        let mut next = self::frr(5);
        next.withdraw(FrrDaemons::ALL, &BTreeSet::from([vni(1)]), &|| true)
            .unwrap();
        kernel_has(&[1]);
        upstream_has(&[1]);
    });
}

/// Input: a zebra that is held up, with a small socket, while routes are made, so that it loses some; then the same
/// while they are deleted. Output: the next audits have it told of them (one may be too much for so small a socket).
#[test]
fn routes_that_zebra_missed_are_told_again() {
    let test = "routes::routes_that_zebra_missed_are_told_again";
    namespace::run(test, PROGRAMS, || {
        const VNIS: u32 = 60;
        start(VNIS, "ospfd");
        signal("ospfd", "KILL");
        signal("zebra", "KILL");
        sh("rm -f /run/frr/ospfd.pid; /usr/lib/frr/zebra -d -A 127.0.0.1 -s 20000");
        router::start_daemon("ospfd");
        eventually("zebra is back", || {
            try_sh("vtysh -d zebra -c 'show interface brief' | grep 10.16.1.1").0
        });
        let mut frr = frr(VNIS);
        eventually("FRR can be used", || {
            frr.withdraw_all().is_ok() && frr.lacks(FrrDaemons::ALL).is_none()
        });
        let vnis: Vec<u32> = (1..=VNIS).collect();
        let claims: Vec<RouteChange> = vnis.iter().map(|it| claim(*it)).collect();
        signal("zebra", "STOP");
        frr.apply(&claims, &|| true);
        signal("zebra", "CONT");
        let known = || {
            sh("vtysh -d zebra -c 'show ip route kernel'")
                .matches("/25 ")
                .count()
        };
        eventually("zebra has heard all that it will", || {
            sh("ip address replace 192.0.2.7/32 dev lo");
            try_sh("vtysh -d zebra -c 'show interface brief' | grep 192.0.2.7").0
        });
        assert_eq!(announced(), halves(&vnis));
        assert!(
            known() < 2 * VNIS as usize,
            "zebra lost nothing: the test shows nothing"
        );
        let after_audits = |frr: &mut Frr, what: &str, expected: usize| {
            eventually(what, || {
                frr.drifted(&|| true).unwrap();
                known() == expected
            });
        };
        after_audits(&mut frr, "zebra has all", 2 * VNIS as usize);
        applied(&mut frr, &claims);
        upstream_has(&vnis);
        // And the other way round.
        signal("zebra", "STOP");
        let releases: Vec<RouteChange> = vnis.iter().map(|it| release(*it)).collect();
        frr.apply(&releases, &|| true);
        kernel_has(&[]);
        signal("zebra", "CONT");
        after_audits(&mut frr, "zebra has none", 0);
        upstream_has(&[]);
    });
}

/// Input: a range in which a bridge appears that ospfd announces by a `network` line. Output: it costs as much as OSPF
/// can say, as soon as its VNI is released; a bridge that ospfd does not announce gets no cost.
#[test]
fn a_new_bridge_that_ospfd_announces_draws_no_traffic() {
    let test = "routes::a_new_bridge_that_ospfd_announces_draws_no_traffic";
    namespace::run(test, PROGRAMS, || {
        start_with(
            1,
            "ospfd",
            "router ospf\n network 10.16.7.0/24 area 0.0.0.0\n",
        );
        let mut frr = frr(5000);
        frr.withdraw_all().unwrap();
        for i in [7, 8] {
            sh(&format!(
                "ip link add br{i} type bridge; ip link add vxlan{i} type vxlan id {i} local 10.0.0.1 dstport 4789
                 ip link set vxlan{i} master br{i}; ip address add 10.16.{i}.1/24 dev br{i}
                 ip link set br{i} up; ip link set vxlan{i} up"
            ));
        }
        applied(&mut frr, &[release(7), release(8)]);
        eventually("ospfd announces it as far away", || {
            router::cost(7) == Some(65535)
        });
        let config = running_config("ospfd");
        assert!(!config.contains("interface br8"), "{config}");
    });
}

/// The halves of IPv6 networks that wmgwd's routes in this kernel announce.
fn announced6() -> Vec<String> {
    let routes = sh(&format!("ip -6 route show proto {PROTOCOL}"));
    let first = routes
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    first.map(str::to_owned).collect()
}

/// Input: a bridge with IPv6 gateway addresses beside one without; a half is deleted, the address goes. Output: the
/// halves of the global one are there with those of IPv4 and go with them, an audit finds what is missing and what is
/// not wanted any more, and the next run takes all away.
#[test]
fn ipv6_networks_have_halves_too() {
    namespace::run("routes::ipv6_networks_have_halves_too", PROGRAMS, || {
        start(2, "ospfd");
        sh(
            "ip address add fd64:0:0:1::1/64 dev br1 nodad; ip address add fe80::1/64 dev br1 nodad",
        );
        let both = ["fd64:0:0:1::/65", "fd64:0:0:1:8000::/65"];
        let mut frr = frr(2);
        frr.withdraw_all().unwrap();
        applied(&mut frr, &[claim(1), claim(2)]);
        kernel_has(&[1, 2]);
        assert_eq!(announced6(), both);
        eventually("zebra has them, and nothing differs", || {
            frr.drifted(&|| true).unwrap().is_empty() && running_routes6().contains(both[1])
        });
        applied(&mut frr, &[claim(1)]);
        assert_eq!(announced6(), both);

        sh(&format!("ip -6 route del {} dev br1", both[0]));
        assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1)]);
        applied(&mut frr, &[claim(1)]);
        assert_eq!(announced6(), both);
        applied(&mut frr, &[release(1)]);
        assert_eq!(announced6(), [""; 0]);
        kernel_has(&[2]);

        applied(&mut frr, &[claim(1)]);
        assert_eq!(announced6(), both);
        sh("ip address del fd64:0:0:1::1/64 dev br1");
        assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1)]);
        applied(&mut frr, &[claim(1)]);
        assert_eq!(announced6(), [""; 0]);
        kernel_has(&[1, 2]);

        sh("ip address add fd64:0:0:1::1/64 dev br1 nodad");
        applied(&mut frr, &[claim(1)]);
        assert_eq!(announced6(), both);
        self::frr(2).withdraw_all().unwrap();
        assert_eq!(announced6(), [""; 0]);
        kernel_has(&[]);
    });
}

/// The kernel's IPv6 routes that zebra has.
fn running_routes6() -> String {
    sh("vtysh -d zebra -c 'show ipv6 route kernel json'")
}

/// Input: an ospf6d that runs on a bridge. Output: its cost says who owns the VNI, as with `--announce costs`.
#[test]
fn ipv6_is_announced_by_costs() {
    namespace::run("routes::ipv6_is_announced_by_costs", PROGRAMS, || {
        start(2, "ospfd");
        let lines =
            "interface br1\n ipv6 ospf6 area 0.0.0.0\nrouter ospf6\n ospf6 router-id 10.0.0.1\n";
        sh(&format!("printf '{lines}' >>/etc/frr/frr.conf"));
        router::start_daemon("ospf6d");
        eventually("ospf6d has its configuration", || {
            running_config("ospf6d").contains("ipv6 ospf6 area")
        });
        let cost = || {
            let text = running_config("ospf6d");
            let costs = wmgwd::host::frr::config::parse_ospf6(&text);
            assert_eq!(costs.len(), 1, "{text}");
            costs[&vni(1)].0
        };
        let mut frr = frr(2);
        frr.withdraw_all().unwrap();
        assert_eq!(cost(), 65535);
        applied(&mut frr, &[claim(1), claim(2)]);
        assert_eq!(cost(), 100);
        assert!(!frr.is_suspect());
        configure("ospf6d", "interface br1\nipv6 ospf6 cost 7\n");
        assert_eq!(frr.drifted(&|| true).unwrap(), [vni(1)]);
        applied(&mut frr, &[claim(1)]);
        assert_eq!(cost(), 100);
        kernel_has(&[1, 2]);
        applied(&mut frr, &[release(1)]);
        assert_eq!(cost(), 65535);
        kernel_has(&[2]);
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
