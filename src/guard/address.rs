//! Where the guard of one node listens, and who may speak to it.

use crate::model::types::NodeName;
use crate::sys::clock;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, geteuid};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread::sleep;
use std::time::Duration;

/// How long the queue of a listener may stay full.
const QUEUE: Duration = Duration::from_secs(1);

/// An abstract Unix socket, so that nothing is left behind and each network namespace has its own (unix(7)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address(String);

impl Address {
    /// The address for the node `name`. A mock node has another for each etcd, so that whole test clusters fit on
    /// one machine.
    pub fn new(name: &NodeName, mock_etcd: Option<&str>) -> Address {
        /// sun_path takes 107 bytes beside the leading zero.
        const LONGEST: usize = 90;
        const KEPT: usize = 70;
        let mut text = match mock_etcd {
            None => format!("wmgwd/{name}"),
            Some(etcd) => format!("wmgwd-mock/{name}/{etcd}"),
        };
        if text.len() > LONGEST {
            // A long name keeps its distinct end by its hash.
            use std::hash::Hasher;
            let mut hash = fnv::FnvHasher::default();
            hash.write(text.as_bytes());
            let kept = (0..=KEPT).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(kept.unwrap_or_default());
            text.push_str(&format!("#{:016x}", hash.finish()));
        }
        Address(text)
    }

    /// The address as an argument.
    pub fn argument(&self) -> OsString {
        self.0.clone().into()
    }

    /// The address from an argument.
    pub fn from_argument(text: &str) -> Address {
        Address(text.to_owned())
    }

    /// Whether any real node on this host (in this network namespace) has a guard. Ends soon, whatever
    /// answers or does not.
    pub fn any_guard() -> bool {
        let sockets = std::fs::read("/proc/net/unix").unwrap_or_default();
        // Any user may bind such a name: only a process of this process's user counts.
        addresses(&sockets)
            .iter()
            .any(|address| address.connect().is_ok())
    }

    /// The names of the real nodes that have a guard on this host (in this network namespace), of whatever user.
    /// For a person to read: any user may bind such a name.
    pub fn guards() -> Vec<String> {
        let sockets = std::fs::read("/proc/net/unix").unwrap_or_default();
        // Not by connecting: a guard would log that it was disturbed, by root or any other user than its own.
        let name = |address: Address| Some(address.0.strip_prefix("wmgwd/")?.to_owned());
        let mut names: Vec<String> = addresses(&sockets).into_iter().filter_map(name).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The guards on this host (in this network namespace), each with the name of its node: of real nodes, and of mock
    /// nodes on `etcd`. Looks without connecting; any user may bind such a name.
    pub fn guards_with_mocks(etcd: &str) -> Vec<(String, Address)> {
        let sockets = std::fs::read("/proc/net/unix").unwrap_or_default();
        let mock_end = format!("/{etcd}");
        let node = |name: &str| match name.strip_prefix("wmgwd/") {
            Some(node) => Some(node.to_owned()),
            None => {
                let node = name.strip_prefix("wmgwd-mock/")?;
                Some(node.strip_suffix(&mock_end)?.to_owned())
            }
        };
        let names = listening(&sockets).into_iter();
        let mut guards: Vec<(String, Address)> = names
            .filter_map(|name| Some((node(&name)?, Address(name))))
            .collect();
        guards.sort();
        guards.dedup();
        guards
    }

    /// The name of another real node that has a guard on this host, if there is one.
    pub fn other_guard(&self) -> Option<String> {
        let is_other = |name: &String| self.0 != format!("wmgwd/{name}");
        Address::guards().into_iter().find(is_other)
    }

    /// The addresses of the other real guards on this host (in this network namespace). A mock node has none beside it.
    pub fn others(&self) -> Vec<Address> {
        if !self.0.starts_with("wmgwd/") {
            return Vec::new();
        }
        let sockets = std::fs::read("/proc/net/unix").unwrap_or_default();
        let mut others = addresses(&sockets);
        others.retain(|other| other != self);
        others.sort();
        others.dedup();
        others
    }

    /// Listens there.
    ///
    /// # Errors
    /// `AddrInUse` if a process does so already.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let listener = SocketAddr::from_abstract_name(&self.0)
            .and_then(|address| UnixListener::bind_addr(&address))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Connects to the guard there, without blocking.
    ///
    /// # Errors
    /// `ConnectionRefused` if there is none; `PermissionDenied` if it runs as another user.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = self.open()?;
        credentials(&stream)?;
        Ok(stream)
    }

