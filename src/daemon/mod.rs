//! The daemon: makes the parts, starts the threads, and waits for their end. One file a thread.

mod adopt;
pub mod bystander;
pub mod fence;
pub mod frr_thread;
pub mod gate;
pub mod history;
pub mod host_monitor;
pub mod lease;
pub mod neighbours;
pub mod observer;
mod proof;
pub mod readvertise;
mod rewatch;
pub mod signs;
pub mod watch_pause;
pub mod witness;
mod witness_etcd;
pub mod worker;

use crate::Failure;
use crate::cli::Config;
use crate::commands::check;
use crate::etcd::Client;
use crate::gateway::{self, Event, Exit, Gateway};
use crate::guard::Guard;
use crate::guard::address::Address;
use crate::guard::protocol;
use crate::guard::supervisor::{Attached, GuardSupervisor};
use crate::host::addresses;
use crate::host::factory::HostFactory;
use crate::host::links;
use crate::host::nft::{self, KernelLease};
use crate::host::signs::Tracked;
use crate::model::fitness::Sign;
use crate::model::frr::{Announce, Cost, EvpnFilter};
use crate::model::types::Vni;
use crate::schema::Meta;
use crate::sys::sd_notify::Supervisor;
use crate::sys::signal::Signals;
use crate::sys::{clock, memory};
use crate::telemetry::log_text::{Complaint, chain, value};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::server::{self, About};
use crate::telemetry::notify::Notifier;
use crate::witness::message;
use core::net::{IpAddr, Ipv4Addr};
use fence::Fence;
use gate::Gate;
use history::History;
use lease::LeaseKeeper;
use log::{info, warn};
use neighbours::Neighbours;
use std::error::Error;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use watch_pause::PauseSwitch;
use worker::Worker;

/// Another node lives under this name.
#[derive(Debug)]
struct NameTaken(String);

impl fmt::Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "the name {name} is registered in etcd by another live wmgwd: stop it, or choose another --name"
        )
    }
}

impl Error for NameTaken {}

/// Not everything could be withdrawn.
#[derive(Debug)]
struct Unfinished;

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not everything is withdrawn: the guard goes on trying for a while; if it gives up, run wmgwd withdraw",
        )
    }
}

impl Error for Unfinished {}

/// Looks whether [`run`] could begin with `config`: whether the files that it names can be used. Asks nothing and
/// changes nothing.
///
/// # Errors
/// A file cannot be used.
pub fn check_config(config: &Config) -> Result<(), Failure> {
    Client::open(&config.etcd, config.timing.etcd_timeout)?;
    for warning in config.etcd.warnings() {
        warn!("{warning}");
    }
    look_at_notify(config);
    info!(
        "the options can be taken: name={} vnis={}-{}",
        value(config.name.as_str()),
        config.range.first(),
        config.range.last()
    );
    match GuardSupervisor::is_kept(&guard_arguments(config)) {
        true => info!(
            "a run that is killed is followed by one that keeps its VNIs: see RESTARTING in wmgwd(8)"
        ),
        false => info!(
            "a new run does not keep the VNIs of one that is killed: no guard of its kind runs here"
        ),
    }
    Ok(())
}

