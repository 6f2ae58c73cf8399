//! The lease as all threads see it, and the ARP switch that obeys it.
//!
//! Each thread that claims a VNI (gratuitous ARP, routes, rows) asks [`Fence::permits`] right before it acts. Only the
//! fence switches ARP on ([`Fence::switch`], [`Fence::put_back`], and [`Fence::keep_watch`] when lost proof is back). It
//! checks the proof and switches under one lock. So once [`Fence::silence`] has run at the end of a lease, ARP stays
//! off until the node has proof again.
//!
//! The fence owns the ARP switches of the host, the kernel lease ([`Gate`]) and the connection to the guard process.
//! Under its lock it only writes to the kernel and to the guard's socket. It does not log, start a process, or do
//! anything else that may block.

use super::gate::{Gate, Made, TableStatus};
use super::proof::Proof;
use crate::gateway::ArpOutcome;
use crate::guard::protocol::Gated;
use crate::guard::supervisor::Line;
use crate::guard::{self, Guard, Guards, Standing};
use crate::host::address::Ipv6;
use crate::host::{ArpAudit, Error, Kernel, nft};
use crate::model::types::{Lease, LeaseId, Time, Vni, VniRange};
use crate::schema::{Ipv6Hold, KernelHold};
use crate::sys::clock::{self, Alarm};
use crate::telemetry::metrics::{Metrics, Repair};
use crate::witness::message::{self, Known, Order};
use fnv::FnvHashMap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::Duration;

/// How soon a switch that the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// The lease, and what is on show because of it.
pub struct Fence {
    margin: Duration,
    state: Mutex<State>,
    /// Locked after `state`, and never for long.
    proof: Arc<Mutex<Proof>>,
    /// Wakes the thread `fence` when it has to silence ARP. It is set under the lock of `proof`. When the proof is
    /// prolonged, the alarm moves to a later time without waking the thread.
    alarm: Alarm,
    /// The witnesses' part of the proof is lost, and the VNIs that answered are silent until it is back.
    suspended: AtomicBool,
    /// The kernel refused to silence one of them.
    refused: AtomicBool,
    /// How many VNIs that answer have to be silenced one by one, because not all of them are in the kernel lease.
    one_by_one: AtomicUsize,
    /// How many guards there have been.
    guard_count: AtomicU64,
    /// Where the next guard comes from; locked before `state`, and for long.
    guards: Mutex<Box<dyn Guards>>,
    metrics: Arc<Metrics>,
}

struct State {
    proof: Arc<Mutex<Proof>>,
    kernel: Box<dyn Kernel>,
    /// The VNIs that this daemon has switched on.
    answering: BTreeSet<Vni>,
    /// The VNIs whose bridge this run has switched on or off. How an earlier run left the others is not known.
    switched: BTreeSet<Vni>,
    guard: Box<dyn Guard>,
    /// The VNIs that the guard will silence when the lease ends, with the interface index of each.
    guarded: FnvHashMap<Vni, u32>,
    /// The kernel lease: it silences the VNIs in it by itself when the lease ends.
    gate: Gate,
    /// What the guard was last sent about the table.
    gate_told: Option<Gated>,
    /// The daemon has withdrawn everything: a lost guard is not replaced any more.
    dismissed: bool,
    /// The VNIs in `answering` that are silent because the witnesses' part of the proof is lost.
    suspended: BTreeSet<Vni>,
    /// At the last look there was proof.
    proved: bool,
    /// The loss of the proof is counted. The guard withdraws at about the same time; its report of that loss is still
    /// to come, and must not be counted again.
    guard_follows: bool,
}

/// What came of silencing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Silenced {
    /// How many VNIs answered and do not any more.
    pub silenced: usize,
    /// How many still answer, as the kernel refused, and why.
    pub refused: Option<(usize, String)>,
}

/// What came of putting back.
#[derive(Debug, Default)]
pub struct PutBack {
    /// The VNIs that did not do as they were told, and whether they have to answer.
    pub differed: Vec<(Vni, bool)>,
    /// The VNIs whose bridge is gone.
    pub absent: Vec<Vni>,
    /// What the kernel refused.
    pub refused: Vec<(Vni, Error)>,
}

/// What a look after the guard brought to light.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardCheck {
    /// It is there.
    Well,
    /// It has fenced: ARP may be off although [`Fence::switch`] switched it on.
    Fenced,
    /// It was gone, and there is another; why.
    Replaced(String),
}

