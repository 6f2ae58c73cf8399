//! The signs that this host can forward, as FRR and the kernel show them. Cheap enough for a few looks a second.
//!
//! What an answer means is pure; [`SignReader`] owns the connections to FRR and what was good before.

use super::frr::vty::Vty;
use super::interfaces::Interface;
use super::links;
use crate::model::fitness::{Sign, SignSet, SignState};
use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use nix::ifaddrs::getifaddrs;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// How long a daemon may take to answer. A daemon that is stopped does not; nothing follows from that here.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked which interfaces have the local addresses of VXLAN interfaces.
const REFRESH: Duration = Duration::from_secs(60);
/// The same while there is none.
const SEARCH: Duration = Duration::from_secs(5);
/// A routing protocol must be found broken so often in a row.
const LOOKS: u8 = 2;

/// Which interfaces to look at, where the operator says so.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    /// Those towards the fabric; empty to find them.
    pub fabric: Vec<String>,
    /// Those towards the networks above; empty to find them.
    pub uplink: Vec<String>,
}

/// Where the signs come from.
#[derive(Debug)]
pub enum Source {
    /// The kernel and FRR of this host.
    Host(Box<SignReader>),
    /// A file with the names of the signs that are bad, for tests of `--mock`.
    File(PathBuf),
}

impl Source {
    /// What the signs say, but for [`Sign::Frr`] and [`Sign::Beats`], which other threads tell.
    pub fn look(&mut self) -> [(Sign, SignState); 4] {
        match self {
            Source::Host(reader) => reader.look(),
            Source::File(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let named: SignSet = text.trim().parse().unwrap_or_default();
                [Sign::FabricLink, Sign::Evpn, Sign::UplinkLink, Sign::Ospf].map(|sign| match named
                    .has(sign)
                {
                    true => (sign, SignState::Bad("the file names it".to_owned())),
                    false => (
                        sign,
                        SignState::Good("the file does not name it".to_owned()),
                    ),
                })
            }
        }
    }

    /// How many EVPN sessions are established and on how many interfaces an OSPF adjacency is full, as the last look
    /// found it; `None` where FRR did not answer.
    pub fn neighbours(&self) -> [Option<usize>; 2] {
        match self {
            Source::Host(reader) => [reader.evpn.neighbours, reader.ospf.neighbours],
            Source::File(_) => [None, None],
        }
    }

    /// Whether it has to be looked at again soon, to be sure.
    pub fn suspects(&self) -> bool {
        match self {
            Source::Host(reader) => reader.suspects(),
            // The kernel does not tell of a change to it.
            Source::File(_) => true,
        }
    }
}

/// Reads the signs.
#[derive(Debug)]
pub struct SignReader {
    bgpd: Vty,
    ospfd: Vty,
    range: VniRange,
    tracked: Tracked,
    fabric: Found,
    fabric_due: Time,
    uplinks: BTreeSet<String>,
    evpn: Looks,
    ospf: Looks,
}

/// The interfaces of the VXLAN interfaces' local addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Found {
    /// None.
    #[default]
    Nothing,
    /// An interface without a carrier of its own, as the loopback, whose name this is.
    Inner(String),
    Names(BTreeSet<String>),
}

impl SignReader {
    /// Of FRR, whose sockets are in one of `run_dirs`, and the VXLAN interfaces of `range`.
    pub fn new(run_dirs: &[PathBuf], range: VniRange, tracked: Tracked) -> SignReader {
        SignReader {
            bgpd: Vty::new(run_dirs.to_vec(), "bgpd"),
            ospfd: Vty::new(run_dirs.to_vec(), "ospfd"),
            range,
            tracked,
            fabric: Found::default(),
            fabric_due: Time::default(),
            uplinks: BTreeSet::new(),
            evpn: Looks::default(),
            ospf: Looks::default(),
        }
    }

