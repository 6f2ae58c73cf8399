//! `--announce routes`: an owned VNI is announced upstream by two routes in the kernel for each family, the halves of
//! its bridge's prefix, which FRR redistributes.
//!
//! [`Routes`] makes and deletes them. [`RouteBook`] is what should be there, shared with [`RouteMonitor`], which
//! notices when something else on this host deletes one, or changes a bridge's addresses. Routes of other protocols
//! are never touched.

mod halves;
mod socket;
mod wire;

pub use halves::{Prefix, Route};
pub use wire::PROTOCOL;

use super::bridges::Bridge;
use super::frr::again;
use super::links::{Bridges, name_of};
use super::{Error, RouteChange, RouteFailure};
use crate::model::types::{Vni, VniRange};
use halves::{Address, routes_of};
use nix::errno::Errno;
use socket::{BATCH, RouteNews, RouteSocket};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use wire::{Action, News};

/// The routes that should be in the kernel, by VNI. Clones share one book.
#[derive(Clone, Debug, Default)]
pub struct RouteBook(Arc<Mutex<BTreeMap<Vni, Announced>>>);

/// The routes of one VNI.
#[derive(Clone, Debug, Default)]
struct Announced {
    index: u32,
    routes: BTreeSet<Route>,
    /// They were made ahead of FRR's turn, and are there as far as is known: when that comes, they need not be made
    /// again.
    are_ahead: bool,
}

impl RouteBook {
    /// Whether the VNI is announced.
    pub fn contains(&self, vni: Vni) -> bool {
        self.lock().contains_key(&vni)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vni, Announced>> {
        self.0
            .lock()
            .expect("a thread that panics takes the process with it")
    }

    /// The VNIs that `news` has taken routes from, or whose bridge has other addresses now.
    fn concerned(&self, news: &[News]) -> BTreeSet<Vni> {
        let mut book = self.lock();
        let by_index: BTreeMap<u32, Vni> = book.iter().map(|(vni, it)| (it.index, *vni)).collect();
        let concerned = |news: &News| match news {
            News::Route(_) => None,
            News::RouteGone(route) => {
                let vni = *by_index.get(&route.index)?;
                book.get(&vni)?.routes.contains(route).then_some(vni)
            }
            News::Address(Address { index, .. }) | News::AddressGone(index) => {
                by_index.get(index).copied()
            }
        };
        let concerned: BTreeSet<Vni> = news.iter().filter_map(concerned).collect();
        for vni in &concerned {
            if let Some(announced) = book.get_mut(vni) {
                announced.are_ahead = false;
            }
        }
        concerned
    }

    /// All of them, each of which may have lost routes.
    fn doubt_all(&self) -> Vec<Vni> {
        let mut book = self.lock();
        let doubted = |(vni, announced): (&Vni, &mut Announced)| {
            announced.are_ahead = false;
            *vni
        };
        book.iter_mut().map(doubted).collect()
    }
}

/// Why a route that is to be deleted may not be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It was never made, or another process deleted it: FRR does not announce it.
    NeverMade,
    /// The kernel took it away, perhaps without telling: FRR may go on announcing it.
    Untold,
}

/// What [`Routes::compare`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// VNIs whose routes are not all there, or not of the bridge's addresses.
    pub differing: BTreeSet<Vni>,
    /// Routes of our protocol that no announced VNI needs; they are deleted.
    pub deleted: Vec<Prefix>,
}

/// Makes and deletes the routes of VNIs.
#[derive(Debug)]
pub struct Routes {
    range: VniRange,
    bridges: Bridges,
    book: RouteBook,
    socket: Option<RouteSocket>,
}

impl Routes {
    /// The routes of the VNIs of `range`, in this process's network namespace.
    pub fn new(range: VniRange, bridges: Bridges, book: RouteBook) -> Routes {
        Routes {
            range,
            bridges,
            book,
            socket: None,
        }
    }

    /// Whether the VNI is announced.
    pub fn announces(&self, vni: Vni) -> bool {
        self.book.contains(vni)
    }

    /// Whether the VNI was announced before, and not just ahead of FRR's turn.
    pub fn goes_on_announcing(&self, vni: Vni) -> bool {
        let book = self.book.lock();
        book.get(&vni).is_some_and(|it| !it.are_ahead)
    }

