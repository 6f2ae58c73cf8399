//! Child processes: what all of them are started without.

use crate::sys::sd_notify;
use std::ffi::OsStr;
use std::process::Command;

/// Variables that may hold a password (`--user NAME:PASSWORD` from the environment).
const SECRET: [&str; 1] = ["WMGWD_USER"];

/// A command, not yet run, that inherits this process's environment but for what is secret in it, and for what would
/// let it speak for this process.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in SECRET.iter().chain(&sd_notify::VARIABLES) {
        command.env_remove(variable);
    }
    command
}
