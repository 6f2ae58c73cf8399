//! The lab with its daemons and the probe, ready for a fault.

use crate::network::{Daemon, Lab, eventually};
use crate::probe::{Family, Flow, Probe};
use crate::rows::Row;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wmgwd::model::ring::{Member, Ring};
use wmgwd::model::types::{NodeName, Vni};

/// How long a row is watched at least: some faults show late (OSPF's retransmissions, BGP's timers).
const LEAST: Duration = Duration::from_secs(20);
/// And how long at most, if packets do not come back.
const MOST: Duration = Duration::from_secs(60);

/// Where a daemon tells its metrics, inside its gateway.
const METRICS: &str = "127.0.0.1:9100";

/// What there is none of as long as no gateway dies.
const ALARMS: [&str; 4] = [
    "wmgwd_beats_late_total",
    "wmgwd_proofs_lost_total",
    "wmgwd_votes_total",
    "wmgwd_evictions_total",
];

/// How large the lab is, and what the daemons are told.
pub struct Shape<'a> {
    pub vnis: u32,
    pub stations: u32,
    pub usr: Option<&'a str>,
    /// What carries the kernel's routes upstream, with `--announce routes`.
    pub upstream: Option<&'a str>,
    pub options: Vec<&'a str>,
    /// What is probed.
    pub families: Vec<Family>,
    /// How long the row `rest` is watched.
    pub rest: Duration,
    /// Where the logs of each run go.
    pub logs: Option<PathBuf>,
}

/// A counter of early detection.
pub struct Alarm {
    pub node: String,
    pub name: &'static str,
    pub count: u64,
}

pub struct Bed<'a> {
    pub lab: Lab,
    /// The daemons by gateway.
    pub daemons: BTreeMap<String, Daemon>,
    shape: &'a Shape<'a>,
    /// How many gateways the lab has.
    pub gateways: usize,
    options: &'static [&'static str],
    witness: Option<Child>,
    points: BTreeMap<String, String>,
    probe: Option<Probe>,
    /// Owners by VNI (from 1) when the probe was marked.
    pub before: Vec<String>,
}

