//! How well a gateway can forward: the signs that tell it, and the rank that follows from them. Pure.
//!
//! Only a *bad* sign counts. What is not configured, did not answer, or has never been good in this run is unknown:
//! a network without an upstream router, say, works as before.

use std::fmt;
use std::str::FromStr;

/// How well a node can forward. Nodes of the highest rank share the VNIs; the others keep what no better node takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Rank {
    /// It cannot reach the stations, or cannot tell the network that it serves them.
    Unfit,
    /// It reaches the stations, and not the networks above.
    NoUplink,
    /// Nothing is known to be wrong.
    #[default]
    Fit,
}

impl Rank {
    /// The rank with this number in etcd. One that a later version has added is as good as the best.
    pub fn from_number(number: u64) -> Rank {
        match number {
            0 => Rank::Unfit,
            1 => Rank::NoUplink,
            _ => Rank::Fit,
        }
    }

    /// The number of this rank in etcd.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A sign of whether a gateway can forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sign {
    /// The interfaces that carry the VTEP address have a carrier.
    FabricLink,
    /// BGP sessions for EVPN are established.
    Evpn,
    /// Other nodes acknowledge this node's beats, or do not acknowledge each other's either.
    Beats,
    /// The interfaces with OSPF adjacencies have a carrier.
    UplinkLink,
    /// OSPF adjacencies are full.
    Ospf,
    /// FRR's daemons run, and take what wmgwd gives them.
    Frr,
}

impl Sign {
    /// All of them.
    pub const ALL: [Sign; 6] = [
        Sign::FabricLink,
        Sign::Evpn,
        Sign::Beats,
        Sign::UplinkLink,
        Sign::Ospf,
        Sign::Frr,
    ];

    /// Its name, in etcd, in options, and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Sign::FabricLink => "fabric-link",
            Sign::Evpn => "evpn",
            Sign::Beats => "beats",
            Sign::UplinkLink => "uplink-link",
            Sign::Ospf => "ospf",
            Sign::Frr => "frr",
        }
    }

    /// The best rank of a node on which it is bad.
    fn rank_without(self) -> Rank {
        match self {
            Sign::FabricLink | Sign::Evpn | Sign::Beats | Sign::Frr => Rank::Unfit,
            Sign::UplinkLink | Sign::Ospf => Rank::NoUplink,
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of one sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignState {
    /// Good; what was seen.
    Good(String),
    /// Traffic does not pass, for this reason.
    Bad(String),
    /// Unknown, for this reason.
    Unknown(String),
}

/// A set of signs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignSet(u8);

impl SignSet {
    /// No sign.
    pub const NONE: SignSet = SignSet(0);
    /// Every sign.
    pub const ALL: SignSet = SignSet(0b11_1111);

    /// Whether `sign` is in it.
    pub fn has(self, sign: Sign) -> bool {
        self.0 & (1 << sign as u8) != 0
    }

    /// This and `sign`.
    #[must_use]
    pub fn with(self, sign: Sign) -> SignSet {
        SignSet(self.0 | 1 << sign as u8)
    }

    /// What is in one or the other.
    #[must_use]
    pub fn with_all(self, other: SignSet) -> SignSet {
        SignSet(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: SignSet) -> SignSet {
        SignSet(self.0 & other.0)
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn without(self, other: SignSet) -> SignSet {
        SignSet(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it.
    pub fn iter(self) -> impl Iterator<Item = Sign> {
        Sign::ALL.into_iter().filter(move |sign| self.has(*sign))
    }

    /// The rank of a node on which these are bad.
    pub fn rank(self) -> Rank {
        let ranks = self.iter().map(Sign::rank_without);
        ranks.min().unwrap_or_default()
    }
}

impl FromIterator<Sign> for SignSet {
    fn from_iter<T: IntoIterator<Item = Sign>>(signs: T) -> SignSet {
        signs.into_iter().fold(SignSet::NONE, SignSet::with)
    }
}

impl fmt::Display for SignSet {
    /// The names, separated by commas; `none` for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Sign::name).collect();
        match names.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&names.join(",")),
        }
    }
}

impl fmt::Debug for SignSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that names no set of signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSign;

impl FromStr for SignSet {
    type Err = NoSign;

    /// What [`SignSet`]'s display writes, and `all`.
    fn from_str(text: &str) -> Result<SignSet, NoSign> {
        let sign = |name: &str| Sign::ALL.into_iter().find(|sign| sign.name() == name);
        match text {
            "all" => Ok(SignSet::ALL),
            "none" => Ok(SignSet::NONE),
            _ => text.split(',').map(|it| sign(it).ok_or(NoSign)).collect(),
        }
    }
}

/// What a node publishes of how well it can forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fitness {
    /// Its rank. After signs were bad it stays low for a while.
    pub rank: Rank,
    /// The signs that are bad.
    pub bad: SignSet,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_worst_sign_decides_the_rank() {
        let rank = |text: &str| text.parse::<SignSet>().unwrap().rank();
        assert_eq!(rank("none"), Rank::Fit);
        assert_eq!(rank("ospf"), Rank::NoUplink);
        assert_eq!(rank("uplink-link,ospf"), Rank::NoUplink);
        for sign in ["fabric-link", "evpn", "beats", "frr", "ospf,evpn", "all"] {
            assert_eq!(rank(sign), Rank::Unfit, "{sign}");
        }
    }

    #[test]
    fn sets_of_signs_are_written_as_they_are_read() {
        for bits in 0..64 {
            let set: SignSet = Sign::ALL
                .into_iter()
                .filter(|sign| bits & (1 << *sign as u8) != 0)
                .collect();
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(SignSet::ALL.without(set).and(set), SignSet::NONE);
        }
        assert_eq!("all".parse(), Ok(SignSet::ALL));
        for bad in ["", "evpn,", "bgp", "Evpn", "evpn ospf", "none,evpn"] {
            assert_eq!(bad.parse::<SignSet>(), Err(NoSign), "{bad:?}");
        }
    }

    #[test]
    fn ranks_are_numbers_in_etcd() {
        for rank in [Rank::Unfit, Rank::NoUplink, Rank::Fit] {
            assert_eq!(Rank::from_number(rank.number().into()), rank);
        }
        assert_eq!(Rank::from_number(7), Rank::Fit);
    }
}
