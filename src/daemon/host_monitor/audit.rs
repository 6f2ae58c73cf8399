//! Compares ARP on the host with what it was told to be: sysctl managers, network managers and people switch it
//! too, and the kernel sends no message about it.
//!
//! Each second a few bridges are read, one after the other in turn: what resets one usually resets all. A list of
//! all links takes the kernel 10 us a link, so it is asked for as seldom as keeps all of this below a thousandth
//! of a core, and at once when something differed.

use crate::commands::check::look::arp_ignore_of_all;
use crate::daemon::fence::{Fence, PutBack};
use crate::host::bridges::Change;
use crate::host::links::Bridges;
use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use crate::telemetry::complaints::Complaints;
use crate::telemetry::log_text::{Complaint, chain, spans};
use log::{debug, info, warn};
use std::time::Duration;

/// How often a few bridges are read.
const EVERY: Duration = Duration::from_secs(1);
/// How many bridges are read then: about 15 us each.
const FEW: usize = 20;
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
}

impl Default for Audit {
    fn default() -> Audit {
        Audit {
            next: Time::default(),
            list: clock::now() + EVERY,
            last: None,
            all: Complaint::default(),
            refusals: Complaints::new("kernel"),
        }
    }
}

impl Audit {
    /// Looks at what is due. Returns what has changed since the kernel told, which should be nothing.
    pub fn look(&mut self, bridges: &Bridges, range: VniRange, fence: &Fence) -> Vec<Change> {
        let now = clock::now();
        if now < self.next {
            return Vec::new();
        }
        self.next = now + EVERY;
        self.look_at_all_interfaces();
        let few = fence.some_after(self.last, FEW);
        self.last = few.last().copied();
        let is_different = self.put_back(fence, &few);
        if now < self.list && !is_different {
            return Vec::new();
        }
        let changes = match bridges.reload() {
            Ok(changes) => changes,
            Err(error) => {
                debug!("kernel: cannot look at the interfaces: {error}");
                return Vec::new();
            }
        };
        let differing = differing(bridges, range, fence);
        self.put_back(fence, &differing);
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

    /// Puts back, and says what was different; whether anything was.
    fn put_back(&mut self, fence: &Fence, vnis: &[Vni]) -> bool {
        let PutBack { differed, refused } = fence.put_back(vnis);
        let which = |answer| -> Vec<Vni> {
            let those = differed.iter().filter(|(_, it)| *it == answer);
            those.map(|&(vni, _)| vni).collect()
        };
        for (vnis, what) in [
            (
                which(false),
                "answered ARP, though this gateway does not serve them",
            ),
            (
                which(true),
                "did not answer ARP, though this gateway serves them",
            ),
        ] {
            if !vnis.is_empty() {
                warn!(
                    "kernel: vnis={} {what}: put back; something on this host writes arp_ignore",
                    spans(&vnis)
                );
            }
        }
        let reasons = refused.into_iter().map(|(vni, error)| (vni, chain(&error)));
        self.refusals.hear(vnis.iter().copied(), reasons.collect());
        !differed.is_empty()
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
