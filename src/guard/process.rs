//! The guard itself.
//!
//! One thread, one loop: wait for the daemon's word or for the moment at which the lease can end. Owns
//! nothing but its socket; touches ARP and FRR only when that moment has come.

use super::Error;
use super::protocol::{Greeting, Order};
use crate::clock;
use crate::host::{self, Kernel, Parts, Router};
use crate::types::{Lease, NodeName, Time, Vni};
use log::{error, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// How long a guard waits for its first daemon.
const FIRST: Duration = Duration::from_secs(30);
/// How long the wait is at most: poll(2) follows CLOCK_MONOTONIC, which stands still in a suspended machine.
const GLANCE: Duration = Duration::from_millis(250);
/// How soon after a failure FRR is tried again, and for how long.
const AGAIN: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(300);

/// Where the guard of one node listens: an abstract Unix socket, so that nothing is left behind and each
/// network namespace has its own (unix(7)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address(Vec<u8>);

impl Address {
    /// The address for the node `name`. A mock node has another for each etcd, so that whole test clusters fit on
    /// one machine.
    pub fn new(name: &NodeName, mock_etcd: Option<&str>) -> Address {
        let text = match mock_etcd {
            None => format!("wmgwd/{name}"),
            Some(etcd) => format!("wmgwd-mock/{name}/{etcd}"),
        };
        // sun_path takes 107 bytes beside the leading zero: a long name keeps its distinct end by its hash.
        let mut bytes = text.into_bytes();
        if bytes.len() > 90 {
            use std::hash::Hasher;
            let mut hash = fnv::FnvHasher::default();
            hash.write(&bytes);
            bytes.truncate(70);
            bytes.extend(format!("#{:016x}", hash.finish()).into_bytes());
        }
        Address(bytes)
    }

    /// The address as an argument.
    pub fn argument(&self) -> std::ffi::OsString {
        std::os::unix::ffi::OsStringExt::from_vec(self.0.clone())
    }

    /// The address from an argument.
    pub fn from_argument(text: &str) -> Address {
        Address(text.as_bytes().to_vec())
    }

    /// Whether any real node on this host (in this network namespace) has a guard.
    pub fn any_guard() -> bool {
        // Abstract names stand in /proc/net/unix behind an `@` (proc_net(5)).
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let names = sockets
            .lines()
            .filter_map(|line| line.split_once(" @wmgwd/"));
        // Whoever may not be trusted may bind such a name: only one of our own counts.
        names
            .map(|(_, name)| Address(format!("wmgwd/{name}").into_bytes()))
            .any(|address| address.connect().is_ok())
    }

    fn socket(&self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(&self.0)
    }

    /// Connects to the guard there.
    ///
    /// # Errors
    /// `ConnectionRefused` if there is none; `PermissionDenied` if it runs as another user.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect_addr(&self.socket()?)?;
        check_peer(&stream)?;
        Ok(stream)
    }
}

/// An abstract socket has no permissions: anybody on the host may bind or connect.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = getsockopt(stream, PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// A guard.
pub struct Process {
    listener: UnixListener,
    margin: Duration,
    kernel: Box<dyn Kernel>,
    router: Box<dyn Router>,
    daemon: Option<Daemon>,
    lease: Option<Lease>,
    answering: BTreeSet<Vni>,
    /// Something may be on show that has to go when the lease ends.
    armed: bool,
    retry_at: Time,
    started: Time,
    withdrawing_since: Option<Time>,
}

struct Daemon {
    stream: UnixStream,
    unread: Vec<u8>,
}

/// Whether more may come from the daemon.
enum End {
    NotYet,
    Closed,
}

