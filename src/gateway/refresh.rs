//! What every VNI gets over and over, whether or not anything happens to it: ARP is written again, and gratuitous
//! ARP refreshed. Each second it is the turn of a part of the VNIs, all in one wake of the worker and without a look at
//! them: what the last pass found still holds. Gratuitous ARP of all kinds is paced here.

use super::Effect;
use super::schedule::Wake;
use super::vni_table::VniStatus;
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How often it is the turn of a part of the VNIs.
const TURN: Duration = Duration::from_secs(1);
/// ARP of each VNI is written again every 30 s, whatever it is believed to be: not of all at once, as a switch of many
/// VNIs delays a fence.
const AUDIT: usize = 30;
/// Gratuitous ARP is refreshed every 10 s, for stations that missed what was sent at the takeover.
const REFRESH: usize = 10;
/// Gratuitous ARP is sent for this many VNIs every [`PAUSE`]: 10 000 VNIs take a second.
const ANNOUNCEMENTS: usize = 500;
const PAUSE: Duration = Duration::from_millis(50);

/// Which VNIs it is the turn of, and when the next announcements may be sent.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    next_turn: Time,
    audit: Cursor,
    announce: Cursor,
    next_announcement: Time,
}

/// What every VNI gets, of those whose turn it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// Write ARP of these.
    pub switches: Vec<(Vni, bool)>,
    /// Announce these.
    pub announcement: Option<Effect>,
    /// When it is the turn of the next.
    pub wake: Option<Time>,
}

/// A way round all VNIs.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// The index of the first whose turn it is.
    at: usize,
    /// Of how many it is.
    left: usize,
}

impl Cursor {
    /// It is the turn of another `turns` parts of `parts`, of `all` VNIs.
    fn add(&mut self, turns: usize, parts: usize, all: usize) {
        let count = all.div_ceil(parts).saturating_mul(turns);
        self.left = self.left.saturating_add(count).min(all);
    }

    /// So many had their turn.
    fn pass(&mut self, count: usize, all: usize) {
        self.left -= count;
        self.at = (self.at + count) % all;
    }
}

impl Refresh {
    /// When the next announcements may be sent.
    pub fn next_announcement(&self) -> Time {
        self.next_announcement
    }

    /// What is done now: of `all` VNIs the turn of those that it is, and announcements that are `due` at a time of
    /// their own. `statuses_from` tells what the last pass found of each VNI, from an index on and round.
    pub fn plan<T: Iterator<Item = (Vni, VniStatus)>>(
        &mut self,
        now: Time,
        all: usize,
        statuses_from: impl Fn(usize) -> T,
        due: Vec<(Time, Vni)>,
    ) -> Turn {
        if self.next_turn <= now {
            // As many as are overdue.
            let missed = now.since(self.next_turn).as_secs() / TURN.as_secs();
            let turns = usize::try_from(missed).unwrap_or(usize::MAX);
            let turns = turns.saturating_add(1);
            self.audit.add(turns, AUDIT, all);
            self.announce.add(turns, REFRESH, all);
            self.next_turn = now + TURN;
        }
        let mut wake = Wake::after(now);
        wake.wake_at(self.next_turn);

        let audited = statuses_from(self.audit.at).take(self.audit.left);
        // A VNI without a state is being switched, or about to be.
        let switches = audited.filter_map(|(vni, found)| Some((vni, found.arp?)));
        let switches = switches.collect();
        self.audit.pass(self.audit.left, all);

        let announced = self.announce(now, all, statuses_from, due, &mut wake);
        Turn {
            switches,
            announcement: (!announced.is_empty()).then_some(Effect::Announce(announced)),
            wake: wake.earliest(),
        }
    }

