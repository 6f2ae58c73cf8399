//! FRR as the core sees it: which daemons run, what has to be withdrawn before anything is advertised, and the one
//! request that is under way. A request is either a reset or a batch of changes.

use super::Effect;
use super::backoff::Backoff;
use crate::model::frr::{FrrDaemons, Health, RouteChange};
use crate::model::types::{Time, Vni};
use fnv::FnvHashSet;
use std::collections::BTreeSet;
use std::time::Duration;

/// VNIs in one FRR batch. A takeover that comes up meanwhile waits for the batch, about 5 s with this many. Smaller
/// batches cost more in all: FRR takes two halves in longer than the whole.
const CHANGES: usize = 1024;

/// A request that takes longer than this, and [`LIMIT_PER_VNI`] for each of its VNIs, counts as refused until FRR
/// answers: the thread `frr` may be in a run of vtysh whose deadline is far away, in one after the other.
const LIMIT: Duration = Duration::from_secs(10);
/// Twice what a VNI was measured to take.
const LIMIT_PER_VNI: Duration = Duration::from_millis(10);
/// A reset sets the costs of so many VNIs at most.
const MOST_RESET: usize = 4096;

/// What is asked of FRR at present.
#[derive(Clone, Debug)]
enum Request {
    Reset {
        parts: FrrDaemons,
        keep: BTreeSet<Vni>,
    },
    Changes(Vec<RouteChange>),
}

impl Request {
    /// The VNIs that are changed.
    fn vnis(&self) -> FnvHashSet<Vni> {
        match self {
            Request::Reset { .. } => FnvHashSet::default(),
            Request::Changes(changes) => changes.iter().map(|change| change.vni).collect(),
        }
    }
}

/// A request that has no answer yet.
#[derive(Clone, Debug)]
struct UnderWay {
    request: Request,
    /// The VNIs that it changes.
    vnis: FnvHashSet<Vni>,
    since: Time,
    /// When it counts as refused.
    limit: Time,
    is_overdue: bool,
}

/// FRR as the core sees it.
#[derive(Clone, Debug)]
pub struct Routes {
    /// How many VNIs a reset may concern.
    vnis: usize,
    health: Health,
    /// `health` was told once: before that, nothing is asked of FRR.
    looked: bool,
    /// What must be withdrawn before anything is advertised.
    reset: FrrDaemons,
    /// A first reset was tried, so that nothing of an earlier run is unknown.
    tried: bool,
    under_way: Option<UnderWay>,
    retry: Backoff,
    /// Since when resets fail, or a request has no answer.
    failing_since: Option<Time>,
}

/// What FRR has withdrawn in a reset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Withdrawn {
    parts: FrrDaemons,
    keep: BTreeSet<Vni>,
}

impl Withdrawn {
    /// The daemons that took the reset.
    pub fn parts(&self) -> FrrDaemons {
        self.parts
    }

    /// Whether the VNI was withdrawn. One that was kept may be advertised or not.
    pub fn has(&self, vni: Vni) -> bool {
        !self.keep.contains(&vni)
    }
}

/// Changes that a pass wants, by urgency.
#[derive(Clone, Debug, Default)]
pub struct RouteBatch {
    rescues: Vec<RouteChange>,
    releases: Vec<RouteChange>,
    claims: Vec<RouteChange>,
}

impl RouteBatch {
    /// Adds a change. A `rescue` claims a VNI that no gateway serves.
    pub fn push(&mut self, change: RouteChange, rescue: bool) {
        if !change.claims() {
            self.releases.push(change);
        } else if rescue {
            self.rescues.push(change);
        } else {
            self.claims.push(change);
        }
    }

    /// The most urgent changes, as many as one request takes.
    fn first(mut self) -> Vec<RouteChange> {
        let mut changes = self.rescues;
        changes.append(&mut self.releases);
        changes.append(&mut self.claims);
        changes.truncate(CHANGES);
        changes
    }
}

impl Routes {
    /// FRR of a node that serves a range of so many VNIs; nothing is known of it yet.
    pub fn new(vnis: usize) -> Routes {
        Routes {
            vnis,
            health: Health::default(),
            looked: false,
            reset: FrrDaemons::ALL,
            tried: false,
            under_way: None,
            retry: Backoff::default(),
            failing_since: None,
        }
    }

