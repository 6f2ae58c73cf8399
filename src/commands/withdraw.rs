//! `wmgwd withdraw`: takes everything off this host, once.

use crate::Failure;
use crate::cli::WithdrawConfig;
use crate::guard::address::Address;
use crate::host;
use crate::host::factory::HostFactory;
use crate::telemetry::log_text::{chain, spans};
use log::{info, warn};

/// Withdraws everything on this host: ARP first, then FRR.
pub fn withdraw(config: &WithdrawConfig) -> Result<(), Failure> {
    if config.unless_guarded && Address::any_guard() {
        info!("a guard is there and withdraws when the lease ends: nothing to do");
        return Ok(());
    }
    let host = HostFactory::open(config.mock, config.range, config.evpn_filter)?;
    let mut kernel = host.kernel();
    let mut silenced = Vec::new();
    let mut refused: Option<host::Error> = None;
    let vnis = host.vnis().unwrap_or_else(|error| {
        refused = Some(error);
        Vec::new()
    });
    for vni in vnis {
        match kernel.set_arp(vni, false) {
            Ok(()) => silenced.push(vni),
            Err(error) if error.is_absence() => {}
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    info!(
        "vnis={} count={} do not answer ARP",
        spans(&silenced),
        silenced.len()
    );
    if let Some(error) = &refused {
        warn!("some VNIs still answer ARP: {}", chain(error));
    }
    host.router().withdraw_all()?;
    info!("everything is withdrawn from FRR");
    refused.map_or(Ok(()), |error| Err(error.into()))
}
