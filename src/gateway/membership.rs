//! This node among the others: its lease, its registration, and since when it has been in the ring.

use super::ability::{Capability, Publication};
use super::backoff::Backoff;
use super::mirror::Mirror;
use super::{Config, Effect, Registration};
use crate::model::fitness::Fitness;
use crate::model::ring::Points;
use crate::model::types::{Lease, LeaseId, NodeName, Time, Vni};
use std::time::Duration;

/// This node among the others.
#[derive(Clone, Debug)]
pub struct Membership {
    me: NodeName,
    /// The ring points that it registers while it takes VNIs.
    points: Points,
    fence_margin: Duration,
    join_hold: Duration,
    max_lease_life: Duration,
    lease: Option<Lease>,
    /// Until then this node serves nothing: other nodes may not have noticed yet that etcd was set back.
    distrust_until: Time,
    in_ring_since: Option<Time>,
    was_registered: bool,
    /// etcd refused a write because this node is not registered. The mirror may not show that yet.
    must_register: bool,
    name_taken_since: Option<Time>,
    retry: Backoff,
    /// What this node publishes that it cannot serve.
    publication: Publication,
}

impl Membership {
    /// Without a lease, and not registered.
    pub fn new(config: &Config) -> Membership {
        Membership {
            me: config.me.clone(),
            points: config.points.clone(),
            fence_margin: config.fence_margin,
            join_hold: config.join_hold,
            max_lease_life: config.max_lease_life,
            lease: None,
            distrust_until: Time::default(),
            in_ring_since: None,
            was_registered: false,
            must_register: false,
            name_taken_since: None,
            retry: Backoff::default(),
            publication: Publication::default(),
        }
    }

