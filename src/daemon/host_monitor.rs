//! What happens to the host behind our back: thread `lookout` sees bridges come up and FRR daemons come and
//! go, and turns that into events.

use crate::gateway::Event;
use crate::host::Router;
use crate::host::links::{LinkWatch, Risen};
use crate::model::types::{Vni, VniRange};
use crate::telemetry::log_text::spans;
use log::{debug, warn};
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
            let risen = match links.as_mut().map(LinkWatch::risen) {
                None => continue,
                Some(Ok(risen)) => risen,
                Some(Err(error)) => {
                    warn!("cannot watch the bridges: {error}");
                    links = None;
                    continue;
                }
            };
            let vnis: Vec<Vni> = match risen {
                Risen::Bridges(vnis) => vnis
                    .into_iter()
                    .filter(|vni| range.contains(*vni))
                    .collect(),
                Risen::Unknown => range.iter().collect(),
            };
            if !vnis.is_empty() {
                debug!("bridges came up: vnis={}", spans(&vnis));
                let _ = events.send(Event::Links(vnis));
            }
        }
    })?;
    Ok(())
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
