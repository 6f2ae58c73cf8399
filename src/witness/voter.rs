//! The daemon's part for other nodes: acknowledging, voting, ending the leases of the evicted.
//!
//! One thread owns the [`Voter`], so that it decides on acknowledgements and votes one after the other. Before a
//! witness votes against an epoch, it stops acknowledging that epoch. It remembers that for as long as its run lasts.

use super::datagram::{Datagram, Kind, LENGTH, Sealed, link_key};
use super::siphash::Key;
use super::{Contact, Epoch, Held, Number, Run, Standing, Witness};
use crate::model::types::{LeaseId, NodeName, Revision, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How soon after it was sent a vote is repeated whose outcome is unknown, or that was refused.
const AGAIN: Duration = Duration::from_millis(100);
/// The voter whose vote evicted an owner revokes the owner's lease at once. The other nodes wait this long before they
/// do.
const LEAVE: Duration = Duration::from_millis(100);
/// How long the voter remembers an ended lease. Until then it acknowledges no recorded datagram under that lease.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A vote, as it is sent to etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ballot {
    /// The node that the vote is against.
    pub owner: NodeName,
    /// The revision of the epoch that the vote is against. etcd refuses the vote if the owner has a newer epoch.
    pub revision: Revision,
    /// That epoch.
    pub epoch: Epoch,
    /// The voter's lease, as the epoch names it.
    pub lease: LeaseId,
    /// The voter's run, as the epoch names it.
    pub run: Run,
    /// The revision of the voter's own epoch key; 0 if it has none. etcd refuses the vote if that key has changed.
    pub own: Revision,
    /// Other witnesses that have been gone for long enough. etcd counts each of them as a vote if the contact of the
    /// witness is not on the lease that the epoch names.
    pub gone: Vec<NodeName>,
}

/// What became of a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voted {
    /// etcd stored it. More votes are needed.
    Put,
    /// It was the last vote that was needed: the owner is evicted.
    Evicted,
    /// etcd refused it, because one of its conditions did not hold.
    Refused,
    /// The outcome is not known: a timeout, an error, or no leader.
    Unknown,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// A vote to send.
    Vote(Ballot),
    /// A lease to revoke: that of an evicted owner's key.
    Revoke(LeaseId),
}

/// A change in etcd, as far as it matters here. All of one revision come together, in the order of revisions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A node's contact, with its lease.
    Contact(NodeName, Option<(LeaseId, Contact)>),
    /// An epoch key: its revision, its lease, what it holds. `None` if it is deleted; what cannot be read has no
    /// [`Standing`].
    Epoch(NodeName, Option<Held>),
}

/// A key as it was read.
#[derive(Clone, Debug)]
struct Watched {
    revision: Revision,
    lease: Option<LeaseId>,
    standing: Option<Standing>,
    read_at: Time,
    /// When the voting timer began: when this node last acknowledged a beat of the epoch, or else when it read the
    /// epoch, or when it postponed its vote.
    acknowledged: Time,
    /// This node has postponed its vote once, because it was late itself.
    is_postponed: bool,
    is_in_flight: bool,
    vote_at: Time,
    revoke_at: Time,
}

/// What this node remembers of one lease of an owner.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// The epochs that this node does not acknowledge any more, because it has voted against them.
    stopped: BTreeSet<Number>,
    /// The epoch key was deleted, or does not hold an epoch any more: this node acknowledges nothing of this lease.
    is_over: bool,
    /// When the newest beat of an epoch was sent. A beat that is not newer is a copy, perhaps a recorded one.
    newest: BTreeMap<Number, Time>,
    used: Time,
}

/// What a node does for others.
#[derive(Debug)]
pub struct Voter {
    me: NodeName,
    run: Run,
    key: Key,
    /// `None`: it acknowledges nothing and does not vote.
    lease: Option<LeaseId>,
    proof_until: Time,
    own: Revision,
    contacts: BTreeMap<NodeName, (LeaseId, Contact)>,
    watched: BTreeMap<NodeName, Watched>,
    memory: BTreeMap<LeaseId, Memory>,
    /// Of each epoch that was read, by its owner: since when this node has known that the contact of a witness is not
    /// on the lease any more that the epoch names.
    gone: BTreeMap<(NodeName, Witness), Time>,
    /// From when on an owner is certainly silent whose lease ended without an eviction.
    silent_from: BTreeMap<NodeName, Time>,
}

