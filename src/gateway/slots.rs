//! All VNIs of the node, and which of them a pass has to look at: what something happened to, what is due, and
//! what still waits for its turn. All others would only say once more what they said last.

use super::ability::Capability;
use super::slot::Slot;
use crate::model::types::{Time, Vni, VniRange};
use std::collections::BTreeSet;

/// What a look at one VNI came to, beside what is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VniStatus {
    /// This node is to show something of it.
    pub shown: bool,
    /// Another node would take it, but it still names us.
    pub remaining: bool,
    /// The host still shows something of it.
    pub exposed: bool,
    /// FRR, as far as we know, still shows something of it, excused or not.
    pub lingering: bool,
    /// It lost its owner, and this node has to write that it takes it over.
    pub taken: bool,
    /// What ARP is and shall be; nothing while it is not what it shall be.
    pub arp: Option<bool>,
    /// Whether this node can serve it.
    pub capability: Capability,
    /// It is served, and no announcement of it is due at a time of its own.
    pub refreshed: bool,
    /// There is something to do that may not get its turn in this pass.
    pub pending: bool,
    /// When it wants to be looked at again, if nothing happens before.
    pub wake: Option<Time>,
}

/// How many VNIs each finding is true of.
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

/// One slot for each VNI of the range, in order. Whatever changes a slot goes through here, so that the next
/// pass looks at it.
#[derive(Clone, Debug)]
pub struct Slots {
    range: VniRange,
    slots: Vec<Slot>,
    findings: Vec<VniStatus>,
    totals: Totals,
    /// Indices of those that something happened to, some more than once.
    stirred: Vec<u32>,
    all_stirred: bool,
    /// This node can serve other VNIs than it could when this was asked last.
    abilities_changed: bool,
    wakes: BTreeSet<(Time, u32)>,
}

impl Slots {
    /// Nothing is known of any of `range`.
    pub fn new(range: VniRange) -> Slots {
        Slots {
            range,
            slots: vec![Slot::new(); range.len()],
            findings: vec![VniStatus::default(); range.len()],
            totals: Totals::default(),
            stirred: Vec::new(),
            all_stirred: true,
            abilities_changed: false,
            wakes: BTreeSet::new(),
        }
    }

    fn at(&self, vni: Vni) -> Option<usize> {
        self.range
            .contains(vni)
            .then(|| (vni.get() - self.range.first().get()) as usize)
    }

    /// The slot of a VNI, if it is in the range.
    pub fn get(&self, vni: Vni) -> Option<&Slot> {
        self.slots.get(self.at(vni)?)
    }

    /// The same, for somebody who changes it.
    pub fn stir(&mut self, vni: Vni) -> Option<&mut Slot> {
        let at = self.at(vni)?;
        self.stirred.push(at as u32);
        self.slots.get_mut(at)
    }

    /// All of them, for somebody who changes them.
    pub fn stir_all(&mut self) -> impl Iterator<Item = (Vni, &mut Slot)> {
        self.look_at_all();
        self.range.iter().zip(&mut self.slots)
    }

    /// Something has changed that concerns all of them.
    pub fn look_at_all(&mut self) {
        self.all_stirred = true;
    }

    /// What the last pass found of each, from index `from` on and round.
    pub fn findings_from(&self, from: usize) -> impl Iterator<Item = (Vni, VniStatus)> {
        let first = self.range.first().get();
        let indices = (from..self.findings.len()).chain(0..from);
        indices.filter_map(move |at| Some((Vni::new(first + at as u32)?, self.findings[at])))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Looks at every slot that needs it, in the order of VNIs; how many those were.
    pub fn visit(&mut self, now: Time, mut look: impl FnMut(Vni, &mut Slot) -> VniStatus) -> usize {
        while let Some(&(due, at)) = self.wakes.first().filter(|(due, _)| *due <= now) {
            self.wakes.remove(&(due, at));
            self.findings[at as usize].wake = None;
            self.stirred.push(at);
        }
        let mut indices = std::mem::take(&mut self.stirred);
        if std::mem::take(&mut self.all_stirred) {
            indices.clear();
            indices.extend(0..self.slots.len() as u32);
        } else {
            indices.sort_unstable();
            indices.dedup();
        }
        let first = self.range.first().get();
        for &at in &indices {
            let Some(vni) = Vni::new(first + at) else {
                continue;
            };
            let found = look(vni, &mut self.slots[at as usize]);
            let was = std::mem::replace(&mut self.findings[at as usize], found);
            self.totals.count(was, found);
            self.abilities_changed |= was.capability != found.capability;
            if was.wake != found.wake {
                if let Some(wake) = was.wake {
                    self.wakes.remove(&(wake, at));
                }
                self.wakes.extend(found.wake.map(|wake| (wake, at)));
            }
            if found.pending {
                self.stirred.push(at);
            }
        }
        indices.len()
    }

    /// What the passes found of each VNI's capability, if that has changed since this was asked last.
    pub fn take_capabilities(&mut self) -> Option<impl Iterator<Item = (Vni, Capability)> + '_> {
        let found = self.range.iter().zip(&self.findings);
        std::mem::take(&mut self.abilities_changed)
            .then(|| found.map(|(vni, found)| (vni, found.capability)))
    }

    /// When the first of them wants to be looked at again.
    pub fn first_wake(&self) -> Option<Time> {
        self.wakes.first().map(|&(wake, _)| wake)
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The VNIs of which this node is to show something.
    pub fn shown(&self) -> BTreeSet<Vni> {
        let shown = self.range.iter().zip(&self.findings);
        shown
            .filter(|(_, found)| found.shown)
            .map(|(vni, _)| vni)
            .collect()
    }
}
