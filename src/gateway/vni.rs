//! The state of one VNI at this node: what the host shows of it, what failed, and since when its row is as it is.
//! The row itself is in the `mirror`.

use super::ability::{Ability, Capability};
use super::arp::VniArp;
use super::backoff::Backoff;
use super::events::ArpOutcome;
use super::mirror::RowNews;
use crate::model::frr::{Cost, FrrDaemons, RouteChange};
use crate::model::fsm::{Exposure, Write};
use crate::model::types::{LeaseId, Time, Vni};
use std::time::Duration;

/// How long the lower cost of `--takeover-cost` is announced: longer than a dead gateway's Router-LSA lives
/// on at its neighbours with OSPF's default dead interval of 40 s (RFC 2328 appendix C.3).
const CHEAP: Duration = Duration::from_secs(45);
/// The keys of a row that lost its owner change one after the other.
const SAME_LOSS: Duration = Duration::from_secs(1);

/// One VNI.
#[derive(Clone, Debug, Default)]
pub struct VniState {
    /// When the row last changed.
    entered: Time,
    /// When the row last lost the name of an owner or a successor.
    freed: Time,
    /// The lease under which that name was written, if that is known.
    freed_by: Option<LeaseId>,
    /// The owner gave the row back then, and had silenced its bridge before.
    given_back: bool,
    arp: VniArp,
    /// Whether EVPN routes are advertised; `None` while that is not known.
    evpn: Option<bool>,
    /// The OSPF cost; `None` while that is not known.
    cost: Option<Cost>,
    /// When FRR last took a change.
    routes_at: Time,
    routes_retry: Backoff,
    ability: Ability,
    /// Since when the host does not get to what is wanted, although it was told.
    failing_since: Option<Time>,
    /// The node withdraws the VNI to give it back.
    giving_up: bool,
    /// As the owner the node has asked etcd to take the VNI back, and has not seen the row change.
    vacating: bool,
    /// Until when the lower takeover cost is announced.
    takeover_cost_until: Time,
    /// The row was in a bundle of which another node was faster on a row: it is written alone.
    alone: bool,
    write_retry: Backoff,
}

/// What happened.
impl VniState {
    /// What the host shows is not known any more.
    pub fn forget(&mut self) {
        self.arp.forget();
        self.evpn = None;
        self.cost = None;
    }

    /// The bridge came, went, or came up again.
    pub fn link_changed(&mut self) {
        self.arp.link_changed();
        // An interface that is new to ospfd has the default cost, which is better than any owner's. One that was down
        // has lost the kernel routes that announce the VNI.
        self.upstream_lost();
        self.routes_retry.succeed();
    }

    /// What announces the VNI upstream is not as it was left.
    pub fn upstream_lost(&mut self) {
        self.cost = None;
    }

    /// FRR does not have what it was given.
    pub fn drifted(&mut self) {
        self.evpn = None;
        self.cost = None;
    }

    /// etcd says that the row has changed, and how.
    pub fn row_changed(&mut self, now: Time, news: &RowNews) {
        self.enter(now);
        if news.lost_a_name {
            // Who had it meanwhile is not known, unless this is what is left of the same loss.
            let is_same = now.since(self.freed) < SAME_LOSS;
            self.freed_by = news.lost_by.or(self.freed_by.filter(|_| is_same));
            self.freed = now;
            self.given_back = news.given_back;
        }
    }

    /// This node wrote the row.
    pub fn row_written(&mut self, now: Time, write: Write) {
        if write == Write::Claim {
            self.takeover_cost_until = now + CHEAP;
        }
        self.enter(now);
    }

    /// The row has to be decided on anew.
    pub fn enter(&mut self, now: Time) {
        self.entered = now;
        self.giving_up = false;
        self.vacating = false;
        self.failing_since = None;
        self.alone = false;
        self.write_retry.succeed();
    }

