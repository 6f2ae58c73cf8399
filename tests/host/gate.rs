//! The kernel lease against a real kernel: ARP requests of a station, numbered, and what became of each. A request
//! that was sent when the kernel's hold on the lease had ended must not be answered, whatever became of daemon and
//! guard. What is counted is the time before a request is sent: it is never later than the kernel sees it.

use crate::flood::{Flood, Load, Tally};
use crate::namespace::{self, bridge_with_station, eventually, sh, try_sh};
use crate::no_guard::NoGuard;
use crate::vni;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Ipv6Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;
use wmgwd::daemon::fence::Fence;
use wmgwd::daemon::gate::{Gate, Made};
use wmgwd::gateway::ArpOutcome;
use wmgwd::guard::protocol::{Gated, Order, VERSION};
use wmgwd::guard::{Grants, Guard, Standing};
use wmgwd::host::address::Ipv6;
use wmgwd::host::nft::socket::{Socket, Watch};
use wmgwd::host::nft::wire::{Batch, Family};
use wmgwd::host::nft::{Channel, Error, Found, KernelLease, table};
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::{ArpAudit, Kernel};
use wmgwd::model::types::{Lease, LeaseId, Time, Vni, VniRange};
use wmgwd::sys::clock;

const ID: LeaseId = LeaseId(1);
/// How long before the end of the lease daemon, guard and kernel come down.
pub const MARGIN: Duration = Duration::from_millis(300);
const GUARD_MARGIN: Duration = Duration::from_millis(150);
pub const GATE_MARGIN: Duration = Duration::from_millis(75);

/// What Debian's nftables.service does on a start, a reload and a stop, with the /etc/nftables.conf of its package.
const DEBIAN_RELOAD: &str = "nft -f - <<'END'
flush ruleset
table inet filter {
    chain input { type filter hook input priority filter; }
    chain forward { type filter hook forward priority filter; }
    chain output { type filter hook output priority filter; }
}
END";

/// A flood from the station, about the bridge's address.
fn flood() -> Flood {
    Flood::start("/run/netns/station".as_ref(), [10, 7, 0, 9], [10, 7, 0, 1])
}

/// The real guard process.
pub struct Process(Child);

impl Process {
    pub fn start(address: &str) -> (Process, Line) {
        Process::with(address, GUARD_MARGIN)
    }

