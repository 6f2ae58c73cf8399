//! The rank of this node: it falls at once and rises late, so that a link that flaps moves the VNIs once.
//!
//! ```text
//!   signs say  Fit Unfit Fit Unfit Fit ........................ Fit
//!   rank       Fit Unfit ..........| hold (10 s, doubled after each relapse) | Fit
//! ```
//!
//! Owns what is known of the signs, and since when this node is outranked.

use crate::model::fitness::{Fitness, Rank, Sign, SignSet};
use crate::model::types::Time;
use std::time::Duration;

/// A fall this soon after a rise is a relapse, which doubles the hold.
const RELAPSE: Duration = Duration::from_secs(300);
/// A doubled hold is no longer than this.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a node that is outranked keeps its VNIs: what has struck it may be about to strike the others, too, as
/// when the upstream router dies. Three lost BFD packets of a usual session are noticed within 0.3 s of each other.
const GIVE_WAY: Duration = Duration::from_millis(200);
/// The same if a link is down. A switch that dies takes the carrier from all gateways at once, so that there is no more
/// to wait for than the way of their ranks through etcd. (Beats say themselves that the others are not struck.)
const GIVE_WAY_ON_LINK: Duration = Duration::from_millis(50);

/// How well this node can forward.
#[derive(Clone, Debug)]
pub struct OwnFitness {
    /// The signs that count.
    tracked: SignSet,
    /// How long signs must be good before the rank rises, after a first fall.
    hold: Duration,
    /// The signs that are bad now, as the host tells.
    bad: SignSet,
    rank: Rank,
    /// The node was fit once; before that it has nothing to relapse from.
    was_fit: bool,
    /// Since when the signs have been better than the rank, and the worst that they were since.
    better: Option<(Time, Rank)>,
    /// When the rank rose last.
    risen: Option<Time>,
    /// Relapses in a row.
    relapses: u32,
    /// Since when another node has been better than this one is by its signs.
    outranked_since: Option<Time>,
}

impl OwnFitness {
    /// Of a node of which nothing is known. `tracked` are the signs that count; after they were bad they must be
    /// good for `hold`.
    pub fn new(tracked: SignSet, hold: Duration) -> OwnFitness {
        OwnFitness {
            tracked,
            hold,
            bad: SignSet::NONE,
            rank: Rank::Fit,
            was_fit: false,
            better: None,
            risen: None,
            relapses: 0,
            outranked_since: None,
        }
    }

    /// Whether `sign` counts.
    pub fn tracks(&self, sign: Sign) -> bool {
        self.tracked.has(sign)
    }

    /// The host tells which signs are bad: all but those that are told one by one.
    pub fn tell(&mut self, now: Time, bad: SignSet) {
        let apart = SignSet::NONE.with(Sign::Frr).with(Sign::Beats);
        self.take(now, bad.without(apart).with_all(self.bad.and(apart)));
    }

    /// Whether FRR can be used.
    pub fn frr_is(&mut self, now: Time, usable: bool) {
        self.tell_one(now, Sign::Frr, !usable);
    }

    /// Whether this node is cut off from nodes that reach each other.
    pub fn is_cut_off(&mut self, now: Time, cut_off: bool) {
        self.tell_one(now, Sign::Beats, cut_off);
    }

    fn tell_one(&mut self, now: Time, sign: Sign, is_bad: bool) {
        let others = self.bad.without(SignSet::NONE.with(sign));
        self.take(now, if is_bad { others.with(sign) } else { others });
    }

    fn take(&mut self, now: Time, bad: SignSet) {
        self.bad = bad.and(self.tracked);
        let says = self.bad.rank();
        if !self.was_fit && says != Rank::Fit {
            self.rank = says;
            return;
        }
        if says < self.rank {
            if let Some(risen) = self.risen.take() {
                self.relapses = match now.since(risen) < RELAPSE {
                    true => self.relapses.saturating_add(1),
                    false => 0,
                };
            }
            self.rank = says;
        }
        self.better = match self.better {
            _ if says == self.rank => None,
            Some((since, worst)) => Some((since, worst.min(says))),
            None => Some((now, says)),
        };
    }

    /// How long the signs must be good at present.
    fn present_hold(&self) -> Duration {
        let doubled = self
            .hold
            .saturating_mul(2u32.saturating_pow(self.relapses.min(16)));
        doubled.min(LONGEST.max(self.hold))
    }

    /// Lets the rank rise when it is time. Returns when that is, if it is still to come.
    pub fn look(&mut self, now: Time) -> Option<Time> {
        if !self.was_fit && self.bad.is_empty() {
            self.was_fit = true;
            self.rank = Rank::Fit;
            self.better = None;
        }
        let (since, worst) = self.better?;
        let due = since + self.present_hold();
        if due > now {
            return Some(due);
        }
        self.rank = worst;
        self.risen = Some(now);
        let says = self.bad.rank();
        self.better = (says > worst).then_some((now, says));
        self.better.map(|_| now + self.present_hold())
    }

