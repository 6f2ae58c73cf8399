//! A cluster of daemons with mock hosts on an etcd in memory, and what can happen to it.

use crate::common::etcd::Etcd;
use crate::common::node::{Node, peak_memory, ring_of, scatter};
use crate::observe::{Observer, Stuck};
use crate::requests::Requests;
use std::time::{Duration, Instant};
use wmgwd::model::types::{NodeName, Vni};

/// The lease of the daemons, in seconds.
pub const TTL: u64 = 3;
/// How long a node is registered before it pulls VNIs from living owners.
pub const JOIN_HOLD: Duration = Duration::from_secs(5);
/// Points of a node, as many as a daemon draws by itself; the same in every run, so that the shares are too.
const POINTS: u64 = 100;

/// The daemons, what they stand on and what is seen of them.
pub struct Cluster {
    /// The etcd.
    pub etcd: Etcd,
    /// The gateways.
    pub nodes: Vec<Node>,
    /// What is seen of them.
    pub observer: Observer,
    /// VNIs 1 to this one.
    pub vnis: u32,
    /// How long anything may take.
    pub patience: Duration,
}

/// What one step took.
#[derive(Clone, Debug)]
pub struct Step {
    /// From the moment that counts until the end.
    pub time: Duration,
    /// How many VNIs moved.
    pub vnis: usize,
    /// Writes of rows.
    pub puts: u64,
    /// Revisions that changed rows.
    pub revisions: u64,
    /// What etcd was asked, by all nodes.
    pub requests: Requests,
    /// The CPU time that etcd took, in seconds.
    pub cpu: f64,
    /// How many nodes watched.
    pub watches: usize,
    /// From the death of a node until the end.
    pub since_death: Option<Duration>,
}

/// How far things were when a step began.
struct Mark {
    puts: u64,
    revisions: u64,
    requests: Requests,
    cpu: f64,
}

/// The CPU time that etcd has taken so far, in seconds.
pub fn cpu_seconds(etcd: &Etcd) -> f64 {
    etcd.figure("process_cpu_seconds_total").unwrap_or(0.0)
}

impl Cluster {
    /// An etcd and `count` nodes that do not run yet, with hosts that cost the daemons nothing.
    pub fn new(count: u64, vnis: u32, patience: Duration) -> Cluster {
        Cluster::with(count, vnis, patience, Node::unmirrored)
    }

    /// The same, where `shape` makes of each node what is wanted.
    pub fn with(
        count: u64,
        vnis: u32,
        patience: Duration,
        shape: impl Fn(Node) -> Node,
    ) -> Cluster {
        let etcd = Etcd::start_in_memory();
        let node = |number: u64| {
            let points = (0..POINTS).map(|i| scatter(number * 1000 + i)).collect();
            shape(Node::new(number, etcd.endpoint()))
                .with_points(points)
                .with("--maxvni", vnis)
                .with("--settle", "")
                .with("--drain-timeout", patience.as_secs())
                .with("--join-hold", JOIN_HOLD.as_secs())
                .with("--lease-ttl", TTL)
                .with("--detect-window", "")
        };
        let nodes: Vec<Node> = (1..=count).map(node).collect();
        let names: Vec<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
        let observer = Observer::start_in_hindsight(&etcd.endpoint(), &names, vnis);
        Cluster {
            etcd,
            nodes,
            observer,
            vnis,
            patience,
        }
    }

    fn mark(&self) -> Mark {
        let requests = Requests::of(&self.etcd);
        let cpu = cpu_seconds(&self.etcd);
        self.observer.look(|view| Mark {
            puts: view.puts,
            revisions: view.revisions,
            requests,
            cpu,
        })
    }

    /// The end of a step that began at `mark`.
    fn step(&self, mark: Mark, time: Duration, vnis: usize) -> Step {
        let requests = &Requests::of(&self.etcd) - &mark.requests;
        let cpu = cpu_seconds(&self.etcd) - mark.cpu;
        let watches = self.nodes.iter().filter(|it| it.is_started()).count();
        self.observer.look(|view| Step {
            time,
            vnis,
            puts: view.puts - mark.puts,
            revisions: view.revisions - mark.revisions,
            requests,
            cpu,
            watches,
            since_death: None,
        })
    }

    /// Starts all nodes: from then until every VNI is idle.
    ///
    /// # Errors
    /// As all steps: it does not come to an end.
    pub fn start(&mut self) -> Result<Step, Stuck> {
        let mark = self.mark();
        let begun = Instant::now();
        self.nodes.iter_mut().for_each(Node::start);
        let end = self.observer.until("start", self.patience, |view| {
            view.is_all_idle().then_some(view.at)
        })?;
        Ok(self.step(mark, end - begun, self.vnis as usize))
    }

