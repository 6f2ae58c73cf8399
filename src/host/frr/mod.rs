//! FRR of this machine, changed through vtysh and asked over its vty sockets: the outbound EVPN filter in bgpd, the
//! costs of the bridges in ospfd and, where it runs on them, in ospf6d.
//!
//! What is to be said is built and what comes back is read by pure modules (`script`, `config`, `targets`,
//! `vtysh_output`, `route_map`); `run` starts vtysh and `vty` asks, `push` corners what FRR refuses. [`Frr`] itself owns
//! what it remembers of bgpd's filter, which holds for one run of bgpd and is read anew after it.
//!
//! Nothing is ever saved to FRR's startup configuration: it would survive the lease.

mod bgp;
mod by_routes;
pub mod carrier;
pub mod config;
mod costs;
mod file;
mod health;
pub mod inspect;
pub mod inspection;
mod neighbours;
mod ospf6;
mod push;
pub mod redistribution;
pub mod route_map;
mod run;
pub mod script;
mod svi;
pub mod targets;
#[cfg(test)]
mod tests;
pub mod upstream;
pub mod vty;
pub(crate) mod vtysh_output;
mod zebra;

use super::links::Bridges;
use super::routes::{RouteBook, Routes};
use super::{
    Announce, Cost, Error, FrrDaemons, Health, Readvertised, RouteChange, RouteFailure, Router,
};
use crate::model::frr::EvpnFilter;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::metrics::Metrics;
use bgp::Filter;
use costs::Costs;
use health::VtyConns;
use ospf6::Ospf6;
pub(super) use push::again;
use push::failure;
use redistribution::{Enabled, ZebraCheck};
use run::{Daemon, Vtysh};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use svi::Svi;
use vty::Vty;
use zebra::Missed;

/// The largest range for which every bridge gets its cost ahead of its existence; in a larger one only the
/// bridges that exist or that ospfd has heard of. An interface line costs ospfd about 5 ms (measured).
const PRESET: usize = 4096;

/// How long ospfd may take to say one cost: it is asked once a second.
const GLANCE: Duration = Duration::from_millis(500);

/// How to speak to FRR. [`FrrConfig::new`] has the values for a usual installation.
#[derive(Clone, Debug)]
pub struct FrrConfig {
    /// vtysh; looked up in `PATH` if it has no slash.
    pub vtysh: PathBuf,
    /// The VNIs that this node serves.
    pub range: VniRange,
    /// How `filter-vni` tells VNIs apart.
    pub filter: EvpnFilter,
    /// Deadline of one run of vtysh.
    pub timeout: Duration,
    /// What each line of a script adds to it.
    pub timeout_per_line: Duration,
    /// How many VNIs go into one run.
    pub batch: usize,
    /// Where FRR's pid files may be.
    pub run_dirs: Vec<PathBuf>,
    /// Where the runs of vtysh are counted.
    pub metrics: Arc<Metrics>,
    /// How VNIs are announced upstream.
    pub announce: Announce,
    /// The bridges of this machine.
    pub bridges: Bridges,
    /// The kernel routes that announce VNIs.
    pub book: RouteBook,
}

impl FrrConfig {
    /// FRR as distributions install it: `vtysh` in `PATH`, pid files in `/run/frr` or `/var/run/frr`; 5 s
    /// and 20 ms a line for a run (measured: 0.1 s and 5 ms a line on two busy cores), 1024 VNIs a run: all that
    /// the gateway changes at once, so that the number of runs does not grow with the VNIs.
    pub fn new(range: VniRange) -> FrrConfig {
        FrrConfig {
            vtysh: "vtysh".into(),
            range,
            filter: EvpnFilter::default(),
            timeout: Duration::from_secs(5),
            timeout_per_line: Duration::from_millis(20),
            batch: 1024,
            run_dirs: vec!["/run/frr".into(), "/var/run/frr".into()],
            metrics: Arc::default(),
            announce: Announce::default(),
            bridges: Bridges::default(),
            book: RouteBook::default(),
        }
    }
}

