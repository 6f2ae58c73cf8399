//! The etcd client against real etcd: what each call does.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::{LONG, put, put_leased, then};
use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;
use wmgwd::etcd::{
    Client, Compare, Error, KeyValue, Op, OpReply, Renewal, Txn, TxnReply, WatchBatch, WatchEvent,
};
use wmgwd::model::types::{LeaseId, Revision};

// Input: the server that the tests were told to use.
// Output: it is that one: what `etcd --version` says and what the running server says agree.
#[test]
fn the_server_is_the_one_under_test() {
    let etcd = Etcd::start();
    let mut reply = ureq::get(format!("{}/version", etcd.endpoint()))
        .call()
        .unwrap();
    let reply = reply.body_mut().read_to_string().unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let running = reply["etcdserver"].as_str().unwrap();
    let file = Command::new(common::etcd::program())
        .arg("--version")
        .output()
        .unwrap();
    let said = String::from_utf8(file.stdout).unwrap();
    assert_eq!(
        said.lines().next(),
        Some(&*format!("etcd Version: {running}"))
    );
    println!("etcd {running}");
}

fn keys(kvs: &[KeyValue]) -> Vec<&[u8]> {
    kvs.iter().map(|kv| kv.key.as_slice()).collect()
}

// Input: keys inside and outside of a prefix.
// Output: those inside, in order, with their values, revisions and leases.
#[test]
fn a_range_is_the_whole_prefix() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let empty = client.range(b"/w/").unwrap();
    assert_eq!((empty.count, empty.kvs.len()), (0, 0));
    assert!(empty.revision >= Revision(1));
    let lease = client.lease_grant(LONG).unwrap().id;
    let written = client
        .txn(&then(vec![
            put("/w", "out"),
            put("/w/b", ""),
            put_leased("/w/a", "1", Some(lease)),
            put("/w0", "out"),
        ]))
        .unwrap();
    assert!(written.succeeded);
    assert_eq!(written.responses, vec![OpReply::Put; 4]);

    let reply = client.range(b"/w/").unwrap();
    assert_eq!(reply.revision, written.revision);
    assert_eq!(reply.count, 2);
    let kv = |key: &[u8], value: &[u8], lease| KeyValue {
        key: key.into(),
        value: value.into(),
        mod_revision: written.revision,
        create_revision: written.revision,
        lease,
    };
    let expected = [kv(b"/w/a", b"1", Some(lease)), kv(b"/w/b", b"", None)];
    assert_eq!(reply.kvs, expected);
    assert_eq!(client.get(b"/w/a").unwrap().kvs, expected[..1]);
    assert_eq!(client.get(b"/w/").unwrap().kvs, []);
    assert_eq!(client.range(b"").unwrap().count, 4);

    let newest = client.newest(b"/w/").unwrap();
    assert_eq!((newest.mod_revision, newest.count), (written.revision, 2));
    let later = client.txn(&then(vec![put("/w/a", "2"), put("/x", "")]));
    let later = later.unwrap().revision;
    let newest = client.newest(b"/w/").unwrap();
    assert_eq!((newest.revision, newest.mod_revision), (later, later));
    let none = client.newest(b"/none/").unwrap();
    assert_eq!((none.mod_revision, none.count), (Revision(0), 0));
}

// Input: keys and values that are no UTF-8, with bytes 0x00 and 0xff, also as the prefix.
// Output: the same bytes.
#[test]
fn keys_and_values_are_bytes() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let strange: Vec<u8> = (0..=255).rev().collect();
    client
        .txn(&then(vec![
            put([0xff, 0xff, 0x01], &strange),
            put([0xff, 0xfe], [0xc0]),
            put(&strange, [0]),
        ]))
        .unwrap();
    let reply = client.range(&[0xff, 0xff]).unwrap();
    assert_eq!(keys(&reply.kvs), [[0xff, 0xff, 0x01]]);
    assert_eq!(reply.kvs[0].value, strange);
    assert_eq!(client.range(&[0xff]).unwrap().count, 3);
    assert_eq!(client.get(&strange).unwrap().kvs[0].value, [0]);
}

