//! The world around the nodes: time, network, etcd.

use super::node::{Daemon, Guard, Node, Reply, Request};
use crate::etcd::WatchEvent;
use crate::gateway::sim::etcd::ModelEtcd;
use crate::gateway::sim::rng::Rng;
use crate::model::types::{LeaseId, NodeName, Revision, Time};
use crate::schema::{self, witness::EPOCHS};
use crate::witness::Standing;
use crate::witness::datagram::LENGTH;
use crate::witness::message::{Known, Order, Report};
use crate::witness::siphash::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const TTL: Duration = Duration::from_secs(5);
pub const LEASE_MARGIN: Duration = Duration::from_millis(300);
pub const ROW: &[u8] = b"/wmgwd/sim/row";

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What goes wrong all the time; in milliseconds and per mille.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub doubled: u64,
    pub delay: u64,
    /// The longest that a process takes to do what is due.
    pub late: u64,
    pub etcd_delay: u64,
    /// Requests that are never executed, are executed up to two seconds later, have no answer.
    pub etcd_loss: u64,
    pub etcd_late: u64,
    pub etcd_mute: u64,
    /// The longest that a watch is behind.
    pub watch: u64,
    /// How much clocks differ at most, in millionths.
    pub drift: u64,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        loss: 0,
        doubled: 0,
        delay: 1,
        late: 2,
        etcd_delay: 5,
        etcd_loss: 0,
        etcd_late: 0,
        etcd_mute: 0,
        watch: 10,
        drift: 10_000,
    };
}

/// What a guard is sent.
#[derive(Clone, Debug)]
pub enum Word {
    Attach,
    Order(Order),
    Serves(Option<LeaseId>),
}

/// What a daemon is sent by its guard.
#[derive(Clone, Debug)]
pub enum Said {
    Known(Option<Known>),
    Report(Report),
}

#[derive(Clone, Debug)]
pub enum Event {
    GuardTick {
        node: usize,
        guard: u64,
    },
    DaemonTick {
        node: usize,
        daemon: u64,
    },
    Beat {
        node: usize,
        from: usize,
        bytes: [u8; LENGTH],
    },
    Ack {
        node: usize,
        bytes: [u8; LENGTH],
    },
    ToGuard {
        node: usize,
        guard: u64,
        word: Word,
    },
    ToDaemon {
        node: usize,
        daemon: u64,
        said: Said,
    },
    Execute {
        node: usize,
        daemon: u64,
        id: u64,
        request: Request,
    },
    Answer {
        node: usize,
        daemon: u64,
        id: u64,
        reply: Reply,
    },
    Watch {
        node: usize,
        daemon: u64,
    },
    StartDaemon {
        node: usize,
        daemon: u64,
    },
}

pub struct Cluster {
    pub rng: Rng,
    pub now: Time,
    pub etcd: ModelEtcd,
    pub nodes: Vec<Node>,
    pub weather: Weather,
    pub window: Duration,
    /// Pairs (from, to) between which nothing gets through.
    pub cut: BTreeSet<(usize, usize)>,
    /// Nodes that do not reach etcd.
    pub apart: BTreeSet<usize>,
    /// etcd may end leases that their holders have renewed: then a lease that has ended says nothing of proofs.
    pub ends_early: bool,
    queue: BTreeMap<(Time, u64), Event>,
    count: u64,
    /// When which lease was evicted.
    pub evicted: BTreeMap<LeaseId, Time>,
    pub holder: BTreeMap<LeaseId, usize>,
    scanned: Revision,
    pub trace: Vec<String>,
    pub proof_lost: u64,
}

