//! The kernel holds the lease: a set element of nf_tables that runs out.
//!
//! Whatever silences ARP in user space needs the CPU at the right moment. The table `arp wmgwd` does not: it lets
//! ARP requests to the bridges in its set `owned` pass only while its set `lease` has an element, and the kernel
//! itself drops that element when its time is over. It comes under `arp_ignore`, not instead of it: both must let
//! a request pass.
//!
//! A timeout is relative, so a process that is held up between its look at the clock and the kernel would grant
//! too much. Therefore [`KernelLease::grant`] puts a token first, which runs out by itself, and grants in a second
//! batch that fails as a whole if the token has run out.
//!
//! The table `ip6 wmgwd` does the same for neighbour discovery, in the same batches. There is no `arp_ignore` under it:
//! so it is not removed while a bridge of this host has an IPv6 gateway address, and what is not in it is silent.
//!
//! [`wire`] and [`table`] are pure, [`socket`] talks to the kernel. The daemon makes the table and says which
//! bridges are in it; the guard, which knows how long the lease holds, grants.

pub mod socket;
pub mod table;
pub mod wire;

use crate::host::address::Ipv6;
use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;
use table::Set;
use wire::{Batch, Family};

/// How long a grant may take from its first batch to its second, if there is time. It is taken off the time that is
/// granted: an eighth of that at most, and no less than the kernel counts in.
pub const TOKEN: Duration = Duration::from_millis(100);
const SHORT_TOKEN: Duration = Duration::from_millis(20);
/// How often a grant whose token ran out is tried again at once.
const TRIES: u32 = 3;

/// The way to nf_tables.
pub trait Channel: Send {
    /// Has the kernel carry out a batch, as a whole.
    ///
    /// # Errors
    /// The kernel refused, and nothing of the batch happened.
    fn transact(&mut self, batch: Batch) -> io::Result<()>;

    /// Asks for what there is: what follows the headers of each message of the answer.
    ///
    /// # Errors
    /// The kernel refused: `ENOENT` if there is no such table.
    fn ask(&mut self, question: &[u8]) -> io::Result<Vec<Vec<u8>>>;

    /// The port of its socket, by which the kernel tells who has changed something; 0 if it has none.
    fn port(&self) -> u32 {
        0
    }
}

/// What there is under the name of wmgwd's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A table that wmgwd did not make.
    Foreign,
    /// wmgwd's table, but not all of it: another program has changed it.
    Damaged,
    /// Our table.
    Whole {
        /// How long the lease in it still holds; `None` if it does not.
        left: Option<Duration>,
        /// The bridges in it, or in that of IPv6.
        names: Vec<String>,
    },
}

/// The tables `arp wmgwd` and `ip6 wmgwd`.
pub struct KernelLease {
    channel: Box<dyn Channel>,
    /// The key of the last token.
    token: u32,
    /// How the kernel knows the table of ARP, once it was found to be wmgwd's, or made.
    handle: Option<u64>,
    /// The same of that of IPv6.
    handle6: Option<u64>,
    /// What is in that of IPv6.
    ipv6: Ipv6,
    /// Another program has put bridges into the one or the other alone, or taken them out.
    is_uneven: bool,
    /// Why there is none of IPv6, if the kernel cannot have it.
    lack: Option<io::Error>,
}