// Input: each kind of condition, once as it is and once as it is not.
// Output: only the former succeed.
#[test]
fn every_condition_decides() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let lease = client.lease_grant(LONG).unwrap().id;
    let made = client.txn(&then(vec![put_leased("k", "v", Some(lease))]));
    let made = made.unwrap().revision;
    let changed = client.txn(&then(vec![put_leased("k", "w", Some(lease))]));
    let changed = changed.unwrap().revision;
    let less = |key: &str, than| Compare::ModRevisionLess {
        key: key.into(),
        than,
    };
    let changed_at = |key: &str, revision| Compare::ModRevisionIs {
        key: key.into(),
        revision,
    };
    let created_at = |key: &str, revision| Compare::CreateRevisionIs {
        key: key.into(),
        revision,
    };
    let leased = |key: &str, lease| Compare::LeaseIs {
        key: key.into(),
        lease,
    };
    let is = |key: &str, value: &str| Compare::ValueIs {
        key: key.into(),
        value: value.into(),
    };
    let none = Revision(0);
    let cases = [
        (less("k", changed.next()), true),
        (less("k", changed), false),
        (less("gone", Revision(1)), true),
        (changed_at("k", changed), true),
        (changed_at("k", made), false),
        (changed_at("gone", none), true),
        (created_at("k", made), true),
        (created_at("k", none), false),
        (created_at("gone", none), true),
        (leased("k", lease), true),
        (leased("k", LeaseId(1)), false),
        (leased("gone", lease), false),
        (is("k", "w"), true),
        (is("k", "v"), false),
        (is("gone", ""), false),
    ];
    for (compare, holds) in cases {
        let txn = Txn {
            compares: vec![compare.clone()],
            ..Txn::default()
        };
        assert_eq!(client.txn(&txn).unwrap().succeeded, holds, "{compare:?}");
    }
}

