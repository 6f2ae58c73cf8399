//! The transactions of early detection against real etcd.
#![allow(clippy::unwrap_used)]

mod common;

use common::LONG;
use common::etcd::Etcd;
use common::put_leased;
use common::then;
use std::time::Duration;
use wmgwd::etcd::Client;
use wmgwd::model::types::{LeaseId, NodeName, Revision};
use wmgwd::schema::Key;
use wmgwd::schema::witness::{
    epoch_written, vote_written, write_epoch, write_released, write_vote,
};
use wmgwd::witness::owner::Answer;
use wmgwd::witness::voter::{Ballot, Voted};
use wmgwd::witness::{Epoch, Number, Run, Standing, Witness};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A node with a contact.
fn register(client: &Client, node: &str) -> Witness {
    let lease = client.lease_grant(LONG).unwrap().id;
    let key = String::from_utf8(Key::Contact(name(node)).bytes()).unwrap();
    client
        .txn(&then(vec![put_leased(&key, "[]", Some(lease))]))
        .unwrap();
    Witness {
        name: name(node),
        lease,
        run: Run(7),
    }
}

fn epoch(owner: &Witness, number: u64, witnesses: &[&Witness]) -> Epoch {
    Epoch {
        lease: owner.lease,
        window: Duration::from_millis(500),
        number: Number(number),
        witnesses: witnesses.iter().map(|it| (*it).clone()).collect(),
    }
}

fn write(client: &Client, owner: &Witness, epoch: &Epoch, condition: Revision) -> Answer {
    let reply = client
        .txn(&write_epoch(&owner.name, epoch, condition))
        .unwrap();
    epoch_written(&reply)
}

fn vote(client: &Client, of: &Witness, ballot: &Ballot) -> Voted {
    let reply = client.txn(&write_vote(&of.name, ballot)).unwrap();
    vote_written(ballot, &reply)
}

fn ballot(owner: &Witness, revision: Revision, epoch: &Epoch, of: &Witness) -> Ballot {
    Ballot {
        owner: owner.name.clone(),
        revision,
        epoch: epoch.clone(),
        lease: of.lease,
        run: of.run,
        own: Revision(0),
        gone: Vec::new(),
    }
}

fn standing(client: &Client, owner: &Witness) -> Option<(Option<LeaseId>, Vec<u8>)> {
    let key = Key::Epoch(owner.name.clone()).bytes();
    let range = client.range(&key).unwrap();
    range.kvs.into_iter().next().map(|kv| (kv.lease, kv.value))
}

// Input: an epoch, the same transaction again, one under an older condition, one under the right one.
// Output: written; refused, with the epoch itself; refused, with the epoch in place; written.
#[test]
fn an_epoch_is_written_under_its_condition() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let (x, p) = (register(&client, "x"), register(&client, "p"));
    let first = epoch(&x, 1, &[&p]);
    let revision = written(&client, &x, &first);
    let held = Some((
        revision,
        Some(x.lease),
        Some(Standing::Epoch(first.clone())),
    ));
    let again = write(&client, &x, &first, Revision(0));
    assert_eq!(again, Answer::Refused(held.clone()));
    let second = epoch(&x, 2, &[]);
    assert_eq!(
        write(&client, &x, &second, Revision(0)),
        Answer::Refused(held)
    );
    let written = write(&client, &x, &second, revision);
    assert!(matches!(written, Answer::Written(newer) if newer > revision));
}

// Input: the votes of two of three witnesses. Output: the first is put, the second evicts; the key keeps its lease,
// and no epoch is written over it.
#[test]
fn the_second_vote_of_three_evicts() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let [x, p, q, r] = ["x", "p", "q", "r"].map(|node| register(&client, node));
    let names = epoch(&x, 1, &[&p, &q, &r]);
    let revision = written(&client, &x, &names);
    let of = |it| ballot(&x, revision, &names, it);
    assert_eq!(vote(&client, &p, &of(&p)), Voted::Put);
    assert_eq!(
        vote(&client, &p, &of(&p)),
        Voted::Put,
        "its own does not count twice"
    );
    assert_eq!(vote(&client, &r, &of(&r)), Voted::Evicted);
    assert_eq!(
        standing(&client, &x),
        Some((Some(x.lease), b"\"evicted\"".to_vec()))
    );
    let next = epoch(&x, 2, &[]);
    let answer = write(&client, &x, &next, revision);
    assert!(
        matches!(
            answer,
            Answer::Refused(Some((_, _, Some(Standing::Evicted))))
        ),
        "{answer:?}"
    );
    assert_eq!(vote(&client, &q, &of(&q)), Voted::Refused);
}

/// The revision of a node's first epoch, which etcd takes.
fn written(client: &Client, owner: &Witness, epoch: &Epoch) -> Revision {
    match write(client, owner, epoch, Revision(0)) {
        Answer::Written(revision) => revision,
        other => panic!("{other:?}"),
    }
}

// Input: a vote against an older epoch's revision, of a witness whose lease has ended, and of one whose own epoch is
// another than it knows. Output: all are refused.
#[test]
fn a_vote_holds_under_its_conditions_only() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let [x, p] = ["x", "p"].map(|node| register(&client, node));
    let names = epoch(&x, 1, &[&p]);
    let revision = written(&client, &x, &names);
    let right = ballot(&x, revision, &names, &p);
    let older = Ballot {
        revision: Revision(revision.0 - 1),
        ..right.clone()
    };
    assert_eq!(vote(&client, &p, &older), Voted::Refused);
    let other_lease = Ballot {
        lease: x.lease,
        ..right.clone()
    };
    assert_eq!(vote(&client, &p, &other_lease), Voted::Refused);
    let own = written(&client, &p, &epoch(&p, 5, &[]));
    assert_eq!(vote(&client, &p, &right), Voted::Refused);
    let right = Ballot { own, ..right };
    assert_eq!(
        vote(&client, &p, &right),
        Voted::Evicted,
        "the only witness"
    );
}

// Input: the vote of one of two witnesses, which counts the other as gone, before and after that one's lease ends.
// Output: put, then evicted.
#[test]
fn a_witness_that_is_gone_counts_as_a_vote() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let [x, p, q] = ["x", "p", "q"].map(|node| register(&client, node));
    let names = epoch(&x, 1, &[&p, &q]);
    let revision = written(&client, &x, &names);
    let of_q = Ballot {
        gone: vec![p.name.clone()],
        ..ballot(&x, revision, &names, &q)
    };
    assert_eq!(vote(&client, &q, &of_q), Voted::Put);
    client.lease_revoke(p.lease).unwrap();
    let without = ballot(&x, revision, &names, &q);
    assert_eq!(vote(&client, &q, &without), Voted::Put);
    assert_eq!(vote(&client, &q, &of_q), Voted::Evicted);
}

// Input: a node that writes that it is silent. Output: the key says so, on its lease; no vote is possible any more.
#[test]
fn a_released_epoch_stays_on_its_lease() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let [x, p] = ["x", "p"].map(|node| register(&client, node));
    let names = epoch(&x, 1, &[&p]);
    let revision = written(&client, &x, &names);
    assert!(
        client
            .txn(&write_released(&x.name, revision))
            .unwrap()
            .succeeded
    );
    assert_eq!(
        standing(&client, &x),
        Some((Some(x.lease), b"\"released\"".to_vec()))
    );
    assert_eq!(
        vote(&client, &p, &ballot(&x, revision, &names, &p)),
        Voted::Refused
    );
    client.lease_revoke(x.lease).unwrap();
    assert_eq!(standing(&client, &x), None);
}
