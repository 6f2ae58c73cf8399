//! Pure: the lines that vtysh is fed with, and which VNI each belongs to.
//!
//! No line is `exit`: without it bgpd takes a whole file of route-map entries as one commit (1 000
//! entries in 2 s, with `exit` in 421 s, measured on FRR 8.4.4).

use super::config::{BgpConfig, Entry};
use crate::model::frr::Cost;
use crate::model::frr::EvpnFilter;
use crate::model::types::{Vni, VniRange};
use std::collections::{BTreeMap, BTreeSet};

/// The outbound route-map that the operator's configuration applies to the fabric.
pub const ROUTE_MAP: &str = "filter-vni";
/// The extcommunity-list that holds the route targets of the VNIs that this node advertises.
pub const LIST: &str = "wmgwd";
/// Sequence number of the one entry that matches [`LIST`]. Entries 1 to 3 are the operator's (type-2 and
/// type-5 `on-match goto 4`, the rest permitted); the numbers of `--evpn-filter entries` begin at 11.
pub const LIST_ENTRY: u32 = 10;
/// Sequence number of the closing deny, and the greatest that FRR takes.
pub const CLOSING: u32 = 65535;
/// The first sequence number that is wmgwd's to change.
const OURS_FROM: u32 = 4;

/// The lines that make one VNI as wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// The VNI.
    pub vni: Vni,
    /// The lines.
    pub lines: Vec<String>,
}

/// A script for one run of vtysh.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    text: String,
    owners: Vec<Option<Vni>>,
}

impl Script {
    /// `prologue`, then the lines of `jobs`.
    pub fn new(prologue: &[String], jobs: &[Job]) -> Script {
        let mut script = Script::default();
        prologue.iter().for_each(|line| script.push(None, line));
        for job in jobs {
            job.lines
                .iter()
                .for_each(|line| script.push(Some(job.vni), line));
        }
        script
    }

    fn push(&mut self, owner: Option<Vni>, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.owners.push(owner);
    }

    /// The script as vtysh reads it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many lines it has.
    pub fn lines(&self) -> usize {
        self.owners.len()
    }

    /// The VNI that line `number` (from 1, as vtysh counts) belongs to, if any.
    pub fn owner(&self, number: usize) -> Option<Vni> {
        self.owners.get(number.checked_sub(1)?).copied().flatten()
    }
}

/// Brings the route-map into the shape that `filter` needs; changes nothing where it has it.
pub fn shape(filter: EvpnFilter) -> Vec<String> {
    let closing = format!("route-map {ROUTE_MAP} deny {CLOSING}");
    match filter {
        // The deny first: the documented configuration permits everything as long as no entry follows 3.
        EvpnFilter::List => vec![
            closing,
            format!("route-map {ROUTE_MAP} permit {LIST_ENTRY}"),
            list_match(),
        ],
        EvpnFilter::Entries => vec![closing],
    }
}

fn list_match() -> String {
    format!("match extcommunity {LIST}")
}

/// Advertises the VNI that carries `value` (its export route targets as [`rt_value`] makes them).
pub fn list_permit(vni: Vni, value: &str) -> String {
    list_line(vni.get(), value)
}

fn list_line(seq: u32, value: &str) -> String {
    format!("bgp extcommunity-list standard {LIST} seq {seq} permit {value}")
}

/// Takes back what [`list_permit`] did. FRR looks for the value and does not care for the number.
pub fn list_remove(vni: Vni, value: &str) -> String {
    format!("no {}", list_permit(vni, value))
}

/// A list line's value: all export route targets of a VNI. One line with all of them matches only a route
/// that has all of them; a line each would let out every other VNI that shares one.
pub fn rt_value(targets: &[String]) -> String {
    let parts: Vec<String> = targets
        .iter()
        .map(|target| format!("rt {target}"))
        .collect();
    parts.join(" ")
}

/// Advertises `vni` by an entry of its own.
pub fn entry_permit(seq: u32, vni: Vni) -> Vec<String> {
    vec![
        format!("route-map {ROUTE_MAP} permit {seq}"),
        entry_match(vni),
    ]
}

fn entry_match(vni: Vni) -> String {
    format!("match evpn vni {vni}")
}

