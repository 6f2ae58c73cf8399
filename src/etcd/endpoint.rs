//! Where an etcd member is reached: its URL, checked and in one spelling.
//!
//! Owns no state and touches nothing.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 2379;

/// What the operator of a build without TLS can do.
pub(super) const NO_TLS: &str = "this wmgwd is built without TLS: build it with the feature tls, or use http:// on a trusted link";

/// The client URL of one etcd member, `http://host:port` or `https://host:port`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    tls: bool,
    /// As a URL has it: an IPv6 address is in brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// The URL of `path`, which begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine, as far as its spelling tells.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || address.parse().is_ok_and(|it: IpAddr| it.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// The text is no endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointError {
    text: String,
    reason: &'static str,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The longest host name there is has 253.
        const SHOWN: usize = 270;
        let shown: String = self.text.chars().take(SHOWN).collect();
        let cut = if shown.len() < self.text.len() {
            "..."
        } else {
            ""
        };
        write!(
            f,
            "{shown:?}{cut} is no etcd endpoint: {}; takes http://host:port or https://host:port, for example http://127.0.0.1:2379",
            self.reason
        )
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        parse(text).map_err(|reason| EndpointError {
            text: text.to_owned(),
            reason,
        })
    }
}

/// The endpoints of a list separated by commas, at least one; blanks around each are allowed.
pub fn parse_endpoints(list: &str) -> Result<Vec<Endpoint>, EndpointError> {
    list.split(',').map(|text| text.trim().parse()).collect()
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("http:// or https:// is missing in front")?;
    let tls = scheme.eq_ignore_ascii_case("https");
    if tls && !cfg!(feature = "tls") {
        return Err(NO_TLS);
    }
    if !tls && !scheme.eq_ignore_ascii_case("http") {
        return Err("its scheme is neither http nor https");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("nothing may follow the port");
    }
    if authority.contains('@') {
        return Err("it holds a user, which is not supported");
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, port) = bracketed
            .split_once(']')
            .ok_or("the bracket of its IPv6 address is not closed")?;
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| "there is no IPv6 address in its brackets")?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port),
            None if port.is_empty() => None,
            None => return Err("only a port may follow its IPv6 address"),
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if port.is_some_and(|port| port.contains(':')) {
            return Err("an IPv6 address belongs in brackets");
        }
        // Letters, digits, hyphens and dots are what a host name is made of (RFC 1123, section 2.1);
        // underscores are not, yet found in container networks.
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(named) {
            return Err("its host is neither a name nor an address");
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("its port is not a number from 1 to 65535")?,
        Some(_) => return Err("its port is not a number from 1 to 65535"),
    };
    Ok(Endpoint { tls, host, port })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_have_one_spelling() {
        for (text, url) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://127.0.0.1:2379/", "http://127.0.0.1:2379"),
            ("HTTP://Etcd-1.Example:80", "http://etcd-1.example:80"),
            ("http://etcd_a", "http://etcd_a:2379"),
            ("http://[::1]:4001", "http://[::1]:4001"),
            ("http://[0:0::1]", "http://[::1]:2379"),
            #[cfg(feature = "tls")]
            ("HTTPS://A", "https://a:2379"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn endpoints_that_are_none_are_named_with_the_reason_on_one_line() {
        for (text, reason) in [
            ("", "empty"),
            ("127.0.0.1:2379", "http:// or https:// is missing"),
            #[cfg(not(feature = "tls"))]
            ("https://a:2379", "built without TLS"),
            ("ftp://a:2379", "scheme"),
            ("http://", "host"),
            ("http://:2379", "host"),
            ("http://a b:2379", "host"),
            ("http://a:0", "port"),
            ("http://a:65536", "port"),
            ("http://a:", "port"),
            ("http://a:+1", "port"),
            ("http://a:2379/v3", "follow the port"),
            ("http://a:2379//", "follow the port"),
            ("http://a?x", "follow the port"),
            ("http://me@a:2379", "user"),
            ("http://::1", "brackets"),
            ("http://[::1", "closed"),
            ("http://[a]:1", "no IPv6 address"),
            ("http://[::1]2379", "only a port"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(error.contains("takes http://host:port"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_stays_on_this_machine_is_known() {
        for (text, loopback) in [
            ("http://localhost", true),
            ("http://127.0.0.2:1", true),
            ("http://[::1]", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(
                text.parse::<Endpoint>().unwrap().is_loopback(),
                loopback,
                "{text}"
            );
        }
    }

    #[test]
    fn an_error_stays_short() {
        let error = "x".repeat(10_000).parse::<Endpoint>().unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        let all = parse_endpoints("http://a:2379, http://b:1,http://[::1]").unwrap();
        let all: Vec<String> = all.iter().map(Endpoint::to_string).collect();
        assert_eq!(all, ["http://a:2379", "http://b:1", "http://[::1]:2379"]);
        assert!(parse_endpoints("").is_err());
        assert!(parse_endpoints("http://a,").is_err());
    }
}
