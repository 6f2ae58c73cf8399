//! What a node does to its own machine: the contract between the core's decisions and the kernel and FRR.
//!
//! Two lanes, so that ARP never waits behind vtysh: [`Kernel`] is fast (file writes and packets) and is
//! called by the worker itself; [`Router`] is slow (one vtysh run a batch) and is called on the `frr` thread.

pub mod address;
pub mod addresses;
pub mod bridges;
pub mod factory;
pub mod filters;
pub mod frr;
pub mod garp;
pub mod interfaces;
pub mod links;
pub mod mock;
mod neighbour;
pub mod neighbours;
pub mod netfilter;
mod netlink;
pub mod news;
pub mod nft;
pub mod proc;
pub mod route;
pub mod routes;
pub mod signs;

pub use crate::model::frr::{Announce, Cost, FrrDaemons, Health, RouteChange};
use crate::model::types::{Vni, VniRange};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

/// A part of a batch that FRR did not take.
#[derive(Debug)]
pub struct RouteFailure {
    /// The VNI whose change did not happen, or not wholly.
    pub vni: Vni,
    /// Why.
    pub error: Error,
}

/// What [`Router::readvertise`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readvertised {
    /// VNIs whose routes are back.
    pub back: Vec<Vni>,
    /// VNIs whose routes do not come back at once; tried again later.
    pub given_up: Vec<Vni>,
    /// How soon to look again; `None` if nothing is under way.
    pub again: Option<Duration>,
}

/// What an audit found of the ARP of one bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpAudit {
    /// It does as it was told.
    AsTold,
    /// It did not, and does now: something else on this host had switched it.
    PutBack,
    /// It is not there.
    Absent,
}

/// The kernel's part of a VNI: whether `br<VNI>` answers ARP, and gratuitous ARP.
pub trait Kernel: Send {
    /// The index of the interface (netdevice(7)) that is the bridge of `vni`; `None` if there is none.
    fn bridge(&mut self, vni: Vni) -> Option<u32>;

    /// The VNIs of `range` that answer now, as this run or another has left them.
    ///
    /// # Errors
    /// [`Error::Links`] if the kernel does not tell.
    fn answering(&mut self, _range: VniRange) -> Result<Vec<Vni>, Error> {
        Ok(Vec::new())
    }

    /// Another process makes the interface `index` answer for `vni`. Later that is to be silenced here, whatever its
    /// name.
    /// Nothing to do on a host whose bridges have no other names.
    fn hold(&mut self, _vni: Vni, _index: u32) {}

    /// Makes the bridge of `vni` answer ARP requests, or be silent. It is silenced under any name, and made to
    /// answer only as `br<VNI>`. A bridge that answered for the VNI before and is not its bridge any more is silenced
    /// in any case.
    ///
    /// # Errors
    /// An [absence](Error::is_absence) if there is no such bridge: then nothing of the VNI answers.
    /// [`Error::Write`] or [`Error::Links`] if the kernel refused.
    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error>;

    /// Makes the bridge of `vni` silent; one that does not exist is.
    ///
    /// # Errors
    /// [`Error::Write`] or [`Error::Links`] if the kernel refused.
    fn silence(&mut self, vni: Vni) -> Result<(), Error> {
        match self.set_arp(vni, false) {
            Err(error) if error.is_absence() => Ok(()),
            result => result,
        }
    }

    /// Silences the bridges that carry `vni` and were its bridge once, but have another name now; says whether one of
    /// them answered.
    ///
    /// # Errors
    /// [`Error::Write`] or [`Error::Links`] if the kernel refused.
    fn silence_strays(&mut self, _vni: Vni) -> Result<bool, Error> {
        Ok(false)
    }

    /// Looks whether the bridge of `vni` still does as [`Kernel::set_arp`] told it, and has it do so.
    ///
    /// # Errors
    /// [`Error::Write`] or [`Error::Links`] if the kernel refused.
    fn put_back(&mut self, vni: Vni, answer: bool) -> Result<ArpAudit, Error>;

