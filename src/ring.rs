//! Consistent hashing: which node ought to own a VNI. Pure.
//!
//! Every node computes the same ring from the points that all nodes registered, so the placement must be
//! the same on every node, whatever its byte order or implementation: see [`position`].

use crate::types::{NodeName, Vni};

/// The hash circle: every node's points, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ring {
    /// Sorted by point; no point stands twice.
    points: Vec<(u64, NodeName)>,
}

impl Ring {
    /// The ring of `nodes`. A node without points takes no VNI. Where two nodes have the same point, the
    /// greater name (bytewise) has it.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a NodeName, &'a [u64])>) -> Ring {
        let mut points: Vec<(u64, NodeName)> = nodes
            .into_iter()
            .flat_map(|(name, points)| points.iter().map(move |&point| (point, name.clone())))
            .collect();
        // Greatest name first among equal points, so that `dedup` keeps it.
        points.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        points.dedup_by_key(|(point, _)| *point);
        Ring { points }
    }

    /// The node with the smallest point at or after the VNI's position, wrapping to the smallest of all;
    /// `None` if no node has a point.
    pub fn owner(&self, vni: Vni) -> Option<&NodeName> {
        let position = position(vni);
        let at = self.points.partition_point(|&(point, _)| point < position);
        self.points
            .get(at)
            .or_else(|| self.points.first())
            .map(|(_, name)| name)
    }

    /// Whether a node has points in the ring.
    pub fn has(&self, node: &NodeName) -> bool {
        self.points.iter().any(|(_, name)| name == node)
    }

    /// Whether any node other than `me` could take a VNI.
    pub fn has_other_than(&self, me: &NodeName) -> bool {
        self.points.iter().any(|(_, name)| name != me)
    }
}

/// Where a VNI stands on the ring: the 64-bit finalizer of MurmurHash3 over its number. Shared with the Go
/// wmgwd, so it is part of the schema. (FNV must not be used here: consecutive VNIs stay together under it.)
fn position(vni: Vni) -> u64 {
    let mut x = u64::from(vni.get());
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn empty_ring_has_no_owner() {
        assert_eq!(Ring::default().owner(vni(7)), None);
        let drained = name("gw1");
        assert_eq!(Ring::new([(&drained, &[][..])]).owner(vni(7)), None);
    }

    #[test]
    fn position_is_the_finalizer_of_murmur_hash_3() {
        // fmix64 maps 1 to this value; a published test vector of the finalizer.
        assert_eq!(position(vni(1)), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn owner_is_the_next_point_and_wraps() {
        let (a, b) = (name("a"), name("b"));
        let at = position(vni(7));
        let ring = Ring::new([(&a, &[at - 1][..]), (&b, &[at][..])]);
        assert_eq!(
            ring.owner(vni(7)),
            Some(&b),
            "a point at the position itself counts"
        );
        let ring = Ring::new([(&a, &[at - 1][..]), (&b, &[at - 2][..])]);
        assert_eq!(ring.owner(vni(7)), Some(&b), "wraps to the smallest of all");
    }

    #[test]
    fn equal_points_belong_to_the_greater_name() {
        let (a, b) = (name("gw1"), name("gw2"));
        let points: &[u64] = &[1, 2, 3];
        for ring in [
            Ring::new([(&a, points), (&b, points)]),
            Ring::new([(&b, points), (&a, points)]),
        ] {
            assert_eq!(ring.owner(vni(7)), Some(&b));
        }
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_vnis() {
        let names = ["gw1", "gw2", "gw3"].map(name);
        let points: Vec<Vec<u64>> = (0..3u64)
            .map(|n| {
                (1..=100u64)
                    .map(|i| (n * 100 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15))
                    .collect()
            })
            .collect();
        let all = Ring::new(names.iter().zip(&points).map(|(n, p)| (n, &p[..])));
        let without = Ring::new(names.iter().zip(&points).take(2).map(|(n, p)| (n, &p[..])));
        let mut shares = [0; 3];
        for number in 1..=1000 {
            let owner = all.owner(vni(number)).unwrap();
            shares[names.iter().position(|n| n == owner).unwrap()] += 1;
            if *owner != names[2] {
                assert_eq!(without.owner(vni(number)), Some(owner));
            }
        }
        assert!(shares.iter().all(|&share| share > 200), "shares {shares:?}");
    }
}
