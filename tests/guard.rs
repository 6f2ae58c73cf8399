//! The guard process of the real program, spoken to as a daemon does, on a mock host that is mirrored into
//! files; and a real daemon whose guard is stopped.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileExt, chown};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use wmgwd::guard::address::Address;
use wmgwd::guard::protocol::{Greeting, Order, Report, VERSION};
use wmgwd::guard::supervisor::GuardSupervisor;
use wmgwd::guard::view::View;
use wmgwd::guard::visit;
use wmgwd::model::types::{Lease, LeaseId, Time, Vni};
use wmgwd::sys::clock;
use wmgwd::witness::datagram::Sealed;
use wmgwd::witness::siphash::Key;
use wmgwd::witness::{Epoch, Number, Run, Witness, message};

/// How long before the end of the lease the guard acts.
const MARGIN: Duration = Duration::from_millis(700);
/// The VNIs of the mock host.
const LAST: u32 = 5;
/// What else it is started with.
const OPTIONS: [&str; 4] = ["list", "costs", "mock", "info"];

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The mirror of a mock host.
struct HostDir(PathBuf);

impl HostDir {
    /// A host on which VNIs 1 to [`LAST`] are wholly on show.
    fn on_show() -> HostDir {
        HostDir::with([1, 1, 0, 100])
    }

    /// A host on which nothing is on show.
    fn dark() -> HostDir {
        HostDir::with([0, 0, 0xff, 0xff])
    }

    fn with(shown: [u8; 4]) -> HostDir {
        let name = format!("wmgwd-guard-{}-{}", std::process::id(), number());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let shown = shown.repeat(LAST as usize + 1);
        fs::write(dir.join("exposure"), shown).unwrap();
        HostDir(dir)
    }

    fn shown(&self, vni: u32) -> [u8; 4] {
        let mut shown = [0; 4];
        let exposure = File::open(self.0.join("exposure")).unwrap();
        exposure
            .read_exact_at(&mut shown, 4 * u64::from(vni))
            .unwrap();
        shown
    }

    fn answers(&self, vni: u32) -> bool {
        self.shown(vni)[0] == 1
    }

    fn is_withdrawn(&self) -> bool {
        (1..=LAST).all(|vni| self.shown(vni)[1..] == [0, 0xff, 0xff])
    }

