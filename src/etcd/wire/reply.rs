//! Replies, as values: read in one go into the shapes that they have, with no tree in between.

use crate::etcd::Error;
use crate::etcd::ops::{
    Grant, Keepalive, KeyValue, MemberStatus, Newest, OpReply, RangeReply, TxnReply, WatchBatch,
    WatchEvent,
};
use crate::model::types::{LeaseId, Revision};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

type Object = Map<String, Value>;

/// A number, spelled as one or as text.
#[derive(Clone, Copy, Default)]
struct Int(i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Int, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit integer")
            }
            fn visit_str<E: de::Error>(self, digits: &str) -> Result<Int, E> {
                digits.parse().map(Int).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Int, E> {
                Ok(Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Int, E> {
                i64::try_from(number).map(Int).map_err(E::custom)
            }
        }
        from.deserialize_any(Reader)
    }
}

/// The number of a cluster or member: unsigned, so that it may not fit where revisions do.
struct Identity(u64);

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Identity, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Identity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit identity")
            }
            fn visit_str<E: de::Error>(self, digits: &str) -> Result<Identity, E> {
                digits.parse().map(Identity).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Identity, E> {
                Ok(Identity(number))
            }
        }
        from.deserialize_any(Reader)
    }
}

/// Bytes, spelled in base64.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }
            fn visit_str<E: de::Error>(self, base64: &str) -> Result<Bytes, E> {
                STANDARD.decode(base64).map(Bytes).map_err(E::custom)
            }
        }
        from.deserialize_str(Reader)
    }
}

/// Whether an event is a deletion.
struct Deleted(bool);

impl<'de> Deserialize<'de> for Deleted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Deleted, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Deleted;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("PUT or DELETE")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Deleted, E> {
                match name {
                    "PUT" => Ok(Deleted(false)),
                    "DELETE" => Ok(Deleted(true)),
                    _ => Err(E::custom("neither PUT nor DELETE")),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Deleted, E> {
                match number {
                    0 => Ok(Deleted(false)),
                    1 => Ok(Deleted(true)),
                    _ => Err(E::custom("neither 0 nor 1")),
                }
            }
        }
        from.deserialize_any(Reader)
    }
}

// Every field may be missing, and `null` is as good as that.

#[derive(serde::Deserialize)]
struct Header {
    revision: Option<Int>,
    #[serde(alias = "clusterId")]
    cluster_id: Option<Identity>,
    #[serde(alias = "raftTerm")]
    raft_term: Option<Identity>,
}

#[derive(serde::Deserialize)]
struct RangeShape {
    header: Option<Header>,
    kvs: Option<Vec<KvShape>>,
    more: Option<bool>,
    count: Option<Int>,
}

#[derive(serde::Deserialize)]
struct KvShape {
    key: Option<Bytes>,
    value: Option<Bytes>,
    #[serde(alias = "modRevision")]
    mod_revision: Option<Int>,
    #[serde(alias = "createRevision")]
    create_revision: Option<Int>,
    lease: Option<Int>,
}

#[derive(serde::Deserialize)]
struct TxnShape {
    header: Option<Header>,
    succeeded: Option<bool>,
    responses: Option<Vec<OpShape>>,
}

