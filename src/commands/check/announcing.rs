//! Pure: whether FRR carries the routes of `--announce routes` upstream, and only where they belong.

use super::Finding;
use crate::host::frr::carrier::{Carrier, Carriers};
use crate::host::frr::inspection::{Answer, Inspection};
use crate::host::routes::Prefix;
use crate::model::frr::Announce;
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

const ABOUT: &str = "announcing";

/// FRR from which on zebra walks over all interfaces for each kernel route (`if_lookup_prefix` in `rib_add`).
const SLOW_SINCE: (u32, u32) = (10, 2);
/// The number of bridges above which that walk is said: 19 s for 6 666 routes with 10 000 bridges, 0.5 s for 1 000 with
/// 1 000 (FRR 10.3, measured).
const SLOW_FROM: usize = 3_000;

/// Whether a protocol that is configured carries the kernel's routes: ospfd is then not needed if it is bgpd.
pub fn is_by_bgp_alone(purpose: &Purpose, frr: &Inspection) -> bool {
    let carriers = frr.carriers.as_ref().map(|it| &it.carriers[..]);
    purpose.announce == Announce::Routes
        && matches!(
            carriers,
            Some([Carrier {
                protocol: "bgp",
                ..
            }])
        )
}

/// What there is to say with `--announce routes`. `halves` are what each bridge announces.
pub fn findings(
    purpose: &Purpose,
    frr: &Inspection,
    halves: &BTreeMap<Vni, BTreeSet<Prefix>>,
) -> Vec<Finding> {
    let Some(read) = frr
        .carriers
        .as_ref()
        .filter(|_| purpose.announce == Announce::Routes)
    else {
        return Vec::new();
    };
    let answers = |daemon| frr.daemons.contains(&(daemon, Some(Answer::Answers)));
    let mut findings = Vec::new();
    if read.carriers.is_empty() && answers("bgpd") && answers("ospfd") {
        findings.push(Finding::fail(
            ABOUT,
            "neither ospfd nor bgpd has redistribute kernel: no router upstream hears of the VNIs",
            "take prefix-lists, route-maps and `redistribute kernel` from the end of frr.conf.example",
        ));
    }
    let [halves4, halves6] = [false, true].map(|is_ipv6| of_family(halves, is_ipv6));
    for carrier in &read.carriers {
        findings.extend(passes(carrier, &halves4));
        findings.extend(keeps_out(read, carrier.protocol, false, &halves4));
    }
    // Where none carries IPv6, ospf6d announces bridges as with costs: see `routing`.
    for carrier in read.carriers6.iter().filter(|_| !halves6.is_empty()) {
        findings.extend(passes(carrier, &halves6));
        findings.extend(keeps_out(read, carrier.protocol, true, &halves6));
    }
    let is_carrier = |protocol: &str| read.carriers.iter().any(|it| it.protocol == protocol);
    if is_carrier("ospf") {
        findings.extend(stub(read, frr));
    }
    if is_carrier("bgp") && !read.without_bfd.is_empty() {
        let names = &read.without_bfd;
        findings.push(Finding::fail(
            "BFD",
            format!(
                "none with {}: the upstream router goes on using a dead gateway until the hold time ends, and no cost \
                 makes another gateway the nearer one",
                names.join(", ")
            ),
            format!(
                "vtysh -c 'configure terminal' -c 'router bgp AS' -c 'neighbor {} bfd', and the same on the upstream \
                 router",
                names[0]
            ),
        ));
    }
    if let Some(version) = read.version.filter(|it| *it >= SLOW_SINCE)
        && halves.len() > SLOW_FROM
    {
        let (major, minor) = version;
        findings.push(Finding::warn(
            ABOUT,
            format!(
                "FRR {major}.{minor} with {} bridges takes milliseconds for each route: a takeover of thousands of VNIs \
                 takes tens of seconds",
                halves.len()
            ),
            "use FRR 10.1 or older, or give the gateways several ranges with --minvni and --maxvni",
        ));
    }
    if findings.is_empty() {
        let six = read.carriers6.iter().filter(|_| !halves6.is_empty());
        let carriers = read.carriers.iter().chain(six);
        let names: Vec<&str> = carriers.map(|it| it.protocol).collect();
        let text = format!("{} carries the halves of each VNI", names.join(", "));
        findings.push(Finding::ok(ABOUT, text));
    }
    findings
}

