//! The process of a guard, from its arguments to its end.

use super::address::Address;
use super::process::{self, Process};
use crate::Failure;
use crate::host::factory::HostFactory;
use crate::model::frr::{Announce, EvpnFilter};
use crate::model::types::VniRange;
use crate::sys::realtime;
use crate::telemetry::logging;
use std::thread::Builder;
use std::time::Duration;

/// Guards a daemon. The arguments come from `guard_arguments` of the same binary, never from a person.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let usage = || Failure::from("wmgwd guard is started by wmgwd itself");
    let [
        address,
        _version,
        margin,
        first,
        last,
        filter,
        announce,
        mock,
        level,
    ] = arguments
    else {
        return Err(usage());
    };
    logging::init_unattended(level == "debug")?;
    let margin = Duration::from_millis(margin.parse().map_err(|_| usage())?);
    let range = first
        .parse()
        .ok()
        .zip(last.parse().ok())
        .and_then(|(first, last)| VniRange::new(first, last));
    let filter = if filter == "entries" {
        EvpnFilter::Entries
    } else {
        EvpnFilter::List
    };
    let announce = Announce::from_name(announce).ok_or_else(usage)?;
    let host = HostFactory::open(mock == "mock", range.ok_or_else(usage)?, filter, announce)?;
    let is_real = !host.is_mock();
    process::settle_in(is_real);
    let guard = Process::bind(
        &Address::from_argument(address),
        margin,
        host.kernel(),
        host.router(),
    )?;
    // A thread of its own for its name in the log, which has the lines of the daemon as well.
    Builder::new()
        .name("guard".to_owned())
        .spawn(move || {
            if is_real {
                // The daemon has said so if it cannot be had.
                let _ = realtime::raise();
            }
            guard.run();
        })?
        .join()
        .expect("a thread that panics takes the process with it");
    Ok(())
}