    fn announce<T: Iterator<Item = (Vni, VniStatus)>>(
        &mut self,
        now: Time,
        all: usize,
        statuses_from: impl Fn(usize) -> T,
        mut due: Vec<(Time, Vni)>,
        wake: &mut Wake,
    ) -> Vec<Vni> {
        let mut announced = Vec::new();
        if self.announce.left == 0 || wake.is_due_or_wake(self.next_announcement) {
            // What is announced for the first time may need all of the room for a while, but must not have it.
            let room = ANNOUNCEMENTS.saturating_sub(due.len());
            let room = room.max(ANNOUNCEMENTS / 10);
            let mut passed = 0;
            for (vni, found) in statuses_from(self.announce.at).take(self.announce.left) {
                if announced.len() == room {
                    break;
                }
                passed += 1;
                if found.refreshed {
                    announced.push(vni);
                }
            }
            self.announce.pass(passed, all);
        }
        if !announced.is_empty() || !due.is_empty() {
            // The longest overdue first; the rest is announced after a pause.
            due.sort_unstable();
            due.truncate(ANNOUNCEMENTS - announced.len());
            announced.extend(due.iter().map(|&(_, vni)| vni));
            self.next_announcement = now + PAUSE;
            wake.wake_at(self.next_announcement);
        }
        announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const START: Time = Time::since_boot(Duration::from_secs(1_000));
    const ALL: u32 = 1_200;

    fn vni(number: u32) -> Vni {
        Vni::new(number).expect("a VNI")
    }

    /// All VNIs are served here.
    fn served(from: usize) -> impl Iterator<Item = (Vni, VniStatus)> {
        let status = VniStatus {
            arp: Some(true),
            refreshed: true,
            ..VniStatus::default()
        };
        let from = from as u32;
        let numbers = (from + 1..=ALL).chain(1..=from);
        numbers.map(move |number| (vni(number), status))
    }

    fn plan(refresh: &mut Refresh, now: Time, due: Vec<(Time, Vni)>) -> (usize, Vec<Vni>, Time) {
        let turn = refresh.plan(now, ALL as usize, served, due);
        let announced = match turn.announcement {
            Some(Effect::Announce(vnis)) => vnis,
            None => Vec::new(),
            Some(other) => panic!("{other:?}"),
        };
        let wake = turn.wake.expect("the next turn");
        (turn.switches.len(), announced, wake)
    }

    #[test]
    fn each_vni_has_its_turn_and_no_more_than_the_pace_allows() {
        let mut refresh = Refresh {
            next_turn: START,
            ..Refresh::default()
        };
        let (mut switched, mut times) = (0, BTreeMap::<Vni, u32>::new());
        let mut now = START;
        while now < START + TURN * 30 {
            let (switches, announced, wake) = plan(&mut refresh, now, Vec::new());
            assert!(announced.len() <= ANNOUNCEMENTS && wake > now);
            switched += switches;
            for vni in announced {
                *times.entry(vni).or_default() += 1;
            }
            now = wake;
        }
        assert_eq!(switched, ALL as usize);
        assert!(times.len() == ALL as usize && times.values().all(|&it| it == 3));
    }

    #[test]
    fn the_longest_overdue_goes_first_and_a_refresh_keeps_its_share() {
        let mut refresh = Refresh {
            next_turn: START,
            ..Refresh::default()
        };
        let time = |number: u32| START - Duration::from_millis(number.into());
        let due: Vec<_> = (1..=ALL).map(|it| (time(it), vni(it))).collect();
        let (_, announced, wake) = plan(&mut refresh, START, due.clone());
        assert_eq!(announced.len(), ANNOUNCEMENTS);
        assert_eq!(announced[0], vni(1), "a refresh");
        assert_eq!(
            announced[ANNOUNCEMENTS / 10],
            vni(ALL),
            "the longest overdue"
        );
        assert_eq!(wake, START + PAUSE);
        assert_eq!(refresh.next_announcement(), START + PAUSE);
        let (_, announced, again) = plan(&mut refresh, START, Vec::new());
        assert!(announced.is_empty() && again == wake, "paced");
    }

    #[test]
    fn turns_that_were_missed_are_made_up_once() {
        let mut refresh = Refresh::default();
        let (switches, announced, _) = plan(&mut refresh, START, Vec::new());
        assert_eq!((switches, announced.len()), (ALL as usize, ANNOUNCEMENTS));
    }
}