    /// The lease of an earlier run is this run's own.
    pub fn adopt(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The lease was granted, renewed or lost. Returns whether this node serves from now on and did not before.
    pub fn set_lease(&mut self, now: Time, lease: Option<Lease>, mirror: &Mirror) -> bool {
        let was_serving = self.is_serving(now);
        let before = std::mem::replace(&mut self.lease, lease);
        let renewed = before.is_some() && before.map(|it| it.id) == lease.map(|it| it.id);
        if !renewed {
            self.retry.succeed();
            self.follow(now, mirror);
        }
        !was_serving && self.is_serving(now)
    }

    /// The nodes, or the ring that they make, have changed.
    pub fn follow(&mut self, now: Time, mirror: &Mirror) {
        let is_registered = self.is_registered(mirror);
        let in_ring = is_registered && mirror.ring().has(&self.me);
        self.was_registered |= is_registered;
        self.in_ring_since = in_ring.then(|| self.in_ring_since.unwrap_or(now));
    }

    /// etcd was set back. This node forgets since when it has been in the ring, and serves nothing until the other
    /// nodes have had the time to notice. The mirror is empty now, so that this node registers again.
    pub fn rewind(&mut self, now: Time) {
        self.must_register = false;
        self.in_ring_since = None;
        self.retry.succeed();
        self.distrust_until = now + self.max_lease_life;
    }

    /// No node is registered under this name: a registration need not wait any longer.
    pub fn name_is_free(&mut self) {
        self.retry.succeed();
    }

    /// etcd refused a write, as this node is not registered.
    pub fn registration_is_lost(&mut self) {
        self.must_register = true;
    }

    /// etcd took the registration.
    pub fn registered(&mut self) {
        self.retry.succeed();
        self.must_register = false;
        self.name_taken_since = None;
    }

    /// The registration got no answer, or a refusal.
    pub fn registration_failed(&mut self, now: Time) {
        self.retry.fail(now, 0);
    }

    /// The name is registered under another lease. Returns whether this daemon must end, because it has waited for the
    /// longest life of a lease. A run that was registered before waits without a limit.
    pub fn name_is_taken(&mut self, now: Time) -> bool {
        self.retry.fail(now, 0);
        let since = *self.name_taken_since.get_or_insert(now);
        !self.was_registered && now.since(since) > self.max_lease_life
    }

    /// What the node found of its ability to serve each VNI, in ascending order.
    pub fn take_capabilities(&mut self, found: impl Iterator<Item = (Vni, Capability)>) {
        self.publication.take(found);
    }

    /// The lease.
    pub fn lease(&self) -> Option<LeaseId> {
        self.lease.map(|lease| lease.id)
    }

    /// Whether the lease is valid, so that no other node serves a VNI that etcd says is owned by this node.
    pub fn is_serving(&self, now: Time) -> bool {
        now >= self.distrust_until && self.fence_at().is_some_and(|fence_at| now < fence_at)
    }

    /// When this node withdraws everything, unless it renews the lease before.
    pub fn fence_at(&self) -> Option<Time> {
        self.lease
            .map(|lease| lease.valid_until - self.fence_margin)
    }

    /// When the other nodes have had the time to notice that etcd went back.
    pub fn distrust_until(&self) -> Time {
        self.distrust_until
    }

    /// Whether etcd has this node registered under its present lease, as far as it has heard.
    pub fn is_registered(&self, mirror: &Mirror) -> bool {
        let registered = mirror
            .nodes()
            .registered(&self.me)
            .and_then(|cell| cell.lease());
        registered.is_some() && registered == self.lease()
    }

    /// Whether the mirror shows this node as registered, and etcd has refused no write for lack of a registration.
    pub fn is_surely_registered(&self, mirror: &Mirror) -> bool {
        self.is_registered(mirror) && !self.must_register
    }

    /// What etcd has of this node's fitness, under its present lease.
    pub fn published_fitness(&self, mirror: &Mirror) -> Option<Fitness> {
        mirror.nodes().fitness(&self.me, self.lease()?)
    }

    /// Whether the node is in the ring.
    pub fn is_in_ring(&self) -> bool {
        self.in_ring_since.is_some()
    }

    /// Whether the node has been in the ring for long enough to take VNIs from living owners.
    pub fn is_stable(&self, now: Time) -> bool {
        self.in_ring_since
            .is_some_and(|since| now.since(since) >= self.join_hold)
    }

    /// When the node has been in the ring for long enough; `None` if it is not in the ring.
    pub fn stable_at(&self) -> Option<Time> {
        self.in_ring_since.map(|since| since + self.join_hold)
    }

    /// A node that draws its points keeps those of its first start, which etcd stores. An earlier version did not store
    /// them: if this run has taken over the lease of such a run, it keeps the points of that registration.
    fn keep_drawn(&mut self, mirror: &Mirror, lease: LeaseId) {
        let Points::Drawn(points) = &mut self.points else {
            return;
        };
        let drawn = mirror.nodes().drawn(&self.me);
        let registered = mirror
            .nodes()
            .registered(&self.me)
            .filter(|cell| cell.lease() == Some(lease));
        let known = [drawn, registered]
            .into_iter()
            .filter_map(|cell| cell?.value())
            .find(|points| !points.is_empty());
        if let Some(known) = known {
            points.clone_from(known);
        }
    }

    /// The points that the node drew, if it must still write them to etcd. It does not overwrite a value that it cannot
    /// read: another program wrote that.
    fn unwritten(&self, mirror: &Mirror) -> Option<&Vec<u64>> {
        let Points::Drawn(points) = &self.points else {
            return None;
        };
        let cell = mirror.nodes().drawn(&self.me);
        let is_written =
            cell.is_some_and(|cell| cell.is_unreadable() || cell.value() == Some(points));
        (!is_written).then_some(points)
    }

    /// The registration to send now, or when to call this again. If `takes` is false, the node takes no VNIs and
    /// registers without ring points.
    pub fn plan(
        &mut self,
        now: Time,
        mirror: &Mirror,
        takes: bool,
        fitness: Fitness,
    ) -> (Option<Effect>, Option<Time>) {
        let Some(lease) = self.lease() else {
            return (None, None);
        };
        self.keep_drawn(mirror, lease);
        let points: &[u64] = if takes { self.points.all() } else { &[] };
        let known = mirror
            .nodes()
            .registered(&self.me)
            .filter(|cell| cell.lease() == Some(lease) && !cell.is_unreadable());
        let as_wanted = known.and_then(|cell| cell.value()).map(Vec::as_slice) == Some(points);
        let unable = self.publication.unable();
        let drawn = self.unwritten(mirror);
        if as_wanted && !self.must_register && drawn.is_none() {
            let told = self.published_fitness(mirror);
            if mirror.nodes().unable(&self.me, lease) == Some(unable) && told == Some(fitness) {
                return (None, None);
            }
            // A changed rank moves VNIs between nodes, so it does not wait for the pause between two publications.
            let is_urgent = told.is_none_or(|told| told.rank != fitness.rank);
            if !is_urgent && self.publication.next() > now {
                return (None, Some(self.publication.next()));
            }
        }
        if !self.retry.is_over(now) {
            return (None, Some(self.retry.until()));
        }
        let register = Effect::Register(Registration {
            lease,
            points: points.to_vec(),
            drawn: drawn.cloned(),
            unable: unable.clone(),
            fitness,
        });
        self.publication.published(now);
        (Some(register), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fitness::{Rank, Sign, SignSet};
    use crate::model::frr::Cost;
    use crate::model::ring::Unable;
    use crate::model::types::{Revision, VniRange};
    use crate::schema::{Change, Key, Value};

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));
    const SECOND: Duration = Duration::from_secs(1);

    fn me() -> NodeName {
        "gw1".parse().expect("a name")
    }

    fn range() -> VniRange {
        let vni = |number| Vni::new(number).expect("a VNI");
        VniRange::new(vni(1), vni(2)).expect("a range")
    }

    fn membership() -> Membership {
        Membership::new(&Config {
            me: me(),
            range: range(),
            points: Points::Given(vec![7]),
            fence_margin: SECOND * 2,
            settle: SECOND,
            join_hold: SECOND * 20,
            drain_timeout: SECOND * 60,
            max_lease_life: SECOND * 12,
            takeover_cost: Cost::OWNER,
            announces_itself: false,
            track: SignSet::ALL,
            fit_hold: SECOND * 10,
        })
    }

    fn lease(id: i64) -> Option<Lease> {
        Some(Lease {
            id: LeaseId(id),
            valid_until: NOW + SECOND * 10,
        })
    }

    fn empty() -> Mirror {
        Mirror::new(range())
    }

    /// What is known once this node is registered with `points` under lease 1.
    fn registered(points: &[u64]) -> Mirror {
        let mut mirror = empty();
        let registration = Registration {
            lease: LeaseId(1),
            points: points.to_vec(),
            drawn: None,
            unable: Unable::default(),
            fitness: Fitness::default(),
        };
        mirror.registered(&me(), registration, Revision(5));
        mirror
    }

    #[test]
    fn a_lease_serves_until_its_margin_and_not_while_etcd_is_distrusted() {
        let (mut it, mirror) = (membership(), empty());
        assert!(it.set_lease(NOW, lease(1), &mirror));
        assert!(!it.set_lease(NOW, lease(1), &mirror), "served before");
        let fence_at = NOW + SECOND * 8;
        assert_eq!(it.fence_at(), Some(fence_at));
        assert!(!it.is_serving(fence_at) && it.is_serving(fence_at - SECOND));
        it.rewind(NOW - SECOND * 6);
        assert!(!it.is_serving(NOW) && it.is_serving(NOW + SECOND * 6));
    }

    #[test]
    fn a_registration_is_made_once_and_again_when_it_is_lost_or_out_of_date() {
        let mut it = membership();
        let none = empty();
        let fit = Fitness::default();
        let without_lease = it.plan(NOW, &none, true, fit);
        assert_eq!(without_lease, (None, None));
        it.set_lease(NOW, lease(1), &none);
        let register = |points: &[u64]| {
            Some(Effect::Register(Registration {
                lease: LeaseId(1),
                points: points.to_vec(),
                drawn: None,
                unable: Unable::default(),
                fitness: fit,
            }))
        };
        assert_eq!(it.plan(NOW, &none, true, fit).0, register(&[7]));
        it.registered();
        let mirror = registered(&[7]);
        assert_eq!(it.plan(NOW, &mirror, true, fit), (None, None));
        assert_eq!(it.plan(NOW, &mirror, false, fit).0, register(&[]));
        it.registration_is_lost();
        assert!(it.is_registered(&mirror) && !it.is_surely_registered(&mirror));
        assert_eq!(it.plan(NOW, &mirror, true, fit).0, register(&[7]));
        it.registration_failed(NOW);
        let (effect, wake) = it.plan(NOW, &mirror, true, fit);
        assert!(effect.is_none() && wake.is_some_and(|wake| wake > NOW));
    }

    /// Input: a node that draws, with what etcd has of the points that it, or the run before it, drew. Output: its
    /// registration.
    #[test]
    fn drawn_points_are_kept_from_run_to_run() {
        let with = |mut mirror: Mirror, value| {
            let drawn = Change {
                key: Key::Points(me()),
                value: Some(value),
                lease: None,
                revision: Revision(6),
            };
            mirror.take_changes(&[drawn]);
            mirror
        };
        let registration = |mirror: &Mirror| {
            let mut it = Membership {
                points: Points::Drawn(vec![9]),
                ..membership()
            };
            it.set_lease(NOW, lease(1), mirror);
            match it.plan(NOW, mirror, true, Fitness::default()).0 {
                Some(Effect::Register(it)) => Some((it.points, it.drawn)),
                None => None,
                other => panic!("{other:?}"),
            }
        };
        let first = Some((vec![9], Some(vec![9])));
        assert_eq!(registration(&empty()), first);
        let none = with(empty(), Value::Points(Vec::new()));
        assert_eq!(registration(&none), first);
        let before = with(empty(), Value::Points(vec![5]));
        assert_eq!(registration(&before), Some((vec![5], None)));
        let foreign = with(empty(), Value::Unreadable);
        assert_eq!(registration(&foreign), Some((vec![9], None)), "left alone");
        // The run before, whose lease was taken over, was of a version that wrote none down.
        let adopted = registered(&[7]);
        assert_eq!(registration(&adopted), Some((vec![7], Some(vec![7]))));
        let written = with(adopted, Value::Points(vec![7]));
        assert_eq!(registration(&written), None);
    }

    /// Input: another change waits for its turn. Output: a sign that turns bad without a change of the rank waits as
    /// well; a new rank does not.
    #[test]
    fn a_new_rank_is_published_at_once() {
        let mut it = membership();
        let mirror = registered(&[7]);
        it.set_lease(NOW, lease(1), &mirror);
        let bad = SignSet::NONE.with(Sign::Ospf);
        let of_rank = |rank| Fitness { rank, bad };
        let renewed = |it: &mut Membership, fitness| {
            let (effect, wake) = it.plan(NOW, &mirror, true, fitness);
            assert!(effect.is_some() != wake.is_some());
            effect.is_some()
        };
        assert!(renewed(&mut it, of_rank(Rank::NoUplink)));
        assert!(!renewed(&mut it, of_rank(Rank::Fit)));
        assert!(renewed(&mut it, of_rank(Rank::Unfit)));
    }

    #[test]
    fn the_hold_counts_from_the_ring_and_ends_with_the_registration() {
        let mut it = membership();
        let mirror = registered(&[7]);
        it.set_lease(NOW, lease(1), &mirror);
        assert_eq!(it.stable_at(), Some(NOW + SECOND * 20));
        it.follow(NOW + SECOND, &mirror);
        assert_eq!(it.stable_at(), Some(NOW + SECOND * 20));
        assert!(it.is_stable(NOW + SECOND * 20));
        it.set_lease(NOW, lease(2), &mirror);
        assert!(!it.is_in_ring(), "registered under another lease");
    }

    #[test]
    fn only_a_node_that_was_never_registered_gives_up_a_taken_name() {
        let mut it = membership();
        assert!(!it.name_is_taken(NOW));
        assert!(it.name_is_taken(NOW + SECOND * 13));
        let mirror = registered(&[7]);
        it.set_lease(NOW, lease(1), &mirror);
        assert!(!it.name_is_taken(NOW + SECOND * 13));
    }
}
