//! What the kernel tells when traffic may have lost its way: a link changed, a route was lost, or zebra took a remote
//! VTEP or MAC address out of a bridge. Free while nothing of that happens.

use super::links::{RTMGRP_IPV4_ROUTE, RTMGRP_LINK, subscribe};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// A multicast group, message types and the place of the family in an ndmsg, from Linux's
/// include/uapi/linux/rtnetlink.h and neighbour.h.
const RTMGRP_NEIGH: u32 = 4;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NDM_FAMILY: u32 = 16;

/// A socket that the kernel tells of such changes.
#[derive(Debug)]
pub struct News(OwnedFd);

impl News {
    /// From now on.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open() -> io::Result<News> {
        let socket = subscribe(RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_NEIGH)?;
        attach(&socket)?;
        Ok(News(socket))
    }

    /// Waits for the next change, for at most `pause`. Returns whether there was one.
    pub fn wait(&self, pause: Duration) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Drops what has been told so far.
    pub fn clear(&self) {
        let mut part = [0; 8 << 10];
        // (That messages were lost, ENOBUFS, is told once.)
        while !matches!(
            recv(self.0.as_raw_fd(), &mut part, MsgFlags::empty()),
            Err(error) if error != Errno::ENOBUFS && error != Errno::EINTR
        ) {}
    }
}

/// Has the kernel drop messages that would wake this process for nothing: what the neighbour table says of stations
/// changes many times a second. A classic BPF program, as packet sockets have it (Documentation/networking/filter.rst).
#[allow(unsafe_code)]
fn attach(socket: &OwnedFd) -> io::Result<()> {
    let mut program = filter();
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or_default();
    // SAFETY: SO_ATTACH_FILTER reads one `sock_fprog` of that length, and the instructions that it points to
    // (socket(7)); both outlive the call, and the kernel copies them.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    Ok(Errno::result(answer).map(drop)?)
}

/// Keeps all but new routes, and of the neighbours only forwarding entries that are gone.
fn filter() -> [libc::sock_filter; 8] {
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, value: u32, yes: u8, no: u8| libc::sock_filter {
        // (All codes are below 0x100.)
        code: code as u16,
        jt: yes,
        jf: no,
        k: value,
    };
    // The program loads in network byte order, and the type is in that of the host.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    [
        step(LOAD_HALF, 4, 0, 0),
        step(IF_EQUAL, kind(RTM_NEWROUTE), 4, 0),
        step(IF_EQUAL, kind(RTM_NEWNEIGH), 3, 0),
        step(IF_EQUAL, kind(RTM_DELNEIGH), 0, 3),
        step(LOAD_BYTE, NDM_FAMILY, 0, 0),
        step(IF_EQUAL, libc::AF_BRIDGE as u32, 1, 0),
        step(RETURN, 0, 0, 0),
        step(RETURN, u32::MAX, 0, 0),
    ]
}