impl Voter {
    /// The voter of this run, which publishes `key`.
    pub fn new(me: NodeName, run: Run, key: Key) -> Voter {
        Voter {
            me,
            run,
            key,
            lease: None,
            proof_until: Time::default(),
            own: Revision(0),
            contacts: BTreeMap::new(),
            watched: BTreeMap::new(),
            memory: BTreeMap::new(),
            gone: BTreeMap::new(),
            silent_from: BTreeMap::new(),
        }
    }

    /// Sets the lease that this node's contact is on. The caller sets `None` before it ends that lease. From then on
    /// this node acknowledges nothing, and does not vote.
    pub fn set_lease(&mut self, lease: Option<LeaseId>) {
        self.lease = lease;
        self.proof_until = Time::default();
    }

    /// Another run begins: what names the one before is not acknowledged any more, nor voted on.
    pub fn begin_run(&mut self, run: Run) {
        self.run = run;
    }

    /// Until when this node has proof itself, and the revision of its own epoch key.
    pub fn set_proof(&mut self, until: Time, own: Revision) {
        self.proof_until = until;
        if own != self.own {
            self.own = own;
            // What etcd refuses because the key has changed, it takes now.
            for watched in self.watched.values_mut() {
                watched.vote_at = Time::default();
            }
        }
    }