    /// Waits until every VNI is idle where the ring of the nodes that run has it.
    pub fn balance(&self) -> Result<(), Stuck> {
        let owners = self.owners();
        let balanced = |view: &crate::observe::View| view.is_idle_at(&owners).then_some(());
        self.observer.until("balance", self.patience, balanced)
    }

    /// Has `put` write to etcd what is nobody's row, while the nodes have nothing to do.
    pub fn aside<T>(&self, put: impl FnOnce(&Etcd) -> T) -> T {
        let look = Duration::from_millis(500);
        let deadline = Instant::now() + self.patience;
        loop {
            let before = cpu_seconds(&self.etcd);
            std::thread::sleep(look);
            let busy = cpu_seconds(&self.etcd) - before;
            if busy < look.as_secs_f64() / 3.0 || Instant::now() > deadline {
                break;
            }
        }
        self.observer.look(|_| ());
        let result = put(&self.etcd);
        let revision = self.etcd.client().revision(b"/wmgwd/").unwrap();
        self.observer.skip(revision);
        result
    }

    /// The index of the node that ought to own each VNI, of those that run.
    fn owners(&self) -> Vec<usize> {
        let running: Vec<&Node> = self.nodes.iter().filter(|it| it.is_started()).collect();
        let ring = ring_of(&running);
        let owner = |number| {
            let owner = ring.owner(Vni::new(number).unwrap());
            let index = self.nodes.iter().position(|it| Some(&it.name) == owner);
            index.expect("some node runs")
        };
        (1..=self.vnis).map(owner).collect()
    }

    /// A machine dies, with daemon and guard: from when its key disappears until all its VNIs are idle
    /// elsewhere. What etcd is asked counts from the death on, so with the wait for the lease.
    pub fn failover(&mut self, victim: usize) -> Result<Step, Stuck> {
        let vnis = self.observer.look(|view| view.idle_at(victim));
        let mark = self.mark();
        let name = self.nodes[victim].name.to_string();
        let killed = Instant::now();
        self.nodes[victim].kill_guard();
        self.nodes[victim].kill9();
        // The daemon may have started another one in between.
        self.nodes[victim].kill_guard();
        let (begun, end) = self.observer.until("failover", self.patience, |view| {
            let begun = view.gone.get(&name)?;
            let is_over = view.is_all_idle() && view.idle_at(victim) == 0;
            is_over.then_some((*begun, view.at))
        })?;
        Ok(Step {
            since_death: Some(end - killed),
            ..self.step(mark, end - begun, vnis)
        })
    }

    /// The signs of a node turn bad: from then until all its VNIs are idle elsewhere.
    pub fn release(&mut self, leaver: usize) -> Result<Step, Stuck> {
        let vnis = self.observer.look(|view| view.idle_at(leaver));
        let mark = self.mark();
        let begun = Instant::now();
        self.nodes[leaver].set_bad_signs("fabric-link");
        let end = self.observer.until("release", self.patience, |view| {
            let is_over = view.is_all_idle() && view.idle_at(leaver) == 0;
            is_over.then_some(view.at)
        })?;
        Ok(self.step(mark, end.saturating_duration_since(begun), vnis))
    }

    /// A node that does not run joins: from the end of its hold until its share is idle there.
    pub fn join(&mut self, joiner: usize) -> Result<Step, Stuck> {
        let mark = self.mark();
        self.nodes[joiner].start();
        let owners = self.owners();
        let name = self.nodes[joiner].name.to_string();
        let (registered, end) = self.observer.until("join", self.patience, |view| {
            let registered = view.registered.get(&name)?;
            view.is_idle_at(&owners).then_some((*registered, view.at))
        })?;
        let vnis = self.observer.look(|view| view.idle_at(joiner));
        Ok(self.step(
            mark,
            end.saturating_duration_since(registered + JOIN_HOLD),
            vnis,
        ))
    }

    /// A node drains: from the signal until it has ended.
    pub fn drain(&mut self, leaver: usize) -> Result<Step, Stuck> {
        let vnis = self.observer.look(|view| view.idle_at(leaver));
        let mark = self.mark();
        let begun = Instant::now();
        self.nodes[leaver].term();
        let status = loop {
            if let Some(status) = self.nodes[leaver].has_ended() {
                break status;
            }
            if begun.elapsed() > self.patience {
                return Err(Stuck(format!("drain: not in {:?}", self.patience)));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let time = begun.elapsed();
        assert!(status.success(), "a drain ends well: {status}");
        let over = |view: &crate::observe::View| {
            (view.is_all_idle() && view.idle_at(leaver) == 0).then_some(())
        };
        self.observer
            .until("all idle elsewhere", self.patience, over)?;
        Ok(self.step(mark, time, vnis))
    }

    /// The most memory that any node that runs has had, in kB.
    pub fn peak_memory(&self) -> u64 {
        let running = self.nodes.iter().filter(|node| node.is_started());
        running.map(|it| peak_memory(it.pid())).max().unwrap_or(0)
    }
}
