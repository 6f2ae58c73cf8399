//! `wmgwd status`, `drain` and `undrain`: what an operator asks and tells the cluster, through etcd.

use crate::Failure;
use crate::cli::{DrainConfig, StatusConfig, UndrainConfig};
use crate::commands::status::{
    self, Health, Line, Marks, Report, Screen, Snapshot, look::guards, look::look,
};
use crate::etcd::{Access, Client};
use crate::model::types::NodeName;
use crate::schema;
use crate::sys::clock;
use crate::sys::signal::Signals;
use crate::telemetry::log_text::chain;
use crate::telemetry::logging::wants_colour;
use nix::libc;
use nix::sys::signal::{Signal, raise};
use std::env;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Nothing that was asked for is amiss.
const GOOD: u8 = 0;
/// Something is.
const AMISS: u8 = 1;
/// It cannot be told: etcd does not answer, or no node says what there should be.
const UNKNOWN: u8 = 2;

/// How long one member of etcd may take to answer: a person waits.
const ANSWER: Duration = Duration::from_secs(3);
/// How often a drain looks how far it has got.
const PAUSE: Duration = Duration::from_millis(500);

/// A screen of its own, so that the one before comes back at the end; and no cursor in it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows what the cluster does, once or until a signal.
pub fn status(config: &StatusConfig, signals: Signals) -> Result<ExitCode, Failure> {
    let terminal = stdout().is_terminal() && env::var_os("TERM").is_none_or(|it| it != "dumb");
    let colour = wants_colour(terminal, env::var_os("NO_COLOR").as_deref());
    let client = match open(&config.etcd) {
        Ok(client) => client,
        Err(status) => return Ok(status),
    };
    let full_screen = config.watch && terminal && !config.json;
    let last = Arc::new(AtomicU8::new(UNKNOWN));
    let told = last.clone();
    let signals = match full_screen {
        true => signals.with_keyboard()?,
        false => signals,
    };
    signals.listen(move |signal| {
        // Held to the end, so that nothing is drawn on the screen that comes back.
        let _held = stdout().lock();
        if full_screen {
            print(LEAVE);
        }
        if signal != Signal::SIGTSTP {
            std::process::exit(i32::from(told.load(Ordering::Relaxed)));
        }
        // The shell has the terminal until it sends SIGCONT; the next look draws again.
        let _ = raise(Signal::SIGSTOP);
        print(ENTER);
    })?;
    if full_screen {
        print(ENTER);
    }
    let mut marks = Marks::default();
    let etcd = config.etcd.endpoints.first().map(ToString::to_string);
    let etcd = etcd.unwrap_or_default();
    loop {
        // Also where etcd does not answer: that is when it matters most how long the proof lasts.
        let guards = guards(&etcd);
        let (lines, json, status) = match look(&client) {
            Ok(snapshot) => {
                let snapshot = Snapshot { guards, ..snapshot };
                let report = status::report(&snapshot, &mut marks);
                let asked = report.pick(&config.vnis);
                let served = match asked.is_empty() {
                    true => report.all_served(),
                    false => Some(asked.iter().all(|vni| vni.state.is_served())),
                };
                let lines = match asked.is_empty() {
                    true => status::lines(&report),
                    false => status::rows(&asked),
                };
                let status = served.map_or(UNKNOWN, |served| if served { GOOD } else { AMISS });
                (lines, status::json(&report, &asked), status)
            }
            Err(error) => {
                let reason = chain(&error);
                let mut lines = status::guards(&guards);
                match full_screen {
                    true => lines.insert(0, status::complaint(&reason)),
                    false => drop(writeln!(stderr(), "wmgwd: {reason}")),
                }
                let json = status::json_without_etcd(&reason, &guards);
                (lines, json, UNKNOWN)
            }
        };
        last.store(status, Ordering::Relaxed);
        let written = match (config.json, full_screen) {
            (true, _) => print(&json),
            (false, true) => print(&screen(lines, colour)),
            (false, false) => print(&status::paint(&lines, colour)),
        };
        // A reader that is gone is no failure of this program.
        if !config.watch || !written {
            return Ok(ExitCode::from(status));
        }
        if !config.json && !full_screen && !print("\n") {
            return Ok(ExitCode::from(status));
        }
        sleep(config.interval);
    }
}

/// Writes over the lines on the terminal, one by one, so that nothing flickers.
fn screen(lines: Vec<Line>, colour: bool) -> String {
    let size = terminal_size().unwrap_or(Screen {
        rows: 24,
        columns: 80,
    });
    // The line below the last one must be there too, or the screen scrolls.
    let room = Screen {
        rows: size.rows.saturating_sub(1),
        ..size
    };
    let text = status::paint(&status::clip(lines, room), colour);
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n"))
}

