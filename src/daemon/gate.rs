//! The daemon's side of the kernel lease: which bridges are gated, and the thread `gate`, which keeps the table.
//!
//! [`Gate`] is part of the [`Fence`] and under its lock: a bridge is in the table before it begins to answer, and
//! until it is silent. It never logs. The guard grants (`guard::process`); the daemon does where the guard does not.
//! Trouble with the table never costs service: then the table is removed, `arp_ignore` decides alone, and the thread
//! tries again.
//!
//! Under IPv6 there is no `arp_ignore`: the table is the switch. It is changed in the same batches, so that both
//! families go together, and it stays when that of ARP is removed. What it cannot be told is silent.

use super::fence::Fence;
use crate::guard::protocol::Gated;
use crate::host::address::Ipv6;
use crate::host::addresses;
use crate::host::nft::socket::Watch;
use crate::host::nft::{Error, Found, KernelLease, vnis_of};
use crate::model::types::{Lease, Time, Vni, VniRange};
use crate::schema::{Ipv6Hold, KernelHold};
use crate::sys::clock;
use crate::telemetry::log_text::{Complaint, chain};
use log::{debug, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How often the thread looks up if nothing happens, in milliseconds.
const EVERY: u16 = 1000;
/// How soon a table is tried again that this host cannot have, and names that had no room.
const AGAIN: Duration = Duration::from_secs(5);
/// How soon what the kernel refused otherwise is tried again.
const SOON: Duration = Duration::from_secs(1);
/// An element that ends so soon and cannot be renewed is in the way.
const SHORT: Duration = Duration::from_secs(1);

/// How a way to nf_tables is opened.
pub type Opener = Arc<dyn Fn() -> Result<KernelLease, Error> + Send + Sync>;

/// The table, and what of it is in use.
pub struct Gate {
    /// How long before the lease ends the kernel's hold does.
    margin: Duration,
    opener: Option<Opener>,
    /// The table, while it is there.
    table: Option<KernelLease>,
    /// A table of wmgwd's that could not be removed.
    leftover: Option<KernelLease>,
    /// The VNIs whose bridges are in it.
    gated: BTreeSet<Vni>,
    /// The IPv6 gateway addresses of this host.
    ipv6: Ipv6,
    /// The VNIs that answer and whose bridges should be in it, and are not: the kernel refused.
    missing: BTreeSet<Vni>,
    /// Why it did.
    refusal: String,
    /// What answered when this run began is not known, so that some of it may be missing.
    unknown: bool,
    /// When the missing are tried again.
    missing_again: Time,
    /// A change failed, so that what is in the table may differ from what is known of it.
    doubtful: bool,
    /// The kernel refused to take out bridges that have IPv6 gateway addresses: until then they may answer for these.
    unsure_until: Time,
    /// Until when the kernel holds the lease at most, as far as is known.
    granted: Time,
    /// What went wrong since the thread looked last.
    trouble: Option<Error>,
    /// The table was lost, and is not put back yet.
    lost: bool,
    next: Time,
    /// What this node publishes of it.
    hold: Option<KernelHold>,
}

/// What became of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// It was made.
    New,
    /// It was there, with what a run before has in it.
    Kept,
    /// It was made again: something else on this host had removed or changed it.
    PutBack,
}

/// How it is with the table.
#[derive(Debug, Default)]
pub struct TableStatus {
    /// What became of it.
    pub made: Option<Made>,
    /// What went wrong.
    pub trouble: Option<Error>,
    /// Whether it is there.
    pub stands: bool,
    /// How many bridges are in it.
    pub gated: usize,
    /// How many should be in it, and are not.
    pub missing: usize,
    /// How many bridges have IPv6 gateway addresses.
    pub ipv6: usize,
    /// Why these are not switched, if they are not.
    pub ipv6_lack: Option<String>,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Changed {
    Done,
    /// There was no time left, or no table.
    Skipped,
    Refused,
}

impl Gate {
    /// A gate that is not there: what a mock host has.
    pub fn none() -> Gate {
        Gate {
            margin: Duration::ZERO,
            opener: None,
            table: None,
            leftover: None,
            gated: BTreeSet::new(),
            ipv6: Ipv6::default(),
            missing: BTreeSet::new(),
            refusal: String::new(),
            unknown: false,
            missing_again: Time::default(),
            doubtful: false,
            unsure_until: Time::default(),
            granted: Time::default(),
            trouble: None,
            lost: false,
            next: Time::default(),
            hold: None,
        }
    }

    /// A gate whose hold on the lease ends `margin` before the lease. Not there yet.
    pub fn new(margin: Duration, opener: Opener) -> Gate {
        Gate {
            margin,
            opener: Some(opener),
            ..Gate::none()
        }
    }

