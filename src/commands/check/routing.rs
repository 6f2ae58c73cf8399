//! Pure: whether FRR runs, and whether its running configuration is one that wmgwd can work with.

use super::announcing::is_by_bgp_alone;
use super::links::Links;
use super::{Finding, Level};
use crate::host::frr::config::BgpConfig;
use crate::host::frr::inspection::{Answer, Inspection, OspfInterface};
use crate::host::frr::route_map::faults;
use crate::host::frr::script::{CLOSING, ROUTE_MAP, is_open};
use crate::host::frr::upstream::MapAction;
use crate::model::frr::{Announce, EvpnFilter};
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use crate::telemetry::log_text::spans;
use core::net::IpAddr;
use std::collections::BTreeSet;

/// vtysh's own configuration file.
const VTYSH_CONF: &str = "/etc/frr/vtysh.conf";
/// How many links one gateway's router-LSA holds: what is beyond is cut off in silence (FRR 8.4.4, measured:
/// 5 000 stub networks were fine, of 6 000 links 5 334 were left).
const LINKS: usize = 5_334;
/// A dead interval that needs no BFD, in seconds.
const SHORT: u64 = 5;
/// The greatest number of VNIs for which each has an entry of its own between the operator's and the closing
/// one (FRR takes sequence numbers up to 65535).
const ENTRIES: usize = 65_535 - 11;

/// What there is to say of FRR. `running` is whether a wmgwd runs here.
pub fn findings(
    purpose: &Purpose,
    frr: &Inspection,
    bridges: &BTreeSet<Vni>,
    links: &Links,
    running: bool,
) -> Vec<Finding> {
    let needs_ospfd = !is_by_bgp_alone(purpose, frr);
    let mut findings = daemons(frr, needs_ospfd);
    let with_ipv6 = links.with_ipv6(purpose.range);
    if let Some(bgp) = &frr.bgp {
        findings.extend(filter(bgp, running));
        findings.extend(evpn(frr, bgp, !with_ipv6.is_empty()));
    }
    if let (Some(bgp), Some(_)) = (&frr.bgp, &frr.targets) {
        findings.extend(targets(purpose, frr, bgp, bridges));
    }
    if let Some(interfaces) = &frr.ospf {
        findings.extend(ospf(
            purpose.announce,
            frr,
            interfaces,
            bridges,
            links,
            running,
        ));
        findings.extend(upstream(purpose.announce, frr, interfaces, bridges, links));
        let expected = match purpose.announce {
            Announce::Costs => bridges.len(),
            Announce::Routes => 0,
        };
        findings.extend(sizes(interfaces, expected));
        let carriers = frr.carriers.as_ref();
        let carries = carriers.is_some_and(|it| !it.carriers6.is_empty());
        if purpose.announce == Announce::Costs || !carries {
            findings.extend(ospf6(frr, &with_ipv6));
        }
    }
    findings
}

/// Whether ospf6d tells the upstream router of the networks of IPv6 gateway addresses.
fn ospf6(frr: &Inspection, with_ipv6: &[Vni]) -> Option<Finding> {
    const ABOUT: &str = "OSPF";
    let Some(bridges) = &frr.ospf6 else {
        return Finding::warn(
            ABOUT,
            "ospf6d does not run, and br<VNI> has IPv6 gateway addresses: unless another protocol tells it, no router \
             upstream hears of their networks",
            "set ospf6d=yes in /etc/frr/daemons and run: systemctl restart frr",
        )
        .of(with_ipv6);
    };
    let is_out = |vni: &&Vni| !bridges.contains(vni);
    let out: Vec<Vni> = with_ipv6.iter().filter(is_out).copied().collect();
    Finding::warn(
        ABOUT,
        "br<VNI> has IPv6 gateway addresses and is in no area of ospf6d: unless another protocol tells it, no router \
         upstream hears of their networks",
        "vtysh -c 'configure terminal' -c \"interface br$i\" -c 'ipv6 ospf6 area 0.0.0.0' -c 'ipv6 ospf6 passive' \
         -c 'ipv6 ospf6 cost 65535'",
    )
    .of(&out)
}

