//! The fence on a host that remembers what it was told, and on one that refuses.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::guard::{Grants, NoGuard};
use crate::host::nft::wire::Batch;
use crate::host::nft::{self, Channel, KernelLease};
use crate::telemetry::log_text::chain;
use crate::telemetry::metrics::server::{About, page};
use crate::witness::Number;
use core::net::Ipv6Addr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// The lease of all tests.
const ID: Option<LeaseId> = Some(LeaseId(1));
const MARGIN: Duration = Duration::from_millis(400);
/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// A kernel that remembers, and whose switch may refuse or take its time.
#[derive(Clone, Default)]
struct FakeKernel(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    answers: BTreeSet<Vni>,
    /// Bridges that are gone without a message.
    absent: BTreeSet<Vni>,
    refuses: bool,
    /// One that it does not silence.
    stubborn: Option<Vni>,
    refuses_to_answer: bool,
    tells_nothing: bool,
    slow: Duration,
}

impl FakeKernel {
    fn answers(&self) -> Vec<u32> {
        let told = self.0.lock().unwrap();
        told.answers.iter().map(|vni| vni.get()).collect()
    }
}

impl Kernel for FakeKernel {
    fn bridge(&mut self, vni: Vni) -> Option<u32> {
        Some(vni.get())
    }

    fn answering(&mut self, range: VniRange) -> Result<Vec<Vni>, Error> {
        let told = self.0.lock().unwrap();
        if told.tells_nothing {
            let source = io::ErrorKind::PermissionDenied.into();
            return Err(Error::Links { source });
        }
        let answers = told.answers.iter().copied();
        Ok(answers.filter(|vni| range.contains(*vni)).collect())
    }

    fn put_back(&mut self, vni: Vni, answer: bool) -> Result<ArpAudit, Error> {
        if self.0.lock().unwrap().absent.contains(&vni) {
            return Ok(ArpAudit::Absent);
        }
        let differs = self.0.lock().unwrap().answers.contains(&vni) != answer;
        self.set_arp(vni, answer)?;
        Ok(match differs {
            true => ArpAudit::PutBack,
            false => ArpAudit::AsTold,
        })
    }

    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error> {
        let slow = self.0.lock().unwrap().slow;
        thread::sleep(slow);
        let mut told = self.0.lock().unwrap();
        let keeps_on = (told.refuses || told.stubborn == Some(vni)) && !answer;
        if keeps_on || told.refuses_to_answer && answer {
            return Err(Error::Write {
                path: "/proc".into(),
                source: io::ErrorKind::PermissionDenied.into(),
            });
        }
        match answer {
            true => drop(told.answers.insert(vni)),
            false => drop(told.answers.remove(&vni)),
        }
        Ok(())
    }

    fn announce(&mut self, _: &[Vni], _: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        Vec::new()
    }
}

fn fence() -> (Arc<Fence>, FakeKernel) {
    let kernel = FakeKernel::default();
    let fence = Fence::new(
        MARGIN,
        Box::new(kernel.clone()),
        Box::new(NoGuard),
        Box::new(NoGuard),
    );
    (Arc::new(fence.unwrap()), kernel)
}

fn vnis(numbers: std::ops::RangeInclusive<u32>) -> Vec<(Vni, bool)> {
    numbers
        .filter_map(Vni::new)
        .map(|vni| (vni, true))
        .collect()
}

fn lease(lasts: Duration) -> Option<Lease> {
    Some(Lease {
        id: LeaseId(1),
        valid_until: clock::now() + lasts,
    })
}

#[test]
fn nothing_is_switched_on_without_a_lease() {
    let (fence, kernel) = fence();
    for lease in [None, lease(Duration::ZERO), lease(MARGIN / 2)] {
        fence.set_lease(lease);
        assert!(!fence.permits(ID));
        let outcomes = fence.switch(ID, &vnis(1..=2));
        for (_, outcome, error) in outcomes {
            assert_eq!(outcome, ArpOutcome::Failed);
            assert!(matches!(error, Some(Error::NotPermitted)));
        }
        assert_eq!(kernel.answers(), [0; 0]);
    }
}

/// Input: a lease that ends within the margin of the boot. Output: no wrap around, no permission.
#[test]
fn a_lease_near_the_boot_is_no_lease() {
    let (fence, _) = fence();
    fence.set_lease(Some(Lease {
        id: LeaseId(1),
        valid_until: Time::since_boot(MARGIN / 2),
    }));
    assert!(!fence.permits(ID));
}

/// Input: a lease that is not renewed. Output: silence, before the lease ends.
#[test]
fn the_fence_comes_down_before_the_lease_ends() {
    let (fence, kernel) = fence();
    fence.set_lease(lease(MARGIN + Duration::from_millis(300)));
    let end = fence.lease().unwrap().valid_until;
    fence.switch(ID, &vnis(1..=100));
    assert_eq!(kernel.answers().len(), 100);
    let begun = clock::now();
    let outcome = loop {
        let outcome = fence.keep_watch();
        if outcome != Silenced::default() {
            break outcome;
        }
        assert!(clock::now().since(begun) < DEADLINE);
    };
    assert_eq!(outcome.silenced, 100);
    assert!(clock::now() < end, "the lease guarantees that much");
    assert_eq!(kernel.answers(), [0; 0]);
    assert_eq!(fence.answering(), BTreeSet::new());
}

