//! Every time that follows from the lease. Pure.

use std::time::Duration;

/// How the lease's TTL is spent: renewing it in time, and being silent before it ends.
///
/// ```text
///   sent                                            fence      valid_until
///    |-- keepalive_interval --|-- etcd_timeout x 2 --|.. slack ..|-- fence_margin --|
/// ```
///
/// A keepalive that is lost can be sent once more, to another endpoint, before the daemon fences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long etcd keeps the lease after a keepalive.
    pub ttl: Duration,
    /// How long after one keepalive the next is sent.
    pub keepalive_interval: Duration,
    /// How long one request to one endpoint may take.
    pub etcd_timeout: Duration,
    /// How long before `valid_until` the daemon starts to fence.
    pub fence_margin: Duration,
    /// How long before `valid_until` the guard fences, if the daemon has not.
    pub guard_margin: Duration,
    /// How long before `valid_until` the kernel's hold on the lease ends by itself, at the latest. The kernel
    /// counts in jiffies, up to 20 ms late where a hypervisor takes its clock's CPU away.
    pub gate_margin: Duration,
}

impl Timing {
    /// The times for a lease of `ttl`, or `None` if it is too short to renew and still fence in time.
    pub fn new(ttl: Duration) -> Option<Timing> {
        let fence_margin = (ttl / 8).max(Duration::from_millis(300));
        let timing = Timing {
            ttl,
            keepalive_interval: ttl / 5,
            etcd_timeout: (ttl / 5).clamp(Duration::from_millis(200), Duration::from_secs(1)),
            fence_margin,
            guard_margin: fence_margin / 2,
            gate_margin: fence_margin / 4,
        };
        let spent = timing.keepalive_interval + 2 * timing.etcd_timeout + timing.fence_margin;
        (spent < ttl).then_some(timing)
    }
}