#[derive(serde::Deserialize)]
struct OpShape {
    #[serde(alias = "responseTxn")]
    response_txn: Option<TxnShape>,
    #[serde(alias = "responseRange")]
    response_range: Option<RangeShape>,
    #[serde(alias = "responseDeleteRange")]
    response_delete_range: Option<DeleteShape>,
    #[serde(alias = "responsePut")]
    response_put: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct DeleteShape {
    deleted: Option<Int>,
}

/// A lease as it was granted or renewed.
#[derive(serde::Deserialize)]
struct LeaseShape {
    header: Option<Header>,
    #[serde(rename = "ID", alias = "id")]
    id: Option<Int>,
    #[serde(rename = "TTL", alias = "ttl")]
    ttl: Option<Int>,
}

#[derive(serde::Deserialize)]
struct StatusShape {
    header: Option<Header>,
    version: Option<String>,
    leader: Option<Identity>,
    #[serde(alias = "dbSize")]
    db_size: Option<Identity>,
    #[serde(alias = "dbSizeQuota")]
    db_size_quota: Option<Identity>,
    errors: Option<Vec<String>>,
}

/// A line of a stream.
#[derive(serde::Deserialize)]
struct Line<T> {
    error: Option<Object>,
    result: Option<T>,
}

#[derive(serde::Deserialize)]
struct WatchShape {
    canceled: Option<bool>,
    #[serde(alias = "compactRevision")]
    compact_revision: Option<Int>,
    #[serde(alias = "cancelReason")]
    cancel_reason: Option<String>,
    events: Option<Vec<EventShape>>,
}

#[derive(serde::Deserialize)]
struct EventShape {
    #[serde(rename = "type")]
    kind: Option<Deleted>,
    kv: Option<KvShape>,
}

/// Reads the reply to [`range`](super::range), [`range_after`](super::range_after) and [`get`](super::get). If
/// there are fewer keys than its count, the rest is on the pages that follow.
pub fn range_reply(reply: &[u8]) -> Result<RangeReply, Error> {
    let reply: RangeShape = read(reply)?;
    let revision = header_revision(reply.header.as_ref())?;
    range_of(reply, revision)
}

/// Reads the reply to [`newest`](super::newest).
pub fn newest_reply(reply: &[u8]) -> Result<Newest, Error> {
    let range = range_reply(reply)?;
    Ok(Newest {
        revision: range.revision,
        mod_revision: range.kvs.first().map_or(Revision(0), |kv| kv.mod_revision),
        count: range.count,
    })
}

/// Reads the reply to [`txn`](super::txn).
pub fn txn_reply(reply: &[u8]) -> Result<TxnReply, Error> {
    let reply: TxnShape = read(reply)?;
    let revision = header_revision(reply.header.as_ref())?;
    txn_of(reply, revision)
}

/// Reads the reply to [`lease_grant`](super::lease_grant).
pub fn lease_grant_reply(reply: &[u8]) -> Result<Grant, Error> {
    let reply: LeaseShape = read(reply)?;
    header_revision(reply.header.as_ref())?;
    let id = int(reply.id);
    match u64::try_from(int(reply.ttl)) {
        Ok(seconds) if seconds > 0 && id != 0 => Ok(Grant {
            id: LeaseId(id),
            ttl: Duration::from_secs(seconds),
        }),
        _ => Err(Error::Malformed("a lease without an ID or a TTL")),
    }
}

/// Reads the reply to [`status`](super::status).
pub fn status_reply(reply: &[u8]) -> Result<MemberStatus, Error> {
    let reply: StatusShape = read(reply)?;
    header_revision(reply.header.as_ref())?;
    let identity = |of: Option<Identity>| of.map_or(0, |Identity(id)| id);
    Ok(MemberStatus {
        version: reply.version.ok_or(Error::Malformed("no version"))?,
        cluster: identity(reply.header.and_then(|header| header.cluster_id)),
        has_leader: identity(reply.leader) != 0,
        size: identity(reply.db_size),
        quota: reply.db_size_quota.map(|Identity(quota)| quota),
        alarms: reply.errors.unwrap_or_default(),
    })
}

/// Reads etcd's metrics: how many bytes the data may take.
pub fn quota_metric(metrics: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(metrics).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("etcd_server_quota_backend_bytes "))?;
    let bytes: f64 = value.trim().parse().ok()?;
    // The numbers of Prometheus are floating; one that is no size is none.
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

/// Reads the list of members: how many of them vote. A learner does not.
pub fn voters_reply(reply: &[u8]) -> Result<usize, Error> {
    let reply: Object = read(reply)?;
    let members = reply.get("members").and_then(Value::as_array);
    let members = members.ok_or(Error::Malformed("no members"))?;
    let votes = |member: &&Value| member.get("isLearner") != Some(&Value::Bool(true));
    Ok(members.iter().filter(votes).count())
}

/// Reads the reply to [`authenticate`](super::authenticate): the token, which goes into a header as it is.
pub fn authenticate_reply(reply: &[u8]) -> Result<String, Error> {
    let reply: Object = read(reply)?;
    match text(&reply, "token") {
        Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(token.to_owned())
        }
        _ => Err(Error::Malformed("no token that can be sent")),
    }
}

/// Reads what is left of a lease; `None` if it is gone, which etcd says by a TTL of -1.
pub fn lease_left_reply(reply: &[u8]) -> Result<Option<Duration>, Error> {
    let reply: LeaseShape = read(reply)?;
    header_revision(reply.header.as_ref())?;
    let left = u64::try_from(int(reply.ttl)).ok();
    Ok(left.map(Duration::from_secs))
}

/// Reads the raft term and the revision in the reply to [`get`](super::get).
pub fn term_reply(reply: &[u8]) -> Result<(u64, Revision), Error> {
    let reply: RangeShape = read(reply)?;
    let header = reply.header.as_ref();
    Ok((header_term(header)?, header_revision(header)?))
}

/// Reads the reply line of a keepalive.
pub fn keepalive_line(line: &[u8]) -> Result<Keepalive, Error> {
    let lease: LeaseShape = stream_result(line)?;
    header_revision(lease.header.as_ref())?;
    let term = header_term(lease.header.as_ref())?;
    // Etcd leaves the TTL out, or says 0 or -1, for a lease that it does not know.
    let seconds = u64::try_from(int(lease.ttl)).ok().filter(|ttl| *ttl > 0);
    Ok(Keepalive {
        ttl: seconds.map(Duration::from_secs),
        term,
    })
}

