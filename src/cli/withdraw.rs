//! `wmgwd withdraw`: everything off this host.

use super::error::Error;
use super::options::Options;
use super::values;
use crate::model::frr::{Announce, EvpnFilter};
use crate::model::types::VniRange;
use argh::{ArgsInfo, FromArgs};

/// How `wmgwd withdraw` is to run, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawConfig {
    /// The VNIs to withdraw.
    pub range: VniRange,
    /// Whether the host is left alone.
    pub mock: bool,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// How `filter-vni` lets a VNI's routes pass.
    pub evpn_filter: EvpnFilter,
    /// How VNIs are announced upstream.
    pub announce: Announce,
    /// Whether to leave everything to the guard of a crashed daemon, if one runs.
    pub unless_guarded: bool,
}

/// Withdraws every VNI of the range on this host: ARP, EVPN and OSPF. Needs no etcd.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options]",
    note = "Options may come from the environment: --maxvni as WMGWD_MAXVNI, and so on for all but --help. The command line wins."
)]
pub(super) struct WithdrawArgs {
    /// the smallest VNI to withdraw, from 1 to 16777215 (default: 1)
    #[argh(option, default = "String::from(\"1\")")]
    minvni: String,
    /// the greatest VNI to withdraw, from 1 to 16777215, not smaller than --minvni (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    maxvni: String,
    /// true or false: leave the kernel and FRR alone, log at debug what would be done (default: false)
    #[argh(switch)]
    mock: bool,
    /// true or false: log at debug (default: false)
    #[argh(switch)]
    debug: bool,
    /// list or entries: whether filter-vni matches one list of route targets or has an entry for each VNI (default: list)
    #[argh(option, default = "String::from(\"list\")")]
    evpn_filter: String,
    /// costs or routes: announce a VNI upstream by the OSPF cost of its bridge, or by kernel routes that FRR redistributes (default: costs)
    #[argh(option, default = "String::from(\"costs\")")]
    announce: String,
    /// true or false: withdraw nothing while the guard of a crashed daemon still runs on this host (default: false)
    #[argh(switch)]
    unless_guarded: bool,
}

impl WithdrawArgs {
    pub(super) fn check(&self, options: &Options) -> Result<WithdrawConfig, Error> {
        Ok(WithdrawConfig {
            range: options.range(&self.minvni, &self.maxvni)?,
            mock: self.mock,
            debug: self.debug,
            evpn_filter: options.read("--evpn-filter", &self.evpn_filter, values::evpn_filter)?,
            announce: options.read("--announce", &self.announce, Announce::from_name)?,
            unless_guarded: self.unless_guarded,
        })
    }
}
