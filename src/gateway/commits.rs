//! Which rows are written next, and how many of them in one transaction.

use super::Gateway;
use crate::fsm::Write;
use crate::schema::{Batch, Commit, neighbourhood};
use crate::types::{Time, Vni};
use std::time::Duration;

/// Rows in one transaction at most. It bounds how long a failover waits for the transaction before it, and how
/// much of a share nodes write at once that want not to cross each other; twice as many take no less for each.
const MOST: usize = 256;
/// Rows in one transaction after etcd did not answer in time again and again.
const FEWEST: usize = 16;
/// With fewer rows than this, each has its own say.
const WORTHWHILE: usize = 4;
/// How long each row has its own say after most stretches were crossed: others are at work there.
const CROSSED_PAUSE: Duration = Duration::from_millis(200);

/// How rows are gathered into transactions.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How many rows etcd is asked to write at once.
    room: usize,
    /// Until when rows are not written in stretches.
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

    /// Of so many rows that were sent in stretches, so many were crossed.
    pub fn crossed(&mut self, now: Time, crossed: usize, sent: usize) {
        if 2 * crossed > sent {
            self.alone_until = now + CROSSED_PAUSE;
        }
    }
}

/// A row that waits to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub row: Commit,
    /// It was crossed once.
    pub alone: bool,
}

impl Gateway {
    /// The next transaction: of the most urgent rows, as many as etcd is asked to write at once.
    pub(super) fn gather(&self, now: Time, mut waiting: Vec<Waiting>) -> Option<Batch> {
        let most_urgent = waiting.iter().map(|it| urgency(it.row.write)).min()?;
        if now >= self.pace.alone_until {
            let together = waiting
                .iter()
                .filter(|it| urgency(it.row.write) == most_urgent && !it.alone);
            let together: Vec<Commit> = together.map(|it| it.row).collect();
            if together.len() >= WORTHWHILE {
                let start = self.start_of_sweep();
                let place = |row: &Commit| neighbourhood(row.vni).wrapping_sub(start);
                let rows = first(together, self.pace.room, place);
                let batch = Batch::stretches(&rows, self.greatest);
                if batch.is_some() {
                    return batch;
                }
            }
        }
        waiting.sort_by_key(|it| urgency(it.row.write));
        let rows = waiting.iter().map(|it| it.row);
        Some(Batch::rows(rows.take(self.pace.room).collect()))
    }

    /// Where this node begins to write, among the keys of all VNIs. Each begins elsewhere, so that they do not
    /// cross each other while they all go through them, as they do when all start at once and when one dies.
    fn start_of_sweep(&self) -> u64 {
        let range = self.config.range;
        let (place, count) = self.ring.place(&self.config.me).unwrap_or((0, 1));
        let offset = range.len() * place / count;
        let first = u32::try_from(offset).unwrap_or(0) + range.first().get();
        Vni::new(first).map_or(0, neighbourhood)
    }
}

/// The first `count` of `rows` by their place, in order.
fn first(mut rows: Vec<Commit>, count: usize, place: impl Fn(&Commit) -> u64) -> Vec<Commit> {
    if rows.len() > count {
        rows.select_nth_unstable_by_key(count, &place);
        rows.truncate(count);
    }
    rows.sort_unstable_by_key(place);
    rows
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
