//! What must hold for every reader of foreign bytes, whatever they are: one function a reader, which panics
//! where it does not. For the tests (`tests`, on seeded noise and mutations) and for cargo-fuzz (`tests/fuzz`).

#[cfg(test)]
mod tests;

use crate::cli::{self, Command};
use crate::etcd::wire;
use crate::etcd::{KeyValue, OpReply, RangeReply, TxnReply, WatchBatch};
use crate::guard::protocol::{Greeting, Order, Report};
use crate::guard::view::View;
use crate::host::Cost;
use crate::host::bridges::{Change, LinkTable};
use crate::host::frr::config::{BgpConfig, Entry, parse_bgp, parse_ospf};
use crate::host::frr::script::{self, LIST, ROUTE_MAP, Script};
use crate::host::frr::targets::parse_targets;
use crate::host::frr::vtysh_output::{Output, Remarks, Verdict, judge};
use crate::host::interfaces::{self, Interface, LinkEvent};
use crate::host::nft::wire::Family;
use crate::host::nft::{self as gate, table, wire as nft_wire};
use crate::model::frr::EvpnFilter;
use crate::model::fsm::Kind;
use crate::model::types::{NodeName, Vni, VniRange};
use crate::schema::{self, Key, Meta, Value};
use crate::telemetry::metrics::http::{self as scrape, Reading, Status};
use crate::witness::datagram::{self, Sealed};
use crate::witness::{self, Standing, siphash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Takes any bytes; panics if something does not hold.
pub type Reader = fn(&[u8]);

/// The readers by name, as the fuzz targets and the directories of their seeds are called.
pub const READERS: [(&str, Reader); 11] = [
    ("schema", schema),
    ("wire", wire),
    ("vtysh_output", vtysh_output),
    ("config", config),
    ("targets", targets),
    ("guard", guard),
    ("cli", cli),
    ("http", http),
    ("links", links),
    ("nft", nft),
    ("datagram", datagram),
];

/// What the kernel tells of links: the table that takes it in is the same as one that is made of what it holds then.
pub fn links(bytes: &[u8]) {
    let mut table = LinkTable::default();
    let mut last: BTreeMap<u32, Interface> = BTreeMap::new();
    let mut vnis: BTreeSet<Vni> = BTreeSet::new();
    for events in interfaces::link_events(bytes) {
        match &events {
            LinkEvent::Link(link) => {
                vnis.extend(link.vxlan.and_then(|vxlan| Vni::new(vxlan.id)));
                vnis.extend(Vni::of_bridge(&link.name));
                last.insert(link.index, link.clone());
            }
            LinkEvent::Gone(index) => drop(last.remove(index)),
            LinkEvent::Port(index, port) => {
                if let Some(link) = last.get_mut(index) {
                    link.port = Some(*port);
                }
            }
        }
        for change in table.update(events) {
            if let Change::Renamed { index, name, .. } = change {
                assert_eq!(table.name(index), Some(&*name));
            }
        }
    }
    let fresh = LinkTable::new(last.into_values().collect());
    assert_eq!(fresh.changes_since(&table), []);
    for vni in vnis {
        assert_eq!(table.bridge(vni).index(), fresh.bridge(vni).index());
        assert_eq!(table.strays(vni), fresh.strays(vni));
    }
}

/// What the kernel tells of nf_tables: a table that is read as whole is, and names that are read can be written.
pub fn nft(bytes: &[u8]) {
    let mut found = Vec::new();
    let asked = bytes.get(8..12).and_then(|it| it.try_into().ok());
    let asked = asked.map_or(0, u32::from_ne_bytes);
    let end = nft_wire::take_dump(bytes, asked, &mut found);
    assert!(found.iter().map(Vec::len).sum::<usize>() <= bytes.len());
    if let nft_wire::Dump::Refused(code) = end {
        assert_ne!(code, 0);
    }
    assert!(nft_wire::verdicts(bytes).len() <= bytes.len() / 20);
    let _ = table::concerns(bytes, asked);
    let _ = nft_wire::is_for_list(bytes);
    for family in [Family::Arp, Family::Ip6] {
        let _ = table::lease_left(&found, family);
        let _ = (
            table::has_sets(&found, family),
            table::has_rules(&found, family),
        );
        let _ = table::has_chains(&found, family);
    }
    let (ipv6, _) = table::ipv6(&found, &found, &found);
    let mut batch = nft_wire::Batch::default();
    table::change_ipv6(&mut batch, &Default::default(), &ipv6);
    assert!(batch.finish(0).0.len() >= 40 + 32 * ipv6.bridges.len());
    let _ = found.iter().any(|it| table::has_comment(it));
    let _ = found.iter().any(|it| table::has_no_flags(it));
    let _ = found.iter().filter_map(|it| table::handle(it)).count();
    let all = VniRange::new(Vni::MIN, Vni::MAX).expect("they are in order");
    let names = table::names(&found);
    let (vnis, others) = gate::vnis_of(&names, all);
    assert!(vnis.len() + others.len() <= names.len());
    for vni in vnis {
        assert!(names.contains(&vni.bridge()));
    }
    let mut batch = nft_wire::Batch::default();
    table::remove_names(&mut batch, Family::Arp, &names);
    let (sent, last) = batch.finish(asked);
    assert!(last.wrapping_sub(asked) <= sent.len() as u32);
    assert!(sent.len() >= 40 + 56 * names.len());
}

/// A key up to the first zero, and a value behind it.
pub fn schema(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (key, value) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or(bytes),
    );
    match Key::read(key) {
        Ok(key_read) => assert_eq!(key_read.bytes(), key, "a key has one spelling"),
        Err(foreign) => is_one_line(&foreign.to_string(), 600),
    }
    let name: NodeName = "gw1".parse().expect("it is a name");
    for key in [
        Key::Node(name.clone()),
        Key::Meta(name.clone()),
        Key::Drain(name.clone()),
        Key::Points(name.clone()),
        Key::Contact(name.clone()),
        Key::Epoch(name.clone()),
        Key::Vote(name.clone(), name),
        Key::Kind(Vni::MIN),
        Key::Current(Vni::MIN),
        Key::Next(Vni::MAX),
    ] {
        schema_value(&key, value);
    }
}

