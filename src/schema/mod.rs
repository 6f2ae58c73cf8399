//! The schema of etcd: keys and values under `/wmgwd/`, read and written here and nowhere else. Pure.
//!
//! The keys below `/wmgwd/node/` and `/wmgwd/vni/` are shared with the Go wmgwd, byte for byte. Ours alone
//! is `/wmgwd/meta/`. Anything else, and any value that cannot be read, belongs to another program: it becomes
//! [`Foreign`], is reported once and stepped over.

use crate::etcd::{Compare, Op, OpReply, Txn, TxnReply};
use crate::model::fitness::{Fitness, Rank, Sign};
use crate::model::fsm::Kind;
use crate::model::ring::Unable;
use crate::model::spans::Spans;
use crate::model::types::{LeaseId, NodeName, Revision, Vni, VniRange};
use crate::witness::{Contact, Standing};
use serde_json::{Value as Json, json};
use std::fmt;

mod commit;
#[cfg(test)]
mod tests;
pub mod witness;

pub use commit::{Batch, Bundle, Commit, CommitResult, commit, committed};

/// The prefix of every key that wmgwd reads.
pub const PREFIX: &[u8] = b"/wmgwd/";

/// The prefix of the live nodes and their points.
pub const NODES: &[u8] = b"/wmgwd/node/";

/// Nodes of this program (not Go nodes) publish what they know of themselves below this prefix.
pub const METAS: &[u8] = b"/wmgwd/meta/node/";

/// A value longer than this is not read: no value that wmgwd writes comes near (100 points take 2 kB).
const LONGEST_VALUE: usize = 1 << 20;

/// A key below [`PREFIX`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// `/wmgwd/node/<name>`: a live node and its ring points.
    Node(NodeName),
    /// `/wmgwd/meta/node/<name>`: what a node of this program publishes of itself.
    Meta(NodeName),
    /// `/wmgwd/meta/drain/<name>`: a node of this program that an operator has taken out.
    Drain(NodeName),
    /// `/wmgwd/meta/points/<name>`: the ring points that a node of this program drew when it started for the first
    /// time.
    Points(NodeName),
    /// `/wmgwd/meta/beat/<name>`: where a node receives beats.
    Contact(NodeName),
    /// `/wmgwd/meta/witness/<name>`: the epoch of an owner.
    Epoch(NodeName),
    /// `/wmgwd/meta/vote/<owner>/<witness>`: a witness's vote against an owner.
    Vote(NodeName, NodeName),
    /// `/wmgwd/vni/<vni>/type`.
    Kind(Vni),
    /// `/wmgwd/vni/<vni>/current`.
    Current(Vni),
    /// `/wmgwd/vni/<vni>/next`.
    Next(Vni),
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// [`Foreign`] if wmgwd has no such key.
    pub fn read(bytes: &[u8]) -> Result<Key, Foreign> {
        let foreign = |why| Foreign {
            key: shorten(bytes),
            why,
        };
        let text = std::str::from_utf8(bytes).map_err(|_| foreign("is not UTF-8"))?;
        let rest = text
            .strip_prefix("/wmgwd/")
            .ok_or_else(|| foreign("is not below /wmgwd/"))?;
        let segments: Vec<&str> = rest.split('/').collect();
        let name = |text: &str| text.parse().map_err(|_| foreign("holds no node name"));
        match segments[..] {
            ["node", node] => Ok(Key::Node(name(node)?)),
            ["meta", "node", node] => Ok(Key::Meta(name(node)?)),
            ["meta", "drain", node] => Ok(Key::Drain(name(node)?)),
            ["meta", "points", node] => Ok(Key::Points(name(node)?)),
            ["meta", "beat", node] => Ok(Key::Contact(name(node)?)),
            ["meta", "witness", owner] => Ok(Key::Epoch(name(owner)?)),
            ["meta", "vote", owner, witness] => Ok(Key::Vote(name(owner)?, name(witness)?)),
            ["vni", vni, part] => {
                let vni = vni.parse().map_err(|_| foreign("holds no VNI"))?;
                match part {
                    "type" => Ok(Key::Kind(vni)),
                    "current" => Ok(Key::Current(vni)),
                    "next" => Ok(Key::Next(vni)),
                    _ => Err(foreign("is no part of a VNI's row")),
                }
            }
            _ => Err(foreign("is no key of wmgwd")),
        }
    }

    /// The VNI whose row this key belongs to.
    pub fn vni(&self) -> Option<Vni> {
        match self {
            Key::Kind(vni) | Key::Current(vni) | Key::Next(vni) => Some(*vni),
            Key::Node(_) | Key::Meta(_) | Key::Drain(_) | Key::Points(_) => None,
            Key::Contact(_) | Key::Epoch(_) | Key::Vote(..) => None,
        }
    }

    /// The key in etcd's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Key::Node(name) => format!("/wmgwd/node/{name}"),
            Key::Meta(name) => format!("/wmgwd/meta/node/{name}"),
            Key::Drain(name) => format!("/wmgwd/meta/drain/{name}"),
            Key::Points(name) => format!("/wmgwd/meta/points/{name}"),
            Key::Contact(name) => format!("/wmgwd/meta/beat/{name}"),
            Key::Epoch(owner) => format!("/wmgwd/meta/witness/{owner}"),
            Key::Vote(owner, witness) => format!("/wmgwd/meta/vote/{owner}/{witness}"),
            Key::Kind(vni) => format!("/wmgwd/vni/{vni}/type"),
            Key::Current(vni) => format!("/wmgwd/vni/{vni}/current"),
            Key::Next(vni) => format!("/wmgwd/vni/{vni}/next"),
        }
        .into_bytes()
    }
}

