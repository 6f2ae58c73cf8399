//! A model of etcd: one store with revisions, leases, transactions and a log of changes for watches.
//!
//! It takes the very values that the client sends (`etcd::Txn` and so on). `script` runs the same
//! operations against it and against a real etcd.

use crate::etcd::{Compare, Grant, KeyValue, Op, OpReply, RangeReply, Txn, TxnReply, WatchEvent};
use crate::model::types::{LeaseId, Revision, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// The transaction names a lease that does not exist; nothing of it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseNotFound;

/// The changes that were asked for are forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted;

#[derive(Clone, Debug)]
struct LeaseState {
    ttl: Duration,
    expires: Time,
}

/// The store.
#[derive(Clone, Debug)]
pub struct ModelEtcd {
    revision: i64,
    keys: BTreeMap<Vec<u8>, KeyValue>,
    leases: BTreeMap<LeaseId, LeaseState>,
    next_lease: i64,
    /// Every change, in order; those up to `compacted` are gone.
    log: Vec<WatchEvent>,
    compacted: i64,
    /// While it is down, it answers no request and no lease ends.
    pub up: bool,
}

impl ModelEtcd {
    pub fn new() -> ModelEtcd {
        ModelEtcd {
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: 1,
            log: Vec::new(),
            compacted: 0,
            up: true,
        }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    pub fn range(&self, prefix: &[u8]) -> RangeReply {
        let kvs: Vec<KeyValue> = self
            .keys
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, kv)| kv.clone())
            .collect();
        RangeReply {
            revision: self.revision(),
            count: kvs.len() as u64,
            kvs,
        }
    }

    pub fn lease_exists(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn grant(&mut self, now: Time, ttl: Duration) -> Grant {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let expires = now + ttl;
        self.leases.insert(id, LeaseState { ttl, expires });
        Grant { id, ttl }
    }

    pub fn keepalive(&mut self, now: Time, id: LeaseId) -> Option<Duration> {
        let lease = self.leases.get_mut(&id)?;
        lease.expires = lease.expires.max(now + lease.ttl);
        Some(lease.ttl)
    }

    /// Ends a lease: all its keys go in one revision.
    pub fn revoke(&mut self, id: LeaseId) -> bool {
        if self.leases.remove(&id).is_none() {
            return false;
        }
        let gone: Vec<Vec<u8>> = self
            .keys
            .values()
            .filter(|kv| kv.lease == Some(id))
            .map(|kv| kv.key.clone())
            .collect();
        if !gone.is_empty() {
            self.revision += 1;
            for key in gone {
                self.remove(&key, self.revision);
            }
        }
        true
    }

    /// Ends the leases whose time has come; says which.
    pub fn expire(&mut self, now: Time) -> Vec<LeaseId> {
        if !self.up {
            return Vec::new();
        }
        let due: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.expires <= now)
            .map(|(&id, _)| id)
            .collect();
        for &id in &due {
            self.revoke(id);
        }
        due
    }

    /// Others write so many times, outside of the keys that are watched.
    pub fn skip(&mut self, revisions: i64) {
        self.revision += revisions;
    }

    /// Takes the place of this store, as it was some time before: a new leader, without what came since. Identities
    /// of leases do not come again.
    pub fn go_back_to(&mut self, backup: &ModelEtcd, now: Time) {
        let next_lease = self.next_lease;
        *self = ModelEtcd {
            next_lease,
            up: self.up,
            ..backup.clone()
        };
        self.change_leader(now);
    }

    pub fn next_expiry(&self) -> Option<Time> {
        let up = self.up.then_some(());
        up.and_then(|()| self.leases.values().map(|lease| lease.expires).min())
    }

    /// A new leader gives every lease its whole TTL again: none becomes shorter.
    pub fn change_leader(&mut self, now: Time) {
        for lease in self.leases.values_mut() {
            lease.expires = lease.expires.max(now + lease.ttl);
        }
    }

    /// Forgets all changes up to the present revision.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    /// The changes from revision `start` on.
    pub fn since(&self, start: Revision) -> Result<&[WatchEvent], Compacted> {
        if start.0 <= self.compacted {
            return Err(Compacted);
        }
        let at = self
            .log
            .partition_point(|event| event.kv.mod_revision < start);
        Ok(&self.log[at..])
    }

    pub fn txn(&mut self, txn: &Txn) -> Result<TxnReply, LeaseNotFound> {
        // As etcd does: all conditions are decided, and all leases looked up, before anything is done.
        let path = self.path(txn);
        if !self.leases_exist(txn, &path) {
            return Err(LeaseNotFound);
        }
        let before = self.revision;
        let mut wrote = false;
        let mut reply = self.apply(txn, &path, before + 1, &mut wrote);
        if wrote {
            self.revision = before + 1;
        }
        reply.revision = self.revision();
        Ok(reply)
    }

    fn path(&self, txn: &Txn) -> Path {
        let holds = txn.compares.iter().all(|compare| self.holds(compare));
        let taken = if holds { &txn.then } else { &txn.otherwise };
        let inner = taken.iter().map(|op| match op {
            Op::Txn(inner) => Some(self.path(inner)),
            _ => None,
        });
        Path {
            holds,
            inner: inner.collect(),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let modified = |key: &Vec<u8>| self.get(key).map_or(Revision(0), |kv| kv.mod_revision);
        match compare {
            Compare::ModRevisionLess { key, than } => modified(key) < *than,
            Compare::ModRevisionIs { key, revision } => modified(key) == *revision,
            Compare::CreateRevisionIs { key, revision } => {
                self.get(key).map_or(Revision(0), |kv| kv.create_revision) == *revision
            }
            Compare::LeaseIs { key, lease } => self
                .get(key)
                .is_some_and(|kv| kv.lease.map_or(0, |id| id.0) == lease.0),
            Compare::LeaseIsNot { key, lease } => self
                .get(key)
                .is_none_or(|kv| kv.lease.map_or(0, |id| id.0) != lease.0),
            Compare::ValueIs { key, value } => self.get(key).is_some_and(|kv| kv.value == *value),
        }
    }

    fn leases_exist(&self, txn: &Txn, path: &Path) -> bool {
        path.taken(txn).all(|(op, inner)| match (op, inner) {
            (
                Op::Put {
                    lease: Some(id), ..
                },
                _,
            ) => self.lease_exists(*id),
            (Op::Txn(txn), Some(path)) => self.leases_exist(txn, path),
            _ => true,
        })
    }

    fn apply(&mut self, txn: &Txn, path: &Path, revision: i64, wrote: &mut bool) -> TxnReply {
        let mut responses = Vec::new();
        for (op, inner) in path.taken(txn) {
            responses.push(match (op, inner) {
                (Op::Put { key, value, lease }, _) => {
                    *wrote = true;
                    self.put(key, value, *lease, revision);
                    OpReply::Put
                }
                (Op::Overwrite { key, value }, _) => {
                    *wrote = true;
                    let lease = self.get(key).and_then(|kv| kv.lease);
                    self.put(key, value, lease, revision);
                    OpReply::Put
                }
                (Op::Delete { key }, _) => {
                    let deleted = self.remove(key, revision);
                    *wrote |= deleted;
                    OpReply::Delete {
                        deleted: u64::from(deleted),
                    }
                }
                (Op::Range { key }, _) => {
                    let kvs: Vec<KeyValue> = self.get(key).into_iter().cloned().collect();
                    OpReply::Range(RangeReply {
                        revision: Revision(revision),
                        count: kvs.len() as u64,
                        kvs,
                    })
                }
                (Op::Txn(txn), Some(path)) => OpReply::Txn(self.apply(txn, path, revision, wrote)),
                (Op::Txn(_), None) => unreachable!("every nested transaction has a path"),
            });
        }
        TxnReply {
            revision: Revision(revision),
            succeeded: path.holds,
            responses,
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: Option<LeaseId>, revision: i64) {
        let created = self.get(key).map(|kv| kv.create_revision);
        let kv = KeyValue {
            key: key.to_vec(),
            value: value.to_vec(),
            mod_revision: Revision(revision),
            create_revision: created.unwrap_or(Revision(revision)),
            lease,
        };
        self.keys.insert(key.to_vec(), kv.clone());
        self.log.push(WatchEvent { kv, deleted: false });
    }

    fn remove(&mut self, key: &[u8], revision: i64) -> bool {
        let existed = self.keys.remove(key).is_some();
        if existed {
            let kv = KeyValue {
                key: key.to_vec(),
                mod_revision: Revision(revision),
                ..KeyValue::default()
            };
            self.log.push(WatchEvent { kv, deleted: true });
        }
        existed
    }
}

/// Which branch each transaction takes.
struct Path {
    holds: bool,
    inner: Vec<Option<Path>>,
}

impl Path {
    fn taken<'a>(&'a self, txn: &'a Txn) -> impl Iterator<Item = (&'a Op, Option<&'a Path>)> {
        let ops = if self.holds {
            &txn.then
        } else {
            &txn.otherwise
        };
        ops.iter().zip(self.inner.iter().map(Option::as_ref))
    }
}
