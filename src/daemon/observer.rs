//! What etcd says: the threads `watch` and `poll` turn it into events.
//!
//! The thread `rewatch` hears when an endpoint stops answering; if the watch is there, another `watch` goes on at
//! another endpoint, and the first, which a read blocks, tells nothing any more.
//!
//! `watch` takes a snapshot, then follows the changes. Each watch is bounded in time and opened again right
//! after the last revision that it showed: nothing is lost, and a connection that died silently is noticed.
//! `poll` learns every few seconds how new etcd's keys are, from the read that proved a renewal of the lease or by
//! asking on a connection of its own; if `watch` does not get there, it takes a snapshot itself.

use crate::daemon::history::{History, Progress};
use crate::daemon::rewatch::follow_failures;
use crate::daemon::watch_pause::PauseSwitch;
use crate::etcd::{Client, Error, KeyValue, Reading, WatchBatch, WatchEvent};
use crate::gateway::Event;
use crate::model::types::{Revision, Time};
use crate::schema::{self, Change, Foreign, Key};
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, chain};
use crate::telemetry::metrics::Metrics;
use log::{debug, info, warn};
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How long one watch lives.
const BOUND: Duration = Duration::from_secs(20);
/// How often etcd is asked how new it is.
const POLL: Duration = Duration::from_secs(2);
/// So many deletions at once mean that a node died that served many VNIs: those who take them over may wish that
/// the watch pauses.
const MASS_EXPIRY: usize = 256;
/// How long a failing thread pauses, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Foreign keys that are remembered as reported; a stranger who writes more is reported again.
const REMEMBERED: usize = 1024;

/// What both threads share.
#[derive(Clone)]
struct Observer {
    client: Client,
    events: Sender<Event>,
    history: History,
    reported: Arc<Mutex<BTreeSet<Foreign>>>,
    metrics: Arc<Metrics>,
    pause: PauseSwitch,
    /// Which of the threads `watch` counts: changed under the lock of the history.
    generation: Arc<AtomicU32>,
    /// At which endpoint that is.
    at: Arc<AtomicUsize>,
}

/// Starts the threads `watch`, `rewatch` and `poll`. They end with the process: a blocked read cannot be woken, and
/// they own nothing.
///
/// # Errors
/// A thread cannot be started.
pub fn spawn(
    client: &Client,
    events: &Sender<Event>,
    metrics: &Arc<Metrics>,
    history: &History,
    pause: &PauseSwitch,
) -> io::Result<()> {
    let observer = Observer {
        client: client.clone(),
        events: events.clone(),
        history: history.clone(),
        reported: Arc::default(),
        metrics: metrics.clone(),
        pause: pause.clone(),
        generation: Arc::default(),
        at: Arc::default(),
    };
    let (poller, watcher) = (observer.clone(), observer.clone());
    watcher.spawn_watch(0, None)?;
    if client.endpoint_count() > 1 {
        Builder::new()
            .name("rewatch".to_owned())
            .spawn(move || observer.watch_again())?;
    }
    Builder::new()
        .name("poll".to_owned())
        .spawn(move || poller.poll())?;
    Ok(())
}

impl Observer {
    fn spawn_watch(self, generation: u32, last: Option<Revision>) -> io::Result<()> {
        Builder::new()
            .name("watch".to_owned())
            .spawn(move || self.watch(generation, last))?;
        Ok(())
    }

    /// Thread `rewatch`.
    fn watch_again(&self) {
        follow_failures(&self.client, |endpoint| {
            if endpoint != self.at.load(Ordering::Relaxed) {
                return false;
            }
            let (generation, last) = {
                let progress = self.history.lock();
                let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
                let revision = progress.revision;
                (
                    generation,
                    (revision > Revision::default()).then_some(revision),
                )
            };
            debug!("the endpoint of the watch does not answer: watching at another one");
            if let Err(error) = self.clone().spawn_watch(generation, last) {
                warn!("cannot start the thread `watch`: {error}");
            }
            true
        });
    }

