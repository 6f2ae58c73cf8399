//! Pure: why etcd did not do what the check asked of it, and what repairs that.

use crate::etcd::{AccessError, Error};
use crate::telemetry::log_text::chain;

/// What had no success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What repairs it.
    pub remedy: &'static str,
}

const USER: &str = "correct --user and --password-file, or: etcdctl user passwd NAME";
const FILES: &str = "correct --cacert, --cert and --key, or etcd's own certificate";

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Refusal {
        let remedy = match error {
            Error::Transport { .. } | Error::NoEndpoint => {
                "systemctl start etcd there, or correct --etcd"
            }
            Error::TimedOut { .. } => "restart the member that hangs, or repair the path to it",
            Error::Http { status: 404, .. } => {
                "correct --etcd, or start etcd with --enable-grpc-gateway=true"
            }
            Error::Http { status: 421, .. } => {
                "start etcd with this host in --host-whitelist, or name one that is in it"
            }
            Error::Http { endpoint, .. } if endpoint.is_tls() => "correct --etcd, or --cert",
            Error::Http { .. } | Error::Malformed(_) => "correct --etcd",
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
            remedy,
        }
    }
}

impl From<&AccessError> for Refusal {
    fn from(error: &AccessError) -> Refusal {
        let remedy = match error {
            AccessError::Read { .. } | AccessError::Content { .. } => {
                "correct the file or the option, and let the user of wmgwd read it"
            }
            #[cfg(feature = "tls")]
            AccessError::Identity { .. } => "give --cert and --key that go together",
            AccessError::NoAuthorities => "give --cacert",
            AccessError::NoTls => "use a wmgwd with TLS, or http:// in --etcd",
        };
        Refusal {
            reason: chain(error),
            remedy,
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

    /// Input: what etcd 3.4 answers. Output: what repairs it is not what repairs something else.
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
            (http(502), "correct --etcd"),
        ] {
            let refusal = Refusal::from(&error);
            assert!(refusal.remedy.contains(part), "{refusal:?}");
            assert_eq!(refusal.reason, error.to_string());
        }
    }
}