    /// One that fences so long before the end of the lease.
    fn with(address: &str, margin: Duration) -> (Process, Line) {
        let child = Command::new(env!("CARGO_BIN_EXE_wmgwd"))
            .args(["guard", address, VERSION])
            .arg(margin.as_millis().to_string())
            .args(["1", "100", "list", "costs", "real", "info"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let name = SocketAddr::from_abstract_name(address).unwrap();
        let mut stream = None;
        eventually("the guard listens", || {
            stream = UnixStream::connect_addr(&name).ok();
            stream.is_some()
        });
        let mut stream = BufReader::new(stream.unwrap());
        stream
            .get_mut()
            .write_all(Order::Hello.line().as_bytes())
            .unwrap();
        let mut greeting = String::new();
        stream.read_line(&mut greeting).unwrap();
        stream.get_mut().set_nonblocking(true).unwrap();
        let line = Line {
            stream: Arc::new(Mutex::new(stream)),
            said: String::new(),
        };
        (Process(child), line)
    }

    /// In kB.
    fn locked_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmLck:"));
        let value = line.unwrap().trim().trim_end_matches("kB").trim();
        value.parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon's line to it.
#[derive(Clone)]
pub struct Line {
    stream: Arc<Mutex<BufReader<UnixStream>>>,
    said: String,
}

impl Line {
    fn tell(&mut self, order: &Order) {
        let mut stream = self.stream.lock().unwrap();
        // A guard that was killed hears nothing.
        let _ = stream.get_mut().write_all(order.line().as_bytes());
    }

    /// Whether the guard has granted until then.
    pub fn has_granted(&mut self, until: Time) -> bool {
        let mut text = [0; 4096];
        loop {
            match self.stream.lock().unwrap().get_mut().read(&mut text) {
                Ok(0) => break,
                Ok(length) => self.said += std::str::from_utf8(&text[..length]).unwrap(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        let line = format!("granted {} ", until.as_duration().as_nanos());
        self.said.contains(&line)
    }
}

impl Guard for Line {
    fn lease(&mut self, lease: Lease) {
        self.tell(&Order::Lease(lease));
    }
    fn serves(&mut self, vnis: &[(Vni, u32)]) {
        self.tell(&Order::Serves(vnis.to_vec()));
    }
    fn released(&mut self, vnis: &[Vni]) {
        self.tell(&Order::Released(vnis.to_vec()));
    }
    fn gate(&mut self, gated: Gated) {
        self.tell(&Order::Gate(gated));
    }
    fn grants(&mut self) -> Grants {
        Grants::default()
    }
    fn standing(&mut self) -> Standing {
        Standing::Well
    }
    fn dismiss(&mut self) {
        self.tell(&Order::Bye);
    }
}

fn gate() -> Gate {
    Gate::new(GATE_MARGIN, Arc::new(KernelLease::open))
}

pub fn range() -> VniRange {
    VniRange::new(vni(1), vni(100)).unwrap()
}

/// The fence of a daemon whose threads do not run: as if it were stopped, or killed.
fn fence(line: Box<dyn Guard>) -> (Fence, Option<Made>) {
    fence_under(None, line, range())
}

/// The fence of a daemon that has taken over a lease, or has none.
fn fence_under(
    lease: Option<Lease>,
    line: Box<dyn Guard>,
    range: VniRange,
) -> (Fence, Option<Made>) {
    let kernel = Box::new(ProcKernel::new());
    let fence = Fence::new(MARGIN, kernel, line, Box::new(NoGuard)).unwrap();
    fence.set_lease(lease);
    let (fence, tended) = fence.gated_by(gate(), range);
    assert!(tended.trouble.is_none(), "{tended:?}");
    (fence, tended.made)
}

pub fn lease(lasts: Duration) -> Lease {
    Lease {
        id: ID,
        valid_until: clock::now() + lasts,
    }
}

/// Has VNI 7 answered; says whether it does.
pub fn serves(fence: &Fence) -> bool {
    let outcomes = fence.switch(Some(ID), &[(vni(7), true)]);
    let answers = |it: &(_, ArpOutcome, _)| it.1 == ArpOutcome::Answers(true);
    outcomes.iter().all(answers)
}

/// The switch of br7.
fn switch() -> String {
    sh("cat /proc/sys/net/ipv4/conf/br7/arp_ignore")
}

pub fn has_table() -> bool {
    try_sh("nft list table arp wmgwd").0
}

fn owned() -> String {
    sh("nft list set arp wmgwd owned")
}

/// Input: a daemon and its guard, both killed at the same moment, twenty times, and both stopped; under load and
/// a flood of ARP. Output: nothing that is asked after the end of the last grant is answered, and nothing after
/// one that was not. `arp_ignore` says the whole time that the bridge answers.
#[test]
fn nothing_is_answered_after_the_end() {
    namespace::run(
        "gate::nothing_is_answered_after_the_end",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            let _load = Load::start();
            let mut tally = Tally::default();
            let mut undisturbed = 0;
            for round in 0..25 {
                sh("nft flush ruleset");
                let (guard, line) = Process::start(&format!("wmgwd/gate-{round}"));
                let (fence, made) = fence(Box::new(line.clone()));
                assert_eq!(made, Some(Made::New));
                let mut granted = line.clone();
                let renew = || {
                    let lease = lease(Duration::from_millis(900));
                    fence.set_lease(Some(lease));
                    lease.valid_until - GATE_MARGIN
                };
                let first = renew();
                eventually("the guard grants", || granted.has_granted(first));
                // Under load the lease may be over before the switch is reached.
                eventually("it serves", || {
                    renew();
                    serves(&fence)
                });
                assert!(guard.locked_memory() > 0, "its memory is locked");
                let flood = flood();
                let mut end = renew();
                for _ in 0..5 + round % 5 {
                    sleep(Duration::from_millis(40));
                    end = renew();
                }
                eventually("the guard grants", || granted.has_granted(end));
                let signal = match round {
                    0..20 => Signal::SIGKILL,
                    _ => Signal::SIGSTOP,
                };
                guard.signal(signal);
                let killed = clock::now();
                sleep(end.since(killed) + Duration::from_millis(150));
                let requests = flood.end();
                assert_eq!(
                    sh("cat /proc/sys/net/ipv4/conf/br7/arp_ignore").trim(),
                    "0",
                    "nothing else has silenced it"
                );
                tally.add(&requests, killed, end);
                // A renewal that came too late on a busy machine leaves a gap; it is not what this test is about.
                let before = requests.iter().filter(|it| it.sent < killed);
                undisturbed +=
                    u32::from(before.clone().count() > 0 && before.clone().all(|it| it.answered));
            }
            println!("{tally}");
            assert_eq!((tally.late, tally.again), (0, 0));
            assert!(undisturbed > 0, "no round without a late renewal");
        },
    );
}

/// A socket before which the process is held up with each batch: after its look at the clock.
struct Stalls {
    socket: Socket,
    stall: Arc<Mutex<Duration>>,
}

impl Channel for Stalls {
    fn transact(&mut self, batch: Batch) -> std::io::Result<()> {
        sleep(*self.stall.lock().unwrap());
        self.socket.transact(batch)
    }
    fn ask(&mut self, question: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        self.socket.ask(question)
    }
}

/// Input: a guard that is held up between its look at the clock and the kernel, for up to three times as long as a
/// token lasts. Output: nothing is granted beyond the end, however late it gets there.
#[test]
fn a_stalled_grant_is_no_grant() {
    namespace::run(
        "gate::a_stalled_grant_is_no_grant",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            let stall = Arc::new(Mutex::new(Duration::ZERO));
            let mut lease = KernelLease::through(Box::new(Stalls {
                socket: Socket::open().unwrap(),
                stall: stall.clone(),
            }));
            lease.make(&Found::Absent, &[], &Ipv6::default()).unwrap();
            lease.add_names(&["br7".to_owned()]).unwrap();
            let flood = flood();
            let mut spans = Vec::new();
            let (mut refused, mut granted) = (0, 0);
            for round in 0..30 {
                *stall.lock().unwrap() = Duration::from_millis(round * 10);
                let begun = clock::now();
                let end = begun + Duration::from_millis(350);
                match lease.grant(end) {
                    Ok(tries) => {
                        granted += 1;
                        refused += tries;
                    }
                    Err(Error::Late | Error::Over) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                spans.push((begun, end));
                sleep(end.since(clock::now()) + Duration::from_millis(60));
            }
            let requests = flood.end();
            let late = requests.iter().filter(|it| {
                let is_held = |(begun, end): &(Time, Time)| it.sent >= *begun && it.sent < *end;
                it.answered && !spans.iter().any(is_held)
            });
            let late = late.count();
            let answered = requests.iter().filter(|it| it.answered).count();
            println!(
                "{} requests, {answered} answered, {late} late; {granted} grants, {refused} refused",
                requests.len()
            );
            assert!(granted > 0 && refused > 0 && answered > 0);
            assert_eq!(late, 0);
        },
    );
}

/// Input: a reload of nftables.service, `nft flush ruleset`, a rule taken away, and a set emptied of its only rule's
/// chain, while a bridge serves. Output: put back each time, said once each, and no request unanswered.
#[test]
fn a_table_that_is_lost_is_put_back() {
    namespace::run(
        "gate::a_table_that_is_lost_is_put_back",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            let (fence, _) = fence(Box::new(NoGuard));
            let mut watch = Watch::open().unwrap();
            fence.set_lease(Some(lease(Duration::from_secs(600))));
            // No guard grants here.
            fence.check_guard().unwrap();
            assert!(serves(&fence));
            let whole = sh("nft list table arp wmgwd | grep -v -e expires -e counter");
            assert!(owned().contains("br7"));
            let flood = flood();
            let mut dropping = Time::since_boot(Duration::MAX);
            for meddle in [
                DEBIAN_RELOAD,
                "nft flush ruleset",
                "nft flush chain arp wmgwd input",
                "nft delete table arp wmgwd",
                "nft insert rule arp wmgwd input accept",
                "nft flush set arp wmgwd owned",
                "nft delete element arp wmgwd owned '{ br7 }'",
                "nft add element arp wmgwd owned '{ br9, lan9 }'",
                "nft add table arp wmgwd '{ flags dormant; }'",
                "nft add chain arp wmgwd other '{ type filter hook output priority 0; }'",
                "nft add chain arp wmgwd input '{ policy drop; }'",
                "nft replace rule arp wmgwd input handle $(handle iifname) accept",
                "nft replace rule arp wmgwd input handle $(handle lease) arp operation != @lease accept",
            ] {
                let handle = "handle() { nft -a list chain arp wmgwd input | sed -n \"/$1/s/.*handle //p\"; }";
                let meddle = format!("{handle}; {meddle}");
                let before = clock::now();
                sh(&meddle);
                if meddle.contains("!= @lease") {
                    dropping = dropping.min(before);
                }
                let mut said = 0;
                let mut look = || {
                    let tended = fence.tend_gate(watch.look(fence.gate_port()).unwrap());
                    assert!(tended.trouble.is_none(), "{meddle}: {tended:?}");
                    said += usize::from(tended.made == Some(Made::PutBack));
                    assert_eq!(tended.gated, 1);
                };
                for _ in 0..10 {
                    look();
                    sleep(Duration::from_millis(20));
                }
                assert_eq!(said, 1, "{meddle}");
                assert_eq!(
                    sh("nft list table arp wmgwd | grep -v -e expires -e counter"),
                    whole
                );
            }
            let requests = flood.end();
            // The last of them has the rule drop what it should let pass: not to be counted among those that lose
            // nothing.
            let lost = requests
                .iter()
                .filter(|it| !it.answered && it.sent < dropping);
            let lost = lost.count();
            println!("{} requests, {lost} lost", requests.len());
            assert_eq!(lost, 0);
            // What this process changes is no reason to look.
            watch.look(fence.gate_port()).unwrap();
            for answer in [false, true] {
                fence.switch(Some(ID), &[(vni(7), answer)]);
                fence.check_guard().unwrap();
                assert!(!watch.look(fence.gate_port()).unwrap());
            }
            fence.dismiss_guard().unwrap();
            assert!(!has_table());
        },
    );
}

/// Input: a table of the same name that wmgwd did not make. Output: it is left alone, and told; ours comes once it is
/// gone.
#[test]
fn a_foreign_table_is_left_alone() {
    namespace::run("gate::a_foreign_table_is_left_alone", &["nft"], || {
        sh(
            "ip link set lo up; nft add table arp wmgwd; nft add set arp wmgwd mine '{ type mark; }'",
        );
        let foreign = sh("nft list ruleset");
        let kernel = Box::new(ProcKernel::new());
        let fence = Fence::new(MARGIN, kernel, Box::new(NoGuard), Box::new(NoGuard)).unwrap();
        let (fence, tended) = fence.gated_by(gate(), range());
        assert!(matches!(tended.trouble, Some(Error::Foreign)), "{tended:?}");
        assert!(!tended.stands);
        assert!(matches!(
            KernelLease::open().unwrap().remove(),
            Err(Error::Foreign)
        ));
        try_sh(&format!(
            "{} withdraw --maxvni 9",
            env!("CARGO_BIN_EXE_wmgwd")
        ));
        fence.tend_gate(true);
        assert_eq!(sh("nft list ruleset"), foreign);
        sh("nft delete table arp wmgwd");
        assert_eq!(fence.tend_gate(true).made, Some(Made::New));
    });
}

/// Input: a table whose lease holds, as a run before left it, with a bridge that it lacks, and the lease of that run.
/// Output: it is kept with its lease, has all that answer, and no request is lost.
#[test]
fn a_lease_that_holds_is_kept() {
    namespace::run(
        "gate::a_lease_that_holds_is_kept",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            let (before, _) = fence(Box::new(NoGuard));
            before.set_lease(Some(lease(Duration::from_secs(600))));
            before.check_guard().unwrap();
            assert!(serves(&before));
            sh("nft add element arp wmgwd owned '{ br555, lan9 }'");
            let flood = flood();
            let (after, made) = fence_under(before.lease(), Box::new(NoGuard), range());
            assert_eq!(made, Some(Made::Kept));
            assert!(sh("nft list set arp wmgwd lease").contains("expires"));
            assert!(!owned().contains("br555") && !owned().contains("lan9"));
            assert!(serves(&after));
            // Lost from the table, or never in it for lack of room.
            sh("nft delete element arp wmgwd owned '{ br7 }'");
            let (after, made) = fence_under(after.lease(), Box::new(NoGuard), range());
            assert_eq!(made, Some(Made::Kept));
            assert!(owned().contains("br7"));
            let requests = flood.end();
            assert!(requests.iter().all(|it| it.answered));
            // What this run does not serve it takes out, though the run before has put it in.
            after.switch(Some(ID), &[(vni(7), false)]);
            assert!(!owned().contains("br7"));
        },
    );
}

/// Input: daemon and guard killed at once; their lease ends; then a daemon starts, with the same range, with one that
/// the bridge is not in, and on a table that something else has changed: under a flood of ARP. Output: nothing is
/// answered from the end of the kernel's hold on, not while the table is taken over and not under the next lease, and
/// the bridge is silent by its switch.
#[test]
fn what_died_stays_silent() {
    namespace::run(
        "gate::what_died_stays_silent",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            let others = VniRange::new(vni(10), vni(100)).unwrap();
            for (range, meddle) in [
                (range(), "true"),
                (others, "true"),
                (range(), "nft add chain arp wmgwd other"),
            ] {
                sh("nft flush ruleset");
                let (before, _) = fence(Box::new(NoGuard));
                before.set_lease(Some(lease(Duration::from_secs(3))));
                before.check_guard().unwrap();
                assert!(serves(&before));
                let flood = flood();
                drop(before);
                eventually("the kernel's hold is over", || {
                    !sh("nft list set arp wmgwd lease").contains("expires")
                });
                let end = clock::now();
                assert_eq!(switch(), "0\n", "nothing else has silenced it");
                sh(meddle);
                let (after, _) = fence_under(None, Box::new(NoGuard), range);
                assert_eq!(switch(), "8\n");
                assert!(!owned().contains("br7"));
                after.set_lease(Some(lease(Duration::from_secs(60))));
                after.check_guard().unwrap();
                let requests = flood.end();
                let late = requests.iter().filter(|it| it.answered && it.sent >= end);
                assert_eq!(late.count(), 0, "{range:?} {meddle}");
                assert!(requests.iter().any(|it| it.answered));
                assert!(requests.iter().filter(|it| it.sent >= end).count() > 50);
            }
        },
    );
}

/// Input: a kernel that can have the table, and one where there is nothing of the kind. Output: the trial says so,
/// makes nothing, and no other program hears of it.
#[test]
fn a_trial_makes_nothing() {
    namespace::run("gate::a_trial_makes_nothing", &["nft"], || {
        let mut watch = Watch::open().unwrap();
        KernelLease::open()
            .unwrap()
            .try_to_make(Family::Arp)
            .unwrap();
        assert!(!has_table());
        assert!(!watch.look(0).unwrap());
        let mut table = KernelLease::open().unwrap();
        table
            .make(&Found::Absent, &["br7".to_owned()], &Ipv6::default())
            .unwrap();
        assert!(watch.look(0).unwrap());
        // Beside a table that is there.
        KernelLease::open()
            .unwrap()
            .try_to_make(Family::Arp)
            .unwrap();
        assert!(!watch.look(0).unwrap());
        assert!(owned().contains("br7"));
        // Another of the same name is not removed in its place.
        sh("nft delete table arp wmgwd; nft add table arp wmgwd");
        assert!(!table.remove_own().unwrap());
        assert!(has_table());
    });
}

/// Input: a guard whose daemon is gone; and a host where nothing runs any more. Output: no table is left by the guard
/// once it has fenced, nor by `wmgwd withdraw`.
#[test]
fn no_table_is_left_behind() {
    namespace::run(
        "gate::no_table_is_left_behind",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station("");
            // So long that the kernel's hold would end by itself a good while later.
            let (mut guard, line) = Process::with("wmgwd/gate", GUARD_MARGIN * 4);
            let (fence, _) = fence(Box::new(line.clone()));
            eventually("it serves", || {
                fence.set_lease(Some(lease(Duration::from_millis(1500))));
                serves(&fence)
            });
            // This daemon would put it back.
            drop((fence, line));
            eventually("the guard has silenced", || {
                let is_silent = || {
                    let switch = "/proc/sys/net/ipv4/conf/br7/arp_ignore";
                    let silent = std::fs::read_to_string(switch).unwrap().trim() == "8";
                    sleep(Duration::from_millis(1));
                    silent
                };
                (0..1000).any(|_| is_silent())
            });
            // It cannot withdraw from FRR, which is not there, and goes on trying; the lease is over at once, and stays
            // so although there would be time left.
            sleep(GUARD_MARGIN);
            assert_eq!(
                KernelLease::open().unwrap().find().unwrap(),
                Found::Whole {
                    left: None,
                    names: vec!["br7".into()]
                }
            );
            guard.0.kill().unwrap();
            let withdraw = |last: u32| {
                try_sh(&format!(
                    "{} withdraw --maxvni {last}",
                    env!("CARGO_BIN_EXE_wmgwd")
                ))
            };
            withdraw(5);
            assert!(owned().contains("br7"), "not of that range");
            withdraw(7);
            assert!(!has_table());
        },
    );
}

/// A way to the kernel that counts batches. One that knows ARP alone is told that the kernel has nothing of IPv6.
struct Counting {
    socket: Socket,
    count: Arc<AtomicUsize>,
    lacks_ipv6: bool,
}

/// A way to the kernel as if that had nothing of IPv6.
pub fn without_ipv6() -> Result<KernelLease, Error> {
    Ok(KernelLease::through(Box::new(Counting {
        socket: Socket::open().unwrap(),
        count: Arc::default(),
        lacks_ipv6: true,
    })))
}

impl Channel for Counting {
    fn transact(&mut self, batch: Batch) -> std::io::Result<()> {
        // The first batch makes the tables of both families.
        if std::mem::take(&mut self.lacks_ipv6) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.socket.transact(batch)
    }
    fn ask(&mut self, question: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        self.socket.ask(question)
    }
}

/// Two gateway addresses on each of so many bridges: one of its own, and one that all have.
fn addresses(count: u32) -> Ipv6 {
    let mut ipv6 = Ipv6::default();
    for number in 1..=count {
        let [high, low] = [(number >> 16) as u16, number as u16];
        let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x4ff, 0xfe00, high, low);
        ipv6.bridges.insert(format!("br{number}"), Some(own));
        let global = Ipv6Addr::new(0x2001, 0xdb8, high, low, 0, 0, 0, 1);
        ipv6.shared.insert(global);
    }
    ipv6.shared
        .insert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    ipv6
}

