//! The architecture: what is pure stays pure, and one place reads the clock.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules (files, and directories of the same name) that decide and never act.
const PURE: &[&str] = &[
    "model",
    "gateway",
    "guard/protocol",
    "guard/view",
    "guard/words",
    "daemon/proof",
    "schema",
    "etcd/endpoint",
    "etcd/ops",
    "witness",
    "etcd/wire",
    "host/address",
    "host/bridges",
    "host/interfaces",
    "host/neighbour",
    "host/netlink",
    "host/frr/carrier",
    "host/frr/config",
    "host/frr/file",
    "host/frr/inspection",
    "host/frr/neighbours",
    "host/nft/table",
    "host/nft/wire",
    "host/frr/route_map",
    "host/frr/script",
    "host/frr/targets",
    "host/frr/upstream",
    "host/frr/vtysh_output",
    "host/routes/halves",
    "host/routes/wire",
    "commands/check/mod",
    "commands/status/mod",
    "commands/status/analyse",
    "commands/status/json",
    "commands/status/show",
    "commands/status/since",
    "commands/check/announcing",
    "commands/check/beats",
    "commands/check/links",
    "commands/check/system",
    "commands/check/passage",
    "commands/check/routing",
    "commands/check/ruleset",
    "commands/check/startup",
    "commands/check/signs",
    "commands/check/database",
    "commands/check/show",
    "commands/check/refusal",
    "telemetry/counters",
    "telemetry/metrics/mod",
    "telemetry/metrics/http",
    "telemetry/metrics/text",
    "telemetry/status_line",
];

/// Files that act in part, of which pure code uses the rest: errors that it reads, and text for log lines.
const PURE_IN_PART: [&str; 3] = ["etcd/error.rs", "etcd/access.rs", "telemetry/log_text.rs"];

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
        assert!(!files.is_empty(), "{module} has moved: correct this test");
        for (name, code) in files {
            for word in IMPURE {
                assert!(!code.contains(word), "{name} is pure and has {word}");
            }
        }
    }
}

/// The folders of `src`, from the lowest. A file imports from its own folder and from folders below it.
const LAYERS: [&str; 14] = [
    "model",
    "sys",
    "telemetry",
    "witness",
    "etcd",
    "schema",
    "gateway",
    "host",
    "guard",
    "cli",
    "commands",
    "daemon",
    "lib",
    "main",
];

/// Every path that the file `name` imports, from the root of the crate: `use` items with their braces spread out,
/// and paths in the code.
fn imports(name: &str, code: &str) -> BTreeSet<String> {
    let module: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    let module = match module[..] {
        [ref above @ .., "mod"] => above.to_vec(),
        _ => module,
    };
    let mut found = BTreeSet::new();
    let mut add = |path: &str| {
        let (up, rest) = match path.strip_prefix("crate::") {
            Some(rest) => (module.len(), rest),
            None => {
                let up = path.matches("super::").count();
                (up, path.trim_start_matches("super::"))
            }
        };
        let above = &module[..module.len() - up];
        let path: Vec<&str> = above.iter().copied().chain(rest.split("::")).collect();
        found.insert(path.join("::"));
    };
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:".contains(before) {
                continue;
            }
            let text = &code[at..];
            let end = text.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            let (path, rest) = text.split_at(end.unwrap_or(text.len()));
            match rest.strip_prefix('{') {
                Some(list) => {
                    let mut depth = 0;
                    let end = list.find(|c| {
                        depth += i32::from(c == '{') - i32::from(c == '}');
                        depth < 0
                    });
                    for item in list[..end.unwrap()].split([',', '{', '}']) {
                        let item = item.split(" as ").next().unwrap().trim();
                        add(&format!("{path}{item}"));
                    }
                }
                None => add(path),
            }
        }
    }
    found
}

/// Input: all of the source. Output: no folder imports from a folder above it, so no two folders import from
/// each other.
#[test]
fn imports_go_down() {
    let layer = |path: &str| {
        let folder = path.split(['/', ':', '.']).next().unwrap();
        LAYERS.iter().position(|it| *it == folder)
    };
    for (name, code) in sources() {
        if name.starts_with("fuzzing") {
            continue;
        }
        let own = layer(&name).unwrap_or_else(|| panic!("{name}: not in LAYERS"));
        for path in imports(&name, &code) {
            // A name of the root, as `crate::Failure`.
            let Some(other) = layer(&path) else { continue };
            assert!(other <= own, "{name} imports {path}, which is above it");
        }
    }
}

