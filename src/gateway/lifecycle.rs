//! Where the node is in its life: it takes over from an earlier run, runs, drains, stops.

use super::Exit;
use crate::model::types::Time;
use std::time::Duration;

/// How long withdrawing everything at the end may take.
const STOP: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// Rows of an earlier run are kept until they are known.
    Adopting,
    Running,
    Draining {
        deadline: Time,
    },
    Stopping {
        deadline: Time,
        exit: Exit,
    },
}

/// What of the VNIs is still on show when the node stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remains {
    /// Something is still to be withdrawn.
    pub withdrawing: bool,
    /// FRR still shows something that it was asked to withdraw.
    pub lingering: bool,
}

/// Where the node is in its life.
#[derive(Clone, Debug)]
pub struct Lifecycle(Life);

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle(Life::Running)
    }
}

impl Lifecycle {
    /// The node takes over from a run before it.
    pub fn adopt(&mut self) {
        self.0 = Life::Adopting;
    }

    /// The rows are known, or the lease of the earlier run is over.
    pub fn end_adoption(&mut self) {
        if self.is_adopting() {
            self.0 = Life::Running;
        }
    }

    /// Hand all VNIs over, then exit.
    pub fn drain(&mut self, now: Time, timeout: Duration) {
        if !self.is_leaving() {
            let deadline = now + timeout;
            self.0 = Life::Draining { deadline };
        }
    }

    /// Withdraw, then exit for this reason.
    pub fn stop(&mut self, now: Time, exit: Exit) {
        if !self.is_stopping() {
            let deadline = now + STOP;
            self.0 = Life::Stopping { deadline, exit };
        }
    }

    /// Whether what an earlier run left is kept as it is.
    pub fn is_adopting(&self) -> bool {
        self.0 == Life::Adopting
    }

    /// Whether the node is to end.
    pub fn is_leaving(&self) -> bool {
        matches!(self.0, Life::Draining { .. } | Life::Stopping { .. })
    }

    /// Whether the node hands its VNIs over in order to end.
    pub fn is_draining(&self) -> bool {
        matches!(self.0, Life::Draining { .. })
    }

    /// Whether the node withdraws everything in order to end.
    pub fn is_stopping(&self) -> bool {
        matches!(self.0, Life::Stopping { .. })
    }

    /// When the drain, or the withdrawal at the end, is given up.
    pub fn deadline(&self) -> Option<Time> {
        match self.0 {
            Life::Draining { deadline } | Life::Stopping { deadline, .. } => Some(deadline),
            Life::Adopting | Life::Running => None,
        }
    }

    /// Whether the time for a drain is over.
    pub fn is_overdue(&self, now: Time) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Why the node ends now, if it stops and nothing is left to withdraw or the time for that is over.
    pub fn exit(&self, now: Time, remains: Remains) -> Option<Exit> {
        let Life::Stopping { exit, .. } = self.0 else {
            return None;
        };
        if remains.withdrawing && !self.is_overdue(now) {
            return None;
        }
        Some(match exit {
            Exit::Stopped if remains.withdrawing || remains.lingering => Exit::Unfinished,
            exit => exit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::since_boot(Duration::from_secs(1_000));
    const NOTHING: Remains = Remains {
        withdrawing: false,
        lingering: false,
    };

    #[test]
    fn a_node_leaves_once_and_a_stop_ends_a_drain() {
        let mut life = Lifecycle::default();
        assert!(!life.is_leaving() && life.exit(NOW, NOTHING).is_none());
        life.drain(NOW, STOP * 2);
        life.drain(NOW + STOP, STOP * 2);
        assert!(life.is_draining() && life.deadline() == Some(NOW + STOP * 2));
        assert_eq!(life.exit(NOW, NOTHING), None);
        life.stop(NOW, Exit::NameTaken);
        life.stop(NOW + STOP, Exit::Stopped);
        life.drain(NOW, STOP * 2);
        assert!(life.is_stopping() && life.deadline() == Some(NOW + STOP));
        assert_eq!(life.exit(NOW, NOTHING), Some(Exit::NameTaken));
    }

    #[test]
    fn an_exit_says_what_remains() {
        let mut life = Lifecycle::default();
        life.stop(NOW, Exit::Stopped);
        assert_eq!(life.exit(NOW, NOTHING), Some(Exit::Stopped));
        let lingering = Remains {
            lingering: true,
            ..NOTHING
        };
        assert_eq!(life.exit(NOW, lingering), Some(Exit::Unfinished));
        let withdrawing = Remains {
            withdrawing: true,
            ..NOTHING
        };
        assert_eq!(life.exit(NOW, withdrawing), None);
        assert_eq!(life.exit(NOW + STOP, withdrawing), Some(Exit::Unfinished));
    }

    #[test]
    fn an_adoption_ends_and_a_drain_ends_it() {
        let mut life = Lifecycle::default();
        life.adopt();
        assert!(life.is_adopting() && !life.is_leaving());
        life.end_adoption();
        assert!(!life.is_adopting());
        life.adopt();
        life.drain(NOW, STOP);
        life.end_adoption();
        assert!(life.is_draining());
    }
}