fn daemons(frr: &Inspection, needs_ospfd: bool) -> Vec<Finding> {
    const ABOUT: &str = "FRR";
    if let Some(reason) = &frr.vtysh {
        let text = format!("vtysh cannot be run: {reason}");
        return vec![Finding::fail(ABOUT, text, "install FRR, and look at PATH")];
    }
    let is_down = |(_, answer): &(&str, Option<Answer>)| *answer == Some(Answer::Down);
    if !frr.daemons.is_empty() && frr.daemons.iter().all(is_down) {
        let remedy =
            "systemctl start frr, with bgpd=yes, ospfd=yes and bfdd=yes in /etc/frr/daemons";
        return vec![Finding::fail(ABOUT, "does not run", remedy)];
    }
    let mut findings = Vec::new();
    let mut well = Vec::new();
    let mut denied = Vec::new();
    for (daemon, answer) in &frr.daemons {
        // BFD makes a failover fast; all others are needed.
        let missing = |text: String, remedy: String| Finding {
            level: match *daemon {
                "bfdd" => Level::Warn,
                _ => Level::Fail,
            },
            ..Finding::fail(ABOUT, text, remedy)
        };
        match answer {
            Some(Answer::Down) if *daemon == "ospfd" && !needs_ospfd => {}
            Some(Answer::Answers) => well.push(*daemon),
            Some(Answer::Denied) => denied.push(*daemon),
            Some(Answer::Down) => findings.push(missing(
                format!("{daemon} does not run"),
                match *daemon {
                    // It has no line there: FRR always starts it.
                    "zebra" => "systemctl restart frr".to_owned(),
                    _ => format!(
                        "set {daemon}=yes in /etc/frr/daemons and run: systemctl restart frr"
                    ),
                },
            )),
            Some(Answer::Silent(reason)) => findings.push(missing(
                format!("{daemon} runs and does not answer: {reason}"),
                "systemctl restart frr".to_owned(),
            )),
            None => {}
        }
    }
    if !denied.is_empty() {
        let text = format!("{} may not be spoken to by this user", denied.join(", "));
        let remedy = "usermod -aG frrvty USER, or run this as root";
        findings.push(Finding::unknown(ABOUT, text, remedy));
    }
    if !well.is_empty() {
        let text = format!("{} answer", well.join(", "));
        findings.push(Finding::ok(ABOUT, text));
    }
    if let Some((number, said)) = frr.remarks.first_key_value() {
        let more = match frr.remarks.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let text = format!("vtysh refuses line {number} of {VTYSH_CONF}{more}: {said}");
        let lines: Vec<String> = frr.remarks.keys().map(|line| format!("{line}d")).collect();
        let remedy = format!("sed -i '{}' {VTYSH_CONF}", lines.join(";"));
        findings.push(Finding::warn(ABOUT, text, remedy));
    }
    findings
}

