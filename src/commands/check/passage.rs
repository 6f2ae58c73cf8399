//! Pure: whether the kernel lets the packets of stations through: forwarding, routes, the check of the sender, and
//! the rules of firewalls.

use super::Finding;
use super::ruleset::{Fate, Hop, Packet, Ruleset};
use crate::model::purpose::Purpose;
use crate::model::types::Vni;
use crate::telemetry::log_text;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

/// One way between the stations of a VNI and the upstream router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The VNI.
    pub vni: Vni,
    /// The interface to the upstream router.
    pub uplink: String,
    /// An address that a station can have.
    pub station: Ipv4Addr,
    /// An address beyond the uplink.
    pub beyond: Ipv4Addr,
    /// Why the kernel would drop a packet to there.
    pub out: Option<String>,
    /// Why the kernel would drop a packet from there.
    pub back: Option<String>,
}

/// The rules of firewalls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Rules {
    /// There are none.
    #[default]
    None,
    /// These.
    Read(Ruleset),
    /// There are some, or may be: why they cannot be read, and what repairs that.
    Unread(String, &'static str),
}

/// What the kernel does with packets that are not for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Passage {
    /// The ways that were tried: not each VNI's, where there are many.
    pub paths: Vec<Path>,
    /// Bridges of the range, and uplinks, that do not forward.
    pub closed: Vec<String>,
    /// Bridges that answer ARP for addresses behind other interfaces (`proxy_arp`).
    pub proxies: Vec<Vni>,
    /// Uplinks, of several, that drop what has a sender to whom the route leaves by another (`rp_filter=1`).
    pub strict: Vec<String>,
    /// Where the default route leaves, if that is no uplink.
    pub astray: Option<String>,
    /// The interfaces that VXLAN packets come in at.
    pub fabric: Vec<String>,
    /// Rules of nftables.
    pub rules: Rules,
    /// Tables of the older iptables that hold rules which are not read here.
    pub legacy: Vec<String>,
    /// The interfaces on the way of stations' packets at which programs (tc, XDP) look at packets.
    pub programs: Vec<String>,
    /// Why these cannot be seen.
    pub programs_unseen: Option<String>,
    /// There is no default route for what stations send.
    pub is_confined: bool,
    /// Bridges with more than one port, whose frames pass the rules for packets (`bridge-nf-call-iptables`).
    pub crossed: Vec<Vni>,
}

const IP: &[&str] = &["ip", "inet"];
const BRIDGE: &[&str] = &["bridge"];
const ARP: &[&str] = &["arp"];
const DEVICE: &[&str] = &["netdev", "inet"];

/// What there is to say of them.
pub fn findings(purpose: &Purpose, passage: &Passage) -> Vec<Finding> {
    let mut findings = forwarding(purpose, passage);
    findings.extend(routes(passage));
    match &passage.rules {
        Rules::None => {}
        Rules::Unread(reason, remedy) => findings.push(Finding::unknown(FIREWALL, reason, *remedy)),
        Rules::Read(rules) => findings.extend(firewall(passage, rules)),
    }
    if !passage.legacy.is_empty() {
        let tables = passage.legacy.join(", ");
        findings.push(Finding::unknown(
            FIREWALL,
            format!("the kernel has tables of iptables-legacy ({tables}), which are not read here"),
            "look whether iptables-legacy-save drops packets of br<VNI>, or use nftables",
        ));
    }
    if !passage.programs.is_empty() {
        let names = log_text::names(&passage.programs);
        findings.push(Finding::unknown(
            FIREWALL,
            format!("programs of tc or XDP, which may drop any packet and are not read here, are at {names}"),
            "look what they do: tc filter show dev NAME ingress, then egress; ip -d link show NAME",
        ));
    }
    if let Some(reason) = &passage.programs_unseen {
        let text = format!("whether programs of tc drop packets cannot be seen: {reason}");
        findings.push(Finding::unknown(FIREWALL, text, "tc qdisc show"));
    }
    if findings.is_empty() && !passage.paths.is_empty() {
        let text = "the kernel lets packets of stations through, both ways";
        findings.push(Finding::ok("forwarding", text));
    }
    findings
}

