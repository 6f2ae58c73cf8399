//! Pushes jobs through vtysh so that one bad VNI does not sink the others.

use super::run::{Daemon, Vtysh};
use super::script::{Job, Script};
use super::vtysh_output::Verdict;
use crate::host::{Error, RouteFailure};
use crate::model::types::Vni;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// How many runs of vtysh one push may take beyond the batches themselves: enough to corner two bad VNIs
/// among a thousand when FRR does not say which, few enough to end.
const EXTRA_RUNS: usize = 40;

/// How to push.
pub struct Push<'a> {
    /// With what.
    pub vtysh: &'a Vtysh,
    /// Whereto.
    pub daemon: Daemon,
    /// Lines in front of every run.
    pub prologue: &'a [String],
    /// How many jobs go into one run, so that permission is asked in between.
    pub batch: usize,
    /// Asked before and during each run; `None` if the jobs only release.
    pub permit: Option<&'a dyn Fn() -> bool>,
}

impl Push<'_> {
    /// Pushes `jobs`; returns those that failed. Lines of a job may have been taken all the same.
    pub fn push(&self, jobs: &[Job]) -> Vec<RouteFailure> {
        let mut pending: Vec<Vec<Job>> = jobs
            .chunks(self.batch.max(1))
            .rev()
            .map(<[Job]>::to_vec)
            .collect();
        let mut runs = pending.len() + EXTRA_RUNS;
        let mut failures = Vec::new();
        while let Some(set) = pending.pop() {
            let refusal = match self.run(&set) {
                Ok(None) => continue,
                Ok(Some(refusal)) => refusal,
                // The daemon is away or the lease is: true for all that is left, too.
                Err(error) => {
                    pending.push(set);
                    let left = pending.iter().flatten();
                    failures.extend(left.map(|job| failure(job.vni, again(&error))));
                    break;
                }
            };
            runs = runs.saturating_sub(1);
            match refusal.split(set, runs > 0) {
                Split::Retry(sets) => pending.extend(sets),
                Split::Failed(set) => failures.extend(set.iter().map(|job| {
                    let output = refusal.about(job.vni);
                    let daemon = self.daemon.name();
                    failure(job.vni, Error::Refused { daemon, output })
                })),
            }
        }
        failures
    }

    fn run(&self, jobs: &[Job]) -> Result<Option<Refusal>, Error> {
        let script = Script::new(self.prologue, jobs);
        let verdict = self
            .vtysh
            .feed(self.daemon, script.text(), script.lines(), self.permit)?;
        let Verdict::Refused { lines, summary } = verdict else {
            return Ok(None);
        };
        let common = lines.keys().any(|number| script.owner(*number).is_none());
        let mut blamed = BTreeMap::new();
        for (number, text) in lines {
            if let Some(vni) = script.owner(number) {
                blamed.entry(vni).or_insert(text);
            }
        }
        Ok(Some(Refusal {
            common,
            blamed,
            summary,
        }))
    }
}

/// What FRR did not take of a run.
struct Refusal {
    /// Whether it is about a line that every run has.
    common: bool,
    /// What it said about which VNI's lines.
    blamed: BTreeMap<Vni, String>,
    summary: String,
}

/// What to do with a set of jobs that was refused.
enum Split {
    /// Push these in its place, the last one first.
    Retry(Vec<Vec<Job>>),
    /// It failed for good.
    Failed(Vec<Job>),
}

impl Refusal {
    fn split(&self, mut set: Vec<Job>, more_runs: bool) -> Split {
        if set.len() <= 1 || self.common || !more_runs {
            return Split::Failed(set);
        }
        let blamed: BTreeSet<Vni> = self.blamed.keys().copied().collect();
        let (bad, good): (Vec<Job>, Vec<Job>) = set
            .iter()
            .cloned()
            .partition(|job| blamed.contains(&job.vni));
        if good.is_empty() {
            return Split::Failed(set);
        }
        if !bad.is_empty() {
            // The good ones are pushed again, as a refused line may have left the parser in the wrong place
            // for the next; the bad ones get a chance of their own.
            return Split::Retry(vec![bad, good]);
        }
        let half = set.split_off(set.len() / 2);
        Split::Retry(vec![half, set])
    }

    fn about(&self, vni: Vni) -> String {
        self.blamed.get(&vni).unwrap_or(&self.summary).clone()
    }
}

/// The change of `vni` did not happen.
pub fn failure(vni: Vni, error: Error) -> RouteFailure {
    RouteFailure { vni, error }
}

/// The same error once more, for another VNI.
pub fn again(error: &Error) -> Error {
    let copy = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
    match error {
        Error::Renamed { bridge, name } => Error::Renamed {
            bridge: bridge.clone(),
            name: name.clone(),
        },
        Error::Foreign { bridge } => Error::Foreign {
            bridge: bridge.clone(),
        },
        Error::NoInterface { bridge } => Error::NoInterface {
            bridge: bridge.clone(),
        },
        Error::Links { source } => Error::Links {
            source: copy(source),
        },
        Error::Write { path, source } => Error::Write {
            path: path.clone(),
            source: copy(source),
        },
        Error::Routes { source } => Error::Routes {
            source: copy(source),
        },
        Error::Route {
            prefix,
            bridge,
            source,
        } => Error::Route {
            prefix: *prefix,
            bridge: bridge.clone(),
            source: copy(source),
        },
        Error::NotRedistributed => Error::NotRedistributed,
        Error::Ipv6 { bridge } => Error::Ipv6 {
            bridge: bridge.clone(),
        },
        Error::Announce { bridge, source } => Error::Announce {
            bridge: bridge.clone(),
            source: copy(source),
        },
        Error::Spawn { source } => Error::Spawn {
            source: copy(source),
        },
        Error::Refused { daemon, output } => Error::Refused {
            daemon,
            output: output.clone(),
        },
        Error::TimedOut { daemon, after } => Error::TimedOut {
            daemon,
            after: *after,
        },
        Error::Down { daemon } => Error::Down { daemon },
        Error::NotPermitted => Error::NotPermitted,
    }
}