    /// What is to be published.
    pub fn published(&self) -> Fitness {
        Fitness {
            rank: self.rank,
            bad: self.bad,
        }
    }

    /// How long the others are waited for, which may be about to fall, too.
    fn pause(&self) -> Duration {
        let is_link = self.bad.has(Sign::FabricLink) || self.bad.has(Sign::UplinkLink);
        match self.bad.has(Sign::Beats) {
            true => Duration::ZERO,
            false if is_link => GIVE_WAY_ON_LINK,
            false => GIVE_WAY,
        }
    }

    /// Takes note of the best rank of the others, if etcd has `published` of this node. Says whether this node is to
    /// give way, and when it will be, if that is still to come. A node whose signs are good again keeps what it has,
    /// whatever its rank: it forwards.
    pub fn gives_way(
        &mut self,
        now: Time,
        published: Option<Rank>,
        best: Option<Rank>,
    ) -> (bool, Option<Time>) {
        let mine = published.map(|published| published.max(self.bad.rank()));
        let outranked = mine.zip(best).is_some_and(|(mine, best)| mine < best);
        if !outranked {
            self.outranked_since = None;
            return (false, None);
        }
        let due = *self.outranked_since.get_or_insert(now) + self.pause();
        (due <= now, (due > now).then_some(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);
    const START: Time = Time::since_boot(Duration::from_secs(1_000));

    fn at(seconds: f64) -> Time {
        START + Duration::from_secs_f64(seconds)
    }

    fn set(signs: &[Sign]) -> SignSet {
        signs.iter().copied().collect()
    }

    /// A node that was fit at the start.
    fn fit() -> OwnFitness {
        let mut fitness = OwnFitness::new(SignSet::ALL, HOLD);
        assert_eq!(fitness.look(START), None);
        fitness
    }

    /// The rank after `bad` were told at that time.
    fn told(fitness: &mut OwnFitness, seconds: f64, bad: &[Sign]) -> Rank {
        fitness.look(at(seconds));
        fitness.tell(at(seconds), set(bad));
        fitness.look(at(seconds));
        fitness.published().rank
    }

    #[test]
    fn a_rank_falls_at_once_and_rises_after_the_hold() {
        let mut it = fit();
        assert_eq!(told(&mut it, 1.0, &[Sign::FabricLink]), Rank::Unfit);
        assert_eq!(told(&mut it, 2.0, &[]), Rank::Unfit);
        assert_eq!(it.look(at(11.9)), Some(at(12.0)));
        assert_eq!(it.published().rank, Rank::Unfit);
        assert_eq!(it.look(at(12.0)), None);
        assert_eq!(it.published().rank, Rank::Fit);
    }

    /// Input: a link that flaps every 3 s for a minute. Output: the rank falls once and rises once, 10 s after the
    /// link is up for good.
    #[test]
    fn a_flapping_link_is_one_fall_and_one_rise() {
        let mut it = fit();
        let mut ranks = vec![Rank::Fit];
        for tenth in 0..1_000 {
            let seconds = f64::from(tenth) / 10.0;
            let down = tenth < 600 && (tenth / 30) % 2 == 0;
            let bad: &[Sign] = if down { &[Sign::UplinkLink] } else { &[] };
            let rank = told(&mut it, seconds, bad);
            if ranks.last() != Some(&rank) {
                ranks.push(rank);
            }
            assert_eq!(rank == Rank::Fit, seconds >= 67.0, "at {seconds} s");
        }
        assert_eq!(ranks, [Rank::Fit, Rank::NoUplink, Rank::Fit]);
    }

    #[test]
    fn each_relapse_doubles_the_hold_up_to_five_minutes() {
        let mut it = fit();
        let mut now = 1.0;
        let mut holds = Vec::new();
        for _ in 0..8 {
            told(&mut it, now, &[Sign::Evpn]);
            assert_eq!(told(&mut it, now + 1.0, &[]), Rank::Unfit);
            let due = it.look(at(now + 1.0)).map(|due| due.since(at(now + 1.0)));
            holds.push(due.map_or(0, |due| due.as_secs()));
            now += 1.0 + due.map_or(0.0, |due| due.as_secs_f64());
            it.look(at(now));
            assert_eq!(it.published().rank, Rank::Fit);
            now += 1.0;
        }
        assert_eq!(holds, [10, 20, 40, 80, 160, 300, 300, 300]);
        // Forgiven.
        now += 300.0;
        told(&mut it, now, &[Sign::Evpn]);
        told(&mut it, now, &[]);
        assert_eq!(it.look(at(now)), Some(at(now + 10.0)));
    }

    #[test]
    fn a_rank_rises_to_the_worst_of_the_hold_first() {
        let mut it = fit();
        assert_eq!(told(&mut it, 0.0, &[Sign::Evpn, Sign::Ospf]), Rank::Unfit);
        told(&mut it, 1.0, &[]);
        told(&mut it, 5.0, &[Sign::Ospf]);
        assert_eq!(told(&mut it, 6.0, &[]), Rank::Unfit);
        assert_eq!(told(&mut it, 11.0, &[]), Rank::NoUplink);
        assert_eq!(told(&mut it, 20.9, &[]), Rank::NoUplink);
        assert_eq!(told(&mut it, 21.0, &[]), Rank::Fit);
    }

    /// A whole site that starts must not wait for the slowest FRR plus a hold.
    #[test]
    fn a_node_that_was_never_fit_does_not_wait() {
        let mut it = OwnFitness::new(SignSet::ALL, HOLD);
        it.frr_is(START, false);
        it.look(START);
        assert_eq!(it.published().rank, Rank::Unfit);
        it.frr_is(at(3.0), true);
        it.look(at(3.0));
        assert_eq!(it.published().rank, Rank::Fit);
        it.frr_is(at(4.0), false);
        it.frr_is(at(5.0), true);
        assert_eq!(it.look(at(5.0)), Some(at(15.0)), "from now on it does");
    }

    #[test]
    fn what_is_not_tracked_does_not_count() {
        let tracked = SignSet::ALL.without(set(&[Sign::Frr, Sign::Evpn]));
        let mut it = OwnFitness::new(tracked, HOLD);
        it.look(START);
        it.tell(START, set(&[Sign::Evpn]));
        it.frr_is(START, false);
        assert_eq!(it.published(), Fitness::default());
        assert!(!it.tracks(Sign::Frr) && it.tracks(Sign::Ospf));
        // One teller does not undo what the other told.
        let mut it = fit();
        it.frr_is(START, false);
        it.tell(START, set(&[Sign::Ospf]));
        assert_eq!(it.published().bad, set(&[Sign::Frr, Sign::Ospf]));
        it.is_cut_off(START, true);
        it.tell(START, set(&[Sign::Ospf]));
        it.frr_is(START, true);
        assert_eq!(it.published().bad, set(&[Sign::Ospf, Sign::Beats]));
    }

    /// Input: what etcd has of this node and of the best of the others. Output: it gives way only while its signs
    /// are bad, after a pause, and while another is better.
    #[test]
    fn an_outranked_node_gives_way_after_a_pause() {
        let (unfit, best) = (Some(Rank::Unfit), Some(Rank::Fit));
        let mut it = fit();
        told(&mut it, 0.0, &[Sign::Evpn]);
        // Not published yet; no other; another that is no better.
        assert_eq!(it.gives_way(at(0.0), None, best), (false, None));
        assert_eq!(it.gives_way(at(0.0), Some(Rank::Fit), best), (false, None));
        assert_eq!(it.gives_way(at(0.0), unfit, None), (false, None));
        assert_eq!(it.gives_way(at(0.0), unfit, unfit), (false, None));
        assert_eq!(it.gives_way(at(1.0), unfit, best), (false, Some(at(1.2))));
        assert_eq!(it.gives_way(at(1.1), unfit, best), (false, Some(at(1.2))));
        // The others fall, too.
        assert_eq!(it.gives_way(at(1.15), unfit, unfit), (false, None));
        assert_eq!(it.gives_way(at(2.0), unfit, best), (false, Some(at(2.2))));
        assert_eq!(it.gives_way(at(2.2), unfit, best), (true, None));
        // A link that is down says it at once.
        assert_eq!(it.gives_way(at(2.3), unfit, unfit), (false, None));
        told(&mut it, 2.4, &[Sign::Evpn, Sign::FabricLink]);
        assert_eq!(it.gives_way(at(2.4), unfit, best), (false, Some(at(2.45))));
        assert_eq!(it.gives_way(at(2.45), unfit, best), (true, None));
        // Beats that only this node's are missing say even more.
        it.is_cut_off(at(2.5), true);
        assert_eq!(it.gives_way(at(2.5), unfit, unfit), (false, None));
        assert_eq!(it.gives_way(at(2.6), unfit, best), (true, None));
        it.is_cut_off(at(2.7), false);
        // Its signs are good again: it keeps what it has.
        told(&mut it, 3.0, &[]);
        assert_eq!(it.gives_way(at(3.0), unfit, best), (false, None));
    }
}
