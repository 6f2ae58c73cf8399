//! Why the arguments cannot be taken.

use super::environment;
use crate::etcd::EndpointError;
use crate::model::types::Vni;
use std::fmt;
use std::path::PathBuf;

/// Where the value of an option comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// This option of the command line, or its default.
    Argument(&'static str),
    /// The environment variable of this option.
    Variable(&'static str),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Argument(option) => f.write_str(option),
            Given::Variable(option) => match environment::variable(option) {
                Some(variable) => f.write_str(&variable),
                None => f.write_str(option),
            },
        }
    }
}

/// Why the arguments cannot be taken: one line that names the option and what it takes.
#[derive(PartialEq, Eq, Debug)]
pub enum Error {
    /// The argument is not UTF-8.
    NotUtf8 {
        /// The argument, with what is readable of it.
        argument: String,
        /// The argument before it, which is the option if this is its value.
        after: Option<String>,
    },
    /// There is no such option.
    Unknown {
        /// The option as it was written.
        option: String,
    },
    /// There is no such command.
    NoCommand {
        /// The command as it was written.
        command: String,
    },
    /// The operand must be given, and was not.
    NoOperand {
        /// The operand.
        operand: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// The operand is none that can be taken.
    Operand {
        /// The operand.
        operand: &'static str,
        /// What it takes.
        takes: &'static str,
        /// What was given.
        value: String,
    },
    /// There is an operand behind the last one that is taken.
    TooMany {
        /// The last operand.
        operand: String,
        /// What was given.
        argument: String,
    },
    /// An argument is no option.
    Unexpected {
        /// What was given.
        argument: String,
    },
    /// The option is given without its value.
    NoValue {
        /// The option.
        option: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// The option is given twice.
    Twice {
        /// The option.
        option: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// The option must be given, and was not.
    Required {
        /// The option.
        option: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// The option has a value that it does not take.
    Bad {
        /// The option, or its variable.
        given: Given,
        /// What it takes.
        takes: &'static str,
        /// What it was given.
        value: String,
    },
    /// `--etcd` holds something that is no endpoint.
    Endpoint {
        /// The option, or its variable.
        given: Given,
        /// What is wrong with it.
        error: EndpointError,
    },
    /// An option is of no use without another.
    Lacks {
        /// The option, or its variable.
        given: Given,
        /// What it needs.
        needs: &'static str,
    },
    /// The password of `--user` is given twice.
    TwoPasswords {
        /// `--user`, or its variable.
        user: Given,
        /// `--password-file`, or its variable.
        file: Given,
    },
    /// `--minvni` is greater than `--maxvni`.
    EmptyRange {
        /// `--minvni`, where it comes from and what it is.
        first: (Given, Vni),
        /// `--maxvni`, as well.
        last: (Given, Vni),
    },
    /// The file of `--env-file` is not as it should be.
    EnvFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// argh refused the arguments.
    Argh {
        /// In its words.
        says: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotUtf8 { argument, after } => {
                write!(f, "the argument {} ", Quoted(argument))?;
                if let Some(after) = after {
                    write!(f, "after {} ", Quoted(after))?;
                }
                f.write_str("is not UTF-8; every option takes UTF-8 text")
            }
            Error::Unknown { option } => {
                write!(f, "there is no option {}; see wmgwd --help", Quoted(option))
            }
            Error::EnvFile { file, reason } => write!(
                f,
                "--env-file {}: {reason}; it takes a file of lines such as WMGWD_MAXVNI=1000",
                file.display()
            ),
            Error::NoCommand { command } => write!(
                f,
                "there is no command {}; see wmgwd --help",
                Quoted(command)
            ),
            Error::NoOperand { operand, takes } => {
                write!(f, "<{operand}> is missing; it takes {takes}")
            }
            Error::Operand {
                operand,
                takes,
                value,
            } => write!(
                f,
                "<{operand}> cannot be {}; it takes {takes}",
                Quoted(value)
            ),
            Error::TooMany { operand, argument } => write!(
                f,
                "{} is too much: only one <{operand}> is taken (a switch takes its value after \"=\"); see wmgwd --help",
                Quoted(argument)
            ),
            Error::Unexpected { argument } => write!(
                f,
                "{} is no option (a switch takes its value after \"=\"); see wmgwd --help",
                Quoted(argument)
            ),
            Error::NoValue { option, takes } => {
                write!(f, "{option} has no value; it takes {takes}")
            }
            Error::Twice { option, takes } => {
                write!(f, "{option} is given twice; it takes once {takes}")
            }
            Error::Required { option, takes } => {
                write!(f, "{option} is missing; it takes {takes}")?;
                match environment::variable(option) {
                    Some(variable) => {
                        write!(f, ", and may be given as {variable} in the environment")
                    }
                    None => Ok(()),
                }
            }
            Error::Bad {
                given,
                takes,
                value,
            } => write!(f, "{given} cannot be {}; it takes {takes}", Quoted(value)),
            Error::Endpoint { given, error } => write!(f, "{given}: {error}"),
            Error::Lacks { given, needs } => write!(f, "{given} is of no use without {needs}"),
            Error::TwoPasswords { user, file } => {
                write!(
                    f,
                    "{user} holds a password, and {file} names another; give one of them"
                )
            }
            Error::EmptyRange {
                first: (min, first),
                last: (max, last),
            } => write!(
                f,
                "{min} {first} is greater than {max} {last}; --maxvni takes a VNI that is not smaller than --minvni"
            ),
            Error::Argh { says } => f.write_str(says),
        }
    }
}

impl std::error::Error for Error {}

/// Foreign text on one line of bounded length: control characters escaped, a long end cut off.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
        }
    }
}
