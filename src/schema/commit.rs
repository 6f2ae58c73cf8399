//! Rows as they are written: many in one transaction, each with a say of its own or in stretches. Pure.

use super::{Key, Meta, meta_bytes};
use crate::etcd::{Compare, Op, OpReply, Txn, TxnReply};
use crate::fsm::Write;
use crate::types::{LeaseId, NodeName, Revision, Vni};
use std::iter;

/// Operations in one transaction, those of one nested transaction counted in: etcd refuses more, unless its
/// `--max-txn-ops` says so.
const OPERATIONS: usize = 128;
/// Rows in one batch in which each has its own say: three keys each.
const ROWS: usize = OPERATIONS - 3;
/// Keys that one stretch writes at most: as many as there may be stretches.
const STRETCH_KEYS: usize = OPERATIONS / 2;
/// Stretches in one batch; the mark of time goes along.
const STRETCHES: usize = OPERATIONS - STRETCH_KEYS - 1;
/// VNIs from one row of a stretch to the next at most, in the order of keys. etcd reads the keys of all VNIs of a
/// stretch for its condition, which is cheap beside the text of a condition for each row, but not for nothing.
const GAP: u64 = 16;

/// One row to write, if it is still the one that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Whose row.
    pub vni: Vni,
    /// The revision of its `type` key that the decision was made on.
    pub read: Revision,
    /// Up to this revision, nobody has written the row since: all of it is known from etcd, or we wrote it then.
    pub known: Revision,
    /// What to write.
    pub write: Write,
    /// `current` may hold something that a claim has to empty: a third less to write for each orphan without.
    pub has_current: bool,
}

/// Rows that stand close to each other in etcd, all known up to the same revision, in the order of
/// [`neighbourhood`]. They are written or not written together.
pub type Stretch = Vec<Commit>;

/// Rows to write in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Each is written if nobody has written its `type` since it was read.
    Rows(Vec<Commit>),
    /// Each stretch is written if nobody has written any key from its first row to its last since its rows were
    /// known. That is one condition for many rows, of which etcd's gateway takes less than half the time; but a
    /// write of anybody to any row in between is in its way.
    Stretches(Vec<Stretch>),
}

/// What became of one write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was written.
    Written,
    /// The row is not the one any more that was read.
    Beaten,
    /// Somebody wrote this row or one near it: to be tried by itself.
    Crossed,
}

impl Batch {
    /// As many of `rows` as fit into one transaction, the first ones.
    pub fn rows(mut rows: Vec<Commit>) -> Batch {
        rows.truncate(ROWS);
        Batch::Rows(rows)
    }

    /// As many of `rows` as fit into one transaction in stretches, the first ones, if no VNI of the cluster is
    /// greater than `greatest`. `None` if they stand too far apart for that to be cheaper.
    pub fn stretches(rows: &[Commit], greatest: Vni) -> Option<Batch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut keys = 0;
        for &row in rows {
            let fits = stretches
                .last()
                .and_then(|it| it.last())
                .is_some_and(|last| {
                    keys + row.keys() <= STRETCH_KEYS
                        && row.known == last.known
                        && is_near(last.vni, row.vni, greatest)
                });
            if !fits {
                if stretches.len() == STRETCHES {
                    break;
                }
                stretches.push(Vec::new());
                keys = 0;
            }
            if let Some(stretch) = stretches.last_mut() {
                stretch.push(row);
                keys += row.keys();
            }
        }
        let written: usize = stretches.iter().map(Vec::len).sum();
        let cheaper = written >= 4 * stretches.len();
        cheaper.then_some(Batch::Stretches(stretches))
    }

    /// All rows of the batch, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Commit> {
        let (rows, stretches): (&[Commit], &[Stretch]) = match self {
            Batch::Rows(rows) => (rows, &[]),
            Batch::Stretches(stretches) => (&[], stretches),
        };
        rows.iter().chain(stretches.iter().flatten())
    }

    /// The VNIs of the rows.
    pub fn vnis(&self) -> Vec<Vni> {
        self.iter().map(|row| row.vni).collect()
    }
}

/// Whom a write puts into a key.
#[derive(Clone, Copy)]
enum Name {
    Me,
    Nobody,
}

impl Commit {
    /// What it puts into `current` and into `next`, where it writes them at all.
    fn names(&self) -> [Option<Name>; 2] {
        let (me, nobody) = (Some(Name::Me), Some(Name::Nobody));
        match self.write {
            Write::Vacate => [nobody, nobody],
            Write::Claim => [nobody.filter(|_| self.has_current), me],
            Write::Pull => [None, me],
            Write::Advance(_) => [None, None],
            Write::Own => [me, nobody],
            Write::Cancel => [None, nobody],
        }
    }

    /// How many keys it writes, `type` among them.
    fn keys(&self) -> usize {
        1 + self.names().into_iter().flatten().count()
    }
}

/// The most digits that a VNI has.
const DIGITS: u32 = 8;

