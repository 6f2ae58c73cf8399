//! What happens to clusters, and what must come of it.
#![allow(clippy::unwrap_used)]

use super::cluster::{Cluster, Weather, ms};
use crate::model::types::LeaseId;
use crate::witness::MOST;
use std::time::Duration;

const WINDOW: Duration = Duration::from_millis(500);

/// How many seeds to try: `WMGWD_WITNESS_SEEDS`, or so many.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("WMGWD_WITNESS_SEEDS").ok();
    let count = wanted.and_then(|text| text.parse().ok()).unwrap_or(usual);
    1..count + 1
}

fn show(cluster: &Cluster, why: &str) -> String {
    let from = cluster.trace.len().saturating_sub(60);
    format!("{why}\n{}", cluster.trace[from..].join("\n"))
}

fn lease_of(cluster: &Cluster, node: usize) -> Option<LeaseId> {
    cluster.nodes[node]
        .daemon
        .as_ref()?
        .lease
        .map(|lease| lease.id)
}

/// Whether every node that is on has proof, with as many witnesses as there can be.
fn is_settled(cluster: &Cluster) -> bool {
    let on: Vec<usize> = (0..cluster.nodes.len())
        .filter(|at| cluster.nodes[*at].is_on)
        .collect();
    let wanted = MOST.min(on.len() - 1);
    on.iter().all(|&at| {
        let daemon = cluster.nodes[at].daemon.as_ref();
        let epoch = daemon.and_then(|it| it.epoch());
        let names = epoch.map_or(0, |epoch| epoch.witnesses.len());
        cluster.has_proof(at) && names == wanted
    })
}

fn settle(cluster: &mut Cluster, within: Duration) -> Result<(), String> {
    match cluster.run(within, is_settled)? {
        true => Ok(()),
        false => {
            let nodes: Vec<String> = (0..cluster.nodes.len())
                .map(|at| cluster.describe(at))
                .collect();
            Err(show(
                cluster,
                &format!("it does not settle: {}", nodes.join("; ")),
            ))
        }
    }
}

/// Runs a scenario for many seeds; reports all that fail.
fn each_seed(usual: u64, scenario: impl Fn(u64) -> Result<(), String>) {
    let only = std::env::var("WMGWD_WITNESS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(seed) = only {
        return scenario(seed).unwrap();
    }
    let mut failed = Vec::new();
    let mut first = None;
    for seed in seeds(usual) {
        if let Err(why) = scenario(seed) {
            failed.push(seed);
            first.get_or_insert(why);
        }
    }
    println!(
        "noticed by {} of {} seeds",
        failed.len(),
        seeds(usual).end - 1
    );
    assert!(
        failed.is_empty(),
        "{} seeds failed: {failed:?}\n{}",
        failed.len(),
        first.unwrap()
    );
}

/// Input: clusters of two to five nodes in fair weather, clocks up to 1 % apart. Output: each names as many
/// witnesses as there can be within seconds; for a minute no proof is lost, no node
/// is evicted and nothing is written.
#[test]
fn in_fair_weather_nothing_happens() {
    each_seed(12, |seed| {
        let mut cluster = Cluster::new(seed, 2 + seed as usize % 4, WINDOW, Weather::FAIR);
        settle(&mut cluster, ms(10_000))?;
        cluster.proof_lost = 0;
        let revision = cluster.etcd.revision();
        cluster.run(ms(60_000), |_| false)?;
        let written = cluster.etcd.revision().0 - revision.0;
        match (cluster.proof_lost, cluster.evicted.len(), written) {
            (0, 0, 0) => Ok(()),
            other => Err(show(
                &cluster,
                &format!("lost proofs, evictions, writes: {other:?}"),
            )),
        }
    });
}

/// Input: a settled cluster; one node loses its power. Output: it is evicted about a window and a half later, its
/// lease goes at once, no other node is evicted or loses its proof.
#[test]
fn a_dead_node_is_evicted_soon() {
    let worst = std::cell::Cell::new(Duration::ZERO);
    let sum = std::cell::Cell::new(Duration::ZERO);
    each_seed(30, |seed| {
        let mut cluster = Cluster::new(seed, 2 + seed as usize % 4, WINDOW, Weather::FAIR);
        settle(&mut cluster, ms(10_000))?;
        let wait = cluster.rng.millis(0, 3_000);
        cluster.run(wait, |_| false)?;
        let lease = lease_of(&cluster, 0).unwrap();
        cluster.proof_lost = 0;
        cluster.power_off(0);
        let begun = cluster.now;
        cluster.run(ms(800), |it| !it.etcd.lease_exists(lease))?;
        let took = cluster.now.since(begun);
        worst.set(worst.get().max(took));
        sum.set(sum.get() + took);
        if cluster.etcd.lease_exists(lease) || !cluster.evicted.contains_key(&lease) {
            return Err(show(&cluster, &format!("not evicted after {took:?}")));
        }
        cluster.run(ms(20_000), |_| false)?;
        match (cluster.proof_lost, cluster.evicted.len()) {
            (0, 1) => Ok(()),
            other => Err(show(
                &cluster,
                &format!("lost proofs, evictions: {other:?}"),
            )),
        }
    });
    let count = u32::try_from(seeds(30).count()).unwrap();
    println!("worst {:?}, mean {:?}", worst.get(), sum.get() / count);
}

