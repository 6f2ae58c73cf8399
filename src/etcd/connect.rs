//! TCP connections to etcd that notice a dead peer.
//!
//! Owns the socket options; touches the network, for plain HTTP only. ureq's own connector leaves a
//! connection whose packets are dropped unnoticed for as long as nothing is sent; a watch only listens.

use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// Sent data that is not acknowledged for this long ends the connection (TCP_USER_TIMEOUT, tcp(7)).
const USER_TIMEOUT: Duration = Duration::from_secs(8);
/// A silent connection is probed after this long, and then this often; three lost probes end it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

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
}

impl TcpTransport {
    /// Runs `io` again after a signal, as long as there is time.
    fn within<T>(
        timeout: NextTimeout,
        mut io: impl FnMut(Option<Duration>) -> io::Result<T>,
    ) -> Result<T, Error> {
        let limit = limit(timeout)?;
        let begun = Instant::now();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::Timeout(timeout.reason));
            }
            match io(left) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // SO_RCVTIMEO and SO_SNDTIMEO end in EAGAIN (socket(7)). ETIMEDOUT is another thing:
                // the kernel gave the connection up.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Error::Timeout(timeout.reason));
                }
                result => return result.map_err(Error::Io),
            }
        }
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let mut rest = &self.buffers.output()[..amount];
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
            let written = Self::within(left, |left| {
                stream.set_write_timeout(left)?;
                stream.write(rest)
            })?;
            if written == 0 {
                return Err(Error::Io(ErrorKind::WriteZero.into()));
            }
            rest = &rest[written..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let buffer = self.buffers.input_append_buf();
        let mut stream = &self.stream;
        let amount = Self::within(timeout.for_read(), |left| {
            stream.set_read_timeout(left)?;
            stream.read(buffer)
        })?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// A connection at rest has nothing to read: bytes, an end or an error are all the end of it.
    fn is_open(&mut self) -> bool {
        let idle = |stream: &TcpStream| -> io::Result<bool> {
            stream.set_nonblocking(true)?;
            let nothing = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            stream.set_nonblocking(false)?;
            Ok(nothing)
        };
        idle(&self.stream).unwrap_or(false)
    }
}

/// Resolves host names as ureq does, which takes a thread a call; addresses need no resolving.
#[derive(Debug, Default)]
pub(super) struct AddressResolver {
    names: DefaultResolver,
}

impl Resolver for AddressResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match (host.parse::<IpAddr>(), uri.port_u16()) {
            (Ok(address), Some(port)) => {
                let mut addrs = self.empty();
                addrs.push(SocketAddr::new(address, port));
                Ok(addrs)
            }
            _ => self.names.resolve(uri, config, timeout),
        }
    }
}

/// Whether the failure is a deadline of ours (and not the kernel's verdict on a connection).
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
}
