//! What thread `witness` has etcd do: the threads `witness_watch`, `witness_write` and `witness_vote`.

use super::rewatch::follow_failures;
use super::witness::{Input, Post};
use crate::etcd::{Client, Error, KeyValue, Txn, WatchEvent};
use crate::model::types::{LeaseId, Revision};
use crate::schema::{self, Key, Value};
use crate::telemetry::log_text::{Complaint, chain};
use crate::witness::Number;
use crate::witness::owner::Answer;
use crate::witness::voter::{Ballot, Change, Voted};
use log::{debug, info, warn};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Builder, sleep};
use std::time::Duration;

/// Contacts and epochs, in one watch so that they come in one order, and no rows, which may be many: from the first
/// to the last, with the votes between them.
const KEYS: (&[u8], &[u8]) = (b"/wmgwd/meta/beat/", b"/wmgwd/meta/witness0");
/// How long one watch lives.
const BOUND: Duration = Duration::from_secs(10);
/// How long a watch that failed rests, at first and at most.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What etcd is asked to do.
pub enum Request {
    /// To put the contact in place.
    Contact(Txn),
    /// To put an epoch in place.
    Epoch(Number, Txn),
    /// To take a vote.
    Vote(Box<Ballot>, Txn),
    /// To end the lease of an evicted node.
    Revoke(LeaseId),
}

/// What was read.
pub struct Watched {
    /// The changes of this revision; or, if it is the whole, all keys as of it.
    pub changes: Vec<Change>,
    /// The revision.
    pub revision: Revision,
    /// Whether what is not in it is not there.
    pub whole: bool,
}

/// What the threads have.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    post: Post,
    watch: Arc<Mutex<Watch>>,
}

/// What the threads `witness_watch` share. Held while changes are told, so that they are told in order.
#[derive(Debug, Default)]
struct Watch {
    /// Which of the threads counts.
    generation: u32,
    /// At which endpoint that is.
    endpoint: usize,
    last: Option<Revision>,
}

