//! What proves that this node may serve: its lease, and its witnesses. Pure.
//!
//! The guard counts; this is what it has said, and what the daemon has told it: a guard that takes the place of another
//! has to know that before it counts. Under a lock of its own that is never held for long.

use crate::model::types::{Lease, LeaseId, Time};
use crate::witness::message::{self, Known, Order};
use crate::witness::siphash::Key;
use crate::witness::{Epoch, Number};
use std::time::Duration;

/// The proof, as far as the daemon knows it: never longer than the guard's.
#[derive(Debug)]
pub struct Proof {
    lease: Option<Lease>,
    /// Until when the witnesses prove the node; for ever if it names none.
    witnessed: Time,
    /// There is none under this lease any more.
    is_ended: bool,
    key: Option<Key>,
    in_place: Option<Epoch>,
    unanswered: Option<Epoch>,
    /// Until when each epoch proves the node, by what the guard has said.
    epochs: Vec<(Number, Time)>,
}

impl Default for Proof {
    fn default() -> Proof {
        Proof {
            lease: None,
            witnessed: Time::NEVER,
            is_ended: false,
            key: None,
            in_place: None,
            unanswered: None,
            epochs: Vec::new(),
        }
    }
}

impl Proof {
    /// The lease, whether or not it still holds.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// The lease was granted, renewed or lost. A new one has no epoch.
    pub fn set_lease(&mut self, lease: Option<Lease>) {
        let id = |lease: Option<Lease>| lease.map(|lease| lease.id);
        if id(self.lease) != id(lease) {
            *self = Proof::default();
        }
        self.lease = lease;
    }

    /// The lease is that of a predecessor, with these epochs: there is no proof before the guard says so.
    pub fn take_over(&mut self, known: &Known) {
        self.set_lease(Some(known.lease));
        self.key = Some(known.key);
        self.in_place.clone_from(&known.in_place);
        self.unanswered.clone_from(&known.unanswered);
        if self.in_place.is_some() || self.unanswered.is_some() {
            self.witnessed = Time::default();
        }
    }

    /// Notes what the guard is about to be told. Says whether that concerns the present lease, so that it may be told.
    pub fn order(&mut self, order: &Order) -> bool {
        let id = self.lease.map(|lease| lease.id);
        match order {
            Order::Begin {
                lease,
                key,
                in_place,
                unanswered,
                ..
            } => {
                if id != Some(lease.id) {
                    return false;
                }
                self.key = Some(*key);
                self.in_place.clone_from(in_place);
                self.unanswered.clone_from(unanswered);
            }
            Order::Propose(epoch) => {
                if id != Some(epoch.lease) {
                    return false;
                }
                self.unanswered = Some(epoch.clone());
            }
            Order::InPlace(number) => {
                let is_it = |epoch: &mut Epoch| epoch.number == *number;
                if let Some(epoch) = self.unanswered.take_if(is_it) {
                    self.in_place = Some(epoch);
                }
            }
            Order::Ended(lease) if id == Some(*lease) => {
                self.is_ended = true;
                self.witnessed = Time::default();
            }
            Order::Ended(_) | Order::Renewed(_) | Order::Peers(_) => {}
        }
        true
    }

    /// What a new guard has to know before it hears of the lease.
    pub fn begin(&self) -> Option<Order> {
        let number = self.in_place.as_ref().map(|epoch| epoch.number);
        let mut epochs = self.epochs.iter();
        let proved = epochs.find(|(of, _)| Some(*of) == number);
        Some(Order::Begin {
            lease: self.lease?,
            key: self.key?,
            in_place: self.in_place.clone(),
            proved: proved.map_or(Time::default(), |(_, until)| *until),
            unanswered: self.unanswered.clone(),
        })
    }

    /// Takes what the guard said.
    pub fn report(&mut self, report: &message::Proof) {
        let is_ours = self.lease.is_some_and(|it| report.lease == Some(it.id));
        if !is_ours || self.is_ended {
            return;
        }
        self.epochs.clone_from(&report.epochs);
        let ends = self.epochs.iter().map(|(_, until)| *until);
        self.witnessed = ends.min().unwrap_or(Time::NEVER);
    }

    /// Whether the lease holds, up to `margin` before its end.
    pub fn lease_holds(&self, now: Time, margin: Duration) -> bool {
        self.lease
            .is_some_and(|lease| now < lease.valid_until - margin)
    }

    /// Whether enough witnesses prove the node.
    pub fn is_witnessed(&self, now: Time) -> bool {
        now < self.witnessed
    }

    /// Whether there is proof.
    pub fn holds(&self, now: Time, margin: Duration) -> bool {
        self.lease_holds(now, margin) && self.is_witnessed(now)
    }

    /// Whether there is proof for what was decided `under` a lease.
    pub fn holds_under(&self, under: Option<LeaseId>, now: Time, margin: Duration) -> bool {
        self.lease.map(|lease| lease.id) == under && self.holds(now, margin)
    }

    /// When the proof ends next, if it is not prolonged; when the lease does, if the witnesses' part has.
    pub fn ends(&self, now: Time, margin: Duration) -> Time {
        let lease = self
            .lease
            .map_or(Time::default(), |lease| lease.valid_until - margin);
        match self.is_witnessed(now) {
            true => lease.min(self.witnessed),
            false => lease,
        }
    }