/// Serves VNIs until told to stop; then everything is withdrawn and the lease revoked.
pub fn run(config: Config, signals: Signals) -> Result<(), Failure> {
    // Before anything is touched: a file that cannot be used is a mistake to be told at once.
    let client = Client::open(&config.etcd, config.timing.etcd_timeout)?;
    let metrics: Arc<Metrics> = Arc::default();
    let host = HostFactory::open(
        config.mock,
        config.range,
        config.evpn_filter,
        config.announce,
    )?
    .counting(&metrics);
    info!(
        "starting version={} name={} vnis={}-{}",
        env!("CARGO_PKG_VERSION"),
        value(config.name.as_str()),
        config.range.first(),
        config.range.last()
    );
    if !config.mock
        && let Err(reason) = memory::lock()
    {
        info!("memory is not locked, so that a busy disk may delay a fence: {reason}");
    }
    let supervisor = Supervisor::from_environment().unwrap_or_else(|error| {
        warn!("cannot tell the service manager how it goes: NOTIFY_SOCKET: {error}");
        Supervisor::default()
    });
    if let HostFactory::Real { range, .. } = &host {
        for finding in check::look::at_start(*range) {
            let remedy = finding.remedy.unwrap_or_default();
            warn!("{}: {}; remedy: {remedy}", finding.about, finding.text);
        }
    }
    for warning in config.etcd.warnings() {
        warn!("{warning}");
    }
    let client = client.counting(metrics.clone());
    let Attached {
        supervisor: guards,
        mut conn,
        predecessor,
        retired,
    } = GuardSupervisor::attach(guard_address(&config), guard_arguments(&config))?;
    let others = GuardSupervisor::retire_others(guard_address(&config).others());
    for lease in retired.into_iter().chain(others) {
        // It shows nothing any more: no node need wait for its end, this run least of all.
        match client.lease_revoke(lease.id) {
            Ok(()) => info!("lease={} of the run before revoked", lease.id),
            Err(error) => warn!(
                "cannot revoke lease={} of the run before, it ends by itself: {}",
                lease.id,
                chain(&error)
            ),
        }
    }
    let held = predecessor.as_ref().map(|(lease, _)| *lease);
    let taken_over = predecessor.and_then(|it| adopt::adopt(&client, &config.name, it));
    let adopted = taken_over.as_ref().map(|it| it.lease);
    if let Some(lease) = held.filter(|_| adopted.is_none()) {
        // Whatever proves it: what the run before shows has to go.
        conn.witness(&message::Order::Ended(lease.id));
    }
    if let Some(lease) = adopted {
        // At once: it holds on to what the run before shows, and that run's time is nearly over.
        conn.lease(lease);
    }

    metrics.started(clock::unix_seconds(), adopted.is_some());
    let mut gateway = Gateway::new(gateway_config(&config));
    if let Some(lease) = adopted {
        info!(
            "lease={} taken over from the run before, with what it serves",
            lease.id
        );
        gateway.adopt(lease);
    }
    let (events, inbox) = channel();
    let fence = Fence::new(
        config.timing.fence_margin,
        host.kernel(),
        Box::new(conn),
        Box::new(guards),
    )?;
    let fence = fence.counting(metrics.clone());
    let known = taken_over.as_ref().and_then(|it| it.known.as_ref());
    if let Some(known) = known {
        fence.take_over(known);
    }
    if adopted.is_some() {
        // What the run before serves goes on.
        fence.set_lease(adopted);
    }
    // Before anything answers, and before what a run before has in the table is switched.
    let mut complaint = Complaint::default();
    let (fence, tended) = fence.gated_by(gate(&config), config.range);
    gate::report(tended, &mut complaint);
    let fence = Arc::new(fence);
    let has_epochs = known.is_some_and(|it| it.in_place.is_some() || it.unanswered.is_some());
    if !config.mock {
        gate::spawn(fence.clone(), config.range, complaint)?;
    }

    let told = events.clone();
    signals.spawn(move |count| {
        let event = if count == 1 {
            Event::Drain
        } else {
            Event::Stop
        };
        // The receiver is gone once everything is withdrawn: nothing is left to end.
        let _ = told.send(event);
    })?;
    if let Some(address) = config.metrics {
        let about = About {
            name: config.name.clone(),
            range: config.range,
        };
        server::spawn(address, metrics.clone(), about, stillness(&config))?;
    }
    let notifier = notifier(&config, &metrics)?;
    let lease_keeper = LeaseKeeper::spawn(
        client.clone(),
        config.timing,
        fence.clone(),
        events.clone(),
        adopted,
    )?;
    let history = History::new(events.clone()).of_lease(lease_keeper.doubts());
    // A window of 0 names no witness any more; where there is none that may be named, there is nothing to do.
    let witness = match config.detect_window.is_zero() && !has_epochs {
        true => None,
        false => Some(witness::spawn(witness::Parts {
            me: config.name.clone(),
            role: witness::Role::Gateway {
                window: config.detect_window,
            },
            ttl: config.timing.ttl,
            locate: witness::locate(beat_address(&config), find_vtep(&host)),
            client: client
                .clone()
                .within(witness::call_timeout(&client, config.timing.etcd_timeout)),
            fence: fence.clone(),
            doubts: lease_keeper.doubts(),
            metrics: metrics.clone(),
            events: config.track.has(Sign::Beats).then(|| events.clone()),
            adopted: taken_over,
            is_real: !config.mock,
        })?),
    };
    let pause = PauseSwitch::default();
    observer::spawn(&client, &events, &metrics, &history, &pause)?;
    host_monitor::spawn(
        host.router(),
        host.bridges(),
        host.book(),
        config.range,
        fence.clone(),
        events.clone(),
    )?;
    let tracked = Tracked {
        fabric: config.track_fabric.clone(),
        uplink: config.track_uplink.clone(),
    };
    // (The thread `frr` tells of FRR's daemons, `witness` of beats.)
    let told_elsewhere = [Sign::Frr, Sign::Beats];
    let needs_looks = config
        .track
        .iter()
        .any(|sign| !told_elsewhere.contains(&sign));
    if let Some(source) = host.signs(tracked).filter(|_| needs_looks) {
        signs::spawn(source, metrics.clone(), events.clone())?;
    }
    let worker = Worker {
        gateway,
        me: config.name.clone(),
        meta: Meta {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            range: config.range,
            unable: None,
            fitness: None,
            time: None,
            kernel: None,
            ipv6: None,
        },
        fence: fence.clone(),
        kernel: host.kernel(),
        neighbours: Neighbours::spawn(host.bridges())?,
        client,
        lease_doubts: lease_keeper.doubts(),
        inbox,
        history,
        pause,
        supervisor,
        metrics,
        notifier: notifier.clone(),
    };
    let exit = worker
        .spawn(host.router(), events)?
        .join()
        .expect("a thread that panics takes the process with it");
    if exit == Exit::Unfinished && !fence.is_silent() {
        lease_keeper.let_run_out();
    } else {
        if let Some(witness) = witness {
            witness.leave();
        }
        lease_keeper.revoke();
    }
    if exit != Exit::Unfinished
        && let Err(error) = fence.dismiss_guard()
    {
        warn!("cannot remove the table `arp wmgwd`: {}", chain(&error));
    }
    notifier.finish();
    match exit {
        // The guard stays behind: it silences when the lease ends, and goes on trying.
        Exit::Unfinished => Err(Unfinished.into()),
        Exit::Stopped => {
            info!("everything is withdrawn");
            Ok(())
        }
        Exit::NameTaken => Err(NameTaken(config.name.to_string()).into()),
    }
}