/// The child module that a `mod.rs` has the public name `name` from, by its lines `pub use module::...;`.
fn reexported_from<'a>(code: &'a str, name: &str) -> Option<&'a str> {
    code.split("pub use ").skip(1).find_map(|item| {
        let (module, names) = item.split(';').next()?.split_once("::")?;
        let mut names = names.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        names.any(|it| it == name).then_some(module)
    })
}

/// Input: the pure modules. Output: whatever they import is pure, too, so that they are pure through everything
/// that they call.
#[test]
fn pure_modules_import_pure_modules() {
    let sources = sources();
    let is_pure = |file: &str| PURE.iter().any(|module| is_in(file, module));
    // The file that a path leads to: its longest beginning that is one, and where that file has the name from.
    let file_of = |path: &str| {
        let mut path = path.replace("::", "/");
        let name = path.split('/').next_back().unwrap().to_owned();
        loop {
            let file = [format!("{path}.rs"), format!("{path}/mod.rs")];
            if let Some((file, code)) = sources.iter().find(|(it, _)| file.contains(it)) {
                return Some(
                    reexported_from(code, &name)
                        .map_or(file.clone(), |module| format!("{path}/{module}.rs")),
                );
            }
            path.truncate(path.rfind('/')?);
        }
    };
    let mut wrong = Vec::new();
    for (name, code) in sources.iter().filter(|(name, _)| is_pure(name)) {
        for path in imports(name, code) {
            let is_allowed = |file: &String| is_pure(file) || PURE_IN_PART.contains(&file.as_str());
            if file_of(&path).is_some_and(|file| !is_allowed(&file)) {
                wrong.push(format!("{name} is pure and imports {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
            "daemon/mod.rs",
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

/// The components of the core, each in a file of its own.
const COMPONENTS: [(&str, &str); 17] = [
    ("gateway/arp.rs", "VniArp"),
    ("gateway/backoff.rs", "Backoff"),
    ("gateway/fitness.rs", "OwnFitness"),
    ("gateway/lifecycle.rs", "Lifecycle"),
    ("gateway/membership.rs", "Membership"),
    ("gateway/mirror/cell.rs", "Cell"),
    ("gateway/mirror/mod.rs", "Mirror"),
    ("gateway/mirror/nodes.rs", "Nodes"),
    ("gateway/mirror/row.rs", "Row"),
    ("gateway/plan.rs", "Batch"),
    ("gateway/refresh.rs", "Refresh"),
    ("gateway/routes.rs", "Routes"),
    ("gateway/schedule.rs", "Schedule"),
    ("gateway/vni.rs", "VniState"),
    ("gateway/vni_table.rs", "VniTable"),
    ("gateway/watch_pause.rs", "WatchPause"),
    ("gateway/writer.rs", "Writer"),
];

/// Input: the components of the core. Output: none has a field that another file can reach.
#[test]
fn components_keep_their_fields_to_themselves() {
    let sources = sources();
    for (file, name) in COMPONENTS {
        let (_, code) = sources.iter().find(|(it, _)| it == file).unwrap();
        let (_, after) = code.split_once(&format!("struct {name}")).unwrap();
        let end = after.find(";\n").into_iter().chain(after.find("\n}")).min();
        let fields = &after[..end.unwrap()];
        let is_private = !fields.contains("pub ") && !fields.contains("pub(");
        assert!(is_private, "{file}: {name} has {fields}");
    }
}

/// Input: the core. Output: it is a struct of components; beside them it has what it was told at its start and when it
/// wants to be asked again.
#[test]
fn the_core_is_a_struct_of_components() {
    let sources = sources();
    let (_, code) = sources
        .iter()
        .find(|(it, _)| it == "gateway/mod.rs")
        .unwrap();
    let (_, after) = code.split_once("pub struct Gateway {").unwrap();
    let fields = after.split('}').next().unwrap();
    let types = fields.lines().filter_map(|line| line.split_once(": "));
    let types: Vec<&str> = types.map(|(_, it)| it.trim_end_matches(',')).collect();
    assert!(types.contains(&"Config") && types.len() > 5, "{types:?}");
    for it in types {
        let is_component = COMPONENTS.iter().any(|(_, name)| *name == it);
        let is_own = ["Config", "Option<Time>"].contains(&it);
        assert!(is_component || is_own, "Gateway has a field of type {it}");
    }
}
