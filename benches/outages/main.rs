//! What a station loses: real FRR, real packets, one fault at a time, in the lab of `contrib/lab`.
//!
//! ```sh
//! sudo cargo bench --bench outages                          # all rows
//! sudo cargo bench --bench outages -- --rows drain,power
//! sudo cargo bench --bench outages -- --rows power --vnis 300 --stations 24 --svg power.svg
//! sudo cargo bench --bench outages -- --rows power,drain,join --announce routes --upstream bgp
//! ```
//!
//! `contrib/outages.sh` installs what is needed first, and can do the same on FRR 10. Each row has a lab of
//! its own, which is gone when the row is done. The daemons have their default options, but a short
//! `--join-hold`, and ring points that are the same in each run.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../tests/lab/network.rs"]
#[allow(dead_code)]
mod network;
#[path = "../../tests/lab/probe.rs"]
mod probe;

mod bed;
mod plot;
mod rows;
mod table;

use argh::FromArgs;
use bed::Shape;
use probe::Family;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures the outages of stations in the lab of contrib/lab.
#[derive(FromArgs)]
struct Options {
    /// the rows to measure, comma-separated (default: all)
    #[argh(option, default = "String::new()")]
    rows: String,
    /// switch: print the names of the rows and end
    #[argh(switch)]
    list: bool,
    /// how many VNIs every gateway has
    #[argh(option, default = "12")]
    vnis: u32,
    /// how many of them have a station that sends and receives
    #[argh(option, default = "6")]
    stations: u32,
    /// how often each row is measured
    #[argh(option, default = "1")]
    runs: u32,
    /// a directory to lay over /usr in the lab: another FRR (contrib/lab/unpack.sh)
    #[argh(option)]
    usr: Option<String>,
    /// how many minutes the row `rest` takes
    #[argh(option, default = "1")]
    minutes: u64,
    /// the lab has IPv6 addresses too, and both families are probed
    #[argh(switch)]
    ipv6: bool,
    /// how VNIs are announced upstream: costs or routes (default costs)
    #[argh(option, default = "String::from(\"costs\")")]
    announce: String,
    /// with --announce routes, what carries the routes: ospf or bgp (default ospf)
    #[argh(option, default = "String::from(\"ospf\")")]
    upstream: String,
    /// options for every wmgwd, one string
    #[argh(option, default = "String::new()")]
    wmgwd: String,
    /// a file for everything that was measured
    #[argh(option)]
    json: Option<String>,
    /// a directory for the logs of each run
    #[argh(option)]
    logs: Option<PathBuf>,
    /// a file for a picture of the outages by VNI
    #[argh(option)]
    svg: Option<String>,
    /// given by cargo
    #[argh(switch)]
    #[allow(dead_code)]
    bench: bool,
}

fn main() -> ExitCode {
    let options: Options = argh::from_env();
    if options.list {
        for row in rows::ALL {
            println!("{:15} {}", row.name, row.title);
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = options
        .rows
        .split(',')
        .filter(|name| !name.is_empty())
        .collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| rows::ALL.iter().all(|row| row.name != **name))
    {
        eprintln!("outages: no row {unknown:?}; --list names them");
        return ExitCode::from(2);
    }
    let upstream = match (options.announce.as_str(), options.upstream.as_str()) {
        ("costs", _) => None,
        ("routes", upstream @ ("ospf" | "bgp")) => Some(upstream),
        _ => {
            eprintln!("outages: --announce is costs or routes, --upstream ospf or bgp");
            return ExitCode::from(2);
        }
    };
    let shape = Shape {
        vnis: options.vnis,
        stations: options.stations,
        usr: options.usr.as_deref(),
        upstream,
        options: options.wmgwd.split_whitespace().collect(),
        families: match options.ipv6 {
            true => vec![Family::V4, Family::V6],
            false => vec![Family::V4],
        },
        rest: Duration::from_secs(60 * options.minutes),
        logs: options.logs.clone(),
    };
    let chosen = rows::ALL
        .iter()
        .filter(|row| wanted.is_empty() || wanted.contains(&row.name));
    let mut results = Vec::new();
    for row in chosen {
        for run in 1..=options.runs.max(1) {
            let Some(result) = row.measure(&shape, run) else {
                return ExitCode::FAILURE;
            };
            eprintln!("{}", table::line(&result));
            eprint!("{}", table::alarms(&result));
            results.push(result);
        }
    }
    print!("{}\n{}", table::table(&results), table::spread(&results));
    let mut written = Ok(());
    if let Some(path) = &options.json {
        written = std::fs::write(path, table::json(&shape, &results));
    }
    if let Some(path) = &options.svg {
        written = written.and_then(|()| std::fs::write(path, plot::svg(&results)));
    }
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outages: cannot write what was measured: {error}");
            ExitCode::FAILURE
        }
    }
}
