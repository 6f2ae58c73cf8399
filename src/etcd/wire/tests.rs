//! Literal replies, as etcd 3.4.23 sent them unless a test says otherwise.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::etcd::Error;
use crate::etcd::ops::{
    Compare, Grant, Keepalive, KeyValue, MemberStatus, Newest, Op, OpReply, RangeReply, Txn,
    TxnReply,
};
use crate::model::types::{LeaseId, Revision};
use serde_json::{Value, json};
use std::time::Duration;

mod requests;

/// The header of every reply.
const HEADER: &str = r#""header":{"cluster_id":"6012025715201963436","member_id":"6662698563040693991","revision":"7","raft_term":"2"}"#;

/// A reply: its header and `rest`.
fn reply(rest: &str) -> Vec<u8> {
    format!("{{{HEADER}{rest}}}").into_bytes()
}

/// A line of a stream: the header and `rest` in its result.
fn line(rest: &str) -> Vec<u8> {
    format!("{{\"result\":{{{HEADER}{rest}}}}}\n").into_bytes()
}

fn parsed(request: &[u8]) -> Value {
    serde_json::from_slice(request).unwrap()
}

fn malformed<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Malformed(_)))
}

#[test]
fn a_range_without_keys_has_no_such_fields() {
    let range = range_reply(&reply("")).unwrap();
    assert_eq!(
        range,
        RangeReply {
            revision: Revision(7),
            count: 0,
            kvs: vec![]
        }
    );
    assert_eq!(newest_reply(&reply("")).unwrap().mod_revision, Revision(0));
}

#[test]
fn a_range_is_read_in_either_case_with_numbers_as_text_or_not() {
    let a = KeyValue {
        key: b"/a".to_vec(),
        value: vec![],
        mod_revision: Revision(6),
        create_revision: Revision(2),
        lease: Some(LeaseId(7587872389145312524)),
    };
    let b = KeyValue {
        key: vec![0xff, 0],
        value: vec![0xc0],
        lease: None,
        ..a.clone()
    };
    let expected = RangeReply {
        revision: Revision(7),
        count: 2,
        kvs: vec![a, b],
    };
    for rest in [
        r#","kvs":[{"key":"L2E=","create_revision":"2","mod_revision":"6","version":"3","lease":"7587872389145312524"},{"key":"/wA=","create_revision":"2","mod_revision":"6","version":"1","value":"wA=="}],"count":"2""#,
        // As protobuf's own JSON names the fields, with numbers, and with zero values spelled out.
        r#","kvs":[{"key":"L2E=","createRevision":2,"modRevision":6,"value":"","lease":7587872389145312524},{"key":"/wA=","createRevision":2,"modRevision":6,"value":"wA==","lease":"0"}],"more":false,"count":2"#,
    ] {
        assert_eq!(range_reply(&reply(rest)).unwrap(), expected);
    }
}

#[test]
fn the_newest_key_stands_for_its_prefix() {
    let rest = r#","kvs":[{"key":"L2E=","create_revision":"2","mod_revision":"6","version":"3"}],"more":true,"count":"9""#;
    let newest = newest_reply(&reply(rest)).unwrap();
    let expected = Newest {
        revision: Revision(7),
        mod_revision: Revision(6),
        count: 9,
    };
    assert_eq!(newest, expected);
}

#[test]
fn replies_that_are_none_are_malformed() {
    for bad in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"\"",
        "{}",
        r#"{"header":{}}"#,
        r#"{"header":7}"#,
        "Not Found",
    ] {
        assert!(malformed(range_reply(bad.as_bytes())), "{bad}");
        assert!(malformed(txn_reply(bad.as_bytes())), "{bad}");
        assert!(malformed(lease_grant_reply(bad.as_bytes())), "{bad}");
        assert!(malformed(keepalive_line(bad.as_bytes())), "{bad}");
        assert!(malformed(watch_line(bad.as_bytes())), "{bad}");
        assert!(refusal(bad.as_bytes()).is_none(), "{bad}");
    }
    for bad in [
        r#","kvs":[{"key":"L2E","mod_revision":"6"}],"count":"1""#, // padding is missing
        r#","kvs":[{"key":"L2E=","value":"%","mod_revision":"6"}],"count":"1""#,
        r#","kvs":[{"key":"L2E=","value":7,"mod_revision":"6"}],"count":"1""#,
        r#","kvs":[{"mod_revision":"6"}],"count":"1""#,
        r#","kvs":[{"key":"L2E="}],"count":"1""#,
        r#","kvs":[{"key":"L2E=","mod_revision":"x"}],"count":"1""#,
        r#","kvs":[{"key":"L2E=","mod_revision":"9223372036854775808"}],"count":"1""#,
        r#","kvs":[{"key":"L2E=","mod_revision":1.5}],"count":"1""#,
        r#","kvs":[7],"count":"1""#,
        r#","kvs":{},"count":"1""#,
        r#","kvs":[],"count":"1""#, // keys got lost
        r#","more":true,"count":"1""#,
        r#","kvs":[],"count":"-1""#,
        r#","kvs":[],"more":"yes""#,
    ] {
        assert!(malformed(range_reply(&reply(bad))), "{bad}");
    }
}

