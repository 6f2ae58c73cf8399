//! One VNI as this node handles it: its row, what the host really shows of it, and what is due when.

use super::ability::{Ability, Capability};
use super::backoff::Backoff;
use super::mirror::RowNews;
use crate::model::frr::{Cost, RouteChange};
use crate::model::fsm::Exposure;
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How long after a takeover gratuitous ARP is repeated every [`ANNOUNCE_PAUSE`], in repetitions. After that it is
/// refreshed in turn with all others (see `turns`).
const ANNOUNCE_REPEATS: u8 = 10;
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// A bridge that cannot be silenced is tried at least this often.
const SILENCE_PAUSE: Duration = Duration::from_secs(1);

/// The next gratuitous ARP of a VNI that is served here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announcing {
    /// Then, and so many times again.
    Early { at: Time, left: u8 },
    /// When its turn comes.
    InTurn,
}

/// One VNI.
#[derive(Clone, Debug)]
pub struct Slot {
    /// When the row last changed.
    pub entered: Time,
    /// When the row last lost the name of an owner or a successor.
    pub freed: Time,
    /// Its owner gave it back then, and had silenced it before.
    pub released: bool,
    /// Whether the bridge answers ARP; `None` while we cannot know.
    pub arp: Option<bool>,
    /// Whether EVPN routes are advertised; `None` while we cannot know.
    pub evpn: Option<bool>,
    /// The OSPF cost; `None` while we cannot know.
    pub cost: Option<Cost>,
    /// Whether this node can serve the VNI.
    pub ability: Ability,
    /// When FRR last took a change.
    pub routes_at: Time,
    /// Since when the host does not get to what is wanted, although it was told.
    pub failing_since: Option<Time>,
    /// We withdraw the VNI to give it back.
    pub giving_up: bool,
    /// As the owner we have asked etcd to take it back, and have not seen the row change.
    pub vacating: bool,
    /// Until when the lower takeover cost is announced.
    pub cheap_until: Time,
    /// When ARP may be switched on again.
    arp_on_retry: Backoff,
    /// When it may be switched off again: a bridge that could not be made to answer is silenced at once.
    arp_off_retry: Backoff,
    /// What ARP was last switched to.
    pub arp_asked: bool,
    /// When FRR may be tried again.
    pub routes_retry: Backoff,
    /// The row was in a bundle of which another node was faster on a row: it is written alone.
    pub alone: bool,
    /// When the next row may be tried again.
    pub write_retry: Backoff,
    /// When gratuitous ARP was first sent for what the row says now.
    pub announced: Option<Time>,
    announcing: Option<Announcing>,
}

impl Slot {
    /// A VNI of which nothing is known yet.
    pub fn new() -> Slot {
        Slot {
            entered: Time::default(),
            freed: Time::default(),
            released: false,
            arp: None,
            evpn: None,
            cost: None,
            ability: Ability::default(),
            routes_at: Time::default(),
            failing_since: None,
            giving_up: false,
            vacating: false,
            cheap_until: Time::default(),
            arp_on_retry: Backoff::default(),
            arp_off_retry: Backoff::default(),
            arp_asked: false,
            routes_retry: Backoff::default(),
            alone: false,
            write_retry: Backoff::default(),
            announced: None,
            announcing: None,
        }
    }

    /// What the host shows is not known any more.
    pub fn forget(&mut self) {
        self.arp = None;
        self.evpn = None;
        self.cost = None;
        self.stop_announcing();
    }

    /// When ARP may be switched to `wanted` again.
    pub fn arp_retry_for(&self, wanted: bool) -> Backoff {
        if wanted {
            self.arp_on_retry
        } else {
            self.arp_off_retry
        }
    }

    /// ARP could not be switched.
    pub fn arp_failed(&mut self, now: Time, vni: Vni) {
        if self.arp_asked {
            self.arp_on_retry.fail(now, vni.get());
        } else {
            self.arp_off_retry.fail_for(now, vni.get(), SILENCE_PAUSE);
        }
        self.fail(now);
    }

    /// ARP may be switched at once again.
    pub fn arp_unblocked(&mut self) {
        self.arp_on_retry.succeed();
        self.arp_off_retry.succeed();
    }

    /// etcd says that the row has changed, and how.
    pub fn row_changed(&mut self, now: Time, news: &RowNews) {
        self.enter(now);
        if news.lost_a_name {
            self.freed = now;
            self.released = news.given_back;
        }
    }

