//! Requests, as bytes.

use crate::etcd::ops::{Compare, Op, Txn};
use crate::model::types::{LeaseId, Revision};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Duration;

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
    // No key lies between a key and the same key with a zero behind it.
    let key = bytes(&[last, &[0]].concat());
    body(json!({
        "key": key, "range_end": range_end,
        "limit": PAGE.to_string(), "revision": number(revision.0),
    }))
}

/// Asks for the keys from `first` to before `end`: for what fits into one page.
pub fn range_between(first: &[u8], end: &[u8]) -> Vec<u8> {
    body(json!({"key": bytes(first), "range_end": bytes(end), "limit": PAGE.to_string()}))
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
    let mut text = String::with_capacity(400 * txn.then.len());
    write_txn(&mut text, txn);
    text.into_bytes()
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

/// Asks a member how it is, or who the members are.
pub fn status() -> Vec<u8> {
    body(json!({}))
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

/// Asks for all changes from revision `start` on of the keys from `first` to before `end`.
pub fn watch_between(first: &[u8], end: &[u8], start: Revision) -> Vec<u8> {
    body(json!({"create_request": {
        "key": bytes(first), "range_end": bytes(end), "start_revision": start.0.to_string(),
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
    // 0xff has no successor, so the end is the successor of the bytes before it.
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

/// Everything in a transaction is base64, a number or a name: nothing to escape. What has its zero value is left
/// out, since etcd's gateway takes longer over the text than over the writes.
fn write_txn(text: &mut String, txn: &Txn) {
    text.push('{');
    write_list(text, "compare", &txn.compares, write_compare);
    write_list(text, "success", &txn.then, write_op);
    write_list(text, "failure", &txn.otherwise, write_op);
    text.push('}');
}

fn write_list<T>(text: &mut String, name: &str, items: &[T], write: fn(&mut String, &T)) {
    if items.is_empty() {
        return;
    }
    write_name(text, name);
    text.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write(text, item);
    }
    text.push(']');
}

fn write_compare(text: &mut String, compare: &Compare) {
    let (key, target, result) = match compare {
        Compare::ModRevisionLess { key, .. } => (key, "MOD", "LESS"),
        Compare::ModRevisionIs { key, .. } => (key, "MOD", "EQUAL"),
        Compare::CreateRevisionIs { key, .. } => (key, "CREATE", "EQUAL"),
        Compare::LeaseIs { key, .. } => (key, "LEASE", "EQUAL"),
        // True of a key that does not exist, as etcd 3.4.23 has it.
        Compare::LeaseIsNot { key, .. } => (key, "LEASE", "NOT_EQUAL"),
        Compare::ValueIs { key, .. } => (key, "VALUE", "EQUAL"),
    };
    text.push('{');
    write_bytes(text, "key", key);
    write_text(text, "target", target);
    write_text(text, "result", result);
    // Also where it is zero: an operand of another kind than the target's is refused, and so may be none.
    match compare {
        Compare::ModRevisionLess { than: revision, .. }
        | Compare::ModRevisionIs { revision, .. } => {
            write_number(text, "mod_revision", revision.0);
        }
        Compare::CreateRevisionIs { revision, .. } => {
            write_number(text, "create_revision", revision.0);
        }
        Compare::LeaseIs { lease, .. } | Compare::LeaseIsNot { lease, .. } => {
            write_number(text, "lease", lease.0)
        }
        Compare::ValueIs { value, .. } => write_bytes(text, "value", value),
    }
    text.push('}');
}

fn write_op(text: &mut String, op: &Op) {
    text.push('{');
    match op {
        Op::Put { key, value, lease } => {
            write_name(text, "request_put");
            text.push('{');
            write_bytes(text, "key", key);
            if !value.is_empty() {
                write_bytes(text, "value", value);
            }
            if let Some(lease) = lease {
                write_number(text, "lease", lease.0);
            }
            text.push('}');
        }
        Op::Overwrite { key, value } => {
            write_name(text, "request_put");
            text.push('{');
            write_bytes(text, "key", key);
            write_bytes(text, "value", value);
            write_name(text, "ignore_lease");
            text.push_str("true}");
        }
        Op::Delete { key } => write_key(text, "request_delete_range", key),
        Op::Range { key } => write_key(text, "request_range", key),
        Op::Txn(txn) => {
            write_name(text, "request_txn");
            write_txn(text, txn);
        }
    }
    text.push('}');
}

fn write_key(text: &mut String, name: &str, key: &[u8]) {
    write_name(text, name);
    text.push('{');
    write_bytes(text, "key", key);
    text.push('}');
}

fn write_bytes(text: &mut String, name: &str, raw: &[u8]) {
    write_name(text, name);
    text.push('"');
    STANDARD.encode_string(raw, text);
    text.push('"');
}

fn write_number(text: &mut String, name: &str, number: i64) {
    write_text(text, name, &number.to_string());
}

fn write_text(text: &mut String, name: &str, value: &str) {
    write_name(text, name);
    text.push('"');
    text.push_str(value);
    text.push('"');
}

/// The name of a field, and what parts it from the field before it.
fn write_name(text: &mut String, name: &str) {
    if !text.ends_with(['{', '[']) && !text.is_empty() {
        text.push(',');
    }
    text.push('"');
    text.push_str(name);
    text.push_str("\":");
}
