//! The command line: raw arguments and environment in, a checked [`Command`] out. Pure but for the dice
//! of `--uids`.
//!
//! Arguments are first brought from Go's spelling into argh's (`arguments`), options that are not among
//! them are added from the environment (`environment`), then argh fills the raw texts of `Args`, then
//! every text is read and checked into a [`Config`]. What stands in the doc comments of `Args` is the
//! help text *and* what an error says the option takes.

mod arguments;
mod check;
mod environment;
mod error;
#[cfg(test)]
mod tests;
mod timing;
mod values;

use crate::etcd;
use crate::host::frr::EvpnFilter;
use crate::types::{NodeName, VniRange};
use argh::{ArgsInfo, FlagInfo, FromArgs};
use arguments::Normal;
use check::CheckArgs;
use std::ffi::OsString;
use std::time::Duration;

pub use check::CheckConfig;
pub use error::{Error, Given};
pub use timing::Timing;

/// What the process was asked to do.
#[derive(Debug)]
pub enum Command {
    /// Serve VNIs.
    Run(Config),
    /// Withdraw everything on this host, and end.
    Withdraw(WithdrawConfig),
    /// Look whether this host is fit to serve, and end.
    Check(CheckConfig),
    /// Be the guard of a daemon (internal); its arguments, unread.
    Guard(Vec<String>),
    /// Print this to standard output, and end with status 0.
    Print(String),
}

/// How a node is to run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name it registers under.
    pub name: NodeName,
    /// The VNIs it serves.
    pub range: VniRange,
    /// Whether the host is left alone.
    pub mock: bool,
    /// Its points on the ring.
    pub points: Vec<u64>,
    /// Whether the points were given; else they were drawn by lot.
    pub points_given: bool,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// Where etcd answers: the next one is tried when one fails. Never empty.
    pub etcd: Vec<etcd::Endpoint>,
    /// How long routes get to converge between the phases of a migration. A drain in the lab lost nothing
    /// with 0 s; the default leaves room for slower networks.
    pub settle: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// The lease and every time that follows from it.
    pub timing: Timing,
    /// How long a node must have been registered before it pulls VNIs from living owners.
    pub join_hold: Duration,
    /// How `filter-vni` lets a VNI's routes pass.
    pub evpn_filter: EvpnFilter,
    /// The OSPF cost right after a failover; 100 is the owner's usual one.
    pub takeover_cost: u16,
}

/// How `wmgwd withdraw` is to run, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawConfig {
    /// The VNIs to withdraw.
    pub range: VniRange,
    /// Whether the host is left alone.
    pub mock: bool,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// How `filter-vni` lets a VNI's routes pass.
    pub evpn_filter: EvpnFilter,
    /// Whether to leave everything to the guard of a crashed daemon, if one runs.
    pub unless_guarded: bool,
}

/// Distributed gateway daemon: exactly one gateway serves each VNI.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "--name <name> [options]\n       wmgwd withdraw [options]\n       wmgwd check [options]",
    note = "wmgwd withdraw withdraws every VNI on this host, without etcd; see wmgwd withdraw --help.",
    note = "wmgwd check says whether this host is fit to serve, and what mends it; see wmgwd check --help.",
    note = "An option may have one dash or two, and its value may follow a space or \"=\".",
    note = "Options may come from the environment: --lease-ttl as WMGWD_LEASE_TTL, and so on for all but --help and --version. The command line wins.",
    note = "wmgwd(8) explains it all."
)]
struct Args {
    /// the name of this node: text that is not empty and has no slash and no control character (required)
    #[argh(option)]
    name: Option<String>,
    /// the smallest VNI to serve, from 1 to 16777215 (default: 1)
    #[argh(option, default = "String::from(\"1\")")]
    minvni: String,
    /// the greatest VNI to serve, from 1 to 16777215, not smaller than --minvni (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    maxvni: String,
    /// true or false: leave the kernel and FRR alone, log at debug what would be done (default: false)
    #[argh(switch)]
    mock: bool,
    /// the ring points of this node: numbers from 0 to 18446744073709551615, separated by commas (default: 100 random points)
    #[argh(option, default = "String::new()")]
    uids: String,
    /// true or false: log at debug (default: false)
    #[argh(switch)]
    debug: bool,
    /// the URLs of etcd, http://host:port, separated by commas; when one fails, the next is tried (default: http://localhost:2379)
    #[argh(option, default = "String::from(\"http://localhost:2379\")")]
    etcd: String,
    /// seconds from 0 to 3600, for routes to converge between the phases of a migration (default: 0.5)
    #[argh(option, default = "String::from(\"0.5\")")]
    settle: String,
    /// seconds from 0 to 3600, after which a drain ends whether or not every VNI has moved (default: 60)
    #[argh(option, default = "String::from(\"60\")")]
    drain_timeout: String,
    /// whole seconds from 2 to 600: how long the lease lasts without a keepalive (default: 5)
    #[argh(option, default = "String::from(\"5\")")]
    lease_ttl: String,
    /// seconds from 0 to 3600 that a node must have been registered before it pulls VNIs from living owners (default: 30)
    #[argh(option, default = "String::from(\"30\")")]
    join_hold: String,
    /// list or entries: whether filter-vni matches one list of route targets or has an entry for each VNI (default: list)
    #[argh(option, default = "String::from(\"list\")")]
    evpn_filter: String,
    /// the OSPF cost right after a failover, from 1 to 100; 100 is the usual cost of an owner (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    takeover_cost: String,
    /// true or false: print the version and end (default: false)
    #[argh(switch)]
    version: bool,
}

