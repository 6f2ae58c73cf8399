//! Options from the environment: `--lease-ttl` is also `WMGWD_LEASE_TTL`, and so on for all of them.
//!
//! Pure: the environment comes in as a function. Variables that belong to no option are none of our
//! business: start scripts and tests have their own.

use super::access::HIDDEN;
use super::arguments::{Spelled, switch};
use super::error::{Error, Given};
use argh::{FlagInfo, FlagInfoKind};
use std::ffi::OsString;

/// Asked about by a person, not set for a service: a `WMGWD_VERSION` of an image is not meant for us.
const NOT_THERE: [&str; 2] = ["--help", "--version"];

/// The variable of an option: `WMGWD_LEASE_TTL` of `--lease-ttl`. `None` if it has none.
pub(super) fn variable(option: &str) -> Option<String> {
    let name = option.strip_prefix("--")?;
    (!NOT_THERE.contains(&option))
        .then(|| format!("WMGWD_{}", name.to_ascii_uppercase().replace('-', "_")))
}

/// Adds to `spelled` the options of `flags` that were not on the command line and have a variable that is
/// not empty. Returns those.
pub(super) fn complete(
    spelled: &mut Spelled,
    flags: &'static [FlagInfo<'static>],
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<&'static str>, Error> {
    let mut found = Vec::new();
    for flag in flags {
        let value = variable(flag.long)
            .filter(|_| !spelled.seen.contains(&flag.long))
            .and_then(|variable| lookup(&variable))
            .filter(|value| !value.is_empty());
        let Some(value) = value else { continue };
        let given = Given::Variable(flag.long);
        let value = value.into_string().map_err(|value| Error::Bad {
            given,
            takes: flag.description,
            value: match flag.long {
                "--user" => HIDDEN.to_owned(),
                _ => value.to_string_lossy().into_owned(),
            },
        })?;
        found.push(flag.long);
        match flag.kind {
            FlagInfoKind::Switch => {
                if switch(given, flag.description, &value)? {
                    spelled.texts.push(flag.long.to_owned());
                }
            }
            FlagInfoKind::Option { .. } => {
                spelled.texts.extend([flag.long.to_owned(), value]);
            }
        }
    }
    Ok(found)
}
