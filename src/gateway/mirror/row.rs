//! The three keys of one VNI, and what they mean.

use super::cell::{Cell, Reading};
use super::nodes::Nodes;
use crate::model::fsm::{Kind, RowView, State, Write};
use crate::model::types::{LeaseId, NodeName, Revision, Vni};
use crate::schema::{Change, Key, Value};

/// Under which lease a row names a node, if it does.
pub type Named = Option<Option<LeaseId>>;

/// The three keys of one VNI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    kind: Cell<Kind>,
    current: Cell<NodeName>,
    next: Cell<NodeName>,
}

impl Row {
    /// The row as it was last read, for logs, metrics and the notify command.
    pub fn view(&self) -> RowView<'_> {
        RowView {
            kind: self.kind(),
            owner: self.current.value(),
            successor: self.next.value(),
        }
    }

    fn kind(&self) -> Kind {
        self.kind.value().copied().unwrap_or(Kind::Unassigned)
    }

    /// The revision that a write of the row is conditional on.
    pub fn revision(&self) -> Revision {
        self.kind.revision()
    }

    /// Whether `type` cannot be read.
    pub fn has_unreadable_kind(&self) -> bool {
        self.kind.is_unreadable()
    }

    /// Whether a key of the row cannot be read, or was deleted alone: a foreign write.
    pub fn is_spoiled(&self) -> bool {
        self.kind.is_unreadable()
            || self.current.is_unreadable()
            || self.next.is_unreadable()
            || self.lacks_its_kind()
    }

    /// Whether the row names an owner, and whether it names a successor, dead or alive; and the lease of each.
    pub fn names(&self) -> [Named; 2] {
        let named = |cell: &Cell<NodeName>| cell.value().map(|_| cell.lease());
        [named(&self.current), named(&self.next)]
    }

    /// Whether the row, which had names as `named` says, lost one. A row that was never seen otherwise may have lost
    /// its owner just now.
    pub fn lost_a_name(&self, named: [Named; 2]) -> bool {
        let names = self.names();
        let lost_one = [0, 1]
            .into_iter()
            .any(|at| named[at].is_some() && names[at].is_none());
        let lacks_all = names == [None; 2] && self.kind() != Kind::Unassigned;
        lost_one || lacks_all
    }

    /// The lease under which the name was written that the row has lost: the owner's, if it lost both.
    pub fn lost_by(&self, named: [Named; 2]) -> Option<LeaseId> {
        let names = self.names();
        let lost = |at: usize| named[at].filter(|_| names[at].is_none());
        lost(0).or_else(|| lost(1)).flatten()
    }

    /// Whether the row has neither owner nor successor, as an owner writes that gives it back. (A key that
    /// an operator deleted tells nothing of what the owner does.)
    pub fn is_given_back(&self) -> bool {
        self.kind.value() == Some(&Kind::Unassigned)
    }

    /// Whether `current` names `me` under its present `lease`.
    pub fn is_owned_by(&self, me: &NodeName, lease: Option<LeaseId>) -> bool {
        let named = self.current.value() == Some(me);
        named && lease.is_some() && self.current.lease() == lease
    }

    /// Whether `current` holds anything, readable or not.
    pub fn has_current(&self) -> bool {
        self.current.value().is_some() || self.current.is_unreadable()
    }

    /// `type` alone was deleted: a node that writes "unassigned" empties `current` with it.
    fn lacks_its_kind(&self) -> bool {
        let gone = self.kind.value().is_none() && !self.kind.is_unreadable();
        gone && self.current.value().is_some() && self.current.lease().is_some()
    }

    /// The row's meaning for `me`, who holds `lease`.
    pub fn state(&self, me: &NodeName, lease: Option<LeaseId>, nodes: &Nodes) -> State {
        let current = nodes.living(&self.current, me, lease);
        let next = nodes.living(&self.next, me, lease);
        let lost = self.kind.value().is_none() && self.kind.is_unreadable();
        match (current, next) {
            // Its owner lives, and will write the row again.
            (Some(owner), _) if self.lacks_its_kind() => State::Idle {
                owner: owner.clone(),
            },
            (Some(owner), None) if lost => State::Idle {
                owner: owner.clone(),
            },
            // Which of them serves is lost.
            (None, Some(_)) | (Some(_), Some(_)) if lost => State::Unknown,
            _ => State::of(self.kind(), current, next),
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

    /// Takes a change to one of the keys. Returns whether it was news.
    pub fn apply(&mut self, change: &Change) -> bool {
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
                self.kind.take(revision, lease, kind)
            }
            Key::Current(_) => self.current.take(revision, lease, name()),
            Key::Next(_) => self.next.take(revision, lease, name()),
            Key::Node(_) | Key::Meta(_) | Key::Drain(_) | Key::Points(_) => false,
            Key::Contact(_) | Key::Epoch(_) | Key::Vote(..) => false,
        }
    }

    /// A snapshot of `revision` has only the keys that are `present`. Returns whether that was news.
    pub fn retain(&mut self, vni: Vni, revision: Revision, present: impl Fn(&Key) -> bool) -> bool {
        let mut news = false;
        if !present(&Key::Kind(vni)) {
            news |= self.kind.missing(revision);
        }
        if !present(&Key::Current(vni)) {
            news |= self.current.missing(revision);
        }
        if !present(&Key::Next(vni)) {
            news |= self.next.missing(revision);
        }
        news
    }
}
