//! Pure: what the running configurations of bgpd and ospfd (`show running-config`) hold of the VNIs.
//!
//! Lines that are not understood are stepped over: the rest of the configuration is the operator's.

use super::neighbours::{Instance, parse_instances};
use super::script::{LIST, ROUTE_MAP};
use crate::model::frr::Cost;
use crate::model::types::Vni;
use std::collections::{BTreeMap, BTreeSet};

/// One entry of the route-map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Whether it permits (or denies).
    pub permits: bool,
    /// Its match, set and on-match lines, without indentation.
    pub body: Vec<String>,
}

/// The part of bgpd's configuration that matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BgpConfig {
    /// AS number of the default instance.
    pub asn: Option<u32>,
    /// The instance that takes part in EVPN, if it is one of a VRF, as it is written.
    pub foreign_instance: Option<String>,
    /// The entries of `filter-vni` by sequence number.
    pub entries: BTreeMap<u32, Entry>,
    /// The permit lines of wmgwd's extcommunity-list: sequence number, and the text after `permit`.
    pub list: BTreeMap<u32, String>,
    /// How many neighbours are activated for EVPN.
    pub activated: usize,
    /// Those of them without `filter-vni` as outbound filter.
    pub unfiltered: Vec<String>,
    /// Where the first of those gets its filter from: its peer-group, or itself.
    pub filter_at: Option<String>,
    /// Whether bgpd gives up its own route for an address that it hears from another gateway.
    pub yields: bool,
}

/// Reads bgpd's running configuration.
pub fn parse_bgp(text: &str) -> BgpConfig {
    let instances = parse_instances(text);
    let evpn = instances.iter().find(|it| it.advertises_all);
    let instance = evpn.or_else(|| instances.iter().find(|it| it.vrf.is_none()));
    let unfiltered = instance.map_or_else(Vec::new, |it| it.unfiltered());
    let foreign = evpn.and_then(|it| Some((it, it.vrf.as_ref()?)));
    let mut config = BgpConfig {
        yields: yields(text, instance),
        foreign_instance: foreign.map(|(it, vrf)| format!("router bgp {} vrf {vrf}", it.asn)),
        activated: instance.map_or(0, |it| it.activated().count()),
        filter_at: instance.and_then(|it| Some(it.outbound_of(unfiltered.first()?))),
        unfiltered,
        ..BgpConfig::default()
    };
    let mut open: Option<u32> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            if let Some(entry) = open.and_then(|seq| config.entries.get_mut(&seq)) {
                entry.body.push(words.join(" "));
            }
            continue;
        }
        open = None;
        match words[..] {
            ["router", "bgp", asn, ref rest @ ..] if !rest.contains(&"vrf") => {
                config.asn = config.asn.or_else(|| parse_asn(asn));
            }
            ["route-map", ROUTE_MAP, action @ ("permit" | "deny"), seq] => {
                if let Ok(seq) = seq.parse() {
                    let permits = action == "permit";
                    let body = Vec::new();
                    config.entries.insert(seq, Entry { permits, body });
                    open = Some(seq);
                }
            }
            [
                "bgp",
                "extcommunity-list",
                "standard",
                LIST,
                "seq",
                seq,
                "permit",
                ref value @ ..,
            ] => {
                if let Ok(seq) = seq.parse() {
                    config.list.insert(seq, value.join(" "));
                }
            }
            _ => {}
        }
    }
    config
}

/// Reads the OSPF costs of bridges (`br<VNI>`) from ospfd's running configuration. A cost that is set for
/// one address of an interface only is not counted.
pub fn parse_ospf(text: &str) -> BTreeMap<Vni, Cost> {
    parse_costs(text, ["ip", "ospf", "cost"])
}

/// Reads the same from that of ospf6d.
pub fn parse_ospf6(text: &str) -> BTreeMap<Vni, Cost> {
    parse_costs(text, ["ipv6", "ospf6", "cost"])
}

fn parse_costs(text: &str, command: [&str; 3]) -> BTreeMap<Vni, Cost> {
    let costs = of_bridges(text).filter_map(|(vni, words)| match words[..] {
        [ref of @ .., cost] if *of == command => Some((vni, Cost(cost.parse().ok()?))),
        _ => None,
    });
    costs.collect()
}

/// Reads from ospf6d's running configuration the bridges that it runs on.
pub fn parse_ospf6_bridges(text: &str) -> BTreeSet<Vni> {
    let is_in_area = |words: &[&str]| matches!(words, ["ipv6", "ospf6", "area", _, ..]);
    of_bridges(text)
        .filter(|(_, words)| is_in_area(words))
        .map(|(vni, _)| vni)
        .collect()
}

