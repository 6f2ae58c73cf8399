//! Whether the watch is paused. To tell every node of every change costs etcd several times what writing the changes
//! does. A node that takes over many VNIs at once wants its writes first, as do the other nodes that take over. What
//! a node writes holds under conditions of its own, whatever it has not heard of yet; so it hears of the rest when it
//! has taken the VNIs that no node serves.

use super::Effect;
use crate::model::types::Time;
use std::time::Duration;

/// How long a pause lasts at most. That much later a node hears that another one has died, too, or that it is to
/// play its part in a migration.
const LONGEST: Duration = Duration::from_secs(1);

/// What the watch does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// It tells what happens.
    #[default]
    Follows,
    /// It has told of many keys at once, and waits for [`Effect::PauseWatch`] or [`Effect::ResumeWatch`].
    Asks,
    /// It does not tell anything.
    Paused { since: Time },
}

/// Whether the watch is paused.
#[derive(Clone, Debug, Default)]
pub struct WatchPause(State);

impl WatchPause {
    /// The watch has told of many keys at once, and asks whether to go on.
    pub fn ask(&mut self) {
        self.0 = State::Asks;
    }

    /// What the watch is told, and when to ask again. A pause is `worthwhile` while there is much to write.
    pub fn plan(&mut self, now: Time, worthwhile: bool) -> (Option<Effect>, Option<Time>) {
        let (state, effect) = match self.0 {
            State::Follows => (State::Follows, None),
            State::Asks if worthwhile => (State::Paused { since: now }, Some(Effect::PauseWatch)),
            State::Paused { since } if worthwhile && now < since + LONGEST => {
                (State::Paused { since }, None)
            }
            State::Asks | State::Paused { .. } => (State::Follows, Some(Effect::ResumeWatch)),
        };
        self.0 = state;
        let wake = match state {
            State::Paused { since } => Some(since + LONGEST),
            State::Follows | State::Asks => None,
        };
        (effect, wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));

    #[test]
    fn a_pause_ends_when_its_use_ends_and_after_its_time() {
        let mut pause = WatchPause::default();
        assert_eq!(pause.plan(NOW, true), (None, None), "not asked for");
        for (later, worthwhile) in [(Duration::from_millis(1), false), (LONGEST, true)] {
            pause.ask();
            let until = Some(NOW + LONGEST);
            assert_eq!(pause.plan(NOW, true), (Some(Effect::PauseWatch), until));
            assert_eq!(pause.plan(NOW, true), (None, until));
            let resumed = (Some(Effect::ResumeWatch), None);
            assert_eq!(pause.plan(NOW + later, worthwhile), resumed);
            assert_eq!(pause.plan(NOW + later, true), (None, None));
        }
    }

    #[test]
    fn a_watch_that_asks_is_always_answered() {
        let mut pause = WatchPause::default();
        pause.ask();
        assert_eq!(pause.plan(NOW, false), (Some(Effect::ResumeWatch), None));
    }
}
