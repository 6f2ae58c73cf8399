//! The daemon's side of the kernel lease: which bridges are gated, and the thread `gate`, which keeps the table.
//!
//! [`Gate`] is part of the [`Fence`] and under its lock: a bridge is in the table before it begins to answer, and
//! until it is silent. It never logs. The guard grants (`guard::process`); the daemon does where the guard does not.
//! Trouble with the table never costs service: then the table is removed, `arp_ignore` decides alone, and the thread
//! tries again.

use super::fence::Fence;
use crate::guard::protocol::Gated;
use crate::host::nft::socket::Watch;
use crate::host::nft::{Error, Found, KernelLease, vnis_of};
use crate::model::types::{Lease, Time, Vni, VniRange};
use crate::schema::KernelHold;
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
/// How soon a table that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// An element that ends so soon and cannot be renewed is in the way.
const SHORT: Duration = Duration::from_secs(1);

/// How a way to nf_tables is opened.
pub type Opener = Arc<dyn Fn() -> Result<KernelLease, Error> + Send + Sync>;

/// The table, and what of it is in use.
pub struct Gate {
    range: VniRange,
    /// How long before the lease ends the kernel's hold does.
    margin: Duration,
    opener: Option<Opener>,
    /// The table, while it is there.
    table: Option<KernelLease>,
    /// The VNIs whose bridges are in it.
    gated: BTreeSet<Vni>,
    /// Until when the kernel holds the lease at most, as far as is known.
    granted: Time,
    /// What went wrong since the thread looked last.
    trouble: Option<Error>,
    /// The table was lost, and is not put back yet.
    lost: bool,
    /// That it is full was told.
    full: bool,
    /// A bridge that answers may be missing in it.
    partial: bool,
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
}

impl Gate {
    /// A gate that is not there: what a mock host has.
    pub fn none() -> Gate {
        Gate {
            range: VniRange::new(Vni::MIN, Vni::MAX).expect("they are in order"),
            margin: Duration::ZERO,
            opener: None,
            table: None,
            gated: BTreeSet::new(),
            granted: Time::default(),
            trouble: None,
            lost: false,
            full: false,
            partial: false,
            next: Time::default(),
            hold: None,
        }
    }

