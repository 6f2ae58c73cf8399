//! What can go wrong between this node and etcd.
//!
//! Owns no state and touches nothing. The variants differ by what the caller can do.

use super::Endpoint;
use crate::types::Revision;
use std::fmt;
use std::time::Duration;

/// gRPC's codes (grpc.io, "Status codes and their use in gRPC") as far as they matter here.
const NOT_FOUND: u32 = 5;
const UNAVAILABLE: u32 = 14;

/// Why a call to etcd has no answer. After a transport error or a timeout the call may have taken
/// effect all the same.
#[derive(Debug)]
pub enum Error {
    /// No connection, or it broke during the call. Of the endpoints tried, the last.
    Transport {
        /// The path of the call.
        call: &'static str,
        /// The endpoint.
        endpoint: Endpoint,
        /// What happened to the connection.
        source: Box<ureq::Error>,
    },
    /// No whole answer within the deadline. Of the endpoints tried, the last.
    TimedOut {
        /// The path of the call.
        call: &'static str,
        /// The endpoint.
        endpoint: Endpoint,
        /// The deadline.
        after: Duration,
    },
    /// Something answers there, but not as etcd's JSON gateway does.
    Http {
        /// The path of the call.
        call: &'static str,
        /// The endpoint.
        endpoint: Endpoint,
        /// The HTTP status.
        status: u16,
    },
    /// Etcd refused the call.
    Rejected {
        /// The gRPC code; 0 if etcd named none.
        code: u32,
        /// Etcd's own words.
        message: String,
    },
    /// A put named a lease that no longer exists; nothing of the transaction was done.
    LeaseNotFound,
    /// The watch starts at a revision that etcd has forgotten: read all again, then watch from there.
    Compacted {
        /// The oldest revision that etcd still has.
        at: Revision,
    },
    /// The watch ended before its time: open it again after the last revision seen.
    Disconnected,
    /// The answer is not what etcd sends.
    Malformed(&'static str),
    /// The client was given no endpoint.
    NoEndpoint,
}

impl Error {
    /// Etcd's refusal with `code` and `message`.
    pub(super) fn rejected(code: u32, message: String) -> Error {
        // NotFound is also what a missing user or member gets; the text alone tells the lease.
        if code == NOT_FOUND && message.contains("requested lease not found") {
            Error::LeaseNotFound
        } else {
            Error::Rejected { code, message }
        }
    }

    /// Whether another endpoint may have an answer where this one has none.
    pub(super) fn is_of_endpoint(&self) -> bool {
        match self {
            Error::Transport { .. } | Error::TimedOut { .. } | Error::Http { .. } => true,
            Error::Rejected { code, message } => {
                *code == UNAVAILABLE
                    || message.contains("no leader")
                    || message.contains("request timed out")
            }
            Error::LeaseNotFound
            | Error::Compacted { .. }
            | Error::Disconnected
            | Error::Malformed(_)
            | Error::NoEndpoint => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Transport { call, endpoint, .. } => {
                write!(
                    f,
                    "no connection for {call} to etcd at {endpoint}; is it running there?"
                )
            }
            Error::TimedOut {
                call,
                endpoint,
                after,
            } => write!(
                f,
                "no answer to {call} from etcd at {endpoint} within {after:?}; \
                 see `etcdctl endpoint status` for a member that hangs or has no leader"
            ),
            Error::Http {
                call,
                endpoint,
                status,
            } => write!(
                f,
                "HTTP status {status} for {call} at {endpoint}; \
                 is this the client port of etcd 3.4 or later?"
            ),
            Error::Rejected { code, message } => {
                write!(f, "etcd refuses (gRPC code {code}): {message}")
            }
            Error::LeaseNotFound => f.write_str("etcd no longer knows the lease of this node"),
            Error::Compacted { at } => {
                write!(f, "etcd keeps no changes from before revision {at}")
            }
            Error::Disconnected => f.write_str("etcd ended the watch before its time"),
            Error::Malformed(what) => write!(f, "not an answer of etcd: {what}"),
            Error::NoEndpoint => f.write_str("no etcd endpoint is configured"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Transport { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
