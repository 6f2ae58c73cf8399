//! The guard process.
//!
//! One thread, one loop: it waits for a message from the daemon, for an answer to its beats, or for the moment at which
//! the proof can end. Before that moment it writes the kernel lease only ([`crate::host::nft`]), which silences ARP if
//! the guard cannot act. When the lease ends it switches ARP off and withdraws the routes, and logs afterwards. When
//! the witnesses' part of the proof is lost and the lease holds, it silences ARP alone, which the daemon puts back.

use super::Error;
use super::SWITCH;
use super::address::{Address, refusal, user};
use super::beats::Beats;
use super::peer::Peer;
use super::protocol::{Gated, Greeting, Order, Report};
use super::view::View;
use crate::host::nft::{self, KernelLease};
use crate::host::{self, FrrDaemons, Kernel, Router};
use crate::model::types::{Lease, Time, Vni};
use crate::sys::clock::{self, Alarm};
use crate::sys::memory;
use crate::telemetry::log_text::{Complaint, chain};
use crate::witness::Number;
use crate::witness::message;
use log::{error, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, geteuid};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread::sleep;
use std::time::Duration;

/// How long a guard waits for its first daemon.
const FIRST: Duration = Duration::from_secs(30);
/// How long a process that connects may take to say hello.
const HELLO: Duration = Duration::from_secs(1);
/// How long no process is let in after one that looked: programs that look without a pause must not cost the guard its
/// CPU time, and a daemon behind a thousand of them has not given up when it is let in.
const LOOKS: Duration = Duration::from_millis(2);
/// How long the wait is at most, for those who connect and say nothing, or who could not be let in.
const GLANCE: Duration = Duration::from_secs(1);
/// How soon a switch that the kernel refused is tried again.
const ARP_AGAIN: Duration = Duration::from_millis(20);
/// How much earlier than a proof ends the guard begins to silence, at most: witnesses wait longer than it lasts by two
/// margins.
const LONGEST_SILENCING: Duration = Duration::from_millis(100);
/// How often the removal of the table is tried again at the end.
const REMOVALS: usize = 50;
/// How soon after a failure the guard tries FRR again, and how long after it began to withdraw it stops trying, if
/// the daemon is gone.
const FRR_AGAIN: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(300);
/// How often the kernel lease is prolonged at most: each change of a table restarts the dumps of other programs.
const GRANTS: Duration = Duration::from_millis(250);
/// What the kernel was granted by another guard is not known: it may be anything.
const UNKNOWN: Time = Time::NEVER;

/// Protects the guard from the OOM killer and from the end of the daemon's terminal, and names it in `ps`. Failures are
/// ignored: a guard without this is better than none.
pub fn settle_in(real: bool) {
    // The name of the program would be that of the file which it was started by, `exe`.
    let _ = fs::write("/proc/self/comm", "wmgwd-guard");
    // A terminal may stop what writes to it from the background (termios(3), TOSTOP); not if that is blocked.
    let mut set = SigSet::empty();
    set.add(Signal::SIGTTOU);
    let _ = set.thread_block();
    if real {
        // When memory runs out, the guard is what must be left (proc_pid_oom_score_adj(5)).
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        // The daemon has said so if it cannot be had.
        let _ = memory::lock();
    }
}