/// The FRR lane of a host.
#[derive(Debug)]
pub struct Frr {
    vtysh: Vtysh,
    range: VniRange,
    batch: usize,
    run_dirs: Vec<PathBuf>,
    conns: VtyConns,
    ospfd: Vty,
    bgpd: Vty,
    /// Where the next glance begins.
    glance_from: Vni,
    filter: Filter,
    svi: Svi,
    missed: Missed,
    /// The costs that ospfd took.
    costs: Costs,
    ospf6: Ospf6,
    announce: Announce,
    bridges: Bridges,
    routes: Routes,
    zebra: ZebraCheck,
    /// With `--announce routes`: an FRR daemon carries the kernel's routes upstream; `None` before the first look.
    carried: Option<bool>,
    /// ospfd carried them when it was last looked at, and bgpd did not do so since.
    ospfd_carries: bool,
    /// With `--announce routes`: the bridges that ospfd announces all the same.
    enabled: Enabled,
    /// bgpd refused claims the last time: routes wait until it has taken them.
    bgpd_refused: bool,
}

impl Frr {
    /// Starts no vtysh yet.
    pub fn new(config: FrrConfig) -> Frr {
        Frr {
            vtysh: Vtysh::new(&config),
            range: config.range,
            batch: config.batch,
            ospfd: Vty::new(config.run_dirs.clone(), "ospfd"),
            bgpd: Vty::new(config.run_dirs.clone(), "bgpd"),
            glance_from: Vni::MIN,
            run_dirs: config.run_dirs,
            conns: VtyConns::default(),
            filter: Filter::new(config.filter, config.range),
            svi: Svi::default(),
            missed: Missed::default(),
            costs: Costs::new(Daemon::Ospfd, script::cost),
            ospf6: Ospf6::new(config.range),
            announce: config.announce,
            routes: Routes::new(config.range, config.bridges.clone(), config.book),
            bridges: config.bridges,
            zebra: ZebraCheck::default(),
            carried: None,
            ospfd_carries: false,
            enabled: Enabled::default(),
            bgpd_refused: false,
        }
    }

    /// The VNIs whose bridge's name an interface of the host's own has.
    fn foreign(&self) -> BTreeSet<Vni> {
        // If it fails, what was known is used.
        if !self.bridges.is_followed() {
            let _ = self.bridges.reload();
        }
        self.bridges.foreign(self.range).unwrap_or_default()
    }

    /// Sets costs in ospfd and ospf6d.
    fn set_costs(
        &mut self,
        costs: &[(Vni, Cost)],
        permit: Option<&dyn Fn() -> bool>,
    ) -> Vec<RouteFailure> {
        let mut failures = self.costs.set(&self.vtysh, self.batch, costs, permit);
        failures.extend(self.ospf6.set(&self.vtysh, self.batch, costs, permit));
        failures
    }

    fn read_costs(&self) -> Result<BTreeMap<Vni, Cost>, Error> {
        let text = self.vtysh.show(Daemon::Ospfd, "show running-config")?;
        Ok(config::parse_ospf(&text))
    }

    /// Makes every bridge of the range as expensive as OSPF can say, also one that does not exist yet: it
    /// must not appear with the default cost, which is better than any owner's. The cost of a bridge of the host's own
    /// is the operator's.
    fn withdraw_costs(
        &mut self,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let found = self.read_costs()?;
        // Shared by both questions: one look at all links.
        let bridges = Bridges::default();
        let vnis: BTreeSet<Vni> = if self.range.len() <= PRESET {
            self.range.iter().collect()
        } else {
            let known = found.keys().filter(|vni| self.range.contains(**vni));
            known
                .copied()
                .chain(bridges.vnis(self.range).unwrap_or_default())
                .collect()
        };
        let foreign = bridges.foreign(self.range).unwrap_or_default();
        let (done, todo): (Vec<Vni>, Vec<Vni>) = vnis
            .into_iter()
            .filter(|vni| !keep.contains(vni) && !foreign.contains(vni))
            .partition(|vni| found.get(vni) == Some(&Cost::OTHERS));
        let done = done.into_iter().map(|vni| (vni, Cost::OTHERS));
        self.costs.know(done.collect());
        let todo: Vec<(Vni, Cost)> = todo.into_iter().map(|vni| (vni, Cost::OTHERS)).collect();
        first_error(self.costs.set(&self.vtysh, self.batch, &todo, Some(permit)))
    }

    /// The VNIs whose costs in ospfd are not as it took them.
    fn compare_costs(&mut self) -> Result<BTreeSet<Vni>, Error> {
        let found = self.read_costs()?;
        Ok(self.costs.compare(&found))
    }

