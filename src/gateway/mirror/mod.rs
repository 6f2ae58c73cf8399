//! What this node knows of etcd: the rows of its VNIs, the nodes, and the ring that the nodes make.

mod cell;
mod nodes;
mod row;

use super::Registration;
use crate::model::fsm::Write;
use crate::model::ring::Ring;
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::schema::{Change, Key};
use fnv::FnvHashSet;
pub use nodes::Nodes;
use row::Named;
pub use row::Row;

/// What this node knows of etcd.
#[derive(Clone, Debug)]
pub struct Mirror {
    range: VniRange,
    /// One for each VNI of `range`, in order.
    rows: Vec<Row>,
    nodes: Nodes,
    ring: Ring,
    /// The revision of the newest snapshot.
    snapshot: Option<Revision>,
    /// Up to here etcd has told everything.
    heard: Revision,
    /// Rows that changed since [`Mirror::take_changed`].
    changed: Vec<Vni>,
}

/// What an event changed of what this node knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// The rows that changed, some more than once.
    pub rows: Vec<RowNews>,
    /// The nodes, or what they publish, may have changed, and the ring with them.
    pub nodes: bool,
}

/// A row changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowNews {
    pub vni: Vni,
    /// It named an owner or a successor that it does not name now.
    pub lost_a_name: bool,
    /// The lease under which that was written, if this change took it away.
    pub lost_by: Option<LeaseId>,
    /// It names neither.
    pub given_back: bool,
}

impl RowNews {
    /// Of a row that has changed, and had names before as `named` says.
    fn of(vni: Vni, row: &Row, named: [Named; 2]) -> RowNews {
        RowNews {
            vni,
            lost_a_name: row.lost_a_name(named),
            lost_by: row.lost_by(named),
            given_back: row.is_given_back(),
        }
    }
}

impl Mirror {
    /// Nothing is known of any VNI of `range`.
    pub fn new(range: VniRange) -> Mirror {
        Mirror {
            range,
            rows: vec![Row::default(); range.len()],
            nodes: Nodes::default(),
            ring: Ring::default(),
            snapshot: None,
            heard: Revision::default(),
            changed: Vec::new(),
        }
    }

    fn at(&self, vni: Vni) -> Option<usize> {
        self.range
            .contains(vni)
            .then(|| (vni.get() - self.range.first().get()) as usize)
    }

