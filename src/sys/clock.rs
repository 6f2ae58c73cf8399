//! The one place that reads a clock, and sets one.

use crate::model::types::Time;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_BOOTTIME: monotonic, and it goes on while the machine sleeps (clock_gettime(2)).
pub fn now() -> Time {
    let since_boot =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Time::since_boot(Duration::from(since_boot))
}

/// How much CPU time the calling thread has taken so far, in the kernel too (CLOCK_THREAD_CPUTIME_ID, clock_gettime(2)).
pub fn thread_cpu_time() -> Duration {
    let taken = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux has had CLOCK_THREAD_CPUTIME_ID since 2.6.12");
    Duration::from(taken)
}

/// Goes off at a time of [`now`], and at once where the machine has slept over it (timerfd_create(2)). All other
/// waits follow CLOCK_MONOTONIC, which stands still while the machine sleeps.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// The kernel's refusal: no descriptor or no memory.
    pub fn new() -> io::Result<Alarm> {
        let clock = timerfd::ClockId::CLOCK_BOOTTIME;
        Ok(Alarm(TimerFd::new(clock, TimerFlags::TFD_CLOEXEC)?))
    }

    /// Sets it to `at`, and to nothing else that it was set to: it goes off then, or at once if that is over.
    pub fn set(&self, at: Time) {
        // Zero would switch it off.
        let at = at.as_duration().max(Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(at));
        self.0
            .set(once, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            .expect("a time that is no less than zero can be set");
    }
}

impl AsFd for Alarm {
    /// Ready to be read once it has gone off, until it is set anew.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The time of day: seconds since 1970 (UTC). For people only; it may be wrong, and step.
pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Input: a thread that sleeps, and then one that computes. Output: only the latter takes CPU time.
    #[test]
    fn a_thread_that_sleeps_takes_no_cpu_time() {
        let before = thread_cpu_time();
        std::thread::sleep(Duration::from_millis(200));
        let slept = thread_cpu_time();
        assert!(slept - before < Duration::from_millis(100));
        while thread_cpu_time() - slept < Duration::from_millis(2) {}
    }
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn goes_off(alarm: &Alarm, within: PollTimeout) -> bool {
        poll(&mut [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)], within).unwrap() > 0
    }

    /// Input: an alarm that is set to later, to what is over, to soon, and to later again. Output: it goes off by
    /// what it was set to last, not before, and until it is set anew.
    #[test]
    fn an_alarm_goes_off_by_what_it_was_set_to_last() {
        let alarm = Alarm::new().unwrap();
        let later = now() + Duration::from_secs(3600);
        alarm.set(later);
        assert!(!goes_off(&alarm, PollTimeout::ZERO));
        alarm.set(Time::default());
        assert!(goes_off(&alarm, PollTimeout::NONE));
        assert!(goes_off(&alarm, PollTimeout::ZERO));
        let soon = now() + Duration::from_millis(20);
        alarm.set(soon);
        assert!(goes_off(&alarm, PollTimeout::NONE));
        assert!(now() >= soon);
        alarm.set(later);
        assert!(!goes_off(&alarm, PollTimeout::ZERO));
    }
}