/// A guard.
pub struct Process {
    listener: Listener,
    /// Goes off when something is due.
    alarm: Alarm,
    margin: Duration,
    kernel: Box<dyn Kernel>,
    router: Box<dyn Router>,
    /// How long before the lease ends the kernel's hold does.
    gate_margin: Duration,
    /// The table of the kernel lease, while the daemon says that it is there.
    gate: Option<KernelLease>,
    /// What of the bridges that answer it holds.
    gated: Gated,
    /// Until when the kernel was granted the lease at most, and when it is to be prolonged.
    granted: Time,
    grant_at: Time,
    grant_failed: bool,
    gate_complaint: Complaint,
    daemon: Option<Peer>,
    /// What is to be told to the daemon, in one write.
    lines: String,
    /// There was a daemon once.
    served: bool,
    /// The lease and its witnesses.
    beats: Beats,
    /// Epochs that the daemon waits to hear of: it does once the kernel was granted no more than they prove.
    noted: Vec<Number>,
    /// The witnesses' part of the proof is lost, and each VNI was silenced for that.
    silent: bool,
    /// The VNIs that answer ARP, as far as the daemon has said.
    answering: BTreeSet<Vni>,
    /// FRR may show something.
    routes: bool,
    /// The lease ended; the daemon, if there is one, is still to be told.
    fenced: bool,
    untold: bool,
    frr_at: Time,
    /// One try to withdraw is all: another run has this host.
    retiring: bool,
    /// FRR was tried since the guard was to retire.
    tried: bool,
    started: Time,
    withdrawing_since: Option<Time>,
    arp_complaint: Complaint,
    frr_complaint: Complaint,
}

impl Process {
    /// Binds the address.
    ///
    /// # Errors
    /// The address cannot be bound: `AddrInUse` if a guard lives there. Or the kernel has no timer.
    pub fn bind(
        address: &Address,
        margin: Duration,
        kernel: Box<dyn Kernel>,
        router: Box<dyn Router>,
    ) -> Result<Process, Error> {
        let listener = address.listen().map_err(Error::Socket)?;
        let now = clock::now();
        Ok(Process {
            listener: Listener {
                listener,
                caller: None,
                shut_until: now,
                complaint: Complaint::default(),
            },
            alarm: Alarm::new().map_err(Error::Timer)?,
            margin,
            kernel,
            router,
            gate_margin: margin / 2,
            gate: None,
            gated: Gated::None,
            granted: UNKNOWN,
            grant_at: now,
            grant_failed: false,
            gate_complaint: Complaint::default(),
            daemon: None,
            lines: String::new(),
            served: false,
            beats: Beats::new(margin),
            noted: Vec::new(),
            silent: false,
            answering: BTreeSet::new(),
            routes: false,
            fenced: false,
            untold: false,
            frr_at: now,
            retiring: false,
            tried: false,
            started: now,
            withdrawing_since: None,
            arp_complaint: Complaint::default(),
            frr_complaint: Complaint::default(),
        })
    }

    /// Guards until it is dismissed, or has nothing left to guard.
    pub fn run(mut self) {
        loop {
            let ready = self.wait(clock::now());
            // The time first, then what the daemon says: a guard that is stopped in between fences early, not late.
            let now = clock::now();
            // Before something is done that cannot be taken back, all that there is is read: it may have come while this
            // process was held up, and an answer counts from when its beat was sent.
            let is_late = self.is_due(now) || now >= self.silence_at();
            if (ready.daemon || is_late) && self.hear(now) {
                return;
            }
            if ready.door || self.listener.has_guest() {
                self.answer_the_door();
            }
            if ready.beats || is_late {
                self.beats.receive();
            }
            if self.is_due(now) {
                self.fence(now);
            } else {
                self.silence_if_unproved(now);
            }
            self.keep_granting(now);
            self.beats.beat();
            self.report();
            if self.is_over(clock::now()) {
                return self.remove_gate();
            }
        }
    }

    /// Something may be on show that has to go when the lease ends.
    fn is_armed(&self) -> bool {
        self.routes || !self.answering.is_empty()
    }

    fn is_due(&self, now: Time) -> bool {
        let held = self.beats.prover.held();
        self.is_armed() && held.is_none_or(|lease| now >= lease.valid_until - self.margin)
    }

    /// Until when the kernel may be granted the lease.
    fn provable_until(&self) -> Time {
        let prover = &self.beats.prover;
        prover.held().map_or(Time::default(), |lease| {
            (lease.valid_until - self.gate_margin).min(prover.witnessed_until())
        })
    }

