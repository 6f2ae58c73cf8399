//! How fast a cluster is with many VNIs: three daemons with mock hosts, one etcd in memory.
//!
//! `cargo bench --bench scale`, with options after `--`: see [`Options`]. The table shows each time beside a floor,
//! measured right after it, as a shared machine is not equally fast for long: the same number of puts, sent to the
//! same etcd by this program alone, in the best batches it could find.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../report/mod.rs"]
mod report;

mod cluster;
mod crowd;
mod floor;
mod idle;
mod observe;
mod release;
mod requests;

use argh::FromArgs;
use cluster::{Cluster, Step, TTL};
use floor::{Floor, Way};
use observe::Stuck;
use report::Figure;
use std::path::PathBuf;
use std::time::Duration;

/// Measures start, failover, join, drain, release, idleness and memory of daemons with many VNIs.
#[derive(FromArgs)]
struct Options {
    /// VNIs of the main part (default 10000; targets are for this size)
    #[argh(option, default = "10_000")]
    vnis: u32,
    /// VNIs of the large part, start and failover only (default 64000; 0 leaves it out)
    #[argh(option, default = "64_000")]
    large: u32,
    /// VNIs of the part with 20 gateways, of which one is real (default 250000; 0 leaves it out)
    #[argh(option, default = "250_000")]
    crowd: u32,
    /// VNIs of the part in which a gateway that cannot forward gives them back (default 1000; 0 leaves it out)
    #[argh(option, default = "1_000")]
    release: u32,
    /// 1000 VNIs in the main part, and the release; little idling
    #[argh(switch)]
    short: bool,
    /// only the steps up to and with the failover
    #[argh(switch)]
    failover_only: bool,
    /// where the JSON goes (default target/bench/scale.json)
    #[argh(option)]
    json: Option<PathBuf>,
    /// given by cargo
    #[argh(switch)]
    #[allow(dead_code)]
    bench: bool,
}

