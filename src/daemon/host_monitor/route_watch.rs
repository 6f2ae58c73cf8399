//! Follows the kernel routes that announce VNIs: something else on this host may delete them, and the kernel deletes
//! them itself, without telling, when a bridge loses its last address.

use crate::host::routes::{RouteBook, RouteMonitor};
use crate::model::types::Vni;
use crate::telemetry::log_text::Complaint;
use log::{info, warn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Follows them, and opens the socket again when it broke.
pub struct RouteWatch {
    book: RouteBook,
    monitor: Option<RouteMonitor>,
    complaint: Complaint,
}

impl RouteWatch {
    /// Begins to follow the routes of `book`.
    pub fn new(book: RouteBook) -> RouteWatch {
        let mut watch = RouteWatch {
            book,
            monitor: None,
            complaint: Complaint::default(),
        };
        watch.open();
        watch
    }

    /// Readable when something happened.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(AsFd::as_fd)
    }

    /// The announced VNIs that lost a route, or whose bridge has other addresses, since the last look.
    pub fn look(&mut self) -> Vec<Vni> {
        self.open();
        let Some(monitor) = &mut self.monitor else {
            return Vec::new();
        };
        monitor.lost().unwrap_or_else(|error| {
            self.monitor = None;
            self.fail(&error);
            Vec::new()
        })
    }

    fn open(&mut self) {
        if self.monitor.is_some() {
            return;
        }
        match RouteMonitor::open(self.book.clone()) {
            Ok(monitor) => {
                self.monitor = Some(monitor);
                if self.complaint.settle() {
                    info!("the routes of this host are followed again");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.complaint.raise(&error.to_string()) {
            warn!("cannot follow the routes of this host, trying again: {error}");
        }
    }
}
