//! Which bridge belongs to a VNI: the one that has the VNI's VXLAN interface as a port, whatever it is called.
//!
//! A name is not enough. The host's own `br50` may have nothing to do with VNI 50, and a bridge that an operator
//! renames while it answers ARP must still be silenced. Owns what it learnt, by interface index: an index stays
//! with its interface for as long as that exists, and does not come back soon.

use super::interfaces::{self, Interface};
use crate::model::types::{Time, Vni};
use crate::sys::clock;
use fnv::FnvHashSet;
use nix::net::if_::{if_indextoname, if_nametoindex};
use std::collections::BTreeMap;
use std::time::Duration;

/// A dump of all links is repeated after this many times its own duration at the earliest: 0.1 % of a core.
const REST: u32 = 1000;
/// So many bridges are looked up in one dump rather than one by one.
const MANY: usize = 64;
/// And not more often than this.
const LEAST_REST: Duration = Duration::from_secs(1);

/// What there is for a VNI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Its bridge, with the name that it should have.
    Bridge,
    /// Its bridge, under this other name.
    Renamed(String),
    /// A bridge of that name, which does not carry the VNI: not wmgwd's.
    Foreign,
    /// No bridge.
    Absent,
}

/// The bridges of this process's network namespace.
#[derive(Debug, Default)]
pub struct Bridges {
    /// The index of each VNI's bridge, when it was looked up last.
    known: BTreeMap<Vni, u32>,
    /// Bridges that answer, or may: theirs until they are silent, whatever becomes of their ports.
    kept: BTreeMap<Vni, u32>,
    /// When the next dump is allowed.
    next_dump: Time,
}

impl Bridges {
    /// Finds the bridge of `vni`: two system calls if it is known, a short question to the kernel if not.
    pub fn find(&mut self, vni: Vni) -> Found {
        for index in [self.kept.get(&vni), self.known.get(&vni)] {
            if let Some(found) = index.and_then(|index| named(vni, *index)) {
                return found;
            }
        }
        self.known.remove(&vni);
        self.kept.remove(&vni);
        // By the name that a VXLAN interface should have. If the kernel does not answer, nothing is touched.
        if let Ok(Some(port)) = interfaces::named(&vni.vxlan())
            && let Some((carried, bridge)) = carries(&port)
            && carried == vni
        {
            self.known.insert(vni, bridge);
        } else {
            self.dump();
        }
        let index = self.known.get(&vni).copied();
        match index.and_then(|index| named(vni, index)) {
            Some(found) => found,
            None if if_nametoindex(vni.bridge().as_str()).is_ok() => Found::Foreign,
            None => Found::Absent,
        }
    }

    /// Looks `vnis` up, all at once if they are many.
    pub fn learn(&mut self, vnis: &[Vni]) {
        let unknown = |vni: &&Vni| !self.known.contains_key(*vni);
        if vnis.iter().filter(unknown).count() >= MANY {
            self.dump();
        }
        for &vni in vnis {
            self.find(vni);
        }
    }

    /// Keeps the bridge of `vni`, which answers or is about to, as wmgwd's until [`Bridges::release`].
    pub fn keep(&mut self, vni: Vni) {
        if let Some(index) = self.known.get(&vni) {
            self.kept.insert(vni, *index);
        }
    }

    /// The bridge of `vni` is silent.
    pub fn release(&mut self, vni: Vni) {
        self.kept.remove(&vni);
    }

    /// Looks all of them up, if the last time is long enough ago.
    fn dump(&mut self) {
        let begun = clock::now();
        if begun < self.next_dump {
            return;
        }
        if let Ok(links) = interfaces::dump() {
            self.known = of_vnis(&links);
        }
        let took = clock::now().since(begun);
        self.next_dump = begun + (took * REST).max(LEAST_REST);
    }
}

/// The VNIs whose bridge exists, by any name, and its index. One dump of all links.
pub fn existing() -> BTreeMap<Vni, u32> {
    interfaces::dump().map_or_else(|_| BTreeMap::new(), |links| of_vnis(&links))
}

/// Whether the interface `index` exists, and is called as the bridge of `vni` should be.
fn named(vni: Vni, index: u32) -> Option<Found> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    Some(match name == vni.bridge() {
        true => Found::Bridge,
        false => Found::Renamed(name),
    })
}

/// The VNI of a VXLAN interface, and the index of the bridge that it is a port of.
fn carries(link: &Interface) -> Option<(Vni, u32)> {
    Some((Vni::new(link.vxlan?.id)?, link.master?))
}

/// The index of each VNI's bridge.
fn of_vnis(links: &[Interface]) -> BTreeMap<Vni, u32> {
    let bridges = links.iter().filter(|it| it.kind == "bridge");
    let bridges: FnvHashSet<u32> = bridges.map(|it| it.index).collect();
    links
        .iter()
        .filter_map(carries)
        .filter(|(_, bridge)| bridges.contains(bridge))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::interfaces::Vxlan;

    /// Input: links. Output: the bridge of a VNI is the one with its VXLAN interface, by any name; a bridge
    /// without one, a VXLAN interface in a VRF, and one without a VNI count for none.
    #[test]
    fn a_bridge_belongs_to_the_vni_of_its_port() {
        let link = |index, name: &str, kind: &str, vxlan: Option<u32>, master| Interface {
            index,
            name: name.into(),
            kind: kind.into(),
            vxlan: vxlan.map(|id| Vxlan {
                id,
                ..Vxlan::default()
            }),
            master,
            ..Interface::default()
        };
        let links = [
            link(1, "br7", "bridge", None, None),
            link(2, "lan8", "bridge", None, None),
            link(3, "br50", "bridge", None, None),
            link(4, "vrf", "vrf", None, None),
            link(5, "vxlan7", "vxlan", Some(7), Some(1)),
            link(6, "vx", "vxlan", Some(8), Some(2)),
            link(7, "vxlan9", "vxlan", Some(9), Some(4)),
            link(8, "vxlan0", "vxlan", Some(0), Some(3)),
            link(9, "vxlan10", "vxlan", Some(10), None),
        ];
        let vni = |number| Vni::new(number).unwrap();
        assert_eq!(of_vnis(&links), [(vni(7), 1), (vni(8), 2)].into());
    }
}