impl KernelLease {
    /// The table of this process's network namespace. Looks at nothing yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn open() -> Result<KernelLease, Error> {
        let socket = socket::Socket::open().map_err(Error::of("open a socket to nf_tables"))?;
        Ok(KernelLease::through(Box::new(socket)))
    }

    /// The table at the other end of a channel.
    pub fn through(channel: Box<dyn Channel>) -> KernelLease {
        // Daemon and guard grant: neither must renew the other's token. 22 bits are a process id (proc(5)).
        let token = std::process::id() << 10;
        KernelLease {
            channel,
            token,
            handle: None,
            handle6: None,
            ipv6: Ipv6::default(),
            is_uneven: false,
            lack: None,
        }
    }

    /// The tables that another process has made: to grant in them, without a look at what is in them.
    ///
    /// # Errors
    /// [`Error::Unsupported`], or the kernel refused.
    pub fn join() -> Result<KernelLease, Error> {
        let mut lease = KernelLease::open()?;
        let told = lease.ask_table(Family::Ip6)?;
        lease.handle6 = told.and_then(|it| table::handle(&it));
        Ok(lease)
    }

    /// The families that there is a table of, beside that of ARP.
    fn families(&self) -> &'static [Family] {
        match self.handle6 {
            Some(_) => &[Family::Arp, Family::Ip6],
            None => &[Family::Arp],
        }
    }

    /// The bridges that have gateway addresses, and the addresses, as far as this has found or put them there.
    pub fn ipv6(&self) -> &Ipv6 {
        &self.ipv6
    }

    /// Whether the last look found a bridge in the one table and not in the other.
    pub fn is_uneven(&self) -> bool {
        self.is_uneven
    }

    /// Why the kernel does not switch IPv6, if it cannot.
    pub fn lack(&self) -> Option<&io::Error> {
        self.lack.as_ref()
    }

    /// The port of the socket through which this process changes the table.
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Looks what there is.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn find(&mut self) -> Result<Found, Error> {
        (self.handle, self.handle6) = (None, None);
        self.is_uneven = false;
        let found6 = match self.lack {
            // This object has made what there can be.
            Some(_) => None,
            None => self.find_family(Family::Ip6)?,
        };
        let found = self.find_family(Family::Arp)?;
        let of = |found: &Option<Part>| found.as_ref().and_then(|it| it.handle);
        (self.handle, self.handle6) = (of(&found), of(&found6));
        if [&found, &found6]
            .into_iter()
            .flatten()
            .any(|it| it.handle.is_none())
        {
            return Ok(Found::Foreign);
        }
        let names6 = match &found6 {
            Some(part) if part.is_whole => {
                let mut look = |set| self.look(&table::ask_elements(Family::Ip6, set));
                let (managed, shared) = (look(Set::Managed)?, look(Set::Shared)?);
                let (ipv6, is_torn) = table::ipv6(&managed, &shared, &self.look_self()?);
                self.ipv6 = ipv6;
                match is_torn {
                    true => None,
                    false => Some(self.names(Family::Ip6)?),
                }
            }
            _ => None,
        };
        let Some(found) = found else {
            return Ok(Found::Absent);
        };
        if !found.is_whole || names6.is_none() && self.lack.is_none() {
            return Ok(Found::Damaged);
        }
        let mut names = self.names(Family::Arp)?;
        if let Some(names6) = names6 {
            let (all, all6): (BTreeSet<String>, BTreeSet<String>) =
                (names.into_iter().collect(), names6.into_iter().collect());
            self.is_uneven = all != all6;
            names = all.union(&all6).cloned().collect();
        }
        let lease = self.look(&table::ask_elements(Family::Arp, Set::Lease))?;
        Ok(Found::Whole {
            left: table::lease_left(&lease, Family::Arp),
            names,
        })
    }

    fn look_self(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        self.look(&table::ask_elements(Family::Ip6, Set::Own))
    }

    fn names(&mut self, family: Family) -> Result<Vec<String>, Error> {
        Ok(table::names(
            &self.look(&table::ask_elements(family, Set::Owned))?,
        ))
    }

    /// Looks at the table of a family; `None` if there is none of that name.
    fn find_family(&mut self, family: Family) -> Result<Option<Part>, Error> {
        let Some(found) = self.ask_table(family)? else {
            return Ok(None);
        };
        let sets = self.look(&table::ask_sets(family))?;
        let is_whole = table::has_no_flags(&found)
            && table::has_sets(&sets, family)
            && table::has_chains(&self.look(&table::ask_chains(family))?, family)
            && table::has_rules(&self.look(&table::ask_rules(family))?, family);
        // Linux before 5.10 keeps no comment: then it is wmgwd's if nothing about it differs.
        let is_ours = is_whole || table::has_comment(&found);
        Ok(Some(Part {
            handle: table::handle(&found).filter(|_| is_ours),
            is_whole,
        }))
    }

    /// What the kernel tells of the table of that name; `None` if there is none.
    fn ask_table(&mut self, family: Family) -> Result<Option<Vec<u8>>, Error> {
        match self.channel.ask(&table::ask_table(family)) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if code(&error) == Some(Errno::ENOENT) => Ok(None),
            // No such subsystem of nfnetlink.
            Err(error) if code(&error) == Some(Errno::EINVAL) => Err(Error::Unsupported(error)),
            Err(error) => Err(Error::of(LOOK)(error)),
        }
    }

    fn look(&mut self, question: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.channel.ask(question).map_err(Error::of(LOOK))
    }

    /// Makes the tables, with these names and gateway addresses in them, in the place of what was found there. A kernel
    /// that cannot have that of IPv6 [lacks](KernelLease::lack) it.
    ///
    /// # Errors
    /// The kernel refused; or a table is [foreign](Error::Foreign).
    pub fn make(&mut self, found: &Found, names: &[String], ipv6: &Ipv6) -> Result<(), Error> {
        if *found == Found::Foreign {
            return Err(Error::Foreign);
        }
        let both = self.batch_to_make(&[Family::Arp, Family::Ip6], names, ipv6);
        let mut made = self.channel.transact(both);
        self.lack = None;
        if let Err(error) = &made
            && is_lack(error)
        {
            let alone = self.batch_to_make(&[Family::Arp], names, ipv6);
            let outcome = self.channel.transact(alone);
            if outcome.is_ok() {
                self.lack = made.err();
            }
            made = outcome;
        }
        made.map_err(|error| {
            match code(&error) {
                // A part of nf_tables, and not of the table.
                Some(Errno::ENOENT) => Error::Unsupported(error),
                _ => Error::of("make the table")(error),
            }
        })?;
        self.ipv6 = match self.lack {
            Some(_) => Ipv6::default(),
            None => ipv6.clone(),
        };
        // Without it the table is looked for when it is to go.
        let mut handle = |family| table::handle(&self.ask_table(family).ok().flatten()?);
        let handles = (handle(Family::Arp), handle(Family::Ip6));
        self.handle = handles.0;
        // One that is there and could not be looked at is there all the same: the kernel counts from 1.
        self.handle6 = match self.lack {
            Some(_) => None,
            None => Some(handles.1.unwrap_or_default()),
        };
        Ok(())
    }

    fn batch_to_make(&self, families: &[Family], names: &[String], ipv6: &Ipv6) -> Batch {
        let mut batch = Batch::default();
        for family in families {
            let handle = match family {
                Family::Arp => self.handle,
                Family::Ip6 => self.handle6,
            };
            if let Some(handle) = handle {
                table::remove(&mut batch, *family, handle);
            }
            table::make(&mut batch, *family);
            table::add_names(&mut batch, *family, names);
            if *family == Family::Ip6 {
                table::change_ipv6(&mut batch, &Ipv6::default(), ipv6);
            }
        }
        batch
    }

    /// Has the gateway addresses in the table be these. Without a table of IPv6 there is nothing to do.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Lost`], or the kernel refused.
    pub fn set_ipv6(&mut self, ipv6: &Ipv6) -> Result<(), Error> {
        if self.handle6.is_none() || self.ipv6 == *ipv6 {
            return Ok(());
        }
        let mut batch = Batch::default();
        table::change_ipv6(&mut batch, &self.ipv6, ipv6);
        self.transact(batch, "change the gateway addresses")?;
        self.ipv6 = ipv6.clone();
        Ok(())
    }

    /// Whether this kernel can have the table of a family. Nothing is made.
    ///
    /// # Errors
    /// The kernel lacks something, or refused.
    pub fn try_to_make(&mut self, family: Family) -> Result<(), Error> {
        let mut batch = Batch::default();
        table::try_to_make(&mut batch, family);
        match self.channel.transact(batch) {
            Err(error) if code(&error) == Some(Errno::EEXIST) => Ok(()),
            Err(error) if code(&error) == Some(Errno::ENOENT) => Err(Error::Unsupported(error)),
            outcome => outcome.map_err(Error::of("make the table")),
        }
    }

    /// Removes the table that [`KernelLease::find`] found to be wmgwd's, or [`KernelLease::make`] made: without a look,
    /// which fails while something else on this host goes on changing nf_tables. Says whether there was one. That of
    /// IPv6 goes if there is no gateway address; otherwise it stays, and keeps all of them silent.
    ///
    /// # Errors
    /// The kernel refused. Then this can be called again.
    pub fn remove_own(&mut self) -> Result<bool, Error> {
        if self.handle.is_none() && self.handle6.is_none() {
            return self.remove();
        }
        let mut outcome = Ok(false);
        if let Some(handle) = self.handle6 {
            let mut batch = Batch::default();
            if self.ipv6.bridges.is_empty() {
                table::remove(&mut batch, Family::Ip6, handle);
            } else {
                table::empty(&mut batch, Family::Ip6, Set::Lease);
                table::empty(&mut batch, Family::Ip6, Set::Owned);
            }
            match self.transact(batch, "remove the table") {
                Ok(()) if self.ipv6.bridges.is_empty() => self.handle6 = None,
                Ok(()) => {}
                Err(Error::Lost) => self.handle6 = None,
                Err(error) => outcome = Err(error),
            }
        }
        if let Some(handle) = self.handle {
            let mut batch = Batch::default();
            table::remove(&mut batch, Family::Arp, handle);
            let is_removed = match self.transact(batch, "remove the table") {
                Ok(()) => true,
                Err(Error::Lost) => false,
                Err(error) => return Err(error),
            };
            self.handle = None;
            outcome = outcome.map(|_| is_removed);
        }
        outcome
    }

    /// Removes the table, if it is wmgwd's, as [`KernelLease::remove_own`]; returns whether there was one.
    ///
    /// # Errors
    /// The kernel refused; or the table is [foreign](Error::Foreign).
    pub fn remove(&mut self) -> Result<bool, Error> {
        match self.find()? {
            Found::Foreign => Err(Error::Foreign),
            _ if self.handle.is_some() || self.handle6.is_some() => self.remove_own(),
            _ => Ok(false),
        }
    }

    /// Has this host be silent about these gateway addresses, without a lease and whatever was there before. Nothing is
    /// made of nothing.
    ///
    /// # Errors
    /// The kernel refused; or the table is [foreign](Error::Foreign).
    pub fn silence_ipv6(&mut self, ipv6: &Ipv6) -> Result<(), Error> {
        let part = self.find_family(Family::Ip6)?;
        if part.is_none() && ipv6.bridges.is_empty() {
            return Ok(());
        }
        self.handle6 = match part {
            Some(Part { handle: None, .. }) => return Err(Error::Foreign),
            Some(Part { handle, .. }) => handle,
            None => None,
        };
        let batch = self.batch_to_make(&[Family::Ip6], &[], ipv6);
        self.transact(batch, "make the table")
    }

    /// Has the bridges of these names answer only while the lease holds.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Lost`], or the kernel refused.
    pub fn add_names(&mut self, names: &[String]) -> Result<(), Error> {
        self.in_parts(names, table::add_names)
    }

    /// Has the bridges of these names answer as `arp_ignore` says.
    ///
    /// # Errors
    /// [`Error::Lost`], or the kernel refused.
    pub fn remove_names(&mut self, names: &[String]) -> Result<(), Error> {
        self.in_parts(names, table::remove_names)
    }

    /// As one batch, or as several where one is too large for the socket: each by itself is safe.
    fn in_parts(
        &mut self,
        names: &[String],
        change: fn(&mut Batch, Family, &[String]),
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for family in self.families() {
            change(&mut batch, *family, names);
        }
        match self.channel.transact(batch) {
            Err(error) if code(&error) == Some(Errno::EMSGSIZE) && names.len() > 1 => {
                let (first, second) = names.split_at(names.len() / 2);
                self.in_parts(first, change)?;
                self.in_parts(second, change)
            }
            outcome => outcome.map_err(Error::of("change the names of bridges")),
        }
    }

    /// Has the lease hold until `end` at the latest, however long this process is held up; says how often a grant took
    /// too long before that was done.
    ///
    /// # Errors
    /// [`Error::Over`] if there is no time left, [`Error::Late`] if grants take too long again and again,
    /// [`Error::Lost`] without a table, or the kernel refused. Then it holds no longer than was granted before.
    pub fn grant(&mut self, end: Time) -> Result<u32, Error> {
        let mut is_doubtful = false;
        let outcome = self.try_to_grant(end, &mut is_doubtful);
        if is_doubtful {
            self.revoke()?;
        }
        outcome
    }

    /// Sets `is_doubtful` while the lease may hold for longer: a batch was done, and took so long that the kernel may
    /// have been held up in the midst of it.
    fn try_to_grant(&mut self, end: Time, is_doubtful: &mut bool) -> Result<u32, Error> {
        for tries in 0..TRIES {
            let token = self.next_token();
            let runs = (end.since(clock::now()) / 8).clamp(SHORT_TOKEN, TOKEN);
            let mut batch = Batch::default();
            for family in self.families() {
                table::put_token(&mut batch, *family, token, runs);
            }
            self.transact(batch, GRANT)?;
            // The token began to run out before that.
            let begun = clock::now();
            let lasts = end.since(begun).saturating_sub(runs);
            if lasts.as_millis() == 0 {
                return Err(Error::Over);
            }
            let mut batch = Batch::default();
            for family in self.families() {
                table::grant(&mut batch, *family, token, lasts);
            }
            match self.channel.transact(batch) {
                Ok(()) => *is_doubtful = clock::now().since(begun) > runs,
                Err(error) if code(&error) == Some(Errno::ENOENT) => continue,
                Err(error) => return Err(Error::of(GRANT)(error)),
            }
            if !*is_doubtful {
                return Ok(tries);
            }
        }
        Err(Error::Late)
    }

    fn next_token(&mut self) -> u32 {
        const OWN: u32 = (1 << 10) - 1;
        self.token = (self.token & !OWN) | (self.token.wrapping_add(1) & OWN);
        self.token
    }

    /// Ends the lease for all bridges at once.
    ///
    /// # Errors
    /// [`Error::Lost`], or the kernel refused.
    pub fn revoke(&mut self) -> Result<(), Error> {
        let families = self.families();
        let mut end = |families: &[Family]| {
            let mut batch = Batch::default();
            for family in families {
                table::empty(&mut batch, *family, Set::Lease);
            }
            self.channel
                .transact(batch)
                .map_err(Error::of("end the lease"))
        };
        match end(families) {
            // One of them is gone: that must not keep the other.
            Err(Error::Lost) if families.len() > 1 => {
                let outcomes = families.iter().map(|family| end(&[*family]));
                outcomes.fold(Ok(()), Result::and)?;
                Err(Error::Lost)
            }
            outcome => outcome,
        }
    }

    fn transact(&mut self, batch: Batch, what: &'static str) -> Result<(), Error> {
        self.channel.transact(batch).map_err(Error::of(what))
    }
}

