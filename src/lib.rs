//! wmgwd: exactly one gateway serves each VNI.
//!
//! ```text
//!        etcd  (key prefix /wmgwd/)
//!          ^ lease, keepalive    ^ transactions     | changes, snapshots
//!          |                     |                  v
//!   +------+-------+    +--------+--------+    +----+--------+   +--------------+   +--------+
//!   | watchdog     |    | worker          |<---| watch, poll |   | host_monitor |   | signal |
//!   | grants and   |--->| owns the        |    +-------------+   +----+---------+   +---+----+
//!   | renews       |    | Gateway (pure)  |<--------------------------+-----------------+
//!   +------+-------+    +---+----------+--+   one inbox of events
//!          |                |          | ^
//!          v                v   orders v | outcomes
//!   +------+----------------+--+    +--+-+------+
//!   | Fence: the lease, and    |    | frr       |--> vtysh --> bgpd, ospfd
//!   | the ARP switch under it  |<---| asks it   |
//!   +---+----------^-------^---+    +-----------+
//!       |          |       |
//!       |        fence   guard_check ~~~ socket ~~~ guard (a process of its own)
//!       v                                           |
//!   /proc/sys (arp_ignore), nf_tables <-------------+--> vtysh
//! ```
//!
//! Each box with a name in lower case is a thread of that name. `watchdog` alone sets the lease. `fence` switches
//! ARP off before the lease can expire, even if all other threads are blocked. `host_monitor` follows the host's
//! interfaces, puts back ARP switches that another program has changed, and sees FRR's daemons start and end. `frr`
//! is the only thread that waits for vtysh. `worker` sends gratuitous ARP (AF_PACKET) itself. `guard_check` replaces
//! the guard if it is lost; the guard has the same switches, and takes over when the daemon is dead or late. `gate`
//! keeps the table of nf_tables by which the kernel itself stops answering when the lease ends. `log`
//! writes the log lines of all threads, except to a terminal. `metrics` answers Prometheus, and `notify` runs the
//! operator's command, if the options ask for them; both only read what the worker has published.
//!
//! Pure code decides: [`model`], [`gateway`], [`schema`] and the wire format of [`etcd`]. Code without decisions
//! acts: [`daemon::worker`], [`daemon::frr_thread`], [`daemon::lease`], [`daemon::observer`],
//! [`daemon::host_monitor`], [`host`] and [`guard`]. Both meet in [`daemon::fence`]: each action that claims a VNI
//! asks the fence for permission immediately before.
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
pub mod witness;

/// Why a process could not do what it is for: the end of the chain that `main` logs.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
