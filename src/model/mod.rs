//! The terms that everything else is written in: VNIs and leases, the state machine of one VNI, the ring. Pure.

pub mod fitness;
pub mod frr;
pub mod fsm;
pub mod purpose;
pub mod ring;
pub mod spans;
pub mod types;
