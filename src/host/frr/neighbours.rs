//! Pure: which neighbours bgpd exchanges EVPN routes with, and through which route-maps.
//!
//! A neighbour that is activated in `address-family l2vpn evpn` without `filter-vni` as its outbound route-map hears
//! of every VNI, whatever other neighbours have. A member of a peer-group has the group's settings where it has none
//! of its own (docs.frrouting.org, "Peer Groups"). With `bgp default l2vpn-evpn` bgpd activates every neighbour and
//! writes only `no neighbor NAME activate`, for the others.

use super::script::ROUTE_MAP;
use std::collections::{BTreeMap, BTreeSet};

/// One `router bgp` block, as far as EVPN is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Instance {
    /// The AS number, as it is written.
    pub asn: String,
    /// The VRF; `None` for the default instance.
    pub vrf: Option<String>,
    /// Whether it takes part in EVPN (`advertise-all-vni`).
    pub advertises_all: bool,
    /// Whether neighbours are activated for EVPN that are not said to be (`bgp default l2vpn-evpn`).
    activates_all: bool,
    neighbours: BTreeMap<String, Neighbour>,
    /// Peer-groups that accept neighbours which are not listed (`bgp listen range`).
    listening: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Neighbour {
    is_group: bool,
    group: Option<String>,
    activated: Option<bool>,
    outbound: Option<String>,
    inbound: Option<String>,
}

impl Instance {
    /// The neighbours, and peer-groups without listed members, with which it exchanges EVPN routes.
    pub fn activated(&self) -> impl Iterator<Item = &str> {
        let is_on = |name: &&String| {
            let activated = self.setting(name, |it| it.activated);
            activated.unwrap_or(self.activates_all) && self.has_peers(name)
        };
        self.neighbours.keys().filter(is_on).map(String::as_str)
    }

    /// Those of them that do not have `filter-vni` as outbound route-map.
    pub fn unfiltered(&self) -> Vec<String> {
        let is_open = |name: &&str| {
            let map = self.setting(name, |it| it.outbound.as_deref());
            map != Some(ROUTE_MAP)
        };
        let open = self.activated().filter(is_open);
        open.map(str::to_owned).collect()
    }

    /// Where `name` is to get its outbound route-map: at its peer-group, if it has none of its own.
    pub fn outbound_of(&self, name: &str) -> String {
        let neighbour = self.neighbours.get(name);
        let group = neighbour.filter(|it| it.outbound.is_none());
        let group = group.and_then(|it| it.group.clone());
        group.unwrap_or_else(|| name.to_owned())
    }

    /// Those of them whose inbound route-map is not one of `maps`.
    pub fn without_inbound(&self, maps: &BTreeSet<&str>) -> Vec<String> {
        let is_open = |name: &&str| {
            let map = self.setting(name, |it| it.inbound.as_deref());
            map.is_none_or(|map| !maps.contains(map))
        };
        let open = self.activated().filter(is_open);
        open.map(str::to_owned).collect()
    }

    /// What a neighbour has of its own, or from its group.
    fn setting<'a, T: 'a>(
        &'a self,
        name: &str,
        of: impl Fn(&'a Neighbour) -> Option<T>,
    ) -> Option<T> {
        let neighbour = self.neighbours.get(name)?;
        of(neighbour).or_else(|| of(self.neighbours.get(neighbour.group.as_ref()?)?))
    }

    /// Whether `name` is a neighbour, or a group of neighbours that are not listed.
    fn has_peers(&self, name: &str) -> bool {
        let has_members = || {
            let mut members = self.neighbours.values();
            members.any(|it| it.group.as_deref() == Some(name))
        };
        let is_group = self.neighbours.get(name).is_some_and(|it| it.is_group);
        !is_group || self.listening.contains(name) || !has_members()
    }
}

/// Reads the `router bgp` blocks of bgpd's running configuration, in order.
pub fn parse_instances(text: &str) -> Vec<Instance> {
    let mut instances: Vec<Instance> = Vec::new();
    let (mut is_open, mut evpn, mut vni) = (false, false, false);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with([' ', '\t']) {
            (is_open, evpn, vni) = (false, false, false);
            if let ["router", "bgp", asn, ref rest @ ..] = words[..] {
                let vrf = rest.iter().skip_while(|word| **word != "vrf").nth(1);
                instances.push(Instance {
                    asn: asn.to_owned(),
                    vrf: vrf.map(|vrf| (*vrf).to_owned()),
                    ..Instance::default()
                });
                is_open = true;
            }
            continue;
        }
        let Some(instance) = instances.last_mut().filter(|_| is_open) else {
            continue;
        };
        match words[..] {
            ["address-family", ref of @ ..] => evpn = matches!(of, ["l2vpn", "evpn"]),
            ["exit-address-family"] => (evpn, vni) = (false, false),
            ["vni", _] => vni = true,
            ["exit-vni"] => vni = false,
            ["advertise-all-vni"] => instance.advertises_all |= evpn && !vni,
            ["bgp", "default", "l2vpn-evpn"] => instance.activates_all = true,
            ["bgp", "listen", "range", _, "peer-group", group] => {
                instance.listening.insert(group.to_owned());
            }
            ["no", "neighbor", name, "activate"] if evpn => {
                instance.of(name).activated = Some(false);
            }
            ["neighbor", name, ref rest @ ..] => read(instance.of(name), rest, evpn),
            _ => {}
        }
    }
    instances
}

