//! wmgwd: exactly one gateway serves each VNI.
//!
//! ```text
//!        etcd  (key prefix /wmgwd/)
//!          ^ lease, keepalive    ^ transactions     | changes, snapshots
//!          |                     |                  v
//!   +------+-------+    +--------+--------+    +----+--------+   +---------+   +--------+
//!   | watchdog     |    | worker          |<---| watch, poll |   | lookout |   | signal |
//!   | grants and   |--->| owns the        |    +-------------+   +----+----+   +---+----+
//!   | renews       |    | Gateway (pure)  |<--------------------------+------------+
//!   +------+-------+    +---+----------+--+   one inbox of events
//!          |                |          | ^
//!          v                v   orders v | outcomes
//!   +------+----------------+--+    +--+-+------+
//!   | Fence: the lease, and    |    | frr       |--> vtysh --> bgpd, ospfd
//!   | the ARP switch under it  |<---| asks it   |
//!   +---+----------^-------^---+    +-----------+
//!       |          |       |
//!       |        fence   keeper ~~~ socket ~~~ guard (a process of its own)
//!       v                                        |
//!   /proc/sys (arp_ignore) <---------------------+--> vtysh
//! ```
//!
//! Each box with a small name is a thread of that name. `watchdog` alone sets the lease. `fence` switches ARP
//! off when the lease may end, whatever the others do. `lookout` follows the host's interfaces, puts back ARP that
//! something else on the host has switched, and sees FRR's daemons come
//! and go. `frr` is the only one that waits for vtysh. `worker` sends gratuitous ARP (AF_PACKET) itself.
//! `keeper` looks after the guard, which has the same switches and takes over when the daemon is gone or
//! late. `log` writes the lines of all of them, but at a terminal. `metrics` answers Prometheus and `notify`
//! runs the operator's command, if asked for; both only read what the others have left for them.
//!
//! What to do is decided by pure code: [`model::types`], [`model::ring`], [`model::fsm`], [`gateway`], [`schema`] and the wire
//! format of [`etcd`]; [`telemetry::counters`] counts what has become of the VNIs. Doing it is dumb code: [`daemon::worker`],
//! [`daemon::frr_thread`] (thread `frr`), [`daemon::lease`], [`daemon::observer`], [`daemon::host_monitor`], [`host`], [`guard`]. Between the two stands [`daemon::fence`]: whatever claims a VNI
//! asks it right before it acts.
#![deny(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod daemon;
pub mod etcd;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod guard;
pub mod host;
pub mod model;
pub mod schema;
pub mod sys;
pub mod telemetry;

/// Why a process could not do what it is for: the end of the chain that `main` logs.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