#[test]
fn a_transaction_without_success_failed_its_conditions() {
    let failed = txn_reply(&reply("")).unwrap();
    let expected = TxnReply {
        revision: Revision(7),
        succeeded: false,
        responses: vec![],
    };
    assert_eq!(failed, expected);
}

#[test]
fn a_transaction_tells_each_outcome_in_either_case() {
    let nested = |succeeded, responses| {
        OpReply::Txn(TxnReply {
            revision: Revision(7),
            succeeded,
            responses,
        })
    };
    let expected = TxnReply {
        revision: Revision(7),
        succeeded: true,
        responses: vec![
            OpReply::Put,
            nested(true, vec![OpReply::Delete { deleted: 1 }]),
            nested(false, vec![]),
            OpReply::Range(RangeReply {
                revision: Revision(7),
                ..RangeReply::default()
            }),
            OpReply::Delete { deleted: 0 },
        ],
    };
    for rest in [
        r#","succeeded":true,"responses":[{"response_put":{"header":{"revision":"7"}}},{"response_txn":{"header":{},"succeeded":true,"responses":[{"response_delete_range":{"header":{"revision":"7"},"deleted":"1"}}]}},{"response_txn":{"header":{}}},{"response_range":{"header":{"revision":"7"}}},{"response_delete_range":{"header":{"revision":"7"}}}]"#,
        r#","succeeded":true,"responses":[{"responsePut":{}},{"responseTxn":{"succeeded":true,"responses":[{"responseDeleteRange":{"deleted":1}}]}},{"responseTxn":{"succeeded":false,"responses":[]}},{"responseRange":{"kvs":[],"count":"0"}},{"responseDeleteRange":{"deleted":"0"}}]"#,
    ] {
        assert_eq!(txn_reply(&reply(rest)).unwrap(), expected);
    }
    for bad in [
        r#","succeeded":"true""#,
        r#","responses":[{}]"#,
        r#","responses":[{"response_put":null}]"#,
        r#","responses":[{"response_txn":7}]"#,
        r#","responses":[{"response_delete_range":{"deleted":"-1"}}]"#,
    ] {
        assert!(malformed(txn_reply(&reply(bad))), "{bad}");
    }
}

#[test]
fn nesting_without_end_is_malformed() {
    let depth = 100_000;
    let open = r#"{"response_txn":{"responses":["#.repeat(depth);
    assert!(malformed(txn_reply(&reply(&format!(
        r#","responses":[{open}"#
    )))));
}

