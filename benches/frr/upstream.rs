//! `--announce routes` from the upstream router's side: since when its kernel has each half, and how long the same
//! routes take by hand.

use crate::network::{Lab, eventually};
use nix::sched::{CloneFlags, setns};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wmgwd::host::routes::PROTOCOL;

/// The surviving gateway, as the upstream router's routes name it.
const VIA: &str = "via 10.0.2.12 ";
/// The gateway's own routes, as `ip route show` names them.
const OWN: &str = "dev br";
/// How often all routes are looked at, beside what the kernel tells of them.
const LOOK: Duration = Duration::from_millis(500);

/// Hears of a kernel's routes, and looks at all of them now and then, until it is ended.
pub struct Watcher {
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Watches the upstream router for halves that lead through gw2.
    pub fn start(lab: &Lab) -> Watcher {
        let shown = ["-o", "route", "show"].map(str::to_owned);
        Watcher::of(lab, "up1", shown.to_vec(), VIA)
    }

    /// Watches gw2 for the halves that it makes.
    pub fn start_at_gateway(lab: &Lab) -> Watcher {
        let shown = ["-o", "route", "show", "proto", &PROTOCOL.to_string()].map(str::to_owned);
        Watcher::of(lab, "gw2", shown.to_vec(), OWN)
    }

    fn of(lab: &Lab, node: &str, shown: Vec<String>, word: &'static str) -> Watcher {
        let namespace = lab.namespace(node);
        let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (found, is_over) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            // Only this thread, and what it starts, moves (setns(2)).
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let mut monitor = Command::new("ip")
                .args(["-o", "-rcvbuf", "16777216", "monitor", "route"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let told = BufReader::new(monitor.stdout.take().unwrap());
            let found_by_news = found.clone();
            let news = thread::spawn(move || {
                for line in told.lines().map_while(Result::ok) {
                    if let Some(half) = half(&line, word) {
                        let now = Instant::now();
                        found_by_news.lock().unwrap().entry(half).or_insert(now);
                    }
                }
            });
            // What was there before, and what the news may have lost.
            while !is_over.load(Ordering::Relaxed) {
                let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
                let halves = halves("ip", &shown, word);
                // When it was over: never earlier than it was so.
                let now = Instant::now();
                let mut found = found.lock().unwrap();
                for half in halves {
                    found.entry(half).or_insert(now);
                }
                drop(found);
                thread::sleep(LOOK);
            }
            monitor.kill().unwrap();
            monitor.wait().unwrap();
            news.join().unwrap();
        });
        Watcher { seen, stop, thread }
    }

    /// When the last of `wanted` was seen first, once all of them were.
    pub fn last_of(&self, wanted: &BTreeSet<String>) -> Instant {
        self.times_of(wanted).last().copied().unwrap()
    }

    /// When each of `wanted` was seen first, in that order, once all of them were.
    pub fn times_of(&self, wanted: &BTreeSet<String>) -> Vec<Instant> {
        eventually("the upstream router has all routes", || {
            let seen = self.seen.lock().unwrap();
            wanted.iter().all(|half| seen.contains_key(half))
        });
        let seen = self.seen.lock().unwrap();
        let mut times: Vec<Instant> = wanted
            .iter()
            .filter_map(|half| seen.get(half).copied())
            .collect();
        times.sort();
        times
    }

    /// Ends it.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The prefixes of 25 bits that a command of ip(8) prints in lines with `word`.
fn halves(program: &str, arguments: &[&str], word: &str) -> BTreeSet<String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| half(line, word)).collect()
}

/// The prefix of 25 bits at the beginning of a line with `word`.
fn half(line: &str, word: &str) -> Option<String> {
    let prefix = line.split_whitespace().next()?;
    let is_half = prefix.ends_with("/25") && line.contains(word);
    is_half.then(|| prefix.to_owned())
}

/// The name of a node's network namespace.
fn name(lab: &Lab, node: &str) -> String {
    let path: PathBuf = lab.namespace(node);
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The routes by which gw2 announces VNIs.
pub fn announced(lab: &Lab) -> BTreeSet<String> {
    let name = name(lab, "gw2");
    halves(
        "ip",
        &["-n", &name, "route", "show", "proto", &PROTOCOL.to_string()],
        OWN,
    )
}

/// Deletes `routes` in gw2 and adds them again by `ip -batch`: from its start until the upstream router has all of
/// them, the best of three.
pub fn by_hand(lab: &Lab, routes: &BTreeSet<String>) -> Duration {
    let name = name(lab, "gw2");
    let shown = Command::new("ip")
        .args([
            "-n",
            &name,
            "-o",
            "route",
            "show",
            "proto",
            &PROTOCOL.to_string(),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .next()
                .is_some_and(|it| routes.contains(it))
        })
        .collect();
    assert_eq!(lines.len(), routes.len(), "gw2 still has its routes");
    let batch = |verb: &str| {
        let script: Vec<String> = lines
            .iter()
            .map(|line| {
                format!(
                    "route {verb} {} proto {PROTOCOL}",
                    line.trim_end().replace("linkdown", "")
                )
            })
            .collect();
        let path = lab.dir().join("routes.batch");
        fs::write(&path, script.join("\n") + "\n").unwrap();
        let status = Command::new("ip")
            .args(["-n", &name, "-batch"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "ip -batch: {status}");
    };
    let up1 = lab
        .namespace("up1")
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let mut best = Duration::MAX;
    for _ in 0..3 {
        batch("del");
        eventually("the upstream router has none of the routes", || {
            halves("ip", &["-n", &up1, "-o", "route", "show"], VIA).is_disjoint(routes)
        });
        let watcher = Watcher::start(lab);
        let begun = Instant::now();
        batch("add");
        best = best.min(watcher.last_of(routes).saturating_duration_since(begun));
        watcher.end();
    }
    best
}
