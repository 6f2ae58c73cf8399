//! Compares ARP on the host with what it was told to be: sysctl managers, network managers and operators switch it
//! too, and the kernel sends no message about it. Nothing else in the daemon reads or writes ARP without a cause.
//!
//! Each second a part of the bridges is read, one after the other in turn, so that each is read within 30 s. A
//! program that resets one usually resets all, which shows within a second. A list of
//! all links takes the kernel 10 us a link. The audit asks for one as seldom as keeps that below a thousandth of a
//! core, and at once when something differed or a bridge was gone. The core hears of what the kernel refuses.

use crate::commands::check::look::arp_ignore_of_all;
use crate::daemon::fence::{Fence, PutBack};
use crate::host::bridges::Change;
use crate::host::links::Bridges;
use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use crate::telemetry::complaints::Complaints;
use crate::telemetry::log_text::{Complaint, chain, spans};
use log::{debug, info, warn};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a few bridges are read.
const EVERY: Duration = Duration::from_secs(1);
/// How many bridges are read then at least, and within how many turns all of them are: about 15 us each.
const FEW: usize = 20;
const TURNS: usize = 30;
/// How many times as long as a look at all links takes, the next is put off.
const REST: u32 = 2000;

/// When to look, and at what.
pub struct Audit {
    next: Time,
    /// The list of all links is due.
    list: Time,
    /// The VNI that was read last.
    last: Option<Vni>,
    all: Complaint,
    refusals: Complaints,
    /// The VNIs that the kernel refused when they were read last.
    refused: BTreeSet<Vni>,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit {
            next: Time::default(),
            list: clock::now() + EVERY,
            last: None,
            all: Complaint::default(),
            refusals: Complaints::new("kernel"),
            refused: BTreeSet::new(),
        }
    }
}

impl Audit {
    /// Looks at what is due. Returns the changes that the kernel sent no message of, and the bridges that it has begun
    /// to refuse to switch: the core tries these again, and gives the VNI up if that goes on.
    pub fn look(&mut self, bridges: &Bridges, range: VniRange, fence: &Fence) -> Vec<Change> {
        let now = clock::now();
        if now < self.next {
            return Vec::new();
        }
        self.next = now + EVERY;
        self.look_at_all_interfaces();
        let few = fence.some_after(self.last, FEW.max(fence.switched().div_ceil(TURNS)));
        self.last = few.last().copied();
        let mut changes = Vec::new();
        let is_different = self.put_back(fence, &few, &mut changes);
        if now < self.list && !is_different {
            return changes;
        }
        match bridges.reload() {
            Ok(more) => changes.extend(more),
            Err(error) => {
                debug!("kernel: cannot look at the interfaces: {error}");
                return changes;
            }
        }
        let differing = differing(bridges, range, fence);
        self.put_back(fence, &differing, &mut changes);
        self.list = clock::now() + EVERY.max(clock::now().since(now) * REST);
        changes
    }

    /// `conf/all/arp_ignore` has a say for each interface.
    fn look_at_all_interfaces(&mut self) {
        match arp_ignore_of_all() {
            Some(finding) if self.all.raise(&finding.text) => {
                let remedy = finding.remedy.unwrap_or_default();
                warn!("{}: {}; remedy: {remedy}", finding.about, finding.text);
            }
            Some(_) => {}
            None if self.all.settle() => info!("kernel: all.arp_ignore is as it should be again"),
            None => {}
        }
    }

    /// Puts back, and logs what was different. Returns whether anything was, or was gone.
    fn put_back(&mut self, fence: &Fence, vnis: &[Vni], changes: &mut Vec<Change>) -> bool {
        let PutBack {
            differed,
            absent,
            refused,
        } = fence.put_back(vnis);
        for vni in vnis {
            let is_refused = refused.iter().any(|(refused, _)| refused == vni);
            match is_refused {
                true if self.refused.insert(*vni) => changes.push(Change::Bridge(*vni)),
                true => {}
                false => drop(self.refused.remove(vni)),
            }
        }
        log_put_back(&differed);
        let reasons = refused.into_iter().map(|(vni, error)| (vni, chain(&error)));
        self.refusals.hear(vnis.iter().copied(), reasons.collect());
        !differed.is_empty() || !absent.is_empty()
    }
}

/// The VNIs of which the list of links shows another `arp_ignore` than was told. It may have been told since the
/// list was made.
fn differing(bridges: &Bridges, range: VniRange, fence: &Fence) -> Vec<Vni> {
    let shown = bridges.arp_ignore(range).unwrap_or_default();
    let answering = fence.answering();
    let mut vnis: Vec<Vni> = shown
        .into_iter()
        .filter(|(vni, arp_ignore)| (*arp_ignore == 0) != answering.contains(vni))
        .map(|(vni, _)| vni)
        .collect();
    vnis.sort_unstable();
    vnis.dedup();
    vnis
}

/// Logs which VNIs did not do as they were told, and do now.
pub fn log_put_back(differed: &[(Vni, bool)]) {
    let which = |answer| -> Vec<Vni> {
        let those = differed.iter().filter(|(_, it)| *it == answer);
        those.map(|&(vni, _)| vni).collect()
    };
    let (silent, answering) = (which(true), which(false));
    if !answering.is_empty() {
        warn!(
            "kernel: vnis={} answered ARP, though this gateway does not serve them: put back; something on this host \
             writes arp_ignore",
            spans(&answering)
        );
    }
    if !silent.is_empty() {
        warn!(
            "kernel: vnis={} did not answer ARP, though this gateway serves them: put back; something on this host \
             writes arp_ignore",
            spans(&silent)
        );
    }
}
