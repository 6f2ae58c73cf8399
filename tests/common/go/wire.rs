//! What the Go program sends to etcd, and what it makes of the answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// One row.
#[derive(Debug, Default)]
pub struct Row {
    pub kind: u64,
    pub current: String,
    pub next: String,
}

impl Row {
    /// It is broken: a node that is to act is not named.
    pub fn lacks_a_name(&self) -> bool {
        match self.kind {
            1 => self.current.is_empty(),
            2..=9 => self.current.is_empty() || self.next.is_empty(),
            10 => self.next.is_empty(),
            _ => false,
        }
    }
}

pub fn put(key: &str, value: &str, lease: i64) -> Json {
    json!({ "request_put": {
        "key": BASE64.encode(key), "value": BASE64.encode(value), "lease": lease.to_string(),
    }})
}

pub fn delete(key: &str) -> Json {
    json!({ "request_delete_range": { "key": BASE64.encode(key) } })
}

/// A 64-bit number as etcd writes it: in quotes, and absent if 0.
pub fn number(value: &Json) -> Option<i64> {
    value.as_str()?.parse().ok()
}

pub fn text(value: &Json) -> String {
    let bytes = BASE64.decode(value.as_str().unwrap_or_default());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

pub fn pairs(reply: &Json) -> impl Iterator<Item = (String, String)> {
    let kvs = reply["kvs"].as_array().into_iter().flatten();
    kvs.map(|kv| (text(&kv["key"]), text(&kv["value"])))
}

pub fn read_rows(reply: &Json) -> BTreeMap<u32, Row> {
    let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
    for (key, value) in pairs(reply) {
        let Some((vni, part)) = key.trim_start_matches("/wmgwd/vni/").split_once('/') else {
            continue;
        };
        let row = rows.entry(vni.parse().unwrap_or(0)).or_default();
        match part {
            "type" => row.kind = value.parse().unwrap_or(0),
            "current" => row.current = value,
            "next" => row.next = value,
            _ => {}
        }
    }
    rows
}

/// Whose each point is. Nodes come in the order of their names, so the greatest has a point that is there
/// twice.
pub fn read_ring(reply: &Json) -> BTreeMap<u64, String> {
    let nodes = pairs(reply).map(|(key, value)| {
        let points: Vec<u64> = serde_json::from_str(&value).unwrap_or_default();
        (key.trim_start_matches("/wmgwd/node/").to_owned(), points)
    });
    let points = nodes.flat_map(|(name, points)| {
        let mine = points.into_iter();
        mine.map(move |point| (point, name.clone()))
    });
    points.collect()
}

/// The first point at or after the VNI's own place, going round.
pub fn ring_owner(ring: &BTreeMap<u64, String>, vni: u32) -> Option<&String> {
    let mut place = u64::from(vni);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        place = (place ^ (place >> 33)).wrapping_mul(factor);
    }
    place ^= place >> 33;
    let after = ring.range(place..).next();
    after.or_else(|| ring.iter().next()).map(|(_, name)| name)
}
