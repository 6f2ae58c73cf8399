//! Whole clusters under faults: real [`Gateway`](super::Gateway)s, a model of etcd and of the hosts, one
//! queue of events in virtual time. No threads, no sockets, no sleeps; everything follows from a seed.
//!
//! ```text
//!   faults ---> cluster (time, queue, network) <--- check (invariants after each step)
//!                  |            |
//!                node, dog     etcd         node: worker, lanes, inbox as in worker.rs; dog: lease
//!                  |                        watchdog, guard, watch, poll; go: a Go wmgwd
//!                host
//! ```
//!
//! `WMGWD_SIM_SEED=<n>` replays one seed and prints its story; `WMGWD_SIM_SEEDS=<n>` runs more of them,
//! from `WMGWD_SIM_FIRST` on.

mod check;
mod cluster;
mod dog;
pub(crate) mod etcd;
mod faults;
mod go;
mod host;
mod node;
pub(crate) mod rng;
mod scenarios;
mod script;
mod table;
mod tables;
mod worker;

use crate::model::types::Vni;
use cluster::{Cluster, ms};
use faults::{Fault, Story};
use rng::Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use tables::Family;

/// Clusters with Go nodes in them, and how often one of those took from others what it must not.
static WITH_GO: AtomicU64 = AtomicU64::new(0);
static HARMS: AtomicU64 = AtomicU64::new(0);

/// Runs the story of one seed.
fn tell(seed: u64, traced: bool) -> Cluster {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let story = match rng.below(10) {
        0..=4 => Story::Rough,
        5 => Story::Planned,
        6 => Story::Upgrade,
        7 => Story::Mixed,
        8 => Story::Unable,
        _ => Story::Calm,
    };
    let settings = faults::random_settings(&mut rng, story);
    let mut cluster = Cluster::new(seed, settings);
    if story != Story::Upgrade {
        // Every other cluster has some, every fourth only such.
        cluster.has_routes = |seed, n| match seed % 4 {
            0 => true,
            1 => n % 2 == 0,
            _ => false,
        };
    }
    cluster.trace = traced.then(Vec::new);
    if traced {
        cluster.write_note(format!("seed {seed} {story:?} {:?}", cluster.settings));
    }
    let nodes = rng.within(2, 5);
    // An upgrade begins with one program everywhere.
    let first = rng.chance(700);
    for i in 0..nodes {
        let go = match story {
            Story::Mixed => i == 0 || rng.chance(300),
            Story::Upgrade => first,
            Story::Rough | Story::Planned | Story::Unable | Story::Calm => false,
        };
        cluster.add(&format!("gw{}", i + 1), go);
        cluster.run_for(rng.millis(0, 1_000));
    }
    cluster.strike(Fault::Supervise);
    cluster.plan_table_faults(story);
    let with_go = matches!(story, Story::Mixed | Story::Upgrade);
    let bound = faults::bound(&cluster.settings, with_go);
    if rng.chance(700) || matches!(story, Story::Planned | Story::Upgrade) {
        cluster.run_until_done(bound, "start", Cluster::converged);
    }
    if story == Story::Planned {
        plan(&mut cluster, &mut rng);
    } else if story == Story::Upgrade {
        upgrade(&mut cluster, bound, rng.chance(500));
    } else if story == Story::Calm {
        calm(&mut cluster, &mut rng);
        cluster.heal_all();
    } else if story == Story::Unable {
        unable(&mut cluster, &mut rng);
        cluster.heal_all();
    } else {
        let faults = rng.within(1, 12);
        for _ in 0..faults {
            cluster.run_for(rng.millis(0, 15_000));
            cluster.random_fault();
            if rng.chance(300) {
                cluster.random_fault();
            }
        }
        cluster.run_for(rng.millis(0, 20_000));
        cluster.heal_all();
    }
    // Ends of faults that were still to come belong to the faults.
    cluster.run_for(ms(45_000));
    cluster.spares_tables = true;
    cluster.heal_all();
    cluster.run_until_done(bound, "rest after the last fault", Cluster::settled);
    // A node that failed is passed over for a while, and then gets its VNIs back.
    let held_off = ms(310_000) + bound;
    cluster.run_until_done(held_off, "all that can serve", |cluster| {
        cluster.told_truly()?;
        cluster.settled()
    });
    if with_go {
        WITH_GO.fetch_add(1, Ordering::Relaxed);
        HARMS.fetch_add(cluster.checker.go_harms, Ordering::Relaxed);
    } else {
        cluster.check_rest();
    }
    cluster
}

