//! How epochs, nodes and proofs are spelled in the lines between daemon and guard. Pure.
//!
//! ```text
//!   EPOCH   LEASE/WINDOW/NUMBER/NAME:LEASE:RUN,...     window in microseconds, name in hexadecimal
//!   PEER    LEASE/RUN/KEY/ADDRESS/TRIAL                key in hexadecimal; trial is 0 or 1
//!   KEY     32 hexadecimal digits
//!   TIME    nanoseconds since boot
//! ```

use crate::model::types::{Lease, LeaseId, NodeName, Time};
use crate::witness::message::{Known, Order, Peer, Proof, Report, Traffic};
use crate::witness::siphash::Key;
use crate::witness::{Epoch, Number, Run, Witness};
use std::fmt::Write;
use std::time::Duration;

/// The word for an absent part.
const NONE: &str = "-";

/// The line of an order, without its end.
pub fn order(order: &Order) -> String {
    match order {
        Order::Begin {
            lease,
            key,
            in_place,
            proved,
            unanswered,
        } => format!(
            "begin {} {} {} {} {}",
            lease_words(*lease),
            key.hex(),
            some(in_place.as_ref().map(epoch_word)),
            time_word(*proved),
            some(unanswered.as_ref().map(epoch_word)),
        ),
        Order::Renewed(lease) => format!("lease {}", lease_words(*lease)),
        Order::Propose(epoch) => format!("propose {}", epoch_word(epoch)),
        Order::InPlace(number) => format!("inplace {}", number.0),
        Order::Ended(lease) => format!("ended {}", lease.0),
        Order::Peers(peers) => {
            let mut line = "peers".to_owned();
            for peer in peers {
                let (lease, run, address) = (peer.lease.0, peer.run.0, peer.address);
                let key = peer.link.hex();
                // Writing to a string does not fail.
                let _ = write!(
                    line,
                    " {lease}/{run}/{key}/{address}/{}",
                    u8::from(peer.trial)
                );
            }
            line
        }
    }
}

/// Reads what [`order`] wrote, but a renewed lease.
pub fn read_order(line: &str) -> Option<Order> {
    let mut words = line.split_ascii_whitespace();
    let order = match words.next()? {
        "begin" => Order::Begin {
            lease: read_lease(&mut words)?,
            key: Key::read_hex(words.next()?)?,
            in_place: read_some(words.next()?, read_epoch)?,
            proved: read_time(words.next()?)?,
            unanswered: read_some(words.next()?, read_epoch)?,
        },
        "propose" => Order::Propose(read_epoch(words.next()?)?),
        "inplace" => Order::InPlace(Number(words.next()?.parse().ok()?)),
        "ended" => Order::Ended(LeaseId(words.next()?.parse().ok()?)),
        "peers" => {
            let peers = words.by_ref().map(read_peer);
            Order::Peers(peers.collect::<Option<_>>()?)
        }
        _ => return None,
    };
    words.next().is_none().then_some(order)
}

/// The line of a report, without its end.
pub fn report(report: &Report) -> String {
    let proof = match report {
        Report::Noted(number) => return format!("noted {}", number.0),
        Report::Proof(proof) => proof,
    };
    let epochs = proof.epochs.iter();
    let epochs = epochs.map(|(number, until)| format!("{}/{}", number.0, time_word(*until)));
    let heard = proof.heard.iter();
    let heard = heard.map(|(lease, at)| format!("{}/{}", lease.0, time_word(*at)));
    format!(
        "proof {} {} {} {} {} {} {} {} {} {} {}",
        some(proof.lease.map(|lease| lease.0.to_string())),
        time_word(proof.until),
        proof.losses,
        proof.late,
        list(epochs),
        list(heard),
        some(proof.lowest.map(|left| left.as_micros().to_string())),
        proof.lateness.as_micros(),
        proof.traffic.sent,
        proof.traffic.answers,
        proof.traffic.dropped,
    )
}

/// Reads what [`report`] wrote.
pub fn read_report(line: &str) -> Option<Report> {
    let mut words = line.split_ascii_whitespace();
    let report = match words.next()? {
        "noted" => Report::Noted(Number(words.next()?.parse().ok()?)),
        "proof" => Report::Proof(Proof {
            lease: read_some(words.next()?, |word| Some(LeaseId(word.parse().ok()?)))?,
            until: read_time(words.next()?)?,
            losses: words.next()?.parse().ok()?,
            late: words.next()?.parse().ok()?,
            epochs: read_list(words.next()?, |number| Some(Number(number.parse().ok()?)))?,
            heard: read_list(words.next()?, |lease| Some(LeaseId(lease.parse().ok()?)))?,
            lowest: read_some(words.next()?, read_micros)?,
            lateness: read_micros(words.next()?)?,
            traffic: Traffic {
                sent: words.next()?.parse().ok()?,
                answers: words.next()?.parse().ok()?,
                dropped: words.next()?.parse().ok()?,
            },
        }),
        _ => return None,
    };
    words.next().is_none().then_some(report)
}

