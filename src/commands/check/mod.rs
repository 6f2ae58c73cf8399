//! `wmgwd check`: whether this host is fit to serve, and what repairs it where it is not.
//!
//! What was found (`Facts`) is collected by [`look`], which only looks; the one thing that it leaves anywhere is
//! a lease in etcd, for the moment until it is revoked. Pure functions judge it, one module a
//! part of the host: [`links`], [`system`], [`passage`] (with [`ruleset`]), [`routing`], [`announcing`], [`startup`], [`signs`],
//! [`database`] (with [`refusal`]), [`beats`]. [`show`] writes it down.

pub mod announcing;
pub mod beats;
pub mod database;
pub mod links;
pub mod look;
mod look_beats;
mod look_passage;
pub mod passage;
pub mod refusal;
pub mod routing;
pub mod ruleset;
pub mod show;
pub mod signs;
pub mod startup;
pub mod system;

use crate::host::routes::Prefix;
use crate::model::fitness::{Sign, SignSet, SignState};
use crate::model::purpose::Purpose;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::{runs, spans};
use std::collections::{BTreeMap, BTreeSet};

/// How it is with one thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it must be.
    Ok,
    /// It serves, but worse than it could, or wmgwd has to repair it.
    Warn,
    /// It could not be looked at.
    Unknown,
    /// With this it must not, or cannot, serve.
    Fail,
}

impl Level {
    /// The word that begins a line.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Unknown => "unknown",
            Level::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at, in a word.
    pub about: &'static str,
    /// What was found, and what follows from it.
    pub text: String,
    /// The command that repairs it; or, where no command can, what is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it must be.
    pub fn ok(about: &'static str, text: impl Into<String>) -> Finding {
        Finding {
            level: Level::Ok,
            about,
            text: text.into(),
            remedy: None,
        }
    }

    /// It serves, but worse than it could.
    pub fn warn(
        about: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Warn,
            remedy: Some(remedy.into()),
            ..Finding::ok(about, text)
        }
    }

    /// With this it must not, or cannot, serve.
    pub fn fail(
        about: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Fail,
            remedy: Some(remedy.into()),
            ..Finding::ok(about, text)
        }
    }

    /// It could not be looked at.
    pub fn unknown(
        about: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Unknown,
            remedy: Some(remedy.into()),
            ..Finding::ok(about, text)
        }
    }
}

impl Finding {
    /// The same finding for all of `vnis` in one line; the shell's `$i` in the remedy is each of them. `None` if there
    /// are none.
    fn of(self, vnis: &[Vni]) -> Option<Finding> {
        if vnis.is_empty() {
            return None;
        }
        let remedy = self.remedy.map(|remedy| match remedy.contains("$i") {
            true => each(vnis, &remedy),
            false => remedy,
        });
        Some(Finding {
            text: format!("{}: VNIs {}", self.text, spans(vnis)),
            remedy,
            ..self
        })
    }
}

/// What all findings come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fitness {
    /// It may serve.
    May,
    /// It may not.
    MayNot,
    /// Not everything that matters could be looked at.
    CannotTell,
}

/// Whether a host with these findings may serve.
pub fn fitness(findings: &[Finding]) -> Fitness {
    match findings.iter().map(|finding| finding.level).max() {
        Some(Level::Fail) => Fitness::MayNot,
        Some(Level::Unknown) => Fitness::CannotTell,
        _ => Fitness::May,
    }
}

/// Everything that was found. `None` for what was not looked at, as the host of a mock node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Interfaces and addresses.
    pub links: Option<links::Links>,
    /// Kernel switches, rights, other runs.
    pub system: Option<system::System>,
    /// The halves of each bridge's networks, which `--announce routes` announces.
    pub halves: BTreeMap<Vni, BTreeSet<Prefix>>,
    /// What becomes of the packets of stations.
    pub passage: Option<passage::Passage>,
    /// FRR.
    pub frr: Option<crate::host::frr::inspection::Inspection>,
    /// What the signs of its links and neighbours say.
    pub signs: Vec<(Sign, SignState)>,
    /// The signs that count.
    pub track: SignSet,
    /// etcd.
    pub etcd: Option<database::Database>,
    /// The beats of early detection.
    pub beats: Option<beats::Beats>,
}

