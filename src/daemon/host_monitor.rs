//! What changes on the host without wmgwd: thread `host_monitor` follows the host's interfaces, compares ARP with
//! what it was told to be, sees FRR daemons come and go, and turns that into events.

mod audit;
mod route_watch;

pub use audit::log_put_back;

use crate::daemon::fence::Fence;
use crate::gateway::Event;
use crate::host::Router;
use crate::host::bridges::Change;
use crate::host::links::{Bridges, LinkWatch};
use crate::host::routes::RouteBook;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::{Complaint, chain, spans};
use audit::Audit;
use log::{debug, error, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use route_watch::RouteWatch;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often FRR is looked at, if it does not say by itself that a daemon has ended: one may be stopped, or come.
const EVERY: Duration = Duration::from_secs(1);
/// How long a busy kernel is left to itself: thousands of bridges that come up make one event, not thousands; and a
/// process whose connections are closed is dead a moment later.
const GATHER: Duration = Duration::from_millis(50);

/// Starts the thread. It ends with the process. `bridges` is `None` for a mock host, which has none.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    mut router: Box<dyn Router>,
    bridges: Option<Bridges>,
    book: Option<RouteBook>,
    range: VniRange,
    fence: Arc<Fence>,
    events: Sender<Event>,
) -> io::Result<()> {
    Builder::new()
        .name("host_monitor".to_owned())
        .spawn(move || {
            let mut health = None;
            let mut routes = book.map(RouteWatch::new);
            let mut kernel = bridges.map(|bridges| KernelMonitor::new(bridges, range, fence));
            loop {
                let seen = router.health();
                if health != Some(seen) {
                    health = Some(seen);
                    let _ = events.send(Event::Health(seen));
                }
                let links = kernel.as_ref().and_then(|kernel| kernel.links.as_ref());
                let mut ends = router.ends();
                ends.extend(routes.as_ref().and_then(RouteWatch::fd));
                wait(links, &ends);
                let changed = kernel.as_mut().map(KernelMonitor::look).unwrap_or_default();
                if !changed.is_empty() {
                    debug!("bridges came, went or came up: vnis={}", spans(&changed));
                    let _ = events.send(Event::Links(changed));
                }
                // After the bridges: an interface that came up is there to take routes again.
                let lost = routes.as_mut().map(RouteWatch::look).unwrap_or_default();
                if !lost.is_empty() {
                    debug!("routes lost, or addresses changed: vnis={}", spans(&lost));
                    let _ = events.send(Event::UpstreamLost(lost));
                }
            }
        })?;
    Ok(())
}

/// Until a link changes, a daemon of FRR ends, or it is time to look at FRR anyway.
fn wait(links: Option<&LinkWatch>, ends: &[BorrowedFd<'_>]) {
    let links = links.map(AsFd::as_fd);
    let all = links.iter().chain(ends);
    let mut fds: Vec<PollFd> = all.map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(EVERY).unwrap_or(PollTimeout::ZERO);
    if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        sleep(GATHER);
    }
}

/// The kernel half of the thread.
pub struct KernelMonitor {
    links: Option<LinkWatch>,
    complaint: Complaint,
    bridges: Bridges,
    range: VniRange,
    fence: Arc<Fence>,
    audit: Audit,
}

impl KernelMonitor {
    /// Begins to follow the interfaces of this process's network namespace.
    pub fn new(bridges: Bridges, range: VniRange, fence: Arc<Fence>) -> KernelMonitor {
        let mut monitor = KernelMonitor {
            links: None,
            complaint: Complaint::default(),
            bridges,
            range,
            fence,
            audit: Audit::default(),
        };
        monitor.open();
        monitor
    }

    /// Looks at what happened since the last look; to be called once a second at least. Returns the VNIs whose
    /// bridge came, went or came up.
    pub fn look(&mut self) -> Vec<Vni> {
        let mut changes = self.open();
        if let Some(links) = &mut self.links {
            match links.changes() {
                Ok(told) => changes.extend(told),
                Err(error) => self.fail(&error),
            }
        }
        let changed = self.heed(changes);
        let due = self.audit.look(&self.bridges, self.range, &self.fence);
        let more = self.heed(due);
        changed.union(&more).copied().collect()
    }

    fn fail(&mut self, error: &io::Error) {
        self.links = None;
        if self.complaint.raise(&error.to_string()) {
            warn!("cannot follow the interfaces of this host, trying again: {error}");
        }
    }

    /// Follows the interfaces, if that is not so already; returns what changed meanwhile.
    fn open(&mut self) -> Vec<Change> {
        if self.links.is_some() {
            return Vec::new();
        }
        match LinkWatch::open(self.bridges.clone()) {
            Ok((links, changes)) => {
                self.links = Some(links);
                if self.complaint.settle() {
                    info!("the interfaces of this host are followed again");
                }
                changes
            }
            Err(error) => {
                self.fail(&error);
                Vec::new()
            }
        }
    }

    /// Acts upon changes; returns the VNIs that the core has to look at.
    fn heed(&self, changes: Vec<Change>) -> BTreeSet<Vni> {
        let mut changed = BTreeSet::new();
        let mut renamed = BTreeMap::new();
        let mut suppression = [BTreeMap::new(), BTreeMap::new()];
        for change in changes {
            match change {
                Change::Bridge(vni) => drop(changed.insert(vni)),
                Change::Renamed { vni, index, name } => drop(renamed.insert(vni, (index, name))),
                Change::Suppression { vni, port, on } => {
                    suppression[usize::from(on)].insert(vni, port);
                    suppression[usize::from(!on)].remove(&vni);
                }
            }
        }
        changed.retain(|vni| self.range.contains(*vni));
        renamed.retain(|vni, _| self.range.contains(*vni));
        self.silence_renamed(&renamed);
        let [off, on] = suppression.map(|mut of| {
            of.retain(|vni, _| self.range.contains(*vni));
            let first = of.values().next().cloned();
            (of.into_keys().collect::<Vec<Vni>>(), first)
        });
        if let (on, Some(first)) = on {
            warn!(
                "vnis={}: neigh_suppress is on at the VXLAN port: when this gateway takes over, its stations go on \
                 sending to a dead gateway for half a minute; run: bridge link set dev {first} neigh_suppress off",
                spans(&on)
            );
        }
        if let (off, Some(_)) = off {
            info!("vnis={}: neigh_suppress is off again", spans(&off));
        }
        changed.extend(renamed.into_keys());
        changed
    }

    /// A bridge that has another name is not its VNI's any more, but goes on as it was told: it must not answer
    /// when the VNI has another owner.
    fn silence_renamed(&self, renamed: &BTreeMap<Vni, (u32, String)>) {
        let answering = self.fence.answering();
        for (&vni, (_, name)) in renamed {
            let bridge = vni.bridge();
            let failed = self
                .fence
                .switch(None, &[(vni, false)])
                .into_iter()
                .find_map(|(_, outcome, error)| {
                    (outcome == crate::gateway::ArpOutcome::Failed).then_some(error)?
                });
            match failed {
                Some(error) => error!(
                    "vni={vni}: {bridge} was renamed to {name}, and cannot be silenced: two gateways may answer: {}",
                    chain(&error)
                ),
                None if answering.contains(&vni) => error!(
                    "vni={vni}: {bridge} was renamed to {name} while in use: it does not answer ARP any more, and this \
                     gateway does not serve the VNI; run: ip link set {name} name {bridge}"
                ),
                None => warn!(
                    "vni={vni}: {bridge} was renamed to {name}: this gateway cannot serve the VNI; run: ip link set \
                     {name} name {bridge}"
                ),
            }
        }
    }
}
