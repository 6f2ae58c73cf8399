//! The process: reads the command line, starts the threads, and turns how it ended into an exit status.
#![deny(unsafe_code)]

use log::{Level, error, warn};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
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

/// Variables, by name.
type Environment = BTreeMap<String, OsString>;

/// The status for a command line that cannot be taken, or a question that cannot be answered.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Written by hand, since `print!` and `eprintln!` panic when the reader is gone.
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let parsed = environment(&arguments).and_then(|environment| {
        let command = cli::parse(arguments.into_iter(), |name| environment.get(name).cloned())?;
        Ok((command, environment))
    });
    let (command, environment) = match parsed {
        Ok((Command::Print(text), _)) => {
            return match stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Ok(parsed) => parsed,
        Err(error) => {
            let priority = logging::priority(Level::Error);
            let _ = writeln!(stderr(), "{priority}wmgwd: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let status = match run(command, &environment) {
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

/// The environment, with the variables of the file that the arguments name in place of its own.
fn environment(arguments: &[OsString]) -> Result<Environment, cli::Error> {
    let names = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let mut environment: Environment = names.collect();
    let Some(file) = cli::env_file(arguments) else {
        return Ok(environment);
    };
    let text = fs::read_to_string(&file).map_err(|error| error.to_string());
    let variables = text.and_then(|text| {
        let no_variable = |line| format!("line {line} sets no variable");
        cli::variables(&text).map_err(no_variable)
    });
    match variables {
        Ok(variables) => environment.extend(variables),
        Err(reason) => return Err(cli::Error::EnvFile { file, reason }),
    }
    Ok(environment)
}

fn run(command: Command, environment: &Environment) -> Result<ExitCode, Failure> {
    // Before any thread, so that all of them inherit it.
    let signals = signal::block()?;
    match command {
        Command::Run(config) => {
            logging::init(config.debug)?;
            warn_of_strangers(environment);
            daemon::run(config, signals)?;
        }
        Command::CheckConfig(config) => {
            logging::init(config.debug)?;
            warn_of_strangers(environment);
            daemon::check_config(&config)?;
        }
        Command::Withdraw(config) => {
            logging::init(config.debug)?;
            warn_of_strangers(environment);
            withdraw::withdraw(&config)?;
        }
        Command::Witness(config) => {
            logging::init(config.debug)?;
            warn_of_strangers(environment);
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
            for text in of_no_option(environment) {
                let _ = writeln!(stderr(), "wmgwd: {text}");
            }
            return Ok(check(&config)?);
        }
        Command::Guard(arguments) => guard::run::run(&arguments)?,
        Command::Print(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn warn_of_strangers(environment: &Environment) {
    for text in of_no_option(environment) {
        warn!("{text}");
    }
}

/// A line for each variable of the environment that is perhaps a misspelt option.
fn of_no_option(environment: &Environment) -> Vec<String> {
    cli::strangers(environment.keys().cloned())
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