impl<'a> Bed<'a> {
    /// Builds the lab of a row, and serves its VNIs.
    pub fn up(shape: &'a Shape<'a>, row: &Row) -> Option<Bed<'a>> {
        let (count, stations) = (row.gateways.to_string(), shape.stations.to_string());
        let mut options = vec!["--gateways", &count, "--stations", &stations];
        options.extend(shape.usr.iter().flat_map(|usr| ["--usr", usr]));
        if shape.families.contains(&Family::V6) {
            options.extend(["--ipv6", "on"]);
        }
        options.extend(shape.upstream.iter().flat_map(|it| ["--upstream", it]));
        options.extend(row.lab);
        let lab = Lab::with(&format!("outages-{}", row.name), shape.vnis, &options)?;
        let mut bed = Bed {
            lab,
            daemons: BTreeMap::new(),
            shape,
            gateways: row.gateways,
            options: row.options,
            witness: None,
            points: points(row.gateways, shape.stations),
            probe: None,
            before: Vec::new(),
        };
        if row.witness {
            bed.start_witness();
        }
        for number in 1..=row.serving {
            bed.start(&format!("gw{number}"));
        }
        bed.before = bed.rest();
        if !row.options.contains(&"0") {
            bed.witnessed();
        }
        bed.probe = Some(Probe::start(
            &bed.lab,
            shape.stations,
            row.ways,
            &shape.families,
        ));
        bed.flowing();
        Some(bed)
    }

    /// Starts the daemon of a gateway.
    pub fn start(&mut self, node: &str) {
        let fixed = ["--join-hold", "1", "--uids", &self.points[node]];
        let announce = self.shape.upstream.map_or("costs", |_| "routes");
        let fixed = [&fixed[..], &["--metrics", METRICS, "--announce", announce]].concat();
        let options = [&fixed[..], self.options, &self.shape.options].concat();
        let daemon = self.lab.start(node, &options);
        self.daemons.insert(node.to_owned(), daemon);
    }

    /// The owners by VNI, if the ring is obeyed with exactly the gateways that have a daemon.
    fn wanted(&self) -> Vec<String> {
        owners(
            &self.points,
            |node| self.daemons.contains_key(node),
            self.shape.vnis,
        )
    }

    /// Waits until every VNI is at its ring owner, and seen there from outside.
    pub fn rest(&self) -> Vec<String> {
        let wanted = self.wanted();
        eventually("every VNI idle at its ring owner", || {
            let rows = self.lab.rows();
            rows.iter()
                .zip(&wanted)
                .all(|((_, kind, owner), wanted)| kind == "1" && owner == wanted)
        });
        self.lab.shows(&wanted);
        wanted
    }

    /// Waits until every node that has witnesses named has as many as it can have.
    pub fn witnessed(&self) {
        if self.shape.options.contains(&"--detect-window") {
            return;
        }
        eventually("every node has named its witnesses", || {
            let witnesses = usize::from(self.witness.is_some());
            let wanted = (self.daemons.len() + witnesses - 1).min(wmgwd::witness::MOST);
            let exe = env!("CARGO_BIN_EXE_wmgwd");
            let etcd = self.lab.etcd();
            let command = [exe, "status", "--json", "--etcd", &etcd];
            let status = self.lab.ask("gw2", &command);
            let Ok(status) = serde_json::from_str::<serde_json::Value>(&status) else {
                return false;
            };
            let nodes = status["nodes"].as_array().expect("a list");
            let has = |node: &serde_json::Value| {
                let witnesses = node["witnesses"].as_array();
                witnesses.is_some_and(|it| it.len() == wanted)
            };
            nodes.len() == self.daemons.len() && nodes.iter().all(has)
        });
    }

    fn start_witness(&mut self) {
        let exe = env!("CARGO_BIN_EXE_wmgwd");
        let command = [
            exe,
            "witness",
            "--name",
            "third",
            "--beat-address",
            "10.0.1.100",
        ];
        let (child, _) = self.lab.background("etcd1", "wmgwd", &command);
        self.witness = Some(child);
    }

    /// Makes the member of a gateway the leader of etcd.
    pub fn lead(&self, node: &str) {
        let etcdctl = |node: &str, command: &[&str]| {
            let etcdctl = ["env", "ETCDCTL_API=3", "etcdctl"];
            self.lab.ask(node, &[&etcdctl[..], command].concat())
        };
        eventually("the member leads", || {
            let members = etcdctl(node, &["member", "list"]);
            // ID, status, name, ...
            let of_node = |line: &&str| line.split(", ").nth(2) == Some(node);
            let Some(line) = members.lines().find(of_node) else {
                return false;
            };
            let id = line.split(',').next().unwrap_or_default();
            // Only the leader can give that away.
            for number in 1..=self.gateways {
                etcdctl(&format!("gw{number}"), &["move-leader", id]);
            }
            let status = etcdctl(node, &["endpoint", "status"]);
            status.split(", ").nth(4) == Some("true")
        });
        // What was cut off with the leader that was is there again.
        sleep(Duration::from_secs(5));
        self.witnessed();
    }

    /// Waits until packets flow.
    pub fn flowing(&self) {
        let probe = self.probe.as_ref().expect("started in `up`");
        eventually("packets flow both ways", || probe.flows());
    }

    /// Lets the time of the row `rest` pass.
    pub fn pass(&self) {
        sleep(self.shape.rest);
    }

    /// From here on packets count.
    pub fn mark(&self) {
        self.probe.as_ref().expect("started in `up`").mark();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = format!("{:.3}\n", since_epoch.unwrap_or_default().as_secs_f64());
        fs::write(self.lab.dir().join("mark.log"), line).unwrap();
    }

    /// Keeps the logs of daemons, FRR and etcd, and the time of the mark (seconds since 1970), if that was asked for.
    pub fn keep_logs(&self, run: &str) {
        let Some(logs) = &self.shape.logs else {
            return;
        };
        let to = logs.join(run);
        fs::create_dir_all(&to).unwrap();
        let copy = "cd -- \"$1\" && find . -name '*.log' -exec cp --parents -t \"$2\" {} +";
        let mut command = Command::new("sh");
        command
            .args(["-c", copy, "sh"])
            .arg(self.lab.dir())
            .arg(&to);
        assert!(command.status().unwrap().success(), "the logs are kept");
    }

    /// Watches until packets flow again, and for a while longer.
    pub fn watch(&self) {
        let begun = Instant::now();
        let probe = self.probe.as_ref().expect("started in `up`");
        while begun.elapsed() < LEAST || !probe.flows() && begun.elapsed() < MOST {
            sleep(Duration::from_millis(100));
        }
    }

    /// What the daemons that run counted of early detection since they were started.
    pub fn alarms(&self) -> Vec<Alarm> {
        let counters = |node: &String| {
            let url = format!("http://{METRICS}/metrics");
            let page = self
                .lab
                .ask(node, &["curl", "--silent", "--max-time", "5", &url]);
            let counter = |line: &str| {
                let (name, value) = line.split_once(' ')?;
                Some(Alarm {
                    node: node.clone(),
                    name: ALARMS.into_iter().find(|alarm| *alarm == name)?,
                    count: value.parse().ok()?,
                })
            };
            page.lines().filter_map(counter).collect::<Vec<_>>()
        };
        self.daemons.keys().flat_map(counters).collect()
    }

    /// Ends the probe: how each flow went.
    pub fn end(&mut self) -> Vec<Flow> {
        self.probe.take().expect("started in `up`").end()
    }
}

