//! Which VNIs this node cannot serve at present, and since when: what the ring passes over it for.
//!
//! A node is unable to serve a VNI while it has no bridge for it, and while the kernel or FRR refuses what the
//! ring asks of the node. It publishes both, so that another node takes the VNI. A node that failed becomes able
//! again when its host does as it is told and a hold-off is over. The hold-off grows with each relapse, so that a
//! host that fails again and again does not draw the VNI each time.

use crate::model::ring::Unable;
use crate::model::spans::Spans;
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How long the node is passed over after the first failure, and at least.
const FIRST: Duration = Duration::from_secs(15);
/// How long it is passed over at most.
const LONGEST: Duration = Duration::from_secs(300);
/// A failure this long after the one before is a first one again.
const FORGIVEN: Duration = Duration::from_secs(900);
/// Runs of VNIs that are published at most. It bounds the value in etcd to about 200 kB.
const MOST_RUNS: usize = 5_000;
/// How often the node publishes a change.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the node can serve a VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Capability {
    /// It can, as far as it knows.
    #[default]
    Able,
    /// Its host did not do what it was told, or did not until a short time ago.
    Failing,
    /// It has no bridge for the VNI.
    Absent,
}

/// What the node has found out about its ability to serve one VNI.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ability {
    absent: bool,
    /// The bridge has been there.
    was_present: bool,
    failing: bool,
    /// When the hold-off is over.
    until: Time,
    /// Failures in a row that are not forgiven.
    strikes: u8,
}

impl Ability {
    /// Whether the node can serve the VNI.
    pub fn capability(&self) -> Capability {
        match (self.absent, self.failing) {
            (true, _) => Capability::Absent,
            (false, true) => Capability::Failing,
            (false, false) => Capability::Able,
        }
    }

    /// The kernel has told whether the bridge exists. One that comes for the first time is used at once; one that
    /// went away and came back may do so again.
    pub fn bridge_is(&mut self, now: Time, present: bool) {
        let was_absent = std::mem::replace(&mut self.absent, !present);
        if present && was_absent && self.was_present {
            self.failing = true;
            self.strike(now);
        }
        self.was_present |= present;
    }

    /// The host has not done for a while what it was told. Returns whether that is a first failure.
    pub fn fail(&mut self, now: Time) -> bool {
        if std::mem::replace(&mut self.failing, true) {
            return false;
        }
        self.strike(now);
        self.strikes == 1
    }

    fn strike(&mut self, now: Time) {
        if now >= self.until + FORGIVEN {
            self.strikes = 0;
        }
        let doubled = FIRST * 2u32.pow(u32::from(self.strikes.min(8)));
        self.strikes = self.strikes.saturating_add(1);
        self.until = now + doubled.min(LONGEST);
    }

    /// The host does what it is told: the node is able again once the hold-off is over. Returns when that is, if
    /// it is still to come.
    pub fn recover(&mut self, now: Time) -> Option<Time> {
        self.failing &= now < self.until;
        self.failing.then_some(self.until)
    }
}

/// What this node publishes of its ability.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    unable: Unable,
    /// When the next change may be published.
    next: Time,
}

impl Publication {
    /// Takes over what was found of all VNIs, in ascending order.
    pub fn take(&mut self, found: impl Iterator<Item = (Vni, Capability)>) {
        let (mut absent, mut failing) = (Vec::new(), Vec::new());
        for (vni, capability) in found {
            match capability {
                Capability::Able => {}
                Capability::Failing => failing.push(vni),
                Capability::Absent => absent.push(vni),
            }
        }
        let published = |vnis: Vec<Vni>| {
            let mut vnis: Spans = vnis.into_iter().collect();
            vnis.truncate(MOST_RUNS);
            vnis
        };
        self.unable = Unable {
            absent: published(absent),
            failing: published(failing),
        };
    }

    /// What is to be published.
    pub fn unable(&self) -> &Unable {
        &self.unable
    }

    /// When a change may be published.
    pub fn next(&self) -> Time {
        self.next
    }

    /// A change is published now.
    pub fn published(&mut self, now: Time) {
        self.next = now + PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::since_boot(Duration::from_secs(10_000));

    /// How long the node is passed over for a failure at `now` whose cause ends at once.
    fn hold_off(ability: &mut Ability, now: Time) -> Duration {
        ability.fail(now);
        assert_eq!(ability.capability(), Capability::Failing);
        let Some(until) = ability.recover(now) else {
            panic!("able at once")
        };
        assert_eq!(ability.recover(until), None);
        assert_eq!(ability.capability(), Capability::Able);
        until.since(now)
    }

    #[test]
    fn the_hold_off_grows_with_each_relapse_and_is_forgiven() {
        let mut ability = Ability::default();
        let mut now = START;
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let took = hold_off(&mut ability, now);
            assert!(took > last || took == LONGEST, "{last:?} {took:?}");
            last = took;
            now = now + took + Duration::from_secs(20);
        }
        assert_eq!(last, LONGEST);
        assert_eq!(hold_off(&mut ability, now + FORGIVEN), FIRST);
    }

    #[test]
    fn a_host_that_goes_on_failing_stays_passed_over() {
        let mut ability = Ability::default();
        assert!(ability.fail(START));
        let late = START + LONGEST * 2;
        assert!(!ability.fail(late), "one failure, not two");
        assert_eq!(ability.capability(), Capability::Failing);
        assert_eq!(ability.recover(late), None);
        assert_eq!(ability.capability(), Capability::Able);
    }

    #[test]
    fn a_new_bridge_is_used_at_once_and_one_that_came_back_later() {
        let mut ability = Ability::default();
        ability.bridge_is(START, false);
        assert_eq!(ability.capability(), Capability::Absent);
        ability.bridge_is(START, true);
        assert_eq!(ability.capability(), Capability::Able);
        ability.bridge_is(START, false);
        ability.bridge_is(START, true);
        assert_eq!(ability.capability(), Capability::Failing);
        assert_eq!(ability.recover(START + FIRST), None);
        assert_eq!(ability.capability(), Capability::Able);
    }
}
