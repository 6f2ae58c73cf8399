//! The program under test, undisturbed by the environment of the tests.

use std::process::Command;

/// The real program, not yet run. It takes its options from its arguments alone: variables of options in
/// the environment of the tests do not reach it.
pub fn wmgwd() -> Command {
    undisturbed(Command::new(env!("CARGO_BIN_EXE_wmgwd")))
}

/// The same as the user of this number; needs root. That user may pass directories of root's, where the program and
/// its files may be.
pub fn wmgwd_of(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), "--clear-groups"]);
    command.args([
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--",
        env!("CARGO_BIN_EXE_wmgwd"),
    ]);
    undisturbed(command)
}

fn undisturbed(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WMGWD_") {
            command.env_remove(name);
        }
    }
    command
}
