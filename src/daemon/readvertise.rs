//! Routes that FRR gave up by itself: when the thread `frr` looks for them, and what it says.

use crate::host::Router;
use crate::model::types::Time;
use crate::sys::clock;
use crate::telemetry::log_text::{chain, spans};
use log::{debug, info, warn};

/// When to look for routes that FRR gave up by itself.
#[derive(Default)]
pub struct Mending {
    /// The next look, if one is due at all.
    pub due: Option<Time>,
}

impl Mending {
    /// Looks, and says what came of it. `permit` as in [`Router::mend`].
    pub fn look(&mut self, router: &mut dyn Router, permit: &dyn Fn() -> bool) {
        self.due = None;
        let mended = match router.mend(permit) {
            Ok(mended) => mended,
            // Looked at again with the next order or audit.
            Err(error) => return debug!("FRR: cannot look for lost routes: {}", chain(&error)),
        };
        self.due = mended.again.map(|again| clock::now() + again);
        if !mended.back.is_empty() {
            info!(
                "FRR: vnis={}: the routes of the gateway's address had been given up to another \
                 gateway's, brought back",
                spans(&mended.back)
            );
        }
        if !mended.given_up.is_empty() {
            warn!(
                "FRR: vnis={}: the routes of the gateway's address do not come back: does `show evpn \
                 vni` know br<VNI>? Restarting FRR helps where zebra missed an address; \
                 frr.conf.example avoids the loss",
                spans(&mended.given_up)
            );
        }
    }
}
