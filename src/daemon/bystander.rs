//! `wmgwd witness`: a node that serves nothing. It acknowledges the beats of the gateways and votes, on a machine that
//! etcd needs anyway.
//!
//! It is made of the same threads as a gateway: `watchdog` keeps its lease, `witness` and those beside it do the rest.
//! Its fence has nothing to silence, and it needs no guard: one that does not acknowledge is missed by no station.

use super::fence::Fence;
use super::lease::LeaseKeeper;
use super::witness::{self, Parts, Role};
use crate::Failure;
use crate::cli::WitnessConfig;
use crate::etcd::Client;
use crate::gateway::Event;
use crate::guard::NoGuard;
use crate::host::mock::Mock;
use crate::model::types::{Vni, VniRange};
use crate::sys::sd_notify::Supervisor;
use crate::sys::signal::Signals;
use crate::sys::{clock, memory};
use crate::telemetry::log_text::value;
use log::{info, warn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

/// Is a witness until told to stop; then the lease is revoked.
///
/// # Errors
/// A file cannot be used, or the system has no thread, socket or timer left.
pub fn run(config: WitnessConfig, signals: Signals) -> Result<(), Failure> {
    let client = Client::open(&config.etcd, config.timing.etcd_timeout)?;
    info!(
        "starting version={} name={} as a witness",
        env!("CARGO_PKG_VERSION"),
        value(config.name.as_str()),
    );
    if let Err(reason) = memory::lock() {
        info!("memory is not locked, so that a busy disk may delay an acknowledgement: {reason}");
    }
    let supervisor = Supervisor::from_environment().unwrap_or_else(|error| {
        warn!("cannot tell the service manager how it goes: NOTIFY_SOCKET: {error}");
        Supervisor::default()
    });
    for warning in config.etcd.warnings() {
        warn!("{warning}");
    }
    let (events, inbox) = channel();
    let told = events.clone();
    signals.spawn(move |_| {
        // The receiver is gone once the lease is about to be revoked.
        let _ = told.send(Event::Stop);
    })?;
    // There is no VNI to switch.
    let host = Mock::new(VniRange::new(Vni::MIN, Vni::MIN).expect("they are in order"))?;
    let margin = config.timing.fence_margin;
    let fence = Fence::new(margin, Box::new(host), Box::new(NoGuard), Box::new(NoGuard))?;
    let fence = Arc::new(fence);
    let keeper = LeaseKeeper::spawn(client.clone(), config.timing, fence.clone(), events, None)?;
    let (address, port) = config.beat_address;
    let address = SocketAddr::new(address, port.unwrap_or(crate::witness::PORT));
    let handle = witness::spawn(Parts {
        me: config.name.clone(),
        role: Role::Witness { margin },
        ttl: config.timing.ttl,
        locate: Box::new(move || Some(address)),
        client: {
            let timeout = witness::call_timeout(&client, config.timing.etcd_timeout);
            client.within(timeout)
        },
        fence,
        doubts: keeper.doubts(),
        metrics: Arc::default(),
        events: None,
        adopted: None,
        is_real: true,
    })?;
    wait(&inbox, supervisor);
    handle.leave();
    keeper.revoke();
    Ok(())
}

/// Until the process is told to stop.
fn wait(inbox: &Receiver<Event>, mut supervisor: Supervisor) {
    let mut has_lease = false;
    loop {
        let status = || match has_lease {
            true => "acknowledging the beats of gateways".to_owned(),
            false => "waiting for etcd".to_owned(),
        };
        supervisor.turn(clock::now(), status);
        match inbox.recv_timeout(supervisor.interval()) {
            Ok(Event::Lease(lease)) => {
                has_lease = lease.is_some();
                if has_lease {
                    supervisor.ready();
                }
            }
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    supervisor.stopping();
}
