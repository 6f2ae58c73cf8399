//! Three gateways on three etcd members, and faults by lot.
//!
//! `WMGWD_CHAOS_SEED` replays the lots of a run (not its timing), `WMGWD_CHAOS_SECONDS` sets its length.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::EtcdCluster;
use common::eventually;
use common::node::{Node, TTL, refs, scatter};
use common::proxy::Proxy;
use common::rows::until_settled;
use common::sampler::Sampler;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use wmgwd::etcd::Client;

/// How long a VNI may have no gateway while at most two of three gateways and one of three members are
/// ill: a lease that a new leader of etcd extends once, first of the owner, then of the ring owner that fell
/// ill before it could claim, and room for a busy machine.
const UNSERVED: Duration = Duration::from_secs(4 * TTL + 14);

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        scatter(self.0) % sides
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.roll(most - least))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    Killed,
    Stopped,
    GuardKilled,
    Drained,
    BlackHole,
    Cut,
    Slow,
    MemberKilled,
    MemberStopped,
}

const OF_GATEWAYS: [Fault; 7] = [
    Fault::Killed,
    Fault::Stopped,
    Fault::GuardKilled,
    Fault::Drained,
    Fault::BlackHole,
    Fault::Cut,
    Fault::Slow,
];

struct Ill {
    fault: Fault,
    /// Of the gateways or of the members.
    which: usize,
    until: Instant,
}

struct Scene {
    dice: Dice,
    begun: Instant,
    etcd: EtcdCluster,
    nodes: Vec<Node>,
    /// Three for each gateway, one to each member.
    proxies: Vec<Vec<Proxy>>,
    ill: Vec<Ill>,
    /// When the next member may fall ill: each time can extend all leases.
    member_from: Instant,
    counts: BTreeMap<String, usize>,
}

impl Scene {
    fn start(seed: u64) -> Scene {
        let etcd = EtcdCluster::start(3);
        let mut nodes = Vec::new();
        let mut proxies = Vec::new();
        for number in 0..3 {
            let own: Vec<Proxy> = (0..3)
                .map(|i| Proxy::start(common::loopback(etcd.port((number + i) % 3))))
                .collect();
            let urls: Vec<String> = own.iter().map(|p| format!("http://{}", p.addr())).collect();
            let mut node = Node::new(number as u64 + 1, urls.join(",")).with("--drain-timeout", 5);
            node.start();
            nodes.push(node);
            proxies.push(own);
        }
        Scene {
            dice: Dice(seed << 20),
            begun: Instant::now(),
            etcd,
            nodes,
            proxies,
            ill: Vec::new(),
            member_from: Instant::now(),
            counts: BTreeMap::new(),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.etcd.endpoints(), Duration::from_secs(1))
    }

    fn is_of_member(fault: Fault) -> bool {
        matches!(fault, Fault::MemberKilled | Fault::MemberStopped)
    }

    /// Perhaps something new falls ill.
    fn strike(&mut self) {
        let now = Instant::now();
        let (members, gateways): (Vec<&Ill>, Vec<&Ill>) = self
            .ill
            .iter()
            .partition(|ill| Self::is_of_member(ill.fault));
        let (fault, which) =
            if members.is_empty() && now >= self.member_from && self.dice.roll(4) == 0 {
                self.member_from = now + Duration::from_secs(12);
                let faults = [Fault::MemberKilled, Fault::MemberStopped];
                (
                    faults[self.dice.roll(2) as usize],
                    self.dice.roll(3) as usize,
                )
            } else {
                let which = self.dice.roll(3) as usize;
                if gateways.len() >= 2 || gateways.iter().any(|ill| ill.which == which) {
                    return;
                }
                (OF_GATEWAYS[self.dice.roll(7) as usize], which)
            };
        let until = now
            + match self.dice.roll(2) {
                0 => self.dice.millis(100, 1500),
                _ => self.dice.millis(1500, 9000),
            };
        println!(
            "{:>9.3?} {fault:?} {which} for {:?}",
            self.begun.elapsed(),
            until - now
        );
        *self.counts.entry(format!("{fault:?}")).or_default() += 1;
        self.inflict(fault, which);
        self.ill.push(Ill {
            fault,
            which,
            until,
        });
    }

    fn inflict(&mut self, fault: Fault, which: usize) {
        match fault {
            Fault::Killed => self.nodes[which].kill9(),
            Fault::Stopped => self.nodes[which].stop(),
            Fault::GuardKilled => self.nodes[which].kill_guard(),
            Fault::Drained => self.nodes[which].term(),
            Fault::BlackHole => self.proxies[which].iter().for_each(Proxy::blackhole),
            Fault::Cut => self.proxies[which].iter().for_each(Proxy::cut),
            Fault::Slow => {
                let delay = self.dice.millis(20, 120);
                self.proxies[which]
                    .iter()
                    .for_each(|proxy| proxy.delay(delay));
            }
            Fault::MemberKilled => self.etcd.kill(which),
            Fault::MemberStopped => self.etcd.stop(which),
        }
    }