impl Fence {
    /// A fence that silences ARP `margin` before the lease can end.
    ///
    /// # Errors
    /// The kernel has no timer for it.
    pub fn new(
        margin: Duration,
        kernel: Box<dyn Kernel>,
        guard: Box<dyn Guard>,
        guards: Box<dyn Guards>,
    ) -> io::Result<Fence> {
        let proof: Arc<Mutex<Proof>> = Arc::default();
        let state = State {
            proof: proof.clone(),
            kernel,
            answering: BTreeSet::new(),
            guard,
            guarded: FnvHashMap::default(),
            switched: BTreeSet::new(),
            gate: Gate::none(),
            gate_told: None,
            dismissed: false,
            suspended: BTreeSet::new(),
            proved: false,
            guard_follows: false,
        };
        Ok(Fence {
            margin,
            state: Mutex::new(state),
            proof,
            alarm: Alarm::new()?,
            suspended: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            one_by_one: AtomicUsize::new(0),
            guard_count: AtomicU64::new(0),
            guards: Mutex::new(guards),
            metrics: Arc::default(),
        })
    }

    /// The fence, counting in `metrics`.
    pub fn counting(self, metrics: Arc<Metrics>) -> Fence {
        Fence { metrics, ..self }
    }

    /// The fence, with the kernel's hold on the lease. The table is made if it can be; what became of it.
    ///
    /// Bridges of `range` may answer, as a run before has left them. With a lease, which is that run's, they go on;
    /// without one they are silenced at once, and are in the table until they are: the kernel's hold on that lease may
    /// be all that keeps them from answering.
    pub fn gated_by(self, gate: Gate, range: VniRange) -> (Fence, TableStatus) {
        {
            let mut state = self.state();
            state.gate = gate;
            // What the kernel does not tell is in the table, or else is silenced by the worker.
            match state.kernel.answering(range) {
                Ok(left) => state.answering.extend(left),
                Err(_) => state.gate.note_unknown(),
            }
        }
        let tended = self.tend_gate(true);
        let mut state = self.state();
        // Also while the witnesses have not said that they prove it: the guard silences what they do not.
        let holds = self.proof().lease_holds(clock::now(), self.margin);
        if holds {
            state.tell_answering();
        } else {
            state.silence();
        }
        drop(state);
        (self, tended)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("a thread that panics takes the process with it")
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        lock(&self.proof)
    }

    /// Sets the lease that proves what this node may claim. Called by the lease keeper alone, the thread `watchdog`,
    /// and before there is one with the lease of a run before.
    pub fn set_lease(&self, lease: Option<Lease>) {
        let mut state = self.state();
        let is_same = self.lease().map(|lease| lease.id) == lease.map(|lease| lease.id);
        if !is_same {
            self.count_fencing(&mut state);
        }
        let now = clock::now();
        self.metrics.lease(now, lease, self.margin);
        let mut proof = self.proof();
        proof.set_lease(lease);
        state.proved |= proof.holds(now, self.margin);
        self.alarm.set(self.next_look(&proof, now));
        if let Some(lease) = lease {
            // The guard hears of it before anything is claimed under it, and before it hears of epochs under it.
            state.guard.lease(lease);
        }
    }

    /// The lease that is about to be set is that of a predecessor, whose guard knows these epochs.
    pub fn take_over(&self, known: &Known) {
        self.proof().take_over(known);
    }

    /// Tells the guard what concerns the proof, unless that is of another lease than the present one.
    pub fn tell(&self, line: Option<&Line>, order: &Order) {
        let mut proof = self.proof();
        let is_current = proof.order(order);
        if let Some(line) = line.filter(|_| is_current) {
            // Under the lock: an epoch must not overtake its lease.
            line.tell(order);
        }
        self.alarm.set(self.next_look(&proof, clock::now()));
    }

    /// Takes the guard's report of the proof. If the witnesses prove the node again, the thread `fence` resumes ARP.
    pub fn prove(&self, report: &message::Proof) {
        let mut proof = self.proof();
        proof.report(report);
        // The thread `fence` resumes ARP, and at once. This thread must not: switching many VNIs takes a while.
        self.alarm.set(self.next_look(&proof, clock::now()));
    }

