//! The one place that reads a clock.

use crate::types::Time;
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_BOOTTIME: monotonic, and it goes on while the machine sleeps (clock_gettime(2)).
pub fn now() -> Time {
    let since_boot =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Time::since_boot(Duration::from(since_boot))
}

/// The time of day: seconds since 1970 (UTC). For people only; it may be wrong, and step.
pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
