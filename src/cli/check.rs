//! `wmgwd check`: its options, read and checked. Pure.

use super::error::Error;
use super::options::{Options, with_etcd};
use super::{Timing, values};
use crate::etcd;
use crate::model::fitness::SignSet;
use crate::model::frr::Announce;
use crate::model::purpose::Purpose;
use argh::{ArgsInfo, FromArgs};

/// How `wmgwd check` is to run, checked.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// What the host is to be fit for.
    pub purpose: Purpose,
    /// Whether the host is left out, as a mock node has none.
    pub mock: bool,
    /// How etcd is reached, and who asks.
    pub etcd: etcd::Access,
    /// The times that follow from the lease.
    pub timing: Timing,
    /// The signs by which the node is to judge whether it can forward.
    pub track: SignSet,
    /// The interfaces towards the fabric, if they were given.
    pub track_fabric: Vec<String>,
    /// The interfaces towards the networks above, if they were given.
    pub track_uplink: Vec<String>,
    /// Whether to print JSON.
    pub json: bool,
}

with_etcd! {
/// Looks whether this host is fit to serve, and names the command that repairs what is not. Changes nothing.
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options]",
    note = "Give it the options of the daemon. Options may come from the environment: --maxvni as WMGWD_MAXVNI, and so on for all but --env-file and --help. The command line wins.",
    note = "Exit status: 0 this host may serve, 1 it may not, 2 it cannot be told."
)]
pub(super) struct CheckArgs {
    /// the name of this node: text that is not empty and has no slash and no control character (default: none)
    #[argh(option)]
    name: Option<String>,
    /// the smallest VNI to serve, from 1 to 16777215 (default: 1)
    #[argh(option, default = "String::from(\"1\")")]
    minvni: String,
    /// the greatest VNI to serve, from 1 to 16777215, not smaller than --minvni (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    maxvni: String,
    /// true or false: leave out the kernel and FRR, look at etcd alone (default: false)
    #[argh(switch)]
    mock: bool,
    /// whole seconds from 2 to 600: how long the lease lasts without a keepalive (default: 5)
    #[argh(option, default = "String::from(\"5\")")]
    lease_ttl: String,
    /// list or entries: whether filter-vni matches one list of route targets or has an entry for each VNI (default: list)
    #[argh(option, default = "String::from(\"list\")")]
    evpn_filter: String,
    /// costs or routes: announce a VNI upstream by the OSPF cost of its bridge, or by kernel routes that FRR redistributes (default: costs)
    #[argh(option, default = "String::from(\"costs\")")]
    announce: String,
    /// the signs that this gateway cannot forward which count: of fabric-link, evpn, beats, uplink-link, ospf, frr, separated by commas, or all, or none (default: all)
    #[argh(option, default = "String::from(\"all\")")]
    track: String,
    /// the interfaces towards the fabric, separated by commas, instead of those that have the local addresses of the VXLAN interfaces (default: none)
    #[argh(option, default = "String::new()")]
    track_fabric: String,
    /// the interfaces towards the networks above, separated by commas, instead of those on which OSPF has had a full adjacency (default: none)
    #[argh(option, default = "String::new()")]
    track_uplink: String,
    /// true or false: print JSON (default: false)
    #[argh(switch)]
    json: bool,
}
}

impl CheckArgs {
    pub(super) fn check(&self, options: &Options) -> Result<CheckConfig, Error> {
        let name = self.name.as_ref();
        let name = name.map(|name| options.read("--name", name, |text| text.parse().ok()));
        let timing: Timing = options.read("--lease-ttl", &self.lease_ttl, values::lease)?;
        Ok(CheckConfig {
            purpose: Purpose {
                name: name.transpose()?,
                range: options.range(&self.minvni, &self.maxvni)?,
                filter: options.read("--evpn-filter", &self.evpn_filter, values::evpn_filter)?,
                ttl: timing.ttl,
                announce: options.read("--announce", &self.announce, Announce::from_name)?,
            },
            mock: self.mock,
            etcd: self.etcd(options)?,
            timing,
            track: options.read("--track", &self.track, |text| text.parse().ok())?,
            track_fabric: options.interfaces("--track-fabric", &self.track_fabric)?,
            track_uplink: options.interfaces("--track-uplink", &self.track_uplink)?,
            json: self.json,
        })
    }
}
