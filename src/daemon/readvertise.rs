//! Routes that FRR gave up by itself: when the thread `frr` looks for them, and what it says.

use crate::host::Router;
use crate::model::types::Time;
use crate::sys::clock;
use crate::telemetry::log_text::{chain, spans};
use log::{debug, info, warn};

/// When to look for routes that FRR gave up by itself.
#[derive(Default)]
pub struct Readvertise {
    /// The next look, if one is due at all.
    pub due: Option<Time>,
}

impl Readvertise {
    /// Looks, and says what came of it. `permit` as in [`Router::readvertise`].
    pub fn look(&mut self, router: &mut dyn Router, permit: &dyn Fn() -> bool) {
        self.due = None;
        let found = match router.readvertise(permit) {
            Ok(found) => found,
            // Looked at again with the next order or audit.
            Err(error) => return debug!("FRR: cannot look for lost routes: {}", chain(&error)),
        };
        self.due = found.again.map(|again| clock::now() + again);
        if !found.back.is_empty() {
            info!(
                "FRR: vnis={}: the routes of the gateway's address had been given up to another \
                 gateway's, brought back",
                spans(&found.back)
            );
        }
        if !found.given_up.is_empty() {
            warn!(
                "FRR: vnis={}: the routes of the gateway's address do not come back: does `show evpn \
                 vni` know br<VNI>? Restarting FRR helps where zebra missed an address; \
                 frr.conf.example avoids the loss",
                spans(&found.given_up)
            );
        }
    }
}
