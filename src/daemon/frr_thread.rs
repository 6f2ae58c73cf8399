//! The slow lane to FRR: thread `frr` carries out one order of the worker after the other, and looks now and
//! then whether FRR still has what it was given.
//!
//! Owns the [`Router`]. While it is busy the worker goes on: ARP and etcd never wait for vtysh.

use crate::daemon::fence::Fence;
use crate::daemon::readvertise::Mending;
use crate::gateway::Event;
use crate::host::{self, Parts, RouteChange, Router};
use crate::model::types::{LeaseId, Vni};
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, Complaints, chain, spans};
use log::{Level, debug, info, log, warn};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

/// How long FRR is left alone before it is asked whether it still has what it was given.
const AUDIT: Duration = Duration::from_secs(30);

/// What the thread `frr` is told.
pub enum Order {
    /// Withdraw all but `keep` from `parts`.
    Reset {
        /// From which daemons.
        parts: Parts,
        /// What stays as it is.
        keep: BTreeSet<Vni>,
    },
    /// Change these.
    Change {
        /// What to change.
        changes: Vec<RouteChange>,
        /// The lease that it was decided under.
        under: Option<LeaseId>,
    },
}

/// Starts the thread. It ends when the returned sender is gone.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    router: Box<dyn Router>,
    fence: Arc<Fence>,
    events: Sender<Event>,
) -> io::Result<Sender<Order>> {
    let (frr, orders) = channel();
    Builder::new()
        .name("frr".to_owned())
        .spawn(move || serve_orders(router, &fence, &orders, &events))?;
    Ok(frr)
}

/// Thread `frr`: one order after the other.
fn serve_orders(
    mut router: Box<dyn Router>,
    fence: &Fence,
    orders: &Receiver<Order>,
    events: &Sender<Event>,
) {
    let mut complaints = Complaints::new("FRR");
    let mut reset_complaint = Complaint::default();
    let mut warned = false;
    let mut mending = Mending::default();
    let mut claimed_under = None;
    let mut audit = clock::now() + AUDIT;
    loop {
        let due = mending.due.map_or(audit, |due| due.min(audit));
        let order = match orders.recv_timeout(due.since(clock::now())) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout) => {
                // Orders go first, so this may be late, but is never in their way.
                if mending.due.is_some_and(|due| due <= clock::now()) {
                    mending.look(&mut *router, &|| fence.permits(claimed_under));
                }
                if audit > clock::now() {
                    continue;
                }
                // Only while it is quiet: what is under way is no drift.
                audit = clock::now() + AUDIT;
                mending.due = Some(clock::now());
                match router.drifted() {
                    Ok(vnis) if vnis.is_empty() => continue,
                    Ok(vnis) => {
                        warn!(
                            "FRR: vnis={} are not as they were left: told again",
                            spans(&vnis)
                        );
                        if events.send(Event::Drifted(vnis)).is_err() {
                            return;
                        }
                    }
                    Err(error) => debug!("FRR: cannot look: {}", chain(&error)),
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        audit = clock::now() + AUDIT;
        mending.due = Some(clock::now());
        let event = match order {
            Order::Reset { parts, keep } => {
                let mut taken = Parts::NONE;
                // One by one: a daemon that refuses must not hide that the other did as it was told.
                for part in parts.each() {
                    match router.withdraw(part, &keep, &|| true) {
                        Ok(()) => taken = taken.or(part),
                        Err(error) => {
                            let reason = chain(&error);
                            let level = if reset_complaint.raise(&reason) {
                                Level::Warn
                            } else {
                                Level::Debug
                            };
                            log!(level, "FRR: cannot withdraw: {reason}");
                        }
                    }
                }
                if taken == parts {
                    reset_complaint.settle();
                    info!(
                        "FRR: every VNI is withdrawn but those served here: kept={}",
                        keep.len()
                    );
                    if !warned {
                        warned = true;
                        router
                            .warnings()
                            .iter()
                            .for_each(|warning| warn!("FRR: {warning}"));
                    }
                }
                Event::RoutesReset(taken)
            }
            Order::Change { changes, under } => {
                claimed_under = under;
                let failures = router.apply(&changes, &|| fence.permits(under));
                let failed = failures.iter().map(|failure| failure.vni).collect();
                debug!("FRR: changes={} failed={}", changes.len(), failures.len());
                let reasons = failures
                    .iter()
                    .filter(|failure| !matches!(failure.error, host::Error::NotPermitted))
                    .map(|failure| (failure.vni, chain(&failure.error)))
                    .collect();
                complaints.hear(changes.iter().map(|change| change.vni), reasons);
                Event::RoutesChanged { failed }
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