/// Ring points by gateway, as `--uids` takes them: the first such that gw1 has between a third and a half of
/// the stations, VNI 1 among them, and every other gateway has some.
fn points(gateways: usize, stations: u32) -> BTreeMap<String, String> {
    let name = |number: usize| format!("gw{}", number + 1);
    // The finalizer of the ring itself would do the same: any good mixer.
    let spread = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let found = (1u64..).find_map(|seed| {
        let points = (0..gateways).map(|node| {
            let point = |point: u64| spread(seed << 20 | (node as u64) << 10 | point).to_string();
            (
                name(node),
                (0..100).map(point).collect::<Vec<_>>().join(","),
            )
        });
        let points: BTreeMap<String, String> = points.collect();
        let owners = owners(&points, |_| true, stations);
        let has = |node: usize| owners.iter().filter(|owner| **owner == name(node)).count() as u32;
        let fair = (stations.div_ceil(3)..=stations.div_ceil(2)).contains(&has(0));
        (fair && owners[0] == "gw1" && (0..gateways).all(|node| has(node) > 0)).then_some(points)
    });
    found.expect("some seed fits")
}

fn owners(
    points: &BTreeMap<String, String>,
    alive: impl Fn(&str) -> bool,
    vnis: u32,
) -> Vec<String> {
    let members: Vec<(NodeName, Vec<u64>)> = points
        .iter()
        .filter(|(node, _)| alive(node))
        .map(|(node, points)| {
            let points = points.split(',').map(|point| point.parse().unwrap());
            (node.parse().unwrap(), points.collect())
        })
        .collect();
    let ring = Ring::new(members.iter().map(|(name, points)| Member {
        name,
        points,
        range: None,
        unable: None,
        rank: None,
    }));
    let owner = |vni| ring.owner(Vni::new(vni).unwrap()).expect("somebody lives");
    (1..=vnis)
        .map(|vni| owner(vni).as_str().to_owned())
        .collect()
}