    /// When the thread `fence` has to look next: at once as long as ARP is suspended although there is proof, or is not
    /// although there is none. The alarm for that may have gone off already. But a thread that waits for an alarm does
    /// not wake up if the alarm is set to a later time before the thread gets a CPU.
    fn next_look(&self, proof: &Proof, now: Time) -> Time {
        let is_suspended = self.suspended.load(Ordering::Acquire);
        let ends = proof.ends(now, self.margin);
        if proof.is_witnessed(now) == is_suspended {
            now
        } else if is_suspended && self.refused.load(Ordering::Acquire) {
            ends.min(now + AGAIN)
        } else {
            ends
        }
    }

    /// The guard has silenced what answers, because the witnesses' part of the proof was lost.
    pub fn was_silenced(&self) {
        let mut state = self.state();
        let State {
            answering,
            suspended,
            ..
        } = &mut *state;
        suspended.clone_from(answering);
        self.suspended.store(true, Ordering::Release);
        let proof = self.proof();
        self.alarm.set(self.next_look(&proof, clock::now()));
    }

    /// How many guards there have been, and a way to hear of the proof from the present one.
    pub fn line(&self) -> (u64, Option<Line>) {
        let state = self.state();
        (self.guard_count(), state.guard.line())
    }

    /// How many guards there have been.
    pub fn guard_count(&self) -> u64 {
        self.guard_count.load(Ordering::Acquire)
    }

    /// Counts that the lease cannot be proved any more, once for each time.
    fn count_fencing(&self, state: &mut State) {
        if !std::mem::take(&mut state.proved) {
            return;
        }
        state.guard_follows = true;
        // The guard fences before the lease ends. If the daemon notices only after that, the guard fenced in its place.
        let is_late = self
            .lease()
            .is_some_and(|lease| clock::now() >= lease.valid_until);
        match is_late {
            true => self.metrics.guard_fenced(),
            false => self.metrics.fenced(),
        }
    }

    /// The lease, whether or not it still holds.
    pub fn lease(&self) -> Option<Lease> {
        self.proof().lease()
    }

    /// Whether a claim that was decided on `under` a lease is allowed at this very moment: a decision does not
    /// outlive its lease, even if there is a new one by now.
    pub fn permits(&self, under: Option<LeaseId>) -> bool {
        let now = clock::now();
        self.proof().holds_under(under, now, self.margin)
    }

    /// Switches ARP, each VNI under its own check as in [`Fence::permits`]; returns the outcomes, and what went wrong.
    pub fn switch(
        &self,
        under: Option<LeaseId>,
        switches: &[(Vni, bool)],
    ) -> Vec<(Vni, ArpOutcome, Option<Error>)> {
        let mut state = self.state();
        // The guard is sent only VNIs that it does not know yet. Most switches repeat what it knows.
        let State {
            kernel, guarded, ..
        } = &mut *state;
        let on: Vec<(Vni, u32)> = switches
            .iter()
            .filter(|(_, answer)| *answer)
            .filter_map(|&(vni, _)| Some((vni, kernel.bridge(vni)?)))
            .filter(|(vni, index)| guarded.get(vni) != Some(index))
            .collect();
        if !on.is_empty() {
            // The guard must know a VNI before it answers. A guard that knows a VNI too many only silences a silent
            // one.
            state.guard.serves(&on);
            state.guarded.extend(on);
        }
        // The same check as for each switch below: a VNI that may not answer does not go into the kernel lease either.
        if state.permits_under(under, self.margin) {
            let on: Vec<Vni> = switches
                .iter()
                .filter(|(_, answer)| *answer)
                .map(|&(vni, _)| vni)
                .collect();
            if !on.is_empty() {
                // What is in the table and not granted is silent, and a guard may be late.
                self.see_to_grants(&mut state);
            }
            state.gate.admit(on.into_iter(), clock::now());
            // The guard must know that the kernel lease is not complete before a VNI outside of it answers.
            state.tell_gate();
        }
        let mut outcomes: Vec<(Vni, ArpOutcome, Option<Error>)> = switches
            .iter()
            .map(|&(vni, answer)| state.switch_one(under, vni, answer, self.margin))
            .collect();
        // Also what was to answer ARP and does not: it must not answer for IPv6 alone.
        let State {
            gate, answering, ..
        } = &mut *state;
        let silent = outcomes.iter().map(|&(vni, ..)| vni);
        let end = self.lease().map(|lease| lease.valid_until);
        gate.release(silent.filter(|vni| !answering.contains(vni)), end);
        let now = clock::now();
        for (vni, outcome, error) in &mut outcomes {
            if *outcome == ArpOutcome::Answers(false) && !gate.is_silent(*vni, now) {
                let bridge = vni.bridge();
                (*outcome, *error) = (ArpOutcome::Failed, Some(Error::Ipv6 { bridge }));
            }
        }
        state.tell_gate();
        // Not what the kernel refused to silence: that is what the guard is for.
        let off: Vec<Vni> = switches
            .iter()
            .zip(&outcomes)
            .filter(|((_, answer), (_, outcome, _))| !*answer && *outcome != ArpOutcome::Failed)
            .map(|(&(vni, _), _)| vni)
            .filter(|vni| state.guarded.remove(vni).is_some())
            .collect();
        if !off.is_empty() {
            state.guard.released(&off);
        }
        self.count_one_by_one(&state.gate, state.answering.len());
        outcomes
    }

