//! The guard's part: sends beats, counts acknowledgements, and knows until when there is proof.
//!
//! There is proof at a time while the lease holds **and** each epoch that may be in place proves the node: the one
//! that is, and every one that was sent without an answer. The daemon announces an epoch before it sends it, so that
//! the guard counts it also if the daemon dies in between.

use super::datagram::{Datagram, Kind, LENGTH, Sealed};
use super::draw::Draw;
use super::message::{Known, Order, Peer, Proof, Report};
use super::siphash::Key;
use super::{Epoch, Number};
use crate::model::types::{Lease, LeaseId, Time};
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a node is tried that is no witness.
const TRIAL: Duration = Duration::from_secs(1);
/// How long news may wait of a node that was heard and proves nothing: one that was only tried.
const HEARD: Duration = Duration::from_millis(500);
/// An epoch, with what its witnesses have acknowledged.
#[derive(Clone, Debug)]
struct Count {
    epoch: Epoch,
    /// Of each witness: when the newest beat was sent that it acknowledged. Before there is one: when the epoch was
    /// announced, which is before it was sent to etcd, so before any witness can read it.
    acknowledged: Vec<Time>,
}

impl Count {
    fn new(epoch: Epoch, credit: Time) -> Count {
        let acknowledged = vec![credit; epoch.witnesses.len()];
        Count {
            epoch,
            acknowledged,
        }
    }

    /// Until when so many witnesses as are needed prove the node.
    fn until(&self) -> Time {
        let Some(last_needed) = self.epoch.proving().checked_sub(1) else {
            return Time::NEVER;
        };
        let mut newest_first = self.acknowledged.clone();
        newest_first.sort_unstable_by(|one, two| two.cmp(one));
        newest_first[last_needed] + self.epoch.window - self.epoch.margin()
    }
}

/// The state of the proof of one node.
#[derive(Debug)]
pub struct Prover {
    lease_margin: Duration,
    draw: Draw,
    lease: Option<Lease>,
    key: Option<Key>,
    /// A lease under which there is no proof any more, whatever is told of it.
    ended: Option<LeaseId>,
    in_place: Option<Count>,
    unanswered: Vec<Count>,
    peers: Vec<Peer>,
    heard: BTreeMap<LeaseId, Time>,
    beat_at: Time,
    trial_at: Time,
    /// The witnesses' part of the proof was there when it was looked at last.
    witnessed: bool,
    losses: u64,
    late: u64,
    told: Proof,
}

/// A datagram and where to send it.
pub type Addressed = (SocketAddr, [u8; LENGTH]);

impl Prover {
    /// One that knows nothing, and has no proof. A lease counts up to `lease_margin` before its end.
    pub fn new(lease_margin: Duration, seed: u64) -> Prover {
        Prover {
            lease_margin,
            draw: Draw::new(seed),
            lease: None,
            key: None,
            ended: None,
            in_place: None,
            unanswered: Vec::new(),
            peers: Vec::new(),
            heard: BTreeMap::new(),
            beat_at: Time::default(),
            trial_at: Time::default(),
            witnessed: true,
            losses: 0,
            late: 0,
            told: Proof::default(),
        }
    }

    /// Does what the daemon says; returns what to answer. What the daemon has said before has to be done before a
    /// proof is counted.
    pub fn order(&mut self, now: Time, order: Order) -> Vec<Report> {
        let noted = self.obey(now, order).map(Report::Noted);
        // The news first: once it knows that an epoch is noted, the daemon judges by them.
        self.all_news().into_iter().chain(noted).collect()
    }

    fn obey(&mut self, now: Time, order: Order) -> Option<Number> {
        match order {
            Order::Begin {
                lease,
                key,
                in_place,
                proved,
                unanswered,
            } => {
                self.key = Some(key);
                // The daemon begins anew, and has forgotten what it was told.
                self.forget_told();
                return self.begin(lease, in_place.map(|epoch| (epoch, proved)), unanswered);
            }
            Order::Renewed(lease) => match self.lease.as_mut().filter(|held| held.id == lease.id) {
                Some(held) => held.valid_until = lease.valid_until,
                // Of one whose daemon knows of no epoch under it: the lease alone decides.
                None => {
                    self.key = None;
                    return self.begin(lease, None, None);
                }
            },
            Order::Propose(epoch) => {
                let number = epoch.number;
                let is_ours = self.lease.map(|lease| lease.id) == Some(epoch.lease);
                if is_ours && !self.counts().any(|it| it.epoch.number == number) {
                    self.unanswered.push(Count::new(epoch, now));
                    self.beat_at = now;
                }
                // Also to one that is not of this lease: it proves nothing, and its daemon must not wait for ever.
                return Some(number);
            }
            Order::InPlace(number) => self.settle(number),
            Order::Ended(lease) => self.ended = Some(lease),
            Order::Peers(peers) => {
                self.heard
                    .retain(|lease, _| peers.iter().any(|peer| peer.lease == *lease));
                self.peers = peers;
            }
        }
        None
    }

