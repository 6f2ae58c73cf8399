//! Watches all hosts and etcd at once, and says afterwards whether two gateways ever answered for one VNI.
//!
//! Hosts are sampled many times a second, twice in a row: who answers in both passes answered in between,
//! so that one instant is known at which all of them did. What etcd said at that instant is narrowed down
//! from both sides: whatever the watch had shown by then was in force or is past; whatever is newer than a
//! read that began later was not yet. The check is against every row in between, so it never accuses
//! without reason, and is exact wherever etcd stood still.

use super::node::{Node, Shown, VNIS, read_exposure};
use super::rows::{Row, Table};
use super::{eventually, put, then};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wmgwd::etcd::Client;
use wmgwd::model::types::Revision;

/// Below the prefix that is watched here, and not below the one that the daemons watch.
const MARKER: &[u8] = b"/wmgwd-sampler-ends";
const WATCHED: &[u8] = b"/wmgwd";
/// How long a node may take to notice that a stranger has written over its row: the lease of the tests.
const NOTICE: Duration = Duration::from_secs(4);

/// Which nodes answered, a bit each; by VNI.
type Masks = Vec<u8>;

struct Sample {
    /// Between the two passes.
    at: Instant,
    /// Who answered in both passes.
    both: Masks,
    /// Who answered in one of them.
    any: Masks,
}

/// A row and since when it was known here.
struct Seen {
    at: Instant,
    revision: Revision,
    row: Row,
}

type History = BTreeMap<u32, Vec<Seen>>;

/// Revisions that were read, and when the read began.
type Probes = Vec<(Instant, Revision)>;

/// Watches until it is told to stop.
pub struct Sampler {
    client: Client,
    names: Vec<String>,
    sampling: Arc<AtomicBool>,
    sampler: JoinHandle<Vec<Sample>>,
    watcher: JoinHandle<History>,
    prober: JoinHandle<Probes>,
}

/// What a [`Sampler`] saw.
pub struct Report {
    /// Moments at which a node answered that must not have, in words.
    pub offences: Vec<String>,
    /// Those of them at which two or more answered.
    pub doubles: Vec<String>,
    /// VNIs that had an owner and then neither owner nor successor, in words.
    pub vacated: Vec<String>,
    /// For each VNI that was ever served: the longest time that no node answered after that.
    pub gaps: BTreeMap<u32, Duration>,
    /// Every time that no node answered for a VNI, after it was served first.
    pub unserved: Vec<(u32, Instant, Instant)>,
    /// How many samples were taken.
    pub samples: usize,
    /// The longest time between two samples.
    pub blink: Duration,
}

impl Report {
    /// The longest time that any VNI was unserved.
    pub fn longest_gap(&self) -> Duration {
        self.gaps.values().max().copied().unwrap_or_default()
    }

    /// Never two, or the test fails. For tests that stop members of etcd: a leader that was stopped and goes on
    /// has leases ended that its successor has renewed since (seen with 3.4.23; etcd issue 15247), so that for a
    /// moment a node answers that etcd names no more.
    pub fn assert_never_two(&self) {
        let few = self.offences.len() - self.doubles.len();
        println!("{few} moments at which one answered whose lease etcd had ended before its time");
        assert!(self.samples > 0);
        assert!(self.doubles.is_empty(), "{}", self.doubles.join("\n"));
    }

    /// No offences, and no VNI unserved for a moment, or the test fails.
    pub fn assert_unbroken(&self) {
        self.assert_clean();
        assert_eq!(self.longest_gap(), Duration::ZERO, "{:?}", self.gaps);
    }

    /// No offences, or the test fails.
    pub fn assert_clean(&self) {
        println!(
            "{} samples, at most {:?} apart; longest unserved {:?}",
            self.samples,
            self.blink,
            self.longest_gap()
        );
        assert!(self.samples > 0);
        assert!(
            self.offences.is_empty(),
            "{} offences:\n{}",
            self.offences.len(),
            self.offences[..self.offences.len().min(20)].join("\n")
        );
    }
}

impl Sampler {
    /// Begins to watch `nodes`, whether or not they run.
    pub fn start(client: Client, nodes: &[&Node]) -> Sampler {
        assert!(nodes.len() <= 8, "a mask has 8 bits");
        let sampling = Arc::new(AtomicBool::new(true));
        let files: Vec<File> = nodes.iter().map(|node| node.host.open()).collect();
        // The watch starts from what is now, before the first sample.
        let (table, last) = first_table(&client);
        let watching = client.clone();
        let probing = client.clone();
        let (samples, probes) = (sampling.clone(), sampling.clone());
        Sampler {
            client,
            names: nodes.iter().map(|node| node.name.to_string()).collect(),
            watcher: thread::spawn(move || watch(&watching, table, last)),
            prober: thread::spawn(move || probe(&probing, &probes)),
            sampler: thread::spawn(move || sample(&files, &samples)),
            sampling,
        }
    }

