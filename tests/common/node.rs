//! One gateway: a real wmgwd process with a mock host that it mirrors into files.

use super::eventually;
use super::go::GoNode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wmgwd::model::ring::{Member, Ring};
use wmgwd::model::types::{NodeName, Vni};

/// The VNIs of a test: 1 to this one, if it does not say otherwise.
pub const VNIS: u32 = 24;

/// The shortest lease that a busy machine keeps, in seconds.
pub const TTL: u64 = 4;

/// The shortest window of early detection that a busy machine keeps, in seconds.
pub const WINDOW: u64 = 1;

/// What a host shows of one VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Answers ARP.
    pub arp: bool,
    /// Advertises EVPN routes.
    pub evpn: bool,
    /// The OSPF cost.
    pub cost: u16,
}

impl Shown {
    /// What the owner of an idle VNI shows.
    pub const ALL: Shown = Shown {
        arp: true,
        evpn: true,
        cost: 100,
    };
    /// What everyone else shows.
    pub const NOTHING: Shown = Shown {
        arp: false,
        evpn: false,
        cost: 65535,
    };
}

/// The files of a mock host; goes with the last that looks at it.
#[derive(Debug)]
pub struct HostDir(pub PathBuf);

impl HostDir {
    /// The whole exposure, 4 bytes a VNI.
    pub fn open(&self) -> File {
        File::open(self.0.join("exposure")).unwrap()
    }
}

impl Drop for HostDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A gateway, running or not.
pub struct Node {
    /// Its name: of no other node on this machine.
    pub name: NodeName,
    /// Its points.
    pub points: Vec<u64>,
    /// Its host.
    pub host: HostDir,
    options: BTreeMap<String, String>,
    mirrored: bool,
    environment: BTreeMap<String, String>,
    user: Option<u32>,
    /// Another version of the program.
    program: Option<PathBuf>,
    child: Option<Child>,
}

/// The program as another user; needs root. That user may pass directories of root's, where the program and its files
/// may be.
pub fn wmgwd_of(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), "--clear-groups"]);
    command.args([
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--",
        env!("CARGO_BIN_EXE_wmgwd"),
    ]);
    super::program::undisturbed(command)
}

