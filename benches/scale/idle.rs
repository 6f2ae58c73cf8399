//! What daemons cost while nothing happens.

use crate::common::etcd::Etcd;
use crate::requests::Requests;
use nix::unistd::Pid;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// What a daemon costs while nothing happens.
pub struct Idle {
    /// The share of one core, in percent, of the node that took the most.
    pub cpu: f64,
    /// Requests to etcd, a second and a daemon.
    pub requests: f64,
    /// Which requests, of all.
    pub which: Requests,
}

/// Looks at the nodes of `etcd` for `time`, each a few processes.
pub fn measure(etcd: &Etcd, nodes: &[Vec<Pid>], time: Duration) -> Idle {
    let time_of = |pids: &Vec<Pid>| pids.iter().map(|pid| cpu_time(*pid)).sum();
    let times = || nodes.iter().map(time_of).collect::<Vec<Duration>>();
    let (requests, before, begun) = (Requests::of(etcd), times(), Instant::now());
    thread::sleep(time);
    let (seconds, after) = (begun.elapsed().as_secs_f64(), times());
    let which = &Requests::of(etcd) - &requests;
    let most = before
        .iter()
        .zip(&after)
        .map(|(from, to)| *to - *from)
        .max();
    Idle {
        cpu: most.unwrap_or_default().as_secs_f64() / seconds * 100.0,
        requests: which.total() as f64 / seconds / nodes.len() as f64,
        which,
    }
}

/// The time that the threads of a process had a CPU for so far. (The process's own counter is in clock ticks,
/// of which an idle daemon takes a few in all.)
pub fn cpu_time(pid: Pid) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let nanos = threads.flatten().map(|thread| -> u64 {
        let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        // Its first number, in nanoseconds (kernel: Documentation/scheduler/sched-stats).
        let first = stat.split(' ').next();
        first.and_then(|it| it.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}
