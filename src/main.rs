//! The process: reads the command line, starts the threads, and turns how it ended into an exit status.
#![deny(unsafe_code)]

mod serve;

use log::error;
use std::env;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use wmgwd::cli::{self, Command};
use wmgwd::{logging, signal};

/// The status for a command line that cannot be taken.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Written by hand, since `print!` and `eprintln!` panic when nobody reads.
    let command = match cli::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(Command::Print(text)) => {
            return match stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Ok(command) => command,
        Err(error) => {
            let _ = writeln!(stderr(), "wmgwd: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let status = match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{}", wmgwd::report::chain(failure.as_ref()));
            ExitCode::FAILURE
        }
    };
    log::logger().flush();
    status
}

fn run(command: Command) -> Result<(), serve::Failure> {
    // Before any thread, so that all of them inherit it.
    let signals = signal::block()?;
    match command {
        Command::Run(config) => {
            logging::init(config.debug)?;
            serve::run(config, signals)
        }
        Command::Withdraw(config) => {
            logging::init(config.debug)?;
            serve::withdraw(&config)
        }
        Command::Guard(arguments) => serve::guard(&arguments),
        Command::Print(_) => Ok(()),
    }
}
