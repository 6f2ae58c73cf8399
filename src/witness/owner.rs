//! The daemon's part for its own node: when to write which epoch.
//!
//! ```text
//!             propose            noted             sent            in place
//!   at rest ----------> announced -----> unanswered -----> (reply) ---------> at rest
//!                       to the guard        ^   |  unknown                      |
//!                                           +---+  (the same transaction again) |
//!                                                    another's word: evicted ---+--> ended
//! ```
//!
//! One epoch at a time is unanswered. Its transaction is repeated as it is until etcd has answered: another one
//! could not prolong the proof, which has to hold under all that may be executed.

use super::draw::Draw;
use super::message::{Known, Order, Proof, Report};
use super::siphash::Key;
use super::{Epoch, Held, Number, Run, Standing, Witness, choice};
use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// How soon after it was sent a transaction is repeated whose outcome is unknown.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a node that was tried counts as answering: two trials may be lost.
const TRIED_FOR: Duration = Duration::from_millis(3_300);
/// How long a node waits at first for answers to its trials, so that it names all its witnesses at once.
const FIRST: Duration = Duration::from_secs(2);
/// How soon after an epoch one is written that only names more witnesses.
const MORE: Duration = Duration::from_secs(10);
/// How soon a node names witnesses again after it had to name none; doubled each time, up to the last.
const SHY: Duration = Duration::from_secs(2);
const SHYEST: Duration = Duration::from_secs(60);
/// How long a node that was late keeps a window that was doubled.
const CAREFUL: Duration = Duration::from_secs(300);

/// Another node that can be named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its lease: that of its registration and of its contact alike.
    pub lease: LeaseId,
    /// Its run.
    pub run: Run,
}

/// What etcd's answer to an epoch says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is in place, with this revision.
    Written(Revision),
    /// The key was not as its condition says: what it holds instead, and on which lease; `None` if it is absent.
    Refused(Option<Held>),
    /// Anything that is not etcd's own word on the transaction: a timeout, an error, no leader.
    Unknown,
}

/// The epoch in place with its revision, and the one that is unanswered.
pub type Epochs = (Option<(Revision, Epoch)>, Option<Epoch>);

/// What a daemon that takes its predecessor's lease over makes of what the guard knows and of what the node's epoch
/// key holds (read with a linearizable request, after the guard was asked). `None`: the predecessor was evicted, or
/// its lease has ended.
pub fn taken_over(known: &Known, held: Option<Held>) -> Option<Epochs> {
    let (in_place, unanswered) = (known.in_place.as_ref(), known.unanswered.as_ref());
    match held {
        None if in_place.is_none() => Some((None, unanswered.cloned())),
        Some((revision, on, Some(Standing::Epoch(epoch)))) if on == Some(known.lease.id) => {
            let is_it = |known: &&Epoch| known.number == epoch.number;
            if unanswered.filter(is_it).is_some() {
                return Some((Some((revision, epoch)), None));
            }
            let is_known = in_place.filter(is_it).is_some();
            is_known.then(|| (Some((revision, epoch)), unanswered.cloned()))
        }
        _ => None,
    }
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// To be told to the guard.
    Tell(Order),
    /// To be sent to etcd, if the key was last changed at `condition` (0: is absent).
    Write {
        /// The epoch.
        epoch: Epoch,
        /// The condition.
        condition: Revision,
    },
    /// The node is evicted: it stops acknowledging, withdraws everything, revokes this lease, and begins anew.
    LetGo(LeaseId),
}

#[derive(Clone, Debug)]
struct Attempt {
    epoch: Epoch,
    /// The guard counts it.
    is_noted: bool,
    is_in_flight: bool,
    again_at: Time,
}