    fn apply_costs(&mut self, wanted: Wanted, permit: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        let bgpd = health::look(&self.run_dirs).bgpd;
        let mut failures = self
            .filter
            .release(&self.vtysh, bgpd, self.batch, &wanted.hide);
        failures.extend(self.set_costs(&wanted.repel, None));

        let claimed = self
            .filter
            .claim(&self.vtysh, bgpd, self.batch, &wanted.show, permit);
        self.svi.note_claimed(&wanted.show, self.filter.yields());
        // Without its EVPN routes a VNI is unreachable here: do not draw its traffic.
        let failed: BTreeSet<Vni> = claimed.iter().map(|failure| failure.vni).collect();
        failures.extend(claimed);
        let attract: Vec<(Vni, Cost)> = wanted
            .attract
            .into_iter()
            .filter(|(vni, _)| !failed.contains(vni))
            .collect();
        failures.extend(self.set_costs(&attract, Some(permit)));
        failures
    }
}

impl Router for Frr {
    fn withdraw(
        &mut self,
        parts: FrrDaemons,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let bgpd = health::look(&self.run_dirs).bgpd;
        // One daemon that does not answer must not keep the other from withdrawing. The kernel's routes first: that
        // takes milliseconds.
        let routes = match parts.ospfd {
            true => self.withdraw_routes(keep, permit),
            false => Ok(()),
        };
        let filter = match parts.bgpd {
            true => self.filter.withdraw(&self.vtysh, bgpd, keep, permit),
            false => Ok(()),
        };
        let upstream = match (parts.ospfd, self.announce) {
            (true, Announce::Costs) => self.withdraw_costs(keep, permit),
            (true, Announce::Routes) => self.look_upstream(permit),
            (false, _) => Ok(()),
        };
        let ospf6 = match parts.ospfd {
            true => {
                let foreign = self.foreign();
                let frr = (&self.vtysh, &self.run_dirs[..], self.batch);
                self.ospf6.withdraw(frr, keep, &foreign, permit)
            }
            false => Ok(()),
        };
        routes.and(filter).and(upstream).and(ospf6)
    }

    fn apply(&mut self, changes: &[RouteChange], permit: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        let wanted = Wanted::new(changes);
        let mut failures = match self.announce {
            Announce::Costs => self.apply_costs(wanted, permit),
            Announce::Routes => self.apply_routes(&wanted, permit),
        };
        // A VNI that both daemons refused is named once.
        let mut named = BTreeSet::new();
        failures.retain(|failure| named.insert(failure.vni));
        failures
    }

    fn warnings(&self) -> Vec<String> {
        let lacking = self.lacks_upstream();
        let mut warnings = self.filter.warnings();
        warnings.extend(lacking.as_ref().map(ToString::to_string));
        warnings
    }

    fn lacks(&self, part: FrrDaemons) -> Option<Error> {
        let filter = self.filter.lacks().filter(|_| part.bgpd);
        filter.or_else(|| self.lacks_upstream().filter(|_| part.ospfd))
    }

    fn take_lost(&mut self) -> Vec<Vni> {
        self.filter.take_lost().into_iter().collect()
    }

    fn health(&mut self) -> Health {
        let health = health::look(&self.run_dirs);
        self.conns.renew(&self.run_dirs, health);
        self.upstream_health(health)
    }

    fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.conns.ends()
    }

    fn readvertise(&mut self, permit: &dyn Fn() -> bool) -> Result<Readvertised, Error> {
        if self.filter.take_was_open() {
            let existing = Bridges::default().vnis(self.range);
            self.svi.filter_was_open(existing.unwrap_or_default());
        }
        let Some(asn) = self.filter.asn() else {
            return Ok(Readvertised::default());
        };
        // A daemon that is stopped would hold vtysh up for its whole deadline.
        let health = health::look(&self.run_dirs);
        for (daemon, runs) in [
            (Daemon::Bgpd, health.bgpd.is_some()),
            (Daemon::Zebra, health.zebra.is_some()),
        ] {
            if !runs {
                let daemon = daemon.name();
                return Err(Error::Down { daemon });
            }
        }
        let shown = self.filter.shown();
        self.svi
            .readvertise(&self.vtysh, asn, self.batch, shown, permit)
    }

    /// Whether ospfd has another cost than it took, looking at one bridge. A reload of FRR (`frr-reload.py`) removes
    /// every line that its file does not have: all costs at once, with the lines of the EVPN filter. The cost of an
    /// owner is in no file, so this looks at one of those where there are any.
    ///
    /// With `--announce routes` there are no costs of owners: the entry that lets the list of route targets pass is
    /// looked at instead.
    fn is_suspect(&mut self) -> bool {
        if self.ospf6.is_suspect(&self.run_dirs) {
            return true;
        }
        if self.announce == Announce::Routes {
            return self.lost_filter();
        }
        let attracts = |cost: &Cost| *cost != Cost::OTHERS;
        let is_owner = self.costs.taken().values().any(attracts);
        let is_wanted = |(_, cost): &(&Vni, &Cost)| attracts(cost) || !is_owner;
        let mut after = self.costs.taken().range(self.glance_from..);
        let Some((&vni, &cost)) = after
            .find(is_wanted)
            .or_else(|| self.costs.taken().iter().find(is_wanted))
        else {
            return false;
        };
        let question = format!("show ip ospf interface {}", vni.bridge());
        let answer = self.ospfd.ask(&question, GLANCE);
        let found = answer
            .ok()
            .and_then(|answer| config::interface_cost(&answer.text));
        // OSPF does not run on each bridge, and not each bridge exists: where there is no cost, the next one is asked.
        self.glance_from = match found {
            Some(_) => vni,
            None => Vni::new(vni.get() + 1).unwrap_or(Vni::MIN),
        };
        found.is_some_and(|found| found != cost)
    }

    fn drifted(&mut self, permit: &dyn Fn() -> bool) -> Result<Vec<Vni>, Error> {
        self.svi.look_again();
        let health = health::look(&self.run_dirs);
        // One daemon that does not answer must not keep the other from being looked at.
        let filter = self
            .filter
            .drifted(&self.vtysh, health.bgpd, self.batch, permit);
        let upstream = match self.announce {
            Announce::Costs => self.compare_costs(),
            Announce::Routes => self.compare_routes(permit),
        };
        let foreign = self.foreign();
        let ospf6 = self.ospf6.drifted(&self.vtysh, &self.run_dirs, &foreign);
        let mut drifted = BTreeSet::new();
        let upstream = upstream.map(|found| drifted.extend(found));
        let ospf6 = ospf6.map(|found| drifted.extend(found));
        let addresses = match health.zebra {
            Some(_) => self.missed.make_up(&self.vtysh, self.range),
            None => Ok(()),
        };
        let compared = filter.and_then(|found| {
            drifted.extend(found);
            upstream.and(ospf6).and(addresses)
        });
        if let Err(error) = compared {
            self.filter.lose(drifted);
            return Err(error);
        }
        Ok(drifted.into_iter().collect())
    }
}

/// A batch of changes, by daemon and by whether they claim. The last change of a VNI counts.
#[derive(Debug, Default)]
struct Wanted {
    hide: Vec<Vni>,
    show: Vec<Vni>,
    repel: Vec<(Vni, Cost)>,
    attract: Vec<(Vni, Cost)>,
}

impl Wanted {
    fn new(changes: &[RouteChange]) -> Wanted {
        let evpn: BTreeMap<Vni, bool> = changes
            .iter()
            .filter_map(|c| Some((c.vni, c.evpn?)))
            .collect();
        let cost: BTreeMap<Vni, Cost> = changes
            .iter()
            .filter_map(|c| Some((c.vni, c.cost?)))
            .collect();
        let mut wanted = Wanted::default();
        for (vni, advertise) in evpn {
            let list = if advertise {
                &mut wanted.show
            } else {
                &mut wanted.hide
            };
            list.push(vni);
        }
        (wanted.attract, wanted.repel) =
            cost.into_iter().partition(|(_, cost)| *cost < Cost::OTHERS);
        wanted
    }
}

fn first_error(failures: Vec<RouteFailure>) -> Result<(), Error> {
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error),
        None => Ok(()),
    }
}

/// `error` for each of `vnis`.
fn all_failed(vnis: impl IntoIterator<Item = Vni>, error: &Error) -> Vec<RouteFailure> {
    vnis.into_iter()
        .map(|vni| failure(vni, push::again(error)))
        .collect()
}
