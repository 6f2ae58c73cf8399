//! What a daemon tells FRR: a vtysh that notes when it was called and with what, and the same once more by hand.

use crate::network::Lab;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Stands in front of a gateway's vtysh.
pub struct Recorder {
    node: String,
    dir: PathBuf,
}

/// One call of vtysh.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began, in seconds since 1970.
    pub begun: f64,
    /// When it ended, likewise.
    pub end: f64,
    /// Its arguments.
    pub arguments: String,
    /// What it was fed with.
    pub script: String,
}

/// What the same lines cost by hand.
pub struct Floor {
    /// How long they take.
    pub time: Duration,
    /// How they were told.
    pub way: String,
}

/// Seconds since 1970, as the recorder notes them.
pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |it| it.as_secs_f64())
}

impl Recorder {
    /// For gateway `number`.
    pub fn new(lab: &Lab, number: u32) -> Recorder {
        let node = format!("gw{number}");
        let dir = lab.dir().join(format!("vtysh-{node}"));
        fs::create_dir_all(&dir).unwrap();
        // No process is started for the notes, so that they cost next to nothing. The script is opened anew,
        // and so read from its beginning without moving vtysh's own place in it.
        let text = format!(
            "#!/bin/bash\n\
             begun=$EPOCHREALTIME\n\
             [ \"$3\" != -f ] || script=$(</dev/stdin)\n\
             PATH=${{PATH#*:}} vtysh \"$@\"\n\
             status=$?\n\
             end=$EPOCHREALTIME\n\
             printf '%s\\n' \"$begun $end $*\" \"$script\" >{}/$begun.call\n\
             exit $status\n",
            dir.display()
        );
        let program = dir.join("vtysh");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Recorder { node, dir }
    }

    /// The name of its gateway.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Starts the daemon in its gateway.
    pub fn start(&self, lab: &Lab, vnis: u32, points: &str, options: &[&str]) -> Gateway {
        let path = format!(
            "PATH={}:{}",
            self.dir.display(),
            std::env::var("PATH").unwrap()
        );
        let vnis = vnis.to_string();
        let command = [
            "env",
            &path,
            env!("CARGO_BIN_EXE_wmgwd"),
            "--name",
            &self.node,
            "--maxvni",
            &vnis,
            "--etcd",
            "http://10.0.3.100:2379",
            "--uids",
            points,
            "--join-hold",
            "1",
        ];
        let command = [&command, options].concat();
        let (child, _) = lab.background(&self.node, "wmgwd", &command);
        Gateway(child)
    }

    /// All calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        let files = fs::read_dir(&self.dir).unwrap().flatten();
        let paths = files.map(|file| file.path());
        let mut calls: Vec<Call> = paths
            .filter(|path| path.extension().is_some_and(|it| it == "call"))
            .filter_map(|path| Call::read(&path))
            .collect();
        calls.sort_by(|one, other| one.begun.total_cmp(&other.begun));
        calls
    }

    /// SIGKILL to daemon and guard: FRR stays as it is, and no process orders it anything any more.
    pub fn kill_daemon(&self, lab: &Lab) {
        // The guard would withdraw everything soon after its daemon's end, and the daemon would start another guard.
        for (signal, name) in [
            ("STOP", "wmgwd"),
            ("KILL", "wmgwd-guard"),
            ("KILL", "wmgwd"),
        ] {
            lab.verb(&["signal", &self.node, signal, name]);
        }
    }
}

/// A running daemon; dropped, it is killed.
pub struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Call {
    fn read(path: &Path) -> Option<Call> {
        let text = fs::read_to_string(path).ok()?;
        let (head, script) = text.split_once('\n')?;
        let mut words = head.splitn(3, ' ');
        Some(Call {
            begun: words.next()?.parse().ok()?,
            end: words.next()?.parse().ok()?,
            arguments: words.next()?.to_owned(),
            script: script.trim_end().to_owned(),
        })
    }

    /// Whether it changes FRR, or makes a change count.
    pub fn is_part_of_push(&self) -> bool {
        !self.script.is_empty() || self.is_clear()
    }

    /// Whether it makes a change of the filter count.
    pub fn is_clear(&self) -> bool {
        self.arguments.contains(" clear bgp ")
    }

    /// Whether it speaks to this daemon.
    pub fn is_to(&self, daemon: &str) -> bool {
        self.arguments.starts_with(&format!("-d {daemon} "))
    }
}

/// One line a call.
pub fn describe(calls: &[Call], since: impl Fn(f64) -> f64) -> String {
    let line = |call: &Call| {
        let (from, took) = (since(call.begun), call.end - call.begun);
        let (arguments, lines) = (&call.arguments, call.script.lines().count());
        format!("\n  at {from:6.3} s for {took:.3} s: vtysh {arguments} ({lines} lines)")
    };
    calls.iter().map(line).collect()
}

/// Tells gw2's FRR the lines of `calls` once more, in one run for each daemon: the best of three. Before each,
/// they are taken back.
pub fn by_hand(lab: &Lab, calls: &[&Call]) -> Floor {
    let lines = |daemon: &str| -> Vec<String> {
        let scripts = calls.iter().filter(|call| call.is_to(daemon));
        let lines = scripts.flat_map(|call| call.script.lines());
        let mut seen = std::collections::BTreeSet::new();
        // The lines about the filter as a whole stand in every script; `ip ospf cost` belongs to its interface.
        let kept = lines.filter(|line| line.starts_with("ip ospf") || seen.insert(*line));
        kept.map(str::to_owned).collect()
    };
    let (bgp, ospf) = (lines("bgpd"), lines("ospfd"));
    let back = |line: &String| match line.strip_prefix("bgp extcommunity-list ") {
        Some(rest) => Some(format!("no bgp extcommunity-list {rest}")),
        None => line
            .starts_with("interface ")
            .then(|| format!("{line}\nip ospf cost 65535")),
    };
    let tell = |daemon: &str, lines: &[String]| {
        if lines.is_empty() {
            return;
        }
        let path = lab.dir().join(format!("{daemon}.lines"));
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let path = path.display().to_string();
        lab.ask("gw2", &["vtysh", "-d", daemon, "-f", &path]);
    };
    let clear = || lab.vtysh("gw2", "clear bgp l2vpn evpn * soft out");
    let undo = |lines: &[String]| lines.iter().filter_map(back).collect::<Vec<String>>();
    // What it costs to get into the node at all is not vtysh's.
    let entering = {
        let begun = Instant::now();
        lab.ask("gw2", &["true"]);
        begun.elapsed()
    };
    let runs = if ospf.is_empty() { 2 } else { 3 };
    let mut best = Duration::MAX;
    for _ in 0..3 {
        tell("bgpd", &undo(&bgp));
        tell("ospfd", &undo(&ospf));
        clear();
        let begun = Instant::now();
        tell("bgpd", &bgp);
        clear();
        tell("ospfd", &ospf);
        best = best.min(begun.elapsed().saturating_sub(runs * entering));
    }
    let way = format!(
        "{} lines to bgpd, a clear, {} lines to ospfd, a run of vtysh each",
        bgp.len(),
        ospf.len()
    );
    Floor { time: best, way }
}
