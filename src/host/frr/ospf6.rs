//! The costs in ospf6d, on the bridges that it runs on. A host without ospf6d has none.
//!
//! They follow those in ospfd: an audit finds what another program changed, or a start of ospf6d lost.

use super::costs::Costs;
use super::run::{Daemon, Vtysh};
use super::{config, first_error, health, script};
use crate::host::{Error, RouteFailure};
use crate::model::frr::Cost;
use crate::model::types::{Vni, VniRange};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What ospf6d has.
#[derive(Debug)]
pub struct Ospf6 {
    /// The bridges that it runs on.
    bridges: BTreeSet<Vni>,
    costs: Costs,
    /// Which run of it was seen last.
    run: Option<u64>,
}

impl Default for Ospf6 {
    fn default() -> Ospf6 {
        Ospf6 {
            bridges: BTreeSet::new(),
            costs: Costs::new(Daemon::Ospf6d, script::cost6),
            run: None,
        }
    }
}

impl Ospf6 {
    /// Sets costs where it runs, and remembers those that it took.
    pub fn set(
        &mut self,
        vtysh: &Vtysh,
        batch: usize,
        costs: &[(Vni, Cost)],
        permit: Option<&dyn Fn() -> bool>,
    ) -> Vec<RouteFailure> {
        let is_enabled = |(vni, _): &&(Vni, Cost)| self.bridges.contains(vni);
        let costs: Vec<(Vni, Cost)> = costs.iter().filter(is_enabled).copied().collect();
        let mut failures = self.costs.set(vtysh, batch, &costs, permit);
        // One that is down has no routes to draw traffic with. The audit makes up for it when it is back.
        failures.retain(|failure| !matches!(failure.error, Error::Down { .. }));
        failures
    }

    /// Looks what ospf6d has: nothing if it does not run.
    fn read(&mut self, vtysh: &Vtysh, run_dirs: &[PathBuf]) -> Result<(), Error> {
        self.run = health::acting(run_dirs, Daemon::Ospf6d.name());
        let text = match self.run {
            Some(_) => vtysh.show(Daemon::Ospf6d, "show running-config")?,
            None => String::new(),
        };
        self.bridges = config::parse_ospf6_bridges(&text);
        self.costs.know(config::parse_ospf6(&text));
        Ok(())
    }

    /// Makes every bridge of the range that is not in `keep` as expensive as OSPF can say.
    ///
    /// # Errors
    /// ospf6d did not say what it has, or refused.
    pub fn withdraw(
        &mut self,
        vtysh: &Vtysh,
        (run_dirs, range, batch): (&[PathBuf], VniRange, usize),
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.read(vtysh, run_dirs)?;
        let vnis = self.bridges.iter().copied();
        let costs: Vec<(Vni, Cost)> = vnis
            .filter(|vni| range.contains(*vni) && !keep.contains(vni))
            .map(|vni| (vni, Cost::OTHERS))
            .collect();
        first_error(self.set(vtysh, batch, &costs, Some(permit)))
    }

    /// A cheap look whether another ospf6d runs than was seen last.
    pub fn is_suspect(&self, run_dirs: &[PathBuf]) -> bool {
        self.run != health::acting(run_dirs, Daemon::Ospf6d.name())
    }

    /// The VNIs of those in `wanted` whose cost is to be set again.
    ///
    /// # Errors
    /// ospf6d did not say what it has.
    pub fn drifted(
        &mut self,
        vtysh: &Vtysh,
        run_dirs: &[PathBuf],
        wanted: &BTreeMap<Vni, Cost>,
    ) -> Result<BTreeSet<Vni>, Error> {
        self.read(vtysh, run_dirs)?;
        let found = self.costs.taken();
        let differs = |vni: &&Vni| wanted.contains_key(vni) && found.get(vni) != wanted.get(vni);
        Ok(self.bridges.iter().filter(differs).copied().collect())
    }
}
