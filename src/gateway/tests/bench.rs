//! A node on a bench: its clock, its etcd and its host are the test's own.

pub use crate::gateway::*;
pub use crate::model::fitness::Fitness;
use crate::model::fitness::SignSet;
pub use crate::model::frr::{Cost, FrrDaemons, Health, RouteChange};
pub use crate::model::fsm::{Kind, Write};
pub use crate::model::ring::{Points, Unable};
pub use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time, Vni, VniRange};
pub use crate::schema::{Batch, Change, Commit, CommitResult, Key, Meta, Value};
pub use std::collections::BTreeSet;
pub use std::time::Duration;

pub const LEASE: LeaseId = LeaseId(7);
pub const OTHERS_LEASE: LeaseId = LeaseId(8);
pub const JOIN_HOLD: u64 = 20;

/// How a node registers that can serve all and forward.
pub fn registration(points: Vec<u64>) -> Registration {
    Registration {
        lease: LEASE,
        points,
        drawn: None,
        unable: Unable::default(),
        fitness: Fitness::default(),
    }
}

pub fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A node `gw1` on a clock of its own, whose host does as it is told.
pub struct Bench {
    pub gateway: Gateway,
    pub now: Time,
    pub revision: i64,
    /// What the node told its watch, oldest first.
    pub watch: Vec<Effect>,
    /// VNIs without a bridge.
    pub missing: BTreeSet<Vni>,
    /// VNIs whose changes FRR refuses.
    pub refused: BTreeSet<Vni>,
    /// The VNIs that the node published as absent and as failing, oldest first.
    pub unable: Vec<(String, String)>,
}

impl Bench {
    pub fn new(vnis: u32) -> Bench {
        Bench::tracking(vnis, SignSet::ALL)
    }

    /// A node that heeds these signs.
    pub fn tracking(vnis: u32, track: SignSet) -> Bench {
        let config = Config {
            me: name("gw1"),
            range: VniRange::new(vni(1), vni(vnis)).unwrap(),
            points: Points::Given(vec![1 << 63]),
            fence_margin: secs(2),
            settle: secs(1),
            join_hold: secs(JOIN_HOLD),
            drain_timeout: secs(60),
            max_lease_life: secs(12),
            takeover_cost: Cost::OWNER,
            announces_itself: false,
            track,
            fit_hold: secs(10),
        };
        Bench {
            gateway: Gateway::new(config),
            now: Time::since_boot(secs(1_000)),
            revision: 1,
            watch: Vec::new(),
            missing: BTreeSet::new(),
            refused: BTreeSet::new(),
            unable: Vec::new(),
        }
    }

    /// As it is when everything is well: FRR runs, the host is clean, the node is registered.
    pub fn ready(vnis: u32) -> Bench {
        let mut bench = Bench::new(vnis);
        bench.lease();
        bench.observe(Event::Health(healthy()));
        bench.observe(Event::Snapshot {
            revision: Revision(1),
            changes: Vec::new(),
        });
        bench.settle();
        bench
    }

    pub fn observe(&mut self, event: Event) {
        self.gateway.observe(self.now, event);
    }

    pub fn lease(&mut self) {
        let lease = Lease {
            id: LEASE,
            valid_until: self.now + secs(10),
        };
        self.observe(Event::Lease(Some(lease)));
    }