/// Input: a cluster in bad weather that costs no node its life: datagrams lost, late and doubled, watches that are
/// two seconds late, daemons that are killed and come back. Output: no node is evicted.
#[test]
fn a_living_node_is_not_evicted() {
    each_seed(12, |seed| {
        let weather = Weather {
            loss: 100,
            doubled: 100,
            delay: 20,
            late: 5,
            etcd_delay: 30,
            watch: 2_000,
            ..Weather::FAIR
        };
        let mut cluster = Cluster::new(seed, 3 + seed as usize % 3, WINDOW, weather);
        cluster.run(ms(8_000), |_| false)?;
        for _ in 0..10 {
            let node = cluster.rng.below(cluster.nodes.len() as u64) as usize;
            let back = cluster.rng.millis(20, 1_500);
            cluster.kill_daemon(node, back);
            let wait = cluster.rng.millis(2_000, 8_000);
            cluster.run(wait, |_| false)?;
        }
        match cluster.evicted.len() {
            0 => Ok(()),
            count => Err(show(&cluster, &format!("{count} evictions"))),
        }
    });
}

/// Input: three or more settled nodes; one loses its power, and etcd its leader with it, for up to two seconds.
/// Output: the others keep their proof all the time, and the dead one is evicted soon after there is a leader.
#[test]
fn while_etcd_has_no_leader_the_living_keep_their_proof() {
    each_seed(20, |seed| {
        let mut cluster = Cluster::new(seed, 3 + seed as usize % 3, WINDOW, Weather::FAIR);
        settle(&mut cluster, ms(10_000))?;
        let wait = cluster.rng.millis(0, 3_000);
        cluster.run(wait, |_| false)?;
        let lease = lease_of(&cluster, 0).unwrap();
        cluster.proof_lost = 0;
        cluster.power_off(0);
        cluster.etcd.up = false;
        let leaderless = cluster.rng.millis(300, 2_000);
        cluster.run(leaderless, |_| false)?;
        cluster.etcd.up = true;
        let now = cluster.now;
        cluster.etcd.change_leader(now);
        cluster.run(ms(1_500), |it| !it.etcd.lease_exists(lease))?;
        let is_alive = cluster.etcd.lease_exists(lease);
        cluster.run(ms(10_000), |_| false)?;
        match (is_alive, cluster.proof_lost, cluster.evicted.len()) {
            (false, 0, 1) => Ok(()),
            other => Err(show(
                &cluster,
                &format!("lease, lost proofs, evictions: {other:?}"),
            )),
        }
    });
}

/// A settled cluster of three, all of which name both others, a moment later. Node 0 is X.
fn three(seed: u64) -> Result<Cluster, String> {
    let weather = Weather {
        watch: 10,
        ..Weather::FAIR
    };
    let mut cluster = Cluster::new(seed, 3, WINDOW, weather);
    settle(&mut cluster, ms(10_000))?;
    let wait = cluster.rng.millis(0, 500);
    cluster.run(wait, |_| false)?;
    Ok(cluster)
}

/// Cuts the datagrams between two nodes, both ways.
fn part(cluster: &mut Cluster, one: usize, two: usize) {
    cluster.cut.extend([(one, two), (two, one)]);
}

/// Runs until a node is evicted.
fn run_until_evicted(cluster: &mut Cluster, within: Duration) -> Result<(), String> {
    let outcome = cluster.run(within, |it| !it.evicted.is_empty());
    match outcome.map_err(|why| show(cluster, &why))? {
        true => Ok(()),
        false => Err(show(cluster, "not evicted")),
    }
}

/// Input: X reaches neither etcd nor Q, which votes; P, which proves X, exits and revokes its lease. Output: X is
/// evicted, but not before the acknowledgements of P have worn out.
#[test]
fn a_witness_that_exits_proves_nothing_for_longer_than_others_wait() {
    each_seed(20, |seed| {
        let mut cluster = three(seed)?;
        cluster.apart.insert(0);
        part(&mut cluster, 0, 2);
        let wait = cluster.rng.millis(650, 1_500);
        cluster
            .run(wait, |_| false)
            .map_err(|why| show(&cluster, &why))?;
        if !cluster.has_proof(0) {
            return Err(show(&cluster, "no proof, though P acknowledges"));
        }
        cluster.leave(1);
        run_until_evicted(&mut cluster, ms(2_500))
    });
}

