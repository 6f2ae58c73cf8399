//! wmgwd: exactly one gateway serves each VNI.
//!
//! ```text
//!           etcd  (one member on each gateway; key prefix /wmgwd/)
//!             ^  lease, keepalive     ^ transactions      | watch, poll
//!             |                       |                   v
//!   +---------+---------+   +---------+--------+   +------+------+   +--------+
//!   | watchdog          |   | worker           |<--| watch, poll |   | signal |
//!   | grants and renews |   | owns the Gateway |   +-------------+   +---+----+
//!   +---------+---------+   | (pure)           |<------------------------+
//!             | Fence       +---+----------+---+   one inbox of events
//!             |                 |          |  ^
//!             v                 v          v  |
//!   +---------------------------+--+   +---+--+----+   +-------+
//!   | ARP: /proc/sys, AF_PACKET    |   | frr       |   | look- |
//!   +------------------------------+   | vtysh     |   | out   |
//!   the guard process has the same     +-----------+   +-------+
//!   switch, should the daemon stop
//! ```
//!
//! What to do is decided by pure code: [`types`], [`ring`], [`fsm`], [`gateway`], [`schema`],
//! [`etcd::wire`]. Doing it is dumb code: [`worker`], [`watchdog`], [`observer`], [`host`], [`guard`].
//! Between the two stands [`fence`]: whatever claims a VNI asks it right before it acts.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod etcd;
pub mod fence;
pub mod fsm;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod guard;
pub mod host;
pub mod lane;
pub mod logging;
pub mod lookout;
pub mod mending;
pub mod observer;
pub mod report;
pub mod ring;
pub mod schema;
pub mod signal;
pub mod types;
pub mod watchdog;
pub mod worker;
