//! Early detection: a dead gateway is replaced long before its lease ends, and never two own a VNI.
//!
//! An etcd lease lasts seconds. So an owner names up to three other nodes as its witnesses, in one key of etcd, its
//! *epoch*, and sends them datagrams, its *beats*. While enough of them acknowledge the beats, and its lease holds,
//! the owner has *proof* and may serve. Witnesses that have heard nothing for a while vote; enough votes write
//! `evicted` over the epoch, and end the owner's lease. The two "enough" overlap in at least one witness, which
//! stops acknowledging for ever before it votes, so they cannot both be true. etcd orders the epochs of an owner and
//! its eviction: an owner that has named other witnesses in the meantime is not evicted by the former ones.
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
pub mod message;
pub mod owner;
pub mod prover;
pub mod siphash;
pub mod voter;

#[cfg(test)]
mod sim;

use crate::model::types::{LeaseId, NodeName};
use core::net::SocketAddr;
use siphash::Key;
use std::time::Duration;

/// An owner has this many witnesses at most: with three, one may fail unnoticed.
pub const MOST: usize = 3;
/// The shortest window. Below it, an ordinary hiccup of a scheduler is a lost proof.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// The longest window that is read: no lease is longer.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// The least margin: the granularity of the kernel's timers, and the time to silence all VNIs.
const LEAST_MARGIN: Duration = Duration::from_millis(25);

/// One start of a daemon: a number drawn at random. A daemon that takes over its predecessor's lease does not know
/// where that one stopped acknowledging, so it is a different witness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run(pub u64);

/// One epoch of an owner: a number drawn at random for each transaction that is not the same. With it the owner's
/// beats name an epoch whose revision the owner does not know yet.
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

/// Who proves an owner, from one transaction to the next.
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

    /// How many votes end the owner: one of them at least is of a witness without which there is no proof.
    pub fn ending(&self) -> usize {
        self.witnesses.len() + 1 - self.proving()
    }

    /// What the owner gives up of the window at its end, and its witnesses wait beyond it.
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
    /// The owner was silent when it wrote this, and will be: it is about to revoke its lease.
    Released,
}

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
