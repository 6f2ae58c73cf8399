//! A run that goes on where another died, with its lease.

use crate::etcd::{Client, Renewal};
use crate::guard::supervisor::Predecessor;
use crate::model::types::{Lease, NodeName};
use crate::schema::{self, Key};
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, chain};
use crate::witness::message::Known;
use crate::witness::owner::{self, Epochs};
use log::warn;
use std::time::Duration;

/// What a run takes over from the one before it.
pub struct Adopted {
    /// The lease, renewed.
    pub lease: Lease,
    /// What the guard knows of the epochs under it.
    pub known: Option<Known>,
    /// What became of them.
    pub epochs: Epochs,
}

/// The lease of a dead predecessor, if etcd still has it and the node was not evicted.
pub(super) fn adopt(
    client: &Client,
    me: &NodeName,
    (predecessor, known): Predecessor,
) -> Option<Adopted> {
    let lease = renew(client, predecessor)?;
    // After the guard was asked: what it does not know was never sent.
    let epochs = match &known {
        None => (None, None),
        Some(known) => match look(client, me, lease, known)? {
            Some(epochs) => epochs,
            None => {
                warn!(
                    "lease={} the run before was evicted, or its lease ended: it is not taken over",
                    lease.id
                );
                if let Err(error) = client.lease_revoke(lease.id) {
                    warn!(
                        "cannot revoke lease={}, it ends by itself: {}",
                        lease.id,
                        chain(&error)
                    );
                }
                return None;
            }
        },
    };
    Some(Adopted {
        lease,
        known,
        epochs,
    })
}

/// What became of the epochs that the guard knows; `None` within if the node was evicted, `None` if etcd does not
/// tell before the lease is over.
fn look(client: &Client, me: &NodeName, lease: Lease, known: &Known) -> Option<Option<Epochs>> {
    let key = Key::Epoch(me.clone());
    while clock::now() < lease.valid_until {
        match client.get(&key.bytes()) {
            Ok(reply) => {
                let held = reply.kvs.first().map(schema::witness::held);
                return Some(owner::taken_over(known, held));
            }
            Err(error) => warn!("cannot read the epoch of the run before: {}", chain(&error)),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    None
}

fn renew(client: &Client, predecessor: Lease) -> Option<Lease> {
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
