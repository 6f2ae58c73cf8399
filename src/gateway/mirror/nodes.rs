//! The nodes that are registered, and what they publish.

use super::Registration;
use super::cell::{Cell, Reading};
use crate::model::fitness::{Fitness, Rank};
use crate::model::ring::{Member, Ring, Unable};
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::schema::{Change, Key, Value};
use crate::witness::Standing;
use std::collections::BTreeMap;
use std::time::Duration;

/// The part of a node's meta key that decisions depend on. A Go wmgwd has no meta key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Published {
    range: VniRange,
    unable: Option<Unable>,
    fitness: Option<Fitness>,
}

/// All nodes that are registered.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    points: BTreeMap<NodeName, Cell<Vec<u64>>>,
    metas: BTreeMap<NodeName, Cell<Published>>,
    drains: BTreeMap<NodeName, Cell<()>>,
    drawn: BTreeMap<NodeName, Cell<Vec<u64>>>,
    /// For each lease under which an epoch was seen: the revision of the last one, and how long after the end of the
    /// lease its holder can still have proof.
    silences: BTreeMap<LeaseId, (Revision, Duration)>,
}

/// `silences` holds at most so many leases.
const REMEMBERED: usize = 1024;

impl Nodes {
    /// The node's registered points and their lease.
    pub fn registered(&self, name: &NodeName) -> Option<&Cell<Vec<u64>>> {
        self.points.get(name).filter(|cell| cell.value().is_some())
    }

    /// The points that the node drew when it started for the first time.
    pub fn drawn(&self, name: &NodeName) -> Option<&Cell<Vec<u64>>> {
        self.drawn.get(name)
    }

    /// Whether the node is alive and runs this program, not the Go wmgwd.
    pub fn runs_this_program(&self, name: &NodeName) -> bool {
        self.published(name).is_some()
    }

    /// What the node published last that could be read.
    fn published(&self, name: &NodeName) -> Option<&Published> {
        self.metas.get(name)?.value()
    }

    /// What the node published last, if that was under `lease`.
    fn published_under(&self, name: &NodeName, lease: LeaseId) -> Option<&Published> {
        let cell = self.metas.get(name)?;
        let is_current = cell.lease() == Some(lease) && !cell.is_unreadable();
        cell.value().filter(|_| is_current)
    }

    /// The VNIs that the node cannot serve, as it published them under `lease`.
    pub fn unable(&self, name: &NodeName, lease: LeaseId) -> Option<&Unable> {
        self.published_under(name, lease)?.unable.as_ref()
    }

    /// The fitness that the node published under `lease`.
    pub fn fitness(&self, name: &NodeName, lease: LeaseId) -> Option<Fitness> {
        self.published_under(name, lease)?.fitness
    }

    /// The node's rank, if it publishes one.
    fn rank(&self, name: &NodeName) -> Option<Rank> {
        Some(self.published(name)?.fitness?.rank)
    }

    /// The names of all nodes that are registered, and their points.
    fn all_registered(&self) -> impl Iterator<Item = (&NodeName, &Vec<u64>)> {
        let nodes = self.points.iter();
        nodes.filter_map(|(name, cell)| Some((name, cell.value()?)))
    }

    /// Whether both nodes publish their ranks, and that of `better` is the higher one.
    pub fn outranks(&self, better: &NodeName, worse: &NodeName) -> bool {
        let ranks = self.rank(better).zip(self.rank(worse));
        ranks.is_some_and(|(better, worse)| better > worse)
    }

    /// The highest rank of the nodes that are registered with points, but for `me`.
    pub fn best_rank_beside(&self, me: &NodeName) -> Option<Rank> {
        self.all_registered()
            .filter(|(name, points)| *name != me && !points.is_empty())
            .filter_map(|(name, _)| self.rank(name))
            .max()
    }

    /// Whether all that are registered publish their ranks.
    pub fn all_have_ranks(&self) -> bool {
        self.all_registered()
            .all(|(name, _)| self.rank(name).is_some())
    }

    /// Whether the node published that it has no bridge for `vni`.
    pub fn is_without_bridge(&self, name: &NodeName, vni: Vni) -> bool {
        self.published(name)
            .and_then(|published| published.unable.as_ref())
            .is_some_and(|unable| unable.absent.contains(vni))
    }

    /// etcd took the registration of `me`, which serves `range`, at `revision`. Returns whether the ring may have
    /// changed.
    pub fn take_registration(
        &mut self,
        me: &NodeName,
        range: VniRange,
        registration: Registration,
        revision: Revision,
    ) -> bool {
        let published = Published {
            range,
            unable: Some(registration.unable),
            fitness: Some(registration.fitness),
        };
        let lease = Some(registration.lease);
        if let Some(points) = registration.drawn {
            let drawn = self.drawn.entry(me.clone()).or_default();
            drawn.take(revision, None, Reading::Value(Some(points)));
        }
        let meta = self.metas.entry(me.clone()).or_default();
        meta.take(revision, lease, Reading::Value(Some(published)));
        let points = Reading::Value(Some(registration.points));
        let cell = self.points.entry(me.clone()).or_default();
        cell.take(revision, lease, points)
    }

    /// Whether no Go wmgwd is registered.
    pub fn are_without_go(&self) -> bool {
        self.all_registered()
            .all(|(name, _)| self.runs_this_program(name))
    }

    /// How long after the end of `lease` its holder may still serve. Zero if its witnesses evicted it, or if it wrote
    /// that it was silent. The window and the margin of its last epoch otherwise: its witnesses may have proved it up
    /// to the end. `None` if this node has seen no epoch under `lease`, or if `lease` has not ended.
    pub fn silence_after(&self, lease: LeaseId) -> Option<Duration> {
        let (_, silence) = self.silences.get(&lease)?;
        let lives = |cell: &Cell<Vec<u64>>| cell.value().is_some() && cell.lease() == Some(lease);
        (!self.points.values().any(lives)).then_some(*silence)
    }