/// Input: the witnesses' part of the proof is lost while the lease holds, with a VNI that the kernel does not silence; then
/// it is there again. Output: nothing else answers ARP meanwhile, nothing is permitted, and no lease is said to have
/// ended; then all that answered answers again.
#[test]
fn what_is_not_witnessed_is_silent_until_it_is_again() {
    let (fence, kernel) = fence();
    fence.set_lease(lease(Duration::from_secs(600)));
    fence.switch(ID, &vnis(1..=4));
    kernel.0.lock().unwrap().stubborn = Vni::new(2);
    let prove_for = |lasts| {
        fence.prove(&message::Proof {
            lease: ID,
            epochs: vec![(Number(1), clock::now() + lasts)],
            ..message::Proof::default()
        });
    };
    let watched = fence.clone();
    thread::spawn(move || {
        loop {
            assert_eq!(watched.keep_watch(), Silenced::default());
        }
    });
    let becomes = |expected: &[u32]| {
        let begun = clock::now();
        while kernel.answers() != expected {
            thread::sleep(Duration::from_millis(2));
            assert!(clock::now().since(begun) < DEADLINE);
        }
    };
    prove_for(Duration::ZERO);
    assert!(!fence.permits(ID));
    becomes(&[2]);
    let (_, outcome, _) = fence.switch(ID, &vnis(5..=5)).remove(0);
    assert_eq!(outcome, ArpOutcome::Failed);
    assert_eq!(fence.answering().len(), 4, "they are to answer again");
    prove_for(Duration::from_secs(600));
    becomes(&[1, 2, 3, 4]);
    assert!(fence.permits(ID));
}

/// Whether the thread `fence` looks within a second.
fn goes_off(fence: &Fence) -> bool {
    let mut alarm = [PollFd::new(fence.alarm.as_fd(), PollFlags::POLLIN)];
    poll(&mut alarm, PollTimeout::from(1_000_u16)).unwrap() > 0
}

/// Input: the witnesses' part of the proof is lost, and the kernel refuses to silence one VNI; then the lease is renewed.
/// Output: that VNI is tried again soon, until it is silent, and not after that.
#[test]
fn what_the_kernel_refused_to_silence_is_tried_again_under_a_renewed_lease() {
    let (fence, kernel) = fence();
    fence.set_lease(lease(Duration::from_secs(600)));
    fence.switch(ID, &vnis(1..=3));
    kernel.0.lock().unwrap().stubborn = Vni::new(2);
    fence.prove(&message::Proof {
        lease: ID,
        epochs: vec![(Number(1), clock::now())],
        ..message::Proof::default()
    });
    fence.look();
    assert_eq!(kernel.answers(), [2]);
    fence.set_lease(lease(Duration::from_secs(601)));
    assert!(goes_off(&fence));
    kernel.0.lock().unwrap().stubborn = None;
    fence.look();
    assert_eq!(kernel.answers(), [0; 0]);
    fence.set_lease(lease(Duration::from_secs(602)));
    assert!(!goes_off(&fence));
}

/// Input: the witnesses' part of the proof is lost, later it is back; each time the thread `fence` gets no CPU before the
/// same is reported again, the lease is renewed, and the guard is told something. Output: the thread still has to look at
/// once.
#[test]
fn a_look_that_is_due_is_not_put_off() {
    let (fence, _) = fence();
    fence.set_lease(lease(Duration::from_secs(600)));
    fence.switch(ID, &vnis(1..=4));
    let is_due = || goes_off(&fence);
    for lasts in [Duration::ZERO, Duration::from_secs(600)] {
        let until = clock::now() + lasts;
        let report = || {
            fence.prove(&message::Proof {
                lease: ID,
                epochs: vec![(Number(1), until)],
                ..message::Proof::default()
            });
        };
        report();
        assert!(is_due());
        report();
        assert!(is_due(), "it is reported again");
        fence.set_lease(lease(Duration::from_secs(601)));
        assert!(is_due(), "the lease is renewed");
        fence.tell(None, &Order::Peers(Vec::new()));
        assert!(is_due(), "the guard is told something");
        // What the thread does, but for the wait.
        fence.look();
        assert!(!is_due());
        assert_eq!(fence.suspended.load(Ordering::Relaxed), lasts.is_zero());
    }
}

/// Input: a switch that takes so long that the lease ends meanwhile (as after a pause of the process).
/// Output: whatever got on is off again before the call returns, and says so.
#[test]
fn a_switch_that_ends_after_the_lease_is_taken_back() {
    let (fence, kernel) = fence();
    kernel.0.lock().unwrap().slow = Duration::from_millis(300);
    fence.set_lease(lease(MARGIN + Duration::from_millis(150)));
    let outcomes = fence.switch(ID, &vnis(1..=2));
    for (_, outcome, _) in outcomes {
        assert_eq!(outcome, ArpOutcome::Failed);
    }
    assert_eq!(kernel.answers(), [0; 0]);
}

