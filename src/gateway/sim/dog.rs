//! The lease keeper, the fence, the guard process, and the watch: what runs beside the worker.

use super::cluster::{Call, Cluster, Reply, ms, note, to_changes};
use super::host::Audited;
use super::node::{Ev, Process};
use crate::gateway::Event;
use crate::model::types::{Lease, Revision, Vni};
use crate::schema::{self, Change, Key};

/// The daemon lists the bridges each time after so many seconds, though nothing differed.
const LIST: usize = 20;

impl Cluster {
    /// The lease keeper's turn: renew the lease, or get one.
    pub fn dog(&mut self, n: usize) {
        if self.nodes[n].dog.call.is_some() {
            return;
        }
        let call = match self.nodes[n].dog.lease {
            Some(lease) => Call::Keepalive(lease),
            None => Call::Grant(self.lease_ttl(n)),
        };
        let sent = self.now;
        let id = self.send(n, call);
        self.nodes[n].dog.call = Some((id, sent));
    }

    pub fn dog_answer(&mut self, n: usize, reply: Option<Reply>) {
        let inc = self.nodes[n].inc;
        let Some((_, sent)) = self.nodes[n].dog.call.take() else {
            return;
        };
        let next = match reply {
            Some(Reply::Granted(grant)) => {
                self.nodes[n].dog.lease = Some(grant.id);
                self.renewed(n, grant.id, sent + grant.ttl);
                self.lease_ttl(n) / 5
            }
            Some(Reply::Kept(Some(ttl))) => {
                if let Some(lease) = self.nodes[n].dog.lease {
                    self.renewed(n, lease, sent + ttl);
                }
                self.lease_ttl(n) / 5
            }
            Some(Reply::Kept(None)) => {
                note!(
                    self,
                    "{} learns that its lease is gone",
                    self.nodes[n].name()
                );
                let node = &mut self.nodes[n];
                node.dog.lease = None;
                node.clock = None;
                if !node.go {
                    node.host.silence();
                }
                self.tell(n, Event::Lease(None));
                ms(0)
            }
            _ => ms(300),
        };
        self.after(next, Ev::Dog { n, inc });
    }

    fn lease_ttl(&self, n: usize) -> std::time::Duration {
        match self.nodes[n].go {
            true => super::go::TTL,
            false => self.settings.ttl,
        }
    }

    fn renewed(
        &mut self,
        n: usize,
        id: crate::model::types::LeaseId,
        valid_until: crate::model::types::Time,
    ) {
        let inc = self.nodes[n].inc;
        let lease = Lease { id, valid_until };
        if self.nodes[n].clock.is_none_or(|clock| clock.id != id) {
            note!(self, "{} has lease {id:?}", self.nodes[n].name());
        }
        self.nodes[n].clock = Some(lease);
        let margin = self.settings.margin;
        if self.nodes[n].go {
            // It notices some time after the end.
            let late = self.rng.millis(0, 2_000);
            self.push(valid_until + late, Ev::Fence { n, inc });
            self.tell(n, Event::Lease(Some(lease)));
            return;
        }
        self.push(valid_until - margin, Ev::Fence { n, inc });
        self.push(valid_until - margin / 2, Ev::Guard { n });
        let until = valid_until - margin / 4;
        self.nodes[n].host.tables.grant(until);
        self.push(until, Ev::Kernel { n });
        self.tell(n, Event::Lease(Some(lease)));
    }

    /// The fence, for a worker that is late.
    pub fn fence(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some(clock) = node.clock
            && clock.valid_until - node.config.fence_margin <= self.now
        {
            if node.go {
                if clock.valid_until <= self.now {
                    // Disconnected: it begins anew, with another lease.
                    (node.dog.lease, node.clock) = (None, None);
                    self.tell(n, Event::Lease(None));
                }
                return;
            }
            node.host.silence();
            note!(self, "{} fences", self.nodes[n].name());
        }
    }

    fn guard_is_due(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let margin = node.config.fence_margin / 2;
        let late = |lease: Lease| lease.valid_until - margin <= self.now;
        !node.go && !node.guard_is_dead && node.clock.is_some_and(late)
    }

    /// The guard process: it does not share the daemon's fate.
    pub fn guard(&mut self, n: usize) {
        if self.guard_is_due(n) {
            self.nodes[n].host.silence();
            note!(self, "{}'s guard silences", self.nodes[n].name());
            let delay = self.rng.millis(50, 3_000);
            self.after(delay, Ev::GuardRoutes { n });
        }
    }

    pub fn guard_routes(&mut self, n: usize) {
        if self.guard_is_due(n) {
            self.nodes[n].host.withdraw_routes();
            note!(self, "{}'s guard withdraws", self.nodes[n].name());
        }
    }

