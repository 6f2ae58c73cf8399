//! What happens in etcd, seen by one watch of rows and one of registrations.
//!
//! Owns a thread and a connection for each. Made to cost little beside what it watches: a line is searched
//! for the few parts that count instead of being parsed, and whoever waits is told after each line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::Endpoint;
use wmgwd::types::NodeName;

/// How often a long wait says how far it is.
const REPORT: Duration = Duration::from_secs(5);
/// The values of `type` of an idle row and of one that is claimed from nobody, in base64.
const IDLE: &str = "MQ==";
const CLAIMED: &str = "MTA=";
/// Nobody, as an index of a node.
const NOBODY: usize = usize::MAX;

/// What is known so far.
pub struct View {
    /// Base64 of the names, as they stand in values.
    names: Vec<String>,
    rows: Vec<Row>,
    /// Idle rows by owner.
    idle_at: Vec<usize>,
    /// When each registered node appeared, by name.
    pub registered: BTreeMap<String, Instant>,
    /// When each node that was registered disappeared.
    pub gone: BTreeMap<String, Instant>,
    /// When the last change of a row was seen.
    pub at: Instant,
    /// When each claim of a row without an owner was seen.
    claims: Vec<Instant>,
    /// Writes of rows so far.
    pub puts: u64,
    /// Deletions (a lease that ended) so far.
    pub deletes: u64,
    /// Revisions that changed rows so far: no less than the transactions.
    pub revisions: u64,
    /// Bytes of all lines so far.
    pub bytes: u64,
    revision: String,
}

#[derive(Clone, Copy)]
struct Row {
    is_idle: bool,
    owner: usize,
}

/// What was not seen in time.
#[derive(Debug)]
pub struct Stuck(pub String);

struct Shared {
    view: Mutex<View>,
    changed: Condvar,
}

/// Watches until it is dropped with its etcd.
pub struct Observer {
    shared: Arc<Shared>,
}

impl Observer {
    /// Watches the rows of VNIs 1 to `vnis` and the registrations of `names`, from now on.
    pub fn start(etcd: &Endpoint, names: &[NodeName], vnis: u32) -> Observer {
        let nobody = Row {
            is_idle: false,
            owner: NOBODY,
        };
        let view = View {
            names: names
                .iter()
                .map(|it| STANDARD.encode(it.as_str()))
                .collect(),
            rows: vec![nobody; vnis as usize + 1],
            idle_at: vec![0; names.len()],
            registered: BTreeMap::new(),
            gone: BTreeMap::new(),
            at: Instant::now(),
            claims: Vec::new(),
            puts: 0,
            deletes: 0,
            revisions: 0,
            bytes: 0,
            revision: String::new(),
        };
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            changed: Condvar::new(),
        });
        // Registrations on a connection of their own: a short line, before the long one of the same lease.
        follow(etcd, "/wmgwd/node/", &shared, View::take_node);
        follow(etcd, "/wmgwd/vni/", &shared, View::take_row);
        Observer { shared }
    }

    /// Looks at what is known.
    pub fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.shared.view.lock().unwrap())
    }

    /// Waits until `done` has an answer; says how far it is now and then.
    ///
    /// # Errors
    /// Not within `patience`.
    pub fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&View) -> Option<T>,
    ) -> Result<T, Stuck> {
        let begun = Instant::now();
        let mut report = begun + REPORT;
        let mut view = self.shared.view.lock().unwrap();
        loop {
            if let Some(answer) = done(&view) {
                return Ok(answer);
            }
            let now = Instant::now();
            if now >= report {
                report = now + REPORT;
                let (after, all) = (begun.elapsed().as_secs(), view.rows.len() - 1);
                eprintln!("  {after:>4} s {what}: {} of {all} idle", view.idle());
            }
            if begun.elapsed() > patience {
                let idle = view.idle();
                return Err(Stuck(format!("{what}: not in {patience:?} ({idle} idle)")));
            }
            let wait = self.shared.changed.wait_timeout(view, REPORT / 10);
            view = wait.unwrap().0;
        }
    }
}

impl View {
    /// How many rows are idle.
    pub fn idle(&self) -> usize {
        self.idle_at.iter().sum()
    }

    /// How many rows are idle at the node of this index.
    pub fn idle_at(&self, node: usize) -> usize {
        self.idle_at[node]
    }

