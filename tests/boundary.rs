//! The architecture: what is pure stays pure, and one place reads the clock.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules (files, and directories of the same name) that decide and never act.
const PURE: &[&str] = &[
    "model/types",
    "model/ring",
    "model/spans",
    "model/frr",
    "model/fsm",
    "gateway",
    "schema",
    "etcd/wire",
    "host/bridges",
    "host/netlink",
    "host/frr/route_map",
    "commands/status/analyse",
    "commands/status/json",
    "commands/status/show",
    "commands/status/since",
    "commands/check/links",
    "commands/check/system",
    "commands/check/routing",
    "commands/check/startup",
    "commands/check/database",
    "commands/check/show",
    "commands/check/refusal",
    "telemetry/counters",
    "telemetry/metrics/http",
    "telemetry/metrics/text",
];

/// What acts, or asks the world.
const IMPURE: [&str; 12] = [
    "std::net",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "clock::",
    "ureq",
    "nix::",
    "log::",
    "println!",
];

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}

/// Every source file by its path below `src`, with its code: comments and the tests at its end left out.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    assert!(!files.is_empty());
    let is_test = |name: &str| name.contains("/tests") || name.contains("/sim");
    files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().display().to_string();
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = code.lines().map(|line| line.split("//").next().unwrap());
            (name, code.collect::<Vec<_>>().join("\n"))
        })
        .filter(|(name, _)| !is_test(name))
        .collect()
}

fn is_in(file: &str, module: &str) -> bool {
    file == format!("{module}.rs") || file.starts_with(&format!("{module}/"))
}

/// Input: the source of the modules that decide. Output: none of them touches the network, files, threads,
/// clocks, the environment or the log.
#[test]
fn pure_modules_do_not_act() {
    let sources = sources();
    for module in PURE {
        let files: Vec<_> = sources
            .iter()
            .filter(|(name, _)| is_in(name, module))
            .collect();
        assert!(!files.is_empty(), "{module} has moved: mend this test");
        for (name, code) in files {
            for word in IMPURE {
                assert!(!code.contains(word), "{name} is pure and has {word}");
            }
        }
    }
}

/// Input: all of the source. Output: what is compared with a lease comes from `clock` alone; the wall clock is
/// read there too, and only for people: the worker writes it beside its rows, `wmgwd status` shows it, and nobody
/// else asks, so that its steps change nothing.
#[test]
fn one_place_reads_the_clock() {
    for (name, code) in sources() {
        for word in ["CLOCK_REALTIME", "chrono"] {
            assert!(!code.contains(word), "{name} has {word}");
        }
        if name != "sys/clock.rs" {
            for word in ["clock_gettime", "ClockId", "SystemTime", "UNIX_EPOCH"] {
                assert!(!code.contains(word), "{name} has {word}: use clock::now");
            }
        }
        let for_people = [
            "sys/clock.rs",
            "daemon/worker.rs",
            "commands/status/look.rs",
        ]
        .contains(&name.as_str());
        assert!(
            for_people || !code.contains("unix_seconds"),
            "{name} reads the wall clock, which may step"
        );
    }
}

/// Input: the modules around the lease. Output: they know no clock that stands still while the machine sleeps.
#[test]
fn leases_are_measured_on_one_clock() {
    for (name, code) in sources() {
        let lease = [
            "daemon/fence",
            "daemon/lease",
            "daemon/worker",
            "guard/process",
            "gateway",
            "daemon/observer",
        ];
        if lease.iter().any(|module| is_in(&name, module)) {
            assert!(
                !code.contains("Instant"),
                "{name} has Instant: use clock::now"
            );
        }
    }
}
