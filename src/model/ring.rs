//! Consistent hashing: which node ought to own a VNI. Pure.
//!
//! Every node computes the same ring from the points that all nodes registered, so the placement must be
//! the same on every node, whatever its byte order or implementation: see `position`.

use crate::model::fitness::Rank;
use crate::model::spans::Spans;
use crate::model::types::{NodeName, Vni, VniRange};

/// What a node says it cannot serve at present, of the VNIs in its range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unable {
    /// VNIs without a bridge on the node.
    pub absent: Spans,
    /// VNIs that the node's kernel or FRR refuses, or refused a short time ago. Such a node takes the VNI if no
    /// other can: what it shows of the VNI may be better than nothing.
    pub failing: Spans,
}

/// Ring points of a node, and where they come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Points {
    /// The operator gave them.
    Given(Vec<u64>),
    /// They were drawn at random. A node that has drawn points before keeps those.
    Drawn(Vec<u64>),
}

impl Points {
    /// The points.
    pub fn all(&self) -> &[u64] {
        match self {
            Points::Given(points) | Points::Drawn(points) => points,
        }
    }
}

/// A node as the ring sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its points; a node without points takes no VNI.
    pub points: &'a [u64],
    /// The VNIs that it serves. A Go wmgwd does not publish them: it is taken to serve all.
    pub range: Option<VniRange>,
    /// What it cannot serve. `None` also means that it does not read what others publish here.
    pub unable: Option<&'a Unable>,
    /// How well it can forward. `None` also means that it does not read what others publish here.
    pub rank: Option<Rank>,
}

/// How well a node can serve a VNI, by what it says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Suitability {
    /// The VNI is outside of its range.
    OutOfRange,
    /// It has no bridge for it.
    Absent,
    /// It has tried and failed.
    Failing,
    Able,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    name: NodeName,
    range: Option<VniRange>,
    unable: Option<Unable>,
    rank: Option<Rank>,
}

impl Node {
    fn suitability(&self, vni: Vni) -> Suitability {
        let is_in = |set: fn(&Unable) -> &Spans| {
            let unable = self.unable.as_ref();
            unable.is_some_and(|unable| set(unable).contains(vni))
        };
        match () {
            () if self.range.is_some_and(|range| !range.contains(vni)) => Suitability::OutOfRange,
            () if is_in(|unable| &unable.absent) => Suitability::Absent,
            () if is_in(|unable| &unable.failing) => Suitability::Failing,
            () => Suitability::Able,
        }
    }

    /// The rank that counts: a node that publishes none is taken to be fit.
    fn rank(&self) -> Rank {
        self.rank.unwrap_or_default()
    }

    /// Whether the node knows that nodes were passed over for these reasons. A node that does not know never
    /// claims the VNI, so the ring must not name it.
    fn knows_of(&self, passed: &Passed) -> bool {
        let of_rank = self.rank.is_some() || !passed.by_rank;
        of_rank
            && match passed.by_suitability {
                Suitability::OutOfRange => self.range.is_some(),
                Suitability::Absent | Suitability::Failing => self.unable.is_some(),
                Suitability::Able => true,
            }
    }
}

/// Why nodes were passed over on the way round the ring.
struct Passed {
    by_suitability: Suitability,
    by_rank: bool,
}

/// The kinds of nodes that a VNI is offered to, the best first. A gateway that cannot reach the stations is the last
/// choice; one whose host refuses the VNI may show some of it.
const CHOICES: [(Rank, Suitability); 6] = [
    (Rank::Fit, Suitability::Able),
    (Rank::NoUplink, Suitability::Able),
    (Rank::Fit, Suitability::Failing),
    (Rank::NoUplink, Suitability::Failing),
    (Rank::Unfit, Suitability::Able),
    (Rank::Unfit, Suitability::Failing),
];