    /// Contract: as long as the clock is before `from`, `vnis` answer; they do not at `until`.
    fn falls_silent_between(&self, vnis: &[u32], from: Time, until: Time) {
        loop {
            let answering: Vec<_> = vnis.iter().map(|vni| self.answers(*vni)).collect();
            let now = clock::now();
            if now < from {
                assert!(answering.iter().all(|on| *on), "too early: {answering:?}");
            } else if !answering.contains(&true) {
                return;
            }
            assert!(
                now < until,
                "{answering:?} although the lease can have ended"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for HostDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A guard process.
struct Guard {
    address: String,
    child: Child,
    host: HostDir,
}

impl Guard {
    fn start(stderr: Stdio) -> Guard {
        let host = HostDir::on_show();
        Guard::start_program(common::program::wmgwd(), &OPTIONS, host, stderr)
    }

    /// Of `program`, which may be of another version or run as another user.
    fn start_program(
        mut program: Command,
        options: &[&str],
        host: HostDir,
        stderr: Stdio,
    ) -> Guard {
        let address = format!("wmgwd-test/guard/{}/{}", std::process::id(), number());
        let child = program
            .args(["guard", &address, VERSION])
            .arg(MARGIN.as_millis().to_string())
            .args(["1", &LAST.to_string()])
            .args(options)
            .env("WMGWD_MOCK_DIR", &host.0)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Guard {
            address,
            child,
            host,
        }
    }

    /// Connects, without a word.
    fn knock(&self) -> UnixStream {
        let address = SocketAddr::from_abstract_name(&self.address).unwrap();
        let stream = eventually("the guard listens", || {
            UnixStream::connect_addr(&address).ok()
        });
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        stream
    }

    /// What it tells a process that looks.
    fn look(&self) -> View {
        let mut looker = Daemon(BufReader::new(self.knock()));
        looker.tell(&Order::Look);
        let line = looker.line();
        assert_eq!(looker.line(), "", "it is one line, and the end");
        View::read(&line).unwrap()
    }

    fn hello(&self) -> (Daemon, Greeting) {
        let mut daemon = Daemon(BufReader::new(self.knock()));
        daemon.tell(&Order::Hello);
        let greeting = Greeting::read(&daemon.line()).unwrap();
        (daemon, greeting)
    }

    /// A daemon that serves `vnis` under a lease that ends after `lasts`.
    fn serving(&self, vnis: &[u32], lasts: Duration) -> (Daemon, Lease) {
        let (mut daemon, greeting) = self.hello();
        assert_eq!(greeting, Greeting::Fresh);
        let lease = daemon.renew(lasts);
        daemon.tell(&Order::Serves(through(vnis)));
        (daemon, lease)
    }

    fn has_ended(&mut self) -> Option<bool> {
        self.child
            .try_wait()
            .unwrap()
            .map(|status| status.success())
    }

    fn ends(&mut self) {
        let well = eventually("the guard ends", || self.has_ended());
        assert!(well, "with success");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Processor time so far, in hundredths of a second (proc_pid_stat(5)).
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Contract: in the state it is in, it waits and does not spin.
    fn does_not_spin(&self, state: &str) {
        let before = self.ticks();
        thread::sleep(Duration::from_secs(1));
        let spent = self.ticks() - before;
        assert!(spent < 30, "{spent} hundredths of a second {state}");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our end of the line.
struct Daemon(BufReader<UnixStream>);

impl Daemon {
    fn tell(&mut self, order: &Order) {
        self.0.get_mut().write_all(order.line().as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn renew(&mut self, lasts: Duration) -> Lease {
        let lease = Lease {
            id: LeaseId(7),
            valid_until: clock::now() + lasts,
        };
        self.tell(&Order::Lease(lease));
        lease
    }

    /// Contract: the next that the guard says is `report`; how its proof is, it says in between.
    fn hears(&mut self, report: Report) {
        loop {
            match Report::read(&self.line()) {
                Some(Report::Witness(_)) => {}
                said => return assert_eq!(said, Some(report)),
            }
        }
    }
}

/// Each through an interface of the mock.
fn through(vnis: &[u32]) -> Vec<(Vni, u32)> {
    some(vnis).into_iter().map(|vni| (vni, vni.get())).collect()
}

fn some(vnis: &[u32]) -> Vec<Vni> {
    vnis.iter().filter_map(|vni| Vni::new(*vni)).collect()
}

/// Input: a daemon that renews, tells of one more VNI, and dies with these words still unread.
/// Output: nothing changes until just before the lease can end; then ARP of all is off before that, and FRR
/// after; then the guard ends.
#[test]
fn a_daemon_that_dies_is_silenced_before_its_lease_ends() {
    let mut guard = Guard::start(Stdio::null());
    let (mut daemon, _) = guard.serving(&[1, 2], Duration::from_secs(60));
    let lease = daemon.renew(Duration::from_secs(2));
    daemon.tell(&Order::Serves(through(&[3])));
    drop(daemon);
    let due = lease.valid_until - MARGIN;
    guard
        .host
        .falls_silent_between(&[1, 2, 3], due, lease.valid_until);
    assert!(guard.host.answers(4), "the daemon did not name it");
    let host = &guard.host;
    eventually("FRR is withdrawn", || host.is_withdrawn().then_some(()));
    guard.ends();
}

/// Input: a daemon that says goodbye and closes in one go. Output: the guard ends, and has touched nothing.
#[test]
fn a_guard_that_is_dismissed_ends_at_once() {
    let mut guard = Guard::start(Stdio::null());
    let (mut daemon, _) = guard.serving(&[1], Duration::from_secs(600));
    daemon.tell(&Order::Bye);
    drop(daemon);
    guard.ends();
    assert_eq!(guard.host.shown(1), [1, 1, 0, 100]);
}

/// Input: a daemon that is late (stopped, say), and renews in the end.
/// Output: silence in time; the daemon hears of it; the guard goes on, and does the same again.
#[test]
fn a_daemon_that_is_late_is_fenced_and_told() {
    let guard = Guard::start(Stdio::null());
    let (mut daemon, mut lease) = guard.serving(&[1], Duration::from_secs(2));
    for _ in 0..2 {
        daemon.hears(Report::Heard(lease.valid_until));
        let due = lease.valid_until - MARGIN;
        guard
            .host
            .falls_silent_between(&[1], due, lease.valid_until);
        daemon.hears(Report::Fenced);
        let host = &guard.host;
        eventually("FRR is withdrawn", || host.is_withdrawn().then_some(()));
        guard.does_not_spin("after it has fenced");
        fs::write(guard.host.0.join("exposure"), [1, 1, 0, 100].repeat(6)).unwrap();
        lease = daemon.renew(Duration::from_secs(2));
        daemon.tell(&Order::Serves(through(&[1])));
    }
}

/// Input: connections that say nothing, and ones that close again, before and while there is a daemon.
/// Output: none takes the daemon's place; a second daemon is told so; a successor takes over.
#[test]
fn only_who_says_hello_is_a_daemon() {
    let mut guard = Guard::start(Stdio::null());
    drop(guard.knock());
    let _silent = guard.knock();
    let (daemon, lease) = guard.serving(&[1], Duration::from_secs(8));
    drop(guard.knock());
    assert_eq!(guard.hello().1, Greeting::Busy);
    drop(daemon);
    drop(guard.knock());
    guard.does_not_spin("without a daemon");
    let (mut successor, greeting) = guard.hello();
    assert_eq!(greeting, Greeting::Orphan(lease, None));
    successor.tell(&Order::Released(some(&[1])));
    successor.tell(&Order::Bye);
    guard.ends();
    assert!(guard.host.answers(1));
}

#[test]
fn noise_does_no_harm() {
    let guard = Guard::start(Stdio::null());
    let (mut daemon, _) = guard.serving(&[1], Duration::from_secs(60));
    let stream = daemon.0.get_mut();
    stream
        .write_all(b"\xff\0\n\n\nserves 0\nlease x\nserves 2 3 zzz\nlea")
        .unwrap();
    stream.write_all(b"se 7").unwrap();
    guard.does_not_spin("with half a line");
    daemon.tell(&Order::Bye);
    let lease = daemon.renew(Duration::from_secs(2));
    guard
        .host
        .falls_silent_between(&[1], lease.valid_until - MARGIN, lease.valid_until);
}

/// A witness on loopback: one that the guard's peers name.
struct Acknowledging(UdpSocket);

impl Acknowledging {
    const LEASE: LeaseId = LeaseId(2);
    const RUN: Run = Run(3);
    const LINK: Key = Key([5; 16]);

    fn bind() -> Acknowledging {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        Acknowledging(socket)
    }

    /// What makes it the only witness of the daemon's lease: nothing has proved that yet.
    fn orders(&self, lease: Lease, window: Duration) -> [Order; 3] {
        let witness = Witness {
            name: "gw 2".parse().unwrap(),
            lease: Acknowledging::LEASE,
            run: Acknowledging::RUN,
        };
        let begin = message::Order::Begin {
            lease,
            key: Key([1; 16]),
            in_place: Some(Epoch {
                lease: lease.id,
                window,
                number: Number(9),
                witnesses: vec![witness],
            }),
            proved: Time::default(),
            unanswered: None,
        };
        let peer = message::Peer {
            lease: Acknowledging::LEASE,
            run: Acknowledging::RUN,
            link: Acknowledging::LINK,
            address: self.0.local_addr().unwrap(),
            trial: false,
        };
        [
            Order::Witness(begin),
            Order::From("127.0.0.1".parse().unwrap()),
            Order::Witness(message::Order::Peers(vec![peer])),
        ]
    }

    /// Answers the next beat.
    fn acknowledge(&self) {
        let mut bytes = [0; 100];
        let (length, from) = self.0.recv_from(&mut bytes).unwrap();
        let beat = Sealed::read(&bytes[..length]).unwrap();
        let beat = beat.open(&Acknowledging::LINK).unwrap();
        let answer = beat.answer().unwrap().seal(&Acknowledging::LINK);
        self.0.send_to(&answer, from).unwrap();
    }
}

/// Input: a guard whose one witness acknowledges nothing, then its beats, then nothing again. Output: a look tells so each
/// time, to the nanosecond by the rules: a proof lasts for the window less its margin from when the newest acknowledged
/// beat was sent. When it is lost the VNIs do not answer ARP, but their routes stay, as the lease holds; and the daemon is
/// told.
#[test]
fn a_look_sees_the_proof_come_and_go() {
    let window = Duration::from_secs(2);
    let lasts = window * 7 / 8;
    let mut guard = Guard::start(Stdio::null());
    let witness = Acknowledging::bind();
    let (mut daemon, _) = guard.hello();
    let lease = Lease {
        id: LeaseId(7),
        valid_until: clock::now() + Duration::from_secs(600),
    };
    for order in witness.orders(lease, window) {
        daemon.tell(&order);
    }
    let acknowledged = |view: &View| {
        let all: Vec<_> = view.acknowledgements().collect();
        assert_eq!(all.len(), 1);
        assert!(all[0].name.as_str() == "gw 2" && all[0].is_in_place);
        all[0].ago
    };
    let view = eventually("it has heard of its lease", || {
        let view = guard.look();
        (view.lease == Some(lease) && !view.epochs.is_empty()).then_some(view)
    });
    assert!(view.has_daemon && !view.has_proof());
    assert_eq!(acknowledged(&view), None);

    let view = eventually("its witness proves it", || {
        witness.acknowledge();
        let view = guard.look();
        view.has_proof().then_some(view)
    });
    let age = acknowledged(&view).unwrap();
    assert_eq!((view.age(), view.left()), (Some(age), lasts - age));
    let sent = view.now - age;

    daemon.tell(&Order::Serves(through(&[1, 2])));
    let view = eventually("it loses its proof", || {
        let view = guard.look();
        (view.answering == 2 && !view.has_proof()).then_some(view)
    });
    let age = acknowledged(&view).unwrap();
    // The last answer may have been read after the look before.
    assert!(view.now - age >= sent && age >= lasts);
    assert_eq!(view.lease, Some(lease));
    daemon.hears(Report::Silenced);
    for vni in [1, 2] {
        assert_eq!(guard.host.shown(vni), [0, 1, 0, 100], "its routes stay");
    }
    daemon.tell(&Order::Bye);
    guard.ends();
}

/// Input: many processes that look without a pause, beside a daemon that renews its lease, and one that wants to take its
/// place. Output: the daemon and its beats are heard, the other one is told so, answers have a pause between them, and the
/// guard spends little time on them.
#[test]
fn a_flood_of_looks_is_limited() {
    const PAUSE: Duration = Duration::from_millis(2);
    let guard = Guard::start(Stdio::null());
    let witness = Acknowledging::bind();
    let (mut daemon, _) = guard.hello();
    let lease = Lease {
        id: LeaseId(7),
        valid_until: clock::now() + Duration::from_secs(60),
    };
    for order in witness.orders(lease, Duration::from_secs(2)) {
        daemon.tell(&order);
    }
    /// Also where the test fails: it waits for the others before it ends.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let begun = clock::now();
    let answered = thread::scope(|scope| {
        let looks = || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                guard.look();
                count += 1;
            }
            count
        };
        let flood: Vec<_> = (0..8).map(|_| scope.spawn(looks)).collect();
        let stopping = Stop(&stop);
        guard.does_not_spin("while others look");
        for _ in 0..5 {
            witness.acknowledge();
            let renewed = Report::Heard(daemon.renew(Duration::from_secs(60)).valid_until);
            while Report::read(&daemon.line()).unwrap() != renewed {}
        }
        assert_eq!(guard.hello().1, Greeting::Busy);
        drop(stopping);
        let counts = flood.into_iter().map(|it| it.join().unwrap());
        counts.sum::<u128>()
    });
    let most = clock::now().since(begun).as_nanos() / PAUSE.as_nanos() + 1;
    assert!(answered <= most, "{answered} answers, at most {most}");
    assert!(answered > 8, "{answered}");
}

/// Input: a guard of another user; root looks, and says hello. Output: root is told, and is not let in as the daemon.
#[test]
fn root_looks_at_the_guard_of_another_user() {
    const USER: u32 = 54_322;
    if !nix::unistd::geteuid().is_root() {
        common::skipped("guard of another user", "needs root to be another user");
        return;
    }
    let host = HostDir::on_show();
    for path in [host.0.clone(), host.0.join("exposure")] {
        chown(path, Some(USER), None).unwrap();
    }
    let guard = Guard::start_program(common::node::wmgwd_of(USER), &OPTIONS, host, Stdio::null());
    drop(guard.knock());
    let (view, user) = visit::look(&Address::from_argument(&guard.address)).unwrap();
    assert_eq!((view.has_daemon, user.as_raw()), (false, USER));
    let mut daemon = Daemon(BufReader::new(guard.knock()));
    daemon.tell(&Order::Hello);
    assert_eq!(daemon.0.read_line(&mut String::new()).unwrap_or(0), 0);
    assert!(!guard.look().has_daemon);
}

/// Input: a look at the guard of the version before. Output: it is said that this one does not tell; its daemon is not
/// disturbed.
#[test]
fn a_guard_of_the_version_before_does_not_tell() {
    let program = match common::previous::wmgwd() {
        Ok(program) => program,
        Err(why) => return common::skipped("guard of the version before", &why),
    };
    let (program, host) = (Command::new(program), HostDir::on_show());
    let mut guard = Guard::start_program(program, &["list", "mock", "info"], host, Stdio::null());
    let (mut daemon, lease) = guard.serving(&[1], Duration::from_secs(60));
    daemon.hears(Report::Heard(lease.valid_until));
    let address = Address::from_argument(&guard.address);
    for _ in 0..2 {
        let error = visit::look(&address).unwrap_err();
        assert!(matches!(error, visit::Unseen::DoesNotTell), "{error:?}");
    }
    let renewed = daemon.renew(Duration::from_secs(60));
    daemon.hears(Report::Heard(renewed.valid_until));
    daemon.tell(&Order::Bye);
    guard.ends();
}

/// Input: a guard that is stopped. Output: a look ends, and says that it does not answer.
#[test]
fn a_look_does_not_wait_for_a_guard_that_is_stopped() {
    let guard = Guard::start(Stdio::null());
    drop(guard.knock());
    guard.signal(Signal::SIGSTOP);
    eventually("it is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", guard.child.id())).unwrap();
        stat.contains(") T ").then_some(())
    });
    let error = visit::look(&Address::from_argument(&guard.address)).unwrap_err();
    assert!(matches!(error, visit::Unseen::NoAnswer), "{error:?}");
}

/// A guard with much to say.
fn talkative(stderr: Stdio, leave: impl FnOnce(Option<ChildStderr>) -> Option<ChildStderr>) {
    let mut guard = Guard::start(stderr);
    let (mut daemon, _) = guard.serving(&[1], Duration::from_secs(60));
    let kept = leave(guard.child.stderr.take());
    // Much more than a pipe holds; the answer shows that all of it has been read.
    for _ in 0..300 {
        let line = [&[b'x'; 1000][..], b"\n"].concat();
        daemon.0.get_mut().write_all(&line).unwrap();
    }
    let lease = daemon.renew(Duration::from_secs(2));
    drop(daemon);
    guard
        .host
        .falls_silent_between(&[1], lease.valid_until - MARGIN, lease.valid_until);
    guard.ends();
    drop(kept);
}

/// Input: the reader of the log has stopped reading. Output: the guard does not wait for them.
#[test]
fn a_log_that_nobody_reads_does_not_hold_the_guard_up() {
    talkative(Stdio::piped(), |pipe| pipe);
}

/// Input: the reader of the log is gone. Output: the guard does not mind.
#[test]
fn a_log_that_is_gone_does_not_end_the_guard() {
    talkative(Stdio::piped(), |pipe| {
        drop(pipe);
        None
    });
}

/// Input: a guard that was stopped while its daemon renewed, after the end of the lease it knew.
/// Output: it hears what was said before it acts.
#[test]
fn a_guard_that_was_stopped_hears_first() {
    let guard = Guard::start(Stdio::null());
    let (mut daemon, lease) = guard.serving(&[1], Duration::from_secs(2));
    daemon.hears(Report::Heard(lease.valid_until));
    guard.signal(Signal::SIGSTOP);
    eventually("the lease is over", || {
        (clock::now() > lease.valid_until).then_some(())
    });
    let renewed = daemon.renew(Duration::from_secs(60));
    guard.signal(Signal::SIGCONT);
    daemon.hears(Report::Heard(renewed.valid_until));
    assert!(guard.host.answers(1));
}

/// What it takes in memory: printed, and bounded, as it shall be tiny.
#[test]
fn the_guard_is_small() {
    let guard = Guard::start(Stdio::null());
    let (mut daemon, _) = guard.serving(&[1], Duration::from_secs(60));
    let vnis: Vec<u32> = (1..=10_000).collect();
    daemon.tell(&Order::Serves(through(&vnis)));
    let lease = daemon.renew(Duration::from_secs(60));
    while Report::read(&daemon.line()) != Some(Report::Heard(lease.valid_until)) {}
    let rollup = format!("/proc/{}/smaps_rollup", guard.child.id());
    let rollup = fs::read_to_string(rollup).unwrap();
    let kilobytes = |what: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(what));
        let words = line.unwrap().split_ascii_whitespace();
        words.take(1).next().unwrap().parse().unwrap()
    };
    let own = kilobytes("Private_Dirty:") + kilobytes("Private_Clean:");
    println!(
        "guard with 10 000 VNIs: rss={} kB pss={} kB anonymous={} kB",
        kilobytes("Rss:"),
        kilobytes("Pss:"),
        kilobytes("Anonymous:"),
    );
    assert!(kilobytes("Anonymous:") < 4096, "{own} kB of its own");
}

/// A real daemon on a mock host.
struct Served {
    daemon: Child,
    name: String,
    host: HostDir,
}

impl Served {
    fn start(name: &str, etcd: &Etcd, host: HostDir) -> Served {
        let endpoint = etcd.endpoint().to_string();
        let daemon = common::program::wmgwd()
            .args(["--name", name, "--etcd", &endpoint, "--mock"])
            .args(["--maxvni", &LAST.to_string(), "--lease-ttl", "5"])
            .args(["--settle", "0", "--drain-timeout", "5"])
            .env("WMGWD_MOCK_DIR", &host.0)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let name = name.to_owned();
        Served { daemon, name, host }
    }

    /// Its guards.
    fn guards(&self) -> Vec<Pid> {
        let prefix = format!("wmgwd-mock/{}/", self.name);
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut words = line.split(|byte| *byte == 0).skip(1);
                words.next() == Some(b"guard")
                    && words
                        .next()
                        .is_some_and(|word| word.starts_with(prefix.as_bytes()))
            })
            .map(Pid::from_raw)
            .collect()
    }

