//! `--announce routes` from the upstream router's side: since when its kernel has each half, and how long the same
//! routes take by hand.

use crate::network::{Lab, eventually};
use nix::sched::{CloneFlags, setns};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wmgwd::host::routes::PROTOCOL;

/// The surviving gateway, as the upstream router's routes name it.
const VIA: &str = "via 10.0.2.12 ";

/// Looks at a kernel's routes again and again until it is ended.
pub struct Watcher {
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Watches for halves that lead through gw2.
    pub fn start(lab: &Lab) -> Watcher {
        let namespace = lab.namespace("up1");
        let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (found, is_over) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            // Only this thread, and what it starts, moves (setns(2)).
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let halves = halves("ip", &["-o", "route", "show"], VIA);
                // When it was over: never earlier than it was so.
                let now = Instant::now();
                let mut found = found.lock().unwrap();
                for half in halves {
                    found.entry(half).or_insert(now);
                }
                drop(found);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Watcher { seen, stop, thread }
    }

    /// When the last of `wanted` was seen first, once all of them were.
    pub fn last_of(&self, wanted: &BTreeSet<String>) -> Instant {
        eventually("the upstream router has all routes", || {
            let seen = self.seen.lock().unwrap();
            wanted.iter().all(|half| seen.contains_key(half))
        });
        let seen = self.seen.lock().unwrap();
        wanted
            .iter()
            .filter_map(|half| seen.get(half))
            .max()
            .copied()
            .unwrap()
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
    text.lines()
        .filter(|line| line.contains(word))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|prefix| prefix.ends_with("/25"))
        .map(str::to_owned)
        .collect()
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
        "dev br",
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