/// Nodes join and drain, one at a time or several; one node is always left.
fn plan(cluster: &mut Cluster, rng: &mut Rng) {
    cluster.checker.available = true;
    for _ in 0..rng.within(1, 6) {
        // Keepalives have caught up with one outage before the next.
        cluster.run_for(rng.millis(4_000, 30_000));
        let ring = cluster.ring();
        let live: Vec<usize> = (0..cluster.nodes.len())
            .filter(|&n| ring.has(cluster.nodes[n].name()) && !cluster.nodes[n].drained)
            .collect();
        let gone = (0..cluster.nodes.len()).find(|&n| !cluster.nodes[n].runs());
        // An outage that no lease can end in: a keepalive may have been due just then.
        let short = cluster.settings.ttl * 3 / 10;
        let (n, outage) = (*rng.pick(&live), rng.millis(10, short.as_millis() as u64));
        match (rng.below(10), gone) {
            (0, Some(n)) => cluster.strike(Fault::Start(n)),
            (0 | 1, _) if cluster.nodes.len() < 7 => cluster.strike(Fault::Join(false)),
            (2, _) => cluster.strike(Fault::LeaderChange),
            // (Calls that are lost besides would make it longer.)
            (3 | 4, _) if cluster.settings.rough => {}
            (3, _) => {
                cluster.strike(Fault::EtcdDown);
                cluster.schedule(outage, Fault::EtcdUp);
            }
            (4, _) => {
                cluster.strike(Fault::Cut(n));
                cluster.schedule(outage, Fault::Heal(n));
            }
            (5, _) => {
                cluster.strike(Fault::HangWatch(n, true));
                cluster.schedule(outage * 5, Fault::HangWatch(n, false));
                cluster.strike(Fault::Compact);
            }
            (6, _) => {
                cluster.strike(Fault::Slow(n, true));
                cluster.schedule(outage * 5, Fault::Slow(n, false));
            }
            (7, _) if live.len() > 1 => {
                cluster.strike(Fault::TakeOut(n));
                // Sooner than all has moved, or later, or not before the cluster is at rest.
                if rng.chance(700) {
                    cluster.schedule(rng.millis(100, 60_000), Fault::BringBack(n));
                }
            }
            _ if live.len() > 1 => cluster.strike(Fault::Drain(*rng.pick(&live))),
            _ => {}
        }
    }
    let bound = faults::bound(&cluster.settings, false);
    cluster.run_until_done(bound, "rest after planned moves", Cluster::settled);
}

/// Leases end, and other programs change what wmgwd has set.
fn calm(cluster: &mut Cluster, rng: &mut Rng) {
    for _ in 0..rng.within(1, 12) {
        cluster.run_for(rng.millis(0, 15_000));
        let n = rng.below(cluster.nodes.len() as u64) as usize;
        let vnis: Vec<Vni> = cluster.vnis().collect();
        let vni = *rng.pick(&vnis);
        let lasts = rng.millis(50, 40_000);
        match rng.below(8) {
            0..=4 => cluster.random_change(n, vni, lasts),
            5 => {
                cluster.strike(Fault::Crash(n));
                cluster.schedule(lasts, Fault::Start(n));
            }
            6 => cluster.strike(Fault::EndLease(n)),
            _ => {
                cluster.strike(Fault::Drain(n));
                cluster.schedule(lasts, Fault::Start(n));
            }
        }
    }
    cluster.run_for(rng.millis(0, 40_000));
}