fn forwarding(purpose: &Purpose, passage: &Passage) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ours = |name: &String| Vni::of_bridge(name).filter(|vni| purpose.range.contains(*vni));
    let bridges: Vec<Vni> = passage.closed.iter().filter_map(ours).collect();
    let others = passage.closed.iter().filter(|name| ours(name).is_none());
    const ABOUT: &str = "forwarding";
    findings.extend(
        Finding::fail(
            ABOUT,
            "off at br<VNI>: the kernel drops what stations send through this gateway",
            "sysctl -w net.ipv4.conf.br$i.forwarding=1",
        )
        .of(&bridges),
    );
    findings.extend(others.map(|name| {
        let text = format!("off at {name}: the kernel drops what comes from there for stations");
        Finding::fail(
            ABOUT,
            text,
            format!("sysctl -w net.ipv4.conf.{name}.forwarding=1"),
        )
    }));
    findings.extend(
        Finding::warn(
            "proxy_arp",
            "on at br<VNI>, so that every gateway answers ARP for addresses elsewhere, also for VNIs of others",
            "sysctl -w net.ipv4.conf.br$i.proxy_arp=0 net.ipv4.conf.all.proxy_arp=0",
        )
        .of(&passage.proxies),
    );
    findings
}

fn routes(passage: &Passage) -> Vec<Finding> {
    const ABOUT: &str = "routes";
    let mut findings = Vec::new();
    let is_closed = |name: &String| passage.closed.contains(name);
    let mut refused: BTreeMap<(bool, &str, &str), (Vec<Vni>, &Path)> = BTreeMap::new();
    for path in &passage.paths {
        let out = path.out.as_ref().filter(|_| !is_closed(&path.vni.bridge()));
        let back = path.back.as_ref().filter(|_| !is_closed(&path.uplink));
        for (is_out, reason) in [(true, out), (false, back)] {
            let Some(reason) = reason else { continue };
            let kind = (is_out, reason.as_str(), path.uplink.as_str());
            refused
                .entry(kind)
                .or_insert((Vec::new(), path))
                .0
                .push(path.vni);
        }
    }
    for ((is_out, reason, uplink), (vnis, path)) in refused {
        let Path {
            station,
            beyond,
            vni,
            ..
        } = path;
        let (what, see) = match is_out {
            true => (
                format!("the kernel drops what stations send to {uplink}"),
                format!("ip route get {beyond} from {station} iif {}", vni.bridge()),
            ),
            false => (
                format!("the kernel drops what comes from {uplink} for stations"),
                format!("ip route get {station} from {beyond} iif {uplink}"),
            ),
        };
        findings.extend(Finding::fail(ABOUT, format!("{what}: {reason}"), see).of(&vnis));
    }
    if !passage.strict.is_empty() {
        let names = passage.strict.join(", ");
        findings.push(Finding::warn(
            "rp_filter",
            format!(
                "1 at {names}, one of several uplinks: the kernel drops what comes in there while the route back leaves \
                 by another"
            ),
            "sysctl -w net.ipv4.conf.UPLINK.rp_filter=2 for each uplink",
        ));
    }
    if let Some(name) = &passage.astray {
        findings.push(Finding::warn(
            ABOUT,
            format!("the default route leaves by {name}, where OSPF has no neighbour: packets of stations go there"),
            "ip route show default",
        ));
    }
    if passage.is_confined {
        findings.push(Finding::warn(
            ABOUT,
            "no default route: the kernel drops what stations send beyond the networks that OSPF tells of",
            "have the upstream router announce one (FRR: default-information originate), or: ip route add default via ADDRESS",
        ));
    }
    findings
}

const FIREWALL: &str = "firewall";

/// A packet, its way, and the words for it.
struct Trial<'a> {
    what: String,
    packet: Packet,
    hops: Vec<Hop<'a>>,
}

fn hop<'a>(
    families: &'static [&'static str],
    hook: &'static str,
    at: &'a str,
    out: &'a str,
) -> Hop<'a> {
    Hop {
        families,
        hook,
        at,
        out,
    }
}

