//! A model of nf_tables on one gateway: the tables by which the kernel holds the lease. That of IPv6 is the switch of
//! IPv6 itself, and there is no other. Each is held by itself, as in a kernel; what a daemon wants of both goes into
//! one batch, of which all happens or nothing.

use crate::model::types::{Time, Vni};
use std::collections::BTreeSet;

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Arp,
    Ip6,
}

/// What a kernel can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    Nothing,
    /// IPv6 is not switched.
    ArpAlone,
    Both,
}

/// What the kernel does with a solicitation for a gateway address of a VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipv6 {
    Answers,
    Silent,
    /// It answers, as no table keeps it from that.
    Unswitched,
}

/// The table of one family.
#[derive(Clone, Debug, Default)]
struct Table {
    /// What may answer while the lease holds.
    owned: BTreeSet<Vni>,
    /// Until when it does.
    lease: Option<Time>,
}

/// The tables of one kernel.
#[derive(Clone, Debug)]
pub struct Tables {
    support: Support,
    arp: Option<Table>,
    ip6: Option<Table>,
    /// The VNIs whose gateway addresses the table of IPv6 has.
    managed: BTreeSet<Vni>,
    /// The kernel refuses every batch.
    pub refuses: bool,
    /// Something else on this host has changed a table or an address, or a batch has failed, and the daemon has not
    /// set it right yet.
    pub disturbed: bool,
}

impl Tables {
    /// The tables of a machine that no wmgwd has run on.
    pub fn new(support: Support) -> Tables {
        Tables {
            support,
            arp: None,
            ip6: None,
            managed: BTreeSet::new(),
            refuses: false,
            disturbed: true,
        }
    }

    pub fn support(&self) -> Support {
        self.support
    }

    fn tables(&mut self) -> Vec<&mut Option<Table>> {
        match self.support {
            Support::Nothing => Vec::new(),
            Support::ArpAlone => vec![&mut self.arp],
            Support::Both => vec![&mut self.arp, &mut self.ip6],
        }
    }

    /// Changes the tables of all families, or none.
    fn batch(&mut self, act: impl Fn(&mut Table)) -> bool {
        let refuses = self.refuses;
        let mut tables = self.tables();
        if refuses || tables.iter().any(|table| table.is_none()) {
            self.disturbed = true;
            return false;
        }
        for table in tables.iter_mut().filter_map(|table| table.as_mut()) {
            act(table);
        }
        true
    }

    /// A VNI is about to answer.
    pub fn admit(&mut self, vni: Vni) {
        self.batch(|table| {
            table.owned.insert(vni);
        });
    }

    /// VNIs do not answer ARP any more. Returns whether they are silent about IPv6 too.
    pub fn release(&mut self, vnis: &BTreeSet<Vni>) -> bool {
        let is_done = self.batch(|table| table.owned.retain(|vni| !vnis.contains(vni)));
        is_done || !vnis.iter().any(|vni| self.ipv6(*vni) == Ipv6::Answers)
    }

    /// Daemon or guard grants until then. What is in tables that are not as they are to be is not granted for.
    pub fn grant(&mut self, until: Time) {
        if !self.disturbed {
            self.batch(|table| table.lease = Some(until));
        }
    }

    /// Ends the lease; where one of the tables is gone, in the other.
    pub fn revoke(&mut self) {
        if !self.refuses {
            for table in self.tables().into_iter().flatten() {
                table.lease = None;
            }
        }
    }

    /// Ends a lease that has run out: no process has a part in that.
    pub fn expire(&mut self, now: Time) {
        for table in self.tables().into_iter().flatten() {
            table.lease = table.lease.filter(|until| *until > now);
        }
    }

    /// The daemon has the tables be what they are to be.
    pub fn tend(
        &mut self,
        answering: &BTreeSet<Vni>,
        addressed: BTreeSet<Vni>,
        lease: Option<Time>,
    ) {
        if !self.disturbed || self.refuses {
            return;
        }
        for table in self.tables() {
            let owned = answering.clone();
            *table = Some(Table { owned, lease });
        }
        self.managed = addressed;
        self.disturbed = false;
    }

    /// The daemon has withdrawn everything. The table of IPv6 stays, and keeps it silent.
    pub fn dismiss(&mut self) {
        if self.refuses {
            return;
        }
        self.arp = None;
        for table in self.tables().into_iter().flatten() {
            *table = Table::default();
        }
    }

    /// Something else on this host deletes a table.
    pub fn delete(&mut self, family: Family) {
        match family {
            Family::Arp => self.arp = None,
            Family::Ip6 => self.ip6 = None,
        }
        self.disturbed = true;
    }

    /// Whether the table lets a request for the address of a VNI through to ARP.
    pub fn pass_arp(&self, vni: Vni) -> bool {
        let stops = |table: &Table| table.owned.contains(&vni) && table.lease.is_none();
        !self.arp.as_ref().is_some_and(stops)
    }

    /// Whether the kernel silences the ARP of a VNI by itself when the lease ends.
    pub fn hold_arp(&self, vni: Vni) -> bool {
        self.arp
            .as_ref()
            .is_some_and(|table| table.owned.contains(&vni))
    }

    /// What becomes of a solicitation for the gateway address of a VNI that has one.
    pub fn ipv6(&self, vni: Vni) -> Ipv6 {
        match &self.ip6 {
            Some(table) if self.managed.contains(&vni) => {
                match table.owned.contains(&vni) && table.lease.is_some() {
                    true => Ipv6::Answers,
                    false => Ipv6::Silent,
                }
            }
            _ => Ipv6::Unswitched,
        }
    }
}
