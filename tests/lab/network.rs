//! The lab of `contrib/lab` as a test sees it: built for one test, removed at its end whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use wmgwd::model::ring::{Member, Ring};
use wmgwd::model::types::{NodeName, Vni};

/// How long a test waits for what must happen: generous, as the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// One lab at a time: each is a dozen FRR daemons, and timers slip when two cores run three of them.
static ONE: Mutex<()> = Mutex::new(());

/// A lab with its daemons.
pub struct Lab {
    dir: tempdir::Dir,
    vnis: u32,
    /// Where etcd answers, as `--etcd` takes it, and a node in which it is asked.
    etcd: (String, &'static str),
    _one: MutexGuard<'static, ()>,
}

/// A wmgwd in a gateway.
pub struct Daemon {
    /// Which gateway.
    pub node: String,
    log: PathBuf,
    child: Child,
}

impl Lab {
    /// Builds the lab, or says why this machine cannot have one.
    pub fn up(test: &str, gateways: u32, vnis: u32, config: &str) -> Option<Lab> {
        let gateways = gateways.to_string();
        let options = ["--gateways", &gateways, "--stations", "2"];
        Lab::with(test, vnis, &[&options[..], &["--config", config]].concat())
    }

    /// The same with IPv6 beside IPv4.
    pub fn dual_stack(test: &str, gateways: u32, vnis: u32, config: &str) -> Option<Lab> {
        let gateways = gateways.to_string();
        let options = ["--gateways", &gateways, "--stations", "2", "--ipv6", "on"];
        Lab::with(test, vnis, &[&options[..], &["--config", config]].concat())
    }

    /// Builds the lab with `vnis` VNIs and other options of `lab.sh up`.
    pub fn with(test: &str, vnis: u32, options: &[&str]) -> Option<Lab> {
        if !nix::unistd::geteuid().is_root() {
            println!("{test}: skipped, needs root for network namespaces");
            return None;
        }
        let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let given = |option: &str| options.iter().position(|it| *it == option);
        let members = given("--etcd").is_some_and(|at| options[at + 1] == "members");
        let gateways = given("--gateways").map_or(3, |at| options[at + 1].parse().unwrap());
        let of_gateway = |number: u32| format!("http://10.0.3.{}:2379", 10 + number);
        let lab = Lab {
            dir: tempdir::Dir::new(test),
            vnis,
            // (gw1 is the one that loses power.)
            etcd: match members {
                true => (
                    (1..=gateways).map(of_gateway).collect::<Vec<_>>().join(","),
                    "gw2",
                ),
                false => ("http://10.0.3.100:2379".to_owned(), "etcd1"),
            },
            _one: one,
        };
        let fixed = ["up", "--vnis", &vnis.to_string()];
        let output = lab
            .script(&[&fixed[..], options].concat())
            .output()
            .unwrap();
        assert!(output.status.success(), "lab up: {}", text(&output));
        Some(lab)
    }

    /// Where etcd answers, as `--etcd` takes it.
    #[allow(dead_code)]
    pub fn etcd(&self) -> String {
        self.etcd.0.clone()
    }