fn firewall(passage: &Passage, rules: &Ruleset) -> Vec<Finding> {
    let mut seen: Vec<(bool, String, String, Vec<Vni>)> = Vec::new();
    let mut judge = |vni: Option<Vni>, trial: &Trial| {
        let (is_certain, place) = match rules.fate(&trial.packet, &trial.hops) {
            Fate::Passes => return,
            Fate::Unsure(place) => (false, place),
            Fate::Dropped(place) => (true, place),
        };
        let same = |it: &&mut (bool, String, String, Vec<Vni>)| {
            (it.0, &it.1, &it.2) == (is_certain, &trial.what, &place)
        };
        match seen.iter_mut().find(same) {
            Some(it) => it.3.extend(vni),
            None => seen.push((
                is_certain,
                trial.what.clone(),
                place,
                vni.into_iter().collect(),
            )),
        }
    };
    let (mut stateful, mut translated): (Vec<Vni>, Vec<Vni>) = Default::default();
    for fabric in &passage.fabric {
        for trial in tunnel(fabric) {
            judge(None, &trial);
        }
    }
    for path in &passage.paths {
        let (bridge, port) = (path.vni.bridge(), format!("vxlan{}", path.vni));
        let (out, back) = through(path, &bridge, &port);
        judge(Some(path.vni), &out);
        judge(Some(path.vni), &back);
        for trial in arp(&bridge, &port) {
            judge(Some(path.vni), &trial);
        }
        if rules.translates(&out.packet, &out.hops).is_some() {
            translated.push(path.vni);
        }
        let unknown = Packet {
            state: "new",
            ..back.packet.clone()
        };
        let passes = |packet: &Packet| rules.fate(packet, &back.hops) == Fate::Passes;
        if passes(&back.packet) && !passes(&unknown) {
            stateful.push(path.vni);
        }
    }
    let mut findings = Vec::new();
    for (is_certain, what, place, vnis) in seen {
        let see = place
            .strip_prefix("chain ")
            .and_then(|it| it.split_once(" of table "));
        let (chain, table) = see.unwrap_or_default();
        let see = format!("nft list chain {table} {chain}");
        let finding = match is_certain {
            true => Finding::fail(
                FIREWALL,
                format!("drops {what}, in {place}"),
                format!("let it pass there: {see}"),
            ),
            false => Finding::unknown(
                FIREWALL,
                format!("whether {what} passes {place} cannot be told from its rules"),
                format!("look, and let it pass there by a plain rule first: {see}"),
            ),
        };
        findings.extend(match vnis.is_empty() {
            true => Some(finding),
            false => finding.of(&vnis),
        });
    }
    let crossing: Vec<Vni> = passage
        .crossed
        .iter()
        .copied()
        .filter(|vni| {
            let bridge = vni.bridge();
            let hops = [hop(IP, "forward", &bridge, &bridge)];
            let packet = Packet {
                state: "new",
                ..Packet::default()
            };
            rules.fate(&packet, &hops) != Fate::Passes
        })
        .collect();
    findings.extend(
        Finding::warn(
            FIREWALL,
            "net.bridge.bridge-nf-call-iptables=1 shows frames that cross br<VNI> to rules which do not let all of them pass",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0",
        )
        .of(&crossing),
    );
    findings.extend(
        Finding::warn(
            FIREWALL,
            "what comes from upstream passes only where this gateway has seen the session begin: sessions of stations \
             stall at each move",
            "let it pass without state, or share the state with conntrackd: see FIREWALLS in wmgwd(8)",
        )
        .of(&stateful),
    );
    findings.extend(
        Finding::warn(
            FIREWALL,
            "translates the addresses of stations: all their sessions end at each move",
            "translate upstream of the gateways, or share the state with conntrackd: see FIREWALLS in wmgwd(8)",
        )
        .of(&translated),
    );
    if findings.is_empty() {
        let text = format!(
            "{} rules, which let packets of stations through",
            rules.count()
        );
        findings.push(Finding::ok(FIREWALL, text));
    }
    findings
}

