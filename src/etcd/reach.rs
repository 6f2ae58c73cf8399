//! Which endpoints have failed of late, known to a client and all its clones: what one call has found out by waiting,
//! the next need not find out again.

use crate::model::types::Time;
use crate::sys::clock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an endpoint that has failed is asked after the others.
const LATELY: Duration = Duration::from_secs(3);

/// What is known of the endpoints.
#[derive(Debug)]
pub struct Reach(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Of each endpoint: when it failed last, unless it has answered since.
    failed: Vec<Option<Time>>,
    listeners: Vec<Sender<usize>>,
}

impl Reach {
    /// Of `count` endpoints, none of which has failed.
    pub fn new(count: usize) -> Reach {
        Reach(Mutex::new(State {
            failed: vec![None; count],
            listeners: Vec::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In which order the endpoints are to be asked: from `first` on in turn, those that have failed of late last.
    pub fn order(&self, first: usize) -> Vec<usize> {
        let state = self.state();
        let now = clock::now();
        let count = state.failed.len();
        let turn = (0..count).map(|offset| (first + offset) % count);
        let (bad, good): (Vec<usize>, Vec<usize>) =
            turn.partition(|index| state.has_failed(*index, now));
        [good, bad].concat()
    }

    /// An endpoint has failed.
    pub fn failed(&self, index: usize) {
        let mut state = self.state();
        let now = clock::now();
        let is_news = !state.has_failed(index, now);
        if let Some(failed) = state.failed.get_mut(index) {
            *failed = Some(now);
        }
        if is_news {
            // Who does not listen any more is forgotten.
            state.listeners.retain(|it| it.send(index).is_ok());
        }
    }

    /// An endpoint has answered.
    pub fn answered(&self, index: usize) {
        if let Some(failed) = self.state().failed.get_mut(index) {
            *failed = None;
        }
    }

    /// Each endpoint that fails from now on, when it does.
    pub fn failures(&self) -> Receiver<usize> {
        let (listener, failures) = channel();
        self.state().listeners.push(listener);
        failures
    }
}

impl State {
    fn has_failed(&self, index: usize, now: Time) -> bool {
        let at = self.failed.get(index).copied().flatten();
        at.is_some_and(|at| now.since(at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: of three endpoints one fails, twice, and answers again. Output: it is asked last meanwhile, and who listens
    /// hears of it once.
    #[test]
    fn what_has_failed_is_asked_last() {
        let reach = Reach::new(3);
        let failures = reach.failures();
        assert_eq!(reach.order(1), [1, 2, 0]);
        reach.failed(1);
        reach.failed(1);
        assert_eq!(reach.order(1), [2, 0, 1]);
        assert_eq!(failures.try_iter().collect::<Vec<_>>(), [1]);
        reach.failed(2);
        reach.failed(0);
        assert_eq!(reach.order(1), [1, 2, 0], "none is better");
        reach.answered(0);
        assert_eq!(reach.order(1), [0, 1, 2]);
        assert_eq!(failures.try_iter().collect::<Vec<_>>(), [2, 0]);
    }
}
