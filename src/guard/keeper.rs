//! The daemon's side of the guard: takes over a predecessor's, or starts one, and keeps it informed.

use super::protocol::{Greeting, Order};
use super::{Error, Guard, process};
use crate::types::{Lease, Vni};
use log::{info, warn};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a guard may take to come up.
const START: Duration = Duration::from_secs(5);
/// How long a running daemon waits for a new guard at a time: whoever minds the guard holds up the fence.
const MIND: Duration = Duration::from_millis(100);
/// How long a guard that is not needed any more may take to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long one message to the guard may take; the guard reads at once or is not well.
const WRITE: Duration = Duration::from_millis(200);

/// The line to the guard of this daemon.
pub struct Keeper {
    address: process::Address,
    /// What the guard is started with.
    arguments: Vec<OsString>,
    socket: Option<UnixStream>,
    /// The guard, if this daemon started it.
    child: Option<Started>,
}

struct Started {
    child: Child,
    at: Instant,
}

/// A guard that was found or started.
pub struct Attached {
    /// The line to it.
    pub keeper: Keeper,
    /// The lease of a dead predecessor, if there was one and its guard still holds.
    pub predecessor: Option<Lease>,
}

impl Keeper {
    /// Takes over the guard at `address`, or starts one with `arguments` (after `wmgwd guard`).
    ///
    /// # Errors
    /// [`Error::NameInUse`] if the guard has a living daemon; else why there is no guard.
    pub fn attach(address: process::Address, arguments: Vec<OsString>) -> Result<Attached, Error> {
        let mut keeper = Keeper {
            address,
            arguments,
            socket: None,
            child: None,
        };
        let predecessor = match keeper.reach(START)? {
            Greeting::Busy => return Err(Error::NameInUse),
            Greeting::Fresh => None,
            Greeting::Orphan(lease) => Some(lease),
        };
        Ok(Attached {
            keeper,
            predecessor,
        })
    }

    fn connect(&mut self, patience: Duration) -> Result<Greeting, Error> {
        let socket = self.address.connect().map_err(Error::Socket)?;
        socket
            .set_read_timeout(Some(patience))
            .map_err(Error::Socket)?;
        socket
            .set_write_timeout(Some(WRITE))
            .map_err(Error::Socket)?;
        let mut line = String::new();
        BufReader::new(&socket)
            .read_line(&mut line)
            .map_err(Error::Socket)?;
        if line.is_empty() {
            // It was just about to end.
            return Err(Error::Socket(io::ErrorKind::ConnectionReset.into()));
        }
        let greeting = Greeting::read(&line).ok_or(Error::Protocol)?;
        if greeting != Greeting::Busy {
            self.socket = Some(socket);
        }
        Ok(greeting)
    }

    /// Connects to the guard, and starts one where there is none, for at most `patience`.
    fn reach(&mut self, patience: Duration) -> Result<Greeting, Error> {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.connect(left.max(PAUSE)) {
                Err(error) if is_nobody(&error) && !left.is_zero() => {
                    // One that finds the address still taken, by a guard that is about to end, ends at once.
                    let ended = |it: &mut Started| !matches!(it.child.try_wait(), Ok(None));
                    if self.child.as_mut().is_none_or(ended) {
                        self.spawn()?;
                    }
                    // The new process has not bound its address yet.
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn spawn(&mut self) -> Result<(), Error> {
        let child = Command::new("/proc/self/exe")
            .arg("guard")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A group of its own: what a terminal or a supervisor does to the daemon's group is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(Error::Start)?;
        info!("guard={} started", child.id());
        let at = Instant::now();
        self.child = Some(Started { child, at });
        Ok(())
    }

    /// Ends and reaps a guard of ours.
    fn bury(&mut self) {
        self.socket = None;
        if let Some(Started { mut child, .. }) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn tell(&mut self, order: &Order) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        if let Err(error) = socket.write_all(order.line().as_bytes()) {
            // `mind` starts another.
            warn!("guard lost: {error}");
            self.socket = None;
        }
    }

    fn is_connected(&mut self) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        // The guard says nothing after its greeting, so there is nothing to read unless it is gone.
        let mut byte = [0];
        let look = socket
            .set_nonblocking(true)
            .and_then(|()| (&mut &*socket as &mut dyn io::Read).read(&mut byte));
        let alive = matches!(&look, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        alive && socket.set_nonblocking(false).is_ok()
    }
}

/// Whether no guard listens, or one that is just about to end.
fn is_nobody(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    let Error::Socket(error) = error else {
        return false;
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | BrokenPipe
    )
}

impl Guard for Keeper {
    fn lease(&mut self, lease: Lease) {
        self.tell(&Order::Lease(lease));
    }

    fn serves(&mut self, vnis: &[Vni]) {
        self.tell(&Order::Serves(vnis.to_vec()));
    }

    fn released(&mut self, vnis: &[Vni]) {
        self.tell(&Order::Released(vnis.to_vec()));
    }

    fn mind(&mut self, lease: Option<Lease>, answering: &BTreeSet<Vni>) -> Result<(), Error> {
        if self.is_connected() {
            return Ok(());
        }
        warn!("guard gone: starting another");
        self.socket = None;
        match self.reach(MIND) {
            Ok(Greeting::Busy) => return Err(Error::NameInUse),
            Ok(_) => {}
            Err(error) => {
                // It had time enough to come up: it is stuck, and in the way of another.
                if self
                    .child
                    .as_ref()
                    .is_some_and(|it| it.at.elapsed() > START)
                {
                    self.bury();
                }
                return Err(error);
            }
        }
        if let Some(lease) = lease {
            self.tell(&Order::Lease(lease));
        }
        self.tell(&Order::Serves(answering.iter().copied().collect()));
        Ok(())
    }

    fn dismiss(&mut self) {
        self.tell(&Order::Bye);
        self.socket = None;
        let deadline = Instant::now() + FAREWELL;
        let runs = |it: &mut Started| matches!(it.child.try_wait(), Ok(None));
        while self.child.as_mut().is_some_and(runs) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.bury();
    }
}
