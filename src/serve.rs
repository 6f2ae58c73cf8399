//! The three things that the process can be: a daemon, its guard, or one withdrawal.

use log::{info, warn};
use std::error::Error;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;
use wmgwd::check;
use wmgwd::cli::{Config, WithdrawConfig};
use wmgwd::clock;
use wmgwd::etcd::Client;
use wmgwd::fence::Fence;
use wmgwd::gateway::{self, Event, Exit, Gateway};
use wmgwd::guard::Guard;
use wmgwd::guard::address::Address;
use wmgwd::guard::keeper::{Attached, Keeper};
use wmgwd::guard::process::{self, Process};
use wmgwd::host::frr::{EvpnFilter, Frr, FrrConfig};
use wmgwd::host::mock::Mock;
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::{self, Cost, Kernel, Router};
use wmgwd::lookout;
use wmgwd::metrics::Metrics;
use wmgwd::metrics::server::{About, Server};
use wmgwd::notify::Notifier;
use wmgwd::observer::{self, Doubt};
use wmgwd::report::{Complaint, chain, spans, value};
use wmgwd::rest::Rest;
use wmgwd::schema::{self, Key, Meta, Value};
use wmgwd::signal::Signals;
use wmgwd::supervisor::Supervisor;
use wmgwd::types::{Lease, Vni, VniRange};
use wmgwd::watchdog::Watchdog;
use wmgwd::worker::Worker;

/// Why the process could not do what it is for.
pub type Failure = Box<dyn Error + Send + Sync>;

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

/// The lanes to a host: real, or mock.
#[derive(Clone)]
enum Host {
    Real {
        range: VniRange,
        filter: EvpnFilter,
        metrics: Arc<Metrics>,
    },
    Mock(Mock),
}

impl Host {
    fn open(mock: bool, range: VniRange, filter: EvpnFilter) -> Result<Host, Failure> {
        Ok(if mock {
            Host::Mock(Mock::new(range)?)
        } else {
            Host::Real {
                range,
                filter,
                metrics: Arc::default(),
            }
        })
    }

    /// The host, counting in `metrics` what FRR is asked to do.
    fn counting(self, metrics: &Arc<Metrics>) -> Host {
        match self {
            Host::Real { range, filter, .. } => Host::Real {
                range,
                filter,
                metrics: metrics.clone(),
            },
            mock @ Host::Mock(_) => mock,
        }
    }

    fn kernel(&self) -> Box<dyn Kernel> {
        match self {
            Host::Real { .. } => Box::new(ProcKernel::new()),
            Host::Mock(mock) => Box::new(mock.clone()),
        }
    }

    fn router(&self) -> Box<dyn Router> {
        match self {
            Host::Real {
                range,
                filter,
                metrics,
            } => Box::new(Frr::new(FrrConfig {
                filter: *filter,
                metrics: metrics.clone(),
                ..FrrConfig::new(*range)
            })),
            Host::Mock(mock) => Box::new(mock.clone()),
        }
    }

    /// The VNIs that may answer ARP: a range of millions is looked through by what exists.
    fn bridges(&self) -> Vec<Vni> {
        match self {
            Host::Real { range, .. } => ProcKernel::new().existing(range).into_iter().collect(),
            Host::Mock(mock) => mock.range().iter().collect(),
        }
    }

    fn is_mock(&self) -> bool {
        matches!(self, Host::Mock(_))
    }
}

