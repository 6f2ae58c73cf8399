//! What a guard tells a process that only looks, and how that is spelled. Pure.
//!
//! A guard may be of another version than the process that looks: it lives on while a daemon is upgraded. So each
//! word has a name, and a reader ignores the words that it does not know.
//!
//! ```text
//!   seen version=TEXT now=TIME daemon=0|1 answering=COUNT lease=LEASE/UNTIL|- until=TIME proved=TIME|-
//!        losses=COUNT late=COUNT [inplace=EPOCH@TIME|-,...] [unanswered=EPOCH@TIME|-,...]...
//! ```

use super::words::{epoch_word, read_epoch, read_some, read_time, some, time_word};
use crate::model::types::{Lease, LeaseId, NodeName, Time};
use crate::witness::prover::Counted;
use std::fmt::Write;
use std::time::Duration;

/// How it is with a guard at one moment. Times are of the clock of its machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The version of its program.
    pub version: String,
    /// The moment.
    pub now: Time,
    /// It has a living daemon.
    pub has_daemon: bool,
    /// How many VNIs answer ARP while there is proof.
    pub answering: usize,
    /// The lease that it knows.
    pub lease: Option<Lease>,
    /// Until when there is proof.
    pub until: Time,
    /// When the newest beat was sent by which the witnesses prove the node; `None` if its lease alone does.
    pub proved_by: Option<Time>,
    /// How often the witnesses' part of the proof was lost since the guard began.
    pub losses: u64,
    /// How often it woke up late since then.
    pub late: u64,
    /// The epochs that count.
    pub epochs: Vec<Counted>,
}

/// A witness of an epoch that counts.
pub struct Acknowledgement<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// The epoch is in place; else etcd has not answered yet whether it is.
    pub is_in_place: bool,
    /// How long ago the newest beat was sent that it acknowledged; `None` if it has acknowledged none.
    pub ago: Option<Duration>,
}

impl View {
    /// Whether the node may answer ARP.
    pub fn has_proof(&self) -> bool {
        self.now < self.until
    }

    /// For how long the proof lasts if nothing more is heard.
    pub fn left(&self) -> Duration {
        self.until.since(self.now)
    }

    /// How long ago the newest beat was sent by which the witnesses prove the node.
    pub fn age(&self) -> Option<Duration> {
        self.proved_by.map(|sent| self.now.since(sent))
    }

    /// The witnesses of each epoch that counts.
    pub fn acknowledgements(&self) -> impl Iterator<Item = Acknowledgement<'_>> {
        self.epochs.iter().flat_map(|counted| {
            let witnesses = counted.epoch.witnesses.iter();
            let pairs = witnesses.zip(&counted.acknowledged);
            pairs.map(|(witness, sent)| Acknowledgement {
                name: &witness.name,
                is_in_place: counted.is_in_place,
                ago: sent.map(|sent| self.now.since(sent)),
            })
        })
    }

    /// The line, with its end.
    pub fn line(&self) -> String {
        let lease = self
            .lease
            .map(|it| format!("{}/{}", it.id.0, time_word(it.valid_until)));
        let mut line = format!(
            "seen version={} now={} daemon={} answering={} lease={} until={} proved={} losses={} late={}",
            self.version,
            time_word(self.now),
            u8::from(self.has_daemon),
            self.answering,
            some(lease),
            time_word(self.until),
            optional(self.proved_by),
            self.losses,
            self.late,
        );
        for counted in &self.epochs {
            let name = match counted.is_in_place {
                true => "inplace",
                false => "unanswered",
            };
            let times = counted.acknowledged.iter().copied().map(optional);
            let times: Vec<String> = times.collect();
            // Writing to a string does not fail.
            let _ = write!(
                line,
                " {name}={}@{}",
                epoch_word(&counted.epoch),
                times.join(",")
            );
        }
        line.push('\n');
        line
    }

    /// Reads a line; `None` if that is not what a guard says.
    pub fn read(line: &str) -> Option<View> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("seen") {
            return None;
        }
        let words: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let the = |name: &str| words.iter().find(|(it, _)| *it == name).map(|(_, it)| *it);
        let epochs = words.iter().filter_map(|(name, word)| match *name {
            "inplace" => Some(read_counted(word, true)),
            "unanswered" => Some(read_counted(word, false)),
            _ => None,
        });
        Some(View {
            version: the("version").filter(is_text)?.to_owned(),
            now: read_time(the("now")?)?,
            has_daemon: match the("daemon")? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            answering: the("answering")?.parse().ok()?,
            lease: read_some(the("lease")?, read_lease)?,
            until: read_time(the("until")?)?,
            proved_by: read_some(the("proved")?, read_time)?,
            losses: the("losses")?.parse().ok()?,
            late: the("late")?.parse().ok()?,
            epochs: epochs.collect::<Option<_>>()?,
        })
    }
}

