//! Which rows are written next, and how many of them in one transaction.

use super::Gateway;
use crate::model::fsm::Write;
use crate::model::types::Time;
use crate::schema::{Batch, Commit};
use std::time::Duration;

/// Rows in one transaction at most. It bounds how long a failover waits for the transaction before it; twice as
/// many take no less for each.
const MOST: usize = 256;
/// Rows in one transaction after etcd did not answer in time again and again.
const FEWEST: usize = 16;
/// How long each row goes alone after most bundles failed: others are at work on the same rows.
const ALONE: Duration = Duration::from_millis(200);

/// How rows are gathered into transactions.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How many rows etcd is asked to write at once.
    room: usize,
    /// Until when each row goes alone.
    alone_until: Time,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            room: MOST,
            alone_until: Time::default(),
        }
    }
}

impl Pace {
    /// etcd took a transaction.
    pub fn succeed(&mut self) {
        self.room = (self.room + self.room / 4 + 8).min(MOST);
    }

    /// etcd did not answer in time, or refused: perhaps it was too much for it.
    pub fn fail(&mut self) {
        self.room = (self.room / 2).max(FEWEST);
    }

    /// Of so many rows that were sent, so many were in bundles of which another node was faster on a row.
    pub fn undecided(&mut self, now: Time, undecided: usize, sent: usize) {
        if 2 * undecided > sent {
            self.alone_until = now + ALONE;
        }
    }
}

impl Gateway {
    /// The next transaction: as many as etcd is asked to write at once, the most urgent rows first.
    pub(super) fn gather(&self, now: Time, mut waiting: Vec<Commit>) -> Option<Batch> {
        if now < self.pace.alone_until {
            waiting.iter_mut().for_each(|row| row.alone = true);
        }
        // Who goes alone has been held up already, and parts the others if it stands between them.
        waiting.sort_by_key(|row| (urgency(row.write), !row.alone));
        waiting.truncate(self.pace.room);
        (!waiting.is_empty()).then(|| Batch::new(waiting))
    }
}

/// The order in which rows are written: first what nobody serves, last what is served and will be elsewhere.
fn urgency(write: Write) -> u8 {
    match write {
        Write::Claim => 0,
        Write::Own | Write::Vacate | Write::Cancel => 1,
        Write::Advance(_) => 2,
        Write::Pull => 3,
    }
}
