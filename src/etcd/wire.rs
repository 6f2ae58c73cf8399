//! The shapes of etcd's HTTP/JSON gateway: requests as bytes, replies as values.
//!
//! Pure: owns no state and touches nothing. Reads the replies of etcd 3.4 to 3.6, whatever their bytes.
//!
//! What protobuf's JSON mapping makes of etcd's messages (protobuf.dev, "ProtoJSON Format"): bytes are
//! base64, 64-bit integers are decimal strings, and a field with its zero value is absent. Field names
//! come in snake case from the gateways seen so far; camel case is read as well.

use super::Error;
use super::ops::{
    Compare, Grant, KeyValue, MemberStatus, Newest, Op, OpReply, RangeReply, Txn, TxnReply,
    WatchBatch, WatchEvent,
};
use crate::types::{LeaseId, Revision};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[cfg(test)]
mod tests;

type Object = Map<String, Value>;

/// How many keys a page of a range holds at most. 120 000 keys at once took 140 MB to parse, on
/// gateways that may have less to spare, and 2.7 s, which no deadline of a call should have to bear.
const PAGE: u32 = 5_000;

/// Asks for the first page of the keys that begin with `prefix`.
pub fn range(prefix: &[u8]) -> Vec<u8> {
    let (key, range_end) = interval(prefix);
    body(json!({"key": key, "range_end": range_end, "limit": PAGE.to_string()}))
}

/// Asks for the page of the keys that begin with `prefix` and follow `last`, as of `revision`.
pub fn range_after(prefix: &[u8], last: &[u8], revision: Revision) -> Vec<u8> {
    let (_, range_end) = interval(prefix);
    // Nothing stands between a key and the same key with a zero behind it.
    let key = bytes(&[last, &[0]].concat());
    body(json!({
        "key": key, "range_end": range_end,
        "limit": PAGE.to_string(), "revision": number(revision.0),
    }))
}

/// Asks for one key.
pub fn get(key: &[u8]) -> Vec<u8> {
    body(json!({"key": bytes(key)}))
}

/// Asks for the newest of the keys that begin with `prefix`.
pub fn newest(prefix: &[u8]) -> Vec<u8> {
    let (key, range_end) = interval(prefix);
    body(json!({
        "key": key, "range_end": range_end,
        "limit": "1", "sort_order": "DESCEND", "sort_target": "MOD", "keys_only": true,
    }))
}

/// Asks for a transaction.
pub fn txn(txn: &Txn) -> Vec<u8> {
    body(txn_value(txn))
}

/// Asks for a lease. Its TTL is in whole seconds: rounded up, so that it is no shorter than wished.
pub fn lease_grant(ttl: Duration) -> Vec<u8> {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    body(json!({"TTL": seconds.max(1).to_string()}))
}

/// Asks for a lease to be renewed or revoked.
pub fn lease(id: LeaseId) -> Vec<u8> {
    body(json!({"ID": id.0.to_string()}))
}

/// Asks for a token. The password is in it.
pub fn authenticate(name: &str, password: &str) -> Vec<u8> {
    body(json!({"name": name, "password": password}))
}

/// Asks for all changes from revision `start` on of the keys that begin with `prefix`.
///
/// Without "fragment": with 120 000 deletions in one revision, fragments had not arrived after 15 s
/// where the one whole line took 2 s.
pub fn watch(prefix: &[u8], start: Revision) -> Vec<u8> {
    let (key, range_end) = interval(prefix);
    body(json!({"create_request": {
        "key": key, "range_end": range_end, "start_revision": start.0.to_string(),
    }}))
}

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn bytes(raw: &[u8]) -> Value {
    Value::String(STANDARD.encode(raw))
}

fn number(value: i64) -> Value {
    Value::String(value.to_string())
}

/// First key and end (itself not included) of all keys that begin with `prefix`.
fn interval(prefix: &[u8]) -> (Value, Value) {
    // 0xff has no successor, so the end is the successor of what stands before it.
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            (bytes(prefix), bytes(&end))
        }
        // The end "\0" is etcd's "no end"; an empty key is not allowed, "\0" is the first there is.
        None if prefix.is_empty() => (bytes(&[0]), bytes(&[0])),
        None => (bytes(prefix), bytes(&[0])),
    }
}

