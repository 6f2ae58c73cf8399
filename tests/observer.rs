//! The threads that follow etcd, with a real etcd: when the watch rests, and that nothing is lost by it.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::{DEADLINE, LONG, eventually, put, put_leased, then};
use std::sync::mpsc::{self, Receiver};
use wmgwd::daemon::history::History;
use wmgwd::daemon::observer;
use wmgwd::daemon::watch_pause::PauseSwitch;
use wmgwd::etcd::Client;
use wmgwd::gateway::Event;
use wmgwd::model::types::Revision;

/// Keys that end together: enough for the watch to ask whether it may pause.
const HERD: usize = 300;

/// An observed etcd.
struct Observed {
    etcd: Etcd,
    client: Client,
    pause: PauseSwitch,
    inbox: Receiver<Event>,
}

impl Observed {
    fn start() -> Observed {
        let etcd = Etcd::start();
        let client = etcd.client();
        let pause = PauseSwitch::default();
        let (events, inbox) = mpsc::channel();
        let watched = Client::new(vec![etcd.endpoint()], DEADLINE);
        let history = History::new(events.clone());
        observer::spawn(&watched, &events, &<_>::default(), &history, &pause).unwrap();
        let observed = Observed {
            etcd,
            client,
            pause,
            inbox,
        };
        assert!(matches!(observed.next(), Event::Snapshot { .. }));
        observed.until_watched(true);
        observed
    }

    fn next(&self) -> Event {
        self.inbox.recv_timeout(DEADLINE).unwrap()
    }

    /// How many changes come next, and the newest of their revisions.
    fn changes(&self) -> (usize, Revision) {
        match self.next() {
            Event::Changed(changes) | Event::MassExpiry(changes) => {
                let newest = changes.iter().map(|change| change.revision).max();
                (changes.len(), newest.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn until_watched(&self, expected: bool) {
        eventually("etcd's watchers", || {
            let watchers = self.etcd.figure("etcd_debugging_mvcc_watcher_total")?;
            ((watchers == 1.0) == expected).then_some(())
        });
    }

    /// The VNIs of a node come and go, with its lease.
    fn herd(&self) {
        let lease = self.client.lease_grant(LONG).unwrap().id;
        let current = |vni: usize| {
            let key = format!("/wmgwd/vni/{vni}/current");
            put_leased(key, "gw1", Some(lease))
        };
        for first in (1..=HERD).step_by(100) {
            let puts = (first..first + 100).map(current).collect();
            self.client.txn(&then(puts)).unwrap();
        }
        let mut told = 0;
        while told < HERD {
            told += self.changes().0;
        }
        self.client.lease_revoke(lease).unwrap();
        assert!(matches!(self.next(), Event::MassExpiry(changes) if changes.len() == HERD));
    }

    fn put(&self) -> Revision {
        let puts = vec![put("/wmgwd/vni/7/type", "1")];
        self.client.txn(&then(puts)).unwrap().revision
    }

    /// The next change is told.
    fn tells(&self) {
        let revision = self.put();
        assert_eq!(self.changes(), (1, revision));
    }
}

// Input: many keys end at once, and the worker wishes the watch to pause, then to follow; then to pause again.
// Output: etcd has no watch during the pause, and what happens then is told after it; with that, the watch asks
// again.
#[test]
fn a_rest_loses_nothing() {
    let observed = Observed::start();
    observed.herd();
    for _ in 0..2 {
        observed.pause.begin();
        observed.until_watched(false);
        let revision = observed.put();
        observed.pause.end();
        assert!(
            matches!(observed.next(), Event::MassExpiry(changes) if changes[0].revision == revision)
        );
    }
    observed.pause.end();
    observed.tells();
    observed.until_watched(true);
}

// Input: the worker does not want a pause, or does not answer, or forgets that the watch is paused.
// Output: the watch goes on by itself, without asking again until there is a reason.
#[test]
fn a_watch_goes_on_without_the_worker() {
    let observed = Observed::start();
    observed.herd();
    observed.pause.end();
    observed.tells();

    observed.herd();
    observed.tells();

    observed.herd();
    observed.pause.begin();
    observed.until_watched(false);
    observed.tells();
}

// Input: a wish to pause without a request. Output: the watch follows, also when it asks later on.
#[test]
fn a_wish_from_before_does_not_count() {
    let observed = Observed::start();
    observed.pause.begin();
    observed.tells();
    observed.herd();
    observed.tells();
}
