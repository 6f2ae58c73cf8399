//! Sends trials to the nodes that receive beats, as this node, and waits for their answers. Moves nothing: a trial
//! proves no node.

use super::beats::Beats;
use crate::etcd::{Client, Error};
use crate::model::types::{LeaseId, NodeName};
use crate::schema::{self, Key, Value, witness::CONTACTS};
use crate::sys::clock;
use crate::witness::Contact;
use crate::witness::datagram::{self, Datagram, Kind, LENGTH, Sealed};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

/// How often a node is tried that has not answered, and for how long each time.
const TRIES: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(250);

type Contacts = BTreeMap<NodeName, (LeaseId, Contact)>;

/// Tries the way to each other node and back, if this is `me`; if that was not said, only looks who receives beats.
/// `None` if it cannot be tried from this machine.
///
/// # Errors
/// etcd does not tell where the nodes receive beats.
pub fn look_at_beats(me: Option<&NodeName>, client: &Client) -> Result<Option<Beats>, Error> {
    let mut contacts: Contacts = client
        .range(CONTACTS)?
        .kvs
        .iter()
        .filter_map(|kv| {
            let key = Key::read(&kv.key).ok()?;
            match (schema::read_value(&key, &kv.value).0, key) {
                (Value::Contact(contact), Key::Contact(name)) => Some((name, (kv.lease?, contact))),
                _ => None,
            }
        })
        .collect();
    let own = me.and_then(|me| contacts.remove(me));
    let answering = match &own {
        None => Vec::new(),
        // The address is of another machine where this is not the node itself.
        Some((lease, own)) => match UdpSocket::bind((own.address.ip(), 0)) {
            Ok(socket) => try_all(&socket, *lease, own, &contacts),
            Err(_) => return Ok(None),
        },
    };
    let others = contacts.into_iter().map(|(name, (lease, contact))| {
        let answers = answering.contains(&lease);
        (name, contact.address, answers)
    });
    Ok(Some(Beats {
        is_named: me.is_some(),
        own: own.map(|(_, contact)| contact.address),
        others: others.collect(),
    }))
}

/// The leases of those that answer.
fn try_all(socket: &UdpSocket, lease: LeaseId, own: &Contact, others: &Contacts) -> Vec<LeaseId> {
    let mut answering = Vec::new();
    for _ in 0..TRIES {
        for (other, contact) in others.values() {
            if answering.contains(other) {
                continue;
            }
            let trial = Datagram::trial(lease, *other, contact.run, clock::now());
            let link = datagram::link_key(&own.key, &contact.key);
            // What cannot be sent is not answered.
            let _ = socket.send_to(&trial.seal(&link), contact.address);
        }
        let until = clock::now() + PATIENCE;
        while answering.len() < others.len() {
            let left = until.since(clock::now());
            if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
                break;
            }
            let mut bytes = [0; LENGTH + 1];
            // An error is the end of the wait, or that of a datagram which was refused on its way (udp(7)).
            let length = socket.recv(&mut bytes).unwrap_or_default();
            let read = || {
                let sealed = Sealed::read(&bytes[..length])?;
                let mut others = others.values();
                let (other, contact) = others.find(|(other, _)| *other == sealed.claims_from())?;
                let answer = sealed.open(&datagram::link_key(&own.key, &contact.key))?;
                let is_ours = answer.kind == Kind::TrialAnswer && answer.to == lease;
                is_ours.then_some(*other)
            };
            if let Some(other) = read().filter(|other| !answering.contains(other)) {
                answering.push(other);
            }
        }
    }
    answering
}
