//! Pure: why etcd did not do what the check asked of it, and what mends that.

use crate::etcd::{AccessError, Error};
use crate::telemetry::log_text::chain;

/// What had no success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What mends it.
    pub mend: &'static str,
}

const USER: &str = "mend --user and --password-file, or: etcdctl user passwd NAME";
const FILES: &str = "mend --cacert, --cert and --key, or etcd's own certificate";

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Refusal {
        let mend = match error {
            Error::Transport { .. } | Error::NoEndpoint => {
                "systemctl start etcd there, or mend --etcd"
            }
            Error::TimedOut { .. } => "restart the member that hangs, or mend the way to it",
            Error::Http { status: 404, .. } => {
                "mend --etcd, or start etcd with --enable-grpc-gateway=true"
            }
            Error::Http { status: 421, .. } => {
                "start etcd with this host in --host-whitelist, or name one that is in it"
            }
            Error::Http { endpoint, .. } if endpoint.is_tls() => "mend --etcd, or --cert",
            Error::Http { .. } | Error::Malformed(_) => "mend --etcd",
            Error::Tls { .. } => FILES,
            Error::Login { .. } => USER,
            Error::Access(error) => return Refusal::from(&**error),
            Error::Rejected { .. } if error.is_of_role() => {
                "etcdctl role grant-permission ROLE --prefix=true readwrite /wmgwd/"
            }
            Error::Rejected { .. } if error.is_of_token(false) => USER,
            Error::Rejected { .. }
            | Error::LeaseNotFound
            | Error::Compacted { .. }
            | Error::Disconnected => "see `etcdctl endpoint health` and `etcdctl alarm list`",
        };
        Refusal {
            reason: chain(error),
            mend,
        }
    }
}

impl From<&AccessError> for Refusal {
    fn from(error: &AccessError) -> Refusal {
        let mend = match error {
            AccessError::Read { .. } | AccessError::Content { .. } => {
                "mend the file or the option, and let the user of wmgwd read it"
            }
            #[cfg(feature = "tls")]
            AccessError::Identity { .. } => "give --cert and --key that go together",
            AccessError::NoAuthorities => "give --cacert",
            AccessError::NoTls => "use a wmgwd with TLS, or http:// in --etcd",
        };
        Refusal {
            reason: chain(error),
            mend,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rejected(code: u32, message: &str) -> Error {
        Error::Rejected {
            code,
            message: message.to_owned(),
        }
    }

    /// Input: what etcd 3.4 answers. Output: what mends it is not what mends something else.
    #[test]
    fn each_refusal_has_its_own_mend() {
        let login = Error::Login {
            user: "u".into(),
            code: 3,
            message: "authentication failed".into(),
        };
        let http = |status| Error::Http {
            call: "/v3/kv/range",
            endpoint: "http://etcd:2379".parse().unwrap(),
            status,
        };
        for (error, part) in [
            (login, "--password-file"),
            (rejected(3, "etcdserver: user name is empty"), "--user"),
            (rejected(16, "etcdserver: invalid auth token"), "--user"),
            (rejected(7, "etcdserver: permission denied"), "etcdctl role"),
            (
                rejected(8, "etcdserver: mvcc: database space exceeded"),
                "alarm",
            ),
            (Error::NoEndpoint, "start etcd"),
            (http(404), "--enable-grpc-gateway"),
            (http(421), "--host-whitelist"),
            (http(502), "mend --etcd"),
        ] {
            let refusal = Refusal::from(&error);
            assert!(refusal.mend.contains(part), "{refusal:?}");
            assert_eq!(refusal.reason, error.to_string());
        }
    }
}