    /// Looks at all of them. Links first: a daemon that does not answer takes time.
    pub fn look(&mut self) -> [(Sign, SignState); 4] {
        let fabric_link = self.fabric_link();
        let mut uplink_link = self.uplink_link();
        let evpn = self.bgpd.ask("show bgp l2vpn evpn summary json", PATIENCE);
        let evpn = evpn.ok().map(|answer| established(&answer.text));
        let ospf = self.ospfd.ask("show ip ospf neighbor json", PATIENCE);
        let ospf = ospf.ok().map(|answer| full(&answer.text));
        let uplinks = ospf.iter().flatten();
        let uplinks = uplinks.filter(|name| Vni::of_bridge(name).is_none());
        let known = self.uplinks.len();
        self.uplinks.extend(uplinks.cloned());
        if self.uplinks.len() > known {
            uplink_link = self.uplink_link();
        }
        let ospf = ospf.map(|interfaces| interfaces.len());
        let evpn = self.evpn.take(evpn, "l2vpn evpn neighbours established");
        let ospf = self.ospf.take(ospf, "OSPF neighbours full");
        [
            (Sign::FabricLink, fabric_link),
            (Sign::Evpn, evpn),
            (Sign::UplinkLink, uplink_link),
            (Sign::Ospf, ospf),
        ]
    }

    /// Whether a sign has to be looked at again soon, to be sure.
    pub fn suspects(&self) -> bool {
        [&self.evpn, &self.ospf]
            .iter()
            .any(|looks| looks.was_good && (1..LOOKS).contains(&looks.bad_in_a_row))
    }

    fn fabric_link(&mut self) -> SignState {
        if !self.tracked.fabric.is_empty() {
            return judge_links(self.tracked.fabric.iter().map(String::as_str));
        }
        let now = clock::now();
        if self.fabric_due <= now {
            // An address goes with its interface: what had it before is looked for.
            match vteps(self.range) {
                Found::Nothing => {}
                found => self.fabric = found,
            }
            let pause = match self.fabric {
                Found::Nothing => SEARCH,
                _ => REFRESH,
            };
            self.fabric_due = now + pause;
        }
        match &self.fabric {
            Found::Nothing => SignState::Unknown(
                "no interface has the local address of a VXLAN interface: see --track-fabric"
                    .to_owned(),
            ),
            Found::Inner(name) => SignState::Unknown(format!(
                "the VTEP address is on {name}, which has no carrier of its own: see --track-fabric"
            )),
            Found::Names(names) => judge_links(names.iter().map(String::as_str)),
        }
    }

    fn uplink_link(&self) -> SignState {
        match (self.tracked.uplink.is_empty(), self.uplinks.is_empty()) {
            (false, _) => judge_links(self.tracked.uplink.iter().map(String::as_str)),
            (true, true) => SignState::Unknown(
                "OSPF has had no full adjacency on any interface: see --track-uplink".to_owned(),
            ),
            (true, false) => judge_links(self.uplinks.iter().map(String::as_str)),
        }
    }
}

/// Those of `states` that are bad.
pub fn bad(states: &[(Sign, SignState)]) -> SignSet {
    let bad = states
        .iter()
        .filter(|(_, it)| matches!(it, SignState::Bad(_)));
    bad.map(|(sign, _)| *sign).collect()
}

/// Of interfaces that share the load, or replace each other: one that can carry frames is enough.
fn judge_links<'a>(names: impl Iterator<Item = &'a str>) -> SignState {
    let mut dead = Vec::new();
    let mut alive = Vec::new();
    for name in names {
        match links::find(name) {
            Ok(Some(link)) if link.up && link.running => alive.push(name),
            Ok(Some(link)) if link.up => dead.push(format!("{name} has no carrier")),
            Ok(Some(_)) => dead.push(format!("{name} is switched off")),
            Ok(None) => dead.push(format!("{name} does not exist")),
            Err(error) => {
                return SignState::Unknown(format!("the kernel does not tell of {name}: {error}"));
            }
        }
    }
    match alive.is_empty() {
        true => SignState::Bad(dead.join(", ")),
        false => SignState::Good(format!("{} can carry frames", alive.join(", "))),
    }
}

