//! The host layer against a real kernel and a real FRR, by observation from outside.
//!
//! Each test has namespaces of its own and needs root; without it, it says so and passes.
#![allow(clippy::unwrap_used)]

mod announcements;
#[path = "../common/flood.rs"]
mod flood;
mod frr;
mod gate;
mod ipv6;
mod kernel;
mod measure;
mod monitor;
mod namespace;
mod neighbours;
mod no_guard;
mod router;
mod routes;
mod signs;

use wmgwd::model::types::Vni;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}
