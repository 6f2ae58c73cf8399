//! The rows' past, read when it is over.
//!
//! Whoever watches rows while they change adds to what is measured: etcd writes every change as JSON once for
//! each watch. So the store's revision alone is followed, by a small question many times a second, and the
//! changes are read once it stands still. When a change came is known from when its revision was first seen.

use serde_json::Value as Json;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::Endpoint;

/// How often etcd is asked for its revision: no time is measured better than this.
const STEP: Duration = Duration::from_millis(10);
/// The revision stands still for this long only when a step is over, or waits.
const STILL: Duration = Duration::from_millis(300);
/// The past is read when it is this long, still or not, so that a waiting thread sees the progress.
const LONGEST: Duration = Duration::from_secs(5);

/// When each revision was first seen, oldest first.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<Vec<(u64, Instant)>>>);

/// Up to where the past was read.
pub struct Replay {
    clock: Clock,
    read: u64,
}

impl Clock {
    /// Follows the revision from now on, on a thread and a connection of its own.
    fn start(etcd: &Endpoint) -> Clock {
        let agent = ureq::Agent::new_with_defaults();
        // What the member says of itself, without asking the others: etcd does nothing for it.
        let url = format!("{etcd}/v3/maintenance/status");
        let ask = move || -> Option<u64> {
            let mut reply = agent.post(&url).send("{}").ok()?;
            let reply: Json = serde_json::from_reader(reply.body_mut().as_reader()).ok()?;
            reply["header"]["revision"].as_str()?.parse().ok()
        };
        let first = ask().expect("etcd answers");
        let clock = Clock(Arc::new(Mutex::new(vec![(first, Instant::now())])));
        let seen = clock.clone();
        thread::spawn(move || {
            // An etcd that ends, ends this.
            while let Some(revision) = ask() {
                let mut seen = seen.0.lock().unwrap();
                if seen.last().is_none_or(|(last, _)| *last < revision) {
                    seen.push((revision, Instant::now()));
                }
                drop(seen);
                thread::sleep(STEP);
            }
        });
        clock
    }

    fn newest(&self) -> (u64, Instant) {
        *self.0.lock().unwrap().last().expect("it began with one")
    }

    /// When `revision` was first seen.
    pub fn of(&self, revision: u64) -> Instant {
        let seen = self.0.lock().unwrap();
        let at = seen.partition_point(|(seen, _)| *seen < revision);
        seen[at.min(seen.len() - 1)].1
    }
}

impl Replay {
    /// From now on.
    pub fn start(etcd: &Endpoint) -> Replay {
        let clock = Clock::start(etcd);
        let (read, _) = clock.newest();
        Replay { clock, read }
    }

    /// The revisions to read now, from the first to the last, if there are any and it is time. With `at_once` it
    /// is.
    pub fn due(&mut self, at_once: bool) -> Option<(u64, u64)> {
        let (newest, since) = self.clock.newest();
        let first = self.read + 1;
        let is_time = || {
            let waited = self.clock.of(first).elapsed();
            at_once || since.elapsed() > STILL || waited > LONGEST
        };
        if newest < first || !is_time() {
            return None;
        }
        self.read = newest;
        Some((first, newest))
    }

    /// The changes up to `revision` were read.
    pub fn has_read(&mut self, revision: u64) {
        self.read = self.read.max(revision);
    }

    /// When revisions were first seen.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }
}
