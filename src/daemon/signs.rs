//! Whether this host can forward: thread `signs` reads the [signs](crate::host::signs) a few times a second, and at
//! once when the kernel tells of a link or a route, and turns what changes into events.

use crate::gateway::Event;
use crate::host::links::{RTMGRP_LINK, subscribe};
use crate::host::signs::{Source, bad};
use crate::model::fitness::{Sign, SignSet, SignState};
use log::{info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often FRR is asked, if the kernel does not tell of anything: what takes an EVPN session away may leave all
/// links and routes as they are.
const EVERY: Duration = Duration::from_millis(400);
/// The same while a sign has to be looked at once more to be sure.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the kernel is left to itself when it tells of something: routes come and go by the hundred.
const GATHER: Duration = Duration::from_millis(20);
/// The multicast group of IPv4 routes.
const RTMGRP_IPV4_ROUTE: u32 = 0x40;

/// Starts the thread. It ends with the process.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(mut source: Source, events: Sender<Event>) -> io::Result<()> {
    Builder::new().name("signs".to_owned()).spawn(move || {
        let news = match subscribe(RTMGRP_LINK | RTMGRP_IPV4_ROUTE) {
            Ok(news) => Some(news),
            Err(error) => {
                warn!("lost links and routes are noticed a little later: {error}");
                None
            }
        };
        let mut told = SignSet::NONE;
        loop {
            let states = source.look();
            let found = bad(&states);
            if found != told {
                tell(&states, told);
                told = found;
                if events.send(Event::Signs(found)).is_err() {
                    return;
                }
            }
            let pause = if source.suspects() { AGAIN } else { EVERY };
            wait(news.as_ref(), pause);
        }
    })?;
    Ok(())
}

/// Logs the signs that were not among `known` to be bad, and those that are not bad any more. What follows from them
/// is logged with the rank.
fn tell(states: &[(Sign, SignState)], known: SignSet) {
    for (sign, state) in states {
        match state {
            SignState::Bad(why) if !known.has(*sign) => info!("sign={sign} is bad: {why}"),
            SignState::Good(why) | SignState::Unknown(why) if known.has(*sign) => {
                info!("sign={sign} is not bad any more: {why}");
            }
            _ => {}
        }
    }
}

fn wait(news: Option<&OwnedFd>, pause: Duration) {
    let fds = news.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
    let mut fds: Vec<PollFd> = fds.into_iter().collect();
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
    if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        sleep(GATHER);
        let mut part = [0; 8 << 10];
        // (That messages were lost is one more reason to look.)
        while let Some(fd) = news {
            match recv(fd.as_raw_fd(), &mut part, MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
