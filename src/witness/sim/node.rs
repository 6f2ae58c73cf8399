//! A node: its clock, its guard, its daemon.

use super::cluster::{Cluster, LEASE_MARGIN, ROW, Said, TTL, Word, ms};
use crate::etcd::{Compare, Grant, Op, RangeReply, Txn, TxnReply, WatchEvent};
use crate::gateway::sim::etcd::{LeaseNotFound, ModelEtcd};
use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time};
use crate::schema::{self, Key as Place, Value};
use crate::witness::message::{Known, Order, Peer, Report};
use crate::witness::owner::{self, Answer, Candidate, Owner};
use crate::witness::prover::Prover;
use crate::witness::siphash::Key;
use crate::witness::voter::{self, Ballot, Change, Voted, Voter};
use crate::witness::{Contact, Epoch, Run, datagram};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub struct Node {
    /// How much faster its clock is, in millionths, and how far ahead.
    drift: i64,
    offset: Duration,
    pub is_on: bool,
    pub guard: Option<Guard>,
    pub daemon: Option<Daemon>,
    pub guard_paused: Time,
    pub daemon_paused: Time,
    /// What the kernel was granted by a guard that was killed: lease, until when, whether for the row.
    pub granted: Option<(LeaseId, Time, Option<LeaseId>)>,
    pub starts: u64,
    pub word_at: Time,
    pub said_at: Time,
    pub watch_at: Time,
    pub had_proof: bool,
}

impl Node {
    pub fn new(drift: i64, offset: Duration) -> Node {
        Node {
            drift,
            offset,
            is_on: true,
            guard: None,
            daemon: None,
            guard_paused: Time::default(),
            daemon_paused: Time::default(),
            granted: None,
            starts: 0,
            word_at: Time::default(),
            said_at: Time::default(),
            watch_at: Time::default(),
            had_proof: false,
        }
    }

    /// What its clock shows.
    pub fn local(&self, now: Time) -> Time {
        let now = now.as_duration().as_nanos() as i128;
        let ahead = now * i128::from(self.drift) / 1_000_000;
        Time::since_boot(self.offset + Duration::from_nanos((now + ahead) as u64))
    }

    /// When its clock shows that, or a little later.
    pub fn at_local(&self, local: Time) -> Time {
        let shown = local.as_duration().saturating_sub(self.offset).as_nanos() as i128;
        let nanos = shown * 1_000_000 / (1_000_000 + i128::from(self.drift)) + 1_000;
        Time::since_boot(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// etcd does what is asked of it.
    pub fn execute(&self, now: Time, etcd: &mut ModelEtcd, request: &Request) -> Reply {
        match request {
            Request::Grant => Reply::Granted(etcd.grant(now, TTL)),
            Request::Keepalive(lease) => Reply::Kept(etcd.keepalive(now, *lease)),
            Request::Revoke(lease) => {
                etcd.revoke(*lease);
                Reply::Revoked
            }
            Request::Snapshot => Reply::All(etcd.range(schema::PREFIX)),
            Request::Txn(_, txn) => Reply::Txn(etcd.txn(txn)),
        }
    }
}

pub struct Guard {
    pub id: u64,
    pub prover: Prover,
    pub serves: Option<LeaseId>,
    pub tick_at: Time,
}

impl Guard {
    pub fn new(id: u64, seed: u64) -> Guard {
        Guard {
            id,
            prover: Prover::new(LEASE_MARGIN, seed),
            serves: None,
            tick_at: Time::default(),
        }
    }
}

/// What a transaction is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Register(LeaseId),
    Contact,
    Epoch(Epoch),
    TakeOver(Known),
    Vote(Ballot),
    Claim,
    Release,
}

#[derive(Clone, Debug)]
pub enum Request {
    Grant,
    Keepalive(LeaseId),
    Revoke(LeaseId),
    Snapshot,
    Txn(Box<What>, Txn),
}

impl Request {
    fn txn(what: What, txn: Txn) -> Request {
        Request::Txn(Box::new(what), txn)
    }

    /// Whether the trace shows it.
    pub fn is_telling(&self) -> bool {
        !matches!(self, Request::Keepalive(_) | Request::Snapshot)
    }