/// Where beats are received, if that is not to be found out.
fn beat_address(config: &Config) -> Option<(IpAddr, u16)> {
    let (address, port) = config.beat_address.unzip();
    match config.mock {
        // Mock nodes share a machine.
        true => Some((
            address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port.flatten().unwrap_or(0),
        )),
        false => address.map(|address| (address, port.flatten().unwrap_or(crate::witness::PORT))),
    }
}

/// Finds the address from which VXLAN packets of the range are sent: that of the first VNI that has one.
fn find_vtep(host: &HostFactory) -> impl FnMut() -> Option<IpAddr> + Send + 'static {
    let range = match host {
        HostFactory::Real { range, .. } => Some(*range),
        HostFactory::Mock(_) => None,
    };
    move || {
        let interfaces = links::dump().ok()?;
        let vxlans = interfaces.iter().filter_map(|it| it.vxlan);
        let ours = vxlans.filter(|it| {
            let vni = Vni::new(it.id);
            it.local.is_some() && vni.is_some_and(|vni| range.is_some_and(|it| it.contains(vni)))
        });
        let first = ours.min_by_key(|it| it.id)?;
        first.local.map(IpAddr::V4)
    }
}

fn gate(config: &Config) -> Gate {
    if config.mock {
        return Gate::none();
    }
    let own = guard_address(config);
    let opener = move || match own.other_guard() {
        Some(other) => Err(nft::Error::Shared(other)),
        None => KernelLease::open(),
    };
    let mut gate = Gate::new(config.timing.gate_margin, Arc::new(opener));
    match addresses::look_for_ipv6(config.range) {
        Ok(ipv6) => gate.manage(ipv6),
        Err(error) => warn!("cannot look at the IPv6 addresses of this host: {error}"),
    }
    gate
}

/// How long the worker may do nothing: it waits for etcd, endpoint after endpoint, and for nothing else.
fn stillness(config: &Config) -> Duration {
    const LEAST: Duration = Duration::from_secs(10);
    let endpoints = u32::try_from(config.etcd.endpoints.len()).unwrap_or(u32::MAX);
    LEAST + config.timing.etcd_timeout * endpoints
}

fn notifier(config: &Config, metrics: &Arc<Metrics>) -> Result<Notifier, Failure> {
    look_at_notify(config);
    match &config.notify {
        None => Ok(Notifier::default()),
        Some(program) => Ok(Notifier::spawn(program, &config.name, metrics.clone())?),
    }
}

/// Warns of a program of --notify that cannot be run.
fn look_at_notify(config: &Config) {
    let Some(program) = &config.notify else {
        return;
    };
    let is_runnable = std::fs::metadata(program)
        .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if !is_runnable {
        let program = program.display();
        warn!("--notify {program} is no program that can be run: events are dropped until it is");
    }
}

fn gateway_config(config: &Config) -> gateway::Config {
    gateway::Config {
        me: config.name.clone(),
        range: config.range,
        points: config.points.clone(),
        fence_margin: config.timing.fence_margin,
        settle: config.settle,
        join_hold: config.join_hold,
        drain_timeout: config.drain_timeout,
        // A lease that a new etcd leader has extended lives that long.
        max_lease_life: 2 * config.timing.ttl,
        takeover_cost: match config.announce {
            Announce::Costs => Cost(config.takeover_cost),
            // FRR's configuration has the metric of a route.
            Announce::Routes => Cost::OWNER,
        },
        announces_itself: config.announce == Announce::Routes && !config.mock,
        track: config.track,
        fit_hold: config.fit_hold,
    }
}

fn guard_address(config: &Config) -> Address {
    let etcd = config
        .etcd
        .endpoints
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    Address::new(&config.name, config.mock.then_some(&etcd))
}

/// What [`guard::run`](crate::guard::run::run) reads.
fn guard_arguments(config: &Config) -> Vec<std::ffi::OsString> {
    let filter = match config.evpn_filter {
        EvpnFilter::List => "list",
        EvpnFilter::Entries => "entries",
    };
    vec![
        guard_address(config).argument(),
        protocol::VERSION.into(),
        config.timing.guard_margin.as_millis().to_string().into(),
        config.range.first().to_string().into(),
        config.range.last().to_string().into(),
        filter.into(),
        config.announce.name().into(),
        if config.mock { "mock" } else { "real" }.into(),
        if config.debug { "debug" } else { "info" }.into(),
    ]
}
