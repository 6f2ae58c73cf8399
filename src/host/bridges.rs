//! Which interfaces are the bridges of VNIs, kept up to date from what the kernel tells. Pure.
//!
//! The bridge of a VNI is the bridge `br<VNI>` with a VXLAN port of exactly that VNI. A host may have other
//! interfaces of such a name (`br50` for management or virtual machines): they are foreign, and wmgwd never
//! touches them. A bridge that wmgwd has switched carries its VNI as its `tag`, so that it is known under
//! any name: a renamed bridge would go on answering behind the back of the new owner.

use super::interfaces::{Interface, LinkEvent};
use crate::model::types::{Vni, VniRange};
use fnv::FnvHashMap;
use std::collections::BTreeSet;

/// What is under the name `br<VNI>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bridge {
    /// Nothing.
    #[default]
    Absent,
    /// An interface without a VXLAN port of that VNI: it is the host's, and stays as it is.
    Foreign {
        /// The index of the interface.
        index: u32,
    },
    /// The bridge of the VNI.
    Ours {
        /// The index of the interface.
        index: u32,
        /// How often it has come up; `None` while it cannot carry frames.
        up: Option<u32>,
        /// wmgwd has marked it.
        marked: bool,
    },
}

impl Bridge {
    /// The index of the interface of that name.
    pub fn index(self) -> Option<u32> {
        match self {
            Bridge::Absent => None,
            Bridge::Foreign { index } | Bridge::Ours { index, .. } => Some(index),
        }
    }
}

/// Something that a gateway has to know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// The bridge of this VNI came, went, came up (again), or got or lost its VXLAN port.
    Bridge(Vni),
    /// The bridge of this VNI has another name now.
    Renamed {
        /// The VNI.
        vni: Vni,
        /// The index of the interface.
        index: u32,
        /// Its name now.
        name: String,
    },
    /// The flag `neigh_suppress` of the VXLAN port of this VNI has changed.
    Suppression {
        /// The VNI.
        vni: Vni,
        /// The name of the port.
        port: String,
        /// Whether it is on now.
        on: bool,
    },
}

/// All interfaces of a network namespace, by what they are to VNIs.
#[derive(Clone, Debug, Default)]
pub struct LinkTable {
    links: FnvHashMap<u32, Interface>,
    /// The interface of the name `br<VNI>`.
    named: FnvHashMap<Vni, u32>,
    /// The VXLAN interfaces that carry a VNI.
    carriers: FnvHashMap<Vni, Vec<u32>>,
}

/// What a VNI has, as far as a change of it matters.
#[derive(PartialEq, Eq)]
struct State {
    bridge: Bridge,
    port: Option<(String, bool)>,
}

impl LinkTable {
    /// The table of all `interfaces`.
    pub fn new(interfaces: Vec<Interface>) -> LinkTable {
        let mut table = LinkTable::default();
        for interface in interfaces {
            table.insert(interface);
        }
        table
    }

    /// What is under the name `br<VNI>`.
    pub fn bridge(&self, vni: Vni) -> Bridge {
        let Some(&index) = self.named.get(&vni) else {
            return Bridge::Absent;
        };
        match self.links.get(&index) {
            Some(link) if link.kind == "bridge" && self.port(vni, index).is_some() => {
                Bridge::Ours {
                    index,
                    up: link.running.then_some(link.carrier_ups),
                    marked: link.tag == Some(vni.get()),
                }
            }
            _ => Bridge::Foreign { index },
        }
    }

    /// The bridges that carry the VNI and wmgwd's mark, but another name than `br<VNI>`.
    pub fn strays(&self, vni: Vni) -> Vec<u32> {
        let mut strays: Vec<u32> = self
            .carriers(vni)
            .filter_map(|carrier| self.links.get(&carrier.master?))
            .filter(|link| link.kind == "bridge" && link.tag == Some(vni.get()))
            .filter(|link| self.named.get(&vni) != Some(&link.index))
            .map(|link| link.index)
            .collect();
        strays.sort_unstable();
        strays.dedup();
        strays
    }

