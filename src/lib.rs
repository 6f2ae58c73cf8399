//! wmgwd: exactly one gateway serves each VNI.
//!
//! ```text
//!        etcd  (key prefix /wmgwd/)
//!          ^ lease, keepalive    ^ transactions     | changes, snapshots
//!          |                     |                  v
//!   +------+-------+    +--------+--------+    +----+--------+   +--------------+   +--------+
//!   | watchdog     |    | worker          |<---| watch, poll |   | host_monitor |   | signal |
//!   | gets and     |--->| owns the        |    +-------------+   +----+---------+   +---+----+
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
//! The threads have the names in lower case; `guard`, `vtysh`, `bgpd` and `ospfd` are other processes.
//!
//! - `watchdog` gets and renews the lease. No other thread sets it in the fence.
//! - `fence` switches ARP off before the lease can expire, even if all other threads are blocked.
//! - `guard_check` replaces the guard if it is lost. When the daemon is dead or late, the guard switches ARP off and
//!   withdraws the routes in its place.
//! - `gate` keeps the nf_tables table. With that table the kernel itself stops answering ARP when the lease ends.
//! - `witness` acknowledges the beats of other nodes, votes, and writes this node's epochs (see [`witness`]).
//!   `witness_watch`, `witness_rewatch`, `witness_write` and `witness_vote` talk to etcd for it.
//! - `host_monitor` follows the host's interfaces, puts back ARP switches that another program has changed, and
//!   notices when a daemon of FRR starts or ends. `signs` looks for signs that this host cannot forward.
//! - `frr` runs vtysh. No other thread waits for vtysh.
//! - `neighbours` keeps the kernel from asking for the stations of VNIs that this gateway does not serve any more.
//! - `worker` sends gratuitous ARP (AF_PACKET) itself.
//! - `log` writes the log lines of all threads, except to a terminal.
//! - `metrics` answers Prometheus and `notify` runs the operator's command, if the options ask for them. Both only
//!   read what the worker has published.
//! - `resolve` looks up the host name of an etcd endpoint, and ends.
//!
//! `wmgwd witness` is another process with some of these threads (see [`daemon::bystander`]).
//!
//! Pure code decides: [`model`], [`gateway`], [`witness`], [`schema`] and the wire format of [`etcd`]. Code without
//! decisions acts: [`daemon::worker`], [`daemon::frr_thread`], [`daemon::lease`], [`daemon::observer`],
//! [`daemon::host_monitor`], [`daemon::witness`], [`host`] and [`guard`]. Each thread that claims a VNI asks
//! [`daemon::fence`] for permission right before it acts.
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

/// Why the process cannot do its work. `main` logs this error with the chain of its sources.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