/// What a guard knows beside its lease, as words behind it.
pub fn known(known: &Known) -> String {
    format!(
        "{} {} {}",
        known.key.hex(),
        some(known.in_place.as_ref().map(epoch_word)),
        some(known.unanswered.as_ref().map(epoch_word)),
    )
}

/// Reads what [`known`] wrote; `None` within if there is nothing.
pub fn read_known<'a>(
    lease: Lease,
    words: &mut impl Iterator<Item = &'a str>,
) -> Option<Option<Known>> {
    let Some(key) = words.next() else {
        return Some(None);
    };
    Some(Some(Known {
        lease,
        key: Key::read_hex(key)?,
        in_place: read_some(words.next()?, read_epoch)?,
        unanswered: read_some(words.next()?, read_epoch)?,
    }))
}

pub(super) fn some(word: Option<String>) -> String {
    word.unwrap_or_else(|| NONE.to_owned())
}

pub(super) fn read_some<T>(word: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match word {
        NONE => Some(None),
        word => read(word).map(Some),
    }
}

fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    some((!words.is_empty()).then(|| words.join(",")))
}

fn read_list<T>(word: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<(T, Time)>> {
    let pair = |pair: &str| {
        let (one, time) = pair.split_once('/')?;
        Some((read(one)?, read_time(time)?))
    };
    let all = |word: &str| word.split(',').map(pair).collect();
    Some(read_some(word, all)?.unwrap_or_default())
}

pub(super) fn time_word(time: Time) -> u64 {
    u64::try_from(time.as_duration().as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn read_time(word: &str) -> Option<Time> {
    Some(Time::since_boot(Duration::from_nanos(word.parse().ok()?)))
}

fn read_micros(word: &str) -> Option<Duration> {
    Some(Duration::from_micros(word.parse().ok()?))
}

pub(super) fn lease_words(lease: Lease) -> String {
    format!("{} {}", lease.id.0, time_word(lease.valid_until))
}

pub(super) fn read_lease<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Lease> {
    Some(Lease {
        id: LeaseId(words.next()?.parse().ok()?),
        valid_until: read_time(words.next()?)?,
    })
}

pub(super) fn epoch_word(epoch: &Epoch) -> String {
    let witness = |it: &Witness| {
        let name = it.name.as_str().bytes();
        let name: String = name.map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{}:{}", it.lease.0, it.run.0)
    };
    let witnesses: Vec<String> = epoch.witnesses.iter().map(witness).collect();
    format!(
        "{}/{}/{}/{}",
        epoch.lease.0,
        epoch.window.as_micros(),
        epoch.number.0,
        witnesses.join(","),
    )
}

pub(super) fn read_epoch(word: &str) -> Option<Epoch> {
    let mut parts = word.split('/');
    let epoch = Epoch {
        lease: LeaseId(parts.next()?.parse().ok()?),
        window: Duration::from_micros(parts.next()?.parse().ok()?),
        number: Number(parts.next()?.parse().ok()?),
        witnesses: match parts.next()? {
            "" => Vec::new(),
            witnesses => {
                let read = witnesses.split(',').map(read_witness);
                read.collect::<Option<_>>()?
            }
        },
    };
    parts.next().is_none().then_some(epoch)
}

fn read_witness(word: &str) -> Option<Witness> {
    let mut parts = word.split(':');
    let name = parts.next()?.as_bytes();
    let byte = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, 16).ok()
    };
    let name: Option<Vec<u8>> = name.chunks(2).map(byte).collect();
    let name: NodeName = String::from_utf8(name?).ok()?.parse().ok()?;
    let witness = Witness {
        name,
        lease: LeaseId(parts.next()?.parse().ok()?),
        run: Run(parts.next()?.parse().ok()?),
    };
    parts.next().is_none().then_some(witness)
}

fn read_peer(word: &str) -> Option<Peer> {
    let mut parts = word.split('/');
    let peer = Peer {
        lease: LeaseId(parts.next()?.parse().ok()?),
        run: Run(parts.next()?.parse().ok()?),
        link: Key::read_hex(parts.next()?)?,
        address: parts.next()?.parse().ok()?,
        trial: match parts.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        },
    };
    parts.next().is_none().then_some(peer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::since_boot(Duration::from_nanos(nanos))
    }

    fn epoch(names: &[&str]) -> Epoch {
        let witness = |name: &&str| Witness {
            name: name.parse().unwrap(),
            lease: LeaseId(-9),
            run: Run(u64::MAX),
        };
        Epoch {
            lease: LeaseId(7),
            window: Duration::from_millis(500),
            number: Number(u64::MAX),
            witnesses: names.iter().map(witness).collect(),
        }
    }

    fn lease() -> Lease {
        Lease {
            id: LeaseId(-7),
            valid_until: at(123_456_789_012),
        }
    }

    /// Input: orders and reports of every kind, with names that hold spaces, signs of the format and letters beyond
    /// ASCII. Output: each is one line that reads back.
    #[test]
    fn what_is_spelled_reads_back() {
        let key = Key([0xab; 16]);
        let strange = epoch(&["gw 1", "a:b,c/d".replace('/', "-").as_str(), "\u{1f310}"]);
        let peer = |address: &str, trial| Peer {
            lease: LeaseId(5),
            run: Run(6),
            link: key,
            address: address.parse().unwrap(),
            trial,
        };
        let orders = [
            Order::Begin {
                lease: lease(),
                key,
                in_place: Some(strange.clone()),
                proved: at(9),
                unanswered: None,
            },
            Order::Begin {
                lease: lease(),
                key,
                in_place: None,
                proved: Time::default(),
                unanswered: Some(epoch(&[])),
            },
            Order::Propose(strange.clone()),
            Order::InPlace(Number(3)),
            Order::Ended(LeaseId(-1)),
            Order::Peers(vec![]),
            Order::Peers(vec![
                peer("192.0.2.1:14789", true),
                peer("[2001:db8::1]:1", false),
            ]),
        ];
        for it in orders {
            let line = order(&it);
            assert!(!line.contains('\n'));
            assert_eq!(read_order(&line), Some(it), "{line}");
        }
        let proofs = [
            Proof::default(),
            Proof {
                lease: Some(LeaseId(-7)),
                until: at(u64::MAX),
                epochs: vec![(Number(1), at(2)), (Number(3), at(4))],
                heard: vec![(LeaseId(5), at(6))],
                losses: 7,
                late: 8,
                traffic: Traffic {
                    sent: 9,
                    answers: 10,
                    dropped: 11,
                },
                lowest: Some(Duration::from_micros(9)),
                lateness: Duration::from_micros(10),
            },
        ];
        let reports = proofs.map(Report::Proof);
        for it in reports.into_iter().chain([Report::Noted(Number(4))]) {
            let line = report(&it);
            assert_eq!(read_report(&line), Some(it), "{line}");
        }
        for in_place in [None, Some(strange)] {
            let it = Known {
                lease: lease(),
                key,
                in_place,
                unanswered: None,
            };
            let line = known(&it);
            let read = read_known(lease(), &mut line.split_ascii_whitespace());
            assert_eq!(read, Some(Some(it)));
        }
    }

    /// Input: lines that are nearly right. Output: none of them is taken.
    #[test]
    fn what_is_not_spelled_so_is_refused() {
        let key = "0".repeat(32);
        for line in [
            "".to_owned(),
            "begin 1 2".to_owned(),
            format!("begin 1 2 {key} - 0 - more"),
            format!("begin 1 2 {}x - 0 -", &key[1..]),
            "propose 1/2/3".to_owned(),
            "propose 1/2/3/zz:1:1".to_owned(),
            "propose 1/2/3/:1:1".to_owned(),
            "propose 1/2/3/61:1:1:1".to_owned(),
            "inplace x".to_owned(),
            format!("peers 1/2/{key}/nowhere/0"),
            format!("peers 1/2/{key}/192.0.2.1:1/2"),
            "noted".to_owned(),
            "proof 1 2 3 4 -".to_owned(),
            "proof 1 2 3 4 1 -".to_owned(),
            "proof 1 2 3 4 - - x 0".to_owned(),
            "proof 1 2 3 4 - - - -1".to_owned(),
            "proof 1 2 3 4 - - - 0 0".to_owned(),
        ] {
            assert_eq!(read_order(&line), None, "{line:?}");
            assert_eq!(read_report(&line), None, "{line:?}");
        }
    }
}
