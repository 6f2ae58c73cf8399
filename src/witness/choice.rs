//! Whom a node names: the nearest nodes behind it on a ring of names, so that the load is even.

use super::MOST;
use crate::model::types::NodeName;
use std::collections::BTreeMap;

/// How many nodes are tried. Those beyond are not needed while these answer, and trials cost each node something.
pub const TRIED: usize = 8;

/// Nodes in the order in which `me` prefers them: by name, beginning behind its own, and around.
pub fn behind<'a, T>(
    me: &'a NodeName,
    nodes: &'a BTreeMap<NodeName, T>,
) -> impl Iterator<Item = (&'a NodeName, &'a T)> {
    let after = nodes.iter().filter(move |(name, _)| *name > me);
    let before = nodes.iter().filter(move |(name, _)| *name < me);
    after.chain(before)
}

/// The witnesses to name: those of `kept`, then the nearest of `others` that is none of them. A witness that answers
/// is kept although there is a nearer one: each change is a transaction.
pub fn choose<T: Clone + PartialEq>(kept: Vec<T>, others: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut chosen = kept;
    for other in others {
        if chosen.len() >= MOST {
            break;
        }
        if !chosen.contains(&other) {
            chosen.push(other);
        }
    }
    chosen.truncate(MOST);
    chosen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nodes(count: usize) -> BTreeMap<NodeName, ()> {
        let name = |number| format!("gw{number:02}").parse().unwrap();
        (0..count).map(|number| (name(number), ())).collect()
    }

    /// Input: rings of up to twelve nodes that all answer. Output: each names up to three others, never itself, and
    /// each is named equally often.
    #[test]
    fn the_load_is_even() {
        for count in 1..12 {
            let nodes = nodes(count);
            let mut named: BTreeMap<NodeName, usize> = BTreeMap::new();
            for me in nodes.keys() {
                let ring = behind(me, &nodes).map(|(name, ())| name.clone());
                let chosen = choose(Vec::new(), ring);
                assert_eq!(chosen.len(), MOST.min(count - 1));
                assert!(!chosen.contains(me));
                for name in chosen {
                    *named.entry(name).or_default() += 1;
                }
            }
            assert!(named.values().all(|times| *times == MOST.min(count - 1)));
        }
    }

    /// Input: witnesses that are kept, and nearer ones. Output: kept they are, and filled up to three, each once.
    #[test]
    fn who_answers_is_kept() {
        assert_eq!(choose(vec![7, 8], [1, 7, 2]), [7, 8, 1]);
        assert_eq!(choose(vec![], [1, 1, 2]), [1, 2]);
        assert_eq!(choose(vec![4, 5, 6], [1]), [4, 5, 6]);
    }
}