fn is_text(word: &&str) -> bool {
    !word.contains(char::is_control)
}

fn optional(time: Option<Time>) -> String {
    some(time.map(|it| time_word(it).to_string()))
}

fn read_lease(word: &str) -> Option<Lease> {
    let (id, until) = word.split_once('/')?;
    Some(Lease {
        id: LeaseId(id.parse().ok()?),
        valid_until: read_time(until)?,
    })
}

fn read_counted(word: &str, is_in_place: bool) -> Option<Counted> {
    let (epoch, times) = word.split_once('@')?;
    let epoch = read_epoch(epoch)?;
    let acknowledged: Vec<Option<Time>> = match times {
        "" => Vec::new(),
        times => {
            let read = times.split(',').map(|word| read_some(word, read_time));
            read.collect::<Option<_>>()?
        }
    };
    (acknowledged.len() == epoch.witnesses.len()).then_some(Counted {
        epoch,
        is_in_place,
        acknowledged,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::witness::{Epoch, Number, Run, Witness};

    fn at(nanos: u64) -> Time {
        Time::since_boot(Duration::from_nanos(nanos))
    }

    fn counted(names: &[&str], is_in_place: bool) -> Counted {
        let witness = |name: &&str| Witness {
            name: name.parse().unwrap(),
            lease: LeaseId(-9),
            run: Run(u64::MAX),
        };
        Counted {
            epoch: Epoch {
                lease: LeaseId(7),
                window: Duration::from_millis(500),
                number: Number(3),
                witnesses: names.iter().map(witness).collect(),
            },
            is_in_place,
            acknowledged: (0..names.len())
                .map(|i| (i != 1).then_some(at(8)))
                .collect(),
        }
    }

    fn view() -> View {
        View {
            version: "1.2.3".into(),
            now: at(1),
            has_daemon: true,
            answering: 12,
            lease: Some(Lease {
                id: LeaseId(-7),
                valid_until: at(9),
            }),
            until: at(u64::MAX),
            proved_by: Some(at(8)),
            losses: 4,
            late: 5,
            epochs: vec![
                counted(&["gw 1", "a=b@c", "\u{1f310}"], true),
                counted(&[], false),
            ],
        }
    }

    /// Input: views of a guard that knows much, and of one that knows nothing. Output: each is one line that reads back,
    /// also with a word of a later version in it.
    #[test]
    fn a_view_reads_back() {
        let empty = View {
            has_daemon: false,
            answering: 0,
            lease: None,
            until: at(0),
            proved_by: None,
            epochs: vec![],
            ..view()
        };
        for view in [view(), empty] {
            let line = view.line();
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            let later = line.replace(" daemon=", " colour=blue daemon=");
            for line in [line, later] {
                assert_eq!(View::read(&line).as_ref(), Some(&view), "{line}");
            }
        }
    }

    /// Input: lines that lack a word, or have one that says nothing. Output: none is taken.
    #[test]
    fn half_a_view_is_none() {
        let line = view().line();
        for (whole, part) in [
            ("seen ", "scene "),
            ("version=1.2.3 ", ""),
            ("=1.2.3", "=1\u{7}2"),
            ("daemon=1", "daemon=2"),
            ("lease=-7/9", "lease=-7"),
            ("now=1 ", "now=soon "),
            ("@8,-,8", "@8,-"),
            ("@8,-,8", ""),
            ("@8,-,8", "@8,-,never"),
        ] {
            assert!(line.contains(whole), "{whole}: {line}");
            assert_eq!(View::read(&line.replace(whole, part)), None, "{part}");
        }
    }
}
