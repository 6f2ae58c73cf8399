//! When the watch is paused.

use super::bench::*;

const VNIS: u32 = 600;

/// `gw1`, and `gw2` with all VNIs, which runs this program or is a Go wmgwd.
fn pair(of_our_kind: bool) -> Bench {
    let mut bench = Bench::ready(VNIS);
    bench.runs_this_program("gw1", LEASE);
    let node = Key::Node(name("gw2"));
    let points = Value::Points(vec![1 << 63]);
    bench.change(node, Some(points), Some(OTHERS_LEASE));
    if of_our_kind {
        bench.runs_this_program("gw2", OTHERS_LEASE);
    }
    for number in 1..=VNIS {
        bench.row(vni(number), 1, "gw2");
    }
    assert_eq!(bench.settle(), []);
    bench
}

/// The lease of `node` ends: its keys and those of its VNIs go at once, and the watch asks.
fn ends(bench: &mut Bench, node: &str) {
    bench.revision += 1;
    let keys = [Key::Node(name(node)), Key::Meta(name(node))];
    let keys = keys
        .into_iter()
        .chain((1..=VNIS).map(|number| Key::Current(vni(number))));
    let gone = keys.map(|key| Change {
        key,
        value: None,
        lease: None,
        revision: Revision(bench.revision),
    });
    bench.observe(Event::MassExpiry(gone.collect()));
}

/// Input: a node dies with many VNIs, and all of them are this node's now. Output: the watch is paused before
/// anything is written, and goes on when this node owns all.
#[test]
fn the_watch_rests_while_a_share_is_taken() {
    let mut bench = pair(true);
    ends(&mut bench, "gw2");
    assert_eq!(bench.plan()[0], Effect::PauseWatch);
    let mut written = 0;
    while written < 2 * VNIS as usize {
        let rows = bench.settle();
        // Between the claims and the rest, FRR is waited for.
        let follows = written >= VNIS as usize;
        assert!(follows || bench.watch.is_empty(), "{written}");
        bench.done(&rows);
        written += rows.len();
        bench.wait(Duration::from_millis(40));
    }
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.watch, [Effect::ResumeWatch]);
}

/// What etcd makes of the node's writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Etcd {
    Takes,
    Fails,
    KeepsUsWaiting,
}

/// Input: the same, and FRR does not take the VNIs; etcd takes the writes or not. Output:
/// the watch goes on after a second, or as soon as there is nothing to write. When it asks again, it does not rest.
#[test]
fn a_rest_is_no_longer_than_a_second() {
    for etcd in [Etcd::Takes, Etcd::Fails, Etcd::KeepsUsWaiting] {
        let mut bench = pair(true);
        ends(&mut bench, "gw2");
        let mut rests = false;
        let begun = bench.now;
        while bench.now.since(begun) < Duration::from_millis(1_500) {
            for effect in bench.next() {
                match effect {
                    Effect::PauseWatch => rests = true,
                    Effect::ResumeWatch => rests = false,
                    Effect::Commit { rows, .. } if etcd == Etcd::Takes => {
                        let rows: Vec<_> = rows.iter().copied().collect();
                        bench.done(&rows);
                    }
                    Effect::Commit { rows, .. } if etcd == Etcd::Fails => {
                        bench.observe(Event::Committed(CommitOutcome::Failed(rows.vnis())));
                    }
                    Effect::Commit { .. } => {}
                    // No answer.
                    Effect::ChangeRoutes(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let passed = bench.now.since(begun);
            match etcd {
                Etcd::KeepsUsWaiting => assert_eq!(rests, passed < secs(1), "{passed:?}"),
                Etcd::Takes => assert!(!rests || passed < Duration::from_millis(100)),
                Etcd::Fails => assert!(!rests || passed.is_zero(), "{passed:?}"),
            }
            bench.wait(Duration::from_millis(20));
        }
        if etcd == Etcd::Takes {
            bench.observe(Event::MassExpiry(Vec::new()));
            assert_eq!(bench.plan(), [Effect::ResumeWatch]);
        }
    }
}

/// Input: the watch asks, but a Go wmgwd is there, or what is gone is not this node's. Output: it is told to go on at
/// once.
#[test]
fn the_watch_goes_on_where_a_rest_is_of_no_use() {
    for (of_our_kind, points) in [(false, Vec::new()), (true, vec![1 << 63])] {
        let mut bench = pair(true);
        let node = Key::Node(name("gw3"));
        bench.change(node, Some(Value::Points(points)), Some(LeaseId(9)));
        if of_our_kind {
            bench.runs_this_program("gw3", LeaseId(9));
        }
        bench.settle();
        ends(&mut bench, "gw2");
        assert_eq!(bench.plan()[0], Effect::ResumeWatch);
        assert!(!bench.plan().contains(&Effect::ResumeWatch), "said once");
    }
}

/// Input: it was the only Go wmgwd that died. Output: the watch is paused, as no Go wmgwd is left.
#[test]
fn a_dead_go_node_is_no_reason_not_to_rest() {
    let mut bench = pair(false);
    ends(&mut bench, "gw2");
    assert_eq!(bench.plan()[0], Effect::PauseWatch);
}
