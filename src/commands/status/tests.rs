//! Literal keys in, literal texts out.

#![allow(clippy::unwrap_used)]
use super::since::span;
use super::*;
use crate::model::types::{Lease, Time};
use crate::schema;
use crate::witness::prover::Counted;
use crate::witness::{Epoch, Number, Run, Witness};
use std::collections::BTreeSet;

const NOW: u64 = 1_000_000;

/// `/wmgwd/` is left out of the key; a lease of 0 is none.
fn kv(key: &str, value: &str, revision: i64, lease: i64) -> KeyValue {
    KeyValue {
        key: format!("/wmgwd/{key}").into_bytes(),
        value: value.as_bytes().to_vec(),
        mod_revision: Revision(revision),
        create_revision: Revision(revision),
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

fn snapshot(keys: Vec<KeyValue>) -> Snapshot {
    let leases = keys.iter().filter_map(|kv| kv.lease);
    Snapshot {
        revision: Revision(1000),
        leases: leases
            .map(|id| (id, Some(Duration::from_secs(4))))
            .collect(),
        keys,
        time: NOW,
        guards: Vec::new(),
    }
}

fn node(name: &str, points: &str, range: (u32, u32), lease: i64) -> [KeyValue; 2] {
    let (first, last) = range;
    let meta = format!(r#"{{"version":"0.1.0","minvni":{first},"maxvni":{last}}}"#);
    [
        kv(&format!("node/{name}"), points, 10, lease),
        kv(&format!("meta/node/{name}"), &meta, 10, lease),
    ]
}

fn row(vni: u32, kind: u8, current: &str, next: &str, revision: i64) -> Vec<KeyValue> {
    let lease = |name: &str| i64::from(!name.is_empty());
    vec![
        kv(&format!("vni/{vni}/type"), &kind.to_string(), revision, 0),
        kv(
            &format!("vni/{vni}/current"),
            current,
            revision,
            lease(current),
        ),
        kv(&format!("vni/{vni}/next"), next, revision, lease(next)),
    ]
}

fn reported(keys: Vec<KeyValue>) -> Report {
    report(&snapshot(keys), &mut Marks::default())
}

fn text(report: &Report) -> String {
    paint(&lines(report), false)
}

/// Two nodes: gw1 owns all but what moves.
fn pair() -> Vec<KeyValue> {
    let mut keys = Vec::new();
    keys.extend(node("gw1", "[18446744073709551615]", (1, 6), 1));
    keys.extend(node("gw2", "[]", (1, 6), 2));
    keys
}

#[test]
fn all_served() {
    let mut keys = pair();
    (1..=6).for_each(|vni| keys.extend(row(vni, 1, "gw1", "", 20)));
    let report = reported(keys);
    assert_eq!(report.all_served(), Some(true));
    assert_eq!(
        text(&report),
        "\
2 nodes, 6 VNIs: all served   (revision 1000)

NODE  STATE      VERSION  VNIS  POINTS  SHARE  LEASE  KERNEL  OWNS  GAINS  LOSES  WITNESSES
gw1   ok         0.1.0    1-6        1   100%     4s  -          6      0      0  -
gw2   no points  0.1.0    1-6        0     0%     4s  -          0      0      0  -

STATE   VNIS  LONGEST  WHICH
served     6        -  1-6
"
    );
}

/// Input: a node with two witnesses, one with none; a witness that serves nothing. Output: who proves whom, and a warning
/// of the one that is alone.
#[test]
fn witnesses_are_shown() {
    let epoch = |witnesses: &str| {
        format!(
            r#"{{"lease":"0000000000000001","number":"0000000000000001","window":500000,"witnesses":[{witnesses}]}}"#
        )
    };
    let witness = |name: &str| {
        format!(r#"{{"name":"{name}","lease":"0000000000000002","run":"0000000000000003"}}"#)
    };
    let contact = r#"{"run":"0000000000000003","key":"00000000000000000000000000000000","address":"192.0.2.1:14789"}"#;
    let mut keys = pair();
    (1..=6).for_each(|vni| keys.extend(row(vni, 1, "gw1", "", 20)));
    for (name, lease) in [("gw1", 1), ("gw2", 2), ("third", 3)] {
        keys.push(kv(&format!("meta/beat/{name}"), contact, 30, lease));
    }
    let two = [witness("gw2"), witness("third")].join(",");
    keys.push(kv("meta/witness/gw1", &epoch(&two), 40, 1));
    keys.push(kv("meta/witness/gw2", &epoch(""), 40, 2));
    let report = reported(keys);
    let text = text(&report);
    for part in [
        "gw1   ok         0.1.0    1-6        1   100%     4s  -          6      0      0  gw2,third (0.5s)\n",
        "gw2   no points  0.1.0    1-6        0     0%     4s  -          0      0      0  none\n",
        "serving nothing, as a witness: third\n",
        "warning: no other node acknowledges the beats of gw2, so",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("beats of gw1"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&json(&report, &[])).unwrap();
    let of = |at: usize| json["nodes"][at]["witnesses"].to_string();
    assert_eq!([of(0), of(1)], [r#"["gw2","third"]"#, "[]"]);
    assert_eq!(json["nodes"][0]["window"], 0.5);
    assert_eq!(json["witnesses"][0], "third");
}

#[test]
fn what_is_amiss_comes_first() {
    let mut keys = pair();
    keys.extend(row(1, 1, "gw1", "", 20));
    keys.extend(row(2, 1, "gw2", "", 20));
    keys.extend(row(3, 5, "gw2", "gw1", 930));
    keys.extend(row(4, 10, "", "gw1", 950));
    keys.extend(row(5, 1, "", "", 20));
    keys.push(kv("meta/drain/gw2", "drain", 900, 0));
    let mut marks = Marks::default();
    marks.add(Revision(920), NOW - 50);
    marks.add(Revision(935), NOW - 48);
    marks.add(Revision(940), NOW - 20);
    let report = report(&snapshot(keys), &mut marks);
    assert_eq!(report.all_served(), Some(false));
    assert_eq!(
        text(&report),
        "\
2 nodes, 6 VNIs: 3 NOT SERVED (4-6)   (revision 1000)

NODE  STATE     VERSION  VNIS  POINTS  SHARE  LEASE  KERNEL  OWNS  GAINS  LOSES  WITNESSES
gw1   ok        0.1.0    1-6        1   100%     4s  -          1      2      0  -
gw2   draining  0.1.0    1-6        0     0%     4s  -          2      0      1  -

STATE         VNIS  LONGEST  WHICH
orphaned         2        -  5-6
failing over     1     <20s  4
move stuck       1     ~50s  3
to move          1        -  2
served           1        -  1
"
    );
    let asked = report.pick(&[Vni::new(3).unwrap(), Vni::new(99).unwrap()]);
    assert_eq!(
        paint(&rows(&asked), false),
        "\
VNI  STATE       OWNER  SUCCESSOR  RING  SINCE  ROW
  3  move stuck  gw2    gw1        gw1    ~50s  migration-ospf-withdrawn
 99  orphaned    -      -          -         -  no gateway has it
"
    );
    let json: serde_json::Value = serde_json::from_str(&json(&report, &asked)).unwrap();
    assert_eq!(json["all_served"], false);
    assert_eq!(json["states"]["orphaned"]["vnis"][0][1], 6);
    assert_eq!(json["vnis"][0]["since"]["at_most"], 50);
    assert_eq!(json["nodes"][1]["state"], "draining");
}

/// Input: a node whose kernel holds the lease, one whose kernel does not, and one of an older version. Output: each is
/// shown as it is, and of the second why, with what that means.
#[test]
fn the_kernel_lease_is_shown() {
    let mut keys = Vec::new();
    for (at, kernel) in [
        r#","kernel_lease":{"held":true}"#,
        r#","kernel_lease":{"held":false,"why":"no \u001b[2Jmodule"}"#,
        "",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("gw{}", at + 1);
        let meta = format!(r#"{{"version":"0.1.0","minvni":1,"maxvni":1{kernel}}}"#);
        keys.push(kv(&format!("node/{name}"), &format!("[{at}]"), 10, 1));
        keys.push(kv(&format!("meta/node/{name}"), &meta, 10, 1));
    }
    let report = reported(keys);
    let shown = text(&report);
    for part in [
        "   4s  held       0",
        "   4s  NO         0",
        "   4s  -          0",
        "\nwarning: the kernel of gw2 does not hold the lease: no ?[2Jmodule; if daemon and guard",
    ] {
        assert_eq!(shown.matches(part).count(), 1, "{part}: {shown}");
    }
    assert!(!shown.contains("the kernel of gw1") && !shown.contains("the kernel of gw3"));
    let json: serde_json::Value = serde_json::from_str(&json(&report, &[])).unwrap();
    let kernel = |at: usize| json["nodes"][at]["kernel_lease"].to_string();
    assert_eq!(kernel(0), r#"{"held":true,"why":null}"#);
    assert!(kernel(1).starts_with(r#"{"held":false,"why":"no "#));
    assert_eq!(kernel(2), "null");
}

/// Input: nodes with IPv6 gateway addresses on some bridges, on fewer, not switched, on none, and one that does not say;
/// then nodes that all have none. Output: how many each has, and what that lacks; without any, not a word.
#[test]
fn ipv6_gateway_addresses_are_shown() {
    let nodes = |ipv6: &[&str]| -> Vec<KeyValue> {
        let keys = ipv6.iter().enumerate().flat_map(|(at, ipv6)| {
            let name = format!("gw{}", at + 1);
            let meta = format!(r#"{{"version":"0.1.0","minvni":1,"maxvni":9{ipv6}}}"#);
            [
                kv(&format!("node/{name}"), &format!("[{at}]"), 10, 1),
                kv(&format!("meta/node/{name}"), &meta, 10, 1),
            ]
        });
        keys.collect()
    };
    let report = reported(nodes(&[
        r#","ipv6":{"bridges":9}"#,
        r#","ipv6":{"bridges":9,"lack":"no module"}"#,
        r#","ipv6":{"bridges":8}"#,
        r#","ipv6":{"bridges":0}"#,
        "",
    ]));
    let shown = text(&report);
    for part in [
        "\nbridges with IPv6 gateway addresses: 9 on gw1, gw2, 8 on gw3, 0 on gw4\n",
        "\nwarning: gw2 answers for the IPv6 gateway addresses of 9 bridges at all times, as they are not switched: no module\n",
        "\nwarning: gw3 has IPv6 gateway addresses on 8 bridges, and gw1 on 9: a VNI has no IPv6 while",
        "\nwarning: gw4 has IPv6 gateway addresses on 0 bridges, and gw1 on 9: a VNI",
    ] {
        assert_eq!(shown.matches(part).count(), 1, "{part}: {shown}");
    }
    assert!(
        !shown.contains("gw1 has IPv6") && !shown.contains("gw5 has IPv6"),
        "{shown}"
    );
    let json: serde_json::Value = serde_json::from_str(&json(&report, &[])).unwrap();
    let ipv6 = |at: usize| json["nodes"][at]["ipv6"].to_string();
    assert_eq!(ipv6(0), r#"{"bridges":9,"switched":true,"why":null}"#);
    assert_eq!(
        ipv6(1),
        r#"{"bridges":9,"switched":false,"why":"no module"}"#
    );
    assert_eq!(ipv6(3), r#"{"bridges":0,"switched":false,"why":null}"#);
    assert_eq!(ipv6(4), "null");
    let none = text(&reported(nodes(&[r#","ipv6":{"bridges":0}"#, ""])));
    assert!(!none.contains("IPv6"), "{none}");
}

#[test]
fn warnings_name_what_is_wrong() {
    let mut keys = pair();
    keys.extend(node("gw3", "[7,18446744073709551615]", (1, 9), 3));
    keys.push(kv("node/go1", "[7]", 10, 4));
    keys.push(kv("node/ghost", "[9]", 10, 0));
    keys.push(kv("node/bad", "x", 10, 5));
    keys.push(kv("leader/x", "", 10, 0));
    keys.push(kv("vni/3/type", "\x1b[2J", 10, 0));
    keys.push(kv("meta/drain/gw9", "", 10, 0));
    keys.push(kv("meta/drain/go1", "", 10, 0));
    let report = reported(keys);
    for part in [
        "nodes serve different VNIs: 1-6 (gw1, gw2), 1-9 (gw3); Go nodes",
        "nodes gw1, gw3 have 1 points in common, which count for gw3",
        "nodes go1, gw3 have 1 points in common",
        "node ghost has no lease",
        "gw9 is to be drained, but is not registered",
        "go1 is to be drained, but is a Go wmgwd",
        "/wmgwd/leader/x",
        "/wmgwd/node/bad",
        "/wmgwd/vni/3/type",
        "the rows of VNIs 3 have no state",
    ] {
        let found = report.warnings.iter().filter(|it| it.contains(part));
        assert_eq!(found.count(), 1, "{part}: {:?}", report.warnings);
    }
    let text = text(&report);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("ghost  no lease   Go"), "{text}");
}

/// Contract: where no node publishes what to serve, the rows do; without rows it cannot be told.
#[test]
fn the_rows_count_where_no_range_is_known() {
    let mut keys = vec![kv("node/go1", "[1]", 10, 1)];
    assert_eq!(reported(keys.clone()).all_served(), None);
    keys.extend(row(7, 1, "go1", "", 20));
    let report = reported(keys.clone());
    assert_eq!((report.vnis.len(), report.all_served()), (1, Some(true)));
    keys.extend(row(8, 1, "", "", 20));
    assert_eq!(reported(keys).all_served(), Some(false));
    let empty = reported(Vec::new());
    assert_eq!(empty.all_served(), None);
    assert!(text(&empty).contains("warning: no node is registered"));
}

/// Input: VNIs that no gateway has a bridge for, and one that one of two has. Output: the first are no fault; the
/// second is, while none serves it.
#[test]
fn a_vni_without_a_bridge_anywhere_is_no_fault() {
    let node = |name: &str, absent: &str| {
        let meta = format!(
            r#"{{"version":"0.1.0","minvni":1,"maxvni":1000,"unable":{{"absent":"{absent}","failing":""}}}}"#
        );
        [
            kv(&format!("node/{name}"), "[1]", 10, 1),
            kv(&format!("meta/node/{name}"), &meta, 10, 1),
        ]
    };
    let mut keys = [node("gw1", "3-1000"), node("gw2", "2-1000")].concat();
    keys.extend(row(1, 1, "gw1", "", 20));
    let report = reported(keys.clone());
    assert_eq!((report.vnis.len(), report.all_served()), (2, Some(false)));
    let note = "no gateway has a bridge for VNIs 3-1000: they are not counted";
    assert!(report.warnings.iter().any(|it| it == note), "{report:?}");
    keys.extend(row(2, 1, "gw1", "", 20));
    assert_eq!(reported(keys.clone()).all_served(), Some(true));
    // Its bridge went after it was claimed: its row names an owner.
    keys.extend(row(3, 1, "gw1", "", 20));
    assert_eq!(reported(keys).vnis.len(), 3);
}

/// Input: no gateway has any bridge. Output: what should be served cannot be told, and that no bridge is there is said.
#[test]
fn gateways_without_any_bridge_are_not_all_well() {
    let mut keys = pair();
    for key in &mut keys {
        if key.key.starts_with(b"/wmgwd/meta/") {
            let unable =
                r#"{"version":"1","minvni":1,"maxvni":6,"unable":{"absent":"1-6","failing":""}}"#;
            key.value = unable.as_bytes().to_vec();
        }
    }
    let report = reported(keys);
    assert_eq!(report.all_served(), None);
    let text = text(&report);
    assert!(text.contains("it is unknown which VNIs"), "{text}");
    assert!(text.contains("has a bridge for VNIs 1-6"), "{text}");
}

/// Input: a row that was written long ago and has lost its owner since. Output: no lower bound, as the end of a lease
/// changes no key that remains, until it was seen twice; a row that was written vacant has one.
#[test]
fn an_owner_that_was_lost_was_lost_at_some_time_since() {
    let mut marks = Marks::default();
    marks.add(Revision(10), NOW - 600);
    marks.add(Revision(30), NOW - 300);
    let mut keys = node("gw1", "[1]", (1, 2), 1).to_vec();
    keys.extend(row(1, 1, "", "", 20));
    keys.extend(row(2, 0, "", "", 20));
    keys.extend(row(3, 5, "", "gw1", 20));
    let mut later = |seconds: u64, keys: &[KeyValue]| -> Vec<String> {
        let look = Snapshot {
            time: NOW + seconds,
            ..snapshot(keys.to_vec())
        };
        let vnis = report(&look, &mut marks).vnis.into_iter();
        let said = |vni: VniReport| format!("{} {}", vni.state.word(), vni.since.unwrap().text());
        vnis.map(said).collect()
    };
    assert_eq!(
        later(0, &keys),
        ["orphaned <10m", "orphaned 5m..10m", "failing over <10m"]
    );
    assert_eq!(
        later(60, &keys),
        [
            "orphaned 60s..11m",
            "orphaned 6m..11m",
            "failover stuck 60s..11m"
        ]
    );
    // It was claimed since, and lost its owner again.
    keys.extend(row(1, 1, "", "", 900));
    assert_eq!(later(70, &keys)[0], "orphaned <6m");
}

#[test]
fn marks_bound_how_long_ago_something_was() {
    let mut marks = Marks::default();
    let since = |marks: &Marks, revision| {
        let since = marks.since(Revision(revision), NOW);
        since.map_or("-".to_owned(), |since| since.text())
    };
    assert_eq!(since(&marks, 5), "-");
    marks.add(Revision(10), NOW - 600);
    marks.add(Revision(10), NOW - 540);
    assert_eq!(since(&marks, 5), ">10m");
    assert_eq!(since(&marks, 10), ">10m");
    assert_eq!(since(&marks, 11), "<9m");
    marks.add(Revision(20), NOW - 120);
    assert_eq!(since(&marks, 15), "2m..9m");
    marks.add(Revision(14), NOW - 125);
    assert_eq!(since(&marks, 15), "~2m");
    // A clock that is ahead.
    marks.add(Revision(30), NOW + 50);
    assert_eq!(since(&marks, 40), "<1s");
    for (seconds, text) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3_600, "1h"),
        (12_000, "3h20m"),
        (187_200, "2d4h"),
    ] {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}

/// Contract: 64 000 VNIs, each second one elsewhere, and a thousand nodes still make a short text.
#[test]
fn many_vnis_and_nodes_make_a_short_text() {
    let mut keys = Vec::new();
    for n in 0..1000 {
        let points = schema::points_bytes(&[n * 18_000_000_000_000_000]);
        let points = String::from_utf8(points).unwrap();
        keys.extend(node(&format!("gw{n}"), &points, (1, 64_000), 1));
    }
    for vni in 1..=64_000 {
        let owner = if vni % 2 == 0 { "" } else { "gw1" };
        keys.extend(row(vni, 1, owner, "", 20));
    }
    let report = reported(keys);
    assert_eq!(report.vnis.len(), 64_000);
    let text = text(&report);
    assert!(text.len() < 10_000, "{}", text.len());
    assert!(text.contains("32000 NOT SERVED"), "{text}");
    assert!(text.contains("and 936 more nodes"), "{text}");
}

#[test]
fn a_small_screen_shows_the_beginning() {
    let report = reported(pair());
    let all = lines(&report);
    let screen = |rows, columns| Screen { rows, columns };
    let clipped = clip(all.clone(), screen(4, 10));
    assert_eq!(clipped.len(), 4);
    assert_eq!(clipped[3].text, "... 5 more"[..10].to_owned());
    assert!(clipped.iter().all(|line| line.text.chars().count() <= 10));
    assert_eq!(clip(all.clone(), screen(100, 500)), all);
    assert!(paint(&all, true).starts_with("\x1b[31m2 nodes, 6 VNIs: 6 NOT"));
}

/// Contract: why there is no table is read to its end on a narrow screen too.
#[test]
fn a_sentence_goes_on_in_the_next_line() {
    let said = clip(
        vec![complaint("no connection")],
        Screen {
            rows: 9,
            columns: 8,
        },
    );
    let texts: Vec<&str> = said.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["wmgwd: n", "o connec", "tion"]);
}

/// Contract: every key of the JSON object is in SEEING THE CLUSTER of wmgwd(8), and every state with its word.
#[test]
fn the_manual_has_each_key_of_the_json() {
    fn keys(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(object) => {
                for (key, value) in object {
                    found.insert(key.clone());
                    keys(value, found);
                }
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let mut cluster: Vec<KeyValue> = node("gw1", "[1]", (1, 2), 7).into();
    cluster.extend(row(1, 1, "gw1", "", 20));
    let report = Report {
        guards: guarded(None, Ok(view(376))).guards,
        ..reported(cluster)
    };
    let asked = report.pick(&[Vni::new(1).unwrap(), Vni::new(2).unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&json(&report, &asked)).unwrap();
    let mut found = BTreeSet::new();
    keys(&json, &mut found);
    assert!(found.len() > 30, "{found:?}");
    let manual = include_str!("../../../man/wmgwd.8");
    let (_, section) = manual.split_once(".Sh SEEING THE CLUSTER").unwrap();
    let (section, _) = section.split_once(".Sh TAKING").unwrap();
    let words: BTreeSet<&str> = section.split([' ', '\n']).collect();
    let lacks: Vec<&String> = found
        .iter()
        .filter(|key| !words.contains(key.as_str()))
        .collect();
    assert!(lacks.is_empty(), "the manual lacks {lacks:?}");
}

/// A guard at 10 s that was told of two witnesses, of which one has acknowledged a beat 61 ms ago, with `left` to go.
fn view(left: i64) -> View {
    let at = |millis: i64| Time::since_boot(Duration::from_millis(millis.try_into().unwrap()));
    let witness = |name: &str| Witness {
        name: name.parse().unwrap(),
        lease: LeaseId(2),
        run: Run(3),
    };
    let epoch = Epoch {
        lease: LeaseId(1),
        window: Duration::from_millis(500),
        number: Number(7),
        witnesses: vec![witness("gw2"), witness("gw3")],
    };
    View {
        version: "0.9.0".into(),
        now: at(10_000),
        has_daemon: true,
        answering: 12,
        lease: Some(Lease {
            id: LeaseId(1),
            valid_until: at(14_200),
        }),
        until: at(10_000 + left),
        proved_by: Some(at(9_939)),
        losses: 2,
        late: 3,
        epochs: vec![Counted {
            epoch,
            is_in_place: true,
            acknowledged: vec![Some(at(9_939)), None],
        }],
    }
}

fn guarded(user: Option<u32>, view: Result<View, String>) -> Report {
    Report {
        guards: vec![Guard {
            node: "gw1".into(),
            user,
            view,
        }],
        ..reported(pair())
    }
}

/// Input: guards on this host that hold the proof, do not, have none to hold, and do not tell. Output: a sentence each,
/// in a tone that fits.
#[test]
fn what_guards_on_this_host_know_is_said() {
    let lost = View {
        has_daemon: false,
        answering: 1,
        ..view(-1)
    };
    let alone = View {
        proved_by: None,
        epochs: vec![],
        ..view(4_000)
    };
    let asked = View {
        epochs: [true, false]
            .map(|is_in_place| Counted {
                is_in_place,
                ..view(1).epochs[0].clone()
            })
            .into(),
        ..view(376)
    };
    let fresh = View {
        lease: None,
        ..alone.clone()
    };
    for (user, view, tone, expected) in [
        (
            None,
            Ok(view(376)),
            Tone::Plain,
            "(0.9.0): proof held, 61 ms old, 376 ms left; acknowledged by gw2 (61 ms ago), gw3 (never); \
             lease 4200 ms; ARP is answered for 12 VNIs",
        ),
        (
            Some(998),
            Ok(lost),
            Tone::Bad,
            "(0.9.0, user 998): NO PROOF, the last is 61 ms old; acknowledged by gw2 (61 ms ago), gw3 (never); \
             lease 4200 ms; ARP is not answered for 1 VNI; its daemon is gone",
        ),
        (
            None,
            Ok(alone),
            Tone::Plain,
            "(0.9.0): proof held by the lease alone, 4000 ms left; lease 4200 ms; ARP is answered for 12 VNIs",
        ),
        (
            None,
            Ok(asked),
            Tone::Plain,
            "(0.9.0): proof held, 61 ms old, 376 ms left; acknowledged by gw2 (61 ms ago), gw3 (never); \
             in an epoch that etcd has not answered, by gw2 (61 ms ago), gw3 (never); lease 4200 ms; \
             ARP is answered for 12 VNIs",
        ),
        (
            None,
            Ok(fresh),
            Tone::Warn,
            "(0.9.0): it knows no lease yet",
        ),
        (
            None,
            Err("it does not say".to_owned()),
            Tone::Plain,
            "(not known): it does not say",
        ),
    ] {
        let all = lines(&guarded(user, view));
        let line = all.iter().find(|it| it.text.starts_with("guard of"));
        let line = line.unwrap();
        assert_eq!(line.text, format!("guard of gw1 on this host {expected}"));
        assert_eq!(line.tone, tone, "{expected}");
    }
}

/// Input: a guard that tells, and one that does not. Output: programs read the same; what is not known is null.
#[test]
fn what_guards_on_this_host_know_is_json() {
    let read = |report| -> serde_json::Value {
        let read: serde_json::Value = serde_json::from_str(&json(&report, &[])).unwrap();
        read["guards"].clone()
    };
    let expected = serde_json::json!([{
        "name": "gw1", "user": 998, "unknown": null, "version": "0.9.0", "daemon": true, "answering": 12,
        "proof": true, "age": 0.061, "left": 0.376, "lease": 4.2, "proofs_lost": 2, "beats_late": 3,
        "witnesses": [
            {"name": "gw2", "in_place": true, "acknowledged": 0.061},
            {"name": "gw3", "in_place": true, "acknowledged": null},
        ],
    }]);
    assert_eq!(read(guarded(Some(998), Ok(view(376)))), expected);
    let silent = read(guarded(None, Err("it does not say".to_owned())));
    assert_eq!(silent[0]["unknown"], "it does not say");
    for (key, value) in silent[0].as_object().unwrap() {
        let is_known = ["name", "unknown"].contains(&&**key);
        assert_eq!(value.is_null(), !is_known, "{key}");
    }
    assert_eq!(read(reported(pair())), serde_json::json!([]));
}
