//! How fast etcd takes puts from a client that does nothing else: no daemon can be faster.

use crate::cluster::cpu_seconds;
use crate::common::etcd::Etcd;
use crate::observe::Lines;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// How many puts each way is tried with.
const TRIAL: u64 = 8_000;
/// The ways to put many keys in one request: transactions inside of one, puts in each. etcd takes 128
/// operations at each level, those of the one inside counted in.
const SHAPES: [(usize, usize); 3] = [(1, 127), (125, 3), (64, 64)];
/// How many connections to try.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// What puts take.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// From the first request to the last answer.
    pub time: Duration,
    /// The CPU time that etcd took, in seconds.
    pub cpu: f64,
}

/// A way to send puts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    inner: usize,
    puts: usize,
    connections: usize,
}

impl Way {
    /// The fastest of several on this etcd, each tried once.
    pub fn best(etcd: &Etcd) -> Way {
        let ways = SHAPES.iter().flat_map(|&(inner, puts)| {
            CONNECTIONS.iter().map(move |&connections| Way {
                inner,
                puts,
                connections,
            })
        });
        let timed = ways.map(|way| (way.time(etcd, TRIAL), way));
        let (_, best) = timed.min_by_key(|(time, _)| *time).expect("some ways");
        best
    }

    /// How it sends them.
    pub fn describe(&self) -> String {
        let each = self.inner * self.puts;
        format!("{each} puts a request, {} connections", self.connections)
    }

    /// What `puts` of them take: the second of three, as what it stands beside was no lucky one either.
    pub fn floor(&self, etcd: &Etcd, puts: u64) -> Floor {
        let mut floors = [(); 3].map(|()| {
            let cpu = cpu_seconds(etcd);
            let time = self.time(etcd, puts);
            let cpu = cpu_seconds(etcd) - cpu;
            Floor { time, cpu }
        });
        floors.sort_by_key(|floor| floor.time);
        floors[1]
    }

    /// The same, while so many others watch what is put, and do nothing with it.
    pub fn watched_floor(&self, etcd: &Etcd, puts: u64, watches: usize) -> Floor {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..watches {
                let mut lines = Lines::open(&etcd.endpoint(), "/floor/", None);
                let over = &over;
                scope.spawn(move || while lines.next().is_some() && !over.load(Relaxed) {});
            }
            let floor = self.floor(etcd, puts);
            // Whatever is put last ends them.
            over.store(true, Relaxed);
            self.time(etcd, 1);
            floor
        })
    }

    fn time(&self, etcd: &Etcd, puts: u64) -> Duration {
        let each = self.inner * self.puts;
        let numbers: Vec<u64> = (0..puts).collect();
        let bodies: Vec<String> = numbers.chunks(each).map(|it| self.request(it)).collect();
        let url = format!("{}/v3/kv/txn", etcd.endpoint());
        let start = Barrier::new(self.connections + 1);
        let mut begun = Instant::now();
        thread::scope(|scope| {
            for connection in 0..self.connections {
                let (start, bodies, url) = (&start, &bodies, &url);
                scope.spawn(move || {
                    let agent = ureq::Agent::new_with_defaults();
                    start.wait();
                    for body in bodies.iter().skip(connection).step_by(self.connections) {
                        let mut reply = agent.post(url).send(body).expect("etcd takes puts");
                        let body = reply.body_mut().with_config().limit(u64::MAX).read_to_vec();
                        body.expect("etcd answers");
                    }
                });
            }
            start.wait();
            begun = Instant::now();
        });
        begun.elapsed()
    }

    /// A request that puts keys as long as those of rows.
    fn request(&self, numbers: &[u64]) -> String {
        let put = |number: &u64| {
            let key = STANDARD.encode(format!("/floor/vni/{}/current", 10_000 + number));
            format!(r#"{{"requestPut":{{"key":"{key}","value":"Z3cxLTEyMzQ1LTA="}}}}"#)
        };
        let txn = |puts: &[u64]| {
            let puts: Vec<String> = puts.iter().map(put).collect();
            format!(r#"{{"success":[{}]}}"#, puts.join(","))
        };
        if self.inner == 1 {
            return txn(numbers);
        }
        let nested = |puts: &[u64]| format!(r#"{{"requestTxn":{}}}"#, txn(puts));
        let nested: Vec<String> = numbers.chunks(self.puts).map(nested).collect();
        format!(r#"{{"success":[{}]}}"#, nested.join(","))
    }
}