    pub fn tell(&self) -> String {
        let names = |epoch: &Epoch| {
            let names = epoch.witnesses.iter().map(|it| it.name.to_string());
            format!(
                "{:x} {:?} {:?}",
                epoch.number.0 >> 48,
                epoch.window,
                names.collect::<Vec<_>>()
            )
        };
        let Request::Txn(what, _) = self else {
            return format!("{self:?}");
        };
        match &**what {
            What::Epoch(epoch) => format!("epoch {}", names(epoch)),
            What::Vote(ballot) => {
                let of = names(&ballot.epoch);
                format!(
                    "vote against {} {of}, gone {:?}, own {}",
                    ballot.owner, ballot.gone, ballot.own
                )
            }
            What::TakeOver(_) => "takes over".to_owned(),
            what => format!("{what:?}"),
        }
    }
}

impl Reply {
    pub fn tell(&self) -> String {
        match self {
            Reply::Txn(Ok(reply)) => format!("{} at {}", reply.succeeded, reply.revision),
            other => format!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Reply {
    Granted(Grant),
    Kept(Option<Duration>),
    Revoked,
    All(RangeReply),
    Txn(Result<TxnReply, LeaseNotFound>),
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The guard is asked what there is to take over.
    Attaching,
    /// etcd is asked what became of it.
    TakingOver,
    /// There is no lease.
    Bare,
    Registering,
    Running,
    /// It ends for good.
    Leaving,
    Gone,
}

pub struct Daemon {
    pub id: u64,
    me: NodeName,
    at: usize,
    run: Run,
    key: Key,
    window: Duration,
    seed: u64,
    pub owner: Owner,
    pub voter: Voter,
    stage: Stage,
    pub lease: Option<Lease>,
    /// The revision up to which the watch has told; `None` before the snapshot.
    pub seen: Option<Revision>,
    open: BTreeMap<u64, (Request, Time)>,
    count: u64,
    keep_at: Time,
    try_at: Time,
    row: Option<(NodeName, Option<LeaseId>)>,
    former: Option<NodeName>,
    claim_at: Time,
    serves: Option<LeaseId>,
    /// It waits for its guard to be silent, to release the epoch of that revision.
    release: Option<Revision>,
    told_peers: Vec<Peer>,
    pub words: Vec<Word>,
    pub requests: Vec<(u64, Request)>,
    pub tick_at: Time,
    pub needs_guard: bool,
}

impl Daemon {
    pub fn new(id: u64, at: usize, run: u64, key: Key, window: Duration, seed: u64) -> Daemon {
        let me = Cluster::name(at);
        Daemon {
            id,
            at,
            run: Run(run),
            key,
            window,
            seed,
            owner: Owner::new(me.clone(), key, window, seed),
            voter: Voter::new(me.clone(), Run(run), key),
            me,
            stage: Stage::Attaching,
            lease: None,
            seen: None,
            open: BTreeMap::new(),
            count: 0,
            keep_at: Time::default(),
            try_at: Time::default(),
            row: None,
            former: None,
            claim_at: Time::default(),
            serves: None,
            release: None,
            told_peers: Vec::new(),
            words: Vec::new(),
            requests: Vec::new(),
            tick_at: Time::default(),
            needs_guard: true,
        }
    }

    fn ask(&mut self, now: Time, request: Request) {
        self.count += 1;
        self.open.insert(self.count, (request.clone(), now));
        self.requests.push((self.count, request));
    }

    fn is_asking(&self, what: impl Fn(&Request) -> bool) -> bool {
        self.open.values().any(|(request, _)| what(request))
    }

    fn order(&mut self, order: Order) {
        self.words.push(Word::Order(order));
    }

    pub fn deadline(&self, now: Time) -> Time {
        let voter = self.voter.deadline().unwrap_or(now + ms(1000));
        let owner = self.owner.deadline(now);
        voter.min(owner).min(now + ms(100))
    }

    pub fn guard_is_lost(&mut self) {
        self.told_peers.clear();
        self.serves = None;
        match (self.stage, self.lease) {
            (Stage::Attaching, _) => self.words.push(Word::Attach),
            (Stage::TakingOver, _) => {
                self.stage = Stage::Bare;
                self.lease = None;
            }
            (Stage::Leaving | Stage::Gone, _) => self.release = None,
            (_, Some(lease)) => {
                if let Some(owner::Act::Tell(order)) = self.owner.tell_guard(lease) {
                    self.order(order);
                }
            }
            _ => {}
        }
    }

    pub fn hear(&mut self, now: Time, said: Said) {
        match said {
            Said::Known(known) if self.stage == Stage::Attaching => match known {
                Some(known) if now < known.lease.valid_until - LEASE_MARGIN => {
                    self.key = known.key;
                    self.owner = Owner::new(self.me.clone(), self.key, self.window, self.seed);
                    self.voter = Voter::new(self.me.clone(), self.run, self.key);
                    // What was read is read again.
                    self.seen = None;
                    self.stage = Stage::TakingOver;
                    self.lease = Some(known.lease);
                    self.take_over(now, known);
                }
                _ => self.stage = Stage::Bare,
            },
            Said::Known(_) => {}
            Said::Report(report) => {
                let is_silent =
                    matches!(&report, Report::Proof(proof) if proof.until == Time::default());
                self.owner.report(now, report);
                if let Some(revision) = self.release.take_if(|_| is_silent) {
                    self.release(now, revision);
                }
            }
        }
    }

    fn take_over(&mut self, now: Time, known: Known) {
        let read = Txn {
            then: vec![Op::Range {
                key: Place::Epoch(self.me.clone()).bytes(),
            }],
            ..Txn::default()
        };
        self.ask(now, Request::txn(What::TakeOver(known), read));
    }

    pub fn answered(&mut self, now: Time, id: u64, reply: Reply) {
        let Some((request, sent)) = self.open.remove(&id) else {
            return;
        };
        match (request, reply) {
            (Request::Grant, Reply::Granted(grant)) if self.stage == Stage::Bare => {
                self.lease = Some(Lease {
                    id: grant.id,
                    valid_until: sent + grant.ttl,
                });
                self.stage = Stage::Registering;
                self.try_at = now;
            }
            (Request::Keepalive(lease), Reply::Kept(Some(ttl))) => {
                let of_now = self.lease.as_mut().filter(|it| it.id == lease);
                if let Some(held) = of_now {
                    held.valid_until = held.valid_until.max(sent + ttl);
                    let held = *held;
                    if self.stage == Stage::Running {
                        self.order(Order::Renewed(held));
                    }
                }
            }
            (Request::Keepalive(lease), Reply::Kept(None)) if self.holds(lease) => {
                self.let_go(now, false);
            }
            (Request::Snapshot, Reply::All(all)) => self.read_all(now, &all),
            (Request::Txn(what, _), Reply::Txn(Ok(reply))) => {
                self.written(now, *what, Some(&reply))
            }
            (Request::Txn(what, _), _) => self.written(now, *what, None),
            _ => {}
        }
    }

    fn written(&mut self, now: Time, what: What, reply: Option<&TxnReply>) {
        match what {
            What::Register(lease) if self.stage == Stage::Registering && self.holds(lease) => {
                if reply.is_some_and(|it| it.succeeded) {
                    self.run_under(now, (None, None));
                } else {
                    self.try_at = now + ms(200);
                }
            }
            What::TakeOver(known) if self.stage == Stage::TakingOver => {
                let Some(reply) = reply else {
                    return match now < known.lease.valid_until - LEASE_MARGIN {
                        true => self.take_over(now, known),
                        false => self.let_go(now, false),
                    };
                };
                let answer = schema::witness::epoch_written(&TxnReply {
                    succeeded: false,
                    ..reply.clone()
                });
                let Answer::Refused(held) = answer else {
                    panic!("it was read: {answer:?}");
                };
                match owner::taken_over(&known, held) {
                    Some(epochs) => self.run_under(now, epochs),
                    None => {
                        self.order(Order::Ended(known.lease.id));
                        self.let_go(now, true);
                    }
                }
            }
            What::Epoch(epoch) => {
                let answer = reply.map_or(Answer::Unknown, schema::witness::epoch_written);
                let acts = self.owner.answer(now, epoch.number, answer);
                self.owner_acts(now, acts);
            }
            What::Vote(ballot) => {
                let voted = reply.map_or(Voted::Unknown, |reply| {
                    schema::witness::vote_written(&ballot, reply)
                });
                if let Some(act) = self.voter.voted(&ballot, voted) {
                    self.voter_act(now, act);
                }
            }
            What::Release if self.stage == Stage::Leaving => {
                if let Some(lease) = self.lease.take() {
                    self.ask(now, Request::Revoke(lease.id));
                }
                self.stage = Stage::Gone;
            }
            _ => {}
        }
    }

    fn holds(&self, lease: LeaseId) -> bool {
        self.lease.is_some_and(|held| held.id == lease)
    }

    fn run_under(&mut self, now: Time, epochs: owner::Epochs) {
        let Some(lease) = self.lease else {
            return;
        };
        self.stage = Stage::Running;
        self.keep_at = now;
        let begun = self.owner.begin(now, lease, TTL, epochs);
        self.owner_acts(now, begun.into_iter().collect());
        self.voter.set_lease(Some(lease.id));
        self.told_peers.clear();
        self.try_at = now;
    }

    /// The lease ends: first of all, nothing is acknowledged under it any more.
    fn let_go(&mut self, now: Time, revokes: bool) {
        self.voter.set_lease(None);
        if let Some(act) = self.owner.let_go() {
            self.owner_acts(now, vec![act]);
        }
        if let Some(lease) = self.lease.take().filter(|_| revokes) {
            self.ask(now, Request::Revoke(lease.id));
        }
        self.serves = None;
        if self.stage != Stage::Leaving {
            self.stage = Stage::Bare;
        }
    }

    pub fn has_left(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Gone)
    }

    /// An orderly exit.
    pub fn leave(&mut self, now: Time) {
        if self.stage != Stage::Running {
            self.stage = Stage::Gone;
            return;
        }
        self.stage = Stage::Leaving;
        let revision = self.owner.revision();
        self.voter.set_lease(None);
        if let Some(act) = self.owner.let_go() {
            self.owner_acts(now, vec![act]);
        }
        self.words.push(Word::Serves(None));
        self.release = Some(revision);
    }

    /// The guard is silent, and has said so.
    fn release(&mut self, now: Time, revision: Revision) {
        let release = schema::witness::write_released(&self.me, revision);
        if revision != Revision(0) {
            self.ask(now, Request::txn(What::Release, release));
        } else if let Some(lease) = self.lease.take() {
            self.ask(now, Request::Revoke(lease.id));
        }
    }

    fn owner_acts(&mut self, now: Time, acts: Vec<owner::Act>) {
        for act in acts {
            match act {
                owner::Act::Tell(order) => self.order(order),
                owner::Act::Write { epoch, condition } => {
                    let txn = schema::witness::write_epoch(&self.me, &epoch, condition);
                    self.ask(now, Request::txn(What::Epoch(epoch), txn));
                }
                owner::Act::LetGo(_) => self.let_go(now, true),
            }
        }
    }

    fn voter_act(&mut self, now: Time, act: voter::Act) {
        match act {
            voter::Act::Vote(ballot) => {
                let txn = schema::witness::write_vote(&self.me, &ballot);
                self.ask(now, Request::txn(What::Vote(ballot), txn));
            }
            voter::Act::Revoke(lease) => self.ask(now, Request::Revoke(lease)),
        }
    }

    // What is read of etcd.

    fn change(
        key: &[u8],
        value: Option<&[u8]>,
        revision: Revision,
        lease: Option<LeaseId>,
    ) -> Option<Change> {
        let key = Place::read(key).ok()?;
        let value = value.map(|bytes| schema::read_value(&key, bytes).0);
        Some(match key {
            Place::Contact(name) => {
                let contact = match value {
                    Some(Value::Contact(contact)) => lease.map(|lease| (lease, contact)),
                    _ => None,
                };
                Change::Contact(name, contact)
            }
            Place::Epoch(name) => {
                let held = value.map(|value| match value {
                    Value::Standing(standing) => (revision, lease, Some(standing)),
                    _ => (revision, lease, None),
                });
                Change::Epoch(name, held)
            }
            _ => return None,
        })
    }

    fn read_row(&mut self, value: Option<&[u8]>, lease: Option<LeaseId>) {
        let text = value.map(|bytes| std::str::from_utf8(bytes).expect("it is a name"));
        let row = text.map(|text| (text.parse().expect("it is a name"), lease));
        if row.is_none() {
            self.former = self.row.take().map(|(name, _)| name);
        }
        self.row = row;
    }

    fn read_all(&mut self, now: Time, all: &RangeReply) {
        self.seen = Some(all.revision);
        let read = |kv: &crate::etcd::KeyValue| {
            Self::change(&kv.key, Some(&kv.value), kv.mod_revision, kv.lease)
        };
        let changes = all.kvs.iter().filter_map(read).collect();
        self.voter.read(now, changes, true);
        let row = all.kvs.iter().find(|kv| kv.key == ROW);
        if let Some(kv) = row {
            self.read_row(Some(&kv.value), kv.lease);
        }
    }

    pub fn watched(&mut self, now: Time, revision: Revision, events: &[WatchEvent]) {
        self.seen = Some(revision);
        let value = |event: &WatchEvent| (!event.deleted).then(|| event.kv.value.clone());
        let mut changes = Vec::new();
        for event in events {
            let bytes = value(event);
            let change = Self::change(&event.kv.key, bytes.as_deref(), revision, event.kv.lease);
            if let Some(Change::Epoch(name, held)) = &change
                && *name == self.me
                && self.stage == Stage::Running
            {
                let held = held
                    .as_ref()
                    .and_then(|(_, lease, standing)| Some((*lease, standing.as_ref()?)));
                let acts = self.owner.seen(revision, held);
                self.owner_acts(now, acts);
            }
            changes.extend(change);
        }
        self.voter.read(now, changes, false);
        for event in events.iter().filter(|event| event.kv.key == ROW) {
            self.read_row(value(event).as_deref(), event.kv.lease);
        }
    }

    // What is due.

    pub fn drive(&mut self, now: Time) {
        if self.seen.is_none() && !self.is_asking(|it| matches!(it, Request::Snapshot)) {
            self.ask(now, Request::Snapshot);
        }
        match self.stage {
            Stage::Bare if !self.is_asking(|it| matches!(it, Request::Grant)) => {
                self.ask(now, Request::Grant);
            }
            Stage::Registering => self.register(now),
            Stage::Running => self.run(now),
            _ => {}
        }
        self.keep(now);
        if self.stage != Stage::Gone {
            for act in self.voter.act(now) {
                self.voter_act(now, act);
            }
        }
    }

    fn keep(&mut self, now: Time) {
        let Some(lease) = self.lease else {
            return;
        };
        if now >= lease.valid_until {
            return self.let_go(now, false);
        }
        let is_asking = self.is_asking(|it| matches!(it, Request::Keepalive(_)));
        if now >= self.keep_at && !is_asking {
            self.keep_at = now + TTL / 4;
            self.ask(now, Request::Keepalive(lease.id));
        }
    }

    fn register(&mut self, now: Time) {
        let is_asking = self.is_asking(
            |it| matches!(it, Request::Txn(what, _) if matches!(**what, What::Register(_))),
        );
        let Some(lease) = self.lease.filter(|_| now >= self.try_at && !is_asking) else {
            return;
        };
        let key = Place::Node(self.me.clone()).bytes();
        let absent = Txn {
            compares: vec![Compare::CreateRevisionIs {
                key: key.clone(),
                revision: Revision(0),
            }],
            then: vec![Op::Put {
                key: key.clone(),
                value: b"[]".to_vec(),
                lease: Some(lease.id),
            }],
            otherwise: Vec::new(),
        };
        // One whose answer was lost.
        let ours = Txn {
            compares: vec![Compare::LeaseIs {
                key,
                lease: lease.id,
            }],
            then: Vec::new(),
            otherwise: vec![Op::Txn(absent.clone())],
        };
        let is_second = self.count % 2 == 0;
        let txn = if is_second { ours } else { absent };
        self.ask(now, Request::txn(What::Register(lease.id), txn));
    }

    fn run(&mut self, now: Time) {
        let Some(lease) = self.lease else {
            return;
        };
        self.publish(now, lease.id);
        self.tell_peers();
        let acts = self.owner.act(now);
        self.owner_acts(now, acts);
        self.voter
            .set_proof(self.owner.proof_until(), self.owner.revision());
        self.claim(now);
    }

    fn publish(&mut self, now: Time, lease: LeaseId) {
        let is_asking =
            self.is_asking(|it| matches!(it, Request::Txn(what, _) if **what == What::Contact));
        if is_asking || now < self.try_at {
            return;
        }
        self.try_at = now + ms(1_000);
        let contact = Contact {
            run: self.run,
            key: self.key,
            address: ([127, 0, 0, 1], self.at as u16 + 1).into(),
        };
        let published = self.voter.contact_of(&self.me);
        if published != Some((lease, contact)) {
            let txn = schema::witness::publish_contact(&self.me, lease, &contact);
            self.ask(now, Request::txn(What::Contact, txn));
        }
    }

    fn tell_peers(&mut self) {
        let nodes: Vec<_> = self
            .voter
            .nodes()
            .map(|(name, lease, it)| (name.clone(), lease, *it))
            .collect();
        let candidates = nodes.iter().map(|(name, lease, contact)| {
            let candidate = Candidate {
                lease: *lease,
                run: contact.run,
            };
            (name.clone(), candidate)
        });
        self.owner.candidates(candidates.collect());
        let tried: BTreeSet<NodeName> = self.owner.tried().into_iter().collect();
        let peers = nodes.iter().map(|(name, lease, contact)| Peer {
            lease: *lease,
            run: contact.run,
            link: datagram::link_key(&self.key, &contact.key),
            address: contact.address,
            trial: tried.contains(name),
        });
        let peers: Vec<Peer> = peers.collect();
        if peers != self.told_peers {
            self.told_peers.clone_from(&peers);
            self.order(Order::Peers(peers));
        }
    }

    /// Claims the row if it is vacant; serves it once its former owner is certainly silent.
    fn claim(&mut self, now: Time) {
        let Some(lease) = self.lease else {
            return;
        };
        let has_proof = now < self.owner.proof_until();
        let is_mine = self.row == Some((self.me.clone(), Some(lease.id)));
        let silent = self
            .former
            .as_ref()
            .map_or(Time::default(), |it| self.voter.silent_from(it));
        let serves = (is_mine && now >= silent).then_some(lease.id);
        if serves.is_some() && serves != self.serves && has_proof {
            self.serves = serves;
            self.words.push(Word::Serves(serves));
        }
        let is_asking =
            self.is_asking(|it| matches!(it, Request::Txn(what, _) if **what == What::Claim));
        let may_claim = self.row.is_none() && self.seen.is_some() && now >= self.claim_at;
        if may_claim && has_proof && !is_asking {
            self.claim_at = now + ms(20);
            let txn = Txn {
                compares: vec![
                    Compare::CreateRevisionIs {
                        key: ROW.to_vec(),
                        revision: Revision(0),
                    },
                    Compare::LeaseIs {
                        key: Place::Node(self.me.clone()).bytes(),
                        lease: lease.id,
                    },
                ],
                then: vec![Op::Put {
                    key: ROW.to_vec(),
                    value: self.me.as_str().as_bytes().to_vec(),
                    lease: Some(lease.id),
                }],
                otherwise: Vec::new(),
            };
            self.ask(now, Request::txn(What::Claim, txn));
        }
    }

    pub fn describe(&self, now: Time) -> String {
        let names: Vec<String> = self
            .voter
            .nodes()
            .map(|(name, ..)| name.to_string())
            .collect();
        let until = self.owner.proof_until().since(now);
        format!(
            "{:?} {:?} knows {names:?} until {until:?} {:?}",
            self.stage, self.lease, self.owner
        )
    }

    pub fn epoch(&self) -> Option<&Epoch> {
        self.owner.epoch()
    }
}