/// The lines that a running configuration has about each bridge, in words.
pub(super) fn of_bridges(text: &str) -> impl Iterator<Item = (Vni, Vec<&str>)> {
    let mut open: Option<Vni> = None;
    text.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            open = match words[..] {
                ["interface", name, ..] => Vni::of_bridge(name),
                _ => None,
            };
            return None;
        }
        Some((open?, words))
    })
}

/// Reads the cost from ospfd's answer to `show ip ospf interface NAME` (FRR's `show_ip_ospf_interface_sub` in
/// ospfd/ospf_vty.c); `None` if OSPF does not run there.
pub fn interface_cost(answer: &str) -> Option<Cost> {
    let (_, rest) = answer.split_once("Cost: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(Cost)
}

/// Reads from ospfd's running configuration the interfaces that it is to speak to a neighbour on: those that it names
/// as not passive, or in an area of their own, or with settings for neighbours. Bridges are none.
pub fn parse_uplinks(text: &str) -> Vec<String> {
    let mut uplinks = Vec::new();
    let mut open = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with(' '), &words[..]) {
            (false, ["interface", name, ..]) => open = Some(*name),
            (false, _) => open = None,
            (true, ["no", "passive-interface", name, ..]) => uplinks.push((*name).to_owned()),
            (true, ["ip", "ospf", "cost" | "passive", ..]) => {}
            (true, ["ip", "ospf", ..] | ["no", "ip", "ospf", "passive", ..]) => {
                uplinks.extend(open.map(str::to_owned));
            }
            (true, _) => {}
        }
    }
    uplinks.retain(|name| Vni::of_bridge(name).is_none());
    uplinks.sort_unstable();
    uplinks.dedup();
    uplinks
}

/// An AS number in plain or in dot notation (RFC 5396).
fn parse_asn(text: &str) -> Option<u32> {
    match text.split_once('.') {
        None => text.parse().ok(),
        Some((high, low)) => {
            Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?))
        }
    }
}