    fn serves(&self) {
        eventually("it serves", || {
            let shown = (1..=LAST).all(|vni| self.host.shown(vni) == [1, 1, 0, 100]);
            shown.then_some(())
        });
    }

    fn guard(&self) -> Pid {
        eventually("it has one guard", || match self.guards()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        for pid in self.guards() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Input: the guard of a daemon is stopped. Output: the daemon notices, ends it and starts another, serves
/// all the while, and takes that one with it when it ends.
#[test]
fn a_guard_that_is_stopped_is_replaced() {
    let etcd = Etcd::start();
    let name = format!("stopped-{}", std::process::id());
    let mut served = Served::start(&name, &etcd, HostDir::dark());
    served.serves();
    let first = served.guard();
    kill(first, Signal::SIGSTOP).unwrap();
    let second = eventually("another guard", || {
        assert!((1..=LAST).all(|vni| served.host.answers(vni)));
        match served.guards()[..] {
            [pid] if pid != first => Some(pid),
            _ => None,
        }
    });
    eventually("it has its name", || {
        let comm = fs::read_to_string(format!("/proc/{second}/comm")).unwrap();
        (comm == "wmgwd-guard\n").then_some(())
    });
    let daemon = Pid::from_raw(served.daemon.id().try_into().unwrap());
    kill(daemon, Signal::SIGTERM).unwrap();
    let status = eventually("the daemon ends", || served.daemon.try_wait().unwrap());
    assert!(status.success());
    assert_eq!(served.guards(), []);
    let mut log = String::new();
    let mut stderr = served.daemon.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.contains("the guard was gone"), "{log}");
    assert!(log.contains("everything is withdrawn"), "{log}");
}

/// Input: a look at the options while a daemon runs, with its options, more of the log, and another range. Output: the
/// next run would keep the VNIs with the first two; and it does, after a kill.
#[test]
fn the_look_at_the_options_says_whether_the_next_run_keeps_the_vnis() {
    let etcd = Etcd::start();
    let name = format!("kept-{}", std::process::id());
    let mut served = Served::start(&name, &etcd, HostDir::dark());
    served.serves();
    let guard = served.guard();
    let endpoint = etcd.endpoint().to_string();
    let said = |more: &[&str]| {
        let output = common::program::wmgwd()
            .args(["--check-config", "--name", &name, "--etcd", &endpoint])
            .args(["--mock", "--lease-ttl", "5"])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let kept = "a run that is killed is followed by one that keeps its VNIs";
    for (more, expected) in [
        (&["--maxvni", "5"][..], true),
        (&["--maxvni", "5", "--debug"], true),
        (&["--maxvni", "6"], false),
        (&["--maxvni", "5", "--evpn-filter=entries"], false),
    ] {
        let log = said(more);
        assert_eq!(log.contains(kept), expected, "{more:?}: {log}");
    }
    served.daemon.kill().unwrap();
    served.daemon.wait().unwrap();
    let next = Served::start(&name, &etcd, HostDir::dark());
    next.serves();
    assert_eq!(next.guard(), guard);
}

/// Input: the daemon is killed and its guard stopped; then the daemon is started again.
/// Output: the new run does not wait for the guard for ever: it serves.
#[test]
fn a_guard_that_stays_stopped_does_not_keep_the_next_run_from_starting() {
    let etcd = Etcd::start();
    let name = format!("stuck-{}", std::process::id());
    let mut served = Served::start(&name, &etcd, HostDir::dark());
    served.serves();
    let stuck = served.guard();
    served.daemon.kill().unwrap();
    served.daemon.wait().unwrap();
    // Only now: the kernel wakes what is stopped when its parent dies (setpgid(2), orphaned groups).
    kill(stuck, Signal::SIGSTOP).unwrap();
    let next = Served::start(&name, &etcd, HostDir::dark());
    next.serves();
    let guard = eventually("a guard that is not stopped", || {
        next.guards().into_iter().find(|pid| *pid != stuck)
    });
    assert_eq!(next.guards(), [guard]);
}

/// Input: guards of runs before under other names: one that holds a lease, one that is stopped, one that has a living
/// daemon. Output: the first withdraws and ends; the second is ended, so that it never withdraws what the next run
/// shows; the third is left alone.
#[test]
fn guards_under_other_names_end() {
    let mut guards = [(); 3].map(|()| Guard::start(Stdio::null()));
    let [orphan, stopped, busy] = &guards;
    for guard in [orphan, stopped] {
        let (mut daemon, lease) = guard.serving(&[1], Duration::from_secs(60));
        daemon.hears(Report::Heard(lease.valid_until));
    }
    let (_daemon, _) = busy.serving(&[1], Duration::from_secs(60));
    stopped.signal(Signal::SIGSTOP);
    let others = guards
        .each_ref()
        .map(|it| Address::from_argument(&it.address));
    let retired = GuardSupervisor::retire_others(others.to_vec());
    assert_eq!(retired.len(), 1);
    let [orphan, stopped, busy] = &mut guards;
    assert_eq!(orphan.has_ended(), Some(true));
    assert!(orphan.host.is_withdrawn() && !orphan.host.answers(1));
    let well = eventually("the stopped one has ended", || stopped.has_ended());
    assert!(!well && stopped.host.answers(1));
    assert_eq!(busy.has_ended(), None);
    assert!(busy.host.answers(1));
}

/// Input: wmgwd is killed (SIGKILL) while it waits for a vtysh that hangs. Output: that vtysh is gone too: it
/// must not claim anything behind the next run's back.
#[test]
fn a_vtysh_ends_with_its_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("wmgwd-vtysh-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (fake, pid) = (dir.join("vtysh"), dir.join("pid"));
    let script = format!(
        "#!/bin/sh\necho $$ >{}.new\nmv {0}.new {0}\nexec sleep 1000\n",
        pid.display()
    );
    std::fs::write(&fake, script).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    // A VNI that no host has a bridge for: nothing is touched.
    let mut daemon = common::program::wmgwd()
        .args(["withdraw", "--minvni", "16777215", "--maxvni", "16777215"])
        .env("PATH", path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let vtysh: u32 = eventually("the vtysh that hangs", || {
        std::fs::read_to_string(&pid).ok()
    })
    .trim()
    .parse()
    .unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let stat = format!("/proc/{vtysh}/stat");
    eventually("its end", || {
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        // Gone, or dead and not yet collected.
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