/// Serves VNIs until told to stop; then everything is withdrawn and the lease revoked.
pub fn run(config: Config, signals: Signals) -> Result<(), Failure> {
    // Before anything is touched: an address that is taken is a mistake to be told at once.
    let server = config.metrics.map(Server::bind).transpose()?;
    let metrics: Arc<Metrics> = Arc::default();
    let host = Host::open(config.mock, config.range, config.evpn_filter)?.counting(&metrics);
    info!(
        "starting version={} name={} vnis={}-{}",
        env!("CARGO_PKG_VERSION"),
        value(config.name.as_str()),
        config.range.first(),
        config.range.last()
    );
    let supervisor = Supervisor::from_environment().unwrap_or_else(|error| {
        warn!("cannot tell the service manager how it goes: NOTIFY_SOCKET: {error}");
        Supervisor::default()
    });
    if let Host::Real { range, .. } = &host {
        for finding in check::look::at_start(*range) {
            let mend = finding.mend.unwrap_or_default();
            warn!("{}: {}; run: {mend}", finding.about, finding.text);
        }
    }
    for warning in config.etcd.warnings() {
        warn!("{warning}");
    }
    let client = Client::open(&config.etcd, config.timing.etcd_timeout)?.counting(metrics.clone());
    let Attached {
        keeper,
        mut line,
        predecessor,
        retired,
    } = Keeper::attach(guard_address(&config), guard_arguments(&config))?;
    if let Some(lease) = retired {
        // Nothing of it is on show any more: nobody need wait for its end, this run least of all.
        match client.lease_revoke(lease.id) {
            Ok(()) => info!("lease={} of the run before revoked", lease.id),
            Err(error) => warn!(
                "cannot revoke lease={} of the run before, it ends by itself: {}",
                lease.id,
                chain(&error)
            ),
        }
    }
    let adopted = predecessor.and_then(|lease| adopt(&client, lease));
    if let Some(lease) = adopted {
        // At once: it holds on to what the run before shows, and that run's time is nearly over.
        line.lease(lease);
    }

    let mut gateway = Gateway::new(gateway_config(&config, &client, adopted));
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
        Box::new(line),
        Box::new(keeper),
    )?;
    let fence = Arc::new(fence.counting(metrics.clone()));

    let told = events.clone();
    signals.spawn(move |count| {
        let event = if count == 1 {
            Event::Drain
        } else {
            Event::Stop
        };
        // Nobody listens any more once everything is withdrawn: nothing is left to end.
        let _ = told.send(event);
    })?;
    if let Some(server) = server {
        let about = About {
            name: config.name.clone(),
            range: config.range,
        };
        server.spawn(metrics.clone(), about, stillness(&config))?;
    }
    let notifier = notifier(&config, &metrics)?;
    let watchdog = Watchdog::spawn(
        client.clone(),
        config.timing,
        fence.clone(),
        events.clone(),
        adopted,
    )?;
    let doubt = Doubt::default();
    let rest = Rest::default();
    observer::spawn(&client, &events, &metrics, &doubt, &rest)?;
    lookout::spawn(host.router(), !host.is_mock(), config.range, events.clone())?;
    let worker = Worker {
        gateway,
        me: config.name.clone(),
        meta: Meta {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            range: config.range,
            time: None,
        },
        fence: fence.clone(),
        kernel: host.kernel(),
        client,
        inbox,
        doubt,
        rest,
        supervisor,
        metrics,
        notifier: notifier.clone(),
    };
    let exit = worker
        .spawn(host.router(), events)?
        .join()
        .expect("a thread that panics takes the process with it");
    if exit == Exit::Unfinished && !fence.answering().is_empty() {
        watchdog.let_run_out();
    } else {
        watchdog.revoke();
    }
    if exit != Exit::Unfinished {
        fence.dismiss_guard();
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

/// How long the worker may stand still: it waits for etcd, endpoint after endpoint, and for nobody else.
fn stillness(config: &Config) -> Duration {
    const LEAST: Duration = Duration::from_secs(10);
    let endpoints = u32::try_from(config.etcd.endpoints.len()).unwrap_or(u32::MAX);
    LEAST + config.timing.etcd_timeout * endpoints
}

fn notifier(config: &Config, metrics: &Arc<Metrics>) -> Result<Notifier, Failure> {
    let Some(program) = &config.notify else {
        return Ok(Notifier::default());
    };
    let is_runnable = std::fs::metadata(program)
        .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if !is_runnable {
        let program = program.display();
        warn!("--notify {program} is no program that can be run: nobody is told until it is");
    }
    Ok(Notifier::spawn(program, &config.name, metrics.clone())?)
}

/// The lease of a dead predecessor, if etcd still has it.
fn adopt(client: &Client, predecessor: Lease) -> Option<Lease> {
    let mut complaint = Complaint::default();
    // Asked until the lease must be over: etcd may be away just now, and the guard holds on that long.
    loop {
        let sent = clock::now();
        if sent >= predecessor.valid_until {
            return None;
        }
        match client.lease_keepalive(predecessor.id) {
            Ok(ttl) => {
                return ttl.map(|ttl| Lease {
                    id: predecessor.id,
                    valid_until: sent + ttl,
                });
            }
            Err(error) => {
                let reason = chain(&error);
                if complaint.raise(&reason) {
                    warn!("cannot renew the lease of the run before: {reason}");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn gateway_config(config: &Config, client: &Client, adopted: Option<Lease>) -> gateway::Config {
    // A run that goes on where another died keeps its place on the ring, or its VNIs would move.
    let kept = adopted
        .filter(|_| !config.points_given)
        .and_then(|lease| registered_points(client, config, lease));
    gateway::Config {
        me: config.name.clone(),
        range: config.range,
        points: kept.unwrap_or_else(|| config.points.clone()),
        fence_margin: config.timing.fence_margin,
        settle: config.settle,
        join_hold: config.join_hold,
        drain_timeout: config.drain_timeout,
        // A lease that a new etcd leader has extended lives that long.
        name_wait: 2 * config.timing.ttl,
        takeover_cost: Cost(config.takeover_cost),
    }
}

fn registered_points(client: &Client, config: &Config, lease: Lease) -> Option<Vec<u64>> {
    let key = Key::Node(config.name.clone());
    let reply = client.get(&key.bytes()).ok()?;
    let node = reply
        .kvs
        .first()
        .filter(|node| node.lease == Some(lease.id))?;
    match schema::read_value(&key, &node.value).0 {
        Value::Points(points) if !points.is_empty() => Some(points),
        _ => None,
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

/// What [`guard`] reads.
fn guard_arguments(config: &Config) -> Vec<std::ffi::OsString> {
    let filter = match config.evpn_filter {
        EvpnFilter::List => "list",
        EvpnFilter::Entries => "entries",
    };
    vec![
        guard_address(config).argument(),
        config.timing.guard_margin.as_millis().to_string().into(),
        config.range.first().to_string().into(),
        config.range.last().to_string().into(),
        filter.into(),
        if config.mock { "mock" } else { "real" }.into(),
        if config.debug { "debug" } else { "info" }.into(),
    ]
}

/// Guards a daemon. The arguments come from [`guard_arguments`] of the same binary, never from a person.
pub fn guard(arguments: &[String]) -> Result<(), Failure> {
    let usage = || Failure::from("wmgwd guard is started by wmgwd itself");
    let [address, margin, first, last, filter, mock, level] = arguments else {
        return Err(usage());
    };
    wmgwd::logging::init_unattended(level == "debug")?;
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
    let host = Host::open(mock == "mock", range.ok_or_else(usage)?, filter)?;
    process::settle_in(!host.is_mock());
    let guard = Process::bind(
        &Address::from_argument(address),
        margin,
        host.kernel(),
        host.router(),
    )?;
    // A thread of its own for its name in the log, where the lines of the daemon stand as well.
    Builder::new()
        .name("guard".to_owned())
        .spawn(|| guard.run())?
        .join()
        .expect("a thread that panics takes the process with it");
    Ok(())
}

/// Withdraws everything on this host: ARP first, then FRR.
pub fn withdraw(config: &WithdrawConfig) -> Result<(), Failure> {
    if config.unless_guarded && Address::any_guard() {
        info!("a guard is there and withdraws when the lease ends: nothing to do");
        return Ok(());
    }
    let host = Host::open(config.mock, config.range, config.evpn_filter)?;
    let mut kernel = host.kernel();
    let mut silenced = Vec::new();
    let mut refused: Option<host::Error> = None;
    for vni in host.bridges() {
        match kernel.set_arp(vni, false) {
            Ok(()) => silenced.push(vni),
            Err(host::Error::NoInterface { .. }) => {}
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
