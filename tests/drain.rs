//! `wmgwd status`, `drain` and `undrain` against real daemons on a real etcd.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use common::node::{Node, VNIS, refs};
use common::rows::{cluster, table, until_settled, until_settled_without};
use common::sampler::Sampler;
use common::{eventually, program, put_leased, then};
use std::process::Output;
use std::time::Duration;

fn wmgwd(etcd: &Etcd, args: &[&str]) -> (i32, String, String) {
    let endpoint = etcd.endpoint().to_string();
    let Output {
        status,
        stdout,
        stderr,
    } = program::wmgwd()
        .args(args)
        .args(["--etcd", &endpoint])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Input: one of two nodes is drained, killed and started again, then brought back. Output: its VNIs move
/// without a moment unserved, it stays registered without points and takes nothing, and gets its share back;
/// status says so all the while.
#[test]
fn a_node_is_taken_out_and_brought_back() {
    let (etcd, mut nodes) = cluster(2);
    let client = etcd.client();
    let name = nodes[0].name.to_string();
    let (status, text, _) = wmgwd(&etcd, &["status"]);
    assert_eq!(status, 0, "{text}");
    assert!(
        text.starts_with(&format!("2 nodes, {VNIS} VNIs: all served")),
        "{text}"
    );

    let sampler = Sampler::start(etcd.client(), &refs(&nodes));
    let (status, text, errors) = wmgwd(&etcd, &["drain", &name]);
    assert_eq!((status, errors.as_str()), (0, ""), "{text}");
    assert!(text.contains("is drained: it has no VNIs"), "{text}");
    until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]));
    sampler.finish().assert_unbroken();
    assert!(table(&client).has(&nodes[0]), "it goes on running");
    assert!(wmgwd(&etcd, &["status"]).1.contains("drained"));

    nodes[0].kill9();
    nodes[0].start();
    eventually("it says that it is drained, once more", || {
        (nodes[0].logged("drained by an operator") == 2).then_some(())
    });
    until_settled_without(&client, &refs(&nodes[1..]), &refs(&nodes[..1]));
    // No other node is left: what it does not take stays unserved, and status says so.
    nodes[1].kill9();
    eventually("status sees the orphans", || {
        (wmgwd(&etcd, &["status"]).0 == 1).then_some(())
    });
    assert_eq!(nodes[0].answering(), 0);
    let (status, text, _) = wmgwd(&etcd, &["status", "7"]);
    assert!(status == 1 && text.contains("orphaned"), "{status} {text}");
    nodes[1].start();

    let (status, text, _) = wmgwd(&etcd, &["undrain", &name]);
    assert_eq!(status, 0, "{text}");
    until_settled(&client, &refs(&nodes));
    let (status, text, _) = wmgwd(&etcd, &["status", "--json", "7"]);
    assert_eq!(status, 0, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["all_served"], true);
    assert_eq!(json["vnis"][0]["owner"], json["vnis"][0]["ring_owner"]);
    assert!(
        json["vnis"][0]["since"]["at_most"].is_u64(),
        "nodes mark the time: {text}"
    );
}

/// Input: drains that cannot be. Output: the reason, and an exit status of its own.
#[test]
fn what_cannot_be_drained_is_said() {
    let etcd = Etcd::start();
    let client = etcd.client();
    let (status, _, errors) = wmgwd(&etcd, &["drain", "gw9"]);
    assert!(status == 1 && errors.contains("no node gw9"), "{errors}");
    assert_eq!(wmgwd(&etcd, &["status"]).0, 2, "no node says what to serve");
    let lease = client.lease_grant(Duration::from_secs(600)).unwrap().id;
    let go = put_leased("/wmgwd/node/go1", "[1,2]", Some(lease));
    client.txn(&then(vec![go])).unwrap();
    let (status, _, errors) = wmgwd(&etcd, &["drain", "go1"]);
    assert!(status == 1 && errors.contains("Go wmgwd"), "{errors}");
    assert!(
        wmgwd(&etcd, &["undrain", "gw9"])
            .2
            .contains("there are: go1")
    );
    assert_eq!(wmgwd(&etcd, &["undrain", "go1"]).0, 0);
    // Not there yet, and out from its first moment on.
    let mut node = Node::new(1, etcd.endpoint());
    let name = node.name.to_string();
    assert_eq!(wmgwd(&etcd, &["drain", "--force", &name]).0, 0);
    node.start();
    node.until_logged("drained by an operator");
    eventually("it is registered without points", || {
        let key = format!("/wmgwd/node/{name}");
        let reply = client.get(key.as_bytes()).unwrap();
        (reply.kvs.first()?.value == b"[]").then_some(())
    });
    assert_eq!(wmgwd(&etcd, &["undrain", &name]).0, 0);
    // No process answers there.
    let nowhere = ["status", "--etcd", "http://127.0.0.1:9"];
    let output = program::wmgwd().args(nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