/// Input: a kernel that refuses to be silent. Output: nothing counts as silenced, the calls do not spin, and
/// it is silent once the kernel agrees.
#[test]
fn a_refused_switch_is_tried_again_without_spinning() {
    let (fence, kernel) = fence();
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.switch(ID, &vnis(1..=3));
    kernel.0.lock().unwrap().refuses = true;
    fence.set_lease(None);
    let begun = clock::now();
    for _ in 0..5 {
        let outcome = fence.keep_watch();
        assert_eq!(outcome.silenced, 0);
        assert_eq!(outcome.refused.map(|(count, _)| count), Some(3));
    }
    assert!(clock::now().since(begun) >= Duration::from_millis(80));
    kernel.0.lock().unwrap().refuses = false;
    assert_eq!(fence.keep_watch().silenced, 3);
    assert_eq!(kernel.answers(), [0; 0]);
}

/// A guard that is lost, and successors that come when the test says so.
struct Lost(Sender<()>, Receiver<()>);

impl Guard for Lost {
    fn lease(&mut self, _: Lease) {}
    fn serves(&mut self, _: &[(Vni, u32)]) {}
    fn released(&mut self, _: &[Vni]) {}
    fn standing(&mut self) -> Standing {
        Standing::Lost("killed".into())
    }
    fn dismiss(&mut self) {}
}

impl Guards for Lost {
    fn relieve(&mut self) -> Result<Box<dyn Guard>, guard::Error> {
        self.0.send(()).unwrap();
        self.1.recv_timeout(DEADLINE).unwrap();
        Ok(Box::new(NoGuard))
    }
    fn dismiss(&mut self) {}
}

/// Input: the start of another guard hangs. Output: meanwhile the fence comes down all the same.
#[test]
fn a_guard_that_is_slow_to_start_does_not_hold_up_the_fence() {
    let kernel = FakeKernel::default();
    let (starting, started) = channel();
    let (go, wait) = channel();
    let (unused, _) = channel();
    let fence = Fence::new(
        MARGIN,
        Box::new(kernel.clone()),
        Box::new(Lost(unused, channel().1)),
        Box::new(Lost(starting, wait)),
    );
    let fence = Arc::new(fence.unwrap());
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.switch(ID, &vnis(1..=3));
    let checking = fence.clone();
    let supervisor = thread::spawn(move || checking.check_guard().unwrap());
    started.recv_timeout(DEADLINE).unwrap();
    fence.set_lease(None);
    assert_eq!(fence.keep_watch().silenced, 3);
    assert_eq!(kernel.answers(), [0; 0]);
    go.send(()).unwrap();
    assert_eq!(
        supervisor.join().unwrap(),
        GuardCheck::Replaced("killed".into())
    );
    assert_eq!(fence.check_guard().unwrap(), GuardCheck::Well);
}

#[test]
fn a_guard_that_was_dismissed_is_not_replaced() {
    let (unused, _) = channel();
    let fence = Fence::new(
        MARGIN,
        Box::new(FakeKernel::default()),
        Box::new(Lost(unused, channel().1)),
        Box::new(NoGuard),
    )
    .unwrap();
    fence.dismiss_guard().unwrap();
    assert_eq!(fence.check_guard().unwrap(), GuardCheck::Well);
}

/// Input: a decision under a lease that has been replaced by a new one. Output: refused.
#[test]
fn a_decision_does_not_outlive_its_lease() {
    let (fence, kernel) = fence();
    fence.set_lease(lease(DEADLINE));
    assert!(fence.permits(ID));
    let other = Some(LeaseId(2));
    assert!(!fence.permits(other) && !fence.permits(None));
    fence.switch(other, &vnis(1..=2));
    assert_eq!(kernel.answers(), [0; 0]);
}

/// A guard that remembers what it was told: on (`true`) or released, and of the table. It has fenced if the test says
/// so.
#[derive(Clone, Default)]
struct Hears(
    Arc<Mutex<Heard>>,
    Arc<Mutex<Option<Gated>>>,
    Arc<Mutex<Grants>>,
);

type Heard = (Vec<(u32, bool)>, bool);

impl Hears {
    fn hear(&self, vnis: &[Vni], serves: bool) {
        let told = vnis.iter().map(|vni| (vni.get(), serves));
        self.0.lock().unwrap().0.extend(told);
    }

    /// What it was told since this was asked last.
    fn told(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }

    /// What of those that answer the kernel holds, as far as it was told.
    fn gate(&self) -> Option<Gated> {
        *self.1.lock().unwrap()
    }
}

impl Guard for Hears {
    fn lease(&mut self, _: Lease) {}
    fn serves(&mut self, vnis: &[(Vni, u32)]) {
        let vnis: Vec<Vni> = vnis.iter().map(|&(vni, _)| vni).collect();
        self.hear(&vnis, true);
    }
    fn released(&mut self, vnis: &[Vni]) {
        self.hear(vnis, false);
    }
    fn gate(&mut self, gated: Gated) {
        *self.1.lock().unwrap() = Some(gated);
    }
    fn grants(&mut self) -> Grants {
        std::mem::take(&mut *self.2.lock().unwrap())
    }
    fn standing(&mut self) -> Standing {
        match std::mem::take(&mut self.0.lock().unwrap().1) {
            true => Standing::Fenced,
            false => Standing::Well,
        }
    }
    fn dismiss(&mut self) {}
}