    /// When ARP has to be silenced, if no witness acknowledges anything more: early enough to be done in time, where
    /// each VNI has to be.
    fn silence_at(&self) -> Time {
        let until = self.beats.prover.witnessed_until();
        if self.gated == Gated::All {
            return until;
        }
        let count = u32::try_from(self.answering.len()).unwrap_or(u32::MAX);
        until - SWITCH.saturating_mul(count).min(LONGEST_SILENCING)
    }

    /// The kernel keeps all that answer from answering now.
    fn is_held_by_kernel(&self, now: Time) -> bool {
        self.gated == Gated::All && self.granted <= now
    }

    /// The lease holds, but too few witnesses prove it: no station may learn of this gateway. Those that know it are
    /// served on, so the routes stay.
    fn silence_if_unproved(&mut self, now: Time) {
        let is_lost = self.is_armed() && now >= self.silence_at();
        if !is_lost {
            self.silent = false;
            return;
        }
        if self.silent || self.is_held_by_kernel(now) {
            return;
        }
        self.silent = true;
        // It need not have noticed the loss, and has them answer again.
        self.lines.push_str(&Report::Silenced.line());
        let kernel = &mut self.kernel;
        let mut refused = None;
        for &vni in &self.answering {
            // They stay in the set: the daemon has them answer again when there is proof.
            if let Err(error) = kernel.silence(vni) {
                refused = Some(error);
            }
        }
        if let Some(error) = refused {
            // Again in the next turn.
            self.silent = false;
            let reason = chain(&error);
            if self.arp_complaint.raise(&reason) {
                error!("VNIs answer ARP although too few witnesses prove this node: {reason}");
            }
        }
        if self.daemon.is_none() {
            let count = self.answering.len();
            warn!(
                "count={count} VNIs do not answer ARP any more: too few witnesses prove this node, and the daemon is gone"
            );
        }
    }

    fn is_over(&self, now: Time) -> bool {
        if self.daemon.is_some() || self.listener.has_guest() {
            return false;
        }
        if !self.is_armed() {
            return self.served || now.since(self.started) > FIRST;
        }
        let too_long = self
            .withdrawing_since
            .is_some_and(|since| now.since(since) > GIVE_UP);
        let given_up = too_long || self.tried;
        if given_up {
            error!("giving up, not everything is withdrawn: run wmgwd withdraw");
        }
        given_up
    }

    /// The lease ends: ARP first, always and at once; then FRR.
    fn fence(&mut self, now: Time) {
        let before = self.answering.len();
        // All that are gated, by one message. What fails runs out by itself.
        let is_first = !self.fenced;
        if is_first && self.gated == Gated::All {
            self.revoke();
        }
        let mut refused = None;
        let kernel = &mut self.kernel;
        self.answering.retain(|&vni| match kernel.silence(vni) {
            Ok(()) => false,
            Err(error) => {
                refused = Some(error);
                true
            }
        });
        // Nf_tables may be busy with another program's rules for seconds: what it does not keep silent must not wait.
        if is_first && self.gated != Gated::All {
            self.revoke();
        }
        if is_first {
            self.fenced = true;
            // One that has ended its lease itself knows.
            self.untold = !self.is_ended_by_daemon();
            self.withdrawing_since = Some(now);
        }
        let silenced = before - self.answering.len();
        if silenced > 0 {
            let whose = match self.daemon {
                Some(_) => "the daemon is late",
                None => "the daemon is gone",
            };
            match self.is_ended_by_daemon() {
                true => info!("count={silenced} VNIs silenced: the daemon ends its lease"),
                false => warn!(
                    "fenced: count={silenced} VNIs do not answer ARP any more: the lease ends and {whose}"
                ),
            }
        }
        match refused {
            None => drop(self.arp_complaint.settle()),
            Some(error) => {
                let reason = chain(&error);
                if self.arp_complaint.raise(&reason) {
                    let left = self.answering.len();
                    error!("count={left} VNIs answer ARP although the lease ends: {reason}");
                }
            }
        }
        if self.may_withdraw() && now >= self.frr_at {
            self.withdraw();
        }
    }