/// What is done with so many names: the name of each step, its batches, and its CPU time, that of the kernel in it.
fn switch_all(count: u32, with_ipv6: bool) -> Vec<(&'static str, usize, Duration)> {
    let batches = Arc::new(AtomicUsize::new(0));
    let mut lease = KernelLease::through(Box::new(Counting {
        socket: Socket::open().unwrap(),
        count: batches.clone(),
        lacks_ipv6: !with_ipv6,
    }));
    let ipv6 = addresses(if with_ipv6 { count } else { 0 });
    let names: Vec<String> = (1..=count).map(|i| format!("br{i}")).collect();
    let end = clock::now() + Duration::from_secs(60);
    let mut steps = Vec::new();
    let mut step = |what, act: &mut dyn FnMut(&mut KernelLease)| {
        let (before, begun) = (batches.load(Ordering::Relaxed), clock::thread_cpu_time());
        act(&mut lease);
        let took = clock::thread_cpu_time() - begun;
        steps.push((what, batches.load(Ordering::Relaxed) - before, took));
    };
    step("made", &mut |lease| {
        lease.make(&Found::Absent, &[], &ipv6).unwrap();
        assert_eq!(lease.lack().is_some(), !with_ipv6);
    });
    step("granted", &mut |lease| {
        assert_eq!(lease.grant(end).unwrap(), 0);
    });
    step("switched on", &mut |lease| lease.add_names(&names).unwrap());
    step("granted again", &mut |lease| {
        assert_eq!(lease.grant(end).unwrap(), 0);
    });
    step("looked at", &mut |lease| {
        let Found::Whole { left, names: found } = lease.find().unwrap() else {
            panic!("not there");
        };
        assert!(left.is_some() && !lease.is_uneven());
        assert_eq!(found.len(), names.len());
    });
    step("fenced", &mut |lease| lease.revoke().unwrap());
    step("switched off", &mut |lease| {
        lease.remove_names(&names).unwrap();
    });
    sh("nft flush ruleset");
    steps
}

