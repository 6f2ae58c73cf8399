//! The states of all VNIs of the node, what the last pass found of each, and which of them the next pass looks at.

use super::ability::Capability;
use super::routes::RoutesView;
use super::schedule::Schedule;
use super::vni::VniState;
use crate::model::types::{LeaseId, Time, Vni, VniRange};
use std::collections::BTreeSet;

/// What holds for all VNIs and changes seldom. While this and the set of nodes stay the same, only VNIs that have
/// changed or are due need a new decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    pub lease: Option<LeaseId>,
    pub serving: bool,
    pub stopping: bool,
    pub draining: bool,
    pub may_write: bool,
    pub may_take: bool,
    pub stable: bool,
    /// No Go wmgwd is registered.
    pub uniform: bool,
    pub routes: RoutesView,
    /// Nothing is known to keep this node from forwarding, nor was in the last time.
    pub is_fit: bool,
    /// This node cannot forward, and another can: it gives its VNIs back.
    pub gives_way: bool,
}

/// What a look at one VNI found, beside what is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VniStatus {
    /// This node is to show something of it.
    pub shown: bool,
    /// Another node would take it, but its row still names this one.
    pub remaining: bool,
    /// The host still shows something of it.
    pub exposed: bool,
    /// FRR, as far as this node knows, still shows something of it, excused or not.
    pub lingering: bool,
    /// It lost its owner, and this node has to write that it takes it over.
    pub taken: bool,
    /// Whether this node can serve it.
    pub capability: Capability,
    /// It is served, and no announcement of it is due at a time of its own.
    pub refreshed: bool,
    /// There is something to do that may not get its turn in this pass.
    pub pending: bool,
    /// When it wants to be looked at again, if nothing happens before.
    pub wake: Option<Time>,
}

/// Of how many VNIs each was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub remaining: usize,
    pub exposed: usize,
    pub lingering: usize,
    pub taken: usize,
}

impl Totals {
    fn count(&mut self, was: VniStatus, is: VniStatus) {
        let count = |total: &mut usize, was: bool, is: bool| {
            *total = *total + usize::from(is) - usize::from(was);
        };
        count(&mut self.remaining, was.remaining, is.remaining);
        count(&mut self.exposed, was.exposed, is.exposed);
        count(&mut self.lingering, was.lingering, is.lingering);
        count(&mut self.taken, was.taken, is.taken);
    }
}

/// One state for each VNI of the range, in order. A state is changed only through here, so that the next pass looks
/// at it.
#[derive(Clone, Debug)]
pub struct VniTable {
    range: VniRange,
    states: Vec<VniState>,
    statuses: Vec<VniStatus>,
    totals: Totals,
    schedule: Schedule,
    /// What held for all VNIs in the last pass.
    node: Option<NodeView>,
    /// This node can serve other VNIs than it could when this was asked last.
    abilities_changed: bool,
    /// How many VNIs the last pass looked at.
    visited: usize,
}

impl VniTable {
    /// Nothing is known of any of `range`.
    pub fn new(range: VniRange) -> VniTable {
        VniTable {
            range,
            states: vec![VniState::default(); range.len()],
            statuses: vec![VniStatus::default(); range.len()],
            totals: Totals::default(),
            schedule: Schedule::default(),
            node: None,
            abilities_changed: false,
            visited: 0,
        }
    }

    fn at(&self, vni: Vni) -> Option<u32> {
        self.range
            .contains(vni)
            .then(|| vni.get() - self.range.first().get())
    }

    /// The state of a VNI, if it is in the range.
    pub fn get(&self, vni: Vni) -> Option<&VniState> {
        self.states.get(self.at(vni)? as usize)
    }

    /// The same, to change it: the next pass looks at it.
    pub fn mark_dirty(&mut self, vni: Vni) -> Option<&mut VniState> {
        let at = self.at(vni)?;
        self.schedule.mark_dirty(at);
        self.states.get_mut(at as usize)
    }

    /// All of them, to change them: the next pass looks at all.
    pub fn mark_all_dirty(&mut self) -> impl Iterator<Item = (Vni, &mut VniState)> {
        self.look_at_all();
        self.range.iter().zip(&mut self.states)
    }

    /// Something has changed that concerns all of them.
    pub fn look_at_all(&mut self) {
        self.schedule.mark_all_dirty();
    }

    /// What the last pass found of each, from index `from` on and round.
    pub fn statuses_from(&self, from: usize) -> impl Iterator<Item = (Vni, VniStatus)> {
        let first = self.range.first().get();
        let indices = (from..self.statuses.len()).chain(0..from);
        indices.filter_map(move |at| Some((Vni::new(first + at as u32)?, self.statuses[at])))
    }

