//! A question to an FRR daemon over its vty socket, as vtysh asks it: a command and a NUL; the answer ends with three
//! NULs and a status byte (FRR's `vtysh_client_run` in vtysh/vtysh.c). One connection serves many questions, without
//! a process for each.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::health::connect_at_once;
use crate::sys::clock;

/// An answer is not read beyond this: a configuration of 10 000 VNIs takes about 2 MB.
const MOST: usize = 32 << 20;

/// What FRR's shows of the configuration need; over this socket FRR asks for no password (`enable_cmd` in lib/vty.c).
const ENABLE: &str = "enable";

/// What a daemon answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// FRR's result of the command, 0 for success; vtysh ends with it.
    pub status: u8,
}

/// The way to one daemon.
#[derive(Debug)]
pub struct Vty {
    run_dirs: Vec<PathBuf>,
    daemon: &'static str,
    stream: Option<UnixStream>,
}

impl Vty {
    /// To the daemon whose socket is in one of `run_dirs`. Connects when there is something to ask.
    pub fn new(run_dirs: Vec<PathBuf>, daemon: &'static str) -> Vty {
        Vty {
            run_dirs,
            daemon,
            stream: None,
        }
    }

    /// What the daemon answers to `command`, within `patience`.
    ///
    /// # Errors
    /// It has no socket that lets this process in ([`io::ErrorKind::NotConnected`]), or does not answer in time. The
    /// next question is asked over another connection.
    pub fn ask(&mut self, command: &str, patience: Duration) -> io::Result<Answer> {
        // A daemon that has ended since has closed the connection: its successor is asked at once.
        let kept = self.stream.take();
        if let Some(stream) = kept
            && let Ok(answer) = self.ask_over(stream, command, patience)
        {
            return Ok(answer);
        }
        let name = format!("{}.vty", self.daemon);
        let mut paths = self.run_dirs.iter().map(|dir| dir.join(&name));
        // A daemon that is stopped would hold up a connection that waits for it.
        let found = paths.find_map(|path| connect_at_once(&path).ok());
        let stream = UnixStream::from(found.ok_or(io::ErrorKind::NotConnected)?);
        stream.set_nonblocking(false)?;
        let deadline = clock::now() + patience;
        self.ask_over(stream, ENABLE, patience)?;
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        self.ask_over(stream, command, deadline.since(clock::now()))
    }

    fn ask_over(
        &mut self,
        mut stream: UnixStream,
        command: &str,
        patience: Duration,
    ) -> io::Result<Answer> {
        if patience.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let deadline = clock::now() + patience;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(command.as_bytes())?;
        stream.write_all(&[0])?;
        let mut answer = Vec::new();
        let mut part = [0; 16 << 10];
        while !is_whole(&answer) {
            let left = deadline.since(clock::now());
            if left.is_zero() || answer.len() > MOST {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut part) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => answer.extend(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream = Some(stream);
        let status = answer.last().copied().unwrap_or_default();
        answer.truncate(answer.len() - END);
        Ok(Answer {
            text: String::from_utf8_lossy(&answer).into_owned(),
            status,
        })
    }
}

/// Bytes at the end of an answer.
const END: usize = 4;

fn is_whole(answer: &[u8]) -> bool {
    let end = answer.len().checked_sub(END).map(|at| &answer[at..]);
    matches!(end, Some([0, 0, 0, _]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Reads one command.
    fn command(stream: &mut UnixStream) -> String {
        let mut byte = [1];
        let mut text = String::new();
        while stream.read(&mut byte).unwrap() == 1 && byte != [0] {
            text.push(char::from(byte[0]));
        }
        text
    }

    /// Input: a daemon that answers in pieces, twice over one connection, ends after that, and starts again; later
    /// one that says nothing. Output: whole answers, from the new one too; then an error.
    #[test]
    fn answers_are_whole_and_a_new_daemon_is_found() {
        let dir = std::env::temp_dir().join(format!("wmgwd-ask-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let socket = dir.join("bgpd.vty");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = thread::spawn(move || {
            for answers in [2, 1] {
                let (mut stream, _) = listener.accept().unwrap();
                assert_eq!(command(&mut stream), ENABLE);
                stream.write_all(&[0; 4]).unwrap();
                for _ in 0..answers {
                    let asked = command(&mut stream);
                    stream.write_all(b"you said ").unwrap();
                    stream.write_all(asked.as_bytes()).unwrap();
                    stream.write_all(b"\0").unwrap();
                    thread::sleep(Duration::from_millis(5));
                    stream.write_all(b"\0\0\x01").unwrap();
                }
            }
            listener
        });
        let mut vty = Vty::new(vec!["/nonexistent".into(), dir.clone()], "bgpd");
        for question in ["one", "two", "three"] {
            let answer = vty.ask(question, PATIENCE).unwrap();
            let text = format!("you said {question}");
            assert_eq!(answer, Answer { text, status: 1 });
        }
        let _silent = daemon.join().unwrap();
        let error = vty.ask("four", Duration::from_millis(20)).unwrap_err();
        let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        std::fs::remove_dir_all(&dir).unwrap();
        let mut nothing = Vty::new(vec![dir], "bgpd");
        let error = nothing.ask("five", PATIENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