    /// Makes the routes of `changes` ahead of FRR's turn. What fails is found out when that comes. `permit` is asked
    /// before each batch of claims.
    pub fn hasten(&mut self, changes: &[RouteChange], permit: &dyn Fn() -> bool) {
        let (claims, releases): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.claims());
        let vnis = |changes: Vec<&RouteChange>| -> Vec<Vni> {
            changes.into_iter().map(|change| change.vni).collect()
        };
        let (claims, releases) = (vnis(claims), vnis(releases));
        self.withdraw(&releases);
        self.make(&claims, true, permit);
    }

    /// Announces `vnis`, as [`Routes::announce`] does, but for those that [`Routes::hasten`] has just announced.
    pub fn announce_rest(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        let rest: Vec<Vni> = {
            let mut book = self.book.lock();
            let mut is_ahead = |vni: &Vni| {
                let announced = book.get_mut(vni);
                announced.is_some_and(|it| std::mem::take(&mut it.are_ahead))
            };
            vnis.iter().copied().filter(|vni| !is_ahead(vni)).collect()
        };
        self.announce(&rest, permit)
    }

    /// Announces `vnis`. `permit` is asked before each batch. A VNI that fails is not announced at all.
    pub fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        self.make(vnis, false, permit)
    }

    fn make(
        &mut self,
        vnis: &[Vni],
        are_ahead: bool,
        permit: &dyn Fn() -> bool,
    ) -> Vec<RouteFailure> {
        if vnis.is_empty() {
            return Vec::new();
        }
        let addresses = match self.ask(RouteSocket::addresses) {
            Ok(addresses) => addresses,
            Err(error) => return all_failed(vnis, &error),
        };
        let mut failed = BTreeMap::new();
        let mut stale = Vec::new();
        let mut wanted = BTreeMap::new();
        let mut before = BTreeMap::new();
        if !self.bridges.is_followed()
            && let Err(error) = self.bridges.reload()
        {
            return all_failed(vnis, &error);
        }
        for &vni in vnis {
            match self.bridge(vni) {
                Ok(index) => {
                    let routes = routes_of(index, &addresses);
                    if let Some(announced) = self.book.lock().get(&vni).cloned() {
                        stale.extend(announced.routes.difference(&routes));
                        before.insert(vni, announced);
                    }
                    let announced = Announced {
                        index,
                        routes,
                        are_ahead,
                    };
                    wanted.insert(vni, announced);
                }
                Err(error) => drop(failed.insert(vni, error)),
            }
        }
        let owner: BTreeMap<Route, Vni> = wanted
            .iter()
            .flat_map(|(vni, it)| it.routes.iter().map(|route| (*route, *vni)))
            .collect();
        // Before the kernel tells of it, so that a deletion meanwhile is noticed.
        self.book.lock().extend(wanted);
        let outcome = self.delete(&stale, Absent::Untold);
        self.add(&owner, outcome, permit, &mut failed);
        // A proof that is lost for a moment makes nothing, and takes nothing away: the guard withdraws what it must.
        let is_kept = |(vni, error): (&Vni, &Error)| {
            let announced = before.get(vni).cloned();
            announced
                .filter(|_| matches!(error, Error::NotPermitted))
                .map(|it| (*vni, it))
        };
        let kept: BTreeMap<Vni, Announced> = failed.iter().filter_map(is_kept).collect();
        let of_others = |vni: &&Vni| !kept.contains_key(vni);
        let took_back: Vec<Vni> = failed.keys().filter(of_others).copied().collect();
        let added: Vec<Route> = owner
            .iter()
            .filter(|(route, vni)| {
                let announced = kept.get(vni);
                announced.is_some_and(|it| !it.routes.contains(route))
            })
            .map(|(route, _)| *route)
            .collect();
        self.book.lock().extend(kept);
        // What was made of a VNI that failed; what cannot be deleted now is found by the next comparison.
        let _ = self.delete(&added, Absent::NeverMade);
        let _ = self.take_back(&took_back, Absent::NeverMade);
        failed
            .into_iter()
            .map(|(vni, error)| RouteFailure { vni, error })
            .collect()
    }

    fn add(
        &mut self,
        owner: &BTreeMap<Route, Vni>,
        mut outcome: io::Result<Vec<(Route, io::Error)>>,
        permit: &dyn Fn() -> bool,
        failed: &mut BTreeMap<Vni, Error>,
    ) {
        let routes: Vec<Route> = owner.keys().copied().collect();
        let mut there = None;
        for batch in routes.chunks(BATCH) {
            let outcome = std::mem::replace(&mut outcome, Ok(Vec::new()));
            let refused = match (outcome, permit()) {
                (_, false) => Err(Error::NotPermitted),
                (Err(source), _) => Err(Error::Routes { source }),
                (Ok(_), true) => self
                    .change(Action::Add, batch)
                    .map_err(|source| Error::Routes { source }),
            };
            let refused = match refused {
                Ok(refused) => refused,
                Err(error) => {
                    for vni in batch.iter().filter_map(|route| owner.get(route)) {
                        failed.insert(*vni, again(&error));
                    }
                    continue;
                }
            };
            for (route, source) in refused {
                let Some(&vni) = owner.get(&route) else {
                    continue;
                };
                if is(&source, Errno::EEXIST) {
                    let ours = there.get_or_insert_with(|| {
                        let ours = self.ask(RouteSocket::routes).unwrap_or_default();
                        BTreeSet::from_iter(ours)
                    });
                    if ours.contains(&route) {
                        continue;
                    }
                }
                let prefix = route.prefix;
                let bridge = vni.bridge();
                failed.insert(
                    vni,
                    Error::Route {
                        prefix,
                        bridge,
                        source,
                    },
                );
            }
        }
    }

    /// Takes back the announcement of `vnis`.
    pub fn withdraw(&mut self, vnis: &[Vni]) -> Vec<RouteFailure> {
        self.take_back(vnis, Absent::Untold)
    }

    fn take_back(&mut self, vnis: &[Vni], absent: Absent) -> Vec<RouteFailure> {
        let mut owner = BTreeMap::new();
        let taken: Vec<(Vni, Announced)> = {
            let mut book = self.book.lock();
            let take = |vni: &Vni| Some((*vni, book.remove(vni)?));
            vnis.iter().filter_map(take).collect()
        };
        for (vni, announced) in &taken {
            owner.extend(announced.routes.iter().map(|route| (*route, *vni)));
        }
        let routes: Vec<Route> = owner.keys().copied().collect();
        let mut failed = BTreeMap::new();
        match self.delete(&routes, absent) {
            Ok(refused) => {
                for (route, source) in refused {
                    let Some(&vni) = owner.get(&route) else {
                        continue;
                    };
                    let error = Error::Route {
                        prefix: route.prefix,
                        bridge: vni.bridge(),
                        source,
                    };
                    failed.insert(vni, error);
                }
            }
            Err(source) => {
                let error = Error::Routes { source };
                for (vni, _) in &taken {
                    failed.insert(*vni, again(&error));
                }
            }
        }
        let mut book = self.book.lock();
        let still = taken
            .into_iter()
            .filter(|(vni, _)| failed.contains_key(vni));
        // Not over what another thread has announced since.
        for (vni, announced) in still {
            book.entry(vni).or_insert(announced);
        }
        drop(book);
        failed
            .into_iter()
            .map(|(vni, error)| RouteFailure { vni, error })
            .collect()
    }

    /// Deletes every route of our protocol but those of `keep`, and of VNIs outside the range, which another wmgwd of
    /// this host may serve. `permit` is asked before each batch.
    ///
    /// # Errors
    /// The kernel refused, or `permit` said no.
    pub fn keep_only(
        &mut self,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let failed = |source| Error::Routes { source };
        let there = self.ask(RouteSocket::routes).map_err(failed)?;
        let mut kept: BTreeMap<Vni, Announced> = BTreeMap::new();
        let mut strange = Vec::new();
        let mut owners = Owners::default();
        for route in there {
            match owners.of(route.index) {
                Some(vni) if !self.range.contains(vni) => {}
                Some(vni) if keep.contains(&vni) => {
                    let announced = kept.entry(vni).or_default();
                    announced.index = route.index;
                    announced.routes.insert(route);
                }
                _ => strange.push(route),
            }
        }
        *self.book.lock() = kept;
        for batch in strange.chunks(BATCH) {
            if !permit() {
                return Err(Error::NotPermitted);
            }
            if let Some((route, source)) = self
                .delete(batch, Absent::NeverMade)
                .map_err(failed)?
                .into_iter()
                .next()
            {
                return Err(Error::Route {
                    prefix: route.prefix,
                    bridge: interface_name(route.index),
                    source,
                });
            }
        }
        Ok(())
    }

    /// Compares the kernel's routes with what was announced.
    ///
    /// # Errors
    /// The kernel did not tell.
    pub fn compare(&mut self) -> Result<Compared, Error> {
        let failed = |source| Error::Routes { source };
        let addresses = self.ask(RouteSocket::addresses).map_err(failed)?;
        let there = self.ask(RouteSocket::routes).map_err(failed)?;
        let there: BTreeSet<Route> = there.into_iter().collect();
        let mut by_index: BTreeMap<u32, Vec<Address>> = BTreeMap::new();
        for address in addresses {
            by_index.entry(address.index).or_default().push(address);
        }
        let mut compared = Compared::default();
        let mut needed = BTreeSet::new();
        for (vni, announced) in &*self.book.lock() {
            let addresses = by_index
                .get(&announced.index)
                .map_or(&[][..], Vec::as_slice);
            let wanted = routes_of(announced.index, addresses);
            if wanted != announced.routes || !wanted.is_subset(&there) {
                compared.differing.insert(*vni);
            }
            needed.extend(announced.routes.iter().copied());
        }
        let mut owners = Owners::default();
        let is_ours = |route: &&Route| {
            owners
                .of(route.index)
                .is_none_or(|vni| self.range.contains(vni))
        };
        let strange: Vec<Route> = there.difference(&needed).filter(is_ours).copied().collect();
        self.delete(&strange, Absent::NeverMade).map_err(failed)?;
        compared.deleted = strange.iter().map(|route| route.prefix).collect();
        Ok(compared)
    }

    /// The prefixes of the bridges of those of `vnis` that have one.
    ///
    /// # Errors
    /// The kernel did not tell.
    pub fn subnets(&mut self, vnis: &[Vni]) -> Result<Vec<(Vni, Prefix)>, Error> {
        if !self.bridges.is_followed() {
            self.bridges
                .reload()
                .map_err(|source| Error::Links { source })?;
        }
        let by_index: BTreeMap<u32, Vni> = vnis
            .iter()
            .filter_map(|vni| Some((self.bridge(*vni).ok()?, *vni)))
            .collect();
        let addresses = self.ask(RouteSocket::addresses);
        let addresses = addresses.map_err(|source| Error::Routes { source })?;
        let subnet = |it: &Address| Some((*by_index.get(&it.index)?, it.prefix));
        Ok(addresses.iter().filter_map(subnet).collect())
    }

    /// The routes that are announced.
    pub fn announced(&self) -> BTreeSet<Route> {
        let book = self.book.lock();
        book.values()
            .flat_map(|it| it.routes.iter().copied())
            .collect()
    }

    /// Makes announced routes anew, which FRR has missed. `permit` is asked before.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn renew(&mut self, routes: &[Route], permit: &dyn Fn() -> bool) -> Result<(), Error> {
        let failed = |source| Error::Routes { source };
        for batch in routes.chunks(BATCH) {
            if !permit() {
                return Err(Error::NotPermitted);
            }
            self.change(Action::Delete, batch).map_err(failed)?;
            self.change(Action::Add, batch).map_err(failed)?;
            // The worker may have withdrawn some meanwhile.
            let still = self.announced();
            let withdrawn: Vec<Route> = batch
                .iter()
                .filter(|route| !still.contains(route))
                .copied()
                .collect();
            self.delete(&withdrawn, Absent::NeverMade).map_err(failed)?;
        }
        Ok(())
    }

    /// Has FRR forget routes of bridges of ours that it has and the kernel has not; returns how many there were.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget(&mut self, routes: &[(Prefix, String)]) -> Result<usize, Error> {
        let failed = |source| Error::Routes { source };
        let there = self.ask(RouteSocket::routes).map_err(failed)?;
        let there: BTreeSet<Route> = there.into_iter().collect();
        let mut untold = Vec::new();
        for (prefix, name) in routes {
            let vni = name.strip_prefix("br").and_then(|vni| vni.parse().ok());
            let index = vni
                .filter(|vni| self.range.contains(*vni))
                .and_then(|vni| self.bridge(vni).ok());
            let route = index.map(|index| Route {
                prefix: *prefix,
                index,
                source: None,
            });
            untold.extend(route.filter(|route| !there.contains(route)));
        }
        for batch in untold.chunks(BATCH) {
            self.delete_untold(batch).map_err(failed)?;
        }
        Ok(untold.len())
    }

    /// Makes routes and deletes them again: FRR may go on announcing what the kernel took away without telling, when
    /// the last address of a bridge went. `routes` are none that are wanted.
    fn delete_untold(&mut self, routes: &[Route]) -> io::Result<Vec<(Route, io::Error)>> {
        let without_source = |route: &Route| Route {
            source: None,
            ..*route
        };
        let routes: Vec<Route> = routes.iter().map(without_source).collect();
        // A bridge that is gone or down: the kernel did tell.
        self.change(Action::Add, &routes)?;
        self.change(Action::Delete, &routes)
    }

    /// Deletes routes; returns what was refused. `absent` says what it means if one is not there.
    fn delete(&mut self, routes: &[Route], absent: Absent) -> io::Result<Vec<(Route, io::Error)>> {
        let mut refused = Vec::new();
        for batch in routes.chunks(BATCH) {
            let answers = self.change(Action::Delete, batch)?;
            let (untold, rest): (Vec<_>, Vec<_>) = answers
                .into_iter()
                .partition(|(_, error)| is_absence(error));
            refused.extend(rest);
            if absent == Absent::NeverMade {
                continue;
            }
            let untold: Vec<Route> = untold.into_iter().map(|(route, _)| route).collect();
            let answers = self.delete_untold(&untold)?;
            refused.extend(answers.into_iter().filter(|(_, error)| !is_absence(error)));
        }
        Ok(refused)
    }

    fn change(&mut self, action: Action, routes: &[Route]) -> io::Result<Vec<(Route, io::Error)>> {
        let refused = self.ask(|socket| socket.change(action, routes))?;
        let named = |(position, error)| Some((*routes.get(position)?, error));
        Ok(refused.into_iter().filter_map(named).collect())
    }

    /// Asks over the socket, which is opened for it; a socket that failed may hold answers to the question before.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut RouteSocket) -> io::Result<T>,
    ) -> io::Result<T> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(RouteSocket::open()?),
        };
        let answer = question(socket);
        if answer.is_err() {
            self.socket = None;
        }
        answer
    }

    fn bridge(&self, vni: Vni) -> Result<u32, Error> {
        let bridge = vni.bridge();
        let found = self.bridges.find(vni);
        match found.map_err(|source| Error::Links { source })?.0 {
            Bridge::Ours { index, .. } => Ok(index),
            Bridge::Foreign { .. } => Err(Error::Foreign { bridge }),
            Bridge::Absent => Err(Error::NoInterface { bridge }),
        }
    }
}