/// The epochs of one node.
#[derive(Debug)]
pub struct Owner {
    me: NodeName,
    key: Key,
    /// 0: never names a witness.
    window: Duration,
    draw: Draw,
    lease: Option<LeaseId>,
    /// The longest window: no longer than the lease.
    ttl: Duration,
    began: Time,
    in_place: Option<(Revision, Epoch)>,
    /// Since when.
    in_place_at: Time,
    attempt: Option<Attempt>,
    candidates: BTreeMap<NodeName, Candidate>,
    proof: Proof,
    /// The next epoch names no witness: there was no proof under one when it was in place.
    names_none_next: bool,
    /// When it may name witnesses again, and how long it was shy last.
    named_at: Time,
    shy: Duration,
    /// How often the window is doubled, and until when.
    doubled: u32,
    careful_until: Time,
    /// How long it takes to silence all that this node serves: the margin of its window has to cover that.
    silencing: Duration,
    /// How often the guard had lost its proof and was late, when it said so last.
    troubles: Option<(u64, u64)>,
}

impl Owner {
    /// One without a lease. It aims at this window; with one of zero it names no witness.
    pub fn new(me: NodeName, key: Key, window: Duration, seed: u64) -> Owner {
        Owner {
            me,
            key,
            window,
            draw: Draw::new(seed),
            lease: None,
            ttl: Duration::ZERO,
            began: Time::default(),
            in_place: None,
            in_place_at: Time::default(),
            attempt: None,
            candidates: BTreeMap::new(),
            proof: Proof::default(),
            names_none_next: false,
            named_at: Time::default(),
            shy: SHY,
            doubled: 0,
            careful_until: Time::default(),
            silencing: Duration::ZERO,
            troubles: None,
        }
    }

    /// A lease was granted a moment ago, or is taken over from a predecessor. Of that one's epochs: the one whose
    /// number the key in etcd holds, with its revision, and the one that may be executed at any time.
    pub fn begin(
        &mut self,
        now: Time,
        lease: Lease,
        ttl: Duration,
        (in_place, unanswered): Epochs,
    ) -> Option<Act> {
        self.lease = Some(lease.id);
        self.ttl = ttl;
        self.began = now;
        self.in_place = in_place;
        self.in_place_at = now;
        self.named_at = now;
        self.shy = SHY;
        self.names_none_next = false;
        self.proof = Proof::default();
        self.attempt = unanswered.map(|epoch| Attempt {
            epoch,
            is_noted: false,
            is_in_flight: false,
            again_at: now,
        });
        self.tell_guard(lease)
    }

    /// What a guard has to know that was started a moment ago: nothing of a lease that this node has not begun with.
    pub fn tell_guard(&mut self, lease: Lease) -> Option<Act> {
        self.troubles = None;
        let number = self.epoch().map(|epoch| epoch.number);
        let known = Some(&self.proof).filter(|proof| proof.lease == Some(lease.id));
        let mut epochs = known.iter().flat_map(|proof| &proof.epochs);
        let proved = epochs.find(|(of, _)| Some(*of) == number);
        let order = Order::Begin {
            lease,
            key: self.key,
            in_place: self.epoch().cloned(),
            proved: proved.map_or(Time::default(), |(_, until)| *until),
            unanswered: self.attempt.as_ref().map(|it| it.epoch.clone()),
        };
        (self.lease == Some(lease.id)).then_some(Act::Tell(order))
    }

    /// The lease ends, by this node's own will or because it is over. The guard hears of it.
    pub fn let_go(&mut self) -> Option<Act> {
        let lease = self.lease.take()?;
        self.attempt = None;
        Some(Act::Tell(Order::Ended(lease)))
    }

    /// How long it takes from now on to silence all that this node serves.
    pub fn silences_in(&mut self, time: Duration) {
        // A VNI more or less must not lead to epoch after epoch.
        if time > self.silencing || time < self.silencing / 2 {
            self.silencing = time;
        }
    }

    /// The other nodes that have a contact.
    pub fn candidates(&mut self, candidates: BTreeMap<NodeName, Candidate>) {
        self.candidates = candidates;
    }

    /// Whom to try, beyond those that an epoch names.
    pub fn tried(&self) -> Vec<NodeName> {
        let ring = choice::behind(&self.me, &self.candidates);
        let names = ring.map(|(name, _)| name.clone());
        names.take(choice::TRIED).collect()
    }

    /// The revision of this node's epoch key, as it knows it; 0 if there is none.
    pub fn revision(&self) -> Revision {
        let in_place = self.in_place.as_ref();
        in_place.map_or(Revision(0), |(revision, _)| *revision)
    }

