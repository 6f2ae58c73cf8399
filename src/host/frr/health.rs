//! Which FRR daemons run, from their pid files and /proc, and a connection to each that tells its end. No vtysh: a
//! stopped daemon would block it.

use crate::host::{FrrDaemons, Health};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Looks for the daemons whose pid files are in one of `run_dirs` (the first that has one counts).
pub fn look(run_dirs: &[PathBuf]) -> Health {
    let [bgpd, ospfd, zebra] = ["bgpd", "ospfd", "zebra"].map(|daemon| process(run_dirs, daemon));
    Health {
        bgpd: bgpd.acting(),
        ospfd: ospfd.acting(),
        zebra: zebra.acting(),
        stopped: FrrDaemons {
            bgpd: bgpd == Process::Stopped,
            ospfd: ospfd == Process::Stopped,
        },
    }
}

/// Whether `daemon` has a process, be it one that is stopped and does not answer.
pub fn runs(run_dirs: &[PathBuf], daemon: &str) -> bool {
    process(run_dirs, daemon) != Process::None
}

/// Which run of `daemon` acts; `None` if none does.
pub fn acting(run_dirs: &[PathBuf], daemon: &str) -> Option<u64> {
    process(run_dirs, daemon).acting()
}

/// What there is of a daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Process {
    /// It acts; which run of it this is.
    Acts(u64),
    /// It has a process that does not act.
    Stopped,
    None,
}

impl Process {
    fn acting(self) -> Option<u64> {
        match self {
            Process::Acts(run) => Some(run),
            Process::Stopped | Process::None => None,
        }
    }
}

fn process(run_dirs: &[PathBuf], daemon: &str) -> Process {
    let mut found = run_dirs
        .iter()
        .map(|dir| by_pid_file(dir, daemon))
        .filter(|it| *it != Process::None);
    match found.next() {
        Some(process) => process,
        // In a container its number means nothing here. One that accepts connections runs.
        None => {
            let mut found = run_dirs
                .iter()
                .map(|dir| by_socket(&dir.join(format!("{daemon}.vty"))));
            found
                .find(|it| *it != Process::None)
                .unwrap_or(Process::None)
        }
    }
}

fn by_pid_file(run_dir: &Path, daemon: &str) -> Process {
    let read = || {
        let pid = fs::read_to_string(run_dir.join(format!("{daemon}.pid"))).ok()?;
        let pid: u64 = pid.trim().parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(match state(&stat, daemon)? {
            // The start in clock ticks since boot tells a new process with an old number; a Linux pid has at
            // most 22 bits (PID_MAX_LIMIT).
            Process::Acts(started) => Process::Acts(started << 22 | pid & 0x003f_ffff),
            other => other,
        })
    };
    read().unwrap_or(Process::None)
}

/// What there is of the daemon that listens at `vty`: each run makes the socket anew. One that does not accept
/// fills its queue of connections (listen(2)); then it is stopped.
fn by_socket(vty: &Path) -> Process {
    let read = || -> Result<u64, Errno> {
        connect_at_once(vty)?;
        let socket = fs::metadata(vty).map_err(|_| Errno::ENOENT)?;
        let made = socket.ctime() as u64 ^ (socket.ctime_nsec() as u64) << 32;
        Ok(made ^ socket.ino())
    };
    match read() {
        Ok(run) => Process::Acts(run),
        Err(Errno::ECONNREFUSED | Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => {
            Process::None
        }
        // It has a socket that this process may not use, or that is not served now: it may show something.
        Err(_) => Process::Stopped,
    }
}

/// Connects without waiting: a stopped daemon never accepts, and this thread has other work.
pub(super) fn connect_at_once(vty: &Path) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(vty)?)?;
    Ok(socket)
}

/// What `/proc/<pid>/stat` (proc_pid_stat(5)) says of a process of that name: its start time in clock ticks since
/// boot if it acts; `None` if it is another, or a zombie.
fn state(stat: &str, daemon: &str) -> Option<Process> {
    // The name is in parentheses and may contain anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    match state {
        _ if name != daemon => None,
        "Z" | "X" => None,
        "T" | "t" => Some(Process::Stopped),
        // Field 22 of all, the third is the state.
        _ => Some(Process::Acts(fields.nth(18)?.parse().ok()?)),
    }
}

/// A connection to each daemon's vty, as watchfrr has one, without any traffic: the kernel ends it with the
/// daemon, so that no thread has to poll for that. It only says when to look: a daemon that is stopped keeps it, and
/// one that closes it may live.
#[derive(Debug, Default)]
pub struct VtyConns([VtyConn; 3]);

#[derive(Debug, Default)]
struct VtyConn {
    /// The run of the daemon that it is, or was, a connection to.
    to: Option<u64>,
    stream: Option<UnixStream>,
}

impl VtyConns {
    /// Connects to each daemon that runs and has no connection yet in this run.
    pub fn renew(&mut self, run_dirs: &[PathBuf], health: Health) {
        let runs = [
            ("bgpd", health.bgpd),
            ("ospfd", health.ospfd),
            ("zebra", health.zebra),
        ];
        for (conn, (daemon, run)) in self.0.iter_mut().zip(runs) {
            conn.stream = conn.stream.take().filter(is_open);
            if run.is_some() && conn.to != run {
                let name = format!("{daemon}.vty");
                let streams = run_dirs.iter().map(|dir| connect_at_once(&dir.join(&name)));
                conn.stream = streams.flatten().next().map(UnixStream::from);
                conn.to = run.filter(|_| conn.stream.is_some());
            }
        }
    }