/// Whether a bgpd with this running configuration gives up its own route for an address that it hears from
/// another gateway: `advertise-svi-ip` for all VNIs, and a neighbour of the EVPN `instance` without an inbound
/// route-map that denies type-2 routes.
fn yields(text: &str, instance: Option<&Instance>) -> bool {
    let (mut advertises, mut evpn, mut vni) = (false, false, false);
    let mut denying = BTreeSet::new();
    let mut denied_by = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            (evpn, vni, denied_by) = (false, false, None);
        }
        match words[..] {
            ["address-family", "l2vpn", "evpn"] => evpn = true,
            ["exit-address-family"] => evpn = false,
            ["vni", _] => vni = true,
            ["exit-vni"] => vni = false,
            ["advertise-svi-ip"] => advertises |= evpn && !vni,
            ["route-map", name, "deny", _] => denied_by = Some(name),
            ["match", "evpn", "route-type", "macip" | "2"] => denying.extend(denied_by),
            _ => {}
        }
    }
    let is_open = |it: &Instance| !it.without_inbound(&denying).is_empty();
    advertises && instance.is_some_and(is_open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// FRR 8.4.4 and 10.3, `show ip ospf interface br5`, shortened; an interface without OSPF, and one that is not
    /// there.
    #[test]
    fn the_cost_of_an_interface_is_read() {
        let answer = "br5 is up\n  ifindex 11, MTU 1500 bytes, BW 0 Mbit <UP,BROADCAST,RUNNING,MULTICAST>\n  \
            Internet Address 10.16.5.1/24, Broadcast 10.16.5.255, Area 0.0.0.0\n  MTU mismatch detection: enabled\n  \
            Router ID 10.0.0.1, Network Type BROADCAST, Cost: 65535\n  Transmit Delay is 1 sec, State DR\n";
        assert_eq!(interface_cost(answer), Some(Cost::OTHERS));
        let none =
            "br6 is up\n  ifindex 12, MTU 1500 bytes\n  OSPF not enabled on this interface\n";
        assert_eq!(interface_cost(none), None);
        assert_eq!(interface_cost("No such interface name br7\n"), None);
        assert_eq!(interface_cost("Cost: 99999"), None);
    }

    /// FRR 8.4.4, `vtysh -d bgpd -c 'show running-config'`, shortened.
    const BGPD: &str = "\
Building configuration...

Current configuration:
!
frr version 8.4.4
frr defaults traditional
hostname vm
service integrated-vtysh-config
!
router bgp 65000
 bgp router-id 10.0.0.1
 no bgp default ipv4-unicast
 neighbor fabric peer-group
 neighbor 10.0.0.2 peer-group fabric
 !
 address-family l2vpn evpn
  neighbor fabric activate
  neighbor fabric route-map filter-vni out
  advertise-all-vni
 exit-address-family
exit
!
router bgp 4200000000 vrf blue
exit
!
bgp extcommunity-list standard wmgwd seq 3 permit rt 65000:3 rt 65000:1003
bgp extcommunity-list standard wmgwd seq 16777215 permit rt 65000:16777215
bgp extcommunity-list standard other seq 5 permit rt 65000:5
!
route-map filter-vni permit 1
 match evpn route-type macip
 on-match goto 4
exit
!
route-map filter-vni permit 3
exit
!
route-map filter-vni permit 10
 match extcommunity wmgwd
exit
!
route-map filter-vni permit 700
 match evpn vni 3
exit
!
route-map other permit 7
 match evpn vni 3
exit
!
route-map filter-vni deny 65535
exit
!
end
";

    fn entry(permits: bool, body: &[&str]) -> Entry {
        Entry {
            permits,
            body: body.iter().map(|line| line.to_string()).collect(),
        }
    }

    #[test]
    fn bgpd_as_8_4_4_prints_it() {
        let config = parse_bgp(BGPD);
        assert_eq!(config.asn, Some(65000));
        assert_eq!((config.activated, config.unfiltered.len()), (1, 0));
        let entries = BTreeMap::from([
            (
                1,
                entry(true, &["match evpn route-type macip", "on-match goto 4"]),
            ),
            (3, entry(true, &[])),
            (10, entry(true, &["match extcommunity wmgwd"])),
            (700, entry(true, &["match evpn vni 3"])),
            (65535, entry(false, &[])),
        ]);
        assert_eq!(config.entries, entries);
        let list = BTreeMap::from([
            (3, "rt 65000:3 rt 65000:1003".to_string()),
            (16777215, "rt 65000:16777215".to_string()),
        ]);
        assert_eq!(config.list, list);
    }

    #[test]
    fn as_dot_notation() {
        let config = parse_bgp("router bgp 1.10 as-notation dot\n");
        assert_eq!(config.asn, Some(65546));
    }

    #[test]
    fn uplinks_are_what_ospf_has_neighbours_on() {
        let text = "\
interface br4
 ip ospf cost 65535
 ip ospf bfd
exit
interface eth0
 ip ospf cost 65535
exit
interface uplink
 no ip ospf passive
 ip ospf bfd
exit
interface eth2
 ip ospf area 0.0.0.0
exit
router ospf
 passive-interface default
 no passive-interface eth1
exit
";
        assert_eq!(parse_uplinks(text), ["eth1", "eth2", "uplink"]);
    }

    /// FRR 8.4.4, `vtysh -d ospfd -c 'show running-config'`, shortened.
    #[test]
    fn ospfd_as_8_4_4_prints_it() {
        let text = "\
Current configuration:
!
interface br4
 ip ospf cost 5
exit
!
interface br5 vrf blue
 ip ospf cost 65535
 ip ospf cost 7 10.0.0.1
exit
!
interface bridge6
 ip ospf cost 5
exit
!
router ospf
 ip ospf cost 9
exit
";
        let vni = |number| Vni::new(number).unwrap();
        let costs = BTreeMap::from([(vni(4), Cost(5)), (vni(5), Cost(65535))]);
        assert_eq!(parse_ospf(text), costs);
        assert_eq!(parse_ospf6(text), BTreeMap::new());
    }

    #[test]
    fn ospf6d_as_8_4_4_prints_it() {
        let text = "interface br5\n ipv6 ospf6 area 0.0.0.0\n ipv6 ospf6 cost 100\n ipv6 ospf6 passive\nexit\n!\n\
                    interface br6\n ipv6 ospf6 cost 65535\nexit\n!\ninterface br7\n ipv6 ospf6 area 0.0.0.0\nexit\n!\n\
                    interface eth0\n ipv6 ospf6 area 0.0.0.0\n ipv6 ospf6 cost 7\nexit\n!\nrouter ospf6\n ospf6 router-id 1.1.1.1\n";
        let vni = |number| Vni::new(number).unwrap();
        let costs = [(vni(5), Cost(100)), (vni(6), Cost(65535))];
        assert_eq!(parse_ospf6(text), costs.into());
        assert_eq!(parse_ospf6_bridges(text), [vni(5), vni(7)].into());
        assert_eq!(parse_ospf(text), BTreeMap::new());
    }
}
