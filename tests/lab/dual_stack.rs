//! Stations with both families: what holds for IPv4 holds for IPv6, at the same moments.

use super::network::{Lab, eventually, points};
use super::probe::{Family, Flow, Probe, Way};
use super::traffic::{Advertisement, Ear, Prober, Question, turns};
use super::{FAST, flows, lost};
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

/// How long the station asks and listens: fifty questions, five router advertisements.
const MOMENT: Duration = Duration::from_secs(1);

/// Everything that a station asks its gateway for.
const QUESTIONS: [Question; 3] = [Question::Arp, Question::Neighbor, Question::Router];

/// Two gateways with four VNIs, two stations; `None` where there can be no lab.
fn lab(test: &str) -> Option<Lab> {
    Lab::with(test, 4, &["--gateways", "2", "--ipv6", "on"])
}

/// Probes both stations both ways in both families, and waits until all packets arrive.
fn probe(lab: &Lab) -> Probe {
    let families = [Family::V4, Family::V6];
    let probe = Probe::start(lab, 2, &[Way::Up, Way::Down], &families);
    flows(&probe);
    probe
}

fn probers(lab: &Lab, vni: u8) -> [Prober; 3] {
    QUESTIONS.map(|question| Prober::ask(lab, vni, question))
}

/// Has zebra of a gateway advertise itself as a router of VNI 1, five times a second.
fn advertise(lab: &Lab, gateway: &str) {
    let lines = [
        "configure terminal",
        "interface br1",
        "no ipv6 nd suppress-ra",
        "ipv6 nd ra-interval msec 200",
    ];
    let command = lines.iter().flat_map(|line| ["-c", line]);
    let command: Vec<&str> = ["vtysh"].into_iter().chain(command).collect();
    lab.ask(gateway, &command);
}

fn mac_of_router(lab: &Lab, address: &str) -> String {
    let shown = lab.ask(
        "st1",
        &["ip", "-6", "neigh", "show", address, "dev", "eth0"],
    );
    let words: Vec<&str> = shown.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "lladdr");
    at.map_or_else(String::new, |at| words[at + 1].to_owned())
}

/// Asks everything of the station of a VNI for a moment, and listens: `owner` alone answers, and advertises itself.
fn is_alone(lab: &Lab, vni: u8, owner: u8) {
    let (probers, ear) = (probers(lab, vni), Ear::start(lab, vni));
    sleep(MOMENT);
    for prober in probers {
        assert_eq!(turns(&prober.end()), [owner], "VNI {vni}");
    }
    let heard = ear.end();
    let is_owners = |it: &Advertisement| it.gateway == owner && it.lifetime > 0;
    assert!(heard.iter().all(is_owners), "VNI {vni}: {heard:?}");
    // zebra was told to send them for VNI 1.
    assert_eq!(heard.is_empty(), vni != 1, "VNI {vni}: {heard:?}");
}

/// Input: gw2 joins gw1, which owned everything, and then gw1 drains; zebra of both sends router advertisements.
/// Output: no packet of either family is lost in the migrations. After each of them the owner alone answers and
/// advertises itself, in both families; no router advertisement takes back what another gateway offers.
#[test]
fn both_families_lose_nothing() {
    let test = "both_families_lose_nothing";
    let Some(lab) = lab(test) else {
        return;
    };
    let uids = points();
    let options = |node: usize| [&FAST[..], &["--uids", &uids[node]]].concat();
    let mut first = lab.start("gw1", &options(0));
    lab.shows(&lab.settled(&["gw1"]));
    for gateway in ["gw1", "gw2"] {
        advertise(&lab, gateway);
    }
    let probe = probe(&lab);
    let ear = Ear::start(&lab, 1);
    probe.mark();
    let _second = lab.start("gw2", &options(1));
    lab.shows(&lab.settled(&["gw1", "gw2"]));
    flows(&probe);
    is_alone(&lab, 1, 1);
    is_alone(&lab, 2, 2);
    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    lab.shows(&lab.settled(&["gw2"]));
    flows(&probe);
    let flows: Vec<Flow> = probe.end();
    println!("{test}: {flows:?}");
    assert_eq!(lost(&flows), 0, "{flows:?}");
    is_alone(&lab, 1, 2);
    is_alone(&lab, 2, 2);
    let heard = ear.end();
    assert!(heard.iter().all(|heard| heard.lifetime > 0), "{heard:?}");
}

