//! What daemon and guard say to each other: lines of text over a Unix socket. Pure.
//!
//! ```text
//!   daemon: hello                                    (who only looks whether there is a guard says nothing)
//!   guard:  busy                                     a living daemon has this guard
//!   guard:  fresh                                    nothing to take over
//!   guard:  orphan LEASE UNTIL [KEY EPOCH EPOCH]     a dead daemon's lease, still held, and what proves it: the epoch
//!                                                    in place, and the one that is unanswered
//!   daemon: lease LEASE UNTIL                        hold on until then (nanoseconds since boot)
//!   daemon: serves VNI/INDEX...                      these answer ARP, through the interface of that index
//!   daemon: released VNI...                          these do not any more
//!   daemon: gate on|part|off                         the kernel can hold the lease, of some bridges only, or cannot
//!   daemon: from ADDRESS                             where to send beats from
//!   daemon: begin LEASE UNTIL KEY EPOCH PROVED EPOCH the lease, with the epochs under it (see [`words`])
//!   daemon: propose EPOCH                            it is about to be sent to etcd
//!   daemon: inplace NUMBER                           it is in place
//!   daemon: ended LEASE                              there is no proof under this lease any more
//!   daemon: peers PEER...                            the other nodes
//!   daemon: retire                                   try once to withdraw when the lease ends, then end
//!   daemon: bye                                      all is withdrawn
//!   guard:  heard UNTIL                              the lease was told (and the guard is well)
//!   guard:  granted UNTIL REFUSED                    the kernel holds the lease until then, after so many refusals
//!   guard:  refused REASON                           it does not
//!   guard:  silenced                                 too few witnesses prove the node: what answered does not any more
//!   guard:  noted NUMBER                             from now on the proof counts under this epoch, too
//!   guard:  proof LEASE UNTIL LOSSES LATE NUMBER/UNTIL,... LEASE/HEARD,... LOWEST LATENESS SENT ANSWERS DROPPED
//!   guard:  fenced                                   it ended: whatever was on show is not, or not for long
//! ```
//!
//! Another process, of the same user or root, may say `look` instead of `hello`: the guard tells it the proof in one
//! line (see [`View`](super::view::View)) and closes the connection. The daemon and its guard do not notice.

use super::words;
use crate::model::types::{Lease, Time, Vni};
use crate::witness::message::{self, Known};
use core::net::IpAddr;
use std::fmt::{Display, Write};

/// Part of a guard's arguments: a daemon does not take over the guard of a version that says things otherwise.
pub const VERSION: &str = "7";

/// What the daemon tells the guard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// The daemon wants this guard for its own.
    Hello,
    /// A process that is no daemon wants to know how the proof is.
    Look,
    /// The lease that proves what this node shows.
    Lease(Lease),
    /// These VNIs answer ARP, each through the interface of that index (netdevice(7)).
    Serves(Vec<(Vni, u32)>),
    /// These VNIs do not answer ARP any more.
    Released(Vec<Vni>),
    /// What of the bridges that answer the kernel lease holds.
    Gate(Gated),
    /// The address that beats are sent from.
    From(IpAddr),
    /// What concerns the proof.
    Witness(message::Order),
    /// When the lease ends, withdraw in one try, and end whatever came of it.
    Retire,
    /// Everything is withdrawn.
    Bye,
}

/// What of the bridges that answer ARP the kernel lease holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gated {
    /// Its table is not there.
    #[default]
    None,
    /// Some may be missing: the table is full, or was refused.
    Some,
    /// All.
    All,
}

/// What the guard says to who connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// A living daemon has this guard.
    Busy,
    /// There is nothing to take over.
    Fresh,
    /// The daemon of this guard is dead; its lease may still be alive. With what is known of epochs under it.
    Orphan(Lease, Option<Known>),
}

