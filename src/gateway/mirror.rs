//! What this node knows of etcd: every row and node, each cell with the revision that it is known from.
//!
//! Snapshots, watch events and this node's own commits arrive in any order and overlap. Each cell takes
//! only what is newer than what it holds, so that none of them can undo another.

use crate::model::fsm::{Kind, State, Write};
use crate::model::ring::{Member, Ring, Unable};
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::schema::{Change, Key, Value};
use std::collections::BTreeMap;

/// One key of etcd as last seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell<T> {
    /// The last value that could be read; `None` where the key is missing, or empty.
    pub value: Option<T>,
    /// The lease that the value ends with.
    pub lease: Option<LeaseId>,
    /// The revision of the last change, read or not.
    pub revision: Revision,
    /// The last change could not be read: the value is the one from before.
    pub unreadable: bool,
}

impl<T> Default for Cell<T> {
    fn default() -> Cell<T> {
        Cell {
            value: None,
            lease: None,
            revision: Revision::default(),
            unreadable: false,
        }
    }
}

impl<T> Cell<T> {
    /// Takes a change if it is newer; says whether it was.
    fn take(&mut self, revision: Revision, lease: Option<LeaseId>, value: Reading<T>) -> bool {
        if revision <= self.revision {
            return false;
        }
        self.revision = revision;
        match value {
            Reading::Unreadable => self.unreadable = true,
            Reading::Value(value) => {
                *self = Cell {
                    value,
                    lease,
                    revision,
                    unreadable: false,
                };
            }
        }
        true
    }

    /// A snapshot of `revision` does not have the key.
    fn missing(&mut self, revision: Revision) -> bool {
        let known = self.value.is_some() || self.unreadable;
        known && self.take(revision, None, Reading::Value(None))
    }
}

enum Reading<T> {
    Value(Option<T>),
    Unreadable,
}

/// The three keys of one VNI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// `type`.
    pub kind: Cell<Kind>,
    /// `current`.
    pub current: Cell<NodeName>,
    /// `next`.
    pub next: Cell<NodeName>,
}

impl Row {
    /// A key of the row holds something that nobody who speaks the schema has written.
    pub fn is_spoiled(&self) -> bool {
        self.kind.unreadable
            || self.current.unreadable
            || self.next.unreadable
            || self.lacks_its_kind()
    }

    /// Whether the row names an owner, and whether it names a successor, dead or alive.
    pub fn names(&self) -> [bool; 2] {
        [self.current.value.is_some(), self.next.value.is_some()]
    }

    /// Whether `current` names `me` under its present `lease`.
    pub fn is_owned_by(&self, me: &NodeName, lease: Option<LeaseId>) -> bool {
        let named = self.current.value.as_ref() == Some(me);
        named && lease.is_some() && self.current.lease == lease
    }

    /// Whether `current` holds anything, read or not.
    pub fn has_current(&self) -> bool {
        self.current.value.is_some() || self.current.unreadable
    }

    /// Somebody deleted `type` alone: whoever writes "unassigned" empties `current` with it.
    fn lacks_its_kind(&self) -> bool {
        let gone = self.kind.value.is_none() && !self.kind.unreadable;
        gone && self.current.value.is_some() && self.current.lease.is_some()
    }

    /// The row's meaning for `me`, who holds `lease`.
    pub fn state(&self, me: &NodeName, lease: Option<LeaseId>, nodes: &Nodes) -> State {
        let kind = self.kind.value.unwrap_or(Kind::Unassigned);
        let current = nodes.living(&self.current, me, lease);
        let next = nodes.living(&self.next, me, lease);
        let lost = self.kind.value.is_none() && self.kind.unreadable;
        match (current, next) {
            // Its owner lives, and will say so again.
            (Some(owner), _) if self.lacks_its_kind() => State::Idle {
                owner: owner.clone(),
            },
            (Some(owner), None) if lost => State::Idle {
                owner: owner.clone(),
            },
            // Which of them serves is lost.
            (None, Some(_)) | (Some(_), Some(_)) if lost => State::Unknown,
            _ => State::of(kind, current, next),
        }
    }

