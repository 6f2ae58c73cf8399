//! What can go wrong between this node and etcd.
//!
//! Owns no state and touches nothing. The variants differ by what the caller can do.

use super::{AccessError, Endpoint};
use crate::model::types::Revision;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

/// gRPC's codes (grpc.io, "Status codes and their use in gRPC") as far as they matter here.
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

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
    /// No TLS connection. Of the endpoints tried, the last.
    Tls {
        /// The path of the call.
        call: &'static str,
        /// The endpoint.
        endpoint: Endpoint,
        /// What is wrong and what to do about it.
        advice: &'static str,
        /// What TLS says.
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
    /// Etcd gave no token.
    Login {
        /// The user.
        user: String,
        /// The gRPC code; 0 if etcd named none.
        code: u32,
        /// Etcd's own words.
        message: String,
    },
    /// The password cannot be read any more.
    Access(Box<AccessError>),
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
            Error::Transport { .. }
            | Error::Tls { .. }
            | Error::TimedOut { .. }
            | Error::Http { .. }
            // The endpoint is no etcd, or a proxy before it changes its answers.
            | Error::Malformed(_) => true,
            Error::Rejected { code, message } => is_of_member(*code, message),
            Error::Login { .. }
            | Error::Access(_)
            | Error::LeaseNotFound
            | Error::Compacted { .. }
            | Error::Disconnected
            | Error::NoEndpoint => false,
        }
    }

    /// Whether a new token may help. Etcd 3.4 calls a watch with an old token a watch without permission.
    pub(crate) fn is_of_token(&self, watch: bool) -> bool {
        match self {
            Error::Rejected { code, message } => {
                *code == UNAUTHENTICATED
                    || message.contains("invalid auth token")
                    || message.contains("user name is empty")
                    || message.contains("revision of auth store is old")
                    || watch && message.contains("permission denied")
            }
            _ => false,
        }
    }

    /// Whether the connection was closed where an answer had to come.
    pub(super) fn is_cut(&self) -> bool {
        let Error::Transport { source, .. } = self else {
            return false;
        };
        matches!(&**source, ureq::Error::Io(error) if matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
        ))
    }

    /// Whether the user is known but may not do this.
    pub(crate) fn is_of_role(&self) -> bool {
        matches!(self, Error::Rejected { code, message }
            if *code == PERMISSION_DENIED || message.contains("permission denied"))
    }

    /// Whether etcd says that it wants no passwords at all.
    pub(super) fn is_auth_not_enabled(&self) -> bool {
        matches!(self, Error::Rejected { message, .. } if message.contains("authentication is not enabled"))
    }
}

/// Whether another member may take what this one refuses. A call that is made again elsewhere may be carried out
/// twice; each is harmless then: transactions have conditions that hold once, and a lease without keys just ends.
///
/// The codes are gRPC's; etcd's choice among them is in its api/v3rpc/rpctypes/error.go.
pub(super) fn is_of_member(code: u32, message: &str) -> bool {
    match code {
        // Cancelled, unknown, deadline exceeded, aborted, internal, unavailable, data loss: of this member, or of
        // a proxy before it.
        1 | 2 | 4 | 10 | 13 | UNAVAILABLE | 15 => true,
        // Resource exhausted: a busy member; but a full database is the cluster's.
        8 => !message.contains("database space exceeded"),
        // Failed precondition: of a learner, which other members are not.
        9 => message.contains("learner"),
        _ => message.contains("no leader") || message.contains("request timed out"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Transport { call, endpoint, .. } => {
                let ask = match endpoint.is_tls() {
                    // A connection that is cut right away may be all that a client without one sees.
                    true => "does it speak TLS, and take the certificate of --cert?",
                    false => "does it speak plain http?",
                };
                write!(
                    f,
                    "no connection for {call} to etcd at {endpoint}; is it running there? {ask}"
                )
            }
            Error::Tls {
                call,
                endpoint,
                advice,
                ..
            } => write!(f, "no TLS for {call} with etcd at {endpoint}: {advice}"),
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
                "HTTP status {status} for {call} at {endpoint}; {}",
                match (endpoint.is_tls(), status) {
                    // `http.ServeMux` of Go, where etcd has no handler for /v3/.
                    (_, 404) =>
                        "is this etcd 3.4 or later, with its JSON gateway on (--enable-grpc-gateway)?",
                    // `accessController` in etcd's server/embed/serve.go: of plain connections it takes known hosts.
                    (_, 421) => "etcd does not take this host name: see its --host-whitelist",
                    // Its JSON gateway then takes no certificate with a name, lest that be taken for the user.
                    (true, 400) =>
                        "is this the client port of etcd 3.4 or later? With --client-cert-auth and passwords on its side, --cert must be a certificate without a common name (CN).",
                    _ => "is this the client port of etcd 3.4 or later?",
                }
            ),
            Error::Rejected { code, message } => {
                write!(f, "etcd refuses (gRPC code {code}): {message}")?;
                if self.is_of_role() {
                    f.write_str(
                        "; the user needs a role that may read and write the prefix /wmgwd/",
                    )?;
                } else if message.contains("connection closed") {
                    // The JSON gateway calls its own member, as a client with the server's certificate.
                    f.write_str(
                        "; with --client-cert-auth, its own certificate must be for clients, too (clientAuth)",
                    )?;
                } else if message.contains("user name is empty") {
                    f.write_str("; give --user and --password-file")?;
                }
                Ok(())
            }
            Error::Login {
                user,
                code,
                message,
            } => write!(
                f,
                "etcd does not let {user:?} in (gRPC code {code}): {message}; \
                 see --user and --password-file"
            ),
            Error::Access(error) => error.fmt(f),
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
            Error::Transport { source, .. } | Error::Tls { source, .. } => Some(source.as_ref()),
            Error::Access(error) => error.source(),
            _ => None,
        }
    }
}