    /// The epoch in place.
    pub fn epoch(&self) -> Option<&Epoch> {
        self.in_place.as_ref().map(|(_, epoch)| epoch)
    }

    /// Until when the guard has proof, as far as it has said: never longer than it has.
    pub fn proof_until(&self) -> Time {
        match self.lease {
            Some(lease) if self.proof.lease == Some(lease) => self.proof.until,
            _ => Time::default(),
        }
    }

    /// Until when the guard has said that there is proof under `lease`, whether or not that is held.
    pub fn reported_until(&self, lease: Option<LeaseId>) -> Time {
        match self.proof.lease == lease {
            true => self.proof.until,
            false => Time::default(),
        }
    }

    /// What the guard said.
    pub fn report(&mut self, now: Time, report: Report) {
        match report {
            Report::Noted(number) => {
                let attempt = self.attempt.as_mut();
                if let Some(attempt) = attempt.filter(|it| it.epoch.number == number) {
                    attempt.is_noted = true;
                }
            }
            Report::Proof(proof) => {
                // Of a guard that is new to this daemon, the counts begin anywhere.
                let troubles = self.troubles.replace((proof.losses, proof.late));
                if troubles.is_some_and(|(losses, late)| proof.losses > losses || proof.late > late)
                {
                    self.be_careful(now);
                }
                self.proof = proof;
            }
        }
    }

    /// etcd's answer to the transaction with this number.
    pub fn answer(&mut self, now: Time, number: Number, answer: Answer) -> Vec<Act> {
        let Some(attempt) = self.attempt.as_mut().filter(|it| it.epoch.number == number) else {
            return Vec::new();
        };
        attempt.is_in_flight = false;
        match answer {
            Answer::Unknown => Vec::new(),
            Answer::Written(revision) => self.in_place(now, revision),
            Answer::Refused(Some((revision, _, Some(Standing::Epoch(epoch)))))
                if epoch.number == number =>
            {
                self.in_place(now, revision)
            }
            // The key of an older lease, which will go. A copy of this transaction, sent before, may find it gone, so
            // it stays unanswered.
            Answer::Refused(Some((_, lease, _)))
                if self.in_place.is_none() && lease != self.lease =>
            {
                Vec::new()
            }
            Answer::Refused(_) => self.evicted(),
        }
    }

    fn in_place(&mut self, now: Time, revision: Revision) -> Vec<Act> {
        let Some(attempt) = self.attempt.take() else {
            return Vec::new();
        };
        let number = attempt.epoch.number;
        let proves = |(of, until): &(Number, Time)| *of == number && now < *until;
        let names_none = attempt.epoch.witnesses.is_empty();
        self.names_none_next = !names_none && !self.proof.epochs.iter().any(proves);
        self.in_place = Some((revision, attempt.epoch));
        self.in_place_at = now;
        vec![Act::Tell(Order::InPlace(number))]
    }

    fn evicted(&mut self) -> Vec<Act> {
        let lease = self.lease;
        let told = self.let_go();
        told.into_iter().chain(lease.map(Act::LetGo)).collect()
    }

    /// This node's epoch key, as the watch shows it: which revision, on which lease, holding what; `None` if it was
    /// deleted at that revision.
    pub fn seen(
        &mut self,
        revision: Revision,
        held: Option<(Option<LeaseId>, &Standing)>,
    ) -> Vec<Act> {
        match held {
            Some((lease, Standing::Evicted)) if lease == self.lease => self.evicted(),
            // It is on this node's lease, which so has ended.
            None if self.in_place.is_some() && revision > self.revision() => self.evicted(),
            _ => Vec::new(),
        }
    }

