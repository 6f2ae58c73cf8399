//! What has become of the VNIs, for those who count and those who want to be told. Pure.
//!
//! The worker shows it every row that changed and every change of what the lease proves; it keeps the numbers
//! by state and role, counts what was taken over and what moved, and collects the events of this node: which VNIs
//! it became the owner of, which it lost, and that it was fenced. What a round costs grows with the rows that
//! changed, not with the range.

use crate::model::fsm::RowView;
use crate::model::fsm::{Kind, Role};
use crate::model::types::{LeaseId, NodeName, Time, Vni};
use fnv::FnvHashMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// States a row can be in: the number of its [`Kind`].
pub const KINDS: u8 = 11;
/// The roles this node can have in it, as they are counted.
pub const ROLES: [Role; 3] = [Role::Owner, Role::Successor, Role::Bystander];
/// Upper bounds of the times to serve that are told apart, in milliseconds.
pub const SERVE_BOUNDS: [u64; 11] = [
    100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000, 30_000, 60_000, 300_000,
];

/// Something that happened to this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OwnershipEvent {
    /// It owns these VNIs, and can prove its lease.
    Owner,
    /// It does not own these any more: another node does, or none.
    Lost,
    /// It cannot prove its lease any more, and has withdrawn these.
    Fenced,
    /// It hands its VNIs over, to end.
    Drain,
}

/// The numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Rows by kind (its number) and role (as in [`ROLES`]). Rows that no node has written are not in it.
    pub rows: [[u32; ROLES.len()]; KINDS as usize],
    /// Rows that name no node that would serve the VNI now: no owner.
    pub orphans: u32,
    /// VNIs that this node owns while it can prove its lease.
    pub served: u32,
    /// VNIs without an owner that this node took over, and those that it claimed in vain.
    pub failovers: Outcomes,
    /// VNIs that moved here.
    pub moved_in: Outcomes,
    /// VNIs that moved away.
    pub moved_out: Outcomes,
    /// Since when the VNI that has been in transition for the longest has been so: its row is neither idle nor
    /// unassigned.
    pub in_transition_since: Option<Time>,
    /// How long VNIs that it took over had been without an owner, as far as this node saw.
    pub time_to_serve: Histogram,
}

/// What became of things that were begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcomes {
    /// They came to their end.
    pub done: u64,
    /// They did not.
    pub aborted: u64,
}

/// Durations, by [`SERVE_BOUNDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// How many were not longer than each bound, and longer than the one before.
    pub counts: [u64; SERVE_BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// How long they were together.
    pub sum: Duration,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let bound = |ms: &u64| duration <= Duration::from_millis(*ms);
        if let Some(bucket) = SERVE_BOUNDS.iter().position(bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += duration;
    }
}

/// The state of a row, as far as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    kind: Kind,
    role: Role,
    has_owner: bool,
}

impl Place {
    /// Of a row that no node has written.
    const NOWHERE: Place = Place {
        kind: Kind::Unassigned,
        role: Role::Bystander,
        has_owner: false,
    };

    fn of(row: &RowView<'_>, me: &NodeName) -> Place {
        let role = if row.owner == Some(me) {
            Role::Owner
        } else if row.successor == Some(me) {
            Role::Successor
        } else {
            Role::Bystander
        };
        Place {
            kind: row.kind,
            role,
            has_owner: row.owner.is_some(),
        }
    }

    fn is_moving(self) -> bool {
        matches!(self.kind, Kind::Migration(_))
    }

    /// It is served, or should be, by the one whose `role` this is.
    fn is_settled(self, role: Role) -> bool {
        self.kind == Kind::Idle && self.role == role && self.has_owner
    }
}

/// The counters of one node.
#[derive(Debug)]
pub struct Counters {
    me: NodeName,
    places: FnvHashMap<Vni, Place>,
    /// VNIs without an owner, and since when this node knows.
    waiting: FnvHashMap<Vni, Time>,
    /// VNIs that are neither idle nor unassigned, and since when.
    in_transition: FnvHashMap<Vni, Time>,
    /// VNIs whose rows name this node under its lease.
    owned: BTreeSet<Vni>,
    /// The lease, while it can be proved.
    proved: Option<LeaseId>,
    /// The lease that `owned` was found under.
    lease: Option<LeaseId>,
    summary: Summary,
    events: Vec<(OwnershipEvent, Vec<Vni>)>,
}