/// The VNI that an entry is about, if it is about one and nothing else.
fn matched_vni(entry: &Entry) -> Option<Vni> {
    let [line] = &entry.body[..] else { return None };
    line.strip_prefix("match evpn vni ")?.parse().ok()
}

/// Takes an entry away.
pub fn entry_remove(seq: u32, permits: bool) -> String {
    let action = if permits { "permit" } else { "deny" };
    format!("no route-map {ROUTE_MAP} {action} {seq}")
}

/// Sets the OSPF cost of the bridge of `vni`, whether it exists or not.
pub fn cost(vni: Vni, cost: Cost) -> Job {
    of_bridge(vni, format!("ip ospf cost {}", cost.0))
}

/// The same in ospf6d.
pub fn cost6(vni: Vni, cost: Cost) -> Job {
    of_bridge(vni, format!("ipv6 ospf6 cost {}", cost.0))
}

fn of_bridge(vni: Vni, line: String) -> Job {
    Job {
        vni,
        lines: vec![format!("interface {}", vni.bridge()), line],
    }
}

/// The closing entry as it must be.
fn closing() -> Entry {
    Entry {
        permits: false,
        body: Vec::new(),
    }
}

/// The entry that matches the list as it must be.
fn list_entry() -> Entry {
    Entry {
        permits: true,
        body: vec![list_match()],
    }
}

/// Whether the route-map lets out what none of its entries names.
pub fn is_open(config: &BgpConfig) -> bool {
    config.entries.get(&CLOSING) != Some(&closing())
}

/// Whether the route-map has the shape that `filter` needs.
pub fn is_shaped(config: &BgpConfig, filter: EvpnFilter) -> bool {
    let listed = config.entries.get(&LIST_ENTRY) == Some(&list_entry());
    config.entries.get(&CLOSING) == Some(&closing()) && listed == (filter == EvpnFilter::List)
}

/// What takes bgpd from `config` to "no VNI but those in `keep` is advertised, and `filter` can be used";
/// empty if it is there.
pub fn withdraw_filter(
    config: &BgpConfig,
    filter: EvpnFilter,
    keep: &BTreeSet<Vni>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let found = config.entries.get(&CLOSING);
    if found != Some(&closing()) {
        lines.extend(found.map(|entry| entry_remove(CLOSING, entry.permits)));
        lines.push(format!("route-map {ROUTE_MAP} deny {CLOSING}"));
    }
    let kept = |vni: Option<Vni>| vni.is_some_and(|vni| keep.contains(&vni));
    if keep.is_empty() || filter != EvpnFilter::List {
        if !config.list.is_empty() {
            lines.push(format!("no bgp extcommunity-list standard {LIST}"));
        }
    } else {
        // A number that is no VNI (FRR takes up to 32 bits) belongs to no VNI that is kept, either.
        let strange = config.list.iter().filter(|(seq, _)| !kept(Vni::new(**seq)));
        lines.extend(strange.map(|(seq, value)| format!("no {}", list_line(*seq, value))));
    }
    let mut has_list_entry = false;
    for (seq, entry) in config.entries.range(OURS_FROM..CLOSING) {
        if filter == EvpnFilter::Entries && kept(matched_vni(entry)) {
            continue;
        }
        let of_list = filter == EvpnFilter::List && *seq == LIST_ENTRY;
        if of_list && *entry == list_entry() {
            has_list_entry = true;
        } else if of_list || entry.permits {
            lines.push(entry_remove(*seq, entry.permits));
        }
    }
    if filter == EvpnFilter::List && !has_list_entry {
        lines.push(format!("route-map {ROUTE_MAP} permit {LIST_ENTRY}"));
        lines.push(list_match());
    }
    lines
}

/// Which entry of the route-map is which VNI's (`--evpn-filter entries`).
#[derive(Clone, Debug)]
pub struct Numbers {
    range: VniRange,
    taken: BTreeSet<u32>,
    of: BTreeMap<Vni, Vec<u32>>,
    /// No number below is free and counted on by no VNI of the range.
    spare_from: u32,
    /// No number below is free.
    free_from: u32,
}