    /// A gate for the bridges of `range`, whose hold on the lease ends `margin` before the lease. Not there yet.
    pub fn new(range: VniRange, margin: Duration, opener: Opener) -> Gate {
        Gate {
            range,
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
        match (self.stands(), self.partial) {
            (false, _) => Gated::None,
            (true, true) => Gated::Some,
            (true, false) => Gated::All,
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

    /// The guard has granted until then.
    pub fn was_granted(&mut self, until: Time) {
        self.granted = until;
    }

    /// These VNIs are about to answer.
    pub fn admit(&mut self, vnis: impl Iterator<Item = Vni>) {
        if self.table.is_none() {
            return;
        }
        let new: Vec<Vni> = vnis.filter(|vni| !self.gated.contains(vni)).collect();
        let names: Vec<String> = new.iter().map(|vni| vni.bridge()).collect();
        if self.change(|table| table.add_names(&names)) {
            self.full &= names.is_empty();
            self.gated.extend(new);
        } else {
            self.partial = true;
        }
    }

    /// These VNIs do not answer any more.
    pub fn release(&mut self, vnis: impl Iterator<Item = Vni>) {
        if self.table.is_none() {
            return;
        }
        let gone: Vec<Vni> = vnis.filter(|vni| self.gated.contains(vni)).collect();
        let names: Vec<String> = gone.iter().map(|vni| vni.bridge()).collect();
        if self.change(|table| table.remove_names(&names)) {
            for vni in gone {
                self.gated.remove(&vni);
            }
        }
    }

    /// None of the VNIs in the table may answer, from this moment on.
    pub fn revoke(&mut self) {
        if self.change(KernelLease::revoke) {
            self.granted = Time::default();
        }
    }

    /// Has the kernel hold `lease`, where the guard has not done so, or not for long.
    pub fn grant_if_due(&mut self, lease: Lease, now: Time) {
        let (left, all) = (self.granted.since(now), lease.valid_until.since(now));
        if self.table.is_none() || left * 2 >= all {
            return;
        }
        self.grant(lease);
        if self.granted.since(now) < SHORT && self.trouble.is_some() {
            self.close();
        }
    }

    fn grant(&mut self, lease: Lease) {
        let end = lease.valid_until - self.margin;
        if self.change(|table| table.grant(end).map(drop)) {
            self.granted = end;
        }
    }

    /// Does something to the table; says whether it was done.
    fn change(&mut self, act: impl FnOnce(&mut KernelLease) -> Result<(), Error>) -> bool {
        let Some(table) = &mut self.table else {
            return false;
        };
        match act(table) {
            Ok(()) => return true,
            Err(Error::Over) => {}
            Err(error) => match error {
                Error::Lost => self.lose(),
                Error::Full if std::mem::replace(&mut self.full, true) => {}
                error => self.trouble = Some(error),
            },
        }
        false
    }

    /// Removes the table: `arp_ignore` decides alone.
    pub fn close(&mut self) {
        if let Some(mut table) = self.table.take() {
            // What cannot be removed is replaced when it can be made again.
            let _ = table.remove();
        }
        self.gated.clear();
        self.granted = Time::default();
    }

    /// Removes the table for good.
    pub fn dismiss(&mut self) {
        self.close();
        self.opener = None;
    }

    fn lose(&mut self) {
        self.table = None;
        self.gated.clear();
        self.granted = Time::default();
        self.lost = true;
    }

    /// Looks whether the table is whole, if it is there and `look` says that it may not be. Returns what to open a way
    /// to nf_tables with, if it is to be made.
    pub fn look(&mut self, look: bool, now: Time) -> Option<Opener> {
        if look && let Some(table) = &mut self.table {
            match table.find() {
                Ok(Found::Whole { .. }) => {}
                Ok(_) => self.lose(),
                Err(error) => self.trouble = Some(error),
            }
        }
        let is_due = look || self.lost || now >= self.next;
        self.opener
            .clone()
            .filter(|_| self.table.is_none() && is_due)
    }

    /// Makes the table through `opened`, with all who answer in it. Returns how it is with the table.
    pub fn tend(
        &mut self,
        opened: Option<Result<KernelLease, Error>>,
        lease: Option<Lease>,
        answering: &BTreeSet<Vni>,
        now: Time,
    ) -> TableStatus {
        let mut made = None;
        if let Some(opened) = opened.filter(|_| self.opener.is_some()) {
            self.next = now + AGAIN;
            match opened.and_then(|table| self.make(table, lease, answering)) {
                Ok(how) => made = Some(how),
                Err(error) => {
                    self.close();
                    self.lost = false;
                    self.trouble = Some(error);
                }
            }
        }
        let trouble = self.trouble.take();
        self.note_hold(trouble.as_ref());
        TableStatus {
            made,
            trouble,
            stands: self.stands(),
            gated: self.gated.len(),
        }
    }

    /// Of a table that is in place, only what is wrong for longer: that it is full.
    fn note_hold(&mut self, trouble: Option<&Error>) {
        if self.stands() {
            self.hold = Some(match self.full {
                true => KernelHold::Missing(Error::Full.to_string()),
                false => KernelHold::Held,
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
    ) -> Result<Made, Error> {
        let mut made = Made::New;
        match table.find()? {
            Found::Whole {
                left: Some(_),
                names,
            } => {
                let (gated, others) = vnis_of(&names, self.range);
                table.remove_names(&others)?;
                self.gated = gated;
                made = Made::Kept;
            }
            found => table.make(&found)?,
        }
        self.full = false;
        self.partial = false;
        // Before there is anything in it that the kernel would keep from answering.
        if let Some(lease) = lease {
            let end = lease.valid_until - self.margin;
            table.grant(end)?;
            self.granted = end;
        }
        self.table = Some(table);
        if lease.is_some() {
            self.admit(answering.iter().copied());
        } else {
            // They are silenced one by one while there is no proof.
            self.partial = !answering.is_empty();
        }
        match std::mem::take(&mut self.lost) {
            true => Ok(Made::PutBack),
            false => Ok(made),
        }
    }
}

/// Starts the thread `gate`, which keeps the table there. It ends with the process.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(fence: Arc<Fence>, complaint: Complaint) -> io::Result<()> {
    Builder::new().name("gate".to_owned()).spawn(move || {
        let mut keeper = Keeper {
            fence,
            watch: None,
            complaint,
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
    watch: Option<Watch>,
    complaint: Complaint,
}

impl Keeper {
    fn turn(&mut self) {
        let mut look = false;
        if self.watch.is_none() && self.fence.is_gated() {
            self.watch = Watch::open().ok();
            // What happened before is not heard.
            look = true;
        }
        look |= self.wait();
        report(self.fence.tend_gate(look), &mut self.complaint);
    }

    /// Until something happens to the table, or it is time; says whether something did.
    fn wait(&mut self) -> bool {
        let Some(watch) = &mut self.watch else {
            sleep(Duration::from_millis(EVERY.into()));
            return false;
        };
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(EVERY)).is_err() {
            sleep(Duration::from_millis(10));
        }
        match watch.look() {
            Ok(concerns) => concerns,
            Err(error) => {
                debug!("gate: cannot hear of nf_tables: {error}");
                self.watch = None;
                true
            }
        }
    }
}

/// Logs what became of the table.
pub fn report(tended: TableStatus, complaint: &mut Complaint) {
    let count = tended.gated;
    match tended.trouble {
        Some(error @ Error::Full) => {
            warn!(
                "gate: {error}; if daemon and guard are killed at once, the others go on answering ARP"
            );
        }
        Some(error) => {
            let reason = chain(&error);
            if complaint.raise(&reason) {
                warn!(
                    "gate: the kernel does not hold the lease: {reason}; if daemon and guard are killed at once, this \
                     host goes on answering ARP"
                );
            }
        }
        None if tended.stands && complaint.settle() => {
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