    fn revoke(&mut self) {
        if let Some(gate) = &mut self.gate
            && gate.revoke().is_ok()
        {
            self.granted = Time::default();
        }
    }

    /// FRR may show something, and the daemon does not see to it: one that ends its lease itself does.
    fn may_withdraw(&self) -> bool {
        self.routes && (self.daemon.is_none() || !self.is_ended_by_daemon())
    }

    fn is_ended_by_daemon(&self) -> bool {
        let prover = &self.beats.prover;
        prover.lease().is_some() && prover.held().is_none()
    }

    /// Has the kernel hold the lease as long as it is proved, and no longer, whatever becomes of this process; tells
    /// the daemon. A proof that has become shorter is cut at once, and only then are its epochs said to be noted.
    fn keep_granting(&mut self, now: Time) {
        // What is fenced stays so until the next lease, although there is some time left.
        let until = match self.fenced {
            true => Time::default(),
            false => self.provable_until(),
        };
        let is_told = self.beats.prover.lease().is_some();
        if self.gate.is_some() && is_told {
            let is_too_long = self.granted > until && self.granted > now;
            let is_longer = until > self.granted + Duration::from_millis(1) && until > now;
            let is_due = now >= self.grant_at;
            if (is_too_long && (is_due || !self.grant_failed)) || (is_longer && is_due) {
                self.grant(now, until, is_too_long);
            }
        }
        if self.gate.is_none() || self.granted <= until.max(now) {
            for number in std::mem::take(&mut self.noted) {
                let noted = Report::Witness(message::Report::Noted(number));
                self.lines.push_str(&noted.line());
            }
        }
    }

    fn grant(&mut self, now: Time, until: Time, is_too_long: bool) {
        let Some(gate) = &mut self.gate else {
            return;
        };
        let granted = match gate.grant(until) {
            // There is no time left: what is granted for longer ends now.
            Err(nft::Error::Over) if is_too_long => gate.revoke().map(|()| None),
            Err(nft::Error::Over) => return,
            granted => granted.map(Some),
        };
        self.grant_failed = granted.is_err();
        let report = match granted {
            Ok(refused) => {
                if self.gate_complaint.settle() {
                    info!("gate: the kernel holds the lease again");
                }
                self.granted = refused.map_or(Time::default(), |_| until);
                self.grant_at = now + GRANTS.min(until.since(now) / 3);
                let Some(refused) = refused else {
                    return;
                };
                Report::Granted { until, refused }
            }
            Err(error) => {
                self.grant_at = now + ARP_AGAIN;
                let reason = chain(&error);
                match error {
                    // The daemon says so, and puts it back. Until then ARP is switched by this process.
                    nft::Error::Lost => {
                        self.gate = None;
                        self.gated = Gated::None;
                    }
                    _ if self.gate_complaint.raise(&reason) => {
                        warn!(
                            "gate: cannot have the kernel hold the lease, trying again: {reason}"
                        );
                    }
                    _ => {}
                }
                Report::Refused(reason)
            }
        };
        self.lines.push_str(&report.line());
    }

    /// The table is there, or is not.
    fn set_gate(&mut self, said: Gated) {
        self.gated = said;
        self.granted = UNKNOWN;
        self.gate = None;
        if said == Gated::None {
            return;
        }
        match KernelLease::join() {
            Ok(gate) => self.gate = Some(gate),
            Err(error) => {
                self.gated = Gated::None;
                let reason = chain(&error);
                if self.gate_complaint.raise(&reason) {
                    warn!("gate: cannot have the kernel hold the lease: {reason}");
                }
            }
        }
    }

