//! The command line: raw arguments and environment in, a checked [`Command`] out. Pure but for the dice
//! of `--uids`.
//!
//! Each command has a module with its raw arguments and with what they become when they are checked. The
//! first argument names the command; without one it is the `daemon`.
//!
//! Arguments are first brought from Go's spelling into argh's (`arguments`), options that are not among
//! them are added from the environment (`environment`), then argh fills the raw texts of the command's
//! `Args`, then every text is read and checked (`options`, `values`) into a [`Config`]. What is in the
//! doc comments of `Args` is the help text *and* what an error says the option takes.

mod access;
mod arguments;
mod check;
mod daemon;
mod env_file;
mod environment;
mod error;
mod operate;
mod options;
#[cfg(test)]
mod tests;
mod timing;
mod values;
mod withdraw;
mod witness;

use argh::{ArgsInfo, FromArgs};
use check::CheckArgs;
use daemon::Args;
use operate::{DrainArgs, StatusArgs, UndrainArgs};
use options::{Options, fill};
use std::ffi::{OsStr, OsString};
use withdraw::WithdrawArgs;
use witness::WitnessArgs;

pub use check::CheckConfig;
pub use daemon::Config;
pub use env_file::{file as env_file, variables};
pub use environment::Stranger;
pub use error::{Error, Given};
pub use operate::{DrainConfig, StatusConfig, UndrainConfig};
pub use timing::Timing;
pub use withdraw::WithdrawConfig;
pub use witness::WitnessConfig;

/// What the process was asked to do.
#[derive(Debug)]
pub enum Command {
    /// Serve VNIs.
    Run(Config),
    /// Look whether a node could run so, and end.
    CheckConfig(Config),
    /// Withdraw everything on this host, and end.
    Withdraw(WithdrawConfig),
    /// Serve nothing, but be a witness of those who do.
    Witness(WitnessConfig),
    /// Look whether this host is fit to serve, and end.
    Check(CheckConfig),
    /// Show what the cluster does, and end.
    Status(StatusConfig),
    /// Take a node out, and end.
    Drain(DrainConfig),
    /// Bring a node back, and end.
    Undrain(UndrainConfig),
    /// Be the guard of a daemon (internal); its arguments, unread.
    Guard(Vec<String>),
    /// Print this to standard output, and end with status 0.
    Print(String),
}

/// Reads the arguments that follow the program's name; `environment` has the value of a variable.
///
/// # Errors
/// [`Error`], one line, at the first argument or variable that cannot be taken. Nothing has been touched
/// by then.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Error> {
    let mut texts = Vec::new();
    for arg in args {
        texts.push(
            arg.into_string()
                .map_err(|arg| not_utf8(&arg, texts.last()))?,
        );
    }
    if texts.first().is_some_and(|text| text == "help") {
        // `wmgwd help status` is `wmgwd status --help`.
        texts.remove(0);
        texts.truncate(1);
        texts.push(String::from("--help"));
    }
    let command = texts.first().map_or("", String::as_str);
    let rest = texts.get(1..).unwrap_or_default();
    match command {
        "guard" => Ok(Command::Guard(rest.to_vec())),
        "withdraw" => {
            let checked = take(command, rest, environment, WithdrawArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Withdraw))
        }
        "check" => {
            let checked = take(command, rest, environment, CheckArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Check))
        }
        "witness" => {
            let checked = take(command, rest, environment, WitnessArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Witness))
        }
        "status" => {
            let checked = take(command, rest, environment, StatusArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Status))
        }
        "drain" => {
            let checked = take(command, rest, environment, DrainArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Drain))
        }
        "undrain" => {
            let checked = take(command, rest, environment, UndrainArgs::check)?;
            Ok(checked.map_or_else(Command::Print, Command::Undrain))
        }
        unknown if !unknown.is_empty() && !unknown.starts_with('-') => Err(Error::NoCommand {
            command: unknown.to_owned(),
        }),
        _ => {
            let checked = take("", &texts, environment, |args: &Args, options| {
                // Who asks for the version need not say more.
                let config = (!args.version).then(|| args.check(options)).transpose()?;
                Ok((config, args.check_config))
            })?;
            Ok(match checked {
                Err(help) => Command::Print(help),
                Ok((None, _)) => Command::Print(version()),
                Ok((Some(config), true)) => Command::CheckConfig(config),
                Ok((Some(config), false)) => Command::Run(config),
            })
        }
    }
}

/// The variables among `names` that look like those of options and belong to none, of any command.
pub fn strangers(names: impl Iterator<Item = String>) -> Vec<Stranger> {
    let flags = [
        Args::get_args_info().flags,
        WithdrawArgs::get_args_info().flags,
        CheckArgs::get_args_info().flags,
        StatusArgs::get_args_info().flags,
        DrainArgs::get_args_info().flags,
        UndrainArgs::get_args_info().flags,
        WitnessArgs::get_args_info().flags,
    ];
    environment::strangers(names, flags.into_iter().flatten())
}

/// Fills the arguments `T` of `command` and makes of them what `check` does, or returns the help as the
/// inner error if that was asked for.
fn take<T: FromArgs + ArgsInfo, C>(
    command: &str,
    arguments: &[String],
    environment: impl Fn(&str) -> Option<OsString>,
    check: impl Fn(&T, &Options) -> Result<C, Error>,
) -> Result<Result<C, String>, Error> {
    let command: &[&str] = match command {
        "" => &["wmgwd"],
        command => &["wmgwd", command],
    };
    match fill(command, arguments, environment)? {
        Ok((args, options)) => check(&args, &options).map(Ok),
        Err(help) => Ok(Err(help)),
    }
}

/// The error for an argument that is no text. What may be a password is not shown.
fn not_utf8(argument: &OsStr, before: Option<&String>) -> Error {
    let argument = argument.to_string_lossy();
    let is_user = |text: &str| text.trim_start_matches('-').split('=').next() == Some("user");
    let secret = argument.contains(':')
        || is_user(&argument)
        || before.is_some_and(|before| is_user(before));
    Error::NotUtf8 {
        argument: if secret {
            access::HIDDEN.to_owned()
        } else {
            argument.into_owned()
        },
        after: before
            .filter(|before| before.starts_with('-') && !before.contains('='))
            .cloned(),
    }
}

/// What `--version` prints.
fn version() -> String {
    format!("wmgwd {}\n", env!("CARGO_PKG_VERSION"))
}