/// The place of a VNI among the keys of all VNIs: they stand in the order of their digits, 10 before 9.
pub fn neighbourhood(vni: Vni) -> u64 {
    aligned(vni) * 8 + u64::from(vni.get().ilog10())
}

/// The number with zeros behind it, up to as many digits as any VNI has.
fn aligned(vni: Vni) -> u64 {
    u64::from(vni.get()) * 10u64.pow(DIGITS - 1 - vni.get().ilog10())
}

/// Whether `vni` comes soon after `last`, if there are VNIs up to `greatest`.
fn is_near(last: Vni, vni: Vni, greatest: Vni) -> bool {
    let of_length = |length: u32| {
        let unit = 10u64.pow(DIGITS - 1 - length);
        let end = (aligned(vni) / unit).min(greatest.get().into());
        end.saturating_sub(aligned(last) / unit)
    };
    let between: u64 = (0..=greatest.get().ilog10()).map(of_length).sum();
    neighbourhood(last) < neighbourhood(vni) && between <= GAP
}

/// The transaction that writes a batch, all of it under the condition that `me` is still registered under
/// `lease`. What the node says of itself, if given, is written along: it marks the time of the revision at no
/// cost, unless the batch is full.
pub fn commit(me: &NodeName, lease: LeaseId, batch: &Batch, mark: Option<&Meta>) -> Txn {
    let then: Vec<Op> = match batch {
        Batch::Rows(rows) => rows
            .iter()
            .map(|row| Op::Txn(row_txn(me, lease, row)))
            .collect(),
        Batch::Stretches(stretches) => stretches
            .iter()
            .map(|stretch| Op::Txn(stretch_txn(me, lease, stretch)))
            .collect(),
    };
    let mark = mark.filter(|_| then.len() < ROWS).map(|meta| Op::Put {
        key: Key::Meta(me.clone()).bytes(),
        value: meta_bytes(meta),
        lease: Some(lease),
    });
    Txn {
        compares: vec![Compare::LeaseIs {
            key: Key::Node(me.clone()).bytes(),
            lease,
        }],
        then: then.into_iter().chain(mark).collect(),
        otherwise: Vec::new(),
    }
}

fn row_txn(me: &NodeName, lease: LeaseId, row: &Commit) -> Txn {
    Txn {
        compares: vec![Compare::ModRevisionLess {
            key: Key::Kind(row.vni).bytes(),
            than: row.read.next(),
        }],
        then: puts(me, lease, row),
        otherwise: Vec::new(),
    }
}

fn stretch_txn(me: &NodeName, lease: LeaseId, stretch: &Stretch) -> Txn {
    let ends = stretch.first().zip(stretch.last());
    let condition = ends.map(|(first, last)| Compare::AllModRevisionsLess {
        key: format!("/wmgwd/vni/{}/", first.vni).into_bytes(),
        // What follows the last row's keys.
        end: format!("/wmgwd/vni/{}0", last.vni).into_bytes(),
        than: last.known.next(),
    });
    Txn {
        compares: condition.into_iter().collect(),
        then: stretch
            .iter()
            .flat_map(|row| puts(me, lease, row))
            .collect(),
        otherwise: Vec::new(),
    }
}

fn puts(me: &NodeName, lease: LeaseId, row: &Commit) -> Vec<Op> {
    let put = |key: Key, value: &[u8], lease| Op::Put {
        key: key.bytes(),
        value: value.to_vec(),
        lease,
    };
    let kind = row.write.kind().number().to_string();
    let kind = put(Key::Kind(row.vni), kind.as_bytes(), None);
    let keys = [Key::Current(row.vni), Key::Next(row.vni)];
    let names = keys.into_iter().zip(row.names());
    let names = names.filter_map(|(key, name)| {
        Some(match name? {
            Name::Me => put(key, me.as_str().as_bytes(), Some(lease)),
            Name::Nobody => put(key, b"", None),
        })
    });
    iter::once(kind).chain(names).collect()
}

/// What became of the rows of a [`commit`]; `None` if the node is not registered under that lease any more.
pub fn committed(batch: &Batch, reply: &TxnReply) -> Option<Vec<(Vni, Write, Fate)>> {
    let fate = |response: Option<&OpReply>, otherwise| match response {
        Some(OpReply::Txn(inner)) if inner.succeeded => Fate::Written,
        _ => otherwise,
    };
    let told = |row: &Commit, fate| (row.vni, row.write, fate);
    let each = match batch {
        Batch::Rows(rows) => rows
            .iter()
            .enumerate()
            .map(|(at, row)| told(row, fate(reply.responses.get(at), Fate::Beaten)))
            .collect(),
        Batch::Stretches(stretches) => stretches
            .iter()
            .enumerate()
            .flat_map(|(at, stretch)| {
                let fate = fate(reply.responses.get(at), Fate::Crossed);
                stretch.iter().map(move |row| told(row, fate))
            })
            .collect(),
    };
    reply.succeeded.then_some(each)
}