/// What a station sends, and what comes back.
fn through<'a>(path: &'a Path, bridge: &'a str, port: &'a str) -> (Trial<'a>, Trial<'a>) {
    let uplink = path.uplink.as_str();
    let out = Trial {
        what: format!("what stations send to {uplink}"),
        packet: Packet {
            state: "new",
            from: Some(path.station),
            to: Some(path.beyond),
            ..Packet::default()
        },
        hops: vec![
            hop(DEVICE, "ingress", port, ""),
            hop(BRIDGE, "prerouting", port, ""),
            hop(BRIDGE, "input", port, ""),
            hop(DEVICE, "ingress", bridge, ""),
            hop(IP, "prerouting", bridge, ""),
            hop(IP, "forward", bridge, uplink),
            hop(IP, "postrouting", "", uplink),
            hop(DEVICE, "egress", "", uplink),
        ],
    };
    let back = Trial {
        what: format!("what comes from {uplink} for stations"),
        packet: Packet {
            state: "established",
            from: Some(path.beyond),
            to: Some(path.station),
            ..Packet::default()
        },
        hops: vec![
            hop(DEVICE, "ingress", uplink, ""),
            hop(IP, "prerouting", uplink, ""),
            hop(IP, "forward", uplink, bridge),
            hop(IP, "postrouting", "", bridge),
            hop(DEVICE, "egress", "", bridge),
            hop(BRIDGE, "output", "", port),
            hop(BRIDGE, "postrouting", "", port),
            hop(DEVICE, "egress", "", port),
        ],
    };
    (out, back)
}

/// What carries the frames of all VNIs.
fn tunnel(fabric: &str) -> [Trial<'_>; 2] {
    let packet = Packet {
        state: "new",
        protocol: Some("udp"),
        port: Some(4789),
        ..Packet::default()
    };
    [
        Trial {
            what: format!("VXLAN (UDP port 4789) from {fabric}"),
            packet: packet.clone(),
            hops: vec![
                hop(DEVICE, "ingress", fabric, ""),
                hop(IP, "prerouting", fabric, ""),
                hop(IP, "input", fabric, ""),
            ],
        },
        Trial {
            what: format!("VXLAN (UDP port 4789) to {fabric}"),
            packet,
            hops: vec![
                hop(IP, "output", "", fabric),
                hop(IP, "postrouting", "", fabric),
                hop(DEVICE, "egress", "", fabric),
            ],
        },
    ]
}

