//! The guard: a small process that goes on when the daemon does not.
//!
//! A daemon that is dead or stopped cannot fence, while its kernel goes on answering ARP and its FRR goes on
//! advertising. So the daemon keeps a guard (the same binary), tells it the lease and the VNIs that answer,
//! and renews that with each keepalive. Left alone, the guard does nothing until just before the lease can
//! end; then it switches ARP off and withdraws from FRR. A daemon that comes back before that takes its
//! predecessor's guard over, and with it the lease: not a packet is lost. A guard that has fenced tells its
//! daemon, which may have been late only; one that does not answer any more is ended and replaced.
//!
//! The guard has one socket and no connection to etcd; it decides nothing but when to stop. [`process`] is
//! the guard itself, [`supervisor`] the daemon's side, [`protocol`] what they say to each other, [`address`] where.
//! [`visit`] looks at a guard without being its daemon, and [`view`] is what it gets to see.

pub mod address;
mod beats;
mod peer;
pub mod process;
pub mod protocol;
pub mod run;
pub mod supervisor;
pub mod view;
pub mod visit;
pub(crate) mod words;

use crate::model::types::{Lease, Time, Vni};
use crate::witness::message;
use protocol::Gated;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long it may take to switch ARP for one VNI (measured: 35 to 50 us from a script, on a busy machine).
pub const SWITCH: Duration = Duration::from_micros(50);

/// The connection of the daemon to its guard. Told under the lock that fencing needs: it never blocks for long, and
/// never logs.
pub trait Guard: Send {
    /// The lease was granted or renewed.
    fn lease(&mut self, lease: Lease);
    /// These VNIs are about to answer ARP, each through the interface of that index.
    fn serves(&mut self, vnis: &[(Vni, u32)]);
    /// These VNIs do not answer ARP any more.
    fn released(&mut self, vnis: &[Vni]);
    /// What of the bridges that answer the kernel lease holds: the guard shall have the kernel hold each lease, or
    /// shall not.
    fn gate(&mut self, _gated: Gated) {}
    /// What concerns the proof.
    fn witness(&mut self, _order: &message::Order) {}
    /// A way to hear of the proof, beside this one.
    fn line(&self) -> Option<supervisor::Line> {
        None
    }
    /// What the guard has said of that, up to the last [`Guard::standing`], since this was asked last.
    fn grants(&mut self) -> Grants {
        Grants::default()
    }
    /// How it is with the guard.
    fn standing(&mut self) -> Standing;
    /// The connection, which hangs up when the guard ends; `None` if it is lost.
    fn conn(&self) -> Option<OwnedFd> {
        None
    }
    /// Everything is withdrawn: the guard shall end.
    fn dismiss(&mut self);
}

/// What a guard has had the kernel hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grants {
    /// Until then at most, if it has granted.
    pub until: Option<Time>,
    /// How many attempts were refused.
    pub refused: u64,
}

/// How it is with a guard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is there.
    Well,
    /// It is there, and has fenced since it was last asked.
    Fenced,
    /// It is not there, or does not answer; why.
    Lost(String),
}

/// Where guards come from.
pub trait Guards: Send {
    /// Starts a new guard in place of the one that is lost. That takes time.
    ///
    /// # Errors
    /// None could be started.
    fn relieve(&mut self) -> Result<Box<dyn Guard>, Error>;
    /// Sees a guard that was dismissed to its end.
    fn dismiss(&mut self);
}

/// No guard: what a node has that shows nothing.
pub struct NoGuard;

impl Guard for NoGuard {
    fn lease(&mut self, _: Lease) {}
    fn serves(&mut self, _: &[(Vni, u32)]) {}
    fn released(&mut self, _: &[Vni]) {}
    fn standing(&mut self) -> Standing {
        Standing::Well
    }
    fn dismiss(&mut self) {}
}

impl Guards for NoGuard {
    fn relieve(&mut self) -> Result<Box<dyn Guard>, Error> {
        Ok(Box::new(NoGuard))
    }
    fn dismiss(&mut self) {}
}

/// Why there is no guard.
#[derive(Debug)]
pub enum Error {
    /// The guard of this name has a living daemon.
    NameInUse,
    /// The guard process could not be started.
    Start(io::Error),
    /// The guard's socket could not be made, reached or read.
    Socket(io::Error),
    /// The guard can have no timer.
    Timer(io::Error),
    /// What came over the socket is not what a guard says.
    Protocol,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NameInUse => f.write_str(
                "another wmgwd of this name runs on this host: stop it, or choose another --name",
            ),
            Error::Start(_) => f.write_str("cannot start the guard process"),
            Error::Socket(_) => f.write_str("cannot talk to the guard process"),
            Error::Timer(_) => f.write_str("the guard process can have no timer"),
            Error::Protocol => {
                f.write_str("the process at the guard's socket is not a guard of this version")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Start(source) | Error::Socket(source) | Error::Timer(source) => Some(source),
            Error::NameInUse | Error::Protocol => None,
        }
    }
}
