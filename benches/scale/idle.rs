//! What daemons cost while nothing happens.

use crate::common::etcd::Etcd;
use crate::requests::Requests;
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// What a daemon costs while nothing happens.
pub struct Idle {
    /// The share of one core, in percent, of the daemon that took the most.
    pub cpu: f64,
    /// Requests to etcd, a second and a daemon.
    pub requests: f64,
    /// Which requests, of all.
    pub which: Requests,
}

/// Looks at the daemons `pids` of `etcd` for `time`.
pub fn measure(etcd: &Etcd, pids: &[Pid], time: Duration) -> Idle {
    let ticks = || pids.iter().map(|pid| cpu_ticks(*pid)).collect::<Vec<u64>>();
    let (requests, before, begun) = (Requests::of(etcd), ticks(), Instant::now());
    thread::sleep(time);
    let (seconds, after) = (begun.elapsed().as_secs_f64(), ticks());
    let which = &Requests::of(etcd) - &requests;
    let most = before.iter().zip(&after).map(|(from, to)| to - from).max();
    Idle {
        cpu: most.unwrap_or(0) as f64 / hertz() / seconds * 100.0,
        requests: which.total() as f64 / seconds / pids.len() as f64,
        which,
    }
}

/// Clock ticks a second.
pub fn hertz() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// The time that a process had a CPU for so far, in clock ticks.
pub fn cpu_ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold anything: state is field 3, utime 14, stime 15 (proc(5)).
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<u64> = rest.split(' ').map(|it| it.parse().unwrap_or(0)).collect();
    fields.get(11..13).map_or(0, |times| times.iter().sum())
}
