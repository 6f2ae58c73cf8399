//! What the worker wishes of the thread `watch`: to go on, or to pause while rows are written.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long the worker is waited for: it may be in the middle of a transaction.
const ANSWER: Duration = Duration::from_millis(300);
/// How long a pause lasts at most, whatever the worker is doing. The worker ends it sooner by itself.
const LONGEST: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Wish {
    #[default]
    None,
    Follow,
    Pause,
}

/// What the worker wishes, shared with the thread `watch`.
#[derive(Clone, Debug, Default)]
pub struct PauseSwitch(Arc<(Mutex<Wish>, Condvar)>);

impl PauseSwitch {
    /// The worker wishes the watch to pause until it wishes it to follow again.
    pub fn begin(&self) {
        self.set(Wish::Pause);
    }

    /// The worker wishes the watch to follow.
    pub fn end(&self) {
        self.set(Wish::Follow);
    }

    /// The watch is about to ask: what was wished before is over.
    pub(crate) fn ask(&self) {
        self.set(Wish::None);
    }

    /// Whether the watch is to pause, once the worker has decided.
    pub(crate) fn is_wished(&self) -> bool {
        self.wait(ANSWER, Wish::None) == Wish::Pause
    }

    /// Waits until the worker wishes the watch to follow.
    pub(crate) fn wait_for_end(&self) {
        self.wait(LONGEST, Wish::Pause);
    }

    fn set(&self, wish: Wish) {
        let (lock, changed) = &*self.0;
        *lock.lock().unwrap_or_else(PoisonError::into_inner) = wish;
        changed.notify_all();
    }

    /// What is wished once it is not `wish` any more, or after so long.
    fn wait(&self, longest: Duration, wish: Wish) -> Wish {
        let (lock, changed) = &*self.0;
        let now = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(now, longest, |now| *now == wish);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
