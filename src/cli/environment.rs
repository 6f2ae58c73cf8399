//! Options from the environment: `--lease-ttl` is also `WMGWD_LEASE_TTL`, and so on for all of them.
//!
//! Pure: the environment comes in as a function. A variable that belongs to no option has no effect; it may be
//! a misspelt one, so that [`strangers`] names them for a warning.

use super::access::HIDDEN;
use super::arguments::{Spelled, switch};
use super::env_file::OPTION;
use super::error::{Error, Given};
use argh::{FlagInfo, FlagInfoKind};
use std::ffi::OsString;

/// Asked by a person, not set for a service: a `WMGWD_VERSION` of an image is not meant for this program.
const NOT_THERE: [&str; 4] = ["--help", "--version", "--check-config", OPTION];

/// The variable of an option: `WMGWD_LEASE_TTL` of `--lease-ttl`. `None` if it has none.
pub(super) fn variable(option: &str) -> Option<String> {
    let name = option.strip_prefix("--")?;
    (!NOT_THERE.contains(&option))
        .then(|| format!("WMGWD_{}", name.to_ascii_uppercase().replace('-', "_")))
}

/// Not an option's, and not worth a word either: what images of containers set, and the directory of a mock node.
const LEFT_ALONE: [&str; 3] = ["WMGWD_HELP", "WMGWD_VERSION", "WMGWD_MOCK_DIR"];

/// A variable that looks like that of an option and is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranger {
    /// Its name.
    pub name: String,
    /// The variable that was perhaps meant.
    pub meant: Option<String>,
}

/// Those of `names` that begin as the variables of options do and are none, where there are the options `flags`.
pub(super) fn strangers<'a>(
    names: impl Iterator<Item = String>,
    flags: impl Iterator<Item = &'a FlagInfo<'a>>,
) -> Vec<Stranger> {
    let known: Vec<String> = flags.filter_map(|flag| variable(flag.long)).collect();
    let mut strangers: Vec<Stranger> = names
        .filter(|name| name.starts_with("WMGWD_") && !LEFT_ALONE.contains(&name.as_str()))
        .filter(|name| !known.contains(name))
        .map(|name| Stranger {
            meant: nearest(&name, &known),
            name,
        })
        .collect();
    strangers.sort_by(|one, other| one.name.cmp(&other.name));
    strangers
}

/// The one of `known` that is spelt most like `name`, if any is: but for underscores, or up to two letters.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    const LETTERS: usize = 2;
    let bare = |text: &str| text.replace('_', "");
    let wrong = |other: &&String| letters_apart(&bare(name), &bare(other));
    known
        .iter()
        .min_by_key(wrong)
        .filter(|other| wrong(other) <= LETTERS)
        .cloned()
}

/// How many letters have to be put in, taken out or replaced to make `one` of `other` (Levenshtein's distance).
fn letters_apart(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
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
