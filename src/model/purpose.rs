//! What a gateway is for: the options that `wmgwd check` judges a host by.

use super::frr::{Announce, EvpnFilter};
use super::types::{NodeName, VniRange};
use std::time::Duration;

/// What the host is to be fit for.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// The name that the node will have, if it was given.
    pub name: Option<NodeName>,
    /// The VNIs that it will serve.
    pub range: VniRange,
    /// How `filter-vni` will tell VNIs apart.
    pub filter: EvpnFilter,
    /// How long its lease will last.
    pub ttl: Duration,
    /// How it will announce its VNIs upstream.
    pub announce: Announce,
}