/// Input: daemon and guard of the owner are killed at the same moment; its kernel and FRR go on. Output: in both
/// families gw1 answers first and gw2 later, never both.
#[test]
fn both_killed_the_kernel_is_silent_in_both_families() {
    let Some(lab) = lab("both_killed_the_kernel_is_silent_in_both_families") else {
        return;
    };
    let _first = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    let probers = probers(&lab, 1);
    let kill = "kill -KILL $(pgrep -x wmgwd-guard) $(pgrep -f '[w]mgwd --name')";
    lab.ask("gw1", &["sh", "-c", kill]);
    lab.settled(&["gw2"]);
    eventually("gw2 answers for fe80::1", || {
        let prober = Prober::ask(&lab, 1, Question::Router);
        sleep(Duration::from_millis(200));
        turns(&prober.end()) == [2]
    });
    for prober in probers {
        assert_eq!(
            turns(&prober.end()),
            [1, 2],
            "first gw1 alone, then gw2 alone"
        );
    }
}

/// Input: a gateway that does not own a VNI sends a packet of its own to the VNI's station, and forwards one to it.
/// Output: it learns where the station is, what it forwards arrives, and the station keeps the owner as its router.
#[test]
fn a_gateway_that_is_not_the_owner_steals_no_station() {
    let Some(lab) = lab("a_gateway_that_is_not_the_owner_steals_no_station") else {
        return;
    };
    let uids = points();
    let options = |node: usize| [&FAST[..], &["--uids", &uids[node]]].concat();
    let _first = lab.start("gw1", &options(0));
    let _second = lab.start("gw2", &options(1));
    let owners = lab.settled(&["gw1", "gw2"]);
    assert_eq!(owners[0], "gw1");
    lab.shows(&owners);
    let ping = |node: &str, target: &str| {
        let command = ["ping", "-6", "-c", "1", "-W", "2", target];
        lab.ask(node, &command).contains(" 1 received")
    };
    eventually("the station reaches the host", || ping("st1", "fd00:9::2"));
    let of_owner = "02:00:01:00:00:01";
    let keeps = || ["fe80::1", "fd64:0:0:1::1"].map(|address| mac_of_router(&lab, address));
    eventually("the station has gw1 as its router", || {
        // Asked for, if it is not known.
        ping("st1", "fe80::1%eth0");
        ping("st1", "fd64:0:0:1::1");
        keeps() == [of_owner, of_owner]
    });

    let station = "fd64:0:0:1::10";
    lab.ask("gw2", &["ip", "-6", "neigh", "flush", "dev", "br1"]);
    eventually("gw2 knows where the station is", || {
        // (The station answers the owner, which has the same address.)
        ping("gw2", station);
        let shown = lab.ask("gw2", &["ip", "-6", "neigh", "show", station, "dev", "br1"]);
        shown.contains("lladdr")
    });
    assert_eq!(keeps(), [of_owner, of_owner], "after a packet of gw2's own");

    lab.ask("gw2", &["ip", "-6", "neigh", "flush", "dev", "br1"]);
    let link_local =
        "ip -6 addr show dev uplink scope link | sed -n 's,.*inet6 \\([^/]*\\)/.*,\\1,p'";
    let via = lab.ask("gw2", &["sh", "-c", link_local]);
    let route = [
        "ip",
        "-6",
        "route",
        "add",
        station,
        "via",
        via.trim(),
        "dev",
        "uplink",
    ];
    lab.ask("up1", &route);
    let route = lab.ask("up1", &["ip", "-6", "route", "get", station]);
    assert!(route.contains(via.trim()), "{route}");
    eventually("the host reaches the station through gw2", || {
        ping("h1", station)
    });
    assert_eq!(
        keeps(),
        [of_owner, of_owner],
        "after a packet that gw2 forwarded"
    );
}

/// The halves of IPv6 networks that a node's kernel has from OSPFv3, and the next hops of each.
fn halves(lab: &Lab, node: &str) -> BTreeMap<String, BTreeSet<String>> {
    let routes = lab.ask(node, &["ip", "-6", "route", "show", "proto", "ospf"]);
    let mut halves: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut at = String::new();
    for line in routes.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(char::is_whitespace) {
            at = words[0].to_owned();
        }
        let via = words.iter().position(|word| *word == "via");
        if let Some(via) = via.filter(|_| at.ends_with("/65")) {
            let hops = halves.entry(at.clone()).or_default();
            hops.insert(words[via + 1].to_owned());
        }
    }
    halves
}