fn schema_value(key: &Key, bytes: &[u8]) {
    let (value, foreign) = schema::read_value(key, bytes);
    assert_eq!(foreign.is_some(), value == Value::Unreadable);
    let again = match &value {
        Value::Points(points) => schema::points_bytes(points),
        Value::Meta(meta) => meta_bytes(meta),
        Value::Kind(kind) => {
            assert_eq!(Kind::from_number(kind.number().into()), Some(*kind));
            kind.number().to_string().into_bytes()
        }
        Value::Name(name) => {
            let text = name.as_ref().map_or("", NodeName::as_str);
            assert_eq!(text.as_bytes(), bytes, "a name has one spelling");
            return;
        }
        Value::Contact(contact) => schema::witness::contact_bytes(contact),
        Value::Standing(standing) => standing_bytes(standing),
        Value::Drain | Value::Vote | Value::Unreadable => return,
    };
    assert_eq!(schema::read_value(key, &again), (value, None));
}

fn standing_bytes(standing: &Standing) -> Vec<u8> {
    if let Standing::Epoch(epoch) = standing {
        assert!(epoch.witnesses.len() <= witness::MOST);
        assert!(
            epoch.witnesses.is_empty() || epoch.proving() + epoch.ending() > epoch.witnesses.len()
        );
        assert!(epoch.margin() < epoch.window);
    }
    schema::witness::standing_bytes(standing)
}

/// A datagram. Whatever arrives, no answer is larger, and nothing opens that was not sealed with the key.
pub fn datagram(bytes: &[u8]) {
    let key = siphash::Key([7; 16]);
    let Some(sealed) = Sealed::read(bytes) else {
        return;
    };
    assert_eq!(bytes.len(), datagram::LENGTH);
    let opened = sealed.open(&key);
    assert_eq!(sealed.open(&siphash::Key([8; 16])), None);
    if let Some(datagram) = opened {
        assert_eq!(datagram.seal(&key), bytes, "a datagram has one spelling");
        assert_eq!(datagram.from, sealed.claims_from());
        if let Some(answer) = datagram.answer() {
            assert!(answer.seal(&key).len() <= bytes.len());
            assert_eq!(answer.answer(), None, "an answer is not answered");
        }
    }
}

