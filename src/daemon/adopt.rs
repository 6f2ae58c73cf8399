//! A run that goes on where another died: its lease, and its place on the ring.

use crate::cli::Config;
use crate::etcd::{Client, Renewal};
use crate::model::types::Lease;
use crate::schema::{self, Key, Value};
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, chain};
use log::warn;
use std::time::Duration;

/// The lease of a dead predecessor, if etcd still has it.
pub(super) fn adopt(client: &Client, predecessor: Lease) -> Option<Lease> {
    let mut complaint = Complaint::default();
    // Asked until the lease must be over: etcd may be away just now, and the guard holds on that long.
    loop {
        let sent = clock::now();
        if sent >= predecessor.valid_until {
            return None;
        }
        match client.lease_renew(predecessor.id, schema::PREFIX) {
            Ok(Renewal::Held(ttl)) => {
                return Some(Lease {
                    id: predecessor.id,
                    valid_until: sent + ttl,
                });
            }
            Ok(Renewal::Gone) => return None,
            Ok(Renewal::LeaderChanged) => {}
            Err(error) => {
                let reason = chain(&error);
                if complaint.raise(&reason) {
                    warn!("cannot renew the lease of the run before: {reason}");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The points under which the run before is registered with `lease`.
pub(super) fn registered_points(
    client: &Client,
    config: &Config,
    lease: Lease,
) -> Option<Vec<u64>> {
    let key = Key::Node(config.name.clone());
    let reply = client.get(&key.bytes()).ok()?;
    let node = reply
        .kvs
        .first()
        .filter(|node| node.lease == Some(lease.id))?;
    match schema::read_value(&key, &node.value).0 {
        Value::Points(points) if !points.is_empty() => Some(points),
        _ => None,
    }
}
