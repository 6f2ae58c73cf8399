//! Compares `arp_ignore` of the bridges with what the fence has set. sysctl managers, network managers and operators
//! change it too, and the kernel sends no message about it. No other part of the daemon reads or writes it without a
//! cause.
//!
//! Each second the audit reads some of the bridges in turn, so that it reads each one within 30 s. A program that
//! resets one bridge usually resets all, and the audit notices that within a second. A list of all links takes the
//! kernel 10 us for each link. The audit asks for it so seldom that it takes less than a thousandth of one CPU, and at
//! once when a bridge differed or was gone. If the kernel refuses a switch, the audit reports the bridge to the gateway
//! code.

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

/// How long one turn takes. In each turn the audit reads some bridges.
const EVERY: Duration = Duration::from_secs(1);
/// In a turn the audit reads at least so many bridges. Reading one takes about 15 us.
const FEW: usize = 20;
/// The audit reads all bridges within so many turns.
const TURNS: usize = 30;
/// After it has read the list of all links, the audit waits so many times as long as the CPU time that this took. (On a
/// busy machine the thread waits for a CPU: that is no reason to look less often.)
const REST: u32 = 2000;

/// When to look, and at what.
pub struct Audit {
    /// When the next turn begins.
    next: Time,
    /// When the list of all links is due.
    list: Time,
    /// The VNI that was read last.
    last: Option<Vni>,
    /// What is logged of `conf/all/arp_ignore`.
    all: Complaint,
    refusals: Complaints,
    /// The VNIs whose switch the kernel refused at the last look.
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
    /// Does what is due. Returns the bridges that changed without a message of the kernel, and those that the kernel
    /// has begun to refuse to switch. The core then switches them again, and gives the VNI up if the kernel keeps
    /// refusing.
    pub fn look(&mut self, bridges: &Bridges, range: VniRange, fence: &Fence) -> Vec<Change> {
        let now = clock::now();
        if now < self.next {
            return Vec::new();
        }
        let cpu_time = clock::thread_cpu_time();
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
        let taken = clock::thread_cpu_time().saturating_sub(cpu_time);
        self.list = clock::now() + EVERY.max(taken * REST);
        changes
    }

    /// Checks `conf/all/arp_ignore`: for each interface the kernel uses the greater one of this and its own value.
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

    /// Sets the switches of `vnis` again where they differ, and logs them. Returns whether a switch differed or a
    /// bridge was gone.
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

/// The VNIs whose `arp_ignore` in the list of links differs from what the fence has set. The fence may have set it
/// after the list was made, so the caller reads each of them again.
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

/// Logs the VNIs whose ARP switch another program had changed and wmgwd has set again.
pub fn log_put_back(differed: &[(Vni, bool)]) {
    let which = |answer| -> Vec<Vni> {
        let those = differed.iter().filter(|(_, it)| *it == answer);
        those.map(|&(vni, _)| vni).collect()
    };
    let (silent, answering) = (which(true), which(false));
    if !answering.is_empty() {
        warn!(
            "kernel: vnis={} answered ARP, though this gateway does not serve them: wmgwd has silenced them; another \
             program on this host writes arp_ignore",
            spans(&answering)
        );
    }
    if !silent.is_empty() {
        warn!(
            "kernel: vnis={} did not answer ARP, though this gateway serves them: wmgwd has switched ARP on; another \
             program on this host writes arp_ignore",
            spans(&silent)
        );
    }
}