    fn is_current(&self, generation: u32) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    fn watch(&self, generation: u32, mut last: Option<Revision>) {
        let mut complaint = Complaint::default();
        let mut pause = PAUSE;
        let mut rewound = self.history.progress().rewound;
        while self.is_current(generation) {
            let progress = self.history.progress();
            if rewound != progress.rewound {
                // The watch was opened at a revision that is yet to come.
                rewound = progress.rewound;
                last = None;
            }
            match self.watch_once((generation, rewound), last, &mut complaint) {
                Ok(seen) => {
                    last = Some(seen);
                    pause = PAUSE;
                }
                Err(Lost { seen, error }) => {
                    // Each time that something came through, the next failure is a new one.
                    if seen > last {
                        pause = PAUSE;
                    }
                    last = match error {
                        // What happened in between cannot be had any more: start from what is.
                        Error::Compacted { .. } => None,
                        _ => seen,
                    };
                    let reason = chain(&error);
                    if complaint.raise(&reason) {
                        warn!("the watch on etcd ended: {reason}");
                    }
                    sleep(jittered(pause));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Follows etcd for one bound, or until it is found to have gone back once more than `rewound`, from a
    /// snapshot if there is no last revision; the last revision seen.
    fn watch_once(
        &self,
        valid: Valid,
        last: Option<Revision>,
        complaint: &mut Complaint,
    ) -> Result<Revision, Lost> {
        let mut seen = match last {
            Some(revision) => revision,
            None => self
                .snapshot()
                .map_err(|error| Lost { seen: None, error })?,
        };
        let mut paused = false;
        while self
            .follow(valid, &mut seen, paused, complaint)
            .map_err(|error| Lost {
                seen: Some(seen),
                error,
            })?
        {
            self.pause.wait_for_end();
            paused = true;
        }
        Ok(seen)
    }

    /// Follows etcd on one connection; whether the watch is to pause now.
    fn follow(
        &self,
        valid: Valid,
        seen: &mut Revision,
        paused: bool,
        complaint: &mut Complaint,
    ) -> Result<bool, Error> {
        let watch = self.client.watch(schema::PREFIX, seen.next(), BOUND)?;
        if self.is_current(valid.0) {
            let endpoint = self.client.endpoint_in_use();
            self.at.store(endpoint, Ordering::Relaxed);
        }
        if complaint.settle() {
            info!("rev={seen} watching etcd again");
        }
        // What came together during a pause is much, too, and it may have been too short.
        let mut may_pause = paused;
        for batch in watch {
            let batch = batch?;
            *seen = (*seen).max(batch.revision);
            let deletions = batch.events.iter().filter(|event| event.deleted);
            may_pause |= deletions.count() >= MASS_EXPIRY;
            if may_pause {
                self.pause.ask();
            }
            if !self.pass_on(valid, &batch, may_pause) {
                break;
            }
            // Until then nothing is read, and with the connection it is not even written.
            if std::mem::take(&mut may_pause) && self.pause.is_wished() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells what a watch brought, unless etcd has gone back since that was opened: its revisions are of another
    /// history than those that were told last, or leave out what came before them. Nor if another watch has begun.
    fn pass_on(&self, (generation, rewound): Valid, batch: &WatchBatch, may_pause: bool) -> bool {
        let changes = batch
            .events
            .iter()
            .filter_map(|event| self.read_event(event))
            .collect();
        // Held while it is told, so that nothing from before comes after the news that etcd went back.
        let mut progress = self.history.lock();
        if progress.rewound != rewound || !self.is_current(generation) {
            return false;
        }
        let _ = self.events.send(match may_pause {
            true => Event::MassExpiry(changes),
            false => Event::Changed(changes),
        });
        if batch.revision <= progress.revision {
            return true;
        }
        let before = progress.revision;
        let news = batch.events.iter();
        for event in news.filter(|event| event.kv.mod_revision > before) {
            if event.deleted {
                progress.count -= 1;
            } else if event.kv.create_revision == event.kv.mod_revision {
                progress.count += 1;
            }
        }
        progress.revision = batch.revision;
        self.metrics.seen(batch.revision);
        true
    }

    /// Tells all keys that there are; their revision.
    fn snapshot(&self) -> Result<Revision, Error> {
        loop {
            let rewound = self.history.progress().rewound;
            let reply = self.client.range(schema::PREFIX)?;
            let changes = reply.kvs.iter().filter_map(|kv| self.read(kv)).collect();
            let mut progress = self.history.lock();
            if progress.rewound != rewound {
                // It may be of what etcd has forgotten.
                continue;
            }
            let _ = self.events.send(Event::Snapshot {
                revision: reply.revision,
                changes,
            });
            if reply.revision >= progress.revision {
                let count = i64::try_from(reply.count).unwrap_or(i64::MAX);
                *progress = Progress {
                    revision: reply.revision,
                    count,
                    ..*progress
                };
                self.metrics.seen(reply.revision);
            }
            debug!("rev={} snapshot keys={}", reply.revision, reply.count);
            return Ok(reply.revision);
        }
    }

    fn poll(&self) {
        let mut complaint = Complaint::default();
        let mut behind_at = None;
        // The revision of the whole store, which other programs may use too: up to here this thread has looked.
        let mut polled = Revision::default();
        let mut looked_through = Revision::default();
        let mut rewound = 0;
        loop {
            let (before, began) = (self.history.progress(), clock::now());
            sleep(jittered(POLL));
            let (asked, revision) = match self.read_since(began) {
                Ok(reading) => reading,
                Err(error) => {
                    let reason = chain(&error);
                    if complaint.raise(&reason) {
                        warn!("cannot poll etcd: {reason}");
                    }
                    continue;
                }
            };
            if complaint.settle() {
                info!("rev={revision} polling etcd again");
            }
            // A linearizable answer is never older than what was seen before it was asked for.
            let known = before.revision.max(polled);
            polled = revision;
            if revision < known {
                warn!(
                    "rev={known} etcd has gone back to {revision}: its data are lost, or from a backup"
                );
                self.history.went_back(before.rewound);
            }
            // The worker may have seen it, and etcd may be as new as it was by now.
            let progress = self.history.progress();
            if std::mem::replace(&mut rewound, progress.rewound) != progress.rewound {
                looked_through = Revision::default();
                self.snapshot_anew();
                continue;
            }
            let behind = revision > progress.revision.max(looked_through);
            // Writes of other programs to etcd count until the keys were looked through.
            let newest = if behind { revision } else { progress.revision };
            self.metrics.polled(newest, asked);
            // Once may be the moment between a change and its event; the same twice is not.
            if behind && behind_at == Some(progress) {
                match self.is_stale(progress) {
                    Ok(None) => {
                        looked_through = revision;
                        self.metrics.polled(progress.revision, asked);
                    }
                    Ok(Some(newest)) => {
                        warn!(
                            "rev={} the watch is stale, etcd is at {newest}",
                            progress.revision
                        );
                        self.snapshot_anew();
                    }
                    Err(error) => warn!("cannot poll etcd: {}", chain(&error)),
                }
            }
            behind_at = behind.then_some(progress);
        }
    }

    /// How new etcd was at some time after `began`.
    fn read_since(&self, began: Time) -> Result<Reading, Error> {
        if let Some(reading) = self.client.reading().filter(|(asked, _)| *asked >= began) {
            return Ok(reading);
        }
        let asked = clock::now();
        Ok((asked, self.client.revision(schema::PREFIX)?))
    }

    /// The revision that etcd is at, if keys of wmgwd have changed since `progress`.
    fn is_stale(&self, progress: Progress) -> Result<Option<Revision>, Error> {
        let newest = self.client.newest(schema::PREFIX)?;
        let count = i64::try_from(newest.count).unwrap_or(i64::MAX);
        let stale = newest.mod_revision > progress.revision || count != progress.count;
        Ok(stale.then_some(newest.revision))
    }

    fn snapshot_anew(&self) {
        if let Err(error) = self.snapshot() {
            warn!("cannot read etcd: {}", chain(&error));
        }
    }

    fn read_event(&self, event: &WatchEvent) -> Option<Change> {
        if !event.deleted {
            return self.read(&event.kv);
        }
        let key = self.read_key(&event.kv.key)?;
        Some(Change {
            key,
            value: None,
            lease: None,
            revision: event.kv.mod_revision,
        })
    }

    fn read(&self, kv: &KeyValue) -> Option<Change> {
        let key = self.read_key(&kv.key)?;
        let (value, foreign) = schema::read_value(&key, &kv.value);
        if let Some(foreign) = foreign {
            self.report(foreign);
        }
        Some(Change {
            key,
            value: Some(value),
            lease: kv.lease,
            revision: kv.mod_revision,
        })
    }

    fn read_key(&self, bytes: &[u8]) -> Option<Key> {
        Key::read(bytes)
            .map_err(|foreign| self.report(foreign))
            .ok()
    }

    /// Logs once that data of another program was stepped over.
    fn report(&self, foreign: Foreign) {
        let mut reported = self.reported.lock().expect("no holder of this lock panics");
        if reported.contains(&foreign) {
            return;
        }
        if reported.len() == REMEMBERED {
            reported.clear();
        }
        warn!("{foreign}");
        reported.insert(foreign);
    }
}

/// The generation of a watch, and how often etcd had gone back when it was opened.
type Valid = (u32, u32);

/// A watch that ended before its bound.
struct Lost {
    seen: Option<Revision>,
    error: Error,
}

/// `pause`, up to a quarter more or less, so that nodes that lost etcd together do not come back together.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let dice = RandomState::new().hash_one(pause) % 512;
    pause * 3 / 4 + pause * u32::try_from(dice).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    /// One of the etcd at `endpoint` that has got as far as `progress`, and where it tells what it sees.
    fn observer(endpoint: &str, progress: Progress) -> (Observer, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel();
        let history = History::new(events.clone());
        *history.lock() = progress;
        let observer = Observer {
            client: Client::new(vec![endpoint.parse().unwrap()], Duration::from_secs(60)),
            events,
            history,
            reported: Arc::default(),
            metrics: Arc::default(),
            pause: PauseSwitch::default(),
            generation: Arc::default(),
            at: Arc::default(),
        };
        (observer, inbox)
    }

    /// Input: etcd went back, which the worker alone saw, and is newer than before by the next poll. Output:
    /// all is begun anew, from a snapshot.
    #[test]
    fn an_etcd_that_went_back_and_on_is_read_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                // Up to the end of the request's only object.
                while byte != *b"}" && stream.read(&mut byte).is_ok_and(|got| got > 0) {}
                let reply = r#"{"header":{"revision":"9"}}"#;
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
                let _ = write!(stream, "{head} {}\r\n\r\n{reply}", reply.len());
            }
        });
        let (observer, inbox) = observer(
            &endpoint,
            Progress {
                revision: Revision(8),
                ..Progress::default()
            },
        );
        observer.history.went_back(0);
        thread::spawn(move || observer.poll());
        let next = || inbox.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(next(), Event::Rewound);
        let (revision, changes) = (Revision(9), Vec::new());
        assert_eq!(next(), Event::Snapshot { revision, changes });
    }

    /// Answers one request on `stream`: a watch with its confirmation and, once `go` says so, with a change at
    /// revision 101; anything else with revision 100.
    fn answer(mut stream: TcpStream, opened: &mpsc::Sender<()>, go: &Mutex<mpsc::Receiver<()>>) {
        const CREATED: &str = r#"{"result":{"header":{"revision":"60"},"created":true}}"#;
        const CHANGE: &str = r#"{"result":{"header":{"revision":"101"},"events":[{"kv":{
            "key":"L3dtZ3dkL3ZuaS83L3R5cGU=","mod_revision":"101","value":"MQ=="}}]}}"#;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|got| got > 0) {
            head.push(byte[0]);
        }
        let start = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
        if String::from_utf8_lossy(&head).contains("/v3/watch") {
            let _ = write!(stream, "{start}\r\n{CREATED}\n");
            let _ = opened.send(());
            let _ = go.lock().unwrap().recv();
            let _ = writeln!(stream, "{}", CHANGE.replace(['\n', ' '], ""));
        } else {
            let reply = r#"{"header":{"revision":"100"}}"#;
            let _ = write!(
                stream,
                "{start}Content-Length: {}\r\n\r\n{reply}",
                reply.len()
            );
        }
        // The rest of the request, so that what was written is not cut off.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }

    /// Input: etcd is found to have gone back while a watch is open, which then brings a change. Output: that is
    /// not told any more, because the changes before it are unknown, but a snapshot.
    #[test]
    fn a_watch_from_before_etcd_went_back_is_not_believed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (opened, is_open) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let may_go = Arc::new(Mutex::new(may_go));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, opened, may_go) = (stream.unwrap(), opened.clone(), may_go.clone());
                thread::spawn(move || answer(stream, &opened, &may_go));
            }
        });
        let (observer, inbox) = observer(&endpoint, Progress::default());
        let watcher = observer.clone();
        thread::spawn(move || watcher.watch(0, None));
        let next = || inbox.recv_timeout(Duration::from_secs(60)).unwrap();
        let snapshot = || Event::Snapshot {
            revision: Revision(100),
            changes: Vec::new(),
        };
        assert_eq!(next(), snapshot());
        is_open.recv_timeout(Duration::from_secs(60)).unwrap();
        observer.history.went_back(0);
        assert_eq!(next(), Event::Rewound);
        go.send(()).unwrap();
        assert_eq!(next(), snapshot());
    }
}
