//! How a node does, in one line for `systemctl status`. Pure.

use crate::model::fitness::{Fitness, Rank};
use std::time::Duration;

/// Etcd is asked every 2 s: silent for longer than this, it is away.
const AWAY: Duration = Duration::from_secs(3);

/// What the line is about.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The node was told to go.
    pub is_leaving: bool,
    /// An operator drained it.
    pub is_drained: bool,
    /// Etcd had it registered, and its rows known, now or at any time before.
    pub has_begun: bool,
    /// It can prove its lease.
    pub is_proved: bool,
    /// How long etcd has not answered; `None` if it never did.
    pub silence: Option<Duration>,
    /// How well it can forward.
    pub fitness: Fitness,
    /// VNIs that it serves.
    pub served: u32,
    /// VNIs of its range that it has a bridge for.
    pub able: u32,
}

/// The line.
pub fn status_line(situation: &Situation) -> String {
    let Situation {
        is_leaving,
        is_drained,
        has_begun,
        is_proved,
        silence,
        fitness,
        served,
        able,
    } = *situation;
    let serves = format!("serves {served} of {able} VNIs");
    let away = silence.filter(|silence| *silence >= AWAY);
    if is_leaving {
        return format!("leaving: {serves}");
    }
    if !has_begun {
        return format!("waiting for etcd: {serves}");
    }
    match (away, is_proved) {
        (Some(away), false) => {
            let seconds = away.as_secs();
            format!("etcd away for {seconds} s: fenced, {serves}")
        }
        (Some(away), true) => {
            let seconds = away.as_secs();
            format!("etcd away for {seconds} s: {serves}, until the lease ends")
        }
        (None, false) => format!("no lease: fenced, {serves}"),
        (None, true) if is_drained => format!("drained: {serves}, lease held"),
        (None, true) if !fitness.bad.is_empty() => {
            let bad = fitness.bad;
            format!("cannot forward, bad signs: {bad}: {serves}, lease held")
        }
        (None, true) if fitness.rank < Rank::Fit => {
            format!("could not forward a short time ago: {serves}, lease held")
        }
        (None, true) => format!("in sync: {serves}, lease held"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fitness::{Sign, SignSet};

    /// Input: a node that serves, and what happens to it. Output: the line says so.
    #[test]
    fn the_line_is_true() {
        let fine = Situation {
            is_leaving: false,
            is_drained: false,
            has_begun: true,
            is_proved: true,
            silence: Some(Duration::from_millis(1900)),
            fitness: Fitness::default(),
            served: 2,
            able: 5,
        };
        let silence = Some(Duration::from_millis(20_400));
        let fenced = Situation {
            is_proved: false,
            served: 0,
            ..fine
        };
        let cut_off = Fitness {
            rank: Rank::Unfit,
            bad: SignSet::NONE.with(Sign::Evpn),
        };
        let repaired = Fitness {
            bad: SignSet::NONE,
            ..cut_off
        };
        #[rustfmt::skip]
        let table = [
            (fine, "in sync: serves 2 of 5 VNIs, lease held"),
            (Situation { fitness: cut_off, ..fine }, "cannot forward, bad signs: evpn: serves 2 of 5 VNIs, lease held"),
            (Situation { fitness: repaired, ..fine }, "could not forward a short time ago: serves 2 of 5 VNIs, lease held"),
            (Situation { silence, ..fine }, "etcd away for 20 s: serves 2 of 5 VNIs, until the lease ends"),
            (Situation { silence, ..fenced }, "etcd away for 20 s: fenced, serves 0 of 5 VNIs"),
            (fenced, "no lease: fenced, serves 0 of 5 VNIs"),
            (Situation { is_drained: true, ..fine }, "drained: serves 2 of 5 VNIs, lease held"),
            (Situation { is_drained: true, silence, ..fenced }, "etcd away for 20 s: fenced, serves 0 of 5 VNIs"),
            (Situation { has_begun: false, silence: None, ..fenced }, "waiting for etcd: serves 0 of 5 VNIs"),
            (Situation { is_leaving: true, silence, ..fine }, "leaving: serves 2 of 5 VNIs"),
        ];
        for (situation, expected) in table {
            assert_eq!(status_line(&situation), expected, "{situation:?}");
        }
    }
}
