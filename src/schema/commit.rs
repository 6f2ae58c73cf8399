//! Rows as they are written: many in one transaction, in bundles. Pure.

use super::{Key, Meta, put_meta};
use crate::etcd::{Compare, Op, OpReply, Txn, TxnReply};
use crate::model::fsm::Write;
use crate::model::types::{LeaseId, NodeName, Revision, Vni};
use std::iter;

/// Operations in one transaction, those of one nested transaction counted in: etcd refuses more, unless its
/// `--max-txn-ops` says so.
const OPERATIONS: usize = 128;
/// Keys that one bundle writes at most: as many as there may be such bundles.
const BUNDLE_KEYS: usize = OPERATIONS / 2;

/// One row to write, if it is still the one that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Whose row.
    pub vni: Vni,
    /// The revision of its `type` key that the decision was made on.
    pub read: Revision,
    /// What to write.
    pub write: Write,
    /// `current` may hold something that a claim has to empty: a third less to write for each orphan without.
    pub has_current: bool,
    /// It goes without others: as one of a bundle it was not written.
    pub alone: bool,
}

/// Rows that are written or not written together: one transaction within the whole, under a condition on each of
/// them. A transaction a row takes etcd's gateway a third longer.
pub type Bundle = Vec<Commit>;

/// Rows to write in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch(Vec<Bundle>);

/// What became of one write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitResult {
    /// It was written.
    Written,
    /// The row is not the one any more that was read.
    Beaten,
    /// A row of its bundle is not the one any more that was read, perhaps this one: to be tried alone.
    Undecided,
}

/// Whether etcd takes so many bundles at once, of which one writes `most` keys and no other more.
fn fits(bundles: usize, most: usize) -> bool {
    bundles + most <= OPERATIONS
}

/// How many keys a bundle writes.
fn keys(bundle: &Bundle) -> usize {
    bundle.iter().map(Commit::keys).sum()
}

impl Batch {
    /// As many of `rows` as fit into one transaction, the first ones.
    pub fn new(rows: impl IntoIterator<Item = Commit>) -> Batch {
        let mut bundles: Vec<Bundle> = Vec::new();
        // Of the last bundle, and the most of any.
        let (mut keys, mut most) = (0, 0);
        for row in rows {
            let joined = keys + row.keys();
            let is_open = |last: &Bundle| !row.alone && last.iter().all(|row| !row.alone);
            let count = bundles.len();
            match bundles.last_mut().filter(|last| is_open(last)) {
                Some(last) if joined <= BUNDLE_KEYS && fits(count, most.max(joined)) => {
                    last.push(row);
                    keys = joined;
                }
                _ if fits(count + 1, most.max(row.keys())) => {
                    bundles.push(vec![row]);
                    keys = row.keys();
                }
                _ => break,
            }
            most = most.max(keys);
        }
        Batch(bundles)
    }

    /// The bundles, each of one row at least.
    pub fn bundles(&self) -> &[Bundle] {
        &self.0
    }

    /// All rows of the batch, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Commit> {
        self.0.iter().flatten()
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
    Empty,
}

impl Commit {
    /// What it puts into `current` and into `next`, where it writes them at all.
    fn names(&self) -> [Option<Name>; 2] {
        let (me, empty) = (Some(Name::Me), Some(Name::Empty));
        match self.write {
            Write::Vacate => [empty, empty],
            Write::Claim => [empty.filter(|_| self.has_current), me],
            Write::Pull => [None, me],
            Write::Advance(_) => [None, None],
            Write::Own => [me, empty],
            Write::Cancel => [None, empty],
        }
    }

    /// How many keys it writes, `type` among them.
    fn keys(&self) -> usize {
        1 + self.names().into_iter().flatten().count()
    }
}

/// The transaction that writes a batch, all of it under the condition that `me` is still registered under
/// `lease`. What the node says of itself, if given, is written along: it marks the time of the revision at no
/// cost, unless the batch is full.
pub fn commit(me: &NodeName, lease: LeaseId, batch: &Batch, mark: Option<&Meta>) -> Txn {
    let bundles = batch.bundles();
    let most = bundles.iter().map(keys).max().unwrap_or(0);
    // An operation as a bundle is.
    let has_room = fits(bundles.len() + 1, most);
    let mark = mark.filter(|_| has_room);
    let mark = mark.map(|meta| put_meta(me, lease, meta));
    let bundles = bundles.iter().map(|it| Op::Txn(bundle_txn(me, lease, it)));
    Txn {
        compares: vec![Compare::LeaseIs {
            key: Key::Node(me.clone()).bytes(),
            lease,
        }],
        then: bundles.chain(mark).collect(),
        otherwise: Vec::new(),
    }
}

fn bundle_txn(me: &NodeName, lease: LeaseId, bundle: &Bundle) -> Txn {
    let condition = |row: &Commit| Compare::ModRevisionLess {
        key: Key::Kind(row.vni).bytes(),
        than: row.read.next(),
    };
    Txn {
        compares: bundle.iter().map(condition).collect(),
        then: bundle.iter().flat_map(|row| puts(me, lease, row)).collect(),
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
            Name::Empty => put(key, b"", None),
        })
    });
    iter::once(kind).chain(names).collect()
}

/// What became of the rows of a [`commit`]; `None` if the node is not registered under that lease any more.
pub fn committed(batch: &Batch, reply: &TxnReply) -> Option<Vec<(Vni, Write, CommitResult)>> {
    let told = |(at, bundle): (usize, &Bundle)| {
        let fate = match reply.responses.get(at) {
            Some(OpReply::Txn(inner)) if inner.succeeded => CommitResult::Written,
            _ if bundle.len() == 1 => CommitResult::Beaten,
            _ => CommitResult::Undecided,
        };
        let each = bundle.iter().map(move |row| (row.vni, row.write, fate));
        each.collect::<Vec<_>>()
    };
    reply
        .succeeded
        .then(|| batch.bundles().iter().enumerate().flat_map(told).collect())
}