    /// What is left behind by a daemon that is gone drops what its successor on another host answers.
    fn remove_gate(&mut self) {
        let Some(mut gate) = self.gate.take().filter(|_| self.answering.is_empty()) else {
            return;
        };
        let mut outcome = gate.remove();
        for _ in 0..REMOVALS {
            if !matches!(outcome, Err(nft::Error::Refused { .. })) {
                break;
            }
            // Something else is changing nf_tables all the time.
            sleep(ARP_AGAIN);
            outcome = gate.remove();
        }
        if let Err(error) = outcome {
            warn!("cannot remove the table `arp wmgwd`: {}", chain(&error));
        }
    }

    fn withdraw(&mut self) {
        // A word from the daemon, or a new daemon: it takes over from here.
        let listener = RefCell::new(&mut self.listener);
        let daemon = self.daemon.as_ref();
        let quiet = || !listener.borrow_mut().has_daemon() && daemon.is_none_or(is_quiet);
        let result = self
            .router
            .withdraw(FrrDaemons::ALL, &BTreeSet::new(), &quiet);
        self.tried = self.retiring && !matches!(result, Err(host::Error::NotPermitted));
        match result {
            Ok(()) => {
                self.routes = false;
                self.frr_complaint.settle();
                info!("everything is withdrawn from FRR");
            }
            Err(host::Error::NotPermitted) => {}
            Err(failure) => {
                self.frr_at = clock::now() + FRR_AGAIN;
                let reason = chain(&failure);
                if self.frr_complaint.raise(&reason) {
                    warn!("cannot withdraw from FRR, trying again: {reason}");
                }
            }
        }
    }