/// Input: 10 000 names, with ARP alone and with two IPv6 gateway addresses on each bridge, five times in turn; then more
/// names than the set takes. Output: both families take the batches of one; the medians of the times; and names that do
/// not fit are told once.
#[test]
fn ten_thousand_bridges_are_one_message() {
    namespace::run(
        "gate::ten_thousand_bridges_are_one_message",
        &["nft"],
        || {
            sh("ip link set lo up");
            let rounds: Vec<_> = (0..5)
                .map(|_| [false, true].map(|with_ipv6| switch_all(10_000, with_ipv6)))
                .collect();
            for (at, (what, ..)) in rounds[0][0].iter().enumerate() {
                let of = |with_ipv6: usize| {
                    let all = rounds.iter().map(|round| &round[with_ipv6][at]);
                    let (mut counts, mut times): (Vec<_>, Vec<_>) =
                        all.map(|(_, count, time)| (*count, *time)).unzip();
                    counts.dedup();
                    times.sort_unstable();
                    (counts, times[times.len() / 2])
                };
                let (alone, both) = (of(0), of(1));
                let ratio = both.1.as_secs_f64() / alone.1.as_secs_f64();
                println!(
                    "{what}: {:?} with ARP alone, {:?} with both families, {ratio:.1} times as much, {:?} batches",
                    alone.1, both.1, both.0
                );
                assert_eq!(alone.0, both.0, "{what}");
            }
            let mut lease = KernelLease::open().unwrap();
            lease.make(&Found::Absent, &[], &Ipv6::default()).unwrap();
            let all: Vec<String> = (1..=table::ROOM).map(|i| format!("br{i}")).collect();
            lease.add_names(&all).unwrap();
            assert!(matches!(
                lease.add_names(&["br70000".to_owned()]),
                Err(Error::Full)
            ));
            // What is there already takes no room.
            lease.add_names(&all[..10]).unwrap();
            assert!(lease.remove().unwrap());
            assert!(matches!(lease.add_names(&all[..1]), Err(Error::Lost)));
            let end = clock::now() + Duration::from_secs(60);
            assert!(matches!(lease.grant(end), Err(Error::Lost)));
        },
    );
}