    /// The other nodes that have a contact: this node can name them as witnesses, and send datagrams to them.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, LeaseId, &Contact)> {
        let others = self.contacts.iter().filter(|(name, _)| **name != self.me);
        others.map(|(name, (lease, contact))| (name, *lease, contact))
    }

    /// What a node has published, and on which lease.
    pub fn contact_of(&self, name: &NodeName) -> Option<(LeaseId, Contact)> {
        self.contacts.get(name).copied()
    }

    /// Whether another node has named witnesses since then, and not this one.
    pub fn others_go_on(&self, since: Time) -> bool {
        let mut read = self.watched.values().filter(|it| it.read_at >= since);
        read.any(|it| match &it.standing {
            Some(Standing::Epoch(Epoch { witnesses, .. })) => {
                !witnesses.is_empty() && witnesses.iter().all(|it| it.name != self.me)
            }
            _ => false,
        })
    }

    /// Takes what changed in etcd at one revision; or, with `whole`, all that there is.
    pub fn read(&mut self, now: Time, changes: Vec<Change>, whole: bool) {
        if whole {
            self.forget_absent(now, &changes);
        }
        for change in changes {
            match change {
                Change::Contact(name, Some(contact)) => drop(self.contacts.insert(name, contact)),
                Change::Contact(name, None) => drop(self.contacts.remove(&name)),
                Change::Epoch(name, held) => self.read_epoch(now, name, held),
            }
        }
        self.note_the_gone(now);
        self.forget_old_leases(now);
        self.silent_from.retain(|_, from| now < *from);
    }

    fn forget_absent(&mut self, now: Time, changes: &[Change]) {
        let mut named: [BTreeSet<&NodeName>; 2] = Default::default();
        for change in changes {
            match change {
                Change::Contact(name, _) => named[0].insert(name),
                Change::Epoch(name, _) => named[1].insert(name),
            };
        }
        self.contacts.retain(|name, _| named[0].contains(name));
        let absent = self.watched.keys().filter(|name| !named[1].contains(name));
        for name in absent.cloned().collect::<Vec<_>>() {
            self.read_epoch(now, name, None);
        }
    }

    fn read_epoch(&mut self, now: Time, owner: NodeName, held: Option<Held>) {
        if owner == self.me {
            return;
        }
        let Some((revision, lease, standing)) = held else {
            if let Some(old) = self.watched.remove(&owner) {
                self.end_lease(now, old.lease);
                if let Some(Standing::Epoch(epoch)) = old.standing {
                    self.silent_from.insert(owner, now + epoch.patience());
                }
            }
            return;
        };
        if self
            .watched
            .get(&owner)
            .is_some_and(|old| old.revision >= revision)
        {
            return;
        }
        if !matches!(standing, Some(Standing::Epoch(_))) {
            self.end_lease(now, lease);
        }
        self.gone.retain(|(of, _), _| *of != owner);
        // The timer of an epoch begins when the epoch is read, whatever was acknowledged before: the owner relies on
        // its witnesses from when it sent the epoch.
        let watched = Watched {
            revision,
            lease,
            standing,
            read_at: now,
            acknowledged: now,
            is_postponed: false,
            is_in_flight: false,
            vote_at: now,
            revoke_at: now + LEAVE,
        };
        self.watched.insert(owner, watched);
    }

    /// Nothing of this lease is acknowledged any more.
    fn end_lease(&mut self, now: Time, lease: Option<LeaseId>) {
        if let Some(lease) = lease {
            self.memory(now, lease).is_over = true;
        }
    }

    fn memory(&mut self, now: Time, lease: LeaseId) -> &mut Memory {
        let memory = self.memory.entry(lease).or_default();
        memory.used = now;
        memory
    }

    /// Forgets what was remembered of leases that ended long ago.
    fn forget_old_leases(&mut self, now: Time) {
        let contacts = &self.contacts;
        self.memory.retain(|lease, memory| {
            let is_alive = contacts.values().any(|(of, _)| of == lease);
            is_alive || now.since(memory.used) < REMEMBERED
        });
    }

    /// Notes since when a witness of an epoch is gone. All changes of this revision are known, those of the
    /// epoch among them: a contact that is not there now was gone after the epoch was written.
    fn note_the_gone(&mut self, now: Time) {
        let mut gone = BTreeMap::new();
        for (owner, watched) in &self.watched {
            let Some(Standing::Epoch(epoch)) = &watched.standing else {
                continue;
            };
            for witness in &epoch.witnesses {
                let contact = self.contacts.get(&witness.name);
                if contact.map(|(lease, _)| *lease) != Some(witness.lease) {
                    let key = (owner.clone(), witness.clone());
                    let since = self.gone.get(&key).copied().unwrap_or(now);
                    gone.insert(key, since);
                }
            }
        }
        self.gone = gone;
    }

    /// From this time on another node may show the VNIs of `owner`. It is later than now only if the owner's lease
    /// ended without an eviction and the owner had not written `released`. Its witnesses may then have proved it a
    /// moment before they read of the end: etcd can end a lease that its holder has renewed.
    pub fn silent_from(&self, owner: &NodeName) -> Time {
        self.silent_from.get(owner).copied().unwrap_or_default()
    }

    /// Decides on a datagram that arrived. The clock was read after it was received. Returns the answer.
    pub fn receive(&mut self, now: Time, bytes: &[u8]) -> Option<[u8; LENGTH]> {
        let sealed = Sealed::read(bytes)?;
        let mut contacts = self.contacts.iter();
        let (owner, (lease, contact)) =
            contacts.find(|(_, (lease, _))| *lease == sealed.claims_from())?;
        let link = link_key(&contact.key, &self.key);
        let beat = sealed.open(&link)?;
        let (owner, lease) = (owner.clone(), *lease);
        let may = match beat.kind {
            Kind::Beat => self.acknowledges(now, &owner, lease, &beat),
            Kind::Trial => self.is_addressed(&beat) && now < self.proof_until,
            Kind::Acknowledgement | Kind::TrialAnswer => false,
        };
        let answer = beat.answer().filter(|_| may)?;
        Some(answer.seal(&link))
    }

    fn is_addressed(&self, beat: &Datagram) -> bool {
        self.lease == Some(beat.to) && beat.run == self.run
    }

    /// Whether this node acknowledges a beat. If it does, this notes it. A beat says that the epoch names this run
    /// under this lease, and this node believes that: it need not have read the epoch. It acknowledges every epoch of
    /// the owner's lease that it has not stopped acknowledging. The model finds that safe. A node that reads etcd late,
    /// as all nodes do while they take over thousands of VNIs, then takes no proof away from a living owner.
    fn acknowledges(
        &mut self,
        now: Time,
        owner: &NodeName,
        lease: LeaseId,
        beat: &Datagram,
    ) -> bool {
        let is_addressed = self.is_addressed(beat);
        let has_proof = now < self.proof_until;
        let memory = self.memory(now, lease);
        let is_new = memory
            .newest
            .get(&beat.number)
            .is_none_or(|newest| beat.sent > *newest);
        let has_stopped = memory.is_over || memory.stopped.contains(&beat.number);
        if !is_addressed || !has_proof || !is_new || has_stopped {
            return false;
        }
        memory.newest.insert(beat.number, beat.sent);
        // What is older is of epochs that the owner has left.
        memory
            .newest
            .retain(|_, sent| *sent + REMEMBERED > beat.sent);
        if let Some(watched) = self.watched.get_mut(owner)
            && let Some(Standing::Epoch(epoch)) = &watched.standing
            && epoch.number == beat.number
        {
            watched.acknowledged = now;
            watched.is_postponed = false;
        }
        true
    }

    /// When [`Voter::act`] is to be called next, if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        let of = |(owner, watched): (&NodeName, &Watched)| self.due(owner, watched);
        self.watched.iter().filter_map(of).min()
    }

    fn due(&self, owner: &NodeName, watched: &Watched) -> Option<Time> {
        match &watched.standing {
            Some(Standing::Epoch(epoch)) => {
                let is_named = self
                    .lease
                    .is_some_and(|lease| epoch.names(&self.me, lease, self.run));
                let is_waiting = is_named && *owner != self.me && !watched.is_in_flight;
                let since = watched.acknowledged + epoch.patience();
                is_waiting.then(|| since.max(watched.vote_at))
            }
            Some(Standing::Evicted) => watched.lease.map(|_| watched.revoke_at),
            Some(Standing::Released) | None => None,
        }
    }

    /// Does what is due.
    pub fn act(&mut self, now: Time) -> Vec<Act> {
        let is_due = |(owner, watched): &(&NodeName, &Watched)| {
            self.due(owner, watched).is_some_and(|at| now >= at)
        };
        let due = self.watched.iter().filter(is_due);
        let due: Vec<NodeName> = due.map(|(owner, _)| owner.clone()).collect();
        due.iter()
            .filter_map(|owner| self.act_on(now, owner))
            .collect()
    }

    fn act_on(&mut self, now: Time, owner: &NodeName) -> Option<Act> {
        let watched = self.watched.get_mut(owner)?;
        let lease = self.lease;
        let epoch = match &watched.standing {
            Some(Standing::Epoch(epoch)) => epoch.clone(),
            Some(Standing::Evicted) => {
                watched.revoke_at = now + Duration::from_secs(1);
                return watched.lease.map(Act::Revoke);
            }
            Some(Standing::Released) | None => return None,
        };
        let memory = self.memory.get(&epoch.lease);
        let has_stopped = memory.is_some_and(|memory| memory.stopped.contains(&epoch.number));
        let watched = self.watched.get_mut(owner)?;
        let due = watched.acknowledged + epoch.patience();
        let was_late = now.since(due) > epoch.margin();
        if was_late && !watched.is_postponed && !has_stopped {
            // This node itself was late, so the owner may be alive: its beats may still be unread in the socket. This
            // node waits once more before it votes.
            watched.acknowledged = now;
            watched.is_postponed = true;
            return None;
        }
        watched.is_in_flight = true;
        watched.vote_at = now + AGAIN;
        let revision = watched.revision;
        // This node stops acknowledging the epoch before it sends the vote, and never begins again.
        self.memory(now, epoch.lease).stopped.insert(epoch.number);
        let gone = epoch.witnesses.iter().filter(|it| {
            let since = self.gone.get(&(owner.clone(), (*it).clone()));
            it.name != self.me && since.is_some_and(|since| now >= *since + epoch.patience())
        });
        Some(Act::Vote(Ballot {
            owner: owner.clone(),
            revision,
            gone: gone.map(|it| it.name.clone()).collect(),
            epoch,
            lease: lease?,
            run: self.run,
            own: self.own,
        }))
    }

    /// What became of a vote. It is repeated until the key changes: a later one may count witnesses that have gone
    /// meanwhile.
    pub fn voted(&mut self, ballot: &Ballot, voted: Voted) -> Option<Act> {
        let watched = self.watched.get_mut(&ballot.owner)?;
        if watched.revision == ballot.revision {
            watched.is_in_flight = false;
        }
        (voted == Voted::Evicted).then_some(Act::Revoke(ballot.epoch.lease))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(millis: u64) -> Time {
        Time::since_boot(Duration::from_millis(millis))
    }

    /// Input: a vote that etcd refuses because the voter's own epoch has changed, and then the news of that change. Output:
    /// it is sent again at once; one that is refused for another reason, or has no outcome, 100 ms after it was sent.
    #[test]
    fn a_vote_is_repeated_as_soon_as_it_may_pass() {
        let (me, owner) = ("gw2".parse::<NodeName>().unwrap(), "gw1".parse().unwrap());
        let mut voter = Voter::new(me.clone(), Run(3), Key([1; 16]));
        voter.set_lease(Some(LeaseId(2)));
        voter.set_proof(at(9_000), Revision(5));
        let epoch = Epoch {
            lease: LeaseId(1),
            window: Duration::from_millis(500),
            number: Number(7),
            witnesses: vec![Witness {
                name: me,
                lease: LeaseId(2),
                run: Run(3),
            }],
        };
        let held = (Revision(4), Some(LeaseId(1)), Some(Standing::Epoch(epoch)));
        voter.read(at(0), vec![Change::Epoch(owner, Some(held))], false);
        let vote = |voter: &mut Voter, now: u64| match &voter.act(at(now))[..] {
            [] => None,
            [Act::Vote(ballot)] => Some(ballot.clone()),
            acts => panic!("{acts:?}"),
        };
        let first = vote(&mut voter, 600).unwrap();
        assert_eq!(first.own, Revision(5));
        voter.voted(&first, Voted::Refused);
        assert_eq!(vote(&mut voter, 640), None);
        voter.set_proof(at(9_000), Revision(6));
        let second = vote(&mut voter, 641).unwrap();
        assert_eq!(second.own, Revision(6));
        voter.voted(&second, Voted::Unknown);
        assert_eq!(vote(&mut voter, 740), None);
        let third = vote(&mut voter, 741).unwrap();
        // A timeout has taken longer than the pause.
        voter.voted(&third, Voted::Unknown);
        assert!(vote(&mut voter, 991).is_some());
    }

    const READ: Time = Time::since_boot(Duration::from_secs(1_000));

    /// Input: epochs of this node and of another. Output: the other goes on without this node if it has named others
    /// since, and only others.
    #[test]
    fn others_go_on_who_name_others_alone() {
        let names: [NodeName; 3] = ["me", "gw2", "gw3"].map(|it| it.parse().unwrap());
        let [me, other, third] = &names;
        let witness = |name: &NodeName| Witness {
            name: name.clone(),
            lease: LeaseId(7),
            run: Run(7),
        };
        let goes_on = |owner: &NodeName, named: &[&NodeName], since: Time| {
            let mut voter = Voter::new(me.clone(), Run(1), Key([0; 16]));
            let epoch = Epoch {
                lease: LeaseId(9),
                window: Duration::from_millis(500),
                number: Number(1),
                witnesses: named.iter().map(|name| witness(name)).collect(),
            };
            let held = (Revision(5), Some(LeaseId(9)), Some(Standing::Epoch(epoch)));
            voter.read(READ, vec![Change::Epoch(owner.clone(), Some(held))], false);
            voter.others_go_on(since)
        };
        assert!(goes_on(other, &[third], READ));
        assert!(!goes_on(other, &[third, me], READ));
        assert!(!goes_on(other, &[], READ), "it is as lonely");
        assert!(!goes_on(me, &[third], READ));
        assert!(!goes_on(other, &[third], READ + Duration::from_millis(1)));
    }
}