    /// The row has changed.
    pub fn enter(&mut self, now: Time) {
        self.entered = now;
        self.giving_up = false;
        self.vacating = false;
        self.failing_since = None;
        self.alone = false;
        self.write_retry.succeed();
    }

    /// The host did not do what it was told.
    pub fn fail(&mut self, now: Time) {
        self.failing_since.get_or_insert(now);
    }

    /// Whether FRR shows `wanted`.
    pub fn routes_are(&self, wanted: Exposure) -> bool {
        self.evpn == Some(wanted.evpn) && self.cost == Some(wanted.cost)
    }

    /// What FRR has to change to show `wanted`.
    pub fn route_change(&self, vni: Vni, wanted: Exposure) -> Option<RouteChange> {
        let evpn = (self.evpn != Some(wanted.evpn)).then_some(wanted.evpn);
        let cost = (self.cost != Some(wanted.cost)).then_some(wanted.cost);
        (evpn.is_some() || cost.is_some()).then_some(RouteChange { vni, evpn, cost })
    }

    /// FRR took `change`.
    pub fn routes_taken(&mut self, change: RouteChange, now: Time) {
        self.evpn = change.evpn.or(self.evpn);
        self.cost = change.cost.or(self.cost);
        self.routes_at = now;
        self.routes_retry.succeed();
        // Stations behind access points that only now hear of us have not seen an earlier one.
        if self.announcing.is_some() {
            self.announce_from(now);
        }
    }

    /// FRR did not take `change`, or only a part of it.
    pub fn routes_failed(&mut self, change: RouteChange, now: Time) {
        if change.evpn.is_some() {
            self.evpn = None;
        }
        if change.cost.is_some() {
            self.cost = None;
        }
        self.routes_retry.fail(now, change.vni.get());
        self.fail(now);
    }

    /// Starts announcing anew: at once, then often, then in turn.
    pub fn announce_from(&mut self, now: Time) {
        self.announcing = Some(Announcing::Early {
            at: now,
            left: ANNOUNCE_REPEATS,
        });
    }

    /// Stops announcing.
    pub fn stop_announcing(&mut self) {
        self.announcing = None;
        self.announced = None;
    }

    /// When the next announcement is due, `None` if that is when its turn comes; starts announcing if it had not.
    pub fn next_announcement(&mut self, now: Time) -> Option<Time> {
        let first = Announcing::Early {
            at: now,
            left: ANNOUNCE_REPEATS,
        };
        match self.announcing.get_or_insert(first) {
            Announcing::Early { at, .. } => Some(*at),
            Announcing::InTurn => None,
        }
    }

    /// Whether one more announcement changes nothing.
    pub fn is_long_announced(&self) -> bool {
        let announced = self.announced.is_some_and(|first| first >= self.entered);
        announced && self.announcing == Some(Announcing::InTurn)
    }

    /// Whether it is known that the bridge is there, and answers ARP or does not as `answers` says.
    pub fn has_arp(&self, answers: bool) -> bool {
        let retries = [self.arp_on_retry, self.arp_off_retry];
        let is_there = self.ability.capability() != Capability::Absent;
        self.arp == Some(answers) && is_there && retries == [Backoff::default(); 2]
    }

    /// Whether the host shows `wanted`, and took it.
    pub fn shows(&self, wanted: Exposure) -> bool {
        let routes = self.routes_are(wanted) && !self.routes_retry.is_failing();
        routes && self.arp == Some(wanted.arp)
    }

    /// An announcement went out.
    pub fn announce_sent(&mut self, now: Time) {
        // Only the first counts: repeating it more often than the network takes to settle must not keep a
        // migration from going on.
        if self.announced.is_none_or(|first| first < self.entered) {
            self.announced = Some(now);
        }
        if let Some(Announcing::Early { left, .. }) = self.announcing {
            let next = left.checked_sub(1).map(|left| Announcing::Early {
                at: now + ANNOUNCE_PAUSE,
                left,
            });
            self.announcing = Some(next.unwrap_or(Announcing::InTurn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_early_then_in_turn_for_ever() {
        let start = Time::since_boot(Duration::from_secs(100));
        let mut slot = Slot::new();
        let mut times = Vec::new();
        while let Some(at) = slot.next_announcement(start) {
            assert!(!slot.is_long_announced());
            slot.announce_sent(at);
            times.push(at.since(start).as_secs());
        }
        assert_eq!(times, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        slot.announce_sent(start + Duration::from_secs(20));
        assert_eq!(slot.next_announcement(start), None);
        assert!(slot.is_long_announced());
    }
}