/// Input: P names Q alone. X and P reach neither etcd nor Q, but each other. Output: Q evicts P, waits, and evicts X;
/// P, which has no proof itself, has not proved X meanwhile.
#[test]
fn an_evicted_witness_proves_nobody() {
    let both = std::cell::Cell::new(0);
    each_seed(30, |seed| {
        let mut cluster = three(seed)?;
        // P does not hear X's answers any more, and names Q alone; then it hears them again.
        cluster.cut.insert((0, 1));
        let names_one = |it: &Cluster| {
            let epoch = it.nodes[1]
                .daemon
                .as_ref()
                .and_then(|daemon| daemon.epoch());
            epoch.is_some_and(|epoch| epoch.witnesses.len() == 1)
        };
        cluster.run(ms(3_000), names_one)?;
        cluster.cut.clear();
        let wait = cluster.rng.millis(300, 1_000);
        cluster.run(wait, |_| false)?;
        part(&mut cluster, 0, 2);
        part(&mut cluster, 1, 2);
        cluster.apart.extend([0, 1]);
        let outcome = cluster.run(ms(4_000), |it| it.evicted.len() > 1);
        both.set(both.get() + i32::from(outcome.map_err(|why| show(&cluster, &why))?));
        Ok(())
    });
    assert!(
        both.get() > 0,
        "both are evicted in {} seeds only",
        both.get()
    );
}

/// Input: X reaches neither etcd nor its only witness, whose vote takes its time; the datagrams get through again
/// before the vote is executed, or answered. Output: who has voted does not acknowledge any more.
#[test]
fn a_vote_that_is_under_way_counts() {
    each_seed(30, |seed| {
        let mut cluster = Cluster::new(seed, 2, WINDOW, Weather::FAIR);
        settle(&mut cluster, ms(10_000))?;
        cluster.apart.insert(0);
        part(&mut cluster, 0, 1);
        let wait = cluster.rng.millis(400, 545);
        cluster.run(wait, |_| false)?;
        cluster.weather.etcd_late = 1_000;
        let wait = cluster.rng.millis(20, 800);
        cluster.run(wait, |_| false)?;
        cluster.cut.clear();
        let outcome = cluster.run(ms(3_500), |_| false);
        outcome.map(drop).map_err(|why| show(&cluster, &why))
    });
}

/// Input: X reaches neither etcd nor its only witness, whose clock is faster. Output: it is evicted after its proof
/// has worn out by its own clock.
#[test]
fn clocks_may_differ() {
    each_seed(40, |seed| {
        let weather = Weather {
            late: 0,
            etcd_delay: 1,
            ..Weather::FAIR
        };
        let mut cluster = Cluster::new(seed, 2, ms(1_000), weather);
        settle(&mut cluster, ms(10_000))?;
        let wait = cluster.rng.millis(0, 500);
        cluster.run(wait, |_| false)?;
        cluster.apart.insert(0);
        part(&mut cluster, 0, 1);
        run_until_evicted(&mut cluster, ms(1_500))
    });
}

/// Input: two nodes that lose each other's datagrams, while etcd is slow or answers nothing for a while. Output: at
/// most one of them is evicted; the other has proof all the same, soon.
#[test]
fn of_two_that_lose_each_other_at_most_one_is_evicted() {
    let evictions = std::cell::Cell::new(0);
    each_seed(40, |seed| {
        let mut cluster = Cluster::new(seed, 2, WINDOW, Weather::FAIR);
        settle(&mut cluster, ms(10_000))?;
        cluster.cut.extend([(0, 1), (1, 0)]);
        cluster.weather.etcd_delay = *cluster.rng.pick(&[5, 400, 800]);
        cluster.weather.etcd_mute = *cluster.rng.pick(&[0, 500]);
        cluster.run(ms(4_000), |_| false)?;
        evictions.set(evictions.get() + cluster.evicted.len());
        if cluster.evicted.len() > 1 {
            return Err(show(&cluster, "both are evicted"));
        }
        cluster.weather = Weather::FAIR;
        let has_proof = |it: &Cluster| it.has_proof(0) && it.has_proof(1);
        match cluster.run(ms(10_000), has_proof)? {
            true => Ok(()),
            false => Err(show(&cluster, "no proof")),
        }
    });
    println!("{} evictions", evictions.get());
}

/// Input: clusters to which everything happens. Output: never what [`Cluster::check`] forbids; when it is over, every
/// node has proof and witnesses again.
#[test]
fn whatever_happens_at_most_one_has_proof() {
    each_seed(80, |seed| chaos(seed, false));
}

