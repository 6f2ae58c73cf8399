//! A run that goes on where another died, with its lease.

use crate::etcd::{Client, Renewal};
use crate::model::types::Lease;
use crate::schema;
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