    /// What becomes readable when a daemon ends.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.0.iter().filter_map(|conn| conn.stream.as_ref());
        streams.map(AsFd::as_fd).collect()
    }
}

fn is_open(mut stream: &UnixStream) -> bool {
    let read = stream.read(&mut [0; 64]);
    read.map_or_else(
        |error| error.kind() == std::io::ErrorKind::WouldBlock,
        |length| length > 0,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::unix::net::UnixListener;

    const STAT: &str = "29 (bgpd) S 1 29 29 0 -1 4194624 711 0 0 0 0 1 0 0 20 0 4 0 91938 185737216 3830 18446744073709551615";

    #[test]
    fn start_time_of_the_right_process() {
        assert_eq!(state(STAT, "bgpd"), Some(Process::Acts(91938)));
        assert_eq!(state(STAT, "zebra"), None);
        assert_eq!(
            state(&STAT.replace(" S ", " T "), "bgpd"),
            Some(Process::Stopped)
        );
        assert_eq!(state(&STAT.replace(" S ", " Z "), "bgpd"), None);
        assert_eq!(state("29 (a) b) S 1", "bgpd"), None);
        assert_eq!(state("", "bgpd"), None);
    }

    /// Input: a daemon that is there, ends, stays away, comes again. Output: its end is readable, once; the same run
    /// is not tied again, the next is.
    #[test]
    fn an_end_is_told_once() {
        let dir = std::env::temp_dir().join(format!("wmgwd-conns-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let dirs = ["/nonexistent".into(), dir.clone()];
        let listener = UnixListener::bind(dir.join("bgpd.vty")).unwrap();
        let run = |bgpd| Health {
            bgpd,
            ospfd: Some(7),
            ..Health::default()
        };
        let ended = |conns: &VtyConns| {
            let ends = conns.ends();
            let fds = ends.iter().map(|end| PollFd::new(*end, PollFlags::POLLIN));
            let mut fds: Vec<PollFd> = fds.collect();
            (ends.len(), poll(&mut fds, PollTimeout::ZERO).unwrap())
        };
        let mut conns = VtyConns::default();
        conns.renew(&dirs, run(Some(1)));
        let (daemon, _) = listener.accept().unwrap();
        conns.renew(&dirs, run(Some(1)));
        assert_eq!(ended(&conns), (1, 0));
        drop(daemon);
        assert_eq!(ended(&conns), (1, 1));
        conns.renew(&dirs, run(Some(1)));
        assert_eq!(ended(&conns), (0, 0));
        conns.renew(&dirs, run(None));
        assert_eq!(ended(&conns), (0, 0));
        conns.renew(&dirs, run(Some(2)));
        assert_eq!(ended(&conns), (1, 0));
        fs::remove_dir_all(&dir).unwrap();
    }

    /// Input: a daemon whose number means nothing here, as one in a container. Output: it runs while it accepts
    /// connections, and is another run when its socket is another.
    #[test]
    fn a_daemon_that_accepts_connections_runs() {
        let dir = std::env::temp_dir().join(format!("wmgwd-vty-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let dirs = [dir.clone()];
        fs::write(dir.join("bgpd.pid"), "1\n").unwrap();
        let vty = dir.join("bgpd.vty");
        let first = UnixListener::bind(&vty).unwrap();
        let run = look(&dirs).bgpd;
        assert!(run.is_some() && runs(&dirs, "bgpd"));
        assert_eq!(look(&dirs).bgpd, run);
        drop(first);
        assert!(look(&dirs).bgpd.is_none() && !runs(&dirs, "bgpd"));
        fs::remove_file(&vty).unwrap();
        let _second = UnixListener::bind(&vty).unwrap();
        assert!(![None, run].contains(&look(&dirs).bgpd));
        fs::remove_dir_all(&dir).unwrap();
    }

    /// Input: a daemon of a container that is stopped, so that it accepts nothing, looked at until its queue is full.
    /// Output: no look waits; the daemon has a process that does not act.
    #[test]
    fn a_daemon_that_does_not_accept_is_stopped() {
        let dir = std::env::temp_dir().join(format!("wmgwd-queue-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let dirs = [dir.clone()];
        let vty = dir.join("bgpd.vty");
        let stream = SockType::Stream;
        let listener =
            socket::socket(AddressFamily::Unix, stream, SockFlag::empty(), None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&vty).unwrap()).unwrap();
        socket::listen(&listener, socket::Backlog::new(2).unwrap()).unwrap();
        assert!(look(&dirs).bgpd.is_some());
        let looks: Vec<Health> = (0..9).map(|_| look(&dirs)).collect();
        let last = looks.last().unwrap();
        assert!(last.bgpd.is_none() && last.stopped.bgpd && runs(&dirs, "bgpd"));
        let mut conns = VtyConns::default();
        conns.renew(&dirs, looks[0]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_there() {
        assert_eq!(look(&["/nonexistent".into()]), Health::default());
    }
}
