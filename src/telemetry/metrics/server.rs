//! Answers HTTP requests for the numbers: thread `metrics`.
//!
//! One thread for all connections, none of which it waits for alone. Each has [`PATIENCE`] from its first moment
//! to the end of its reply; of more than [`MOST`] at once the oldest is closed, so that slow ones cannot keep a
//! scrape out. Nothing that a client does reaches the threads that serve VNIs.

use super::Metrics;
use super::http::{self, Reading, Status};
use super::text::{self, CONTENT_TYPE};
use crate::model::types::Time;
use crate::sys::clock;
use crate::telemetry::log_text::Complaint;
use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

pub use super::text::{About, page};

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Connections at once.
const MOST: usize = 32;
/// New connections that are taken between two looks at those that are there.
const BURST: usize = 16;
/// How long the thread leaves a listener alone that gives errors (too many open files).
const PAUSE: Duration = Duration::from_millis(100);

/// How soon an address that cannot be listened at is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The listening socket.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
}

/// What the answers are made from.
struct Desk {
    metrics: Arc<Metrics>,
    about: About,
    /// How long the worker may do nothing and still count as alive.
    stillness: Duration,
}

/// Starts the thread, which ends with the process. It listens at `address`, now or as soon as that is possible:
/// numbers that cannot be asked for are no reason to leave VNIs without a gateway. The daemon counts as alive while
/// its worker has not stood still for longer than `stillness`.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    about: About,
    stillness: Duration,
) -> io::Result<()> {
    let desk = Desk {
        metrics,
        about,
        stillness,
    };
    Builder::new()
        .name("metrics".to_owned())
        .spawn(move || Server::listen(address).run(&desk))?;
    Ok(())
}

impl Server {
    /// Waits until `address` can be listened at.
    fn listen(address: SocketAddr) -> Server {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let mut complaint = Complaint::default();
        loop {
            match bind() {
                Ok(listener) => {
                    if complaint.settle() {
                        info!("metrics: listening at {address}");
                    }
                    return Server { listener };
                }
                Err(error) => {
                    let reason = error.to_string();
                    if complaint.raise(&reason) {
                        warn!("metrics: cannot listen at {address}, trying again: {reason}");
                    }
                    sleep(AGAIN);
                }
            }
        }
    }

    fn run(&self, desk: &Desk) {
        let mut connections: VecDeque<Connection> = VecDeque::new();
        loop {
            let ready = self.wait(&connections);
            let now = clock::now();
            let mut turn = 0;
            connections.retain_mut(|connection| {
                let is_ready = ready.get(turn).copied().unwrap_or(false);
                turn += 1;
                now < connection.until && (!is_ready || connection.go_on(desk, now))
            });
            self.accept(&mut connections, now);
        }
    }

    /// Until something can be done; which of the connections are ready.
    fn wait(&self, connections: &VecDeque<Connection>) -> Vec<bool> {
        let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(connections.iter().map(|connection| {
            let flags = if connection.reply.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLOUT
            };
            PollFd::new(connection.stream.as_fd(), flags)
        }));
        // The first is the oldest, so its time is over first.
        let timeout = connections.front().map_or(PollTimeout::NONE, |oldest| {
            let left = oldest.until.since(clock::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).is_err() {
            return Vec::new();
        }
        let is_ready = |fd: &PollFd| fd.any().unwrap_or(false);
        fds[1..].iter().map(is_ready).collect()
    }

    fn accept(&self, connections: &mut VecDeque<Connection>, now: Time) {
        for _ in 0..BURST {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    if connections.len() == MOST {
                        connections.pop_front();
                    }
                    connections.push_back(Connection {
                        stream,
                        request: Vec::new(),
                        reply: Vec::new(),
                        sent: 0,
                        until: now + PATIENCE,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Gone before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    sleep(PAUSE);
                    return;
                }
            }
        }
    }
}

/// One client.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Empty as long as the request is not whole.
    reply: Vec<u8>,
    sent: usize,
    /// Then it is closed.
    until: Time,
}

impl Connection {
    /// Reads or writes what can be; says whether there is more to come.
    fn go_on(&mut self, desk: &Desk, now: Time) -> bool {
        if self.reply.is_empty() && !self.read(desk, now) {
            return false;
        }
        self.reply.is_empty() || self.write()
    }

    fn read(&mut self, desk: &Desk, now: Time) -> bool {
        let mut buffer = [0; http::LONGEST];
        let free = http::LONGEST - self.request.len();
        match self.stream.read(&mut buffer[..free]) {
            Ok(0) => return false,
            Ok(length) => self.request.extend_from_slice(&buffer[..length]),
            Err(error) => return is_passing(&error),
        }
        match http::read(&self.request) {
            Reading::More => {}
            Reading::Whole { path, head } => self.reply = desk.answer(&path, head, now),
            Reading::Refused(status) => self.reply = http::reply(status, PLAIN, "", false),
        }
        true
    }

    fn write(&mut self) -> bool {
        match self.stream.write(&self.reply[self.sent..]) {
            Ok(length) => self.sent += length,
            Err(error) => return is_passing(&error),
        }
        let is_done = self.sent == self.reply.len();
        if is_done {
            // What else it has sent is not read: it gets the reply first, then the end.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        !is_done
    }
}

/// Nothing to be done now; later perhaps.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The media type of answers for people.
const PLAIN: &str = "text/plain; charset=utf-8";

impl Desk {
    fn answer(&self, path: &str, head: bool, now: Time) -> Vec<u8> {
        let (status, content_type, body) = match path {
            "/metrics" => (
                Status::Ok,
                CONTENT_TYPE,
                text::page(&self.metrics, &self.about, now),
            ),
            "/healthz" => said(
                self.metrics
                    .ailment(now, self.stillness)
                    .into_iter()
                    .collect(),
            ),
            "/readyz" => said(self.metrics.lacks(now)),
            "/" => (
                Status::Ok,
                PLAIN,
                "wmgwd: /metrics /healthz /readyz\n".to_owned(),
            ),
            _ => (Status::NotFound, PLAIN, "not found\n".to_owned()),
        };
        http::reply(status, content_type, &body, head)
    }
}

/// `ok`, or what is missing.
fn said(lacks: Vec<String>) -> (Status, &'static str, String) {
    if lacks.is_empty() {
        (Status::Ok, PLAIN, "ok\n".to_owned())
    } else {
        (Status::Unavailable, PLAIN, lacks.join("\n") + "\n")
    }
}