/// A kernel whose bridges are all there, and cost nothing.
struct Quiet;

impl Kernel for Quiet {
    fn bridge(&mut self, vni: Vni) -> Option<u32> {
        // No interface has an index as large as that.
        Some(1 << 30 | vni.get())
    }
    fn set_arp(&mut self, _: Vni, _: bool) -> Result<(), wmgwd::host::Error> {
        Ok(())
    }
    fn put_back(&mut self, _: Vni, _: bool) -> Result<ArpAudit, wmgwd::host::Error> {
        Ok(ArpAudit::AsTold)
    }
    fn announce(&mut self, _: &[Vni], _: &dyn Fn() -> bool) -> Vec<(Vni, wmgwd::host::Error)> {
        Vec::new()
    }
}

/// Input: 10 000 names in the table and a guard that knows 10 000 VNIs; a lease of 5 s, renewed each second, and the
/// turns of the threads `gate` and `guard_check`, each second. Output: what they and the guard take of a core
/// (schedstat), on demand: `WMGWD_MEASURE=1`.
#[test]
fn what_ten_thousand_names_cost() {
    if std::env::var_os("WMGWD_MEASURE").is_none() {
        println!("what_ten_thousand_names_cost: skipped, set WMGWD_MEASURE=1");
        return;
    }
    namespace::run("gate::what_ten_thousand_names_cost", &["nft"], || {
        sh("ip link set lo up");
        for (families, ipv6) in [("ARP", 0), ("both families", 10_000)] {
            let (guard, line) = Process::start(&format!("wmgwd/gate-cost-{ipv6}"));
            let cost = cost(&guard, line, &addresses(ipv6));
            for (who, share) in ["daemon's part", "guard"].iter().zip(cost) {
                println!("{families}: {who}: {share:.3} % of a core at 10 000 names");
            }
            drop(guard);
            sh("nft flush ruleset");
        }
    });
}

