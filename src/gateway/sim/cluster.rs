//! The cluster: one queue of events in virtual time, and the network between the nodes and etcd.

use super::check::Checker;
use super::etcd::{LeaseNotFound, ModelEtcd};
use super::faults::Fault;
use super::host::ModelHost;
use super::node::{Ev, Node, Process};
use super::rng::Rng;
use super::tables::Support;
use crate::etcd::{Grant, KeyValue, Txn, TxnReply};
use crate::gateway::Config;
use crate::model::fitness::SignSet;
use crate::model::frr::Cost;
use crate::model::ring::Points;
use crate::model::types::{LeaseId, Revision, Time, Vni, VniRange};
use crate::schema::{self, Change, Key};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The numbers of one cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub vnis: u32,
    pub ttl: Duration,
    pub margin: Duration,
    pub etcd_timeout: Duration,
    pub settle: Duration,
    pub join_hold: Duration,
    pub fit_hold: Duration,
    pub drain_timeout: Duration,
    /// Whether calls, vtysh and the scheduler misbehave at random.
    pub rough: bool,
    /// Whether calls take longer than a node waits, at random.
    pub lossy: bool,
    /// Whether some nodes serve a part of the VNIs only.
    pub ranges: bool,
    /// Whether nodes may draw their points, or be given others when they start again.
    pub redraws: bool,
    /// Whether a Go node resets every row that lacks a name, or only what the ring gives it.
    pub go_resets_all: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            vnis: 6,
            ttl: ms(10_000),
            margin: ms(2_000),
            etcd_timeout: ms(1_000),
            settle: ms(1_000),
            join_hold: ms(15_000),
            fit_hold: ms(10_000),
            drain_timeout: ms(60_000),
            rough: false,
            lossy: false,
            ranges: false,
            redraws: false,
            go_resets_all: true,
        }
    }
}

/// What is asked of etcd.
#[derive(Clone, Debug)]
pub enum Call {
    /// A transaction, with what to do with the answer.
    Txn(Txn, Box<Reason>),
    Grant(Duration),
    Keepalive(LeaseId),
    Revoke(LeaseId),
    Range,
    /// How new etcd is.
    Revision,
}

/// Why the worker wants a transaction.
#[derive(Clone, Debug)]
pub enum Reason {
    Commit {
        lease: LeaseId,
        rows: crate::schema::Batch,
    },
    Register(crate::gateway::Registration),
}

/// What etcd answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Txn(TxnReply),
    Refused,
    Granted(Grant),
    Kept(Option<Duration>),
    Revoked,
    Range(Revision, Vec<Change>),
    Revision(Revision),
}

struct Entry {
    at: Time,
    seq: u64,
    ev: Ev,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// A whole cluster.
pub struct Cluster {
    pub now: Time,
    pub start: Time,
    pub rng: Rng,
    /// For what only nf_tables has a part in: what else happens does not depend on it.
    pub table_rng: Rng,
    /// Whether each VNI has IPv6 gateway addresses.
    pub ipv6: Vec<bool>,
    pub etcd: ModelEtcd,
    /// A backup that the operator made.
    pub backup: Option<ModelEtcd>,
    pub nodes: Vec<Node>,
    pub settings: Settings,
    /// Whether the node with this index, if it is no Go node, is one with `--announce routes`.
    pub has_routes: fn(u64, usize) -> bool,
    seed: u64,
    pub checker: Checker,
    queue: BinaryHeap<Entry>,
    seq: u64,
    expiry: Option<Time>,
    pub next_call: u64,
    /// The trace so far, if one is wanted.
    pub trace: Option<Vec<String>>,
    pub failure: Option<String>,
    /// What ends is not worth a line each.
    pub healing: bool,
    /// Nothing happens to nf_tables any more.
    pub spares_tables: bool,
}

/// Notes a line of the trace; costs nothing without one.
macro_rules! note {
    ($cluster:expr, $($text:tt)*) => {
        if $cluster.trace.is_some() {
            $cluster.write_note(format!($($text)*));
        }
    };
}
pub(super) use note;

impl Cluster {
    pub fn new(seed: u64, settings: Settings) -> Cluster {
        let mut rng = Rng::new(seed);
        let now = Time::since_boot(rng.millis(0, 100_000));
        let mut table_rng = Rng::new(seed ^ 0x7ab1e);
        let ipv6 = (0..settings.vnis).map(|_| table_rng.chance(700)).collect();
        Cluster {
            now,
            start: now,
            rng,
            table_rng,
            ipv6,
            etcd: ModelEtcd::new(),
            backup: None,
            nodes: Vec::new(),
            checker: Checker::new(settings.vnis),
            settings,
            has_routes: |_, _| false,
            seed,
            queue: BinaryHeap::new(),
            seq: 0,
            expiry: None,
            next_call: 0,
            trace: None,
            failure: None,
            healing: false,
            spares_tables: false,
        }
    }

