//! Beats and acknowledgements as they are sent. Pure.
//!
//! ```text
//!    0  "wmgb"                              32  number of the epoch, or 0
//!    4  version, 1                          40  when it was sent: nanoseconds since boot,
//!    5  kind                                    on the owner's clock
//!    6  0, 0                                48  tag (SipHash-2-4, 128 bits) of all of
//!    8  lease of the sender                     the above
//!   16  lease of the receiver               64
//!   24  run of the witness
//! ```
//!
//! Numbers are big-endian. An acknowledgement is its beat with sender and receiver exchanged, of another kind and
//! under a new tag: it is never larger than what it answers. A node is known by its lease, which etcd gives out once.
//! The key of the tag is made of the keys of both nodes, so that only who can read the cluster's keys in etcd can
//! send what verifies. What is recorded and sent again verifies, too: a witness acknowledges no beat that is not newer
//! than the one before, and an owner counts an acknowledgement from when its beat was sent.

use super::siphash::{self, Key, Tag};
use super::{Number, Run};
use crate::model::types::{LeaseId, Time};
use std::time::Duration;

/// The length of every datagram.
pub const LENGTH: usize = 64;
/// What of it the tag covers.
const COVERED: usize = 48;
const MAGIC: [u8; 4] = *b"wmgb";
/// Nodes of another version use other datagrams: they do not answer trials, and are not named.
pub const VERSION: u8 = 1;

/// What a datagram is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The owner lives, and this epoch is in place or may be.
    Beat,
    /// Whether the receiver would do as a witness.
    Trial,
    /// To a beat.
    Acknowledgement,
    /// To a trial.
    TrialAnswer,
}

const KINDS: [(Kind, u8); 4] = [
    (Kind::Beat, 1),
    (Kind::Trial, 2),
    (Kind::Acknowledgement, 3),
    (Kind::TrialAnswer, 4),
];

/// A datagram, without its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// What it is.
    pub kind: Kind,
    /// The sender's lease.
    pub from: LeaseId,
    /// The receiver's lease.
    pub to: LeaseId,
    /// The witness's run, whichever of the two sends.
    pub run: Run,
    /// The epoch; 0 in a trial.
    pub number: Number,
    /// When the owner sent it. The owner reads its clock before it sends; the answer returns it.
    pub sent: Time,
}

/// A datagram as it arrived: well formed, but its sender is not checked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    claim: Datagram,
    covered: [u8; COVERED],
    tag: Tag,
}

/// The key of what owner and witness send to each other.
pub fn link_key(owner: &Key, witness: &Key) -> Key {
    Key(siphash::tag(owner, &witness.0).0)
}

impl Datagram {
    /// A trial, by which a node learns whether another answers. It proves no node.
    pub fn trial(from: LeaseId, to: LeaseId, run: Run, sent: Time) -> Datagram {
        Datagram {
            kind: Kind::Trial,
            from,
            to,
            run,
            number: Number(0),
            sent,
        }
    }

