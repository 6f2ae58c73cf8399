//! wmgwd: exactly one gateway serves each VNI.
#![deny(unsafe_code)]

pub mod clock;
pub mod etcd;
pub mod host;
pub mod types;
