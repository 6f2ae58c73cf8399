//! What daemon, guard and FRR cost while nothing happens, beside the same with all signs of fitness switched off.
//!
//! Two gateways have half of the VNIs each. One heeds all signs, the other none, and both are looked at in the same
//! time, so that the machine is equally fast for them; then they change places.

use crate::cpu::cpu_time;
use crate::network::Lab;
use crate::report::Figure;
use crate::requests::Requests;
use crate::vtysh::{Gateway, Recorder};
use nix::unistd::Pid;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Daemon and guard together may take so much of a core with 1000 VNIs, in percent.
const BUDGET: f64 = 0.3;
/// What is looked at in each gateway.
const PROGRAMS: [&str; 5] = ["wmgwd", "wmgwd-guard", "zebra", "bgpd", "ospfd"];
/// A daemon looks at FRR more often after its start.
const SETTLES: Duration = Duration::from_secs(20);

/// What a gateway has used so far.
struct Used {
    cpu: [Duration; PROGRAMS.len()],
    vtysh: usize,
    /// The number of the process or thread that was started last in the gateway.
    last_pid: u64,
}

impl Used {
    fn of(lab: &Lab, recorder: &Recorder) -> Used {
        let node = recorder.node();
        Used {
            cpu: PROGRAMS.map(|program| pids(lab, node, program).map(cpu_time).sum()),
            vtysh: recorder.calls().len(),
            last_pid: last_pid(lab, node),
        }
    }
}

/// The processes of a gateway with this name, as seen from here.
fn pids(lab: &Lab, node: &str, program: &str) -> impl Iterator<Item = Pid> {
    let printed = lab.script(&["pids", node, program]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let pids: Vec<i32> = printed
        .lines()
        .map(|line| line.trim().parse().unwrap())
        .collect();
    pids.into_iter().map(Pid::from_raw)
}

fn last_pid(lab: &Lab, node: &str) -> u64 {
    let printed = lab.ask(node, &["cat", "/proc/loadavg"]);
    let last = printed.split_whitespace().last().unwrap_or_default();
    last.parse().expect("proc(5) says so")
}

/// Looks for `time` at the gateways of `lab`, which the recorders stand in.
pub fn measure(lab: &Lab, recorders: &[Recorder; 2], vnis: u32, time: Duration) -> Vec<Figure> {
    let mut figures = Vec::new();
    for tracks in [["all", "none"], ["none", "all"]] {
        let _daemons = start(lab, recorders, vnis, tracks);
        sleep(SETTLES);
        // To ask for the number starts processes, too.
        let asking = last_pid(lab, "gw1").abs_diff(last_pid(lab, "gw1"));
        let requests = || {
            let url = format!("{}/metrics", lab.etcd());
            Requests::read(&lab.ask("etcd1", &["curl", "--silent", "--max-time", "5", &url]))
        };
        let (asked, begun) = (requests(), Instant::now());
        let before = recorders.each_ref().map(|it| Used::of(lab, it));
        sleep(time);
        let after = recorders.each_ref().map(|it| Used::of(lab, it));
        let seconds = begun.elapsed().as_secs_f64();
        let asked = &requests() - &asked;
        for (((track, recorder), before), after) in
            tracks.iter().zip(recorders).zip(&before).zip(&after)
        {
            let percent = |at: usize| {
                let spent = after.cpu[at].saturating_sub(before.cpu[at]);
                spent.as_secs_f64() / seconds * 100.0
            };
            let shares =
                (0..PROGRAMS.len()).map(|at| format!("{} {:.3}", PROGRAMS[at], percent(at)));
            let started = (after.last_pid - before.last_pid).saturating_sub(asking);
            figures.push(Figure {
                what: format!("--track {track} ({}): daemon and guard", recorder.node()),
                measured: Some(percent(0) + percent(1)),
                unit: "% of a core",
                target: (vnis == 1000).then_some(BUDGET),
                note: format!(
                    "{}; vtysh ran {} times, {started} processes or threads were started",
                    shares.collect::<Vec<_>>().join(", "),
                    after.vtysh - before.vtysh,
                ),
                ..Figure::default()
            });
        }
        figures.push(Figure {
            what: "requests to etcd, a second and a daemon".to_owned(),
            measured: Some(asked.total() as f64 / seconds / 2.0),
            note: format!("both daemons: {asked}"),
            ..Figure::default()
        });
        for recorder in recorders {
            recorder.kill_daemon(lab);
        }
    }
    figures
}

/// Starts both daemons, and waits until each has its half and tells FRR nothing any more.
fn start(lab: &Lab, recorders: &[Recorder; 2], vnis: u32, tracks: [&str; 2]) -> [Gateway; 2] {
    let points = [1, 2].map(|number| crate::points(number, 100));
    let daemons = [0, 1].map(|at| {
        let options = ["--track", tracks[at]];
        recorders[at].start(lab, vnis, &points[at], &options)
    });
    let begun = Instant::now();
    let mut calls = 0;
    loop {
        let rows = lab.rows();
        let has = |node: &str| rows.iter().filter(|row| row.2 == node).count() as u32;
        let is_idle = rows.iter().all(|row| row.1 == "1");
        let are_halves = has("gw1") > vnis / 3 && has("gw2") > vnis / 3;
        let before = std::mem::replace(
            &mut calls,
            recorders.iter().map(|it| it.calls().len()).sum(),
        );
        if is_idle && are_halves && before == calls {
            return daemons;
        }
        assert!(
            begun.elapsed() < crate::PATIENCE,
            "every VNI idle at its owner"
        );
        sleep(Duration::from_secs(3));
    }
}
