//! Whether this network namespace has rules of netfilter, without changing or loading anything.

use super::netlink::{DATAGRAM, DUMP, NLMSG_DONE, NLMSG_ERROR, message, messages, refusal};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::os::fd::AsRawFd;

/// From Linux's include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h: NFNL_SUBSYS_NFTABLES in the upper byte,
/// NFT_MSG_NEWTABLE and NFT_MSG_GETTABLE in the lower one.
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = 10 << 8 | 1;
/// The length of an nfgenmsg in bytes; all zero asks for every family.
const NFGENMSG: usize = 4;

/// Whether nftables has tables, also those of `iptables-nft`.
///
/// # Errors
/// The kernel refused, as it does without CAP_NET_ADMIN.
pub fn has_tables() -> io::Result<bool> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    );
    let socket = match socket {
        // A kernel without nfnetlink has no nftables.
        Err(Errno::EPROTONOSUPPORT) => return Ok(false),
        socket => socket?,
    };
    let request = message(GET_TABLE, DUMP, &[0; NFGENMSG]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM];
    let length = recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
    for (kind, message) in messages(&datagram[..length]) {
        match kind {
            NEW_TABLE => return Ok(true),
            NLMSG_DONE => break,
            NLMSG_ERROR => {
                let error = refusal(message);
                // nfnetlink is there, and nftables is not.
                return match error.raw_os_error() {
                    Some(0 | nix::libc::EINVAL | nix::libc::EOPNOTSUPP) => Ok(false),
                    _ => Err(error),
                };
            }
            _ => {}
        }
    }
    Ok(false)
}
