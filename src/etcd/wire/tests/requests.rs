//! The requests, field by field.

use super::*;

#[test]
fn a_prefix_ends_before_its_successor() {
    for (prefix, key, end) in [
        (&b"/wmgwd/"[..], "L3dtZ3dkLw==", "L3dtZ3dkMA=="),
        (b"a\xff", "Yf8=", "Yg=="),
        (b"\xff\xff", "//8=", "AA=="),
        (b"", "AA==", "AA=="),
    ] {
        let expected = json!({"key": key, "range_end": end, "limit": "5000"});
        assert_eq!(parsed(&range(prefix)), expected);
    }
    let page = json!({"key": "YWIA", "range_end": "Yg==", "limit": "5000", "revision": "7"});
    assert_eq!(parsed(&range_after(b"a", b"ab", Revision(7))), page);
    assert_eq!(parsed(&get(b"/a")), json!({"key": "L2E="}));
    let newest = parsed(&newest(b"/wmgwd/"));
    let expected = json!({
        "key": "L3dtZ3dkLw==", "range_end": "L3dtZ3dkMA==", "limit": "1",
        "sort_order": "DESCEND", "sort_target": "MOD", "keys_only": true,
    });
    assert_eq!(newest, expected);
}

#[test]
fn a_watch_is_not_fragmented() {
    let expected = json!({"create_request": {
        "key": "L3dtZ3dkLw==", "range_end": "L3dtZ3dkMA==", "start_revision": "8",
    }});
    assert_eq!(parsed(&watch(b"/wmgwd/", Revision(8))), expected);
}

#[test]
fn a_ttl_is_rounded_up_to_whole_seconds() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (10_000, "10")] {
        let request = parsed(&lease_grant(Duration::from_millis(millis)));
        assert_eq!(request, json!({"TTL": seconds}));
    }
    let greatest = parsed(&lease(LeaseId(i64::MAX)));
    assert_eq!(greatest, json!({"ID": "9223372036854775807"}));
}

#[test]
fn a_transaction_leaves_out_what_is_zero() {
    let key = || b"k".to_vec();
    let request = txn(&Txn {
        compares: vec![
            Compare::ModRevisionLess {
                key: key(),
                than: Revision(9),
            },
            Compare::ModRevisionIs {
                key: key(),
                revision: Revision(0),
            },
            Compare::CreateRevisionIs {
                key: key(),
                revision: Revision(3),
            },
            Compare::LeaseIs {
                key: key(),
                lease: LeaseId(i64::MAX),
            },
            Compare::ValueIs {
                key: key(),
                value: vec![0xff],
            },
        ],
        then: vec![
            Op::Put {
                key: key(),
                value: vec![],
                lease: Some(LeaseId(5)),
            },
            Op::Put {
                key: key(),
                value: b"v".to_vec(),
                lease: None,
            },
            Op::Txn(Txn::default()),
        ],
        otherwise: vec![Op::Delete { key: key() }, Op::Range { key: key() }],
    });
    let expected = json!({
        "compare": [
            {"key": "aw==", "target": "MOD", "result": "LESS", "mod_revision": "9"},
            {"key": "aw==", "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
            {"key": "aw==", "target": "CREATE", "result": "EQUAL", "create_revision": "3"},
            {"key": "aw==", "target": "LEASE", "result": "EQUAL", "lease": "9223372036854775807"},
            {"key": "aw==", "target": "VALUE", "result": "EQUAL", "value": "/w=="},
        ],
        "success": [
            {"request_put": {"key": "aw==", "lease": "5"}},
            {"request_put": {"key": "aw==", "value": "dg=="}},
            {"request_txn": {}},
        ],
        "failure": [
            {"request_delete_range": {"key": "aw=="}},
            {"request_range": {"key": "aw=="}},
        ],
    });
    assert_eq!(parsed(&request), expected);
}
