//! What the service manager is told (sd_notify(3)): ready, stopping, a line of status, and that the worker
//! still turns.
//!
//! Owns one datagram socket, which never blocks: a service manager that does not read costs no VNI.
//! Without `NOTIFY_SOCKET` nothing is sent. Processes that this one starts do not speak for it:
//! `child` leaves [`VARIABLES`] out of their environment.

use crate::model::types::Time;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::id;
use std::time::Duration;

/// The variables of sd_notify(3) and sd_watchdog_enabled(3).
const SOCKET: &str = "NOTIFY_SOCKET";
const USEC: &str = "WATCHDOG_USEC";
const PID: &str = "WATCHDOG_PID";
/// With these in its environment a process speaks for the one that they are meant for.
pub const VARIABLES: [&str; 3] = [SOCKET, USEC, PID];

/// The status is told no more often than this.
const STATUS: Duration = Duration::from_secs(1);

/// The line to the service manager.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How long it waits for a sign of life before it ends this process.
    patience: Option<Duration>,
    is_ready: bool,
    is_stopping: bool,
    status: String,
    status_at: Time,
    alive_at: Time,
}

impl Supervisor {
    /// The service manager that the environment names, if any.
    ///
    /// # Errors
    /// It names one that cannot be reached.
    pub fn from_environment() -> io::Result<Supervisor> {
        let patience = patience(
            std::env::var(USEC).ok().as_deref(),
            std::env::var(PID).ok().as_deref(),
            id(),
        );
        std::env::var_os(SOCKET).map_or_else(
            || Ok(Supervisor::default()),
            |address| Supervisor::at(&address, patience),
        )
    }

    /// The service manager that listens at `address`: a path, or `@` and an abstract name.
    fn at(address: &OsStr, patience: Option<Duration>) -> io::Result<Supervisor> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Supervisor {
            socket: Some(socket),
            patience,
            ..Supervisor::default()
        })
    }

    /// How often [`Supervisor::turn`] must be called.
    pub fn interval(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(1);
        self.patience
            .map_or(LONGEST, |patience| (patience / 4).min(LONGEST))
    }

    /// The worker has turned. `status` is asked for now and then: one line for people.
    pub fn turn(&mut self, now: Time, status: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        let due = |at: Time, every: Duration| at == Time::default() || now.since(at) >= every;
        if self
            .patience
            .is_some_and(|patience| due(self.alive_at, patience / 4))
        {
            self.alive_at = now;
            self.send("WATCHDOG=1");
        }
        if due(self.status_at, STATUS) {
            self.status_at = now;
            // One assignment a line: a line break would begin another.
            let status = status().replace(['\n', '\r'], " ");
            if status != self.status {
                self.send(&format!("STATUS={status}"));
                self.status = status;
            }
        }
    }

    /// The node takes part: told once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.send("READY=1");
        }
    }

    /// Whether [`Supervisor::ready`] was called.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The node goes: told once.
    pub fn stopping(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.send("STOPPING=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A service manager that is gone or slow: what it misses is its own affair.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// How long the service manager waits for a sign of life of process `me`.
fn patience(usec: Option<&str>, pid: Option<&str>, me: u32) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(me));
    let usec: u64 = usec.filter(|_| is_meant)?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::since_boot(Duration::from_secs(seconds))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    fn abstract_pair(patience: Option<Duration>) -> (Supervisor, UnixDatagram) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "wmgwd-test-{}-{}",
            id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let supervisor = Supervisor::at(OsStr::new(&format!("@{name}")), patience).unwrap();
        (supervisor, manager)
    }

    /// Input: turns and news, at an abstract address. Output: each news once, the status when it is another and
    /// at most once a second, signs of life four times in the time that is waited for one.
    #[test]
    fn what_is_told_is_told_once_and_in_time() {
        let (mut supervisor, manager) = abstract_pair(Some(Duration::from_secs(20)));
        assert_eq!(supervisor.interval(), Duration::from_secs(1));
        supervisor.turn(at(1), || "a\nb".into());
        supervisor.turn(at(1), || "not asked for".into());
        supervisor.ready();
        supervisor.ready();
        supervisor.turn(at(3), || "a b".into());
        supervisor.turn(at(6), || "c".into());
        supervisor.stopping();
        supervisor.stopping();
        assert_eq!(
            heard(&manager),
            [
                "WATCHDOG=1",
                "STATUS=a b",
                "READY=1",
                "WATCHDOG=1",
                "STATUS=c",
                "STOPPING=1"
            ]
        );
    }

    #[test]
    fn a_path_is_an_address_too() {
        let dir = std::env::temp_dir().join(format!("wmgwd-supervisor-{}", id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::at(path.as_os_str(), None);
        let gone = Supervisor::at(dir.join("nobody").as_os_str(), None);
        std::fs::remove_dir_all(&dir).unwrap();
        supervisor.unwrap().ready();
        assert_eq!(heard(&manager), ["READY=1"]);
        assert!(gone.is_err());
    }

    /// Input: a service manager that never reads. Output: the daemon does not wait for it.
    #[test]
    fn a_deaf_service_manager_blocks_nobody() {
        let (mut supervisor, manager) = abstract_pair(None);
        for turn in 0..10_000 {
            supervisor.turn(at(2 * turn + 1), || format!("{turn}"));
        }
        assert!(heard(&manager).len() < 10_000);
    }

    #[test]
    fn the_watchdog_is_meant_for_one_process() {
        let seconds = |text| patience(Some(text), None, 7).map(|it| it.as_secs());
        assert_eq!(seconds("30000000"), Some(30));
        assert_eq!(seconds("0"), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(patience(None, None, 7), None);
        assert!(patience(Some("1"), Some("7"), 7).is_some());
        assert!(patience(Some("1"), Some("8"), 7).is_none());
    }
}
