//! How many rows one transaction writes, and under which condition.

use super::bench::*;

/// The next transaction, with nothing else to do before it.
fn next_batch(bench: &mut Bench) -> Batch {
    for _ in 0..20 {
        for effect in bench.next() {
            match effect {
                Effect::Commit { rows, .. } => return rows,
                Effect::ChangeRoutes(_) => {
                    bench.observe(Event::RoutesChanged { failed: Vec::new() });
                }
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("nothing is written");
}

/// etcd has decided: the same of every row.
fn decided(bench: &mut Bench, batch: &Batch, fate: CommitResult) {
    bench.revision += 1;
    let each = batch.iter().map(|row| (row.vni, row.write, fate));
    bench.observe(Event::Committed(CommitOutcome::Done {
        revision: Revision(bench.revision),
        lease: LEASE,
        each: each.collect(),
    }));
}

/// How many rows share their fate with others.
fn together(batch: &Batch) -> usize {
    let shared = batch.bundles().iter().filter(|bundle| bundle.len() > 1);
    shared.map(Vec::len).sum()
}

/// Input: 600 VNIs that no gateway serves. Output: claimed in bundles, 256 at once, each VNI once; then owned in
/// bundles.
#[test]
fn many_rows_go_together() {
    let mut bench = Bench::ready(600);
    for write in [Write::Claim, Write::Own] {
        let mut written = Vec::new();
        while written.len() < 600 {
            let batch = next_batch(&mut bench);
            assert!(batch.vnis().len() <= 256);
            assert_eq!(together(&batch), batch.vnis().len());
            assert!(batch.iter().all(|row| row.write == write));
            written.extend(batch.vnis());
            decided(&mut bench, &batch, CommitResult::Written);
            // Announcements are paced.
            bench.now = bench.now + Duration::from_millis(50);
        }
        written.sort_unstable();
        assert!(written.into_iter().eq((1..=600).map(vni)));
    }
}

/// Input: another node was faster on some row of each bundle. Output: all rows are tried at once, each alone, and
/// for a moment all others, too; then the others go together again.
#[test]
fn rows_of_a_bundle_that_failed_go_alone() {
    let mut bench = Bench::ready(2_000);
    let failed = next_batch(&mut bench).vnis();
    let revision = Revision(bench.revision);
    let each = failed
        .iter()
        .map(|&vni| (vni, Write::Claim, CommitResult::Undecided));
    bench.observe(Event::Committed(CommitOutcome::Done {
        revision,
        lease: LEASE,
        each: each.collect(),
    }));
    let mut alone = Vec::new();
    while alone.len() < failed.len() {
        let batch = next_batch(&mut bench);
        assert_eq!(together(&batch), 0);
        alone.extend(batch.vnis());
        decided(&mut bench, &batch, CommitResult::Written);
    }
    assert_eq!(alone[..failed.len()], failed);
    let others = next_batch(&mut bench);
    assert_eq!(together(&others), 0);
    bench.wait(Duration::from_millis(300));
    let batch = next_batch(&mut bench);
    assert_eq!(together(&batch), batch.vnis().len());
}

/// Input: etcd does not answer in time, time and again, then does. Output: asked for less and less, but always
/// for something; then for more again, up to as much as at first.
#[test]
fn a_slow_etcd_is_asked_for_less() {
    let mut bench = Bench::ready(2_000);
    let mut size = |fate: Option<CommitResult>| {
        let batch = next_batch(&mut bench);
        match fate {
            Some(fate) => decided(&mut bench, &batch, fate),
            None => {
                bench.observe(Event::Committed(CommitOutcome::Failed(batch.vnis())));
                bench.wait(secs(7));
            }
        }
        batch.vnis().len()
    };
    let falling: Vec<usize> = (0..8).map(|_| size(None)).collect();
    assert_eq!(falling, [256, 128, 64, 32, 16, 16, 16, 16]);
    let rising: Vec<usize> = (0..11).map(|_| size(Some(CommitResult::Written))).collect();
    assert!(rising.is_sorted() && rising[0] == 16, "{rising:?}");
    assert!(rising[10] > 200, "{rising:?}");
}