    /// Whether each VNI is idle.
    pub fn is_all_idle(&self) -> bool {
        self.idle() == self.rows.len() - 1
    }

    /// Whether each VNI is idle at the node of the index that `owner` says.
    pub fn is_idle_at(&self, owners: &[usize]) -> bool {
        let rows = self.rows.iter().skip(1);
        self.is_all_idle() && rows.zip(owners).all(|(row, owner)| row.owner == *owner)
    }

    /// When the first claim of a row without an owner was seen after `mark`.
    #[allow(dead_code)]
    pub fn first_claim_since(&self, mark: Instant) -> Option<Instant> {
        self.claims.iter().copied().find(|claim| *claim > mark)
    }

    fn take_node(&mut self, key: &str, _: &str, deleted: bool) {
        let name = key.to_owned();
        if deleted {
            self.registered.remove(&name);
            self.gone.insert(name, Instant::now());
        } else {
            self.registered.entry(name).or_insert_with(Instant::now);
        }
    }

    fn take_row(&mut self, key: &str, value: &str, deleted: bool) {
        let counter = if deleted {
            &mut self.deletes
        } else {
            &mut self.puts
        };
        *counter += 1;
        let Some((vni, part)) = key.split_once('/') else {
            return;
        };
        let vni: usize = vni.parse().unwrap_or(0);
        let Some(mut row) = self.rows.get(vni).copied() else {
            return;
        };
        match part {
            "type" => {
                row.is_idle = value == IDLE;
                if value == CLAIMED {
                    self.claims.push(Instant::now());
                }
            }
            "current" => {
                let owner = self.names.iter().position(|name| name == value);
                row.owner = owner.unwrap_or(NOBODY);
            }
            _ => return,
        }
        let before = std::mem::replace(&mut self.rows[vni], row);
        if before.is_idle && before.owner != NOBODY {
            self.idle_at[before.owner] -= 1;
        }
        if row.is_idle && row.owner != NOBODY {
            self.idle_at[row.owner] += 1;
        }
    }
}

/// Hands each change below `prefix` to `take`, with the rest of its key and its value as it stands in JSON.
/// Returns once etcd has confirmed the watch.
fn follow(
    etcd: &Endpoint,
    prefix: &'static str,
    shared: &Arc<Shared>,
    take: fn(&mut View, &str, &str, bool),
) {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let (key, end) = (STANDARD.encode(prefix), STANDARD.encode(end));
    let request = format!(r#"{{"create_request":{{"key":"{key}","range_end":"{end}"}}}}"#);
    let reply = ureq::post(format!("{etcd}/v3/watch"))
        .send(request)
        .unwrap();
    let mut reader = BufReader::with_capacity(1 << 20, reply.into_body().into_reader());
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).unwrap();
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        loop {
            line.clear();
            // An etcd that ends, ends this.
            if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                return;
            }
            let at = Instant::now();
            let text = std::str::from_utf8(&line).unwrap_or_default();
            let mut view = shared.view.lock().unwrap();
            view.bytes += line.len() as u64;
            for (key, value, revision, deleted) in changes(text) {
                if view.revision != revision {
                    view.revision.replace_range(.., revision);
                    view.revisions += 1;
                }
                let key = STANDARD.decode(key).unwrap_or_default();
                let key = std::str::from_utf8(&key).unwrap_or_default();
                if let Some(rest) = key.strip_prefix(prefix) {
                    take(&mut view, rest, value, deleted);
                    view.at = at;
                }
            }
            drop(view);
            shared.changed.notify_all();
        }
    });
}

/// The changes of a line: key, value, revision, and whether it is a deletion.
fn changes(line: &str) -> impl Iterator<Item = (&str, &str, &str, bool)> {
    let mut parts = line.split("\"kv\":{");
    let mut before = parts.next().unwrap_or_default();
    parts.map(move |part| {
        let deleted = before.ends_with("\"type\":\"DELETE\",");
        before = part;
        let field = |name: &str| {
            let from = part.split_once(name).map_or("", |(_, rest)| rest);
            from.split('"').next().unwrap_or_default()
        };
        let value = field("\"value\":\"");
        (
            field("\"key\":\""),
            value,
            field("\"mod_revision\":\""),
            deleted,
        )
    })
}
