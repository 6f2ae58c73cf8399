//! wmgwd: exactly one gateway serves each VNI.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod host;
pub mod logging;
pub mod signal;
pub mod types;
