//! The keys of early detection, and the transactions that write them. Pure.
//!
//! | key | holds | on the lease of |
//! |---|---|---|
//! | `/wmgwd/meta/beat/<X>` | run, key and address of node X ([`Contact`]) | X |
//! | `/wmgwd/meta/witness/<X>` | the epoch of owner X, or `"evicted"`, or `"released"` | X |
//! | `/wmgwd/meta/vote/<X>/<p>` | the vote of witness p against the epoch of X that it names | X |
//!
//! Numbers of 64 bits are texts of hexadecimal digits: JSON readers may round them.

use super::{Key, Value};
use crate::etcd::{Compare, KeyValue, Op, OpReply, Txn, TxnReply};
use crate::model::types::{LeaseId, NodeName, Revision};
use crate::witness::owner::Answer;
use crate::witness::siphash;
use crate::witness::voter::{Ballot, Voted};
use crate::witness::{
    Contact, Epoch, Held, LONGEST_WINDOW, MOST, Number, Run, SHORTEST_WINDOW, Standing, Witness,
};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// The contacts of all nodes are below this prefix.
pub const CONTACTS: &[u8] = b"/wmgwd/meta/beat/";
/// The epochs of all owners are below this prefix.
pub const EPOCHS: &[u8] = b"/wmgwd/meta/witness/";

const EVICTED: &str = "evicted";
const RELEASED: &str = "released";

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// A lease as etcd's tools print it: its 64 bits.
fn bits(lease: LeaseId) -> u64 {
    u64::from_be_bytes(lease.0.to_be_bytes())
}

fn read_hex(json: &Json, name: &str) -> Option<u64> {
    let text = json.get(name)?.as_str()?;
    let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u64::from_str_radix(text, 16).ok())?
}

/// A node's contact in etcd's bytes.
pub fn contact_bytes(contact: &Contact) -> Vec<u8> {
    json!({
        "run": hex(contact.run.0),
        "key": contact.key.hex(),
        "address": contact.address.to_string(),
    })
    .to_string()
    .into_bytes()
}

pub(super) fn read_contact(bytes: &[u8]) -> Result<Contact, &'static str> {
    const WHY: &str = "holds no run, key and address for beats";
    let read = || {
        let json: Json = serde_json::from_slice(bytes).ok()?;
        Some(Contact {
            run: Run(read_hex(&json, "run")?),
            key: siphash::Key::read_hex(json.get("key")?.as_str()?)?,
            address: json.get("address")?.as_str()?.parse().ok()?,
        })
    };
    read().ok_or(WHY)
}

/// The value of an epoch key in etcd's bytes.
pub fn standing_bytes(standing: &Standing) -> Vec<u8> {
    let epoch = match standing {
        Standing::Epoch(epoch) => epoch,
        Standing::Evicted => return json!(EVICTED).to_string().into_bytes(),
        Standing::Released => return json!(RELEASED).to_string().into_bytes(),
    };
    let witness = |it: &Witness| {
        json!({
            "name": it.name.as_str(),
            "lease": hex(bits(it.lease)),
            "run": hex(it.run.0),
        })
    };
    let json = json!({
        "lease": hex(bits(epoch.lease)),
        "window": u64::try_from(epoch.window.as_micros()).unwrap_or(u64::MAX),
        "number": hex(epoch.number.0),
        "witnesses": epoch.witnesses.iter().map(witness).collect::<Vec<_>>(),
    });
    json.to_string().into_bytes()
}

pub(crate) fn read_standing(bytes: &[u8]) -> Result<Standing, &'static str> {
    const WHY: &str = "holds no epoch";
    let json: Json = serde_json::from_slice(bytes).map_err(|_| WHY)?;
    match json.as_str() {
        Some(EVICTED) => return Ok(Standing::Evicted),
        Some(RELEASED) => return Ok(Standing::Released),
        Some(_) => return Err(WHY),
        None => {}
    }
    read_epoch(&json).map(Standing::Epoch).ok_or(WHY)
}