/// The value of a [`Key`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A node's ring points, those that it registers or those that it drew.
    Points(Vec<u64>),
    /// What a node of this program publishes of itself.
    Meta(Meta),
    /// That a node is taken out: the key says so, whatever its value.
    Drain,
    /// Where a node receives beats.
    Contact(Contact),
    /// What an epoch key holds.
    Standing(Standing),
    /// A vote: etcd compares it, wmgwd does not read it.
    Vote,
    /// The kind of a row.
    Kind(Kind),
    /// A name; `None` where the value is empty.
    Name(Option<NodeName>),
    /// A key or value that no program with this schema writes.
    Unreadable,
}

/// What a node of this program publishes of itself, beside its points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The version of the program.
    pub version: String,
    /// The VNIs that it serves. (A Go wmgwd says nothing: it is taken to serve all.)
    pub range: VniRange,
    /// What of these it cannot serve at present. `None` if the node is of a version that does not publish it.
    pub unable: Option<Unable>,
    /// How well it can forward. `None` if the node is of a version that does not publish it.
    pub fitness: Option<Fitness>,
    /// When this was written: seconds since 1970 (UTC) by the node's clock. With the revision of the key, it
    /// tells people about when other keys were written.
    pub time: Option<u64>,
    /// Whether its kernel holds its lease. `None` if the node does not publish it: its version is older, or it runs
    /// with `--mock`.
    pub kernel: Option<KernelHold>,
    /// What it has of IPv6; `None` as with `kernel`.
    pub ipv6: Option<Ipv6Hold>,
}

/// The IPv6 gateway addresses of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ipv6Hold {
    /// How many bridges have some.
    pub bridges: u64,
    /// Why the kernel does not switch them, if it does not.
    pub lack: Option<String>,
}

/// Whether the kernel of a node holds the node's lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelHold {
    /// The kernel ends ARP by itself at the end of the lease.
    Held,
    /// Daemon and guard have to end it; why.
    Missing(String),
}

/// One key as it came to be at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which key.
    pub key: Key,
    /// What it holds now; `None` if it was deleted.
    pub value: Option<Value>,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
    /// The revision that changed it.
    pub revision: Revision,
}

/// A key or value that wmgwd cannot read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Foreign {
    /// The key, shortened.
    pub key: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "key {} in etcd {}: left alone; delete it if no program needs it",
            self.key, self.why
        )
    }
}

impl std::error::Error for Foreign {}

/// Reads the value of `key`, with the reason if it cannot be read (the value is
/// [`Value::Unreadable`] then).
pub fn read_value(key: &Key, bytes: &[u8]) -> (Value, Option<Foreign>) {
    let read = match key {
        _ if bytes.len() > LONGEST_VALUE => Err("holds more than a megabyte"),
        Key::Node(_) | Key::Points(_) => read_points(bytes).map(Value::Points),
        Key::Meta(_) => read_meta(bytes).map(Value::Meta),
        Key::Drain(_) => Ok(Value::Drain),
        Key::Contact(_) => witness::read_contact(bytes).map(Value::Contact),
        Key::Epoch(_) => witness::read_standing(bytes).map(Value::Standing),
        Key::Vote(..) => Ok(Value::Vote),
        Key::Kind(_) => read_kind(bytes).map(Value::Kind),
        Key::Current(_) | Key::Next(_) => read_name(bytes).map(Value::Name),
    };
    match read {
        Ok(value) => (value, None),
        Err(why) => (
            Value::Unreadable,
            Some(Foreign {
                key: shorten(&key.bytes()),
                why,
            }),
        ),
    }
}

