//! The bare command: a node that serves VNIs.

use super::error::Error;
use super::options::{Options, with_etcd};
use super::timing::Timing;
use super::values;
use crate::etcd;
use crate::model::fitness::SignSet;
use crate::model::frr::{Announce, EvpnFilter};
use crate::model::ring::Points;
use crate::model::types::{NodeName, VniRange};
use argh::{ArgsInfo, FromArgs};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a node is to run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name it registers under.
    pub name: NodeName,
    /// The VNIs it serves.
    pub range: VniRange,
    /// Whether the host is left alone.
    pub mock: bool,
    /// Its points on the ring.
    pub points: Points,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// How etcd is reached, and who asks.
    pub etcd: etcd::Access,
    /// How long routes get to converge between the phases of a migration. What has to converge, as measured
    /// in the lab: an EVPN route after `clear ... soft out`, at most 0.15 s (FRR's own route-map delay would be
    /// 5 s); an OSPF cost at an upstream router that takes LSAs as they come, 0.1 s (one that ignores those
    /// within a second of each other: up to 10 s). A drain lost nothing with 0 s, as the old owner goes on
    /// forwarding meanwhile; the default of 0.5 s leaves room for slower networks.
    pub settle: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// The lease and every time that follows from it.
    pub timing: Timing,
    /// How long a node must have been registered before it pulls VNIs from living owners.
    pub join_hold: Duration,
    /// How long an acknowledged beat proves the node; zero turns early detection off.
    pub detect_window: Duration,
    /// Where beats are received: the address, and the port if it was given.
    pub beat_address: Option<(IpAddr, Option<u16>)>,
    /// How `filter-vni` lets a VNI's routes pass.
    pub evpn_filter: EvpnFilter,
    /// How VNIs are announced upstream.
    pub announce: Announce,
    /// The OSPF cost right after a failover; 100 is the owner's usual one.
    pub takeover_cost: u16,
    /// The signs by which the node judges whether it can forward.
    pub track: SignSet,
    /// The interfaces towards the fabric, if they were given.
    pub track_fabric: Vec<String>,
    /// The interfaces towards the networks above, if they were given.
    pub track_uplink: Vec<String>,
    /// How long signs that were bad must be good before the node takes VNIs again.
    pub fit_hold: Duration,
    /// Where the numbers can be asked for.
    pub metrics: Option<SocketAddr>,
    /// The program that is told what happens to the VNIs.
    pub notify: Option<PathBuf>,
}

