//! Which FRR daemons run, from their pid files and /proc, and a connection to each that tells its end. No vtysh: a
//! stopped daemon would block it.

use crate::host::Health;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Looks for the daemons whose pid files stand in one of `run_dirs` (the first that has one counts).
pub fn look(run_dirs: &[PathBuf]) -> Health {
    let identity = |daemon| run_dirs.iter().find_map(|dir| identity(dir, daemon));
    Health {
        bgpd: identity("bgpd"),
        ospfd: identity("ospfd"),
        zebra: identity("zebra"),
    }
}

/// Whether `daemon` has a process, be it one that is stopped and does not answer.
pub fn runs(run_dirs: &[PathBuf], daemon: &str) -> bool {
    run_dirs.iter().any(|dir| {
        let pid = fs::read_to_string(dir.join(format!("{daemon}.pid"))).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
        !pid.trim().is_empty() && name.trim() == daemon
    })
}

fn identity(run_dir: &Path, daemon: &str) -> Option<u64> {
    let pid = fs::read_to_string(run_dir.join(format!("{daemon}.pid"))).ok()?;
    let pid: u64 = pid.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The start in clock ticks since boot tells a new process with an old number; a Linux pid has at most
    // 22 bits (PID_MAX_LIMIT).
    Some(started(&stat, daemon)? << 22 | pid & 0x003f_ffff)
}

/// Start time in clock ticks since boot from `/proc/<pid>/stat` (proc_pid_stat(5)), if that process is
/// `daemon` and can act: one that is stopped or a zombie does not answer, which is as bad as none.
fn started(stat: &str, daemon: &str) -> Option<u64> {
    // The name stands in parentheses and may contain anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    if name != daemon || matches!(state, "T" | "Z" | "X") {
        return None;
    }
    // Field 22 of all, the third is the state.
    fields.nth(18)?.parse().ok()
}

/// A connection to each daemon's vty, as watchfrr has one, over which nothing is said: the kernel ends it with the
/// daemon, so that nobody has to look for that. It only says when to look: a daemon that is stopped keeps it, and one
/// that closes it may live.
#[derive(Debug, Default)]
pub struct Ties([Tie; 3]);

#[derive(Debug, Default)]
struct Tie {
    /// The run of the daemon that it is, or was, a connection to.
    to: Option<u64>,
    stream: Option<UnixStream>,
}

impl Ties {
    /// Ties each daemon that runs and was not tied yet in this run.
    pub fn renew(&mut self, run_dirs: &[PathBuf], health: Health) {
        let runs = [
            ("bgpd", health.bgpd),
            ("ospfd", health.ospfd),
            ("zebra", health.zebra),
        ];
        for (tie, (daemon, run)) in self.0.iter_mut().zip(runs) {
            tie.stream = tie.stream.take().filter(is_open);
            if run.is_some() && tie.to != run {
                let name = format!("{daemon}.vty");
                tie.stream = run_dirs.iter().find_map(|dir| connect(&dir.join(&name)));
                tie.to = run.filter(|_| tie.stream.is_some());
            }
        }
    }

    /// What becomes readable when a daemon ends.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.0.iter().filter_map(|tie| tie.stream.as_ref());
        streams.map(AsFd::as_fd).collect()
    }
}

fn connect(vty: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(vty).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
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
        assert_eq!(started(STAT, "bgpd"), Some(91938));
        assert_eq!(started(STAT, "zebra"), None);
        assert_eq!(started(&STAT.replace(" S ", " T "), "bgpd"), None);
        assert_eq!(started("29 (a) b) S 1", "bgpd"), None);
        assert_eq!(started("", "bgpd"), None);
    }

    /// Input: a daemon that is there, ends, stays away, comes again. Output: its end is readable, once; the same run
    /// is not tied again, the next is.
    #[test]
    fn an_end_is_told_once() {
        let dir = std::env::temp_dir().join(format!("wmgwd-ties-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let dirs = ["/nonexistent".into(), dir.clone()];
        let listener = UnixListener::bind(dir.join("bgpd.vty")).unwrap();
        let run = |bgpd| Health {
            bgpd,
            ospfd: Some(7),
            ..Health::default()
        };
        let ended = |ties: &Ties| {
            let ends = ties.ends();
            let fds = ends.iter().map(|end| PollFd::new(*end, PollFlags::POLLIN));
            let mut fds: Vec<PollFd> = fds.collect();
            (ends.len(), poll(&mut fds, PollTimeout::ZERO).unwrap())
        };
        let mut ties = Ties::default();
        ties.renew(&dirs, run(Some(1)));
        let (daemon, _) = listener.accept().unwrap();
        ties.renew(&dirs, run(Some(1)));
        assert_eq!(ended(&ties), (1, 0));
        drop(daemon);
        assert_eq!(ended(&ties), (1, 1));
        ties.renew(&dirs, run(Some(1)));
        assert_eq!(ended(&ties), (0, 0));
        ties.renew(&dirs, run(None));
        assert_eq!(ended(&ties), (0, 0));
        ties.renew(&dirs, run(Some(2)));
        assert_eq!(ended(&ties), (1, 0));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_there() {
        assert_eq!(look(&["/nonexistent".into()]), Health::default());
    }
}