    /// Switches ARP off for every VNI that answers, without asking the core.
    pub fn silence(&self) -> Silenced {
        self.state().silence()
    }

    /// Whether nothing of what this daemon has switched on answers any more, in either family.
    pub fn is_silent(&self) -> bool {
        let state = self.state();
        state.answering.is_empty() && state.gate.are_silent(clock::now())
    }

    /// How many VNIs have a switch that was set.
    pub fn switched(&self) -> usize {
        self.state().switched.len()
    }

    /// Some of the VNIs that have a switch that was set, in turn: the first `count` after `last`.
    pub fn some_after(&self, last: Option<Vni>, count: usize) -> Vec<Vni> {
        let state = self.state();
        let start = last.map_or(Bound::Unbounded, Bound::Excluded);
        let after = state.switched.range((start, Bound::Unbounded));
        let around = state.switched.iter();
        let count = count.min(state.switched.len());
        after.chain(around).take(count).copied().collect()
    }

    /// Reads the ARP switch of each of `vnis` that this run has switched, and sets it again if it differs. Silences a
    /// bridge of the VNI that has lost the name `br<VNI>`. Does not switch a VNI on without proof.
    pub fn put_back(&self, vnis: &[Vni]) -> PutBack {
        let mut outcome = PutBack::default();
        let mut state = self.state();
        for &vni in vnis {
            let answer = state.answering.contains(&vni);
            let strays = state.kernel.silence_strays(vni);
            let is_told = state.switched.contains(&vni);
            match strays {
                Ok(false) => {}
                Ok(true) => outcome.differed.push((vni, false)),
                Err(error) => outcome.refused.push((vni, error)),
            }
            if !is_told || answer && !state.permits(clock::now(), self.margin) {
                continue;
            }
            match state.kernel.put_back(vni, answer) {
                Ok(ArpAudit::AsTold) => {}
                Ok(ArpAudit::PutBack) => outcome.differed.push((vni, answer)),
                Ok(ArpAudit::Absent) => outcome.absent.push(vni),
                Err(error) => outcome.refused.push((vni, error)),
            }
        }
        self.metrics.repaired(Repair::Arp, outcome.differed.len());
        outcome
    }

    /// The VNIs that answer now.
    pub fn answering(&self) -> BTreeSet<Vni> {
        self.state().answering.clone()
    }

    /// Whether the kernel's hold on the lease is there.
    pub fn is_gated(&self) -> bool {
        self.state().gate.stands()
    }

    /// These are the IPv6 gateway addresses of this host.
    pub fn manage_ipv6(&self, ipv6: Ipv6) {
        self.state().gate.manage(ipv6);
    }

    /// Whether the kernel holds the lease, for others to read; `None` on a mock host.
    pub fn kernel_hold(&self) -> Option<KernelHold> {
        self.state().gate.hold().cloned()
    }

    /// What this host has of IPv6, for others to read; `None` on a mock host.
    pub fn ipv6_hold(&self) -> Option<Ipv6Hold> {
        self.state().gate.ipv6_hold()
    }

