//! What happens to the host behind our back: thread `lookout` sees bridges come up and FRR daemons come and
//! go, and turns that into events.

use crate::gateway::Event;
use crate::host::Router;
use crate::host::links::LinkWatch;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::spans;
use log::{debug, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often FRR is looked at, if it does not say by itself that a daemon has ended: one may be stopped, or come.
const EVERY: Duration = Duration::from_secs(1);
/// How long a busy kernel is left to itself: thousands of bridges that come up make one event, not thousands; and a
/// process whose connections are closed is dead a moment later.
const GATHER: Duration = Duration::from_millis(50);

/// Starts the thread. It ends with the process. `bridges` is false for a mock host, which has none.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    mut router: Box<dyn Router>,
    bridges: bool,
    range: VniRange,
    events: Sender<Event>,
) -> io::Result<()> {
    Builder::new().name("lookout".to_owned()).spawn(move || {
        let mut health = None;
        let mut links = bridges.then(open).flatten();
        loop {
            let seen = router.health();
            if health != Some(seen) {
                health = Some(seen);
                let _ = events.send(Event::Health(seen));
            }
            wait(links.as_ref(), &router.ends());
            if bridges && links.is_none() {
                links = open();
            }
            let changes = match links.as_mut().map(LinkWatch::changes) {
                None => continue,
                Some(Ok(changes)) => changes,
                Some(Err(error)) => {
                    warn!("cannot watch the bridges: {error}");
                    links = None;
                    continue;
                }
            };
            let is_ours = |vni: &Vni| range.contains(*vni);
            let vnis: Vec<Vni> = changes.vnis.into_iter().filter(is_ours).collect();
            if !vnis.is_empty() {
                debug!("bridges changed: vnis={}", spans(&vnis));
                let _ = events.send(Event::Links(vnis));
            }
            let suppression = changes.suppression.into_iter();
            tell_of_suppression(suppression.filter(|(vni, _)| is_ours(vni)));
        }
    })?;
    Ok(())
}

/// Logs at which VXLAN ports the kernel began or ceased to answer ARP for others.
fn tell_of_suppression(changes: impl Iterator<Item = (Vni, bool)>) {
    let (on, off): (Vec<_>, Vec<_>) = changes.partition(|(_, on)| *on);
    let vnis = |of: Vec<(Vni, bool)>| of.into_iter().map(|(vni, _)| vni).collect::<Vec<_>>();
    let (on, off) = (vnis(on), vnis(off));
    if let Some(first) = on.first() {
        warn!(
            "vnis={}: neigh_suppress was switched on at the VXLAN port: gratuitous ARP does not reach the stations, \
             which keep a dead gateway for long after a failover; run: bridge link set dev {} neigh_suppress off",
            spans(&on),
            first.vxlan()
        );
    }
    if !off.is_empty() {
        info!(
            "vnis={}: neigh_suppress is off at the VXLAN port",
            spans(&off)
        );
    }
}

fn open() -> Option<LinkWatch> {
    LinkWatch::open()
        .map_err(|error| warn!("cannot watch the bridges: {error}"))
        .ok()
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