fn guarded() -> (Fence, FakeKernel, Hears) {
    let (kernel, guard) = (FakeKernel::default(), Hears::default());
    let (host, line) = (Box::new(kernel.clone()), Box::new(guard.clone()));
    let fence = Fence::new(MARGIN, host, line, Box::new(NoGuard)).unwrap();
    fence.set_lease(lease(Duration::from_secs(60)));
    (fence, kernel, guard)
}

/// Input: the guard reports twice that the kernel refused to hold the lease. Output: the metrics count all attempts.
#[test]
fn refused_grants_are_counted() {
    let (fence, _, guard) = guarded();
    let metrics = Arc::new(Metrics::default());
    let fence = fence.counting(metrics.clone());
    for refused in [2, 3] {
        guard.2.lock().unwrap().refused = refused;
        fence.check_guard().unwrap();
    }
    let about = About {
        name: "gw1".parse().unwrap(),
        range: VniRange::new(Vni::MIN, Vni::MAX).unwrap(),
    };
    let page = page(&metrics, &about, clock::now());
    let line = "wmgwd_kernel_lease_grants_refused_total 5";
    assert!(page.lines().any(|it| it == line), "{page}");
}

/// The table of the kernel lease as its batches are sent: what the last change of each is, whether it has the name of a
/// bridge, and which VNIs answered then. Grants, names and the table's end may be refused.
#[derive(Clone, Default)]
struct FakeTable {
    kernel: FakeKernel,
    sent: Arc<Mutex<Vec<Sent>>>,
    refuses: Arc<Mutex<bool>>,
    made: Arc<AtomicBool>,
    names: Arc<Mutex<Option<Errno>>>,
    /// It keeps the names that it has.
    keeps: Arc<AtomicBool>,
    removal: Arc<Mutex<Option<Errno>>>,
}

/// The type of the last change (nf_tables.h), whether a bridge is named, and who answered.
type Sent = (u16, bool, Vec<u32>);

const NEW_RULE: u16 = 0xa06;
const NEW_ELEMENTS: u16 = 0xa0c;
const DELETE_ELEMENTS: u16 = 0xa0e;
const DELETE_TABLE: u16 = 0xa02;
/// The table of an answer: its handle alone (NFTA_TABLE_HANDLE).
const TOLD: [u8; 12] = [12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 9];

impl Channel for FakeTable {
    fn transact(&mut self, batch: Batch) -> io::Result<()> {
        let (bytes, _) = batch.finish(1);
        let has = |what: &[u8]| bytes.windows(what.len()).any(|it| it == what);
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            kinds.push(word(at + 4));
            at += usize::from(word(at)).next_multiple_of(4);
        }
        // Before the end of the batch.
        let last = kinds[kinds.len() - 2];
        let sent = (last, has(b"br"), self.kernel.answers());
        self.sent.lock().unwrap().push(sent);
        let is_grant = has(b"token\0") && last != NEW_RULE;
        let refusal = match last {
            NEW_ELEMENTS if has(b"br") => *self.names.lock().unwrap(),
            DELETE_ELEMENTS if has(b"br") && self.keeps.load(Ordering::Relaxed) => {
                Some(Errno::ENOMEM)
            }
            DELETE_TABLE => *self.removal.lock().unwrap(),
            _ => None,
        };
        if let Some(errno) = refusal {
            return Err(errno.into());
        }
        match last {
            NEW_RULE => self.made.store(true, Ordering::Relaxed),
            DELETE_TABLE => self.made.store(false, Ordering::Relaxed),
            _ => {}
        }
        match is_grant && *self.refuses.lock().unwrap() {
            true => Err(Errno::ENOMEM.into()),
            false => Ok(()),
        }
    }

    /// There is a table once it was made, but a closer look finds that it is being changed.
    fn ask(&mut self, question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        const GET_TABLE: [u8; 2] = [1, 10];
        let is_made = self.made.load(Ordering::Relaxed);
        match (is_made, question[4..6] == GET_TABLE) {
            (false, _) => Err(Errno::ENOENT.into()),
            (true, true) => Ok(vec![TOLD.to_vec()]),
            (true, false) => Err(Errno::EAGAIN.into()),
        }
    }
}

impl FakeTable {
    fn gate(&self) -> Gate {
        let channel = self.clone();
        let opener = move || Ok(KernelLease::through(Box::new(channel.clone())));
        Gate::new(MARGIN / 4, Arc::new(opener))
    }

    /// What was sent since this was asked last.
    fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

fn every() -> VniRange {
    VniRange::new(Vni::MIN, Vni::MAX).unwrap()
}

fn gated() -> (Fence, FakeKernel, FakeTable) {
    gated_with(&Ipv6::default())
}

/// On a host with these gateway addresses.
fn gated_with(ipv6: &Ipv6) -> (Fence, FakeKernel, FakeTable) {
    let kernel = FakeKernel::default();
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, none) = (Box::new(kernel.clone()), || Box::new(NoGuard));
    let fence = Fence::new(MARGIN, host, none(), none()).unwrap();
    let mut gate = table.gate();
    gate.manage(ipv6.clone());
    let (fence, tended) = fence.gated_by(gate, every());
    assert_eq!((tended.made, tended.gated), (Some(Made::New), 0));
    // The addresses come last in that batch.
    let sent = match ipv6.bridges.is_empty() {
        true => (NEW_RULE, false, vec![]),
        false => (NEW_ELEMENTS, true, vec![]),
    };
    assert_eq!(table.sent(), [sent]);
    (fence, kernel, table)
}