#[test]
fn the_ttl_of_a_grant_is_the_one_in_the_reply() {
    // The answer to {"TTL":1}.
    let grant = lease_grant_reply(&reply(r#","ID":"5685691186863862534","TTL":"2""#)).unwrap();
    let expected = Grant {
        id: LeaseId(5685691186863862534),
        ttl: Duration::from_secs(2),
    };
    assert_eq!(grant, expected);
    for bad in [
        "",
        r#","ID":"7""#,
        r#","TTL":"7""#,
        r#","ID":"7","TTL":"-1""#,
    ] {
        assert!(malformed(lease_grant_reply(&reply(bad))), "{bad}");
    }
}

#[test]
fn what_is_left_of_a_lease() {
    let left = lease_left_reply(&reply(r#","ID":"123","TTL":"4","grantedTTL":"5""#)).unwrap();
    assert_eq!(left, Some(Duration::from_secs(4)));
    let ending = lease_left_reply(&reply(r#","ID":"123","grantedTTL":"5""#)).unwrap();
    assert_eq!(ending, Some(Duration::ZERO));
    let gone = lease_left_reply(&reply(r#","ID":"123","TTL":"-1""#)).unwrap();
    assert_eq!(gone, None);
    assert!(malformed(lease_left_reply(b"{}")));
}

#[test]
fn a_keepalive_without_ttl_means_that_the_lease_is_gone() {
    let alive = keepalive_line(&line(r#","ID":"123","TTL":"10""#)).unwrap();
    let expected = Keepalive {
        ttl: Some(Duration::from_secs(10)),
        term: 2,
    };
    assert_eq!(alive, expected);
    for gone in [
        r#","ID":"123""#,
        r#","ID":"123","TTL":"0""#,
        r#","ID":"123","TTL":"-1""#,
    ] {
        assert_eq!(keepalive_line(&line(gone)).unwrap().ttl, None, "{gone}");
    }
    // An empty result is not etcd's word that the lease is gone.
    assert!(malformed(keepalive_line(b"{\"result\":{}}")));
    let error = br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#;
    assert!(matches!(
        keepalive_line(error),
        Err(Error::Rejected { code: 14, .. })
    ));
}

#[test]
fn lines_without_events_bring_nothing() {
    for rest in [
        r#","created":true"#,
        "",
        r#","created":true,"canceled":false,"events":[]"#,
    ] {
        assert_eq!(watch_line(&line(rest)).unwrap(), None);
    }
}

#[test]
fn an_event_without_type_is_a_put() {
    let rest = r#","events":[{"kv":{"key":"L2E=","create_revision":"5","mod_revision":"5","version":"1","value":"MQ==","lease":"9"}},{"type":"DELETE","kv":{"key":"L2I=","mod_revision":"6"}},{"type":"PUT","kv":{"key":"L2E=","modRevision":6}},{"type":1,"kv":{"key":"L2I=","mod_revision":"4"}},{"type":0,"kv":{"key":"L2I=","mod_revision":"4"}}]"#;
    let batch = watch_line(&line(rest)).unwrap().unwrap();
    assert_eq!(batch.revision, Revision(6));
    let deleted: Vec<bool> = batch.events.iter().map(|event| event.deleted).collect();
    assert_eq!(deleted, [false, true, false, true, false]);
    let first = &batch.events[0].kv;
    assert_eq!(
        (&first.value[..], first.lease),
        (&b"1"[..], Some(LeaseId(9)))
    );
    let second = &batch.events[1].kv;
    assert_eq!((second.create_revision, second.lease), (Revision(0), None));
    for bad in [
        r#","events":[{}]"#,
        r#","events":[{"kv":{"key":"L2E="}}]"#,
        r#","events":[{"type":"MOVE","kv":{"key":"L2E=","mod_revision":"1"}}]"#,
        r#","events":[{"type":2,"kv":{"key":"L2E=","mod_revision":"1"}}]"#,
    ] {
        assert!(malformed(watch_line(&line(bad))), "{bad}");
    }
}

#[test]
fn a_compacted_start_cancels_the_watch() {
    // Its header has no revision.
    let canceled = br#"{"result":{"header":{"cluster_id":"6012025715201963436","member_id":"6662698563040693991","raft_term":"2"},"canceled":true,"compact_revision":"5"}}"#;
    assert!(matches!(
        watch_line(canceled),
        Err(Error::Compacted { at: Revision(5) })
    ));
    let camel = br#"{"result":{"canceled":true,"compactRevision":5,"created":true}}"#;
    assert!(matches!(
        watch_line(camel),
        Err(Error::Compacted { at: Revision(5) })
    ));
    match watch_line(&line(
        r#","canceled":true,"cancel_reason":"permission denied""#,
    )) {
        Err(Error::Rejected { code: 0, message }) => assert!(message.contains("permission denied")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        watch_line(&line(r#","canceled":true"#)),
        Err(Error::Rejected { .. })
    ));
}

#[test]
fn errors_come_in_three_shapes() {
    for (body, code, message) in [
        // A call, 3.4: the text twice.
        (
            r#"{"error":"etcdserver: duplicate key given in txn request","message":"etcdserver: duplicate key given in txn request","code":3}"#,
            3,
            "duplicate key",
        ),
        // A call, 3.6: without "error", with "details".
        (
            r#"{"code":3,"message":"etcdserver: too many operations in txn request","details":[]}"#,
            3,
            "too many operations",
        ),
        (
            r#"{"error":"etcdserver: request timed out","code":"14"}"#,
            14,
            "request timed out",
        ),
        // A stream.
        (
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#,
            14,
            "no leader",
        ),
        (
            r#"{"error":{"code":14,"message":"etcdserver: no leader","details":[]}}"#,
            14,
            "no leader",
        ),
        (r#"{"error":{}}"#, 0, ""),
    ] {
        match refusal(body.as_bytes()) {
            Some(Error::Rejected {
                code: c,
                message: m,
            }) => {
                assert!(c == code && m.contains(message), "{c} {m}");
            }
            other => panic!("{other:?}"),
        }
    }
    let gone = br#"{"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":5}"#;
    assert!(matches!(refusal(gone), Some(Error::LeaseNotFound)));
    let other = br#"{"message":"etcdserver: member not found","code":5}"#;
    assert!(matches!(
        refusal(other),
        Some(Error::Rejected { code: 5, .. })
    ));
    assert!(refusal(br#"{"code":5}"#).is_none());
}

#[test]
fn what_another_member_might_not_refuse_leads_to_another_endpoint() {
    for (code, message, elsewhere) in [
        (14, "etcdserver: no leader", true),
        (14, "anything", true),
        (2, "etcdserver: request timed out", true),
        (8, "etcdserver: too many requests", true),
        (8, "etcdserver: mvcc: database space exceeded", false),
        (9, "etcdserver: rpc not supported for learner", true),
        (9, "etcdserver: authentication is not enabled", false),
        (13, "stream terminated by RST_STREAM", true),
        (15, "etcdserver: corrupt cluster", true),
        (7, "etcdserver: permission denied", false),
        (16, "etcdserver: invalid auth token", false),
        (0, "etcdserver: no leader", true),
        (3, "etcdserver: too many operations in txn request", false),
        (5, "etcdserver: requested lease not found", false),
    ] {
        let error = Error::rejected(code, message.to_owned());
        assert_eq!(error.is_of_endpoint(), elsewhere, "{message}");
    }
}

/// etcd 3.4.23's own words; with an alarm as 3.5 adds it; a member that lost its leader.
#[test]
fn a_members_status_is_read() {
    let status = |rest: &str| {
        let header = r#""header":{"cluster_id":"14841639068965178418","member_id":"1","revision":"1","raft_term":"2"}"#;
        status_reply(format!(r#"{{{header},"version":"3.4.23"{rest}}}"#).as_bytes()).unwrap()
    };
    let well = status(r#","dbSize":"20480","leader":"11786843838676002400","raftIndex":"4""#);
    assert_eq!(
        well,
        MemberStatus {
            version: "3.4.23".into(),
            cluster: 14841639068965178418,
            has_leader: true,
            size: 20480,
            quota: None,
            alarms: Vec::new(),
        }
    );
    let full = status(r#","leader":"1","errors":["memberID:1 alarm:NOSPACE "]"#);
    assert_eq!(full.alarms, ["memberID:1 alarm:NOSPACE "]);
    let newer = status(r#","leader":"1","dbSizeQuota":"4000000""#);
    assert_eq!((newer.size, newer.quota), (0, Some(4_000_000)));
    let metrics = b"# TYPE etcd_server_quota_backend_bytes gauge\netcd_server_quota_backend_bytes 2.147483648e+09\n";
    assert_eq!(quota_metric(metrics), Some(2 << 30));
    for odd in [
        "",
        "etcd_server_quota_backend_bytes x",
        "etcd_server_quota_backend_bytes NaN",
    ] {
        assert_eq!(quota_metric(odd.as_bytes()), None, "{odd}");
    }
    assert!(!status("").has_leader);
    assert!(status_reply(b"{}").is_err());
}

/// Input: three members as etcd 3.4.23 lists them, shortened, and a learner. Output: three that vote.
#[test]
fn members_that_vote_are_counted() {
    let reply = r#"{"header":{"cluster_id":"1"},"members":[{"ID":"1","name":"a"},{"ID":"2","name":"b"},{"ID":"3"},{"ID":"4","isLearner":true}]}"#;
    assert_eq!(voters_reply(reply.as_bytes()).unwrap(), 3);
    assert!(voters_reply(b"{}").is_err());
}
