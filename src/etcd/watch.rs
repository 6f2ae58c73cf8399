//! An open watch: the lines that etcd sends, as batches of changes.
//!
//! Owns one connection and blocks on it. Never decides what to do about an end: its reader does.

use super::ops::WatchBatch;
use super::{Error, Preferred, connect, wire};
use std::io::{BufRead, BufReader};
use std::iter;
use std::sync::Arc;
use ureq::BodyReader;

/// Large enough for a line of a few hundred changes to come in one read.
const BUFFER: usize = 64 * 1024;

/// The changes as they come. Ends at the bound of the watch; each other end is an error, after which
/// there is nothing more. Whatever the end, a watch opened after the last revision seen loses nothing.
pub struct Watch {
    /// `None` after the end.
    lines: Option<BufReader<BodyReader<'static>>>,
    /// The endpoint that it is open at.
    at: usize,
    preferred: Arc<Preferred>,
}

impl Watch {
    pub(super) fn new(body: BodyReader<'static>, at: usize, preferred: Arc<Preferred>) -> Watch {
        Watch {
            lines: Some(BufReader::with_capacity(BUFFER, body)),
            at,
            preferred,
        }
    }

    /// What the next line brings; `None` at the bound.
    fn line(&mut self) -> Option<Result<Option<WatchBatch>, Error>> {
        let mut line = Vec::new();
        match self.lines.as_mut()?.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Some(wire::watch_line(&line)),
            // EOF: etcd stops, perhaps after a last line without an end that says why.
            Ok(_) => Some(Err(match wire::watch_line(&line) {
                Ok(_) | Err(Error::Malformed(_)) => Error::Disconnected,
                Err(error) => error,
            })),
            Err(error) => {
                let at_bound = connect::is_deadline(&error.into());
                (!at_bound).then_some(Err(Error::Disconnected))
            }
        }
    }

    /// Reads the first line, with which etcd confirms the watch.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        match self.line() {
            None => Err(Error::Disconnected),
            // A change here would be lost to the reader.
            Some(Ok(Some(_))) => Err(Error::Malformed("a watch that starts unconfirmed")),
            Some(line) => line.map(|_| ()),
        }
    }
}

impl Iterator for Watch {
    type Item = Result<WatchBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // Lines without changes are etcd's own business.
        let batch = iter::from_fn(|| self.line()).find_map(Result::transpose);
        // What stands there confirms a watch, and then ends or spoils it: the next one is opened elsewhere.
        if let Some(Err(error)) = &batch
            && (error.is_of_endpoint() || matches!(error, Error::Disconnected))
        {
            self.preferred.leave(self.at);
        }
        if !matches!(batch, Some(Ok(_))) {
            // Closes the connection.
            self.lines = None;
        }
        batch
    }
}