/// A gateway address on each of so many bridges, from br1 on.
fn addresses(count: u32) -> Ipv6 {
    let mut ipv6 = Ipv6::default();
    for vni in (1..=count).filter_map(Vni::new) {
        let own = [0xfe80, 0, 0, 0, 0x4ff, 0xfe00, 0, 0];
        ipv6.bridges.insert(vni.bridge(), Some(own.into()));
    }
    let shared = [0xfe80, 0, 0, 0, 0, 0, 0, 1];
    ipv6.shared
        .extend((count > 0).then_some(Ipv6Addr::from(shared)));
    ipv6
}

/// Input: VNIs that begin to answer, end, and are fenced. Output: each is in the table before it answers and until it
/// is silent; what is fenced is silenced by one message first.
#[test]
fn a_bridge_is_gated_while_it_answers() {
    let (fence, _, table) = gated();
    fence.set_lease(lease(Duration::from_secs(60)));
    // No guard grants.
    fence.check_guard().unwrap();
    table.sent();
    fence.switch(ID, &vnis(1..=3));
    assert_eq!(table.sent(), [(NEW_ELEMENTS, true, vec![])]);
    fence.switch(ID, &vnis(1..=3));
    assert_eq!(table.sent(), []);
    let off: Vec<(Vni, bool)> = vnis(1..=2).iter().map(|(vni, _)| (*vni, false)).collect();
    fence.switch(ID, &off);
    assert_eq!(table.sent(), [(DELETE_ELEMENTS, true, vec![3])]);
    fence.set_lease(None);
    fence.silence();
    let fenced = [
        (DELETE_ELEMENTS, false, vec![3]),
        (DELETE_ELEMENTS, true, vec![]),
    ];
    assert_eq!(table.sent(), fenced);
    fence.silence();
    fence.switch(ID, &vnis(1..=2));
    assert_eq!(table.sent(), [], "nothing without a lease");
}

/// Input: 10 000 VNIs that are to answer, some are released, and all are fenced; without IPv6 gateway addresses, and with
/// some on each. Output: one message before they answer, one for those that are released, and one that ends the lease
/// while all of the others still answer, before the first is silenced. With both families it is no message more.
#[test]
fn ten_thousand_vnis_are_switched_by_one_message() {
    let shape = |sent: Vec<Sent>| -> Vec<(u16, bool, usize)> {
        let each = sent.into_iter();
        each.map(|(last, named, answered)| (last, named, answered.len()))
            .collect()
    };
    for with_addresses in [0, 10_000] {
        let (fence, _, table) = gated_with(&addresses(with_addresses));
        fence.set_lease(lease(Duration::from_secs(60)));
        fence.check_guard().unwrap();
        let granted = [(NEW_ELEMENTS, false, 0), (DELETE_ELEMENTS, false, 0)];
        assert_eq!(shape(table.sent()), granted);
        fence.switch(ID, &vnis(1..=10_000));
        assert_eq!(shape(table.sent()), [(NEW_ELEMENTS, true, 0)]);
        let some = vnis(1..=1000).into_iter().map(|(vni, _)| (vni, false));
        fence.switch(ID, &some.collect::<Vec<_>>());
        assert_eq!(shape(table.sent()), [(DELETE_ELEMENTS, true, 9000)]);
        fence.silence();
        let fenced = [(DELETE_ELEMENTS, false, 9000), (DELETE_ELEMENTS, true, 0)];
        assert_eq!(shape(table.sent()), fenced);
    }
}

/// Input: a bridge with IPv6 gateway addresses whose ARP the kernel refuses to switch on. Output: it is in the table
/// while that is tried, and not any more when it has failed: it would answer for IPv6 alone, under the next lease too.
#[test]
fn what_does_not_answer_arp_does_not_answer_for_ipv6() {
    let (fence, kernel, table) = gated_with(&addresses(1));
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.check_guard().unwrap();
    kernel.0.lock().unwrap().refuses_to_answer = true;
    table.sent();
    let outcomes = fence.switch(ID, &vnis(1..=1));
    assert_eq!(outcomes[0].1, ArpOutcome::Failed);
    let sent = [
        (NEW_ELEMENTS, true, vec![]),
        (DELETE_ELEMENTS, true, vec![]),
    ];
    assert_eq!(table.sent(), sent);
}

