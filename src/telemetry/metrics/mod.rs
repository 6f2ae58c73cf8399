//! What a running daemon counts, and how it is asked for that.
//!
//! Every thread bumps its own numbers in [`Metrics`], which are atomics; only the worker's are published as a
//! whole, under a lock that is held for as long as it takes to copy them. `text` writes the numbers down for
//! Prometheus (pure), `http` reads requests (pure), [`server`] answers them on a thread of its own, so that
//! no client of the metrics can delay the threads that serve VNIs.

pub(crate) mod http;
pub mod server;
mod text;

use crate::model::fitness::{Fitness, Sign};
use crate::model::frr::Health;
use crate::model::types::{Lease, Revision, Time};
use crate::telemetry::counters::Summary;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The calls to etcd that are told apart, by their paths; the last is for any other.
const ETCD_CALLS: [(&str, &str); 8] = [
    ("/v3/kv/range", "range"),
    ("/v3/kv/txn", "txn"),
    ("/v3/lease/grant", "lease_grant"),
    ("/v3/lease/keepalive", "lease_keepalive"),
    ("/v3/lease/revoke", "lease_revoke"),
    ("/v3/watch", "watch"),
    ("/v3/auth/authenticate", "authenticate"),
    ("", "other"),
];
/// Upper bounds of the times that a renewal of the lease takes, in milliseconds.
const RENEWAL_BOUNDS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000];
/// FRR's daemons.
const DAEMONS: [&str; 3] = ["bgpd", "ospfd", "zebra"];
/// A mirror that etcd has not confirmed for this long is not in sync: etcd is asked every 2 s.
const CONFIRMED: Duration = Duration::from_secs(10);

/// A number that only grows.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to a counter of nanoseconds.
    fn add_time(&self, took: Duration) {
        self.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What a counter of nanoseconds has.
    fn time(&self) -> Duration {
        Duration::from_nanos(self.get())
    }
}

/// A point in time, or none.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, at: Option<Time>) {
        let nanos = at.map_or(0, |at| at.as_duration().as_nanos().max(1));
        self.0
            .store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Time> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Time::since_boot(Duration::from_nanos(nanos))),
        }
    }
}

/// Attempts of one kind.
#[derive(Debug, Default)]
struct Attempts {
    tried: Counter,
    failed: Counter,
    nanos: Counter,
}

impl Attempts {
    fn add(&self, took: Duration, failed: bool) {
        self.tried.add(1);
        self.failed.add(u64::from(failed));
        self.nanos.add_time(took);
    }

    fn took(&self) -> Duration {
        self.nanos.time()
    }
}

/// How long something took, by [`RENEWAL_BOUNDS`].
#[derive(Debug, Default)]
struct Durations {
    /// How many were not longer than each bound, and longer than the one before.
    counts: [Counter; RENEWAL_BOUNDS.len()],
    count: Counter,
    nanos: Counter,
}

impl Durations {
    fn add(&self, took: Duration) {
        let bound = |ms: &u64| took <= Duration::from_millis(*ms);
        if let Some(bucket) = RENEWAL_BOUNDS.iter().position(bound) {
            self.counts[bucket].add(1);
        }
        self.count.add(1);
        self.nanos.add_time(took);
    }
}

/// What the daemon put back after something else on the host had changed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// ARP of bridges.
    Arp,
    /// EVPN filter or OSPF costs in FRR.
    Frr,
}

impl Repair {
    const ALL: [Repair; 2] = [Repair::Arp, Repair::Frr];

    fn name(self) -> &'static str {
        match self {
            Repair::Arp => "arp",
            Repair::Frr => "frr",
        }
    }
}

/// The state of the node, as the worker knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The rows are known, and etcd has the node registered.
    pub in_sync: bool,
    /// It was told to go.
    pub leaving: bool,
    /// An operator drained it, through etcd.
    pub drained: bool,
    /// VNIs of its range that it has no bridge for.
    pub bridgeless: u32,
}