/// What nodes cannot do they cannot for the whole story; others die, drain and come back meanwhile.
fn unable(cluster: &mut Cluster, rng: &mut Rng) {
    for _ in 0..rng.within(1, 6) {
        cluster.random_inability();
        cluster.run_for(rng.millis(0, 30_000));
        let n = rng.below(cluster.nodes.len() as u64) as usize;
        let lasts = rng.millis(1_000, 120_000);
        match rng.below(4) {
            0 => cluster.strike(Fault::EndLease(n)),
            1 => {
                cluster.strike(Fault::Drain(n));
                cluster.schedule(lasts, Fault::Start(n));
            }
            _ => {
                cluster.strike(Fault::Crash(n));
                cluster.schedule(lasts, Fault::Start(n));
            }
        }
    }
    cluster.run_for(rng.millis(100_000, 400_000));
    let bound = faults::bound(&cluster.settings, false);
    let what = "what nodes say of their bridges";
    cluster.run_until_done(bound, what, Cluster::tell_what_is_absent);
}

/// Each gateway gets the other program, one after the other: drained, started, at rest. Perhaps back again.
fn upgrade(cluster: &mut Cluster, bound: std::time::Duration, back: bool) {
    cluster.checker.available = true;
    let count = cluster.nodes.len();
    for n in (0..count).chain(if back { 0..count } else { 0..0 }) {
        cluster.strike(Fault::Drain(n));
        let gone = |cluster: &Cluster| match cluster.nodes[n].runs() {
            true => Err(format!("gateway {n} has not drained")),
            false => Ok(()),
        };
        cluster.run_until_done(bound, "drain in an upgrade", gone);
        // Until etcd has heard of its end.
        cluster.run_for(ms(1_000));
        cluster.run_until_done(bound, "rest without it", Cluster::converged);
        let node = &mut cluster.nodes[n];
        node.go = !node.go;
        if node.go {
            // As contrib/upgrading.md says: nothing would switch what it keeps silent.
            node.host.tables.delete(Family::Ip6);
        }
        cluster.strike(Fault::Start(n));
        cluster.run_until_done(bound, "rest with it", Cluster::converged);
    }
}

impl Cluster {
    /// Converged, and every node that was to leave has left.
    fn settled(&self) -> Result<(), String> {
        self.converged()?;
        // A Go node waits for ever until another node takes its VNIs.
        let may_stay = |node: &node::Node| node.go && !self.another_stays();
        let left_behind = |node: &&node::Node| node.drained && node.runs() && !may_stay(node);
        match self.nodes.iter().find(left_behind) {
            Some(node) => Err(format!("{} has not left", node.name())),
            None => Ok(()),
        }
    }
}

/// Prints the seed if the code under test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation of WMGWD_SIM_SEED={} failed", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The failure of a seed, if it has one.
fn try_seed(seed: u64) -> Option<String> {
    let _seed = Seed(seed);
    tell(seed, false).failure
}

#[test]
fn clusters_survive_faults_from_seeds() {
    if let Some(seed) = number("WMGWD_SIM_SEED") {
        let cluster = tell(seed, true);
        for line in cluster.trace.iter().flatten() {
            println!("{line}");
        }
        assert_eq!(cluster.failure, None, "seed {seed}");
        return;
    }
    let first = number("WMGWD_SIM_FIRST").unwrap_or(1);
    let seeds = first..first + number("WMGWD_SIM_SEEDS").unwrap_or(3_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = |thread: usize| {
        let mine = seeds.clone().skip(thread).step_by(threads);
        let failing = mine.filter_map(|seed| Some((seed, try_seed(seed)?)));
        failing.take(10).collect::<Vec<(u64, String)>>()
    };
    let mut failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let share = &share;
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || share(thread)))
            .collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended
            .flat_map(|found| found.expect("no seed panics"))
            .collect()
    });
    failures.sort();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} clusters with Go nodes, which wrote over others {} times",
        of(&WITH_GO),
        of(&HARMS)
    );
    let Some((seed, _)) = failures.first() else {
        return;
    };
    let story = tell(*seed, true).trace.unwrap_or_default();
    for line in &story[story.len().saturating_sub(60)..] {
        eprintln!("{line}");
    }
    for (seed, failure) in &failures {
        eprintln!("WMGWD_SIM_SEED={seed} {failure}");
    }
    panic!(
        "{} seeds failed; the last lines of the first are above",
        failures.len()
    );
}
