//! A TCP proxy that can break the connections it carries.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The header by which members of etcd name themselves to each other.
pub const SENDER: &str = "X-Server-From: ";

/// Carries bytes between its own address and a target until told otherwise.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    blackhole: bool,
    /// Hold back what comes on connections whose last request has one of these.
    held: Vec<Vec<u8>>,
    /// Members of etcd that have sent something to another through this proxy.
    senders: BTreeSet<String>,
    delay: Duration,
    /// Both ends of every connection that is carried now.
    streams: Vec<TcpStream>,
    accepted: usize,
    ended: bool,
}

impl Proxy {
    /// A proxy to `target` on a free loopback port.
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let carried = Arc::clone(&shared);
        thread::spawn(move || carried.accept(&listener));
        Proxy { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }

    /// Carries bytes again, those that a black hole held back first.
    pub fn pass(&self) {
        self.change(|state| {
            state.blackhole = false;
            state.held.clear();
            state.delay = Duration::ZERO;
        });
    }

    /// Takes and keeps connections, and carries nothing either way, without closing any.
    pub fn blackhole(&self) {
        self.change(|state| state.blackhole = true);
    }

    /// As [`blackhole`](Self::blackhole), for HTTP connections whose last request has `marker` alone.
    pub fn blackhole_those(&self, marker: &[u8]) {
        self.change(|state| state.held.push(marker.to_vec()));
    }

    /// The members of etcd that sent something through this proxy to another member.
    pub fn senders(&self) -> BTreeSet<String> {
        self.shared.state.lock().unwrap().senders.clone()
    }

    /// Holds every piece of data back for `delay`, each way.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Closes all connections; new ones are taken.
    pub fn cut(&self) {
        self.change(|state| {
            for stream in state.streams.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
        self.cut();
        // Wakes the thread that accepts, which sees the end.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn holds(&self, head: &[u8]) -> bool {
        let has = |marker: &Vec<u8>| head.windows(marker.len()).any(|part| part == marker);
        self.blackhole || self.held.iter().any(has)
    }
}

/// The member of etcd that sent this request.
fn sender(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().find_map(|line| line.strip_prefix(SENDER));
    line.map(str::to_owned)
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            let mut state = self.state.lock().unwrap();
            if state.ended {
                return;
            }
            let Ok(near) = near else { continue };
            state.accepted += 1;
            // A target that is down shows as a connection that closes at once.
            let Ok(far) = TcpStream::connect(self.target) else {
                continue;
            };
            let request = Arc::new(Mutex::new(Vec::new()));
            for (from, to) in [(&near, &far), (&far, &near)] {
                let _ = to.set_nodelay(true);
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (shared, request) = (Arc::clone(self), Arc::clone(&request));
                thread::spawn(move || shared.carry(from, to, &request));
            }
            state.streams.push(near);
            state.streams.push(far);
        }
    }

    /// Carries one direction of one connection until its end.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, request: &Mutex<Vec<u8>>) {
        let mut buffer = [0; 64 * 1024];
        loop {
            let amount = from.read(&mut buffer).unwrap_or(0);
            let bytes = &buffer[..amount];
            if bytes.starts_with(b"POST ") || bytes.starts_with(b"GET ") {
                *request.lock().unwrap() = bytes[..amount.min(1024)].to_vec();
            }
            let head = request.lock().unwrap().clone();
            let mut state = self.state.lock().unwrap();
            state.senders.extend(sender(&head));
            // A black hole swallows ends as well: the other side must not learn of them.
            while !state.ended && state.holds(&head) {
                state = self.changed.wait(state).unwrap();
            }
            let (delay, ended) = (state.delay, state.ended);
            drop(state);
            if amount == 0 || ended {
                break;
            }
            thread::sleep(delay);
            if to.write_all(&buffer[..amount]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}