    /// The routes of an earlier run are this run's own.
    pub fn adopt(&mut self) {
        self.tried = true;
    }

    /// Which daemons run.
    pub fn observe_health(&mut self, health: Health) {
        let before = std::mem::replace(&mut self.health, health);
        if !std::mem::replace(&mut self.looked, true) {
            return;
        }
        // A daemon that restarts has lost what it was told.
        self.reset.bgpd |= before.bgpd != health.bgpd;
        self.reset.ospfd |= before.ospfd != health.ospfd;
        if before != health {
            self.retry.succeed();
        }
    }

    /// The guard or the fence may have withdrawn anything, also after a request that is under way was carried out.
    pub fn forget(&mut self) {
        let request = self.under_way.as_mut().map(|it| &mut it.request);
        if let Some(Request::Changes(changes)) = request {
            changes.clear();
        }
        if self.tried {
            self.reset = FrrDaemons::ALL;
        }
    }

    /// What announces these VNIs upstream was lost, perhaps after a change that is under way made it: that change does
    /// not tell what announces them now.
    pub fn upstream_lost(&mut self, vnis: &[Vni]) {
        let request = self.under_way.as_mut().map(|it| &mut it.request);
        if let Some(Request::Changes(changes)) = request {
            let lost: FnvHashSet<Vni> = vnis.iter().copied().collect();
            let lost = changes.iter_mut().filter(|it| lost.contains(&it.vni));
            lost.for_each(|change| change.cost = None);
        }
    }

    /// FRR has begun to refuse a VNI. A reset shows whether it refuses everything.
    pub fn suspect(&mut self) {
        self.reset = FrrDaemons::ALL;
    }

    /// The reset is over, and these daemons took it. Returns what they withdrew; `None` if no reset was under way.
    pub fn reset_is_over(&mut self, now: Time, taken: FrrDaemons) -> Option<Withdrawn> {
        let Request::Reset { parts, keep } = self.under_way.take()?.request else {
            return None;
        };
        self.tried = true;
        let refused = parts.and(taken.others());
        if refused == FrrDaemons::NONE {
            self.retry.succeed();
            self.failing_since = None;
        } else {
            self.reset = self.reset.or(refused);
            self.retry.fail(now, 0);
            self.failing_since.get_or_insert(now);
        }
        let parts = parts.and(taken);
        Some(Withdrawn { parts, keep })
    }

    /// The changes are over. Returns those that still count. If they took too long, a reset shows whether FRR answers.
    pub fn changes_are_over(&mut self) -> Vec<RouteChange> {
        let Some(over) = self.under_way.take() else {
            return Vec::new();
        };
        if over.is_overdue {
            self.suspect();
        }
        match over.request {
            Request::Changes(changes) => changes,
            Request::Reset { .. } => Vec::new(),
        }
    }

    /// An FRR that does not answer for too long fails. Returns when the request that is under way will have taken too
    /// long.
    pub fn watch_request(&mut self, now: Time) -> Option<Time> {
        let under_way = self.under_way.as_mut()?;
        if now >= under_way.limit {
            under_way.is_overdue = true;
            self.failing_since.get_or_insert(under_way.since);
        }
        Some(under_way.limit)
    }

    /// Whether FRR has not answered for too long.
    pub fn is_overdue(&self) -> bool {
        self.under_way.as_ref().is_some_and(|it| it.is_overdue)
    }

    fn start(&mut self, now: Time, request: Request) {
        let vnis = match &request {
            Request::Reset { .. } => self.vnis.min(MOST_RESET),
            Request::Changes(changes) => changes.len(),
        };
        let allowance = LIMIT_PER_VNI * u32::try_from(vnis).unwrap_or(u32::MAX);
        self.under_way = Some(UnderWay {
            vnis: request.vnis(),
            request,
            since: now,
            limit: now + LIMIT + allowance,
            is_overdue: false,
        });
    }

    /// Whether nothing is asked of FRR at present.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether FRR was looked at.
    pub fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether a first reset was tried.
    pub fn was_tried(&self) -> bool {
        self.tried
    }

    /// Whether all of its daemons run.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Whether FRR can take VNIs: all its daemons run, it answers, and it did not refuse what was last asked of it as a
    /// whole.
    pub fn is_able(&self) -> bool {
        self.health.is_up() && self.failing_since.is_none()
    }

