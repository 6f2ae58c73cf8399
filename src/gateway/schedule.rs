//! Which VNIs the next pass looks at: those that something happened to, those that are due, and those that still wait
//! for their turn. A look at any other VNI would decide what the last look decided.

use crate::model::types::Time;
use std::collections::BTreeSet;

/// Which VNIs the next pass looks at, by their index in the range.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Those that something happened to, some more than once.
    dirty: Vec<u32>,
    all_dirty: bool,
    wakes: BTreeSet<(Time, u32)>,
}

impl Default for Schedule {
    /// All.
    fn default() -> Schedule {
        Schedule {
            dirty: Vec::new(),
            all_dirty: true,
            wakes: BTreeSet::new(),
        }
    }
}

impl Schedule {
    /// Something happened to one.
    pub fn mark_dirty(&mut self, at: u32) {
        self.dirty.push(at);
    }

    /// Something happened that concerns all.
    pub fn mark_all_dirty(&mut self) {
        self.all_dirty = true;
    }

    /// One that was to be looked at by itself at `was` is now to be looked at by itself at `is`.
    pub fn wake_at(&mut self, at: u32, was: Option<Time>, is: Option<Time>) {
        if was != is {
            if let Some(was) = was {
                self.wakes.remove(&(was, at));
            }
            self.wakes.extend(is.map(|is| (is, at)));
        }
    }

    /// When the first wants to be looked at by itself.
    pub fn first_wake(&self) -> Option<Time> {
        self.wakes.first().map(|&(wake, _)| wake)
    }

    /// Hands over those to look at now, of `all`, in order and each once. `wakes` that are due are over.
    pub fn take_due(&mut self, now: Time, all: u32) -> Vec<u32> {
        while let Some(&(due, at)) = self.wakes.first().filter(|(due, _)| *due <= now) {
            self.wakes.remove(&(due, at));
            self.dirty.push(at);
        }
        let mut due = std::mem::take(&mut self.dirty);
        if std::mem::take(&mut self.all_dirty) {
            due.clear();
            due.extend(0..all);
        } else {
            due.sort_unstable();
            due.dedup();
        }
        due
    }
}

/// The earliest time to come of those that are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    now: Time,
    at: Option<Time>,
}

impl Wake {
    /// Nothing is asked for yet.
    pub fn after(now: Time) -> Wake {
        Wake { now, at: None }
    }

    /// Asks for a wake at `at`. What was due before is decided in this pass: only a time to come is worth a wake.
    pub fn wake_at(&mut self, at: Time) {
        if at > self.now {
            self.at = Some(self.at.map_or(at, |wake| wake.min(at)));
        }
    }

    /// The same, if there is a time at all.
    pub fn wake_at_any(&mut self, at: Option<Time>) {
        if let Some(at) = at {
            self.wake_at(at);
        }
    }

    /// Whether something is due. If it is not, asks for a wake when it is.
    pub fn is_due_or_wake(&mut self, at: Time) -> bool {
        self.wake_at(at);
        at <= self.now
    }

    /// The earliest of them.
    pub fn earliest(&self) -> Option<Time> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_pass_looks_at_all_and_the_next_at_what_changed() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.take_due(NOW, 4), [0, 1, 2, 3]);
        assert!(schedule.take_due(NOW, 4).is_empty());
        for at in [3, 1, 3] {
            schedule.mark_dirty(at);
        }
        assert_eq!(schedule.take_due(NOW, 4), [1, 3]);
        schedule.mark_dirty(1);
        schedule.mark_all_dirty();
        assert_eq!(schedule.take_due(NOW, 2), [0, 1]);
        assert!(schedule.take_due(NOW, 2).is_empty());
    }

    #[test]
    fn one_that_wants_to_be_looked_at_is_when_it_is_due() {
        let mut schedule = Schedule::default();
        schedule.take_due(NOW, 2);
        let (soon, late) = (Some(NOW + SECOND), Some(NOW + SECOND * 2));
        schedule.wake_at(0, None, late);
        schedule.wake_at(1, None, late);
        schedule.wake_at(1, late, soon);
        assert_eq!(schedule.first_wake(), soon);
        assert!(schedule.take_due(NOW, 2).is_empty());
        assert_eq!(schedule.take_due(NOW + SECOND, 2), [1]);
        schedule.wake_at(0, late, None);
        assert_eq!(schedule.first_wake(), None);
    }

    #[test]
    fn a_wake_is_the_earliest_time_to_come() {
        let mut wake = Wake::after(NOW);
        wake.wake_at(NOW);
        wake.wake_at_any(None);
        assert!(wake.is_due_or_wake(NOW) && wake.earliest().is_none());
        assert!(!wake.is_due_or_wake(NOW + SECOND * 2));
        wake.wake_at_any(Some(NOW + SECOND));
        wake.wake_at(NOW + SECOND * 3);
        assert_eq!(wake.earliest(), Some(NOW + SECOND));
    }
}