/// Input: VNIs that are switched off, and a kernel that refuses to take their bridges out of the table: one has IPv6
/// gateway addresses. Output: that one is not taken for silent, and nothing is granted in that table any more; once
/// there is another, it is.
#[test]
fn what_the_kernel_keeps_in_the_table_is_not_taken_for_silent() {
    let (fence, _, table) = gated_with(&addresses(1));
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.check_guard().unwrap();
    fence.switch(ID, &vnis(1..=3));
    table.keeps.store(true, Ordering::Relaxed);
    let off = |numbers| -> Vec<ArpOutcome> {
        let off: Vec<(Vni, bool)> = vnis(numbers).iter().map(|(vni, _)| (*vni, false)).collect();
        let outcomes = fence.switch(ID, &off).into_iter();
        outcomes.map(|(_, outcome, _)| outcome).collect()
    };
    assert_eq!(off(2..=2), [ArpOutcome::Answers(false)]);
    assert!(fence.is_gated());
    assert_eq!(off(1..=2), [ArpOutcome::Failed, ArpOutcome::Answers(false)]);
    assert!(!fence.is_gated() && !fence.is_silent());
    assert_eq!(off(1..=1), [ArpOutcome::Failed]);
    table.made.store(false, Ordering::Relaxed);
    let tended = fence.tend_gate(false);
    assert_eq!((tended.made, tended.gated), (Some(Made::PutBack), 1));
    assert_eq!(off(1..=1), [ArpOutcome::Answers(false)]);
    assert_eq!(fence.answering(), [Vni::new(3).unwrap()].into());
    assert!(!fence.is_silent(), "one answers");
}

/// Input: a set that has no room, or a kernel that refuses names for another reason; later it takes them. Output: what
/// is to answer does; it is published as long as it is so, also when others get in meanwhile; and the rest gets in by
/// itself.
#[test]
fn names_that_are_refused_cost_no_service() {
    for errno in [Errno::ENFILE, Errno::ENOMEM] {
        let (fence, kernel, table) = gated();
        assert_eq!(fence.kernel_hold(), Some(KernelHold::Held));
        *table.names.lock().unwrap() = Some(errno);
        fence.set_lease(lease(Duration::from_secs(60)));
        fence.switch(ID, &vnis(1..=3));
        assert_eq!(kernel.answers(), [1, 2, 3]);
        let tended = fence.tend_gate(false);
        let trouble = chain(&tended.trouble.unwrap());
        assert_eq!((tended.stands, tended.gated, tended.missing), (true, 0, 3));
        let is_published = || fence.kernel_hold() == Some(KernelHold::Missing(trouble.clone()));
        assert!(is_published(), "{errno}");
        *table.names.lock().unwrap() = None;
        fence.switch(ID, &vnis(4..=4));
        let tended = fence.tend_gate(false);
        assert_eq!((tended.gated, tended.missing), (1, 3), "{errno}");
        assert!(is_published(), "{errno}");
        let begun = clock::now();
        while fence.tend_gate(false).missing > 0 {
            assert!(clock::now().since(begun) < DEADLINE, "{errno}");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(fence.tend_gate(false).gated, 4);
        assert_eq!(fence.kernel_hold(), Some(KernelHold::Held));
    }
}

/// Input: a lease that ends while one VNI is in the table and two are not, as the kernel refused. Output: the two are
/// silent before anything is asked of nf_tables, which may be busy with another program's rules.
#[test]
fn what_the_kernel_does_not_hold_is_silenced_first() {
    let (fence, kernel, table) = gated();
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.switch(ID, &vnis(2..=2));
    *table.names.lock().unwrap() = Some(Errno::ENOMEM);
    fence.switch(ID, &vnis(1..=3));
    assert_eq!(kernel.answers(), [1, 2, 3]);
    table.sent();
    fence.silence();
    let sent = [
        (DELETE_ELEMENTS, false, vec![2]),
        (DELETE_ELEMENTS, true, vec![]),
    ];
    assert_eq!(table.sent(), sent);
}

/// Input: VNIs that are to answer while no guard has granted; then the guard has fenced, and there is a new lease.
/// Output: the daemon grants, before they are in the table.
#[test]
fn nothing_is_gated_that_is_not_granted() {
    let kernel = FakeKernel::default();
    let guard = Hears::default();
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, line) = (Box::new(kernel.clone()), Box::new(guard.clone()));
    let fence = Fence::new(MARGIN, host, line, Box::new(NoGuard)).unwrap();
    let (fence, _) = fence.gated_by(table.gate(), every());
    table.sent();
    for _ in 0..2 {
        fence.set_lease(lease(Duration::from_secs(60)));
        fence.switch(ID, &vnis(1..=1));
        let sent = [
            (NEW_ELEMENTS, false, vec![]),
            (DELETE_ELEMENTS, false, vec![]),
            (NEW_ELEMENTS, true, vec![]),
        ];
        assert_eq!(table.sent(), sent);
        fence.switch(ID, &[(Vni::MIN, false)]);
        table.sent();
        fence.set_lease(None);
        guard.0.lock().unwrap().1 = true;
        assert_eq!(fence.check_guard().unwrap(), GuardCheck::Fenced);
        assert_eq!(table.sent(), []);
    }
}

/// Input: a kernel that does not tell what answers as a run before has left it. Output: the guard does not hear that
/// all is in the table.
#[test]
fn what_is_not_known_may_be_missing() {
    let (kernel, guard) = (FakeKernel::default(), Hears::default());
    kernel.0.lock().unwrap().tells_nothing = true;
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, line) = (Box::new(kernel.clone()), Box::new(guard.clone()));
    let fence = Fence::new(MARGIN, host, line, Box::new(NoGuard)).unwrap();
    fence.gated_by(table.gate(), every());
    assert_eq!(guard.gate(), Some(Gated::Some));
}