fn txn_value(txn: &Txn) -> Value {
    let ops = |ops: &[Op]| ops.iter().map(op_value).collect::<Vec<Value>>();
    json!({
        "compare": txn.compares.iter().map(compare_value).collect::<Vec<Value>>(),
        "success": ops(&txn.then),
        "failure": ops(&txn.otherwise),
    })
}

fn compare_value(compare: &Compare) -> Value {
    let (key, target, result, field, operand) = match compare {
        Compare::ModRevisionLess { key, than } => {
            (key, "MOD", "LESS", "mod_revision", number(than.0))
        }
        Compare::ModRevisionIs { key, revision } => {
            (key, "MOD", "EQUAL", "mod_revision", number(revision.0))
        }
        Compare::CreateRevisionIs { key, revision } => (
            key,
            "CREATE",
            "EQUAL",
            "create_revision",
            number(revision.0),
        ),
        Compare::LeaseIs { key, lease } => (key, "LEASE", "EQUAL", "lease", number(lease.0)),
        Compare::ValueIs { key, value } => (key, "VALUE", "EQUAL", "value", bytes(value)),
    };
    json!({"key": bytes(key), "target": target, "result": result, field: operand})
}

fn op_value(op: &Op) -> Value {
    match op {
        Op::Put { key, value, lease } => json!({"request_put": {
            "key": bytes(key), "value": bytes(value), "lease": number(lease.map_or(0, |id| id.0)),
        }}),
        Op::Delete { key } => json!({"request_delete_range": {"key": bytes(key)}}),
        Op::Range { key } => json!({"request_range": {"key": bytes(key)}}),
        Op::Txn(txn) => json!({"request_txn": txn_value(txn)}),
    }
}

/// Reads the reply to [`range`], [`range_after`] and [`get`]. If there are fewer keys than its count,
/// the rest is on the pages that follow.
pub fn range_reply(reply: &[u8]) -> Result<RangeReply, Error> {
    let reply = object(reply)?;
    range_of(&reply, header_revision(&reply)?)
}

/// Reads the reply to [`newest`].
pub fn newest_reply(reply: &[u8]) -> Result<Newest, Error> {
    let range = range_reply(reply)?;
    Ok(Newest {
        revision: range.revision,
        mod_revision: range.kvs.first().map_or(Revision(0), |kv| kv.mod_revision),
        count: range.count,
    })
}

/// Reads the reply to [`txn`].
pub fn txn_reply(reply: &[u8]) -> Result<TxnReply, Error> {
    let reply = object(reply)?;
    txn_of(&reply, header_revision(&reply)?)
}

/// Reads the reply to [`lease_grant`].
pub fn lease_grant_reply(reply: &[u8]) -> Result<Grant, Error> {
    let reply = object(reply)?;
    header_revision(&reply)?;
    let id = int(&reply, ["ID", "id"])?;
    let ttl = int(&reply, ["TTL", "ttl"])?;
    match u64::try_from(ttl) {
        Ok(seconds) if seconds > 0 && id != 0 => Ok(Grant {
            id: LeaseId(id),
            ttl: Duration::from_secs(seconds),
        }),
        _ => Err(Error::Malformed("a lease without an ID or a TTL")),
    }
}

/// Asks a member how it is.
pub fn status() -> Vec<u8> {
    body(json!({}))
}

/// Reads the reply to [`status`].
pub fn status_reply(reply: &[u8]) -> Result<MemberStatus, Error> {
    let reply = object(reply)?;
    header_revision(&reply)?;
    // Identities are unsigned and may not fit where revisions do.
    let identity = |of: &Object, names| {
        let digits = text(of, names).unwrap_or("0");
        let bad = |_| Error::Malformed("no 64-bit identity");
        digits.parse::<u64>().map_err(bad)
    };
    let header = field(&reply, ["header", "header"]).ok_or(Error::Malformed("no header"))?;
    let alarms = list(&reply, ["errors", "errors"])?;
    Ok(MemberStatus {
        version: text(&reply, ["version", "version"])
            .ok_or(Error::Malformed("no version"))?
            .to_owned(),
        cluster: identity(as_object(header)?, ["cluster_id", "clusterId"])?,
        has_leader: identity(&reply, ["leader", "leader"])? != 0,
        alarms: alarms
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    })
}

