//! The options of every command that talks to etcd, together: where it is, TLS, and who asks.

use super::error::{Error, Given};
use super::options::Options;
use crate::etcd::{self, Access, Identity, Login, Password};
use std::path::PathBuf;

/// What an error shows in place of a value that may hold a password.
pub(super) const HIDDEN: &str = "(hidden)";

/// Their raw texts; an empty one is not given.
pub(super) struct Texts<'a> {
    pub etcd: &'a str,
    pub cacert: &'a str,
    pub cert: &'a str,
    pub key: &'a str,
    pub user: &'a str,
    pub password_file: &'a str,
}

impl Options {
    /// How etcd is reached, as `texts` say it. No file is opened yet.
    pub(super) fn access(&self, texts: &Texts) -> Result<Access, Error> {
        let file = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let lacks = |option, needs| Error::Lacks {
            given: self.given(option),
            needs,
        };
        let endpoints = etcd::parse_endpoints(texts.etcd).map_err(|error| Error::Endpoint {
            given: self.given("--etcd"),
            error,
        })?;
        let identity = match (file(texts.cert), file(texts.key)) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(lacks("--cert", "--key")),
            (None, Some(_)) => return Err(lacks("--key", "--cert")),
        };
        Ok(Access {
            endpoints,
            cacert: file(texts.cacert),
            identity,
            login: self.login(texts.user, file(texts.password_file))?,
        })
    }

    fn login(&self, user: &str, file: Option<PathBuf>) -> Result<Option<Login>, Error> {
        let lacks = |option, needs| Error::Lacks {
            given: self.given(option),
            needs,
        };
        if user.is_empty() {
            return match file {
                Some(_) => Err(lacks("--password-file", "--user")),
                None => Ok(None),
            };
        }
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        };
        if name.is_empty() || name.contains(char::is_control) || password == Some("") {
            return Err(Error::Bad {
                given: self.given("--user"),
                takes: self.takes("--user"),
                value: HIDDEN.to_owned(),
            });
        }
        let password = match (password, file) {
            (Some(_), Some(_)) => {
                return Err(Error::TwoPasswords {
                    user: self.given("--user"),
                    file: self.given("--password-file"),
                });
            }
            (None, None) => {
                return Err(lacks(
                    "--user",
                    "--password-file, or a password after a colon",
                ));
            }
            (None, Some(file)) => Password::File(file),
            (Some(password), None) => match self.given("--user") {
                Given::Argument(_) => Password::Argument(password.to_owned()),
                Given::Variable(_) => Password::Variable(password.to_owned()),
            },
        };
        Ok(Some(Login {
            name: name.to_owned(),
            password,
        }))
    }
}