/// Input: names that are refused; their VNIs are silent later. Output: then none is missing any more.
#[test]
fn what_is_silent_is_not_missing() {
    let (fence, _, table) = gated();
    *table.names.lock().unwrap() = Some(Errno::ENOMEM);
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.switch(ID, &vnis(1..=3));
    assert_eq!(fence.tend_gate(false).missing, 3);
    fence.silence();
    assert_eq!(fence.tend_gate(false).missing, 0);
    assert_eq!(fence.kernel_hold(), Some(KernelHold::Held));
}

/// Input: bridges that answer as a run before has left them, and no lease. Output: in the table while they answer, and
/// silenced before anything else.
#[test]
fn what_a_run_before_left_is_silenced_without_a_lease() {
    let kernel = FakeKernel::default();
    kernel.0.lock().unwrap().answers = vnis(5..=6).into_iter().map(|(vni, _)| vni).collect();
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, none) = (Box::new(kernel.clone()), || Box::new(NoGuard));
    let fence = Fence::new(MARGIN, host, none(), none()).unwrap();
    let (fence, tended) = fence.gated_by(table.gate(), every());
    assert_eq!(tended.gated, 2);
    assert_eq!(kernel.answers(), [0; 0]);
    let sent = [
        (NEW_ELEMENTS, true, vec![5, 6]),
        (DELETE_ELEMENTS, false, vec![5, 6]),
        (DELETE_ELEMENTS, true, vec![]),
    ];
    assert_eq!(table.sent(), sent);
    assert_eq!(fence.answering(), BTreeSet::new());
}

/// Input: the same, with the lease of that run. Output: they go on, are in the table, and the guard knows them.
#[test]
fn what_a_run_before_left_goes_on_with_its_lease() {
    let (kernel, guard) = (FakeKernel::default(), Hears::default());
    kernel.0.lock().unwrap().answers = vnis(5..=6).into_iter().map(|(vni, _)| vni).collect();
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, line) = (Box::new(kernel.clone()), Box::new(guard.clone()));
    let fence = Fence::new(MARGIN, host, line, Box::new(NoGuard)).unwrap();
    fence.set_lease(lease(Duration::from_secs(60)));
    let (fence, tended) = fence.gated_by(table.gate(), every());
    assert_eq!((tended.gated, tended.missing), (2, 0));
    assert_eq!(kernel.answers(), [5, 6]);
    assert_eq!(guard.told(), [(5, true), (6, true)]);
    fence.set_lease(None);
    fence.silence();
    assert_eq!(kernel.answers(), [0; 0]);
}

/// Input: a kernel that does not grant, while something else changes nf_tables all the time, so that no look at it
/// succeeds; then one that does not remove the table, either. Output: the table is removed, as soon as the kernel does
/// so, and the guard hears that there is none.
#[test]
fn a_table_that_grants_nothing_is_removed_without_a_look() {
    let (kernel, guard) = (FakeKernel::default(), Hears::default());
    let table = FakeTable {
        kernel: kernel.clone(),
        ..FakeTable::default()
    };
    let (host, line) = (Box::new(kernel.clone()), Box::new(guard.clone()));
    let fence = Fence::new(MARGIN, host, line, Box::new(NoGuard)).unwrap();
    let (fence, _) = fence.gated_by(table.gate(), every());
    assert_eq!(guard.gate(), Some(Gated::All));
    *table.refuses.lock().unwrap() = true;
    *table.removal.lock().unwrap() = Some(Errno::ENOMEM);
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.check_guard().unwrap();
    fence.switch(ID, &vnis(1..=1));
    assert_eq!(guard.gate(), Some(Gated::None));
    let is_made = || table.made.load(Ordering::Relaxed);
    assert!(!fence.is_gated() && is_made());
    fence.tend_gate(false);
    assert!(!fence.is_gated() && is_made());
    *table.removal.lock().unwrap() = None;
    fence.tend_gate(false);
    assert!(!is_made());
    // It is made again, and again, and each is removed at once.
    for _ in 0..2 {
        fence.tend_gate(true);
        assert!(!fence.is_gated() && !is_made());
    }
    assert_eq!(kernel.answers(), [1]);
    *table.refuses.lock().unwrap() = false;
    assert_eq!(fence.tend_gate(true).made, Some(Made::New));
    assert_eq!(guard.gate(), Some(Gated::All));
    *table.removal.lock().unwrap() = Some(Errno::ENOMEM);
    assert!(fence.dismiss_guard().is_err(), "said");
}