    /// Ends what is due; with `all`, everything.
    fn heal(&mut self, all: bool) {
        let now = Instant::now();
        let ill = std::mem::take(&mut self.ill);
        let (due, rest) = ill.into_iter().partition(|ill| all || ill.until <= now);
        self.ill = rest;
        for Ill {
            fault,
            which,
            until,
        } in due
        {
            let node = &mut self.nodes[which];
            match fault {
                Fault::Killed => node.start(),
                Fault::Stopped => node.cont(),
                // A daemon without guard must not die too: that is promised to systemd, not here.
                Fault::GuardKilled if node.guard_pids().len() != 1 => {
                    self.ill.push(Ill {
                        fault,
                        which,
                        until,
                    });
                }
                Fault::Drained => match node.has_ended() {
                    Some(status) => {
                        // One that had just been started may not have blocked the signal yet.
                        let by_signal = status.signal() == Some(Signal::SIGTERM as i32);
                        assert!(status.success() || by_signal, "{} {status:?}", node.name);
                        node.start();
                    }
                    None => self.ill.push(Ill {
                        fault,
                        which,
                        until,
                    }),
                },
                Fault::BlackHole => {
                    self.proxies[which].iter().for_each(Proxy::pass);
                    if self.dice.roll(2) == 0 {
                        self.proxies[which].iter().for_each(Proxy::cut);
                    }
                }
                Fault::Slow => self.proxies[which].iter().for_each(Proxy::pass),
                Fault::MemberKilled => self.etcd.spawn(which),
                Fault::MemberStopped => self.etcd.cont(which),
                Fault::GuardKilled | Fault::Cut => {}
            }
        }
    }

    /// As systemd does: a daemon that gives up is started again. It may only give up for its name's sake.
    fn supervise(&mut self) {
        for (which, node) in self.nodes.iter_mut().enumerate() {
            let expected = self
                .ill
                .iter()
                .any(|ill| ill.which == which && ill.fault == Fault::Drained);
            if expected || !node.is_started() {
                continue;
            }
            if let Some(status) = node.has_ended() {
                let log = node.log();
                let last = log.lines().last().unwrap_or_default();
                assert_eq!(status.code(), Some(1), "{} ended: {last}", node.name);
                println!("{:>9.3?} {} ended: {last}", self.begun.elapsed(), node.name);
                *self.counts.entry("GaveUp".to_owned()).or_default() += 1;
                node.start();
            }
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Input: faults by lot, at most two of three gateways and one of three members ill at a time. Output: at no
/// sampled moment two gateways answer for a VNI but where its row lets them, nor anybody whom its row does
/// not name; no VNI is unserved for longer than the bound; when the faults end, every VNI is at its ring
/// owner and shown exactly there, and no daemon has grown.
#[test]
fn chaos() {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = variable("WMGWD_CHAOS_SEED").unwrap_or(now.as_secs() % 1_000_000);
    let length = Duration::from_secs(variable("WMGWD_CHAOS_SECONDS").unwrap_or(40));
    println!(
        "WMGWD_CHAOS_SEED={seed} WMGWD_CHAOS_SECONDS={}",
        length.as_secs()
    );
    let mut scene = Scene::start(seed);
    let client = scene.client();
    until_settled(&client, &refs(&scene.nodes));
    let size = |node: &Node| (node.threads_and_descriptors(), node.memory());
    let before: Vec<_> = scene.nodes.iter().map(size).collect();
    let sampler = Sampler::start(client, &refs(&scene.nodes));

    scene.begun = Instant::now();
    while scene.begun.elapsed() < length {
        if scene.dice.roll(6) == 0 {
            scene.strike();
        }
        sleep(Duration::from_millis(100));
        scene.heal(false);
        scene.supervise();
    }
    println!("{:>9.3?} the faults end", scene.begun.elapsed());
    eventually("everybody is well", || {
        scene.heal(true);
        scene.supervise();
        scene.ill.is_empty().then_some(())
    });
    let nodes: Vec<&Node> = scene.nodes.iter().collect();
    let settled = until_settled(&scene.client(), &nodes);
    let report = sampler.finish();
    println!("faults: {:?}; settled after {settled:?}", scene.counts);
    println!(
        "sizes: {before:?}, then {:?}",
        scene.nodes.iter().map(size).collect::<Vec<_>>()
    );
    let slow = report
        .unserved
        .iter()
        .filter(|(_, since, until)| *until - *since > UNSERVED);
    let slow: Vec<_> = slow
        .map(|(vni, since, until)| (vni, *since - scene.begun, *until - *since))
        .collect();
    assert!(slow.is_empty(), "unserved for too long: {slow:?}");
    report.assert_never_two();
    let ((threads, descriptors), memory) = before[0];
    eventually("no daemon has grown", || {
        let fits = |node: &Node| {
            let ((t, d), m) = size(node);
            // Each of the clients may keep a connection to each member.
            t <= threads && d <= descriptors + 10 && m <= memory + 8192
        };
        scene.nodes.iter().all(fits).then_some(())
    });
}

/// Input: a gateway whose daemon and guard die at once, so that no process silences it. Output: the checker of
/// this test sees that two answer, once the others have taken over.
#[test]
fn the_checker_sees_two_that_answer() {
    let etcd = EtcdCluster::start(1);
    let mut nodes: Vec<Node> = (1..=2).map(|i| Node::new(i, etcd.endpoint(0))).collect();
    nodes.iter_mut().for_each(Node::start);
    until_settled(&etcd.client(), &refs(&nodes));
    let orphaned = nodes[0].answering();
    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    nodes[0].kill9();
    nodes[0].kill_guard();
    until_settled(&etcd.client(), &[&nodes[1]]);
    assert_eq!(nodes[0].answering(), orphaned);
    let report = sampler.finish();
    assert!(report.offences.len() >= orphaned, "{:?}", report.offences);
    let pair = format!("[\"{}\", \"{}\"]", nodes[0].name, nodes[1].name);
    assert!(
        report
            .offences
            .iter()
            .any(|offence| offence.contains(&pair))
    );
    assert_eq!(report.longest_gap(), Duration::ZERO);
}