/// What the guard says to its daemon after that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// The lease that is valid until then was told.
    Heard(Time),
    /// The kernel holds the lease.
    Granted {
        /// Until then at most.
        until: Time,
        /// How many attempts were refused before.
        refused: u32,
    },
    /// The kernel was not made to hold the lease; why.
    Refused(String),
    /// The lease ended, as far as the guard knows: it silences and withdraws.
    Fenced,
    /// The witnesses' part of the proof was lost: the guard has silenced each VNI, and has none answer again.
    Silenced,
    /// What concerns the proof.
    Witness(message::Report),
}

impl Order {
    /// The line, with its end.
    pub fn line(&self) -> String {
        match self {
            Order::Hello => "hello\n".to_owned(),
            Order::Look => "look\n".to_owned(),
            Order::Lease(lease) => lease_line("lease", *lease),
            Order::Serves(vnis) => {
                let words = vnis.iter().map(|(vni, index)| format!("{vni}/{index}"));
                words_line("serves", words)
            }
            Order::Released(vnis) => words_line("released", vnis.iter()),
            Order::Gate(Gated::All) => "gate on\n".to_owned(),
            Order::Gate(Gated::Some) => "gate part\n".to_owned(),
            Order::Gate(Gated::None) => "gate off\n".to_owned(),
            Order::From(address) => format!("from {address}\n"),
            Order::Witness(order) => format!("{}\n", words::order(order)),
            Order::Retire => "retire\n".to_owned(),
            Order::Bye => "bye\n".to_owned(),
        }
    }

    /// Reads a line; `None` if no daemon of this version says that.
    pub fn read(line: &str) -> Option<Order> {
        let mut words = line.split_ascii_whitespace();
        let order = match words.next()? {
            "hello" => Order::Hello,
            "look" => Order::Look,
            "lease" => Order::Lease(words::read_lease(&mut words)?),
            "serves" => {
                return words
                    .map(read_served)
                    .collect::<Option<_>>()
                    .map(Order::Serves);
            }
            "released" => {
                return words
                    .map(|word| word.parse().ok())
                    .collect::<Option<_>>()
                    .map(Order::Released);
            }
            "gate" => match words.next()? {
                "on" => Order::Gate(Gated::All),
                "part" => Order::Gate(Gated::Some),
                "off" => Order::Gate(Gated::None),
                _ => return None,
            },
            "from" => Order::From(words.next()?.parse().ok()?),
            "retire" => Order::Retire,
            "bye" => Order::Bye,
            _ => return words::read_order(line).map(Order::Witness),
        };
        words.next().is_none().then_some(order)
    }
}

impl Greeting {
    /// The line, with its end.
    pub fn line(&self) -> String {
        match self {
            Greeting::Busy => "busy\n".to_owned(),
            Greeting::Fresh => "fresh\n".to_owned(),
            Greeting::Orphan(lease, None) => lease_line("orphan", *lease),
            Greeting::Orphan(lease, Some(known)) => {
                let line = lease_line("orphan", *lease);
                format!("{} {}\n", line.trim_end(), words::known(known))
            }
        }
    }

    /// Reads a line; `None` if no guard of this version says that.
    pub fn read(line: &str) -> Option<Greeting> {
        let mut words = line.split_ascii_whitespace();
        let greeting = match words.next()? {
            "busy" => Greeting::Busy,
            "fresh" => Greeting::Fresh,
            "orphan" => {
                let lease = words::read_lease(&mut words)?;
                Greeting::Orphan(lease, words::read_known(lease, &mut words)?)
            }
            _ => return None,
        };
        words.next().is_none().then_some(greeting)
    }
}

impl Report {
    /// The line, with its end.
    pub fn line(&self) -> String {
        match self {
            Report::Heard(until) => format!("heard {}\n", words::time_word(*until)),
            Report::Granted { until, refused } => {
                format!("granted {} {refused}\n", words::time_word(*until))
            }
            Report::Refused(reason) => words_line("refused", reason.split_ascii_whitespace()),
            Report::Fenced => "fenced\n".to_owned(),
            Report::Silenced => "silenced\n".to_owned(),
            Report::Witness(report) => format!("{}\n", words::report(report)),
        }
    }

