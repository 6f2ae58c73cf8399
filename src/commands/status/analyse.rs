//! Pure: from keys to a report.

use super::{Health, Marks, Node, Report, STUCK, Since, Snapshot, VniReport, VniState};
use crate::model::fitness::{Fitness, Rank};
use crate::model::fsm::{Kind, State};
use crate::model::ring::{Member, Ring};
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::schema::{self, KernelHold, Key, Meta, Value};
use crate::telemetry::log_text::{self, spans};
use crate::witness::{Epoch, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More unreadable keys than this are counted, not named.
const NAMED: usize = 5;

/// The keys, sorted by what they are about.
#[derive(Default)]
struct Read {
    nodes: BTreeMap<NodeName, Registered>,
    metas: BTreeMap<NodeName, Meta>,
    drains: BTreeSet<NodeName>,
    /// Who receives beats.
    contacts: BTreeSet<NodeName>,
    epochs: BTreeMap<NodeName, Epoch>,
    rows: BTreeMap<Vni, Row>,
    foreign: Vec<String>,
}

struct Registered {
    points: Vec<u64>,
    lease: Option<LeaseId>,
}

#[derive(Default)]
struct Row {
    kind: Option<Kind>,
    current: Option<(NodeName, Option<LeaseId>)>,
    next: Option<(NodeName, Option<LeaseId>)>,
    revision: Revision,
}

/// What the cluster does. `marks` are those known from before; what the snapshot itself says is added.
pub fn report(snapshot: &Snapshot, marks: &mut Marks) -> Report {
    marks.add(snapshot.revision, snapshot.time);
    let read = read(snapshot, marks);
    let ring = read.ring();
    let wanted = read.wanted();
    let vnis: Vec<VniReport> = wanted
        .iter()
        .map(|vni| read.vni(*vni, &ring, marks, snapshot.time))
        .collect();
    let nodes = read.nodes(snapshot, &vnis);
    let warnings = read.warnings(&nodes, &vnis, &wanted);
    Report {
        revision: snapshot.revision,
        time: snapshot.time,
        nodes,
        witnesses: read.witnesses().cloned().collect(),
        vnis,
        guards: snapshot.guards.clone(),
        warnings,
    }
}

fn read(snapshot: &Snapshot, marks: &mut Marks) -> Read {
    let mut read = Read::default();
    for kv in &snapshot.keys {
        let key = match Key::read(&kv.key) {
            Ok(key) => key,
            Err(foreign) => {
                read.foreign.push(foreign.to_string());
                continue;
            }
        };
        let (value, foreign) = schema::read_value(&key, &kv.value);
        read.foreign.extend(foreign.map(|it| it.to_string()));
        if let Some(vni) = key.vni() {
            let row = read.rows.entry(vni).or_default();
            row.revision = row.revision.max(kv.mod_revision);
            match (key, value) {
                (Key::Kind(_), Value::Kind(kind)) => row.kind = Some(kind),
                (Key::Current(_), Value::Name(name)) => {
                    row.current = name.map(|name| (name, kv.lease));
                }
                (Key::Next(_), Value::Name(name)) => row.next = name.map(|name| (name, kv.lease)),
                _ => {}
            }
            continue;
        }
        match (key, value) {
            (Key::Node(name), value) => {
                let points = match value {
                    Value::Points(points) => points,
                    _ => Vec::new(),
                };
                let lease = kv.lease;
                read.nodes.insert(name, Registered { points, lease });
            }
            (Key::Meta(name), Value::Meta(meta)) => {
                if let Some(time) = meta.time {
                    marks.add(kv.mod_revision, time);
                }
                read.metas.insert(name, meta);
            }
            (Key::Drain(name), _) => drop(read.drains.insert(name)),
            (Key::Contact(name), Value::Contact(_)) => drop(read.contacts.insert(name)),
            (Key::Epoch(name), Value::Standing(Standing::Epoch(epoch))) => {
                read.epochs.insert(name, epoch);
            }
            _ => {}
        }
    }
    read
}

impl Read {
    /// The ring as the nodes compute it: a node key without a lease does not count.
    fn ring(&self) -> Ring {
        let living = self.nodes.iter().filter(|(_, node)| node.lease.is_some());
        Ring::new(living.map(|(name, node)| Member {
            name,
            points: &node.points,
            range: self.metas.get(name).map(|meta| meta.range),
            unable: self.metas.get(name).and_then(|meta| meta.unable.as_ref()),
            rank: self.fitness(name).map(|it| it.rank),
        }))
    }

    /// Those that receive beats and serve nothing.
    fn witnesses(&self) -> impl Iterator<Item = &NodeName> {
        let serves_nothing = |name: &&NodeName| !self.nodes.contains_key(*name);
        self.contacts.iter().filter(serves_nothing)
    }

    /// Who proves a node, and its window.
    fn proof(&self, name: &NodeName) -> Option<(Vec<NodeName>, Duration)> {
        let epoch = self.epochs.get(name)?;
        let witnesses = epoch.witnesses.iter().map(|it| it.name.clone());
        Some((witnesses.collect(), epoch.window))
    }

    /// How well a node says that it can forward.
    fn fitness(&self, name: &NodeName) -> Option<Fitness> {
        self.metas.get(name)?.fitness
    }

    /// The ranges of the nodes that live and say so.
    fn ranges(&self) -> impl Iterator<Item = (&NodeName, VniRange)> {
        let living = |name: &NodeName| self.nodes.contains_key(name);
        self.metas
            .iter()
            .filter(move |(name, _)| living(name))
            .map(|(name, meta)| (name, meta.range))
    }

    /// What should be served: the VNIs for which a node has a bridge. Where no node says what it has (all are Go's,
    /// or none lives), what has a row. Other rows count while they name a node.
    fn wanted(&self) -> BTreeSet<Vni> {
        let present = self.ranges().flat_map(|(name, range)| {
            let unable = self.metas.get(name).and_then(|meta| meta.unable.as_ref());
            let is_there = move |vni: &Vni| unable.is_none_or(|it| !it.absent.contains(*vni));
            range.iter().filter(is_there)
        });
        let mut wanted: BTreeSet<Vni> = present.collect();
        let all = self.ranges().next().is_none();
        for (vni, row) in &self.rows {
            if all || row.current.is_some() || row.next.is_some() {
                wanted.insert(*vni);
            }
        }
        wanted
    }

    /// The name in a row, if a node that lives can have written it.
    fn living<'a>(&self, cell: &'a Option<(NodeName, Option<LeaseId>)>) -> Option<&'a NodeName> {
        let (name, lease) = cell.as_ref()?;
        (lease.is_some() || self.nodes.contains_key(name)).then_some(name)
    }

    /// One VNI, whether or not it has a row.
    fn vni(&self, vni: Vni, ring: &Ring, marks: &mut Marks, now: u64) -> VniReport {
        let ring_owner = ring.owner(vni).cloned();
        let Some(row) = self.rows.get(&vni) else {
            return VniReport {
                vni,
                state: VniState::Orphaned,
                row: Kind::Unassigned.name(),
                owner: None,
                successor: None,
                ring_owner,
                since: None,
            };
        };
        let kind = row.kind.unwrap_or(Kind::Unassigned);
        let (current, next) = (self.living(&row.current), self.living(&row.next));
        let state = State::of(kind, current, next);
        // etcd removes a name with its lease, after the row was written, and leaves no revision of that.
        let lost_a_name = match state {
            State::Vacant => kind != Kind::Unassigned,
            State::OwnerLost { .. } | State::SuccessorLost { .. } => true,
            _ => false,
        };
        let since = match lost_a_name {
            true => marks.since_lost(vni, row.revision, now),
            false => marks.since(row.revision, now),
        };
        let stuck = since.is_some_and(|since: Since| since.at_least >= STUCK);
        let state = match state {
            State::Idle { owner } => match &ring_owner {
                Some(ring_owner) if *ring_owner != owner => VniState::Away,
                _ => VniState::Served,
            },
            State::Migrating { .. } | State::SuccessorLost { .. } if stuck => VniState::MoveStuck,
            State::Migrating { .. } | State::SuccessorLost { .. } => VniState::Moving,
            State::FailingOver { .. } | State::OwnerLost { .. } if stuck => VniState::FailoverStuck,
            State::FailingOver { .. } | State::OwnerLost { .. } => VniState::FailingOver,
            State::Vacant | State::Unknown => VniState::Orphaned,
        };
        VniReport {
            vni,
            state,
            row: kind.name(),
            owner: current.cloned(),
            successor: next.cloned(),
            ring_owner,
            since,
        }
    }

    fn nodes(&self, snapshot: &Snapshot, vnis: &[VniReport]) -> Vec<Node> {
        let mut nodes: BTreeMap<&NodeName, Node> = self
            .nodes
            .iter()
            .map(|(name, registered)| {
                let meta = self.metas.get(name);
                let lease = registered.lease.and_then(|id| snapshot.leases.get(&id));
                let node = Node {
                    name: name.clone(),
                    health: Health::Ok,
                    version: meta.map(|meta| meta.version.clone()),
                    range: meta.map(|meta| meta.range),
                    points: registered.points.len(),
                    share: 0,
                    lease: lease.copied().flatten(),
                    kernel: meta.and_then(|meta| meta.kernel.clone()),
                    ipv6: meta.and_then(|meta| meta.ipv6.clone()),
                    owns: 0,
                    gains: 0,
                    loses: 0,
                    fitness: self.fitness(name),
                    proof: self.proof(name),
                };
                (name, node)
            })
            .collect();
        let mut count = |name: &Option<NodeName>, add: fn(&mut Node)| {
            if let Some(node) = name.as_ref().and_then(|name| nodes.get_mut(name)) {
                add(node);
            }
        };
        for vni in vnis {
            count(&vni.ring_owner, |node| node.share += 1);
            count(&vni.owner, |node| node.owns += 1);
            if vni.state != VniState::Served && vni.state != VniState::Away {
                count(&vni.successor, |node| node.gains += 1);
                if vni.successor.is_some() {
                    count(&vni.owner, |node| node.loses += 1);
                }
            }
        }
        nodes
            .into_iter()
            .map(|(name, node)| Node {
                health: self.health(name, &node),
                ..node
            })
            .collect()
    }

    fn health(&self, name: &NodeName, node: &Node) -> Health {
        let registered = self.nodes.get(name);
        let drained = self.drains.contains(name) && node.version.is_some();
        match node {
            _ if registered.is_none_or(|it| it.lease.is_none()) => Health::NoLease,
            _ if drained && node.points == 0 && node.owns == 0 && node.gains == 0 => {
                Health::Drained
            }
            _ if drained => Health::Draining,
            _ if node.points == 0 => Health::NoPoints,
            _ if node.fitness.is_some_and(|it| it.rank == Rank::Unfit) => Health::Unfit,
            _ if node.fitness.is_some_and(|it| it.rank == Rank::NoUplink) => Health::NoUplink,
            _ => Health::Ok,
        }
    }

    fn warnings(&self, nodes: &[Node], vnis: &[VniReport], wanted: &BTreeSet<Vni>) -> Vec<String> {
        let mut warnings = Vec::new();
        if nodes.is_empty() {
            warnings.push("no node is registered".to_owned());
        } else if nodes.iter().all(|node| node.points == 0) {
            warnings.push("no node takes VNIs: what loses its owner now stays unserved".to_owned());
        }
        warn_of_fitness(nodes, &mut warnings);
        self.warn_of_ranges(nodes, &mut warnings);
        let named: BTreeSet<Vni> = self.ranges().flat_map(|(_, range)| range.iter()).collect();
        let absent: Vec<Vni> = named.difference(wanted).copied().collect();
        if !absent.is_empty() {
            warnings.push(format!(
                "no gateway has a bridge for VNIs {}: they are not counted",
                spans(&absent)
            ));
        }
        self.warn_of_points(&mut warnings);
        for (name, node) in &self.nodes {
            if node.lease.is_none() {
                warnings.push(format!(
                    "the key of node {name} has no lease, so it never expires and takes no VNI: delete it if no such node runs"
                ));
            }
        }
        for node in nodes {
            if let Some(KernelHold::Missing(why)) = &node.kernel {
                warnings.push(format!(
                    "the kernel of {} does not hold the lease: {why}; if daemon and guard are killed at once there, \
                     it goes on answering ARP",
                    node.name
                ));
            }
        }
        warn_of_ipv6(nodes, &mut warnings);
        for node in nodes {
            let is_alone = |(witnesses, _): &(Vec<NodeName>, Duration)| witnesses.is_empty();
            let has_others = self.contacts.iter().any(|name| *name != node.name);
            if node.proof.as_ref().is_some_and(is_alone) && has_others {
                warnings.push(format!(
                    "no other node acknowledges the beats of {}, so that only the end of its lease tells that it is \
                     dead; see wmgwd check on it",
                    node.name
                ));
            }
        }
        for name in &self.drains {
            match self.nodes.contains_key(name) {
                false => warnings.push(format!(
                    "{name} is to be drained, but is not registered: it will take no VNI when it comes"
                )),
                true if !self.metas.contains_key(name) => warnings.push(format!(
                    "{name} is to be drained, but is a Go wmgwd, which does not obey: stop it instead"
                )),
                true => {}
            }
        }
        let unread: Vec<Vni> = vnis
            .iter()
            .filter(|it| self.rows.get(&it.vni).is_some_and(|row| row.kind.is_none()))
            .map(|it| it.vni)
            .collect();
        if !unread.is_empty() {
            let vnis = spans(&unread);
            warnings.push(format!(
                "the rows of VNIs {vnis} have no state that can be read"
            ));
        }
        warnings.extend(self.foreign.iter().take(NAMED).cloned());
        if let Some(more @ 1..) = self.foreign.len().checked_sub(NAMED) {
            warnings.push(format!("{more} more keys in etcd cannot be read"));
        }
        warnings
    }

    fn warn_of_ranges(&self, nodes: &[Node], warnings: &mut Vec<String>) {
        let mut ranges: BTreeMap<(Vni, Vni), Vec<&str>> = BTreeMap::new();
        for (name, range) in self.ranges() {
            let ends = (range.first(), range.last());
            ranges.entry(ends).or_default().push(name.as_str());
        }
        if ranges.len() > 1 {
            let each: Vec<String> = ranges
                .iter()
                .take(NAMED)
                .map(|((first, last), names)| {
                    format!("{first}-{last} ({})", log_text::names(names))
                })
                .collect();
            let and = if nodes.iter().any(|node| node.version.is_none()) {
                "; Go nodes are taken to serve all of them"
            } else {
                ""
            };
            warnings.push(format!(
                "nodes serve different VNIs: {}{and}",
                each.join(", ")
            ));
        }
    }

    fn warn_of_points(&self, warnings: &mut Vec<String>) {
        let mut holders: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.lease.is_some()) {
            for point in node.points.iter().collect::<BTreeSet<_>>() {
                holders.entry(*point).or_default().push(name.as_str());
            }
        }
        let mut shared: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        for names in holders.into_values().filter(|names| names.len() > 1) {
            *shared.entry(names).or_default() += 1;
        }
        for (names, count) in shared.iter().take(NAMED) {
            let has = names.last().copied().unwrap_or_default();
            warnings.push(format!(
                "nodes {} have {count} points in common, which count for {has}: give each its own --uids",
                log_text::names(names)
            ));
        }
    }
}

