//! TCP connections to etcd that notice a dead peer.
//!
//! Owns the socket options; touches the network, for plain HTTP only. ureq's own connector leaves a
//! connection whose packets are dropped unnoticed for as long as nothing is sent; a watch only listens.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// Sent data that is not acknowledged for this long ends the connection (TCP_USER_TIMEOUT, tcp(7)).
const USER_TIMEOUT: Duration = Duration::from_secs(8);
/// A silent connection is probed after this long, and then this often; three lost probes end it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;
/// Output up to this many bytes waits for what follows it: a request's head and a small body leave in one
/// packet, and wake etcd once.
const HELD: usize = 1024;

/// Opens the connections of one client.
#[derive(Debug)]
pub(super) struct TcpConnector;

impl Connector for TcpConnector {
    type Out = TcpTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<TcpTransport>, Error> {
        let stream = connect(&details.addrs, details.timeout)?;
        prepare(&stream)?;
        let config = details.config;
        Ok(Some(TcpTransport {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            held: Vec::new(),
            read_limit: None,
            write_limit: None,
        }))
    }
}

/// The first of `addrs` that takes a connection; what is left of the time is shared among those left.
fn connect(addrs: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
    let limit = limit(timeout)?;
    let begun = Instant::now();
    let mut failure = Error::HostNotFound;
    for (tried, addr) in addrs.iter().enumerate() {
        let result = match limit {
            None => TcpStream::connect(addr),
            Some(limit) => {
                let shares = u32::try_from(addrs.len() - tried).unwrap_or(u32::MAX);
                let share = limit.saturating_sub(begun.elapsed()) / shares;
                if share.is_zero() {
                    return Err(Error::Timeout(timeout.reason));
                }
                TcpStream::connect_timeout(addr, share)
            }
        };
        match result {
            Ok(stream) => return Ok(stream),
            // Our limit and the kernel's own show alike; neither came to a connection in time.
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                failure = Error::Timeout(timeout.reason);
            }
            Err(error) => failure = Error::Io(error),
        }
    }
    Err(failure)
}

/// A limit of zero would mean "none" to the socket, so it has run out here.
fn limit(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    if timeout.after.is_not_happening() {
        Ok(None)
    } else if timeout.after.is_zero() {
        Err(Error::Timeout(timeout.reason))
    } else {
        Ok(Some(*timeout.after))
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let user_timeout = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // A request is one small write whose answer is waited for: nothing to collect packets for.
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &user_timeout)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds(KEEPALIVE_IDLE))?;
    setsockopt(
        stream,
        sockopt::TcpKeepInterval,
        &seconds(KEEPALIVE_INTERVAL),
    )?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    Ok(())
}

/// One connection, as ureq uses it.
#[derive(Debug)]
pub(super) struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// Output that was not sent yet, as more of it is to be expected.
    held: Vec<u8>,
    /// What the socket waits at most, as it was told last (SO_RCVTIMEO, SO_SNDTIMEO).
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

/// The limit to set for a socket that has `set` now, so that it waits no longer than `left`. A little less than
/// that, so that it need not be set for each call: what is left then is waited for in a `second` round.
fn fit(set: Option<Duration>, left: Option<Duration>, second: bool) -> Option<Duration> {
    let left = left?;
    let fits = |set: &Duration| (left - left / 8..=left).contains(set);
    let fresh = if second { left } else { left - left / 16 };
    Some(set.filter(fits).unwrap_or(fresh))
}