/// What daemon and guard take of a core, in percent.
fn cost(guard: &Process, mut line: Line, ipv6: &Ipv6) -> [f64; 2] {
    const ROUNDS: u32 = 60;
    let fence = Fence::new(
        MARGIN,
        Box::new(Quiet),
        Box::new(line.clone()),
        Box::new(NoGuard),
    );
    let mut gate = gate();
    gate.manage(ipv6.clone());
    let (fence, tended) = fence.unwrap().gated_by(gate, range());
    assert!(tended.stands, "{tended:?}");
    let mut watch = Watch::open().unwrap();
    fence.set_lease(Some(lease(Duration::from_secs(60))));
    let all: Vec<(Vni, bool)> = (1..=10_000).map(|it| (vni(it), true)).collect();
    fence.switch(Some(ID), &all);
    assert_eq!(fence.tend_gate(true).gated, 10_000);
    let spent = |pid: u32| -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let nanos = tasks.map(|task| {
            let path = task.unwrap().path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    };
    let both = || [std::process::id(), guard.0.id()].map(spent);
    sleep(Duration::from_secs(2));
    watch.look(fence.gate_port()).unwrap();
    let (before, begun) = (both(), clock::now());
    let mut end = Time::default();
    for _ in 0..ROUNDS {
        let lease = lease(Duration::from_secs(60));
        end = lease.valid_until - GATE_MARGIN;
        fence.set_lease(Some(lease));
        fence.tend_gate(watch.look(fence.gate_port()).unwrap());
        fence.check_guard().unwrap();
        sleep(Duration::from_secs(1));
    }
    let (after, lasted) = (both(), clock::now().since(begun));
    assert!(line.has_granted(end));
    [0, 1].map(|who| (after[who] - before[who]).as_secs_f64() / lasted.as_secs_f64() * 100.0)
}
