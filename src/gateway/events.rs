//! What a node is told, and what it wants done: the language between the core and the threads around it.

use crate::model::fitness::{Fitness, SignSet};
use crate::model::frr::{FrrDaemons, Health, RouteChange};
use crate::model::fsm::Write;
use crate::model::ring::Unable;
use crate::model::types::{Lease, LeaseId, Revision, Vni};
use crate::schema::{Batch, Change, CommitResult};
use std::collections::BTreeSet;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// All keys as of `revision`.
    Snapshot {
        /// The revision of the store that was read.
        revision: Revision,
        /// Every key below the prefix that could be read.
        changes: Vec<Change>,
    },
    /// What whole revisions changed, in order.
    Changed(Vec<Change>),
    /// The same, of so many keys at once that the watch waits for [`Effect::PauseWatch`] or [`Effect::ResumeWatch`].
    MassExpiry(Vec<Change>),
    /// etcd is older than it has been: its data are lost, or it was set back to a backup. Nothing that was known
    /// of it holds.
    Rewound,
    /// The lease was granted, renewed or lost.
    Lease(Option<Lease>),
    /// The guard has withdrawn what this node served, as it had not heard of the lease in time. The lease may have been
    /// renewed since.
    GuardFenced,
    /// Outcome of [`Effect::SwitchArp`].
    ArpSwitched(Vec<(Vni, ArpOutcome)>),
    /// Outcome of [`Effect::Announce`], whatever became of the packets.
    Announced(Vec<Vni>),
    /// Outcome of [`Effect::ResetRoutes`]: the daemons that took it.
    RoutesReset(FrrDaemons),
    /// Outcome of [`Effect::ChangeRoutes`]: the VNIs that FRR did not take.
    RoutesChanged {
        /// The VNIs whose change did not happen, or not wholly.
        failed: Vec<Vni>,
    },
    /// Outcome of [`Effect::Commit`].
    Committed(CommitOutcome),
    /// Outcome of [`Effect::Register`].
    Registered(RegisterOutcome),
    /// Which FRR daemons run.
    Health(Health),
    /// Which signs say that this host cannot forward.
    Signs(SignSet),
    /// Whether no other node acknowledges this node's beats, while others acknowledge each other's.
    CutOff(bool),
    /// Bridges that came, went, or came up again: nothing that was known about their ARP holds.
    Links(Vec<Vni>),
    /// VNIs of which FRR does not have what it was given.
    Drifted(Vec<Vni>),
    /// What announces these VNIs upstream is not as it was left.
    UpstreamLost(Vec<Vni>),
    /// Hand all VNIs over, then exit (SIGTERM).
    Drain,
    /// Withdraw and exit now (a second SIGTERM).
    Stop,
}

/// What became of one ARP switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOutcome {
    /// The bridge now does so.
    Answers(bool),
    /// There is no bridge.
    Absent,
    /// The kernel refused, or the lease ended before.
    Failed,
}

/// What became of a batch of writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// etcd decided on each of them at `revision`.
    Done {
        /// The revision of the transaction.
        revision: Revision,
        /// The lease that it carried.
        lease: LeaseId,
        /// Each write, and what became of it.
        each: Vec<(Vni, Write, CommitResult)>,
    },
    /// This node is not registered any more, so nothing was written.
    NotRegistered,
    /// No answer, or a refusal: perhaps it was written, perhaps not. The VNIs that were in it.
    Failed(Vec<Vni>),
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterOutcome {
    /// The node is registered so.
    Done {
        /// What etcd took.
        registration: Registration,
        /// The revision of the transaction.
        revision: Revision,
    },
    /// Another live lease holds the name.
    NameTaken,
    /// No answer, or a refusal.
    Failed,
}

/// How a node registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// The lease that the registration ends with.
    pub lease: LeaseId,
    /// The ring points.
    pub points: Vec<u64>,
    /// The ring points that the node drew, if etcd does not have them yet: it keeps them when it starts again.
    pub drawn: Option<Vec<u64>>,
    /// What the node cannot serve at present.
    pub unable: Unable,
    /// How well it can forward.
    pub fitness: Fitness,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Switch ARP of these VNIs; answered by [`Event::ArpSwitched`].
    SwitchArp(Vec<(Vni, bool)>),
    /// Send gratuitous ARP; answered by [`Event::Announced`].
    Announce(Vec<Vni>),
    /// Withdraw VNIs from FRR, whichever run of wmgwd advertised them; answered by [`Event::RoutesReset`].
    ResetRoutes {
        /// From which daemons.
        parts: FrrDaemons,
        /// The VNIs that this node shows something of, and that stay as they are.
        keep: BTreeSet<Vni>,
    },
    /// Change FRR; answered by [`Event::RoutesChanged`]. Only one of these two is under way at a time.
    ChangeRoutes(Vec<RouteChange>),
    /// FRR is busy with other VNIs, and these wait for it: announce them upstream, or no more, as far as that needs no
    /// FRR. [`Effect::ChangeRoutes`] follows with all of it, so there is no answer. Only where
    /// [`Config::announces_itself`](super::Config::announces_itself).
    HastenRoutes(Vec<RouteChange>),
    /// Write rows in one transaction; answered by [`Event::Committed`].
    Commit {
        /// The lease of this node: etcd takes the transaction only while the node is registered under it.
        lease: LeaseId,
        /// The rows.
        rows: Batch,
    },
    /// Register the node; answered by [`Event::Registered`].
    Register(Registration),
    /// Pause the watch until [`Effect::ResumeWatch`].
    PauseWatch,
    /// Have the watch go on.
    ResumeWatch,
    /// All is withdrawn: end.
    Exit(Exit),
}

/// Why the node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was told to, and everything is withdrawn.
    Stopped,
    /// It was told to, and the time for withdrawing is over; something may still be on show.
    Unfinished,
    /// Another node lives under its name.
    NameTaken,
}