    /// Since when FRR refuses resets, or does not answer.
    pub fn failing_since(&self) -> Option<Time> {
        self.failing_since
    }

    /// The daemons that are known to show nothing, as they have no process.
    pub fn gone(&self) -> FrrDaemons {
        match self.tried {
            true => self.health.gone(),
            false => FrrDaemons::NONE,
        }
    }

    /// What of a change can be asked of FRR now. A daemon that must be reset first does not keep the other one from
    /// its part.
    pub fn askable(&self, change: RouteChange) -> Option<RouteChange> {
        let change = RouteChange {
            evpn: change.evpn.filter(|_| !self.reset.bgpd),
            cost: change.cost.filter(|_| !self.reset.ospfd),
            ..change
        };
        (change.evpn.is_some() || change.cost.is_some()).then_some(change)
    }

    /// Whether the host may make the upstream part of a change while FRR is busy. Not of a VNI that FRR is being asked
    /// for, which the thread `frr` changes at the same time, and not beside a reset, which withdraws what it does not
    /// know. A claim needs an FRR that can be expected to take the rest.
    pub fn may_hasten(&self, change: RouteChange) -> bool {
        let is_beside = match &self.under_way {
            Some(UnderWay {
                request: Request::Changes(_),
                vnis,
                ..
            }) => !vnis.contains(&change.vni),
            _ => false,
        };
        is_beside && (!change.claims() || (self.is_able() && self.reset == FrrDaemons::NONE))
    }

    /// What decisions on single VNIs depend on: while it stays equal, they stay as they are. `patiences` are the
    /// spans after which decisions change while FRR fails.
    pub fn view(&self, now: Time, patiences: [Duration; 2]) -> RoutesView {
        let is_over =
            |patience| matches!(self.failing_since, Some(since) if now.since(since) >= patience);
        RoutesView {
            reset: self.reset,
            health: self.health,
            tried: self.tried,
            failing_since: self.failing_since,
            fails_for: patiences.map(is_over),
        }
    }

    /// The next request, or when to ask again. The VNIs that are `shown` stay in a reset.
    pub fn plan(
        &mut self,
        now: Time,
        batch: RouteBatch,
        shown: impl FnOnce() -> BTreeSet<Vni>,
    ) -> (Option<Effect>, Option<Time>) {
        if self.under_way.is_some() || !self.looked {
            return (None, None);
        }
        let changes = batch.first();
        let mut wake = None;
        if self.reset != FrrDaemons::NONE {
            // A reset of a daemon without a process only shows that. What the other one has to withdraw comes first.
            let in_vain = self.reset.and(self.health.gone().others()) == FrrDaemons::NONE;
            let is_due = self.retry.is_over(now);
            if is_due && (changes.is_empty() || !in_vain) {
                return (Some(self.start_reset(now, shown())), None);
            }
            wake = Some(self.retry.until()).filter(|_| !is_due);
        }
        if changes.is_empty() {
            return (None, wake);
        }
        self.start(now, Request::Changes(changes.clone()));
        (Some(Effect::ChangeRoutes(changes)), wake)
    }

    fn start_reset(&mut self, now: Time, keep: BTreeSet<Vni>) -> Effect {
        let parts = self.resettable();
        // A daemon that restarts while the reset is under way is reset once more.
        self.reset = self.reset.and(parts.others());
        let kept = keep.clone();
        self.start(now, Request::Reset { parts, keep: kept });
        Effect::ResetRoutes { parts, keep }
    }

    /// What to reset: of two daemons, not one that is known to be down.
    fn resettable(&self) -> FrrDaemons {
        let up = self.reset.and(self.health.parts());
        if up == FrrDaemons::NONE {
            self.reset
        } else {
            up
        }
    }
}

