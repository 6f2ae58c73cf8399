//! ARP of one VNI: whether its bridge answers, and when gratuitous ARP is due.

use super::backoff::Backoff;
use super::events::ArpOutcome;
use crate::model::types::{Time, Vni};
use std::time::Duration;

/// How often gratuitous ARP is repeated after a takeover, every [`ANNOUNCE_PAUSE`]. After that it is refreshed in turn
/// with all other VNIs (see `refresh`).
const ANNOUNCE_REPEATS: u8 = 10;
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// A bridge that cannot be silenced is tried at least this often.
const SILENCE_PAUSE: Duration = Duration::from_secs(1);

/// The next gratuitous ARP of a VNI that is served here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announcing {
    /// At `at`, and `left` times again.
    Early { at: Time, left: u8 },
    /// In turn with all other VNIs.
    InTurn,
}

/// ARP of one VNI.
#[derive(Clone, Debug, Default)]
pub struct VniArp {
    /// Whether the bridge answers; `None` while that is not known.
    answers: Option<bool>,
    /// What the bridge was last switched to.
    asked: bool,
    /// When the bridge may be made to answer again.
    on_retry: Backoff,
    /// When it may be silenced again: a bridge that could not be made to answer is silenced at once.
    off_retry: Backoff,
    /// When gratuitous ARP was first sent since the row last changed.
    announced: Option<Time>,
    announcing: Option<Announcing>,
}

impl VniArp {
    /// Whether the bridge answers; `None` while that is not known.
    pub fn answers(&self) -> Option<bool> {
        self.answers
    }

    /// Whether it is known that the bridge does as `answers` says, and no switch has failed since.
    pub fn is_settled(&self, answers: bool) -> bool {
        let retries = [self.on_retry, self.off_retry];
        self.answers == Some(answers) && retries == [Backoff::default(); 2]
    }

    /// What the host shows is not known any more.
    pub fn forget(&mut self) {
        self.answers = None;
        self.stop_announcing();
    }

    /// The bridge is new, or came up again.
    pub fn link_changed(&mut self) {
        self.forget();
        self.unblock();
    }

    fn unblock(&mut self) {
        self.on_retry.succeed();
        self.off_retry.succeed();
    }

    /// What became of a switch.
    pub fn switched(&mut self, now: Time, vni: Vni, outcome: ArpOutcome) {
        match outcome {
            ArpOutcome::Answers(answers) => {
                if self.answers != Some(answers) {
                    self.stop_announcing();
                }
                self.answers = Some(answers);
                self.unblock();
            }
            ArpOutcome::Absent => {
                // A bridge that does not exist answers no request.
                self.answers = Some(false);
                self.failed(now, vni);
            }
            ArpOutcome::Failed => {
                self.answers = None;
                self.failed(now, vni);
            }
        }
    }

    fn failed(&mut self, now: Time, vni: Vni) {
        if self.asked {
            self.on_retry.fail(now, vni.get());
        } else {
            self.off_retry.fail_for(now, vni.get(), SILENCE_PAUSE);
        }
    }

    /// The bridge is to answer or not, as `wanted` says. Returns when it is to be switched, `None` if it does so
    /// already.
    pub fn switch_at(&self, wanted: bool) -> Option<Time> {
        let retry = match wanted {
            true => self.on_retry,
            false => self.off_retry,
        };
        (self.answers != Some(wanted)).then(|| retry.until())
    }

    /// The bridge is now switched to `wanted`, or is known to do so.
    pub fn ask(&mut self, wanted: bool) {
        self.asked = wanted;
    }

    /// Whether the kernel refused to make the bridge answer.
    pub fn refuses_to_answer(&self) -> bool {
        self.on_retry.is_failing()
    }

    /// Starts announcing anew if the VNI is announced: at once, then often, then in turn. Stations behind access points
    /// that learn the route only now have not seen an earlier announcement.
    pub fn announce_anew(&mut self, now: Time) {
        if self.announcing.is_some() {
            self.announcing = Some(first_announcement(now));
        }
    }

    /// The VNI is announced. Returns when the next announcement is due, `None` if that is in turn.
    pub fn keep_announcing(&mut self, now: Time) -> Option<Time> {
        match self.announcing.get_or_insert(first_announcement(now)) {
            Announcing::Early { at, .. } => Some(*at),
            Announcing::InTurn => None,
        }
    }

