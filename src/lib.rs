//! wmgwd: exactly one gateway serves each VNI.
#![deny(unsafe_code)]

pub mod clock;
pub mod etcd;
pub mod fsm;
pub mod gateway;
pub mod host;
pub mod ring;
pub mod schema;
pub mod types;