/// Input: a guard that does not grant; then a kernel that does not, either. Output: the daemon grants; then the table
/// is removed, so that what is served is not silenced by it, and it is made again when it can be.
#[test]
fn a_kernel_that_grants_nothing_costs_no_service() {
    let (fence, kernel, table) = gated();
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.check_guard().unwrap();
    let granted = [
        (NEW_ELEMENTS, false, vec![]),
        (DELETE_ELEMENTS, false, vec![]),
    ];
    assert_eq!(table.sent(), granted);
    fence.check_guard().unwrap();
    assert_eq!(table.sent(), [], "it holds for long enough");
    fence.switch(ID, &vnis(1..=1));

    let (fence, other, table) = gated();
    *table.refuses.lock().unwrap() = true;
    fence.set_lease(lease(Duration::from_secs(60)));
    fence.switch(ID, &vnis(1..=1));
    fence.check_guard().unwrap();
    assert!(!fence.is_gated());
    for _ in 0..2 {
        let tended = fence.tend_gate(true);
        let trouble = tended.trouble.unwrap().to_string();
        assert!(trouble.contains("cannot grant"), "{trouble}");
        assert!(!tended.stands);
    }
    assert_eq!(other.answers(), [1]);
    *table.refuses.lock().unwrap() = false;
    let tended = fence.tend_gate(true);
    assert_eq!((tended.made, tended.gated), (Some(Made::New), 1));
    assert_eq!(kernel.answers(), [1]);
}

/// Input: a host without nf_tables. Output: said, and all goes on without.
#[test]
fn a_host_without_nf_tables_serves() {
    let (fence, kernel, _) = guarded();
    let missing = || Err(nft::Error::Unsupported(Errno::EPROTONOSUPPORT.into()));
    let gate = Gate::new(MARGIN / 4, Arc::new(missing));
    let (fence, tended) = fence.gated_by(gate, every());
    assert!(matches!(tended.trouble, Some(nft::Error::Unsupported(_))));
    assert!(
        matches!(fence.kernel_hold(), Some(KernelHold::Missing(why)) if why.contains("no nf_tables"))
    );
    fence.switch(ID, &vnis(1..=2));
    assert_eq!(kernel.answers(), [1, 2]);
    fence.check_guard().unwrap();
    assert_eq!(kernel.answers(), [1, 2]);
    assert!(
        fence.tend_gate(false).trouble.is_none(),
        "not so soon again"
    );
    fence.silence();
    assert_eq!(kernel.answers(), [0; 0]);
}

/// Input: a kernel that refuses to be silent, then is. Output: the guard forgets the VNI only then.
#[test]
fn the_guard_keeps_what_could_not_be_silenced() {
    let (fence, kernel, guard) = guarded();
    fence.switch(ID, &vnis(1..=1));
    assert_eq!(guard.told(), [(1, true)]);
    let off = [(Vni::MIN, false)];
    kernel.0.lock().unwrap().refuses = true;
    fence.switch(ID, &off);
    assert_eq!(guard.told(), []);
    kernel.0.lock().unwrap().refuses = false;
    fence.switch(ID, &off);
    assert_eq!(guard.told(), [(1, false)]);
}

/// Input: what answers, and what does not, is written again; then the guard has fenced. Output: it hears nothing
/// twice while it remembers, and everything once it has forgotten.
#[test]
fn the_guard_is_told_once() {
    let (fence, _, guard) = guarded();
    let all: Vec<(Vni, bool)> = vnis(1..=3)
        .into_iter()
        .map(|(vni, _)| (vni, vni.get() < 3))
        .collect();
    fence.switch(ID, &all);
    assert_eq!(guard.told(), [(1, true), (2, true)]);
    fence.switch(ID, &all);
    assert_eq!(guard.told(), []);
    guard.0.lock().unwrap().1 = true;
    assert_eq!(fence.check_guard().unwrap(), GuardCheck::Fenced);
    fence.switch(ID, &all);
    assert_eq!(guard.told(), [(1, true), (2, true)]);
}

/// Input: something else on the host switches ARP of VNIs that were switched here, and of one that was not; then
/// the lease ends. Output: put back what was told, and named; without a lease, only to silence.
#[test]
fn what_is_switched_behind_our_back_is_put_back() {
    let (fence, kernel, _) = guarded();
    let told: Vec<(Vni, bool)> = vnis(1..=4)
        .into_iter()
        .map(|(vni, _)| (vni, vni.get() < 3))
        .collect();
    fence.switch(ID, &told);
    let meddle = |answers: &[u32]| {
        kernel.0.lock().unwrap().answers = answers.iter().filter_map(|it| Vni::new(*it)).collect();
    };
    let all: Vec<Vni> = (1..=9).filter_map(Vni::new).collect();
    let put_back = || {
        let outcome = fence.put_back(&all);
        assert!(outcome.refused.is_empty());
        let told = outcome.differed.iter();
        told.map(|(vni, answer)| (vni.get(), *answer))
            .collect::<Vec<_>>()
    };
    assert_eq!(put_back(), []);
    meddle(&[2, 4, 9]);
    assert_eq!(put_back(), [(1, true), (4, false)]);
    assert_eq!(kernel.answers(), [1, 2, 9]);
    let some = |last: Option<u32>, count| -> Vec<u32> {
        let vnis = fence.some_after(last.and_then(Vni::new), count);
        vnis.into_iter().map(Vni::get).collect()
    };
    assert_eq!(some(None, 3), [1, 2, 3]);
    assert_eq!(some(Some(3), 3), [4, 1, 2]);
    assert_eq!(some(Some(4), 9), [1, 2, 3, 4]);

    kernel.0.lock().unwrap().absent.extend(Vni::new(2));
    assert_eq!(fence.put_back(&all).absent, [Vni::new(2).unwrap()]);

    fence.set_lease(None);
    meddle(&[1, 4]);
    assert_eq!(put_back(), [(4, false)]);
}
