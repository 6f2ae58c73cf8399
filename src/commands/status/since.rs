//! Pure: how long ago a revision was, by marks.

use crate::model::types::{Revision, Vni};
use std::collections::BTreeMap;
use std::time::Duration;

/// Moments at which a revision of the store and a time (seconds since 1970) were seen together: what is newer
/// than the revision came after that time, the rest before. The first and the last time is kept for each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    seen: BTreeMap<Revision, (u64, u64)>,
    /// When a VNI was first seen without a name that its row had at this revision.
    lost: BTreeMap<Vni, (Revision, u64)>,
}

/// The oldest marks are forgotten: a watch may run for days.
const KEPT: usize = 4096;

impl Marks {
    /// Takes a mark.
    pub fn add(&mut self, revision: Revision, time: u64) {
        let (first, last) = self.seen.entry(revision).or_insert((time, time));
        (*first, *last) = (time.min(*first), time.max(*last));
        while self.seen.len() > KEPT {
            self.seen.pop_first();
        }
    }

    /// Since when what came at `revision` is so, at the time of `now`; `None` if no mark says anything.
    pub fn since(&self, revision: Revision, now: u64) -> Option<Since> {
        // Clocks differ: what seems to lie in the future is now.
        let age = |time: u64| Duration::from_secs(now.saturating_sub(time));
        let after = self.seen.range(..revision).next_back();
        let at_most = after.map(|(_, &(_, last))| age(last));
        let before = self.seen.range(revision..).next();
        let at_least = before.map_or(Duration::ZERO, |(_, &(first, _))| age(first));
        match at_most {
            None if at_least.is_zero() => None,
            None => Some(Since {
                at_least,
                at_most: None,
            }),
            Some(at_most) => Some(Since {
                at_least: at_least.min(at_most),
                at_most: Some(at_most),
            }),
        }
    }

    /// Since when `vni` lacks a name that its row, of `revision`, had: after that, and before it was first seen so.
    pub fn since_lost(&mut self, vni: Vni, revision: Revision, now: u64) -> Option<Since> {
        let lost = self.lost.entry(vni).or_insert((revision, now));
        if lost.0 != revision {
            *lost = (revision, now);
        }
        let at_least = Duration::from_secs(now.saturating_sub(lost.1));
        let at_most = self.since(revision, now).and_then(|since| since.at_most);
        (at_most.is_some() || !at_least.is_zero()).then(|| Since {
            at_least: at_most.map_or(at_least, |most| most.min(at_least)),
            at_most,
        })
    }
}

/// How long something has been so: between two bounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Since {
    /// At least so long.
    pub at_least: Duration,
    /// At most so long; `None` if nothing says that.
    pub at_most: Option<Duration>,
}

impl Since {
    /// For a column: `~12s`, `<40s`, `>5m`, `2m..10m`.
    pub fn text(&self) -> String {
        let least = span(self.at_least);
        match self.at_most {
            None => format!(">{least}"),
            Some(most) if self.at_least.is_zero() => format!("<{}", span(most.max(SECOND))),
            Some(most) if most - self.at_least <= (most / 10).max(2 * SECOND) => {
                format!("~{}", span(most))
            }
            Some(most) => format!("{least}..{}", span(most)),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A time in its two greatest units: `9s`, `5m`, `3h20m`, `2d4h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |great: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{great}{unit}"),
        _ => format!("{great}{unit}{small}{of}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..3600 => format!("{minutes}m"),
        3600..86400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}
