//! Rows in etcd, and which row may follow which.

use super::etcd::ModelEtcd;
use crate::etcd::{Op, Txn};
use crate::model::fsm::Phase;
use crate::model::types::{LeaseId, NodeName, Vni};
use crate::schema::{self, Key, Value};
use std::collections::BTreeSet;

/// A name in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    pub name: NodeName,
    pub lease: Option<LeaseId>,
    /// It ends with a lease, or a node of that name is registered.
    pub lives: bool,
}

/// A row in etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// `None` where it cannot be read.
    pub number: Option<u8>,
    pub current: Option<Name>,
    pub next: Option<Name>,
    /// A name cannot be read: others may remember it.
    pub unreadable: (bool, bool),
}

impl Row {
    pub fn owner(&self) -> Option<&NodeName> {
        let living = self.current.as_ref().filter(|name| name.lives);
        living.map(|name| &name.name)
    }

    /// Whether the row lets `name` answer.
    pub fn entitles(&self, name: &NodeName) -> bool {
        let owns = self.owner() == Some(name) && matches!(self.number, Some(1..=6));
        owns || self.successor() == Some(name) && matches!(self.number, Some(5..=10))
    }

    pub fn successor(&self) -> Option<&NodeName> {
        let living = self.next.as_ref().filter(|name| name.lives);
        living.map(|name| &name.name)
    }
}

/// The VNIs whose rows a transaction may change.
pub fn collect_vnis(txn: &Txn, vnis: &mut BTreeSet<Vni>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Txn(inner) => collect_vnis(inner, vnis),
            Op::Put { key, .. } | Op::Overwrite { key, .. } | Op::Delete { key } => {
                vnis.extend(Key::read(key).ok().and_then(|key| key.vni()));
            }
            Op::Range { .. } => {}
        }
    }
}

/// A row in etcd.
pub fn row(etcd: &ModelEtcd, vni: Vni) -> Row {
    let read = |key: Key| {
        let kv = etcd.get(&key.bytes())?;
        Some((schema::read_value(&key, &kv.value).0, kv.lease))
    };
    let name = |key| match read(key) {
        Some((Value::Name(Some(name)), lease)) => {
            let registered = || etcd.get(&Key::Node(name.clone()).bytes()).is_some();
            let lives = lease.is_some() || registered();
            Some(Name { name, lease, lives })
        }
        _ => None,
    };
    let unreadable = |key| matches!(read(key), Some((Value::Unreadable, _)));
    Row {
        unreadable: (unreadable(Key::Current(vni)), unreadable(Key::Next(vni))),
        number: match read(Key::Kind(vni)) {
            None => Some(0),
            Some((Value::Kind(kind), _)) => Some(kind.number()),
            Some(_) => None,
        },
        current: name(Key::Current(vni)),
        next: name(Key::Next(vni)),
    }
}

/// Whether `me` may turn the row `before` into `after`.
///
/// The condition of a write is on `type` alone, so a name that ended with its lease just before may still
/// have been alive when the write was decided on: what is asked is that no living node loses by it.
pub fn judge(me: &NodeName, before: &Row, after: &Row, spoiled: bool) -> Result<(), &'static str> {
    let Some(to) = after.number else {
        return Err("a kind that no node can read");
    };
    let (owner, successor) = (before.owner(), before.successor());
    // What cannot be read any more, or is not what the node wrote, may have named it.
    let lost = |name: &Option<Name>, unreadable: bool| {
        unreadable || spoiled && name.as_ref().is_none_or(|name| !name.lives)
    };
    let mine = owner == Some(me) || lost(&before.current, before.unreadable.0);
    let coming = successor == Some(me) || lost(&before.next, before.unreadable.1);
    let same_owner = before.current == after.current;
    let claimed = |name: &Option<Name>| {
        name.as_ref()
            .is_some_and(|n| n.name == *me && n.lease.is_some())
    };
    let others_owner = owner.is_some_and(|owner| owner != me);
    let Some(from) = before.number else {
        // Garbage: a living node that the row names knows what it was.
        return if spoiled || mine || coming || (owner.is_none() && successor.is_none()) {
            Ok(())
        } else {
            Err("a repair by a node that the row does not name")
        };
    };
    let last = Phase::EvpnWithdrawn as u8 + 2;
    let legal = match (from, to) {
        // Vacate: no VNI loses its owner, but an owner may give up its own. A successor whose owner died starts
        // anew.
        (_, 0) => (!others_owner && !mine) || (from == 1 && mine) || from == 0 || from == 10,
        // Claim: the row names no living node, except perhaps the writer.
        (_, 10) => {
            let free = owner.is_none() || from == 0 || from == 10;
            let alone = successor.is_none_or(|name| name == me) || from <= 1;
            free && alone && claimed(&after.next)
        }
        // Pull: the owner keeps the VNI until it agrees; no other node serves.
        // `type` alone was deleted, so that every condition on it holds.
        (0, 1) => mine && claimed(&after.current),
        (0, 3..=9) if spoiled => same_owner && before.next == after.next,
        (0, 2) => same_owner && claimed(&after.next),
        (1, 2) => !mine && same_owner && claimed(&after.next),
        (2..=9, 2) => successor.is_none() && !mine && same_owner && claimed(&after.next),
        (2..=8, _) if to == from + 1 => {
            let turn = if from % 2 == 0 { mine } else { coming };
            turn && same_owner && before.next == after.next
        }
        // Cancel: the owner goes on.
        (2..=9, 1) if coming && !mine && after.next.is_none() && same_owner => true,
        // Own.
        (9, 1) if from == last && coming => claimed(&after.current),
        (10, 1) => coming && claimed(&after.current),
        (2..=9, 1) => mine && successor.is_none() && claimed(&after.current),
        (1, 1) => mine && claimed(&after.current),
        _ => false,
    };
    if legal || spoiled && !others_owner {
        Ok(())
    } else {
        Err("not in the table")
    }
}
