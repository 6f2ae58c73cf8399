//! The daemon's side of the guard: [`GuardSupervisor`] takes over a predecessor's or starts one, [`GuardConn`] keeps it
//! informed.

use super::address::{Address, credentials};
use super::peer::{Peer, ask, ready};
use super::protocol::{Gated, Greeting, Order, Report};
use super::{Error, Grants, Guard, Guards, Standing};
use crate::model::types::{Lease, LeaseId, Time, Vni};
use crate::sys::child;
use crate::sys::clock;
use crate::sys::pidfd::PidFd;
use crate::witness::message::{self, Known};
use core::net::IpAddr;
use log::{info, warn};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::Duration;

/// How long a guard may take to come up.
const START: Duration = Duration::from_secs(5);
/// How long a guard that is there may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a daemon that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(1);
/// How long a guard may take to end.
const END: Duration = Duration::from_secs(1);
/// How long a guard of no use may take to withdraw everything.
const RETIRE: Duration = Duration::from_secs(10);
/// How long one message to the guard may take, while nothing can be fenced: the guard reads at once, and most
/// messages fit into the socket's buffer.
const WRITE: Duration = Duration::from_millis(100);
/// How long a guard may leave a lease unanswered.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where guards come from.
pub struct GuardSupervisor {
    address: Address,
    /// What a guard is started with.
    arguments: Vec<OsString>,
    /// The guard, if this daemon started it.
    child: Option<Child>,
    /// The guard, if a predecessor of this daemon did.
    found: Option<Found>,
}

/// The process that listens at a guard's address.
struct Found {
    pid: Pid,
    /// None before Linux 5.3.
    process: Option<PidFd>,
}

/// A guard that was found or started.
pub struct Attached {
    /// Where the next one comes from.
    pub supervisor: GuardSupervisor,
    /// The connection to it.
    pub conn: GuardConn,
    /// The lease of a dead predecessor, if there was one and its guard still holds; and the epochs under it.
    pub predecessor: Option<Predecessor>,
    /// The lease of one whose guard was of no use and has withdrawn everything.
    pub retired: Option<Lease>,
}

/// What a guard holds for a daemon that is dead.
pub type Predecessor = (Lease, Option<Known>);

impl GuardSupervisor {
    /// Takes over the guard at `address`, or starts one with `arguments` (after `wmgwd guard`).
    ///
    /// # Errors
    /// [`Error::NameInUse`] if the guard has a living daemon; else why there is no guard.
    pub fn attach(address: Address, arguments: Vec<OsString>) -> Result<Attached, Error> {
        let mut supervisor = GuardSupervisor {
            address,
            arguments,
            child: None,
            found: None,
        };
        let mut retired = None;
        let (conn, predecessor) = match supervisor.connect_unless_busy() {
            Ok(found) if supervisor.found_is_as_wanted() => found,
            Ok((conn, predecessor)) => {
                let lease = predecessor.map(|(lease, _)| lease);
                warn!(
                    "the guard of the run before was started with other options: it withdraws, and ends"
                );
                supervisor.retire(conn, lease);
                retired = lease;
                supervisor.start()?
            }
            Err(Error::Socket(error)) if is_absence(&error) => supervisor.start()?,
            Err(Error::Socket(error)) if error.kind() == io::ErrorKind::TimedOut => {
                warn!("the guard of the run before does not answer: starting another");
                supervisor.start()?
            }
            Err(error) => return Err(error),
        };
        Ok(Attached {
            supervisor,
            conn,
            predecessor,
            retired,
        })
    }