    /// Whether this is a mock host, which silences in no time.
    pub fn is_mock(&self) -> bool {
        self.hold.is_none()
    }

    /// Whether the table is there.
    pub fn stands(&self) -> bool {
        self.table.is_some()
    }

    /// How long before the lease ends the kernel's hold does.
    pub fn margin(&self) -> Duration {
        self.margin
    }

    /// What of the bridges that answer it holds.
    pub fn gated(&self) -> Gated {
        match (self.stands(), self.missing.is_empty() && !self.unknown) {
            (false, _) => Gated::None,
            (true, false) => Gated::Some,
            (true, true) => Gated::All,
        }
    }

    /// Until when the kernel holds the lease at most; `None` if it does not.
    pub fn held_until(&self, now: Time) -> Option<Time> {
        (self.stands() && self.granted > now).then_some(self.granted)
    }

    /// Whether the kernel holds the lease, as [`Gate::tend`] has found it last: a table that was lost and is put back
    /// in the same turn is no news to other machines. `None` on a mock host.
    pub fn hold(&self) -> Option<&KernelHold> {
        self.hold.as_ref()
    }

    /// What this host has of IPv6. `None` on a mock host.
    pub fn ipv6_hold(&self) -> Option<Ipv6Hold> {
        self.hold.as_ref().map(|_| Ipv6Hold {
            bridges: self.ipv6.bridges.len() as u64,
            lack: self.ipv6_lack(),
        })
    }

    /// Whether the bridge of this VNI is in the table.
    pub fn holds(&self, vni: Vni) -> bool {
        self.gated.contains(&vni)
    }

    /// These are the gateway addresses of this host.
    pub fn manage(&mut self, ipv6: Ipv6) {
        if self.ipv6 != ipv6 {
            self.change(|table| table.set_ipv6(&ipv6));
            // One that was not taken is found missing by the next look.
            self.ipv6 = ipv6;
        }
    }

    /// Why the kernel does not switch the IPv6 gateway addresses that this host has.
    pub fn ipv6_lack(&self) -> Option<String> {
        if self.ipv6.bridges.is_empty() || self.opener.is_none() {
            return None;
        }
        match (&self.table, &self.hold) {
            (Some(table), _) => table.lack().map(ToString::to_string),
            (None, Some(KernelHold::Missing(reason))) => Some(reason.clone()),
            (None, _) => None,
        }
    }

    /// What answers as a run before has left it is not known.
    pub fn note_unknown(&mut self) {
        self.unknown = true;
    }

    /// The guard has ended the kernel's hold, or may have.
    pub fn was_revoked(&mut self) {
        self.granted = Time::default();
    }

    /// The guard has granted until then.
    pub fn was_granted(&mut self, until: Time) {
        self.granted = until;
    }

    /// How many bridges are in the table.
    pub fn count(&self) -> usize {
        self.gated.len()
    }

    /// The port of the socket that changes the table; 0 without one.
    pub fn port(&self) -> u32 {
        self.table.as_ref().map_or(0, KernelLease::port)
    }

    /// The VNIs whose bridges are in the table and of which `answering` knows nothing.
    pub fn strangers(&self, answering: &BTreeSet<Vni>) -> Vec<Vni> {
        self.gated.difference(answering).copied().collect()
    }

    /// These VNIs are about to answer.
    pub fn admit(&mut self, vnis: impl Iterator<Item = Vni>, now: Time) {
        let new: Vec<Vni> = vnis.filter(|vni| !self.gated.contains(vni)).collect();
        let names: Vec<String> = new.iter().map(|vni| vni.bridge()).collect();
        match self.change(|table| table.add_names(&names)) {
            Changed::Done => {
                for vni in new {
                    self.missing.remove(&vni);
                    self.gated.insert(vni);
                }
            }
            // One that is put back has all in it.
            Changed::Skipped => {}
            Changed::Refused if self.table.is_none() => {}
            Changed::Refused => {
                self.missing.extend(new);
                self.refusal = self.trouble.as_ref().map_or(String::new(), |it| chain(it));
                let is_full = matches!(self.trouble, Some(Error::Full));
                self.missing_again = now + if is_full { AGAIN } else { SOON };
            }
        }
    }