    /// Sees to it that the table of the kernel lease is there; `look` says that it may not be.
    pub fn tend_gate(&self, look: bool) -> TableStatus {
        let opener = self.state().gate.look(look, clock::now());
        // Without the lock: it may load a module.
        let opened = opener.map(|open| open());
        let mut state = self.state();
        let now = clock::now();
        let State {
            gate, answering, ..
        } = &mut *state;
        // This thread holds the proof's lock until the kernel has its new end. Otherwise an epoch that proves less
        // could be announced in between, and the kernel would answer for longer than the proof.
        let proof = self.proof();
        let proved = proof
            .lease_for_kernel(gate.margin())
            .filter(|_| proof.holds(now, self.margin));
        let mut tended = gate.tend(opened, proved, answering, now);
        if tended.made.is_some() {
            state.silence_strangers(proof.lease().map(|lease| lease.valid_until));
            tended.gated = state.gate.count();
            // It opens the table anew, and grants.
            state.gate_told = None;
        }
        state.tell_gate();
        drop(proof);
        let gate = &state.gate;
        self.count_one_by_one(gate, state.answering.len());
        if tended.made == Some(Made::PutBack) {
            self.metrics.gate_lost();
        }
        self.metrics.gate(gate.held_until(now));
        let is_switched = gate.stands() && tended.ipv6_lack.is_none();
        self.metrics.ipv6(tended.ipv6, is_switched);
        tended
    }

    fn count_one_by_one(&self, gate: &Gate, answering: usize) {
        let count = match (gate.gated(), gate.is_mock()) {
            (Gated::All, _) | (_, true) => 0,
            (Gated::Some | Gated::None, false) => answering,
        };
        self.one_by_one.store(count, Ordering::Relaxed);
    }

    /// How long it takes to silence what the kernel does not silence by itself.
    pub fn silencing(&self) -> Duration {
        let count = self.one_by_one.load(Ordering::Relaxed);
        guard::SWITCH.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// See [`Gate::port`].
    pub fn gate_port(&self) -> u32 {
        self.state().gate.port()
    }

    /// Looks after the guard, and starts another if it is not well. Takes time then.
    ///
    /// # Errors
    /// There is no guard and none could be started.
    pub fn check_guard(&self) -> Result<GuardCheck, guard::Error> {
        let check = self.replace_lost_guard();
        self.see_to_grants(&mut self.state());
        self.metrics.guard(check.is_ok());
        if matches!(check, Ok(GuardCheck::Fenced)) {
            let mut state = self.state();
            let is_counted = std::mem::take(&mut state.guard_follows);
            // If not, it came first: the daemon has not noticed yet.
            if !is_counted && std::mem::take(&mut state.proved) {
                self.metrics.guard_fenced();
            }
        }
        check
    }

    /// The connection to the guard, to wait at for its end.
    pub fn guard_conn(&self) -> Option<OwnedFd> {
        self.state().guard.conn()
    }

    /// Takes in what the guard has granted, and grants in its place if it has not.
    fn see_to_grants(&self, state: &mut State) {
        let State { gate, guard, .. } = &mut *state;
        let grants = guard.grants();
        if let Some(until) = grants.until {
            gate.was_granted(until);
        }
        self.metrics.grants_refused(grants.refused);
        let now = clock::now();
        {
            // The proof's lock is held as in `tend_gate`. If the node names witnesses, only the guard prolongs the
            // kernel lease: it alone knows each acknowledgement.
            let proof = self.proof();
            let is_due = proof.is_lease_alone() && proof.lease_holds(now, self.margin);
            if let Some(lease) = proof.lease().filter(|_| is_due) {
                gate.grant_if_due(lease, now);
            }
        }
        state.tell_gate();
        self.metrics.gate(state.gate.held_until(now));
    }

    fn replace_lost_guard(&self) -> Result<GuardCheck, guard::Error> {
        let mut guards = self.guards();
        let why = {
            let mut state = self.state();
            if state.dismissed {
                return Ok(GuardCheck::Well);
            }
            match state.guard.standing() {
                Standing::Well => return Ok(GuardCheck::Well),
                Standing::Fenced => {
                    // It has forgotten what it has silenced.
                    state.guarded.clear();
                    state.gate.was_revoked();
                    return Ok(GuardCheck::Fenced);
                }
                Standing::Lost(why) => why,
            }
        };
        // Without the lock of `state`: the thread `fence` must be able to silence ARP meanwhile.
        let guard = guards.relieve()?;
        let mut state = self.state();
        state.guard = guard;
        state.gate_told = None;
        state.tell_gate();
        {
            let proof = self.proof();
            if let Some(begin) = proof.begin() {
                state.guard.witness(&begin);
            }
            if let Some(lease) = proof.lease() {
                state.guard.lease(lease);
            }
        }
        self.guard_count.fetch_add(1, Ordering::Release);
        state.tell_answering();
        Ok(GuardCheck::Replaced(why))
    }

    fn guards(&self) -> MutexGuard<'_, Box<dyn Guards>> {
        self.guards
            .lock()
            .expect("a thread that panics takes the process with it")
    }

