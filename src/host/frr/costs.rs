//! The costs of bridges that one OSPF daemon took.

use super::push::Push;
use super::run::{Daemon, Vtysh};
use super::script::Job;
use crate::host::{Cost, RouteFailure};
use crate::model::types::Vni;
use std::collections::{BTreeMap, BTreeSet};

/// The costs that a daemon took.
#[derive(Debug)]
pub(super) struct Costs {
    daemon: Daemon,
    /// What sets a cost in it.
    job: fn(Vni, Cost) -> Job,
    taken: BTreeMap<Vni, Cost>,
}

impl Costs {
    /// Of a daemon in which `job` sets a cost; none is known yet.
    pub fn new(daemon: Daemon, job: fn(Vni, Cost) -> Job) -> Costs {
        let taken = BTreeMap::new();
        Costs { daemon, job, taken }
    }

    /// The costs that the daemon took.
    pub fn taken(&self) -> &BTreeMap<Vni, Cost> {
        &self.taken
    }

    /// The daemon has these costs, as far as is known.
    pub fn know(&mut self, costs: BTreeMap<Vni, Cost>) {
        self.taken = costs;
    }

    /// Sets costs and remembers those that the daemon took.
    pub fn set(
        &mut self,
        vtysh: &Vtysh,
        batch: usize,
        costs: &[(Vni, Cost)],
        permit: Option<&dyn Fn() -> bool>,
    ) -> Vec<RouteFailure> {
        // What the daemon took stays with the name of an interface, also while that is gone.
        let is_new = |(vni, cost): &&(Vni, Cost)| self.taken.get(vni) != Some(cost);
        let costs: Vec<(Vni, Cost)> = costs.iter().filter(is_new).copied().collect();
        if costs.is_empty() {
            return Vec::new();
        }
        let jobs: Vec<Job> = costs
            .iter()
            .map(|(vni, cost)| (self.job)(*vni, *cost))
            .collect();
        let push = Push {
            vtysh,
            daemon: self.daemon,
            prologue: &[],
            batch,
            permit,
        };
        let failures = push.push(&jobs);
        self.taken.extend(costs.iter().copied());
        for failure in &failures {
            self.taken.remove(&failure.vni);
        }
        failures
    }

    /// The VNIs whose costs are not as the daemon took them. They are not known any more, so that they are set again.
    pub fn compare(&mut self, found: &BTreeMap<Vni, Cost>) -> BTreeSet<Vni> {
        let mut drifted = BTreeSet::new();
        self.taken.retain(|vni, cost| {
            let is_there = found.get(vni) == Some(cost);
            is_there || !drifted.insert(*vni)
        });
        drifted
    }
}
