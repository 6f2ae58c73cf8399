//! The nouns that every module shares: VNIs, node names, leases, revisions and points in time.
//!
//! Owns no state and touches nothing: plain values with their checks.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A VXLAN network identifier, 1 to 16777215 (24 bits, RFC 7348 section 5; 0 names no overlay here).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vni(u32);

impl Vni {
    /// The smallest VNI.
    pub const MIN: Vni = Vni(1);
    /// The greatest VNI that fits into 24 bits.
    pub const MAX: Vni = Vni(0x00ff_ffff);

    /// `value` as a VNI, or `None` if it is 0 or does not fit into 24 bits.
    pub const fn new(value: u32) -> Option<Vni> {
        if value >= Self::MIN.0 && value <= Self::MAX.0 {
            Some(Vni(value))
        } else {
            None
        }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Name of the bridge that carries this VNI's gateway address.
    pub fn bridge(self) -> String {
        format!("br{}", self.0)
    }

    /// The VNI whose [`bridge`](Vni::bridge) has this name.
    pub fn of_bridge(name: &str) -> Option<Vni> {
        name.strip_prefix("br")?.parse().ok()
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAVni;

impl fmt::Display for NotAVni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a VNI: takes a number from {} to {}",
            Vni::MIN,
            Vni::MAX
        )
    }
}

impl std::error::Error for NotAVni {}

impl FromStr for Vni {
    type Err = NotAVni;

    fn from_str(text: &str) -> Result<Vni, NotAVni> {
        // Digits only: a sign or a leading zero would give one VNI two keys in etcd.
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        if !canonical {
            return Err(NotAVni);
        }
        text.parse().ok().and_then(Vni::new).ok_or(NotAVni)
    }
}

/// The VNIs that a node serves, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VniRange {
    first: Vni,
    last: Vni,
}

impl VniRange {
    /// The range from `first` to `last`, or `None` if it is empty.
    pub fn new(first: Vni, last: Vni) -> Option<VniRange> {
        (first <= last).then_some(VniRange { first, last })
    }

    /// The smallest VNI of the range.
    pub fn first(&self) -> Vni {
        self.first
    }

    /// The greatest VNI of the range.
    pub fn last(&self) -> Vni {
        self.last
    }

    /// Whether `vni` is in the range.
    pub fn contains(&self, vni: Vni) -> bool {
        self.first <= vni && vni <= self.last
    }

    /// Every VNI of the range, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vni> + use<> {
        (self.first.0..=self.last.0).map(Vni)
    }

    /// How many VNIs the range holds.
    pub fn len(&self) -> usize {
        (self.last.0 - self.first.0) as usize + 1
    }

    /// Never true: a range holds at least one VNI.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The name under which a node registers: not empty, no slash (it is one segment of an etcd key),
/// no control characters (it goes into log lines).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeName(Arc<str>);

/// The text is no node name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotANodeName;

impl fmt::Display for NotANodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a node name: takes a text that is not empty and has no slash and no control character")
    }
}

impl std::error::Error for NotANodeName {}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<NodeName, NotANodeName> {
        if text.is_empty() || text.contains('/') || text.contains(char::is_control) {
            return Err(NotANodeName);
        }
        Ok(NodeName(text.into()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An etcd lease; 0 is "no lease" in etcd and therefore never a `LeaseId` that was granted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    /// Hexadecimal, as `etcdctl` prints leases.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A revision of the etcd store. 0 is older than every key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision after this one.
    pub fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: the time since boot, sleep included (CLOCK_BOOTTIME, clock_gettime(2)), so that
/// neither a step of the wall clock nor a suspended machine makes a lease look longer than it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(
    /// Nanoseconds: five hundred years of them, in half the space of a `Duration`.
    u64,
);

impl Time {
    /// The end of what has none.
    pub const NEVER: Time = Time::since_boot(Duration::MAX);

    /// The time that lies `since_boot` after boot.
    pub const fn since_boot(since_boot: Duration) -> Time {
        Time(nanoseconds(since_boot))
    }

    /// How long after boot this is.
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long `self` lies after `earlier`; zero if it does not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// As many as fit.
const fn nanoseconds(duration: Duration) -> u64 {
    let nanoseconds = duration.as_nanos();
    if nanoseconds > u64::MAX as u128 {
        u64::MAX
    } else {
        nanoseconds as u64
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(nanoseconds(duration)))
    }
}

/// A lease as one node holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its identity in etcd.
    pub id: LeaseId,
    /// Until when the node can prove that etcd still has it: the instant before the last keepalive
    /// was sent, plus the TTL of the reply.
    pub valid_until: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vni_takes_24_bits_in_canonical_decimal() {
        assert_eq!("1".parse(), Ok(Vni::MIN));
        assert_eq!("16777215".parse(), Ok(Vni::MAX));
        for bad in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            " 1",
            "16777216",
            "99999999999",
            "x",
            "1/",
        ] {
            assert_eq!(bad.parse::<Vni>(), Err(NotAVni), "{bad:?}");
        }
    }

    #[test]
    fn node_name_is_one_key_segment() {
        assert_eq!(
            "gw1".parse::<NodeName>().map(|n| n.to_string()),
            Ok("gw1".into())
        );
        for bad in ["", "a/b", "/", "a\nb"] {
            assert_eq!(bad.parse::<NodeName>(), Err(NotANodeName), "{bad:?}");
        }
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let boot = Time::default();
        assert_eq!(boot - Duration::from_secs(1), boot);
        assert_eq!(boot.since(boot + Duration::from_secs(1)), Duration::ZERO);
    }
}