// Input: one transaction of 125 nested ones, every fifth with a condition that does not hold.
// Output: one revision; each nested one tells its own outcome. With 126: refused, in etcd's words.
#[test]
fn nested_transactions_have_their_own_outcomes() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let nested = |count: usize| {
        let one = |i: usize| {
            let key = format!("/n/{i:03}").into_bytes();
            let revision = if i % 5 == 0 { Revision(1) } else { Revision(0) };
            let written = |part: &str| put(format!("/n/{i:03}/{part}"), "x");
            Op::Txn(Txn {
                compares: vec![Compare::CreateRevisionIs {
                    key: key.clone(),
                    revision,
                }],
                then: vec![written("a"), written("b"), written("c")],
                otherwise: vec![Op::Range { key: key.clone() }, Op::Delete { key }],
            })
        };
        then((0..count).map(one).collect())
    };
    match client.txn(&nested(126)) {
        Err(Error::Rejected { code: 3, message }) => {
            assert!(
                message.contains("too many operations in txn request"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let reply = client.txn(&nested(125)).unwrap();
    assert!(reply.succeeded);
    assert_eq!(reply.responses.len(), 125);
    for (i, response) in reply.responses.iter().enumerate() {
        let OpReply::Txn(TxnReply {
            succeeded,
            responses,
            revision,
        }) = response
        else {
            panic!("{response:?}");
        };
        assert_eq!((*succeeded, *revision), (i % 5 != 0, reply.revision));
        if *succeeded {
            assert_eq!(*responses, vec![OpReply::Put; 3]);
        } else {
            let [OpReply::Range(range), OpReply::Delete { deleted: 0 }] = &responses[..] else {
                panic!("{responses:?}");
            };
            assert_eq!((range.count, range.kvs.len()), (0, 0));
        }
    }
    let range = client.range(b"/n/").unwrap();
    assert_eq!(range.count, 300);
    assert!(range.kvs.iter().all(|kv| kv.mod_revision == reply.revision));
    let deleted = client.txn(&then(vec![
        Op::Delete {
            key: b"/n/001/a".to_vec(),
        },
        Op::Range {
            key: b"/n/001/b".to_vec(),
        },
    ]));
    let responses = deleted.unwrap().responses;
    assert_eq!(responses[0], OpReply::Delete { deleted: 1 });
    assert!(matches!(&responses[1], OpReply::Range(range) if range.count == 1));
}

// Input: a lease's life.
// Output: etcd's minimum instead of 1 s; a TTL for each keepalive; none once it is revoked.
#[test]
fn a_lease_lives_and_ends() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let grant = client.lease_grant(Duration::from_millis(1)).unwrap();
    assert_eq!(grant.ttl, Duration::from_secs(2));
    let grant = client.lease_grant(Duration::from_millis(9001)).unwrap();
    assert_eq!(grant.ttl, Duration::from_secs(10));
    let renewal = client.lease_renew(grant.id, b"/l/").unwrap();
    assert_eq!(renewal, Renewal::Held(grant.ttl));
    let keys = (0..5).map(|i| put_leased(format!("/l/{i}"), "", Some(grant.id)));
    let written = client.txn(&then(keys.collect())).unwrap().revision;

    let mut watch = client.watch(b"/l/", written.next(), LONG).unwrap();
    client.lease_revoke(grant.id).unwrap();
    let batch = watch.next().unwrap().unwrap();
    assert_eq!(batch.revision, written.next());
    assert_eq!(batch.events.len(), 5);
    assert!(batch.events.iter().all(|event| event.deleted));
    let renewal = client.lease_renew(grant.id, b"/l/").unwrap();
    assert_eq!(renewal, Renewal::Gone);
    client.lease_revoke(grant.id).unwrap();
    assert_eq!(client.range(b"/l/").unwrap().count, 0);
}

// Input: a transaction whose last put names a lease that is gone.
// Output: LeaseNotFound, and nothing of it is done, nor of those nested in it.
#[test]
fn a_put_with_a_lease_that_is_gone_undoes_the_whole_transaction() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let gone = Some(LeaseId(12345));
    let before = client.range(b"").unwrap().revision;
    for txn in [
        then(vec![put("a", ""), put_leased("b", "", gone)]),
        then(vec![
            put("a", ""),
            Op::Txn(then(vec![put_leased("b", "", gone)])),
        ]),
    ] {
        assert!(matches!(client.txn(&txn), Err(Error::LeaseNotFound)));
    }
    let after = client.range(b"").unwrap();
    assert_eq!((after.count, after.revision), (0, before));
}

// Input: transactions before and after the watch is opened, with deletions, and keys elsewhere.
// Output: one batch for each change of the prefix, all rows of a transaction in it.
#[test]
fn a_watch_brings_whole_transactions() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let first = client.txn(&then(vec![
        put("/w/a", "1"),
        put("/w/b", "2"),
        put("/x", ""),
    ]));
    let first = first.unwrap().revision;
    let watch = client.watch(b"/w/", first, LONG).unwrap();
    client.txn(&then(vec![put("/x", "")])).unwrap();
    let last = client.txn(&then(vec![
        Op::Delete {
            key: b"/w/a".to_vec(),
        },
        put("/w/c", "3"),
    ]));
    let last = last.unwrap().revision;
    let mut batches: Vec<WatchBatch> = Vec::new();
    // Changes that etcd has to catch up with may come in one batch, but never a revision in two.
    for batch in watch {
        batches.push(batch.unwrap());
        if batches.iter().any(|batch| batch.revision == last) {
            break;
        }
    }
    let seen: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.events)
        .map(|event| {
            (
                event.kv.key.as_slice(),
                event.deleted,
                event.kv.mod_revision,
            )
        })
        .collect();
    let expected: [(&[u8], bool, Revision); 4] = [
        (b"/w/a", false, first),
        (b"/w/b", false, first),
        (b"/w/a", true, last),
        (b"/w/c", false, last),
    ];
    assert_eq!(seen, expected);
    let revision_of = |event: &WatchEvent| event.kv.mod_revision;
    for batch in &batches {
        assert_eq!(
            batch.events.iter().map(revision_of).max(),
            Some(batch.revision)
        );
    }
    assert_eq!(batches[0].events[1].kv.value, b"2");
}