    /// The bridges of the VNI: under `br<VNI>`, and as [`LinkTable::strays`].
    pub fn indices(&self, vni: Vni) -> Vec<u32> {
        let ours = match self.bridge(vni) {
            Bridge::Ours { index, .. } => Some(index),
            Bridge::Absent | Bridge::Foreign { .. } => None,
        };
        ours.into_iter().chain(self.strays(vni)).collect()
    }

    /// The name of an interface.
    pub fn name(&self, index: u32) -> Option<&str> {
        Some(&self.links.get(&index)?.name)
    }

    /// The VNIs of `range` that have a bridge, under `br<VNI>` or, if marked, another name.
    pub fn vnis(&self, range: VniRange) -> BTreeSet<Vni> {
        let is_there = |vni: &Vni| {
            matches!(self.bridge(*vni), Bridge::Ours { .. }) || !self.strays(*vni).is_empty()
        };
        let carried = self.carriers.keys().copied();
        carried
            .filter(|vni| range.contains(*vni))
            .filter(is_there)
            .collect()
    }

    /// The VNIs of `range` whose bridge's name an interface of the host's own has.
    pub fn foreign(&self, range: VniRange) -> BTreeSet<Vni> {
        let is_foreign = |vni: &Vni| matches!(self.bridge(*vni), Bridge::Foreign { .. });
        let named = self.named.keys().copied();
        named
            .filter(|vni| range.contains(*vni))
            .filter(is_foreign)
            .collect()
    }

    /// The `arp_ignore` of each of these bridges whose VNI is in `range`, as the kernel told it last; the bridges
    /// with another name than `br<VNI>` too. Left out where the kernel does not tell.
    pub fn arp_ignore(&self, range: VniRange) -> Vec<(Vni, u32)> {
        let mut told = Vec::new();
        for vni in self.carriers.keys().copied() {
            if !range.contains(vni) {
                continue;
            }
            let all = self.indices(vni).into_iter();
            told.extend(all.filter_map(|index| Some((vni, self.links.get(&index)?.arp_ignore?))));
        }
        told
    }

