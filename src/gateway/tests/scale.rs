//! What size costs, in counts: VNIs looked at, transactions, bytes.

use super::bench::*;
use crate::gateway::mirror::Row;
use crate::gateway::vni::VniState;
use crate::gateway::vni_table::VniStatus;
use std::collections::BTreeMap;

/// A third of 10 000, which a gateway of three owns.
const SHARE: u32 = 3_334;

/// Input: a node that owns thousands of VNIs; a keepalive, and a change of one row. Output: nothing is looked
/// at for the one, and one VNI for the other.
#[test]
fn a_pass_looks_only_at_what_changed() {
    let mut bench = Bench::ready(SHARE);
    bench.own_all();
    bench.lease();
    assert_eq!(bench.plan(), []);
    assert_eq!(bench.gateway.vnis.visited(), 0);
    bench.row(vni(7), 1, "gw2");
    bench.plan();
    assert_eq!(bench.gateway.vnis.visited(), 1);
}

/// Input: half a minute in which nothing happens to thousands of VNIs, of which this node serves all but one.
/// Output: each that is served is announced three times, 10 s apart, and nothing else is done; for that none is looked
/// at, and the worker wakes twice a second.
#[test]
fn an_idle_node_looks_at_nothing() {
    let mut bench = Bench::ready(SHARE);
    bench.row(vni(1), 1, "gw2");
    bench.own_all();
    // Until what is announced often is over, and the hold of one that joins.
    for _ in 0..500 {
        bench.wait(Duration::from_millis(50));
        bench.settle();
    }
    let start = bench.now;
    let mut announced = BTreeMap::<Vni, Vec<Time>>::new();
    let mut wakes = 0;
    while bench.now < start + secs(30) {
        bench.lease();
        loop {
            let effects = bench.plan();
            assert_eq!(bench.gateway.vnis.visited(), 0);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Announce(vnis) => {
                        for &vni in &vnis {
                            announced.entry(vni).or_default().push(bench.now);
                        }
                        bench.observe(Event::Announced(vnis));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        wakes += 1;
        bench.now = bench.now + bench.next_wake();
    }
    assert!(announced.keys().copied().eq((2..=SHARE).map(vni)));
    for times in announced.values() {
        assert!(times.len() == 3 || times.len() == 4, "{times:?}");
        for pair in times.windows(2) {
            let apart = pair[1].since(pair[0]);
            assert!(apart >= secs(9) && apart <= secs(11), "{apart:?}");
        }
    }
    assert!(wakes <= 60, "{wakes}");
}

/// Input: thousands of VNIs that no gateway serves. Output: served after no more transactions than full ones take,
/// and a few.
#[test]
fn a_takeover_takes_full_transactions() {
    let sizes = Bench::ready(SHARE).own_all();
    assert_eq!(sizes.iter().sum::<usize>(), 2 * SHARE as usize);
    assert!(
        sizes.len() <= 2 * (SHARE as usize).div_ceil(125) + 10,
        "{} transactions",
        sizes.len()
    );
}

/// Input: a wave of thousands of migrations that have just begun, and a VNI that loses its owner. Output: it is
/// claimed in the next transaction, and FRR hears of it in the batch after the one under way.
#[test]
fn an_orphan_overtakes_a_wave_of_migrations() {
    let mut bench = Bench::ready(2_000);
    for number in 1..=2_000 {
        bench.row(vni(number), 1, "gw2");
    }
    for _ in 0..=JOIN_HOLD {
        bench.wait(secs(1));
        bench.next();
    }
    let pulls = bench.settle();
    assert!((1..=512).contains(&pulls.len()), "{}", pulls.len());
    assert!(pulls.iter().all(|row| row.write == Write::Pull));
    bench.done(&pulls);
    // The successor's turn in most of them: FRR is busy with the first batch of those.
    for number in 1..=1_500 {
        bench.row(vni(number), 3, "gw2");
        let mine = Value::Name(Some(name("gw1")));
        bench.change(Key::Next(vni(number)), Some(mine), Some(LEASE));
    }
    let wave = bench.next();
    let routes = |effects: &[Effect]| {
        let changes = effects.iter().find_map(|effect| match effect {
            Effect::ChangeRoutes(changes) => Some(changes.clone()),
            _ => None,
        });
        changes.expect("routes to change")
    };
    assert!(routes(&wave).len() < 1_500);

    let orphan = vni(2_000);
    bench.change(Key::Current(orphan), None, None);
    bench.wait(Duration::from_millis(200));
    let claims = bench.settle();
    assert_eq!((claims[0].vni, claims[0].write), (orphan, Write::Claim));
    bench.done(&claims);
    bench.observe(Event::RoutesChanged { failed: Vec::new() });
    assert_eq!(routes(&bench.next())[0].vni, orphan);
}

/// A range of 64 000 VNIs takes 64 000 of these.
#[test]
fn a_vni_stays_small() {
    let bytes = size_of::<VniState>() + size_of::<Row>() + size_of::<VniStatus>();
    assert!(bytes <= 400, "{bytes} bytes");
}