    /// The bytes, sealed with the link's key.
    pub fn seal(&self, link: &Key) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..COVERED].copy_from_slice(&self.covered());
        let tag = siphash::tag(link, &bytes[..COVERED]);
        bytes[COVERED..].copy_from_slice(&tag.0);
        bytes
    }

    fn covered(&self) -> [u8; COVERED] {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        let sent = u64::try_from(self.sent.as_duration().as_nanos()).unwrap_or(u64::MAX);
        let words = [
            u64::from_be_bytes(self.from.0.to_be_bytes()),
            u64::from_be_bytes(self.to.0.to_be_bytes()),
            self.run.0,
            self.number.0,
            sent,
        ];
        let mut bytes = [0; COVERED];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = kind.map_or(0, |(_, byte)| *byte);
        for (word, place) in words.iter().zip(bytes[8..].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The answer to a beat or a trial; `None` to an answer.
    pub fn answer(&self) -> Option<Datagram> {
        let kind = match self.kind {
            Kind::Beat => Kind::Acknowledgement,
            Kind::Trial => Kind::TrialAnswer,
            Kind::Acknowledgement | Kind::TrialAnswer => return None,
        };
        Some(Datagram {
            kind,
            from: self.to,
            to: self.from,
            ..*self
        })
    }
}

impl Sealed {
    /// Reads what arrived; `None` if no node of this version sends that.
    pub fn read(bytes: &[u8]) -> Option<Sealed> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let (covered, tag) = bytes.split_at(COVERED);
        let covered: [u8; COVERED] = covered.try_into().ok()?;
        let (head, body) = covered.split_at(8);
        if head[..5] != [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], VERSION] || head[6..] != [0, 0] {
            return None;
        }
        let kind = KINDS.iter().find(|(_, byte)| *byte == head[5])?.0;
        let mut words = body.chunks_exact(8).map(|chunk| {
            let word = chunk.iter();
            word.fold(0, |word, byte| word << 8 | u64::from(*byte))
        });
        let claim = Datagram {
            kind,
            from: LeaseId(i64::from_be_bytes(words.next()?.to_be_bytes())),
            to: LeaseId(i64::from_be_bytes(words.next()?.to_be_bytes())),
            run: Run(words.next()?),
            number: Number(words.next()?),
            sent: Time::since_boot(Duration::from_nanos(words.next()?)),
        };
        let is_trial = matches!(kind, Kind::Trial | Kind::TrialAnswer);
        if is_trial != (claim.number == Number(0)) {
            return None;
        }
        Some(Sealed {
            claim,
            covered,
            tag: Tag(tag.try_into().ok()?),
        })
    }

    /// The lease of the node that it claims to come from, to find the key by. Nothing else of it may be believed.
    pub fn claims_from(&self) -> LeaseId {
        self.claim.from
    }

    /// What it says, if it was sealed with this key.
    pub fn open(&self, link: &Key) -> Option<Datagram> {
        (siphash::tag(link, &self.covered) == self.tag).then_some(self.claim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn beat() -> Datagram {
        Datagram {
            kind: Kind::Beat,
            from: LeaseId(-7),
            to: LeaseId(0x0102_0304_0506_0708),
            run: Run(9),
            number: Number(u64::MAX),
            sent: Time::since_boot(Duration::from_nanos(123_456_789)),
        }
    }

    /// Input: datagrams of all kinds. Output: each reads back under the key that sealed it, and under no other; an
    /// answer has the length of its question.
    #[test]
    fn datagrams_read_back_under_their_key() {
        let (x, p) = (Key([1; 16]), Key([2; 16]));
        let link = link_key(&x, &p);
        for (kind, _) in KINDS {
            let is_trial = matches!(kind, Kind::Trial | Kind::TrialAnswer);
            let number = Number(if is_trial { 0 } else { 5 });
            let datagram = Datagram {
                kind,
                number,
                ..beat()
            };
            let sealed = Sealed::read(&datagram.seal(&link)).unwrap();
            assert_eq!(sealed.claims_from(), datagram.from);
            assert_eq!(sealed.open(&link), Some(datagram));
            for other in [x, p, link_key(&p, &x)] {
                assert_eq!(sealed.open(&other), None);
            }
            let answer = datagram.answer();
            let is_question = [Kind::Beat, Kind::Trial].contains(&kind);
            assert_eq!(answer.is_some(), is_question);
            if let Some(answer) = answer {
                assert_eq!((answer.from, answer.to), (datagram.to, datagram.from));
                assert_eq!(
                    (answer.sent, answer.number),
                    (datagram.sent, datagram.number)
                );
                assert!(answer.seal(&link).len() <= datagram.seal(&link).len());
            }
        }
    }

    /// Input: a beat with any one bit changed, with a byte more or less, and nothing. Output: none of them opens.
    #[test]
    fn a_changed_datagram_does_not_open() {
        let link = Key([3; 16]);
        let bytes = beat().seal(&link);
        assert_eq!(Sealed::read(&bytes).unwrap().open(&link), Some(beat()));
        for bit in 0..8 * LENGTH {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = Sealed::read(&changed).and_then(|sealed| sealed.open(&link));
            assert_eq!(opened, None, "bit {bit}");
        }
        assert_eq!(Sealed::read(&bytes[..LENGTH - 1]), None);
        assert_eq!(Sealed::read(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Sealed::read(&[]), None);
    }

    /// Input: the beat above. Output: the bytes that nodes of version 1 send, for ever.
    #[test]
    fn the_format_is_as_documented() {
        let bytes = beat().seal(&Key([0; 16]));
        let expected = [
            &b"wmgb\x01\x01\0\0"[..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf9],
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0, 0, 0, 0, 0, 0, 0, 9],
            &[0xff; 8],
            &[0, 0, 0, 0, 0x07, 0x5b, 0xcd, 0x15],
        ];
        assert_eq!(bytes[..48], expected.concat());
    }
}
