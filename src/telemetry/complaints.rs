//! Logs what goes wrong with VNIs, once each.

use crate::model::types::Vni;
use crate::telemetry::log_text::spans;
use fnv::FnvHashMap;
use log::{info, warn};
use std::collections::{BTreeMap, BTreeSet};

/// What went wrong with which VNIs: said once each, VNIs with the same trouble in one line.
#[derive(Debug)]
pub struct Complaints {
    what: &'static str,
    reasons: FnvHashMap<Vni, String>,
}

impl Complaints {
    /// Complaints about `what`.
    pub fn new(what: &'static str) -> Complaints {
        Complaints {
            what,
            reasons: FnvHashMap::default(),
        }
    }

    /// All of `told` went well but for `failures`.
    pub fn hear(&mut self, told: impl Iterator<Item = Vni>, failures: Vec<(Vni, String)>) {
        if failures.is_empty() && self.reasons.is_empty() {
            return;
        }
        let mut news: BTreeMap<String, Vec<Vni>> = BTreeMap::new();
        let failing: BTreeSet<Vni> = failures.iter().map(|(vni, _)| *vni).collect();
        for (vni, reason) in failures {
            if self.reasons.get(&vni) != Some(&reason) {
                // The VNI's own bridge is named in the reason: without its number, the same for all.
                let shared = reason.replace(&vni.bridge(), "br<VNI>");
                news.entry(shared).or_default().push(vni);
                self.reasons.insert(vni, reason);
            }
        }
        for (reason, vnis) in news {
            warn!("{} vnis={}: {reason}", self.what, spans(&vnis));
        }
        let well: Vec<Vni> = told
            .filter(|vni| !failing.contains(vni) && self.reasons.remove(vni).is_some())
            .collect();
        if !well.is_empty() {
            info!("{} vnis={}: works again", self.what, spans(&well));
        }
    }
}