/// By which stations find the gateway.
fn arp<'a>(bridge: &'a str, port: &'a str) -> [Trial<'a>; 2] {
    let packet = Packet {
        arp: true,
        ..Packet::default()
    };
    [
        Trial {
            what: "ARP of stations".to_owned(),
            packet: packet.clone(),
            hops: vec![
                hop(DEVICE, "ingress", port, ""),
                hop(BRIDGE, "prerouting", port, ""),
                hop(BRIDGE, "input", port, ""),
                hop(DEVICE, "ingress", bridge, ""),
                hop(ARP, "input", bridge, ""),
            ],
        },
        Trial {
            what: "ARP to stations".to_owned(),
            packet,
            hops: vec![
                hop(ARP, "output", "", bridge),
                hop(DEVICE, "egress", "", bridge),
                hop(BRIDGE, "output", "", port),
                hop(BRIDGE, "postrouting", "", port),
                hop(DEVICE, "egress", "", port),
            ],
        },
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Level;
    use super::super::tests::{purpose, said, vnis};
    use super::*;

    fn well() -> Passage {
        let path = |vni: Vni| Path {
            vni,
            uplink: "uplink".into(),
            station: Ipv4Addr::new(10, 64, 1, 2),
            beyond: Ipv4Addr::new(10, 0, 2, 1),
            out: None,
            back: None,
        };
        Passage {
            paths: vnis(&[1, 2]).into_iter().map(path).collect(),
            fabric: vec!["underlay".into()],
            ..Passage::default()
        }
    }

    fn with(rules: &str) -> Vec<Finding> {
        let rules = Rules::Read(Ruleset::read(rules).unwrap());
        findings(&purpose(1, 2), &Passage { rules, ..well() })
    }

    /// The rulesets of tests/check.rs, as nft 1.0.6 prints them.
    fn nft(chain: &str, rules: &str) -> String {
        let table = r#""family": "inet", "table": "filter""#;
        format!(
            r#"{{"nftables": [{{"chain": {{{table}, "name": "f", "type": "filter", {chain}}}}},
                {{"rule": {{{table}, "chain": "f", "expr": [{rules}]}}}}]}}"#
        )
    }

    #[test]
    fn a_host_that_is_as_it_must_be() {
        let found = findings(&purpose(1, 2), &well());
        assert_eq!(said(&found), []);
        assert_eq!(found.len(), 1);
        assert_eq!(said(&with(r#"{"nftables": []}"#)), []);
    }

    #[test]
    fn rules_that_drop_what_passes_a_gateway() {
        let forward = r#""hook": "forward", "policy": "drop""#;
        let text = |what: &str| format!("drops {what}, in chain f of table inet filter: VNIs 1-2");
        let found = with(&nft(forward, ""));
        assert_eq!(
            said(&found),
            [
                (Level::Fail, &*text("what stations send to uplink")),
                (Level::Fail, &*text("what comes from uplink for stations"))
            ]
        );
        let mark = r#"{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"accept": null}"#;
        let levels = |found: &[Finding]| -> Vec<Level> {
            said(found).into_iter().map(|(level, _)| level).collect()
        };
        assert_eq!(levels(&with(&nft(forward, mark))), [Level::Unknown; 2]);
        let port = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}, {"drop": null}"#;
        let found = with(&nft(r#""hook": "input", "policy": "accept""#, port));
        assert!(
            matches!(&said(&found)[..], [(Level::Fail, text)] if text.contains("VXLAN (UDP port 4789) from underlay"))
        );
    }

    /// Input: rules that accept what connection tracking knows, and what stations begin. Output: a warning, as another
    /// gateway has not seen the session.
    #[test]
    fn a_firewall_with_state_is_warned_of() {
        let state = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}]]}}}"#;
        let from = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "br*"}}, {"accept": null}"#;
        let table = r#""family": "inet", "table": "filter", "chain": "f""#;
        let rules = nft(r#""hook": "forward", "policy": "drop""#, state).replace(
            "]}}]}",
            &format!(r#"]}}}}, {{"rule": {{{table}, "expr": [{from}]}}}}]}}"#),
        );
        let found = with(&rules);
        assert!(
            matches!(&said(&found)[..], [(Level::Warn, text)] if text.contains("stall at each move: VNIs 1-2")),
            "{found:?}"
        );
    }

    #[test]
    fn address_translation_is_warned_of() {
        let rules = nft(
            r#""hook": "postrouting", "policy": "accept""#,
            r#"{"masquerade": null}"#,
        );
        let found = with(&rules.replace(r#""type": "filter""#, r#""type": "nat""#));
        assert!(
            matches!(&said(&found)[..], [(Level::Warn, text)] if text.contains("sessions end at each move: VNIs 1-2")),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_judged_is_unknown() {
        let passage = Passage {
            rules: Rules::Unread("nft is not there".into(), "install nftables"),
            legacy: vec!["filter".into()],
            ..well()
        };
        let found = findings(&purpose(1, 2), &passage);
        let levels: Vec<Level> = said(&found).into_iter().map(|(level, _)| level).collect();
        assert_eq!(levels, [Level::Unknown; 2]);
    }

    /// Input: interfaces that do not forward, and ways that the kernel refuses. Output: each is said once, and what
    /// follows from the first is not said again.
    #[test]
    fn what_the_kernel_refuses() {
        let mut passage = well();
        passage.closed = vec!["br1".into(), "uplink".into()];
        passage.proxies = vnis(&[2]);
        passage.strict = vec!["uplink".into()];
        passage.astray = Some("mgmt".into());
        for path in &mut passage.paths {
            path.out = Some("no route".into());
            path.back = Some("no route".into());
        }
        let found = findings(&purpose(1, 2), &passage);
        let expected = [
            (
                Level::Fail,
                "off at br<VNI>: the kernel drops what stations send through this gateway: VNIs 1",
            ),
            (
                Level::Fail,
                "off at uplink: the kernel drops what comes from there for stations",
            ),
            (
                Level::Warn,
                "on at br<VNI>, so that every gateway answers ARP for addresses elsewhere, also for VNIs of others: VNIs 2",
            ),
            (
                Level::Fail,
                "the kernel drops what stations send to uplink: no route: VNIs 2",
            ),
            (
                Level::Warn,
                "1 at uplink, one of several uplinks: the kernel drops what comes in there while the route back leaves \
                 by another",
            ),
            (
                Level::Warn,
                "the default route leaves by mgmt, where OSPF has no neighbour: packets of stations go there",
            ),
        ];
        assert_eq!(said(&found), expected);
    }
}
