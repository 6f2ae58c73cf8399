//! `wmgwd witness`: a node that serves nothing.

use super::error::Error;
use super::options::{Options, with_etcd};
use super::timing::Timing;
use super::values;
use crate::etcd;
use crate::model::types::NodeName;
use argh::{ArgsInfo, FromArgs};
use std::net::IpAddr;

/// How a witness is to run, checked.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// The name it has among the nodes.
    pub name: NodeName,
    /// Where beats are received: the address, and the port if it was given.
    pub beat_address: (IpAddr, Option<u16>),
    /// The lease and every time that follows from it.
    pub timing: Timing,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// How etcd is reached, and who asks.
    pub etcd: etcd::Access,
}

with_etcd! {
/// Serves nothing, but tells dead gateways from living ones: for the third machine of a site with two gateways. Needs no FRR, no VNI and no root.
#[argh(
    help_triggers("-h", "--help"),
    usage = "--name <name> --beat-address <address> [options]",
    note = "Options may come from the environment: --beat-address as WMGWD_BEAT_ADDRESS, and so on for all but --env-file and --help. The command line wins.",
    note = "EARLY DETECTION in wmgwd(8) explains it."
)]
pub(super) struct WitnessArgs {
    /// the name of this node, which no other node has: text that is not empty and has no slash and no control character (required)
    #[argh(option)]
    name: Option<String>,
    /// an IP address of this machine, with or without a UDP port as in 192.0.2.1:14789 or [2001:db8::1]:14789, to receive the beats of gateways at (required)
    #[argh(option)]
    beat_address: Option<String>,
    /// whole seconds from 2 to 600: how long the lease lasts without a keepalive (default: 5)
    #[argh(option, default = "String::from(\"5\")")]
    lease_ttl: String,
    /// true or false: log at debug (default: false)
    #[argh(switch)]
    debug: bool,
}
}

impl WitnessArgs {
    pub(super) fn check(&self, options: &Options) -> Result<WitnessConfig, Error> {
        let required = |option, text: &Option<String>| {
            text.clone().ok_or_else(|| Error::Required {
                option,
                takes: options.takes(option),
            })
        };
        let name = required("--name", &self.name)?;
        let address = required("--beat-address", &self.beat_address)?;
        Ok(WitnessConfig {
            name: options.read("--name", &name, |text| text.parse().ok())?,
            beat_address: options.read("--beat-address", &address, values::beat_address)?,
            timing: options.read("--lease-ttl", &self.lease_ttl, values::lease)?,
            debug: self.debug,
            etcd: self.etcd(options)?,
        })
    }
}
