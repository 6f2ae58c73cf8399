//! Stands in for `crate::etcd` until there is a client: reads the URLs of `--etcd`.

use std::fmt;

/// Where one member of etcd answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint(String);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no list of URLs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointError;

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a URL: takes http://host:port")
    }
}

impl std::error::Error for EndpointError {}

/// The endpoints of a comma-separated list.
///
/// # Errors
/// [`EndpointError`] at the first that is no `http://host:port`.
pub fn parse_endpoints(text: &str) -> Result<Vec<Endpoint>, EndpointError> {
    text.split(',')
        .map(|url| {
            let authority = url
                .trim_matches(' ')
                .strip_prefix("http://")
                .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
                .ok_or(EndpointError)?;
            let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "2379"));
            let host_ok = !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b));
            match port.parse::<u16>() {
                Ok(port) if host_ok && port != 0 => Ok(Endpoint(format!("http://{host}:{port}"))),
                _ => Err(EndpointError),
            }
        })
        .collect()
}
