//! Bridges that come, go and come up again, and FRR daemons that come and go: thread `links`.

use super::Router;
use super::proc::ProcKernel;
use crate::fence::Fence;
use crate::gateway::Event;
use crate::types::{Vni, VniRange};
use log::debug;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often it looks. A bridge that appears answers ARP until it is seen; FRR must be seen within 5 s.
const EVERY: Duration = Duration::from_secs(1);

/// Starts the thread. It ends with the process, and owns nothing. `bridges` is false for a mock host, which
/// has none.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    mut router: Box<dyn Router>,
    bridges: bool,
    range: VniRange,
    fence: Arc<Fence>,
    events: Sender<Event>,
) -> io::Result<()> {
    Builder::new().name("links".to_owned()).spawn(move || {
        let mut health = None;
        let mut links = Links::default();
        loop {
            let seen = router.health();
            if health != Some(seen) {
                health = Some(seen);
                let _ = events.send(Event::Health(seen));
            }
            if bridges {
                let changed = links.look(&range, &fence.answering());
                if !changed.is_empty() {
                    debug!("bridges changed: {}", crate::report::spans(&changed));
                    let _ = events.send(Event::Links(changed));
                }
            }
            sleep(EVERY);
        }
    })?;
    Ok(())
}

#[derive(Default)]
struct Links {
    kernel: ProcKernel,
    existing: Option<BTreeSet<Vni>>,
    generations: BTreeMap<Vni, u64>,
}

impl Links {
    /// The VNIs whose bridge is not what it was: came or went, or, if it answers, came up again.
    fn look(&mut self, range: &VniRange, answering: &BTreeSet<Vni>) -> Vec<Vni> {
        let existing = self.kernel.existing(range);
        let mut changed: BTreeSet<Vni> = match self.existing.replace(existing.clone()) {
            Some(before) => before.symmetric_difference(&existing).copied().collect(),
            None => BTreeSet::new(),
        };
        let mut generations = BTreeMap::new();
        for &vni in answering {
            let Some(generation) = self.kernel.link_generation(vni) else {
                continue;
            };
            if self
                .generations
                .get(&vni)
                .is_some_and(|&before| before != generation)
            {
                changed.insert(vni);
            }
            generations.insert(vni, generation);
        }
        self.generations = generations;
        changed.into_iter().collect()
    }
}