    /// What a write of `me` at `revision` made of the row.
    pub fn committed(&mut self, write: Write, me: &NodeName, lease: LeaseId, revision: Revision) {
        self.kind
            .take(revision, None, Reading::Value(Some(write.kind())));
        let mine = || Reading::Value(Some(me.clone()));
        match write {
            Write::Vacate => {
                self.current.take(revision, None, Reading::Value(None));
                self.next.take(revision, None, Reading::Value(None));
            }
            Write::Claim => {
                self.current.take(revision, None, Reading::Value(None));
                self.next.take(revision, Some(lease), mine());
            }
            Write::Pull => {
                self.next.take(revision, Some(lease), mine());
            }
            Write::Advance(_) => {}
            Write::Own => {
                self.current.take(revision, Some(lease), mine());
                self.next.take(revision, None, Reading::Value(None));
            }
            Write::Cancel => {
                self.next.take(revision, None, Reading::Value(None));
            }
        }
    }
}

/// What a node of our kind says of itself, as far as it decides who owns what.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    range: VniRange,
    unable: Option<Unable>,
}

/// All nodes that are registered.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    points: BTreeMap<NodeName, Cell<Vec<u64>>>,
    metas: BTreeMap<NodeName, Cell<Said>>,
    drains: BTreeMap<NodeName, Cell<()>>,
}

impl Nodes {
    /// The node's registered points and their lease.
    pub fn registered(&self, name: &NodeName) -> Option<&Cell<Vec<u64>>> {
        self.points.get(name).filter(|cell| cell.value.is_some())
    }

    /// Whether the node is alive and of our kind, not a Go wmgwd.
    pub fn is_of_our_kind(&self, name: &NodeName) -> bool {
        self.metas
            .get(name)
            .is_some_and(|cell| cell.value.is_some())
    }

    /// What the node says under `lease` that it cannot serve.
    pub fn unable(&self, name: &NodeName, lease: LeaseId) -> Option<&Unable> {
        let cell = self.metas.get(name)?;
        let is_current = cell.lease == Some(lease) && !cell.unreadable;
        cell.value.as_ref().filter(|_| is_current)?.unable.as_ref()
    }

    /// Whether the node says that it has no bridge for `vni`.
    pub fn is_without_bridge(&self, name: &NodeName, vni: Vni) -> bool {
        let said = self.metas.get(name).and_then(|cell| cell.value.as_ref());
        let unable = said.and_then(|said| said.unable.as_ref());
        unable.is_some_and(|unable| unable.absent.contains(vni))
    }

    /// `me` has published what it serves under `lease` at `revision`.
    pub fn published(
        &mut self,
        me: &NodeName,
        range: VniRange,
        unable: Unable,
        lease: LeaseId,
        revision: Revision,
    ) {
        let said = Said {
            range,
            unable: Some(unable),
        };
        let meta = self.metas.entry(me.clone()).or_default();
        meta.take(revision, Some(lease), Reading::Value(Some(said)));
    }

    /// Whether all that are registered are of our kind.
    pub fn are_of_our_kind(&self) -> bool {
        let mut registered = self.points.iter().filter(|(_, cell)| cell.value.is_some());
        registered.all(|(name, _)| self.is_of_our_kind(name))
    }

    /// Whether an operator has taken the node out.
    pub fn is_drained(&self, name: &NodeName) -> bool {
        self.drains
            .get(name)
            .is_some_and(|cell| cell.value.is_some())
    }

    /// The ring that all registered nodes make. A key that no lease takes away when its node dies is nobody's:
    /// a node that is never gone and never there would keep its VNIs from being served.
    pub fn ring(&self) -> Ring {
        Ring::new(self.points.iter().filter_map(|(name, cell)| {
            // Written over with what cannot be read, a key hangs on no lease any more; but the other key does.
            let lives = cell.lease.is_some() && (!cell.unreadable || self.is_of_our_kind(name));
            let points = cell.value.as_deref().filter(|_| lives)?;
            let said = self.metas.get(name).and_then(|cell| cell.value.as_ref());
            Some(Member {
                name,
                points,
                range: said.map(|said| said.range),
                unable: said.and_then(|said| said.unable.as_ref()),
            })
        }))
    }