/// What the issue asks for at a size.
struct Targets {
    start: Option<f64>,
    failover: Option<f64>,
    failover_ratio: Option<f64>,
    join: Option<f64>,
    drain: Option<f64>,
    requests: Option<f64>,
    memory: Option<f64>,
    idle: Option<(f64, f64)>,
    since_death: Option<f64>,
    /// What the original reached, in the order of the figures.
    original: [&'static str; 6],
}

const NONE: Targets = Targets {
    start: None,
    failover: None,
    failover_ratio: None,
    join: None,
    drain: None,
    requests: None,
    memory: None,
    idle: None,
    since_death: None,
    original: [""; 6],
};

fn targets(vnis: u32) -> Targets {
    match vnis {
        10_000 => Targets {
            start: Some(6.0),
            failover: Some(3.0),
            failover_ratio: Some(2.0),
            join: Some(15.0),
            drain: Some(15.0),
            requests: Some(300.0),
            memory: Some(32.0),
            idle: Some((0.35, 3.5)),
            since_death: Some(1.6),
            original: [
                "28.9 s",
                "never",
                "never",
                "never",
                "176823",
                "86, then 626 MiB",
            ],
        },
        64_000 => Targets {
            failover: Some(20.0),
            memory: Some(128.0),
            original: ["does not start at 16000", "", "", "", "", ""],
            ..NONE
        },
        _ => NONE,
    }
}

fn main() {
    let options: Options = argh::from_env();
    let (vnis, large, crowd, idle) = match options.short {
        true => (1000, 0, 0, 5),
        false => (options.vnis, options.large, options.crowd, 20),
    };
    let mut figures = Vec::new();
    if vnis > 0 {
        let all = !options.failover_only;
        part(&mut figures, vnis, all.then(|| Duration::from_secs(idle)));
    }
    if options.release > 0
        && let Err(Stuck(why)) = release::measure(&mut figures, options.release)
    {
        eprintln!("{why}");
    }
    if large > 0 {
        part(&mut figures, large, None);
    }
    if crowd > 0
        && let Err(Stuck(why)) = crowd::measure(&mut figures, crowd)
    {
        eprintln!("{why}");
    }
    let path = options
        .json
        .unwrap_or_else(|| report::default_path("scale.json"));
    report::publish(&figures, &path);
}

/// A step, and its floor.
struct Timed {
    /// Of its figure.
    index: usize,
    step: Step,
    way: Way,
    floor: Floor,
}

/// All figures of one size. With `idle`, also those of idling, join and drain.
fn part(figures: &mut Vec<Figure>, vnis: u32, idle: Option<Duration>) {
    let patience = Duration::from_secs(60 + u64::from(vnis) / 500);
    let mut cluster = Cluster::new(3, vnis, patience);
    let mut steps = Vec::new();
    if let Err(Stuck(why)) = measure(figures, &mut steps, &mut cluster, idle) {
        eprintln!("{why}");
        figures.push(Figure {
            what: format!("{vnis} VNIs"),
            note: why,
            ..Figure::default()
        });
    }
    cluster.nodes.clear();
    eprintln!("{vnis} VNIs: what etcd takes beside watches");
    for Timed {
        index,
        step,
        way,
        floor,
    } in steps
    {
        let watched = way.watched_floor(&cluster.etcd, step.puts, step.watches);
        let figure: &mut Figure = &mut figures[index];
        figure.floor = Some(floor.time.as_secs_f64());
        figure.note = format!(
            "{} VNIs, {} puts in {} revisions; {:.2} s of etcd's CPU; requests: {}; \
             floor: {}, {:.2} s of etcd's CPU; with the {} watches of the nodes open {:.2} s, {:.2} s of CPU",
            step.vnis,
            step.puts,
            step.revisions,
            step.cpu,
            step.requests,
            way.describe(),
            floor.cpu,
            step.watches,
            watched.time.as_secs_f64(),
            watched.cpu,
        );
    }
}

fn measure(
    figures: &mut Vec<Figure>,
    steps: &mut Vec<Timed>,
    cluster: &mut Cluster,
    idle: Option<Duration>,
) -> Result<(), Stuck> {
    let vnis = cluster.vnis;
    let targets = targets(vnis);
    let mut way = None;
    let mut timed = |cluster: &Cluster, what: &str, step: Step, target, target_ratio, original| {
        eprintln!("{vnis} VNIs: {what}: {:.2?}", step.time);
        let step_time = step.time.as_secs_f64();
        let (way, floor) = cluster.aside(|etcd| {
            let way = *way.get_or_insert_with(|| Way::best(etcd));
            (way, way.floor(etcd, step.puts))
        });
        steps.push(Timed {
            index: figures.len(),
            step,
            way,
            floor,
        });
        figures.push(Figure {
            what: format!("{vnis} VNIs: {what}"),
            measured: Some(step_time),
            unit: "s",
            target,
            target_ratio,
            original,
            ..Figure::default()
        });
    };
    let original = targets.original;
    let step = cluster.start()?;
    cluster.balance()?;
    timed(cluster, "start", step, targets.start, None, original[0]);
    let mut plain = Vec::new();
    let figure = |what: &str, measured, unit, target, original| Figure {
        what: format!("{vnis} VNIs: {what}"),
        measured: Some(measured),
        unit,
        target,
        original,
        ..Figure::default()
    };
    if let Some(time) = idle {
        // What is still announced after the start is over by then.
        eprintln!("{vnis} VNIs: idle");
        std::thread::sleep(time.min(Duration::from_secs(12)));
        let running = cluster.nodes.iter().filter(|node| node.is_started());
        let nodes: Vec<_> = running
            .map(|node| vec![node.pid(), node.guard_pid()])
            .collect();
        let idle = idle::measure(&cluster.etcd, &nodes, time);
        let (cpu, requests) = targets.idle.unzip();
        plain.push(figure(
            "idle: CPU of a daemon with its guard",
            idle.cpu,
            "%",
            cpu,
            "",
        ));
        let mut asked = figure(
            "idle: etcd requests a daemon",
            idle.requests,
            "/s",
            requests,
            "",
        );
        asked.note = format!("all daemons: {}", idle.which);
        plain.push(asked);
    }
    let failover = cluster.failover(0)?;
    let requests = failover.requests.clone();
    if let Some(time) = failover.since_death {
        let what = "from the death of daemon and guard until all is idle elsewhere";
        let seconds = time.as_secs_f64();
        plain.push(figure(what, seconds, "s", targets.since_death, ""));
    }
    let (target, ratio) = (targets.failover, targets.failover_ratio);
    timed(cluster, "failover", failover, target, ratio, original[1]);
    let total = requests.total() as f64;
    let what = "failover: etcd requests, all daemons";
    let mut asked = figure(what, total, "", targets.requests, original[4]);
    asked.note = format!("from the death on, so with {TTL} s of lease: {requests}");
    plain.push(asked);
    let mut peak = cluster.peak_memory();
    if idle.is_some() {
        let step = cluster.join(0)?;
        timed(cluster, "join", step, targets.join, None, original[2]);
        peak = peak.max(cluster.peak_memory());
        let step = cluster.drain(1)?;
        timed(cluster, "drain", step, targets.drain, None, original[3]);
        peak = peak.max(cluster.peak_memory());
    }
    let mebibytes = peak as f64 / 1024.0;
    plain.push(figure(
        "peak memory of a daemon",
        mebibytes,
        "MiB",
        targets.memory,
        original[5],
    ));
    figures.extend(plain);
    Ok(())
}