    /// Everything is withdrawn: the guard is not needed any more, nor is the table of the kernel lease.
    ///
    /// # Errors
    /// The table is still there: the kernel refused.
    pub fn dismiss_guard(&self) -> Result<(), nft::Error> {
        let mut guards = self.guards();
        let dismissed = {
            let mut state = self.state();
            state.dismissed = true;
            let dismissed = state.gate.dismiss();
            state.guard.dismiss();
            dismissed
        };
        guards.dismiss();
        dismissed
    }

    /// One turn of the thread `fence`: silences ARP if the lease may end; suspends ARP if the witnesses' part of the
    /// proof is lost, or resumes it if that is back; then waits for the alarm. It has a thread of its own, so that
    /// neither a blocked worker nor a slow etcd delays it. Returns what it silenced for the end of the lease.
    pub fn keep_watch(&self) -> Silenced {
        let outcome = self.look();
        if outcome.silenced == 0 {
            self.wait();
        }
        outcome
    }

    /// The same, without the wait.
    fn look(&self) -> Silenced {
        /// How often it looks up while there is no lease.
        const GLANCE: Duration = Duration::from_millis(250);
        let mut state = self.state();
        let now = clock::now();
        let mut outcome = Silenced::default();
        let (holds, is_witnessed) = {
            let proof = self.proof();
            (proof.lease_holds(now, self.margin), proof.is_witnessed(now))
        };
        if !holds {
            outcome = state.silence();
            self.count_fencing(&mut state);
            let again = if state.answering.is_empty() {
                GLANCE
            } else {
                AGAIN
            };
            self.alarm.set(now + again);
        } else if !is_witnessed {
            let is_first = !self.suspended.swap(true, Ordering::AcqRel);
            if is_first {
                self.metrics.proof_lost();
            }
            let refused = state.suspend();
            self.refused.store(refused, Ordering::Release);
            let proof = self.proof();
            self.alarm.set(self.next_look(&proof, now));
        } else if self.suspended.swap(false, Ordering::AcqRel) {
            let is_done = state.resume(self.margin);
            self.suspended.fetch_or(!is_done, Ordering::AcqRel);
            let proof = self.proof();
            self.alarm.set(match is_done {
                true => self.next_look(&proof, now),
                false => proof.ends(now, self.margin).min(now + AGAIN),
            });
        } else {
            let proof = self.proof();
            self.alarm.set(self.next_look(&proof, now));
        }
        outcome
    }

    /// Until the alarm goes off.
    fn wait(&self) {
        let mut alarm = [PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN)];
        match poll(&mut alarm, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Short of memory: looks up soon, all the same.
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}

impl State {
    fn permits_under(&self, under: Option<LeaseId>, margin: Duration) -> bool {
        let now = clock::now();
        lock(&self.proof).holds_under(under, now, margin)
    }

    fn permits(&self, now: Time, margin: Duration) -> bool {
        lock(&self.proof).holds(now, margin)
    }

    /// Silences ARP because the witnesses' part of the proof is lost, unless the kernel lease silences all VNIs by
    /// itself. The VNIs stay in `answering`, and [`State::resume`] switches them on again. Returns whether the kernel
    /// refused a switch.
    fn suspend(&mut self) -> bool {
        if self.gate.gated() == Gated::All {
            return false;
        }
        let mut refused = false;
        for &vni in &self.answering {
            if self.suspended.contains(&vni) {
                continue;
            }
            match self.kernel.silence(vni) {
                Ok(()) => drop(self.suspended.insert(vni)),
                Err(_) => refused = true,
            }
        }
        refused
    }

    /// There is proof again: switches the VNIs on that were silenced for lack of it. Returns whether all answer.
    fn resume(&mut self, margin: Duration) -> bool {
        let silent = std::mem::take(&mut self.suspended);
        for &vni in silent.intersection(&self.answering) {
            let is_back =
                self.permits(clock::now(), margin) && self.kernel.put_back(vni, true).is_ok();
            if !is_back {
                self.suspended.insert(vni);
            }
        }
        self.suspended.is_empty()
    }