    /// Another node was faster on the row: what it wrote is on its way.
    pub fn write_was_beaten(&mut self, now: Time, vni: Vni) {
        self.write_retry.fail(now, vni.get());
    }

    /// Another node was faster on another row of the bundle.
    pub fn write_is_undecided(&mut self) {
        self.alone = true;
    }

    /// What became of an ARP switch.
    pub fn arp_switched(&mut self, now: Time, vni: Vni, outcome: ArpOutcome) {
        self.ability.bridge_is(now, outcome != ArpOutcome::Absent);
        self.arp.switched(now, vni, outcome);
        if !matches!(outcome, ArpOutcome::Answers(_)) {
            self.fail(now);
        }
    }

    /// An announcement was sent.
    pub fn announce_sent(&mut self, now: Time) {
        self.arp.announce_sent(now, self.entered);
    }

    /// The daemons `parts` of FRR took a reset, in which the VNI was `withdrawn` or kept. What was kept is told again.
    pub fn routes_reset(&mut self, parts: FrrDaemons, withdrawn: bool) {
        if parts.bgpd {
            self.evpn = withdrawn.then_some(false);
        }
        if parts.ospfd {
            self.cost = withdrawn.then_some(Cost::OTHERS);
        }
        self.routes_retry.succeed();
    }

    /// FRR took `change`.
    pub fn routes_taken(&mut self, change: RouteChange, now: Time) {
        self.evpn = change.evpn.or(self.evpn);
        self.cost = change.cost.or(self.cost);
        self.routes_at = now;
        self.routes_retry.succeed();
        self.arp.announce_anew(now);
    }

    /// FRR did not take `change`, or only a part of it.
    pub fn routes_failed(&mut self, change: RouteChange, now: Time) {
        if change.evpn.is_some() {
            self.evpn = None;
        }
        if change.cost.is_some() {
            self.cost = None;
        }
        self.routes_retry.fail(now, change.vni.get());
        self.fail(now);
    }

    fn fail(&mut self, now: Time) {
        self.failing_since.get_or_insert(now);
    }
}

/// What a pass decides.
impl VniState {
    /// The host has failed for as long as a node is patient. Returns whether FRR has begun to refuse the VNI.
    pub fn note_failure(&mut self, now: Time) -> bool {
        let is_first = self.failing_since.is_some() && self.ability.fail(now);
        is_first && self.routes_retry.is_failing()
    }

    /// The node withdraws the VNI to give it back, or does not.
    pub fn give_up(&mut self, gives_up: bool) {
        self.giving_up = gives_up;
    }

    /// The node asks etcd to take the VNI back.
    pub fn start_vacating(&mut self) {
        self.vacating = true;
    }

    /// The host shows all that is wanted.
    pub fn end_failure(&mut self) {
        self.failing_since = None;
    }

    /// If the host shows `wanted`, the node is able to serve the VNI again once the hold-off is over. Returns when that
    /// is, if it is still to come.
    pub fn recover(&mut self, now: Time, wanted: Exposure) -> Option<Time> {
        let shows_all = self.failing_since.is_none() && self.shows(wanted);
        shows_all.then(|| self.ability.recover(now)).flatten()
    }

    /// ARP, to switch and to announce.
    pub fn arp_mut(&mut self) -> &mut VniArp {
        &mut self.arp
    }
}

/// What is so.
impl VniState {
    pub fn arp(&self) -> &VniArp {
        &self.arp
    }

    /// When the row last changed.
    pub fn entered(&self) -> Time {
        self.entered
    }

    /// When the row last lost the name of an owner or a successor.
    pub fn freed(&self) -> Time {
        self.freed
    }

    /// The lease under which that name was written, if that is known.
    pub fn freed_by(&self) -> Option<LeaseId> {
        self.freed_by
    }

    /// Whether the owner gave the row back then.
    pub fn was_given_back(&self) -> bool {
        self.given_back
    }