    /// As [`Address::connect`], whoever listens.
    pub(super) fn open(&self) -> io::Result<UnixStream> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new_abstract(self.0.as_bytes())?;
        let begun = clock::now();
        loop {
            match socket::connect(socket.as_raw_fd(), &address) {
                Ok(()) => break,
                Err(Errno::EINTR) => {}
                // Its queue is full: a guard empties that at once, a stranger perhaps never.
                Err(Errno::EAGAIN) if clock::now().since(begun) < QUEUE => {
                    sleep(Duration::from_millis(5));
                }
                Err(Errno::EAGAIN) => {
                    let who = "the process that listens at its address accepts no connection";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, who));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(UnixStream::from(socket))
    }
}

/// The addresses of real guards in `/proc/net/unix`.
fn addresses(sockets: &[u8]) -> Vec<Address> {
    let names = listening(sockets).into_iter();
    let real = names.filter(|name| name.starts_with("wmgwd/"));
    real.map(Address).collect()
}

/// The abstract names in `/proc/net/unix` at which a process listens; there they begin with `@` (proc_net(5)). The
/// sockets of a listener's connections have the same name, and do not count.
fn listening(sockets: &[u8]) -> Vec<String> {
    /// `__SO_ACCEPTCON` of the kernel's include/linux/net.h, which net/unix/af_unix.c writes as the flags.
    const LISTENS: &str = "00010000";
    // Other programs' names need not be UTF-8, and must not hide the guard's.
    let sockets = String::from_utf8_lossy(sockets);
    let names = sockets
        .lines()
        .filter_map(|line| line.split_once(" @"))
        .filter(|(fields, _)| fields.split_whitespace().nth(3) == Some(LISTENS));
    names.map(|(_, name)| name.to_owned()).collect()
}

/// Which process is at the other end, if it belongs to this process's user: an abstract socket has no permissions, any
/// process on the host may bind or connect.
pub fn credentials(stream: &UnixStream) -> io::Result<UnixCredentials> {
    let peer = getsockopt(stream, PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() {
        return Ok(peer);
    }
    Err(refusal(peer.uid()))
}

/// Why a process of that user is refused.
pub(super) fn refusal(user: u32) -> io::Error {
    let whose = format!("it belongs to user {user}");
    io::Error::new(io::ErrorKind::PermissionDenied, whose)
}

/// The user of the process at the other end.
pub(super) fn user(stream: &UnixStream) -> io::Result<Uid> {
    Ok(Uid::from_raw(getsockopt(stream, PeerCredentials)?.uid()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_long_name_makes_an_address_that_is_text_and_its_own() {
        // The cut would fall into the middle of a letter.
        for pad in ["", "x", "xx", "xxx"] {
            let long = |end: &str| -> Address {
                let name = format!("{pad}{}{end}", "\u{1f310}".repeat(40));
                Address::new(&name.parse().unwrap(), None)
            };
            let (one, other) = (long("1"), long("2"));
            assert_ne!(one, other);
            assert!(one.0.len() <= 107, "{one:?}");
            let argument = one.argument().into_string().unwrap();
            assert_eq!(Address::from_argument(&argument), one);
        }
    }

    #[test]
    fn guards_are_found_among_any_sockets() {
        let sockets = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 10 @\xff\xfe\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 11 @wmgwd/gw 1\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 12 @wmgwd-mock/gw2/x\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 15 @wmgwd/gw 1\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 16 @wmgwd/gw 3\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 13 /run/wmgwd/x\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 14\n";
        assert_eq!(addresses(sockets), [Address("wmgwd/gw 1".into())]);
    }

    /// Input: a listener. Output: it is found, without a connection to it.
    #[test]
    fn a_guard_is_found_without_disturbing_it() {
        let name = format!("found-{}", std::process::id());
        let address = Address::new(&name.parse().unwrap(), None);
        assert!(!Address::guards().contains(&name));
        let listener = address.listen().unwrap();
        assert!(Address::guards().contains(&name));
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    /// Input: a listener that never accepts, its queue full. Output: an error, soon.
    #[test]
    fn a_listener_that_does_not_accept_holds_nobody_up() {
        let address = Address(format!("wmgwd-test/full/{}", std::process::id()));
        let _listener = address.listen().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match address.connect() {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