impl Cluster {
    pub fn new(seed: u64, nodes: usize, window: Duration, weather: Weather) -> Cluster {
        let mut rng = Rng::new(seed);
        let now = Time::since_boot(Duration::from_secs(10));
        let nodes = (0..nodes).map(|_| {
            let drift = rng.below(2 * weather.drift + 1) as i64 - weather.drift as i64;
            Node::new(drift, rng.millis(0, 100_000))
        });
        let nodes = nodes.collect();
        let mut cluster = Cluster {
            rng,
            now,
            etcd: ModelEtcd::new(),
            nodes,
            weather,
            window,
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            ends_early: false,
            queue: BTreeMap::new(),
            count: 0,
            evicted: BTreeMap::new(),
            holder: BTreeMap::new(),
            scanned: Revision(0),
            trace: Vec::new(),
            proof_lost: 0,
        };
        for node in 0..cluster.nodes.len() {
            cluster.start_daemon(node);
        }
        cluster
    }

    pub fn name(at: usize) -> NodeName {
        format!("gw{at}").parse().expect("it is a name")
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        let at = self.now.as_duration().as_millis();
        self.trace.push(format!("{at} {}", text()));
    }

    pub fn push(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), event);
    }

    pub fn local(&self, node: usize) -> Time {
        self.nodes[node].local(self.now)
    }

    /// Runs for `span`, or until `done`; says whether it was.
    pub fn run(
        &mut self,
        span: Duration,
        mut done: impl FnMut(&Cluster) -> bool,
    ) -> Result<bool, String> {
        let end = self.now + span;
        loop {
            if done(self) {
                return Ok(true);
            }
            let next = self.queue.first_key_value().map(|(key, _)| *key);
            let expiry = self.etcd.next_expiry().filter(|at| *at <= end);
            let at = next.map(|(at, _)| at).filter(|at| *at <= end);
            if let Some(expiry) = expiry.filter(|expiry| at.is_none_or(|at| *expiry <= at)) {
                self.now = self.now.max(expiry);
                for lease in self.etcd.expire(self.now) {
                    self.say(|| format!("lease {lease} expires"));
                }
                self.etcd_changed();
                self.check()?;
                continue;
            }
            let Some(key) = next.filter(|(at, _)| *at <= end) else {
                self.now = end;
                self.check()?;
                return Ok(done(self));
            };
            let event = self.queue.remove(&key).expect("it is the first one");
            self.now = key.0;
            self.happen(event);
            self.check()?;
        }
    }

    /// Whether the process that this is for has to wait, and until when.
    fn paused(&self, event: &Event) -> Option<Time> {
        let (node, is_guard) = match event {
            Event::GuardTick { node, .. }
            | Event::Ack { node, .. }
            | Event::ToGuard { node, .. } => (*node, true),
            Event::DaemonTick { node, .. }
            | Event::Beat { node, .. }
            | Event::ToDaemon { node, .. }
            | Event::Answer { node, .. }
            | Event::Watch { node, .. } => (*node, false),
            Event::Execute { .. } | Event::StartDaemon { .. } => return None,
        };
        let node = &self.nodes[node];
        let until = if is_guard {
            node.guard_paused
        } else {
            node.daemon_paused
        };
        (until > self.now).then_some(until)
    }

    fn happen(&mut self, event: Event) {
        if let Some(until) = self.paused(&event) {
            return self.push(until, event);
        }
        match event {
            Event::GuardTick { node, guard } => self.guard_tick(node, guard),
            Event::DaemonTick { node, daemon } => {
                if self.daemon_is(node, daemon) {
                    self.daemon(node, |_| {});
                }
            }
            Event::Beat { node, from, bytes } => self.beat(node, from, &bytes),
            Event::Ack { node, bytes } => {
                let local = self.local(node);
                if let Some(guard) = &mut self.nodes[node].guard {
                    guard.prover.receive(local, &bytes);
                }
                self.tell_news(node);
            }
            Event::ToGuard { node, guard, word } => {
                if self.nodes[node]
                    .guard
                    .as_ref()
                    .is_some_and(|it| it.id == guard)
                {
                    self.guard_hears(node, word);
                }
            }
            Event::ToDaemon { node, daemon, said } => {
                if self.daemon_is(node, daemon) {
                    let local = self.local(node);
                    self.daemon(node, |it| it.hear(local, said));
                }
            }
            Event::Execute {
                node,
                daemon,
                id,
                request,
            } => self.execute(node, daemon, id, request),
            Event::Answer {
                node,
                daemon,
                id,
                reply,
            } => {
                if self.daemon_is(node, daemon) {
                    let local = self.local(node);
                    self.daemon(node, |it| it.answered(local, id, reply));
                }
            }
            Event::Watch { node, daemon } => {
                if self.daemon_is(node, daemon) {
                    self.watch(node);
                }
            }
            Event::StartDaemon { node, daemon } => {
                if self.nodes[node].is_on && self.nodes[node].starts == daemon {
                    self.start_daemon(node);
                }
            }
        }
    }

    fn daemon_is(&self, node: usize, daemon: u64) -> bool {
        let there = self.nodes[node].daemon.as_ref();
        self.nodes[node].is_on && there.is_some_and(|it| it.id == daemon)
    }

    /// Has a daemon do something, and does what comes of it.
    fn daemon(&mut self, node: usize, act: impl FnOnce(&mut Daemon)) {
        let Some(mut daemon) = self.nodes[node].daemon.take() else {
            return;
        };
        act(&mut daemon);
        daemon.drive(self.local(node));
        let id = daemon.id;
        for word in std::mem::take(&mut daemon.words) {
            self.send_word(node, word);
        }
        for (request_id, request) in std::mem::take(&mut daemon.requests) {
            self.send_request(node, id, request_id, request);
        }
        let due = self.nodes[node].at_local(daemon.deadline(self.local(node)));
        let due = due.max(self.now + Duration::from_micros(200)) + self.lateness();
        if due < daemon.tick_at || daemon.tick_at <= self.now {
            daemon.tick_at = due;
            self.push(due, Event::DaemonTick { node, daemon: id });
        }
        if daemon.needs_guard && self.nodes[node].guard.is_none() {
            self.start_guard(node);
        }
        self.nodes[node].daemon = Some(daemon);
    }

    fn lateness(&mut self) -> Duration {
        self.rng.millis(0, self.weather.late)
    }

    // The guard.

    pub fn start_guard(&mut self, node: usize) {
        self.count += 1;
        let (id, seed) = (self.count, self.rng.next());
        let guard = Guard::new(id, seed);
        self.nodes[node].guard = Some(guard);
        self.push(self.now + ms(1), Event::GuardTick { node, guard: id });
    }

    fn guard_tick(&mut self, node: usize, id: u64) {
        let local = self.local(node);
        let is_on = self.nodes[node].is_on;
        let Some(guard) = self.nodes[node]
            .guard
            .as_mut()
            .filter(|it| it.id == id && is_on)
        else {
            return;
        };
        let beats = guard.prover.tick(local);
        for (address, bytes) in beats {
            let to = usize::from(address.port()) - 1;
            for at in self.travel(node, to) {
                self.push(
                    at,
                    Event::Beat {
                        node: to,
                        from: node,
                        bytes,
                    },
                );
            }
        }
        self.tell_news(node);
        self.wake_guard(node);
    }

    /// Sees to it that a guard wakes when it has something to do.
    fn wake_guard(&mut self, node: usize) {
        let lateness = self.lateness();
        let it = &mut self.nodes[node];
        let Some((next, id)) = it
            .guard
            .as_ref()
            .map(|guard| (guard.prover.next_tick(), guard.id))
        else {
            return;
        };
        let next = it.at_local(next).min(self.now + ms(1_000));
        let next = next.max(self.now + Duration::from_micros(200)) + lateness;
        let guard = it.guard.as_mut().expect("it is there");
        if next < guard.tick_at || guard.tick_at <= self.now {
            guard.tick_at = next;
            self.push(next, Event::GuardTick { node, guard: id });
        }
    }

    /// When copies of a datagram arrive.
    fn travel(&mut self, from: usize, to: usize) -> Vec<Time> {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.weather.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.chance(self.weather.doubled));
        let delay = self.weather.delay;
        (0..copies)
            .map(|_| self.now + self.rng.millis(0, delay))
            .collect()
    }

    fn beat(&mut self, node: usize, from: usize, bytes: &[u8; LENGTH]) {
        let local = self.local(node);
        let mut answer = None;
        if self.nodes[node].is_on {
            self.daemon(node, |it| answer = it.voter.receive(local, bytes));
        }
        let Some(bytes) = answer else {
            return;
        };
        for at in self.travel(node, from) {
            self.push(at, Event::Ack { node: from, bytes });
        }
    }

    fn guard_hears(&mut self, node: usize, word: Word) {
        let local = self.local(node);
        let Some(guard) = &mut self.nodes[node].guard else {
            return;
        };
        match word {
            Word::Attach => {
                let known = Said::Known(guard.prover.known());
                self.send_said(node, known);
            }
            Word::Order(order) => {
                let is_begin = matches!(order, Order::Begin { .. });
                let reports = guard.prover.order(local, order);
                if is_begin {
                    self.nodes[node].granted = None;
                }
                for report in reports {
                    self.send_said(node, Said::Report(report));
                }
            }
            Word::Serves(lease) => guard.serves = lease,
        }
        self.wake_guard(node);
    }

    fn tell_news(&mut self, node: usize) {
        let local = self.local(node);
        let guard = self.nodes[node].guard.as_mut();
        if let Some(report) = guard.and_then(|it| it.prover.news(local)) {
            self.send_said(node, Said::Report(report));
        }
    }

    // A Unix socket keeps the order.
    fn send_said(&mut self, node: usize, said: Said) {
        let at = self.now + self.rng.millis(0, self.weather.late);
        let at = at.max(self.nodes[node].said_at);
        self.nodes[node].said_at = at;
        if let Some(daemon) = self.nodes[node].daemon.as_ref().map(|it| it.id) {
            self.push(at, Event::ToDaemon { node, daemon, said });
        }
    }

    fn send_word(&mut self, node: usize, word: Word) {
        let at = self.now + self.rng.millis(0, self.weather.late);
        let at = at.max(self.nodes[node].word_at);
        self.nodes[node].word_at = at;
        if self.nodes[node].guard.is_none() {
            self.start_guard(node);
        }
        let guard = self.nodes[node].guard.as_ref().map_or(0, |it| it.id);
        self.push(at, Event::ToGuard { node, guard, word });
    }

    // etcd.

    fn send_request(&mut self, node: usize, daemon: u64, id: u64, request: Request) {
        const TIMEOUT: Duration = Duration::from_millis(500);
        let unknown = Event::Answer {
            node,
            daemon,
            id,
            reply: Reply::Unknown,
        };
        self.push(self.now + TIMEOUT, unknown);
        if self.apart.contains(&node) || self.rng.chance(self.weather.etcd_loss) {
            return;
        }
        let mut at = self.now + self.rng.millis(0, self.weather.etcd_delay);
        if self.rng.chance(self.weather.etcd_late) {
            at = at + self.rng.millis(0, 2_000);
        }
        self.push(
            at,
            Event::Execute {
                node,
                daemon,
                id,
                request,
            },
        );
    }

    fn execute(&mut self, node: usize, daemon: u64, id: u64, request: Request) {
        if !self.etcd.up {
            // Some of what waits for a leader is executed when there is one.
            if self.rng.chance(500) {
                let at = self.now + self.rng.millis(50, 500);
                self.push(
                    at,
                    Event::Execute {
                        node,
                        daemon,
                        id,
                        request,
                    },
                );
            }
            return;
        }
        let reply = self.nodes[node].execute(self.now, &mut self.etcd, &request);
        if request.is_telling() {
            self.say(|| format!("gw{node}: {}: {}", request.tell(), reply.tell()));
        }
        if let Reply::Granted(grant) = &reply {
            self.holder.insert(grant.id, node);
        }
        let mute = self.apart.contains(&node) || self.rng.chance(self.weather.etcd_mute);
        self.etcd_changed();
        if !mute {
            let at = self.now + self.rng.millis(0, self.weather.etcd_delay);
            self.push(
                at,
                Event::Answer {
                    node,
                    daemon,
                    id,
                    reply,
                },
            );
        }
    }

    /// Tells all watches, and notes who was evicted.
    pub fn etcd_changed(&mut self) {
        let news = self
            .etcd
            .since(self.scanned.next())
            .map(<[WatchEvent]>::to_vec);
        let news = news.expect("nothing is compacted");
        self.scanned = self.etcd.revision();
        if news.is_empty() {
            return;
        }
        for event in news
            .iter()
            .filter(|event| !event.deleted && event.kv.key.starts_with(EPOCHS))
        {
            let standing = schema::witness::read_standing(&event.kv.value);
            if standing == Ok(Standing::Evicted) {
                let lease = event.kv.lease.expect("an evicted key keeps its lease");
                self.evicted.entry(lease).or_insert(self.now);
                self.say(|| format!("evicted: {lease}"));
            }
        }
        for node in 0..self.nodes.len() {
            let Some(daemon) = self.nodes[node].daemon.as_ref().map(|it| it.id) else {
                continue;
            };
            let mut at = self.now + self.rng.millis(0, 10);
            if self.weather.watch > 10 && self.rng.chance(100) {
                at = at + self.rng.millis(0, self.weather.watch);
            }
            let at = at.max(self.nodes[node].watch_at);
            self.nodes[node].watch_at = at;
            self.push(at, Event::Watch { node, daemon });
        }
    }

    /// A watch tells what it has to tell: all of it, or one revision of it.
    fn watch(&mut self, node: usize) {
        if self.apart.contains(&node) {
            let daemon = self.nodes[node].daemon.as_ref().map_or(0, |it| it.id);
            return self.push(self.now + ms(200), Event::Watch { node, daemon });
        }
        loop {
            let seen = self.nodes[node].daemon.as_ref().and_then(|it| it.seen);
            let Some(seen) = seen else {
                return;
            };
            let news = self.etcd.since(seen.next()).expect("nothing is compacted");
            let Some(revision) = news.first().map(|event| event.kv.mod_revision) else {
                return;
            };
            let batch = news
                .iter()
                .take_while(|event| event.kv.mod_revision == revision);
            let batch: Vec<WatchEvent> = batch.cloned().collect();
            let local = self.local(node);
            self.daemon(node, |it| it.watched(local, revision, &batch));
        }
    }

    // Faults.

    pub fn start_daemon(&mut self, node: usize) {
        self.count += 1;
        let (id, run, key) = (self.count, self.rng.next(), self.rng.next());
        let key = Key([key.to_le_bytes(), key.to_be_bytes()]
            .concat()
            .try_into()
            .expect("16 bytes"));
        let daemon = Daemon::new(id, node, run, key, self.window, self.rng.next());
        self.nodes[node].daemon = Some(daemon);
        self.nodes[node].daemon_paused = self.now;
        self.say(|| format!("gw{node}: the daemon starts"));
        self.daemon(node, |it| it.words.push(Word::Attach));
        self.push(self.now + ms(1), Event::Watch { node, daemon: id });
    }

    pub fn kill_daemon(&mut self, node: usize, back: Duration) {
        self.say(|| format!("gw{node}: the daemon is killed"));
        self.nodes[node].daemon = None;
        self.nodes[node].starts += 1;
        let daemon = self.nodes[node].starts;
        self.push(self.now + back, Event::StartDaemon { node, daemon });
    }

    /// The kernel keeps what the guard has granted it until that ends, or another guard replaces it.
    pub fn kill_guard(&mut self, node: usize) {
        self.say(|| format!("gw{node}: the guard is killed"));
        let Some(guard) = self.nodes[node].guard.take() else {
            return;
        };
        let lease = guard.prover.lease().map(|lease| lease.id);
        if let Some(lease) = lease {
            self.nodes[node].granted = Some((lease, guard.prover.until(), guard.serves));
        }
        self.daemon(node, |it| it.guard_is_lost());
    }

    /// An orderly exit: the daemon goes, and its guard with it, a while after.
    pub fn leave(&mut self, node: usize) {
        self.say(|| format!("gw{node}: leaves"));
        let local = self.local(node);
        self.daemon(node, |it| it.leave(local));
    }

    /// Starts what has left.
    pub fn come_back(&mut self, node: usize) {
        let has_left = self.nodes[node]
            .daemon
            .as_ref()
            .is_some_and(Daemon::has_left);
        if has_left {
            self.nodes[node].guard = None;
            self.start_daemon(node);
        }
    }

    pub fn power_off(&mut self, node: usize) {
        self.say(|| format!("gw{node}: the power is cut"));
        self.nodes[node].is_on = false;
        self.nodes[node].daemon = None;
        self.nodes[node].guard = None;
        self.nodes[node].granted = None;
        self.nodes[node].starts += 1;
    }

    pub fn power_on(&mut self, node: usize) {
        if !self.nodes[node].is_on {
            self.nodes[node].is_on = true;
            self.start_daemon(node);
        }
    }

    // The check.

    /// Who has proof, and of which lease, by whose word; and whether it serves the row.
    pub fn proofs(&self, node: usize) -> Vec<(LeaseId, bool, &'static str)> {
        let it = &self.nodes[node];
        let local = self.local(node);
        let mut proofs = Vec::new();
        if !it.is_on {
            return proofs;
        }
        if let Some(guard) = &it.guard
            && let Some(lease) = guard.prover.lease()
            && local < guard.prover.until()
        {
            proofs.push((lease.id, guard.serves == Some(lease.id), "the guard"));
        }
        if let Some((lease, until, serves)) = it.granted.filter(|(_, until, _)| local < *until) {
            let _ = until;
            proofs.push((lease, serves == Some(lease), "a guard that was killed"));
        }
        if let Some(daemon) = &it.daemon
            && let Some(lease) = daemon.lease
            && local < daemon.owner.proof_until()
        {
            proofs.push((lease.id, false, "the daemon"));
        }
        proofs
    }

    /// The lease of a node's epoch in etcd, if that has witnesses.
    pub fn witnessed(&self, node: usize) -> Option<LeaseId> {
        let key = schema::Key::Epoch(Self::name(node)).bytes();
        let kv = self.etcd.get(&key)?;
        match schema::witness::read_standing(&kv.value) {
            Ok(Standing::Epoch(epoch)) if !epoch.witnesses.is_empty() => kv.lease,
            _ => None,
        }
    }

    pub fn describe(&self, node: usize) -> String {
        let it = &self.nodes[node];
        let local = self.local(node);
        let daemon = it.daemon.as_ref().map(|daemon| daemon.describe(local));
        format!("gw{node} proof {} daemon {daemon:?}", self.has_proof(node))
    }

    pub fn has_proof(&self, node: usize) -> bool {
        self.proofs(node)
            .iter()
            .any(|(_, _, whose)| *whose == "the guard")
    }

    fn check(&mut self) -> Result<(), String> {
        let mut serving = BTreeSet::new();
        for node in 0..self.nodes.len() {
            for (lease, serves, whose) in self.proofs(node) {
                let fault = if self.evicted.contains_key(&lease) {
                    "was evicted"
                } else if !self.ends_early && !self.etcd.lease_exists(lease) {
                    "etcd has ended"
                } else {
                    ""
                };
                if !fault.is_empty() {
                    return Err(format!(
                        "gw{node} has proof of lease {lease}, which {fault}, by {whose}"
                    ));
                }
                if serves {
                    serving.insert(node);
                }
            }
            let has_proof = self.has_proof(node);
            if self.nodes[node].had_proof && !has_proof && self.nodes[node].is_on {
                self.proof_lost += 1;
            }
            self.nodes[node].had_proof = has_proof;
        }
        match serving.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("nodes {serving:?} all serve the row")),
        }
    }
}
