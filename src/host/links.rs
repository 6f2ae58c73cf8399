//! Keeps the [`LinkTable`] of this host: looks at the kernel's links once, and then follows what it tells.
//!
//! [`Bridges`] is shared by all who ask for a VNI's bridge. [`LinkWatch`] owns one route netlink socket
//! (rtnetlink(7)) that the kernel tells about links: free while nothing happens.

use super::bridges::{Bridge, Change, LinkTable};
use super::interfaces::{Interface, LinkEvent, link_events, read, request, request_for};
use super::netlink::{DATAGRAM, NLMSG_DONE, NLMSG_ERROR, RTM_NEWLINK, messages, refusal};
use crate::model::types::{Vni, VniRange};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt::RcvBufForce,
};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Multicast groups of links, addresses and routes, from Linux's include/uapi/linux/rtnetlink.h.
pub(super) const RTMGRP_LINK: u32 = 1;
pub(super) const RTMGRP_IPV4_IFADDR: u32 = 0x10;
pub(super) const RTMGRP_IPV4_ROUTE: u32 = 0x40;
pub(super) const RTMGRP_IPV6_IFADDR: u32 = 0x100;
/// The room for messages that wait in the kernel, in bytes: some thousand messages. It is used only while there are
/// such.
const BUFFER: usize = 8 << 20;

/// All interfaces of this process's network namespace. Takes the kernel about 10 us for each (Linux 6.18).
///
/// # Errors
/// The kernel refused.
pub fn dump() -> io::Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    dump_each(&request(), RTM_NEWLINK, &mut |message| {
        interfaces.extend(read(message));
    })?;
    Ok(interfaces)
}

/// A route netlink socket, rtnetlink(7).
///
/// # Errors
/// The kernel refused.
pub(super) fn route_socket() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    Ok(socket)
}

/// A socket that is readable, without blocking, when the kernel tells of a change in one of these multicast groups,
/// which are from Linux's include/uapi/linux/rtnetlink.h.
///
/// # Errors
/// The kernel refused.
pub(super) fn subscribe(groups: u32) -> io::Result<OwnedFd> {
    let socket = route_socket()?;
    fcntl(socket.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Sends the kernel `request`, which is for a dump, and gives each message of type `wanted` to `each`.
///
/// # Errors
/// The kernel refused.
pub(super) fn dump_each(
    request: &[u8],
    wanted: u16,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let socket = route_socket()?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        for (kind, message) in messages(&datagram[..length]) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(refusal(message)),
                kind if kind == wanted => each(message),
                _ => {}
            }
        }
    }
}

