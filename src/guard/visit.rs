//! Looks at the guard of a node on this host, without being its daemon.

use super::address::{Address, user};
use super::peer::ask;
use super::protocol::Order;
use super::supervisor::guards_with;
use super::view::View;
use nix::unistd::{Uid, geteuid};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long a guard may take to answer. One of an earlier version closes the connection after a second.
const ANSWER: Duration = Duration::from_millis(1500);

/// Why a guard could not be looked at.
#[derive(Debug)]
pub enum Unseen {
    /// It belongs to another user, and this process is not root.
    NotPermitted,
    /// It is of an earlier version.
    DoesNotTell,
    /// It is stopped, starved or busy.
    NoAnswer,
    /// It said something else.
    Unreadable,
    /// The connection failed.
    Socket(io::Error),
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unseen::NotPermitted => "it tells only root and the user that it runs as",
            Unseen::DoesNotTell => "it is of an earlier version, which does not tell",
            Unseen::NoAnswer => "it does not answer: it is stopped, or busy",
            Unseen::Unreadable => "its answer cannot be read: it is of another version",
            Unseen::Socket(_) => "cannot talk to it",
        })
    }
}

impl std::error::Error for Unseen {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unseen::Socket(source) => Some(source),
            _ => None,
        }
    }
}

/// What the guard at `address` knows, and the user that it runs as.
///
/// # Errors
/// It does not tell, for any of the reasons of [`Unseen`].
pub fn look(address: &Address) -> Result<(View, Uid), Unseen> {
    if !is_permitted(address) {
        return Err(Unseen::NotPermitted);
    }
    let mut stream = address.open().map_err(Unseen::Socket)?;
    let user = user(&stream).map_err(Unseen::Socket)?;
    let answer = ask(&mut stream, &Order::Look, ANSWER).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Unseen::DoesNotTell
        }
        ErrorKind::TimedOut => Unseen::NoAnswer,
        ErrorKind::InvalidData => Unseen::Unreadable,
        _ => Unseen::Socket(error),
    })?;
    let view = View::read(&answer).ok_or(Unseen::Unreadable)?;
    Ok((view, user))
}

/// Whether the guard would let this process look. It is not asked: it would log that it has refused a connection.
fn is_permitted(address: &Address) -> bool {
    let is_own = |pid| {
        let owner = fs::metadata(format!("/proc/{pid}")).map(|it| it.uid());
        owner.is_ok_and(|owner| owner == geteuid().as_raw())
    };
    geteuid().is_root() || guards_with(&[address.argument()]).into_iter().any(is_own)
}
