//! How many rows one transaction writes, and under which condition.

use super::bench::*;
use crate::fsm::Write;
use crate::gateway::*;
use crate::schema::{Batch, Fate};

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
fn decided(bench: &mut Bench, batch: &Batch, fate: Fate) {
    bench.revision += 1;
    let each = batch.iter().map(|row| (row.vni, row.write, fate));
    bench.observe(Event::Committed(CommitOutcome::Done {
        revision: Revision(bench.revision),
        lease: LEASE,
        each: each.collect(),
    }));
}

fn is_stretches(batch: &Batch) -> bool {
    matches!(batch, Batch::Stretches { .. })
}

/// Input: 600 VNIs that nobody serves, and a watch that tells nothing. Output: claimed in stretches, 256 at once,
/// each VNI once; then owned in stretches, each of which holds under what one of those transactions wrote.
#[test]
fn stretches_hold_what_is_known() {
    let mut bench = Bench::ready(600);
    for (write, known) in [(Write::Claim, 1), (Write::Own, bench.revision + 1)] {
        let mut written = Vec::new();
        let first = bench.revision + 1;
        while written.len() < 600 {
            let batch = next_batch(&mut bench);
            let Batch::Stretches(stretches) = &batch else {
                panic!("{batch:?}");
            };
            assert!(batch.vnis().len() <= 256);
            assert!(batch.iter().all(|row| row.write == write));
            for stretch in stretches {
                assert!(stretch.iter().all(|row| row.known == stretch[0].known));
                assert!(stretch.iter().all(|row| row.read <= row.known));
                assert!(
                    (known..first.max(2)).contains(&stretch[0].known.0),
                    "{stretch:?}"
                );
            }
            written.extend(batch.vnis());
            decided(&mut bench, &batch, Fate::Written);
            // Announcements are paced.
            bench.now = bench.now + Duration::from_millis(50);
        }
        written.sort_unstable();
        assert!(written.into_iter().eq((1..=600).map(vni)));
    }
}

/// Input: somebody wrote into the stretches. Output: their rows are tried at once, each by itself, and for a
/// moment all others, too; then there are stretches again, without those rows.
#[test]
fn rows_of_a_crossed_stretch_are_written_by_themselves() {
    let mut bench = Bench::ready(2_000);
    let crossed = next_batch(&mut bench);
    decided(&mut bench, &crossed, Fate::Crossed);
    let at_once = next_batch(&mut bench);
    assert!(!is_stretches(&at_once));
    bench.wait(Duration::from_millis(300));
    let later = next_batch(&mut bench);
    assert!(is_stretches(&later));
    assert!(later.iter().all(|row| !crossed.vnis().contains(&row.vni)));
}

/// Input: etcd does not answer in time, time and again, then does. Output: asked for less and less, but always
/// for something; then for more again, up to as much as at first.
#[test]
fn a_slow_etcd_is_asked_for_less() {
    let mut bench = Bench::ready(2_000);
    let mut size = |fate: Option<Fate>| {
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
    let rising: Vec<usize> = (0..11).map(|_| size(Some(Fate::Written))).collect();
    assert!(rising.is_sorted() && rising[0] == 16, "{rising:?}");
    assert!(rising[10] > 200, "{rising:?}");
}

/// Input: rows of other gateways' VNIs, with more digits than any of ours, which stand between ours in etcd.
/// Output: no stretches, as etcd would read all of those for each.
#[test]
fn stretches_do_not_lead_over_rows_of_others() {
    let mut bench = Bench::ready(999);
    bench.change(Key::Kind(vni(250_000)), Some(Value::Kind(Kind::Idle)), None);
    assert!(!is_stretches(&next_batch(&mut bench)));
}
