//! Real etcd: one member or a cluster, as child processes on loopback with a directory of their own.

use super::disk::Disk;
use super::proxy::{Proxy, SENDER};
use super::{DEADLINE, free_ports};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::{Client, Endpoint};

/// A directory that goes away with its owner.
struct TempDir(PathBuf);

impl TempDir {
    fn new(parent: &Path) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "wmgwd-etcd-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The etcd under test: the one in `PATH`, or the file that `TEST_ETCD` names.
pub fn program() -> OsString {
    std::env::var_os("TEST_ETCD").unwrap_or_else(|| "etcd".into())
}

/// One etcd process and what it is started with.
struct Member {
    args: Vec<String>,
    client_port: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    fn new(
        name: &str,
        dir: &Path,
        client_port: u16,
        peer_port: u16,
        peer_url: &str,
        cluster: &str,
    ) -> Member {
        let client_url = format!("http://127.0.0.1:{client_port}");
        let peer_listen = format!("http://127.0.0.1:{peer_port}");
        // A directory of its own: the root of a disk has a lost+found.
        let data_dir = dir.join(name).join("data").display().to_string();
        let args = [
            ("--name", name),
            ("--data-dir", data_dir.as_str()),
            ("--listen-client-urls", client_url.as_str()),
            ("--advertise-client-urls", client_url.as_str()),
            ("--listen-peer-urls", peer_listen.as_str()),
            ("--initial-advertise-peer-urls", peer_url),
            ("--initial-cluster", cluster),
            ("--logger", "zap"),
            ("--log-level", "error"),
        ];
        let mut args: Vec<String> = args
            .iter()
            .flat_map(|(name, value)| [name.to_string(), value.to_string()])
            .collect();
        // Tests outlive no power cut; a busy disk must not slow them down.
        args.push("--unsafe-no-fsync".into());
        Member {
            args,
            client_port,
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    fn spawn(&mut self) {
        let log = fs::File::create(&self.log).unwrap();
        let child = Command::new(program())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd (Debian: etcd-server) is in PATH, or TEST_ETCD names it");
        self.child = Some(child);
    }

    fn endpoint(&self) -> Endpoint {
        format!("http://127.0.0.1:{}", self.client_port)
            .parse()
            .unwrap()
    }

    /// Whether it answers a linearizable read; `Err` with its log if its process has ended.
    fn is_ready(&mut self) -> Result<bool, String> {
        let child = self.child.as_mut().expect("it was spawned");
        if child.try_wait().unwrap().is_some() {
            self.child = None;
            return Err(fs::read_to_string(&self.log).unwrap_or_default());
        }
        let client = Client::new(vec![self.endpoint()], Duration::from_secs(1));
        Ok(client.get(b"ready").is_ok())
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) {
        if self.child.is_some() {
            self.signal(signal);
        }
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // SIGKILL also ends a stopped process.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until all of `members` answer; `Err` with its log if one ends.
fn until_ready(members: &mut [Member]) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        // All are asked each time: one that ended keeps the others from ever being ready.
        let ready: Result<Vec<bool>, String> = members.iter_mut().map(Member::is_ready).collect();
        if ready?.iter().all(|ready| *ready) {
            return Ok(());
        }
        // Three members that start together on a busy machine may need several elections.
        assert!(begun.elapsed() < 4 * DEADLINE, "etcd does not answer");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A cluster of etcd members.
pub struct EtcdCluster {
    // Before `dir`, so that they are gone when it is removed.
    members: Vec<Member>,
    /// What the members reach each other through.
    peers: Vec<Proxy>,
    /// The disk of each member, if each has its own. Unmounted after the members ended.
    disks: Vec<Disk>,
    _dir: TempDir,
}

impl EtcdCluster {
    /// Starts `size` members and waits until each of them answers.
    pub fn start(size: usize) -> EtcdCluster {
        EtcdCluster::start_in(&std::env::temp_dir(), size)
    }

    /// As [`start`](Self::start), with the data in a directory of their own below `parent`.
    pub fn start_in(parent: &Path, size: usize) -> EtcdCluster {
        let mut failure = String::new();
        // Another process may take a port between its choice and its use.
        for _ in 0..5 {
            let dir = TempDir::new(parent);
            match EtcdCluster::try_start(dir, Vec::new(), size) {
                Ok(cluster) => return cluster,
                Err(log) => failure = log,
            }
        }
        panic!("etcd does not start:\n{failure}");
    }

    /// As [`start`](Self::start), each member on a disk of its own that can stall (see [`Disk::cannot_be`]).
    pub fn start_on_disks(size: usize) -> EtcdCluster {
        let mut failure = String::new();
        for _ in 0..5 {
            let dir = TempDir::new(&std::env::temp_dir());
            let disk = |i: usize| Disk::new(dir.0.join(format!("m{i}")));
            let disks: Vec<Disk> = (0..size).map(disk).collect::<Result<_, _>>().unwrap();
            match EtcdCluster::try_start(dir, disks, size) {
                Ok(cluster) => return cluster,
                Err(log) => failure = log,
            }
        }
        panic!("etcd does not start:\n{failure}");
    }

    fn try_start(dir: TempDir, disks: Vec<Disk>, size: usize) -> Result<EtcdCluster, String> {
        let ports = free_ports(2 * size);
        let (client_ports, peer_ports) = ports.split_at(size);
        let peers: Vec<Proxy> = peer_ports
            .iter()
            .map(|port| Proxy::start(super::loopback(*port)))
            .collect();
        let url = |i: usize| format!("http://{}", peers[i].addr());
        let cluster: Vec<String> = (0..size).map(|i| format!("m{i}={}", url(i))).collect();
        let cluster = cluster.join(",");
        let mut members: Vec<Member> = (0..size)
            .map(|i| {
                let name = format!("m{i}");
                let (client, peer) = (client_ports[i], peer_ports[i]);
                Member::new(&name, &dir.0, client, peer, &url(i), &cluster)
            })
            .collect();
        members.iter_mut().for_each(Member::spawn);
        until_ready(&mut members)?;
        Ok(EtcdCluster {
            members,
            peers,
            disks,
            _dir: dir,
        })
    }

    /// How to reach one member.
    pub fn endpoint(&self, member: usize) -> Endpoint {
        self.members[member].endpoint()
    }

    /// How to reach all members.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// A client of all members with a short deadline.
    pub fn client(&self) -> Client {
        Client::new(self.endpoints(), Duration::from_secs(5))
    }

    /// The client port of one member on 127.0.0.1.
    pub fn port(&self, member: usize) -> u16 {
        self.members[member].client_port
    }

    /// Cuts a member off from the others; its clients still reach it.
    pub fn isolate(&self, member: usize) {
        let others = || (0..self.peers.len()).filter(|&other| other != member);
        // It has sent to all others, and never to itself.
        let sent_to = |i: usize| self.peers[i].senders();
        let own = super::eventually("the members know each other", || {
            let mut senders = sent_to(others().next()?);
            others().for_each(|other| senders.retain(|it| sent_to(other).contains(it)));
            senders.retain(|it| !sent_to(member).contains(it));
            (senders.len() == 1).then(|| senders.pop_first())?
        });
        self.peers[member].blackhole();
        for other in others() {
            self.peers[other].blackhole_those(format!("{SENDER}{own}").as_bytes());
        }
    }

    /// Ends what [`isolate`](Self::isolate) did.
    pub fn join(&self) {
        // What was under way is lost, as in a network that drops it.
        self.peers.iter().for_each(Proxy::cut);
        self.peers.iter().for_each(Proxy::pass);
    }

    /// The member that leads, if one does.
    pub fn leader(&self) -> Option<usize> {
        let status = |i: usize| -> Option<serde_json::Value> {
            let url = format!("{}/v3/maintenance/status", self.endpoint(i));
            let mut reply = ureq::post(url).send("{}").ok()?;
            serde_json::from_str(&reply.body_mut().read_to_string().ok()?).ok()
        };
        (0..self.members.len()).find(|&i| {
            status(i).is_some_and(|status| status["leader"] == status["header"]["member_id"])
        })
    }

    /// SIGSTOP: the member is silent, its kernel still takes connections.
    pub fn stop(&self, member: usize) {
        self.members[member].signal(Signal::SIGSTOP);
    }

    /// SIGCONT, after [`stop`](Self::stop).
    pub fn cont(&self, member: usize) {
        self.members[member].signal(Signal::SIGCONT);
    }

    /// The disk of a member, if it was started [on one](Self::start_on_disks).
    pub fn disk(&self, member: usize) -> &Disk {
        &self.disks[member]
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self, member: usize) {
        self.members[member].end(Signal::SIGKILL);
    }

    /// SIGTERM, and waits for its orderly end.
    pub fn terminate(&mut self, member: usize) {
        self.members[member].end(Signal::SIGTERM);
    }

    /// Starts a member that ended again, on its data, without waiting for its answer.
    pub fn spawn(&mut self, member: usize) {
        self.members[member].spawn();
    }

    /// Removes the data of a member that ended.
    pub fn lose_data(&self, member: usize) {
        let args = &self.members[member].args;
        let dir = args.iter().skip_while(|arg| *arg != "--data-dir").nth(1);
        fs::remove_dir_all(dir.unwrap()).unwrap();
    }

    /// Starts a member again on its data (ending it first if it runs), until it answers.
    pub fn restart(&mut self, member: usize) {
        self.members[member].end(Signal::SIGTERM);
        for _ in 0..5 {
            self.members[member].spawn();
            match until_ready(&mut self.members[member..=member]) {
                Ok(()) => return,
                // Its port may have been taken meanwhile, by a connection of someone else.
                Err(log) => eprintln!("etcd ended again:\n{log}"),
            }
        }
        panic!("etcd does not start again");
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // A process that waits for a stalled disk does not end, not even by SIGKILL.
        self.disks.iter().for_each(|disk| drop(disk.thaw()));
    }
}

/// A single etcd: a cluster of one member.
pub struct Etcd(EtcdCluster);

impl Etcd {
    /// Starts etcd and waits until it answers.
    pub fn start() -> Etcd {
        Etcd(EtcdCluster::start(1))
    }

    /// As [`start`](Self::start), with its data in memory if the machine has a place for that, so that it is
    /// never the disk that is measured.
    pub fn start_in_memory() -> Etcd {
        let tmpfs = Path::new("/dev/shm");
        match tmpfs.is_dir() {
            true => Etcd(EtcdCluster::start_in(tmpfs, 1)),
            false => Etcd::start(),
        }
    }

    /// How to reach it.
    pub fn endpoint(&self) -> Endpoint {
        self.0.endpoint(0)
    }

    /// A client of it with a generous deadline.
    pub fn client(&self) -> Client {
        self.0.client()
    }

    /// Its client port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.0.port(0)
    }

    /// Its own counters, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.endpoint());
        let mut reply = ureq::get(url).call().unwrap();
        reply.body_mut().read_to_string().unwrap()
    }

    /// The one of them that has this name and no labels.
    pub fn figure(&self, name: &str) -> Option<f64> {
        let metrics = self.metrics();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// SIGSTOP: it is silent, its kernel still takes connections.
    pub fn stop(&self) {
        self.0.stop(0);
    }

    /// SIGCONT, after [`stop`](Self::stop).
    pub fn cont(&self) {
        self.0.cont(0);
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.0.kill(0);
    }

    /// SIGTERM, and waits for its orderly end.
    pub fn terminate(&mut self) {
        self.0.terminate(0);
    }

    /// Starts it again on its data (ending it first if it runs), until it answers.
    pub fn restart(&mut self) {
        self.0.restart(0);
    }

    /// Starts it again on nothing: its data are lost.
    pub fn lose_data(&mut self) {
        self.kill();
        self.0.lose_data(0);
        self.restart();
    }
}