/// Nodes whose IPv6 gateway addresses are not switched, or that lack some that another with the same range has.
fn warn_of_ipv6(nodes: &[Node], warnings: &mut Vec<String>) {
    for node in nodes {
        let Some(hold) = node.ipv6.as_ref() else {
            continue;
        };
        let (name, count) = (&node.name, hold.bridges);
        if let Some(lack) = hold.lack.as_ref().filter(|_| count > 0) {
            warnings.push(format!(
                "{name} answers for the IPv6 gateway addresses of {count} bridges at all times, as they are not \
                 switched: {lack}"
            ));
        }
        let has_more = |other: &&Node| {
            let is_like = other.range == node.range && node.points > 0;
            is_like && other.ipv6.as_ref().is_some_and(|it| it.bridges > count)
        };
        if let Some(other) = nodes.iter().find(has_more) {
            let more = other.ipv6.as_ref().map_or(0, |it| it.bridges);
            warnings.push(format!(
                "{name} has IPv6 gateway addresses on {count} bridges, and {} on {more}: a VNI has no IPv6 while its \
                 owner lacks them; compare: ip -6 address show",
                other.name
            ));
        }
    }
}

/// What keeps nodes from forwarding. A node that an operator drained is left out.
fn warn_of_fitness(nodes: &[Node], warnings: &mut Vec<String>) {
    let takes = |node: &&Node| node.points > 0;
    let is_fit = |node: &Node| node.fitness.is_none_or(|it| it.rank == Rank::Fit);
    for node in nodes.iter().filter(takes).filter(|node| !is_fit(node)) {
        let Some(fitness) = node.fitness else {
            continue;
        };
        let name = &node.name;
        warnings.push(match fitness.bad.is_empty() {
            true => format!("{name} could not forward a short time ago, and takes no VNIs yet"),
            false => format!(
                "{name} cannot forward: bad signs: {}; see wmgwd check on it",
                fitness.bad
            ),
        });
    }
    if nodes.iter().any(|node| takes(&node)) && !nodes.iter().filter(takes).any(is_fit) {
        warnings
            .push("no node is fit: each keeps its VNIs, and stations may be cut off".to_owned());
    }
}