fn read_epoch(json: &Json) -> Option<Epoch> {
    let lease = |json: &Json| {
        let lease = i64::from_be_bytes(read_hex(json, "lease")?.to_be_bytes());
        (lease != 0).then_some(LeaseId(lease))
    };
    let witness = |json: &Json| {
        Some(Witness {
            name: json.get("name")?.as_str()?.parse().ok()?,
            lease: lease(json)?,
            run: Run(read_hex(json, "run")?),
        })
    };
    let witnesses = json.get("witnesses")?.as_array()?;
    let witnesses: Vec<Witness> = witnesses.iter().map(witness).collect::<Option<_>>()?;
    let is_twice = |at: usize| {
        witnesses[..at]
            .iter()
            .any(|it| it.name == witnesses[at].name)
    };
    let window = Duration::from_micros(json.get("window")?.as_u64()?);
    let number = Number(read_hex(json, "number")?);
    // More witnesses than this version counts, or one of them twice: enough votes would not be enough.
    let is_countable = witnesses.len() <= MOST && !(0..witnesses.len()).any(is_twice);
    let is_meant = number != Number(0) && (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window);
    let epoch = Epoch {
        lease: lease(json)?,
        window,
        number,
        witnesses,
    };
    (is_countable && is_meant).then_some(epoch)
}

/// A vote in etcd's bytes: compared byte by byte, so written in one way only.
fn vote_bytes(revision: Revision, lease: LeaseId, run: Run) -> Vec<u8> {
    let lease = hex(bits(lease));
    format!(
        r#"{{"epoch":"{revision}","lease":"{lease}","run":"{}"}}"#,
        hex(run.0)
    )
    .into_bytes()
}

/// The transaction that publishes the contact of a gateway, while it is registered under that lease.
pub fn publish_contact(me: &NodeName, lease: LeaseId, contact: &Contact) -> Txn {
    let is_registered = Compare::LeaseIs {
        key: Key::Node(me.clone()).bytes(),
        lease,
    };
    put_contact(me, lease, contact, is_registered)
}

/// The transaction that publishes the contact of a witness that serves nothing, if no gateway has its name.
pub fn publish_witness(me: &NodeName, lease: LeaseId, contact: &Contact) -> Txn {
    let is_no_gateway = Compare::CreateRevisionIs {
        key: Key::Node(me.clone()).bytes(),
        revision: Revision(0),
    };
    put_contact(me, lease, contact, is_no_gateway)
}

/// A contact stays on its lease until that ends: other nodes count a witness as gone whose contact is not on the lease
/// that they have named.
fn put_contact(me: &NodeName, lease: LeaseId, contact: &Contact, condition: Compare) -> Txn {
    let key = Key::Contact(me.clone()).bytes();
    let put = Op::Put {
        key: key.clone(),
        value: contact_bytes(contact),
        lease: Some(lease),
    };
    let is_absent = Compare::CreateRevisionIs {
        key: key.clone(),
        revision: Revision(0),
    };
    let again = Txn {
        compares: vec![condition.clone(), Compare::LeaseIs { key, lease }],
        then: vec![put.clone()],
        otherwise: Vec::new(),
    };
    Txn {
        compares: vec![condition, is_absent],
        then: vec![put],
        otherwise: vec![Op::Txn(again)],
    }
}

/// Whether a [`publish_contact`] or [`publish_witness`] did so.
pub fn contact_published(reply: &TxnReply) -> bool {
    super::registered(reply)
}

/// The transaction that puts an epoch in place, if the key was last changed at `condition` (0: is absent). Sent twice
/// it is harmless. If it is refused, it reads the key.
pub fn write_epoch(me: &NodeName, epoch: &Epoch, condition: Revision) -> Txn {
    let key = Key::Epoch(me.clone()).bytes();
    Txn {
        compares: vec![Compare::ModRevisionIs {
            key: key.clone(),
            revision: condition,
        }],
        then: vec![Op::Put {
            key: key.clone(),
            value: standing_bytes(&Standing::Epoch(epoch.clone())),
            // The put, and with it the transaction, fails if the lease has ended.
            lease: Some(epoch.lease),
        }],
        otherwise: vec![Op::Range { key }],
    }
}