impl Numbers {
    /// The numbers as they are in `config`.
    pub fn new(range: VniRange, config: &BgpConfig) -> Numbers {
        let mut of: BTreeMap<Vni, Vec<u32>> = BTreeMap::new();
        for (seq, entry) in config.entries.iter().filter(|(_, entry)| entry.permits) {
            if let Some(vni) = matched_vni(entry) {
                of.entry(vni).or_default().push(*seq);
            }
        }
        Numbers {
            range,
            taken: config.entries.keys().copied().collect(),
            of,
            spare_from: OURS_FROM,
            free_from: OURS_FROM,
        }
    }

    /// The numbers under which `vni` is advertised now.
    pub fn of(&self, vni: Vni) -> &[u32] {
        self.of.get(&vni).map_or(&[], Vec::as_slice)
    }

    /// The VNIs that are advertised now.
    pub fn vnis(&self) -> impl Iterator<Item = Vni> {
        self.of.keys().copied()
    }

    /// The number under which to advertise `vni` from now on: the one that it has; else VNI + 10, as the Go
    /// wmgwd numbers them; else, as sequence numbers end at 65535, one that no VNI of the range counts on.
    /// `None` if there is none left.
    pub fn take(&mut self, vni: Vni) -> Option<u32> {
        if let Some(seq) = self.of(vni).first() {
            return Some(*seq);
        }
        let usual = vni.get() + LIST_ENTRY;
        let seq = if self.is_free(usual) {
            usual
        } else {
            self.spare()?
        };
        self.taken.insert(seq);
        self.of.entry(vni).or_default().push(seq);
        Some(seq)
    }

    fn spare(&mut self) -> Option<u32> {
        let counted_on = |seq: u32| {
            let vni = seq.checked_sub(LIST_ENTRY).and_then(Vni::new);
            vni.is_some_and(|vni| self.range.contains(vni))
        };
        let spare = (self.spare_from..CLOSING).find(|seq| self.is_free(*seq) && !counted_on(*seq));
        self.spare_from = spare.unwrap_or(CLOSING);
        if spare.is_some() {
            return spare;
        }
        let free = (self.free_from..CLOSING).find(|seq| self.is_free(*seq));
        self.free_from = free.unwrap_or(CLOSING);
        free
    }