    /// The name in a row's cell, if a node that lives can have written it.
    ///
    /// Our own name counts only with our own lease: with another it was written by an earlier run, which is
    /// over (the node key is held by one run at a time). Another's name counts if it ends with a lease, or
    /// if the node is registered: a name that no lease takes away and no node answers to is nobody's.
    fn living<'a>(
        &self,
        cell: &'a Cell<NodeName>,
        me: &NodeName,
        lease: Option<LeaseId>,
    ) -> Option<&'a NodeName> {
        let name = cell.value.as_ref()?;
        let lives = if name == me {
            cell.lease.is_some() && cell.lease == lease
        } else if cell.unreadable {
            // What we remember is not in etcd any more, so no lease takes it away when the node dies.
            self.registered(name)
                .is_some_and(|node| node.lease == cell.lease)
        } else {
            cell.lease.is_some() || self.registered(name).is_some()
        };
        lives.then_some(name)
    }

    /// Takes a change to a node's key; says whether the ring may have changed.
    pub fn apply(&mut self, change: &Change) -> bool {
        let (revision, lease) = (change.revision, change.lease);
        match (&change.key, &change.value) {
            (Key::Node(name), value) => {
                let reading = match value {
                    None => Reading::Value(None),
                    Some(Value::Points(points)) => Reading::Value(Some(points.clone())),
                    Some(_) => Reading::Unreadable,
                };
                self.points
                    .entry(name.clone())
                    .or_default()
                    .take(revision, lease, reading)
            }
            (Key::Meta(name), value) => {
                let reading = match value {
                    None => Reading::Value(None),
                    Some(Value::Meta(meta)) => Reading::Value(Some(Said {
                        range: meta.range,
                        unable: meta.unable.clone(),
                    })),
                    Some(_) => Reading::Unreadable,
                };
                let meta = self.metas.entry(name.clone()).or_default();
                let before = meta.value.clone();
                // That a node marks the time changes nothing.
                meta.take(revision, lease, reading) && meta.value != before
            }
            (Key::Drain(name), value) => {
                let reading = Reading::Value(value.is_some().then_some(()));
                let drain = self.drains.entry(name.clone()).or_default();
                drain.take(revision, lease, reading);
                // The ring changes when the node registers anew.
                false
            }
            _ => false,
        }
    }

    /// Forgets the nodes that a snapshot of `revision` does not have.
    pub fn retain(&mut self, revision: Revision, present: impl Fn(&Key) -> bool) {
        // A node that is gone from a snapshot can only come back at a later revision, so nothing that is
        // still on its way could bring it back to life; forgetting it bounds the maps.
        self.points
            .retain(|name, cell| cell.revision > revision || present(&Key::Node(name.clone())));
        self.metas
            .retain(|name, cell| cell.revision > revision || present(&Key::Meta(name.clone())));
        self.drains
            .retain(|name, cell| cell.revision > revision || present(&Key::Drain(name.clone())));
    }
}

/// Takes a change to one of a row's keys; says whether it was news.
pub fn apply_to_row(row: &mut Row, change: &Change) -> bool {
    let (revision, lease) = (change.revision, change.lease);
    let name = || match &change.value {
        None => Reading::Value(None),
        Some(Value::Name(name)) => Reading::Value(name.clone()),
        Some(_) => Reading::Unreadable,
    };
    match change.key {
        Key::Kind(_) => {
            let kind = match change.value {
                None => Reading::Value(None),
                Some(Value::Kind(kind)) => Reading::Value(Some(kind)),
                Some(_) => Reading::Unreadable,
            };
            row.kind.take(revision, lease, kind)
        }
        Key::Current(_) => row.current.take(revision, lease, name()),
        Key::Next(_) => row.next.take(revision, lease, name()),
        Key::Node(_) | Key::Meta(_) | Key::Drain(_) => false,
    }
}

/// A snapshot of `revision` does not have some of a row's keys; says whether that was news.
pub fn missing_from_row(
    row: &mut Row,
    vni: Vni,
    revision: Revision,
    present: impl Fn(&Key) -> bool,
) -> bool {
    let mut news = false;
    if !present(&Key::Kind(vni)) {
        news |= row.kind.missing(revision);
    }
    if !present(&Key::Current(vni)) {
        news |= row.current.missing(revision);
    }
    if !present(&Key::Next(vni)) {
        news |= row.next.missing(revision);
    }
    news
}