    /// These VNIs do not answer ARP any more. `end` is when the lease does.
    pub fn release(&mut self, vnis: impl Iterator<Item = Vni>, end: Option<Time>) {
        let mut gone = Vec::new();
        for vni in vnis {
            self.missing.remove(&vni);
            // Before it is: a removal that fails half-way leaves none that is believed to be there.
            if self.gated.remove(&vni) {
                gone.push(vni.bridge());
            }
        }
        let until = end.map_or(self.granted, |end| end.max(self.granted));
        let has_ipv6 = gone.iter().any(|name| self.ipv6.bridges.contains_key(name));
        let changed = self.change(|table| table.remove_names(&gone));
        if changed == Changed::Refused && has_ipv6 && self.stands() {
            // Nothing more is granted in this table; one that replaces it has only those in it that may answer.
            self.unsure_until = until;
            self.lose();
        }
    }

    /// Whether the bridge of a VNI that does not answer ARP is silent about its IPv6 gateway addresses too, as far as
    /// is known.
    pub fn is_silent(&self, vni: Vni, now: Time) -> bool {
        now >= self.unsure_until || !self.ipv6.bridges.contains_key(&vni.bridge())
    }

    /// Whether all bridges are that do not answer ARP.
    pub fn are_silent(&self, now: Time) -> bool {
        now >= self.unsure_until
    }

    /// None of the VNIs in the table may answer, from this moment on.
    pub fn revoke(&mut self) {
        if self.change(KernelLease::revoke) == Changed::Done {
            self.granted = Time::default();
        }
    }

    /// Has the kernel hold `lease`, where the guard has not done so, or not for long.
    pub fn grant_if_due(&mut self, lease: Lease, now: Time) {
        let (left, all) = (self.granted.since(now), lease.valid_until.since(now));
        if left * 2 < all && self.grant(lease) == Changed::Refused && left < SHORT {
            self.close();
        }
    }

    fn grant(&mut self, lease: Lease) -> Changed {
        let end = lease.valid_until - self.margin;
        let changed = self.change(|table| table.grant(end).map(drop));
        if changed == Changed::Done {
            self.granted = end;
        }
        changed
    }

    /// Does something to the table, if it is there.
    fn change(&mut self, act: impl FnOnce(&mut KernelLease) -> Result<(), Error>) -> Changed {
        let Some(table) = &mut self.table else {
            return Changed::Skipped;
        };
        match act(table) {
            Ok(()) => return Changed::Done,
            Err(Error::Over) => return Changed::Skipped,
            Err(Error::Lost) => self.lose(),
            Err(error) => {
                if matches!(error, Error::Late) {
                    // What was granted before may have been taken back.
                    self.granted = Time::default();
                }
                self.doubtful |= !matches!(error, Error::Full | Error::Late);
                self.trouble = Some(error);
            }
        }
        Changed::Refused
    }

    /// Removes the table: `arp_ignore` decides alone. Of IPv6 nothing answers until there is one again.
    fn close(&mut self) {
        if let Some(mut table) = self.table.take()
            && let Err(error) = table.remove_own()
        {
            self.trouble.get_or_insert(error);
            self.leftover = Some(table);
        }
        self.forget();
    }

    /// Removes the table for good.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn dismiss(&mut self) -> Result<(), Error> {
        self.opener = None;
        let table = self.table.take().or(self.leftover.take());
        self.forget();
        match table {
            Some(mut table) => table.remove_own().map(drop),
            None => Ok(()),
        }
    }

    fn lose(&mut self) {
        self.table = None;
        self.forget();
        self.lost = true;
    }

    fn forget(&mut self) {
        self.gated.clear();
        self.missing.clear();
        self.granted = Time::default();
    }

    /// Looks whether the table is whole and has in it what is known of it, if it is there and `look` says that it may
    /// not be. Returns what to open a way to nf_tables with, if it is to be made.
    pub fn look(&mut self, look: bool, now: Time) -> Option<Opener> {
        let is_doubtful = std::mem::take(&mut self.doubtful);
        if (look || is_doubtful)
            && let Some(table) = &mut self.table
        {
            match table.find() {
                Ok(Found::Whole { names, .. })
                    if is_just(&self.gated, &names) && !table.is_uneven() =>
                {
                    // The same batch makes them what they are to be.
                    let ipv6 = self.ipv6.clone();
                    if table.set_ipv6(&ipv6).is_err() {
                        self.lose();
                    }
                }
                Ok(_) => self.lose(),
                Err(error) => {
                    self.doubtful = true;
                    self.trouble.get_or_insert(error);
                }
            }
        }
        let is_due = look || self.lost || now >= self.next;
        self.opener
            .clone()
            .filter(|_| self.table.is_none() && is_due)
    }