    /// The daemon's thread `gate` looks after the tables.
    pub fn tend_tables(&mut self, n: usize) {
        let margin = self.settings.margin;
        let node = &mut self.nodes[n];
        if node.go {
            return;
        }
        let clock = node.clock.map(|clock| clock.valid_until);
        let holds = clock.filter(|until| self.now < *until - margin);
        let lease = holds.map(|until| until - margin / 4);
        node.host.tend(lease);
        if let Some(until) = lease {
            self.push(until, Ev::Kernel { n });
        }
    }

    /// News for the watch of node `n` leave etcd.
    pub fn tell_watch(&mut self, n: usize) {
        let node = &self.nodes[n];
        if node.feed.scheduled || node.feed.next.is_none() || !node.runs() {
            return;
        }
        let inc = node.inc;
        let kind = self.rng.below(1000);
        let delay = if !self.settings.rough || kind < 950 {
            self.rng.millis(1, 10)
        } else {
            self.rng.millis(10, 1_000)
        };
        self.nodes[n].feed.scheduled = true;
        self.after(delay, Ev::Watch { n, inc });
    }

    /// The worker pauses the watch, for no longer than the watch waits by itself.
    pub fn rest_watch(&mut self, n: usize) {
        let longest = ms(2_000);
        self.nodes[n].feed.rests_until = Some(self.now + longest);
        let inc = self.nodes[n].inc;
        self.after(longest, Ev::Watch { n, inc });
    }

    /// The watch delivers, or is opened again.
    pub fn watch(&mut self, n: usize) {
        let inc = self.nodes[n].inc;
        self.nodes[n].feed.scheduled = false;
        if self.nodes[n]
            .feed
            .rests_until
            .is_some_and(|until| until > self.now)
        {
            return;
        }
        if self.nodes[n].cut || !self.etcd.up || self.nodes[n].watch_hangs {
            let again = self.rng.millis(500, 2_000);
            self.nodes[n].feed.scheduled = true;
            self.after(again, Ev::Watch { n, inc });
            return;
        }
        let next = self.nodes[n].feed.next;
        if next.is_some_and(|next| next > self.etcd.revision().next()) {
            // Opened at a revision that is yet to come.
            return;
        }
        let events = match next {
            Some(next) => self.etcd.since(next),
            None => Err(super::etcd::Compacted),
        };
        let Ok(events) = events else {
            let (revision, knew) = (self.etcd.revision(), self.nodes[n].feed.known);
            if self.is_rewound(n, revision, knew) {
                return;
            }
            // A range that is answered at once: how late it can be is the poll's business.
            let range = self.etcd.range(schema::PREFIX);
            self.nodes[n].feed.next = Some(range.revision.next());
            let (revision, changes) = (range.revision, to_changes(&range.kvs));
            self.tell(n, Event::Snapshot { revision, changes });
            return;
        };
        // A watch may deliver any number of whole revisions.
        let revisions = self.etcd.revision();
        let oldest = events
            .first()
            .map_or(revisions, |event| event.kv.mod_revision);
        let until = if self.settings.rough && self.rng.chance(200) {
            oldest
        } else {
            revisions
        };
        let changes: Vec<Change> = events
            .iter()
            .take_while(|event| event.kv.mod_revision <= until)
            .filter_map(|event| {
                let key = Key::read(&event.kv.key).ok()?;
                let value = (!event.deleted).then(|| schema::read_value(&key, &event.kv.value).0);
                Some(Change {
                    key,
                    value,
                    lease: event.kv.lease,
                    revision: event.kv.mod_revision,
                })
            })
            .collect();
        // Of any deletion, as there are few VNIs here.
        let asks = !self.nodes[n].go && changes.iter().any(|change| change.value.is_none());
        self.nodes[n].feed.next = Some(until.next());
        self.nodes[n].feed.known = self.nodes[n].feed.known.max(until);
        if until < revisions {
            self.tell_watch(n);
        }
        if changes.is_empty() {
            return;
        }
        if self.settings.rough && !self.nodes[n].go && self.rng.chance(20) {
            self.tell_late(n, 3_000, Event::Changed(changes.clone()));
        }
        let event = if asks && self.rng.chance(700) {
            Event::MassExpiry(changes)
        } else {
            Event::Changed(changes)
        };
        self.tell(n, event);
    }

    /// The poll reads everything; its answer may come late, and out of order with the watch.
    pub fn poll(&mut self, n: usize) {
        let inc = self.nodes[n].inc;
        let id = self.send(n, Call::Range);
        self.nodes[n].feed.ranges.push(id);
        let next = self.rng.millis(8_000, 12_000);
        self.after(next, Ev::Poll { n, inc });
    }

    /// Tells an event again, up to so many milliseconds later.
    fn tell_late(&mut self, n: usize, latest: u64, event: Event) {
        let late = self.rng.millis(1, latest);
        let (inc, epoch) = (self.nodes[n].inc, self.nodes[n].feed.epoch);
        let event = Box::new(event);
        self.after(
            late,
            Ev::Late {
                n,
                inc,
                epoch,
                event,
            },
        );
    }

