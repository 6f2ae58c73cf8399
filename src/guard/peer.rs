//! One end of the line between daemon and guard: whole lines out of what comes, without waiting; and a question with
//! its answer, for a limited time.

use super::protocol::Order;
use crate::sys::clock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How much is read at a time, so that a peer that writes without end does not delay the rest for long.
const GULP: usize = 1 << 20;
/// A line longer than this (all VNIs there are take 145 MB) does not come from wmgwd.
const LONGEST: usize = 256 << 20;
/// An answer that is longer does not come from a guard.
const LONGEST_ANSWER: usize = 64 << 10;

/// A connection that does not block, and what of it is not a whole line yet.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Peer {
    /// Takes `stream` over.
    ///
    /// # Errors
    /// It cannot be made not to block.
    pub fn new(stream: UnixStream) -> io::Result<Peer> {
        stream.set_nonblocking(true)?;
        Ok(Peer {
            stream,
            unread: Vec::new(),
        })
    }

    /// The connection, for writing.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// The whole lines that have come, and the reason if no more can: they come before that.
    pub fn lines(&mut self) -> (Vec<String>, Option<String>) {
        let mut end = None;
        let mut bytes = [0; 16384];
        let mut gulped = 0;
        while gulped < GULP {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    end = Some("it has closed the connection".to_owned());
                    break;
                }
                Ok(read) => {
                    gulped += read;
                    self.unread.extend_from_slice(&bytes[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    end = Some(error.to_string());
                    break;
                }
            }
        }
        let mut lines = Vec::new();
        if let Some(last) = self.unread.iter().rposition(|&byte| byte == b'\n') {
            let rest = self.unread.split_off(last + 1);
            let whole = std::mem::replace(&mut self.unread, rest);
            lines.extend(String::from_utf8_lossy(&whole).lines().map(str::to_owned));
        }
        if self.unread.len() > LONGEST {
            end = Some("it does not end its line".to_owned());
        }
        (lines, end)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Says `question` to a guard, and returns its answer: one line.
///
/// # Errors
/// `UnexpectedEof` or `ConnectionReset` if the guard closes the connection instead; `TimedOut` if it says nothing for
/// so long.
pub(super) fn ask(
    stream: &mut UnixStream,
    question: &Order,
    within: Duration,
) -> io::Result<String> {
    let begun = clock::now();
    stream.write_all(question.line().as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows the answer is for another reader.
    while answer.last() != Some(&b'\n') {
        let left = (begun + within).since(clock::now());
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if answer.len() == LONGEST_ANSWER => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(_) => answer.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => ready(stream, PollFlags::POLLIN, left)?,
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits until `stream` is ready for `what`, or `within` is over.
pub(super) fn ready(stream: &UnixStream, what: PollFlags, within: Duration) -> io::Result<()> {
    let timeout = (within + Duration::from_micros(999)).as_millis();
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(stream.as_fd(), what)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Input: lines, a line in parts, and an end right behind the last word.
    /// Output: each line once, whole, and the last word before the end.
    #[test]
    fn what_came_before_the_end_is_heard() {
        let (mut daemon, guard) = UnixStream::pair().unwrap();
        let mut peer = Peer::new(guard).unwrap();
        assert_eq!(peer.lines(), (vec![], None));
        daemon.write_all(b"lease 1 2\nser").unwrap();
        assert_eq!(peer.lines(), (vec!["lease 1 2".into()], None));
        daemon.write_all(b"ves 7\nbye\nhalf a li").unwrap();
        drop(daemon);
        let (lines, end) = peer.lines();
        assert_eq!(lines, ["serves 7", "bye"]);
        assert!(end.is_some());
    }
}
