//! The lease as all threads see it, and the ARP switch that obeys it.
//!
//! Everything that claims a VNI (ARP on, gratuitous ARP, routes, rows) asks [`Fence::permits`] right before
//! it acts. ARP itself goes through [`Fence::switch`], which checks and acts under one lock, so that once
//! [`Fence::silence`] has run nothing is switched on behind it.
//!
//! Owns the ARP half of the host and the line to the guard process.

use crate::clock;
use crate::gateway::ArpOutcome;
use crate::guard::Guard;
use crate::host::{Error, Kernel};
use crate::types::{Lease, Time, Vni};
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The lease, and what is on show because of it.
pub struct Fence {
    margin: Duration,
    state: Mutex<State>,
    /// Woken when the lease changes.
    changed: Condvar,
}

struct State {
    lease: Option<Lease>,
    kernel: Box<dyn Kernel>,
    answering: BTreeSet<Vni>,
    guard: Box<dyn Guard>,
}

impl Fence {
    /// A fence that comes down `margin` before the lease can end.
    pub fn new(margin: Duration, kernel: Box<dyn Kernel>, guard: Box<dyn Guard>) -> Fence {
        let state = State {
            lease: None,
            kernel,
            answering: BTreeSet::new(),
            guard,
        };
        Fence {
            margin,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("a thread that panics takes the process with it")
    }

    /// Sets the lease that proves what this node may claim. Called by the watchdog alone.
    pub fn set_lease(&self, lease: Option<Lease>) {
        let mut state = self.state();
        state.lease = lease;
        if let Some(lease) = lease {
            // The guard hears of it before anything is claimed under it.
            state.guard.lease(lease);
        }
        self.changed.notify_all();
    }

    /// The lease, whether or not it still holds.
    pub fn lease(&self) -> Option<Lease> {
        self.state().lease
    }

    /// Whether a claim is allowed at this very moment.
    pub fn permits(&self) -> bool {
        self.state().permits(clock::now(), self.margin)
    }

    /// Switches ARP, each VNI under its own check of the lease; returns the outcomes, and what went wrong.
    pub fn switch(&self, switches: &[(Vni, bool)]) -> Vec<(Vni, ArpOutcome, Option<Error>)> {
        let mut state = self.state();
        let on: Vec<Vni> = switches
            .iter()
            .filter(|(_, answer)| *answer)
            .map(|&(vni, _)| vni)
            .collect();
        if !on.is_empty() {
            // Before the first of them answers: a guard that knows too much silences what is silent.
            state.guard.serves(&on);
        }
        let outcomes = switches
            .iter()
            .map(|&(vni, answer)| state.switch_one(vni, answer, self.margin))
            .collect();
        let off: Vec<Vni> = switches
            .iter()
            .filter(|(_, answer)| !*answer)
            .map(|&(vni, _)| vni)
            .collect();
        if !off.is_empty() {
            state.guard.released(&off);
        }
        outcomes
    }

    /// Switches ARP off for every VNI that answers, without asking anybody.
    pub fn silence(&self) -> usize {
        self.state().silence()
    }

    /// The VNIs that answer now.
    pub fn answering(&self) -> BTreeSet<Vni> {
        self.state().answering.clone()
    }

    /// Checks that the guard is there, and starts another if it is not.
    pub fn mind_guard(&self) -> Result<(), crate::guard::Error> {
        let mut state = self.state();
        let State {
            lease,
            answering,
            guard,
            ..
        } = &mut *state;
        guard.mind(*lease, answering)
    }

    /// Everything is withdrawn: the guard is not needed any more.
    pub fn dismiss_guard(&self) {
        self.state().guard.dismiss();
    }

    /// Waits until the lease may end, then silences; for a thread of its own, so that neither a stuck worker
    /// nor a slow etcd can delay it. Returns how many VNIs it silenced, 0 whenever the lease was renewed.
    pub fn stand(&self) -> usize {
        /// The wait follows CLOCK_MONOTONIC, which stands still while the machine sleeps: look up this often.
        const GLANCE: Duration = Duration::from_millis(250);
        /// How soon a switch that the kernel refused is tried again.
        const AGAIN: Duration = Duration::from_millis(20);
        let mut state = self.state();
        let now = clock::now();
        let mut silenced = 0;
        let wait = match state.lease {
            Some(lease) if state.permits(now, self.margin) => {
                (lease.valid_until - self.margin).since(now)
            }
            _ => {
                silenced = state.silence();
                if state.answering.is_empty() {
                    GLANCE
                } else {
                    AGAIN
                }
            }
        };
        if silenced == 0 || !state.answering.is_empty() {
            let waited = self.changed.wait_timeout(state, wait.min(GLANCE));
            drop(waited.expect("a thread that panics takes the process with it"));
        }
        silenced
    }
}

impl State {
    fn permits(&self, now: Time, margin: Duration) -> bool {
        self.lease
            .is_some_and(|lease| now < lease.valid_until - margin)
    }

    fn switch_one(
        &mut self,
        vni: Vni,
        answer: bool,
        margin: Duration,
    ) -> (Vni, ArpOutcome, Option<Error>) {
        if answer && !self.permits(clock::now(), margin) {
            return (vni, ArpOutcome::Failed, Some(Error::NotPermitted));
        }
        match self.kernel.set_arp(vni, answer) {
            Ok(()) => {
                if answer {
                    self.answering.insert(vni);
                } else {
                    self.answering.remove(&vni);
                }
                (vni, ArpOutcome::Answers(answer), None)
            }
            Err(error @ Error::NoInterface { .. }) => {
                self.answering.remove(&vni);
                (vni, ArpOutcome::Absent, Some(error))
            }
            Err(error) => (vni, ArpOutcome::Failed, Some(error)),
        }
    }

    fn silence(&mut self) -> usize {
        let vnis: Vec<Vni> = self.answering.iter().copied().collect();
        for &vni in &vnis {
            // What cannot be written now is tried again by the next call: it stays in the set.
            match self.kernel.set_arp(vni, false) {
                Ok(()) | Err(Error::NoInterface { .. }) => {
                    self.answering.remove(&vni);
                }
                Err(_) => {}
            }
        }
        vnis.len()
    }
}