    fn is_free(&self, seq: u32) -> bool {
        (OURS_FROM..CLOSING).contains(&seq) && seq != LIST_ENTRY && !self.taken.contains(&seq)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::parse_bgp;
    use super::*;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    /// The filter as the original project documents it.
    const DOCUMENTED: &str = "\
route-map filter-vni permit 1
 match evpn route-type macip
 on-match goto 4
exit
!
route-map filter-vni permit 2
 match evpn route-type prefix
 on-match goto 4
exit
!
route-map filter-vni permit 3
exit
!
";

    #[test]
    fn claim_in_list_mode() {
        let targets = ["65000:3".to_string(), "65000:1003".to_string()];
        let line = list_permit(vni(3), &rt_value(&targets));
        let job = Job {
            vni: vni(3),
            lines: vec![line],
        };
        let script = Script::new(&shape(EvpnFilter::List), &[job]);
        assert_eq!(
            script.text(),
            "route-map filter-vni deny 65535\n\
             route-map filter-vni permit 10\n\
             match extcommunity wmgwd\n\
             bgp extcommunity-list standard wmgwd seq 3 permit rt 65000:3 rt 65000:1003\n"
        );
        assert_eq!(script.lines(), 4);
        assert_eq!(script.owner(0), None);
        assert_eq!(script.owner(3), None);
        assert_eq!(script.owner(4), Some(vni(3)));
        assert_eq!(script.owner(5), None);
    }

    #[test]
    fn costs_name_bridges_and_have_no_exit() {
        let script = Script::new(
            &[],
            &[cost(vni(7), Cost::OWNER), cost(vni(8), Cost::OTHERS)],
        );
        assert_eq!(
            script.text(),
            "interface br7\nip ospf cost 100\ninterface br8\nip ospf cost 65535\n"
        );
        assert_eq!(script.owner(2), Some(vni(7)));
    }

    #[test]
    fn the_documented_filter_is_closed_and_then_left_alone() {
        let lines = withdraw_filter(&parse_bgp(DOCUMENTED), EvpnFilter::List, &BTreeSet::new());
        assert_eq!(
            lines,
            [
                "route-map filter-vni deny 65535",
                "route-map filter-vni permit 10",
                "match extcommunity wmgwd",
            ]
        );
        let shaped = format!(
            "{DOCUMENTED}route-map filter-vni permit 10\n match extcommunity wmgwd\nexit\n!\n\
             route-map filter-vni deny 65535\nexit\n!\n"
        );
        assert!(
            withdraw_filter(&parse_bgp(&shaped), EvpnFilter::List, &BTreeSet::new()).is_empty()
        );
        assert_eq!(
            withdraw_filter(&parse_bgp(&shaped), EvpnFilter::Entries, &BTreeSet::new()),
            ["no route-map filter-vni permit 10"]
        );
    }

    /// Input: entries of the Go wmgwd (VNI, and VNI + 10), one at the place of this program's, and old list lines.
    /// Output: all of them go, entries 1 to 3 and foreign denies stay.
    #[test]
    fn leftovers_of_anyone_are_removed() {
        let text = format!(
            "{DOCUMENTED}route-map filter-vni permit 5\n match evpn vni 5\nexit\n\
             route-map filter-vni permit 10\n match evpn vni 10\nexit\n\
             route-map filter-vni permit 13\n match evpn vni 3\nexit\n\
             route-map filter-vni deny 20\n match evpn vni 20\nexit\n\
             route-map filter-vni permit 65535\nexit\n\
             bgp extcommunity-list standard wmgwd seq 1 permit rt 65000:1\n"
        );
        assert_eq!(
            withdraw_filter(&parse_bgp(&text), EvpnFilter::List, &BTreeSet::new()),
            [
                "no route-map filter-vni permit 65535",
                "route-map filter-vni deny 65535",
                "no bgp extcommunity-list standard wmgwd",
                "no route-map filter-vni permit 5",
                "no route-map filter-vni permit 10",
                "no route-map filter-vni permit 13",
                "route-map filter-vni permit 10",
                "match extcommunity wmgwd",
            ]
        );
    }

    /// Input: list lines of a VNI that is kept, of one that is not, and one whose number is no VNI.
    /// Output: only the first stays.
    #[test]
    fn a_list_line_without_a_vni_is_removed_too() {
        let line = |seq: u32| {
            format!("bgp extcommunity-list standard wmgwd seq {seq} permit rt 65000:{seq}\n")
        };
        let text = [3, 4, 16_777_216].map(line).concat();
        let keep = BTreeSet::from([vni(3)]);
        let lines = withdraw_filter(&parse_bgp(&text), EvpnFilter::List, &keep);
        let removed: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("no "))
            .collect();
        assert_eq!(
            removed,
            [
                "no bgp extcommunity-list standard wmgwd seq 4 permit rt 65000:4",
                "no bgp extcommunity-list standard wmgwd seq 16777216 permit rt 65000:16777216",
            ]
        );
    }

    #[test]
    fn numbers_follow_the_go_daemon_where_they_fit() {
        let config = parse_bgp(
            "route-map filter-vni permit 700\n match evpn vni 3\nexit\n\
             route-map filter-vni deny 65535\nexit\n",
        );
        let range = VniRange::new(vni(1), Vni::MAX).unwrap();
        let mut numbers = Numbers::new(range, &config);
        assert_eq!(numbers.take(vni(3)), Some(700), "the one that it has");
        assert_eq!(numbers.take(vni(5)), Some(15));
        assert_eq!(numbers.take(vni(65524)), Some(65534));
        // Above: 4 to 9 belong to no VNI + 10.
        let high: Vec<_> = (65525..65531).map(|n| numbers.take(vni(n))).collect();
        assert_eq!(high, [4, 5, 6, 7, 8, 9].map(Some));
        // Then any that is free, never 10 and never one that is taken.
        assert_eq!(numbers.take(vni(70000)), Some(11));
        assert_eq!(numbers.of(vni(70000)), [11]);
        // VNI 1 counts on 11; it is gone, so it gets another.
        assert_eq!(numbers.take(vni(1)), Some(12));
    }

    #[test]
    fn numbers_run_out_without_panic() {
        let range = VniRange::new(vni(1), Vni::MAX).unwrap();
        let mut numbers = Numbers::new(range, &BgpConfig::default());
        let mut taken = BTreeSet::new();
        for number in 1..=65530 {
            let seq = numbers.take(vni(number)).unwrap();
            assert!(taken.insert(seq), "{seq} given twice");
        }
        assert_eq!(numbers.take(vni(99999)), None);
    }
}