fn read_points(bytes: &[u8]) -> Result<Vec<u64>, &'static str> {
    const WHY: &str = "holds no JSON array of unsigned 64-bit integers";
    let json: Json = serde_json::from_slice(bytes).map_err(|_| WHY)?;
    // Go writes an empty slice that was never filled as null.
    if json.is_null() {
        return Ok(Vec::new());
    }
    json.as_array()
        .ok_or(WHY)?
        .iter()
        .map(|point| point.as_u64().ok_or(WHY))
        .collect()
}

fn read_meta(bytes: &[u8]) -> Result<Meta, &'static str> {
    const WHY: &str = "holds no version and VNI range, or no set of VNIs where one belongs";
    let json: Json = serde_json::from_slice(bytes).map_err(|_| WHY)?;
    let vni = |name: &str| {
        let number = json.get(name).and_then(Json::as_u64).ok_or(WHY)?;
        u32::try_from(number).ok().and_then(Vni::new).ok_or(WHY)
    };
    let spans = |unable: &Json, name: &str| {
        let text = unable.get(name).and_then(Json::as_str).unwrap_or_default();
        text.parse::<Spans>().map_err(|_| WHY)
    };
    let unable = |unable: &Json| {
        Ok(Unable {
            absent: spans(unable, "absent")?,
            failing: spans(unable, "failing")?,
        })
    };
    Ok(Meta {
        version: json
            .get("version")
            .and_then(Json::as_str)
            .ok_or(WHY)?
            .to_owned(),
        range: VniRange::new(vni("minvni")?, vni("maxvni")?).ok_or(WHY)?,
        unable: json.get("unable").map(unable).transpose()?,
        fitness: json.get("fitness").map(read_fitness).transpose()?,
        time: json.get("time").and_then(Json::as_u64),
        kernel: json.get("kernel_lease").and_then(read_kernel_hold),
        ipv6: json.get("ipv6").and_then(read_ipv6_hold),
    })
}

/// What cannot be read is taken as not published: a later version may say more.
fn read_kernel_hold(json: &Json) -> Option<KernelHold> {
    match json.get("held")?.as_bool()? {
        true => Some(KernelHold::Held),
        false => {
            let why = json.get("why").and_then(Json::as_str).unwrap_or_default();
            Some(KernelHold::Missing(why.to_owned()))
        }
    }
}

fn read_ipv6_hold(json: &Json) -> Option<Ipv6Hold> {
    Some(Ipv6Hold {
        bridges: json.get("bridges")?.as_u64()?,
        lack: json.get("lack").and_then(Json::as_str).map(str::to_owned),
    })
}

fn read_fitness(json: &Json) -> Result<Fitness, &'static str> {
    let rank = json.get("rank").and_then(Json::as_u64);
    let bad = json.get("bad").and_then(Json::as_array);
    // A later version may know more signs.
    let sign = |name: &Json| {
        let mut known = Sign::ALL.into_iter();
        known.find(|sign| name.as_str() == Some(sign.name()))
    };
    Ok(Fitness {
        rank: Rank::from_number(rank.ok_or("holds no rank where one belongs")?),
        bad: bad.into_iter().flatten().filter_map(sign).collect(),
    })
}

fn read_kind(bytes: &[u8]) -> Result<Kind, &'static str> {
    const WHY: &str = "holds no state from 0 to 10";
    let text = std::str::from_utf8(bytes).map_err(|_| WHY)?;
    // No sign: Rust's parser would take "+1".
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WHY);
    }
    text.parse().ok().and_then(Kind::from_number).ok_or(WHY)
}

fn read_name(bytes: &[u8]) -> Result<Option<NodeName>, &'static str> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "holds no node name")?;
    text.parse().map(Some).map_err(|_| "holds no node name")
}

/// A node's points in etcd's bytes.
pub fn points_bytes(points: &[u64]) -> Vec<u8> {
    json!(points).to_string().into_bytes()
}

