//! A takeover with real FRR: two gateways of the lab, 1000 VNIs, one loses its power.
//!
//! `cargo bench --bench frr`, as root, with options after `--`: see [`Options`]. What FRR was told is told to
//! it once more by hand, in the fewest runs of vtysh, after the daemon is gone: that is the floor.
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
mod vtysh;

use argh::FromArgs;
use common::node::scatter;
use network::{Lab, eventually};
use nix::sched::{CloneFlags, setns};
use observe::Observer;
use report::Figure;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vtysh::Recorder;
use wmgwd::model::types::NodeName;

const PATIENCE: Duration = Duration::from_secs(120);

/// Measures a takeover of half of the VNIs with real FRR.
#[derive(FromArgs)]
struct Options {
    /// VNIs (default 1000; targets are for this size)
    #[argh(option, default = "1000")]
    vnis: u32,
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
    eprintln!("building a network with {vnis} VNIs");
    let Some(lab) = Lab::up("bench-frr", 2, vnis, "example") else {
        return;
    };
    let [gw1, gw2] = [1, 2].map(|number| Recorder::new(&lab, number));
    let names: [NodeName; 2] = ["gw1", "gw2"].map(|name| name.parse().unwrap());
    let observer = observe_from_within(&lab, &names, vnis);
    // As many points as a daemon draws by itself, the same in every run.
    let points = |number: u64| -> String {
        let points = (0..100).map(|i| scatter(number * 1000 + i).to_string());
        points.collect::<Vec<_>>().join(",")
    };
    let first = gw1.start(&lab, vnis, &points(1));
    let _second = gw2.start(&lab, vnis, &points(2));
    let halves = observer.until("two halves", PATIENCE, |view| {
        let share = [view.idle_at(0), view.idle_at(1)];
        let balanced = share.iter().all(|&it| it > vnis as usize * 2 / 5);
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
    let claimed = observer.until("claim", PATIENCE, |view| view.first_claim_since(mark));
    let claimed = claimed.unwrap();
    let idle = observer.until("takeover", PATIENCE, |view| {
        (view.is_all_idle() && view.idle_at(1) == vnis as usize).then_some(view.at)
    });
    let idle = idle.unwrap();
    eventually("ARP is answered for all", || {
        asker.answered().len() == vnis as usize
    });
    let answered = asker.end().into_iter().max().unwrap();
    eprintln!("taken over; now the same lines by hand");
    // Whatever the takeover is followed by (a look at what FRR took) is over.
    std::thread::sleep(Duration::from_secs(2));
    gw2.kill_daemon(&lab);
    let calls = gw2.calls().split_off(before);
    let pushes: Vec<&vtysh::Call> = calls.iter().filter(|call| call.is_part_of_push()).collect();
    let since_claim = |at: f64| at - (wall + (claimed - mark).as_secs_f64());
    let taken = pushes
        .iter()
        .map(|call| since_claim(call.end))
        .fold(0.0, f64::max);
    let floor = vtysh::by_hand(&lab, &pushes);

    let (arp_target, ratio) = match vnis {
        1000 => (Some(0.5), Some(1.3)),
        _ => (None, None),
    };
    let arp = answered.saturating_duration_since(claimed).as_secs_f64();
    let figure = |what: &str, measured: f64| Figure {
        what: format!("{} of {vnis} VNIs taken over: {what}", halves[0]),
        measured: Some(measured),
        unit: "s",
        ..Figure::default()
    };
    let mut figures = vec![
        figure("claim to ARP answered for all", arp),
        figure("claim to FRR has taken all", taken),
        figure("claim to all idle", (idle - claimed).as_secs_f64()),
        figure("vtysh invocations", pushes.len() as f64),
    ];
    figures[0].target = arp_target;
    figures[1].floor = Some(floor.time.as_secs_f64());
    figures[1].target_ratio = ratio;
    figures[1].note = format!("floor: {}", floor.way);
    figures[3].unit = "";
    figures[3].note = vtysh::describe(&calls, since_claim);
    let path = options
        .json
        .unwrap_or_else(|| report::default_path("frr.json"));
    report::publish(&figures, &path);
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