    /// The lease with an end that the kernel may be told, which stops `margin` before it.
    pub fn lease_for_kernel(&self, margin: Duration) -> Option<Lease> {
        let lease = self.lease?;
        let valid_until = lease.valid_until.min(self.witnessed + margin);
        Some(Lease {
            valid_until,
            ..lease
        })
    }

    /// Whether no witness is or may be named: then the lease alone decides.
    pub fn is_lease_alone(&self) -> bool {
        let names = |epoch: &Option<Epoch>| {
            epoch
                .as_ref()
                .is_some_and(|epoch| !epoch.witnesses.is_empty())
        };
        self.witnessed == Time::NEVER && !names(&self.in_place) && !names(&self.unanswered)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::witness::{Run, Witness};

    const MARGIN: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Time {
        Time::since_boot(Duration::from_millis(millis))
    }

    fn lease(id: i64) -> Lease {
        Lease {
            id: LeaseId(id),
            valid_until: at(5_000),
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

    fn said(lease: i64, epochs: &[(u64, u64)]) -> message::Proof {
        let epochs = epochs.iter();
        message::Proof {
            lease: Some(LeaseId(lease)),
            epochs: epochs
                .map(|(number, until)| (Number(*number), at(*until)))
                .collect(),
            ..message::Proof::default()
        }
    }

    fn begin(lease: Lease) -> Order {
        Order::Begin {
            lease,
            key: Key([9; 16]),
            in_place: None,
            proved: Time::default(),
            unanswered: None,
        }
    }

    /// Input: a lease, then an epoch that the guard counts. Output: there is proof while both prove the node; a new
    /// lease begins without witnesses, and reports of the old one do not count.
    #[test]
    fn lease_and_witnesses_prove_together() {
        let mut proof = Proof::default();
        assert!(!proof.holds(at(0), MARGIN));
        proof.set_lease(Some(lease(1)));
        assert!(proof.holds(at(4_899), MARGIN) && !proof.holds(at(4_900), MARGIN));
        assert!(proof.is_lease_alone());
        assert!(proof.order(&begin(lease(1))));
        assert!(proof.order(&Order::Propose(epoch(7))));
        assert!(!proof.is_lease_alone(), "it may be in place at any time");
        proof.report(&said(1, &[(7, 400)]));
        assert!(proof.holds_under(Some(LeaseId(1)), at(399), MARGIN));
        assert!(!proof.holds(at(400), MARGIN) && proof.lease_holds(at(400), MARGIN));
        assert_eq!(proof.ends(at(399), MARGIN), at(400));
        assert_eq!(proof.ends(at(400), MARGIN), at(4_900));
        let for_kernel = proof.lease_for_kernel(MARGIN).unwrap();
        assert_eq!(for_kernel.valid_until - MARGIN, at(400));
        proof.set_lease(Some(lease(2)));
        proof.report(&said(1, &[(7, 400)]));
        assert!(proof.holds(at(4_000), MARGIN));
        assert!(
            !proof.order(&Order::Propose(epoch(8))),
            "of the lease before"
        );
        assert!(!proof.order(&begin(lease(1))));
    }

    /// Input: an epoch in place, one that is unanswered, and what the guard says. Output: a new guard begins with all
    /// of it; once the guard reports that the lease has ended, nothing proves the node.
    #[test]
    fn a_new_guard_learns_what_its_predecessor_knew() {
        let mut proof = Proof::default();
        proof.set_lease(Some(lease(1)));
        assert_eq!(proof.begin(), None);
        proof.order(&begin(lease(1)));
        proof.order(&Order::Propose(epoch(7)));
        proof.order(&Order::InPlace(Number(7)));
        proof.order(&Order::Propose(epoch(8)));
        proof.order(&Order::InPlace(Number(7)));
        proof.report(&said(1, &[(7, 400), (8, 500)]));
        let expected = Order::Begin {
            lease: lease(1),
            key: Key([9; 16]),
            in_place: Some(epoch(7)),
            proved: at(400),
            unanswered: Some(epoch(8)),
        };
        assert_eq!(proof.begin(), Some(expected));
        proof.order(&Order::Ended(LeaseId(1)));
        proof.report(&said(1, &[(7, 900)]));
        assert!(!proof.holds(at(1), MARGIN));
    }

    /// Input: a lease that is taken over with an epoch. Output: no proof before the guard has said so.
    #[test]
    fn what_is_taken_over_is_proved_by_the_guard() {
        let known = Known {
            lease: lease(1),
            key: Key([9; 16]),
            in_place: Some(epoch(7)),
            unanswered: None,
        };
        let mut proof = Proof::default();
        proof.take_over(&known);
        assert!(!proof.holds(at(1), MARGIN) && proof.lease_holds(at(1), MARGIN));
        proof.set_lease(Some(Lease {
            valid_until: at(9_000),
            ..lease(1)
        }));
        assert!(!proof.holds(at(1), MARGIN), "renewed");
        proof.report(&said(1, &[(7, 400)]));
        assert!(proof.holds(at(1), MARGIN));
    }
}
