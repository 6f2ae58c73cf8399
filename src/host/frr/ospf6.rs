//! The costs in ospf6d, on the bridges that it runs on. A host without ospf6d has none.
//!
//! They are set with `--announce routes` too: a bridge that ospf6d runs on is announced beside its halves, and alone where
//! FRR does not redistribute those of IPv6. An audit finds what another program changed, or a start of ospf6d lost.

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
    range: VniRange,
    /// The costs that VNIs should have, also those of bridges that it does not run on yet.
    wanted: BTreeMap<Vni, Cost>,
    /// Which run of it was seen last.
    run: Option<u64>,
}

impl Ospf6 {
    /// For the bridges of `range`; nothing is known yet.
    pub fn new(range: VniRange) -> Ospf6 {
        Ospf6 {
            bridges: BTreeSet::new(),
            costs: Costs::new(Daemon::Ospf6d, script::cost6),
            range,
            wanted: BTreeMap::new(),
            run: None,
        }
    }

    /// Sets costs where it runs, and remembers those that it took.
    pub fn set(
        &mut self,
        vtysh: &Vtysh,
        batch: usize,
        costs: &[(Vni, Cost)],
        permit: Option<&dyn Fn() -> bool>,
    ) -> Vec<RouteFailure> {
        self.wanted.extend(costs.iter().copied());
        let is_enabled = |(vni, _): &&(Vni, Cost)| self.bridges.contains(vni);
        let costs: Vec<(Vni, Cost)> = costs.iter().filter(is_enabled).copied().collect();
        let mut failures = self.costs.set(vtysh, batch, &costs, permit);
        // One that is down has no routes to draw traffic with. The audit makes up for it when it is back.
        failures.retain(|failure| !matches!(failure.error, Error::Down { .. }));
        for failure in &failures {
            self.wanted.remove(&failure.vni);
        }
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

    /// Makes every bridge of the range that is in neither `keep` nor `foreign` as expensive as OSPF can say.
    ///
    /// # Errors
    /// ospf6d did not say what it has, or refused.
    pub fn withdraw(
        &mut self,
        (vtysh, run_dirs, batch): (&Vtysh, &[PathBuf], usize),
        keep: &BTreeSet<Vni>,
        foreign: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.read(vtysh, run_dirs)?;
        self.wanted.retain(|vni, _| keep.contains(vni));
        let vnis = self.bridges.iter().copied();
        let costs: Vec<(Vni, Cost)> = vnis
            .filter(|vni| self.range.contains(*vni))
            .filter(|vni| !keep.contains(vni) && !foreign.contains(vni))
            .map(|vni| (vni, Cost::OTHERS))
            .collect();
        first_error(self.set(vtysh, batch, &costs, Some(permit)))
    }

    /// A cheap look whether another ospf6d runs than was seen last.
    pub fn is_suspect(&self, run_dirs: &[PathBuf]) -> bool {
        self.run != health::acting(run_dirs, Daemon::Ospf6d.name())
    }

    /// The VNIs whose cost is to be set again, but for those of `foreign` bridges.
    ///
    /// # Errors
    /// ospf6d did not say what it has.
    pub fn drifted(
        &mut self,
        vtysh: &Vtysh,
        run_dirs: &[PathBuf],
        foreign: &BTreeSet<Vni>,
    ) -> Result<BTreeSet<Vni>, Error> {
        self.read(vtysh, run_dirs)?;
        let found = self.costs.taken();
        // A bridge that it runs on since the withdrawal has no entry yet.
        let wanted = |vni| self.wanted.get(vni).unwrap_or(&Cost::OTHERS);
        let vnis = self.bridges.iter();
        let vnis = vnis.filter(|vni| self.range.contains(**vni) && !foreign.contains(vni));
        Ok(vnis
            .filter(|vni| found.get(vni) != Some(wanted(vni)))
            .copied()
            .collect())
    }
}
