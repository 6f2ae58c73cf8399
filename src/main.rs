//! The process: reads the command line, starts the threads, and turns how it ended into an exit status.
#![deny(unsafe_code)]

use log::{Level, error, warn};
use std::env;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use wmgwd::cli::{self, CheckConfig, Command};
use wmgwd::commands::check::{self, Fitness, look::look, show};
use wmgwd::commands::{operate, withdraw};
use wmgwd::daemon::{self, bystander};
use wmgwd::etcd::AccessError;
use wmgwd::sys::signal;
use wmgwd::telemetry::logging;
use wmgwd::{Failure, guard};

/// The status for a command line that cannot be taken, or a question that cannot be answered.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Written by hand, since `print!` and `eprintln!` panic when the reader is gone.
    let command = match cli::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(Command::Print(text)) => {
            return match stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Ok(command) => command,
        Err(error) => {
            let priority = logging::priority(Level::Error);
            let _ = writeln!(stderr(), "{priority}wmgwd: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let status = match run(command) {
        Ok(status) => status,
        Err(failure) => {
            error!("{}", wmgwd::telemetry::log_text::chain(failure.as_ref()));
            match failure.downcast_ref::<AccessError>() {
                // As with an option that cannot be taken: starting again does not make it better.
                Some(error) if error.is_lasting() => ExitCode::from(USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    };
    log::logger().flush();
    status
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    // Before any thread, so that all of them inherit it.
    let signals = signal::block()?;
    match command {
        Command::Run(config) => {
            logging::init(config.debug)?;
            warn_of_strangers();
            daemon::run(config, signals)?;
        }
        Command::CheckConfig(config) => {
            logging::init(config.debug)?;
            warn_of_strangers();
            daemon::check_config(&config)?;
        }
        Command::Withdraw(config) => {
            logging::init(config.debug)?;
            warn_of_strangers();
            withdraw::withdraw(&config)?;
        }
        Command::Witness(config) => {
            logging::init(config.debug)?;
            warn_of_strangers();
            bystander::run(config, signals)?;
        }
        Command::Status(config) => return operate::status(&config, signals),
        Command::Drain(config) => {
            signals.unblock()?;
            return operate::drain(&config);
        }
        Command::Undrain(config) => {
            signals.unblock()?;
            return operate::undrain(&config);
        }
        Command::Check(config) => {
            signals.unblock()?;
            for text in of_no_option() {
                let _ = writeln!(stderr(), "wmgwd: {text}");
            }
            return Ok(check(&config)?);
        }
        Command::Guard(arguments) => guard::run::run(&arguments)?,
        Command::Print(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn warn_of_strangers() {
    for text in of_no_option() {
        warn!("{text}");
    }
}

/// A line for each variable of the environment that is perhaps a misspelt option.
fn of_no_option() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    cli::strangers(names)
        .into_iter()
        .map(|cli::Stranger { name, meant }| match meant {
            Some(meant) => format!("{name} is the variable of no option: is {meant} meant?"),
            None => format!("{name} is the variable of no option and has no effect"),
        })
        .collect()
}

/// Prints whether this host is fit to serve; the status says it too.
fn check(config: &CheckConfig) -> io::Result<ExitCode> {
    let findings = check::findings(&config.purpose, &look(config));
    let no_color = env::var_os("NO_COLOR");
    let colour = logging::wants_colour(stdout().is_terminal(), no_color.as_deref());
    let text = match config.json {
        true => show::json(&findings),
        false => show::lines(&findings, colour),
    };
    stdout().write_all(text.as_bytes())?;
    Ok(match check::fitness(&findings) {
        Fitness::May => ExitCode::SUCCESS,
        Fitness::MayNot => ExitCode::FAILURE,
        Fitness::CannotTell => ExitCode::from(USAGE),
    })
}
