//! The shapes of etcd's HTTP/JSON gateway: requests as bytes, replies as values.
//!
//! Pure: owns no state and touches nothing. Reads the replies of etcd 3.4 to 3.6, whatever their bytes.
//!
//! What protobuf's JSON mapping makes of etcd's messages (protobuf.dev, "ProtoJSON Format"): bytes are
//! base64, 64-bit integers are decimal strings, and a field with its zero value is absent. Field names
//! come in snake case from the gateways seen so far; camel case is read as well.

mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use reply::{
    authenticate_reply, keepalive_line, lease_grant_reply, lease_left_reply, newest_reply,
    quota_metric, range_reply, refusal, status_reply, term_reply, txn_reply, voters_reply,
    watch_line,
};
pub use request::{
    authenticate, get, lease, lease_grant, newest, range, range_after, range_between, status, txn,
    watch, watch_between,
};
