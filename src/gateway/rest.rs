//! Whether the watch rests. Telling every node of every change costs etcd several times what writing them does; and
//! a node that takes over many VNIs at once, and all the others that do so beside it, want its writes first. What a
//! node writes holds under conditions of its own, whatever it has not heard of yet; so it hears of the rest when it
//! has taken what nobody serves.

use super::plan::{Batch, Pass};
use super::{Effect, Gateway};
use crate::model::types::Time;
use std::time::Duration;

/// How long a rest lasts at most. That much later a node hears that another one has died, too, or that it is to
/// play its part in a migration.
const LONGEST: Duration = Duration::from_secs(1);

/// What the watch does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Watch {
    /// It tells what happens.
    #[default]
    Follows,
    /// It has told of much at once, and goes on only when it is told to.
    Asks,
    /// It does not tell anything.
    Rests { since: Time },
}

impl Gateway {
    /// After a pass, as it depends on what that found. Never beside a Go wmgwd: that writes over rows that it has
    /// not read, and whoever is robbed by it must hear of it.
    pub(super) fn plan_watch(&mut self, pass: &Pass, batch: &mut Batch, effects: &mut Vec<Effect>) {
        let worthwhile = pass.uniform && self.slots.totals().taken > 0;
        self.watch = match self.watch {
            Watch::Follows => return,
            Watch::Asks if worthwhile => {
                effects.push(Effect::RestWatch);
                Watch::Rests { since: pass.now }
            }
            Watch::Rests { since } if worthwhile && pass.now < since + LONGEST => {
                Watch::Rests { since }
            }
            Watch::Asks | Watch::Rests { .. } => {
                effects.push(Effect::FollowWatch);
                Watch::Follows
            }
        };
        if let Watch::Rests { since } = self.watch {
            batch.wake_at(since + LONGEST);
        }
    }
}