    pub fn iter(&self) -> impl Iterator<Item = &VniState> {
        self.states.iter()
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Looks at every VNI that needs it, in order. While `node`, which holds for all VNIs, stays as it was in the last
    /// pass, only VNIs that have changed or are due need a look.
    pub fn visit(
        &mut self,
        now: Time,
        node: &NodeView,
        mut look: impl FnMut(Vni, &mut VniState) -> VniStatus,
    ) {
        if self.node.as_ref() != Some(node) {
            self.node = Some(node.clone());
            self.look_at_all();
        }
        let due = self.schedule.take_due(now, self.states.len() as u32);
        self.visited = due.len();
        let first = self.range.first().get();
        for at in due {
            let Some(vni) = Vni::new(first + at) else {
                continue;
            };
            let is = look(vni, &mut self.states[at as usize]);
            let was = std::mem::replace(&mut self.statuses[at as usize], is);
            self.totals.count(was, is);
            self.abilities_changed |= was.capability != is.capability;
            self.schedule.wake_at(at, was.wake, is.wake);
            if is.pending {
                self.schedule.mark_dirty(at);
            }
        }
    }

    /// How many VNIs the last pass looked at.
    #[cfg(test)]
    pub fn visited(&self) -> usize {
        self.visited
    }

    /// What the passes found of each VNI's capability, if that has changed since this was asked last.
    pub fn take_capabilities(&mut self) -> Option<impl Iterator<Item = (Vni, Capability)> + '_> {
        let found = self.range.iter().zip(&self.statuses);
        std::mem::take(&mut self.abilities_changed)
            .then(|| found.map(|(vni, found)| (vni, found.capability)))
    }

    /// When the first of them wants to be looked at again.
    pub fn first_wake(&self) -> Option<Time> {
        self.schedule.first_wake()
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The VNIs of which this node is to show something.
    pub fn shown(&self) -> BTreeSet<Vni> {
        let shown = self.range.iter().zip(&self.statuses);
        shown
            .filter(|(_, found)| found.shown)
            .map(|(vni, _)| vni)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::Routes;
    use super::*;
    use std::time::Duration;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));
    const SECOND: Duration = Duration::from_secs(1);

    fn vni(number: u32) -> Vni {
        Vni::new(number).expect("a VNI")
    }

    fn table() -> VniTable {
        VniTable::new(VniRange::new(vni(11), vni(14)).expect("a range"))
    }

    fn node(serving: bool) -> NodeView {
        NodeView {
            lease: None,
            serving,
            stopping: false,
            draining: false,
            may_write: false,
            may_take: false,
            stable: false,
            uniform: false,
            routes: Routes::new(4).view(NOW, [SECOND; 2]),
            is_fit: true,
            gives_way: false,
        }
    }

    /// The VNIs that a pass looks at, each of which gets `status`.
    fn visit(table: &mut VniTable, now: Time, serving: bool, status: VniStatus) -> Vec<u32> {
        let mut seen = Vec::new();
        table.visit(now, &node(serving), |vni, _| {
            seen.push(vni.get());
            status
        });
        assert_eq!(table.visited(), seen.len());
        seen
    }

    #[test]
    fn a_pass_looks_at_what_changed_what_is_due_and_what_is_pending() {
        let (mut table, at_rest) = (table(), VniStatus::default());
        assert_eq!(visit(&mut table, NOW, true, at_rest), [11, 12, 13, 14]);
        assert!(visit(&mut table, NOW, true, at_rest).is_empty());
        assert!(table.mark_dirty(vni(15)).is_none());
        table.mark_dirty(vni(13)).expect("in the range");
        let due = VniStatus {
            wake: Some(NOW + SECOND),
            pending: true,
            ..at_rest
        };
        assert_eq!(visit(&mut table, NOW, true, due), [13]);
        assert_eq!(table.first_wake(), due.wake);
        let later = VniStatus {
            pending: false,
            ..due
        };
        assert_eq!(visit(&mut table, NOW, true, later), [13], "pending");
        assert!(visit(&mut table, NOW, true, later).is_empty());
        assert_eq!(visit(&mut table, NOW + SECOND, true, at_rest), [13], "due");
        assert_eq!(
            visit(&mut table, NOW, false, at_rest).len(),
            4,
            "another view"
        );
        assert_eq!(table.mark_all_dirty().count(), 4);
        assert_eq!(visit(&mut table, NOW, false, at_rest).len(), 4);
    }

    #[test]
    fn totals_follow_what_is_found() {
        let mut table = table();
        let shown = VniStatus {
            shown: true,
            exposed: true,
            ..VniStatus::default()
        };
        visit(&mut table, NOW, true, shown);
        assert_eq!((table.totals().exposed, table.shown().len()), (4, 4));
        table.mark_dirty(vni(12)).expect("in the range");
        visit(&mut table, NOW, true, VniStatus::default());
        assert_eq!((table.totals().exposed, table.totals().taken), (3, 0));
        assert!(!table.shown().contains(&vni(12)));
        let found: Vec<u32> = table.statuses_from(2).map(|(vni, _)| vni.get()).collect();
        assert_eq!(found, [13, 14, 11, 12]);
    }

    #[test]
    fn capabilities_are_told_when_they_change() {
        let (mut table, able) = (table(), VniStatus::default());
        visit(&mut table, NOW, true, able);
        assert!(table.take_capabilities().is_none(), "able from the start");
        table.mark_dirty(vni(12)).expect("in the range");
        let failing = VniStatus {
            capability: Capability::Failing,
            ..able
        };
        visit(&mut table, NOW, true, failing);
        let found = table.take_capabilities().expect("a change");
        let failing: Vec<_> = found.filter(|it| it.1 == Capability::Failing).collect();
        assert_eq!(failing, [(vni(12), Capability::Failing)]);
        assert!(table.take_capabilities().is_none());
    }
}