/// What an epoch key holds.
pub fn held(kv: &KeyValue) -> Held {
    let value = Key::read(&kv.key).map(|key| super::read_value(&key, &kv.value).0);
    let standing = match value {
        Ok(Value::Standing(standing)) => Some(standing),
        _ => None,
    };
    (kv.mod_revision, kv.lease, standing)
}

/// What etcd's reply to a [`write_epoch`] says.
pub fn epoch_written(reply: &TxnReply) -> Answer {
    if reply.succeeded {
        return Answer::Written(reply.revision);
    }
    match &reply.responses[..] {
        [OpReply::Range(range)] => Answer::Refused(range.kvs.first().map(held)),
        _ => Answer::Unknown,
    }
}

/// The transaction by which a node that is silent, and stays so, lets the others take over without a wait.
pub fn write_released(me: &NodeName, revision: Revision) -> Txn {
    let key = Key::Epoch(me.clone()).bytes();
    Txn {
        compares: vec![Compare::ModRevisionIs {
            key: key.clone(),
            revision,
        }],
        then: vec![Op::Overwrite {
            key,
            value: standing_bytes(&Standing::Released),
        }],
        otherwise: Vec::new(),
    }
}

/// The transaction that votes, and evicts if that is the last vote that is needed.
pub fn write_vote(me: &NodeName, ballot: &Ballot) -> Txn {
    let key = Key::Epoch(ballot.owner.clone()).bytes();
    let vote = Op::Put {
        key: Key::Vote(ballot.owner.clone(), me.clone()).bytes(),
        value: vote_bytes(ballot.revision, ballot.lease, ballot.run),
        lease: Some(ballot.epoch.lease),
    };
    let evict = || Op::Overwrite {
        key: key.clone(),
        value: standing_bytes(&Standing::Evicted),
    };
    let others = ballot.epoch.witnesses.iter().filter(|it| it.name != *me);
    let voted = others.clone().map(|it| Compare::ValueIs {
        key: Key::Vote(ballot.owner.clone(), it.name.clone()).bytes(),
        value: vote_bytes(ballot.revision, it.lease, it.run),
    });
    let gone = others.filter(|it| ballot.gone.contains(&it.name));
    let gone = gone.map(|it| Compare::LeaseIsNot {
        key: Key::Contact(it.name.clone()).bytes(),
        lease: it.lease,
    });
    // With up to three witnesses, one other vote is the most that is needed: any of these will do.
    let counted = voted.chain(gone);
    let decision = match ballot.epoch.ending() {
        0 | 1 => evict(),
        2 => counted.fold(vote, |otherwise, compare| {
            Op::Txn(Txn {
                compares: vec![compare],
                then: vec![evict()],
                otherwise: vec![otherwise],
            })
        }),
        _ => vote,
    };
    Txn {
        compares: vec![
            Compare::ModRevisionIs {
                key: key.clone(),
                revision: ballot.revision,
            },
            Compare::LeaseIs {
                key: Key::Contact(me.clone()).bytes(),
                lease: ballot.lease,
            },
            Compare::ModRevisionIs {
                key: Key::Epoch(me.clone()).bytes(),
                revision: ballot.own,
            },
        ],
        then: vec![decision],
        otherwise: Vec::new(),
    }
}

/// What etcd's reply to a [`write_vote`] says.
pub fn vote_written(ballot: &Ballot, reply: &TxnReply) -> Voted {
    let mut reply = reply;
    if !reply.succeeded {
        return Voted::Refused;
    }
    if ballot.epoch.ending() < 2 {
        return Voted::Evicted;
    }
    while let [OpReply::Txn(inner)] = &reply.responses[..] {
        if inner.succeeded {
            return Voted::Evicted;
        }
        reply = inner;
    }
    Voted::Put
}
