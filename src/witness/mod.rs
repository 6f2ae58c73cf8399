//! Early detection: other nodes replace a dead gateway long before its lease ends, and no VNI ever has two owners.
//!
//! In this module the *owner* is the node whose witnesses are counted, whether or not it serves a VNI. An etcd lease
//! lasts seconds. So an owner names up to three other nodes as its witnesses in one etcd key, its *epoch*, and sends
//! them datagrams, its *beats*. While at least half of the witnesses acknowledge the beats and the lease holds, the
//! owner has *proof* and may serve. A witness that has acknowledged nothing for a while votes. Enough votes write
//! `evicted` over the epoch, and the witnesses then end the owner's lease.
//!
//! Any set of witnesses that proves the owner and any set that evicts it have a witness in common. A witness votes only
//! after it has acknowledged nothing for longer than the window, and never acknowledges that epoch again. So an owner
//! that is evicted has no proof. etcd orders the epochs of an owner and its eviction: if the owner has named other
//! witnesses meanwhile, etcd refuses the votes of the former ones.
//!
//! ```text
//!            owner X                                                      witness P
//!  +--------+  orders, reports   +--------+   beats                 +--------+
//!  | guard: |<-- Unix socket --->| daemon:|   ............>.......  | daemon:|
//!  | Prover |                    | Owner  |                         | Voter  |
//!  +--------+                    | Voter  |                         | Owner  |
//!      |   ^                     +--------+                         +--------+
//!      |   |                          |  epochs              votes      |  ^
//!      |   |                          +---------> etcd <----------------+  |
//!      |   +---- acknowledgements -----------------------------------------+
//!      +-------- beats --------------------------------------------------->
//! ```
//!
//! - [`prover`]: the guard's part. Sends beats, counts acknowledgements, knows until when there is proof. It lives
//!   on when the daemon dies.
//! - [`owner`]: the daemon's part for its own node: when to write which epoch.
//! - [`voter`]: the daemon's part for other nodes: acknowledging, voting, ending the leases of the evicted.
//! - [`choice`]: whom an owner names. [`datagram`], [`siphash`]: what is sent. [`message`]: what daemon and guard
//!   tell each other.
//!
//! All of it is pure: time is an argument (CLOCK_BOOTTIME of one machine), randomness comes from a seed. The rules
//! were checked with a model before they were written; `sim` holds this code to them. A change of a rule needs both.

pub mod choice;
pub mod datagram;
pub mod draw;
pub mod isolation;
pub mod message;
pub mod owner;
pub mod prover;
pub mod siphash;
pub mod voter;

#[cfg(test)]
mod sim;

use crate::model::types::{LeaseId, NodeName, Revision};
use core::net::SocketAddr;
use siphash::Key;
use std::time::Duration;

/// An owner has this many witnesses at most: with three, one may fail unnoticed.
pub const MOST: usize = 3;
/// The shortest window. Below it, an ordinary hiccup of a scheduler is a lost proof.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// The longest window that is read: no lease is longer.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// The UDP port at which beats are received, if none is given. No service is registered for it (IANA, 2026).
pub const PORT: u16 = 14789;
/// The least margin: the granularity of the kernel's timers, and the time to silence all VNIs.
const LEAST_MARGIN: Duration = Duration::from_millis(25);

/// One start of a daemon: a number drawn at random. A daemon that takes over its predecessor's lease does not know
/// where that one stopped acknowledging, so it is a different witness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run(pub u64);

/// Identifies one epoch of an owner: the owner draws the number at random, and keeps it when it repeats the
/// transaction. A beat carries it, because the owner sends beats for an epoch before it knows the epoch's revision in
/// etcd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number(pub u64);

/// A witness, as an epoch names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Witness {
    /// Its name.
    pub name: NodeName,
    /// Its lease.
    pub lease: LeaseId,
    /// Its run.
    pub run: Run,
}

/// The witnesses that prove an owner, until the owner writes its next epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    /// The owner's lease.
    pub lease: LeaseId,
    /// How long an acknowledged beat proves the owner.
    pub window: Duration,
    /// What the owner calls it.
    pub number: Number,
    /// [`MOST`] at most, each once. If there are none, the lease alone decides.
    pub witnesses: Vec<Witness>,
}

impl Epoch {
    /// How many acknowledgements prove the owner.
    pub fn proving(&self) -> usize {
        self.witnesses.len().div_ceil(2)
    }

    /// How many votes evict the owner. The witnesses that are left are too few to prove it.
    pub fn ending(&self) -> usize {
        self.witnesses.len() + 1 - self.proving()
    }

    /// The owner counts an acknowledgement for this much less than the window. A witness waits this much longer than
    /// the window before it votes.
    pub fn margin(&self) -> Duration {
        margin(self.window)
    }

    /// How long a witness has to have acknowledged nothing before it votes.
    pub fn patience(&self) -> Duration {
        self.window + self.margin()
    }

    /// Whether it names this run of this node under this lease.
    pub fn names(&self, name: &NodeName, lease: LeaseId, run: Run) -> bool {
        let is_it = |it: &Witness| it.name == *name && it.lease == lease && it.run == run;
        self.witnesses.iter().any(is_it)
    }
}

/// The margin of a window: it covers the difference in rate of two clocks over a window, and the time that silencing
/// takes. Owner and witness derive it alike.
pub fn margin(window: Duration) -> Duration {
    (window / 8).max(LEAST_MARGIN)
}

/// What the key of an owner's epoch holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The epoch that counts.
    Epoch(Epoch),
    /// The witnesses have ended the owner's lease.
    Evicted,
    /// The owner had silenced all VNIs when it wrote this, and does not answer again under this lease, which it is
    /// about to revoke.
    Released,
}

/// What the key of an owner's epoch holds: its revision, its lease, and the value if that can be read.
pub type Held = (Revision, Option<LeaseId>, Option<Standing>);

/// What a node publishes, so that others can name it and send it beats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contact {
    /// The run of its daemon.
    pub run: Run,
    /// Its half of the keys of its datagrams.
    pub key: Key,
    /// Where its daemon receives beats.
    pub address: SocketAddr,
}