/// Reads one line of a watch; `None` if it brings no change.
pub fn watch_line(line: &[u8]) -> Result<Option<WatchBatch>, Error> {
    // No look at the header: the one of a compacted watch has no revision.
    let result: WatchShape = stream_result(line)?;
    if result.canceled.unwrap_or_default() {
        let at = int(result.compact_revision);
        if at > 0 {
            return Err(Error::Compacted { at: Revision(at) });
        }
        let reason = result.cancel_reason.unwrap_or_default();
        return Err(Error::rejected(0, format!("watch canceled: {reason}")));
    }
    let mut batch = WatchBatch::default();
    let events = result.events.unwrap_or_default();
    batch.events.reserve_exact(events.len());
    for event in events {
        let kv = event.kv.ok_or(Error::Malformed("an event without a key"))?;
        let kv = key_value(kv)?;
        batch.revision = batch.revision.max(kv.mod_revision);
        let deleted = event.kind.is_some_and(|Deleted(deleted)| deleted);
        batch.events.push(WatchEvent { kv, deleted });
    }
    Ok((!batch.events.is_empty()).then_some(batch))
}

/// Reads the body of an HTTP reply whose status is an error; `None` if it is none of etcd's.
pub fn refusal(body: &[u8]) -> Option<Error> {
    let body: Object = read(body).ok()?;
    match body.get("error") {
        // A stream that fails before its first line has the shape of an error line.
        Some(Value::Object(error)) => Some(stream_error(error)),
        _ => {
            let message = text(&body, "message").or_else(|| text(&body, "error"))?;
            Some(Error::rejected(code(&body), message.to_owned()))
        }
    }
}

fn read<T: de::DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|_| Error::Malformed("no JSON of the shape it must have"))
}

fn range_of(reply: RangeShape, revision: Revision) -> Result<RangeReply, Error> {
    let kvs: Vec<KeyValue> = reply
        .kvs
        .unwrap_or_default()
        .into_iter()
        .map(key_value)
        .collect::<Result<_, Error>>()?;
    let count =
        u64::try_from(int(reply.count)).map_err(|_| Error::Malformed("a negative count"))?;
    // A reply that lost keys on its way must not look like keys that are gone.
    let more = reply.more.unwrap_or_default();
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

fn txn_of(reply: TxnShape, revision: Revision) -> Result<TxnReply, Error> {
    Ok(TxnReply {
        revision,
        succeeded: reply.succeeded.unwrap_or_default(),
        responses: reply
            .responses
            .unwrap_or_default()
            .into_iter()
            .map(|response| op_reply(response, revision))
            .collect::<Result<_, Error>>()?,
    })
}

/// One operation's reply; `revision` is the transaction's, as nested headers may be empty.
fn op_reply(reply: OpShape, revision: Revision) -> Result<OpReply, Error> {
    if let Some(txn) = reply.response_txn {
        Ok(OpReply::Txn(txn_of(txn, revision)?))
    } else if let Some(range) = reply.response_range {
        Ok(OpReply::Range(range_of(range, revision)?))
    } else if let Some(delete) = reply.response_delete_range {
        let deleted = u64::try_from(int(delete.deleted))
            .map_err(|_| Error::Malformed("a negative number of keys"))?;
        Ok(OpReply::Delete { deleted })
    } else if reply.response_put.is_some() {
        Ok(OpReply::Put)
    } else {
        Err(Error::Malformed("an operation's reply of no known kind"))
    }
}

fn key_value(kv: KvShape) -> Result<KeyValue, Error> {
    let key = kv.key.unwrap_or_default().0;
    let mod_revision = int(kv.mod_revision);
    if key.is_empty() || mod_revision <= 0 {
        return Err(Error::Malformed("a key without a name or a revision"));
    }
    let lease = int(kv.lease);
    Ok(KeyValue {
        key,
        value: kv.value.unwrap_or_default().0,
        mod_revision: Revision(mod_revision),
        create_revision: Revision(int(kv.create_revision)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

/// The store's revision, which is at least 1: its absence shows that it was not etcd that answered.
fn header_revision(header: Option<&Header>) -> Result<Revision, Error> {
    let header = header.ok_or(Error::Malformed("no header"))?;
    match int(header.revision) {
        revision if revision > 0 => Ok(Revision(revision)),
        _ => Err(Error::Malformed("a header without a revision")),
    }
}

/// The raft term of the member that answered, which is at least 1.
fn header_term(header: Option<&Header>) -> Result<u64, Error> {
    match header.and_then(|header| header.raft_term.as_ref()) {
        Some(Identity(term)) if *term > 0 => Ok(*term),
        _ => Err(Error::Malformed("a header without a raft term")),
    }
}

fn int(number: Option<Int>) -> i64 {
    number.unwrap_or_default().0
}

fn stream_result<T: de::DeserializeOwned>(line: &[u8]) -> Result<T, Error> {
    let line: Line<T> = read(line)?;
    if let Some(error) = line.error {
        return Err(stream_error(&error));
    }
    line.result
        .ok_or(Error::Malformed("a line without a result"))
}

fn stream_error(error: &Object) -> Error {
    let message = text(error, "message").unwrap_or_default();
    Error::rejected(code(error), message.to_owned())
}

/// The gRPC code, or 0 if there is none that can be read: the message still tells.
fn code(error: &Object) -> u32 {
    let code = error.get("code").or_else(|| error.get("grpc_code"));
    let code = match code {
        Some(Value::String(digits)) => digits.parse().ok(),
        code => code.and_then(Value::as_u64),
    };
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(0)
}

fn text<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}