    fn note_epoch(&mut self, lease: LeaseId, revision: Revision, standing: &Standing) {
        let silence = match standing {
            Standing::Epoch(epoch) => epoch.patience(),
            Standing::Evicted | Standing::Released => Duration::ZERO,
        };
        let noted = self.silences.entry(lease).or_default();
        if revision > noted.0 {
            *noted = (revision, silence);
        }
        if self.silences.len() > REMEMBERED {
            let oldest = self.silences.iter().min_by_key(|(_, noted)| noted.0);
            if let Some(oldest) = oldest.map(|(lease, _)| *lease) {
                self.silences.remove(&oldest);
            }
        }
    }

    /// Whether an operator has taken the node out.
    pub fn is_drained(&self, name: &NodeName) -> bool {
        self.drains
            .get(name)
            .is_some_and(|cell| cell.value().is_some())
    }

    /// The ring that all registered nodes make. A node key without a lease does not count: no lease removes it when
    /// its node dies, and the VNIs of a dead node would stay without service.
    pub fn ring(&self) -> Ring {
        Ring::new(self.points.iter().filter_map(|(name, cell)| {
            // If another program replaced the node key with an unreadable value, the key lost its lease. The meta key
            // of the node still has its lease, and shows whether the node is alive.
            let lives =
                cell.lease().is_some() && (!cell.is_unreadable() || self.runs_this_program(name));
            let points = cell.value().filter(|_| lives)?;
            let published = self.published(name);
            Some(Member {
                name,
                points,
                range: published.map(|published| published.range),
                unable: published.and_then(|published| published.unable.as_ref()),
                rank: published
                    .and_then(|published| published.fitness)
                    .map(|it| it.rank),
            })
        }))
    }

    /// The name in a row's cell, if a living node can have written it.
    ///
    /// This node's own name counts only if the key is on its present lease. On another lease, an earlier run wrote it,
    /// and that run has ended: only one run at a time holds the node key. Another node's name counts if the key is on a
    /// lease, or if that node is registered.
    pub fn living<'a>(
        &self,
        cell: &'a Cell<NodeName>,
        me: &NodeName,
        lease: Option<LeaseId>,
    ) -> Option<&'a NodeName> {
        let name = cell.value()?;
        let lives = if name == me {
            cell.lease().is_some() && cell.lease() == lease
        } else if cell.is_unreadable() {
            // The remembered value is not in etcd any more, so no lease removes it when the node dies.
            self.registered(name)
                .is_some_and(|node| node.lease() == cell.lease())
        } else {
            cell.lease().is_some() || self.registered(name).is_some()
        };
        lives.then_some(name)
    }

    /// Takes a change to a node's key. Returns whether the ring may have changed.
    pub fn apply(&mut self, change: &Change) -> bool {
        let (revision, lease) = (change.revision, change.lease);
        match (&change.key, &change.value) {
            (Key::Node(name), value) => {
                let points = self.points.entry(name.clone()).or_default();
                points.take(revision, lease, read_points(value))
            }
            (Key::Meta(name), value) => {
                let reading = match value {
                    None => Reading::Value(None),
                    Some(Value::Meta(meta)) => Reading::Value(Some(Published {
                        range: meta.range,
                        unable: meta.unable.clone(),
                        fitness: meta.fitness,
                    })),
                    Some(_) => Reading::Unreadable,
                };
                let meta = self.metas.entry(name.clone()).or_default();
                let before = meta.value().cloned();
                // A node rewrites its meta key with a new time. The time alone changes no decision.
                meta.take(revision, lease, reading) && meta.value() != before.as_ref()
            }
            (Key::Drain(name), value) => {
                let reading = Reading::Value(value.is_some().then_some(()));
                let drain = self.drains.entry(name.clone()).or_default();
                drain.take(revision, lease, reading);
                // The ring changes when the node registers anew.
                false
            }
            (Key::Points(name), value) => {
                let drawn = self.drawn.entry(name.clone()).or_default();
                drawn.take(revision, lease, read_points(value));
                // As above.
                false
            }
            // etcd deletes an epoch key with its lease. `silences` keeps its entry: it is needed from then on.
            (Key::Epoch(_), Some(Value::Standing(standing))) => {
                if let Some(lease) = lease {
                    self.note_epoch(lease, revision, standing);
                }
                false
            }
            _ => false,
        }
    }

    /// Forgets the nodes that a snapshot of `revision` does not have.
    pub fn retain(&mut self, revision: Revision, present: impl Fn(&Key) -> bool) {
        // A node that a snapshot lacks can come back only at a later revision. The mirror ignores changes that are not
        // newer than the snapshot (see `Mirror::take_changes`), so the maps need not keep the node.
        self.points
            .retain(|name, cell| cell.revision() > revision || present(&Key::Node(name.clone())));
        self.metas
            .retain(|name, cell| cell.revision() > revision || present(&Key::Meta(name.clone())));
        self.drains
            .retain(|name, cell| cell.revision() > revision || present(&Key::Drain(name.clone())));
        self.drawn
            .retain(|name, cell| cell.revision() > revision || present(&Key::Points(name.clone())));
    }
}

fn read_points(value: &Option<Value>) -> Reading<Vec<u64>> {
    match value {
        None => Reading::Value(None),
        Some(Value::Points(points)) => Reading::Value(Some(points.clone())),
        Some(_) => Reading::Unreadable,
    }
}