/// A node's meta value in etcd's bytes.
pub fn meta_bytes(meta: &Meta) -> Vec<u8> {
    let mut json = json!({
        "version": meta.version,
        "minvni": meta.range.first().get(),
        "maxvni": meta.range.last().get(),
    });
    if let Some(unable) = &meta.unable {
        json["unable"] = json!({
            "absent": unable.absent.to_string(),
            "failing": unable.failing.to_string(),
        });
    }
    if let Some(fitness) = &meta.fitness {
        let bad: Vec<&str> = fitness.bad.iter().map(Sign::name).collect();
        json["fitness"] = json!({"rank": fitness.rank.number(), "bad": bad});
    }
    if let Some(time) = meta.time {
        json["time"] = json!(time);
    }
    match &meta.kernel {
        None => {}
        Some(KernelHold::Held) => json["kernel_lease"] = json!({"held": true}),
        Some(KernelHold::Missing(why)) => {
            json["kernel_lease"] = json!({"held": false, "why": why});
        }
    }
    if let Some(Ipv6Hold { bridges, lack }) = &meta.ipv6 {
        json["ipv6"] = json!({"bridges": bridges});
        if let Some(lack) = lack {
            json["ipv6"]["lack"] = json!(lack);
        }
    }
    json.to_string().into_bytes()
}

/// Writes what the node publishes of itself, which goes with its lease.
fn put_meta(me: &NodeName, lease: LeaseId, meta: &Meta) -> Op {
    Op::Put {
        key: Key::Meta(me.clone()).bytes(),
        value: meta_bytes(meta),
        lease: Some(lease),
    }
}

/// The transaction by which an operator takes `node` out. The mark is attached to no lease: it outlives the node's
/// restarts.
pub fn drain(node: &NodeName) -> Txn {
    Txn {
        then: vec![Op::Put {
            key: Key::Drain(node.clone()).bytes(),
            value: b"drain".to_vec(),
            lease: None,
        }],
        ..Txn::default()
    }
}

/// The transaction by which an operator brings `node` back.
pub fn undrain(node: &NodeName) -> Txn {
    Txn {
        then: vec![Op::Delete {
            key: Key::Drain(node.clone()).bytes(),
        }],
        ..Txn::default()
    }
}

/// Whether an [`undrain`] found a mark to take away.
pub fn undrained(reply: &TxnReply) -> bool {
    matches!(reply.responses[..], [OpReply::Delete { deleted: 1.. }])
}

/// The transaction that registers `me`, unless another lease holds the name. A key without a lease holds
/// nothing: no node writes such a key, and etcd would never delete it when a node dies. The points that the node
/// drew, `drawn`, outlive it.
pub fn register(
    me: &NodeName,
    lease: LeaseId,
    points: &[u64],
    drawn: Option<&[u64]>,
    meta: &Meta,
) -> Txn {
    let key = Key::Node(me.clone()).bytes();
    let puts = || {
        let drawn = drawn.map(|points| Op::Put {
            key: Key::Points(me.clone()).bytes(),
            value: points_bytes(points),
            lease: None,
        });
        let node = [
            Op::Put {
                key: key.clone(),
                value: points_bytes(points),
                lease: Some(lease),
            },
            put_meta(me, lease, meta),
        ];
        node.into_iter().chain(drawn).collect()
    };
    let hangs_on = |lease, otherwise| Txn {
        compares: vec![Compare::LeaseIs {
            key: key.clone(),
            lease,
        }],
        then: puts(),
        otherwise,
    };
    let on_none = hangs_on(LeaseId(0), Vec::new());
    let again = hangs_on(lease, vec![Op::Txn(on_none)]);
    Txn {
        compares: vec![Compare::CreateRevisionIs {
            key: key.clone(),
            revision: Revision(0),
        }],
        then: puts(),
        otherwise: vec![Op::Txn(again)],
    }
}

/// The transaction that replaces what `me` says of itself, if `me` is registered under `lease`.
pub fn publish(me: &NodeName, lease: LeaseId, meta: &Meta) -> Txn {
    Txn {
        compares: vec![Compare::LeaseIs {
            key: Key::Node(me.clone()).bytes(),
            lease,
        }],
        then: vec![put_meta(me, lease, meta)],
        otherwise: Vec::new(),
    }
}

/// Whether a [`register`] did so.
pub fn registered(reply: &TxnReply) -> bool {
    let mut reply = reply;
    loop {
        match reply.responses[..] {
            _ if reply.succeeded => return true,
            [OpReply::Txn(ref otherwise)] => reply = otherwise,
            _ => return false,
        }
    }
}

/// A key as a log line shows it, whatever bytes it has.
fn shorten(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut text = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    text
}
