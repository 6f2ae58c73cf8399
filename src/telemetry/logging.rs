//! Log lines on standard error: `time [level] (thread) text`, or for the journal `<priority>(thread) text`.
//!
//! In `text`, what has a name is a pair `key=value` (see [`report::value`](crate::telemetry::log_text::value)); words
//! around it are for people. The journal has times and levels of its own: it is told the level by the prefix of
//! sd-daemon(3), and each line is one entry.
//!
//! Only wmgwd's own records are written: the HTTP client logs every request at debug, and what goes
//! wrong there comes back as an error that wmgwd reports itself.
//!
//! The reader of the log may stop reading, and a write to a full pipe then blocks for ever: a gateway must
//! not lose its VNIs by that. So, but for a terminal, lines are written by a thread of their own, `log`. If it
//! falls too far behind, lines are left out, and the log counts them.

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use simplelog::{
    ColorChoice, Config, ConfigBuilder, SharedLogger, TermLogger, TerminalMode, ThreadLogMode,
    WriteLogger,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, current, sleep};
use std::time::{Duration, Instant};

/// How many lines may wait to be written.
const WAITING: usize = 1024;
/// How long the end of the process waits for them.
const LAST: Duration = Duration::from_secs(1);

/// Starts logging: at info, or with `debug` at debug, where the module is named too.
///
/// # Errors
/// If something in this process logs already.
pub fn init(debug: bool) -> Result<(), SetLoggerError> {
    if !stderr().is_terminal() {
        return init_unattended(debug);
    }
    let colour = if wants_colour(true, std::env::var_os("NO_COLOR").as_deref()) {
        ColorChoice::Auto
    } else {
        ColorChoice::Never
    };
    TermLogger::init(level(debug), config(), TerminalMode::Stderr, colour)
}

/// As [`init`], for a process without an operator at its terminal: never blocks, not even at a terminal.
///
/// # Errors
/// If something in this process logs already.
pub fn init_unattended(debug: bool) -> Result<(), SetLoggerError> {
    let logger = stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .and_then(|stderr| unattended(stderr, level(debug)))
        // Without a thread for it there is no log that is safe.
        .unwrap_or_else(|_| WriteLogger::new(LevelFilter::Off, config(), io::sink()).as_log());
    log::set_max_level(level(debug));
    log::set_boxed_logger(logger)
}

fn unattended(stderr: File, level: LevelFilter) -> io::Result<Box<dyn Log>> {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let metadata = stderr.metadata()?;
    if is_journal(&stream, metadata.dev(), metadata.ino()) {
        let relay = Relay::to(stderr, prefix(Level::Warn))?;
        return Ok(Box::new(Journal {
            level,
            relay: Mutex::new(relay),
        }));
    }
    Ok(WriteLogger::new(level, config(), Relay::to(stderr, "")?).as_log())
}

/// The prefix of a line of `level` that is written to standard error without the log: its priority, if that
/// is the journal.
pub fn priority(level: Level) -> &'static str {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let metadata = stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stderr| File::from(stderr).metadata());
    match metadata {
        Ok(it) if is_journal(&stream, it.dev(), it.ino()) => prefix(level),
        _ => "",
    }
}

/// Whether the file `inode` on `device` is the journal, as `JOURNAL_STREAM` says (systemd.exec(5)). The variable
/// is inherited by processes whose standard error is another by then.
fn is_journal(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(of, at)| of.parse() == Ok(device) && at.parse() == Ok(inode))
}

/// How the journal is told a line's level (sd-daemon(3), syslog(3)).
fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// Writes to the journal.
struct Journal {
    level: LevelFilter,
    relay: Mutex<Relay>,
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && metadata.target().starts_with("wmgwd")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let thread = current();
        let module = match record.level() {
            Level::Debug | Level::Trace => format!("{}: ", record.target()),
            _ => String::new(),
        };
        // A line break would make another entry, without its level.
        let text = record.args().to_string().replace('\n', "\\n");
        let (prefix, thread) = (prefix(record.level()), thread.name().unwrap_or("-"));
        let line = format!("{prefix}({thread}) {module}{text}\n");
        if let Ok(mut relay) = self.relay.lock() {
            // It never fails: it only hands the line over.
            let _ = relay.write_all(line.as_bytes());
        }
    }

    fn flush(&self) {
        if let Ok(mut relay) = self.relay.lock() {
            let _ = relay.flush();
        }
    }
}

fn level(debug: bool) -> LevelFilter {
    if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    }
}

/// Hands whole lines to the thread that writes them.
struct Relay {
    line: Vec<u8>,
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    left_out: Arc<AtomicUsize>,
}

impl Relay {
    /// `prefix` begins the lines of the relay itself.
    fn to(target: impl Write + Send + 'static, prefix: &'static str) -> io::Result<Relay> {
        let (lines, inbox) = sync_channel(WAITING);
        let (waiting, left_out) = (Arc::default(), Arc::default());
        let relay = Relay {
            line: Vec::new(),
            lines,
            waiting: Arc::clone(&waiting),
            left_out: Arc::clone(&left_out),
        };
        Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(target, prefix, &inbox, &waiting, &left_out))?;
        Ok(relay)
    }
}

