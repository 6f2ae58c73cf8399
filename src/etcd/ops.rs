//! What is asked of etcd and what it answers, as plain values.
//!
//! Owns no state and touches nothing. Keys and values are bytes: etcd does not promise UTF-8.

use crate::model::types::{LeaseId, Revision};
use std::time::Duration;

/// One key of the store as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty in the event of a deletion and where only keys were asked for.
    pub value: Vec<u8>,
    /// The revision of its last change; in the event of a deletion, that of the deletion.
    pub mod_revision: Revision,
    /// The revision at which it was created; 0 in the event of a deletion.
    pub create_revision: Revision,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
}

/// The keys that were asked for, all as of one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeReply {
    /// The revision of the store at which the keys were read.
    pub revision: Revision,
    /// How many keys there are.
    pub count: u64,
    /// The keys, in bytewise order.
    pub kvs: Vec<KeyValue>,
}

/// How new the keys of a prefix are, without the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Newest {
    /// The revision of the store at which this was read.
    pub revision: Revision,
    /// The greatest `mod_revision` of the keys that exist; 0 if there are none. A deletion does not
    /// raise it: compare `count` as well.
    pub mod_revision: Revision,
    /// How many keys there are.
    pub count: u64,
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberStatus {
    /// Its version.
    pub version: String,
    /// The identity of its cluster.
    pub cluster: u64,
    /// Whether it knows a leader.
    pub has_leader: bool,
    /// How many bytes its data take.
    pub size: u64,
    /// How many they may take, if it says so.
    pub quota: Option<u64>,
    /// The alarms that it knows of, in its own words.
    pub alarms: Vec<String>,
}

/// What etcd's reply to a keepalive says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// What the lease has left from some moment after the call began; `None` if it is gone.
    pub ttl: Option<Duration>,
    /// The raft term of the member that answered; never 0.
    pub term: u64,
}

/// What became of a renewal that etcd's majority was asked to confirm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// The lease has this much left, from some moment after the call began.
    Held(Duration),
    /// The lease is gone.
    Gone,
    /// The member that renewed the lease may not have been the leader any more. The renewal does not count.
    LeaderChanged,
}

/// A lease that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Its identity.
    pub id: LeaseId,
    /// Its time to live, which may be longer than what was asked for.
    pub ttl: Duration,
}

/// Conditions, and what happens at one revision if all of them hold, or else.
///
/// Sent again after a failure whose outcome is unknown, so its conditions must make it harmless twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// All must hold; none at all always holds.
    pub compares: Vec<Compare>,
    /// Done if they hold.
    pub then: Vec<Op>,
    /// Done if they do not.
    pub otherwise: Vec<Op>,
}

/// A condition on a key. A key that does not exist has revision 0 and lease 0, and no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was last changed before revision `than`, or does not exist.
    ModRevisionLess {
        /// The key.
        key: Vec<u8>,
        /// The first revision that is too new.
        than: Revision,
    },
    /// The key was last changed at `revision`; 0 means that it does not exist.
    ModRevisionIs {
        /// The key.
        key: Vec<u8>,
        /// The revision of its last change.
        revision: Revision,
    },
    /// The key was created at `revision`; 0 means that it does not exist.
    CreateRevisionIs {
        /// The key.
        key: Vec<u8>,
        /// The revision of its creation.
        revision: Revision,
    },
    /// The key exists and is attached to `lease`; 0 means to none.
    LeaseIs {
        /// The key.
        key: Vec<u8>,
        /// Its lease.
        lease: LeaseId,
    },
    /// The key does not exist, or has another lease than `lease`.
    LeaseIsNot {
        /// The key.
        key: Vec<u8>,
        /// The lease.
        lease: LeaseId,
    },
    /// The key exists and has `value`.
    ValueIs {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
        /// The lease that it shall end with; `None` takes it off any lease.
        lease: Option<LeaseId>,
    },
    /// Writes a key that exists, and leaves it on its lease. etcd refuses the transaction if there is no such key.
    Overwrite {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Deletes one key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Reads one key.
    Range {
        /// The key.
        key: Vec<u8>,
    },
    /// A transaction inside: its conditions decide for itself only.
    Txn(Txn),
}

/// The outcome of a transaction. That its conditions did not hold is an outcome, not an error.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TxnReply {
    /// The revision of the store after it.
    pub revision: Revision,
    /// Whether all conditions held.
    pub succeeded: bool,
    /// One reply for each operation that was done, in their order.
    pub responses: Vec<OpReply>,
}

/// The outcome of one operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpReply {
    /// Written.
    Put,
    /// Deleted.
    Delete {
        /// How many keys there were to delete.
        deleted: u64,
    },
    /// Read.
    Range(RangeReply),
    /// The outcome of a nested transaction.
    Txn(TxnReply),
}

/// The changes that etcd sent at once: one or more whole revisions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchBatch {
    /// The greatest `mod_revision` of the events: the watch is reopened after it.
    pub revision: Revision,
    /// The changes, oldest first.
    pub events: Vec<WatchEvent>,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchEvent {
    /// The key after the change.
    pub kv: KeyValue,
    /// Whether it was deleted (by hand or with its lease).
    pub deleted: bool,
}
