//! An open watch: the lines that etcd sends, as batches of changes.
//!
//! Owns one connection and blocks on it. Never decides what to do about an end: its reader does.

use super::ops::WatchBatch;
use super::{Error, connect, wire};
use std::io::{BufRead, BufReader};
use ureq::BodyReader;

/// Large enough for a line of a few hundred changes to come in one read.
const BUFFER: usize = 64 * 1024;

/// The changes as they come. Ends at the bound of the watch; each other end is an error, after which
/// there is nothing more. Whatever the end, a watch opened after the last revision seen loses nothing.
pub struct Watch {
    /// `None` after the end.
    lines: Option<BufReader<BodyReader<'static>>>,
}

impl Watch {
    pub(super) fn new(body: BodyReader<'static>) -> Watch {
        Watch {
            lines: Some(BufReader::with_capacity(BUFFER, body)),
        }
    }

    /// The next line, of any length; `None` at the bound.
    fn line(&mut self) -> Option<Result<Vec<u8>, Error>> {
        let mut line = Vec::new();
        match self.lines.as_mut()?.read_until(b'\n', &mut line) {
            // EOF is etcd stopping, or its connection breaking; a half line is worth no more.
            Ok(_) if line.last() != Some(&b'\n') => Some(Err(Error::Disconnected)),
            Ok(_) => Some(Ok(line)),
            Err(error) => {
                let at_bound = connect::is_deadline(&error.into());
                (!at_bound).then_some(Err(Error::Disconnected))
            }
        }
    }

    /// The next line that brings changes; `None` at the bound.
    fn batch(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            match self.line()?.and_then(|line| wire::watch_line(&line)) {
                Ok(None) => {}
                Ok(Some(batch)) => return Some(Ok(batch)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads the first line, with which etcd confirms the watch.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        match self.line() {
            None => Err(Error::Disconnected),
            Some(line) => wire::watch_line(&line?).map(|_| ()),
        }
    }
}

impl Iterator for Watch {
    type Item = Result<WatchBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch();
        if !matches!(batch, Some(Ok(_))) {
            // Closes the connection.
            self.lines = None;
        }
        batch
    }
}