    /// The row of a VNI, if the VNI is in the range.
    pub fn row(&self, vni: Vni) -> Option<&Row> {
        self.rows.get(self.at(vni)?)
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The ring of the registered nodes.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Whether a first snapshot has arrived.
    pub fn is_complete(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether this node knows all that was written before `me` registered. A node that registered right before may
    /// otherwise be missing in the ring.
    pub fn has_heard_of(&self, me: &NodeName) -> bool {
        let registered = self.nodes.registered(me);
        registered.is_some_and(|cell| cell.revision() <= self.heard)
    }

    /// The VNIs whose rows changed since this was asked last.
    pub fn take_changed(&mut self) -> Vec<Vni> {
        std::mem::take(&mut self.changed)
    }

    /// All keys as of `revision`. `None` if a newer snapshot has overtaken this one: keys that are gone since would
    /// come back, and never go again.
    pub fn take_snapshot(&mut self, revision: Revision, changes: &[Change]) -> Option<News> {
        if self.snapshot > Some(revision) {
            return None;
        }
        let mut news = News::default();
        let present: FnvHashSet<&Key> = changes.iter().map(|change| &change.key).collect();
        for (vni, row) in self.range.iter().zip(&mut self.rows) {
            let named = row.names();
            if row.retain(vni, revision, |key| present.contains(key)) {
                self.changed.push(vni);
                news.rows.push(RowNews::of(vni, row, named));
            }
        }
        self.nodes.retain(revision, |key| present.contains(key));
        self.snapshot = Some(revision);
        self.heard = self.heard.max(revision);
        self.apply(changes.iter(), &mut news);
        self.ring = self.nodes.ring();
        Some(news)
    }

    /// What whole revisions changed, in order.
    pub fn take_changes(&mut self, changes: &[Change]) -> News {
        // What the snapshot already holds would, taken one by one, bring back what has gone since.
        let known = self.snapshot.unwrap_or_default();
        if self.snapshot.is_some() {
            let newest = changes.iter().map(|change| change.revision).max();
            self.heard = self.heard.max(newest.unwrap_or_default());
        }
        let mut news = News::default();
        let newer = changes.iter().filter(|change| change.revision > known);
        self.apply(newer, &mut news);
        if news.nodes {
            self.ring = self.nodes.ring();
        }
        news
    }

    fn apply<'a>(&mut self, changes: impl Iterator<Item = &'a Change>, news: &mut News) {
        for change in changes {
            let Some(vni) = change.key.vni() else {
                news.nodes |= self.nodes.apply(change);
                continue;
            };
            let Some(row) = self.at(vni).and_then(|at| self.rows.get_mut(at)) else {
                continue;
            };
            let named = row.names();
            if row.apply(change) {
                self.changed.push(vni);
                news.rows.push(RowNews::of(vni, row, named));
            }
        }
    }

    /// etcd took the registration of `me` at `revision`.
    pub fn registered(
        &mut self,
        me: &NodeName,
        registration: Registration,
        revision: Revision,
    ) -> News {
        let nodes = self
            .nodes
            .take_registration(me, self.range, registration, revision);
        if nodes {
            self.ring = self.nodes.ring();
        }
        News {
            nodes,
            ..News::default()
        }
    }

    /// etcd took a write of `me` at `revision`.
    pub fn committed(
        &mut self,
        vni: Vni,
        write: Write,
        me: &NodeName,
        lease: LeaseId,
        revision: Revision,
    ) {
        if let Some(row) = self.at(vni).and_then(|at| self.rows.get_mut(at)) {
            row.committed(write, me, lease, revision);
            self.changed.push(vni);
        }
    }

    /// etcd went back: nothing that was known of it holds, and every condition on a revision from before would.
    pub fn rewind(&mut self) {
        let mut fresh = Mirror::new(self.range);
        fresh.changed = std::mem::take(&mut self.changed);
        let rows = self.range.iter().zip(&self.rows);
        let known = rows.filter(|(_, row)| **row != Row::default());
        fresh.changed.extend(known.map(|(vni, _)| vni));
        *self = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fitness::Fitness;
    use crate::model::fsm::{Kind, State};
    use crate::model::ring::Unable;
    use crate::schema::Value;

    const LEASE: LeaseId = LeaseId(7);

    fn vni(number: u32) -> Vni {
        Vni::new(number).expect("a VNI")
    }

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    fn mirror() -> Mirror {
        Mirror::new(VniRange::new(vni(1), vni(3)).expect("a range"))
    }

    fn change(key: Key, value: Option<Value>, lease: Option<LeaseId>, revision: i64) -> Change {
        Change {
            key,
            value,
            lease,
            revision: Revision(revision),
        }
    }

    fn node(node: &str, revision: i64) -> Change {
        let points = Some(Value::Points(vec![1 << 63]));
        change(Key::Node(name(node)), points, Some(LEASE), revision)
    }

    fn owner(number: u32, owner: &str, revision: i64) -> [Change; 2] {
        let (kind, owner) = (Value::Kind(Kind::Idle), Value::Name(Some(name(owner))));
        [
            change(Key::Kind(vni(number)), Some(kind), None, revision),
            change(
                Key::Current(vni(number)),
                Some(owner),
                Some(LEASE),
                revision,
            ),
        ]
    }

    fn owner_of(mirror: &Mirror, number: u32) -> Option<NodeName> {
        let row = mirror.row(vni(number)).expect("in the range");
        row.view().owner.cloned()
    }

    fn rows(news: &News) -> Vec<(u32, bool)> {
        let rows = news.rows.iter();
        rows.map(|it| (it.vni.get(), it.lost_a_name)).collect()
    }

    #[test]
    fn a_snapshot_removes_what_it_does_not_have_unless_a_newer_one_was_taken() {
        let mut mirror = mirror();
        assert!(!mirror.is_complete());
        let all: Vec<Change> = owner(2, "gw1", 4)
            .into_iter()
            .chain([node("gw1", 3)])
            .collect();
        let news = mirror.take_snapshot(Revision(5), &all).expect("news");
        assert_eq!(
            rows(&news),
            [(2, true), (2, false)],
            "seen without its names"
        );
        assert!(news.nodes && mirror.is_complete() && mirror.ring().has(&name("gw1")));
        assert_eq!(mirror.take_changed(), [vni(2), vni(2)]);
        let news = mirror.take_snapshot(Revision(6), &[]).expect("news");
        assert_eq!(rows(&news), [(2, true)]);
        assert!(!mirror.ring().has(&name("gw1")) && owner_of(&mirror, 2).is_none());
        assert_eq!(mirror.take_snapshot(Revision(5), &all), None);
        assert!(!mirror.ring().has(&name("gw1")));
    }

    /// Input: an owner writes its row vacant; an operator deletes the row of another. Output: only the first was given
    /// back, so that another node need not wait for an owner that may still answer.
    #[test]
    fn a_deleted_row_was_not_given_back() {
        let none = |number, revision| change(Key::Current(vni(number)), None, None, revision);
        for (kind, given_back) in [(Some(Value::Kind(Kind::Unassigned)), true), (None, false)] {
            let mut mirror = mirror();
            mirror.take_changes(&owner(1, "gw1", 2));
            let news = mirror.take_changes(&[change(Key::Kind(vni(1)), kind, None, 3), none(1, 3)]);
            let lost = news.rows.iter().find(|row| row.lost_a_name);
            assert_eq!(lost.map(|row| row.given_back), Some(given_back));
        }
    }

    #[test]
    fn changes_that_are_known_and_vnis_out_of_range_are_no_news() {
        let mut mirror = mirror();
        mirror.take_snapshot(Revision(5), &[]).expect("news");
        assert_eq!(mirror.take_changes(&owner(1, "gw1", 5)), News::default());
        assert_eq!(mirror.take_changes(&owner(9, "gw1", 6)), News::default());
        let news = mirror.take_changes(&owner(1, "gw1", 7));
        assert_eq!(rows(&news), [(1, true), (1, false)]);
        assert_eq!(owner_of(&mirror, 1), Some(name("gw1")));
        let (key, none) = (Key::Current(vni(1)), None);
        let news = mirror.take_changes(&[change(key, none, None, 8)]);
        assert_eq!(rows(&news), [(1, true)]);
    }

    #[test]
    fn the_own_name_counts_with_the_own_lease_and_another_with_any() {
        let mut mirror = mirror();
        mirror.take_changes(&owner(1, "gw1", 2));
        let state = |me: &str, lease| {
            let row = mirror.row(vni(1)).expect("in the range");
            row.state(&name(me), Some(lease), mirror.nodes())
        };
        let owner = name("gw1");
        let idle = State::Idle { owner };
        assert_eq!(state("gw1", LEASE), idle);
        assert_ne!(state("gw1", LeaseId(8)), idle);
        assert_eq!(state("gw2", LeaseId(8)), idle);
    }

    #[test]
    fn a_registration_is_heard_of_when_all_before_it_is() {
        let mut mirror = mirror();
        let me = name("gw1");
        mirror.take_snapshot(Revision(5), &[]).expect("news");
        let register = |mirror: &mut Mirror| {
            let registration = Registration {
                lease: LEASE,
                points: vec![7],
                drawn: None,
                unable: Unable::default(),
                fitness: Fitness::default(),
            };
            mirror.registered(&me, registration, Revision(8))
        };
        assert!(register(&mut mirror).nodes && mirror.ring().has(&me));
        assert!(
            !register(&mut mirror).nodes,
            "the watch may have told first"
        );
        assert!(mirror.nodes().runs_this_program(&me) && !mirror.has_heard_of(&me));
        mirror.take_changes(&[node("gw2", 9)]);
        assert!(mirror.has_heard_of(&me));
    }

    #[test]
    fn nothing_is_known_after_a_rewind() {
        let mut mirror = mirror();
        mirror
            .take_snapshot(Revision(5), &[node("gw1", 4)])
            .expect("news");
        mirror.committed(vni(3), Write::Own, &name("gw1"), LEASE, Revision(6));
        assert_eq!(mirror.take_changed(), [vni(3)]);
        mirror.rewind();
        assert_eq!(mirror.take_changed(), [vni(3)]);
        assert!(!mirror.is_complete() && !mirror.ring().has(&name("gw1")));
        assert_eq!(owner_of(&mirror, 3), None);
        let news = mirror.take_snapshot(Revision(2), &owner(3, "gw2", 1));
        assert!(news.is_some() && owner_of(&mirror, 3) == Some(name("gw2")));
    }
}
