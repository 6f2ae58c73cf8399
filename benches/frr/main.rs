//! A takeover with real FRR: two gateways of the lab, 1000 VNIs, one loses its power.
//!
//! `cargo bench --bench frr`, as root, with options after `--`: see [`Options`]. What FRR was told is told to
//! it once more by hand, in the fewest runs of vtysh, after the daemon is gone: that is the floor. With `--announce
//! routes` the same routes are made once more by `ip -batch`. With `--idle SECONDS` no gateway loses power: it measures what the
//! gateways cost while nothing happens.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../../tests/lab/network.rs"]
mod network;
#[allow(dead_code)]
#[path = "../scale/observe.rs"]
mod observe;
#[path = "../report/mod.rs"]
mod report;

mod arp;
#[allow(dead_code)]
#[path = "../scale/idle.rs"]
mod cpu;
mod idle;
#[allow(dead_code)]
#[path = "../scale/requests.rs"]
mod requests;
mod upstream;
mod vtysh;

use argh::FromArgs;
use common::node::scatter;
use network::{Lab, eventually};
use nix::sched::{CloneFlags, setns};
use observe::Observer;
use report::Figure;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vtysh::Recorder;
use wmgwd::model::types::NodeName;

const PATIENCE: Duration = Duration::from_secs(120);

/// Measures a takeover with real FRR.
#[derive(FromArgs)]
struct Options {
    /// VNIs (default 1000; targets are for this size)
    #[argh(option, default = "1000")]
    vnis: u32,
    /// costs or routes (default costs)
    #[argh(option, default = "String::from(\"costs\")")]
    announce: String,
    /// what carries the routes upstream: ospf or bgp (default ospf)
    #[argh(option, default = "String::from(\"ospf\")")]
    upstream: String,
    /// the part of the VNIs that the dead gateway has, as 2 for a half or 3 for a third (default 2; 3 from 10 000 on)
    #[argh(option)]
    part: Option<u32>,
    /// a directory to lay over /usr in the lab: another FRR (contrib/lab/unpack.sh)
    #[argh(option)]
    usr: Option<String>,
    /// no takeover: what the gateways cost in so many seconds in which nothing happens
    #[argh(option)]
    idle: Option<u64>,
    /// where the JSON goes (default target/bench/frr.json)
    #[argh(option)]
    json: Option<PathBuf>,
    /// given by cargo
    #[argh(switch)]
    #[allow(dead_code)]
    bench: bool,
}