/// Input: gateways that announce both families by kernel routes; gw1 drains, and joins again. Output: the upstream
/// router sends each half of each VNI's networks to the owner alone, no gateway has another's, and no packet of either
/// family is lost.
#[test]
fn kernel_routes_announce_both_families() {
    let test = "kernel_routes_announce_both_families";
    let options = ["--gateways", "2", "--ipv6", "on", "--upstream", "ospf"];
    let Some(lab) = Lab::with(test, 4, &options) else {
        return;
    };
    let uids = points();
    let more = ["--fit-hold", "1", "--announce", "routes", "--uids"];
    let start = |node: usize| {
        let options = [&FAST[..], &more, &[&uids[node][..]]].concat();
        lab.start(&format!("gw{}", node + 1), &options)
    };
    let link_local = ["gw1", "gw2"].map(|gateway| {
        let show =
            "ip -6 addr show dev uplink scope link | sed -n 's,.*inet6 \\([^/]*\\)/.*,\\1,p'";
        lab.ask(gateway, &["sh", "-c", show]).trim().to_owned()
    });
    let shared = |nodes: &[&str]| {
        let owners = lab.settled(nodes);
        lab.shows(&owners);
        let mut wanted = BTreeMap::new();
        for (vni, owner) in (1..).zip(&owners) {
            let way = &link_local[usize::from(owner == "gw2")];
            for half in ["", ":8000"] {
                let half = format!("fd64:0:0:{vni:x}{half}::/65");
                wanted.insert(half, BTreeSet::from([way.clone()]));
            }
        }
        eventually("every half of IPv6 routed to its owner alone", || {
            halves(&lab, "up1") == wanted
        });
        for gateway in ["gw1", "gw2"] {
            assert_eq!(halves(&lab, gateway), BTreeMap::new(), "{gateway}");
        }
    };
    let mut first = start(0);
    let _second = start(1);
    shared(&["gw1", "gw2"]);
    let probe = probe(&lab);
    probe.mark();
    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    shared(&["gw2"]);
    let _first = start(0);
    shared(&["gw1", "gw2"]);
    flows(&probe);
    let flows: Vec<Flow> = probe.end();
    println!("{test}: {flows:?}");
    assert_eq!(lost(&flows), 0, "{flows:?}");
}

/// What gateways answer the questions of the station of a VNI in a moment, by question.
fn answering(lab: &Lab, vni: u8) -> [Vec<u8>; 3] {
    let probers = probers(lab, vni);
    sleep(Duration::from_millis(300));
    probers.map(|prober| {
        let mut gateways = prober.end();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    })
}

