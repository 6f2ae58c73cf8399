//! What the daemon tells its guard about epochs, and what the guard tells it about the proof.

use super::{Epoch, Number, Run};
use crate::model::types::{Lease, LeaseId, Time};
use crate::witness::siphash::Key;
use core::net::SocketAddr;
use std::time::Duration;

/// A node that the guard may send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its lease.
    pub lease: LeaseId,
    /// Its run.
    pub run: Run,
    /// The key of what the two send to each other, with this node as the owner.
    pub link: Key,
    /// Where its daemon receives beats.
    pub address: SocketAddr,
    /// Whether to try it, beyond what epochs name.
    pub trial: bool,
}

/// What the daemon tells the guard, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// This lease is the node's, with the epochs under it that the daemon knows. A guard that was not told hears this
    /// before it hears of the lease otherwise. To a guard that knows the lease already, it adds nothing that would
    /// prolong a proof. An unanswered epoch is answered by [`Report::Noted`]. Before it answers, the guard cuts what
    /// the kernel was granted, perhaps by another guard, to the proof as it is now; so for [`Order::Propose`].
    Begin {
        /// The lease.
        lease: Lease,
        /// The node's half of the keys of its datagrams: a daemon that takes the lease over publishes it again, so
        /// that the guard's datagrams stay valid.
        key: Key,
        /// The epoch in place.
        in_place: Option<Epoch>,
        /// Until when that epoch proves the node, by what another guard has counted before this one was started.
        proved: Time,
        /// The epoch that was or is about to be sent, and of which the daemon does not know whether it is in place.
        unanswered: Option<Epoch>,
    },
    /// The lease was granted or renewed. A lease that the guard has not heard of has no epoch yet: it decides alone.
    Renewed(Lease),
    /// The daemon is about to send this epoch to etcd, for the first time. It does not before [`Report::Noted`].
    Propose(Epoch),
    /// This epoch is in place: no other transaction under the condition of its own can be executed any more.
    InPlace(Number),
    /// The node was evicted, or ends its lease itself: there is no proof under it any more.
    Ended(LeaseId),
    /// All other nodes that can be sent to, in place of those told before.
    Peers(Vec<Peer>),
}

/// What a guard tells a daemon that takes it over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The lease.
    pub lease: Lease,
    /// The node's half of the keys.
    pub key: Key,
    /// The epoch in place, as far as the predecessor said.
    pub in_place: Option<Epoch>,
    /// The epoch of which the predecessor did not say whether it is in place.
    pub unanswered: Option<Epoch>,
}

/// What the guard tells the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// From now on the proof counts under this epoch, too.
    Noted(Number),
    /// How the proof is.
    Proof(Proof),
}

/// How the proof is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// Of which lease; `None` if there is none.
    pub lease: Option<LeaseId>,
    /// Until when there is proof.
    pub until: Time,
    /// Until when each epoch proves the node, the lease left aside.
    pub epochs: Vec<(Number, Time)>,
    /// When the newest acknowledged beat or answered trial was sent to a node, by its lease.
    pub heard: Vec<(LeaseId, Time)>,
    /// How often the witnesses' part of the proof was lost, since the guard began.
    pub losses: u64,
    /// How often the guard woke up later than half of the margin.
    pub late: u64,
    /// The least time that the witnesses' part of the proof had left, since the daemon was told last; `None` if no
    /// witness is named.
    pub lowest: Option<Duration>,
    /// How late the guard woke up to send beats at most, since then.
    pub lateness: Duration,
    /// What the guard has sent and received; told with the other news only.
    pub traffic: Traffic,
}

/// What the guard has sent and received, since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Beats and trials that it sent.
    pub sent: u64,
    /// Answers to them.
    pub answers: u64,
    /// Datagrams that the kernel dropped, because the guard's socket was full.
    pub dropped: u64,
}