/// Reads the reply to [`authenticate`]: the token, which goes into a header as it is.
pub fn authenticate_reply(reply: &[u8]) -> Result<String, Error> {
    let reply = object(reply)?;
    match text(&reply, ["token", "token"]) {
        Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(token.to_owned())
        }
        _ => Err(Error::Malformed("no token that can be sent")),
    }
}

/// Reads the reply line of a keepalive: the TTL from then on, or `None` if the lease is gone.
pub fn keepalive_line(line: &[u8]) -> Result<Option<Duration>, Error> {
    let line = object(line)?;
    let result = stream_result(&line)?;
    header_revision(result)?;
    // Etcd leaves the TTL out, or says 0 or -1, for a lease that it does not know.
    let ttl = int(result, ["TTL", "ttl"])?;
    Ok(u64::try_from(ttl)
        .ok()
        .filter(|ttl| *ttl > 0)
        .map(Duration::from_secs))
}

/// Reads one line of a watch; `None` if it brings no change.
pub fn watch_line(line: &[u8]) -> Result<Option<WatchBatch>, Error> {
    let line = object(line)?;
    // No look at the header: the one of a compacted watch has no revision.
    let result = stream_result(&line)?;
    if flag(result, ["canceled", "canceled"])? {
        let at = int(result, ["compact_revision", "compactRevision"])?;
        if at > 0 {
            return Err(Error::Compacted { at: Revision(at) });
        }
        let reason = text(result, ["cancel_reason", "cancelReason"]).unwrap_or_default();
        return Err(Error::rejected(0, format!("watch canceled: {reason}")));
    }
    let mut batch = WatchBatch::default();
    for event in list(result, ["events", "events"])? {
        let event = as_object(event)?;
        let kv = field(event, ["kv", "kv"]).ok_or(Error::Malformed("an event without a key"))?;
        let kv = key_value(as_object(kv)?)?;
        batch.revision = batch.revision.max(kv.mod_revision);
        let deleted = match field(event, ["type", "type"]) {
            None => false,
            Some(Value::String(name)) if name == "PUT" => false,
            Some(Value::String(name)) if name == "DELETE" => true,
            Some(value) => match value.as_u64() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(Error::Malformed("an event neither PUT nor DELETE")),
            },
        };
        batch.events.push(WatchEvent { kv, deleted });
    }
    Ok((!batch.events.is_empty()).then_some(batch))
}

/// Reads the body of an HTTP reply whose status is an error; `None` if it is none of etcd's.
pub fn refusal(body: &[u8]) -> Option<Error> {
    let body = object(body).ok()?;
    match body.get("error") {
        // A stream that fails before its first line has the shape of an error line.
        Some(Value::Object(error)) => Some(stream_error(error)),
        _ => {
            let message = text(&body, ["message", "error"])?;
            Some(Error::rejected(code(&body), message.to_owned()))
        }
    }
}

fn range_of(reply: &Object, revision: Revision) -> Result<RangeReply, Error> {
    let kvs: Vec<KeyValue> = list(reply, ["kvs", "kvs"])?
        .iter()
        .map(|kv| key_value(as_object(kv)?))
        .collect::<Result<_, Error>>()?;
    let count = u64::try_from(int(reply, ["count", "count"])?)
        .map_err(|_| Error::Malformed("a negative count"))?;
    // A reply that lost keys on its way must not look like keys that are gone.
    let more = flag(reply, ["more", "more"])?;
    let complete = kvs.len() as u64 == count;
    let partial = !kvs.is_empty() && (kvs.len() as u64) < count;
    if !(complete || more && partial) {
        return Err(Error::Malformed("a count that does not fit the keys"));
    }
    Ok(RangeReply {
        revision,
        count,
        kvs,
    })
}

fn txn_of(reply: &Object, revision: Revision) -> Result<TxnReply, Error> {
    Ok(TxnReply {
        revision,
        succeeded: flag(reply, ["succeeded", "succeeded"])?,
        responses: list(reply, ["responses", "responses"])?
            .iter()
            .map(|response| op_reply(as_object(response)?, revision))
            .collect::<Result<_, Error>>()?,
    })
}

