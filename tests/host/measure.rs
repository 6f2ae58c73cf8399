//! Figures, on demand: `WMGWD_MEASURE=1 cargo test --test host measure -- --nocapture` (as root).

use crate::namespace;
use crate::router::{self, PROGRAMS};
use crate::vni;
use std::time::Instant;
use wmgwd::host::frr::{Frr, FrrConfig};
use wmgwd::host::links::Bridges;
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::{ArpAudit, Cost, Kernel, RouteChange, Router};
use wmgwd::model::frr::EvpnFilter;
use wmgwd::model::types::VniRange;

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("{:>9.1} ms  {what}", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn measure() {
    router::start(1000);
    let range = VniRange::new(vni(1), vni(1000)).unwrap();
    for filter in [EvpnFilter::List, EvpnFilter::Entries] {
        for batch in [250, 1000] {
            let config = FrrConfig {
                filter,
                batch,
                ..FrrConfig::new(range)
            };
            let mut frr = Frr::new(config.clone());
            println!("{filter:?}, {batch} a run");
            timed("withdraw_all, after others", || frr.withdraw_all().unwrap());
            timed("withdraw_all, warm", || {
                Frr::new(config).withdraw_all().unwrap()
            });
            for count in [1, 10, 100, 300, 1000] {
                let mut all = |what: &str, evpn: Option<bool>, cost: Option<Cost>| {
                    let change = |i| RouteChange {
                        vni: vni(i),
                        evpn,
                        cost,
                    };
                    let changes: Vec<RouteChange> = (1..=count).map(change).collect();
                    let failures =
                        timed(&format!("{what} {count}"), || frr.apply(&changes, &|| true));
                    assert!(failures.is_empty(), "{failures:?}");
                };
                all("claim EVPN", Some(true), None);
                all("claim cost", None, Some(Cost::OWNER));
                all("release EVPN", Some(false), None);
                all("release cost", None, Some(Cost::OTHERS));
            }
            let changes: Vec<RouteChange> = range
                .iter()
                .map(|vni| RouteChange {
                    vni,
                    evpn: Some(true),
                    cost: Some(Cost::OWNER),
                })
                .collect();
            assert!(frr.apply(&changes, &|| true).is_empty());
            timed("drifted, 1000 owned", || {
                assert_eq!(frr.drifted(&|| true).unwrap(), [])
            });
            timed("withdraw_all, 1000 owned", || frr.withdraw_all().unwrap());
        }
    }
    let mut kernel = ProcKernel::new();
    timed("ARP off 1000", || {
        range
            .iter()
            .for_each(|vni| kernel.set_arp(vni, false).unwrap())
    });
    let vnis: Vec<_> = range.iter().collect();
    timed("announce 1", || {
        assert!(kernel.announce(&vnis[..1], &|| true).is_empty())
    });
    timed("announce 1000", || {
        assert!(kernel.announce(&vnis, &|| true).is_empty())
    });
    let bridges = Bridges::default();
    timed("all links, first", || {
        assert_eq!(bridges.vnis(range).unwrap().len(), 1000)
    });
    timed("all links, again", || {
        assert_eq!(bridges.reload().unwrap(), [])
    });
    timed("compare 1000", || {
        assert_eq!(bridges.arp_ignore(range).unwrap().len(), 1000)
    });
    timed("put back 1000", || {
        for vni in range.iter() {
            assert_eq!(kernel.put_back(vni, false).unwrap(), ArpAudit::AsTold);
        }
    });
    let mut frr = Frr::new(FrrConfig::new(range));
    timed("health", || frr.health());
}

#[test]
fn figures() {
    if std::env::var_os("WMGWD_MEASURE").is_none() {
        println!("measure: skipped, set WMGWD_MEASURE=1");
        return;
    }
    namespace::run("measure::figures", PROGRAMS, measure);
}