impl Counters {
    /// Of a node that knows nothing yet.
    pub fn new(me: NodeName) -> Counters {
        Counters {
            me,
            places: FnvHashMap::default(),
            waiting: FnvHashMap::default(),
            in_transition: FnvHashMap::default(),
            owned: BTreeSet::new(),
            proved: None,
            lease: None,
            summary: Summary::default(),
            events: Vec::new(),
        }
    }

    /// The numbers.
    pub fn summary(&self) -> Summary {
        let served = if self.proved.is_some() {
            u32::try_from(self.owned.len()).unwrap_or(u32::MAX)
        } else {
            0
        };
        Summary {
            served,
            in_transition_since: self.in_transition.values().min().copied(),
            ..self.summary.clone()
        }
    }

    /// What happened since this was asked last, in order.
    pub fn take_events(&mut self) -> Vec<(OwnershipEvent, Vec<Vni>)> {
        std::mem::take(&mut self.events)
    }

    /// The node hands its VNIs over.
    pub fn drains(&mut self) {
        self.events.push((OwnershipEvent::Drain, Vec::new()));
    }

    /// The node holds `lease`, and can prove it or not; says whether that is another answer than before.
    /// `owns` tells whether a row names the node under that lease.
    pub fn proves(
        &mut self,
        lease: Option<LeaseId>,
        is_proved: bool,
        owns: impl Fn(Vni) -> bool,
    ) -> bool {
        let proved = lease.filter(|_| is_proved);
        if lease == self.lease && proved == self.proved {
            return false;
        }
        // Another lease without a moment without: what was served under the old one is not under this.
        if self.proved.is_some() && proved != self.proved {
            self.tell_all(OwnershipEvent::Fenced);
            self.proved = None;
        }
        if lease != self.lease {
            self.lease = lease;
            self.owned.retain(|&vni| owns(vni));
        }
        if proved.is_some() {
            self.proved = proved;
            self.tell_all(OwnershipEvent::Owner);
        }
        true
    }

    /// The node has withdrawn everything and ends.
    pub fn leaves(&mut self) {
        if self.proved.take().is_some() {
            self.tell_all(OwnershipEvent::Lost);
        }
        self.owned.clear();
    }

    fn tell_all(&mut self, event: OwnershipEvent) {
        if !self.owned.is_empty() {
            let all = self.owned.iter().copied().collect();
            self.events.push((event, all));
        }
    }

    fn tell(&mut self, event: OwnershipEvent, vni: Vni) {
        match self.events.last_mut() {
            Some((last, vnis)) if *last == event => vnis.push(vni),
            _ => self.events.push((event, vec![vni])),
        }
    }

    /// The row of `vni` may have changed; `owns` is whether it names the node under its present lease.
    pub fn row(&mut self, now: Time, vni: Vni, row: &RowView<'_>, owns: bool) {
        let is_new = if owns {
            self.owned.insert(vni)
        } else {
            self.owned.remove(&vni)
        };
        if is_new && self.proved.is_some() {
            self.tell(
                if owns {
                    OwnershipEvent::Owner
                } else {
                    OwnershipEvent::Lost
                },
                vni,
            );
        }
        let after = Place::of(row, &self.me);
        let before = if after == Place::NOWHERE {
            self.places.remove(&vni)
        } else {
            self.places.insert(vni, after)
        };
        if let Some(before) = before {
            *self.cell(before) -= 1;
            self.summary.orphans -= u32::from(!before.has_owner);
        }
        if after != Place::NOWHERE {
            *self.cell(after) += 1;
            self.summary.orphans += u32::from(!after.has_owner);
        }
        let before = before.unwrap_or(Place::NOWHERE);
        self.count_turn(before, after);
        if matches!(after.kind, Kind::Idle | Kind::Unassigned) {
            self.in_transition.remove(&vni);
            if self.in_transition.is_empty() {
                self.in_transition = FnvHashMap::default();
            }
        } else {
            self.in_transition.entry(vni).or_insert(now);
        }
        if !after.has_owner {
            self.waiting.entry(vni).or_insert(now);
        } else if let Some(since) = self.waiting.remove(&vni) {
            if owns {
                self.summary.time_to_serve.add(now.since(since));
            }
            if self.waiting.is_empty() {
                // Room for all VNIs at the start is not needed for ever.
                self.waiting = FnvHashMap::default();
            }
        }
    }