fn write_lines(
    mut target: impl Write,
    prefix: &str,
    lines: &Receiver<Vec<u8>>,
    waiting: &AtomicUsize,
    left_out: &AtomicUsize,
) {
    for line in lines {
        // An error has no reader: the log itself is what failed.
        let _ = target.write_all(&line);
        let missing = left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = writeln!(
                target,
                "{prefix}({missing} lines of the log are left out here)"
            );
        }
        waiting.fetch_sub(1, Ordering::Release);
    }
}

impl Write for Relay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            if self.lines.try_send(std::mem::take(&mut self.line)).is_err() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    /// Waits until all lines are written, but not for long.
    fn flush(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while self.waiting.load(Ordering::Acquire) > 0 && begun.elapsed() < LAST {
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Colour is for people at a terminal who did not ask to be spared it (<https://no-color.org>).
pub fn wants_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

fn config() -> Config {
    ConfigBuilder::new()
        // UTC: reading the local offset is unsound once there are threads, and gateways get compared.
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Error)
        .set_thread_mode(ThreadLogMode::Names)
        .set_target_level(LevelFilter::Debug)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("wmgwd")
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics here").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(level: Level, target: &str) -> String {
        let lines = Lines::default();
        WriteLogger::new(LevelFilter::Debug, config(), lines.clone()).log(
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("vni=7"))
                .build(),
        );
        let bytes = lines.0.lock().expect("no test panics here").clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn a_line_has_time_level_thread_and_text() {
        let line = std::thread::Builder::new()
            .name("worker".into())
            .spawn(|| lines(Level::Info, "wmgwd::daemon::worker"))
            .expect("threads can be made")
            .join()
            .expect("it does not panic");
        let (time, rest) = line.split_once(' ').expect("there is a time");
        assert!(time.contains('T') && time.ends_with('Z'), "{line}");
        assert_eq!(rest, "[INFO] (worker) vni=7\n");
    }

    /// Input: a record of two lines, one at debug, one of another crate. Output: one line each with the journal's
    /// prefix, and nothing of the other.
    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        let lines = Lines::default();
        let journal = Journal {
            level: LevelFilter::Debug,
            relay: Mutex::new(Relay::to(lines.clone(), "<4>").expect("threads can be made")),
        };
        std::thread::scope(|scope| {
            let worker = Builder::new().name("worker".into());
            let thread = worker.spawn_scoped(scope, || {
                for (level, target) in [
                    (Level::Error, "wmgwd::daemon::worker"),
                    (Level::Debug, "wmgwd::daemon::worker"),
                    (Level::Error, "ureq::run"),
                ] {
                    let mut record = Record::builder();
                    record.level(level).target(target);
                    journal.log(&record.args(format_args!("vni=7 a\nb")).build());
                }
            });
            thread.expect("threads can be made");
        });
        journal.flush();
        let bytes = lines.0.lock().expect("no test panics here").clone();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "<3>(worker) vni=7 a\\nb\n<7>(worker) wmgwd::daemon::worker: vni=7 a\\nb\n"
        );
    }

    #[test]
    fn the_journal_is_known_by_its_file() {
        assert!(is_journal("8:123456", 8, 123_456));
        for (stream, device, inode) in [("8:1", 8, 2), ("8:1", 9, 1), ("", 0, 0), ("8", 8, 8)] {
            assert!(!is_journal(stream, device, inode), "{stream}");
        }
    }

    #[test]
    fn the_module_is_named_at_debug_only() {
        assert!(
            lines(Level::Debug, "wmgwd::daemon::worker").contains(" wmgwd::daemon::worker: vni=7")
        );
        assert!(!lines(Level::Warn, "wmgwd::daemon::worker").contains("wmgwd::daemon::worker"));
    }

    #[test]
    fn other_crates_are_not_heard() {
        assert_eq!(lines(Level::Warn, "ureq::run"), "");
        assert_eq!(lines(Level::Debug, "ureq_proto"), "");
    }

    #[test]
    fn colour_is_for_terminals_without_no_color() {
        assert!(wants_colour(true, None));
        assert!(wants_colour(true, Some(OsStr::new(""))));
        assert!(!wants_colour(true, Some(OsStr::new("1"))));
        assert!(!wants_colour(false, None));
    }

    /// Blocks in every write until it is released.
    struct Stuck {
        gate: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Input: many lines to a reader that does not read. Output: no writer blocks, what does not fit is counted,
    /// and what is left is written in the end, in order.
    #[test]
    fn a_log_that_nobody_reads_blocks_nobody() {
        let (open, gate) = channel();
        let (written, inbox) = channel();
        let mut relay = Relay::to(Stuck { gate, written }, "").expect("threads can be made");
        for number in 0..2 * WAITING {
            write!(relay, "line ").expect("it never fails");
            writeln!(relay, "{number}").expect("it never fails");
        }
        drop(open);
        relay.flush().expect("it never fails");
        let text: Vec<u8> = inbox.try_iter().flatten().collect();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "line 0");
        assert!(
            lines[1].contains("lines of the log are left out"),
            "{}",
            lines[1]
        );
        assert_eq!(lines[2], "line 1");
        assert!(lines.len() >= WAITING, "{}", lines.len());
    }
}
