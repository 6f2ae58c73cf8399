//! A gateway of the Go program, written anew from what it does to etcd and to its host, so that it can
//! disagree with us: nothing of this crate is used here, neither ring nor keys nor client.
//!
//! It acts on events and undoes nothing. Each event of a row has it read the row's three keys anew and act on
//! what it read, in a thread of its own, whatever the others do; three puts are three events. It waits in
//! types 3, 4, 7 and 10 and resets to 0 what lacks a name. On each change of a node, each 30 s and on seeing
//! type 0 it claims what its ring gives it; when it looks at all rows for that, the revision that its writes
//! are conditional on is newer than the rows that it read. It knows no fence: it withdraws when it notices
//! that its lease is gone, then begins anew.

mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};
use wire::{Row, delete, number, put, read_ring, read_rows, ring_owner, text};

/// Its lease, in seconds.
const TTL: i64 = 3;
/// How often it looks at all rows without a reason.
const SCAN: Duration = Duration::from_secs(30);
/// One gratuitous ARP in each of so many parts of the wait in type 10.
const ANNOUNCEMENTS: u32 = 10;
/// The waits of the Go program.
pub const REAL_WAIT: Duration = Duration::from_secs(10);
/// Waits for tests that are about something else.
pub const SHORT_WAIT: Duration = Duration::from_millis(150);

/// A node of the Go program: threads that play it until it ends.
pub struct GoNode {
    peer: Arc<Peer>,
}

impl GoNode {
    /// Starts the program as `name` on the host that is mirrored into `host`: it withdraws everything there,
    /// registers and plays.
    pub fn start(
        etcd: impl ToString,
        name: &str,
        points: &[u64],
        vnis: u32,
        host: &Path,
        wait: Duration,
    ) -> GoNode {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(1)))
            .timeout_recv_response(Some(Duration::from_secs(2)))
            .timeout_recv_body(Some(Duration::from_secs(4)))
            .build()
            .into();
        let host = OpenOptions::new()
            .write(true)
            .open(host.join("exposure"))
            .unwrap();
        let peer = Arc::new(Peer {
            etcd: etcd.to_string().trim_end_matches('/').to_owned(),
            agent,
            name: name.to_owned(),
            points: points.to_vec(),
            vnis,
            wait,
            host,
            alive: RwLock::new(true),
            draining: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            lease: AtomicI64::new(0),
            steps: Mutex::default(),
        });
        peer.withdraw_all();
        let (life, watch) = (peer.clone(), peer.clone());
        thread::spawn(move || life.live());
        thread::spawn(move || watch.watch());
        GoNode { peer }
    }

    /// Its power is cut: it writes nothing from now on, and its host shows nothing.
    pub fn crash(&self) {
        *self.peer.alive.write().unwrap() = false;
        self.peer.withdraw_all();
    }

    /// SIGTERM: it leaves the ring by deleting its node key, plays on until no VNI names it as owner, then
    /// withdraws all and ends.
    pub fn drain(&self) {
        self.peer.draining.store(true, Ordering::SeqCst);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        !self.peer.is_alive()
    }

    /// How often it wrote which type.
    pub fn steps(&self) -> BTreeMap<u64, usize> {
        self.peer.steps.lock().unwrap().clone()
    }
}

impl Drop for GoNode {
    fn drop(&mut self) {
        *self.peer.alive.write().unwrap() = false;
    }
}

struct Peer {
    etcd: String,
    agent: ureq::Agent,
    name: String,
    points: Vec<u64>,
    vnis: u32,
    wait: Duration,
    host: File,
    /// Held for reading while it writes to etcd or its host: nothing is written once this is false.
    alive: RwLock<bool>,
    draining: AtomicBool,
    /// It has begun to watch etcd: what it claims before that, it would never hear of.
    watching: AtomicBool,
    /// 0 while it has none.
    lease: AtomicI64,
    steps: Mutex<BTreeMap<u64, usize>>,
}