    /// Whether the node can serve the VNI.
    pub fn capability(&self) -> Capability {
        self.ability.capability()
    }

    /// Since when the host does not get to what is wanted.
    pub fn failing_since(&self) -> Option<Time> {
        self.failing_since
    }

    pub fn is_giving_up(&self) -> bool {
        self.giving_up
    }

    /// Whether the node has asked etcd to take the VNI back.
    pub fn is_vacating(&self) -> bool {
        self.vacating
    }

    /// Until when the lower takeover cost is announced.
    pub fn takeover_cost_until(&self) -> Time {
        self.takeover_cost_until
    }

    /// Whether the row is written alone.
    pub fn is_written_alone(&self) -> bool {
        self.alone
    }

    /// When the next write may be tried.
    pub fn write_at(&self) -> Time {
        self.write_retry.until()
    }

    /// When FRR may be tried again.
    pub fn routes_retry_at(&self) -> Time {
        self.routes_retry.until()
    }

    /// Whether FRR did not take the last change.
    pub fn is_refused_by_frr(&self) -> bool {
        self.routes_retry.is_failing()
    }

    /// When FRR last took a change.
    pub fn routes_at(&self) -> Time {
        self.routes_at
    }

    /// Whether FRR shows `wanted`.
    pub fn routes_are(&self, wanted: Exposure) -> bool {
        self.routes_are_beside(wanted, FrrDaemons::NONE)
    }

    /// Whether FRR shows `wanted`, or the daemon that does not is one of `gone`, which have no process and show
    /// nothing.
    pub fn routes_are_beside(&self, wanted: Exposure, gone: FrrDaemons) -> bool {
        let evpn = self.evpn == Some(wanted.evpn) || gone.bgpd;
        let cost = self.cost == Some(wanted.cost) || gone.ospfd;
        evpn && cost
    }

    /// What FRR has to change to show `wanted`.
    pub fn route_change(&self, vni: Vni, wanted: Exposure) -> Option<RouteChange> {
        let evpn = (self.evpn != Some(wanted.evpn)).then_some(wanted.evpn);
        let cost = (self.cost != Some(wanted.cost)).then_some(wanted.cost);
        (evpn.is_some() || cost.is_some()).then_some(RouteChange { vni, evpn, cost })
    }

    /// Whether it is known that the bridge is there, and answers ARP or does not as `answers` says.
    pub fn has_arp(&self, answers: bool) -> bool {
        self.capability() != Capability::Absent && self.arp.is_settled(answers)
    }

    /// Whether the host shows `wanted`, and took it.
    fn shows(&self, wanted: Exposure) -> bool {
        let routes = self.routes_are(wanted) && !self.routes_retry.is_failing();
        routes && self.arp.answers() == Some(wanted.arp)
    }

    /// Whether one more announcement changes nothing.
    pub fn is_long_announced(&self) -> bool {
        self.arp.is_long_announced(self.entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));
    const SECOND: Duration = Duration::from_secs(1);

    fn vni() -> Vni {
        Vni::new(7).expect("a VNI")
    }

    fn change() -> RouteChange {
        let (evpn, cost) = (Some(true), Some(Cost::OWNER));
        let vni = vni();
        RouteChange { vni, evpn, cost }
    }

    #[test]
    fn what_frr_took_need_not_be_told_again_until_it_is_forgotten() {
        let mut state = VniState::default();
        assert_eq!(state.route_change(vni(), Exposure::ALL), Some(change()));
        state.routes_taken(change(), NOW);
        assert_eq!(state.route_change(vni(), Exposure::ALL), None);
        assert!(state.routes_are(Exposure::ALL) && state.routes_at() == NOW);
        for forget in [VniState::forget, VniState::drifted] {
            let mut state = state.clone();
            forget(&mut state);
            assert_eq!(state.route_change(vni(), Exposure::ALL), Some(change()));
        }
        state.link_changed();
        let cost = RouteChange {
            evpn: None,
            ..change()
        };
        assert_eq!(state.route_change(vni(), Exposure::ALL), Some(cost));
    }