    pub fn plan(&mut self) -> Vec<Effect> {
        self.gateway.plan(self.now)
    }

    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.lease();
    }

    /// The next plan with something in it besides ARP and announcements, which are carried out.
    pub fn next(&mut self) -> Vec<Effect> {
        for _ in 0..20 {
            let effects = self.plan();
            if effects.is_empty() {
                return effects;
            }
            let mut kept = Vec::new();
            for effect in effects {
                match effect {
                    Effect::SwitchArp(switches) => {
                        let done = |(vni, answers)| match self.missing.contains(&vni) {
                            true => (vni, ArpOutcome::Absent),
                            false => (vni, ArpOutcome::Answers(answers)),
                        };
                        let outcomes = switches.into_iter().map(done).collect();
                        self.observe(Event::ArpSwitched(outcomes));
                    }
                    Effect::Announce(vnis) => self.observe(Event::Announced(vnis)),
                    other => kept.push(other),
                }
            }
            if !kept.is_empty() {
                return kept;
            }
        }
        panic!("it plans for ever");
    }

    /// Carries out everything but writes of rows, which it hands over.
    pub fn settle(&mut self) -> Vec<Commit> {
        let mut commits = Vec::new();
        for _ in 0..20 {
            let effects = self.next();
            if effects.is_empty() {
                return commits;
            }
            for effect in effects {
                match effect {
                    Effect::ResetRoutes { parts, .. } => self.observe(Event::RoutesReset(parts)),
                    Effect::ChangeRoutes(changes) => {
                        let vnis = changes.iter().map(|change| change.vni);
                        let failed = vnis.filter(|vni| self.refused.contains(vni)).collect();
                        self.observe(Event::RoutesChanged { failed });
                    }
                    Effect::Register(Registration { ref unable, .. }) => {
                        let told = (unable.absent.to_string(), unable.failing.to_string());
                        self.unable.push(told);
                        self.registered(&effect);
                    }
                    Effect::Commit { rows, .. } => {
                        commits.extend(rows.iter());
                        // Later: the test says what becomes of it.
                        return commits;
                    }
                    Effect::PauseWatch | Effect::ResumeWatch => self.watch.push(effect),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("it plans for ever");
    }

    pub fn done(&mut self, rows: &[Commit]) {
        self.revision += 1;
        self.observe(Event::Committed(CommitOutcome::Done {
            revision: Revision(self.revision),
            lease: LEASE,
            each: rows
                .iter()
                .map(|row| (row.vni, row.write, CommitResult::Written))
                .collect(),
        }));
    }

    /// Takes over everything. Returns how many rows each transaction wrote.
    pub fn own_all(&mut self) -> Vec<usize> {
        let mut sizes = Vec::new();
        loop {
            let rows = self.settle();
            if rows.is_empty() {
                return sizes;
            }
            sizes.push(rows.len());
            self.done(&rows);
            // Announcements are paced.
            self.now = self.now + Duration::from_millis(50);
        }
    }

    pub fn change(&mut self, key: Key, value: Option<Value>, lease: Option<LeaseId>) {
        self.revision += 1;
        let revision = Revision(self.revision);
        let change = Change {
            key,
            value,
            lease,
            revision,
        };
        self.observe(Event::Changed(vec![change]));
    }

    /// etcd has taken a registration.
    pub fn registered(&mut self, effect: &Effect) {
        let Effect::Register(registration) = effect else {
            panic!("{effect:?} is no registration")
        };
        self.revision += 1;
        let outcome = RegisterOutcome::Done {
            registration: registration.clone(),
            revision: Revision(self.revision),
        };
        self.observe(Event::Registered(outcome));
    }

    /// The watch has come as far as the node itself.
    pub fn echo(&mut self) {
        let points = self.gateway.mirror.nodes().registered(&name("gw1"));
        let points = points.and_then(|cell| cell.value().cloned());
        self.observe(Event::Changed(vec![Change {
            key: Key::Node(name("gw1")),
            value: points.map(Value::Points),
            lease: Some(LEASE),
            revision: Revision(self.revision),
        }]));
    }

    /// A node says of itself what a Go wmgwd does not.
    pub fn runs_this_program(&mut self, node: &str, lease: LeaseId) {
        self.says(node, lease, Some(Fitness::default()));
    }

    /// A node says how well it can forward.
    pub fn says(&mut self, node: &str, lease: LeaseId, fitness: Option<Fitness>) {
        let meta = Meta {
            version: "1".to_owned(),
            range: self.gateway.config.range,
            unable: Some(Unable::default()),
            fitness,
            time: None,
            kernel: None,
            ipv6: None,
        };
        self.change(Key::Meta(name(node)), Some(Value::Meta(meta)), Some(lease));
    }

    /// A row of another node, without a `next`.
    pub fn row(&mut self, vni: Vni, kind: u64, owner: &str) {
        let kind = Kind::from_number(kind).unwrap();
        self.change(Key::Kind(vni), Some(Value::Kind(kind)), None);
        self.change(
            Key::Current(vni),
            Some(Value::Name(Some(name(owner)))),
            Some(OTHERS_LEASE),
        );
    }

    pub fn writes(&mut self) -> Vec<Write> {
        self.settle().iter().map(|row| row.write).collect()
    }

    /// Nothing is written for a blink; then the VNI is claimed.
    pub fn claims_after_a_blink(&mut self) {
        assert_eq!(self.writes(), []);
        self.wait(Duration::from_millis(90));
        assert_eq!(self.writes(), []);
        self.wait(Duration::from_millis(20));
        assert_eq!(self.writes(), [Write::Claim]);
    }

    /// The deadline must lie ahead, or the worker would spin.
    pub fn next_wake(&self) -> Duration {
        let deadline = self.gateway.next_deadline().unwrap();
        assert!(deadline > self.now);
        deadline.since(self.now)
    }
}

pub fn healthy() -> Health {
    Health {
        bgpd: Some(1),
        ospfd: Some(2),
        zebra: Some(3),
        ..Health::default()
    }
}

pub fn all_off(vnis: u32) -> Effect {
    Effect::SwitchArp((1..=vnis).map(|number| (vni(number), false)).collect())
}
