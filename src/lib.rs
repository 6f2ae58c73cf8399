//! wmgwd: exactly one gateway serves each VNI.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod host;
pub mod types;
