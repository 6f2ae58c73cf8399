//! What every VNI gets over and over, whether or not anything happens to it: ARP is written again, and gratuitous
//! ARP refreshed. A part of them gets its turn each second, all in one wake of the worker and without a look at
//! what they are: what the last pass found of them still holds.

use super::Gateway;
use super::plan::{ANNOUNCEMENTS, Batch};
use crate::model::types::Time;
use std::time::Duration;

/// How often some of them get their turn.
const TURN: Duration = Duration::from_secs(1);
/// ARP of each VNI is written again every 30 s, whatever we believe that it is: not of all at once, as whoever
/// switches many holds up whoever must fence.
const AUDIT: usize = 30;
/// Gratuitous ARP is refreshed every 10 s, for stations that missed what was sent at the takeover.
const REFRESH: usize = 10;

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    next: Time,
    audit: Cursor,
    refresh: Cursor,
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

impl Gateway {
    /// After a pass, as what is found must be of now.
    pub(super) fn take_turns(&mut self, now: Time, batch: &mut Batch) {
        let all = self.slots.len();
        if self.turns.next <= now {
            // As many as are overdue.
            let missed = now.since(self.turns.next).as_secs() / TURN.as_secs();
            let turns = usize::try_from(missed).unwrap_or(usize::MAX);
            let turns = turns.saturating_add(1);
            self.turns.audit.add(turns, AUDIT, all);
            self.turns.refresh.add(turns, REFRESH, all);
            self.turns.next = now + TURN;
        }
        batch.wake_at(self.turns.next);

        let Turns { audit, refresh, .. } = &mut self.turns;
        for (vni, found) in self.slots.findings_from(audit.at).take(audit.left) {
            match found.arp {
                Some(true) => batch.arp_on.push((vni, true)),
                Some(false) => batch.arp_off.push((vni, false)),
                // Being switched, or about to be.
                None => {}
            }
        }
        audit.pass(audit.left, all);

        if refresh.left > 0 && self.next_announcement_slot > now {
            batch.wake_at(self.next_announcement_slot);
            return;
        }
        // What is announced for the first time may need all of the room for a while, but must not have it.
        let room = ANNOUNCEMENTS.saturating_sub(batch.announcements.len());
        let room = room.max(ANNOUNCEMENTS / 10);
        let mut passed = 0;
        for (vni, found) in self.slots.findings_from(refresh.at).take(refresh.left) {
            if batch.refreshes.len() == room {
                break;
            }
            passed += 1;
            if found.refreshed {
                batch.refreshes.push(vni);
            }
        }
        refresh.pass(passed, all);
    }
}