    /// Stops watching and judges.
    pub fn finish(self) -> Report {
        self.finish_beside(&[])
    }

    /// As [`finish`](Self::finish), where `strangers` are nodes that make no promises: only what the others do
    /// is an offence.
    pub fn finish_beside(self, strangers: &[&Node]) -> Report {
        self.sampling.store(false, Ordering::Relaxed);
        let samples = self.sampler.join().unwrap();
        let probes = self.prober.join().unwrap();
        eventually("etcd takes the marker", || {
            self.client.txn(&then(vec![put(MARKER, b"")])).ok()
        });
        let history = self.watcher.join().unwrap();
        let strangers: Vec<&str> = strangers.iter().map(|node| node.name.as_str()).collect();
        judge(&self.names, &strangers, &samples, &history, &probes)
    }
}

fn first_table(client: &Client) -> (Table, Revision) {
    let reply = eventually("etcd answers", || client.range(WATCHED).ok());
    let mut table = Table::default();
    for kv in &reply.kvs {
        table.take(kv, false);
    }
    (table, reply.revision)
}

fn sample(files: &[File], sampling: &AtomicBool) -> Vec<Sample> {
    let pass = || -> Masks {
        let hosts: Vec<Vec<Shown>> = files.iter().map(|f| read_exposure(f, VNIS)).collect();
        (0..VNIS as usize)
            .map(|vni| {
                let bits = hosts.iter().enumerate();
                bits.fold(0, |mask, (i, host)| mask | (u8::from(host[vni].arp) << i))
            })
            .collect()
    };
    let mut samples = Vec::new();
    while sampling.load(Ordering::Relaxed) {
        let first = pass();
        let at = Instant::now();
        let second = pass();
        let join = |with: fn(u8, u8) -> u8| -> Masks {
            let pairs = first.iter().zip(&second);
            pairs.map(|(&a, &b)| with(a, b)).collect()
        };
        let (both, any) = (join(|a, b| a & b), join(|a, b| a | b));
        samples.push(Sample { at, both, any });
        thread::sleep(Duration::from_millis(3));
    }
    samples
}

/// Follows etcd until the marker shows.
fn watch(client: &Client, mut table: Table, mut last: Revision) -> History {
    let mut history = History::new();
    let now = Instant::now();
    for (&vni, row) in &table.rows {
        history.entry(vni).or_default().push(Seen {
            at: now,
            revision: last,
            row: row.clone(),
        });
    }
    loop {
        let Ok(watch) = client.watch(WATCHED, last.next(), Duration::from_secs(5)) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        for batch in watch {
            let Ok(batch) = batch else { break };
            let at = Instant::now();
            for events in batch
                .events
                .chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision)
            {
                let revision = events[0].kv.mod_revision;
                let before = table.rows.clone();
                for event in events {
                    table.take(&event.kv, event.deleted);
                    if event.kv.key == MARKER {
                        return history;
                    }
                }
                for (&vni, row) in &table.rows {
                    if before.get(&vni) != Some(row) {
                        let row = row.clone();
                        history
                            .entry(vni)
                            .or_default()
                            .push(Seen { at, revision, row });
                    }
                }
            }
            last = last.max(batch.revision);
        }
    }
}

fn probe(client: &Client, sampling: &AtomicBool) -> Probes {
    let mut probes = Vec::new();
    while sampling.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if let Ok(newest) = client.newest(WATCHED) {
            probes.push((begun, newest.revision));
        }
        thread::sleep(Duration::from_millis(20));
    }
    probes
}

/// Whether a row lets `name` answer.
fn entitles(row: &Row, name: &str) -> bool {
    let kind: u8 = row.kind.parse().unwrap_or(0);
    (row.current == name && (1..=6).contains(&kind))
        || (row.next == name && (5..=10).contains(&kind))
}

/// Whether a row lets two nodes answer at the same time.
fn lets_both(row: &Row, one: &str, other: &str) -> bool {
    let pair = [row.current.as_str(), row.next.as_str()];
    ["5", "6"].contains(&row.kind.as_str()) && (pair == [one, other] || pair == [other, one])
}

/// Whether one of `strangers` wrote `after` over a row that it had not read, as the Go program's conditions let
/// it: a claim of a VNI without an owner, or a reset, although the node that `before` lets answer is still there. A
/// lease that ends takes a name away and leaves the type.
fn is_theft(before: &Row, after: &Row, strangers: &[&str]) -> bool {
    let served = [&before.current, &before.next]
        .into_iter()
        .any(|name| !name.is_empty() && entitles(before, name) && !entitles(after, name));
    let by_stranger = match after.kind.as_str() {
        "0" => !strangers.is_empty(),
        "10" => strangers.contains(&after.next.as_str()),
        _ => false,
    };
    served && by_stranger
}