/// Notices what happens to the routes of announced VNIs.
#[derive(Debug)]
pub struct RouteMonitor {
    book: RouteBook,
    news: RouteNews,
}

impl RouteMonitor {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open(book: RouteBook) -> io::Result<RouteMonitor> {
        let news = RouteNews::open()?;
        Ok(RouteMonitor { book, news })
    }

    /// The announced VNIs that lost a route, or whose bridge has other addresses, since this was asked last. Waits
    /// for nothing.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn lost(&mut self) -> io::Result<Vec<Vni>> {
        Ok(match self.news.take()? {
            Some(news) => self.book.concerned(&news).into_iter().collect(),
            None => self.book.doubt_all(),
        })
    }
}

impl AsFd for RouteMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

/// The VNIs of interfaces by name, each asked for once.
#[derive(Default)]
struct Owners(BTreeMap<u32, Option<Vni>>);

impl Owners {
    fn of(&mut self, index: u32) -> Option<Vni> {
        let find = || interface_name(index).strip_prefix("br")?.parse().ok();
        *self.0.entry(index).or_insert_with(find)
    }
}

/// The name of an interface; empty if it is gone.
fn interface_name(index: u32) -> String {
    name_of(index).ok().flatten().unwrap_or_default()
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// Whether an answer to a deletion says that there is nothing to delete: no such route, or no such interface.
fn is_absence(error: &io::Error) -> bool {
    [Errno::ESRCH, Errno::ENODEV, Errno::ENXIO]
        .into_iter()
        .any(|errno| is(error, errno))
}

fn all_failed(vnis: &[Vni], source: &io::Error) -> Vec<RouteFailure> {
    let error = || Error::Routes {
        source: io::Error::new(source.kind(), source.to_string()),
    };
    vnis.iter()
        .map(|&vni| RouteFailure {
            vni,
            error: error(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Input: news of routes and addresses of an announced VNI, of another interface, of a route that is not ours to
    /// have. Output: only what the announced VNI lost concerns it.
    #[test]
    fn news_concern_the_vni_they_take_from() {
        let vni = Vni::new(7).unwrap();
        let prefix = |text: [u8; 4]| Prefix::new(text.into(), 25).unwrap();
        let route = |prefix, index| Route {
            prefix,
            index,
            source: None,
        };
        let half = prefix([10, 64, 7, 0]);
        let book = RouteBook::default();
        let routes = BTreeSet::from([route(half, 77)]);
        let announced = Announced {
            index: 77,
            routes,
            are_ahead: true,
        };
        book.lock().insert(vni, announced);
        let concerned = |news| book.concerned(&[news]).into_iter().next();
        assert_eq!(concerned(News::RouteGone(route(half, 77))), Some(vni));
        assert_eq!(concerned(News::Route(route(half, 77))), None);
        assert_eq!(concerned(News::RouteGone(route(half, 78))), None);
        let other = prefix([10, 64, 7, 128]);
        assert_eq!(concerned(News::RouteGone(route(other, 77))), None);
        assert_eq!(concerned(News::AddressGone(77)), Some(vni));
        assert_eq!(concerned(News::AddressGone(78)), None);
    }
}
