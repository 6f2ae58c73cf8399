//! Go's spelling of options, brought into the one that argh reads.
//!
//! wmgwd replaces a Go program, whose `flag` package takes one dash or two, a value after a space or
//! after `=`, and switches with a value. Existing start scripts must go on working.

use super::error::{Error, Given};
use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

/// Arguments, understood.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Normal {
    Arguments(Spelled),
    /// The help was asked for; what else stood there does not matter.
    Help,
}

/// Arguments in argh's spelling.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Spelled {
    /// As argh reads them: `--option value`, and `--switch` where it is true.
    pub texts: Vec<String>,
    /// The options that stood there, also a switch that was made false.
    pub seen: Vec<&'static str>,
    /// What stood there beside options and their values.
    pub operands: Vec<String>,
}

impl Spelled {
    /// All of it, as argh reads it.
    pub fn into_texts(self) -> Vec<String> {
        let mut texts = self.texts;
        if !self.operands.is_empty() {
            // What begins with a dash is an operand behind this only.
            texts.push(String::from("--"));
            texts.extend(self.operands);
        }
        texts
    }
}

/// Brings `arguments` into argh's spelling; `command` says what there is. Options and operands may come in
/// any order; what follows `--` is an operand.
pub(super) fn normalise(
    arguments: &[String],
    command: &CommandInfoWithArgs,
) -> Result<Normal, Error> {
    let flags = command.flags;
    let mut spelled = Spelled::default();
    let mut rest = arguments.iter();
    let mut only_operands = false;
    while let Some(argument) = rest.next() {
        if argument == "--" && !only_operands {
            only_operands = true;
            continue;
        }
        let option = split(argument).filter(|_| !only_operands);
        let Some((name, inline)) = option else {
            if !takes_operand(command, spelled.operands.len()) {
                return Err(unexpected(argument, command));
            }
            spelled.operands.push(argument.to_owned());
            continue;
        };
        if is_help(name) {
            return Ok(Normal::Help);
        }
        let Some(flag) = find(flags, name) else {
            return Err(Error::Unknown {
                option: argument.split('=').next().unwrap_or(argument).to_owned(),
            });
        };
        if spelled.seen.contains(&flag.long) {
            return Err(Error::Twice {
                option: flag.long,
                takes: flag.description,
            });
        }
        spelled.seen.push(flag.long);
        match flag.kind {
            FlagInfoKind::Switch => {
                // Only `=` gives a switch a value: in Go, too, `-mock false` is a switch and an operand.
                let value = inline.unwrap_or("true");
                if switch(Given::Argument(flag.long), flag.description, value)? {
                    spelled.texts.push(flag.long.to_owned());
                }
            }
            FlagInfoKind::Option { .. } => {
                let value = match inline {
                    Some(value) => value,
                    None => following(rest.next(), flags).ok_or(Error::NoValue {
                        option: flag.long,
                        takes: flag.description,
                    })?,
                };
                spelled.texts.push(flag.long.to_owned());
                spelled.texts.push(value.to_owned());
            }
        }
    }
    Ok(Normal::Arguments(spelled))
}

/// Whether `command` takes an operand after `count` of them.
fn takes_operand(command: &CommandInfoWithArgs, count: usize) -> bool {
    let last = command.positionals.last();
    count < command.positionals.len()
        || last.is_some_and(|operand| matches!(operand.optionality, Optionality::Repeating))
}

/// `-name=value` as name and value; `None` if there is no dash.
fn split(argument: &str) -> Option<(&str, Option<&str>)> {
    let bare = argument.strip_prefix('-')?;
    let bare = bare.strip_prefix('-').unwrap_or(bare);
    if bare.is_empty() {
        return None;
    }
    Some(match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, None),
    })
}

fn is_help(name: &str) -> bool {
    name == "h" || name == "help"
}

fn find(flags: &'static [FlagInfo<'static>], name: &str) -> Option<&'static FlagInfo<'static>> {
    // As with other programs; argh knows no short form of it.
    let name = if name == "v" { "version" } else { name };
    flags
        .iter()
        .find(|flag| flag.long.strip_prefix("--") == Some(name))
}

/// The argument after an option as its value. A leading dash is part of the value (`--minvni -5` is a bad
/// VNI, not an unknown option), unless the argument is itself an option: then the value was forgotten.
fn following<'a>(
    argument: Option<&'a String>,
    flags: &'static [FlagInfo<'static>],
) -> Option<&'a str> {
    let argument = argument?;
    let option =
        split(argument).is_some_and(|(name, _)| is_help(name) || find(flags, name).is_some());
    (!option && argument != "--").then_some(argument)
}

/// A switch's value, as Go's `strconv.ParseBool` reads it.
pub(super) fn switch(given: Given, takes: &'static str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::Bad {
            given,
            takes,
            value: value.to_owned(),
        }),
    }
}

fn unexpected(argument: &str, command: &CommandInfoWithArgs) -> Error {
    let argument = argument.to_owned();
    match command.positionals.last() {
        Some(operand) => Error::TooMany {
            operand: operand.name.to_owned(),
            argument,
        },
        None => Error::Unexpected { argument },
    }
}
