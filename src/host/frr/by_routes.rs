//! The part of [`Frr`] for `--announce routes`: the kernel's routes in the place of ospfd's costs.

use super::redistribution::{parse_enabled, redistributes_kernel};
use super::run::Daemon;
use super::script::{LIST, ROUTE_MAP};
use super::{Frr, GLANCE, Wanted, all_failed, first_error, health};
use crate::host::{Announce, Cost, Error, Health, RouteFailure};
use crate::model::frr::EvpnFilter;
use crate::model::types::Vni;
use log::warn;
use std::collections::BTreeSet;

impl Frr {
    /// Deletes the routes of all VNIs but `keep`; with `--announce costs` those that an earlier run left.
    pub(super) fn withdraw_routes(
        &mut self,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        match self.announce {
            Announce::Costs => self.routes.keep_only(&BTreeSet::new(), permit),
            Announce::Routes => self.routes.keep_only(keep, permit),
        }
    }

    /// Looks which daemon carries the kernel's routes upstream. Bridges that ospfd announces by itself are made as
    /// expensive as OSPF can say: with the default cost they would draw the traffic of VNIs that a gateway with
    /// `--announce costs` owns.
    pub(super) fn look_upstream(&mut self, permit: &dyn Fn() -> bool) -> Result<(), Error> {
        let health = health::look(&self.run_dirs);
        let mut carried = false;
        if health.ospfd.is_some() {
            let config = self.running_config(Daemon::Ospfd)?;
            carried = redistributes_kernel(&config);
            self.ospfd_carries = carried;
            self.repel_enabled(&config, permit)?;
        }
        if !carried && health.bgpd.is_some() {
            carried = redistributes_kernel(&self.running_config(Daemon::Bgpd)?);
            self.ospfd_carries &= !carried;
        }
        self.carried = Some(carried);
        Ok(())
    }

    fn running_config(&self, daemon: Daemon) -> Result<String, Error> {
        self.vtysh.show(daemon, "show running-config")
    }

    fn repel_enabled(&mut self, config: &str, permit: &dyn Fn() -> bool) -> Result<(), Error> {
        const SHOW: &str = "show ip ospf interface json";
        self.enabled = parse_enabled(config);
        self.costs.know(super::config::parse_ospf(config));
        let configured = self.costs.taken().iter();
        let configured = configured.map(|(vni, cost)| (*vni, u64::from(cost.0)));
        let text = self.vtysh.show(Daemon::Ospfd, SHOW)?;
        let enabled = super::inspection::parse_interfaces(&text).into_iter();
        let enabled =
            enabled.filter_map(|it| Some((it.name.strip_prefix("br")?.parse().ok()?, it.cost)));
        let mut cheap: BTreeSet<Vni> = configured
            .chain(enabled)
            .filter(|(vni, cost)| self.range.contains(*vni) && *cost < Cost::OTHERS.0.into())
            .map(|(vni, _)| vni)
            .collect();
        if cheap.is_empty() {
            return Ok(());
        }
        for vni in self.foreign() {
            cheap.remove(&vni);
        }
        let costs: Vec<(Vni, Cost)> = cheap.into_iter().map(|vni| (vni, Cost::OTHERS)).collect();
        first_error(
            self.costs
                .set(&self.vtysh, self.batch, &costs, Some(permit)),
        )
    }

    /// Makes a bridge that is new to an ospfd that announces it as expensive as OSPF can say. One that ospfd has a cost
    /// for is left to [`Frr::look_upstream`].
    fn repel_new(&mut self, vnis: &[Vni]) -> Vec<RouteFailure> {
        let is_new = |vni: &&Vni| !self.costs.taken().contains_key(vni);
        let new: Vec<Vni> = vnis.iter().filter(is_new).copied().collect();
        if new.is_empty() || self.enabled.is_empty() {
            return Vec::new();
        }
        let subnets = match self.routes.subnets(&new) {
            Ok(subnets) => subnets,
            Err(error) => return all_failed(new, &error),
        };
        let announced = subnets.into_iter();
        let announced: BTreeSet<Vni> = announced
            .filter(|(vni, subnet)| self.enabled.has(*vni, *subnet))
            .map(|(vni, _)| vni)
            .collect();
        let costs: Vec<(Vni, Cost)> = announced.into_iter().map(|it| (it, Cost::OTHERS)).collect();
        self.costs.set(&self.vtysh, self.batch, &costs, None)
    }

    /// What keeps routes from being announced.
    pub(super) fn lacks_upstream(&self) -> Option<Error> {
        let is_lacking = self.announce == Announce::Routes && self.carried == Some(false);
        is_lacking.then_some(Error::NotRedistributed)
    }

    /// Where ospfd does not carry the routes, bgpd may: then the part stays usable as long as zebra runs.
    pub(super) fn upstream_health(&self, mut health: Health) -> Health {
        let needs_ospfd = self.announce == Announce::Costs || self.ospfd_carries;
        if !needs_ospfd && !health.stopped.ospfd {
            health.ospfd = health.ospfd.or(health.zebra);
        }
        health
    }

