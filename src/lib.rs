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
//! off when the lease may end, whatever the others do. `lookout` sees bridges come up and FRR's daemons come
//! and go. `frr` is the only one that waits for vtysh. `worker` sends gratuitous ARP (AF_PACKET) itself.
//! `keeper` looks after the guard, which has the same switches and takes over when the daemon is gone or
//! late. `log` writes the lines of all of them, but at a terminal. `metrics` answers Prometheus and `notify`
//! runs the operator's command, if asked for; both only read what the others have left for them.
//!
//! What to do is decided by pure code: [`types`], [`ring`], [`fsm`], [`gateway`], [`schema`] and the wire
//! format of [`etcd`]; [`tally`] counts what has become of the VNIs. Doing it is dumb code: [`worker`],
//! [`lane`] (thread `frr`), [`watchdog`], [`observer`], [`lookout`], [`host`], [`guard`]. Between the two stands [`fence`]: whatever claims a VNI
//! asks it right before it acts.
#![deny(unsafe_code)]

pub mod check;
pub mod child;
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
pub mod memfd;
pub mod mending;
pub mod metrics;
pub mod notify;
pub mod observer;
pub mod report;
pub mod rest;
pub mod ring;
pub mod schema;
pub mod signal;
pub mod status;
pub mod supervisor;
pub mod tally;
pub mod types;
pub mod watchdog;
pub mod worker;