    #[test]
    fn a_reset_withdraws_or_leaves_open_what_was_kept() {
        let bgpd = FrrDaemons {
            bgpd: true,
            ospfd: false,
        };
        for (withdrawn, evpn) in [(true, Some(false)), (false, None)] {
            let mut state = VniState::default();
            state.routes_taken(change(), NOW);
            state.routes_reset(bgpd, withdrawn);
            assert_eq!((state.evpn, state.cost), (evpn, Some(Cost::OWNER)));
        }
        let mut state = VniState::default();
        state.routes_reset(FrrDaemons::ALL, true);
        assert!(state.routes_are(Exposure::NOTHING));
        state.routes_taken(change(), NOW);
        assert!(!state.routes_are(Exposure::NOTHING));
        assert!(state.routes_are_beside(Exposure::NOTHING, FrrDaemons::ALL));
    }

    #[test]
    fn a_failure_is_noted_once_and_ends_with_the_hold_off() {
        let mut state = VniState::default();
        state.routes_failed(change(), NOW);
        assert!(state.failing_since() == Some(NOW) && state.is_refused_by_frr());
        assert!(state.note_failure(NOW + SECOND), "FRR refuses");
        assert!(!state.note_failure(NOW + SECOND), "as noted");
        assert_eq!(state.capability(), Capability::Failing);
        state.arp_switched(NOW, vni(), ArpOutcome::Answers(true));
        state.routes_taken(change(), NOW);
        assert_eq!(state.recover(NOW, Exposure::ALL), None, "it still fails");
        state.end_failure();
        let until = state.recover(NOW + SECOND, Exposure::ALL);
        assert_eq!(
            state.recover(until.expect("a hold-off"), Exposure::ALL),
            None
        );
        assert_eq!(state.capability(), Capability::Able);
    }

    #[test]
    fn a_row_that_changes_ends_what_belonged_to_the_one_before() {
        let mut state = VniState::default();
        state.write_was_beaten(NOW, vni());
        state.write_is_undecided();
        state.give_up(true);
        state.start_vacating();
        state.routes_failed(change(), NOW);
        assert!(state.write_at() > NOW && state.is_written_alone());
        let vni = vni();
        let news = |lost_a_name, given_back| RowNews {
            vni,
            lost_a_name,
            lost_by: lost_a_name.then_some(LeaseId(5)),
            given_back,
        };
        state.row_changed(NOW + SECOND, &news(false, true));
        assert!(!state.is_vacating() && !state.was_given_back());
        assert!(!state.is_giving_up() && !state.is_written_alone());
        assert!(state.write_at() <= NOW && state.failing_since().is_none());
        assert_eq!(
            (state.entered(), state.freed()),
            (NOW + SECOND, Time::default())
        );
        state.row_changed(NOW + SECOND * 2, &news(true, true));
        assert!(state.freed() == NOW + SECOND * 2 && state.was_given_back());
        assert_eq!(state.freed_by(), Some(LeaseId(5)));
        state.row_written(NOW, Write::Own);
        assert_eq!(state.takeover_cost_until(), Time::default());
        state.row_written(NOW, Write::Claim);
        assert_eq!(state.takeover_cost_until(), NOW + CHEAP);
    }

    #[test]
    fn a_bridge_that_is_gone_makes_the_node_unable() {
        let mut state = VniState::default();
        state.arp_switched(NOW, vni(), ArpOutcome::Answers(false));
        assert!(state.has_arp(false) && !state.has_arp(true));
        state.arp_switched(NOW, vni(), ArpOutcome::Absent);
        assert_eq!(state.capability(), Capability::Absent);
        assert!(!state.has_arp(false) && state.failing_since() == Some(NOW));
    }
}