    /// Takes a message in; returns what changed.
    pub fn update(&mut self, event: LinkEvent) -> Vec<Change> {
        let index = match &event {
            LinkEvent::Link(link) => link.index,
            LinkEvent::Gone(index) | LinkEvent::Port(index, _) => *index,
        };
        let mut vnis: BTreeSet<Vni> = self.links.get(&index).map(concerned).unwrap_or_default();
        if let LinkEvent::Link(link) = &event {
            vnis.extend(concerned(link));
        }
        let before: Vec<(Vni, State)> =
            vnis.into_iter().map(|vni| (vni, self.state(vni))).collect();
        match event {
            LinkEvent::Link(link) => self.insert(link),
            LinkEvent::Gone(index) => self.remove(index),
            LinkEvent::Port(index, port) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.port = Some(port);
                }
            }
        }
        let mut changes = Vec::new();
        for (vni, before) in before {
            self.compare(vni, &before, &mut changes);
        }
        changes
    }

    /// Takes the place of `old`, which some messages were lost for; returns what changed since.
    pub fn changes_since(&self, old: &LinkTable) -> Vec<Change> {
        let tables = [old, self];
        let vnis: BTreeSet<Vni> = tables
            .iter()
            .flat_map(|table| table.named.keys().chain(table.carriers.keys()))
            .copied()
            .collect();
        let mut changes = Vec::new();
        for vni in vnis {
            self.compare(vni, &old.state(vni), &mut changes);
        }
        changes
    }

    fn compare(&self, vni: Vni, before: &State, changes: &mut Vec<Change>) {
        let after = self.state(vni);
        if let Bridge::Ours { index, .. } = before.bridge
            && let Some(link) = self.links.get(&index)
            && link.name != vni.bridge()
        {
            let name = link.name.clone();
            changes.push(Change::Renamed { vni, index, name });
        }
        let is_news = match (before.bridge, after.bridge) {
            (
                Bridge::Ours { index, up, .. },
                Bridge::Ours {
                    index: index_now,
                    up: up_now,
                    ..
                },
            ) => index != index_now || (up_now.is_some() && up != up_now),
            (before, after) => before != after,
        };
        if is_news {
            changes.push(Change::Bridge(vni));
        }
        let on = |state: &State| state.port.as_ref().is_some_and(|(_, on)| *on);
        // A port that goes while it is on takes the trouble with it.
        if on(before) != on(&after)
            && let Some((port, on)) = after
                .port
                .or_else(|| before.port.clone().map(|it| (it.0, false)))
        {
            changes.push(Change::Suppression { vni, port, on });
        }
    }

    fn state(&self, vni: Vni) -> State {
        let bridge = self.bridge(vni);
        let port = match bridge {
            Bridge::Ours { index, .. } => self.port(vni, index),
            Bridge::Absent | Bridge::Foreign { .. } => None,
        };
        let told = |it: &Interface| {
            let on = it.port.is_some_and(|port| port.neigh_suppress);
            (it.name.clone(), on)
        };
        State {
            bridge,
            port: port.map(told),
        }
    }

    fn carriers(&self, vni: Vni) -> impl Iterator<Item = &Interface> {
        let carriers = self.carriers.get(&vni).into_iter().flatten();
        carriers.filter_map(|index| self.links.get(index))
    }

    /// The port of the interface `bridge` that carries the VNI.
    fn port(&self, vni: Vni, bridge: u32) -> Option<&Interface> {
        self.carriers(vni).find(|it| it.master == Some(bridge))
    }

    fn insert(&mut self, link: Interface) {
        self.remove(link.index);
        if let Some(vni) = Vni::of_bridge(&link.name) {
            self.named.insert(vni, link.index);
        }
        if let Some(vni) = carried(&link) {
            self.carriers.entry(vni).or_default().push(link.index);
        }
        self.links.insert(link.index, link);
    }

    fn remove(&mut self, index: u32) {
        let Some(link) = self.links.remove(&index) else {
            return;
        };
        if let Some(vni) = Vni::of_bridge(&link.name)
            // Another may have taken the name by now.
            && self.named.get(&vni) == Some(&index)
        {
            self.named.remove(&vni);
        }
        if let Some(vni) = carried(&link)
            && let Some(carriers) = self.carriers.get_mut(&vni)
        {
            carriers.retain(|it| *it != index);
            if carriers.is_empty() {
                self.carriers.remove(&vni);
            }
        }
    }
}

/// The VNIs that an interface matters to.
fn concerned(link: &Interface) -> BTreeSet<Vni> {
    let tag = link.tag.and_then(Vni::new);
    [Vni::of_bridge(&link.name), carried(link), tag]
        .into_iter()
        .flatten()
        .collect()
}