    /// Where it keeps its state and its logs; removed with it. Of those who share this file, the benchmark asks.
    #[allow(dead_code)]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `lab.sh ARGUMENTS`, not yet run.
    pub fn script(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("contrib/lab/lab.sh");
        command
            .arg("--dir")
            .arg(self.dir.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb of `lab.sh` that must succeed.
    pub fn verb(&self, arguments: &[&str]) {
        let output = self.script(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "lab.sh {arguments:?}: {}",
            text(&output)
        );
    }

    /// What `command` prints inside a node, whether it succeeds or not.
    pub fn ask(&self, node: &str, command: &[&str]) -> String {
        let output = self
            .script(&[&["exec", node], command].concat())
            .output()
            .unwrap();
        text(&output)
    }

    /// What FRR in a node says.
    pub fn vtysh(&self, node: &str, command: &str) -> String {
        self.ask(node, &["vtysh", "-c", command])
    }

    /// Runs `command` inside a node in the background, its output into a file.
    pub fn background(&self, node: &str, name: &str, command: &[&str]) -> (Child, PathBuf) {
        let path = self.dir.path().join(format!("{node}-{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let child = self
            .script(&[&["exec", node], command].concat())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        (child, path)
    }

    /// Starts wmgwd in a gateway, for all VNIs of the lab.
    pub fn start(&self, node: &str, options: &[&str]) -> Daemon {
        self.start_for(node, self.vnis, options)
    }

    /// Starts wmgwd in a gateway, for VNIs 1 to `last`.
    pub fn start_for(&self, node: &str, last: u32, options: &[&str]) -> Daemon {
        self.start_as(node, node, last, options)
    }

    /// Starts wmgwd in a gateway under another name, for VNIs 1 to `last`.
    pub fn start_as(&self, node: &str, name: &str, last: u32, options: &[&str]) -> Daemon {
        let vnis = last.to_string();
        let exe = env!("CARGO_BIN_EXE_wmgwd");
        let fixed = [
            exe,
            "--name",
            name,
            "--maxvni",
            &vnis,
            "--etcd",
            &self.etcd.0,
        ];
        let (child, log) = self.background(node, "wmgwd", &[&fixed, options].concat());
        Daemon {
            node: node.to_owned(),
            log,
            child,
        }
    }

    /// Sends a signal to the daemon (not to its guard) in a gateway.
    pub fn signal(&self, daemon: &Daemon, signal: &str) {
        let pids = self.ask(&daemon.node, &["pgrep", "-f", "wmgwd --name"]);
        // Inside, pgrep sees the node's own pids; kill(1) must, too.
        let pid = pids.lines().next().expect("the daemon runs").to_owned();
        self.ask(&daemon.node, &["kill", &format!("-{signal}"), &pid]);
    }

    /// Every VNI's row: its kind and its owner.
    pub fn rows(&self) -> Vec<(u32, String, String)> {
        let command = [
            "env",
            "ETCDCTL_API=3",
            "etcdctl",
            "get",
            "--prefix",
            "/wmgwd/vni/",
        ];
        let printed = self.ask(self.etcd.1, &command);
        let lines: Vec<&str> = printed.lines().collect();
        let value = |key: &str| {
            let at = lines.iter().position(|line| *line == key)?;
            lines.get(at + 1).map(|value| (*value).to_owned())
        };
        let row = |vni: u32| {
            let key = |part| format!("/wmgwd/vni/{vni}/{part}");
            let (kind, owner) = (value(&key("type")), value(&key("current")));
            (vni, kind.unwrap_or_default(), owner.unwrap_or_default())
        };
        (1..=self.vnis).map(row).collect()
    }

    /// Waits until every VNI is idle at one of `nodes`, and each of them owns one; the owners by VNI.
    pub fn settled(&self, nodes: &[&str]) -> Vec<String> {
        let mut owners = Vec::new();
        eventually(&format!("every VNI idle at one of {nodes:?}"), || {
            let rows = self.rows();
            owners = rows.iter().map(|(_, _, owner)| owner.clone()).collect();
            rows.iter()
                .all(|(_, kind, owner)| kind == "1" && nodes.contains(&owner.as_str()))
                && nodes
                    .iter()
                    .all(|node| owners.iter().any(|owner| owner == node))
        });
        owners
    }

    /// By VNI, the gateways whose type-2 route for the gateway address the access point has.
    pub fn advertised(&self) -> BTreeMap<u32, Vec<String>> {
        let table = self.vtysh("ap1", "show bgp l2vpn evpn route type macip");
        let mut gateways: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for line in table.lines() {
            // A bridge's MAC address: 02:00, the gateway's number, the VNI.
            let Some((mac, rest)) = line
                .split_once("[02:00:")
                .and_then(|(_, rest)| rest.split_once(']'))
            else {
                continue;
            };
            let bytes = mac
                .split(':')
                .filter_map(|byte| u32::from_str_radix(byte, 16).ok());
            let [gateway, high, middle, low] = bytes.collect::<Vec<_>>()[..] else {
                continue;
            };
            // The shared address, not the link-local one of the bridge.
            if rest.contains("[10.") {
                let seen = gateways.entry(high << 16 | middle << 8 | low).or_default();
                seen.push(format!("gw{gateway}"));
                seen.dedup();
            }
        }
        gateways
    }

    /// By VNI, the gateways through which the upstream router sends its traffic.
    pub fn routed(&self) -> BTreeMap<u32, Vec<String>> {
        let routes = self.ask("up1", &["ip", "route", "show", "root", "10.64.0.0/10"]);
        // By VNI, and by the network: with `--announce routes` the two halves, which win over the network itself.
        let mut hops: BTreeMap<(u32, String), BTreeSet<String>> = BTreeMap::new();
        let mut at = (0, String::new());
        for line in routes.lines() {
            // A route's own line begins with its network, a line for one of several next hops does not.
            let network: Vec<u32> = line
                .split(['.', '/'])
                .map_while(|part| part.parse().ok())
                .collect();
            if let [10, second, third, ..] = network[..] {
                let network = line.split_whitespace().next().unwrap_or_default();
                at = ((second - 64) << 8 | third, network.to_owned());
            }
            let found = line
                .split_whitespace()
                .filter_map(|word| word.strip_prefix("10.0.2.1"));
            let found = found.map(|number| format!("gw{number}"));
            hops.entry(at.clone()).or_default().extend(found);
        }
        let is_half = |network: &str| network.ends_with("/25");
        let halves = |vni: u32| {
            let of = hops
                .keys()
                .filter(|(it, network)| *it == vni && is_half(network));
            of.count()
        };
        let mut gateways: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for ((vni, network), hops) in &hops {
            if is_half(network) || halves(*vni) < 2 {
                gateways
                    .entry(*vni)
                    .or_default()
                    .extend(hops.iter().cloned());
            }
        }
        let list = |(vni, hops): (u32, BTreeSet<String>)| (vni, hops.into_iter().collect());
        gateways.into_iter().map(list).collect()
    }

    /// Waits until exactly `owners` (by VNI, from 1) are seen from outside: by ARP, EVPN and OSPF.
    pub fn shows(&self, owners: &[String]) {
        let wanted: BTreeMap<u32, Vec<String>> = (1..)
            .zip(owners)
            .map(|(vni, owner)| (vni, vec![owner.clone()]))
            .collect();
        eventually("every VNI advertised by its owner alone", || {
            self.advertised() == wanted
        });
        eventually("every VNI routed to its owner alone", || {
            self.routed() == wanted
        });
    }

    /// Where the namespaces are.
    pub fn namespace(&self, node: &str) -> PathBuf {
        let printed = text(&self.script(&["status"]).output().unwrap());
        let name = printed
            .split("namespaces ")
            .nth(1)
            .and_then(|rest| rest.split("NODE").next());
        Path::new("/run/netns").join(format!(
            "{}{node}",
            name.expect("status names the namespaces").trim()
        ))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
                if log.file_name().to_string_lossy().ends_with("wmgwd.log") {
                    let said = std::fs::read_to_string(log.path()).unwrap_or_default();
                    println!("--- {}\n{said}", log.file_name().to_string_lossy());
                }
            }
        }
        let _ = self.script(&["down"]).output();
    }
}

impl Daemon {
    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> bool {
        let mut success = false;
        eventually(&format!("wmgwd in {} ends", self.node), || {
            self.child
                .try_wait()
                .unwrap()
                .inspect(|status| success = status.success())
                .is_some()
        });
        success
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ring points for gw1 and gw2, as `--uids` takes them, that give gw1 the odd VNIs up to 4 and gw2 the even.
pub fn points() -> [String; 2] {
    let names: [NodeName; 2] = ["gw1", "gw2"].map(|name| name.parse().unwrap());
    let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let found = (0u64..).find_map(|seed| {
        let points = [0, 1].map(|node| {
            (1..=8)
                .map(|point| spread(seed * 16 + node * 8 + point))
                .collect::<Vec<u64>>()
        });
        let members = names.iter().zip(&points).map(|(name, points)| Member {
            name,
            points,
            range: None,
            unable: None,
            rank: None,
        });
        let ring = Ring::new(members);
        let at =
            |vni: u32| ring.owner(Vni::new(vni).unwrap()) == Some(&names[(vni as usize + 1) % 2]);
        (1..=4).all(at).then_some(points)
    });
    found.unwrap().map(|points| {
        points
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(",")
    })
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

mod tempdir {
    //! A directory that goes with its owner.

    use std::path::{Path, PathBuf};

    pub struct Dir(PathBuf);

    impl Dir {
        pub fn new(test: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("wmgwd-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