    /// [`Router::apply`](crate::host::Router::apply). The kernel takes routes within milliseconds, bgpd's filter takes
    /// half a second for a thousand VNIs. So the routes come first: what arrives from upstream reaches the stations
    /// without the EVPN routes of this gateway.
    pub(super) fn apply_routes(
        &mut self,
        wanted: &Wanted,
        permit: &dyn Fn() -> bool,
    ) -> Vec<RouteFailure> {
        let bgpd = health::look(&self.run_dirs).bgpd;
        let repel: Vec<Vni> = wanted.repel.iter().map(|&(vni, _)| vni).collect();
        let mut failures = self.routes.withdraw(&repel);
        failures.extend(
            self.filter
                .release(&self.vtysh, bgpd, self.batch, &wanted.hide),
        );
        failures.extend(self.repel_new(&repel));
        // ospf6d announces a bridge that it runs on itself, too: the subnet, beside the halves.
        let (vtysh, batch) = (&self.vtysh, self.batch);
        failures.extend(self.ospf6.set(vtysh, batch, &wanted.repel, None));
        let attract: Vec<Vni> = wanted.attract.iter().map(|&(vni, _)| vni).collect();
        let announced: BTreeSet<Vni> = attract
            .iter()
            .copied()
            .filter(|vni| self.routes.goes_on_announcing(*vni))
            .collect();
        // A bgpd that refuses does so at each try: routes would come and go with it.
        let waits = self.bgpd_refused || bgpd.is_none();
        if !waits {
            failures.extend(self.routes.announce_rest(&attract, permit));
        }
        let claimed = self
            .filter
            .claim(&self.vtysh, bgpd, self.batch, &wanted.show, permit);
        self.svi.note_claimed(&wanted.show, self.filter.yields());
        let failed: BTreeSet<Vni> = claimed.iter().map(|failure| failure.vni).collect();
        if !wanted.show.is_empty() {
            self.bgpd_refused = claimed
                .iter()
                .any(|failure| !matches!(failure.error, Error::NotPermitted));
        }
        // Without its EVPN routes a VNI is unreachable from its stations: do not draw its traffic. But a proof that is
        // lost for a moment leaves EVPN routes and these as they are.
        let goes_on: BTreeSet<Vni> = claimed
            .iter()
            .filter(|failure| matches!(failure.error, Error::NotPermitted))
            .map(|failure| failure.vni)
            .filter(|vni| announced.contains(vni))
            .collect();
        failures.extend(claimed);
        let (mut bad, good): (Vec<Vni>, Vec<Vni>) =
            attract.into_iter().partition(|vni| failed.contains(vni));
        bad.retain(|vni| !goes_on.contains(vni));
        failures.extend(self.routes.withdraw(&bad));
        if waits {
            failures.extend(self.routes.announce_rest(&good, permit));
        }
        let attract = wanted.attract.iter().copied();
        let attract: Vec<(Vni, Cost)> = attract.filter(|(vni, _)| !failed.contains(vni)).collect();
        let (vtysh, batch) = (&self.vtysh, self.batch);
        failures.extend(self.ospf6.set(vtysh, batch, &attract, Some(permit)));
        failures
    }

    /// Whether bgpd has the outbound route-map and no more the entry by which claimed VNIs pass it. (With a route-map
    /// entry for each VNI the answer would grow with the VNIs: the audit finds that.)
    pub(super) fn lost_filter(&mut self) -> bool {
        if self.filter.mode() != EvpnFilter::List || self.filter.shown().is_empty() {
            return false;
        }
        let answer = self
            .bgpd
            .ask(&format!("show route-map {ROUTE_MAP}"), GLANCE);
        answer.is_ok_and(|answer| {
            answer.text.contains(ROUTE_MAP)
                && !answer.text.contains(&format!("extcommunity {LIST}"))
        })
    }

    /// The VNIs whose routes are not as they should be. What FRR missed is told to it again.
    pub(super) fn compare_routes(
        &mut self,
        permit: &dyn Fn() -> bool,
    ) -> Result<BTreeSet<Vni>, Error> {
        let compared = self.routes.compare()?;
        if let Some(first) = compared.deleted.first() {
            warn!(
                "kernel: {} routes of protocol {} lead to no VNI that is served here, the first is {first}: deleted",
                compared.deleted.len(),
                crate::host::routes::PROTOCOL
            );
        }
        let looked = self.look_upstream(permit);
        let zebra = match health::look(&self.run_dirs).zebra {
            Some(_) => self.zebra.look(&self.vtysh, &mut self.routes, permit),
            None => Ok(()),
        };
        match looked.and(zebra) {
            // What differs is known all the same.
            Err(error) if compared.differing.is_empty() => Err(error),
            _ => Ok(compared.differing),
        }
    }
}
