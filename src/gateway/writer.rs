//! Which rows are written next, how many of them in one transaction, and when after a failure.

use super::backoff::Backoff;
use crate::model::fsm::Write;
use crate::model::types::{Time, Vni};
use crate::schema::{Batch, Commit};
use std::time::Duration;

/// Rows in one transaction at most. It bounds how long a failover waits for the transaction before it; twice as
/// many take no less time for each row.
const MOST: usize = 256;
/// Rows in one transaction after etcd failed to answer in time several times.
const FEWEST: usize = 16;
/// How long each row is written alone after most bundles failed: other nodes write the same rows.
const ALONE: Duration = Duration::from_millis(200);

/// How rows are gathered into transactions.
#[derive(Clone, Debug)]
pub struct Writer {
    /// How many rows etcd is asked to write at once.
    room: usize,
    /// Until when each row is written alone.
    alone_until: Time,
    /// Pauses while etcd does not take transactions.
    retry: Backoff,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer {
            room: MOST,
            alone_until: Time::default(),
            retry: Backoff::default(),
        }
    }
}

impl Writer {
    /// etcd took a transaction of `sent` rows. Of them, `undecided` were in bundles of which another node was faster
    /// on a row.
    pub fn succeed(&mut self, now: Time, undecided: usize, sent: usize) {
        self.retry.succeed();
        self.room = (self.room + self.room / 4 + 8).min(MOST);
        if 2 * undecided > sent {
            self.alone_until = now + ALONE;
        }
    }

    /// etcd did not answer in time, or refused: perhaps the transaction was too large.
    pub fn fail(&mut self, now: Time, vnis: &[Vni]) {
        self.room = (self.room / 2).max(FEWEST);
        let salt = vnis.first().map_or(0, |vni| vni.get());
        self.retry.fail(now, salt);
    }

    /// Whether a transaction may be sent.
    pub fn may_write(&self, now: Time) -> bool {
        self.retry.is_over(now)
    }

    /// When the next transaction may be sent.
    pub fn retry_at(&self) -> Time {
        self.retry.until()
    }

    /// The next transaction: as many rows as etcd is asked to write at once, the most urgent ones first.
    pub fn gather(&self, now: Time, mut waiting: Vec<Commit>) -> Option<Batch> {
        if now < self.alone_until {
            waiting.iter_mut().for_each(|row| row.alone = true);
        }
        // A row that is written alone has waited already, and would split the bundle that it is in the middle of.
        waiting.sort_by_key(|row| (urgency(row.write), !row.alone));
        waiting.truncate(self.room);
        (!waiting.is_empty()).then(|| Batch::new(waiting))
    }
}

/// The order in which rows are written: first VNIs that no node serves, last those that are served and will be
/// elsewhere.
fn urgency(write: Write) -> u8 {
    match write {
        Write::Claim => 0,
        Write::Own | Write::Vacate | Write::Cancel => 1,
        Write::Advance(_) => 2,
        Write::Pull => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::Revision;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));

    fn row(number: u32, write: Write) -> Commit {
        Commit {
            vni: Vni::new(number).expect("a VNI"),
            read: Revision(1),
            write,
            has_current: false,
            alone: false,
        }
    }

    fn rows(count: u32) -> Vec<Commit> {
        (1..=count)
            .map(|number| row(number, Write::Claim))
            .collect()
    }

    fn size(writer: &Writer, now: Time) -> usize {
        let batch = writer.gather(now, rows(1_000));
        batch.map_or(0, |batch| batch.iter().count())
    }

    #[test]
    fn urgent_rows_go_first() {
        let writes = [Write::Pull, Write::Own, Write::Claim];
        let waiting = (1..).zip(writes).map(|(number, write)| row(number, write));
        let batch = Writer::default()
            .gather(NOW, waiting.collect())
            .expect("rows");
        let order: Vec<Write> = batch.iter().map(|row| row.write).collect();
        assert_eq!(order, [Write::Claim, Write::Own, Write::Pull]);
        assert!(Writer::default().gather(NOW, Vec::new()).is_none());
    }

    #[test]
    fn a_slow_etcd_gets_smaller_transactions_after_a_pause() {
        let mut writer = Writer::default();
        assert_eq!(size(&writer, NOW), MOST);
        for _ in 0..10 {
            writer.fail(NOW, &[]);
        }
        assert_eq!(size(&writer, NOW), FEWEST);
        assert!(!writer.may_write(NOW) && writer.may_write(writer.retry_at()));
        writer.succeed(NOW, 0, 16);
        assert!(writer.may_write(NOW) && size(&writer, NOW) > FEWEST);
    }

    #[test]
    fn rows_go_alone_for_a_while_after_most_bundles_failed() {
        let mut writer = Writer::default();
        let alone = |writer: &Writer, now| {
            let batch = writer.gather(now, rows(3)).expect("rows");
            batch.iter().all(|row| row.alone)
        };
        writer.succeed(NOW, 8, 16);
        assert!(!alone(&writer, NOW));
        writer.succeed(NOW, 9, 16);
        assert!(alone(&writer, NOW) && !alone(&writer, NOW + ALONE));
    }
}