/// Withdraws every VNI of the range on this host: ARP, EVPN and OSPF. Needs no etcd.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "[options]",
    note = "Options may come from the environment: --maxvni as WMGWD_MAXVNI, and so on for all but --help. The command line wins."
)]
struct WithdrawArgs {
    /// the smallest VNI to withdraw, from 1 to 16777215 (default: 1)
    #[argh(option, default = "String::from(\"1\")")]
    minvni: String,
    /// the greatest VNI to withdraw, from 1 to 16777215, not smaller than --minvni (default: 100)
    #[argh(option, default = "String::from(\"100\")")]
    maxvni: String,
    /// true or false: leave the kernel and FRR alone, log at debug what would be done (default: false)
    #[argh(switch)]
    mock: bool,
    /// true or false: log at debug (default: false)
    #[argh(switch)]
    debug: bool,
    /// list or entries: whether filter-vni matches one list of route targets or has an entry for each VNI (default: list)
    #[argh(option, default = "String::from(\"list\")")]
    evpn_filter: String,
    /// true or false: withdraw nothing while the guard of a crashed daemon still runs on this host (default: false)
    #[argh(switch)]
    unless_guarded: bool,
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
        texts.push(arg.into_string().map_err(|arg| Error::NotUtf8 {
            argument: arg.to_string_lossy().into_owned(),
            after: texts.last().cloned(),
        })?);
    }
    match texts.split_first() {
        Some((command, rest)) if command == "guard" => Ok(Command::Guard(rest.to_vec())),
        Some((command, rest)) if command == "withdraw" => {
            fill::<WithdrawArgs>(&["wmgwd", "withdraw"], rest, environment)?.map_or_else(
                |help| Ok(Command::Print(help)),
                |(args, options)| args.check(&options).map(Command::Withdraw),
            )
        }
        Some((command, rest)) if command == "check" => {
            fill::<CheckArgs>(&["wmgwd", "check"], rest, environment)?.map_or_else(
                |help| Ok(Command::Print(help)),
                |(args, options)| args.check(&options).map(Command::Check),
            )
        }
        _ => fill::<Args>(&["wmgwd"], &texts, environment)?.map_or_else(
            |help| Ok(Command::Print(help)),
            |(args, options)| {
                if args.version {
                    return Ok(Command::Print(version()));
                }
                args.check(&options).map(Command::Run)
            },
        ),
    }
}

/// What `--version` prints.
fn version() -> String {
    format!("wmgwd {}\n", env!("CARGO_PKG_VERSION"))
}

