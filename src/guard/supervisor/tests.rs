//! The daemon's side against a guard that misbehaves.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::types::LeaseId;
use nix::poll::{PollFd, PollTimeout, poll};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

fn lease(seconds: u64) -> Lease {
    Lease {
        id: LeaseId(7),
        valid_until: Time::since_boot(Duration::from_secs(seconds)),
    }
}

fn address() -> Address {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Address::from_argument(&format!("wmgwd-test/{}/{number}", std::process::id()))
}

fn conn() -> (GuardConn, UnixStream) {
    let (daemon, guard) = UnixStream::pair().unwrap();
    (GuardConn::new(Peer::new(daemon).unwrap()), guard)
}

/// Accepts one connection and answers with `answer`; gives back what holds it open.
fn answer(listener: UnixListener, answer: &'static str) -> std::thread::JoinHandle<UnixStream> {
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        stream
    })
}

fn connect(said: &'static str) -> Result<(GuardConn, Option<Predecessor>), Error> {
    let address = address();
    let guard = answer(address.listen().unwrap(), said);
    let mut supervisor = GuardSupervisor {
        address,
        arguments: Vec::new(),
        child: None,
        found: None,
    };
    let result = supervisor.connect(Duration::from_secs(10));
    guard.join().unwrap();
    result
}

#[test]
fn greetings_are_understood() {
    assert!(matches!(connect("fresh\n"), Ok((_, None))));
    let (_, predecessor) = connect("orphan 7 5000000000\n").map_err(|_| ()).unwrap();
    assert_eq!(predecessor, Some((lease(5), None)));
    assert!(matches!(connect("busy\n"), Err(Error::NameInUse)));
    assert!(matches!(connect("HTTP/1.1 400\n"), Err(Error::Protocol)));
}

#[test]
fn what_follows_the_greeting_is_not_lost() {
    let (mut conn, _) = connect("orphan 7 5000000000\nfenced\n")
        .map_err(|_| ())
        .unwrap();
    assert_eq!(conn.standing(), Standing::Fenced);
}

/// Input: a process at the address that never writes. Output: the wait ends.
#[test]
fn a_guard_that_says_nothing_is_not_waited_for() {
    let address = address();
    let _listener = address.listen().unwrap();
    let mut supervisor = GuardSupervisor {
        address,
        arguments: Vec::new(),
        child: None,
        found: None,
    };
    match supervisor.connect(Duration::from_millis(50)) {
        Err(Error::Socket(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        other => panic!("{:?}", other.map(|(_, lease)| lease)),
    }
    // It is this very process: no guard, so it lives on.
    supervisor.bury();
}

/// Input: a guard that is stopped, and words until its buffer is full.
/// Output: not one of them blocks for long, and the guard counts as lost.
#[test]
fn a_guard_that_does_not_read_is_lost_soon() {
    let (mut conn, _guard) = conn();
    let many: Vec<Vni> = (1..100_000).filter_map(Vni::new).collect();
    let begun = Instant::now();
    conn.serves(&many.iter().map(|vni| (*vni, 1)).collect::<Vec<_>>());
    conn.released(&many);
    assert!(begun.elapsed() < 20 * WRITE, "{:?}", begun.elapsed());
    assert_eq!(conn.standing(), Standing::Lost("it does not read".into()));
}

#[test]
fn a_guard_that_does_not_answer_is_lost_after_a_while() {
    let (mut conn, mut guard) = conn();
    conn.lease(lease(5));
    let now = clock::now();
    conn.inner().listen(now + PATIENCE / 2);
    assert!(conn.inner().peer.is_some());
    // An answer to the lease before: it lives.
    guard.write_all(b"heard 4000000000\n").unwrap();
    conn.inner().listen(now + 2 * PATIENCE);
    assert!(conn.inner().peer.is_some());
    guard.write_all(b"heard 5000000000\n").unwrap();
    conn.inner().listen(now + 9 * PATIENCE);
    assert!(conn.inner().peer.is_some());
    conn.lease(lease(6));
    conn.inner().listen(clock::now() + 2 * PATIENCE);
    assert_eq!(conn.standing(), Standing::Lost("it does not answer".into()));
}

#[test]
fn a_guard_that_fenced_says_so_once() {
    let (mut conn, mut guard) = conn();
    guard.write_all(b"fenced\n").unwrap();
    assert_eq!(conn.standing(), Standing::Fenced);
    assert_eq!(conn.standing(), Standing::Well);
    drop(guard);
    assert!(matches!(conn.standing(), Standing::Lost(_)));
}

/// Input: a guard that says something, then ends. Output: its line hangs up for the one, not for the other, and
/// there is none to wait at once that was noticed.
#[test]
fn the_line_hangs_up_when_the_guard_ends() {
    let (mut conn, mut guard) = conn();
    let waited_at = Guard::conn(&conn).unwrap();
    let hangs_up = |within| {
        let mut fds = [PollFd::new(waited_at.as_fd(), PollFlags::empty())];
        poll(&mut fds, within).unwrap() > 0
    };
    guard.write_all(b"fenced\n").unwrap();
    assert!(!hangs_up(PollTimeout::ZERO));
    drop(guard);
    assert!(hangs_up(PollTimeout::NONE));
    assert!(matches!(
        conn.standing(),
        Standing::Lost(_) | Standing::Fenced
    ));
    assert!(Guard::conn(&conn).is_none());
}