/// What the network sees of one VNI: where in the four bytes of the host's file.
enum Show {
    Arp(bool),
    Evpn(bool),
    Cost(u16),
}

impl Peer {
    fn is_alive(&self) -> bool {
        *self.alive.read().unwrap()
    }

    /// Waits, unless it dies first; says whether it still lives.
    fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_alive() {
                return self.is_alive();
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    fn show(&self, vni: u32, what: Show) {
        let alive = self.alive.read().unwrap();
        if *alive {
            self.put_on_show(vni, what);
        }
    }

    fn put_on_show(&self, vni: u32, what: Show) {
        let at = 4 * u64::from(vni);
        let (offset, bytes) = match what {
            Show::Arp(on) => (0, vec![u8::from(on)]),
            Show::Evpn(on) => (1, vec![u8::from(on)]),
            Show::Cost(cost) => (2, cost.to_be_bytes().to_vec()),
        };
        self.host.write_all_at(&bytes, at + offset).unwrap();
    }

    fn withdraw_all(&self) {
        for vni in 1..=self.vnis {
            self.put_on_show(vni, Show::Arp(false));
            self.put_on_show(vni, Show::Evpn(false));
            self.put_on_show(vni, Show::Cost(u16::MAX));
        }
    }

    /// Connected, disconnected, connected: until it dies or has drained.
    fn live(self: &Arc<Peer>) {
        while self.is_alive() {
            let watching = self.watching.load(Ordering::SeqCst);
            let lease = watching.then(|| self.grant()).flatten();
            if let Some(lease) = lease {
                self.lease.store(lease, Ordering::SeqCst);
                self.connected(lease);
                self.lease.store(0, Ordering::SeqCst);
            }
            if self.is_alive() {
                self.withdraw_all();
            }
            self.sleep(Duration::from_millis(if watching { 300 } else { 20 }));
        }
    }

    fn grant(&self) -> Option<i64> {
        number(&self.call("lease/grant", &json!({ "TTL": TTL }))?["ID"])
    }

    /// Until the lease is found to be gone.
    fn connected(self: &Arc<Peer>, lease: i64) {
        let node = format!("/wmgwd/node/{}", self.name);
        if !self.draining.load(Ordering::SeqCst) {
            let points = json!(self.points).to_string();
            self.txn(&[], vec![put(&node, &points, lease)]);
        }
        self.spawn(|peer| peer.claim_all());
        let (mut renewed, mut scanned) = (Instant::now(), Instant::now());
        let mut has_left = false;
        let lasts = Duration::from_secs(TTL.unsigned_abs());
        loop {
            if !self.sleep(lasts / 15) {
                return;
            }
            if self.draining.load(Ordering::SeqCst) {
                if !has_left {
                    has_left = self.txn(&[], vec![delete(&node)]).is_some();
                } else if self.owns_nothing() {
                    self.withdraw_all();
                    *self.alive.write().unwrap() = false;
                    return;
                }
            }
            if scanned.elapsed() > SCAN {
                scanned = Instant::now();
                self.spawn(|peer| peer.claim_all());
            }
            if renewed.elapsed() < lasts / 3 {
                continue;
            }
            match self.call("lease/keepalive", &json!({ "ID": lease.to_string() })) {
                Some(reply) if number(&reply["result"]["TTL"]).is_some() => {
                    renewed = Instant::now();
                }
                Some(_) => return,
                None if renewed.elapsed() > lasts => return,
                None => {}
            }
        }
    }

    fn spawn(self: &Arc<Peer>, what: impl FnOnce(&Peer) + Send + 'static) {
        let peer = self.clone();
        thread::spawn(move || what(&peer));
    }

    /// Follows etcd. What happens while the watch is away is found by the next scan, or not at all.
    fn watch(self: &Arc<Peer>) {
        let mut from = None;
        while self.is_alive() {
            let mut request = json!({ "create_request": {
                "key": BASE64.encode("/wmgwd/"), "range_end": BASE64.encode("/wmgwd0"),
            }});
            if let Some(from) = from.take() {
                request["create_request"]["start_revision"] = json!(i64::to_string(&from));
            }
            let Ok(reply) = self.agent.post(self.url("watch")).send(request.to_string()) else {
                self.sleep(Duration::from_millis(200));
                continue;
            };
            let lines = BufReader::new(reply.into_body().into_reader()).lines();
            for line in lines.map_while(Result::ok) {
                let line: Json = serde_json::from_str(&line).unwrap_or_default();
                let result = &line["result"];
                let Some(revision) = number(&result["header"]["revision"]) else {
                    break;
                };
                from = Some(revision + 1);
                self.watching.store(true, Ordering::SeqCst);
                for event in result["events"].as_array().into_iter().flatten() {
                    self.noticed(&text(&event["kv"]["key"]));
                }
            }
        }
    }

    fn noticed(self: &Arc<Peer>, key: &str) {
        match key.split('/').collect::<Vec<_>>()[..] {
            ["", "wmgwd", "node", _] => self.spawn(|peer| peer.claim_all()),
            ["", "wmgwd", "vni", vni, _] => {
                if let Some(vni) = vni.parse().ok().filter(|vni| (1..=self.vnis).contains(vni)) {
                    self.spawn(move |peer| peer.act(vni));
                }
            }
            _ => {}
        }
    }

    /// One row has changed.
    fn act(&self, vni: u32) {
        let key = format!("/wmgwd/vni/{vni}/");
        let Some(reply) = self.range(&key, Some(&format!("/wmgwd/vni/{vni}0"))) else {
            return;
        };
        let row = read_rows(&reply).remove(&vni).unwrap_or_default();
        if let Some(revision) = number(&reply["header"]["revision"]) {
            self.step(vni, &row, revision);
        }
    }

    fn step(&self, vni: u32, row: &Row, revision: i64) {
        let me = self.name.as_str();
        let lease = self.lease.load(Ordering::SeqCst);
        if lease == 0 {
            return;
        }
        let (owner, successor) = (row.current == me, row.next == me);
        if row.lacks_a_name() {
            self.reset(vni, revision);
            return;
        }
        let mine = Some((me, lease));
        match row.kind {
            0 => self.claim(vni, row, revision, lease),
            2 if owner => self.write(vni, revision, 3, None, None),
            3 if successor => {
                self.show(vni, Show::Evpn(true));
                self.show(vni, Show::Cost(100));
                self.sleep(self.wait);
                self.write(vni, revision, 4, None, None);
            }
            4 if owner => {
                self.show(vni, Show::Cost(u16::MAX));
                self.sleep(self.wait);
                self.write(vni, revision, 5, None, None);
            }
            5 if successor => {
                self.show(vni, Show::Arp(true));
                self.write(vni, revision, 6, None, None);
            }
            6 if owner => {
                self.show(vni, Show::Arp(false));
                self.write(vni, revision, 7, None, None);
            }
            7 if successor => {
                self.sleep(self.wait);
                self.write(vni, revision, 8, None, None);
            }
            8 if owner => {
                self.show(vni, Show::Evpn(false));
                self.write(vni, revision, 9, None, None);
            }
            9 if successor => self.write(vni, revision, 1, mine, Some(("", 0))),
            10 if successor => {
                self.show(vni, Show::Evpn(true));
                self.show(vni, Show::Cost(100));
                self.show(vni, Show::Arp(true));
                for _ in 0..ANNOUNCEMENTS {
                    self.sleep(self.wait / ANNOUNCEMENTS);
                }
                self.write(vni, revision, 1, mine, Some(("", 0)));
            }
            _ => {}
        }
    }

    fn reset(&self, vni: u32, revision: i64) {
        let empty = Some(("", 0));
        self.write(vni, revision, 0, empty, empty);
    }

    /// Takes what the ring gives it, without an owner or from its owner.
    fn claim(&self, vni: u32, row: &Row, revision: i64, lease: i64) {
        let Some(nodes) = self.range("/wmgwd/node/", Some("/wmgwd/node0")) else {
            return;
        };
        self.claim_on(&read_ring(&nodes), vni, row, revision, lease);
    }

    fn claim_on(
        &self,
        ring: &BTreeMap<u64, String>,
        vni: u32,
        row: &Row,
        revision: i64,
        lease: i64,
    ) {
        if ring_owner(ring, vni) != Some(&self.name) {
            return;
        }
        let mine = Some((self.name.as_str(), lease));
        match row.kind {
            0 => self.write(vni, revision, 10, None, mine),
            1 if row.current != self.name => self.write(vni, revision, 2, None, mine),
            _ => {}
        }
    }

    /// Looks at all rows. The nodes are read last, and theirs is the revision that its writes rely on.
    fn claim_all(&self) {
        let read = || {
            let rows = self.range("/wmgwd/vni/", Some("/wmgwd/vni0"))?;
            let nodes = self.range("/wmgwd/node/", Some("/wmgwd/node0"))?;
            let revision = number(&nodes["header"]["revision"])?;
            Some((read_rows(&rows), read_ring(&nodes), revision))
        };
        let Some((mut rows, ring, revision)) = read() else {
            return;
        };
        let lease = self.lease.load(Ordering::SeqCst);
        if lease == 0 {
            return;
        }
        for vni in 1..=self.vnis {
            let row = rows.remove(&vni).unwrap_or_default();
            if row.lacks_a_name() {
                self.reset(vni, revision);
            } else {
                self.claim_on(&ring, vni, &row, revision, lease);
            }
        }
    }

    fn owns_nothing(&self) -> bool {
        let rows = self.range("/wmgwd/vni/", Some("/wmgwd/vni0"));
        rows.is_some_and(|rows| {
            let rows = read_rows(&rows);
            rows.values().all(|row| row.current != self.name)
        })
    }

    /// One transaction for the three keys of a row. Whether it held is not asked.
    fn write(
        &self,
        vni: u32,
        revision: i64,
        kind: u64,
        current: Option<(&str, i64)>,
        next: Option<(&str, i64)>,
    ) {
        let key = |part: &str| format!("/wmgwd/vni/{vni}/{part}");
        let mut puts = vec![put(&key("type"), &kind.to_string(), 0)];
        puts.extend(current.map(|(name, lease)| put(&key("current"), name, lease)));
        puts.extend(next.map(|(name, lease)| put(&key("next"), name, lease)));
        let unchanged = json!({
            "key": BASE64.encode(key("type")), "target": "MOD", "result": "LESS",
            "mod_revision": (revision + 1).to_string(),
        });
        let reply = self.txn(&[unchanged], puts);
        if reply.is_some_and(|reply| reply["succeeded"] == json!(true)) {
            *self.steps.lock().unwrap().entry(kind).or_default() += 1;
        }
    }

    fn txn(&self, conditions: &[Json], operations: Vec<Json>) -> Option<Json> {
        let alive = self.alive.read().unwrap();
        let txn = json!({ "compare": conditions, "success": operations });
        alive.then(|| self.call("kv/txn", &txn))?
    }

    fn range(&self, key: &str, end: Option<&str>) -> Option<Json> {
        let mut request = json!({ "key": BASE64.encode(key) });
        if let Some(end) = end {
            request["range_end"] = json!(BASE64.encode(end));
        }
        self.call("kv/range", &request)
    }

    fn call(&self, what: &str, request: &Json) -> Option<Json> {
        let reply = self.agent.post(self.url(what)).send(request.to_string());
        let mut reply = reply.ok().filter(|reply| reply.status() == 200)?;
        serde_json::from_str(&reply.body_mut().read_to_string().ok()?).ok()
    }

    fn url(&self, what: &str) -> String {
        format!("{}/v3/{what}", self.etcd)
    }
}
