//! The program under test, undisturbed by the environment of the tests.

use std::process::Command;

/// The real program, not yet run. It takes its options from its arguments alone: variables of options in
/// the environment of the tests do not reach it.
pub fn wmgwd() -> Command {
    undisturbed(Command::new(env!("CARGO_BIN_EXE_wmgwd")))
}

/// `command` without the variables of options.
pub fn undisturbed(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WMGWD_") {
            command.env_remove(name);
        }
    }
    command
}
