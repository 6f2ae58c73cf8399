//! What an operator asks and tells the cluster through etcd: `wmgwd status`, `drain` and `undrain`.

use super::error::Error;
use super::options::{Options, with_etcd};
use super::values;
use crate::etcd;
use crate::model::types::{NodeName, Vni};
use argh::{ArgsInfo, FromArgs};
use std::collections::BTreeSet;
use std::time::Duration;

/// How `wmgwd status` is to run, checked.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    /// The VNIs that are asked about, each once; none for the whole cluster.
    pub vnis: Vec<Vni>,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether to go on until told to end.
    pub watch: bool,
    /// How long a watch waits between two looks.
    pub interval: Duration,
    /// How etcd is reached.
    pub etcd: etcd::Access,
}

/// How `wmgwd drain` is to run, checked.
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// Which node.
    pub node: NodeName,
    /// Whether to wait until its VNIs have moved.
    pub wait: bool,
    /// How long to wait.
    pub timeout: Duration,
    /// Whether a node that is not registered is drained too.
    pub force: bool,
    /// How etcd is reached.
    pub etcd: etcd::Access,
}

/// How `wmgwd undrain` is to run, checked.
#[derive(Clone, Debug)]
pub struct UndrainConfig {
    /// Which node.
    pub node: NodeName,
    /// How etcd is reached.
    pub etcd: etcd::Access,
}

with_etcd! {
/// Shows the nodes, the VNIs by state and what needs a look; or single VNIs. Only reads.
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options] [<vni>...]",
    note = "A <vni> may be a range, or several with commas: wmgwd status 5-7 12,15",
    note = "Exit status: 0 all VNIs (or those asked for) are served, 1 some are not, 2 it cannot be told.",
    note = "Options may come from the environment: --etcd as WMGWD_ETCD, and so on for all but --env-file and --help. The command line wins."
)]
pub(super) struct StatusArgs {
    /// the VNIs to show, from 1 to 16777215, or ranges of them such as 5-7, and no others
    #[argh(positional)]
    vni: Vec<String>,
    /// true or false: print JSON (default: false)
    #[argh(switch)]
    json: bool,
    /// true or false: look again and again, until Ctrl-C (default: false)
    #[argh(switch)]
    watch: bool,
    /// seconds from 0.1 to 3600 between two looks of --watch (default: 2)
    #[argh(option, default = "String::from(\"2\")")]
    interval: String,
}
}

with_etcd! {
/// Takes a running node out for maintenance: its VNIs migrate away and it takes none, but goes on running. That holds, also when it is started again, until wmgwd undrain.
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options] <name>",
    note = "Exit status: 0 the node has no VNI any more (with --no-wait: it was told), 1 it has, or cannot be drained, 2 etcd could not be asked.",
    note = "Options may come from the environment: --etcd as WMGWD_ETCD, and so on for all but --env-file and --help. The command line wins."
)]
pub(super) struct DrainArgs {
    /// the name of the node
    #[argh(positional, arg_name = "name")]
    node: Option<String>,
    /// true or false: do not wait until the VNIs have moved (default: false)
    #[argh(switch)]
    no_wait: bool,
    /// seconds from 0 to 3600 to wait until the VNIs have moved (default: 60)
    #[argh(option, default = "String::from(\"60\")")]
    timeout: String,
    /// true or false: drain a node that is not registered too, so that it takes no VNI when it comes (default: false)
    #[argh(switch)]
    force: bool,
}
}

with_etcd! {
/// Brings a node back that wmgwd drain has taken out: it gets its share again after its --join-hold.
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options] <name>",
    note = "Exit status: 0 the node is not drained any more, 1 there is no such node, 2 etcd could not be asked.",
    note = "Options may come from the environment: --etcd as WMGWD_ETCD, and so on for all but --env-file and --help. The command line wins."
)]
pub(super) struct UndrainArgs {
    /// the name of the node
    #[argh(positional, arg_name = "name")]
    node: Option<String>,
}
}

impl StatusArgs {
    pub(super) fn check(&self, options: &Options) -> Result<StatusConfig, Error> {
        let mut vnis: Vec<Vni> = Vec::new();
        for text in self.vni.iter().flat_map(|text| text.split(',')) {
            let range = values::span(text).ok_or_else(|| Error::Operand {
                operand: "vni",
                takes: "a VNI from 1 to 16777215, or a range of them such as 5-7",
                value: text.to_owned(),
            })?;
            vnis.extend(range.iter());
        }
        let mut seen = BTreeSet::new();
        vnis.retain(|vni| seen.insert(*vni));
        Ok(StatusConfig {
            vnis,
            json: self.json,
            watch: self.watch,
            interval: options.read("--interval", &self.interval, |text| {
                values::seconds(text).filter(|it| *it >= Duration::from_millis(100))
            })?,
            etcd: self.etcd(options)?,
        })
    }
}

impl DrainArgs {
    pub(super) fn check(&self, options: &Options) -> Result<DrainConfig, Error> {
        Ok(DrainConfig {
            node: node(&self.node)?,
            wait: !self.no_wait,
            timeout: options.read("--timeout", &self.timeout, values::seconds)?,
            force: self.force,
            etcd: self.etcd(options)?,
        })
    }
}

impl UndrainArgs {
    pub(super) fn check(&self, options: &Options) -> Result<UndrainConfig, Error> {
        Ok(UndrainConfig {
            node: node(&self.node)?,
            etcd: self.etcd(options)?,
        })
    }
}

fn node(text: &Option<String>) -> Result<NodeName, Error> {
    let takes = "the name of a node: not empty, no slash, no control character";
    let operand = "name";
    let Some(text) = text else {
        return Err(Error::NoOperand { operand, takes });
    };
    text.parse().map_err(|_| Error::Operand {
        operand,
        takes,
        value: text.clone(),
    })
}
