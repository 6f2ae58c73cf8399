//! A process that is held by a file descriptor: its number may be another process's by the time that a signal is sent
//! to it (pidfd_open(2)).

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// A process, alive or not.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that listened at the other end of `stream` when it was connected to (unix(7), SO_PEERCRED).
    ///
    /// # Errors
    /// It has ended, or the kernel has no such thing (Linux 5.3).
    pub fn of_listener(stream: &UnixStream) -> io::Result<PidFd> {
        match getsockopt(stream, PeerPidfd) {
            Ok(fd) => Ok(PidFd(fd)),
            // Before Linux 6.5. The number may be another process's: see what has it before it is sent a signal.
            Err(Errno::ENOPROTOOPT) => PidFd::open(getsockopt(stream, PeerCredentials)?.pid()),
            Err(errno) => Err(errno.into()),
        }
    }

    #[allow(unsafe_code)]
    fn open(pid: libc::pid_t) -> io::Result<PidFd> {
        // SAFETY: pidfd_open(2) takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made it, and nothing else has it.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Ends it (SIGKILL).
    ///
    /// # Errors
    /// It has ended, or is not this user's.
    #[allow(unsafe_code)]
    pub fn kill(&self) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal(2) takes a descriptor that is open, a number, no siginfo_t, and no flags.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGKILL,
                none,
                0,
            )
        };
        Errno::result(sent)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Input: a child, and this process at the end of a socket. Output: the child is ended, and nothing else.
    #[test]
    fn it_ends_the_process_that_it_holds() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = PidFd::open(child.id().try_into().unwrap()).unwrap();
        assert!(!process.has_ended());
        process.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(process.has_ended());
        let error = process.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(!PidFd::of_listener(&stream).unwrap().has_ended());
    }
}
