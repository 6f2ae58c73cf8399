//! The socket to nf_tables: sends batches and questions, and reads the answers. Decides nothing.

use super::Channel;
use super::table;
use super::wire::{self, Batch, Dump, Verdict, take_dump, verdicts};
use crate::host::netlink::DATAGRAM;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, send, setsockopt, socket,
    sockopt::{RcvBufForce, ReceiveTimeout, SndBufForce},
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// NFNLGRP_NFTABLES as a bit of the mask, from Linux's include/uapi/linux/netfilter/nfnetlink.h.
const GROUP: u32 = 1 << (7 - 1);
/// What a batch may take in the kernel, in bytes: as many names as `owned` has room for. Used only while there are
/// such.
const LARGEST: usize = 16 << 20;
/// What the kernel may hold back of what it tells, in bytes.
const HELD_BACK: usize = 1 << 20;
/// How often a list is asked for that something else on this host changes all the time.
const TRIES: usize = 5;
/// How long an answer may take, in seconds: the kernel writes the first part of it within the call that asks.
const PATIENCE: i64 = 5;

/// A socket to the nf_tables of this process's network namespace.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    datagram: Vec<u8>,
    /// The number of the next message: what is left of an answer that was given up is not taken for the next.
    next: u32,
}

impl Socket {
    /// Opens one. Loads the kernel's module if need be.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` if the kernel has no nfnetlink.
    pub fn open() -> io::Result<Socket> {
        let socket = Socket::with(SockFlag::empty())?;
        // Without it large batches are refused (EMSGSIZE), and sent in parts.
        let _ = setsockopt(&socket.socket, SndBufForce, &LARGEST);
        setsockopt(&socket.socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        bind(socket.socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(socket)
    }

    fn with(flags: SockFlag) -> io::Result<Socket> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | flags,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Socket {
            socket,
            datagram: vec![0; DATAGRAM],
            next: 1,
        })
    }

    fn receive(&mut self, flags: MsgFlags) -> nix::Result<&[u8]> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.datagram, flags) {
                Ok(length) => return Ok(&self.datagram[..length]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn dump(&mut self, question: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let bytes = wire::numbered(question, number);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        // One answer, without an end, to a question that is not for a list.
        let is_single = !wire::is_for_list(question);
        let mut found = Vec::new();
        loop {
            let datagram = self
                .receive(MsgFlags::empty())
                .map_err(|errno| match errno {
                    Errno::EAGAIN => Errno::ETIMEDOUT,
                    errno => errno,
                })?;
            match take_dump(datagram, number, &mut found) {
                Dump::More if !is_single || found.is_empty() => {}
                Dump::More | Dump::Done => return Ok(Some(found)),
                Dump::Torn => return Ok(None),
                Dump::Refused(code) => return Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

impl Channel for Socket {
    fn transact(&mut self, batch: Batch) -> io::Result<()> {
        let first = self.next;
        let (bytes, last) = batch.finish(first);
        // One more message ends the batch.
        self.next = last.wrapping_add(2);
        let is_of_batch = |number: u32| number.wrapping_sub(first) <= last.wrapping_sub(first) + 1;
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        // The kernel works through a batch within the call that sends it: all that it says is there by now.
        let mut outcome = None;
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(datagram) => {
                    for verdict in verdicts(datagram) {
                        match verdict {
                            Verdict::Refused(number, code) if is_of_batch(number) => {
                                outcome.get_or_insert(Err(code));
                            }
                            Verdict::Accepted(number) if number == last => {
                                outcome.get_or_insert(Ok(()));
                            }
                            _ => {}
                        }
                    }
                }
                Err(Errno::EAGAIN) => break,
                // More refusals than there is room for.
                Err(errno) => {
                    outcome.get_or_insert(Err(errno as i32));
                }
            }
        }
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(code)) => Err(io::Error::from_raw_os_error(code)),
            None => Err(Errno::EPROTO.into()),
        }
    }

    fn ask(&mut self, question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..TRIES {
            if let Some(found) = self.dump(question)? {
                return Ok(found);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn port(&self) -> u32 {
        getsockname::<NetlinkAddr>(self.socket.as_raw_fd()).map_or(0, |it| it.pid())
    }
}

/// Hears of what changes in nf_tables.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub fn open() -> io::Result<Watch> {
        let socket = Socket::with(SockFlag::SOCK_NONBLOCK)?;
        let _ = setsockopt(&socket.socket, RcvBufForce, &HELD_BACK);
        bind(socket.socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Watch(socket))
    }

    /// Whether what was told since the last look is about wmgwd's table, or may be: some of it may be lost. The names in it
    /// change all the time, through the socket at the port `own`.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn look(&mut self, own: u32) -> io::Result<bool> {
        let mut concerns = false;
        loop {
            match self.0.receive(MsgFlags::empty()) {
                Ok(datagram) => concerns |= table::concerns(datagram, own),
                Err(Errno::EAGAIN) => return Ok(concerns),
                Err(Errno::ENOBUFS) => concerns = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Watch {
    /// Readable when there is something to look at (poll(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}
