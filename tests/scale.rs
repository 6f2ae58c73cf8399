//! What must not grow with the number of VNIs: the benchmark's steps in small, counted instead of timed.
#![allow(clippy::unwrap_used)]

mod common;

#[allow(dead_code)]
#[path = "../benches/scale/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../benches/scale/observe.rs"]
mod observe;
#[path = "../benches/scale/requests.rs"]
mod requests;

use cluster::{Cluster, Step};
use std::time::Duration;

/// A generous end for a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A start and a failover of three nodes.
fn steps(vnis: u32) -> [Step; 2] {
    let mut cluster = Cluster::new(3, vnis, PATIENCE);
    let start = cluster.start().unwrap();
    cluster.balance().unwrap();
    let failover = cluster.failover(0).unwrap();
    for (what, step) in [("start", &start), ("failover", &failover)] {
        println!("{vnis} VNIs: {what}: {step:?}");
    }
    [start, failover]
}

/// Input: 1000 VNIs start on an empty etcd, then one of three nodes dies. Output: far fewer transactions and
/// revisions than VNIs, and no more writes of a row than its steps have.
#[test]
fn etcd_is_asked_by_the_batch_and_not_by_the_vni() {
    let [start, failover] = steps(1000);
    assert!(failover.vnis > 200, "a share of a third: {failover:?}");
    for step in [start, failover] {
        let vnis = step.vnis as u64;
        // A claim and its end, each of at most three keys.
        assert!(step.puts <= 6 * vnis, "{step:?}");
        let transactions = step.requests.of_method("Txn");
        assert!(transactions < vnis / 5, "{step:?}");
        assert!(step.revisions < vnis / 5, "{step:?}");
        // A row is never read by itself.
        let ranges = step.requests.of_method("Range");
        assert!(ranges < vnis / 5, "{step:?}");
    }
}