fn meta_bytes(meta: &Meta) -> Vec<u8> {
    assert!(meta.range.first() <= meta.range.last());
    schema::meta_bytes(meta)
}

/// A reply or a line of etcd.
pub fn wire(bytes: &[u8]) {
    if let Ok(reply) = wire::range_reply(bytes) {
        is_range(&reply);
        let again = with_header(reply.revision.0, range_json(&reply));
        assert_eq!(wire::range_reply(&again).ok(), Some(reply));
    }
    if let Ok(newest) = wire::newest_reply(bytes) {
        assert!(newest.revision.0 > 0 && newest.mod_revision.0 >= 0);
    }
    if let Ok(reply) = wire::txn_reply(bytes) {
        let again = with_header(reply.revision.0, txn_json(&reply));
        assert_eq!(wire::txn_reply(&again).ok(), Some(reply));
    }
    if let Ok(grant) = wire::lease_grant_reply(bytes) {
        assert!(grant.id.0 != 0 && !grant.ttl.is_zero());
    }
    if let Ok(token) = wire::authenticate_reply(bytes) {
        assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(keepalive) = wire::keepalive_line(bytes) {
        assert!(keepalive.term > 0 && keepalive.ttl.is_none_or(|ttl| !ttl.is_zero()));
    }
    match wire::watch_line(bytes) {
        Ok(Some(batch)) => {
            assert!(!batch.events.is_empty());
            let newest = batch.events.iter().map(|event| event.kv.mod_revision).max();
            assert_eq!(newest, Some(batch.revision));
            let again = watch_json(&batch).to_string().into_bytes();
            assert_eq!(wire::watch_line(&again).ok(), Some(Some(batch)));
        }
        Err(crate::etcd::Error::Compacted { at }) => assert!(at.0 > 0),
        Ok(None) | Err(_) => {}
    }
    if let Some(refusal) = wire::refusal(bytes) {
        assert!(!refusal.to_string().is_empty());
    }
}

fn is_range(range: &RangeReply) {
    assert!(range.revision.0 > 0);
    assert!(range.kvs.len() as u64 <= range.count);
    assert_eq!(range.kvs.is_empty(), range.count == 0, "no key is lost");
    for kv in &range.kvs {
        assert!(!kv.key.is_empty() && kv.mod_revision.0 > 0);
        assert!(kv.lease.is_none_or(|lease| lease.0 != 0));
    }
}

fn with_header(revision: i64, mut reply: Json) -> Vec<u8> {
    reply["header"] = json!({"revision": revision.to_string()});
    reply.to_string().into_bytes()
}

fn range_json(range: &RangeReply) -> Json {
    json!({
        "kvs": range.kvs.iter().map(kv_json).collect::<Vec<_>>(),
        "count": range.count.to_string(),
        "more": range.count > range.kvs.len() as u64,
    })
}

fn kv_json(kv: &KeyValue) -> Json {
    json!({
        "key": STANDARD.encode(&kv.key),
        "value": STANDARD.encode(&kv.value),
        "mod_revision": kv.mod_revision.0.to_string(),
        "create_revision": kv.create_revision.0,
        "lease": kv.lease.map_or(0, |lease| lease.0).to_string(),
    })
}

fn txn_json(txn: &TxnReply) -> Json {
    let response = |response: &OpReply| match response {
        OpReply::Put => json!({"response_put": {}}),
        OpReply::Range(range) => json!({"response_range": range_json(range)}),
        OpReply::Delete { deleted } => {
            json!({"response_delete_range": {"deleted": deleted.to_string()}})
        }
        OpReply::Txn(txn) => json!({"response_txn": txn_json(txn)}),
    };
    json!({
        "succeeded": txn.succeeded,
        "responses": txn.responses.iter().map(response).collect::<Vec<_>>(),
    })
}

fn watch_json(batch: &WatchBatch) -> Json {
    let events: Vec<Json> = batch
        .events
        .iter()
        .map(|event| match event.deleted {
            true => json!({"type": "DELETE", "kv": kv_json(&event.kv)}),
            false => json!({"kv": kv_json(&event.kv)}),
        })
        .collect();
    json!({"result": {"events": events}})
}

/// What vtysh left: an exit status, standard output up to the first zero, standard error behind it.
pub fn vtysh_output(bytes: &[u8]) {
    let (status, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let output = Output {
        status: (*status != 255).then_some(i32::from(*status)),
        stdout: text(),
        stderr: text(),
    };
    operators_words_change_nothing(&output);
    let silent = output.stdout.trim().is_empty() && output.stderr.trim().is_empty();
    let harmless = ["Can't open configuration file", "Can't find community-list"];
    let complains = [&output.stdout, &output.stderr]
        .iter()
        .flat_map(|text| text.lines())
        .any(|line| line.starts_with('%') && !harmless.iter().any(|known| line.contains(known)));
    match judge(&output) {
        Verdict::Done => {
            assert!(!complains, "text with % is a refusal");
            assert!(output.status == Some(0) || output.stderr.contains("[13] to bgpd"));
        }
        Verdict::Refused { lines, summary } => {
            assert!(
                !(silent && output.status == Some(0)),
                "silence is no refusal"
            );
            assert!(!summary.is_empty());
            for text in lines.values().chain([&summary]) {
                is_one_line(text, 300);
            }
        }
        Verdict::Down | Verdict::Locked => assert!(!silent),
    }
}

/// What an operator wrote into FRR's configuration, and what vtysh says of its own file in each run.
fn operators_words_change_nothing(output: &Output) {
    let shown = format!(
        "\n description ospfd is not running\nip prefix-list x description bgpd is not running\n\
         access-list x remark % could not lock, it is locked by me\n{}",
        output.stdout
    );
    let shown = Output {
        stdout: shown,
        ..output.clone()
    };
    assert_eq!(judge(&shown), judge(output));
    let remarks = "line 1: % Unknown command[4]: banner motd line it is locked by me\n\n\
                   line 3: % Command incomplete[4]: user\n\n";
    let said = |stderr: String| Output {
        stderr,
        ..output.clone()
    };
    let mut noisy = said(format!("{remarks}{}", output.stderr));
    let empty = Output {
        status: Some(0),
        stderr: remarks.to_owned(),
        ..Output::default()
    };
    Remarks::of(empty).unwrap_or_default().take_from(&mut noisy);
    assert_eq!(&noisy, output);
}

/// A running configuration, of either daemon.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let costs = parse_ospf(&text);
    assert_eq!(parse_ospf(&ospf_text(&costs)), costs);
    let config = parse_bgp(&text);
    assert!(config.unfiltered.len() <= config.activated);
    // Of neighbours, only what is concluded is remembered.
    let without_neighbours = |config: BgpConfig| BgpConfig {
        foreign_instance: None,
        activated: 0,
        unfiltered: Vec::new(),
        filter_at: None,
        yields: false,
        ..config
    };
    let config = without_neighbours(config);
    assert_eq!(without_neighbours(parse_bgp(&bgp_text(&config))), config);

    let some: BTreeSet<Vni> = config.list.keys().copied().filter_map(Vni::new).collect();
    let keeps = [
        BTreeSet::new(),
        BTreeSet::from([Vni::MIN, Vni::MAX]),
        some.into_iter().skip(1).collect(),
    ];
    for filter in [EvpnFilter::List, EvpnFilter::Entries] {
        for keep in &keeps {
            withdrawal(&config, filter, keep);
        }
    }
}

/// What is fed to bgpd is made of lines that it has, and brings it where nothing is left to be done.
fn withdrawal(config: &BgpConfig, filter: EvpnFilter, keep: &BTreeSet<Vni>) {
    let lines = script::withdraw_filter(config, filter, keep);
    let text = Script::new(&lines, &[]);
    assert_eq!(text.text().lines().count(), text.lines());
    let mut after = config.clone();
    let mut open = None;
    for line in &lines {
        assert!(!line.contains('\n'), "{line:?}");
        open = obey(&mut after, open, line);
    }
    assert_eq!(
        script::withdraw_filter(&after, filter, keep),
        [""; 0],
        "{config:?} {lines:?}"
    );
    let kept = |seq: &u32| Vni::new(*seq).is_some_and(|vni| keep.contains(&vni));
    assert!(filter == EvpnFilter::Entries || after.list.keys().all(kept));
}

/// bgpd, as far as it matters: takes one line of configuration, with the route-map entry that is open.
fn obey(config: &mut BgpConfig, open: Option<u32>, line: &str) -> Option<u32> {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |text: &str| text.parse().expect("a sequence number");
    match words[..] {
        ["route-map", ROUTE_MAP, action @ ("permit" | "deny"), seq] => {
            let entry = config.entries.entry(number(seq)).or_insert(Entry {
                permits: false,
                body: Vec::new(),
            });
            entry.permits = action == "permit";
            return Some(number(seq));
        }
        ["no", "route-map", ROUTE_MAP, "permit" | "deny", seq] => {
            config.entries.remove(&number(seq)).expect("it is there");
        }
        ["match", ..] => {
            let entry = open.and_then(|seq| config.entries.get_mut(&seq));
            let entry = entry.expect("an entry is open");
            if !entry.body.iter().any(|old| old == line) {
                entry.body.push(line.to_owned());
            }
            return open;
        }
        ["no", "bgp", "extcommunity-list", "standard", LIST] => config.list.clear(),
        [
            "no",
            "bgp",
            "extcommunity-list",
            "standard",
            LIST,
            "seq",
            _,
            "permit",
            ref value @ ..,
        ] => {
            let value = value.join(" ");
            config.list.retain(|_, old| *old != value);
        }
        _ => panic!("not a line of ours: {line:?}"),
    }
    None
}

fn bgp_text(config: &BgpConfig) -> String {
    let mut lines = Vec::new();
    if let Some(asn) = config.asn {
        lines.push(format!("router bgp {asn}"));
    }
    for (seq, value) in &config.list {
        lines.push(format!(
            "bgp extcommunity-list standard {LIST} seq {seq} permit {value}"
        ));
    }
    for (seq, entry) in &config.entries {
        let action = if entry.permits { "permit" } else { "deny" };
        lines.push(format!("route-map {ROUTE_MAP} {action} {seq}"));
        lines.extend(entry.body.iter().map(|line| format!(" {line}")));
    }
    lines.join("\n")
}

fn ospf_text(costs: &BTreeMap<Vni, Cost>) -> String {
    let interface = |(vni, cost): (&Vni, &Cost)| {
        format!("interface {}\n ip ospf cost {}\n", vni.bridge(), cost.0)
    };
    costs.iter().map(interface).collect()
}

/// bgpd's word on route targets.
pub fn targets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(targets) = parse_targets(&text) else {
        return;
    };
    let mut again = serde_json::Map::new();
    for vni in [1, 2, 3, 7, 9, 100].into_iter().filter_map(Vni::new) {
        let of = targets.of(vni, 65000);
        assert!(!of.is_empty());
        for target in &of {
            let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b':');
            assert!(
                target.bytes().all(plain),
                "it goes into a script: {target:?}"
            );
        }
        let line = script::list_permit(vni, &script::rt_value(&of));
        let read = parse_bgp(&line).list;
        assert_eq!(read, BTreeMap::from([(vni.get(), script::rt_value(&of))]));
        if targets.knows(vni) {
            again.insert(vni.to_string(), json!({"exportRTs": of}));
        }
        if let Some(other) = targets.also_carried_by(&of, vni) {
            assert!(other != vni && targets.knows(other));
        }
    }
    let again = parse_targets(&Json::Object(again).to_string()).expect("it is an object");
    for vni in [1, 2, 3, 7, 9, 100].into_iter().filter_map(Vni::new) {
        assert_eq!(again.of(vni, 65000), targets.of(vni, 65000));
    }
}