impl TcpTransport {
    /// Runs `io` again after a signal, or when the socket's own limit was short, as long as there is time.
    /// `limit` is that of the socket, and `set` sets it.
    fn within<T>(
        timeout: NextTimeout,
        limit: &mut Option<Duration>,
        set: impl Fn(Option<Duration>) -> io::Result<()>,
        mut io: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Error> {
        let most = self::limit(timeout)?;
        let begun = Instant::now();
        let mut second = false;
        loop {
            let left = most.map(|most| most.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::Timeout(timeout.reason));
            }
            let fitting = fit(*limit, left, second);
            if fitting != *limit {
                set(fitting).map_err(Error::Io)?;
                *limit = fitting;
            }
            match io() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // SO_RCVTIMEO and SO_SNDTIMEO end in EAGAIN (socket(7)). ETIMEDOUT is another thing:
                // the kernel gave the connection up.
                Err(error) if error.kind() == ErrorKind::WouldBlock => second = true,
                result => return result.map_err(Error::Io),
            }
        }
    }

    /// Sends what was held back.
    fn send_held(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        let result = self.send(&held, timeout);
        self.held = held;
        self.held.clear();
        result
    }

    fn send(&mut self, mut rest: &[u8], timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let mut stream = &self.stream;
        let begun = Instant::now();
        while !rest.is_empty() {
            let left = NextTimeout {
                after: match limit(timeout)? {
                    None => timeout.after,
                    Some(limit) => limit.saturating_sub(begun.elapsed()).into(),
                },
                ..timeout
            };
            let written = Self::within(
                left,
                &mut self.write_limit,
                |limit| stream.set_write_timeout(limit),
                || stream.write(rest),
            )?;
            if written == 0 {
                return Err(Error::Io(ErrorKind::WriteZero.into()));
            }
            rest = &rest[written..];
        }
        Ok(())
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let is_first = self.held.is_empty();
        self.held
            .extend_from_slice(&self.buffers.output()[..amount]);
        if is_first && amount <= HELD {
            return Ok(());
        }
        self.send_held(timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // An answer is waited for, so that nothing follows what was held back.
        self.send_held(timeout)?;
        let buffer = self.buffers.input_append_buf();
        let mut stream = &self.stream;
        let amount = Self::within(
            timeout.for_read(),
            &mut self.read_limit,
            |limit| stream.set_read_timeout(limit),
            || stream.read(buffer),
        )?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// A connection at rest has nothing to read: bytes, an end or an error are all the end of it.
    fn is_open(&mut self) -> bool {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], peek) == Err(Errno::EAGAIN)
    }
}

/// Finds the addresses of an endpoint. A name is looked up by a thread, so that a name server that does not answer
/// cannot outlast the deadline; if that fails, or no thread can be started, the addresses that the name had are used.
/// Clones share what they found.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressResolver {
    known: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
}

impl AddressResolver {
    fn look_up(&self, name: &str, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        let (found, inbox) = mpsc::sync_channel(1);
        let asked = name.to_owned();
        // A limit on processes also counts threads: no reason to give up what is known.
        Builder::new().name("resolve".to_owned()).spawn(move || {
            let addrs = asked.to_socket_addrs().map(Iterator::collect);
            // The receiver is gone once the deadline is over.
            let _ = found.send(addrs);
        })?;
        let addrs: Vec<SocketAddr> = match limit(timeout)? {
            None => inbox.recv().map_err(|_| Error::HostNotFound)?,
            Some(limit) => match inbox.recv_timeout(limit) {
                Ok(addrs) => addrs,
                Err(RecvTimeoutError::Timeout) => return Err(Error::Timeout(timeout.reason)),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::HostNotFound),
            },
        }?;
        match addrs.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(addrs),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Vec<SocketAddr>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for AddressResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        // An endpoint always has a port.
        let port = uri.port_u16().ok_or(Error::HostNotFound)?;
        let addrs = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let name = format!("{host}:{port}");
                match self.look_up(&name, timeout) {
                    Ok(addrs) => {
                        self.known().insert(name, addrs.clone());
                        addrs
                    }
                    Err(error) => self.known().get(&name).cloned().ok_or(error)?,
                }
            }
        };
        let mut resolved = self.empty();
        // It holds 16 of them.
        addrs.into_iter().take(16).for_each(|it| resolved.push(it));
        Ok(resolved)
    }
}

