//! Gratuitous ARP, all of it, is paced here. What is served is announced over and over, whether or not anything happens
//! to it: each second a part of the VNIs, all in one wake of the worker and without a look at them, as what the last
//! pass found still holds.

use super::Effect;
use super::schedule::Wake;
use super::vni_table::VniStatus;
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How often it is the turn of a part of the VNIs.
const TURN: Duration = Duration::from_secs(1);
/// Gratuitous ARP is refreshed every 10 s, for stations that missed what was sent at the takeover.
const REFRESH: usize = 10;
/// Gratuitous ARP is sent for this many VNIs every [`PAUSE`]: 10 000 VNIs take a second.
const ANNOUNCEMENTS: usize = 500;
const PAUSE: Duration = Duration::from_millis(50);

/// Which VNIs it is the turn of, and when the next announcements may be sent.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    next_turn: Time,
    announce: Cursor,
    next_announcement: Time,
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

    /// What is announced now: of `all` VNIs those whose turn it is, and those that are `due` at a time of their own.
    /// And when it is the turn of the next. `statuses_from` gives what the last pass found of each VNI, from an index
    /// on and round.
    pub fn plan<T: Iterator<Item = (Vni, VniStatus)>>(
        &mut self,
        now: Time,
        all: usize,
        statuses_from: impl Fn(usize) -> T,
        due: Vec<(Time, Vni)>,
    ) -> (Option<Effect>, Option<Time>) {
        if self.next_turn <= now {
            // As many as are overdue.
            let missed = now.since(self.next_turn).as_secs() / TURN.as_secs();
            let turns = usize::try_from(missed).unwrap_or(usize::MAX);
            let turns = turns.saturating_add(1);
            self.announce.add(turns, REFRESH, all);
            self.next_turn = now + TURN;
        }
        let mut wake = Wake::after(now);
        wake.wake_at(self.next_turn);

        let announced = self.announce(now, all, statuses_from, due, &mut wake);
        let announcement = (!announced.is_empty()).then_some(Effect::Announce(announced));
        (announcement, wake.earliest())
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
            refreshed: true,
            ..VniStatus::default()
        };
        let from = from as u32;
        let numbers = (from + 1..=ALL).chain(1..=from);
        numbers.map(move |number| (vni(number), status))
    }

    fn plan(refresh: &mut Refresh, now: Time, due: Vec<(Time, Vni)>) -> (Vec<Vni>, Time) {
        let (announcement, wake) = refresh.plan(now, ALL as usize, served, due);
        let announced = match announcement {
            Some(Effect::Announce(vnis)) => vnis,
            None => Vec::new(),
            Some(other) => panic!("{other:?}"),
        };
        (announced, wake.expect("the next turn"))
    }

    #[test]
    fn each_vni_has_its_turn_and_no_more_than_the_pace_allows() {
        let mut refresh = Refresh {
            next_turn: START,
            ..Refresh::default()
        };
        let mut times = BTreeMap::<Vni, u32>::new();
        let mut now = START;
        while now < START + TURN * 30 {
            let (announced, wake) = plan(&mut refresh, now, Vec::new());
            assert!(announced.len() <= ANNOUNCEMENTS && wake > now);
            for vni in announced {
                *times.entry(vni).or_default() += 1;
            }
            now = wake;
        }
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
        let (announced, wake) = plan(&mut refresh, START, due.clone());
        assert_eq!(announced.len(), ANNOUNCEMENTS);
        assert_eq!(announced[0], vni(1), "a refresh");
        assert_eq!(
            announced[ANNOUNCEMENTS / 10],
            vni(ALL),
            "the longest overdue"
        );
        assert_eq!(wake, START + PAUSE);
        assert_eq!(refresh.next_announcement(), START + PAUSE);
        let (announced, again) = plan(&mut refresh, START, Vec::new());
        assert!(announced.is_empty() && again == wake, "paced");
    }

    #[test]
    fn turns_that_were_missed_are_made_up_once() {
        let mut refresh = Refresh::default();
        let (announced, again) = plan(&mut refresh, START, Vec::new());
        assert_eq!((announced.len(), again), (ANNOUNCEMENTS, START + PAUSE));
    }
}