    /// When [`Owner::act`] is to be called next, unless something happens before.
    pub fn deadline(&self, now: Time) -> Time {
        /// How often it looks at what has no time of its own, or at what is due and cannot be done.
        const LOOK: Duration = Duration::from_millis(100);
        if let Some(attempt) = &self.attempt {
            let is_waiting = attempt.is_noted && !attempt.is_in_flight;
            return if is_waiting {
                attempt.again_at
            } else {
                now + LOOK
            };
        }
        let Some(epoch) = self.epoch().filter(|epoch| !epoch.witnesses.is_empty()) else {
            return now + LOOK;
        };
        let urgent = self.urgent_at(epoch);
        let silent = epoch
            .witnesses
            .iter()
            .map(|it| self.last_heard(it) + epoch.window);
        let times = silent.chain([urgent, now + 10 * LOOK]);
        times.filter(|at| *at > now).min().map_or(now + LOOK, |at| {
            let is_overdue = urgent <= now;
            if is_overdue { at.min(now + LOOK) } else { at }
        })
    }

    /// Whether news of the guard cannot wait until something else is due. If all is well they can: by
    /// [`Owner::deadline`] at the latest there is time to hear them before they are needed.
    pub fn needs_news(&self, now: Time) -> bool {
        let epoch = self.epoch().filter(|epoch| !epoch.witnesses.is_empty());
        let is_well = epoch.is_some_and(|epoch| now < self.urgent_at(epoch));
        !is_well || self.attempt.is_some()
    }

    /// Does what is due.
    pub fn act(&mut self, now: Time) -> Vec<Act> {
        let Some(lease) = self.lease else {
            return Vec::new();
        };
        let condition = self.revision();
        if let Some(attempt) = &mut self.attempt {
            let is_due = attempt.is_noted && !attempt.is_in_flight && now >= attempt.again_at;
            if !is_due {
                return Vec::new();
            }
            attempt.is_in_flight = true;
            attempt.again_at = now + AGAIN;
            let epoch = attempt.epoch.clone();
            return vec![Act::Write { epoch, condition }];
        }
        let Some((window, witnesses)) = self.wanted(now) else {
            return Vec::new();
        };
        let epoch = Epoch {
            lease,
            window,
            number: Number(self.draw.number().max(1)),
            witnesses,
        };
        self.attempt = Some(Attempt {
            epoch: epoch.clone(),
            is_noted: false,
            is_in_flight: false,
            again_at: now,
        });
        vec![Act::Tell(Order::Propose(epoch))]
    }

    /// The window and the witnesses of the next epoch, if it is time for one.
    fn wanted(&mut self, now: Time) -> Option<(Duration, Vec<Witness>)> {
        let window = self.wanted_window(now);
        if window.is_zero() && self.in_place.is_none() {
            return None;
        }
        let in_place = self.in_place.as_ref().map(|(_, epoch)| epoch);
        let Some(epoch) = in_place.filter(|epoch| !epoch.witnesses.is_empty()) else {
            return Some((window, self.first(now).filter(|_| !window.is_zero())?));
        };
        let witnesses = epoch.witnesses.iter();
        let kept: Vec<Witness> = witnesses
            .filter(|it| self.is_there(now, it, epoch.window / 2))
            .cloned()
            .collect();
        if self.names_none_next || window.is_zero() {
            let window = epoch.window;
            self.be_shy(now);
            return Some((window, Vec::new()));
        }
        if self.is_urgent(now, epoch) {
            if kept.is_empty() {
                let window = epoch.window;
                self.be_shy(now);
                return Some((window, Vec::new()));
            }
            // As it is, if all are there: they are late. Then the window is to be longer.
            let is_same = kept.len() == epoch.witnesses.len();
            return (!is_same).then(|| (window.max(epoch.window), kept));
        }
        let has_silent = epoch
            .witnesses
            .iter()
            .any(|it| !self.is_there(now, it, epoch.window));
        let others = self
            .answering(now)
            .filter(|it| !epoch.witnesses.contains(it));
        let named = choice::choose(kept, others);
        let has_more = named.len() > epoch.witnesses.len() && now >= self.in_place_at + MORE;
        let is_wanted = has_silent || has_more || window != epoch.window;
        (is_wanted && !named.is_empty()).then_some((window, named))
    }