impl Daemon {
    /// Takes all that there is to read.
    fn read(&mut self) -> io::Result<End> {
        let mut bytes = [0; 65536];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(End::Closed),
                Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(End::NotYet),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The lines that are complete.
    fn lines(&mut self) -> String {
        let end = self.unread.iter().rposition(|&byte| byte == b'\n');
        let rest = self.unread.split_off(end.map_or(0, |end| end + 1));
        let lines = std::mem::replace(&mut self.unread, rest);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl Process {
    /// Binds the address.
    ///
    /// # Errors
    /// The address cannot be bound: `AddrInUse` if a guard lives there.
    pub fn bind(
        address: &Address,
        margin: Duration,
        kernel: Box<dyn Kernel>,
        router: Box<dyn Router>,
    ) -> Result<Process, Error> {
        let listener = address
            .socket()
            .and_then(|address| UnixListener::bind_addr(&address))
            .map_err(Error::Socket)?;
        listener.set_nonblocking(true).map_err(Error::Socket)?;
        let now = clock::now();
        Ok(Process {
            listener,
            margin,
            kernel,
            router,
            daemon: None,
            lease: None,
            answering: BTreeSet::new(),
            armed: false,
            retry_at: now,
            started: now,
            withdrawing_since: None,
        })
    }

    /// Guards until it is dismissed, or has nothing left to guard.
    ///
    /// # Errors
    /// It could not wait any more, or FRR could not be brought to withdraw.
    pub fn run(mut self) -> Result<(), Error> {
        loop {
            let now = clock::now();
            if self.is_due(now) {
                // The word that the lease was renewed may have come this very moment.
                if self.hear() {
                    return Ok(());
                }
                if !self.is_due(now) {
                    continue;
                }
                self.silence();
                if now >= self.retry_at {
                    self.withdraw(now);
                }
            }
            match &self.daemon {
                None if self.lease.is_none() && now.since(self.started) > FIRST => return Ok(()),
                None if self.lease.is_some() && !self.armed => return Ok(()),
                _ => {}
            }
            if self
                .withdrawing_since
                .is_some_and(|since| now.since(since) > GIVE_UP)
            {
                error!(
                    "FRR does not withdraw, giving up: run wmgwd withdraw when it answers again"
                );
                return Ok(());
            }
            self.wait(now)?;
            if self.hear() {
                return Ok(());
            }
            self.accept();
        }
    }

    fn is_due(&self, now: Time) -> bool {
        self.armed
            && self
                .lease
                .is_none_or(|lease| now >= lease.valid_until - self.margin)
    }

    fn silence(&mut self) {
        let before = self.answering.len();
        let kernel = &mut self.kernel;
        self.answering.retain(|&vni| {
            !matches!(
                kernel.set_arp(vni, false),
                Ok(()) | Err(host::Error::NoInterface { .. })
            )
        });
        if before > 0 {
            let whose = if self.daemon.is_some() {
                "the daemon is late"
            } else {
                "the daemon is gone"
            };
            warn!("vnis={before} silenced: the lease ends and {whose}");
        }
    }

    fn withdraw(&mut self, now: Time) {
        self.withdrawing_since.get_or_insert(now);
        // A word from the daemon, or a new daemon: it takes over from here.
        let quiet = || {
            let listener = PollFd::new(self.listener.as_fd(), PollFlags::POLLIN);
            let daemon = self
                .daemon
                .as_ref()
                .map(|daemon| PollFd::new(daemon.stream.as_fd(), PollFlags::POLLIN));
            let mut fds: Vec<PollFd> = [Some(listener), daemon].into_iter().flatten().collect();
            poll(&mut fds, PollTimeout::ZERO) == Ok(0)
        };
        let parts = Parts {
            bgpd: true,
            ospfd: true,
        };
        match self.router.withdraw(parts, &BTreeSet::new(), &quiet) {
            Ok(()) => {
                info!("withdrawn from FRR");
                self.armed = !self.answering.is_empty();
                self.withdrawing_since = None;
            }
            Err(host::Error::NotPermitted) => {}
            Err(failure) => {
                warn!("{}", crate::report::chain(&failure));
                self.retry_at = clock::now() + AGAIN;
            }
        }
    }

    fn wait(&self, now: Time) -> Result<(), Error> {
        let due = match self.lease {
            Some(lease) if self.armed => (lease.valid_until - self.margin)
                .max(self.retry_at)
                .since(now),
            _ => GLANCE,
        };
        // Rounded up to the next millisecond: waking early would only spin.
        let timeout = (due.min(GLANCE) + Duration::from_micros(999)).as_millis();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        if let Some(daemon) = &self.daemon {
            fds.push(PollFd::new(daemon.stream.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::Socket(errno.into())),
        }
    }

    /// Reads what the daemon said; says whether the guard has nothing left to do.
    fn hear(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else {
            return false;
        };
        let end = daemon.read();
        // Last words count: a daemon that ends by itself says so, one that is killed may have said what it serves.
        let lines = daemon.lines();
        let dismissed = self.obey(&lines);
        match end {
            Ok(End::NotYet) => return dismissed,
            Ok(End::Closed) if dismissed => {}
            Ok(End::Closed) => warn!("the daemon is gone: holding on until its lease ends"),
            Err(error) => warn!("cannot read from the daemon: {error}"),
        }
        self.daemon = None;
        // Nothing was ever claimed: there is nothing to hold on to.
        dismissed || self.lease.is_none()
    }

    /// Does what the daemon said; says whether it dismissed the guard.
    fn obey(&mut self, lines: &str) -> bool {
        let mut dismissed = false;
        for line in lines.lines() {
            match Order::read(line) {
                Some(Order::Lease(lease)) => {
                    self.lease = Some(lease);
                    self.armed = true;
                    self.withdrawing_since = None;
                }
                Some(Order::Serves(vnis)) => {
                    self.answering.extend(vnis);
                    self.armed = true;
                }
                Some(Order::Released(vnis)) => {
                    for vni in vnis {
                        self.answering.remove(&vni);
                    }
                }
                Some(Order::Bye) => dismissed = true,
                None => warn!("not understood from the daemon: {line:?}"),
            }
        }
        dismissed
    }

    fn accept(&mut self) {
        let Ok((mut stream, _)) = self.listener.accept() else {
            return;
        };
        if let Err(error) = check_peer(&stream) {
            warn!("refused a connection: {error}");
            return;
        }
        let greeting = match (&self.daemon, self.lease) {
            (Some(_), _) => Greeting::Busy,
            (None, Some(lease)) if self.armed => Greeting::Orphan(lease),
            (None, _) => Greeting::Fresh,
        };
        if let Err(error) = stream
            .write_all(greeting.line().as_bytes())
            .and_then(|()| stream.set_nonblocking(true))
        {
            warn!("cannot greet: {error}");
            return;
        }
        if greeting != Greeting::Busy {
            self.daemon = Some(Daemon {
                stream,
                unread: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