/// A line between daemon and guard.
pub fn guard(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        let (order, greeting) = (Order::read(line), Greeting::read(line));
        let report = Report::read(line);
        let senses = [order.is_some(), greeting.is_some(), report.is_some()];
        assert!(
            senses.iter().filter(|sense| **sense).count() <= 1,
            "{line:?}"
        );
        if let Some(report) = report {
            assert_eq!(Report::read(&report.line()), Some(report));
        }
        if let Some(order) = order {
            is_one_line(order.line().trim_end(), usize::MAX);
            assert_eq!(Order::read(&order.line()), Some(order));
        }
        if let Some(greeting) = greeting {
            assert_eq!(Greeting::read(&greeting.line()), Some(greeting));
        }
        if let Some(view) = View::read(line) {
            is_one_line(view.line().trim_end(), usize::MAX);
            assert_eq!(View::read(&view.line()), Some(view));
        }
    }
}

/// Arguments, each up to a zero; the environment holds each of them under its name, `WMGWD_NAME=gw1`.
pub fn cli(bytes: &[u8]) {
    let arguments: Vec<OsString> = bytes
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    let environment = |name: &str| {
        arguments.iter().find_map(|argument| {
            let value = argument.as_bytes().strip_prefix(name.as_bytes())?;
            Some(OsString::from_vec(value.strip_prefix(b"=")?.to_vec()))
        })
    };
    let options = arguments
        .iter()
        .filter(|argument| !argument.as_bytes().starts_with(b"WMGWD_"));
    match cli::parse(options.cloned(), environment) {
        Ok(Command::Run(config) | Command::CheckConfig(config)) => {
            assert!(config.range.first() <= config.range.last());
            assert!(!config.points.all().is_empty() && !config.etcd.endpoints.is_empty());
            assert!((1..=100).contains(&config.takeover_cost));
            let timing = config.timing;
            assert!(timing.guard_margin < timing.fence_margin && timing.fence_margin < timing.ttl);
            let name: Result<NodeName, _> = config.name.as_str().parse();
            assert_eq!(name.ok(), Some(config.name));
            for endpoint in config.etcd.endpoints {
                assert_eq!(endpoint.to_string().parse().ok(), Some(endpoint));
            }
        }
        Ok(Command::Withdraw(config)) => assert!(config.range.first() <= config.range.last()),
        Ok(Command::Guard(_) | Command::Print(_)) => {}
        Err(error) => is_one_line(&error.to_string(), 3500),
        Ok(cli::Command::Check(config)) => assert!(!config.etcd.endpoints.is_empty()),
        Ok(Command::Status(config)) => assert!(!config.etcd.endpoints.is_empty()),
        Ok(Command::Drain(config)) => assert!(!config.node.as_str().is_empty()),
        Ok(Command::Witness(config)) => {
            assert!(!config.name.as_str().is_empty());
            assert!(!config.beat_address.0.is_unspecified());
        }
        Ok(Command::Undrain(config)) => assert!(!config.node.as_str().is_empty()),
    }
}