    /// Until a message comes or something is due; what there is to read.
    fn wait(&self, now: Time) -> Ready {
        let mut until = now + GLANCE;
        if self.is_due(now) {
            if !self.answering.is_empty() {
                until = until.min(now + ARP_AGAIN);
            }
            if self.may_withdraw() {
                until = until.min(self.frr_at);
            }
        } else if let Some(lease) = self.beats.prover.held().filter(|_| self.is_armed()) {
            until = until.min(lease.valid_until - self.margin);
            let lost = self.silence_at();
            if now < lost {
                until = until.min(lost);
            } else if !self.silent && !self.is_held_by_kernel(now) {
                // A switch was refused.
                until = until.min(now + ARP_AGAIN);
            }
        }
        if self.gate.is_some() && !self.noted.is_empty() {
            until = until.min(now + ARP_AGAIN);
        }
        let next = self.beats.next(now);
        for at in next.into_iter().chain(self.listener.opens_at(now)) {
            until = until.min(at);
        }
        self.alarm.set(until);
        let mut fds = vec![PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.beats.fd(now));
        let door = fds.len();
        fds.extend(self.listener.fds(now));
        let daemon = fds.len();
        if let Some(peer) = &self.daemon {
            fds.push(PollFd::new(peer.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {
                let is_ready = |fds: &[PollFd]| fds.iter().any(|fd| fd.any().unwrap_or(true));
                Ready {
                    // What is not waited for, so that answers are read together, is read then.
                    beats: door == 1 || is_ready(&fds[1..door]),
                    door: is_ready(&fds[door..daemon]),
                    daemon: is_ready(&fds[daemon..]),
                }
            }
            Err(error) => {
                if error != nix::errno::Errno::EINTR {
                    // Short of memory: no reason to leave anything on show.
                    sleep(Duration::from_millis(10));
                }
                Ready {
                    beats: true,
                    door: true,
                    daemon: true,
                }
            }
        }
    }

    /// Reads what the daemon said; says whether it dismissed the guard.
    fn hear(&mut self, now: Time) -> bool {
        let Some(daemon) = &mut self.daemon else {
            return false;
        };
        let (lines, end) = daemon.lines();
        let mut heard = None;
        let mut gate = None;
        for line in lines {
            match Order::read(&line) {
                Some(Order::Lease(lease)) => {
                    for news in self.beats.order(now, message::Order::Renewed(lease)) {
                        self.lines.push_str(&Report::Witness(news).line());
                    }
                    self.routes = true;
                    self.fenced = false;
                    self.withdrawing_since = None;
                    heard = Some(lease.valid_until);
                }
                Some(Order::Serves(vnis)) => {
                    for (vni, index) in vnis {
                        self.kernel.hold(vni, index);
                        self.answering.insert(vni);
                    }
                    self.routes = true;
                }
                Some(Order::Released(vnis)) => {
                    for vni in vnis {
                        self.answering.remove(&vni);
                    }
                }
                Some(Order::Gate(gated)) => gate = Some(gated),
                // With the lease that follows.
                Some(Order::Retire) => self.retiring = true,
                Some(Order::From(address)) => self.beats.send_from(address),
                Some(Order::Witness(order)) => {
                    for report in self.beats.order(now, order) {
                        match report {
                            message::Report::Noted(number) => self.noted.push(number),
                            proof => self.lines.push_str(&Report::Witness(proof).line()),
                        }
                    }
                }
                Some(Order::Bye) => return true,
                Some(Order::Hello | Order::Look) | None => {
                    warn!("not understood from the daemon: {line:?}");
                }
            }
        }
        if let Some(until) = heard {
            self.grant_at = now;
            self.lines.push_str(&Report::Heard(until).line());
        }
        if let Some(gated) = gate {
            self.set_gate(gated);
        }
        if let Some(end) = end {
            self.daemon = None;
            match self.is_armed() {
                true => warn!("the daemon is gone, holding on until its lease ends: {end}"),
                false => info!("the daemon is gone: {end}"),
            }
        }
        false
    }

    fn answer_the_door(&mut self) {
        match self.listener.wish() {
            Some(Wish::Hello) => self.greet(),
            Some(Wish::Look) => {
                let view = self.view(clock::now());
                self.listener.show(&view);
            }
            None => {}
        }
    }

    /// What a process that is not the daemon gets to know.
    fn view(&self, now: Time) -> View {
        let prover = &self.beats.prover;
        let (losses, late) = prover.mishaps();
        View {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            has_daemon: self.daemon.is_some(),
            answering: self.answering.len(),
            lease: prover.lease(),
            until: prover.until(),
            proved_by: prover.proved_by(),
            losses,
            late,
            epochs: prover.counted(),
        }
    }

    fn greet(&mut self) {
        let Some(mut peer) = self.listener.admit() else {
            return;
        };
        let prover = &self.beats.prover;
        let greeting = match (&self.daemon, prover.lease()) {
            (Some(_), _) => Greeting::Busy,
            (None, Some(lease)) if self.is_armed() => {
                let ended = Lease {
                    valid_until: Time::default(),
                    ..lease
                };
                Greeting::Orphan(prover.held().unwrap_or(ended), prover.known())
            }
            (None, _) => Greeting::Fresh,
        };
        if let Err(error) = peer.stream().write_all(greeting.line().as_bytes()) {
            warn!("cannot greet: {error}");
            return;
        }
        if greeting != Greeting::Busy {
            self.daemon = Some(peer);
            self.lines.clear();
            self.beats.prover.forget_told();
            self.served = true;
            self.untold = self.fenced && greeting != Greeting::Fresh;
            (self.retiring, self.tried) = (false, false);
        }
    }

    /// Tells the daemon what is new, and that its lease ended here: it may have been late only, and must not believe
    /// that its VNIs are still on show.
    fn report(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            self.lines.clear();
            return;
        };
        if let Some(news) = self.beats.news(clock::now()) {
            self.lines.push_str(&Report::Witness(news).line());
        }
        if std::mem::take(&mut self.untold) {
            self.lines.push_str(&Report::Fenced.line());
        }
        let lines = std::mem::take(&mut self.lines);
        if !lines.is_empty()
            && let Err(error) = daemon.stream().write_all(lines.as_bytes())
        {
            if [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()) {
                // Its last words are still to be heard, and its end behind them.
                self.untold = self.fenced;
                return;
            }
            // It has not read for minutes, or is gone. A part of a line may have got through.
            self.untold = self.fenced;
            self.daemon = None;
            warn!("the daemon does not listen, holding on until its lease ends: {error}");
        }
    }
}

/// What there is to read.
#[derive(Clone, Copy)]
struct Ready {
    beats: bool,
    door: bool,
    daemon: bool,
}

fn is_quiet(peer: &Peer) -> bool {
    let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(0)
}

/// Where daemons come in, and processes that look, one at a time. A process that says nothing only looks whether there is
/// a guard.
struct Listener {
    listener: UnixListener,
    caller: Option<Caller>,
    /// No connection could be accepted, out of file descriptors, or a process has looked a moment ago.
    shut_until: Time,
    complaint: Complaint,
}

struct Caller {
    peer: Peer,
    since: Time,
    user: Uid,
    wish: Option<Wish>,
}

/// What a process that connects can want.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// To be the daemon.
    Hello,
    /// To know how it is with the proof.
    Look,
}

