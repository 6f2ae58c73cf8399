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
    /// Of each witness: when the newest beat was sent that it acknowledged. Before there is one, [`Count::credit`].
    acknowledged: Vec<Time>,
    /// When the epoch was announced, which is before it was sent to etcd, so before any witness can read it.
    credit: Time,
}

impl Count {
    fn new(epoch: Epoch, credit: Time) -> Count {
        let acknowledged = vec![credit; epoch.witnesses.len()];
        Count {
            epoch,
            acknowledged,
            credit,
        }
    }

    /// When the newest beat was sent that so many witnesses as are needed have acknowledged; `None` if none is needed.
    fn proved_by(&self) -> Option<Time> {
        let last_needed = self.epoch.proving().checked_sub(1)?;
        let mut newest_first = self.acknowledged.clone();
        newest_first.sort_unstable_by(|one, two| two.cmp(one));
        Some(newest_first[last_needed])
    }

    /// Until when so many witnesses as are needed prove the node.
    fn until(&self) -> Time {
        let proved_by = self.proved_by();
        proved_by.map_or(Time::NEVER, |sent| {
            sent + self.epoch.window - self.epoch.margin()
        })
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
    /// When the newest beats were sent.
    sent: Time,
    trial_at: Time,
    /// The witnesses' part of the proof was there when it was looked at last.
    witnessed: bool,
    losses: u64,
    late: u64,
    /// See [`Proof::lowest`] and [`Proof::lateness`].
    lowest: Option<Duration>,
    lateness: Duration,
    told: Proof,
}

/// An epoch that counts, and what its witnesses have done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counted {
    /// The epoch.
    pub epoch: Epoch,
    /// It is in place; else it was sent to etcd without an answer.
    pub is_in_place: bool,
    /// Of each witness: when the newest beat was sent that it acknowledged; `None` if it has acknowledged none.
    pub acknowledged: Vec<Option<Time>>,
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
            sent: Time::default(),
            trial_at: Time::default(),
            witnessed: true,
            losses: 0,
            late: 0,
            lowest: None,
            lateness: Duration::ZERO,
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
                self.note_lateness(now);
                return self.begin(lease, in_place.map(|epoch| (epoch, proved)), unanswered);
            }
            Order::Renewed(lease) => match self.lease.as_mut().filter(|held| held.id == lease.id) {
                Some(held) => held.valid_until = lease.valid_until,
                // Of one whose daemon knows of no epoch under it: the lease alone decides.
                None => {
                    self.key = None;
                    self.note_lateness(now);
                    return self.begin(lease, None, None);
                }
            },
            Order::Propose(epoch) => {
                let number = epoch.number;
                let is_ours = self.lease.map(|lease| lease.id) == Some(epoch.lease);
                if is_ours && !self.counts().any(|it| it.epoch.number == number) {
                    self.note_lateness(now);
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

    /// When the newest beat was sent that proves the node by the witnesses of each epoch; `None` if none is needed.
    pub fn proved_by(&self) -> Option<Time> {
        self.counts().filter_map(Count::proved_by).min()
    }

    /// Each epoch that counts.
    pub fn counted(&self) -> Vec<Counted> {
        let in_place = self.in_place.as_ref().map(|it| it.epoch.number);
        let counted = |it: &Count| Counted {
            epoch: it.epoch.clone(),
            is_in_place: in_place == Some(it.epoch.number),
            acknowledged: {
                let times = it.acknowledged.iter();
                times.map(|at| (*at > it.credit).then_some(*at)).collect()
            },
        };
        self.counts().map(counted).collect()
    }

    /// How often the witnesses' part of the proof was lost, and how often the guard woke up late, since it began.
    pub fn mishaps(&self) -> (u64, u64) {
        (self.losses, self.late)
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

    /// Whether all is well: one epoch is in place and no other may be, and enough witnesses have acknowledged the newest
    /// beat. Then nothing is lost if answers to the next one are read as late as the one after it is sent.
    pub fn is_answered(&self) -> bool {
        let in_place = self.in_place.as_ref();
        let is_answered =
            in_place.is_some_and(|it| it.proved_by().is_none_or(|by| by >= self.sent));
        is_answered && self.unanswered.is_empty()
    }

    /// What is due to be sent. The clock was read before, and the datagrams are sent after.
    pub fn tick(&mut self, now: Time) -> Vec<Addressed> {
        let mut datagrams = Vec::new();
        let mut trials_due = now;
        if now >= self.beat_at
            && let Some(window) = self.shortest_window()
        {
            self.note_lateness(now);
            self.look(now);
            self.beat_at = now + self.draw.between(window * 9 / 50, window / 5);
            self.sent = now;
            datagrams.extend(self.beats(now));
            // Trials go with beats: each wake-up costs CPU time, here and where they arrive.
            trials_due = now + TRIAL / 10;
        }
        if trials_due >= self.trial_at {
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
        if proof == *told {
            return None;
        }
        self.told = proof.clone();
        Some(Report::Proof(Proof {
            lowest: self.lowest.take(),
            lateness: std::mem::take(&mut self.lateness),
            ..proof
        }))
    }

    /// A daemon has come that was told nothing yet.
    pub fn forget_told(&mut self) {
        self.told = Proof::default();
    }

    /// Notices how late a beat is that is due: to be called before the beat is sent, or is to be sent at another time.
    /// A guard that was held up hears of the next epoch first, which its daemon has proposed meanwhile.
    fn note_lateness(&mut self, now: Time) {
        let lateness = now.since(self.beat_at);
        let is_due = self.beat_at > Time::default() && !lateness.is_zero();
        if let Some(window) = self.shortest_window().filter(|_| is_due) {
            self.lateness = self.lateness.max(lateness);
            self.late += u64::from(lateness > super::margin(window) / 2);
        }
    }

    /// Notices how much of the witnesses' part is left.
    fn measure(&mut self, now: Time) {
        let until = self.witnessed_until();
        if until != Time::NEVER {
            let left = until.since(now);
            self.lowest = Some(self.lowest.map_or(left, |lowest| lowest.min(left)));
        }
    }

    /// Notices whether the witnesses' part was lost.
    fn look(&mut self, now: Time) {
        self.measure(now);
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
            ..Proof::default()
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
        // A witness is heard by its acknowledgements.
        let is_witness = |peer: &Peer| {
            let mut witnesses = self.counts().flat_map(|it| &it.epoch.witnesses);
            witnesses.any(|it| it.lease == peer.lease && it.run == peer.run)
        };
        let tried = self
            .peers
            .iter()
            .filter(|peer| peer.trial && !is_witness(peer));
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
        self.measure(now);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::witness::{Run, Witness};

    const LINK: Key = Key([5; 16]);

    fn at(millis: u64) -> Time {
        Time::since_boot(Duration::from_millis(millis))
    }

    fn peer(lease: i64) -> Peer {
        Peer {
            lease: LeaseId(lease),
            run: Run(3),
            link: LINK,
            address: "192.0.2.1:14789".parse().unwrap(),
            trial: true,
        }
    }

    fn epoch(number: u64) -> Epoch {
        Epoch {
            lease: LeaseId(1),
            window: Duration::from_millis(500),
            number: Number(number),
            witnesses: vec![Witness {
                name: "gw2".parse().unwrap(),
                lease: LeaseId(2),
                run: Run(3),
            }],
        }
    }

    /// The daemon begins with an epoch that names the node of lease 2.
    fn begin() -> Order {
        Order::Begin {
            lease: Lease {
                id: LeaseId(1),
                valid_until: at(9_000),
            },
            key: Key([1; 16]),
            in_place: Some(epoch(7)),
            proved: at(1_300),
            unanswered: None,
        }
    }

    /// One at 1 s whose epoch names the node of lease 2, and that knows of another one, of lease 4.
    fn prover() -> Prover {
        let mut prover = Prover::new(Duration::ZERO, 1);
        prover.order(at(1_000), begin());
        prover.order(at(1_000), Order::Peers(vec![peer(2), peer(4)]));
        prover
    }

    /// What is due, opened.
    fn sent(prover: &mut Prover, now: Time) -> Vec<Datagram> {
        let sent = prover.tick(now);
        let open = |(_, bytes): &Addressed| Sealed::read(bytes).unwrap().open(&LINK).unwrap();
        sent.iter().map(open).collect()
    }

    fn acknowledge(prover: &mut Prover, now: Time, beat: &Datagram) {
        let answer = beat.answer().unwrap().seal(&LINK);
        assert!(prover.receive(now, &answer));
    }

    /// The parts of a proof that are told once.
    fn measured(report: Option<Report>) -> (Option<Duration>, Duration) {
        match report {
            Some(Report::Proof(proof)) => (proof.lowest, proof.lateness),
            other => panic!("{other:?}"),
        }
    }

    /// Input: a witness and another node; later it is time for a beat, and nearly for a trial. Output: the witness gets
    /// beats, the other trials, and both are sent at once.
    #[test]
    fn trials_go_with_beats_and_not_to_witnesses() {
        let mut prover = prover();
        let kinds = |sent: &[Datagram]| {
            let kinds = sent.iter().map(|it| (it.kind, it.to.0));
            kinds.collect::<Vec<_>>()
        };
        let both = [(Kind::Beat, 2), (Kind::Trial, 4)];
        assert_eq!(kinds(&sent(&mut prover, at(1_000))), both);
        assert_eq!(kinds(&sent(&mut prover, at(1_100))), [(Kind::Beat, 2)]);
        // A trial is due 900 to 1100 ms after the first.
        assert_eq!(kinds(&sent(&mut prover, at(2_000))), both);
        assert_eq!(prover.next_tick(), prover.beat_at);
    }

    /// Input: beats with and without an answer, and an epoch that is announced. Output: all is well only while one epoch
    /// is in place whose witnesses have acknowledged the newest beat.
    #[test]
    fn all_is_well_while_the_newest_beat_is_acknowledged() {
        let mut prover = prover();
        let first = sent(&mut prover, at(1_000));
        assert!(!prover.is_answered());
        acknowledge(&mut prover, at(1_001), &first[0]);
        assert!(prover.is_answered());
        let second = sent(&mut prover, at(1_100));
        assert!(!prover.is_answered());
        acknowledge(&mut prover, at(1_101), &second[0]);
        prover.order(at(1_102), Order::Propose(epoch(8)));
        assert!(!prover.is_answered());
        prover.order(at(1_103), Order::InPlace(Number(8)));
        assert!(prover.is_answered(), "credited from when it was announced");
    }

    /// Input: an answer that comes late, and a beat that is sent late. Output: the least that the proof had left and the
    /// greatest lateness are told once.
    #[test]
    fn what_was_left_and_how_late_it_was_are_told_once() {
        let mut prover = prover();
        let first = sent(&mut prover, at(1_000));
        acknowledge(&mut prover, at(1_180), &first[0]);
        // Proved until 1300 before, until 1437 now.
        let news = prover.news(at(1_180));
        assert_eq!(measured(news).0, Some(Duration::from_millis(120)));
        let due = prover.next_tick();
        let second = sent(&mut prover, due + Duration::from_millis(7));
        acknowledge(&mut prover, at(1_200), &second[0]);
        let (lowest, lateness) = measured(prover.news(at(1_200)));
        assert_eq!(lateness, Duration::from_millis(7));
        assert!(lowest.unwrap() > Duration::from_millis(200), "{lowest:?}");
    }

    /// Input: a guard that was held up for longer than half of a window; first of all it hears of the epoch that its daemon
    /// has proposed meanwhile, or of a daemon that begins anew; then it beats. Output: it was late once, by as much as it
    /// was held up.
    #[test]
    fn who_was_held_up_was_late_whatever_it_hears_first() {
        for order in [None, Some(Order::Propose(epoch(8))), Some(begin())] {
            let mut prover = prover();
            let first = sent(&mut prover, at(1_000));
            acknowledge(&mut prover, at(1_001), &first[0]);
            let held_up = Duration::from_millis(300);
            let now = prover.next_tick() + held_up;
            let reports = order.map(|order| prover.order(now, order));
            assert!(!sent(&mut prover, now).is_empty());
            assert_eq!(prover.mishaps(), (0, 1));
            let report = prover.news(now);
            let reports = reports.into_iter().flatten().chain(report);
            let lateness = reports.filter_map(|report| match report {
                Report::Proof(proof) => Some(proof.lateness),
                Report::Noted(_) => None,
            });
            assert_eq!(lateness.max(), Some(held_up));
            sent(&mut prover, now);
            assert_eq!(prover.mishaps(), (0, 1), "once");
        }
    }
}
