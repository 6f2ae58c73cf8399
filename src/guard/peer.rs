//! One end of the line between daemon and guard: whole lines out of what comes, without waiting.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// How much is read at a time, so that a peer that writes without end does not delay the rest for long.
const GULP: usize = 1 << 20;
/// A line longer than this (all VNIs there are take 145 MB) does not come from wmgwd.
const LONGEST: usize = 256 << 20;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

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