    fn cell(&mut self, place: Place) -> &mut u32 {
        let role = match place.role {
            Role::Owner => 0,
            Role::Successor => 1,
            Role::Bystander => 2,
        };
        &mut self.summary.rows[usize::from(place.kind.number())][role]
    }

    /// Counts what comes to its end between two looks at a row.
    fn count_turn(&mut self, before: Place, after: Place) {
        let claims = |place: Place| place.kind == Kind::Failover && place.role == Role::Successor;
        let takes = |place: Place| place.is_moving() && place.role == Role::Successor;
        let gives = |place: Place| place.is_moving() && place.role == Role::Owner;
        let mut end = |was: bool, is: bool, done: bool, of: fn(&mut Summary) -> &mut Outcomes| {
            if was && !is {
                let outcomes = of(&mut self.summary);
                *(if done {
                    &mut outcomes.done
                } else {
                    &mut outcomes.aborted
                }) += 1;
            }
        };
        let is_here = after.is_settled(Role::Owner);
        let is_there = after.is_settled(Role::Bystander);
        end(claims(before), claims(after), is_here, |summary| {
            &mut summary.failovers
        });
        end(takes(before), takes(after), is_here, |summary| {
            &mut summary.moved_in
        });
        end(gives(before), gives(after), is_there, |summary| {
            &mut summary.moved_out
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::fsm::Phase;

    const LEASE: Option<LeaseId> = Some(LeaseId(1));

    struct Try {
        counters: Counters,
        now: Time,
        me: NodeName,
        other: NodeName,
    }

    impl Try {
        fn new() -> Try {
            let me: NodeName = "me".parse().unwrap();
            let mut counters = Counters::new(me.clone());
            assert!(counters.proves(LEASE, true, |_| true));
            Try {
                counters,
                now: Time::since_boot(Duration::from_secs(1)),
                me,
                other: "other".parse().unwrap(),
            }
        }

        /// A second later the row reads `kind`, with `m` (me), `o` (other) or `-` as owner and successor.
        fn row(&mut self, vni: u32, kind: Kind, names: &str) {
            self.now = self.now + Duration::from_secs(1);
            let name = |at: usize| match &names[at..=at] {
                "m" => Some(&self.me),
                "o" => Some(&self.other),
                _ => None,
            };
            let row = RowView {
                kind,
                owner: name(0),
                successor: name(1),
            };
            let owns = name(0) == Some(&self.me);
            self.counters
                .row(self.now, Vni::new(vni).unwrap(), &row, owns);
        }

        fn events(&mut self) -> Vec<(OwnershipEvent, Vec<u32>)> {
            let events = self.counters.take_events().into_iter();
            events
                .map(|(event, vnis)| (event, vnis.iter().map(|vni| vni.get()).collect()))
                .collect()
        }
    }

    fn outcomes(done: u64, aborted: u64) -> Outcomes {
        Outcomes { done, aborted }
    }

    const FIRST: Kind = Kind::Migration(Phase::Decided);
    const LAST: Kind = Kind::Migration(Phase::EvpnWithdrawn);

    /// Input: an owner that dies, its VNI claimed and owned here two seconds after it was seen to be without an
    /// owner. Output: one failover, its time, one row idle and owned, no orphan, one event.
    #[test]
    fn a_failover_is_counted_with_its_time() {
        let mut it = Try::new();
        it.row(7, Kind::Idle, "o-");
        it.row(7, Kind::Idle, "--");
        assert_eq!(it.counters.summary().orphans, 1);
        it.row(7, Kind::Failover, "-m");
        let claimed = Some(it.now);
        it.row(7, Kind::Failover, "-m");
        assert_eq!(it.counters.summary().in_transition_since, claimed);
        it.row(7, Kind::Idle, "m-");
        let summary = it.counters.summary();
        assert_eq!(summary.failovers, outcomes(1, 0));
        assert_eq!(summary.time_to_serve.count, 1);
        assert_eq!(summary.time_to_serve.sum, Duration::from_secs(3));
        assert_eq!(summary.time_to_serve.counts[5], 1, "up to 5 s");
        assert_eq!((summary.orphans, summary.served), (0, 1));
        assert_eq!(summary.in_transition_since, None);
        assert_eq!(summary.rows[1], [1, 0, 0]);
        assert_eq!(it.events(), [(OwnershipEvent::Owner, vec![7])]);
    }

    /// Input: a failover of another node. Output: this node counts nothing, and remembers nothing of it.
    #[test]
    fn what_others_do_is_not_ours() {
        let mut it = Try::new();
        it.row(7, Kind::Failover, "-o");
        it.row(7, Kind::Idle, "o-");
        it.row(7, LAST, "oo");
        it.row(7, Kind::Idle, "o-");
        let rows = it.counters.summary().rows;
        assert_eq!(rows[1], [0, 0, 1]);
        assert_eq!(
            it.counters.summary(),
            Summary {
                rows,
                ..Summary::default()
            }
        );
        assert_eq!(it.events(), []);
        assert!(it.counters.waiting.is_empty());
    }

    #[test]
    fn migrations_end_well_or_not_in_both_directions() {
        let mut it = Try::new();
        it.row(1, FIRST, "om");
        it.row(1, LAST, "om");
        it.row(1, Kind::Idle, "m-");
        it.row(2, FIRST, "om");
        it.row(2, Kind::Idle, "o-");
        it.row(1, FIRST, "mo");
        it.row(1, LAST, "mo");
        it.row(1, Kind::Idle, "o-");
        it.row(3, Kind::Idle, "m-");
        it.row(3, FIRST, "mo");
        it.row(3, Kind::Idle, "m-");
        it.row(4, FIRST, "om");
        it.row(4, FIRST, "-m");
        it.row(4, Kind::Unassigned, "--");
        let summary = it.counters.summary();
        assert_eq!(summary.moved_in, outcomes(1, 2));
        assert_eq!(summary.moved_out, outcomes(1, 1));
        assert_eq!(summary.failovers, outcomes(0, 0));
        assert_eq!(summary.time_to_serve.count, 0);
        assert_eq!(
            it.events(),
            [
                (OwnershipEvent::Owner, vec![1]),
                (OwnershipEvent::Lost, vec![1]),
                (OwnershipEvent::Owner, vec![3])
            ]
        );
    }

    /// Input: a fence, rows that change under it, the lease proved again; then another lease. Output: each VNI is
    /// told of as owner, then fenced or lost, then owner again, and so on.
    #[test]
    fn a_fence_takes_all_and_gives_back_what_is_still_ours() {
        let mut it = Try::new();
        for vni in 1..=3 {
            it.row(vni, Kind::Idle, "m-");
        }
        assert!(it.counters.proves(LEASE, false, |_| true));
        assert!(!it.counters.proves(LEASE, false, |_| true));
        assert_eq!(it.counters.summary().served, 0);
        it.row(2, Kind::Idle, "o-");
        it.counters.proves(LEASE, true, |_| true);
        assert_eq!(it.counters.summary().served, 2);
        it.counters.proves(Some(LeaseId(2)), true, |_| false);
        it.row(1, Kind::Idle, "--");
        assert_eq!(
            it.events(),
            [
                (OwnershipEvent::Owner, vec![1, 2, 3]),
                (OwnershipEvent::Fenced, vec![1, 2, 3]),
                (OwnershipEvent::Owner, vec![1, 3]),
                (OwnershipEvent::Fenced, vec![1, 3]),
            ]
        );
    }
}