    /// The VNI is not announced.
    pub fn stop_announcing(&mut self) {
        self.announcing = None;
        self.announced = None;
    }

    /// When gratuitous ARP was first sent since `entered`, the last change of the row.
    pub fn announced_since(&self, entered: Time) -> Option<Time> {
        self.announced.filter(|&first| first >= entered)
    }

    /// Whether one more announcement changes nothing.
    pub fn is_long_announced(&self, entered: Time) -> bool {
        let announced = self.announced_since(entered).is_some();
        announced && self.announcing == Some(Announcing::InTurn)
    }

    /// An announcement was sent.
    pub fn announce_sent(&mut self, now: Time, entered: Time) {
        // Only the first counts: a repetition more often than the network takes to settle must not delay a migration.
        if self.announced_since(entered).is_none() {
            self.announced = Some(now);
        }
        if let Some(Announcing::Early { left, .. }) = self.announcing {
            let next = left.checked_sub(1).map(|left| Announcing::Early {
                at: now + ANNOUNCE_PAUSE,
                left,
            });
            self.announcing = Some(next.unwrap_or(Announcing::InTurn));
        }
    }
}

fn first_announcement(now: Time) -> Announcing {
    Announcing::Early {
        at: now,
        left: ANNOUNCE_REPEATS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::since_boot(Duration::from_secs(100));

    fn vni() -> Vni {
        Vni::new(1).expect("a VNI")
    }

    #[test]
    fn announcements_are_early_then_in_turn_for_ever() {
        let mut arp = VniArp::default();
        let mut times = Vec::new();
        while let Some(at) = arp.keep_announcing(START) {
            assert!(!arp.is_long_announced(START));
            arp.announce_sent(at, START);
            times.push(at.since(START).as_secs());
        }
        assert_eq!(times, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let later = START + Duration::from_secs(20);
        arp.announce_sent(later, START);
        assert_eq!(arp.keep_announcing(later), None);
        assert!(arp.is_long_announced(START));
        assert_eq!(arp.announced_since(START), Some(START), "the first counts");
        assert_eq!(arp.announced_since(later), None, "the row changed since");
    }

    #[test]
    fn a_new_route_announces_anew_but_only_what_is_announced() {
        let mut arp = VniArp::default();
        arp.announce_anew(START);
        arp.keep_announcing(START);
        for _ in 0..=ANNOUNCE_REPEATS {
            arp.announce_sent(START, START);
        }
        assert_eq!(arp.keep_announcing(START), None);
        arp.announce_anew(START);
        assert_eq!(arp.keep_announcing(START), Some(START));
        arp.stop_announcing();
        arp.announce_anew(START);
        assert!(arp.announcing.is_none());
    }

    #[test]
    fn a_switch_that_failed_is_repeated_later_in_that_direction_only() {
        let mut arp = VniArp::default();
        assert_eq!(arp.switch_at(true), Some(Time::default()));
        arp.ask(true);
        arp.switched(START, vni(), ArpOutcome::Failed);
        assert!(arp.answers().is_none() && arp.refuses_to_answer());
        assert!(arp.switch_at(true) > Some(START));
        assert_eq!(arp.switch_at(false), Some(Time::default()));
        arp.ask(false);
        for _ in 0..20 {
            arp.switched(START, vni(), ArpOutcome::Failed);
        }
        let again = arp.switch_at(false).expect("a retry");
        assert!(again > START && again <= START + SILENCE_PAUSE * 5 / 4);
        arp.switched(START, vni(), ArpOutcome::Answers(false));
        assert!(arp.switch_at(false).is_none() && arp.is_settled(false));
        assert_eq!(arp.switch_at(true), Some(Time::default()));
    }

    #[test]
    fn a_bridge_that_is_absent_or_new_is_not_announced() {
        let mut arp = VniArp::default();
        arp.switched(START, vni(), ArpOutcome::Answers(true));
        arp.keep_announcing(START);
        arp.switched(START, vni(), ArpOutcome::Absent);
        assert!(arp.answers() == Some(false) && !arp.is_settled(false));
        arp.announce_sent(START, START);
        arp.link_changed();
        assert!(arp.answers().is_none() && arp.announced_since(START).is_none());
        assert!(arp.switch_at(false) == Some(Time::default()));
    }
}