    /// Makes the table through `opened`, with all who answer in it, and does what could not be done before. Returns how
    /// it is with the table.
    pub fn tend(
        &mut self,
        opened: Option<Result<KernelLease, Error>>,
        lease: Option<Lease>,
        answering: &BTreeSet<Vni>,
        now: Time,
    ) -> TableStatus {
        let mut made = None;
        if let Some(mut leftover) = self.leftover.take()
            && leftover.remove_own().is_err()
        {
            self.leftover = Some(leftover);
        }
        if let Some(opened) = opened.filter(|_| self.opener.is_some()) {
            match opened.and_then(|table| self.make(table, lease, answering, now)) {
                Ok(how) => made = Some(how),
                Err(error) => {
                    let is_ours = matches!(error, Error::Refused { .. } | Error::Late);
                    self.next = now + if is_ours { SOON } else { AGAIN };
                    self.close();
                    self.lost = false;
                    self.trouble = Some(error);
                }
            }
        } else if !self.missing.is_empty() && now >= self.missing_again {
            let missing = self.missing.clone();
            self.admit(missing.intersection(answering).copied(), now);
        }
        let trouble = self.trouble.take();
        self.note_hold(trouble.as_ref());
        TableStatus {
            made,
            trouble,
            stands: self.stands(),
            gated: self.gated.len(),
            missing: self.missing.len(),
            ipv6: self.ipv6.bridges.len(),
            ipv6_lack: self.ipv6_lack(),
        }
    }

    /// Of a table that is in place, only what is wrong for longer: what is missing in it.
    fn note_hold(&mut self, trouble: Option<&Error>) {
        if self.stands() {
            self.hold = Some(match self.missing.is_empty() {
                true => KernelHold::Held,
                false => KernelHold::Missing(self.refusal.clone()),
            });
        } else if let Some(error) = trouble {
            self.hold = Some(KernelHold::Missing(chain(error)));
        }
    }

    fn make(
        &mut self,
        mut table: KernelLease,
        lease: Option<Lease>,
        answering: &BTreeSet<Vni>,
        now: Time,
    ) -> Result<Made, Error> {
        let found = table.find()?;
        let (gated, left, made) = match &found {
            // Also if its lease is over: what is in it may not answer, and would without it.
            Found::Whole { left, names } => {
                let (gated, others) = vnis_of(names, every());
                // They are no bridges of VNIs. What fails here is tried again after the next look.
                self.doubtful |= table.remove_names(&others).is_err();
                self.doubtful |= table.set_ipv6(&self.ipv6).is_err();
                if table.is_uneven() {
                    let names: Vec<String> = gated.iter().map(|vni| vni.bridge()).collect();
                    self.doubtful |= table.add_names(&names).is_err();
                }
                (gated, left.unwrap_or_default(), Made::Kept)
            }
            found => {
                // Without a lease, none of them may answer for a moment.
                let gated = match lease {
                    Some(_) => BTreeSet::new(),
                    None => answering.clone(),
                };
                let names: Vec<String> = gated.iter().map(|vni| vni.bridge()).collect();
                table.make(found, &names, &self.ipv6)?;
                self.unsure_until = Time::default();
                (gated, Duration::ZERO, Made::New)
            }
        };
        self.forget();
        self.gated = gated;
        self.granted = now + left;
        self.leftover = None;
        self.table = Some(table);
        // Before there is anything more in it that the kernel would keep from answering.
        if let Some(lease) = lease
            && self.grant(lease) != Changed::Done
            && left < SHORT
        {
            return Err(self.trouble.take().unwrap_or(Error::Over));
        }
        self.admit(answering.iter().copied(), now);
        match std::mem::take(&mut self.lost) {
            true => Ok(Made::PutBack),
            false => Ok(made),
        }
    }
}

/// Whether the names are of the bridges of these VNIs, and no others.
fn is_just(gated: &BTreeSet<Vni>, names: &[String]) -> bool {
    let (vnis, others) = vnis_of(names, every());
    vnis == *gated && others.is_empty()
}

/// All VNIs: a run before may have had another range.
fn every() -> VniRange {
    VniRange::new(Vni::MIN, Vni::MAX).expect("they are in order")
}

/// Starts the thread `gate`, which keeps the table there. It ends with the process.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(fence: Arc<Fence>, range: VniRange, complaint: Complaint) -> io::Result<()> {
    Builder::new().name("gate".to_owned()).spawn(move || {
        let mut keeper = Keeper {
            fence,
            range,
            watch: None,
            addresses: None,
            rest_until: Time::default(),
            pending: false,
            complaint,
            complaint6: Complaint::default(),
        };
        loop {
            keeper.turn();
        }
    })?;
    Ok(())
}