/// All the numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    summary: Mutex<(Summary, Standing)>,
    fitness: Mutex<Fitness>,
    turned: Moment,
    started: AtomicU64,
    lease_until: Moment,
    proved_until: Moment,
    /// The shortest that was left when the lease was renewed, since this was asked last.
    lowest_margin: Mutex<Option<Duration>>,
    was_adopted: AtomicBool,
    renewals: Durations,
    /// The endpoint of etcd that renewed the lease last.
    endpoint: Mutex<String>,
    heard_from_etcd: Moment,
    fenced_by_daemon: Counter,
    fenced_by_guard: Counter,
    guard_is_there: AtomicBool,
    gate_until: Moment,
    gate_holds: AtomicBool,
    /// The bridges that have IPv6 gateway addresses, and whether these are switched.
    ipv6_bridges: AtomicU64,
    ipv6_is_switched: AtomicBool,
    grants_refused: Counter,
    gates_lost: Counter,
    witnesses: AtomicU64,
    /// Of EVPN and OSPF, one more than there are; 0 if that is not known.
    neighbours: [AtomicI64; 2],
    proofs_lost: Counter,
    /// Of the epoch in place, in nanoseconds; 0 if it names no witness.
    window: AtomicU64,
    /// The shortest that the proof had left, and how late the guard woke up at most, since this was asked last.
    lowest_proof: Mutex<(Option<Duration>, Duration)>,
    beats_late: Counter,
    /// By the guard, as long as it has been there.
    beats_sent: Counter,
    beat_answers: Counter,
    guard_dropped: Counter,
    beats_answered: Counter,
    beats_refused: Counter,
    votes: Counter,
    evictions: Counter,
    etcd: [Attempts; ETCD_CALLS.len()],
    vtysh: [Attempts; DAEMONS.len()],
    frr_refused: Counter,
    repaired: [Counter; Repair::ALL.len()],
    announced: Counter,
    frr: [AtomicBool; DAEMONS.len()],
    seen: AtomicI64,
    polled: AtomicI64,
    polled_at: Moment,
    confirmed_at: Moment,
    notified: Attempts,
}