/// The halves of one family, of the VNIs that have it.
fn of_family(
    halves: &BTreeMap<Vni, BTreeSet<Prefix>>,
    is_ipv6: bool,
) -> BTreeMap<Vni, BTreeSet<Prefix>> {
    let of = |halves: &BTreeSet<Prefix>| -> BTreeSet<Prefix> {
        let of = halves.iter().filter(|it| it.is_ipv6() == is_ipv6);
        of.copied().collect()
    };
    let all = halves.iter().map(|(vni, halves)| (*vni, of(halves)));
    all.filter(|(_, halves)| !halves.is_empty()).collect()
}

/// The VNIs of which `is` holds for some half.
fn where_some(halves: &BTreeMap<Vni, BTreeSet<Prefix>>, is: impl Fn(Prefix) -> bool) -> Vec<Vni> {
    let some = halves
        .iter()
        .filter(|(_, halves)| halves.iter().any(|half| is(*half)));
    some.map(|(vni, _)| *vni).collect()
}

/// Whether the halves pass the route-map of `redistribute kernel`.
fn passes(carrier: &Carrier, halves: &BTreeMap<Vni, BTreeSet<Prefix>>) -> Vec<Finding> {
    let protocol = carrier.protocol;
    let Some(map) = &carrier.map else {
        let text = format!(
            "`redistribute kernel` of {protocol} without a route-map announces every route of this host's kernel, also \
             its default route"
        );
        let remedy = "take the route-map own, or own6, from frr.conf.example";
        return vec![Finding::warn(ABOUT, text, remedy)];
    };
    let held = where_some(halves, |half| {
        carrier.lists.permits(map, half) == Some(false)
    });
    let text = format!("the route-map {map} of {protocol} holds back the halves of br<VNI>");
    let remedy = format!(
        "vtysh -c 'show route-map {map}': its prefix-list must permit each network of br<VNI> with one bit more (ge and \
         le 25 for /24, 65 for /64)"
    );
    let mut findings: Vec<Finding> = Finding::fail(ABOUT, text, remedy)
        .of(&held)
        .into_iter()
        .collect();
    let unsure = where_some(halves, |half| carrier.lists.permits(map, half).is_none());
    if !unsure.is_empty() {
        let text =
            format!("whether the route-map {map} of {protocol} holds back VNIs is not read here");
        findings.push(Finding::unknown(
            ABOUT,
            text,
            format!("vtysh -c 'show route-map {map}'"),
        ));
    }
    findings
}

/// Whether the halves of other gateways stay out of this gateway's kernel, and the way upstream does not.
fn keeps_out(
    read: &Carriers,
    protocol: &str,
    is_ipv6: bool,
    halves: &BTreeMap<Vni, BTreeSet<Prefix>>,
) -> Vec<Finding> {
    let (family, fib, any): (&str, &str, IpAddr) = match is_ipv6 {
        true => ("ipv6", "fib6", Ipv6Addr::UNSPECIFIED.into()),
        false => ("ip", "fib", Ipv4Addr::UNSPECIFIED.into()),
    };
    let remedy = format!(
        "take the route-map {fib} and `{family} protocol {protocol} route-map {fib}` from frr.conf.example"
    );
    let text = |what: &str| {
        format!(
            "{what} lets other gateways' halves of br<VNI> into this kernel: it would send to their owner, even a dead \
             one, instead of into its own bridge"
        )
    };
    let Some(map) = read.kernel_map(protocol, is_ipv6) else {
        let text = text(&format!("no `{family} protocol {protocol} route-map`"));
        return vec![Finding::fail(ABOUT, text, remedy)];
    };
    let permits = |prefix| read.zebra.permits(map, prefix);
    let line = format!("`{family} protocol {protocol} route-map {map}`");
    let mut findings = Vec::new();
    let let_in = where_some(halves, |half| permits(half) == Some(true));
    findings.extend(Finding::fail(ABOUT, text(&line), remedy).of(&let_in));
    let default = Prefix::new(any, 0);
    let is_unsure = !where_some(halves, |half| permits(half).is_none()).is_empty();
    match default.map(permits) {
        Some(Some(false)) => findings.push(Finding::warn(
            ABOUT,
            format!("{line} keeps a default route out of the kernel"),
            format!("vtysh -c 'show route-map {map}': its last entry should permit the rest"),
        )),
        Some(None) => findings.push(unsure(&line, map)),
        _ if is_unsure => findings.push(unsure(&line, map)),
        _ => {}
    }
    findings
}

fn unsure(line: &str, map: &str) -> Finding {
    let text = format!("what {line} lets into the kernel is not read here");
    Finding::unknown(
        ABOUT,
        text,
        format!("vtysh -d zebra -c 'show route-map {map}'"),
    )
}

