//! How etcd is reached and who asks, as the operator said it.
//!
//! Owns nothing but those words; touches the files that they name, to look at their permissions and to
//! read the password.

use super::Endpoint;
use super::endpoint::NO_TLS;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything a client needs to know of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// Where etcd answers. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// The authorities that may sign the members' certificates, in PEM; `None` for those of the system.
    pub cacert: Option<PathBuf>,
    /// This client's certificate chain and its key, in PEM.
    pub identity: Option<Identity>,
    /// Who asks, where etcd wants to know.
    pub login: Option<Login>,
}

/// The certificate that a client shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The file of the chain, the client's own first.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

/// A user of etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The user's name in etcd.
    pub name: String,
    /// What proves it.
    pub password: Password,
}

/// Where a password comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// On the command line, for every user of the machine to see.
    Argument(String),
    /// In the environment of this process.
    Variable(String),
    /// On the first line of this file.
    File(PathBuf),
}

impl fmt::Debug for Password {
    /// Never the password: this goes into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Argument(_) => f.write_str("Argument(..)"),
            Password::Variable(_) => f.write_str("Variable(..)"),
            Password::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Password {
    /// The password itself. A file is read each time, so that a new one needs no restart.
    pub(super) fn read(&self) -> Result<String, AccessError> {
        match self {
            Password::Argument(text) | Password::Variable(text) => Ok(text.clone()),
            Password::File(path) => {
                let text = fs::read_to_string(path).map_err(|source| AccessError::Read {
                    option: "--password-file",
                    path: path.clone(),
                    source,
                })?;
                match text.lines().next() {
                    Some(line) if !line.is_empty() => Ok(line.to_owned()),
                    _ => Err(AccessError::Content {
                        option: "--password-file",
                        path: path.clone(),
                        lacks: "its first line is empty, where the password belongs",
                    }),
                }
            }
        }
    }
}

impl Access {
    /// Plain HTTP to `endpoints`, without a user.
    pub fn plain(endpoints: Vec<Endpoint>) -> Access {
        Access {
            endpoints,
            cacert: None,
            identity: None,
            login: None,
        }
    }

    /// Whether any of it is about TLS.
    pub(super) fn wants_tls(&self) -> bool {
        self.cacert.is_some()
            || self.identity.is_some()
            || self.endpoints.iter().any(Endpoint::is_tls)
    }

    /// What is allowed but hardly meant, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let plain: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.is_tls())
            .map(ToString::to_string)
            .collect();
        if self.wants_tls() && !plain.is_empty() {
            warnings.push(format!(
                "no TLS to {} in spite of the other options: write https:// there",
                plain.join(",")
            ));
        }
        let exposed: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.is_tls() && !endpoint.is_loopback())
            .map(ToString::to_string)
            .collect();
        if self.login.is_some() && !exposed.is_empty() {
            warnings.push(format!(
                "the password goes over the network in clear to {}: use https://",
                exposed.join(",")
            ));
        }
        match self.login.as_ref().map(|login| &login.password) {
            Some(Password::Argument(_)) => warnings.push(String::from(
                "the password is on the command line, where every user of this machine can read it: \
                 use --password-file, or WMGWD_USER in the environment",
            )),
            Some(Password::File(path)) => warnings.extend(open_to_others("--password-file", path)),
            Some(Password::Variable(_)) | None => {}
        }
        if let Some(identity) = &self.identity {
            warnings.extend(open_to_others("--key", &identity.key));
        }
        warnings
    }
}

/// A warning about a secret that others can read or replace. Its group may read it, but no more.
fn open_to_others(option: &str, path: &Path) -> Option<String> {
    const TOO_OPEN: u32 = 0o026;
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    (mode & TOO_OPEN != 0).then(|| {
        format!(
            "{option} {} has mode {mode:03o}, so others can read or change it: chmod 600 it",
            path.display()
        )
    })
}

/// Why a client cannot even begin.
#[derive(Debug)]
pub enum AccessError {
    /// A file cannot be read.
    Read {
        /// The option that names it.
        option: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    Content {
        /// The option that names it.
        option: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        lacks: &'static str,
    },
    /// The certificate and the key do not go together, or TLS refuses them.
    #[cfg(feature = "tls")]
    Identity {
        /// The files.
        identity: Identity,
        /// What TLS says.
        source: rustls::Error,
    },
    /// No `--cacert`, and the system has no list of authorities where lists are looked for.
    NoAuthorities,
    /// This program was built without TLS.
    NoTls,
}

impl AccessError {
    /// Whether only the operator can change it. A machine that is short of memory or of descriptors for a moment is
    /// no mistake in the options.
    pub fn is_lasting(&self) -> bool {
        match self {
            AccessError::Read { source, .. } => matches!(
                source.kind(),
                ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
                    | ErrorKind::IsADirectory
                    | ErrorKind::NotADirectory
                    | ErrorKind::InvalidData
            ),
            _ => true,
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessError::Read { option, path, .. } => {
                write!(f, "cannot read {option} {}", path.display())
            }
            AccessError::Content {
                option,
                path,
                lacks,
            } => write!(f, "{option} {}: {lacks}", path.display()),
            #[cfg(feature = "tls")]
            AccessError::Identity { identity, .. } => write!(
                f,
                "--cert {} and --key {} cannot be used together: is it the key of that certificate?",
                identity.cert.display(),
                identity.key.display()
            ),
            AccessError::NoAuthorities => f.write_str(
                "https:// needs --cacert: this system has no list of authorities of its own",
            ),
            AccessError::NoTls => f.write_str(NO_TLS),
        }
    }
}

impl std::error::Error for AccessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AccessError::Read { source, .. } => Some(source),
            #[cfg(feature = "tls")]
            AccessError::Identity { source, .. } => Some(source),
            _ => None,
        }
    }
}
