//! What the integration tests share: real processes and a network that can be broken.
#![allow(dead_code, clippy::unwrap_used)]

pub mod authority;
pub mod disk;
pub mod etcd;
pub mod exposition;
pub mod go;
pub mod node;
pub mod previous;
pub mod program;
pub mod proxy;
pub mod rows;
pub mod sampler;
pub mod secure;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};
pub use wmgwd::etcd::Op;
use wmgwd::etcd::{Endpoint, Txn};
use wmgwd::model::types::LeaseId;

/// How long a test waits for what must happen: generous, as the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Longer than any test takes.
pub const LONG: Duration = Duration::from_secs(30);

/// Says that a test shows nothing here, also to those who see only the output of tests that fail.
pub fn skipped(what: &str, reason: &str) {
    // The harness holds back what the macros print.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {reason}");
}

/// Asks `probe` until it has an answer, for at most [`DEADLINE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// `count` loopback ports that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    // All are held until all are known, so that none is given out twice.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

/// Writes a key without a lease.
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    put_leased(key, value, None)
}

/// Writes a key.
pub fn put_leased(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, lease: Option<LeaseId>) -> Op {
    Op::Put {
        key: key.as_ref().to_vec(),
        value: value.as_ref().to_vec(),
        lease,
    }
}

/// A transaction without conditions.
pub fn then(ops: Vec<Op>) -> Txn {
    Txn {
        then: ops,
        ..Txn::default()
    }
}

/// The endpoint at `addr`.
pub fn endpoint(addr: SocketAddr) -> Endpoint {
    format!("http://{addr}").parse().unwrap()
}

/// `port` on 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Compacts the whole history of an etcd.
pub fn compact(at: &Endpoint, revision: wmgwd::model::types::Revision) {
    let reply = ureq::post(format!("{at}/v3/kv/compaction"))
        .send(format!(r#"{{"revision":"{revision}","physical":true}}"#))
        .unwrap();
    assert!(reply.status().is_success());
}