/// Whether the failure is a deadline of this client (and not the kernel's verdict on a connection).
pub(super) fn is_deadline(error: &Error) -> bool {
    matches!(error, Error::Timeout(_))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::getsockopt;
    use std::net::TcpListener;
    use ureq::Timeout;

    fn within(limit: Duration) -> NextTimeout {
        NextTimeout {
            after: limit.into(),
            reason: Timeout::Connect,
            ..NextTimeout::default()
        }
    }

    #[test]
    fn the_kernel_watches_over_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // The first address refuses: nothing listens on port 1 of this loopback address.
        let refusing = SocketAddr::from(([127, 255, 255, 254], 1));
        let stream = connect(&[refusing, addr], within(Duration::from_secs(30))).unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 8000);
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 3);
    }

    #[test]
    fn a_limit_that_has_run_out_is_no_missing_limit() {
        let nowhere = [SocketAddr::from(([127, 0, 0, 1], 1))];
        let result = connect(&nowhere, within(Duration::ZERO));
        assert!(matches!(result, Err(Error::Timeout(Timeout::Connect))));
    }

    /// Input: calls of one length, one after the other, on a socket without a limit. Output: the limit is set
    /// once, never longer than what is left, and what it leaves over is waited for in one more round.
    #[test]
    fn the_limit_of_a_socket_is_set_seldom() {
        let second = Duration::from_secs(1);
        let set = fit(None, Some(second), false);
        assert!(set.unwrap() < second);
        for left in [second, second * 15 / 16, set.unwrap()] {
            assert_eq!(fit(set, Some(left), false), set);
        }
        for left in [second / 2, second * 2] {
            let other = fit(set, Some(left), false).unwrap();
            assert!(other <= left && other >= left - left / 8);
        }
        assert_eq!(fit(set, Some(second / 16), true), Some(second / 16));
        assert_eq!(fit(set, None, false), None);
    }

    /// Input: a peer that is silent. Output: the wait ends when the time is over, not when the socket's own limit
    /// is, which is shorter.
    #[test]
    fn a_silent_peer_is_waited_for_as_long_as_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut transport = TcpTransport {
            stream,
            buffers: LazyBuffers::new(1024, 1024),
            held: Vec::new(),
            read_limit: None,
            write_limit: None,
        };
        let limit = Duration::from_millis(64);
        let begun = Instant::now();
        let result = transport.await_input(within(limit));
        assert!(matches!(result, Err(Error::Timeout(_))));
        assert!(begun.elapsed() >= limit);
        assert!(transport.is_open());
    }

    #[test]
    fn addresses_need_no_resolver() {
        let resolver = AddressResolver::default();
        for (url, addr) in [
            ("http://[::1]:4001/v3/watch", "[::1]:4001"),
            ("http://127.0.0.2:2379/", "127.0.0.2:2379"),
        ] {
            let timeout = within(Duration::from_secs(1));
            let found = resolver.resolve(&url.parse().unwrap(), &Config::default(), timeout);
            let expected: SocketAddr = addr.parse().unwrap();
            assert_eq!(found.unwrap()[..], [expected]);
        }
    }

    /// Input: a name that was found once and then is not. Output: the addresses that it had; none for a name that was
    /// never found.
    #[test]
    fn a_name_keeps_its_addresses_while_it_cannot_be_looked_up() {
        let resolver = AddressResolver::default();
        let resolve = |url: &str| {
            let timeout = within(Duration::from_secs(20));
            resolver.resolve(&url.parse().unwrap(), &Config::default(), timeout)
        };
        assert!(!resolve("http://localhost:2379/").unwrap().is_empty());
        assert!(resolve("http://gone.invalid:2379/").is_err());
        let addr = SocketAddr::from(([127, 0, 0, 9], 2379));
        let name = "gone.invalid:2379".to_owned();
        resolver.clone().known().insert(name, vec![addr]);
        assert_eq!(resolve("http://gone.invalid:2379/").unwrap()[..], [addr]);
    }
}
