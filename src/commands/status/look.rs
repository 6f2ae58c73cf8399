//! Reads what a report is made of: the keys, what is left of the nodes' leases, and what guards on this host know.

use super::{Guard, Snapshot};
use crate::etcd::{Client, Error};
use crate::guard::address::Address;
use crate::guard::visit;
use crate::model::types::LeaseId;
use crate::schema::{self, Key};
use crate::sys::clock;
use crate::telemetry::log_text::chain;
use nix::unistd::{Uid, geteuid};
use std::collections::BTreeSet;
use std::time::Duration;

/// More nodes than this are not asked about: each costs a call.
const ASKED: usize = 64;

/// Once guards have taken this long together, no more are asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that etcd has, as of one revision.
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
        guards: Vec::new(),
    })
}

/// What the guards on this host know: of a real node, and of mock nodes on `etcd`. Any user may listen at the name of a
/// guard, and answer late: after [`PATIENCE`] the rest are not asked.
pub fn guards(etcd: &str) -> Vec<Guard> {
    let begun = clock::now();
    let guard = |(node, address): (String, Address)| {
        let looked = match clock::now().since(begun) < PATIENCE {
            true => visit::look(&address).map_err(|error| chain(&error)),
            false => Err("not asked: the guards before it took too long to answer".to_owned()),
        };
        let user = looked.as_ref().ok().map(|(_, user)| *user);
        Guard {
            node,
            user: user.filter(|user| *user != geteuid()).map(Uid::as_raw),
            view: looked.map(|(view, _)| view),
        }
    };
    let found = Address::guards_with_mocks(etcd).into_iter();
    found.map(guard).collect()
}