/// What the thread has.
struct Keeper {
    fence: Arc<Fence>,
    range: VniRange,
    watch: Option<Watch>,
    /// Hears of the addresses of this host.
    addresses: Option<addresses::Watch>,
    /// They are looked at no more often than this allows, and something about them has changed since.
    rest_until: Time,
    pending: bool,
    complaint: Complaint,
    /// About IPv6 alone.
    complaint6: Complaint,
}

impl Keeper {
    fn turn(&mut self) {
        let mut look = false;
        if self.watch.is_none() && self.fence.is_gated() {
            self.watch = Watch::open().ok();
            // What happened before is not heard.
            look = true;
        }
        if self.addresses.is_none() {
            self.addresses = addresses::Watch::open().ok();
            self.pending = true;
        }
        look |= self.wait();
        self.look_at_addresses();
        let tended = self.fence.tend_gate(look);
        report_ipv6(&tended, &mut self.complaint6);
        report(tended, &mut self.complaint);
    }

    /// Has the table have the IPv6 gateway addresses that this host has now.
    fn look_at_addresses(&mut self) {
        if !self.pending || clock::now() < self.rest_until {
            return;
        }
        let before = clock::thread_cpu_time();
        match addresses::look_for_ipv6(self.range) {
            Ok(ipv6) => {
                self.pending = false;
                self.fence.manage_ipv6(ipv6);
            }
            Err(error) => debug!("gate: cannot look at the IPv6 addresses of this host: {error}"),
        }
        // While thousands of bridges are made, this takes no more than a tenth of a CPU. (Its time on the clock may be
        // that of a machine that slept.)
        let taken = clock::thread_cpu_time().saturating_sub(before);
        self.rest_until = clock::now() + taken * 9;
    }

    /// Until something happens to the table or to addresses, or it is time; says whether something did to the table.
    fn wait(&mut self) -> bool {
        let timeout = match self.pending {
            true => self.rest_until.since(clock::now()).as_millis(),
            false => EVERY.into(),
        };
        let timeout = u16::try_from(timeout).unwrap_or(EVERY).min(EVERY);
        let watched = [
            self.watch.as_ref().map(AsFd::as_fd),
            self.addresses.as_ref().map(AsFd::as_fd),
        ];
        let mut fds: Vec<PollFd> = watched
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::from(timeout)).is_err() {
            sleep(Duration::from_millis(10));
        }
        match self.addresses.as_mut().map(addresses::Watch::look) {
            Some(Ok(changed)) => self.pending |= changed,
            Some(Err(_)) => self.addresses = None,
            None => {}
        }
        let Some(watch) = &mut self.watch else {
            return false;
        };
        match watch.look(self.fence.gate_port()) {
            Ok(concerns) => concerns,
            Err(error) => {
                debug!("gate: cannot hear of nf_tables: {error}");
                self.watch = None;
                true
            }
        }
    }
}

/// Logs what is wrong with the switch of IPv6 alone.
fn report_ipv6(tended: &TableStatus, complaint: &mut Complaint) {
    let count = tended.ipv6;
    match &tended.ipv6_lack {
        Some(reason) if complaint.raise(reason) => warn!(
            "gate: count={count} bridges have IPv6 gateway addresses, which are not switched: every gateway answers for \
             them: {reason}"
        ),
        Some(_) => {}
        None if complaint.settle() => {
            info!("gate: the IPv6 gateway addresses of count={count} bridges are switched");
        }
        None => {}
    }
}

/// Logs what became of the table.
pub fn report(tended: TableStatus, complaint: &mut Complaint) {
    let count = tended.gated;
    let missing = tended.missing;
    match tended.trouble.map(|error| chain(&error)) {
        Some(reason) if complaint.raise(&reason) => match tended.stands && missing > 0 {
            true => warn!(
                "gate: {reason}; if daemon and guard are killed at once, count={missing} VNIs go on answering ARP"
            ),
            false => warn!(
                "gate: the kernel does not hold the lease: {reason}; if daemon and guard are killed at once, this host \
                 goes on answering ARP"
            ),
        },
        Some(_) => {}
        None if tended.stands && missing == 0 && complaint.settle() => {
            info!("gate: the kernel holds the lease again, count={count} bridges are gated");
        }
        None => {}
    }
    match tended.made {
        None => {}
        Some(Made::New) => debug!("gate: the table `arp wmgwd` was made"),
        Some(Made::Kept) => {
            info!(
                "gate: the table `arp wmgwd` of the run before was kept, count={count} bridges are gated"
            );
        }
        Some(Made::PutBack) => warn!(
            "gate: the table `arp wmgwd` was removed or changed by something else on this host: put back, \
             count={count} bridges are gated"
        ),
    }
}