/// One operation's reply; `revision` is the transaction's, as nested headers may be empty.
fn op_reply(reply: &Object, revision: Revision) -> Result<OpReply, Error> {
    if let Some(txn) = field(reply, ["response_txn", "responseTxn"]) {
        Ok(OpReply::Txn(txn_of(as_object(txn)?, revision)?))
    } else if let Some(range) = field(reply, ["response_range", "responseRange"]) {
        Ok(OpReply::Range(range_of(as_object(range)?, revision)?))
    } else if let Some(delete) = field(reply, ["response_delete_range", "responseDeleteRange"]) {
        let deleted = int(as_object(delete)?, ["deleted", "deleted"])?;
        let deleted =
            u64::try_from(deleted).map_err(|_| Error::Malformed("a negative number of keys"))?;
        Ok(OpReply::Delete { deleted })
    } else if field(reply, ["response_put", "responsePut"]).is_some() {
        Ok(OpReply::Put)
    } else {
        Err(Error::Malformed("an operation's reply of no known kind"))
    }
}

fn key_value(kv: &Object) -> Result<KeyValue, Error> {
    let key = raw(kv, "key")?;
    let mod_revision = int(kv, ["mod_revision", "modRevision"])?;
    if key.is_empty() || mod_revision <= 0 {
        return Err(Error::Malformed("a key without a name or a revision"));
    }
    let lease = int(kv, ["lease", "lease"])?;
    Ok(KeyValue {
        key,
        value: raw(kv, "value")?,
        mod_revision: Revision(mod_revision),
        create_revision: Revision(int(kv, ["create_revision", "createRevision"])?),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

/// The store's revision, which is at least 1: its absence shows that it was not etcd that answered.
fn header_revision(reply: &Object) -> Result<Revision, Error> {
    let header = field(reply, ["header", "header"]).ok_or(Error::Malformed("no header"))?;
    match int(as_object(header)?, ["revision", "revision"])? {
        revision if revision > 0 => Ok(Revision(revision)),
        _ => Err(Error::Malformed("a header without a revision")),
    }
}

fn stream_result(line: &Object) -> Result<&Object, Error> {
    if let Some(error) = field(line, ["error", "error"]) {
        return Err(stream_error(as_object(error)?));
    }
    as_object(field(line, ["result", "result"]).ok_or(Error::Malformed("a line without a result"))?)
}

fn stream_error(error: &Object) -> Error {
    let message = text(error, ["message", "message"]).unwrap_or_default();
    Error::rejected(code(error), message.to_owned())
}

/// The gRPC code, or 0 if there is none that can be read: the message still tells.
fn code(error: &Object) -> u32 {
    let code = int(error, ["code", "grpc_code"]).unwrap_or(0);
    u32::try_from(code).unwrap_or(0)
}

fn object(text: &[u8]) -> Result<Object, Error> {
    serde_json::from_slice(text).map_err(|_| Error::Malformed("not a JSON object"))
}

fn as_object(value: &Value) -> Result<&Object, Error> {
    value
        .as_object()
        .ok_or(Error::Malformed("no object where one belongs"))
}

/// A field by either of its names; `null` is as good as absent.
fn field<'a>(object: &'a Object, names: [&str; 2]) -> Option<&'a Value> {
    names
        .iter()
        .find_map(|name| object.get(*name))
        .filter(|value| !value.is_null())
}

fn text<'a>(object: &'a Object, names: [&str; 2]) -> Option<&'a str> {
    field(object, names).and_then(Value::as_str)
}

fn flag(object: &Object, names: [&str; 2]) -> Result<bool, Error> {
    match field(object, names) {
        None => Ok(false),
        Some(value) => value
            .as_bool()
            .ok_or(Error::Malformed("neither true nor false")),
    }
}

fn int(object: &Object, names: [&str; 2]) -> Result<i64, Error> {
    let value = match field(object, names) {
        None => Some(0),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(value) => value.as_i64(),
    };
    value.ok_or(Error::Malformed("no 64-bit integer"))
}

fn list<'a>(object: &'a Object, names: [&str; 2]) -> Result<&'a [Value], Error> {
    match field(object, names) {
        None => Ok(&[]),
        Some(value) => value
            .as_array()
            .map(Vec::as_slice)
            .ok_or(Error::Malformed("no list where one belongs")),
    }
}

fn raw(object: &Object, name: &str) -> Result<Vec<u8>, Error> {
    match field(object, [name, name]) {
        None => Ok(Vec::new()),
        Some(Value::String(base64)) => STANDARD
            .decode(base64)
            .map_err(|_| Error::Malformed("bytes that are not base64")),
        Some(_) => Err(Error::Malformed("bytes that are not text")),
    }
}