impl Instance {
    fn of(&mut self, name: &str) -> &mut Neighbour {
        self.neighbours.entry(name.to_owned()).or_default()
    }
}

fn read(neighbour: &mut Neighbour, rest: &[&str], evpn: bool) {
    match rest {
        ["peer-group"] => neighbour.is_group = true,
        ["peer-group", group] | ["interface", .., "peer-group", group] => {
            neighbour.group = Some((*group).to_owned());
        }
        ["activate"] if evpn => neighbour.activated = Some(true),
        ["route-map", map, "out"] if evpn => neighbour.outbound = Some((*map).to_owned()),
        ["route-map", map, "in"] if evpn => neighbour.inbound = Some((*map).to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn unfiltered(evpn: &str, other: &str) -> Vec<String> {
        let text = format!(
            "router bgp 65000\n neighbor fabric peer-group\n neighbor 10.0.0.1 peer-group fabric\n\
             \x20neighbor 10.0.0.2 remote-as 65000\n{other} !\n address-family l2vpn evpn\n{evpn}  advertise-all-vni\n\
             \x20exit-address-family\nexit\n"
        );
        parse_instances(&text).pop().unwrap().unfiltered()
    }

    /// Input: neighbours with and without the filter. Output: those that hear of every VNI, by name.
    #[test]
    fn each_activated_neighbour_needs_the_filter() {
        let out = |name: &str| format!("  neighbor {name} route-map filter-vni out\n");
        let on = |name: &str| format!("  neighbor {name} activate\n");
        let none: [&str; 0] = [];
        assert_eq!(unfiltered("", ""), none);
        let group = on("fabric") + &out("fabric");
        assert_eq!(unfiltered(&group, ""), none);
        assert_eq!(unfiltered(&on("fabric"), ""), ["10.0.0.1"]);
        let instance = parse_instances(
            "router bgp 1\n neighbor a peer-group b\n neighbor c peer-group b\n address-family l2vpn evpn\n  \
             neighbor c route-map x out\n",
        );
        let at = |name| instance[0].outbound_of(name);
        assert_eq!([at("a"), at("c"), at("d")], ["b", "c", "d"]);
        // One neighbour has it, the other has not.
        assert_eq!(
            unfiltered(&(group.clone() + &on("10.0.0.2")), ""),
            ["10.0.0.2"]
        );
        // A map of its own takes the place of the group's.
        let own = "  neighbor 10.0.0.1 route-map other out\n";
        assert_eq!(unfiltered(&(group.clone() + own), ""), ["10.0.0.1"]);
        let off = "  no neighbor 10.0.0.1 activate\n";
        assert_eq!(unfiltered(&(on("fabric") + off), ""), none);
        // In another address family it filters nothing of EVPN.
        let ipv4 = format!(
            " address-family ipv4 unicast\n{} exit-address-family\n",
            out("10.0.0.2")
        );
        assert_eq!(unfiltered(&on("10.0.0.2"), &ipv4), ["10.0.0.2"]);
        // A group for neighbours that are not listed.
        let listen =
            " neighbor dynamic peer-group\n bgp listen range 10.1.0.0/16 peer-group dynamic\n";
        assert_eq!(unfiltered(&on("dynamic"), listen), ["dynamic"]);
        // Each neighbour by default, as FRR 8.4.4 writes it.
        let default = " bgp default l2vpn-evpn\n neighbor 10.0.0.3 remote-as 65000\n";
        assert_eq!(
            unfiltered("", default),
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        );
        let some = out("fabric") + "  no neighbor 10.0.0.3 activate\n";
        assert_eq!(unfiltered(&some, default), ["10.0.0.2"]);
        let none_of_group = "  no neighbor fabric activate\n  neighbor 10.0.0.1 activate\n";
        let members = format!("{default} neighbor 10.0.0.4 peer-group fabric\n");
        assert_eq!(
            unfiltered(none_of_group, &members),
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        );
        let interface = " neighbor eth0 interface v6only peer-group fabric\n";
        assert_eq!(unfiltered(&on("fabric"), interface), ["10.0.0.1", "eth0"]);
    }

    #[test]
    fn instances_are_told_apart() {
        let text = "router bgp 65000\n bgp router-id 1.1.1.1\nexit\n!\nrouter bgp 65001 vrf und\n \
                    address-family l2vpn evpn\n  vni 7\n   advertise-svi-ip\n  exit-vni\n  advertise-all-vni\n";
        let instances = parse_instances(text);
        let found: Vec<_> = instances
            .iter()
            .map(|it| (it.asn.as_str(), it.vrf.as_deref(), it.advertises_all))
            .collect();
        assert_eq!(
            found,
            [("65000", None, false), ("65001", Some("und"), true)]
        );
    }
}