    /// Reads a line; `None` if no guard of this version says that.
    pub fn read(line: &str) -> Option<Report> {
        let mut words = line.split_ascii_whitespace();
        let report = match words.next()? {
            "heard" => Report::Heard(words::read_time(words.next()?)?),
            "granted" => Report::Granted {
                until: words::read_time(words.next()?)?,
                refused: words.next()?.parse().ok()?,
            },
            "refused" => {
                let reason: Vec<&str> = words.collect();
                return (!reason.is_empty()).then(|| Report::Refused(reason.join(" ")));
            }
            "fenced" => Report::Fenced,
            "silenced" => Report::Silenced,
            _ => return words::read_report(line).map(Report::Witness),
        };
        words.next().is_none().then_some(report)
    }
}

fn lease_line(word: &str, lease: Lease) -> String {
    format!("{word} {}\n", words::lease_words(lease))
}

fn words_line(word: &str, words: impl Iterator<Item = impl Display>) -> String {
    let mut line = word.to_owned();
    for word in words {
        // Writing to a string does not fail.
        let _ = write!(line, " {word}");
    }
    line.push('\n');
    line
}

fn read_served(word: &str) -> Option<(Vni, u32)> {
    let (vni, index) = word.split_once('/')?;
    Some((vni.parse().ok()?, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::types::LeaseId;
    use crate::witness::siphash::Key;
    use std::time::Duration;

    #[test]
    fn lines_read_back() {
        let lease = Lease {
            id: LeaseId(-7),
            valid_until: Time::since_boot(Duration::from_nanos(123_456_789_012)),
        };
        let vnis: Vec<Vni> = [1, 7, 16_777_215]
            .into_iter()
            .map(|n| Vni::new(n).unwrap())
            .collect();
        for order in [
            Order::Lease(lease),
            Order::Serves(vnis.iter().map(|vni| (*vni, 4_000_000_000)).collect()),
            Order::Released(vnis),
            Order::Serves(vec![]),
            Order::Gate(Gated::All),
            Order::Gate(Gated::Some),
            Order::Gate(Gated::None),
            Order::From("2001:db8::1".parse().unwrap()),
            Order::Witness(message::Order::Ended(lease.id)),
            Order::Retire,
            Order::Bye,
            Order::Hello,
            Order::Look,
        ] {
            let line = order.line();
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            assert_eq!(Order::read(&line), Some(order));
        }
        let known = Known {
            lease,
            key: Key([7; 16]),
            in_place: None,
            unanswered: None,
        };
        for greeting in [
            Greeting::Busy,
            Greeting::Fresh,
            Greeting::Orphan(lease, None),
            Greeting::Orphan(lease, Some(known)),
        ] {
            assert_eq!(Greeting::read(&greeting.line()), Some(greeting));
        }
        for report in [
            Report::Heard(lease.valid_until),
            Report::Granted {
                until: lease.valid_until,
                refused: 2,
            },
            Report::Refused("no nf_tables: why".to_owned()),
            Report::Fenced,
            Report::Silenced,
            Report::Witness(message::Report::Proof(message::Proof::default())),
        ] {
            assert_eq!(Report::read(&report.line()), Some(report));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "lease",
            "lease 1",
            "lease x 1",
            "lease 1 2 3",
            "lease 1 -2",
            "serves 0/1",
            "serves 1",
            "serves 1/",
            "serves 1/-1",
            "serves x/1",
            "released 1/1",
            "hello again",
            "look twice",
            "heard",
            "heard -1",
            "gate",
            "gate up",
            "gate on off",
            "from nowhere",
            "orphan 1 2 3",
            "granted 1",
            "granted 1 -1",
            "refused",
            "fenced 1",
        ] {
            assert_eq!(Order::read(line), None, "{line:?}");
            assert_eq!(Greeting::read(line), None, "{line:?}");
            assert_eq!(Report::read(line), None, "{line:?}");
        }
    }
}