impl Metrics {
    fn summary(&self) -> MutexGuard<'_, (Summary, Standing)> {
        self.summary.lock().expect("no holder of this lock panics")
    }

    fn present_fitness(&self) -> Fitness {
        *self.fitness.lock().expect("no holder of this lock panics")
    }

    /// How well the node can forward, as it publishes it.
    pub fn fitness(&self, fitness: Fitness) {
        *self.fitness.lock().expect("no holder of this lock panics") = fitness;
    }

    /// So many EVPN sessions are established, and so many interfaces have a full OSPF adjacency.
    pub fn neighbours(&self, found: [Option<usize>; 2]) {
        for (kept, found) in self.neighbours.iter().zip(found) {
            let found = found.and_then(|found| i64::try_from(found).ok());
            kept.store(found.map_or(0, |found| found + 1), Ordering::Relaxed);
        }
    }

    /// The daemon started at `started_at`, in seconds since 1970 (UTC), with the lease of a run before or without.
    pub fn started(&self, started_at: u64, was_adopted: bool) {
        self.started.store(started_at, Ordering::Relaxed);
        self.was_adopted.store(was_adopted, Ordering::Relaxed);
    }

    /// The worker's loop has turned.
    pub fn turned(&self, now: Time) {
        self.turned.set(Some(now));
    }

    /// The worker's numbers have changed.
    pub fn publish(&self, summary: Summary, standing: Standing) {
        *self.summary() = (summary, standing);
    }

    /// At `now` the lease is another, or renewed; the node is fenced `margin` before it ends.
    pub fn lease(&self, now: Time, lease: Option<Lease>, margin: Duration) {
        if let Some(until) = self.proved_until.get() {
            let left = until.since(now);
            let mut lowest = self.lowest_margin();
            *lowest = Some(lowest.map_or(left, |lowest| lowest.min(left)));
        }
        self.lease_until.set(lease.map(|lease| lease.valid_until));
        self.proved_until
            .set(lease.map(|lease| lease.valid_until - margin));
    }

    fn lowest_margin(&self) -> MutexGuard<'_, Option<Duration>> {
        self.lowest_margin
            .lock()
            .expect("no holder of this lock panics")
    }

    /// The shortest that was left until the node is fenced, since this was asked last.
    fn take_lowest_margin(&self, now: Time) -> Duration {
        let left = self
            .proved_until
            .get()
            .map_or(Duration::ZERO, |until| until.since(now));
        self.lowest_margin()
            .take()
            .map_or(left, |lowest| lowest.min(left))
    }

    /// The lease was renewed by `endpoint`.
    pub fn renewed(&self, took: Duration, endpoint: String) {
        self.renewals.add(took);
        *self.endpoint() = endpoint;
    }

    fn endpoint(&self) -> MutexGuard<'_, String> {
        self.endpoint.lock().expect("no holder of this lock panics")
    }

    /// FRR did not take what it was told of so many VNIs.
    pub fn frr_refused(&self, vnis: usize) {
        self.frr_refused.add(vnis as u64);
    }

    /// So many VNIs were put back.
    pub fn repaired(&self, what: Repair, vnis: usize) {
        self.repaired[what as usize].add(vnis as u64);
    }

    /// The lease could not be proved any more.
    pub fn fenced(&self) {
        self.fenced_by_daemon.add(1);
    }

    /// The guard has fenced in the daemon's place.
    pub fn guard_fenced(&self) {
        self.fenced_by_guard.add(1);
    }

    /// There is a guard, or none.
    pub fn guard(&self, is_there: bool) {
        self.guard_is_there.store(is_there, Ordering::Relaxed);
    }

    /// The kernel holds the lease until then at most, or not at all.
    pub fn gate(&self, until: Option<Time>) {
        self.gate_until.set(until);
        // With witnesses it does so for less time than there is between two looks.
        self.gate_holds.store(until.is_some(), Ordering::Relaxed);
    }

    /// So many bridges have IPv6 gateway addresses, and these are switched, or not.
    pub fn ipv6(&self, bridges: usize, is_switched: bool) {
        self.ipv6_bridges.store(bridges as u64, Ordering::Relaxed);
        self.ipv6_is_switched.store(is_switched, Ordering::Relaxed);
    }

    /// So many attempts to have the kernel hold the lease were refused.
    pub fn grants_refused(&self, count: u64) {
        self.grants_refused.add(count);
    }

    /// Something else on this host removed the table of the kernel lease.
    pub fn gate_lost(&self) {
        self.gates_lost.add(1);
    }

    /// So many witnesses prove the node, beside its lease, and for so long after each beat.
    pub fn witnesses(&self, count: usize, window: Duration) {
        self.witnesses.store(count as u64, Ordering::Relaxed);
        let window = if count == 0 { Duration::ZERO } else { window };
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        self.window.store(nanos, Ordering::Relaxed);
    }

    fn window(&self) -> Duration {
        Duration::from_nanos(self.window.load(Ordering::Relaxed))
    }

    /// The guard has said how the proof is: how short it was, and how late the guard was.
    pub fn proof(&self, lowest: Option<Duration>, lateness: Duration) {
        let mut before = self.lowest_proof();
        before.0 = before.0.into_iter().chain(lowest).min();
        before.1 = before.1.max(lateness);
    }

    fn lowest_proof(&self) -> MutexGuard<'_, (Option<Duration>, Duration)> {
        self.lowest_proof
            .lock()
            .expect("no holder of this lock panics")
    }

    /// The shortest that the proof had left, if the guard has said so since this was asked last, and how late it was.
    fn take_lowest_proof(&self) -> (Option<Duration>, Duration) {
        std::mem::take(&mut *self.lowest_proof())
    }

    /// Too few witnesses proved the node while its lease held.
    pub fn proof_lost(&self) {
        self.proofs_lost.add(1);
    }

    /// The guard, as long as it has been there, woke up too late for so many beats.
    pub fn beats_were_late(&self, count: u64) {
        self.beats_late.0.store(count, Ordering::Relaxed);
    }

    /// The guard, as long as it has been there, has sent so many beats and trials and received so many `answers`; the
    /// kernel `dropped` so many datagrams that it did not read in time.
    pub fn guard_traffic(&self, sent: u64, answers: u64, dropped: u64) {
        for (counter, count) in [
            (&self.beats_sent, sent),
            (&self.beat_answers, answers),
            (&self.guard_dropped, dropped),
        ] {
            counter.0.store(count, Ordering::Relaxed);
        }
    }

    /// A datagram came; it was one to answer, or not.
    pub fn beat_received(&self, is_answered: bool) {
        match is_answered {
            true => self.beats_answered.add(1),
            false => self.beats_refused.add(1),
        }
    }

    /// This node voted against another.
    pub fn voted(&self) {
        self.votes.add(1);
    }

    /// This node was evicted.
    pub fn evicted(&self) {
        self.evictions.add(1);
    }

    /// One request to one of etcd's endpoints that was sent at `begun`, by the path of the call.
    pub fn etcd_request(&self, call: &str, begun: Time, took: Duration, failed: bool) {
        if !failed {
            self.heard_from_etcd.set(Some(begun));
        }
        let at = ETCD_CALLS.iter().position(|(path, _)| *path == call);
        self.etcd[at.unwrap_or(ETCD_CALLS.len() - 1)].add(took, failed);
    }

    /// One run of vtysh, by the name of FRR's daemon.
    pub fn vtysh_run(&self, daemon: &str, took: Duration, failed: bool) {
        if let Some(at) = DAEMONS.iter().position(|name| *name == daemon) {
            self.vtysh[at].add(took, failed);
        }
    }

    /// One run of the notify command.
    pub fn notified(&self, took: Duration, failed: bool) {
        self.notified.add(took, failed);
    }

    /// So many VNIs were announced by gratuitous ARP.
    pub fn announced(&self, vnis: usize) {
        self.announced.add(vnis as u64);
    }

    /// Which of FRR's daemons run.
    pub fn health(&self, health: &Health) {
        let up = [health.bgpd, health.ospfd, health.zebra].map(|start| start.is_some());
        for (is_up, up) in self.frr.iter().zip(up) {
            is_up.store(up, Ordering::Relaxed);
        }
    }

    /// The mirror holds everything up to `revision`.
    pub fn seen(&self, revision: Revision) {
        self.seen.store(revision.0, Ordering::Relaxed);
        self.confirm();
    }

    /// When asked at `asked`, etcd's newest change was that of `revision`.
    pub fn polled(&self, revision: Revision, asked: Time) {
        self.polled.store(revision.0, Ordering::Relaxed);
        self.polled_at.set(Some(asked));
        self.confirm();
    }

    /// How long ago etcd was asked when it answered last; `None` if it never did.
    pub fn silence(&self, now: Time) -> Option<Duration> {
        self.heard_from_etcd.get().map(|asked| now.since(asked))
    }

    /// Whether what is known of the rows is what etcd has: the node can prove its lease, and the mirror is confirmed.
    fn knows(&self, now: Time) -> bool {
        self.proved_until.get().is_some_and(|until| now < until)
            && self
                .confirmed_at
                .get()
                .is_some_and(|at| now.since(at) <= CONFIRMED)
    }

    /// What etcd had when it was asked last has arrived.
    fn confirm(&self) {
        if self.behind() == 0 {
            self.confirmed_at.set(self.polled_at.get());
        }
    }

    fn behind(&self) -> u64 {
        let (polled, seen) = (
            self.polled.load(Ordering::Relaxed),
            self.seen.load(Ordering::Relaxed),
        );
        u64::try_from(polled.saturating_sub(seen)).unwrap_or(0)
    }

    /// What keeps the daemon from being alive: its worker has not turned for longer than `patience`.
    fn ailment(&self, now: Time, patience: Duration) -> Option<String> {
        let still = now.since(self.turned.get()?);
        (still > patience).then(|| format!("worker: has not turned for {} s", still.as_secs()))
    }

    /// What keeps the node from serving, a line each.
    fn lacks(&self, now: Time) -> Vec<String> {
        let mut lacks = Vec::new();
        let standing = self.summary().1;
        if standing.leaving {
            lacks.push("node: leaving".to_owned());
        }
        if self.proved_until.get().is_none_or(|until| until <= now) {
            lacks.push("lease: cannot be proved".to_owned());
        }
        if !standing.in_sync {
            lacks
                .push("registration: etcd does not have this node, or was not read yet".to_owned());
        }
        match self.confirmed_at.get() {
            None => lacks.push("mirror: not confirmed yet".to_owned()),
            Some(at) if now.since(at) > CONFIRMED => lacks.push(format!(
                "mirror: not confirmed for {} s, {} revisions behind",
                now.since(at).as_secs(),
                self.behind()
            )),
            Some(_) => {}
        }
        for (name, up) in DAEMONS.iter().zip(&self.frr) {
            if !up.load(Ordering::Relaxed) {
                lacks.push(format!("frr: {name} does not run"));
            }
        }
        // (That a daemon does not run is named above.)
        let bad = self.present_fitness().bad;
        for sign in bad.iter().filter(|sign| *sign != Sign::Frr) {
            lacks.push(format!("fitness: {sign} is bad"));
        }
        lacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::LeaseId;

    fn at(seconds: u64) -> Time {
        Time::since_boot(Duration::from_secs(seconds))
    }

    /// Input: what a node needs, one after the other, and taken away. Output: exactly what is missing is named.
    #[test]
    fn a_node_is_ready_when_nothing_is_missing() {
        let metrics = Metrics::default();
        assert_eq!(metrics.lacks(at(100)).len(), 6);
        let standing = Standing {
            in_sync: true,
            ..Standing::default()
        };
        metrics.publish(Summary::default(), standing);
        let lease = Lease {
            id: LeaseId(1),
            valid_until: at(105),
        };
        metrics.lease(at(100), Some(lease), Duration::from_secs(1));
        metrics.health(&Health {
            bgpd: Some(1),
            ospfd: Some(1),
            zebra: Some(1),
            ..Health::default()
        });
        metrics.seen(Revision(8));
        assert_eq!(metrics.lacks(at(100)), ["mirror: not confirmed yet"]);
        metrics.polled(Revision(8), at(99));
        assert!(metrics.lacks(at(100)).is_empty());
        assert_eq!(metrics.lacks(at(104)), ["lease: cannot be proved"]);
        metrics.health(&Health {
            bgpd: Some(1),
            ospfd: None,
            zebra: Some(1),
            ..Health::default()
        });
        assert_eq!(metrics.lacks(at(100)), ["frr: ospfd does not run"]);
    }

    /// Input: renewals with more and with less time left. Output: the least, once; then what is left.
    #[test]
    fn the_lowest_margin_counts_from_one_question_to_the_next() {
        let metrics = Metrics::default();
        assert_eq!(metrics.take_lowest_margin(at(100)), Duration::ZERO);
        let renew = |now: u64, until: u64| {
            let lease = Lease {
                id: LeaseId(1),
                valid_until: at(until),
            };
            metrics.lease(at(now), Some(lease), Duration::from_secs(1));
        };
        renew(100, 106);
        renew(103, 109);
        renew(104, 110);
        assert_eq!(metrics.take_lowest_margin(at(105)), Duration::from_secs(2));
        assert_eq!(metrics.take_lowest_margin(at(105)), Duration::from_secs(4));
        renew(120, 126);
        assert_eq!(metrics.take_lowest_margin(at(120)), Duration::ZERO);
    }

    /// Input: what the guard says of its proof and of how late it was, twice between two questions. Output: the worst,
    /// once.
    #[test]
    fn the_lowest_proof_counts_from_one_question_to_the_next() {
        let millis = Duration::from_millis;
        let metrics = Metrics::default();
        assert_eq!(metrics.take_lowest_proof(), (None, Duration::ZERO));
        metrics.proof(Some(millis(200)), millis(3));
        metrics.proof(Some(millis(250)), millis(1));
        metrics.proof(None, Duration::ZERO);
        assert_eq!(metrics.take_lowest_proof(), (Some(millis(200)), millis(3)));
        assert_eq!(metrics.take_lowest_proof(), (None, Duration::ZERO));
    }

    /// Input: a watch that lags, and catches up later. Output: it is in sync as of the moment etcd was asked.
    #[test]
    fn a_mirror_is_as_fresh_as_what_has_arrived() {
        let metrics = Metrics::default();
        metrics.seen(Revision(5));
        metrics.polled(Revision(5), at(10));
        metrics.polled(Revision(9), at(12));
        assert_eq!(metrics.behind(), 4);
        assert_eq!(metrics.confirmed_at.get(), Some(at(10)));
        metrics.seen(Revision(9));
        assert_eq!(metrics.behind(), 0);
        assert_eq!(metrics.confirmed_at.get(), Some(at(12)));
    }

    #[test]
    fn a_worker_that_stands_still_is_no_life() {
        let metrics = Metrics::default();
        let patience = Duration::from_secs(10);
        assert_eq!(metrics.ailment(at(100), patience), None, "it has not begun");
        metrics.turned(at(100));
        assert_eq!(metrics.ailment(at(110), patience), None);
        let ailment = metrics.ailment(at(111), patience);
        assert_eq!(ailment, Some("worker: has not turned for 11 s".into()));
    }
}