/// Input: on the owner of VNI 1, then on the other gateway, while both daemons run: nf_tables is flushed, each of the
/// tables is deleted, a gateway address goes and comes again, the bridge is deleted and made anew, and the guard is
/// killed. Output: each time the owner alone comes to answer in both families, and goes on so; the rows do not change
/// hands but for the owner's bridge, which comes back.
#[test]
fn what_others_do_to_a_host_is_put_right_in_both_families() {
    let test = "what_others_do_to_a_host_is_put_right_in_both_families";
    let Some(lab) = lab(test) else {
        return;
    };
    let uids = points();
    let options = |node: usize| [&FAST[..], &["--uids", &uids[node]]].concat();
    let _first = lab.start("gw1", &options(0));
    let _second = lab.start("gw2", &options(1));
    let owners = lab.settled(&["gw1", "gw2"]);
    lab.shows(&owners);
    let alone = || [vec![1], vec![1], vec![1]];
    let comes_to_rest = |what: &str| {
        // Twice: what is right for a moment may still be on its way.
        eventually(what, || {
            lab.settled(&["gw1", "gw2"]) == owners
                && answering(&lab, 1) == alone()
                && answering(&lab, 1) == alone()
        });
        let table = |gateway, family| {
            let list = ["nft", "list", "table", family, "wmgwd"];
            lab.ask(gateway, &list).contains("set owned")
        };
        for gateway in ["gw1", "gw2"] {
            assert!(table(gateway, "arp") && table(gateway, "ip6"), "{what}");
        }
    };
    comes_to_rest("at the start");
    for (number, gateway) in [(1, "gw1"), (2, "gw2")] {
        let anew = format!(
            "sysctl -qw net.ipv4.conf.default.arp_ignore=8; ip link del br1
            ip link add br1 address 02:00:0{number}:00:00:01 type bridge stp_state 0 mcast_snooping 0
            ip link set vxlan1 master br1; ip link set vxlan1 type bridge_slave learning off neigh_suppress off
            ip addr add 10.64.1.1/24 dev br1; ip addr add fd64:0:0:1::1/64 dev br1 nodad
            ip addr add fe80::1/64 dev br1 nodad; ip link set br1 up
            sysctl -qw net.ipv4.conf.default.arp_ignore=0"
        );
        for meddle in [
            "nft flush ruleset",
            "nft delete table ip6 wmgwd",
            "nft delete table arp wmgwd",
            "nft flush set ip6 wmgwd owned; nft flush set ip6 wmgwd managed",
            "ip addr del fe80::1/64 dev br1; sleep 0.5; ip addr add fe80::1/64 dev br1 nodad",
            "ip -6 addr flush dev br1 scope global; sleep 0.5; ip addr add fd64:0:0:1::1/64 dev br1 nodad",
            &anew,
            "kill -KILL $(pgrep -x wmgwd-guard)",
        ] {
            let what = format!("{gateway}: {meddle}");
            let probers = probers(&lab, 1);
            lab.ask(gateway, &["sh", "-c", meddle]);
            comes_to_rest(&what);
            let heard = probers.map(|prober| {
                let answers = prober.end();
                let of = |number: u8| answers.iter().filter(|it| **it == number).count();
                format!("{} of gw1, {} of gw2", of(1), of(2))
            });
            println!("{test}: {what}: answers by question: {heard:?}");
        }
    }
}

/// Input: an access point that answers Neighbor Solicitations in the place of the gateway (`neigh_suppress`), by the
/// routes of FRR; then the gateways advertise their addresses as those of a default gateway, too, and the owner drains.
/// Output: it says that the gateway is a router only with that, before and after the migration, which loses nothing.
#[test]
fn an_access_point_that_answers_says_that_the_gateway_is_a_router() {
    let test = "an_access_point_that_answers_says_that_the_gateway_is_a_router";
    let Some(lab) = lab(test) else {
        return;
    };
    // A kernel that takes Router Advertisements notes by itself whose they are.
    let suppress =
        "sysctl -qw net.ipv6.conf.br1.accept_ra=0; bridge link set dev vxlan1 neigh_suppress on";
    lab.ask("ap1", &["sh", "-c", suppress]);
    let mut first = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    // What the station has after it has asked anew, once the access point answers for the gateway of that number.
    let told = |gateway: u8| {
        let mac = format!("02:00:0{gateway}:00:00:01");
        let show = ["ip", "-6", "neigh", "show", "to", "fe80::1", "dev", "br1"];
        eventually("the access point knows the gateway", || {
            lab.ask("ap1", &show).contains(&mac)
        });
        let ask = "ip -6 neigh del fe80::1 dev eth0; ping -6 -c 1 -W 2 fe80::1%eth0 >/dev/null
            ip -6 neigh show to fe80::1 dev eth0";
        let shown = lab.ask("st1", &["sh", "-c", ask]);
        assert!(shown.contains(&mac), "{shown}");
        shown.contains(" router ")
    };
    assert!(!told(1), "the case is what it is taken for");
    for gateway in ["gw1", "gw2"] {
        let lines = [
            "configure terminal",
            "router bgp 65000",
            "address-family l2vpn evpn",
            "advertise-default-gw",
        ];
        let command = lines.iter().flat_map(|line| ["-c", line]);
        let command: Vec<&str> = ["vtysh"].into_iter().chain(command).collect();
        lab.ask(gateway, &command);
    }
    eventually("a router", || told(1));
    let probe = probe(&lab);
    probe.mark();
    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    lab.shows(&lab.settled(&["gw2"]));
    flows(&probe);
    let flows: Vec<Flow> = probe.end();
    println!("{test}: {flows:?}");
    assert_eq!(lost(&flows), 0, "{flows:?}");
    assert!(told(2));
}