/// The VNI that a VXLAN interface carries.
fn carried(link: &Interface) -> Option<Vni> {
    Vni::new(link.vxlan?.id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::interfaces::{Port, Vxlan};
    use super::*;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    fn bridge(index: u32, name: &str) -> Interface {
        Interface {
            name: name.into(),
            index,
            up: true,
            running: true,
            carrier_ups: 1,
            kind: "bridge".into(),
            ..Interface::default()
        }
    }

    fn marked(index: u32, name: &str, vni: u32) -> Interface {
        Interface {
            tag: Some(vni),
            arp_ignore: Some(0),
            ..bridge(index, name)
        }
    }

    fn vxlan(index: u32, id: u32, master: u32) -> Interface {
        Interface {
            name: format!("vxlan{id}"),
            index,
            kind: "vxlan".into(),
            master: (master > 0).then_some(master),
            vxlan: Some(Vxlan {
                id,
                ..Vxlan::default()
            }),
            port: Some(Port::default()),
            ..Interface::default()
        }
    }

    /// br4 of VNI 4 with its port; a host's own br50; a bridge br60 with another VNI's port; the dummy br70.
    fn table() -> LinkTable {
        let dummy = Interface {
            kind: "dummy".into(),
            ..bridge(9, "br70")
        };
        LinkTable::new(vec![
            vxlan(5, 4, 4),
            bridge(4, "br4"),
            bridge(6, "br50"),
            bridge(7, "br60"),
            vxlan(8, 61, 7),
            dummy,
            vxlan(10, 70, 9),
        ])
    }

    fn range() -> VniRange {
        VniRange::new(vni(1), vni(100)).unwrap()
    }

    fn ours(index: u32, up: Option<u32>) -> Bridge {
        Bridge::Ours {
            index,
            up,
            marked: false,
        }
    }

    #[test]
    fn only_a_bridge_with_a_port_of_its_vni_is_ours() {
        let table = table();
        assert_eq!(table.bridge(vni(4)), ours(4, Some(1)));
        assert_eq!(table.bridge(vni(50)), Bridge::Foreign { index: 6 });
        assert_eq!(table.bridge(vni(60)), Bridge::Foreign { index: 7 });
        assert_eq!(table.bridge(vni(70)), Bridge::Foreign { index: 9 });
        assert_eq!(table.bridge(vni(61)), Bridge::Absent);
        assert_eq!(table.vnis(range()), [vni(4)].into());
        assert_eq!(table.foreign(range()), [50, 60, 70].map(vni).into());
        let odd = LinkTable::new(vec![bridge(1, "br04"), bridge(2, "br+4"), vxlan(3, 4, 1)]);
        assert_eq!(odd.bridge(vni(4)), Bridge::Absent);
    }

    /// Input: a VXLAN port that comes, goes and moves. Output: what its VNI has then, each change told once.
    #[test]
    fn ports_come_and_go() {
        let mut table = table();
        let changed = [Change::Bridge(vni(50))];
        assert_eq!(table.update(LinkEvent::Link(vxlan(11, 50, 0))), []);
        assert_eq!(table.update(LinkEvent::Link(vxlan(11, 50, 6))), changed);
        assert_eq!(table.bridge(vni(50)), ours(6, Some(1)));
        assert_eq!(table.update(LinkEvent::Link(vxlan(11, 50, 6))), []);
        assert_eq!(table.update(LinkEvent::Link(vxlan(11, 50, 4))), changed);
        assert_eq!(table.bridge(vni(50)), Bridge::Foreign { index: 6 });
        assert_eq!(table.update(LinkEvent::Link(vxlan(11, 50, 6))), changed);
        assert_eq!(table.update(LinkEvent::Gone(11)), changed);
        assert_eq!(table.update(LinkEvent::Gone(6)), changed);
        assert_eq!(table.bridge(vni(50)), Bridge::Absent);
        assert_eq!(table.update(LinkEvent::Gone(99)), []);
    }

    /// Input: a bridge that goes down and comes up, with and without its being seen down. Output: it rose.
    #[test]
    fn a_bridge_that_comes_up_again_is_told() {
        let mut table = table();
        let down = Interface {
            running: false,
            ..bridge(4, "br4")
        };
        let up = Interface {
            carrier_ups: 2,
            ..bridge(4, "br4")
        };
        assert_eq!(table.update(LinkEvent::Link(down)), []);
        let rose = [Change::Bridge(vni(4))];
        assert_eq!(table.update(LinkEvent::Link(bridge(4, "br4"))), rose);
        assert_eq!(table.update(LinkEvent::Link(up.clone())), rose);
        assert_eq!(table.update(LinkEvent::Link(up)), []);
        let anew = [vxlan(5, 4, 12), bridge(12, "br4")];
        assert_eq!(table.update(LinkEvent::Gone(4)), rose);
        assert_eq!(table.update(LinkEvent::Link(anew[0].clone())), []);
        assert_eq!(table.update(LinkEvent::Link(anew[1].clone())), rose);
    }

    /// Input: a marked bridge renamed, with and without another in its place. Output: an alarm, and it is
    /// known by its mark until it is named back or loses its port.
    #[test]
    fn a_renamed_bridge_is_known_by_its_mark() {
        let mut table = table();
        table.update(LinkEvent::Link(marked(4, "br4", 4)));
        assert_eq!(table.strays(vni(4)), [0; 0]);
        let renamed = table.update(LinkEvent::Link(marked(4, "lan4", 4)));
        let alarm = Change::Renamed {
            vni: vni(4),
            index: 4,
            name: "lan4".into(),
        };
        assert_eq!(renamed, [alarm.clone(), Change::Bridge(vni(4))]);
        assert_eq!(table.bridge(vni(4)), Bridge::Absent);
        assert_eq!(table.strays(vni(4)), [4]);
        assert_eq!(table.vnis(range()), [vni(4)].into());
        assert_eq!(table.arp_ignore(range()), [(vni(4), 0)]);

        // Found at a start, without having seen the change; or in a dump after messages were lost.
        let found = LinkTable::new(vec![marked(4, "lan4", 4), vxlan(5, 4, 4)]);
        assert_eq!(found.strays(vni(4)), [4]);
        assert!(found.changes_since(&super::tests::table()).contains(&alarm));

        table.update(LinkEvent::Link(bridge(12, "br4")));
        assert_eq!(table.bridge(vni(4)), Bridge::Foreign { index: 12 });
        assert_eq!(table.strays(vni(4)), [4]);
        table.update(LinkEvent::Link(vxlan(5, 4, 12)));
        assert_eq!(table.bridge(vni(4)), ours(12, Some(1)));
        assert_eq!(table.strays(vni(4)), [0; 0]);
        // A bridge of the operator's own with that VNI was never marked.
        table.update(LinkEvent::Link(bridge(13, "own")));
        table.update(LinkEvent::Link(vxlan(14, 5, 13)));
        assert_eq!(table.strays(vni(5)), [0; 0]);
    }

    /// Input: messages were lost, nothing happened to most bridges. Output: only what really changed.
    #[test]
    fn a_dump_after_lost_messages_tells_only_what_changed() {
        let old = table();
        assert_eq!(old.clone().changes_since(&old), []);
        let mut now = table();
        now.update(LinkEvent::Link(bridge(20, "br20")));
        now.update(LinkEvent::Link(vxlan(21, 20, 20)));
        now.update(LinkEvent::Gone(7));
        let expected = [Change::Bridge(vni(20)), Change::Bridge(vni(60))];
        assert_eq!(now.changes_since(&old), expected);
    }

    #[test]
    fn suppression_is_told_when_it_changes() {
        let mut table = table();
        let flag = |neigh_suppress| Port {
            learning: false,
            neigh_suppress,
        };
        let told = |on| {
            [Change::Suppression {
                vni: vni(4),
                port: "vxlan4".into(),
                on,
            }]
        };
        assert_eq!(table.update(LinkEvent::Port(5, flag(true))), told(true));
        assert_eq!(table.update(LinkEvent::Port(5, flag(true))), []);
        assert_eq!(table.update(LinkEvent::Port(99, flag(true))), []);
        assert_eq!(table.update(LinkEvent::Port(5, flag(false))), told(false));
        table.update(LinkEvent::Port(5, flag(true)));
        let mut gone = table.update(LinkEvent::Gone(5));
        gone.retain(|it| matches!(it, Change::Suppression { .. }));
        assert_eq!(gone, told(false));
        // A port that is no VNI's.
        assert_eq!(table.update(LinkEvent::Port(8, flag(true))), []);
    }
}
