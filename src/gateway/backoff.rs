//! Pauses between attempts that fail. The jitter comes from a salt, so that the core stays a pure function and a
//! thousand VNIs that failed together are not tried again together.

use crate::model::types::Time;
use std::time::Duration;

/// Capped exponential backoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    attempts: u8,
    until: Time,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    /// Whether it is time to try again.
    pub fn is_over(&self, now: Time) -> bool {
        self.until <= now
    }

    /// When it is time to try again.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.attempts > 0
    }

    /// Notes a failure.
    pub fn fail(&mut self, now: Time, salt: u32) {
        self.fail_for(now, salt, Self::LONGEST);
    }

    /// Notes a failure, after which the pause is `longest` at most.
    pub fn fail_for(&mut self, now: Time, salt: u32, longest: Duration) {
        let delay = (Self::FIRST * 2u32.pow(u32::from(self.attempts.min(8)))).min(longest);
        // Up to a quarter more, spread by a Fibonacci hash of who waits and how often.
        let spread = salt
            .wrapping_add(u32::from(self.attempts))
            .wrapping_mul(0x9e37_79b9)
            >> 22;
        self.attempts = self.attempts.saturating_add(1);
        self.until = now + delay + delay * spread / 4096;
    }

    /// Notes a success.
    pub fn succeed(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap_and_never_ends() {
        let mut backoff = Backoff::default();
        let now = Time::since_boot(Duration::from_secs(1));
        let mut last = Duration::ZERO;
        for attempt in 0..600 {
            backoff.fail(now, 7);
            let delay = backoff.until().since(now);
            assert!(
                delay >= Backoff::FIRST && delay <= Backoff::LONGEST * 5 / 4,
                "{attempt}: {delay:?}"
            );
            assert!(attempt > 4 || delay > last, "grows: {last:?} {delay:?}");
            last = delay;
        }
        backoff.succeed();
        assert!(backoff.is_over(now) && !backoff.is_failing());
    }
}