/// What a client of the metrics sends, as it arrives: what has been understood once does not change with what comes
/// behind it, and what is answered is one whole reply.
pub fn http(bytes: &[u8]) {
    let reading = scrape::read(bytes);
    let is_long = bytes.len() > scrape::LONGEST;
    for at in (0..bytes.len()).step_by(1 + bytes.len() / 16) {
        match scrape::read(&bytes[..at]) {
            Reading::More => {}
            Reading::Refused(_) => assert!(matches!(reading, Reading::Refused(_)), "{at}"),
            whole @ Reading::Whole { .. } => assert!(is_long || reading == whole, "{at}"),
        }
    }
    let (status, head) = match reading {
        Reading::More => {
            assert!(bytes.len() < scrape::LONGEST, "it does not wait for ever");
            return;
        }
        Reading::Refused(status) => (status, false),
        Reading::Whole { path, head } => {
            assert!(!is_long && path.starts_with('/'));
            assert!(!path.contains(['?', ' ', '\n']), "{path:?}");
            let method: &[u8] = if head { b"HEAD " } else { b"GET " };
            assert!(bytes.starts_with(method));
            (Status::Ok, head)
        }
    };
    let body = String::from_utf8_lossy(bytes);
    let reply = scrape::reply(status, "text/plain", &body, head);
    let reply = String::from_utf8(reply).expect("it is text");
    let (fields, rest) = reply.split_once("\r\n\r\n").expect("its head ends");
    assert!(fields.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    assert_eq!(rest, if head { "" } else { &body });
}

/// The text is safe in a log: it starts no line of its own, and has nothing that a terminal obeys.
fn is_one_line(text: &str, longest: usize) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() <= longest, "{text:?}");
}
