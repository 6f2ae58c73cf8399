//! The process: reads the command line and does what it says.
#![deny(unsafe_code)]

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use wmgwd::cli::{self, Command};

/// The status for a command line that cannot be taken.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Written by hand, since `print!` and `eprintln!` panic when nobody reads.
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => match stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(command) => {
            let _ = writeln!(stderr(), "wmgwd: not wired yet: {command:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            let _ = writeln!(stderr(), "wmgwd: {error}");
            ExitCode::from(USAGE)
        }
    }
}
