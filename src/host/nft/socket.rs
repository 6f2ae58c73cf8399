//! The socket to nf_tables: sends batches and questions, and reads the answers. Decides nothing.

use super::Channel;
use super::wire::{Batch, Dump, Verdict, take_dump, verdicts};
use crate::host::netlink::DATAGRAM;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket,
    sockopt::{RcvBufForce, SndBufForce},
};
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

/// A socket to the nf_tables of this process's network namespace.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    datagram: Vec<u8>,
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
        send(self.socket.as_raw_fd(), question, MsgFlags::empty())?;
        // One answer, without an end, to a question that is not for a list.
        let is_single = question.get(7) == Some(&0);
        let mut found = Vec::new();
        loop {
            match take_dump(self.receive(MsgFlags::empty())?, &mut found) {
                Dump::More if !is_single => {}
                Dump::More | Dump::Done => return Ok(Some(found)),
                Dump::Torn => return Ok(None),
                Dump::Refused(code) => return Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

impl Channel for Socket {
    fn transact(&mut self, batch: Batch) -> io::Result<()> {
        let (bytes, last) = batch.finish();
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        // The kernel works through a batch within the call that sends it: all that it says is there by now.
        let mut outcome = None;
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(datagram) => {
                    for verdict in verdicts(datagram) {
                        match verdict {
                            Verdict::Refused(_, code) => {
                                outcome.get_or_insert(Err(code));
                            }
                            Verdict::Accepted(number) if number == last => {
                                outcome.get_or_insert(Ok(()));
                            }
                            Verdict::Accepted(_) => {}
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

    /// Whether what was told since the last look is about wmgwd's table, or may be: some of it may be lost.
    ///
    /// # Errors
    /// The socket broke; open another.
    pub fn look(&mut self) -> io::Result<bool> {
        let mut concerns = false;
        loop {
            match self.0.receive(MsgFlags::empty()) {
                Ok(datagram) => concerns |= super::wire::concerns(datagram, super::table::NAME),
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
