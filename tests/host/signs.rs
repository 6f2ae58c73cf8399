//! The signs that a host can forward, against a real kernel.

use crate::namespace::{self, sh};
use crate::vni;
use std::time::Duration;
use wmgwd::host::news::News;
use wmgwd::host::signs::{SignReader, Tracked};
use wmgwd::model::fitness::{Sign, SignState};
use wmgwd::model::types::VniRange;

/// Longer than the kernel takes to tell of anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// And than it took to tell of what was done before.
const QUIET: Duration = Duration::from_millis(200);

/// Input: what happens in the kernel of a gateway. Output: lost links, routes and forwarding entries are news;
/// what stations and new routes do to its tables is not.
#[test]
fn what_is_lost_is_news() {
    namespace::run("signs::what_is_lost_is_news", &["ip", "bridge"], || {
        sh("ip link set lo up
            ip link add eth0 type veth peer name peer
            ip addr add 10.0.1.11/24 dev eth0
            ip link set eth0 up
            ip link set peer up
            ip link add vxlan7 type vxlan id 7 local 10.0.1.11 dstport 4789
            ip link set vxlan7 up");
        let news = News::open().unwrap();
        let told = |script: &str, pause| {
            while news.wait(QUIET) {
                news.clear();
            }
            sh(script);
            news.wait(pause)
        };
        for script in [
            "ip route add 10.9.0.0/16 via 10.0.1.17",
            "ip neigh add 10.0.1.18 lladdr 02:00:00:00:00:18 dev eth0",
            "ip neigh del 10.0.1.18 dev eth0",
            "bridge fdb append 00:00:00:00:00:00 dev vxlan7 dst 10.0.1.17",
        ] {
            assert!(!told(script, QUIET), "{script}");
        }
        for script in [
            "bridge fdb del 00:00:00:00:00:00 dev vxlan7 dst 10.0.1.17",
            "ip route del 10.9.0.0/16",
            "ip link set peer down",
        ] {
            assert!(told(script, PATIENCE), "{script}");
        }
    });
}

/// Input: the interface with the VTEP address loses its carrier, is switched off, goes, comes back. Output: the sign
/// is bad for that long, and says why; interfaces that are named count instead.
#[test]
fn a_link_without_carrier_is_a_bad_sign() {
    namespace::run(
        "signs::a_link_without_carrier_is_a_bad_sign",
        &["ip"],
        || {
            sh("ip link add eth0 type veth peer name peer
            ip addr add 10.0.1.11/24 dev eth0
            ip link set eth0 up
            ip link set peer up
            ip link add vxlan7 type vxlan id 7 local 10.0.1.11 dstport 4789");
            let range = VniRange::new(vni(1), vni(9)).unwrap();
            let mut found = SignReader::new(&[], range, Tracked::default());
            let mut named = SignReader::new(
                &[],
                range,
                Tracked {
                    fabric: vec!["lo".to_owned()],
                    uplink: vec!["peer".to_owned(), "none".to_owned()],
                },
            );
            let fabric = |reader: &mut SignReader| match &reader.look()[0] {
                (Sign::FabricLink, state) => state.clone(),
                other => panic!("{other:?}"),
            };
            let good = SignState::Good("eth0 can carry frames".to_owned());
            assert_eq!(fabric(&mut found), good);
            let bad = |why: &str| SignState::Bad(why.to_owned());
            for (script, state) in [
                ("ip link set peer down", bad("eth0 has no carrier")),
                ("ip link set peer up", good.clone()),
                ("ip link set eth0 down", bad("eth0 is switched off")),
                ("ip link del eth0", bad("eth0 does not exist")),
            ] {
                sh(script);
                namespace::eventually(script, || fabric(&mut found) == state);
            }
            assert_eq!(fabric(&mut named), bad("lo is switched off"));
            let (sign, uplink) = &named.look()[2];
            assert_eq!(*sign, Sign::UplinkLink);
            assert_eq!(*uplink, bad("peer does not exist, none does not exist"));
        },
    );
}
