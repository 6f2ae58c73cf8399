//! What [`inspect`](super::inspect::inspect) finds, and how FRR's answers are read. Pure.

use super::carrier::Carriers;
use super::config::{BgpConfig, parse_bgp, parse_ospf};
use super::file::canonical;
use super::targets::Targets;
use super::upstream::{MapAction, Upstream, parse_area};
use crate::model::frr::Cost;
use crate::model::types::Vni;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How an FRR daemon answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It answers.
    Answers,
    /// It does not run.
    Down,
    /// It runs, and this process may not speak to it.
    Denied,
    /// It runs, and does not answer as it should; why.
    Silent(String),
}

/// One OSPF interface as ospfd works with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OspfInterface {
    /// Its name.
    pub name: String,
    /// Whether it sends no hellos.
    pub passive: bool,
    /// Its cost.
    pub cost: u64,
    /// The area that it is in.
    pub area: Option<u32>,
    /// How many neighbours it has a full adjacency with.
    pub adjacent: u64,
    /// Whether BFD watches its neighbours.
    pub bfd: bool,
    /// Seconds without a hello after which a neighbour counts as dead.
    pub dead_interval: u64,
}

/// A configuration that FRR loads at a boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// What it says for bgpd.
    pub bgp: BgpConfig,
    /// What it says of the costs of bridges.
    pub costs: BTreeMap<Vni, Cost>,
    /// Numbers of lines that may say something of these, and are not understood.
    pub unsure: Vec<usize>,
}

impl Saved {
    /// What a file holds.
    pub fn read(path: PathBuf, text: &str) -> Saved {
        let read = canonical(text);
        Saved {
            path,
            bgp: parse_bgp(&read.text),
            costs: parse_ospf(&read.text),
            unsure: read.unsure,
        }
    }
}

/// What was found. `None` where it could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Whether vtysh could be run; why not.
    pub vtysh: Option<String>,
    /// How each daemon answers.
    pub daemons: Vec<(&'static str, Option<Answer>)>,
    /// bgpd's running configuration.
    pub bgp: Option<BgpConfig>,
    /// Whether bgpd learns the VNIs from the kernel (`advertise-all-vni`).
    pub all_vnis: bool,
    /// Whether bgpd advertises the addresses of bridges (`advertise-svi-ip`).
    pub svi: bool,
    /// Whether it advertises them as those of a default gateway (`advertise-default-gw`).
    pub default_gw: bool,
    /// The route targets.
    pub targets: Option<Targets>,
    /// How many EVPN neighbours are established, and how many there are.
    pub neighbours: Option<(usize, usize)>,
    /// The OSPF interfaces.
    pub ospf: Option<Vec<OspfInterface>>,
    /// The bridges that ospf6d runs on; `None` if it does not run, or does not say.
    pub ospf6: Option<BTreeSet<Vni>>,
    /// What ospfd does with routes between areas, and beside those of its interfaces.
    pub upstream: Upstream,
    /// The route-map that OSPF's routes pass on their way to the kernel, and what it does.
    pub kernel_map: Option<(String, MapAction)>,
    /// Which protocol carries the kernel's routes upstream, and how; `None` while zebra does not answer.
    pub carriers: Option<Carriers>,
    /// The lines of vtysh's own configuration file that it refuses, by number, with what it says of them.
    pub remarks: BTreeMap<usize, String>,
    /// The interfaces that ospfd is to speak to a neighbour on, by its configuration.
    pub uplinks: Vec<String>,
    /// The configurations on disk.
    pub saved: Vec<Saved>,
    /// One that exists and cannot be read.
    pub unreadable: Option<PathBuf>,
}

/// Whether a configuration has this line.
pub(super) fn says(config: &str, line: &str) -> bool {
    config.lines().any(|found| found.trim() == line)
}

/// Reads `show bgp l2vpn evpn summary json`: how many neighbours are established, and how many there are.
pub(super) fn parse_neighbours(text: &str) -> (usize, usize) {
    let json = json(text);
    let Some(peers) = json.get("peers").and_then(Value::as_object) else {
        return (0, 0);
    };
    let up = peers
        .values()
        .filter(|peer| peer.get("state").and_then(Value::as_str) == Some("Established"));
    (up.count(), peers.len())
}

/// Reads `show ip ospf interface json`. Interfaces that OSPF does not use are left out.
pub(super) fn parse_interfaces(text: &str) -> Vec<OspfInterface> {
    let json = json(text);
    let Some(interfaces) = json.get("interfaces").and_then(Value::as_object) else {
        return Vec::new();
    };
    let enabled = |it: &Value| it.get("ospfEnabled").and_then(Value::as_bool) == Some(true);
    interfaces
        .iter()
        .filter(|(_, it)| enabled(it))
        .map(|(name, it)| {
            let number = |key: &str| it.get(key).and_then(Value::as_u64).unwrap_or_default();
            let is = |key: &str| it.get(key).and_then(Value::as_bool) == Some(true);
            OspfInterface {
                name: name.clone(),
                passive: is("timerPassiveIface"),
                cost: number("cost"),
                area: it.get("area").and_then(Value::as_str).and_then(parse_area),
                adjacent: number("nbrAdjacentCount"),
                bfd: it.get("peerBfdInfo").is_some(),
                dead_interval: number("timerDeadSecs"),
            }
        })
        .collect()
}

/// The JSON in vtysh's answer, after remarks of its own; null if there is none.
pub(super) fn json(text: &str) -> Value {
    let json = text.find('{').map_or("", |start| &text[start..]);
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FRR 8.4.4, shortened.
    const INTERFACES: &str = r#"{"interfaces":{
      "br1":{"ifUp":true,"ospfEnabled":true,"cost":65535,"area":"0.0.0.0","timerDeadSecs":40,"timerPassiveIface":true,
             "nbrCount":0,"nbrAdjacentCount":0},
      "eth9":{"ifUp":true,"ospfEnabled":false},
      "uplink":{"ifUp":true,"ospfEnabled":true,"cost":10,"timerDeadSecs":40,"nbrCount":1,
                "nbrAdjacentCount":1,"peerBfdInfo":{"detectionMultiplier":3}}}}"#;

    #[test]
    fn ospf_interfaces_as_8_4_4_names_them() {
        let bridge = OspfInterface {
            name: "br1".into(),
            passive: true,
            cost: 65535,
            area: Some(0),
            dead_interval: 40,
            ..OspfInterface::default()
        };
        let uplink = OspfInterface {
            name: "uplink".into(),
            cost: 10,
            adjacent: 1,
            bfd: true,
            dead_interval: 40,
            ..OspfInterface::default()
        };
        assert_eq!(parse_interfaces(INTERFACES), [bridge, uplink]);
        assert_eq!(parse_interfaces("% OSPF is not enabled\n{}"), []);
    }

    #[test]
    fn neighbours_are_counted() {
        let summary =
            r#"{"peers":{"10.0.1.17":{"state":"Established"},"10.0.1.18":{"state":"Active"}}}"#;
        assert_eq!(parse_neighbours(summary), (1, 2));
        assert_eq!(parse_neighbours("% No BGP neighbors found\n"), (0, 0));
    }

    #[test]
    fn lines_are_found_whatever_their_indentation() {
        assert!(says(
            "router bgp 1\n  advertise-all-vni\n",
            "advertise-all-vni"
        ));
        assert!(!says("no advertise-all-vni\n", "advertise-all-vni"));
    }
}