    pub fn range_answer(&mut self, n: usize, id: u64, reply: Option<Reply>, knew: Revision) {
        self.nodes[n].feed.ranges.retain(|&call| call != id);
        if let Some(Reply::Range(revision, changes)) = reply {
            if self.settings.rough && self.rng.chance(100) {
                let changes = changes.clone();
                self.tell_late(n, 5_000, Event::Snapshot { revision, changes });
            }
            if self.is_rewound(n, revision, knew) {
                return;
            }
            self.tell(n, Event::Snapshot { revision, changes });
        }
    }

    /// The poll asks how new etcd is.
    pub fn look_at_revision(&mut self, n: usize) {
        let inc = self.nodes[n].inc;
        let next = self.rng.millis(1_900, 2_100);
        self.after(next, Ev::Look { n, inc });
        let id = self.send(n, Call::Revision);
        self.nodes[n].feed.looks.push(id);
    }

    /// Whether etcd answers a node with a revision older than what the node `knew` of it when it asked. Then the
    /// node begins anew.
    pub fn is_rewound(&mut self, n: usize, answer: Revision, knew: Revision) -> bool {
        let is_go = self.nodes[n].go;
        let feed = &mut self.nodes[n].feed;
        if answer >= knew || is_go {
            feed.known = feed.known.max(answer);
            return false;
        }
        feed.known = answer;
        feed.epoch += 1;
        // The watch begins with a snapshot, and nothing of before is on its way any more.
        feed.next = None;
        feed.ranges.clear();
        feed.looks.clear();
        let inc = self.nodes[n].inc;
        note!(self, "{} sees that etcd went back", self.nodes[n].name());
        self.give_up_lease(n);
        self.tell(n, Event::Rewound);
        let soon = self.rng.millis(1, 300);
        self.after(soon, Ev::Watch { n, inc });
        true
    }

    /// The lease keeper gives the lease up and switches ARP off, whatever the worker does. The lease runs out.
    fn give_up_lease(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.dog.lease.take().is_none() {
            return;
        }
        // An answer to a renewal of it is not heard any more.
        let asked = node.dog.call.take().is_some();
        node.dog.given_up = node.clock.take().map(|lease| lease.valid_until);
        node.host.silence();
        let inc = node.inc;
        self.tell(n, Event::Lease(None));
        if asked {
            self.after(ms(0), Ev::Dog { n, inc });
        }
    }

    /// Each second the daemon compares the ARP of one bridge, in turn, with what that was told. It lists the bridges if
    /// something differed, else now and then.
    pub fn audit_arp(&mut self, n: usize) {
        let now = self.now;
        let vnis: Vec<Vni> = self.vnis().collect();
        let node = &mut self.nodes[n];
        let turn = node.arp_turn;
        node.arp_turn += 1;
        let lease = node.clock.map(|clock| clock.id);
        let permitted = node.may_claim(now, lease);
        let vni = vnis[turn % vnis.len()];
        let found = node.host.audit_arp(vni, |answer| !answer || permitted);
        let was_refused = match found {
            Audited::Refused => !node.arp_refused.insert(vni),
            _ => node.arp_refused.remove(&vni),
        };
        if found == Audited::Refused && !was_refused {
            self.tell(n, Event::Links(vec![vni]));
        }
        if found != Audited::Differed && !turn.is_multiple_of(LIST) {
            return;
        }
        for vni in vnis {
            let bridge = *self.nodes[n].host.bridge(vni);
            if bridge.present != bridge.listed {
                self.nodes[n].host.bridge_mut(vni).listed = bridge.present;
                self.tell(n, Event::Links(vec![vni]));
            }
        }
    }

    /// FRR is compared with what it was given, by the thread that also changes it.
    pub fn audit(&mut self, n: usize) {
        let inc = self.nodes[n].inc;
        let busy = self.own(n).is_none_or(|own| own.lane.is_some());
        let next = if busy { ms(100) } else { ms(30_000) };
        self.after(next, Ev::Audit { n, inc });
        let drifted = match busy {
            true => Vec::new(),
            false => self.nodes[n].host.drifted(),
        };
        if !drifted.is_empty() {
            self.tell(n, Event::Drifted(drifted));
        }
    }

    /// A process is killed.
    pub fn kill(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.runs() {
            return;
        }
        node.process = Process::Down;
        node.inc += 1;
        node.paused = false;
        node.deferred.clear();
        // Where the kernel holds the lease, the guard may go at the same moment.
        node.guard_is_dead = node.host.is_held() && self.table_rng.chance(300);
        if node.go {
            // Without a guard nothing withdraws: take it that the whole machine is gone.
            node.host.silence();
            node.host.withdraw_routes();
            node.clock = None;
        }
    }
}
