//! Log lines on standard error: `time [level] (thread) text`.
//!
//! Only wmgwd's own records are written: the HTTP client logs every request at debug, and what goes
//! wrong there comes back as an error that wmgwd reports itself.

use log::{LevelFilter, SetLoggerError};
use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, ThreadLogMode};
use std::ffi::OsStr;
use std::io::{IsTerminal, stderr};

/// Starts logging: at info, or with `debug` at debug, where the module is named too.
///
/// # Errors
/// If something in this process logs already.
pub fn init(debug: bool) -> Result<(), SetLoggerError> {
    let level = if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let colour = if wants_colour(
        stderr().is_terminal(),
        std::env::var_os("NO_COLOR").as_deref(),
    ) {
        ColorChoice::Auto
    } else {
        ColorChoice::Never
    };
    TermLogger::init(level, config(), TerminalMode::Stderr, colour)
}

/// Colour is for people at a terminal who did not ask to be spared it (<https://no-color.org>).
fn wants_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
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
    use log::{Level, Log, Record};
    use simplelog::WriteLogger;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

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
            .spawn(|| lines(Level::Info, "wmgwd::worker"))
            .expect("threads can be made")
            .join()
            .expect("it does not panic");
        let (time, rest) = line.split_once(' ').expect("there is a time");
        assert!(time.contains('T') && time.ends_with('Z'), "{line}");
        assert_eq!(rest, "[INFO] (worker) vni=7\n");
    }

    #[test]
    fn the_module_is_named_at_debug_only() {
        assert!(lines(Level::Debug, "wmgwd::worker").contains(" wmgwd::worker: vni=7"));
        assert!(!lines(Level::Warn, "wmgwd::worker").contains("wmgwd::worker"));
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
}