/// The hash circle: every node's points, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ring {
    nodes: Vec<Node>,
    /// Sorted by point; no point occurs twice. The second part is an index into `nodes`.
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
        let node = |member: Member| Node {
            name: member.name.clone(),
            range: member.range,
            unable: member.unable.cloned(),
            rank: member.rank,
        };
        let nodes = members.into_iter().map(node).collect();
        Ring { nodes, points }
    }

    /// The node with the smallest point at or after the VNI's position, wrapping to the smallest of all. Nodes
    /// that say they cannot serve the VNI are passed over, as are those of a lower rank than another. If only nodes are
    /// left whose host failed to serve it, or that cannot forward, the first of these; `None` if no node has the VNI in
    /// its range and a bridge for it.
    pub fn owner(&self, vni: Vni) -> Option<&NodeName> {
        CHOICES
            .into_iter()
            .find_map(|choice| self.first(vni, choice))
    }

    fn first(&self, vni: Vni, wanted: (Rank, Suitability)) -> Option<&NodeName> {
        let is_wanted = |node: &Node| node.rank() == wanted.0 && node.suitability(vni) == wanted.1;
        // Most VNIs without a bridge have none on any node: not worth a walk.
        if !self.nodes.iter().any(is_wanted) {
            return None;
        }
        let position = position(vni);
        let at = self.points.partition_point(|&(point, _)| point < position);
        let (before, after) = self.points.split_at(at);
        let walk = after.iter().chain(before).map(|&(_, at)| &self.nodes[at]);
        let mut passed = Passed {
            by_suitability: Suitability::Able,
            by_rank: false,
        };
        for node in walk {
            if is_wanted(node) && node.knows_of(&passed) {
                return Some(&node.name);
            }
            // A node that knows of a missing bridge knows of a range, too.
            passed.by_suitability = match (passed.by_suitability, node.suitability(vni)) {
                (passed, Suitability::Able) => passed,
                (Suitability::Able | Suitability::OutOfRange, other) => other,
                (passed, _) => passed,
            };
            passed.by_rank |= node.rank() != Rank::Fit;
        }
        None
    }

    /// Whether a node has points in the ring.
    pub fn has(&self, node: &NodeName) -> bool {
        self.nodes.iter().any(|it| it.name == *node)
    }
}