    fn begin(
        &mut self,
        lease: Lease,
        in_place: Option<(Epoch, Time)>,
        unanswered: Option<Epoch>,
    ) -> Option<Number> {
        let is_known = self.lease.map(|held| held.id) == Some(lease.id);
        self.lease = Some(lease);
        let number = unanswered.as_ref().map(|epoch| epoch.number);
        // An unanswered epoch that only the daemon knows was announced to another guard: its credit is not known here.
        if is_known {
            if let Some((epoch, _)) = in_place {
                self.settle(epoch.number);
            }
            let new = |epoch: &Epoch| !self.counts().any(|it| it.epoch.number == epoch.number);
            if let Some(epoch) = unanswered.filter(new) {
                self.unanswered.push(Count::new(epoch, Time::default()));
            }
        } else {
            let sent = |epoch: &Epoch, proved: Time| proved - epoch.window + epoch.margin();
            self.in_place = in_place.map(|(epoch, proved)| {
                let sent = sent(&epoch, proved);
                Count::new(epoch, sent)
            });
            let unproved = |epoch| Count::new(epoch, Time::default());
            self.unanswered = unanswered.map(unproved).into_iter().collect();
            self.witnessed = true;
        }
        self.beat_at = Time::default();
        number
    }

    /// One that was unanswered is in place. So all the others were refused, or will be.
    fn settle(&mut self, number: Number) {
        let at = self
            .unanswered
            .iter()
            .position(|it| it.epoch.number == number);
        if let Some(at) = at {
            self.in_place = Some(self.unanswered.swap_remove(at));
            self.unanswered.clear();
        }
    }

    /// What a daemon needs to know that takes its predecessor's lease over; `None` if there is none to take over.
    pub fn known(&self) -> Option<Known> {
        let lease = self.held()?;
        Some(Known {
            lease,
            key: self.key?,
            in_place: self.in_place.as_ref().map(|it| it.epoch.clone()),
            unanswered: self.unanswered.first().map(|it| it.epoch.clone()),
        })
    }

    fn counts(&self) -> impl Iterator<Item = &Count> {
        self.in_place.iter().chain(&self.unanswered)
    }

    /// The lease that it counts for.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// The same, unless its daemon has said that there is no proof under it any more.
    pub fn held(&self) -> Option<Lease> {
        self.lease.filter(|lease| self.ended != Some(lease.id))
    }

    /// Until when there is proof: at that time there is none any more.
    pub fn until(&self) -> Time {
        self.held().map_or(Time::default(), |lease| {
            let lease_until = lease.valid_until - self.lease_margin;
            self.witnessed_until().min(lease_until)
        })
    }

    /// Until when the witnesses prove the node, its lease left aside.
    pub fn witnessed_until(&self) -> Time {
        self.counts().map(Count::until).min().unwrap_or(Time::NEVER)
    }

    /// When [`Prover::tick`] is to be called next.
    pub fn next_tick(&self) -> Time {
        let beat_at = self.shortest_window().map_or(Time::NEVER, |_| self.beat_at);
        beat_at.min(self.trial_at)
    }

    /// The shortest window in which a witness has to acknowledge a beat.
    fn shortest_window(&self) -> Option<Duration> {
        let counts = self.counts().filter(|it| !it.epoch.witnesses.is_empty());
        counts.map(|it| it.epoch.window).min()
    }

    /// What is due to be sent. The clock was read before, and the datagrams are sent after.
    pub fn tick(&mut self, now: Time) -> Vec<Addressed> {
        let mut datagrams = Vec::new();
        if now >= self.beat_at
            && let Some(window) = self.shortest_window()
        {
            let due = self.beat_at;
            if due > Time::default() && now.since(due) > super::margin(window) / 2 {
                self.late += 1;
            }
            self.look(now);
            self.beat_at = now + self.draw.between(window * 3 / 20, window / 5);
            datagrams.extend(self.beats(now));
        }
        if now >= self.trial_at {
            self.trial_at = now + self.draw.between(TRIAL * 9 / 10, TRIAL * 11 / 10);
            datagrams.extend(self.trials(now));
        }
        datagrams
    }

    /// How the proof is, if the daemon has to be told that: not if it knows of one that lasts for some time yet, and
    /// nothing else is new. Each message costs CPU time.
    pub fn news(&mut self, now: Time) -> Option<Report> {
        let lasts = self.shortest_window().is_some_and(|window| {
            let told = self.told.epochs.iter().map(|(_, until)| *until).min();
            told.is_some_and(|until| until.since(now) > window * 5 / 8)
        });
        let numbers = self.told.epochs.iter().map(|(number, _)| *number);
        let is_known = lasts
            && numbers.eq(self.counts().map(|it| it.epoch.number))
            && self.told.lease == self.held().map(|lease| lease.id)
            && (self.told.losses, self.told.late) == (self.losses, self.late)
            && self.told.heard.len() == self.heard.len();
        match is_known {
            true => None,
            false => self.all_news(),
        }
    }