    /// Which witnesses to name after an epoch without any.
    fn first(&self, now: Time) -> Option<Vec<Witness>> {
        let named = choice::choose(Vec::new(), self.answering(now));
        let is_complete = named.len() >= super::MOST.min(self.candidates.len());
        let is_time = now >= self.named_at && (is_complete || now >= self.began + FIRST);
        (is_time && !named.is_empty()).then_some(named)
    }

    /// Half of the window is gone, and too few witnesses have acknowledged anything in it.
    fn is_urgent(&self, now: Time, epoch: &Epoch) -> bool {
        now >= self.urgent_at(epoch)
    }

    /// When that is so, if the guard says nothing more.
    fn urgent_at(&self, epoch: &Epoch) -> Time {
        self.proved_until(epoch) - (epoch.window / 2).saturating_sub(epoch.margin())
    }

    /// Until when this epoch proves the node, as far as the guard has said.
    fn proved_until(&self, epoch: &Epoch) -> Time {
        let mut epochs = self.proof.epochs.iter();
        let found = epochs.find(|(number, _)| *number == epoch.number);
        // A guard that has not said yet has been told a moment ago.
        found.map_or(self.in_place_at + epoch.window, |(_, until)| *until)
    }

    fn be_shy(&mut self, now: Time) {
        let has_lasted = now >= self.in_place_at + SHYEST;
        self.shy = if has_lasted {
            SHY
        } else {
            (self.shy * 2).min(SHYEST)
        };
        self.named_at = now + self.shy;
        self.names_none_next = false;
    }

    /// Doubles the window, unless what it was doubled to has not been tried yet.
    fn be_careful(&mut self, now: Time) {
        let wanted = self.wanted_window(now);
        let is_tried = self.epoch().is_some_and(|epoch| epoch.window >= wanted);
        if is_tried && wanted < self.ttl {
            self.doubled += 1;
        }
        self.careful_until = now + CAREFUL;
    }

    fn wanted_window(&mut self, now: Time) -> Duration {
        if now >= self.careful_until {
            self.doubled = 0;
        }
        let factor = 1_u32.checked_shl(self.doubled).unwrap_or(u32::MAX);
        let longest = self.ttl.max(self.window);
        let mut window = self.window.saturating_mul(factor).min(longest);
        while super::margin(window) < self.silencing && !window.is_zero() {
            // No window is long enough: the lease alone decides.
            window = match window < longest {
                true => (window * 2).min(longest),
                false => Duration::ZERO,
            };
        }
        window
    }

    /// When the newest beat was sent that any other node has acknowledged, under the present lease.
    pub fn newest_heard(&self) -> Time {
        let is_of = self.lease.is_some() && self.proof.lease == self.lease;
        let heard = self.proof.heard.iter().filter(|_| is_of);
        heard.map(|(_, at)| *at).max().unwrap_or_default()
    }

    /// How long nothing may be heard until that means something: where no beats are sent, trials are.
    pub fn patience(&self) -> Duration {
        let epoch = self.epoch().filter(|epoch| !epoch.witnesses.is_empty());
        epoch.map_or(TRIED_FOR, |epoch| epoch.window)
    }

    fn heard(&self, lease: LeaseId) -> Time {
        let heard = self.proof.heard.iter().find(|(of, _)| *of == lease);
        heard.map_or(Time::default(), |(_, at)| *at)
    }

    /// When the newest beat was sent that a witness has acknowledged; one that was named a moment ago has time.
    fn last_heard(&self, witness: &Witness) -> Time {
        self.heard(witness.lease).max(self.in_place_at)
    }

    /// Whether a witness is still the one that was named, and has acknowledged a beat that is no older.
    fn is_there(&self, now: Time, witness: &Witness, within: Duration) -> bool {
        let candidate = self.candidates.get(&witness.name);
        let is_same =
            candidate.is_some_and(|it| it.lease == witness.lease && it.run == witness.run);
        is_same && now.since(self.last_heard(witness)) < within
    }