fn main() {
    let options: Options = argh::from_env();
    let vnis = options.vnis;
    let is_routes = match options.announce.as_str() {
        "costs" => false,
        "routes" => true,
        other => panic!("--announce {other}: costs or routes"),
    };
    let part = options.part.unwrap_or(if vnis < 10_000 { 2 } else { 3 });
    let patience = PATIENCE + Duration::from_millis(60 * u64::from(vnis));
    eprintln!("building a network with {vnis} VNIs");
    let begun = Instant::now();
    let mut with = vec!["--gateways", "2", "--stations", "2"];
    if is_routes {
        with.extend(["--upstream", &options.upstream]);
    }
    with.extend(options.usr.iter().flat_map(|usr| ["--usr", usr]));
    let Some(lab) = Lab::with("bench-frr", vnis, &with) else {
        return;
    };
    eprintln!(
        "up after {:.0} s; gw2's FRR: {}",
        begun.elapsed().as_secs_f64(),
        memory(&lab)
    );
    let recorders = [1, 2].map(|number| Recorder::new(&lab, number));
    let path = options
        .json
        .unwrap_or_else(|| report::default_path("frr.json"));
    if let Some(seconds) = options.idle {
        let figures = idle::measure(&lab, &recorders, vnis, Duration::from_secs(seconds));
        report::publish(&figures, &path);
        return;
    }
    let [gw1, gw2] = recorders;
    let names: [NodeName; 2] = ["gw1", "gw2"].map(|name| name.parse().unwrap());
    let observer = observe_from_within(&lab, &names, vnis);
    let announce = ["--announce", &options.announce];
    let first = gw1.start(&lab, vnis, &points(1, 100), &announce);
    let _second = gw2.start(&lab, vnis, &points(2, 100 * u64::from(part - 1)), &announce);
    let halves = observer.until("the parts", patience, |view| {
        let share = [view.idle_at(0), view.idle_at(1)];
        let balanced =
            share[0] > vnis as usize * 4 / 5 / part as usize && share[1] > vnis as usize / 3;
        (view.is_all_idle() && balanced).then_some(share)
    });
    let halves = halves.unwrap();
    // Nothing is told to FRR any more.
    let mut calls = 0;
    eventually("vtysh is quiet", || {
        let before = std::mem::replace(&mut calls, gw2.calls().len());
        std::thread::sleep(Duration::from_secs(3));
        before == gw2.calls().len()
    });
    let before = gw2.calls().len();
    let routes_before = match is_routes {
        true => upstream::announced(&lab),
        false => Default::default(),
    };
    let watchers = is_routes.then(|| {
        [
            upstream::Watcher::start_at_gateway(&lab),
            upstream::Watcher::start(&lab),
        ]
    });
    let asker = arp::Asker::start(&lab, "ap1", "gw2", vnis);
    eventually("gw2 answers for its own", || {
        asker.answered().len() >= halves[1]
    });
    let own = asker.answered().len();
    eprintln!(
        "power cut of gw1, which owns {}; gw2 answers for {own}",
        halves[0]
    );
    let (mark, wall) = (Instant::now(), vtysh::now());
    lab.verb(&["kill", "gw1"]);
    drop(first);
    let claimed = observer.until("claim", patience, |view| view.first_claim_since(mark));
    let claimed = claimed.unwrap();
    let idle = observer.until("takeover", patience, |view| {
        (view.is_all_idle() && view.idle_at(1) == vnis as usize).then_some(view.at)
    });
    let idle = idle.unwrap();
    eventually("ARP is answered for all", || {
        asker.answered().len() == vnis as usize
    });
    let answered = asker.end().into_iter().max().unwrap();
    let taken_routes: BTreeSet<String> = match is_routes {
        true => upstream::announced(&lab)
            .difference(&routes_before)
            .cloned()
            .collect(),
        false => BTreeSet::new(),
    };
    let routed = watchers.map(|watchers| {
        watchers.map(|watcher| {
            let times = watcher.times_of(&taken_routes);
            watcher.end();
            times
        })
    });
    eprintln!("taken over; now the same by hand");
    // Whatever the takeover is followed by (a look at what FRR took) is over.
    std::thread::sleep(Duration::from_secs(2));
    gw2.kill_daemon(&lab);
    let calls = gw2.calls().split_off(before);
    let pushes: Vec<&vtysh::Call> = calls.iter().filter(|call| call.is_part_of_push()).collect();
    let since_claim = |at: f64| at - (wall + (claimed - mark).as_secs_f64());
    let ended = |daemon: Option<&str>| {
        let of =
            |call: &&&vtysh::Call| daemon.is_none_or(|name| call.is_to(name) || call.is_clear());
        let ends = pushes.iter().filter(of).map(|call| since_claim(call.end));
        ends.fold(0.0, f64::max)
    };
    let arp = answered.saturating_duration_since(claimed).as_secs_f64();
    let figure = |what: &str, measured: f64| Figure {
        what: format!("{} of {vnis} VNIs taken over: {what}", halves[0]),
        measured: Some(measured),
        unit: "s",
        ..Figure::default()
    };
    let targets = |small: f64, large: f64| match vnis {
        1000 => Some(small),
        10_000 => Some(large),
        _ => None,
    };
    let mut figures = vec![
        Figure {
            target: (vnis == 1000).then_some(0.5),
            ..figure("claim to ARP answered for all", arp)
        },
        figure("claim to all idle", (idle - claimed).as_secs_f64()),
        Figure {
            unit: "",
            note: vtysh::describe(&calls, since_claim),
            ..figure("vtysh invocations", pushes.len() as f64)
        },
    ];
    let by_vtysh = vtysh::by_hand(&lab, &pushes);
    let floor = Some(by_vtysh.time.as_secs_f64());
    let note = format!("floor: {}", by_vtysh.way);
    if let Some([made, routed]) = routed {
        let since_claim = |at: &Instant| at.saturating_duration_since(claimed).as_secs_f64();
        // When a tenth of them was there, a half, and so on.
        let spread = |times: &[Instant]| {
            let at = |tenths: usize| since_claim(&times[(times.len() * tenths / 10).max(1) - 1]);
            [1, 5, 9, 10]
                .map(|tenths| format!("{} %: {:.2} s", 10 * tenths, at(tenths)))
                .join(", ")
        };
        let last = |times: &[Instant]| times.last().map_or(0.0, since_claim);
        let (notes, made) = ([&made, &routed].map(|it| spread(it)), last(&made));
        let routed = last(&routed);
        let list = ended(Some("bgpd"));
        figures.push(Figure {
            floor,
            note,
            target_ratio: targets(1.3, 1.3),
            ..figure("claim to EVPN's list in place and cleared", list)
        });
        let [made_note, routed_note] = notes;
        figures.push(Figure {
            note: made_note,
            ..figure("claim to all routes in the gateway's kernel", made)
        });
        figures.push(Figure {
            floor: Some(upstream::by_hand(&lab, &taken_routes).as_secs_f64()),
            target: targets(0.35, 1.0),
            target_ratio: targets(1.5, 1.5),
            note: format!(
                "{routed_note}; floor: {} routes by ip -batch, until the same moment",
                taken_routes.len()
            ),
            ..figure(
                "claim to all routes in the upstream router's kernel",
                routed,
            )
        });
        figures.push(Figure {
            target: targets(0.9, 4.0),
            ..figure(
                "claim to all of ARP, EVPN and routes",
                arp.max(list).max(routed),
            )
        });
    } else {
        figures.push(Figure {
            floor,
            note,
            target_ratio: (vnis == 1000).then_some(1.3),
            ..figure("claim to FRR has taken all", ended(None))
        });
    }
    report::publish(&figures, &path);
}

/// Ring points, the same in every run.
fn points(number: u64, count: u64) -> String {
    let points = (0..count).map(|i| scatter(number * 1000 + i).to_string());
    points.collect::<Vec<_>>().join(",")
}

/// What gw2's FRR takes of memory.
fn memory(lab: &Lab) -> String {
    let of = |daemon: &str| -> Option<String> {
        let pids = lab.script(&["pids", "gw2", daemon]).output().ok()?;
        let pid = String::from_utf8(pids.stdout).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(format!("{daemon} {} MiB", kilobytes / 1024))
    };
    let daemons = ["zebra", "bgpd", "ospfd"].into_iter().filter_map(of);
    daemons.collect::<Vec<_>>().join(", ")
}

/// Watches from inside etcd's network. Only a thread goes there, which those that it starts are born into: a
/// process that is in there ends with the lab.
fn observe_from_within(lab: &Lab, names: &[NodeName], vnis: u32) -> Observer {
    let namespace = File::open(lab.namespace("etcd1")).unwrap();
    let etcd = "http://10.0.3.100:2379".parse().unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            Observer::start(&etcd, names, vnis)
        });
        inside.join().unwrap()
    })
}
