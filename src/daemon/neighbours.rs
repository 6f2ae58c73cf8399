//! Keeps this gateway from asking for the stations of VNIs that it does not serve any more: thread `neighbours`. Why:
//! see [`crate::host::neighbours`].
//!
//! It has a thread of its own, so that nothing waits for it: a VNI is given to another gateway meanwhile.

use crate::host::links::Bridges;
use crate::host::neighbours::confirm;
use crate::model::types::Vni;
use crate::sys::clock;
use crate::telemetry::log_text::spans;
use log::debug;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, sleep};

/// Tells the thread `neighbours`.
#[derive(Debug)]
pub struct Neighbours(Option<Sender<Vec<Vni>>>);

impl Neighbours {
    /// Starts the thread, which ends with this object. A mock host has no bridges, and needs none.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(bridges: Option<Bridges>) -> io::Result<Neighbours> {
        let Some(bridges) = bridges else {
            return Ok(Neighbours(None));
        };
        let (sender, silent) = channel();
        Builder::new()
            .name("neighbours".to_owned())
            .spawn(move || run(&silent, &bridges))?;
        Ok(Neighbours(Some(sender)))
    }

    /// The bridges of these VNIs are silent now.
    pub fn silent(&self, vnis: &[Vni]) {
        if let Some(sender) = self.0.as_ref().filter(|_| !vnis.is_empty()) {
            // The thread lives as long as this sender.
            let _ = sender.send(vnis.to_vec());
        }
    }
}

fn run(silent: &Receiver<Vec<Vni>>, bridges: &Bridges) {
    while let Ok(mut vnis) = silent.recv() {
        // What has come meanwhile is done by one look.
        vnis.extend(silent.try_iter().flatten());
        let before = clock::thread_cpu_time();
        match bridges.indices(&vnis).and_then(|it| confirm(&it)) {
            Ok(count) => debug!("neighbours: vnis={} count={count} confirmed", spans(&vnis)),
            Err(error) => debug!("neighbours: vnis={}: {error}", spans(&vnis)),
        }
        // A list of many thousand stations takes no more than a tenth of a CPU. (Its time on the clock may be that of a
        // machine that slept.)
        sleep(clock::thread_cpu_time().saturating_sub(before) * 9);
    }
}