    /// How the proof is, if the daemon has not been told that. All witnesses acknowledge the same beat: when the last
    /// of them was heard is told with the next one.
    fn all_news(&mut self) -> Option<Report> {
        let mut proof = self.proof();
        let told = &self.told;
        let is_same_but_heard = (proof.lease, proof.until, proof.losses, proof.late)
            == (told.lease, told.until, told.losses, told.late)
            && proof.epochs == told.epochs
            && proof.heard.len() == told.heard.len();
        if is_same_but_heard {
            let latest = |of: &[(LeaseId, Time)]| of.iter().map(|(_, at)| *at).max();
            let (newest, before) = (latest(&proof.heard), latest(&told.heard));
            let is_late = newest > before.map(|at| at + HEARD);
            if !is_late {
                proof.heard.clone_from(&told.heard);
            }
        }
        (proof != *told).then(|| {
            self.told = proof.clone();
            Report::Proof(proof)
        })
    }

    /// A daemon has come that was told nothing yet.
    pub fn forget_told(&mut self) {
        self.told = Proof::default();
    }

    /// Notices whether the witnesses' part was lost.
    fn look(&mut self, now: Time) {
        let witnessed = now < self.witnessed_until();
        if self.witnessed && !witnessed {
            self.losses += 1;
        }
        self.witnessed = witnessed;
    }

    fn proof(&self) -> Proof {
        let epoch = |it: &Count| (it.epoch.number, it.until());
        Proof {
            lease: self.lease.map(|lease| lease.id),
            until: self.until(),
            epochs: self.counts().map(epoch).collect(),
            heard: self.heard.iter().map(|(lease, at)| (*lease, *at)).collect(),
            losses: self.losses,
            late: self.late,
        }
    }

    fn beats(&self, now: Time) -> Vec<Addressed> {
        let Some(lease) = self.held() else {
            return Vec::new();
        };
        let mut beats = Vec::new();
        for count in self.counts() {
            for witness in &count.epoch.witnesses {
                let is_it = |it: &&Peer| it.lease == witness.lease && it.run == witness.run;
                let Some(peer) = self.peers.iter().find(is_it) else {
                    continue;
                };
                let beat = Datagram {
                    kind: Kind::Beat,
                    from: lease.id,
                    to: witness.lease,
                    run: witness.run,
                    number: count.epoch.number,
                    sent: now,
                };
                beats.push((peer.address, beat.seal(&peer.link)));
            }
        }
        beats
    }

    fn trials(&self, now: Time) -> Vec<Addressed> {
        let Some(lease) = self.held() else {
            return Vec::new();
        };
        let trial = |peer: &Peer| {
            let trial = Datagram::trial(lease.id, peer.lease, peer.run, now);
            (peer.address, trial.seal(&peer.link))
        };
        let tried = self.peers.iter().filter(|peer| peer.trial);
        tried.map(trial).collect()
    }

    /// Counts a datagram that arrived; says whether it was an answer to this node that verifies. If it prolonged the
    /// proof, there is [`Prover::news`]: the daemon acknowledges others only while it knows of a proof.
    pub fn receive(&mut self, now: Time, bytes: &[u8]) -> bool {
        self.count_answer(now, bytes).is_some()
    }

    fn count_answer(&mut self, now: Time, bytes: &[u8]) -> Option<()> {
        let sealed = Sealed::read(bytes)?;
        let is_it = |it: &&Peer| it.lease == sealed.claims_from();
        let peer = *self.peers.iter().find(is_it)?;
        let answer = sealed.open(&peer.link)?;
        let lease = self.lease?;
        let is_ours = answer.to == lease.id && answer.run == peer.run && answer.sent <= now;
        if !is_ours {
            return None;
        }
        match answer.kind {
            Kind::TrialAnswer => {}
            Kind::Acknowledgement => {
                let counts = self.in_place.iter_mut().chain(&mut self.unanswered);
                for count in counts.filter(|it| it.epoch.number == answer.number) {
                    let witnesses = count.epoch.witnesses.iter();
                    for (witness, newest) in witnesses.zip(&mut count.acknowledged) {
                        if witness.lease == peer.lease && witness.run == peer.run {
                            *newest = answer.sent.max(*newest);
                        }
                    }
                }
            }
            Kind::Beat | Kind::Trial => return None,
        }
        let heard = self.heard.entry(peer.lease).or_default();
        *heard = answer.sent.max(*heard);
        self.look(now);
        Some(())
    }
}