/// What was found of a family.
struct Part {
    /// How the kernel knows the table; `None` if wmgwd has not made it.
    handle: Option<u64>,
    /// There is all of it.
    is_whole: bool,
}

/// Whether the kernel does not have a family.
fn is_lack(error: &io::Error) -> bool {
    matches!(
        code(error),
        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT)
    )
}

const LOOK: &str = "look at the table";
const GRANT: &str = "grant the lease";

fn code(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// The VNIs of `range` among the names of bridges, and the names that are something else.
pub fn vnis_of(names: &[String], range: VniRange) -> (BTreeSet<Vni>, Vec<String>) {
    let mut vnis = BTreeSet::new();
    let mut others = Vec::new();
    for name in names {
        match Vni::of_bridge(name).filter(|vni| range.contains(*vni)) {
            Some(vni) => drop(vnis.insert(vni)),
            None => others.push(name.clone()),
        }
    }
    (vnis, others)
}

/// Why the kernel does not hold the lease.
#[derive(Debug)]
pub enum Error {
    /// This kernel has no nf_tables, or none for ARP.
    Unsupported(io::Error),
    /// There is a table of that name, and wmgwd did not make it.
    Foreign,
    /// Another wmgwd on this host has its own lease; the node's name.
    Shared(String),
    /// The table is gone, or a set of it.
    Lost,
    /// The set of names is full.
    Full,
    /// Tokens ran out again and again.
    Late,
    /// The time is over, or nearly.
    Over,
    /// The kernel refused something else.
    Refused {
        /// What was attempted.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    fn of(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| match code(&source) {
            Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
                Error::Unsupported(source)
            }
            Some(Errno::ENOENT) => Error::Lost,
            // Another program was quicker.
            Some(Errno::EEXIST) => Error::Foreign,
            Some(Errno::ENFILE) => Error::Full,
            _ => Error::Refused { what, source },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unsupported(_) => f.write_str(
                "this kernel has no nf_tables for ARP: load its module (OpenWrt: install kmod-nft-arp)",
            ),
            Error::Foreign => f.write_str(
                "there is a table `arp wmgwd` or `ip6 wmgwd` that wmgwd did not make: it is left alone; run: nft delete table arp wmgwd; nft delete table ip6 wmgwd",
            ),
            Error::Shared(other) => write!(
                f,
                "a wmgwd named {other} runs on this host, or its guard does, and has another lease: stop it"
            ),
            Error::Lost => f.write_str("the table `arp wmgwd` is gone"),
            Error::Full => write!(
                f,
                "the set `owned` of the table `arp wmgwd` is full: it takes {} bridges",
                table::ROOM
            ),
            Error::Late => write!(
                f,
                "{TRIES} grants in a row took longer than {TOKEN:?}, or an eighth of their time: this host is overloaded"
            ),
            Error::Over => f.write_str("the lease is over"),
            Error::Refused { what, .. } => {
                write!(f, "cannot {what} `arp wmgwd` of nf_tables")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unsupported(source) | Error::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
