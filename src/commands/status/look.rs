//! Reads what a report is made of: the keys, and what is left of the nodes' leases.

use super::Snapshot;
use crate::etcd::{Client, Error};
use crate::model::types::LeaseId;
use crate::schema::{self, Key};
use crate::sys::clock;
use std::collections::BTreeSet;

/// More nodes than this are not asked about: each costs a call.
const ASKED: usize = 64;

/// Everything as of one revision.
///
/// # Errors
/// Etcd does not answer, or refuses.
pub fn look(client: &Client) -> Result<Snapshot, Error> {
    // Before it is read: what the revision has came before some moment not much later.
    let time = clock::unix_seconds();
    let range = client.range(schema::PREFIX)?;
    let is_node = |key: &[u8]| matches!(Key::read(key), Ok(Key::Node(_)));
    let ids: BTreeSet<LeaseId> = range
        .kvs
        .iter()
        .filter(|kv| is_node(&kv.key))
        .filter_map(|kv| kv.lease)
        .collect();
    let mut leases = std::collections::BTreeMap::new();
    for id in ids.into_iter().take(ASKED) {
        // A lease that ends meanwhile is no reason to say nothing at all.
        leases.insert(id, client.lease_left(id).ok().flatten());
    }
    Ok(Snapshot {
        revision: range.revision,
        keys: range.kvs,
        leases,
        time,
    })
}