/// How large the terminal is, if it knows.
#[allow(unsafe_code)]
fn terminal_size() -> Option<Screen> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize` (ioctl_tty(2)), which `size` is and which outlives the call.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    let known = answer == 0 && size.ws_row > 0 && size.ws_col > 0;
    known.then(|| Screen {
        rows: size.ws_row.into(),
        columns: size.ws_col.into(),
    })
}

/// Takes a node out, and waits until its VNIs have moved.
pub fn drain(config: &DrainConfig) -> Result<ExitCode, Failure> {
    let client = match open(&config.etcd) {
        Ok(client) => client,
        Err(status) => return Ok(status),
    };
    let name = &config.node;
    let report = match report(&client) {
        Ok(report) => report,
        Err(status) => return Ok(status),
    };
    match report.node(name) {
        Some(node) if node.version.is_none() => {
            return Ok(refuse(&format!(
                "{name} is a Go wmgwd, which cannot be drained so: stop it, and it drains"
            )));
        }
        None if !config.force => return Ok(refuse(&unknown(name, &report, " (or use --force)"))),
        _ => {}
    }
    if let Err(error) = client.txn(&schema::drain(name)) {
        return Ok(cannot_tell(&chain(&error)));
    }
    say(&format!(
        "{name} is told to drain, until wmgwd undrain {name}"
    ));
    if !config.wait {
        return Ok(ExitCode::from(GOOD));
    }
    let deadline = clock::now() + config.timeout;
    let mut said = String::new();
    loop {
        let (done, news) = match self::report(&client) {
            Ok(report) => progress(name, &report),
            Err(_) => (false, "etcd does not answer".to_owned()),
        };
        if news != said {
            say(&news);
            said = news;
        }
        if done {
            return Ok(ExitCode::from(GOOD));
        }
        if clock::now() >= deadline {
            let seconds = config.timeout.as_secs_f64();
            return Ok(refuse(&format!(
                "{name} is not drained within {seconds} s; it goes on: see wmgwd status"
            )));
        }
        sleep(PAUSE);
    }
}

/// How far a drain has got: whether it is over, and a line that says so.
fn progress(name: &NodeName, report: &Report) -> (bool, String) {
    let Some(node) = report.node(name) else {
        return (true, format!("{name} is not registered, and has no VNIs"));
    };
    let others = report
        .nodes
        .iter()
        .any(|other| other.name != *name && other.points > 0);
    match node.health {
        Health::Drained => (true, format!("{name} is drained: it has no VNIs")),
        _ if !others && node.points == 0 => (
            false,
            format!("{name} keeps {} VNIs: no other node takes VNIs", node.owns),
        ),
        _ => (false, format!("{name} has {} VNIs", node.owns + node.gains)),
    }
}

/// Brings a node back.
pub fn undrain(config: &UndrainConfig) -> Result<ExitCode, Failure> {
    let client = match open(&config.etcd) {
        Ok(client) => client,
        Err(status) => return Ok(status),
    };
    let name = &config.node;
    let reply = match client.txn(&schema::undrain(name)) {
        Ok(reply) => reply,
        Err(error) => return Ok(cannot_tell(&chain(&error))),
    };
    if schema::undrained(&reply) {
        say(&format!(
            "{name} is not drained any more: it gets its share after its --join-hold"
        ));
        return Ok(ExitCode::from(GOOD));
    }
    let report = match report(&client) {
        Ok(report) => report,
        Err(status) => return Ok(status),
    };
    if report.node(name).is_none() {
        return Ok(refuse(&unknown(name, &report, "")));
    }
    say(&format!("{name} was not drained"));
    Ok(ExitCode::from(GOOD))
}

fn unknown(name: &NodeName, report: &Report, hint: &str) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = report
        .nodes
        .iter()
        .take(SHOWN)
        .map(|node| node.name.as_str())
        .collect();
    let names = match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    format!("no node {name} is registered; there are: {names}{hint}")
}

fn open(access: &Access) -> Result<Client, ExitCode> {
    for warning in access.warnings() {
        let _ = writeln!(stderr(), "wmgwd: warning: {warning}");
    }
    Client::open(access, ANSWER).map_err(|error| cannot_tell(&chain(&error)))
}

fn report(client: &Client) -> Result<Report, ExitCode> {
    match look(client) {
        Ok(snapshot) => Ok(status::report(&snapshot, &mut Marks::default())),
        Err(error) => Err(cannot_tell(&chain(&error))),
    }
}

fn refuse(why: &str) -> ExitCode {
    let _ = writeln!(stderr(), "wmgwd: {why}");
    ExitCode::from(AMISS)
}

fn cannot_tell(why: &str) -> ExitCode {
    let _ = writeln!(stderr(), "wmgwd: {why}");
    ExitCode::from(UNKNOWN)
}

fn say(text: &str) {
    print(&format!("{text}\n"));
}

/// Whether it still has a reader.
fn print(text: &str) -> bool {
    let mut out = stdout().lock();
    let written: io::Result<()> = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.is_ok()
}