/// The position of a VNI on the ring: the 64-bit finalizer of MurmurHash3 over its number. Shared with the Go
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
            unable: None,
            rank: None,
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
                unable: None,
                rank: None,
            },
            Member {
                name: &b,
                points: &[at - 1],
                range: VniRange::new(vni(1), vni(9)),
                unable: None,
                rank: None,
            },
        ];
        assert_eq!(Ring::new(members).owner(vni(7)), Some(&b));
        assert_eq!(Ring::new(members[..1].iter().copied()).owner(vni(7)), None);
    }

    /// The owner of VNI 7 among nodes in the order of the ring, each with what it says.
    fn owner_of_7(nodes: &[(&str, Option<VniRange>, Option<Unable>)]) -> Option<String> {
        let nodes = nodes
            .iter()
            .map(|(text, range, unable)| (*text, *range, unable.as_ref(), None));
        owner_in_order(nodes)
    }

    /// The owner of VNI 7 among nodes of which the first has its point at the VNI's position, and each further one the
    /// next point.
    fn owner_in_order<'a>(
        nodes: impl Iterator<Item = (&'a str, Option<VniRange>, Option<&'a Unable>, Option<Rank>)>,
    ) -> Option<String> {
        let at = position(vni(7));
        let nodes: Vec<_> = nodes
            .zip(0..)
            .map(|(node, nth)| (name(node.0), [at.wrapping_add(nth)], node))
            .collect();
        let members = nodes
            .iter()
            .map(|(name, points, (_, range, unable, rank))| Member {
                name,
                points,
                range: *range,
                unable: *unable,
                rank: *rank,
            });
        let owner = Ring::new(members).owner(vni(7)).cloned();
        owner.map(|owner| owner.to_string())
    }

    fn unable(absent: &str, failing: &str) -> Option<Unable> {
        Some(Unable {
            absent: absent.parse().unwrap(),
            failing: failing.parse().unwrap(),
        })
    }

    #[test]
    fn a_node_that_cannot_serve_a_vni_is_passed_over() {
        let all = VniRange::new(vni(1), vni(9));
        let able = || unable("1-6", "8");
        for (first, second, owner) in [
            (able(), able(), Some("a")),
            (unable("7", ""), able(), Some("b")),
            (unable("", "5-7"), able(), Some("b")),
            // Better than no node at all.
            (unable("", "7"), unable("", "7"), Some("a")),
            (unable("7", ""), unable("", "7"), Some("b")),
            (unable("", "7"), unable("7", ""), Some("a")),
            (unable("7", ""), unable("7", ""), None),
        ] {
            let nodes = [("a", all, first), ("b", all, second)];
            let found = owner_of_7(&nodes);
            assert_eq!(found.as_deref(), owner, "{nodes:?}");
        }
    }

    /// A Go wmgwd does not read what others publish, so it never claims a VNI of a node that was passed over;
    /// an earlier wmgwd knows of ranges only.
    #[test]
    fn a_node_that_does_not_know_who_was_passed_over_is_not_named() {
        let all = VniRange::new(vni(1), vni(9));
        let few = VniRange::new(vni(8), vni(9));
        let (go, earlier, able) = (
            ("go", None, None),
            ("old", all, None),
            ("new", all, unable("", "")),
        );
        let absent = ("a", all, unable("7", ""));
        let failing = ("a", all, unable("", "7"));
        let narrow = ("a", few, unable("", ""));
        for (nodes, owner) in [
            (vec![go.clone(), able.clone()], Some("go")),
            (
                vec![absent.clone(), go.clone(), earlier.clone(), able.clone()],
                Some("new"),
            ),
            (
                vec![narrow.clone(), go.clone(), earlier.clone(), able.clone()],
                Some("old"),
            ),
            (
                vec![narrow.clone(), absent.clone(), earlier.clone(), able],
                Some("new"),
            ),
            (vec![absent.clone(), go.clone(), earlier.clone()], None),
            (vec![absent, narrow, go.clone(), earlier.clone()], None),
            (vec![failing, go, earlier], Some("a")),
        ] {
            assert_eq!(owner_of_7(&nodes).as_deref(), owner, "{nodes:?}");
        }
    }

    /// The owner of VNI 7 among nodes in the order of the ring, each with what it cannot serve and its rank; those
    /// without a rank are of an earlier version.
    fn owner_by_rank(nodes: &[(&str, Option<Unable>, Option<Rank>)]) -> Option<String> {
        let range = VniRange::new(vni(1), vni(9));
        let nodes = nodes
            .iter()
            .map(|(text, unable, rank)| (*text, range, unable.as_ref(), *rank));
        owner_in_order(nodes)
    }

    #[test]
    fn nodes_of_a_lower_rank_are_passed_over_while_there_is_a_better_one() {
        use Rank::*;
        let able = || unable("", "");
        for (nodes, owner) in [
            (
                vec![("a", able(), Some(Fit)), ("b", able(), Some(Fit))],
                "a",
            ),
            (
                vec![("a", able(), Some(Unfit)), ("b", able(), Some(Fit))],
                "b",
            ),
            (
                vec![("a", able(), Some(NoUplink)), ("b", able(), Some(Fit))],
                "b",
            ),
            (
                vec![("a", able(), Some(Unfit)), ("b", able(), Some(NoUplink))],
                "b",
            ),
            // All bad: as if none were.
            (
                vec![("a", able(), Some(Unfit)), ("b", able(), Some(Unfit))],
                "a",
            ),
            // A better node without a bridge does not count.
            (
                vec![
                    ("a", able(), Some(Unfit)),
                    ("b", unable("7", ""), Some(Fit)),
                ],
                "a",
            ),
            // One whose host refuses the VNI is better than one that cannot forward, and no better than one
            // without its uplink.
            (
                vec![
                    ("a", able(), Some(Unfit)),
                    ("b", unable("", "7"), Some(Fit)),
                ],
                "b",
            ),
            (
                vec![
                    ("a", able(), Some(NoUplink)),
                    ("b", unable("", "7"), Some(Fit)),
                ],
                "a",
            ),
        ] {
            assert_eq!(owner_by_rank(&nodes).as_deref(), Some(owner), "{nodes:?}");
        }
    }

    /// A node of an earlier version does not read ranks: it never claims a VNI of a node that was passed over for
    /// its rank. Where it is the first, all agree.
    #[test]
    fn a_node_that_does_not_know_of_ranks_gets_nothing_by_them() {
        use Rank::*;
        let able = || unable("", "");
        for (nodes, owner) in [
            (
                vec![("old", able(), None), ("a", able(), Some(Unfit))],
                "old",
            ),
            (
                vec![
                    ("a", able(), Some(Unfit)),
                    ("old", able(), None),
                    ("b", able(), Some(Fit)),
                ],
                "b",
            ),
            (vec![("a", able(), Some(Unfit)), ("old", able(), None)], "a"),
            (
                vec![
                    ("a", able(), Some(Unfit)),
                    ("go", None, None),
                    ("b", able(), Some(NoUplink)),
                ],
                "b",
            ),
        ] {
            assert_eq!(owner_by_rank(&nodes).as_deref(), Some(owner), "{nodes:?}");
        }
    }
}
