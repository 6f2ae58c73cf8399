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
//! [`wire`] and [`table`] are pure, [`socket`] talks to the kernel. The daemon makes the table and says which
//! bridges are in it; the guard, which knows how long the lease holds, grants.

pub mod socket;
pub mod table;
pub mod wire;

use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;
use table::Set;
use wire::Batch;

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
        /// The bridges in it.
        names: Vec<String>,
    },
}

/// The table `arp wmgwd`.
pub struct KernelLease {
    channel: Box<dyn Channel>,
    /// The key of the last token.
    token: u32,
    /// How the kernel knows the table, once it was found to be wmgwd's, or made.
    handle: Option<u64>,
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
        }
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
        self.handle = None;
        let Some(found) = self.ask_table()? else {
            return Ok(Found::Absent);
        };
        let sets = self.look(&table::ask_sets())?;
        let is_whole = table::has_no_flags(&found)
            && table::has_sets(&sets)
            && table::has_chain(&self.look(&table::ask_chains())?)
            && table::has_rules(&self.look(&table::ask_rules())?);
        // Linux before 5.10 keeps no comment: then it is wmgwd's if nothing about it differs.
        if !is_whole && !table::has_comment(&found) {
            return Ok(Found::Foreign);
        }
        self.handle = table::handle(&found);
        if !is_whole {
            return Ok(Found::Damaged);
        }
        Ok(Found::Whole {
            left: table::lease_left(&self.look(&table::ask_elements(Set::Lease))?),
            names: table::names(&self.look(&table::ask_elements(Set::Owned))?),
        })
    }

    /// What the kernel tells of the table of that name; `None` if there is none.
    fn ask_table(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.channel.ask(&table::ask_table()) {
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

    /// Makes the table, with these names in it, in the place of what was found there.
    ///
    /// # Errors
    /// The kernel refused; or the table is [foreign](Error::Foreign).
    pub fn make(&mut self, found: &Found, names: &[String]) -> Result<(), Error> {
        let mut batch = Batch::default();
        match (found, self.handle) {
            (Found::Foreign, _) => return Err(Error::Foreign),
            (Found::Damaged | Found::Whole { .. }, Some(handle)) => {
                table::remove(&mut batch, handle);
            }
            _ => {}
        }
        table::make(&mut batch);
        table::add_names(&mut batch, names);
        self.channel.transact(batch).map_err(|error| {
            match code(&error) {
                // A part of nf_tables, and not of the table.
                Some(Errno::ENOENT) => Error::Unsupported(error),
                _ => Error::of("make the table")(error),
            }
        })?;
        // Without it the table is looked for when it is to go.
        let made = self.ask_table().ok().flatten();
        self.handle = made.and_then(|found| table::handle(&found));
        Ok(())
    }

    /// Whether this kernel can have the table. Nothing is made.
    ///
    /// # Errors
    /// The kernel lacks something, or refused.
    pub fn try_to_make(&mut self) -> Result<(), Error> {
        let mut batch = Batch::default();
        table::try_to_make(&mut batch);
        match self.channel.transact(batch) {
            Err(error) if code(&error) == Some(Errno::EEXIST) => Ok(()),
            Err(error) if code(&error) == Some(Errno::ENOENT) => Err(Error::Unsupported(error)),
            outcome => outcome.map_err(Error::of("make the table")),
        }
    }

    /// Removes the table that [`KernelLease::find`] found to be wmgwd's, or [`KernelLease::make`] made: without a look,
    /// which fails while something else on this host goes on changing nf_tables. Says whether there was one.
    ///
    /// # Errors
    /// The kernel refused. Then this can be called again.
    pub fn remove_own(&mut self) -> Result<bool, Error> {
        let Some(handle) = self.handle else {
            return self.remove();
        };
        let mut batch = Batch::default();
        table::remove(&mut batch, handle);
        let is_removed = match self.transact(batch, "remove the table") {
            Ok(()) => true,
            Err(Error::Lost) => false,
            Err(error) => return Err(error),
        };
        self.handle = None;
        Ok(is_removed)
    }

    /// Removes the table, if it is wmgwd's; returns whether there was one.
    ///
    /// # Errors
    /// The kernel refused; or the table is [foreign](Error::Foreign).
    pub fn remove(&mut self) -> Result<bool, Error> {
        match (self.find()?, self.handle) {
            (Found::Foreign, _) => Err(Error::Foreign),
            (Found::Damaged | Found::Whole { .. }, Some(_)) => self.remove_own(),
            _ => Ok(false),
        }
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
        change: fn(&mut Batch, &[String]),
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        change(&mut batch, names);
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
            table::put_token(&mut batch, token, runs);
            self.transact(batch, GRANT)?;
            // The token began to run out before that.
            let begun = clock::now();
            let lasts = end.since(begun).saturating_sub(runs);
            if lasts.as_millis() == 0 {
                return Err(Error::Over);
            }
            let mut batch = Batch::default();
            table::grant(&mut batch, token, lasts);
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
        let mut batch = Batch::default();
        table::empty(&mut batch, Set::Lease);
        self.transact(batch, "end the lease")
    }

    fn transact(&mut self, batch: Batch, what: &'static str) -> Result<(), Error> {
        self.channel.transact(batch).map_err(Error::of(what))
    }
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
                "there is a table `arp wmgwd` that wmgwd did not make: it is left alone; run: nft delete table arp wmgwd",
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