/// See [`Routes::view`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutesView {
    reset: FrrDaemons,
    health: Health,
    tried: bool,
    failing_since: Option<Time>,
    fails_for: [bool; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::frr::Cost;

    const START: Time = Time::since_boot(Duration::from_secs(1_000));
    const BGPD: FrrDaemons = FrrDaemons {
        bgpd: true,
        ospfd: false,
    };
    const OSPFD: FrrDaemons = FrrDaemons {
        bgpd: false,
        ospfd: true,
    };

    fn vni(number: u32) -> Vni {
        Vni::new(number).expect("a VNI")
    }

    fn up() -> Health {
        Health {
            bgpd: Some(1),
            ospfd: Some(2),
            zebra: Some(3),
            ..Health::default()
        }
    }

    fn change(number: u32, evpn: bool, cost: Cost) -> RouteChange {
        RouteChange {
            vni: vni(number),
            evpn: Some(evpn),
            cost: Some(cost),
        }
    }

    fn batch(changes: &[(RouteChange, bool)]) -> RouteBatch {
        let mut batch = RouteBatch::default();
        for &(change, rescue) in changes {
            batch.push(change, rescue);
        }
        batch
    }

    fn plan(routes: &mut Routes, now: Time, changes: &[(RouteChange, bool)]) -> Option<Effect> {
        routes.plan(now, batch(changes), BTreeSet::new).0
    }

    /// After a first reset that both daemons took.
    fn clean() -> Routes {
        let mut routes = Routes::new(5);
        routes.observe_health(up());
        plan(&mut routes, START, &[]).expect("a reset");
        routes
            .reset_is_over(START, FrrDaemons::ALL)
            .expect("withdrawn");
        routes
    }

    #[test]
    fn nothing_is_asked_before_the_first_look_and_the_first_reset() {
        let mut routes = Routes::new(5);
        let claim = change(1, true, Cost::OWNER);
        assert_eq!(plan(&mut routes, START, &[(claim, true)]), None);
        assert_eq!(routes.askable(claim), None);
        routes.observe_health(up());
        let (parts, keep) = (FrrDaemons::ALL, BTreeSet::from([vni(5)]));
        let (effect, _) = routes.plan(START, batch(&[(claim, true)]), || keep.clone());
        assert_eq!(effect, Some(Effect::ResetRoutes { parts, keep }));
        assert_eq!(plan(&mut routes, START, &[(claim, true)]), None, "busy");
        let withdrawn = routes.reset_is_over(START, parts).expect("withdrawn");
        assert!(withdrawn.has(vni(1)) && !withdrawn.has(vni(5)));
        assert_eq!(routes.askable(claim), Some(claim));
        let asked = plan(&mut routes, START, &[(claim, true)]);
        assert_eq!(asked, Some(Effect::ChangeRoutes(vec![claim])));
    }

    #[test]
    fn rescues_go_first_and_claims_last() {
        let mut routes = clean();
        let (claim, release, rescue) = (
            change(1, true, Cost::OWNER),
            change(2, false, Cost::OTHERS),
            change(3, true, Cost::OWNER),
        );
        let effect = plan(
            &mut routes,
            START,
            &[(claim, false), (release, true), (rescue, true)],
        );
        let expected = vec![rescue, release, claim];
        assert_eq!(effect, Some(Effect::ChangeRoutes(expected)));
    }

    #[test]
    fn a_refused_reset_is_repeated_later_and_only_for_the_daemon_that_refused() {
        let mut routes = clean();
        routes.suspect();
        plan(&mut routes, START, &[]).expect("a reset");
        let withdrawn = routes.reset_is_over(START, BGPD).expect("withdrawn");
        assert_eq!(withdrawn.parts(), BGPD);
        assert!(!routes.is_able());
        let claim = change(1, true, Cost::OWNER);
        let evpn = RouteChange {
            cost: None,
            ..claim
        };
        assert_eq!(routes.askable(claim), Some(evpn));
        let (effect, wake) = routes.plan(START, RouteBatch::default(), BTreeSet::new);
        assert_eq!(effect, None);
        let wake = wake.expect("a retry");
        assert!(wake > START);
        let keep = BTreeSet::new();
        let again = Effect::ResetRoutes { parts: OSPFD, keep };
        assert_eq!(plan(&mut routes, wake, &[]), Some(again));
        routes.reset_is_over(wake, OSPFD).expect("withdrawn");
        assert!(routes.is_able());
    }

    #[test]
    fn a_daemon_that_restarts_is_reset_also_while_it_is_reset() {
        let mut routes = clean();
        let restarted = |bgpd| Health {
            bgpd: Some(bgpd),
            ..up()
        };
        let keep = BTreeSet::new();
        let reset = Some(Effect::ResetRoutes { parts: BGPD, keep });
        routes.observe_health(restarted(7));
        assert_eq!(plan(&mut routes, START, &[]), reset);
        routes.observe_health(restarted(8));
        routes.reset_is_over(START, BGPD).expect("withdrawn");
        assert_eq!(plan(&mut routes, START, &[]), reset);
    }

    /// Input: bgpd has died, and a VNI is given up. Output: ospfd has its cost before the reset of bgpd is tried; with
    /// nothing to change, that is tried at once.
    #[test]
    fn a_daemon_without_a_process_does_not_hold_up_the_other() {
        let keep = BTreeSet::new();
        let reset = Some(Effect::ResetRoutes { parts: BGPD, keep });
        let died = || {
            let mut routes = clean();
            routes.observe_health(Health { bgpd: None, ..up() });
            routes
        };
        assert_eq!(plan(&mut died(), START, &[]), reset);
        let mut routes = died();
        let release = routes.askable(change(1, false, Cost::OTHERS));
        let release = release.expect("ospfd runs");
        assert_eq!(release.evpn, None);
        let changes = Some(Effect::ChangeRoutes(vec![release]));
        assert_eq!(plan(&mut routes, START, &[(release, false)]), changes);
        routes.changes_are_over();
        assert_eq!(plan(&mut routes, START, &[]), reset);
    }

    #[test]
    fn changes_that_were_under_way_when_all_was_forgotten_do_not_count() {
        let mut routes = clean();
        let claim = change(1, true, Cost::OWNER);
        plan(&mut routes, START, &[(claim, false)]).expect("changes");
        routes.forget();
        assert_eq!(routes.changes_are_over(), []);
        assert!(routes.is_idle());
        let reset = plan(&mut routes, START, &[]);
        assert!(matches!(reset, Some(Effect::ResetRoutes { .. })));
    }

    /// Input: changes, or a reset, that FRR does not answer. Output: it fails once that took too long, longer for more
    /// VNIs; an answer that comes too late leads to a reset, and one that FRR takes ends the failure.
    #[test]
    fn a_request_without_an_answer_counts_as_refused() {
        let claims = |count| {
            (1..=count)
                .map(|number| (change(number, true, Cost::OWNER), true))
                .collect::<Vec<_>>()
        };
        for (count, seconds) in [(1, 11), (1_000, 20)] {
            let mut routes = clean();
            plan(&mut routes, START, &claims(count)).expect("changes");
            let limit = routes.watch_request(START).expect("a limit");
            assert!(limit > START + Duration::from_secs(seconds - 1));
            assert!(limit <= START + Duration::from_secs(seconds));
            assert!(routes.is_able());
            assert_eq!(routes.watch_request(limit), Some(limit));
            assert!(!routes.is_able() && routes.is_overdue());
            assert_eq!(routes.failing_since(), Some(START));
            assert_eq!(routes.changes_are_over().len(), count as usize);
            assert!(!routes.is_able(), "until a reset shows that it is");
            let reset = plan(&mut routes, limit, &[]);
            assert!(matches!(reset, Some(Effect::ResetRoutes { .. })));
            let late = routes.watch_request(limit).expect("a limit");
            routes.watch_request(late);
            routes
                .reset_is_over(late, FrrDaemons::ALL)
                .expect("withdrawn");
            assert!(routes.is_able());
            assert_eq!(routes.watch_request(late), None);
        }
        let mut routes = clean();
        plan(&mut routes, START, &claims(1)).expect("changes");
        routes.changes_are_over();
        assert_eq!(plan(&mut routes, START, &[]), None, "no reset");
    }

    #[test]
    fn a_daemon_without_a_process_is_gone_once_a_reset_was_tried() {
        let mut routes = Routes::new(5);
        let down = Health {
            ospfd: None,
            ..up()
        };
        routes.observe_health(down);
        assert_eq!(routes.gone(), FrrDaemons::NONE);
        routes.adopt();
        assert_eq!(routes.gone(), OSPFD);
        let stopped = Health {
            stopped: OSPFD,
            ..down
        };
        routes.observe_health(stopped);
        assert_eq!(routes.gone(), FrrDaemons::NONE);
    }
}