/// Whether those of `answering` that promise something keep it under one of the rows `possible`.
fn is_allowed(answering: &[&str], strangers: &[&str], possible: &[&Row]) -> bool {
    let bound = answering.iter().filter(|name| !strangers.contains(name));
    match bound.collect::<Vec<_>>()[..] {
        [] => true,
        // Also beside a stranger who answers.
        [one] => possible.iter().any(|row| entitles(row, one)),
        [one, other] => possible.iter().any(|row| lets_both(row, one, other)),
        _ => false,
    }
}

/// Where a VNI with an owner came to have neither owner nor successor.
fn vacated(history: &History) -> Vec<String> {
    let named = |row: &Row| !row.current.is_empty() || !row.next.is_empty();
    let lost = |rows: &[Seen]| {
        let owned = rows.iter().skip_while(|seen| seen.row.current.is_empty());
        let row = owned.map(|seen| &seen.row).find(|row| !named(row))?;
        Some(format!("{row:?}"))
    };
    let each = history.iter();
    each.filter_map(|(vni, rows)| Some(format!("vni={vni} {}", lost(rows)?)))
        .collect()
}

fn judge(
    names: &[String],
    strangers: &[&str],
    samples: &[Sample],
    history: &History,
    probes: &Probes,
) -> Report {
    let mut offences = Vec::new();
    let mut doubles = Vec::new();
    let mut unserved = Vec::new();
    let start = samples.first().map(|sample| sample.at);
    for vni in 1..=VNIS {
        let rows = history.get(&vni).map_or(&[][..], Vec::as_slice);
        let (mut known, mut probed) = (0, 0);
        let mut last_served: Option<Instant> = None;
        for sample in samples {
            while rows.get(known).is_some_and(|seen| seen.at <= sample.at) {
                known += 1;
            }
            while probes.get(probed).is_some_and(|&(at, _)| at < sample.at) {
                probed += 1;
            }
            let newest = probes.get(probed).map(|&(_, revision)| revision);
            // What strangers have just taken from a node, which cannot know yet.
            let stolen = rows[..known]
                .windows(2)
                .rev()
                .take_while(|pair| pair[1].at + NOTICE > sample.at)
                .filter(|pair| is_theft(&pair[0].row, &pair[1].row, strangers))
                .map(|pair| &pair[0].row);
            // The last row that was known, and those that may have been in force already.
            let possible: Vec<&Row> = rows[known.saturating_sub(1)..]
                .iter()
                .enumerate()
                .take_while(|(i, seen)| {
                    (*i == 0 && known > 0) || newest.is_none_or(|newest| seen.revision <= newest)
                })
                .map(|(_, seen)| &seen.row)
                .chain(stolen)
                .collect();
            let at = vni as usize - 1;
            let answering: Vec<&str> = (0..names.len())
                .filter(|i| sample.both[at] >> i & 1 == 1)
                .map(|i| names[i].as_str())
                .collect();
            let allowed = is_allowed(&answering, strangers, &possible);
            if !allowed {
                let after = sample.at - start.unwrap_or(sample.at);
                let offence = format!(
                    "{after:?} vni={vni}: {answering:?} answer while etcd has {possible:?}"
                );
                if answering.len() > 1 {
                    doubles.push(offence.clone());
                }
                offences.push(offence);
            }
            if sample.any[at] != 0 {
                if let Some(since) = last_served {
                    unserved.push((vni, since, sample.at));
                }
                last_served = Some(sample.at);
            }
        }
        if let Some((since, end)) = last_served.zip(samples.last().map(|sample| sample.at)) {
            unserved.push((vni, since, end));
        }
    }
    let blink = samples
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .max()
        .unwrap_or_default();
    // Two samples in a row that are served have no gap between them.
    let mut gaps: BTreeMap<u32, Duration> = BTreeMap::new();
    unserved.retain(|&(vni, since, until)| {
        let gap = until - since;
        let longest = gaps.entry(vni).or_default();
        let is_gap = is_unserved_between(samples, vni, since, until);
        if is_gap {
            *longest = (*longest).max(gap);
        }
        is_gap
    });
    Report {
        offences,
        doubles,
        vacated: vacated(history),
        gaps,
        unserved,
        samples: samples.len(),
        blink,
    }
}

fn is_unserved_between(samples: &[Sample], vni: u32, since: Instant, until: Instant) -> bool {
    let first = samples.partition_point(|sample| sample.at <= since);
    samples[first..]
        .iter()
        .take_while(|sample| sample.at <= until)
        .any(|sample| sample.any[vni as usize - 1] == 0)
}