/// What the facts mean, in the order in which they are best repaired.
pub fn findings(purpose: &Purpose, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let guarded = facts.system.as_ref().map(|it| !it.guards.is_empty());
    let running = guarded.unwrap_or(false);
    if let Some(system) = &facts.system {
        findings.extend(system::findings(purpose, system));
    }
    let mut bridges = None;
    if let Some(links) = &facts.links {
        findings.extend(links::findings(purpose, links));
        bridges = Some(links.bridges(purpose.range));
    }
    if let Some(passage) = &facts.passage {
        findings.extend(passage::findings(purpose, passage));
    }
    if let Some(frr) = &facts.frr {
        let bridges = bridges.unwrap_or_default();
        let none = links::Links::default();
        let links = facts.links.as_ref().unwrap_or(&none);
        findings.extend(routing::findings(purpose, frr, &bridges, links, running));
        findings.extend(announcing::findings(purpose, frr, &facts.halves));
        findings.extend(startup::findings(purpose, frr, &bridges));
    }
    if let Some(frr) = &facts.frr {
        let told_elsewhere = [
            (Sign::Beats, signs::of_beats(facts.beats.as_ref())),
            (
                Sign::Frr,
                signs::of_frr(frr, !announcing::is_by_bgp_alone(purpose, frr)),
            ),
        ];
        let all = facts.signs.iter().chain(&told_elsewhere);
        findings.extend(signs::findings(facts.track, all));
    }
    if let Some(etcd) = &facts.etcd {
        findings.extend(database::findings(purpose, etcd, guarded));
    }
    if let Some(beats) = &facts.beats {
        findings.extend(beats::findings(beats));
    }
    findings
}

/// Runs of VNIs that a line names at most.
const SHOWN: usize = 8;

/// The VNIs of `range` that are not in `there`, as runs: a range of millions is walked by what exists.
fn absent(range: VniRange, there: &BTreeSet<Vni>) -> Vec<(u32, u32)> {
    let mut runs = Vec::new();
    let mut next = range.first().get();
    for vni in there.iter().filter(|vni| range.contains(**vni)) {
        if vni.get() > next {
            runs.push((next, vni.get() - 1));
        }
        next = vni.get() + 1;
    }
    if next <= range.last().get() {
        runs.push((next, range.last().get()));
    }
    runs
}

/// A shell loop that runs `command` for each of `vnis`, in which `$i` is the VNI; without a loop for
/// one. At most for the runs that a line names: what is left shows up when the check is run again.
fn each(vnis: &[Vni], command: &str) -> String {
    let runs = runs(vnis);
    let words: Vec<String> = runs
        .iter()
        .take(SHOWN)
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first} {last}"),
            _ => format!("$(seq {first} {last})"),
        })
        .collect();
    match &runs[..] {
        [(first, last)] if first == last => command.replace("$i", &first.to_string()),
        _ => format!("for i in {}; do {command}; done", words.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::frr::{Announce, EvpnFilter};
    use std::time::Duration;

    pub fn vnis(numbers: &[u32]) -> Vec<Vni> {
        numbers.iter().map(|n| Vni::new(*n).unwrap()).collect()
    }

    pub fn purpose(first: u32, last: u32) -> Purpose {
        let ends = vnis(&[first, last]);
        Purpose {
            name: "gw1".parse().ok(),
            range: VniRange::new(ends[0], ends[1]).unwrap(),
            filter: EvpnFilter::List,
            ttl: Duration::from_secs(5),
            announce: Announce::Costs,
        }
    }

    /// What is not as it must be: level and text of each finding.
    pub fn said(findings: &[Finding]) -> Vec<(Level, &str)> {
        let bad = findings.iter().filter(|it| it.level != Level::Ok);
        bad.map(|it| (it.level, it.text.as_str())).collect()
    }

    #[test]
    fn a_command_for_each_is_one_that_a_shell_takes() {
        assert_eq!(
            each(&vnis(&[7]), "ip link set br$i up"),
            "ip link set br7 up"
        );
        assert_eq!(
            each(&vnis(&[1, 2, 3, 7, 9, 10]), "ip link set br$i up"),
            "for i in $(seq 1 3) 7 9 10; do ip link set br$i up; done"
        );
    }

    #[test]
    fn what_is_absent_is_drawn_together() {
        let range = VniRange::new(Vni::MIN, Vni::MAX).unwrap();
        let there = BTreeSet::from_iter(vnis(&[1, 2, 5, 16777215]));
        assert_eq!(absent(range, &there), [(3, 4), (6, 16777214)]);
        let range = VniRange::new(Vni::MIN, Vni::MIN).unwrap();
        assert_eq!(absent(range, &there), []);
        assert_eq!(absent(range, &BTreeSet::new()), [(1, 1)]);
    }

    /// Contract: what cannot be told is worse than a warning, and a failure is worse than both.
    #[test]
    fn the_worst_finding_decides() {
        let ok = Finding::ok("a", "b");
        let warn = Finding::warn("a", "b", "c");
        let unknown = Finding::unknown("a", "b", "c");
        let fail = Finding::fail("a", "b", "c");
        assert_eq!(fitness(&[]), Fitness::May);
        assert_eq!(fitness(&[ok.clone(), warn.clone()]), Fitness::May);
        assert_eq!(fitness(&[unknown.clone(), warn]), Fitness::CannotTell);
        assert_eq!(fitness(&[fail, unknown, ok]), Fitness::MayNot);
    }
}
