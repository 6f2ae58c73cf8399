//! `wmgwd withdraw`: takes everything off this host, once.

use crate::Failure;
use crate::cli::WithdrawConfig;
use crate::guard::address::Address;
use crate::host;
use crate::host::addresses;
use crate::host::factory::HostFactory;
use crate::host::nft::{self, Found, KernelLease};
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::{chain, spans};
use log::{info, warn};

/// Withdraws everything on this host: ARP first, then FRR.
pub fn withdraw(config: &WithdrawConfig) -> Result<(), Failure> {
    if config.unless_guarded && Address::any_guard() {
        info!("a guard is there and withdraws when the lease ends: nothing to do");
        return Ok(());
    }
    let host = HostFactory::open(
        config.mock,
        config.range,
        config.evpn_filter,
        config.announce,
    )?;
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
    } else if !host.is_mock() {
        remove_gate(config.range);
    }
    if !host.is_mock()
        && let Err(error) = silence_ipv6(config.range)
    {
        warn!("IPv6 gateway addresses are not silenced: {error}");
    }
    host.router().withdraw_all()?;
    info!("everything is withdrawn from FRR");
    refused.map_or(Ok(()), |error| Err(error.into()))
}

/// Has the table `ip6 wmgwd` keep the IPv6 gateway addresses silent: there is nothing else that does.
fn silence_ipv6(range: VniRange) -> Result<(), String> {
    let ipv6 = addresses::look_for_ipv6(range).map_err(|error| error.to_string())?;
    if ipv6.bridges.is_empty() {
        return Ok(());
    }
    let silenced = KernelLease::open().and_then(|mut table| table.silence_ipv6(&ipv6));
    silenced.map_err(|error| chain(&error))?;
    let count = ipv6.bridges.len();
    info!("the IPv6 gateway addresses of count={count} bridges are silent");
    Ok(())
}

/// Removes the table of the kernel lease. Only once all are silent: until then it may be what keeps them so.
fn remove_gate(range: VniRange) {
    match try_to_remove_gate(range) {
        Ok(true) => info!("the table `arp wmgwd` is removed"),
        // There can be none.
        Ok(false) | Err(nft::Error::Unsupported(_)) => {}
        Err(error) => warn!("cannot remove the table `arp wmgwd`: {}", chain(&error)),
    }
}

fn try_to_remove_gate(range: VniRange) -> Result<bool, nft::Error> {
    let mut table = KernelLease::open()?;
    let found = table.find()?;
    // Without a gateway address there is nothing that the table of IPv6 has to keep silent.
    if let Ok(ipv6) = addresses::look_for_ipv6(range) {
        table.set_ipv6(&ipv6)?;
    }
    if let Found::Whole { names, .. } = found {
        let (vnis, others) = nft::vnis_of(&names, range);
        if !others.is_empty() {
            warn!(
                "the table `arp wmgwd` keeps count={} bridges silent that are not of this range: it is left there; run \
                 this with their --minvni and --maxvni",
                others.len()
            );
            let ours: Vec<String> = vnis.into_iter().map(Vni::bridge).collect();
            return table.remove_names(&ours).map(|()| false);
        }
    }
    table.remove()
}
