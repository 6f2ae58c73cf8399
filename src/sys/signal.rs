//! SIGTERM, SIGINT and SIGHUP: blocked in every thread, and taken by one thread that waits for them.
//!
//! No handler runs in the middle of other code, so what is done on a signal may lock, log and send.
//! SIGPIPE is ignored by Rust's runtime. SIGHUP counts as SIGTERM (a daemon started from a terminal that
//! closes shall hand off its VNIs), unless it was ignored at the start, as `nohup` does.
//!
//! # What children see
//!
//! A child **inherits the blocked signals**: `std::process::Command` leaves the mask as it is, both where it
//! uses posix_spawn and where it forks (seen with Rust 1.95, and checked by a test below; only SIGPIPE is set
//! back to its default). That is wanted here. Ctrl-C at a terminal reaches the whole process group, and must
//! not end a vtysh that is withdrawing, nor the guard. Such a child is ended with SIGKILL
//! (`std::process::Child::kill`); a SIGTERM would stay pending for good.

use log::info;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::thread::{Builder, JoinHandle};

/// The signals that are blocked, ready to be waited for.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
}

/// Blocks the signals in this thread and in all threads that it starts from now on: the first thing to do in
/// `main`. A signal that arrives before [`Signals::spawn`] stays pending and is not lost.
///
/// # Errors
/// If the kernel refuses the mask.
pub fn block() -> io::Result<Signals> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    // Linux keeps a blocked signal pending even if it is ignored, so that sigwait would see what nohup hides.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !is_ignored(&status, Signal::SIGHUP) {
        set.add(Signal::SIGHUP);
    }
    set.thread_block()?;
    Ok(Signals { set })
}

impl Signals {
    /// Takes the block off again, so that each of them ends the process at once.
    ///
    /// # Errors
    /// If the kernel refuses the mask.
    pub fn unblock(self) -> io::Result<()> {
        Ok(self.set.thread_unblock()?)
    }

    /// Blocks what else comes from the keyboard, so that [`Signals::listen`] hears of it too: SIGQUIT (Ctrl-\\) and
    /// SIGTSTP (Ctrl-Z). To be called before any thread is started.
    ///
    /// # Errors
    /// If the kernel refuses the mask.
    pub fn with_keyboard(mut self) -> io::Result<Signals> {
        self.set.add(Signal::SIGQUIT);
        self.set.add(Signal::SIGTSTP);
        self.set.thread_block()?;
        Ok(self)
    }

    /// Starts the thread `signal`, which calls `on_signal` with each signal. It ends with the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn listen(
        self,
        mut on_signal: impl FnMut(Signal) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        Builder::new().name("signal".to_owned()).spawn(move || {
            loop {
                on_signal(self.wait());
            }
        })
    }

    /// Starts the thread `signal`, which calls `on_signal` with 1 for the first signal (drain), 2 for the
    /// second (end at once), and so on. It ends with the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(
        self,
        mut on_signal: impl FnMut(u32) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let mut count = 0;
        self.listen(move |signal| {
            count += 1;
            info!("signal={signal} count={count}");
            on_signal(count);
        })
    }

    fn wait(&self) -> Signal {
        self.set
            .wait()
            .expect("sigwait fails only for a set with an invalid signal (sigwait(3))")
    }
}

/// Whether `signal` is ignored, by the `SigIgn` line of a `/proc/<pid>/status` (proc(5)).
fn is_ignored(status: &str, signal: Signal) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::signal::{kill, raise};
    use nix::unistd::Pid;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn pending_signals_are_not_lost() {
        let signals = block().unwrap();
        raise(Signal::SIGINT).unwrap();
        assert_eq!(signals.wait(), Signal::SIGINT);
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(signals.wait(), Signal::SIGTERM);
    }

    /// Input: SIGTERM, SIGINT, SIGHUP to a process. Output: the callback is called with 1, 2, 3.
    ///
    /// The process is this test once more, started with the signals blocked: in this one, threads of the
    /// test harness would take the signals.
    #[test]
    fn signals_to_the_process_are_counted() {
        const CHILD: &str = "WMGWD_TEST_SIGNAL_CHILD";
        let signals = block().unwrap();
        if std::env::var_os(CHILD).is_some() {
            let (counts, inbox) = mpsc::channel();
            signals
                .spawn(move |count| counts.send(count).unwrap())
                .unwrap();
            println!("\nready");
            for _ in 0..3 {
                let count = inbox.recv_timeout(Duration::from_secs(20)).unwrap();
                println!("\ncount {count}");
            }
            return;
        }
        // Under nohup, SIGHUP must not count.
        let third = if signals.set.contains(Signal::SIGHUP) {
            Signal::SIGHUP
        } else {
            Signal::SIGTERM
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("sys::signal::tests::signals_to_the_process_are_counted")
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for (line, signal) in [
            ("ready", Some(Signal::SIGTERM)),
            ("count 1", Some(Signal::SIGINT)),
            ("count 2", Some(third)),
            ("count 3", None),
        ] {
            assert!(lines.any(|read| read.unwrap() == line), "{line}");
            if let Some(signal) = signal {
                kill(pid, signal).unwrap();
            }
        }
        assert!(child.wait().unwrap().success());
    }

    /// What the module says about children, on both ways in which std starts them.
    #[test]
    fn children_inherit_the_blocked_signals() {
        use std::os::unix::process::CommandExt;
        block().unwrap();
        let status = || {
            let mut cat = Command::new("cat");
            cat.arg("/proc/self/status");
            cat
        };
        let mut forked = status();
        // A group to set makes std fork instead of posix_spawn.
        forked.gid(nix::unistd::getgid().as_raw());
        for mut child in [status(), forked] {
            let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
            let blocked = output
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:"))
                .unwrap();
            let mask = u64::from_str_radix(blocked.trim(), 16).unwrap();
            for signal in [Signal::SIGTERM, Signal::SIGINT] {
                assert_eq!(mask >> (signal as i32 - 1) & 1, 1, "{signal}");
            }
        }
    }

    #[test]
    fn an_ignored_signal_is_seen_in_the_status() {
        let status = "SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, Signal::SIGHUP));
        assert!(is_ignored(status, Signal::SIGPIPE));
        assert!(!is_ignored(status, Signal::SIGINT));
        assert!(!is_ignored("", Signal::SIGHUP));
    }
}
