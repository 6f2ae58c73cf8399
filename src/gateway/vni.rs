//! The state of one VNI at this node: what the host shows of it, what failed, and since when its row is as it is.
//! The row itself is in the `mirror`.

use super::ability::{Ability, Capability};
use super::arp::VniArp;
use super::backoff::Backoff;
use super::events::ArpOutcome;
use super::mirror::{Nodes, RowNews};
use crate::model::frr::{Cost, FrrDaemons, RouteChange};
use crate::model::fsm::{Exposure, Write};
use crate::model::types::{LeaseId, Time, Vni};
use std::time::Duration;

/// How long the lower cost of `--takeover-cost` is announced: longer than a dead gateway's Router-LSA lives
/// on at its neighbours with OSPF's default dead interval of 40 s (RFC 2328 appendix C.3).
const CHEAP: Duration = Duration::from_secs(45);
/// The keys of a row that lost its owner change one after the other.
const SAME_LOSS: Duration = Duration::from_secs(1);
/// After a row has lost the name of an owner or a successor, this node waits this long before it shows more of the VNI.
/// If the epochs of the former holder give a time, that time counts instead (see `Nodes::silence_after`). The reason:
/// the former holder may be alive. etcd can end a lease that its holder has renewed: an etcd leader that was stopped
/// and goes on does so (seen with 3.4.23). The former holder then withdraws when its watch reports the loss. A Go wmgwd
/// may also write 0 over a broken migration whose owner is alive. That owner learns of it when this node does.
const RELEASE_GRACE: Duration = Duration::from_millis(100);

/// The loss of a name by the row.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    at: Time,
    /// The lease under which the name was written, if that is known.
    by: Option<LeaseId>,
    /// The owner gave the row back, and had silenced its bridge before.
    given_back: bool,
}

impl Loss {
    /// When the node of that name is silent. If its owner gave the row back, there is no wait: an owner silences its
    /// bridge before it writes 0. That does not hold beside a Go wmgwd, which writes 0 over the rows of other nodes.
    fn silent_at(&self, nodes: &Nodes, uniform: bool) -> Time {
        if self.given_back && uniform {
            return self.at;
        }
        let silence = self.by.and_then(|lease| nodes.silence_after(lease));
        self.at + silence.unwrap_or(RELEASE_GRACE)
    }

    /// Whether `later` is what is left of the same loss.
    fn goes_on_in(&self, later: &Loss) -> bool {
        let one_is_unknown = self.by.is_none() || later.by.is_none();
        let is_alike = self.given_back == later.given_back;
        is_alike && one_is_unknown && later.at.since(self.at) < SAME_LOSS
    }
}

/// One VNI.
#[derive(Clone, Debug, Default)]
pub struct VniState {
    /// When the row last changed.
    entered: Time,
    /// The last loss of the name of an owner or a successor.
    loss: Loss,
    /// When the nodes whose names the row lost before that are silent.
    earlier_are_silent_at: Time,
    arp: VniArp,
    /// Whether EVPN routes are advertised; `None` while that is not known.
    evpn: Option<bool>,
    /// The OSPF cost; `None` while that is not known.
    cost: Option<Cost>,
    /// The cost that the host was told ahead of FRR, since it was last known what it announces, or FRR had its turn.
    hastened: Option<Cost>,
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
        self.hastened = None;
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
        self.hastened = None;
    }

    /// FRR does not have what it was given.
    pub fn drifted(&mut self) {
        self.evpn = None;
        self.cost = None;
        self.hastened = None;
    }

    /// etcd says that the row has changed, and how. `nodes` are those that etcd has now; `uniform` says that no Go
    /// wmgwd is among them.
    pub fn row_changed(&mut self, now: Time, news: &RowNews, nodes: &Nodes, uniform: bool) {
        self.enter(now);
        if !news.lost_a_name {
            return;
        }
        let loss = Loss {
            at: now,
            by: news.lost_by,
            given_back: news.given_back,
        };
        if self.loss.goes_on_in(&loss) {
            let by = loss.by.or(self.loss.by);
            self.loss = Loss { by, ..loss };
            return;
        }
        // Another node may have claimed the row and lost it before the owner before was silent.
        self.earlier_are_silent_at = self.former_are_silent_at(nodes, uniform);
        self.loss = loss;
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
            self.hastened = None;
        }
        self.routes_retry.succeed();
    }

    /// The host announces the VNI as `cost` says, ahead of FRR. What is shown counts as unknown until FRR has taken
    /// the change as a whole. Returns whether the host has not been told yet.
    pub fn hasten(&mut self, cost: Cost) -> bool {
        self.cost = None;
        self.hastened.replace(cost) != Some(cost)
    }

    /// FRR took `change`.
    pub fn routes_taken(&mut self, change: RouteChange, now: Time) {
        self.evpn = change.evpn.or(self.evpn);
        self.cost = change.cost.or(self.cost);
        self.hastened = None;
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
            self.hastened = None;
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

    /// When this node may show a VNI whose row has lost the names of other nodes. By then those nodes, if they are
    /// alive, have had the time to learn of the loss. `nodes` and `uniform` as in [`VniState::row_changed`].
    pub fn former_are_silent_at(&self, nodes: &Nodes, uniform: bool) -> Time {
        let silent_at = self.loss.silent_at(nodes, uniform);
        silent_at.max(self.earlier_are_silent_at)
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
        let nodes = Nodes::default();
        state.row_changed(NOW + SECOND, &news(false, true), &nodes, true);
        assert!(!state.is_vacating());
        assert!(!state.is_giving_up() && !state.is_written_alone());
        assert!(state.write_at() <= NOW && state.failing_since().is_none());
        assert_eq!(state.entered(), NOW + SECOND);
        assert!(state.former_are_silent_at(&nodes, true) < NOW);
        let later = NOW + SECOND * 2;
        state.row_changed(later, &news(true, true), &nodes, true);
        assert_eq!(state.former_are_silent_at(&nodes, true), later);
        let with_go = state.former_are_silent_at(&nodes, false);
        assert_eq!(with_go, later + RELEASE_GRACE);
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