/// Fills `T` with the raw texts of `arguments` and of the environment, or returns its help as the inner
/// error.
fn fill<T: FromArgs + ArgsInfo>(
    command: &[&str],
    arguments: &[String],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Result<(T, Options), String>, Error> {
    let flags = T::get_args_info().flags;
    let mut from_environment = Vec::new();
    let texts = match arguments::normalise(arguments, flags)? {
        Normal::Arguments(mut spelled) => {
            // Who asks for the version gets it, whatever stands in the environment.
            if !spelled.texts.iter().any(|text| text == "--version") {
                from_environment = environment::complete(&mut spelled, flags, environment)?;
            }
            spelled.texts
        }
        Normal::Help => vec![String::from("--help")],
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match T::from_args(command, &texts) {
        Ok(args) => Ok(Ok((
            args,
            Options {
                flags,
                from_environment,
            },
        ))),
        Err(exit) if exit.status.is_ok() => Ok(Err(exit.output)),
        // `normalise` lets nothing through that argh refuses; if argh grows new rules, say what it says.
        Err(exit) => Err(Error::Argh {
            says: exit.output.split_whitespace().collect::<Vec<_>>().join(" "),
        }),
    }
}

impl Args {
    /// Reads every text, in the order of the help.
    fn check(&self, options: &Options) -> Result<Config, Error> {
        let Some(name) = &self.name else {
            return Err(Error::Required {
                option: "--name",
                takes: options.takes("--name"),
            });
        };
        let seconds = |option, text: &str| options.read(option, text, values::seconds);
        Ok(Config {
            name: options.read("--name", name, |text| text.parse().ok())?,
            range: options.range(&self.minvni, &self.maxvni)?,
            mock: self.mock,
            points: self.points(options)?,
            points_given: !self.uids.is_empty(),
            debug: self.debug,
            etcd: options.endpoints("--etcd", &self.etcd)?,
            settle: seconds("--settle", &self.settle)?,
            drain_timeout: seconds("--drain-timeout", &self.drain_timeout)?,
            timing: options.read("--lease-ttl", &self.lease_ttl, values::lease)?,
            join_hold: seconds("--join-hold", &self.join_hold)?,
            evpn_filter: options.read("--evpn-filter", &self.evpn_filter, values::evpn_filter)?,
            takeover_cost: options.read(
                "--takeover-cost",
                &self.takeover_cost,
                values::takeover_cost,
            )?,
        })
    }

    /// The ring points: those given, or some by lot. An empty text is "not given", as in Go.
    fn points(&self, options: &Options) -> Result<Vec<u64>, Error> {
        if self.uids.is_empty() {
            return Ok(values::random_points());
        }
        // Item by item, so that the error shows the bad one and not a line of a hundred.
        self.uids
            .split(',')
            .map(|item| options.read("--uids", item, values::point))
            .collect()
    }
}

impl WithdrawArgs {
    fn check(&self, options: &Options) -> Result<WithdrawConfig, Error> {
        Ok(WithdrawConfig {
            range: options.range(&self.minvni, &self.maxvni)?,
            mock: self.mock,
            debug: self.debug,
            evpn_filter: options.read("--evpn-filter", &self.evpn_filter, values::evpn_filter)?,
            unless_guarded: self.unless_guarded,
        })
    }
}

/// The options of one command.
struct Options {
    /// As argh describes them.
    flags: &'static [FlagInfo<'static>],
    /// Those that the environment gave.
    from_environment: Vec<&'static str>,
}

impl Options {
    /// What `option` takes, in the words of its help.
    fn takes(&self, option: &str) -> &'static str {
        self.flags
            .iter()
            .find(|flag| flag.long == option)
            .map_or("", |flag| flag.description)
    }

    /// Where the value of `option` comes from.
    fn given(&self, option: &'static str) -> Given {
        if self.from_environment.contains(&option) {
            Given::Variable(option)
        } else {
            Given::Argument(option)
        }
    }

    /// `text` as `read` understands it, or an error that names `option` and what it takes.
    fn read<T>(
        &self,
        option: &'static str,
        text: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        read(text).ok_or_else(|| Error::Bad {
            given: self.given(option),
            takes: self.takes(option),
            value: text.to_owned(),
        })
    }

    /// The range from `min` to `max`.
    fn range(&self, min: &str, max: &str) -> Result<VniRange, Error> {
        let first = self.read("--minvni", min, |text| text.parse().ok())?;
        let last = self.read("--maxvni", max, |text| text.parse().ok())?;
        VniRange::new(first, last).ok_or_else(|| Error::EmptyRange {
            first: (self.given("--minvni"), first),
            last: (self.given("--maxvni"), last),
        })
    }

    /// The endpoints of `list`.
    fn endpoints(&self, option: &'static str, list: &str) -> Result<Vec<etcd::Endpoint>, Error> {
        etcd::parse_endpoints(list).map_err(|error| Error::Endpoint {
            given: self.given(option),
            error,
        })
    }
}