    /// The other nodes that answer trials, the nearest first.
    fn answering(&self, now: Time) -> impl Iterator<Item = Witness> {
        let answers = move |(_, it): &(&NodeName, &Candidate)| {
            now.since(self.heard(it.lease)) < TRIED_FOR && self.heard(it.lease) > Time::default()
        };
        let ring = choice::behind(&self.me, &self.candidates).filter(answers);
        ring.map(|(name, it)| Witness {
            name: name.clone(),
            lease: it.lease,
            run: it.run,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(millis: u64) -> Time {
        Time::since_boot(Duration::from_millis(millis))
    }

    /// The window of the first epoch of a node with a lease of 5 s that another node answers, and that needs so long
    /// to silence all it serves; `None` if it names no witness.
    fn window(silencing: Duration) -> Option<Duration> {
        let name = |text: &str| text.parse().unwrap();
        let window = Duration::from_millis(500);
        let mut owner = Owner::new(name("gw1"), Key([1; 16]), window, 1);
        let lease = Lease {
            id: LeaseId(1),
            valid_until: at(5_000),
        };
        let ttl = Duration::from_secs(5);
        owner.begin(at(0), lease, ttl, (None, None));
        let other = Candidate {
            lease: LeaseId(2),
            run: Run(3),
        };
        owner.candidates(BTreeMap::from([(name("gw2"), other)]));
        owner.silences_in(silencing);
        let proof = Proof {
            lease: Some(lease.id),
            until: at(4_000),
            heard: vec![(other.lease, at(2_000))],
            ..Proof::default()
        };
        owner.report(at(2_000), Report::Proof(proof));
        match &owner.act(at(2_001))[..] {
            [] => None,
            [Act::Tell(Order::Propose(epoch))] => Some(epoch.window),
            acts => panic!("{acts:?}"),
        }
    }

    /// Input: nodes that need ever longer to silence what they serve. Output: the window is doubled until its margin
    /// covers that, up to the lease; beyond, no witness is named.
    #[test]
    fn a_window_covers_the_time_to_silence_all() {
        for (silencing, expected) in [
            (0, Some(500)),
            (62, Some(500)),
            (63, Some(1_000)),
            (500, Some(4_000)),
            (600, Some(5_000)),
            (626, None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(window(Duration::from_millis(silencing)), expected);
        }
    }

    /// Input: an epoch that is proposed, in place, and proved ever shorter. Output: the guard's news can wait while the
    /// proof lasts for more than half of the window, and at no other time.
    #[test]
    fn news_can_wait_while_the_proof_is_long() {
        let mut owner = Owner::new("gw1".parse().unwrap(), Key([1; 16]), CAREFUL, 1);
        let epoch = Epoch {
            lease: LeaseId(1),
            window: Duration::from_millis(800),
            number: Number(7),
            witnesses: vec![Witness {
                name: "gw2".parse().unwrap(),
                lease: LeaseId(2),
                run: Run(3),
            }],
        };
        let lease = Lease {
            id: LeaseId(1),
            valid_until: at(9_000),
        };
        assert!(owner.needs_news(at(0)), "no epoch");
        let in_place = Some((Revision(4), epoch.clone()));
        owner.begin(at(0), lease, CAREFUL, (in_place.clone(), None));
        let proof = Proof {
            lease: Some(lease.id),
            epochs: vec![(epoch.number, at(1_700))],
            ..Proof::default()
        };
        owner.report(at(1_000), Report::Proof(proof));
        // The margin is 100 ms: half of the window has gone at 1400 ms.
        assert!(!owner.needs_news(at(1_399)));
        assert!(owner.needs_news(at(1_400)));
        let next = Epoch {
            number: Number(8),
            ..epoch
        };
        owner.begin(at(0), lease, CAREFUL, (in_place, Some(next)));
        assert!(owner.needs_news(at(0)), "an epoch is unanswered");
    }

    /// Input: a node that serves a few VNIs less. Output: the window stays, until it is half of them.
    #[test]
    fn a_window_does_not_follow_each_vni() {
        let mut owner = Owner::new("gw1".parse().unwrap(), Key([1; 16]), CAREFUL, 1);
        for (told, kept) in [(100, 100), (90, 100), (50, 100), (49, 49), (60, 60)] {
            owner.silences_in(Duration::from_millis(told));
            assert_eq!(owner.silencing, Duration::from_millis(kept));
        }
    }
}