/// The interface of that name in this process's network namespace; `None` if there is none.
///
/// # Errors
/// The kernel refused.
pub fn find(name: &str) -> io::Result<Option<Interface>> {
    let socket = route_socket()?;
    send(socket.as_raw_fd(), &request_for(name), MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    match messages(&datagram[..length]).next() {
        Some((RTM_NEWLINK, message)) => Ok(read(message)),
        Some((NLMSG_ERROR, message)) => match refusal(message) {
            error if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The name of an interface of this process's network namespace, by its index; `None` if it is gone.
///
/// # Errors
/// The kernel refused to tell.
#[allow(unsafe_code)]
pub fn name_of(index: u32) -> io::Result<Option<String>> {
    let mut name = [0; libc::IF_NAMESIZE];
    // nix's function of this name does not notice that the C library found none (0.31), and tells an empty name.
    // SAFETY: `name` has room for the longest name and its end, if_indextoname(3).
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return match Errno::last() {
            Errno::ENXIO | Errno::ENODEV => Ok(None),
            errno => Err(errno.into()),
        };
    }
    // Any bytes but a slash and white space are a name; those of bridges of VNIs are text.
    let bytes = name.map(|it| it.to_ne_bytes()[0]);
    let length = bytes.iter().position(|it| *it == 0);
    let bytes = &bytes[..length.unwrap_or(bytes.len())];
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// The bridges of this process's network namespace. Clones share one table.
#[derive(Clone, Debug, Default)]
pub struct Bridges {
    /// `None` before the first look.
    table: Arc<Mutex<Option<LinkTable>>>,
    /// A [`LinkWatch`] keeps it up to date.
    followed: Arc<AtomicBool>,
}

impl Bridges {
    /// What is under the name `br<VNI>`, and the indices of the bridges that carry the VNI and wmgwd's mark under
    /// another name. The first call looks at all links.
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn find(&self, vni: Vni) -> io::Result<(Bridge, Vec<u32>)> {
        self.ask(|table| (table.bridge(vni), table.strays(vni)))
    }

    /// The indices of the bridges of these VNIs, also of those that carry wmgwd's mark under another name.
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn indices(&self, vnis: &[Vni]) -> io::Result<BTreeSet<u32>> {
        self.ask(|table| vnis.iter().flat_map(|vni| table.indices(*vni)).collect())
    }

    /// The VNIs of `range` that have a bridge, under `br<VNI>` or, if marked, another name.
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn vnis(&self, range: VniRange) -> io::Result<BTreeSet<Vni>> {
        self.ask(|table| table.vnis(range))
    }

    /// The VNIs of `range` whose bridge's name an interface of the host's own has.
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn foreign(&self, range: VniRange) -> io::Result<BTreeSet<Vni>> {
        self.ask(|table| table.foreign(range))
    }

    /// Looks at all links anew; returns what changed since the last look.
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn reload(&self) -> io::Result<Vec<Change>> {
        // Without the lock: who fences must not wait for the kernel's list of thousands of links.
        let fresh = LinkTable::new(dump()?);
        let mut table = self.table();
        let changes = match &*table {
            Some(old) => fresh.changes_since(old),
            None => Vec::new(),
        };
        let old = table.replace(fresh);
        drop(table);
        drop(old);
        Ok(changes)
    }

    /// Takes in what the kernel told; returns what changed.
    pub fn update(&self, events: Vec<LinkEvent>) -> Vec<Change> {
        match &mut *self.table() {
            Some(table) => events.into_iter().flat_map(|it| table.update(it)).collect(),
            None => Vec::new(),
        }
    }

    /// See [`LinkTable::arp_ignore`].
    ///
    /// # Errors
    /// The kernel refused to tell.
    pub fn arp_ignore(&self, range: VniRange) -> io::Result<Vec<(Vni, u32)>> {
        self.ask(|table| table.arp_ignore(range))
    }

    /// Whether a [`LinkWatch`] keeps the table up to date.
    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    fn ask<T>(&self, question: impl Fn(&LinkTable) -> T) -> io::Result<T> {
        if let Some(table) = &*self.table() {
            return Ok(question(table));
        }
        self.reload()?;
        Ok(question(
            self.table().as_ref().unwrap_or(&LinkTable::default()),
        ))
    }

    fn table(&self) -> MutexGuard<'_, Option<LinkTable>> {
        self.table
            .lock()
            .expect("a thread that panics takes the process with it")
    }
}

/// Follows the links of this process's network namespace.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
    bridges: Bridges,
    datagram: Vec<u8>,
}

impl LinkWatch {
    /// Begins to watch, and looks at all links. From then on `bridges` is kept up to date by
    /// [`LinkWatch::changes`]. Returns also what has changed since `bridges` looked at them, if it did.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open(bridges: Bridges) -> io::Result<(LinkWatch, Vec<Change>)> {
        LinkWatch::with_buffer(bridges, BUFFER)
    }

    /// As [`LinkWatch::open`], with room for messages of so many bytes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn with_buffer(bridges: Bridges, bytes: usize) -> io::Result<(LinkWatch, Vec<Change>)> {
        let socket = subscribe(RTMGRP_LINK)?;
        // Needs CAP_NET_ADMIN. With less room messages are lost sooner, which is noticed.
        let _ = setsockopt(&socket, RcvBufForce, &bytes);
        let changes = bridges.reload()?;
        bridges.followed.store(true, Ordering::Relaxed);
        let watch = LinkWatch {
            socket,
            bridges,
            datagram: vec![0; DATAGRAM],
        };
        Ok((watch, changes))
    }

    /// What changed since the last look. Waits for nothing but, after messages were lost, the list of all links.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut lost = false;
        loop {
            let length = match recv(
                self.socket.as_raw_fd(),
                &mut self.datagram,
                MsgFlags::empty(),
            ) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            changes.extend(self.bridges.update(link_events(&self.datagram[..length])));
        }
        if lost {
            changes.extend(self.bridges.reload()?);
        }
        Ok(changes)
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.bridges.followed.store(false, Ordering::Relaxed);
    }
}

impl AsFd for LinkWatch {
    /// Readable when there is something to look at (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
