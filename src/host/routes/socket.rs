//! The kernel's routes and addresses, asked for and changed over one route netlink socket (rtnetlink(7)).

use super::halves::{Address, Route};
use super::wire::{
    Action, Family, News, acknowledgements, addresses_request, change, is_interrupted, news,
    routes_request,
};
use crate::host::links::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR};
use crate::host::netlink::{DATAGRAM, NLMSG_DONE, NLMSG_ERROR, messages, number, refusal};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt::RcvBufForce,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many changes go to the kernel at once. It answers each before the call returns.
pub const BATCH: usize = 256;
/// Room for the answers to a batch, each about 1 kB with the kernel's bookkeeping.
const ANSWERS: usize = 1 << 20;
/// Room for what the kernel tells without being asked.
const NEWS: usize = 8 << 20;
/// How often a list is asked for that changes while it is told.
const TRIES: usize = 5;
/// A multicast group, from Linux's include/uapi/linux/rtnetlink.h.
const RTMGRP_IPV6_ROUTE: u32 = 0x400;
/// The IPv6 addresses of this network namespace; not there if the kernel has no IPv6.
const HAS_IPV6: &str = "/proc/net/if_inet6";

/// What becomes of a list that changed each time it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unsettled {
    /// It is an error.
    Refuse,
    /// What any of the lists had counts.
    Accept,
}

/// Asks and changes.
#[derive(Debug)]
pub struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
    datagram: Vec<u8>,
}

impl RouteSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open() -> io::Result<RouteSocket> {
        let socket = open(ANSWERS)?;
        only_what_is_asked_for(&socket);
        Ok(RouteSocket {
            socket,
            sequence: 0,
            datagram: vec![0; DATAGRAM],
        })
    }

    /// The routes of ours.
    ///
    /// # Errors
    /// The kernel refused, or they change all the time.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let route = |it| match it {
            News::Route(route) => Some(route),
            _ => None,
        };
        self.dump(routes_request, route, Unsettled::Refuse)
    }

    /// The addresses of all interfaces, but for those of IPv6 that the kernel made. Where addresses or devices change all
    /// the time (the kernel calls each list interrupted then, `inet_base_seq` of its net/ipv4/devinet.c): those of any of
    /// the lists, as a VNI's own addresses hardly change just then. What is wrong is found by the next comparison.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let address = |it| match it {
            News::Address(address) => Some(address),
            _ => None,
        };
        self.dump(addresses_request, address, Unsettled::Accept)
    }

    fn dump<T>(
        &mut self,
        request: fn(Family, u32) -> Vec<u8>,
        pick: impl Fn(News) -> Option<T>,
        unsettled: Unsettled,
    ) -> io::Result<Vec<T>> {
        let mut found = self.dump_of(Family::V4, request, &pick, unsettled)?;
        if Path::new(HAS_IPV6).exists() {
            found.extend(self.dump_of(Family::V6, request, &pick, unsettled)?);
        }
        Ok(found)
    }

    fn dump_of<T>(
        &mut self,
        family: Family,
        request: fn(Family, u32) -> Vec<u8>,
        pick: &impl Fn(News) -> Option<T>,
        unsettled: Unsettled,
    ) -> io::Result<Vec<T>> {
        let mut of_all_tries = Vec::new();
        for _ in 0..TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            send(
                self.socket.as_raw_fd(),
                &request(family, self.sequence),
                MsgFlags::empty(),
            )?;
            let mut found = Vec::new();
            let mut interrupted = false;
            loop {
                let length = self.receive(MsgFlags::empty())?;
                let datagram = &self.datagram[..length];
                interrupted |= is_interrupted(datagram);
                found.extend(news(datagram).into_iter().filter_map(pick));
                let end =
                    messages(datagram).find(|(kind, _)| [NLMSG_DONE, NLMSG_ERROR].contains(kind));
                match end {
                    None => {}
                    // The kernel ends a dump that went wrong with the error in NLMSG_DONE.
                    Some((_, message)) => match number(message, 0).map(i32::from_ne_bytes) {
                        None | Some(0) => break,
                        Some(_) => return Err(refusal(message)),
                    },
                }
            }
            if !interrupted {
                return Ok(found);
            }
            of_all_tries.extend(found);
        }
        if unsettled == Unsettled::Accept {
            return Ok(of_all_tries);
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the list changes while the kernel tells it",
        ))
    }

    /// Makes `changes`, at most [`BATCH`]; returns the refusal of each that was refused, by position.
    ///
    /// # Errors
    /// The kernel did not take them, or its answers were lost: some changes may have been made.
    pub fn change(
        &mut self,
        action: Action,
        routes: &[Route],
    ) -> io::Result<Vec<(usize, io::Error)>> {
        if routes.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for route in routes {
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend(change(action, route, self.sequence));
        }
        send(self.socket.as_raw_fd(), &datagram, MsgFlags::empty())?;
        let mut missing = routes.len();
        let mut refused = Vec::new();
        while missing > 0 {
            // The answers are there when send(2) returns; if not, they are lost.
            let length = self.receive(MsgFlags::MSG_DONTWAIT)?;
            for (sequence, refusal) in acknowledgements(&self.datagram[..length]) {
                let position = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if position < routes.len() {
                    missing = missing.saturating_sub(1);
                    refused.extend(refusal.map(|refusal| (position, refusal)));
                }
            }
        }
        Ok(refused)
    }

    fn receive(&mut self, flags: MsgFlags) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.datagram, flags) {
                Err(Errno::EINTR) => {}
                received => return Ok(received?),
            }
        }
    }
}

/// Hears of changes of routes and addresses, whoever makes them.
#[derive(Debug)]
pub struct RouteNews {
    socket: OwnedFd,
    datagram: Vec<u8>,
}

impl RouteNews {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open() -> io::Result<RouteNews> {
        let socket = open(NEWS)?;
        let groups = [
            RTMGRP_IPV4_IFADDR,
            RTMGRP_IPV4_ROUTE,
            RTMGRP_IPV6_IFADDR,
            RTMGRP_IPV6_ROUTE,
        ];
        let all = groups.iter().fold(0, |all, group| all | group);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, all))?;
        Ok(RouteNews {
            socket,
            datagram: vec![0; DATAGRAM],
        })
    }

    /// What happened since the last call; `None` if so much that some of it was lost. Waits for nothing.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn take(&mut self) -> io::Result<Option<Vec<News>>> {
        let mut told = Some(Vec::new());
        loop {
            let flags = MsgFlags::MSG_DONTWAIT;
            match recv(self.socket.as_raw_fd(), &mut self.datagram, flags) {
                Ok(length) => {
                    if let Some(told) = &mut told {
                        told.extend(news(&self.datagram[..length]));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(told),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => told = None,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for RouteNews {
    /// Readable when there is something to take (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(room: usize) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    // Needs CAP_NET_ADMIN. With less room messages are lost sooner, which is noticed.
    let _ = setsockopt(&socket, RcvBufForce, &room);
    Ok(socket)
}

/// Has the kernel tell the routes of one protocol where only those are asked for: of 40 000 routes it would otherwise
/// tell all. Kernels before 4.20 do, and the others' are stepped over.
#[allow(unsafe_code)]
fn only_what_is_asked_for(socket: &OwnedFd) {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: NETLINK_GET_STRICT_CHK (netlink(7)) reads an int of `size` bytes, which `on` is and which outlives the
    // call.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_GET_STRICT_CHK,
            std::ptr::from_ref(&on).cast(),
            size,
        )
    };
}
