//! Consistent hashing: which node ought to own a VNI. Pure.
//!
//! Every node computes the same ring from the points that all nodes registered, so the placement must be
//! the same on every node, whatever its byte order or implementation: see `position`.

use crate::model::types::{NodeName, Vni, VniRange};

/// A node as the ring sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its points; a node without points takes no VNI.
    pub points: &'a [u64],
    /// The VNIs that it serves, if it says so; all otherwise.
    pub range: Option<VniRange>,
}

/// The hash circle: every node's points, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ring {
    nodes: Vec<(NodeName, Option<VniRange>)>,
    /// Sorted by point; no point stands twice. The second part is an index into `nodes`.
    points: Vec<(u64, usize)>,
}

impl Ring {
    /// The ring of `members`. Where two nodes have the same point, the greater name (bytewise) has it.
    pub fn new<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Ring {
        let mut members: Vec<Member> = members
            .into_iter()
            .filter(|member| !member.points.is_empty())
            .collect();
        members.sort_unstable_by_key(|member| member.name);
        let mut points: Vec<(u64, usize)> = members
            .iter()
            .enumerate()
            .flat_map(|(node, member)| member.points.iter().map(move |&point| (point, node)))
            .collect();
        // Greatest name first among equal points, so that `dedup` keeps it.
        points.sort_unstable_by_key(|&(point, node)| (point, std::cmp::Reverse(node)));
        points.dedup_by_key(|(point, _)| *point);
        let nodes = members
            .iter()
            .map(|member| (member.name.clone(), member.range))
            .collect();
        Ring { nodes, points }
    }

    /// The node with the smallest point at or after the VNI's position, wrapping to the smallest of all,
    /// passing over nodes that say they do not serve the VNI; `None` if no node is left.
    pub fn owner(&self, vni: Vni) -> Option<&NodeName> {
        let position = position(vni);
        let at = self.points.partition_point(|&(point, _)| point < position);
        let (before, after) = self.points.split_at(at);
        after
            .iter()
            .chain(before)
            .map(|&(_, node)| &self.nodes[node])
            .find(|(_, range)| range.is_none_or(|range| range.contains(vni)))
            .map(|(name, _)| name)
    }

    /// Whether a node has points in the ring.
    pub fn has(&self, node: &NodeName) -> bool {
        self.nodes.iter().any(|(name, _)| name == node)
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

    fn ring(members: &[(&NodeName, &[u64])]) -> Ring {
        Ring::new(members.iter().map(|&(name, points)| Member {
            name,
            points,
            range: None,
        }))
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn empty_ring_has_no_owner() {
        assert_eq!(Ring::default().owner(vni(7)), None);
        let drained = name("gw1");
        assert_eq!(ring(&[(&drained, &[])]).owner(vni(7)), None);
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
        let next = ring(&[(&a, &[at - 1]), (&b, &[at])]);
        assert_eq!(
            next.owner(vni(7)),
            Some(&b),
            "a point at the position itself counts"
        );
        let wraps = ring(&[(&a, &[at - 1]), (&b, &[at - 2])]);
        assert_eq!(
            wraps.owner(vni(7)),
            Some(&b),
            "wraps to the smallest of all"
        );
    }

    #[test]
    fn equal_points_belong_to_the_greater_name() {
        let (a, b) = (name("gw1"), name("gw2"));
        let points: &[u64] = &[1, 2, 3];
        for ring in [
            ring(&[(&a, points), (&b, points)]),
            ring(&[(&b, points), (&a, points)]),
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
        let members: Vec<(&NodeName, &[u64])> =
            names.iter().zip(points.iter().map(Vec::as_slice)).collect();
        let (all, without) = (ring(&members), ring(&members[..2]));
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

    #[test]
    fn a_node_that_does_not_serve_a_vni_is_passed_over() {
        let (a, b) = (name("a"), name("b"));
        let at = position(vni(7));
        let few = VniRange::new(vni(8), vni(9));
        let members = [
            Member {
                name: &a,
                points: &[at],
                range: few,
            },
            Member {
                name: &b,
                points: &[at - 1],
                range: None,
            },
        ];
        assert_eq!(Ring::new(members).owner(vni(7)), Some(&b));
        assert_eq!(Ring::new(members[..1].iter().copied()).owner(vni(7)), None);
    }
}