/// Whether the area towards the upstream router takes external routes.
fn stub(read: &Carriers, frr: &Inspection) -> Option<Finding> {
    let interfaces = frr.ospf.as_deref().unwrap_or_default();
    let uplink = interfaces
        .iter()
        .filter(|it| !it.passive && Vni::of_bridge(&it.name).is_none())
        .find(|it| it.area.is_some_and(|area| read.stubs.contains(&area)))?;
    let area = Ipv4Addr::from(uplink.area?);
    Some(Finding::fail(
        ABOUT,
        format!(
            "{} is in the stub area {area}, which takes no external routes: no router upstream hears of the VNIs",
            uplink.name
        ),
        format!(
            "vtysh -c 'configure terminal' -c 'router ospf' -c 'no area {area} stub', on every router of the area"
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{purpose, vnis};
    use super::super::{Level, Purpose};
    use super::*;
    use crate::host::frr::inspection::OspfInterface;

    const LISTS: &str = "\
ip prefix-list halves seq 5 permit 10.64.0.0/10 ge 25 le 25
ip prefix-list vnis seq 5 permit 10.64.0.0/10 le 32
route-map own permit 10
 match ip address prefix-list halves
route-map fib deny 10
 match ip address prefix-list vnis
route-map fib permit 20
";
    const OSPF6: &str = "\
ipv6 prefix-list halves6 seq 5 permit fd64::/48 ge 65 le 65
route-map own6 permit 10
 match ipv6 address prefix-list halves6
router ospf6
 redistribute kernel metric-type 1 route-map own6
";
    const LISTS6: &str = "\
ipv6 prefix-list vnis6 seq 5 permit fd64::/48 le 128
route-map fib6 deny 10
 match ipv6 address prefix-list vnis6
route-map fib6 permit 20
ipv6 protocol ospf6 route-map fib6
";
    const OSPF: &str = "router ospf\n redistribute kernel metric-type 1 route-map own\n";
    const BGP: &str = "\
router bgp 65000
 no bgp default ipv4-unicast
 neighbor 10.0.2.1 remote-as 65100
 neighbor 10.0.2.1 bfd
 address-family ipv4 unicast
  redistribute kernel route-map own
  neighbor 10.0.2.1 activate
";

    fn by_routes() -> Purpose {
        Purpose {
            announce: Announce::Routes,
            ..purpose(1, 2)
        }
    }

    fn inspection(zebra: &str, bgpd: &str, ospfd: &str) -> Inspection {
        let answers = |daemon| (daemon, Some(Answer::Answers));
        Inspection {
            daemons: ["zebra", "bgpd", "ospfd"].map(answers).to_vec(),
            carriers: Some(Carriers::read(zebra, Some(bgpd), Some(ospfd), Some(OSPF6))),
            ospf: Some(vec![OspfInterface {
                name: "uplink".into(),
                area: Some(3),
                ..OspfInterface::default()
            }]),
            ..Inspection::default()
        }
    }

    /// Two VNIs with networks of /24 and of `/length`.
    fn halves(length: u8) -> BTreeMap<Vni, BTreeSet<Prefix>> {
        let of = |third: u8, length: u8| {
            let prefix = Prefix::new([10, 64, third, 1].into(), length).unwrap();
            BTreeSet::from(prefix.halves().unwrap())
        };
        vnis(&[1, 2])
            .into_iter()
            .zip([of(1, 24), of(2, length)])
            .collect()
    }

    /// Input: a configuration as frr.conf.example has it, and one with each trap. Output: ok, and the level and the
    /// beginning of what is said.
    #[test]
    fn each_trap_is_seen() {
        let zebra = |protocol: &str| {
            format!("frr version 8.4.4\n{LISTS}ip protocol {protocol} route-map fib\n")
        };
        let (ospf, bgp) = (format!("{LISTS}{OSPF}"), format!("{LISTS}{BGP}"));
        let found = |zebra: &str, bgpd: &str, ospfd: &str, length: u8| -> Vec<(Level, String)> {
            let frr = inspection(zebra, bgpd, ospfd);
            let found = findings(&by_routes(), &frr, &halves(length));
            found.into_iter().map(|it| (it.level, it.text)).collect()
        };
        let one = |found: Vec<(Level, String)>, level: Level, words: &str| {
            assert!(
                matches!(&found[..], [(it, text)] if *it == level && text.contains(words)),
                "{words}: {found:?}"
            );
        };
        one(
            found(&zebra("ospf"), "", &ospf, 24),
            Level::Ok,
            "ospf carries",
        );
        one(found(&zebra("bgp"), &bgp, "", 24), Level::Ok, "bgp carries");
        one(
            found(&zebra("ospf"), "", "router ospf\n", 24),
            Level::Fail,
            "neither ospfd nor bgpd",
        );
        one(
            found(&zebra("ospf"), "", &ospf, 22),
            Level::Fail,
            "holds back the halves of br<VNI>: VNIs 2",
        );
        one(
            found(
                &zebra("ospf"),
                "",
                &ospf.replace(" route-map own\n", "\n"),
                24,
            ),
            Level::Warn,
            "its default route",
        );
        one(
            found(&zebra("bgp"), "", &ospf, 24),
            Level::Fail,
            "no `ip protocol ospf route-map`",
        );
        one(
            found(
                &zebra("ospf").replace("deny 10", "permit 10"),
                "",
                &ospf,
                24,
            ),
            Level::Fail,
            "lets other gateways' halves",
        );
        one(
            found(
                &zebra("ospf").replace("route-map fib permit 20\n", ""),
                "",
                &ospf,
                24,
            ),
            Level::Warn,
            "keeps a default route out",
        );
        one(
            found(
                &zebra("ospf").replace(" match ip address prefix-list vnis", " match tag 7"),
                "",
                &ospf,
                24,
            ),
            Level::Unknown,
            "is not read here",
        );
        one(
            found(
                &zebra("ospf"),
                "",
                &format!("{ospf} area 0.0.0.3 stub\n"),
                24,
            ),
            Level::Fail,
            "uplink is in the stub area 0.0.0.3",
        );
        one(
            found(
                &zebra("bgp"),
                &bgp.replace(" neighbor 10.0.2.1 bfd\n", ""),
                "",
                24,
            ),
            Level::Fail,
            "none with 10.0.2.1",
        );
    }

    /// Input: bridges with networks of IPv6, whose halves are kept out of this kernel, are not, or are held back. Output:
    /// the first is ok; a failure names the missing route-map, or the one that holds back.
    #[test]
    fn each_trap_of_ipv6_is_seen() {
        let found = |zebra6: &str, length: u8| -> Vec<(Level, String)> {
            let zebra = format!("{LISTS}ip protocol ospf route-map fib\n{zebra6}");
            let frr = inspection(&zebra, "", &format!("{LISTS}{OSPF}"));
            let mut halves = halves(24);
            let six = Prefix::new("fd64:0:0:2::1".parse().unwrap(), length).unwrap();
            halves
                .get_mut(&vnis(&[2])[0])
                .unwrap()
                .extend(six.halves().unwrap());
            let found = findings(&by_routes(), &frr, &halves);
            found.into_iter().map(|it| (it.level, it.text)).collect()
        };
        let all = found(LISTS6, 64);
        assert!(
            matches!(&all[..], [(Level::Ok, text)] if text.starts_with("ospf, ospf6 carries")),
            "{all:?}"
        );
        let open = found("", 64);
        assert!(
            matches!(&open[..], [(Level::Fail, text)] if text.contains("no `ipv6 protocol ospf6 route-map`")),
            "{open:?}"
        );
        let held = found(LISTS6, 60);
        assert!(
            matches!(&held[..], [(Level::Fail, text)] if text.contains("own6 of ospf6 holds back the halves of br<VNI>: VNIs 2")),
            "{held:?}"
        );
    }

    /// Input: 4000 bridges with an FRR that is slow with them, and with one that is not; costs. Output: a warning for
    /// the first.
    #[test]
    fn a_slow_frr_is_said() {
        let many: BTreeMap<Vni, BTreeSet<Prefix>> = (1..=4000)
            .map(|number| (vnis(&[number])[0], halves(24)[&vnis(&[1])[0]].clone()))
            .collect();
        let levels = |purpose: &Purpose, version: &str| -> Vec<Level> {
            let zebra = format!("frr version {version}\n{LISTS}ip protocol ospf route-map fib\n");
            let frr = inspection(&zebra, "", &format!("{LISTS}{OSPF}"));
            let found = findings(purpose, &frr, &many);
            found.iter().map(|it| it.level).collect()
        };
        assert_eq!(levels(&by_routes(), "10.3"), [Level::Warn]);
        assert_eq!(levels(&by_routes(), "10.1.2"), [Level::Ok]);
        assert_eq!(levels(&purpose(1, 2), "10.3"), []);
    }
}