/// The interfaces that have the local addresses of the VXLAN interfaces of `range`.
fn vteps(range: VniRange) -> Found {
    let Ok(all) = links::dump() else {
        return Found::Nothing;
    };
    let in_range = |id: u32| Vni::new(id).is_some_and(|vni| range.contains(vni));
    let vxlans = all.iter().filter_map(|link| link.vxlan);
    // (A VXLAN interface without a VNI of its own carries all.)
    let ours = vxlans.filter(|vxlan| vxlan.id == 0 || in_range(vxlan.id));
    let locals: BTreeSet<Ipv4Addr> = ours.filter_map(|vxlan| vxlan.local).collect();
    let mut holders = BTreeSet::new();
    for entry in getifaddrs().into_iter().flatten() {
        let address = entry.address.as_ref().and_then(|it| it.as_sockaddr_in());
        if address.is_some_and(|it| locals.contains(&it.ip())) {
            holders.insert(entry.interface_name);
        }
    }
    with_carrier(holders, &all)
}

fn with_carrier(holders: BTreeSet<String>, all: &[Interface]) -> Found {
    let is_inner = |name: &&String| {
        let kind = all.iter().find(|link| link.name == **name);
        *name == "lo" || kind.is_some_and(|it| ["dummy", "vrf"].contains(&it.kind.as_str()))
    };
    match holders.iter().find(is_inner) {
        Some(inner) => Found::Inner(inner.clone()),
        None if holders.is_empty() => Found::Nothing,
        None => Found::Names(holders),
    }
}

/// What was found of a routing protocol.
#[derive(Debug, Default)]
struct Looks {
    was_good: bool,
    bad_in_a_row: u8,
    /// How many neighbours the last look found; `None` if FRR did not answer.
    neighbours: Option<usize>,
}

impl Looks {
    /// So many neighbours were found, or the daemon did not say.
    fn take(&mut self, neighbours: Option<usize>, what: &str) -> SignState {
        self.neighbours = neighbours;
        match neighbours {
            None => {
                self.bad_in_a_row = 0;
                SignState::Unknown("FRR does not answer".to_owned())
            }
            Some(0) if !self.was_good => {
                SignState::Unknown(format!("no {what}: bad only after there was one"))
            }
            Some(0) => {
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(1).min(LOOKS);
                match self.bad_in_a_row < LOOKS {
                    true => SignState::Good(format!("{what} until now")),
                    false => SignState::Bad(format!("no {what}")),
                }
            }
            Some(count) => {
                (self.was_good, self.bad_in_a_row) = (true, 0);
                SignState::Good(format!("{count} {what}"))
            }
        }
    }
}

/// How many neighbours an answer to `show bgp l2vpn evpn summary json` has established. (What is no JSON says that
/// there is no such instance.)
fn established(answer: &str) -> usize {
    let Ok(json) = serde_json::from_str::<Json>(answer) else {
        return 0;
    };
    let peers = json.get("peers").and_then(Json::as_object);
    let state = |peer: &Json| peer.get("state").and_then(Json::as_str) == Some("Established");
    peers.map_or(0, |peers| peers.values().filter(|peer| state(peer)).count())
}