with_etcd! {
/// Distributed gateway daemon: exactly one gateway serves each VNI.
#[argh(
    help_triggers("-h", "--help"),
    usage = "--name <name> [options]\n       wmgwd withdraw [options]\n       wmgwd check [options]\n       wmgwd status [options] [<vni>...]\n       wmgwd drain [options] <name>\n       wmgwd undrain [options] <name>\n       wmgwd witness --name <name> --beat-address <address> [options]",
    note = "wmgwd help and wmgwd help <command> print this and the help of a command; -v is --version.",
    note = "wmgwd withdraw withdraws every VNI on this host, without etcd; see wmgwd withdraw --help.",
    note = "wmgwd check says whether this host is fit to serve, and what repairs it; see wmgwd check --help.",
    note = "wmgwd status shows nodes and VNIs; wmgwd drain takes a node out for maintenance, wmgwd undrain brings it back; each has its --help.",
    note = "wmgwd witness serves nothing, but tells dead gateways from living ones; see wmgwd witness --help.",
    note = "An option may have one dash or two, and its value may follow a space or \"=\".",
    note = "Options may come from the environment: --lease-ttl as WMGWD_LEASE_TTL, and so on for all but --help, --version, --check-config and --env-file. The command line wins.",
    note = "wmgwd(8) explains it all."
)]
pub(super) struct Args {
    /// the name of this node: text that is not empty and has no slash and no control character (required)
    #[argh(option)]
    name: Option<String>,
    /// the smallest VNI to serve, from 1 to 16777215 (default: 1)
    #[argh(option, default = "String::from(\"1\")")]
    minvni: String,
    /// the greatest VNI to serve, from 1 to 16777215, not smaller than --minvni (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    maxvni: String,
    /// true or false: leave the kernel and FRR alone, log at debug what would be done (default: false)
    #[argh(switch)]
    mock: bool,
    /// the ring points of this node: numbers from 0 to 18446744073709551615, separated by commas; else drawn at the first start and kept in etcd (default: 100 random points)
    #[argh(option, default = "String::new()")]
    uids: String,
    /// true or false: log at debug (default: false)
    #[argh(switch)]
    debug: bool,
    /// seconds from 0 to 3600, for routes to converge between the phases of a migration (default: 0.5)
    #[argh(option, default = "String::from(\"0.5\")")]
    settle: String,
    /// seconds from 0 to 3600, after which a drain ends whether or not every VNI has moved (default: 60)
    #[argh(option, default = "String::from(\"60\")")]
    drain_timeout: String,
    /// whole seconds from 2 to 600: how long the lease lasts without a keepalive (default: 5)
    #[argh(option, default = "String::from(\"5\")")]
    lease_ttl: String,
    /// seconds from 0 to 3600 that a node must have been registered before it pulls VNIs from living owners (default: 30)
    #[argh(option, default = "String::from(\"30\")")]
    join_hold: String,
    /// seconds from 0.1 to 3600 after which the other nodes take over from one they hear nothing of, or 0 to wait for the end of its lease (default: 0.5)
    #[argh(option, default = "String::from(\"0.5\")")]
    detect_window: String,
    /// an IP address, with or without a UDP port as in 192.0.2.1:14789 or [2001:db8::1]:14789, to receive the beats of other nodes at (default: that of the VXLAN interfaces, port 14789)
    #[argh(option, default = "String::new()")]
    beat_address: String,
    /// list or entries: whether filter-vni matches one list of route targets or has an entry for each VNI (default: list)
    #[argh(option, default = "String::from(\"list\")")]
    evpn_filter: String,
    /// costs or routes: announce a VNI upstream by the OSPF cost of its bridge, or by kernel routes that FRR redistributes (default: costs)
    #[argh(option, default = "String::from(\"costs\")")]
    announce: String,
    /// the OSPF cost right after a failover, from 1 to 100; 100 is the usual cost of an owner (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    takeover_cost: String,
    /// the signs that this gateway cannot forward which count: of fabric-link, evpn, beats, uplink-link, ospf, frr, separated by commas, or all, or none (default: all)
    #[argh(option, default = "String::from(\"all\")")]
    track: String,
    /// the interfaces towards the fabric, separated by commas, instead of those that have the local addresses of the VXLAN interfaces (default: none)
    #[argh(option, default = "String::new()")]
    track_fabric: String,
    /// the interfaces towards the networks above, separated by commas, instead of those on which OSPF has had a full adjacency (default: none)
    #[argh(option, default = "String::new()")]
    track_uplink: String,
    /// seconds from 0 to 3600 that signs which were bad must be good before this node takes VNIs again; doubled after each relapse (default: 10)
    #[argh(option, default = "String::from(\"10\")")]
    fit_hold: String,
    /// an IP address and a port, such as 127.0.0.1:9798 or [::]:9798, to answer Prometheus and health checks at (default: none)
    #[argh(option, default = "String::new()")]
    metrics: String,
    /// the absolute path of a program to run when VNIs of this node change hands; no arguments, no shell (default: none)
    #[argh(option, default = "String::new()")]
    notify: String,
    /// true or false: look whether all options can be taken, and end; nothing is touched, and etcd is not asked (default: false)
    #[argh(switch)]
    pub(super) check_config: bool,
    /// true or false: print the version and end (default: false)
    #[argh(switch)]
    pub(super) version: bool,
}
}

impl Args {
    /// Reads every text, in the order of the help.
    pub(super) fn check(&self, options: &Options) -> Result<Config, Error> {
        let Some(name) = &self.name else {
            return Err(Error::Required {
                option: "--name",
                takes: options.takes("--name"),
            });
        };
        let seconds = |option, text: &str| options.read(option, text, values::seconds);
        Ok(Config {
            name: options.read("--name", name, |text| text.parse().ok())?,
            range: options.range(&self.minvni, &self.maxvni)?,
            mock: self.mock,
            points: self.points(options)?,
            debug: self.debug,
            etcd: self.etcd(options)?,
            settle: seconds("--settle", &self.settle)?,
            drain_timeout: seconds("--drain-timeout", &self.drain_timeout)?,
            timing: options.read("--lease-ttl", &self.lease_ttl, values::lease)?,
            join_hold: seconds("--join-hold", &self.join_hold)?,
            detect_window: options.read(
                "--detect-window",
                &self.detect_window,
                values::detect_window,
            )?,
            beat_address: options.read_given(
                "--beat-address",
                &self.beat_address,
                values::beat_address,
            )?,
            evpn_filter: options.read("--evpn-filter", &self.evpn_filter, values::evpn_filter)?,
            announce: options.read("--announce", &self.announce, Announce::from_name)?,
            takeover_cost: options.read(
                "--takeover-cost",
                &self.takeover_cost,
                values::takeover_cost,
            )?,
            track: options.read("--track", &self.track, |text| text.parse().ok())?,
            track_fabric: options.interfaces("--track-fabric", &self.track_fabric)?,
            track_uplink: options.interfaces("--track-uplink", &self.track_uplink)?,
            fit_hold: seconds("--fit-hold", &self.fit_hold)?,
            metrics: options.read_given("--metrics", &self.metrics, |text| text.parse().ok())?,
            notify: options.read_given("--notify", &self.notify, values::program)?,
        })
    }

    /// The ring points: those given, or random ones. An empty text is "not given", as in Go.
    fn points(&self, options: &Options) -> Result<Points, Error> {
        if self.uids.is_empty() {
            return Ok(Points::Drawn(values::random_points()));
        }
        // Item by item, so that the error shows the bad one and not a line of a hundred.
        self.uids
            .split(',')
            .map(|item| options.read("--uids", item, values::point))
            .collect::<Result<_, Error>>()
            .map(Points::Given)
    }
}