fn filter(bgp: &BgpConfig, running: bool) -> Vec<Finding> {
    const ABOUT: &str = ROUTE_MAP;
    let mut findings: Vec<Finding> = faults(bgp)
        .into_iter()
        .map(|fault| match fault.is_certain {
            true => Finding::fail(ABOUT, fault.text, fault.remedy),
            false => Finding::warn(ABOUT, fault.text, fault.remedy),
        })
        .collect();
    if !bgp.entries.is_empty() && is_open(bgp) && !running {
        findings.push(Finding::warn(
            ABOUT,
            "is not closed by a deny: until wmgwd closes it, this gateway advertises every VNI",
            format!("vtysh -c 'configure terminal' -c 'route-map {ROUTE_MAP} deny {CLOSING}'"),
        ));
    }
    if findings.is_empty() {
        let text = "applied outbound, holds type 2 and 5, lets type 3 out";
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

fn evpn(frr: &Inspection, bgp: &BgpConfig, has_ipv6: bool) -> Vec<Finding> {
    const ABOUT: &str = "EVPN";
    let asn = bgp.asn.map_or("AS".to_owned(), |asn| asn.to_string());
    let add = |line: &str| {
        format!(
            "vtysh -c 'configure terminal' -c 'router bgp {asn}' -c 'address-family l2vpn evpn' -c '{line}'"
        )
    };
    let mut findings = Vec::new();
    if !frr.all_vnis {
        findings.push(Finding::fail(
            ABOUT,
            "without advertise-all-vni bgpd does not learn the VNIs",
            add("advertise-all-vni"),
        ));
    }
    if !frr.svi {
        findings.push(Finding::warn(
            ABOUT,
            "without advertise-svi-ip the gateway addresses are not advertised: access points flood for them",
            add("advertise-svi-ip"),
        ));
    }
    // zebra_evpn_neigh_gw_macip_add() in FRR's zebra/zebra_evpn_neigh.c sets the flag for default gateways alone.
    if frr.svi && !frr.default_gw && has_ipv6 {
        findings.push(Finding::warn(
            ABOUT,
            "without advertise-default-gw the routes of IPv6 gateway addresses lack the Router flag: an access point with \
             neigh_suppress answers that they are no router's, and stations give their default router up",
            add("advertise-default-gw"),
        ));
    }
    if bgp.yields {
        findings.push(Finding::warn(
            ABOUT,
            "bgpd gives up its own route for the shared gateway address when it hears another gateway's: wmgwd \
             brings it back, later than need be",
            "take `set community` and the route-map not-from-gateways from frr.conf.example",
        ));
    }
    match frr.neighbours {
        Some((0, 0)) => findings.push(Finding::fail(
            ABOUT,
            "no neighbour is activated in address-family l2vpn evpn",
            add("neighbor fabric activate"),
        )),
        Some((0, all)) => findings.push(Finding::warn(
            ABOUT,
            format!("none of {all} neighbours is established: no router hears this gateway now"),
            "vtysh -c 'show bgp l2vpn evpn summary'",
        )),
        Some((up, all)) => {
            let text = format!("{up} of {all} neighbours established");
            findings.push(Finding::ok(ABOUT, text));
        }
        None => {}
    }
    findings
}

fn targets(
    purpose: &Purpose,
    frr: &Inspection,
    bgp: &BgpConfig,
    bridges: &BTreeSet<Vni>,
) -> Vec<Finding> {
    const ABOUT: &str = "route targets";
    let Some(targets) = &frr.targets else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let unknown: Vec<Vni> = bridges
        .iter()
        .filter(|vni| !targets.knows(**vni))
        .copied()
        .collect();
    if !unknown.is_empty() && frr.all_vnis {
        findings.push(Finding::fail(
            ABOUT,
            format!("bgpd does not know VNIs {}", spans(&unknown)),
            "vtysh -c 'show evpn vni' shows what zebra knows; if vxlan<VNI> is there and up: systemctl restart frr",
        ));
    }
    let layer3: Vec<Vni> = bridges
        .iter()
        .copied()
        .filter(|vni| targets.is_layer3(*vni))
        .collect();
    findings.extend(
        Finding::warn(
            ABOUT,
            "an L3VNI (symmetric IRB) has the route target of every VNI of its VRF, so that wmgwd does not serve it",
            "leave it out of --minvni to --maxvni, or move it out of the VRF",
        )
        .of(&layer3),
    );
    match purpose.filter {
        EvpnFilter::List => {
            let asn = bgp.asn.unwrap_or_default();
            let shared: Vec<(Vni, Vni)> = bridges
                .iter()
                .filter(|vni| !targets.is_layer3(**vni))
                .filter_map(|vni| {
                    let other = targets.also_carried_by(&targets.of(*vni, asn), *vni)?;
                    Some((*vni, other))
                })
                .collect();
            if let Some((one, other)) = shared.first() {
                let vnis: Vec<Vni> = shared.iter().map(|(vni, _)| *vni).collect();
                findings.push(Finding::fail(
                    ABOUT,
                    format!(
                        "the export route targets do not tell these VNIs from others (as {one} from {other}): {}",
                        spans(&vnis)
                    ),
                    "give each VNI a route-target export of its own, or use --evpn-filter entries",
                ));
            }
        }
        EvpnFilter::Entries if purpose.range.len() > ENTRIES => findings.push(Finding::fail(
            ABOUT,
            format!(
                "a route-map has no room for an entry for each of {} VNIs",
                purpose.range.len()
            ),
            "use --evpn-filter list",
        )),
        EvpnFilter::Entries => {}
    }
    if findings.is_empty() && !bridges.is_empty() {
        let text = "bgpd knows each VNI, and tells it from the others";
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

fn ospf(
    announce: Announce,
    frr: &Inspection,
    interfaces: &[OspfInterface],
    bridges: &BTreeSet<Vni>,
    links: &Links,
    running: bool,
) -> Vec<Finding> {
    const ABOUT: &str = "OSPF";
    let vni = |it: &OspfInterface| Vni::of_bridge(&it.name);
    let of_ours = |wrong: &dyn Fn(&OspfInterface) -> bool| -> Vec<Vni> {
        interfaces
            .iter()
            .filter(|it| wrong(it))
            .filter_map(|it| vni(it).filter(|vni| bridges.contains(vni)))
            .collect()
    };
    let mut findings = Vec::new();
    let used = BTreeSet::from_iter(of_ours(&|_| true));
    let unused: Vec<Vni> = match announce {
        Announce::Costs => bridges.difference(&used).copied().collect(),
        Announce::Routes => Vec::new(),
    };
    findings.extend(
        Finding::fail(
            ABOUT,
            "br<VNI> is in no OSPF area, so that no router upstream hears of its network",
            "vtysh -c 'configure terminal' -c 'router ospf' -c 'network NETWORK/LENGTH area 0.0.0.0'",
        )
        .of(&unused),
    );
    let active = of_ours(&|it| !it.passive);
    findings.extend(
        Finding::warn(
            ABOUT,
            "br<VNI> is not passive, so that stations hear hellos and could become neighbours",
            "vtysh -c 'configure terminal' -c 'router ospf' -c 'passive-interface default', then \
             'no ip ospf passive' on the uplink",
        )
        .of(&active),
    );
    let cheap = of_ours(&|it| !running && it.cost < 65_535);
    findings.extend(
        Finding::warn(
            ABOUT,
            "br<VNI> costs less than 65535 although no wmgwd runs here, and draws traffic",
            "wmgwd withdraw with the same --minvni and --maxvni",
        )
        .of(&cheap),
    );
    let uplinks: Vec<&OspfInterface> = interfaces
        .iter()
        .filter(|it| vni(it).is_none() && !it.passive && it.name != "lo")
        .collect();
    let out: Vec<Finding> = frr
        .uplinks
        .iter()
        .filter_map(|name| out_of_use(name, links))
        .collect();
    if !out.is_empty() {
        findings.extend(out);
        return findings;
    }
    if uplinks.is_empty() {
        findings.push(Finding::fail(
            ABOUT,
            "no interface towards the upstream router",
            "vtysh -c 'configure terminal' -c 'interface UPLINK' -c 'no ip ospf passive'",
        ));
        return findings;
    }
    let names: Vec<&str> = uplinks.iter().map(|it| it.name.as_str()).collect();
    if uplinks.iter().all(|it| it.adjacent == 0) {
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "no full neighbour on {}: no router upstream hears this gateway now",
                names.join(", ")
            ),
            "vtysh -c 'show ip ospf neighbor'",
        ));
    }
    for uplink in uplinks
        .iter()
        .filter(|it| !it.bfd && it.dead_interval > SHORT)
    {
        let (name, dead) = (&uplink.name, uplink.dead_interval);
        let text = format!(
            "none on {name}: the upstream router goes on using a dead gateway for up to {dead} s"
        );
        let remedy = format!(
            "vtysh -c 'configure terminal' -c 'interface {name}' -c 'ip ospf bfd', and the same on the upstream router"
        );
        findings.push(match announce {
            Announce::Costs => Finding::warn(
                "BFD",
                text,
                format!("{remedy}; without BFD there: --takeover-cost 90"),
            ),
            // No cost can make the successor the nearer one.
            Announce::Routes => Finding::fail("BFD", text, remedy),
        });
    }
    if findings.is_empty() {
        let text = format!("br<VNI> passive; neighbours on {}", names.join(", "));
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

/// What ospfd and zebra do with routes beside those of their interfaces.
fn upstream(
    announce: Announce,
    frr: &Inspection,
    interfaces: &[OspfInterface],
    bridges: &BTreeSet<Vni>,
    links: &Links,
) -> Vec<Finding> {
    const ABOUT: &str = "OSPF";
    let take_away =
        |line: &str| format!("vtysh -c 'configure terminal' -c 'router ospf' -c 'no {line}'");
    let mut findings = Vec::new();
    let by_name = |name: &str| interfaces.iter().find(|it| it.name == name);
    let is_bridge =
        |it: &OspfInterface| Vni::of_bridge(&it.name).is_some_and(|vni| bridges.contains(&vni));
    let uplinks = || {
        interfaces
            .iter()
            .filter(|it| !it.passive && it.name != "lo" && !is_bridge(it))
    };
    // Within an area every router hears of each network: ranges and lists act between areas alone.
    let leaves = |area: Option<u32>| uplinks().any(|it| it.area != area);
    let address = |name: &str| {
        links.addresses.iter().find_map(|(at, ip)| match ip {
            IpAddr::V4(ip) if at == name => Some(*ip),
            _ => None,
        })
    };
    for range in &frr.upstream.ranges {
        let covered: Vec<Vni> = bridges
            .iter()
            .filter(|vni| {
                let name = vni.bridge();
                let is_of = by_name(&name).is_some_and(|it| it.area == Some(range.area));
                is_of
                    && leaves(Some(range.area))
                    && address(&name).is_some_and(|ip| range.contains(ip))
            })
            .copied()
            .collect();
        let (line, remedy) = (&range.line, take_away(&range.line));
        let finding = match range.is_hidden {
            true => Finding::fail(
                ABOUT,
                format!("`{line}` hides the network of br<VNI> from the upstream router"),
                remedy,
            ),
            false => Finding::warn(
                ABOUT,
                format!(
                    "`{line}` announces one network for all of br<VNI>, so that what comes from upstream does not go to \
                     the owner"
                ),
                remedy,
            ),
        };
        findings.extend(finding.of(&covered));
    }
    let is_apart = interfaces.iter().any(|it| is_bridge(it) && leaves(it.area));
    if let Some(line) = frr.upstream.filters.first().filter(|_| is_apart) {
        let text =
            format!("whether `{line}` hides br<VNI> from the upstream router is not read here");
        findings.push(Finding::unknown(
            ABOUT,
            text,
            "vtysh -d ospfd -c 'show running-config'",
        ));
    }
    if let Some(line) = &frr.upstream.connected {
        let outside: Vec<Vni> = bridges
            .iter()
            .filter(|vni| by_name(&vni.bridge()).is_none())
            .copied()
            .collect();
        let text = format!(
            "`{line}` announces the network of br<VNI>, which is in no area, from every gateway, also from one that does \
             not serve it"
        );
        findings
            .extend(Finding::fail(ABOUT, text, take_away("redistribute connected")).of(&outside));
    }
    if let Some(line) = &frr.upstream.default {
        findings.push(Finding::warn(
            ABOUT,
            format!("`{line}` tells the upstream router that the rest of the world is behind this gateway"),
            take_away("default-information originate"),
        ));
    }
    // With routes a map is needed, and judged with them.
    let judged = frr.kernel_map.as_ref();
    if let Some((map, fate)) = judged.filter(|_| announce == Announce::Costs) {
        const ZEBRA: &str = "routes";
        let text = format!("`ip protocol ospf route-map {map}`");
        let see = format!("vtysh -d zebra -c 'show route-map {map}'");
        findings.extend(match fate {
            MapAction::Passes => None,
            MapAction::Held => Some(Finding::fail(
                ZEBRA,
                format!(
                    "{text} keeps every route of OSPF out of the kernel, so that packets of stations find no way upstream"
                ),
                format!("vtysh -c 'configure terminal' -c 'no ip protocol ospf route-map {map}'"),
            )),
            MapAction::Unsure => {
                let text = format!("whether {text} keeps routes of OSPF out of the kernel is not read here");
                Some(Finding::unknown(ZEBRA, text, see))
            }
        });
    }
    findings
}

/// Why OSPF cannot use an interface that it is configured for.
fn out_of_use(name: &str, links: &Links) -> Option<Finding> {
    const ABOUT: &str = "OSPF";
    let Some(it) = links.interfaces.iter().find(|it| it.name == name) else {
        let text = format!("{name}, towards the upstream router, does not exist");
        return Some(Finding::fail(ABOUT, text, "ip link show"));
    };
    let has_address = links
        .addresses
        .iter()
        .any(|(at, ip)| at == name && ip.is_ipv4());
    let (what, remedy) = match it {
        it if !it.up => ("is down", format!("ip link set {name} up")),
        it if !it.running => (
            "has no carrier",
            format!("look at its cable and at the other end: ip link show {name}"),
        ),
        _ if !has_address => (
            "has no IPv4 address",
            format!("ip address add ADDRESS/LENGTH dev {name}"),
        ),
        _ => return None,
    };
    let text = format!(
        "{name}, towards the upstream router, {what}: no router upstream hears this gateway"
    );
    Some(Finding::fail(ABOUT, text, remedy))
}

fn sizes(interfaces: &[OspfInterface], expected: usize) -> Vec<Finding> {
    const ABOUT: &str = "size";
    let links = interfaces.len().max(expected);
    if links <= LINKS {
        return vec![Finding::ok(
            ABOUT,
            format!("{links} OSPF links of the {LINKS} that a router-LSA holds"),
        )];
    }
    vec![Finding::fail(
        ABOUT,
        format!(
            "{links} OSPF links, and a router-LSA holds {LINKS}: FRR leaves out the rest in silence"
        ),
        "give the gateways several ranges, with --minvni and --maxvni, or announce one network for many VNIs",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{purpose, said, vnis};
    use super::*;
    use crate::host::frr::config::parse_bgp;
    use crate::host::frr::targets::parse_targets;
    use crate::host::frr::upstream::parse_upstream;
    use crate::host::interfaces::Interface;

    const ROUTER: &str = "router bgp 65000\n address-family l2vpn evpn\n  neighbor fabric activate\n  neighbor fabric route-map filter-vni out\n";
    /// Input: route-maps that are open, and one that is not there at all. Output: what is wmgwd's to close is a
    /// warning while none runs.
    #[test]
    fn a_route_map_that_is_not_closed() {
        let map = "route-map filter-vni permit 1\n match evpn route-type macip\n on-match goto 4\n\
            route-map filter-vni permit 2\n match evpn route-type prefix\n on-match goto 4\n\
            route-map filter-vni permit 3\n";
        let open = parse_bgp(&format!("{ROUTER}{map}"));
        let found = filter(&open, false);
        assert!(
            matches!(&said(&found)[..], [(Level::Warn, text)] if text.starts_with("is not closed")),
            "{found:?}"
        );
        assert_eq!(said(&filter(&open, true)), []);
        let levels = |text: &str| -> Vec<Level> {
            let found = filter(&parse_bgp(text), false);
            found.iter().map(|it| it.level).collect()
        };
        let closed = format!("{ROUTER}{map}route-map filter-vni deny 65535\n");
        assert_eq!(levels(&closed), [Level::Ok]);
        let peer = closed.replace("match evpn route-type prefix", "match peer 10.0.0.1");
        assert_eq!(levels(&peer), [Level::Warn]);
        assert_eq!(levels(ROUTER), [Level::Fail]);
    }

    #[test]
    fn daemons_by_how_they_answer() {
        let frr = Inspection {
            daemons: vec![
                ("zebra", Some(Answer::Answers)),
                ("bgpd", Some(Answer::Denied)),
                ("ospfd", Some(Answer::Down)),
                ("bfdd", Some(Answer::Down)),
            ],
            ..Inspection::default()
        };
        let levels: Vec<Level> = daemons(&frr, true).iter().map(|it| it.level).collect();
        assert_eq!(
            levels,
            [Level::Fail, Level::Warn, Level::Unknown, Level::Ok]
        );
        let none = Inspection {
            vtysh: Some("No such file or directory".into()),
            ..frr
        };
        assert_eq!(daemons(&none, true).len(), 1);
        let remarks = [(3, "% Unknown command[4]: banner x"), (9, "% Ambiguous")];
        let frr = Inspection {
            remarks: remarks.map(|(line, said)| (line, said.to_owned())).into(),
            ..Inspection::default()
        };
        let finding = &daemons(&frr, true)[0];
        let text = "vtysh refuses line 3 of /etc/frr/vtysh.conf (and 1 more): % Unknown command[4]: banner x";
        assert_eq!((finding.level, &*finding.text), (Level::Warn, text));
        assert_eq!(
            finding.remedy.as_deref(),
            Some("sed -i '3d;9d' /etc/frr/vtysh.conf")
        );
    }

    /// Input: an uplink that ospfd does not use, for each reason. Output: the reason, and what repairs it.
    #[test]
    fn why_an_uplink_is_out_of_use() {
        let it = Interface {
            name: "up".into(),
            up: true,
            running: true,
            ..Interface::default()
        };
        let said = |change: fn(&mut Links)| {
            let mut links = Links {
                interfaces: vec![it.clone()],
                addresses: vec![("up".into(), core::net::IpAddr::from([10, 0, 0, 1]))],
                ..Links::default()
            };
            change(&mut links);
            let frr = Inspection {
                uplinks: vec!["up".into()],
                ..Inspection::default()
            };
            let found = ospf(Announce::Costs, &frr, &[], &BTreeSet::new(), &links, false);
            let remedy = found[0].remedy.clone().unwrap_or_default();
            (found.len(), remedy)
        };
        for (change, remedy) in [
            (
                (|it| it.interfaces[0].up = false) as fn(&mut Links),
                "ip link set up up",
            ),
            (|it| it.interfaces[0].running = false, "look at its cable"),
            (|it| it.addresses.clear(), "ip address add"),
            (|it| it.interfaces.clear(), "ip link show"),
            (|_| {}, "no ip ospf passive"),
        ] {
            let (count, told) = said(change);
            assert!(count == 1 && told.contains(remedy), "{told}");
        }
    }

    /// Input: bridges in an area of their own behind ranges and lists, and in the same area as the uplink. Output: what
    /// hides them is named where areas meet, and nowhere else.
    #[test]
    fn what_hides_a_bridge_from_upstream() {
        let interface = |name: &str, area: u32| OspfInterface {
            name: name.into(),
            area: Some(area),
            passive: name.starts_with("br"),
            ..OspfInterface::default()
        };
        let bridges = BTreeSet::from_iter(vnis(&[1, 2]));
        let address = |vni: u8| (format!("br{vni}"), IpAddr::from([10, 64, vni, 1]));
        let links = Links {
            addresses: vec![address(1), address(2)],
            ..Links::default()
        };
        let said_of = |area: u32, line: &str| {
            let frr = Inspection {
                upstream: parse_upstream(&format!("router ospf\n {line}\n")),
                ..Inspection::default()
            };
            let interfaces = [
                interface("br1", area),
                interface("br2", area),
                interface("up", 0),
            ];
            let found = upstream(Announce::Costs, &frr, &interfaces, &bridges, &links);
            let said = said(&found);
            assert!(said.len() < 2, "{said:?}");
            said.first()
                .map(|(level, text)| (*level, (*text).to_owned()))
        };
        for (line, level, text) in [
            (
                "area 1 range 10.64.2.0/24 not-advertise",
                Level::Fail,
                "hides the network of br<VNI> from the upstream router: VNIs 2",
            ),
            (
                "area 0.0.0.1 range 10.64.0.0/10",
                Level::Warn,
                "one network for all of br<VNI>",
            ),
            ("area 1 export-list x", Level::Unknown, "is not read here"),
        ] {
            let found = said_of(1, line);
            assert!(
                found
                    .as_ref()
                    .is_some_and(|it| it.0 == level && it.1.contains(text)),
                "{line}: {found:?}"
            );
            assert_eq!(said_of(0, line), None, "{line}");
        }
        assert_eq!(said_of(1, "area 1 range 10.99.0.0/16 not-advertise"), None);
        assert_eq!(said_of(1, "redistribute connected"), None);
        let frr = Inspection {
            upstream: parse_upstream("router ospf\n redistribute connected\n"),
            ..Inspection::default()
        };
        let found = upstream(
            Announce::Costs,
            &frr,
            &[interface("br1", 0)],
            &bridges,
            &links,
        );
        assert!(
            matches!(&said(&found)[..], [(Level::Fail, text)] if text.ends_with("VNIs 2")),
            "{found:?}"
        );
    }

    #[test]
    fn what_keeps_routes_from_the_kernel() {
        let level = |fate| {
            let frr = Inspection {
                kernel_map: Some(("m".into(), fate)),
                ..Inspection::default()
            };
            let found = upstream(
                Announce::Costs,
                &frr,
                &[],
                &BTreeSet::new(),
                &Links::default(),
            );
            found.first().map(|it| it.level)
        };
        let levels = [MapAction::Passes, MapAction::Held, MapAction::Unsure].map(level);
        assert_eq!(levels, [None, Some(Level::Fail), Some(Level::Unknown)]);
    }

    /// Input: FRR is installed and nothing of it runs. Output: one finding.
    #[test]
    fn nothing_of_frr_runs() {
        let down = |name| (name, Some(Answer::Down));
        let frr = Inspection {
            daemons: ["zebra", "bgpd", "ospfd", "bfdd"].map(down).into(),
            ..Inspection::default()
        };
        let found = daemons(&frr, true);
        assert_eq!(said(&found), [(Level::Fail, "does not run")]);
    }

    /// Input: IPv6 gateway addresses on some bridges, and ospf6d that does not run, runs on none of them, or on all.
    /// Output: what is not announced.
    #[test]
    fn ipv6_networks_that_ospf6d_does_not_announce() {
        let said = |ospf6: Option<&[u32]>, with_ipv6: &[u32]| {
            let frr = Inspection {
                ospf6: ospf6.map(|all| vnis(all).into_iter().collect()),
                ..Inspection::default()
            };
            ospf6_text(super::ospf6(&frr, &vnis(with_ipv6)))
        };
        fn ospf6_text(found: Option<Finding>) -> Option<(String, String)> {
            found.map(|it| (it.text, it.remedy.unwrap_or_default()))
        }
        let (text, remedy) = said(None, &[1, 2]).expect("a finding");
        assert!(
            text.starts_with("ospf6d does not run") && text.ends_with("VNIs 1-2"),
            "{text}"
        );
        assert!(remedy.contains("ospf6d=yes"), "{remedy}");
        let (text, remedy) = said(Some(&[1]), &[1, 2, 3]).expect("a finding");
        assert!(
            text.contains("no area of ospf6d") && text.ends_with("VNIs 2-3"),
            "{text}"
        );
        assert!(
            remedy.contains("for i in") && remedy.contains("\"interface br$i\""),
            "{remedy}"
        );
        assert_eq!(said(Some(&[1, 2]), &[1, 2]), None);
        assert_eq!(said(None, &[]), None);
    }

    /// Input: a gateway with and without IPv6 gateway addresses, and with each of the two lines that have bgpd advertise
    /// them. Output: that stations may give their router up, where the routes say that it is none.
    #[test]
    fn ipv6_gateway_addresses_that_are_no_routers() {
        let said = |svi, default_gw, has_ipv6| {
            let frr = Inspection {
                all_vnis: true,
                svi,
                default_gw,
                ..Inspection::default()
            };
            let found = evpn(&frr, &parse_bgp(ROUTER), has_ipv6);
            let is_it = |it: &&Finding| it.text.contains("give their default router up");
            found.iter().filter(is_it).count()
        };
        assert_eq!(said(true, false, true), 1);
        for (svi, default_gw, has_ipv6) in [
            (true, false, false),
            (true, true, true),
            (false, true, true),
            (false, false, true),
        ] {
            assert_eq!(said(svi, default_gw, has_ipv6), 0);
        }
    }

    #[test]
    fn more_vnis_than_ospf_can_say() {
        let bridges: BTreeSet<Vni> = purpose(1, 5334).range.iter().collect();
        assert_eq!(sizes(&[], bridges.len())[0].level, Level::Ok);
        let bridges: BTreeSet<Vni> = purpose(1, 5335).range.iter().collect();
        assert_eq!(sizes(&[], bridges.len())[0].level, Level::Fail);
    }

    #[test]
    fn an_l3vni_in_the_range() {
        let json = r#"{"1":{"type":"L2","exportRTs":["65000:1","65000:3"]},"3":{"type":"L3","exportRTs":["65000:3"]}}"#;
        let frr = Inspection {
            all_vnis: true,
            targets: parse_targets(json).ok(),
            ..Inspection::default()
        };
        let bridges = BTreeSet::from_iter(vnis(&[1, 3]));
        let found = targets(&purpose(1, 3), &frr, &parse_bgp(ROUTER), &bridges);
        assert!(
            matches!(&said(&found)[..], [(Level::Warn, text)] if text.contains("L3VNI") && text.ends_with("VNIs 3")),
            "{found:?}"
        );
    }

    #[test]
    fn vnis_that_bgpd_lacks_or_cannot_tell_apart() {
        let json = r#"{"1":{"exportRTs":["65000:9"]},"2":{"exportRTs":["65000:9"]},"3":{"exportRTs":["65000:3"]}}"#;
        let frr = Inspection {
            all_vnis: true,
            targets: parse_targets(json).ok(),
            ..Inspection::default()
        };
        let bgp = parse_bgp(ROUTER);
        let bridges = BTreeSet::from_iter(vnis(&[1, 2, 3, 4]));
        let found = targets(&purpose(1, 4), &frr, &bgp, &bridges);
        let expected = [
            (Level::Fail, "bgpd does not know VNIs 4"),
            (
                Level::Fail,
                "the export route targets do not tell these VNIs from others (as 1 from 2): 1-2",
            ),
        ];
        assert_eq!(said(&found), expected);
        // With an entry for each VNI route targets do not matter.
        let entries = Purpose {
            filter: EvpnFilter::Entries,
            ..purpose(1, 4)
        };
        assert_eq!(targets(&entries, &frr, &bgp, &bridges).len(), 1);
        let many = Purpose {
            filter: EvpnFilter::Entries,
            ..purpose(1, 70_000)
        };
        assert_eq!(targets(&many, &frr, &bgp, &bridges).len(), 2);
    }
}
