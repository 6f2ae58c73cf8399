//! In place of TLS, where the program is built without it.

use super::access::{Access, AccessError};
use super::connect::TcpConnector;
use std::sync::Arc;

/// Nothing of this kind exists.
pub(super) enum Tls {}

impl Tls {
    pub(super) fn open(access: &Access) -> Result<Option<Arc<Tls>>, AccessError> {
        if access.wants_tls() {
            return Err(AccessError::NoTls);
        }
        Ok(None)
    }

    pub(super) fn renew(&self) {
        match *self {}
    }
}

pub(super) fn connector(_: Option<Arc<Tls>>) -> TcpConnector {
    TcpConnector
}

pub(super) fn advice(_: &ureq::Error) -> Option<&'static str> {
    None
}
