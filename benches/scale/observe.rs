//! What happens in etcd to rows and registrations, from its watches.
//!
//! Registrations are watched as they happen, with a thread and a connection of their own; rows too, or they are
//! read when it is over (see `replay`). Made to cost little beside what it watches: a line is searched for the
//! few parts that count instead of being parsed, and each waiting thread is woken after each line.

#[path = "replay.rs"]
mod replay;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use replay::Replay;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wmgwd::etcd::Endpoint;
use wmgwd::model::types::{NodeName, Revision};

/// How often a long wait says how far it is.
const REPORT: Duration = Duration::from_secs(5);
/// Whoever waits looks this often, even if nothing is seen.
const BLINK: Duration = Duration::from_millis(100);
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

/// Takes a change: the rest of its key, its value as it stands in JSON, whether it is a deletion.
type Take = fn(&mut View, &str, &str, bool);

struct Shared {
    view: Mutex<View>,
    changed: Condvar,
}

/// Watches until it is dropped with its etcd.
pub struct Observer {
    shared: Arc<Shared>,
    etcd: Endpoint,
    /// `None` if rows are watched as they change.
    replay: Option<Mutex<Replay>>,
}

/// The prefix of every key that a node writes.
const ALL: &str = "/wmgwd/";
const NODES: &str = "/wmgwd/node/";
const ROWS: &str = "/wmgwd/vni/";

impl Observer {
    /// Watches the rows of VNIs 1 to `vnis` and the registrations of `names`, from now on.
    #[allow(dead_code)]
    pub fn start(etcd: &Endpoint, names: &[NodeName], vnis: u32) -> Observer {
        let observer = Observer::new(etcd, names, vnis, None);
        let (shared, prefix) = (Arc::clone(&observer.shared), ROWS);
        let lines = Lines::open(etcd, prefix, None);
        thread::spawn(move || lines.follow(&shared, prefix, View::take_row));
        observer
    }

    /// The same, where rows are read after they have changed, so that this is no load while they do.
    #[allow(dead_code)]
    pub fn start_in_hindsight(etcd: &Endpoint, names: &[NodeName], vnis: u32) -> Observer {
        Observer::new(etcd, names, vnis, Some(Mutex::new(Replay::start(etcd))))
    }

    fn new(
        etcd: &Endpoint,
        names: &[NodeName],
        vnis: u32,
        replay: Option<Mutex<Replay>>,
    ) -> Observer {
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
        let lines = Lines::open(etcd, NODES, None);
        let view = Arc::clone(&shared);
        thread::spawn(move || lines.follow(&view, NODES, View::take_node));
        Observer {
            shared,
            etcd: etcd.clone(),
            replay,
        }
    }

    /// Looks at what is known.
    pub fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        self.catch_up(true);
        look(&self.shared.view.lock().unwrap())
    }

    /// Up to this revision, nothing has happened to rows since the last look.
    #[allow(dead_code)]
    pub fn skip(&self, revision: Revision) {
        if let Some(replay) = &self.replay {
            replay.lock().unwrap().has_read(revision.0 as u64);
        }
    }

    /// Reads what happened to rows, if they are not watched and it is time.
    fn catch_up(&self, at_once: bool) {
        let Some(replay) = &self.replay else { return };
        let mut replay = replay.lock().unwrap();
        let Some((first, last)) = replay.due(at_once) else {
            return;
        };
        let clock = replay.clock();
        let mut lines = Lines::open(&self.etcd, ALL, Some(first));
        let mut read = 0;
        while read < last {
            let Some(line) = lines.next() else { return };
            let mut view = self.shared.view.lock().unwrap();
            read = view.digest(&line, ROWS, View::take_row, |revision| clock.of(revision));
            // It may be more than was asked for.
            replay.has_read(read);
        }
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
        loop {
            self.catch_up(false);
            let view = self.shared.view.lock().unwrap();
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
            drop(self.shared.changed.wait_timeout(view, BLINK).unwrap());
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

    /// Hands the changes of a line that are below `prefix` to `take`; `when` knows when each revision came. The
    /// last revision of the line, or 0.
    fn digest(
        &mut self,
        line: &str,
        prefix: &str,
        take: Take,
        when: impl Fn(u64) -> Instant,
    ) -> u64 {
        self.bytes += line.len() as u64;
        let mut last = 0;
        for (key, value, revision, deleted) in changes(line) {
            let key = STANDARD.decode(key).unwrap_or_default();
            let key = std::str::from_utf8(&key).unwrap_or_default();
            last = revision.parse().unwrap_or(last);
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            if self.revision != revision {
                self.revision.replace_range(.., revision);
                self.revisions += 1;
            }
            self.at = when(last);
            take(self, rest, value, deleted);
        }
        last
    }

    fn take_node(&mut self, key: &str, _: &str, deleted: bool) {
        let name = key.to_owned();
        if deleted {
            self.registered.remove(&name);
            self.gone.insert(name, self.at);
        } else {
            self.registered.entry(name).or_insert(self.at);
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
                    self.claims.push(self.at);
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

/// The lines of a watch.
pub struct Lines {
    reader: BufReader<ureq::BodyReader<'static>>,
}

impl Lines {
    /// Of all that happens below `prefix` from now on, or from a revision on. Returns once etcd has confirmed it.
    pub fn open(etcd: &Endpoint, prefix: &str, from: Option<u64>) -> Lines {
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let (key, end) = (STANDARD.encode(prefix), STANDARD.encode(end));
        let from = from.map_or(String::new(), |it| format!(r#","start_revision":"{it}""#));
        let request =
            format!(r#"{{"create_request":{{"key":"{key}","range_end":"{end}"{from}}}}}"#);
        let reply = ureq::post(format!("{etcd}/v3/watch"))
            .send(request)
            .unwrap();
        let reader = BufReader::with_capacity(1 << 20, reply.into_body().into_reader());
        let mut lines = Lines { reader };
        lines.next().expect("etcd confirms the watch");
        lines
    }

    /// The next line; an etcd that ends, ends this.
    pub fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line);
        matches!(read, Ok(1..)).then_some(line)
    }

    /// Hands each change to `take`, as it comes.
    fn follow(mut self, shared: &Shared, prefix: &str, take: Take) {
        while let Some(line) = self.next() {
            let at = Instant::now();
            let mut view = shared.view.lock().unwrap();
            view.digest(&line, prefix, take, |_| at);
            drop(view);
            shared.changed.notify_all();
        }
    }
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
