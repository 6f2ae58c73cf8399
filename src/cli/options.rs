//! What all commands share: how their options are filled, read and complained about, and the options of
//! those that ask etcd.

use super::arguments::{self, Normal};
use super::environment;
use super::error::{Error, Given};
use super::values;
use crate::model::types::VniRange;
use argh::{ArgsInfo, FlagInfo, FromArgs};
use std::ffi::OsString;

/// Gives a command's arguments the options of those that ask etcd, behind its own, and a method that reads
/// them. (argh has no way to put one struct of options into another.)
macro_rules! with_etcd {
    ($(#[$meta:meta])* $visible:vis struct $name:ident { $($fields:tt)* }) => {
        #[derive(FromArgs, ArgsInfo)]
        $(#[$meta])*
        $visible struct $name {
            $($fields)*
            /// the URLs of etcd, http://host:port or https://host:port, separated by commas; when one fails, the next is tried (default: http://localhost:2379)
            #[argh(option, default = "String::from(\"http://localhost:2379\")")]
            etcd: String,
            /// a file, in PEM, with the authorities that may sign the certificates of etcd (default: those of the system)
            #[argh(option, default = "String::new()")]
            cacert: String,
            /// a file, in PEM, with the certificate to show to etcd and its chain; goes with --key (default: none)
            #[argh(option, default = "String::new()")]
            cert: String,
            /// a file, in PEM, with the key of --cert (default: none)
            #[argh(option, default = "String::new()")]
            key: String,
            /// NAME or NAME:PASSWORD of a user of etcd; a password here can be read by everybody on this machine (default: none)
            #[argh(option, default = "String::new()")]
            user: String,
            /// a file whose first line is the password of --user (default: none)
            #[argh(option, default = "String::new()")]
            password_file: String,
            /// a file with variables, such as the options of the service in /etc/default/wmgwd; they win over the environment (default: none)
            #[argh(option)]
            #[allow(dead_code, reason = "read before all others, by env_file")]
            env_file: Option<String>,
        }

        impl $name {
            /// How etcd is reached, and who asks.
            fn etcd(&self, options: &Options) -> Result<crate::etcd::Access, Error> {
                options.access(&$crate::cli::access::Texts {
                    etcd: &self.etcd,
                    cacert: &self.cacert,
                    cert: &self.cert,
                    key: &self.key,
                    user: &self.user,
                    password_file: &self.password_file,
                })
            }
        }
    };
}
pub(super) use with_etcd;

/// Fills `T` with the raw texts of `arguments` and of the environment, or returns its help as the inner
/// error.
pub(super) fn fill<T: FromArgs + ArgsInfo>(
    command: &[&str],
    arguments: &[String],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Result<(T, Options), String>, Error> {
    let info = T::get_args_info();
    let flags = info.flags;
    let mut from_environment = Vec::new();
    let texts = match arguments::normalise(arguments, &info)? {
        Normal::Arguments(mut spelled) => {
            // A user who asks for the version gets it, whatever is in the environment.
            if !spelled.texts.iter().any(|text| text == "--version") {
                from_environment = environment::complete(&mut spelled, flags, environment)?;
            }
            spelled.into_texts()
        }
        Normal::Help => vec![String::from("--help")],
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match T::from_args(command, &texts) {
        Ok(args) => Ok(Ok((
            args,
            Options {
                flags,
                from_environment,
            },
        ))),
        Err(exit) if exit.status.is_ok() => Ok(Err(exit.output)),
        // `normalise` lets nothing through that argh refuses; if argh grows new rules, say what it says.
        Err(exit) => Err(Error::Argh {
            says: exit.output.split_whitespace().collect::<Vec<_>>().join(" "),
        }),
    }
}

/// The options of one command.
pub(super) struct Options {
    /// As argh describes them.
    flags: &'static [FlagInfo<'static>],
    /// Those that the environment gave.
    from_environment: Vec<&'static str>,
}

impl Options {
    /// What `option` takes, in the words of its help.
    pub(super) fn takes(&self, option: &str) -> &'static str {
        self.flags
            .iter()
            .find(|flag| flag.long == option)
            .map_or("", |flag| flag.description)
    }

    /// Where the value of `option` comes from.
    pub(super) fn given(&self, option: &'static str) -> Given {
        if self.from_environment.contains(&option) {
            Given::Variable(option)
        } else {
            Given::Argument(option)
        }
    }

    /// As [`Options::read`], of an option that need not be given: an empty text is none.
    pub(super) fn read_given<T>(
        &self,
        option: &'static str,
        text: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let given = (!text.is_empty()).then_some(text);
        given.map(|text| self.read(option, text, read)).transpose()
    }

    /// `text` as `read` understands it, or an error that names `option` and what it takes.
    pub(super) fn read<T>(
        &self,
        option: &'static str,
        text: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        read(text).ok_or_else(|| Error::Bad {
            given: self.given(option),
            takes: self.takes(option),
            value: text.to_owned(),
        })
    }

    /// The interfaces of an option that need not be given.
    pub(super) fn interfaces(
        &self,
        option: &'static str,
        text: &str,
    ) -> Result<Vec<String>, Error> {
        let given = self.read_given(option, text, values::interfaces)?;
        Ok(given.unwrap_or_default())
    }

    /// The range from `min` to `max`.
    pub(super) fn range(&self, min: &str, max: &str) -> Result<VniRange, Error> {
        let first = self.read("--minvni", min, |text| text.parse().ok())?;
        let last = self.read("--maxvni", max, |text| text.parse().ok())?;
        VniRange::new(first, last).ok_or_else(|| Error::EmptyRange {
            first: (self.given("--minvni"), first),
            last: (self.given("--maxvni"), last),
        })
    }
}