    pub fn write_note(&mut self, text: String) {
        if self.failure.is_some() {
            return;
        }
        let at = self.now.since(self.start).as_secs_f64();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:10.6} {text}"));
        }
    }

    pub fn fail(&mut self, text: String) {
        note!(self, "FAILURE {text}");
        let at = self.now.since(self.start).as_secs_f64();
        self.failure
            .get_or_insert_with(|| format!("at {at:.6}: {text}"));
    }

    pub fn vnis(&self) -> impl Iterator<Item = Vni> + use<> {
        (1..=self.settings.vnis).filter_map(Vni::new)
    }

    /// A node that starts for the first time.
    pub fn add(&mut self, name: &str, go: bool) -> usize {
        let last = self.settings.vnis;
        let (first, last) = if self.settings.ranges && !go && self.rng.chance(300) {
            let first = self.rng.within(1, u64::from(last)) as u32;
            (
                first,
                self.rng.within(u64::from(first), u64::from(last)) as u32,
            )
        } else {
            (1, last)
        };
        let range = Vni::new(first)
            .zip(Vni::new(last))
            .and_then(|(first, last)| VniRange::new(first, last));
        let points: Vec<u64> = (0..8).map(|_| self.rng.next()).collect();
        let points = match self.settings.redraws && self.rng.chance(500) {
            true => Points::Drawn(points),
            false => Points::Given(points),
        };
        let config = Config {
            me: name.parse().expect("a good name"),
            range: range.expect("not empty"),
            points,
            fence_margin: self.settings.margin,
            settle: self.settings.settle,
            join_hold: self.settings.join_hold,
            drain_timeout: self.settings.drain_timeout,
            max_lease_life: self.settings.ttl + ms(5_000),
            takeover_cost: Cost::OWNER,
            announces_itself: !go && (self.has_routes)(self.seed, self.nodes.len()),
            track: SignSet::ALL,
            fit_hold: self.settings.fit_hold,
        };
        let index = self.nodes.len();
        let support = match self.table_rng.below(10) {
            _ if go => Support::Nothing,
            0..=2 => Support::Nothing,
            3 => Support::ArpAlone,
            _ => Support::Both,
        };
        // What is outside of its range is none of its business.
        let vnis = self.vnis().zip(&self.ipv6);
        let ipv6: Vec<bool> = vnis
            .map(|(vni, has)| *has && config.range.contains(vni))
            .collect();
        let host = ModelHost::new(support, &ipv6);
        let mut node = Node::new(config, go, host, self.settings.vnis);
        node.host.has_routes = node.config.announces_itself;
        self.nodes.push(node);
        self.boot(index);
        index
    }

    pub fn push(&mut self, at: Time, ev: Ev) {
        self.seq += 1;
        let seq = self.seq;
        let at = at.max(self.now);
        self.queue.push(Entry { at, seq, ev });
    }

    pub fn after(&mut self, delay: Duration, ev: Ev) {
        self.push(self.now + delay, ev);
    }

    pub fn schedule(&mut self, after: Duration, fault: Fault) {
        self.push(self.now + after, Ev::Fault(fault));
    }

    /// Lets time pass until `until`, or to the first failure.
    pub fn run_until(&mut self, until: Time) {
        while self.failure.is_none() {
            self.schedule_expiry();
            match self.queue.peek() {
                Some(entry) if entry.at <= until => {}
                _ => break,
            }
            let Some(entry) = self.queue.pop() else { break };
            self.now = entry.at;
            self.handle(entry.ev);
            self.check();
        }
        self.now = self.now.max(until);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until `done`, for at most `bound`; says how long it took.
    pub fn run_until_done(
        &mut self,
        bound: Duration,
        what: &str,
        done: impl Fn(&Cluster) -> Result<(), String>,
    ) -> Duration {
        let begun = self.now;
        while self.failure.is_none() {
            let Err(missing) = done(self) else { break };
            if self.now.since(begun) >= bound {
                self.fail(format!("not within {bound:?}: {what}: {missing}"));
                break;
            }
            self.run_for(ms(250));
        }
        self.now.since(begun)
    }

    fn schedule_expiry(&mut self) {
        let next = self.etcd.next_expiry();
        if let Some(at) = next.filter(|&at| self.expiry.is_none_or(|known| at < known)) {
            self.expiry = Some(at);
            self.push(at, Ev::Expire);
        }
    }

    pub fn expire(&mut self) {
        self.expiry = None;
        let ended = self.etcd.expire(self.now);
        if !ended.is_empty() {
            note!(
                self,
                "etcd: lease {ended:?} ends, revision {}",
                self.etcd.revision()
            );
            self.changed();
        }
    }

    /// How long a request or an answer is on its way.
    pub fn latency(&mut self) -> Duration {
        let kind = self.rng.below(1000);
        if !self.settings.rough || kind < 970 {
            self.rng.millis(1, 5)
        } else if kind < 995 || !self.settings.lossy {
            self.rng.millis(50, 240)
        } else {
            self.rng.millis(500, 3_000)
        }
    }

    /// Sends a request of node `n`; it may be lost, or answered too late. Returns the call's number.
    pub fn send(&mut self, n: usize, call: Call) -> u64 {
        self.next_call += 1;
        let (id, inc) = (self.next_call, self.nodes[n].inc);
        let known = self.nodes[n].feed.known;
        self.nodes[n].feed.asked.insert(id, known);
        let delay = self.latency();
        let call = Box::new(call);
        self.after(delay, Ev::Reach { n, inc, id, call });
        self.after(self.settings.etcd_timeout, Ev::Timeout { n, inc, id });
        id
    }

    /// A request arrives at etcd.
    pub fn reach(&mut self, n: usize, inc: u32, id: u64, call: Call) {
        if self.nodes[n].cut {
            return;
        }
        if !self.etcd.up {
            if self.rng.chance(500) {
                // Connection refused: known soon.
                self.after(ms(1), Ev::Timeout { n, inc, id });
            }
            return;
        }
        let reply = match call {
            Call::Txn(txn, reason) => {
                let reply = self.txn(n, &txn);
                note!(
                    self,
                    "etcd: {} #{id} {reason:?} -> {}",
                    self.nodes[n].name(),
                    match &reply {
                        Ok(reply) => format!("{} {:?}", reply.succeeded, reply.revision),
                        Err(error) => format!("{error:?}"),
                    }
                );
                reply.map_or(Reply::Refused, Reply::Txn)
            }
            Call::Grant(ttl) => Reply::Granted(self.etcd.grant(self.now, ttl)),
            Call::Keepalive(lease) => Reply::Kept(self.etcd.keepalive(self.now, lease)),
            Call::Revoke(lease) => {
                self.etcd.revoke(lease);
                note!(self, "etcd: lease {lease:?} revoked");
                self.changed();
                Reply::Revoked
            }
            Call::Revision => Reply::Revision(self.etcd.revision()),
            Call::Range => {
                let range = self.etcd.range(schema::PREFIX);
                Reply::Range(range.revision, to_changes(&range.kvs))
            }
        };
        let delay = self.latency();
        let reply = Box::new(reply);
        self.after(delay, Ev::Answer { n, inc, id, reply });
    }

    /// A transaction of node `n`, checked against the table.
    pub fn txn(&mut self, n: usize, txn: &Txn) -> Result<TxnReply, LeaseNotFound> {
        let before = self.checker.rows_in(&self.etcd, txn);
        let revision = self.etcd.revision();
        let reply = self.etcd.txn(txn)?;
        if self.etcd.revision() != revision {
            for (vni, row) in before {
                self.check_transition(n, vni, &row);
            }
            self.changed();
        }
        Ok(reply)
    }

    /// The store has changed: every node that watches will hear of it.
    pub fn changed(&mut self) {
        self.checker.dirty = true;
        self.note_ranks();
        for n in 0..self.nodes.len() {
            self.tell_watch(n);
        }
    }

    pub fn own(&mut self, n: usize) -> Option<&mut super::worker::Own> {
        match &mut self.nodes[n].process {
            Process::Own(own) => Some(own),
            _ => None,
        }
    }
}

/// What the observer makes of keys.
pub fn to_changes(kvs: &[KeyValue]) -> Vec<Change> {
    let change = |kv: &KeyValue| {
        let key = Key::read(&kv.key).ok()?;
        let value = schema::read_value(&key, &kv.value).0;
        Some(Change {
            key,
            value: Some(value),
            lease: kv.lease,
            revision: kv.mod_revision,
        })
    };
    kvs.iter().filter_map(change).collect()
}