// Input: a watch from a revision that was compacted.
// Output: Compacted with the oldest revision there is, then nothing more.
#[test]
fn a_watch_from_a_compacted_revision_says_so() {
    let etcd = Etcd::start();
    let client = etcd.client();
    for _ in 0..5 {
        client.txn(&then(vec![put("k", "")])).unwrap();
    }
    let compacted = ureq::post(format!("{}/v3/kv/compaction", etcd.endpoint()))
        .send(r#"{"revision":"5"}"#)
        .unwrap();
    assert!(compacted.status().is_success());
    let mut watch = client.watch(b"k", Revision(2), LONG).unwrap();
    match watch.next() {
        Some(Err(Error::Compacted { at })) => assert_eq!(at, Revision(5)),
        other => panic!("{other:?}"),
    }
    assert!(watch.next().is_none());
}

// Input: more keys than two pages of a range hold, and a writer that changes them meanwhile.
// Output: every key once, in order, all as of the one revision of the reply.
#[test]
fn a_range_of_many_pages_is_one_snapshot() {
    const KEYS: usize = 10_500;
    const PER_TXN: usize = 125;
    let etcd = Etcd::start();
    let client = etcd.client();
    let mut last = Revision(0);
    for first in (0..KEYS).step_by(PER_TXN) {
        let puts = (first..first + PER_TXN).map(|i| put(format!("/p/{i:05}"), "0"));
        last = client.txn(&then(puts.collect())).unwrap().revision;
    }
    client.txn(&then(vec![put("/p0", "")])).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = {
        let client = client.clone();
        thread::spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                let (first, new) = (b"/p/00000".to_vec(), format!("/p/{KEYS}"));
                client
                    .txn(&then(vec![put(first, "1"), put(&new, "")]))
                    .unwrap();
                let deleted = vec![Op::Delete {
                    key: new.into_bytes(),
                }];
                client.txn(&then(deleted)).unwrap();
            }
        })
    };
    for _ in 0..5 {
        let range = client.range(b"/p/").unwrap();
        assert!(range.revision > last);
        assert_eq!(range.kvs.len() as u64, range.count);
        assert!(range.kvs.is_sorted_by(|a, b| a.key < b.key));
        assert!(range.kvs.iter().all(|kv| kv.mod_revision <= range.revision));
        let grown = range.kvs.last().unwrap();
        // The key that comes and goes is there exactly if it came with the snapshot's revision.
        if grown.key == format!("/p/{KEYS}").into_bytes() {
            assert_eq!(grown.mod_revision, range.revision);
            assert_eq!(range.count, KEYS as u64 + 1);
        } else {
            assert_eq!(range.count, KEYS as u64);
        }
    }
    drop(stop);
    writer.join().unwrap();
}

// Input: a value of 1 MB, and a range of more than 10 MB (ureq's default limit) that is watched too.
// Output: all of it.
#[test]
fn replies_of_any_size_are_read_whole() {
    const KEYS: usize = 12;
    let etcd = Etcd::start();
    let client = Client::new(vec![etcd.endpoint()], LONG);
    let value = vec![b'x'; 1_000_000];
    for i in 0..KEYS {
        client
            .txn(&then(vec![put(format!("/big/{i:02}"), &value)]))
            .unwrap();
    }
    let reply = client.range(b"/big/").unwrap();
    assert_eq!(reply.kvs.len(), KEYS);
    assert!(reply.kvs.iter().all(|kv| kv.value == value));
    let mut events = 0;
    for batch in client
        .watch(b"/big/", reply.kvs[0].mod_revision, LONG)
        .unwrap()
    {
        events += batch.unwrap().events.len();
        if events == KEYS {
            break;
        }
    }
    assert_eq!(events, KEYS);
}