    /// Has the guards at `others`, of runs before under other names, withdraw by their own ranges, and waits for their
    /// end. When their leases end they would withdraw all, and with it what this run shows by then. Returns those
    /// leases. The guard of a living daemon is left alone.
    pub fn retire_others(others: Vec<Address>) -> Vec<Lease> {
        let mut retired = Vec::new();
        for address in others {
            let mut other = GuardSupervisor {
                address,
                arguments: Vec::new(),
                child: None,
                found: None,
            };
            match other.connect_unless_busy() {
                Ok((conn, Some((lease, _)))) => {
                    info!(
                        "the guard of a run before under another name holds lease={}: it withdraws, and ends",
                        lease.id
                    );
                    other.retire(conn, Some(lease));
                    retired.push(lease);
                }
                // When it goes on, it would withdraw all. A daemon that has it starts another.
                Err(Error::Socket(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    warn!("a guard under another name does not answer: ending it");
                    other.bury();
                }
                // It has a living daemon, holds nothing, has ended meanwhile, or is of another version.
                Ok((_, None)) | Err(_) => {}
            }
        }
        retired
    }

    /// Whether the guard that was found was started with this run's arguments: with others it has another range or
    /// other times, so that it could not do for this run what it did for the run before. How much it logs does not
    /// matter.
    fn found_is_as_wanted(&self) -> bool {
        let Some(Found { pid, .. }) = self.found else {
            return false;
        };
        was_started_with(pid, but_last(&self.arguments))
    }

    /// Whether a guard runs that [`attach`](Self::attach) with `arguments` would take over: then a new run goes on with
    /// what the one before serves. Looks without connecting.
    pub fn is_kept(arguments: &[OsString]) -> bool {
        !guards_with(but_last(arguments)).is_empty()
    }

    /// Has the guard that was found withdraw, by its own range, all that it guards, and waits for its end. What goes on
    /// longer than a try or two would withdraw what this run shows by then.
    fn retire(&mut self, mut conn: GuardConn, lease: Option<Lease>) {
        conn.tell(&Order::Retire);
        conn.lease(Lease {
            id: lease.map_or(LeaseId(0), |lease| lease.id),
            valid_until: Time::default(),
        });
        // It was told that the lease is over; now its daemon is gone, too.
        drop(conn);
        let begun = clock::now();
        while self.found.as_ref().is_some_and(|it| self.is_guard(it)) {
            if clock::now().since(begun) > RETIRE {
                warn!(
                    "it does not end: ending it; what it could not withdraw takes a wmgwd withdraw of its range"
                );
                return self.bury();
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Connects to the guard; asks again for a while if it has a daemon. One that was killed a moment ago may
    /// still hold its connection, and its supervisor is quick.
    fn connect_unless_busy(&mut self) -> Result<(GuardConn, Option<Predecessor>), Error> {
        let begun = clock::now();
        loop {
            match self.connect(ANSWER) {
                Err(Error::NameInUse) if clock::now().since(begun) < DYING => {
                    sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    fn connect(&mut self, within: Duration) -> Result<(GuardConn, Option<Predecessor>), Error> {
        let mut stream = self.address.connect().map_err(Error::Socket)?;
        let guard = credentials(&stream).map_err(Error::Socket)?.pid();
        if self.child.is_none() {
            self.found = Some(Found {
                pid: Pid::from_raw(guard),
                process: PidFd::of_listener(&stream).ok(),
            });
        }
        let greeting = ask(&mut stream, &Order::Hello, within).map_err(Error::Socket)?;
        let predecessor = match Greeting::read(&greeting).ok_or(Error::Protocol)? {
            Greeting::Busy => return Err(Error::NameInUse),
            Greeting::Fresh => None,
            Greeting::Orphan(lease, known) => Some((lease, known)),
        };
        let peer = Peer::new(stream).map_err(Error::Socket)?;
        Ok((GuardConn::new(peer), predecessor))
    }

    fn start(&mut self) -> Result<(GuardConn, Option<Predecessor>), Error> {
        self.bury();
        self.spawn()?;
        let begun = clock::now();
        loop {
            match self.connect(START) {
                // The new process has not bound its address yet.
                Err(Error::Socket(error))
                    if is_absence(&error) && clock::now().since(begun) < START =>
                {
                    sleep(Duration::from_millis(5));
                }
                result => return result,
            }
            let child = self.child.as_mut().map(Child::try_wait);
            if !matches!(child, Some(Ok(None))) {
                // It found the address taken by one that was about to end.
                sleep(Duration::from_millis(50));
                self.spawn()?;
            }
        }
    }

    fn spawn(&mut self) -> Result<(), Error> {
        let child = child::command("/proc/self/exe")
            .arg0("wmgwd")
            .arg("guard")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A group of its own: what a terminal or a supervisor does to the daemon's group is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(Error::Start)?;
        info!("guard={} started", child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Ends the guard that there was, so that its address is free.
    fn bury(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = reap(&mut child);
        }
        if let Some(found) = self.found.take() {
            let begun = clock::now();
            while self.is_guard(&found) && clock::now().since(begun) < END {
                let _ = match &found.process {
                    Some(process) => process.kill(),
                    None => kill(found.pid, Signal::SIGKILL).map_err(io::Error::from),
                };
                sleep(Duration::from_millis(5));
            }
        }
    }

    /// Whether `found` lives, and is a guard of this program.
    fn is_guard(&self, found: &Found) -> bool {
        let pid = found.pid;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        let address = self.address.argument();
        let is_guard = words.next() == Some(b"guard") && words.next() == Some(address.as_bytes());
        // Asked last: as long as the process has not ended its number is its own.
        let has_ended = found.process.as_ref().is_some_and(PidFd::has_ended);
        pid.as_raw() > 1 && is_guard && !has_ended
    }
}

impl Guards for GuardSupervisor {
    fn relieve(&mut self) -> Result<Box<dyn Guard>, Error> {
        let (conn, _) = self.start()?;
        Ok(Box::new(conn))
    }

    fn dismiss(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if !reap(&mut child) {
            // Nothing is left that it could guard.
            warn!("the guard does not end: ending it");
            let _ = child.kill();
            let _ = reap(&mut child);
        }
    }
}

/// Waits for the end of `child`, not for long.
fn reap(child: &mut Child) -> bool {
    let begun = clock::now();
    loop {
        match child.try_wait() {
            Ok(None) if clock::now().since(begun) < END => sleep(Duration::from_millis(2)),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// The arguments of a guard but for the last one: how much it logs does not matter.
fn but_last(arguments: &[OsString]) -> &[OsString] {
    arguments.split_last().map_or(&[], |(_, rest)| rest)
}

/// The guards among the processes that were started with these first arguments.
pub(super) fn guards_with(arguments: &[OsString]) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter(|pid| was_started_with(*pid, arguments))
        .collect()
}

/// Whether the process is a guard that was started with these first arguments.
fn was_started_with(pid: Pid, arguments: &[OsString]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"guard")
        && arguments
            .iter()
            .all(|argument| words.next() == Some(argument.as_bytes()))
}

/// There is no guard, or it was just about to end.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// The connection to a guard.
pub struct GuardConn(Arc<Mutex<Conn>>);

/// The same connection, for the thread that hears of the proof: it must not wait for who tells the guard thousands of
/// VNIs.
#[derive(Clone)]
pub struct Line(Arc<Mutex<Conn>>);

struct Conn {
    /// `None` once it is lost.
    peer: Option<Peer>,
    lost: String,
    /// The lease that was told last ends then; the guard has not said that it heard it since then.
    told: Time,
    unheard_since: Option<Time>,
    fenced: bool,
    grants: Grants,
    heard: Heard,
}

/// What a guard has said of the proof.
#[derive(Debug, Default)]
pub struct Heard {
    /// In order.
    pub reports: Vec<message::Report>,
    /// It has silenced each VNI since, because the witnesses' part of the proof was lost.
    pub silenced: bool,
}

impl GuardConn {
    fn new(peer: Peer) -> GuardConn {
        GuardConn(Arc::new(Mutex::new(Conn {
            peer: Some(peer),
            lost: String::new(),
            told: Time::default(),
            unheard_since: None,
            fenced: false,
            grants: Grants::default(),
            heard: Heard::default(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Conn> {
        lock(&self.0)
    }

    fn tell(&mut self, order: &Order) {
        self.inner().tell(order);
    }

    fn lose(&mut self, why: &str) {
        self.inner().lose(why);
    }
}

fn lock(conn: &Mutex<Conn>) -> MutexGuard<'_, Conn> {
    conn.lock()
        .expect("a thread that panics takes the process with it")
}

impl Line {
    /// What the guard has said since this was asked last; `None` once the connection is lost.
    pub fn hear(&self) -> Option<Heard> {
        let mut conn = lock(&self.0);
        conn.listen(clock::now());
        let heard = std::mem::take(&mut conn.heard);
        conn.peer.as_ref().map(|_| heard)
    }

    /// Whether another thread has read what [`Line::hear`] has not returned yet.
    pub fn has_news(&self) -> bool {
        let conn = lock(&self.0);
        !conn.heard.reports.is_empty() || conn.heard.silenced
    }

    /// Tells the guard what concerns the proof.
    pub fn tell(&self, order: &message::Order) {
        lock(&self.0).tell(&Order::Witness(order.clone()));
    }

    /// Has the guard send beats from this address.
    pub fn send_from(&self, address: IpAddr) {
        lock(&self.0).tell(&Order::From(address));
    }

    /// The connection, which becomes readable when the guard says something, and hangs up when it ends.
    pub fn conn(&self) -> Option<OwnedFd> {
        let conn = lock(&self.0);
        conn.peer.as_ref()?.as_fd().try_clone_to_owned().ok()
    }
}

impl Conn {
    fn tell(&mut self, order: &Order) {
        let Some(peer) = &mut self.peer else {
            return;
        };
        if let Err(error) = write(peer.stream(), order.line().as_bytes()) {
            self.lose(&error.to_string());
        }
    }

    // Not logged here: a log may block, and who asks holds what fencing needs.
    fn lose(&mut self, why: &str) {
        self.peer = None;
        why.clone_into(&mut self.lost);
    }

    fn listen(&mut self, now: Time) {
        let Some(peer) = &mut self.peer else {
            return;
        };
        let (lines, end) = peer.lines();
        for line in lines {
            match Report::read(&line) {
                Some(Report::Heard(until)) => {
                    self.unheard_since = (until != self.told).then_some(now);
                }
                Some(Report::Granted { until, refused }) => {
                    self.grants.until = Some(until);
                    self.grants.refused += u64::from(refused);
                }
                // Why, the guard has logged.
                Some(Report::Refused(_)) => self.grants.refused += 1,
                Some(Report::Fenced) => self.fenced = true,
                Some(Report::Silenced) => self.heard.silenced = true,
                Some(Report::Witness(report)) => self.heard.take(report),
                None => return self.lose("it does not speak as a guard of this version"),
            }
        }
        if let Some(end) = end {
            return self.lose(&end);
        }
        if self
            .unheard_since
            .is_some_and(|since| now.since(since) > PATIENCE)
        {
            self.lose("it does not answer");
        }
    }
}

impl Heard {
    /// Of a proof only the newest matters, and no more is kept where no thread hears it.
    fn take(&mut self, report: message::Report) {
        let is_proof = |it: &message::Report| matches!(it, message::Report::Proof(_));
        if is_proof(&report) && self.reports.last().is_some_and(is_proof) {
            self.reports.pop();
        }
        self.reports.push(report);
    }
}

/// Writes all of `bytes`, or fails within [`WRITE`] altogether.
fn write(stream: &mut UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    let begun = clock::now();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {
                let left = (begun + WRITE).since(clock::now());
                if left.is_zero() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
                }
                ready(stream, PollFlags::POLLOUT, left)?;
            }
        }
    }
    Ok(())
}

impl Guard for GuardConn {
    fn lease(&mut self, lease: Lease) {
        let mut conn = self.inner();
        conn.told = lease.valid_until;
        conn.unheard_since.get_or_insert_with(clock::now);
        conn.tell(&Order::Lease(lease));
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

    fn witness(&mut self, order: &message::Order) {
        self.tell(&Order::Witness(order.clone()));
    }

    fn line(&self) -> Option<Line> {
        Some(Line(self.0.clone()))
    }

    fn grants(&mut self) -> Grants {
        std::mem::take(&mut self.inner().grants)
    }

    fn standing(&mut self) -> Standing {
        let mut conn = self.inner();
        conn.listen(clock::now());
        if std::mem::take(&mut conn.fenced) {
            Standing::Fenced
        } else if conn.peer.is_some() {
            Standing::Well
        } else {
            Standing::Lost(conn.lost.clone())
        }
    }

    fn conn(&self) -> Option<OwnedFd> {
        Line(self.0.clone()).conn()
    }

    fn dismiss(&mut self) {
        self.tell(&Order::Bye);
        self.lose("it was dismissed");
    }
}

#[cfg(test)]
mod tests;
