//! How far this node has followed etcd, and whether etcd went back: the one place that decides so, tells the core, and
//! has the lease given up. Shared by the threads `watch` and `poll`, which follow etcd, and the worker, which compares
//! its answers.

use crate::daemon::lease::{DoubtSender, LeaseDoubt};
use crate::gateway::Event;
use crate::model::types::Revision;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};

/// How far the watch has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The newest revision that it brought.
    pub revision: Revision,
    /// How many keys there are below the prefix.
    pub count: i64,
    /// How many times etcd was found to be older than it had been.
    pub rewound: u32,
}

/// The history of etcd as this node follows it.
#[derive(Clone, Debug)]
pub struct History {
    progress: Arc<Mutex<Progress>>,
    events: Sender<Event>,
    doubts: Option<DoubtSender>,
}

impl History {
    /// Nothing is followed yet. The core hears on `events` that etcd went back.
    pub fn new(events: Sender<Event>) -> History {
        History {
            progress: Arc::default(),
            events,
            doubts: None,
        }
    }

    /// The same history, for a node that has a lease. If etcd goes back, `doubts` has it given up: the worker may be
    /// held up for longer than the other nodes wait, and until then it would serve what they claim.
    pub fn of_lease(self, doubts: DoubtSender) -> History {
        History {
            doubts: Some(doubts),
            ..self
        }
    }

    /// The progress, to change it. What is told while it is held is told before etcd is found to have gone back.
    pub fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder of this lock panics")
    }

    /// How far the watch has got now.
    pub fn progress(&self) -> Progress {
        *self.lock()
    }

    /// etcd gave an answer that is older than what was known when it was asked. Etcd had been found to have gone back
    /// `rewound` times then: if it has been found so again since, the core knows.
    pub fn went_back(&self, rewound: u32) {
        let mut progress = self.lock();
        if progress.rewound != rewound {
            return;
        }
        *progress = Progress {
            rewound: rewound.wrapping_add(1),
            ..Progress::default()
        };
        if let Some(doubts) = &self.doubts {
            doubts.send(LeaseDoubt::Rewound);
        }
        // The worker is gone only when the process ends.
        let _ = self.events.send(Event::Rewound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Input: two threads that have seen the same. Output: the core hears it once; nothing of before is known.
    #[test]
    fn that_etcd_went_back_is_told_once() {
        let (events, inbox) = channel();
        let history = History::new(events);
        history.lock().revision = Revision(8);
        history.went_back(0);
        history.went_back(0);
        assert_eq!(inbox.try_iter().collect::<Vec<_>>(), [Event::Rewound]);
        assert_eq!(history.progress().revision, Revision::default());
        history.went_back(1);
        assert_eq!(inbox.try_iter().collect::<Vec<_>>(), [Event::Rewound]);
    }
}