impl Writer {
    pub fn new(client: &Client, post: &Post) -> Writer {
        Writer {
            client: client.clone(),
            post: post.clone(),
            watch: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, Watch> {
        self.watch
            .lock()
            .expect("a thread that panics takes the process with it")
    }

    /// Starts a thread that has etcd do one thing after the other.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str) -> io::Result<Sender<Request>> {
        let (requests, inbox) = channel::<Request>();
        let writer = self.clone();
        Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(request) = inbox.recv() {
                writer.execute(request);
            }
        })?;
        Ok(requests)
    }

    fn execute(&self, request: Request) {
        let (what, error) = match request {
            Request::Contact(txn) => {
                let reply = self.client.txn(&txn);
                let is_taken = reply.as_ref().map(schema::witness::contact_published);
                self.post.send(Input::Contact(is_taken.ok()));
                ("publish where beats are received", reply.err())
            }
            Request::Epoch(number, txn) => {
                let reply = self.client.txn(&txn);
                let answer = reply.as_ref();
                let answer = answer.map_or(Answer::Unknown, schema::witness::epoch_written);
                self.post.send(Input::Epoch(number, answer));
                ("name witnesses", reply.err())
            }
            Request::Vote(ballot, txn) => {
                let reply = self.client.txn(&txn);
                let voted = reply.as_ref().map_or(Voted::Unknown, |reply| {
                    schema::witness::vote_written(&ballot, reply)
                });
                debug!("vote against {}: {voted:?}", ballot.owner);
                self.post.send(Input::Voted(*ballot, voted));
                ("vote", reply.err())
            }
            Request::Revoke(lease) => {
                let result = self.client.lease_revoke(lease);
                ("end the lease of an evicted node", result.err())
            }
        };
        if let Some(error) = error {
            // All of it is tried again; that etcd does not answer, others say.
            debug!("cannot {what}: {}", chain(&error));
        }
    }

    /// Starts the thread `witness_watch`, and `witness_rewatch`, which starts another one if the endpoint of the first
    /// stops answering.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn watch(&self) -> io::Result<()> {
        self.spawn_watch(0)?;
        if self.client.endpoint_count() > 1 {
            let writer = self.clone();
            Builder::new()
                .name("witness_rewatch".to_owned())
                .spawn(move || writer.watch_again())?;
        }
        Ok(())
    }

    fn spawn_watch(&self, generation: u32) -> io::Result<()> {
        let writer = self.clone();
        Builder::new()
            .name("witness_watch".to_owned())
            .spawn(move || writer.follow_while_current(generation))?;
        Ok(())
    }

    /// Thread `witness_rewatch`.
    fn watch_again(&self) {
        follow_failures(&self.client, |endpoint| {
            let generation = {
                let mut watch = self.state();
                if watch.endpoint != endpoint {
                    return false;
                }
                watch.generation += 1;
                watch.generation
            };
            if let Err(error) = self.spawn_watch(generation) {
                warn!("cannot start the thread `witness_watch`: {error}");
            }
            true
        });
    }

    fn follow_while_current(&self, generation: u32) {
        let mut complaint = Complaint::default();
        let mut pause = PAUSE;
        while self.state().generation == generation {
            let before = self.state().last;
            match self.follow(generation) {
                Ok(()) => {
                    pause = PAUSE;
                    if complaint.settle() {
                        info!("watching the other nodes again");
                    }
                }
                Err(error) => {
                    let mut watch = self.state();
                    if watch.last > before {
                        pause = PAUSE;
                    }
                    if matches!(error, Error::Compacted { .. }) {
                        // Nothing may have changed for longer than etcd keeps.
                        watch.last = None;
                        continue;
                    }
                    drop(watch);
                    let reason = chain(&error);
                    if complaint.raise(&reason) {
                        warn!("the watch on the other nodes ended: {reason}");
                    }
                    sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Follows etcd for one bound, or until another thread does, from a snapshot if there is no last revision.
    fn follow(&self, generation: u32) -> Result<(), Error> {
        let last = self.state().last;
        let mut seen = match last {
            Some(seen) => seen,
            None => {
                let all = self.client.range_between(KEYS.0, KEYS.1)?;
                let read = |kv: &KeyValue| change(kv, Some(&kv.value));
                let mut watch = self.state();
                if watch.generation != generation {
                    return Ok(());
                }
                self.post.send(Input::Watched(Watched {
                    changes: all.kvs.iter().filter_map(read).collect(),
                    revision: all.revision,
                    whole: true,
                }));
                watch.last = Some(all.revision);
                all.revision
            }
        };
        let batches = self.client.watch_between(KEYS, seen.next(), BOUND)?;
        {
            let mut watch = self.state();
            if watch.generation == generation {
                watch.endpoint = self.client.endpoint_in_use();
            }
        }
        for batch in batches {
            let batch = batch?;
            let mut watch = self.state();
            if watch.generation != generation {
                return Ok(());
            }
            for events in batch
                .events
                .chunk_by(|one, next| one.kv.mod_revision == next.kv.mod_revision)
            {
                self.pass_on(events);
            }
            seen = seen.max(batch.revision);
            watch.last = Some(seen);
        }
        Ok(())
    }

    /// Tells all changes of one revision.
    fn pass_on(&self, events: &[WatchEvent]) {
        let read = |event: &WatchEvent| {
            let value = (!event.deleted).then_some(&event.kv.value[..]);
            change(&event.kv, value)
        };
        let changes: Vec<Change> = events.iter().filter_map(read).collect();
        let Some(first) = events.first().filter(|_| !changes.is_empty()) else {
            return;
        };
        self.post.send(Input::Watched(Watched {
            changes,
            revision: first.kv.mod_revision,
            whole: false,
        }));
    }
}

/// What a key holds; `None` as the value if it was deleted.
fn change(kv: &KeyValue, value: Option<&[u8]>) -> Option<Change> {
    let key = Key::read(&kv.key).ok()?;
    if let Key::Epoch(name) = key {
        let held = value.map(|_| schema::witness::held(kv));
        return Some(Change::Epoch(name, held));
    }
    let value = value.map(|bytes| schema::read_value(&key, bytes).0);
    let Key::Contact(name) = key else {
        return None;
    };
    let contact = match value {
        Some(Value::Contact(contact)) => kv.lease.map(|lease| (lease, contact)),
        _ => None,
    };
    Some(Change::Contact(name, contact))
}
