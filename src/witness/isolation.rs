//! Whether this node alone is cut off, as the beats show it: no other node acknowledges its beats, and others have named
//! witnesses without it since. Pure.
//!
//! ```text
//!   heard .......... silent for a window ......................... heard again
//!                          | another node names others, not this one |
//!                          |<------------- cut off ----------------->|
//! ```
//!
//! A node that loses every other node cannot tell by its own beats whether they are dead. A node that lives, and had
//! this one as a witness, says so: it writes an epoch without this one.

use crate::model::types::Time;
use std::time::Duration;

/// A longer pause between two looks does not count as silence: this process did not run, and answers may wait for it.
const AWAKE: Duration = Duration::from_millis(150);

/// What the beats of this node have shown so far.
#[derive(Clone, Debug, Default)]
pub struct Isolation {
    /// When the newest beat was sent that another node has acknowledged, and when that was learnt.
    heard: Time,
    heard_at: Time,
    looked_at: Time,
    /// How long nothing was heard while this process ran.
    silent: Duration,
    /// The silence that is too long.
    patience: Duration,
    is_cut_off: bool,
}

impl Isolation {
    /// Whether this node is cut off. `heard` is when the newest beat was sent that another node has acknowledged;
    /// `patience` how long it takes now until silence means something; `goes_on` whether another node that lives has
    /// named witnesses without this one since a time.
    pub fn look(
        &mut self,
        now: Time,
        heard: Time,
        patience: Duration,
        goes_on: impl FnOnce(Time) -> bool,
    ) -> bool {
        let passed = now.since(self.looked_at);
        self.looked_at = now;
        if heard > self.heard {
            (self.heard, self.heard_at) = (heard, now);
            (self.silent, self.patience) = (Duration::ZERO, patience);
            self.is_cut_off = false;
            return false;
        }
        self.silent += passed.min(AWAKE);
        // A node that was never heard may be new, or behind a firewall.
        let is_silent = self.heard > Time::default() && self.silent >= self.patience;
        self.is_cut_off = is_silent && (self.is_cut_off || goes_on(self.heard_at));
        self.is_cut_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(500);

    fn at(millis: u64) -> Time {
        Time::since_boot(Duration::from_millis(1_000_000 + millis))
    }

    /// Looks each 50 ms from `from` to `to` at a node whose newest acknowledged beat was sent at `heard`, and beside
    /// which another node names others from `goes_on` on. Returns when it was found to be cut off first.
    fn first(it: &mut Isolation, from: u64, to: u64, heard: u64, goes_on: u64) -> Option<u64> {
        (from..to).step_by(50).find(|&now| {
            it.look(at(now), at(heard), WINDOW, |since| {
                at(goes_on) >= since && goes_on <= now
            })
        })
    }

    #[test]
    fn a_node_is_cut_off_when_it_alone_is_silent() {
        let mut it = Isolation::default();
        assert!(!it.look(at(0), at(0), WINDOW, |_| true));
        assert_eq!(first(&mut it, 50, 5_000, 0, 600), Some(600));
        // It stays so until it is heard.
        assert!(it.look(at(9_000), at(0), WINDOW, |_| false));
        assert!(!it.look(at(9_100), at(9_050), WINDOW, |_| true));
        assert_eq!(first(&mut it, 9_150, 12_000, 9_050, 9_200), Some(9_600));
    }

    /// Input: all others die at once; the others lose each other as well; a word of theirs from before the silence; a
    /// node that was never heard.
    #[test]
    fn silence_alone_says_nothing() {
        let mut it = Isolation::default();
        assert!(!it.look(at(1_000), at(1_000), WINDOW, |_| true));
        assert_eq!(first(&mut it, 1_050, 60_000, 1_000, 90_000), None);
        assert_eq!(first(&mut it, 60_000, 90_000, 1_000, 900), None);
        let mut it = Isolation::default();
        for now in (0..10_000).step_by(50) {
            assert!(!it.look(at(now), Time::default(), WINDOW, |_| true));
        }
    }

    /// Input: a process that does not run for a minute, as its machine is paused. Output: that minute is no silence.
    #[test]
    fn a_pause_of_the_process_is_no_silence() {
        let mut it = Isolation::default();
        assert!(!it.look(at(0), at(0), WINDOW, |_| true));
        assert!(!it.look(at(60_000), at(0), WINDOW, |_| true));
        assert_eq!(first(&mut it, 60_050, 70_000, 0, 600), Some(60_350));
    }
}