    /// Makes the part of `changes` that the kernel alone can make, while FRR is busy with other VNIs; [`Router::apply`]
    /// follows with all of it, and tells what failed. `permit` is asked before anything that claims.
    fn hasten(&mut self, _changes: &[RouteChange], _permit: &dyn Fn() -> bool) {}

    /// Broadcasts one gratuitous ARP for each IPv4 address of each VNI's bridge; returns what failed.
    /// `permit` is asked right before each VNI's.
    fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)>;
}

/// FRR's part of a VNI: EVPN routes and the OSPF cost.
pub trait Router: Send {
    /// Brings `filter-vni` into shape and withdraws every VNI but those in `keep`, also what another run advertised
    /// before (design, safety rule 5). Stops early once `permit` says no.
    ///
    /// # Errors
    /// The first reason why FRR could not be brought into that state.
    fn withdraw(
        &mut self,
        parts: FrrDaemons,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error>;

    /// Withdraws everything.
    ///
    /// # Errors
    /// As [`Router::withdraw`].
    fn withdraw_all(&mut self) -> Result<(), Error> {
        self.withdraw(FrrDaemons::ALL, &BTreeSet::new(), &|| true)
    }

    /// Applies `changes` as one batch per daemon, releasing before claiming. `permit` is asked right before
    /// anything that claims, and while it runs: once it says no, nothing that claims happens any more.
    /// Returns the VNIs whose changes did not happen; one bad VNI does not sink the others.
    fn apply(&mut self, changes: &[RouteChange], permit: &dyn Fn() -> bool) -> Vec<RouteFailure>;

    /// What in FRR's configuration keeps wmgwd from working, one line each with what repairs it; known after
    /// the first [`Router::withdraw`].
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the configuration of `part` does not have yet and wmgwd cannot do without; known after a
    /// [`Router::withdraw`] or a [`Router::drifted`]. A daemon that starts may answer before it has read its
    /// configuration.
    fn lacks(&self, _part: FrrDaemons) -> Option<Error> {
        None
    }

    /// VNIs that FRR had been given and has no more, since this was asked last: what was wrong in its configuration
    /// had to be taken away as a whole.
    fn take_lost(&mut self) -> Vec<Vni> {
        Vec::new()
    }

    /// Looks which daemons run. Cheap enough for once a second.
    fn health(&mut self) -> Health;

    /// What becomes readable when a daemon that [`Router::health`] saw has ended: then it is time to look again. A
    /// daemon may end without.
    fn ends(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Looks whether FRR itself gave up routes that [`Router::apply`] let out, and brings them back. `permit`
    /// is asked before anything that claims. To be called soon after each [`Router::apply`] and
    /// [`Router::drifted`], and then whenever the answer says.
    ///
    /// # Errors
    /// FRR did not say.
    fn readvertise(&mut self, _permit: &dyn Fn() -> bool) -> Result<Readvertised, Error> {
        Ok(Readvertised::default())
    }

    /// A cheap look whether FRR may have lost what it was given, as after a reload of its configuration file.
    fn is_suspect(&mut self) -> bool {
        false
    }

    /// Looks whether FRR still has what [`Router::apply`] gave it: a reload of its configuration takes that
    /// away without a restart. Returns the VNIs that have to be applied again. A few questions over FRR's vty
    /// sockets, so meant for the audit. `permit` is asked before route targets that the operator changed are followed.
    ///
    /// # Errors
    /// A daemon did not say. What was found of the other is told by [`Router::take_lost`].
    fn drifted(&mut self, _permit: &dyn Fn() -> bool) -> Result<Vec<Vni>, Error> {
        Ok(Vec::new())
    }
}

/// Why the host did not do as it was told.
#[derive(Debug)]
pub enum Error {
    /// `br<VNI>` does not exist on this machine.
    NoInterface {
        /// The bridge's name.
        bridge: String,
    },
    /// The VNI's bridge has another name. It was silenced.
    Renamed {
        /// The name that it should have.
        bridge: String,
        /// Its name.
        name: String,
    },
    /// The bridge does not carry the VNI: it is the host's own, and was not touched.
    Foreign {
        /// Its name.
        bridge: String,
    },
    /// The kernel did not tell what interfaces there are.
    Links {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file below `/proc/sys` could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not tell its routes or addresses, or did not answer to changes of them.
    Routes {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused to make or delete a route.
    Route {
        /// Where it leads.
        prefix: routes::Prefix,
        /// The interface that it leads through.
        bridge: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No FRR daemon carries the kernel's routes to the upstream routers.
    NotRedistributed,
    /// The kernel did not take the bridge out of the table by which it answers for its IPv6 gateway addresses.
    Ipv6 {
        /// The bridge.
        bridge: String,
    },
    /// A gratuitous ARP could not be sent.
    Announce {
        /// The bridge it was to leave through.
        bridge: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// vtysh could not be started or talked to.
    Spawn {
        /// The kernel's answer.
        source: io::Error,
    },
    /// vtysh ran and FRR refused something.
    Refused {
        /// The FRR daemon that was spoken to.
        daemon: &'static str,
        /// What vtysh said, shortened.
        output: String,
    },
    /// vtysh did not end in time and was ended: a stopped daemon blocks it for ever.
    TimedOut {
        /// The FRR daemon that was spoken to.
        daemon: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The FRR daemon is not running.
    Down {
        /// Its name.
        daemon: &'static str,
    },
    /// The lease ended before or while the change was made, so it was not made, or not wholly.
    NotPermitted,
}

impl Error {
    /// Whether this host has no bridge for the VNI that could answer.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Error::NoInterface { .. } | Error::Renamed { .. } | Error::Foreign { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoInterface { bridge } => {
                write!(
                    f,
                    "{bridge} does not exist: create the bridge, or narrow --minvni and --maxvni"
                )
            }
            Error::Renamed { bridge, name } => write!(
                f,
                "{bridge} is called {name} now: it was silenced, and its VNI is not served here; \
                 run: ip link set {name} name {bridge}"
            ),
            Error::Foreign { bridge } => write!(
                f,
                "{bridge} has no VXLAN interface of its VNI as a port: it is left alone, and the VNI is not \
                 served here; add the port, or narrow --minvni and --maxvni"
            ),
            Error::Links { .. } => f.write_str("cannot look at the interfaces of this host"),
            Error::Write { path, .. } => write!(f, "cannot write {}", path.display()),
            Error::Routes { source } if source.kind() == io::ErrorKind::WouldBlock => {
                f.write_str("cannot look at the kernel's routes: what changes them all the time?")
            }
            Error::Routes { .. } => {
                f.write_str("cannot look at or change the kernel's routes: is this root?")
            }
            Error::Route { prefix, bridge, .. } => write!(
                f,
                "cannot change the route {prefix} dev {bridge} that announces the VNI: look at ip route show {prefix} \
                 and ip link show {bridge}"
            ),
            Error::NotRedistributed => f.write_str(
                "no FRR daemon that runs has redistribute kernel, so that --announce routes announces nothing: \
                 configure it as frr.conf.example shows, or start it",
            ),
            Error::Ipv6 { bridge } => write!(
                f,
                "{bridge} may answer for its IPv6 gateway addresses until the lease ends: nf_tables refuses to change \
                 the table `ip6 wmgwd`"
            ),
            Error::Announce { bridge, .. } => write!(f, "cannot send gratuitous ARP on {bridge}"),
            Error::Spawn { .. } => {
                f.write_str("cannot run vtysh: is FRR installed, and is this root?")
            }
            Error::Refused { daemon, output } => write!(f, "{daemon} refused: {output}"),
            Error::TimedOut { daemon, after } => {
                write!(
                    f,
                    "{daemon} did not answer vtysh within {after:?}: is it stopped?"
                )
            }
            Error::Down { daemon } => write!(
                f,
                "{daemon} is not running: check FRR's daemons file and its log"
            ),
            Error::NotPermitted => f.write_str("the lease ended before the change was made"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Write { source, .. }
            | Error::Links { source }
            | Error::Routes { source }
            | Error::Route { source, .. }
            | Error::Announce { source, .. }
            | Error::Spawn { source } => Some(source),
            _ => None,
        }
    }
}