impl Listener {
    fn fds(&self, now: Time) -> Vec<PollFd<'_>> {
        match &self.caller {
            Some(caller) => vec![PollFd::new(caller.peer.as_fd(), PollFlags::POLLIN)],
            None if now < self.shut_until => Vec::new(),
            None => vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)],
        }
    }

    /// When the next process can be let in, if none can be now.
    fn opens_at(&self, now: Time) -> Option<Time> {
        let is_shut = self.caller.is_none() && now < self.shut_until;
        is_shut.then_some(self.shut_until)
    }

    fn has_guest(&self) -> bool {
        self.caller.is_some()
    }

    /// Whether a process has connected that wants to be the daemon.
    fn has_daemon(&mut self) -> bool {
        self.wish() == Some(Wish::Hello)
    }

    /// What the process wants that has connected, once it has said so.
    fn wish(&mut self) -> Option<Wish> {
        if self.caller.is_none() {
            self.caller = self.let_in();
        }
        let caller = self.caller.as_mut()?;
        let (lines, end) = caller.peer.lines();
        let read = |line: &String| match Order::read(line)? {
            Order::Hello => Some(Wish::Hello),
            Order::Look => Some(Wish::Look),
            _ => None,
        };
        caller.wish = caller.wish.or_else(|| lines.iter().find_map(read));
        let (wish, user) = (caller.wish, caller.user);
        let is_stranger = wish == Some(Wish::Hello) && user != geteuid();
        let is_bored = wish != Some(Wish::Hello) && clock::now().since(caller.since) > HELLO;
        if end.is_some() || is_bored || is_stranger {
            self.caller = None;
        }
        if is_stranger {
            self.complain(&refusal(user.as_raw()));
        }
        self.caller.as_ref()?.wish
    }

    fn admit(&mut self) -> Option<Peer> {
        self.caller.take().map(|caller| caller.peer)
    }

    /// Tells the process that has connected, and sees it out.
    fn show(&mut self, view: &View) {
        if let Some(mut peer) = self.admit() {
            // Nothing is waited for: its buffer is empty, and a line fits.
            let _ = peer.stream().write_all(view.line().as_bytes());
        }
        self.shut_until = view.now + LOOKS;
    }

    fn let_in(&mut self) -> Option<Caller> {
        let now = clock::now();
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => {
                self.shut_until = now + GLANCE;
                self.complain(&error);
                return None;
            }
        };
        let admitted = user(&stream).and_then(|user| {
            // An abstract socket has no permissions, any process on the host may connect. Root may look.
            match user == geteuid() || user.is_root() {
                true => Ok((user, Peer::new(stream)?)),
                false => Err(refusal(user.as_raw())),
            }
        });
        match admitted {
            Ok((user, peer)) => Some(Caller {
                peer,
                since: now,
                user,
                wish: None,
            }),
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let reason = error.to_string();
        if self.complaint.raise(&reason) {
            warn!("refused a connection: {reason}");
        }
    }
}

#[cfg(test)]
mod tests;
