//! Whether this host can forward: thread `signs` reads the [signs](crate::host::signs) every second, and at once when
//! the kernel has [news](News), and turns what changes into events.

use crate::gateway::Event;
use crate::host::news::News;
use crate::host::signs::{Source, bad};
use crate::model::fitness::{Sign, SignSet, SignState};
use crate::telemetry::metrics::Metrics;
use log::{info, warn};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often FRR is asked, if the kernel has no news: what takes an EVPN session away may leave everything in the
/// kernel as it is (graceful restart, RFC 4724).
const EVERY: Duration = Duration::from_secs(1);
/// The same while a sign has to be looked at once more to be sure.
const AGAIN: Duration = Duration::from_millis(30);
/// How long news are collected before the next look: forwarding entries and routes come and go by the thousand.
const GATHER: Duration = Duration::from_millis(20);

/// Starts the thread. It ends with the process.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(mut source: Source, metrics: Arc<Metrics>, events: Sender<Event>) -> io::Result<()> {
    Builder::new().name("signs".to_owned()).spawn(move || {
        let news = match News::open() {
            Ok(news) => Some(news),
            Err(error) => {
                warn!("lost links and routes are noticed a little later: {error}");
                None
            }
        };
        let mut told = SignSet::NONE;
        loop {
            let states = source.look();
            metrics.neighbours(source.neighbours());
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

fn wait(news: Option<&News>, pause: Duration) {
    match news {
        Some(news) if news.wait(pause) => {
            sleep(GATHER);
            news.clear();
        }
        Some(_) => {}
        None => sleep(pause),
    }
}