/// The interfaces with full adjacencies in an answer to `show ip ospf neighbor json`.
fn full(answer: &str) -> BTreeSet<String> {
    let json: Json = serde_json::from_str(answer).unwrap_or_default();
    let neighbours = json.get("neighbors").and_then(Json::as_object);
    let adjacencies = neighbours.into_iter().flat_map(|it| it.values());
    let adjacencies = adjacencies.filter_map(Json::as_array).flatten();
    let is_full = |it: &&Json| it.get("converged").and_then(Json::as_str) == Some("Full");
    let interface = |it: &Json| {
        let name = it.get("ifaceName")?.as_str()?;
        Some(name.rsplit_once(':').map_or(name, |(name, _)| name).into())
    };
    adjacencies.filter(is_full).filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_neighbours_are_counted() {
        let answer = r#"{"routerId":"10.0.0.11","as":65000,"peers":{
            "10.0.1.1":{"remoteAs":65000,"state":"Established","pfxRcd":9},
            "10.0.1.2":{"remoteAs":65000,"state":"Active"}},"failedPeers":1}"#;
        assert_eq!(established(answer), 1);
        for answer in [
            "{}",
            r#"{"peers":{}}"#,
            r#"{"peers":[{"state":"Established"}]}"#,
            "% No BGP neighbors found in VRF default",
            "",
        ] {
            assert_eq!(established(answer), 0, "{answer}");
        }
    }

    #[test]
    fn interfaces_with_full_adjacencies_are_found() {
        let answer = r#"{"neighbors":{
            "10.0.2.1":[{"nbrState":"Full/DR","converged":"Full","ifaceName":"up0:10.0.2.11"}],
            "10.0.2.2":[{"nbrState":"2-Way/DROther","converged":"2-Way","ifaceName":"up1:10.0.3.11"},
                        {"nbrState":"Full/Backup","converged":"Full","ifaceName":"up2:10.0.4.11"}]}}"#;
        let names: Vec<String> = full(answer).into_iter().collect();
        assert_eq!(names, ["up0", "up2"]);
        for answer in [
            "{}",
            "",
            "% OSPF is not enabled",
            r#"{"neighbors":{"a":{}}}"#,
        ] {
            assert!(full(answer).is_empty(), "{answer}");
        }
    }

    /// Input: what a protocol shows, look after look. Output: bad only after it was good, and twice in a row.
    #[test]
    fn a_protocol_is_bad_after_it_was_good_and_on_the_second_look() {
        let mut looks = Looks::default();
        let mut said = |neighbours| match looks.take(neighbours, "of them") {
            SignState::Good(_) => "good",
            SignState::Bad(_) => "bad",
            SignState::Unknown(_) => "unknown",
        };
        let story = [
            (Some(0), "unknown"),
            (None, "unknown"),
            (Some(0), "unknown"),
            (Some(1), "good"),
            (Some(0), "good"),
            (Some(2), "good"),
            (Some(0), "good"),
            (None, "unknown"),
            (Some(0), "good"),
            (Some(0), "bad"),
            (Some(0), "bad"),
            (Some(1), "good"),
        ];
        for (nth, (neighbours, expected)) in story.into_iter().enumerate() {
            assert_eq!(said(neighbours), expected, "look {nth}");
        }
    }

    #[test]
    fn an_address_on_the_loopback_says_nothing_of_a_link() {
        let of = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let link = |name: &str, kind: &str| Interface {
            name: name.into(),
            kind: kind.into(),
            ..Interface::default()
        };
        let all = [link("eth0", ""), link("vtep0", "dummy")];
        assert_eq!(with_carrier(of(&["lo"]), &all), Found::Inner("lo".into()));
        let inner = Found::Inner("vtep0".into());
        assert_eq!(with_carrier(of(&["eth0", "vtep0"]), &all), inner);
        let names = Found::Names(of(&["eth0"]));
        assert_eq!(with_carrier(of(&["eth0"]), &all), names);
        assert_eq!(with_carrier(of(&[]), &all), Found::Nothing);
    }

    #[test]
    fn one_link_of_several_is_enough() {
        let of = |names: &[&str]| judge_links(names.iter().copied());
        assert!(matches!(of(&["lo"]), SignState::Good(_)));
        assert!(matches!(of(&["wmgwd-none", "lo"]), SignState::Good(_)));
        let missing = SignState::Bad("wmgwd-none does not exist".into());
        assert_eq!(of(&["wmgwd-none"]), missing);
        let states = [(Sign::Evpn, of(&["lo"])), (Sign::UplinkLink, missing)];
        assert_eq!(bad(&states), SignSet::NONE.with(Sign::UplinkLink));
    }
}