    fn switch_one(
        &mut self,
        under: Option<LeaseId>,
        vni: Vni,
        answer: bool,
        margin: Duration,
    ) -> (Vni, ArpOutcome, Option<Error>) {
        if answer && !self.permits_under(under, margin) {
            return (vni, ArpOutcome::Failed, Some(Error::NotPermitted));
        }
        self.switched.insert(vni);
        match self.kernel.set_arp(vni, answer) {
            Ok(()) if answer => {
                self.answering.insert(vni);
                // The process may have been stopped between the look at the clock and the switch.
                if !self.permits_under(under, margin) {
                    self.silence();
                    return (vni, ArpOutcome::Failed, Some(Error::NotPermitted));
                }
                (vni, ArpOutcome::Answers(true), None)
            }
            Ok(()) => {
                self.answering.remove(&vni);
                (vni, ArpOutcome::Answers(false), None)
            }
            Err(error) if error.is_absence() => {
                self.answering.remove(&vni);
                self.switched.remove(&vni);
                (vni, ArpOutcome::Absent, Some(error))
            }
            Err(error) => (vni, ArpOutcome::Failed, Some(error)),
        }
    }

    /// Tells the guard whether the table is there, if that is news.
    fn tell_gate(&mut self) {
        let gated = self.gate.gated();
        let told = self.gate_told.replace(gated);
        // A guard of its own knows of none; that of a run before goes on granting while this run tries.
        if told != Some(gated) && (gated != Gated::None || told.is_some()) {
            self.guard.gate(gated);
        }
    }

    /// Tells the guard of all that answer.
    fn tell_answering(&mut self) {
        let State {
            answering,
            guarded,
            guard,
            kernel,
            ..
        } = self;
        let mut index = |vni| guarded.get(&vni).copied().or_else(|| kernel.bridge(vni));
        let answering: Vec<(Vni, u32)> = answering
            .iter()
            .filter_map(|&vni| Some((vni, index(vni)?)))
            .collect();
        *guarded = answering.iter().copied().collect();
        guard.serves(&answering);
    }

    /// Silences the bridges that are in the table and of which nothing is known, and takes them out: they are of a run
    /// before that had another range, or something else on this host has put them there.
    fn silence_strangers(&mut self, end: Option<Time>) {
        let mut silent = Vec::new();
        for vni in self.gate.strangers(&self.answering) {
            match self.kernel.silence(vni) {
                Ok(()) => silent.push(vni),
                // The thread `fence` tries again when it silences ARP. Until then the bridge stays in the table.
                Err(_) => drop(self.answering.insert(vni)),
            }
        }
        self.gate.release(silent.into_iter(), end);
    }

    fn silence_by_switch(&mut self, vnis: &[Vni], outcome: &mut Silenced) {
        for &vni in vnis {
            // What cannot be written now is tried again by the next call: it stays in the set.
            match self.kernel.silence(vni) {
                Ok(()) => {
                    self.answering.remove(&vni);
                    outcome.silenced += 1;
                }
                Err(error) => {
                    let (count, _) = outcome
                        .refused
                        .get_or_insert_with(|| (0, crate::telemetry::log_text::chain(&error)));
                    *count += 1;
                }
            }
        }
    }

    fn silence(&mut self) -> Silenced {
        let mut outcome = Silenced::default();
        let vnis: Vec<Vni> = self.answering.iter().copied().collect();
        let (gated, others): (Vec<Vni>, Vec<Vni>) =
            vnis.iter().partition(|vni| self.gate.holds(**vni));
        // Nf_tables may be busy with another program's rules for seconds: what it does not keep silent must not wait.
        self.silence_by_switch(&others, &mut outcome);
        if !gated.is_empty() {
            // All of them, by one message.
            self.gate.revoke();
        }
        self.silence_by_switch(&gated, &mut outcome);
        let silent = vnis.iter().filter(|vni| !self.answering.contains(vni));
        let end = lock(&self.proof).lease().map(|lease| lease.valid_until);
        self.gate.release(silent.copied(), end);
        self.suspended.clear();
        outcome
    }
}

fn lock(proof: &Mutex<Proof>) -> MutexGuard<'_, Proof> {
    proof
        .lock()
        .expect("a thread that panics takes the process with it")
}

#[cfg(test)]
mod tests;
