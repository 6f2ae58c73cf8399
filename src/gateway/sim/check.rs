//! What must hold after every step, and what must come true in the end.

use super::cluster::{Cluster, ms};
use super::etcd::ModelEtcd;
use super::table::{Row, collect_vnis, judge, row};
use super::tables::{Family, Ipv6, Support};
use crate::etcd::Txn;
use crate::gateway::Exit;
use crate::model::fitness::{Fitness, Rank};
use crate::model::ring::{Member, Points, Ring, Unable};
use crate::model::types::{NodeName, Time, Vni};
use crate::schema::{self, Key, Meta, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is remembered for the checks.
pub struct Checker {
    pub dirty: bool,
    /// Until when a foreign write in a row excuses what comes of it.
    pub spoiled_until: Vec<Time>,
    /// Until when what etcd says need not be what the nodes rely on: it went back.
    pub rewound_until: Time,
    /// VNIs that a Go node ever took part in.
    pub went: Vec<bool>,
    /// Whom etcd names, and when it last ceased to name one.
    names: Vec<([Option<NodeName>; 2], Time)>,
    /// Since when no node serves a VNI.
    unserved_since: Vec<Option<Time>>,
    /// From then on every VNI must be answered for at every moment.
    pub available: bool,
    /// How often two answered while a VNI was handed over, by family.
    pub overlaps: [u64; 2],
    /// How often a Go node took from others what it must not.
    pub go_harms: u64,
    /// Whether etcd has a node of a higher rank beside each node, and when it last had.
    outranked: Vec<(bool, Option<Time>)>,
    /// How often a node gave a VNI back because another can forward.
    pub gave_way: u64,
}

impl Checker {
    pub fn new(vnis: u32) -> Checker {
        Checker {
            dirty: false,
            spoiled_until: vec![Time::default(); vnis as usize],
            rewound_until: Time::default(),
            went: vec![false; vnis as usize],
            names: vec![([None, None], Time::default()); vnis as usize],
            unserved_since: vec![None; vnis as usize],
            available: false,
            overlaps: [0; 2],
            go_harms: 0,
            outranked: Vec::new(),
            gave_way: 0,
        }
    }

    /// The rows that a transaction may change, as they are before.
    pub fn rows_in(&self, etcd: &ModelEtcd, txn: &Txn) -> Vec<(Vni, Row)> {
        let mut vnis = BTreeSet::new();
        collect_vnis(txn, &mut vnis);
        vnis.into_iter().map(|vni| (vni, row(etcd, vni))).collect()
    }
}

impl Cluster {
    /// Whether what etcd says of the VNI need not be what the nodes rely on.
    fn spoiled(&self, vni: Vni) -> bool {
        let until = self.checker.spoiled_until[vni.get() as usize - 1];
        until.max(self.checker.rewound_until) > self.now
    }

    /// Whether two may serve the VNI beside each other.
    fn may_overlap(&self, vni: Vni) -> bool {
        self.checker.spoiled_until[vni.get() as usize - 1] > self.now
    }

    /// etcd goes back now. A node hears of it from the poll within some seconds, shows nothing for a while, and
    /// then makes of the old rows what it should.
    pub fn rewound(&mut self) {
        self.checker.rewound_until = self.now + self.settings.ttl * 2 + ms(60_000);
        for node in &mut self.nodes {
            node.feed.is_stale = true;
            node.kept = None;
        }
    }

    /// Whether a node may go on as before, although etcd ended its lease before its time: it hears of it from the
    /// watch or from its next keepalive, and relies on its lease no longer than it was told that it lasts.
    pub fn is_unaware(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let Some(robbed) = node.robbed else {
            return false;
        };
        let keepalive = self.settings.ttl / 5 + self.settings.etcd_timeout * 3 + ms(1_000);
        let soon = robbed.at + keepalive;
        let until = match robbed.hindered {
            true => robbed.valid_until,
            false => soon.min(robbed.valid_until),
        };
        node.clock.is_some_and(|clock| clock.id == robbed.lease) && self.now < until
    }

    /// Whether the lease that a node relies on exists, as far as it can know.
    fn is_proven(&self, n: usize) -> bool {
        let clock = self.nodes[n].clock;
        clock.is_some_and(|clock| self.etcd.lease_exists(clock.id)) || self.is_unaware(n)
    }

    /// Whether the kernel still holds a lease that a node gave up, because nf_tables refuses to end it. The kernel ends
    /// it by itself, before etcd would have.
    fn runs_out(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let until = node.dog.given_up.map(|it| it - self.settings.margin / 4);
        node.host.tables.refuses && until.is_some_and(|until| self.now < until)
    }

    /// What keeps a node from hearing that its lease was ended.
    fn note_hindrances(&mut self) {
        let down = !self.etcd.up;
        for node in &mut self.nodes {
            let hindered = down || node.cut || node.paused || !node.runs();
            if let Some(robbed) = &mut node.robbed {
                robbed.hindered |= hindered;
            }
        }
    }

    /// Until everybody has heard of it, or is fenced, two may believe in different rows of this VNI; and a
    /// worker that hangs for long although its lease is renewed hears late.
    pub fn excuse(&mut self, vni: Vni) {
        let until = self.now + self.settings.ttl * 2 + ms(60_000);
        self.checker.spoiled_until[vni.get() as usize - 1] = until;
    }

    fn go_took_part(&self, vni: Vni) -> bool {
        self.checker.went[vni.get() as usize - 1]
    }

    fn is_go(&self, name: &NodeName) -> bool {
        self.nodes.iter().any(|node| node.go && node.name() == name)
    }

    /// After every step.
    pub fn check(&mut self) {
        let mut dirty = std::mem::take(&mut self.checker.dirty);
        for node in &mut self.nodes {
            dirty |= std::mem::take(&mut node.host.dirty);
        }
        if !dirty {
            return;
        }
        self.note_hindrances();
        for n in 0..self.nodes.len() {
            for family in [Family::Arp, Family::Ip6] {
                let node = &self.nodes[n];
                let may_answer = node.go || self.is_proven(n) || self.runs_out(n);
                if !may_answer && node.host.answers_any(family) {
                    let name = node.name().clone();
                    self.fail(format!("{name} answers {family:?} without a lease"));
                }
            }
            self.check_families(n);
        }
        for vni in self.vnis() {
            self.note_names(vni);
            self.check_owners(vni, Family::Arp);
            self.check_owners(vni, Family::Ip6);
            self.check_availability(vni);
        }
    }

    /// Both families go together, and no table is missing for long where a daemon can make it.
    fn check_families(&mut self, n: usize) {
        /// What the daemon did not hear of it finds within a second.
        const PATIENCE: Duration = Duration::from_secs(2);
        let node = &mut self.nodes[n];
        let tables = &node.host.tables;
        if node.go || tables.support() != Support::Both {
            return;
        }
        if tables.disturbed {
            let can_tend = node.runs() && !node.paused && !tables.refuses;
            let since = can_tend.then(|| node.could_tend_since.unwrap_or(self.now));
            node.could_tend_since = since;
            if since.is_some_and(|since| self.now.since(since) > PATIENCE) {
                let name = node.name().clone();
                self.fail(format!("{name} does not put its tables right"));
            }
            return;
        }
        node.could_tend_since = None;
        let apart = node.host.apart();
        // One that has ended leaves nothing that is switched later.
        let is_open = node.host.is_unswitched() && node.runs();
        if is_open || !apart.is_empty() {
            let text = format!("{} has families apart: {apart:?}, {is_open}", node.name());
            self.fail(text);
        }
    }

    fn check_owners(&mut self, vni: Vni, family: Family) {
        let answering: Vec<usize> = (0..self.nodes.len())
            .filter(|&n| !self.nodes[n].go && self.nodes[n].host.answers_in(vni, family))
            .collect();
        // Each node that answers is named by etcd, whatever the others are: wmgwd makes no owner beside another.
        if !answering.is_empty() && !self.spoiled(vni) {
            let row = row(&self.etcd, vni);
            let entitled = |&&n: &&usize| row.entitles(self.nodes[n].name()) || self.is_unaware(n);
            if let Some(&n) = answering.iter().find(|n| !entitled(n)) {
                let name = self.nodes[n].name().clone();
                self.fail(format!(
                    "{name} answers {family:?} for vni={vni}, which has {row:?}"
                ));
                return;
            }
        }
        if answering.len() > 1
            && !self.may_overlap(vni)
            && !self.overlap_is_excused(vni, &answering)
        {
            let row = row(&self.etcd, vni);
            // (The two nodes still know the name that a foreign write has made unreadable.)
            let named = |name: Option<&NodeName>, unreadable: bool| {
                let is = |&n: &usize| name == Some(self.nodes[n].name());
                unreadable || answering.iter().any(is)
            };
            let handing_over = matches!(row.number, Some(5 | 6))
                && answering.len() == 2
                && named(row.owner(), row.unreadable.0)
                && named(row.successor(), row.unreadable.1)
                && row.owner() != row.successor();
            if handing_over {
                self.checker.overlaps[family as usize] += 1;
            } else {
                let names: Vec<String> = answering
                    .iter()
                    .map(|&n| self.nodes[n].name().to_string())
                    .collect();
                self.fail(format!(
                    "vni={vni} answered in {family:?} by {names:?} with {row:?}"
                ));
            }
        }
    }

    fn check_availability(&mut self, vni: Vni) {
        if self.checker.available && !self.spoiled(vni) {
            let shown = |test: &dyn Fn(&super::host::Bridge) -> bool| {
                self.nodes.iter().any(|node| test(node.host.bridge(vni)))
            };
            let answered = shown(&|b| b.arp && b.evpn);
            let reached = shown(&|b| b.evpn && b.cost == Some(100));
            // A host that does not switch IPv6 answers at all times.
            let solicited = self.nodes.iter().any(|node| {
                let ipv6 = node.host.ipv6(vni);
                ipv6.is_none_or(|it| it != Ipv6::Silent && node.host.bridge(vni).evpn)
            });
            if !answered || !reached || !solicited {
                let row = row(&self.etcd, vni);
                self.fail(format!(
                    "vni={vni} is not served in a planned move: answered {answered} solicited {solicited} reached {reached} \
                     {row:?}"
                ));
            }
        }
    }

    fn note_names(&mut self, vni: Vni) {
        let row = row(&self.etcd, vni);
        let names = [row.owner().cloned(), row.successor().cloned()];
        let now = self.now;
        let (known, since) = &mut self.checker.names[vni.get() as usize - 1];
        if known
            .iter()
            .flatten()
            .any(|name| !names.contains(&Some(name.clone())))
        {
            *since = now;
        }
        *known = names;
    }

    /// Whether something delays the news of a node that its lease was ended.
    fn news_are_late(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let rests = node.feed.rests_until.is_some_and(|until| until > self.now);
        let hindered = node.robbed.is_some_and(|robbed| robbed.hindered);
        self.is_unaware(n) && (self.settings.rough || hindered || rests || node.watch_hangs)
    }

    /// Whether one that answers beside another one cannot know yet that its lease is gone. The other must have
    /// given it the time in which it hears of that, if nothing delays the news.
    fn overlap_is_excused(&self, vni: Vni, answering: &[usize]) -> bool {
        const LET_GO: Duration = ms(100);
        // They go on with the migration that was under way in the etcd that is gone.
        if answering.iter().all(|&n| self.nodes[n].feed.is_stale) {
            return true;
        }
        let row = row(&self.etcd, vni);
        let was_handing_over = matches!(row.number, Some(5 | 6));
        let (_, since) = self.checker.names[vni.get() as usize - 1];
        let has_waited = self.now.since(since) >= LET_GO;
        let is_late = |n: usize| match was_handing_over && !has_waited {
            true => self.is_unaware(n),
            false => self.news_are_late(n),
        };
        let others: Vec<usize> = answering.iter().copied().filter(|&n| !is_late(n)).collect();
        let is_named = |&n: &usize| row.entitles(self.nodes[n].name());
        let some_are_late = others.len() < answering.len();
        let two_may =
            was_handing_over && some_are_late && others.len() == 2 && others.iter().all(is_named);
        (others.len() <= 1 || two_may) && (has_waited || was_handing_over)
    }

    /// A node is about to do what only the holder of a lease may do.
    pub fn check_claim(&mut self, n: usize, what: &str, vni: Vni) {
        self.note_hindrances();
        let node = &self.nodes[n];
        if !self.is_proven(n) {
            let name = node.name().clone();
            self.fail(format!("{name} {what} vni={vni} without a lease"));
        }
    }

    /// Only who alone answers may draw the stations to itself.
    pub fn check_announcement(&mut self, n: usize, vni: Vni) {
        let alone = (0..self.nodes.len())
            .filter(|&other| other != n && !self.nodes[other].go && !self.is_unaware(other))
            .all(|other| {
                let host = &self.nodes[other].host;
                !host.answers(vni) && !host.answers_in(vni, Family::Ip6)
            });
        if !alone && !self.spoiled(vni) && !self.news_are_late(n) {
            let name = self.nodes[n].name().clone();
            self.fail(format!(
                "{name} announces vni={vni}, which another answers for"
            ));
        }
    }

    /// A node that runs must withdraw what is not its own, whatever else is broken: asked every second.
    pub fn check_leftovers(&mut self, n: usize) {
        // FRR is compared every 30 s with what it was given, and a VNI may fail before it does as it is told.
        const PATIENCE: Duration = Duration::from_secs(70);
        if self.nodes[n].go {
            return;
        }
        for vni in self.vnis() {
            let node = &self.nodes[n];
            let bridge = node.host.bridge(vni);
            let costs = bridge.cost.is_some_and(|cost| cost < 65535);
            let shows = bridge.present && bridge.arp || bridge.evpn || costs;
            if !shows {
                self.nodes[n].leftover_since[vni.get() as usize - 1] = None;
                continue;
            }
            let row = row(&self.etcd, vni);
            let named = [&row.current, &row.next]
                .into_iter()
                .flatten()
                .any(|name| name.name == *node.name() && name.lives);
            // It cannot know, or it cannot be helped.
            let excused = bridge.refuses_routes
                || node.host.refuses_all
                || node.host.deaf
                || node.host.slow
                || node.watch_hangs
                || self.spoiled(vni)
                || !node.config.range.contains(vni);
            let since = (!named && !excused)
                .then(|| node.leftover_since[vni.get() as usize - 1].unwrap_or(self.now));
            self.nodes[n].leftover_since[vni.get() as usize - 1] = since;
            if since.is_some_and(|since| self.now.since(since) > PATIENCE) {
                let node = &self.nodes[n];
                let text = format!("{} goes on showing vni={vni}", node.name());
                self.fail(format!("{text} as {:?}: {row:?}", node.host.bridge(vni)));
                return;
            }
        }
    }

    /// A stranger's switch that makes a bridge answer is set back by the node that runs there: asked every second.
    pub fn check_foreign(&mut self, n: usize) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let node = &self.nodes[n];
        if node.go || !node.has_planned {
            return;
        }
        for vni in self.vnis() {
            let node = &mut self.nodes[n];
            let bridge = *node.host.bridge(vni);
            let foreign = bridge.present && bridge.arp && bridge.fresh;
            let since = &mut node.foreign_since[vni.get() as usize - 1];
            if !foreign || !node.config.range.contains(vni) {
                *since = None;
                continue;
            }
            let since = *since.get_or_insert(self.now);
            if self.now.since(since) > PATIENCE {
                let name = self.nodes[n].name().clone();
                self.fail(format!(
                    "{name} leaves another program's switch of vni={vni} as it is"
                ));
                return;
            }
        }
    }

    /// Whether nothing keeps node `n` from serving a VNI.
    fn is_fit(&self, n: usize, vni: Vni) -> bool {
        let node = &self.nodes[n];
        let (host, bridge) = (&node.host, node.host.bridge(vni));
        let out = self.etcd.get(&Key::Drain(node.name().clone()).bytes());
        let runs = node.runs() && !node.go && !node.paused && !node.drained && out.is_none();
        let hears = self.etcd.up && !node.cut && !node.watch_hangs && self.is_proven(n);
        let heeds = !host.slow && !host.refuses_all && !host.unconfigured && !host.deaf;
        let frr = host.frr.is_up() && heeds;
        let bridge = bridge.present && !bridge.refuses_arp && !bridge.refuses_routes;
        runs && hears && frr && bridge && node.config.range.contains(vni)
    }

    /// A VNI that a node can serve is served, whatever the others cannot do: asked every few seconds.
    pub fn check_liveness(&mut self) {
        let settings = &self.settings;
        // A lease that has to end, the time that each other node is given to fail, and a migration.
        let hitches = ms(if settings.rough { 60_000 } else { 20_000 });
        let tries = ms(15_000) * self.nodes.len() as u32;
        let bound = settings.ttl * 3 + settings.settle * 8 + tries + hitches;
        let begun = self.now - bound;
        let with_go = self.nodes.iter().any(|node| node.go);
        for vni in self.vnis() {
            let at = vni.get() as usize - 1;
            for n in 0..self.nodes.len() {
                let fit = self.is_fit(n, vni);
                let since = self.nodes[n].fit_since[at].unwrap_or(self.now);
                self.nodes[n].fit_since[at] = fit.then_some(since);
            }
            let serves = |node: &super::node::Node| {
                let bridge = node.host.bridge(vni);
                let answers = bridge.present && bridge.arp && node.host.tables.pass_arp(vni);
                answers && bridge.evpn && bridge.cost == Some(100)
            };
            let served = with_go || self.spoiled(vni) || self.nodes.iter().any(serves);
            let since = self.checker.unserved_since[at].unwrap_or(self.now);
            self.checker.unserved_since[at] = (!served).then_some(since);
            let long_fit =
                |node: &&super::node::Node| node.fit_since[at].is_some_and(|since| since <= begun);
            let able = self
                .nodes
                .iter()
                .find(long_fit)
                .map(|node| node.name().clone());
            if let Some(able) = able.filter(|_| !served && since <= begun) {
                let row = row(&self.etcd, vni);
                self.fail(format!(
                    "vni={vni} is not served for {bound:?}, although {able} can: {row:?}"
                ));
                return;
            }
        }
    }

    /// A node that is not a Go node ends in an orderly way.
    pub fn check_exit(&mut self, n: usize, exit: Exit) {
        let node = &self.nodes[n];
        // What a stranger changed since it last looked it cannot know.
        let changed = !node.host.drifted().is_empty();
        let heeds = !node.host.slow && !node.host.deaf && exit != Exit::Unfinished && !changed;
        let frr = node.host.frr.is_up() && heeds;
        let is_late = exit == Exit::Unfinished && node.host.tables.disturbed;
        let answers =
            node.host.answers_any(Family::Arp) || node.host.answers_any(Family::Ip6) && !is_late;
        if answers || (frr && !self.settings.rough && !node.host.shows_nothing()) {
            let name = node.name().clone();
            self.fail(format!("{name} ends, but still shows a VNI"));
        }
    }

    /// A row has been written by node `n`.
    pub fn check_transition(&mut self, n: usize, vni: Vni, before: &Row) {
        let after = row(&self.etcd, vni);
        for name in [before, &after]
            .into_iter()
            .flat_map(|row| [&row.current, &row.next])
            .flatten()
        {
            if self.is_go(&name.name) {
                self.checker.went[vni.get() as usize - 1] = true;
            }
        }
        // A Go node resets a broken migration although its owner lives, and relies on a revision that is newer
        // than what it read: until those who lose by it have heard of it, the next to claim cannot know that
        // they still serve.
        if self.nodes[n].go && *before != after {
            let me = self.nodes[n].name().clone();
            let lives = before.owner().is_some() || before.successor().is_some();
            let resets = after.number == Some(0) && lives;
            if resets || judge(&me, before, &after, false).is_err() {
                self.checker.go_harms += 1;
                self.excuse(vni);
            }
        }
        if self.nodes[n].go || *before == after {
            return;
        }
        let me = self.nodes[n].name().clone();
        // Every condition on a revision from before etcd went back holds.
        if self.checker.rewound_until > self.now {
            return;
        }
        let owned = before.number == Some(1) && before.owner() == Some(&me);
        let had_bridge = self.nodes[n].host.bridge(vni).present;
        if owned && after.number == Some(0) && had_bridge && !self.spoiled(vni) {
            self.checker.gave_way += 1;
            let lacked_bridge = self.settings.rough && !self.nodes[n].host.was_complete();
            if !self.was_outranked(n) && !lacked_bridge {
                self.fail(format!("{me} gives vni={vni} back, and no node is better"));
            }
        }
        if let Err(why) = judge(&me, before, &after, self.spoiled(vni)) {
            self.fail(format!(
                "{me} wrote vni={vni}: {why}: {before:?} -> {after:?}"
            ));
        }
    }

    /// etcd has changed: remembers which nodes are outranked by it.
    pub fn note_ranks(&mut self) {
        let ranks: Vec<Option<Rank>> = self
            .nodes
            .iter()
            .map(|node| {
                let points = self.etcd.get(&Key::Node(node.name().clone()).bytes())?;
                let fitness = self.meta(node.name())?.fitness?;
                (points.value != b"[]").then_some(fitness.rank)
            })
            .collect();
        let mut outranked = std::mem::take(&mut self.checker.outranked);
        outranked.resize(ranks.len(), (false, None));
        for (n, (is_so, at)) in outranked.iter_mut().enumerate() {
            let own = self.meta(self.nodes[n].name()).and_then(|it| it.fitness);
            let own = own.map_or(Rank::Fit, |it| it.rank);
            let was_so = *is_so;
            *is_so = ranks.iter().flatten().any(|rank| *rank > own);
            if was_so || *is_so {
                *at = Some(self.now);
            }
        }
        self.checker.outranked = outranked;
    }

    /// Whether a node that cannot forward knew of a better one when it decided. A worker may hang for 20 s, and a
    /// watch for 40 s.
    fn was_outranked(&self, n: usize) -> bool {
        let known = ms(if self.settings.rough { 65_000 } else { 100 });
        let (is_so, at) = self.checker.outranked.get(n).copied().unwrap_or_default();
        is_so || at.is_some_and(|at| self.now.since(at) <= known)
    }

    /// What a node says of itself in etcd.
    pub fn meta(&self, name: &NodeName) -> Option<Meta> {
        let key = Key::Meta(name.clone());
        let kv = self.etcd.get(&key.bytes())?;
        match schema::read_value(&key, &kv.value).0 {
            Value::Meta(meta) => Some(meta),
            _ => None,
        }
    }

    /// The points that a node has drawn, by what etcd has.
    pub fn drawn(&self, name: &NodeName) -> Option<Vec<u64>> {
        let key = Key::Points(name.clone());
        match schema::read_value(&key, &self.etcd.get(&key.bytes())?.value).0 {
            Value::Points(points) => Some(points),
            _ => None,
        }
    }

    /// The ring as etcd has it.
    pub fn ring(&self) -> Ring {
        let nodes = self.etcd.range(b"/wmgwd/node/").kvs;
        let read: Vec<(NodeName, Vec<u64>)> = nodes
            .iter()
            .filter_map(|kv| {
                let key = Key::read(&kv.key).ok()?;
                match (schema::read_value(&key, &kv.value).0, key) {
                    (Value::Points(points), Key::Node(name)) => Some((name, points)),
                    _ => None,
                }
            })
            .collect();
        let metas: Vec<Option<Meta>> = read.iter().map(|(name, _)| self.meta(name)).collect();
        Ring::new(read.iter().zip(&metas).map(|((name, points), meta)| {
            Member {
                name,
                points,
                range: meta.as_ref().map(|meta| meta.range),
                unable: meta.as_ref().and_then(|meta| meta.unable.as_ref()),
                rank: meta
                    .as_ref()
                    .and_then(|meta| meta.fitness)
                    .map(|it| it.rank),
            }
        }))
    }

    /// Whether a node runs that was not told to leave.
    pub fn another_stays(&self) -> bool {
        self.nodes.iter().any(|node| node.runs() && !node.drained)
    }

    /// Whether a node that is not a Go node has its points, and none while an operator has taken it out. Those that it
    /// drew are those that it drew before it was started again.
    fn has_its_place(&self, node: &super::node::Node) -> Result<(), String> {
        let name = node.name();
        let out = self.etcd.get(&Key::Drain(name.clone()).bytes()).is_some();
        let points = match &node.config.points {
            Points::Given(points) => points.clone(),
            Points::Drawn(_) => {
                let kept = node.kept.clone();
                let drawn = self.drawn(name);
                if kept.is_some() && kept != drawn {
                    return Err(format!("{name} had drawn {kept:?}, and has {drawn:?} now"));
                }
                drawn.unwrap_or_default()
            }
        };
        let wanted: &[u64] = if out { &[] } else { &points };
        let key = Key::Node(name.clone());
        let value = self.etcd.get(&key.bytes()).map(|kv| &kv.value);
        let points = value.map(|value| schema::read_value(&key, value).0);
        let refuses = node.host.refuses_all || node.host.deaf;
        let leaves = refuses && points == Some(Value::Points(Vec::new()));
        if node.go || leaves || points == Some(Value::Points(wanted.to_vec())) {
            return Ok(());
        }
        Err(format!("{name} is taken out: {out}, and has {points:?}"))
    }

    /// Whether a node runs that may take VNIs.
    fn somebody_takes(&self) -> bool {
        self.nodes.iter().any(|node| {
            let out = || {
                self.etcd
                    .get(&Key::Drain(node.name().clone()).bytes())
                    .is_some()
            };
            node.runs() && !node.drained && (node.go || !out())
        })
    }

    /// Whether every VNI is served by its ring owner and by no other node; if not, what is missing.
    pub fn converged(&self) -> Result<(), String> {
        for node in self
            .nodes
            .iter()
            .filter(|node| node.runs() && !node.drained)
        {
            if self
                .etcd
                .get(&Key::Node(node.name().clone()).bytes())
                .is_none()
            {
                return Err(format!("{} is not registered", node.name()));
            }
            self.has_its_place(node)?;
        }
        let ring = self.ring();
        if ring == Ring::default() && self.somebody_takes() {
            return Err("no node takes VNIs".into());
        }
        for vni in self.vnis() {
            let row = row(&self.etcd, vni);
            let Some(owner) = ring.owner(vni) else {
                continue;
            };
            let owner = self.keeper(&row).unwrap_or(owner);
            // A Go wmgwd does not repair what it cannot read, and no other node may.
            let number = row.number.or(self.is_go(owner).then_some(1));
            if number != Some(1) || row.owner() != Some(owner) || row.successor().is_some() {
                return Err(format!("vni={vni} belongs to {owner} and has {row:?}"));
            }
            let serves = |node: &&super::node::Node| {
                !node.go && node.runs() && node.config.range.contains(vni)
            };
            for node in self.nodes.iter().filter(serves) {
                let bridge = node.host.bridge(vni);
                let shown = (
                    bridge.present && bridge.arp,
                    bridge.evpn,
                    bridge.cost == Some(100),
                );
                let owns = node.name() == owner;
                let ipv6 = node.host.ipv6(vni);
                let ipv6_is_right =
                    ipv6.is_none_or(|it| it == Ipv6::Unswitched || (it == Ipv6::Answers) == owns);
                let right = shown == (owns, owns, owns) && ipv6_is_right;
                if !right || !owns && bridge.cost != Some(65535) {
                    let name = node.name();
                    return Err(format!("{name} shows vni={vni} as {bridge:?}, {ipv6:?}"));
                }
            }
            let served = self
                .nodes
                .iter()
                .any(|node| node.name() == owner && node.runs());
            if !served && !self.go_took_part(vni) {
                return Err(format!("vni={vni} belongs to {owner}, which is not there"));
            }
        }
        Ok(())
    }

    /// The owner of a row, if it keeps the VNI although the ring names another: its signs are good again, and it
    /// waits until they have been so for long enough.
    fn keeper<'a>(&'a self, row: &Row) -> Option<&'a NodeName> {
        let owner = row.owner()?;
        let node = self.nodes.iter().find(|node| node.name() == owner)?;
        let fitness = self.meta(owner)?.fitness?;
        let waits = fitness.rank < Rank::Fit && fitness.bad.is_empty();
        (waits && row.number == Some(1)).then_some(node.name())
    }

    /// Whether each node that says something of itself says for which VNIs it has no bridge, and for no others.
    pub fn tell_what_is_absent(&self) -> Result<(), String> {
        for node in self.staying() {
            // One whose FRR has never answered is not registered.
            let Some(unable) = self.unable(node) else {
                continue;
            };
            for vni in node.config.range.iter() {
                let bridge = node.host.bridge(vni);
                if unable.absent.contains(vni) == bridge.present {
                    return Err(format!("{} says {unable:?} with {bridge:?}", node.name()));
                }
            }
        }
        Ok(())
    }

    /// The nodes of ours that run and were not told to leave.
    fn staying(&self) -> impl Iterator<Item = &super::node::Node> {
        let staying = |node: &&super::node::Node| !node.go && node.runs() && !node.drained;
        self.nodes.iter().filter(staying)
    }

    /// What a node says that it cannot serve.
    fn unable(&self, node: &super::node::Node) -> Option<Unable> {
        self.meta(node.name())?.unable
    }

    /// Whether what the nodes say that they cannot serve is true, and they hold nothing back any more.
    pub fn told_truly(&self) -> Result<(), String> {
        self.tell_what_is_absent()?;
        for node in self.staying() {
            let Some(unable) = self.unable(node) else {
                return Err(format!("{} says nothing of itself", node.name()));
            };
            let fitness = self.meta(node.name()).and_then(|meta| meta.fitness);
            if fitness != Some(Fitness::default()) {
                return Err(format!("{} says {fitness:?}", node.name()));
            }
            for vni in node.config.range.iter() {
                let bridge = node.host.bridge(vni);
                let refuses = bridge.refuses_arp || bridge.refuses_routes;
                if unable.failing.contains(vni) && !refuses {
                    return Err(format!("{} says {unable:?} with {bridge:?}", node.name()));
                }
            }
        }
        Ok(())
    }

    /// A cluster at rest rests: nothing is written, and hardly anything is planned.
    pub fn check_rest(&mut self) {
        let rest = ms(40_000);
        let plans: Vec<u64> = self.nodes.iter().map(|node| node.plans).collect();
        let commits: u64 = self.nodes.iter().map(|node| node.commits).sum();
        let newest = |etcd: &ModelEtcd| {
            let rows = etcd.range(b"/wmgwd/vni/").kvs;
            rows.iter().map(|kv| kv.mod_revision).max()
        };
        let revision = newest(&self.etcd);
        self.settings.rough = false;
        self.run_for(ms(5_000));
        self.run_for(rest);
        if self.failure.is_some() {
            return;
        }
        if let Err(missing) = self.converged() {
            self.fail(format!("did not stay at rest: {missing}"));
        }
        let written: u64 = self.nodes.iter().map(|node| node.commits).sum();
        if written != commits || newest(&self.etcd) != revision {
            self.fail(format!("{} commits at rest", written - commits));
        }
        let bound = rest.as_secs() * (6 + u64::from(self.settings.vnis));
        for (node, before) in self.nodes.iter().zip(plans) {
            if node.plans - before > bound {
                let text = format!("{} planned {} times", node.name(), node.plans - before);
                self.fail(format!("{text} in {rest:?} at rest"));
                return;
            }
        }
    }
}