impl Node {
    /// A node that is not started yet, on the etcd at `etcd` (what `--etcd` takes). Its points follow from
    /// `number`, so that every run of a test has the same ring.
    pub fn new(number: u64, etcd: impl ToString) -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gw{number}-{}-{next}", std::process::id());
        Node::named(&name, number, etcd)
    }

    /// Another host on which a node of the same name shall run, with a guard of its own.
    pub fn twin(&self, number: u64, etcd: impl ToString) -> Node {
        Node::named(self.name.as_str(), number, etcd)
    }

    fn named(name: &str, number: u64, etcd: impl ToString) -> Node {
        let dir = std::env::temp_dir().join(format!("wmgwd-{name}-{number}"));
        fs::create_dir(&dir).unwrap();
        // The files exist from the start on, so that a sampler need not wait.
        for file in ["exposure", "announced"] {
            fs::write(dir.join(file), vec![0; 4 * (VNIS as usize + 1)]).unwrap();
        }
        let points: Vec<u64> = (0..16).map(|i| scatter(number * 1000 + i)).collect();
        let uids: Vec<String> = points.iter().map(u64::to_string).collect();
        let options = [
            ("--name", name.to_owned()),
            ("--etcd", etcd.to_string()),
            ("--uids", uids.join(",")),
            ("--maxvni", VNIS.to_string()),
            ("--settle", "0.2".to_owned()),
            ("--join-hold", "1".to_owned()),
            ("--lease-ttl", TTL.to_string()),
            ("--detect-window", WINDOW.to_string()),
        ];
        Node {
            name: name.parse().unwrap(),
            points,
            host: HostDir(dir),
            options: options.map(|(o, v)| (o.to_owned(), v)).into(),
            mirrored: true,
            environment: BTreeMap::new(),
            user: None,
            program: None,
            child: None,
        }
    }

    /// With a host that costs the daemon nothing: what it shows cannot be looked at.
    pub fn unmirrored(mut self) -> Node {
        self.mirrored = false;
        self
    }

    /// With other points.
    pub fn with_points(mut self, points: Vec<u64>) -> Node {
        let uids: Vec<String> = points.iter().map(u64::to_string).collect();
        self.points = points;
        self.with("--uids", uids.join(","))
    }

    /// With an option set; an empty value leaves it out.
    pub fn with(mut self, option: &str, value: impl ToString) -> Node {
        self.set(option, value);
        self
    }

    /// Sets an option for the next start.
    pub fn set(&mut self, option: &str, value: impl ToString) {
        self.options.insert(option.to_owned(), value.to_string());
    }

    /// With a variable in its environment.
    pub fn with_variable(mut self, name: &str, value: impl ToString) -> Node {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// As another user; needs root.
    pub fn with_user(mut self, user: u32) -> Node {
        for file in ["", "exposure", "announced"] {
            chown(self.host.0.join(file), Some(user), None).unwrap();
        }
        self.user = Some(user);
        self
    }

    /// Sets which program the next start runs: another version, or the one under test.
    pub fn set_program(&mut self, program: Option<PathBuf>) {
        self.program = program;
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.host.0.join("log"))
            .unwrap();
        let mut command = match (self.user, &self.program) {
            (Some(user), _) => wmgwd_of(user),
            (None, Some(program)) => super::program::undisturbed(Command::new(program)),
            (None, None) => super::program::wmgwd(),
        };
        command.arg("--mock");
        for (option, value) in self.options.iter().filter(|(_, value)| !value.is_empty()) {
            command.args([option, value]);
        }
        if self.mirrored {
            command.env(wmgwd::host::mock::MIRROR_VARIABLE, &self.host.0);
        }
        let child = command
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Runs the Go program on this host instead: the same name, the same points.
    pub fn start_go(&self, wait: Duration) -> GoNode {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let (name, etcd) = (self.name.as_str(), &self.options["--etcd"]);
        GoNode::start(etcd, name, &self.points, VNIS, &self.host.0, wait)
    }

    /// The daemon's process.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("it runs");
        Pid::from_raw(child.id().try_into().unwrap())
    }

    /// Whether it was started and not ended by the test.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// SIGKILL, and waits for its end. The guard lives on.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGTERM: drains.
    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Whether the daemon has ended by itself, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    /// Waits until the daemon ends by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.has_ended())
    }

    /// Its guards: processes of wmgwd whose second argument is the node's guard address.
    pub fn guard_pids(&self) -> Vec<Pid> {
        let first_etcd = self.options["--etcd"].split(',').next().unwrap();
        let address = format!("wmgwd-mock/{}/{first_etcd}", self.name);
        let processes = fs::read_dir("/proc").unwrap();
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut arguments = line.split(|&byte| byte == 0).skip(1);
                arguments.next() == Some(b"guard")
                    && arguments.next().is_some_and(|it| it == address.as_bytes())
            })
            .map(Pid::from_raw)
            .collect()
    }

    /// Its only guard; waits until it has one.
    pub fn guard_pid(&self) -> Pid {
        eventually(&format!("{} has a guard", self.name), || {
            match self.guard_pids()[..] {
                [pid] => Some(pid),
                _ => None,
            }
        })
    }

    /// SIGKILL to its guards.
    pub fn kill_guard(&self) {
        for pid in self.guard_pids() {
            // It may end by itself meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// The signs that its host shows as bad from now on: names, separated by commas, or `none`.
    pub fn set_bad_signs(&self, signs: &str) {
        // In one step: half a file names other signs.
        let (new, path) = (self.host.0.join("signs.new"), self.host.0.join("signs"));
        fs::write(&new, signs).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// What its host shows of each VNI, as one read saw it.
    pub fn exposure(&self) -> Vec<Shown> {
        let count = self.options["--maxvni"].parse().unwrap();
        read_exposure(&self.host.open(), count)
    }

    /// What its host shows of one VNI.
    pub fn shows(&self, vni: u32) -> Shown {
        self.exposure()[vni as usize - 1]
    }

    /// How many of its VNIs answer ARP.
    pub fn answering(&self) -> usize {
        self.exposure().iter().filter(|shown| shown.arp).count()
    }

    /// How many announcements of one VNI went out.
    pub fn announced(&self, vni: u32) -> u32 {
        let file = File::open(self.host.0.join("announced")).unwrap();
        let mut bytes = [0; 4];
        let _ = file.read_exact_at(&mut bytes, 4 * u64::from(vni));
        u32::from_le_bytes(bytes)
    }

    /// What the daemon and its guards have logged, in all runs.
    pub fn log(&self) -> String {
        let log = fs::read(self.host.0.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// How often the log has `part`.
    pub fn logged(&self, part: &str) -> usize {
        self.log().matches(part).count()
    }

    /// Waits until the log has `part`.
    pub fn until_logged(&self, part: &str) {
        eventually(&format!("{} logs {part:?}", self.name), || {
            self.log().contains(part).then_some(())
        });
    }

    /// Threads and open descriptors of the daemon.
    pub fn threads_and_descriptors(&self) -> (usize, usize) {
        let count = |of| {
            let path = format!("/proc/{}/{of}", self.pid());
            fs::read_dir(path).map_or(0, Iterator::count)
        };
        (count("task"), count("fd"))
    }

    /// Resident memory of the daemon, in kB.
    pub fn memory(&self) -> u64 {
        memory(self.pid())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.kill_guard();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- log of {}\n{}", self.name, last.join("\n"));
        }
    }
}

/// All of them.
pub fn refs(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().collect()
}

/// Resident memory of a process, in kB.
pub fn memory(pid: Pid) -> u64 {
    status(pid, "VmRSS:")
}

/// The most memory that a process ever had resident, in kB.
pub fn peak_memory(pid: Pid) -> u64 {
    status(pid, "VmHWM:")
}

/// A number of /proc/PID/status; 0 for a process that is gone.
fn status(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Reads what a host shows of the VNIs 1 to `count`.
pub fn read_exposure(file: &File, count: u32) -> Vec<Shown> {
    let mut bytes = vec![0; 4 * count as usize];
    let mut at = 0;
    // Short where nothing was written yet.
    while let Ok(read @ 1..) = file.read_at(&mut bytes[at..], 4 + at as u64) {
        at += read;
    }
    bytes
        .chunks_exact(4)
        .map(|part| Shown {
            arp: part[0] == 1,
            evpn: part[1] == 1,
            cost: u16::from_be_bytes([part[2], part[3]]),
        })
        .collect()
}

/// The ring that `nodes` make.
pub fn ring_of(nodes: &[&Node]) -> Ring {
    Ring::new(nodes.iter().map(|node| Member {
        name: &node.name,
        points: &node.points,
        range: None,
        unable: None,
        rank: None,
    }))
}

/// The VNIs that `node` owns on the ring of `nodes`.
pub fn share(node: &Node, nodes: &[&Node]) -> Vec<u32> {
    let ring = ring_of(nodes);
    (1..=VNIS)
        .filter(|&vni| ring.owner(Vni::new(vni).unwrap()) == Some(&node.name))
        .collect()
}

/// Well spread numbers from small ones (splitmix64's finalizer).
pub fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