/// The same, where etcd ends leases that their holders have renewed. This holds as far as witnesses read of the end no
/// later than a claimer, within two margins: watches are on time here, and no daemon is stopped.
#[test]
fn at_most_one_serves_even_if_etcd_ends_leases_early() {
    each_seed(40, |seed| chaos(seed, true));
}

fn chaos(seed: u64, ends_early: bool) -> Result<(), String> {
    let mut rng = crate::gateway::sim::rng::Rng::new(seed ^ 0x5eed);
    let weather = Weather {
        loss: *rng.pick(&[0, 20, 200]),
        doubled: *rng.pick(&[0, 100]),
        delay: *rng.pick(&[2, 30, 400]),
        late: *rng.pick(&[2, 10, 60]),
        etcd_delay: *rng.pick(&[5, 50, 300]),
        etcd_loss: *rng.pick(&[0, 50]),
        etcd_late: *rng.pick(&[0, 100, 300]),
        etcd_mute: *rng.pick(&[0, 50, 200]),
        watch: *rng.pick(&[10, 300, 2_000]),
        drift: *rng.pick(&[0, 10_000]),
    };
    let weather = match ends_early {
        true => Weather {
            watch: 10,
            late: 10,
            ..weather
        },
        false => weather,
    };
    let window = *rng.pick(&[ms(200), ms(500), ms(1_000)]);
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 4, window, weather);
    cluster.ends_early = ends_early;
    cluster.say(|| format!("{weather:?}"));
    let outcome = storm(&mut cluster, &mut rng);
    outcome.map_err(|why| show(&cluster, &why))?;
    // The sun.
    cluster.weather = Weather::FAIR;
    cluster.cut.clear();
    cluster.apart.clear();
    cluster.etcd.up = true;
    for node in 0..cluster.nodes.len() {
        cluster.power_on(node);
        cluster.come_back(node);
    }
    cluster.say(|| "the sun".to_owned());
    settle(&mut cluster, ms(120_000))
}

fn storm(cluster: &mut Cluster, rng: &mut crate::gateway::sim::rng::Rng) -> Result<(), String> {
    let nodes = cluster.nodes.len() as u64;
    let mut leader_at = None;
    for _ in 0..rng.within(8, 25) {
        cluster.run(rng.millis(50, 3_000), |_| false)?;
        if leader_at.is_some_and(|at| cluster.now >= at) {
            leader_at = None;
            cluster.etcd.up = true;
            let now = cluster.now;
            cluster.etcd.change_leader(now);
        }
        let (one, two) = (rng.below(nodes) as usize, rng.below(nodes) as usize);
        let pause = rng.millis(50, 2_500);
        let until = cluster.now + pause;
        match rng.below(18) {
            0 => cluster.power_off(one),
            1 | 2 => cluster.power_on(one),
            3 | 4 => cluster.kill_daemon(one, rng.millis(20, 1_500)),
            5 => cluster.kill_guard(one),
            6 => {
                cluster.kill_guard(one);
                cluster.kill_daemon(one, rng.millis(20, 1_500));
            }
            7 if !cluster.ends_early => {
                cluster.say(|| format!("gw{one}: the daemon stops for {pause:?}"));
                cluster.nodes[one].daemon_paused = until;
            }
            8 => {
                cluster.say(|| format!("gw{one}: the guard stops for {pause:?}"));
                cluster.nodes[one].guard_paused = until;
            }
            9 if !cluster.ends_early => {
                cluster.say(|| format!("gw{one}: all stops for {pause:?}"));
                cluster.nodes[one].guard_paused = until;
                cluster.nodes[one].daemon_paused = until;
            }
            10 => {
                cluster.say(|| format!("gw{one} to gw{two}: cut"));
                cluster.cut.insert((one, two));
            }
            11 => {
                cluster.say(|| format!("gw{one}: cut from all"));
                for other in 0..nodes as usize {
                    cluster.cut.insert((one, other));
                    cluster.cut.insert((other, one));
                }
            }
            12 => {
                cluster.say(|| "no cuts".to_owned());
                cluster.cut.clear();
                cluster.apart.clear();
            }
            13 => {
                cluster.say(|| format!("gw{one}: apart from etcd"));
                cluster.apart.insert(one);
            }
            14 if leader_at.is_none() => {
                cluster.say(|| format!("etcd has no leader for {pause:?}"));
                cluster.etcd.up = false;
                leader_at = Some(until);
            }
            15 => cluster.leave(one),
            16 if cluster.ends_early => {
                // Of a node that has witnesses: one that has none relies on etcd, as ever.
                if let Some(lease) = cluster.witnessed(one).filter(|_| cluster.etcd.up) {
                    cluster.say(|| format!("etcd ends lease {lease} of gw{one}"));
                    cluster.etcd.revoke(lease);
                    cluster.etcd_changed();
                }
            }
            _ => {}
        }
    }
    Ok(())
}
