//! What becomes of the kernel's neighbour entries when a VNI goes to another gateway.

use crate::namespace::{self, bridge_with_station, eventually, sh, try_sh};
use crate::vni;
use std::time::Instant;
use wmgwd::daemon::neighbours::Neighbours;
use wmgwd::host::links::Bridges;
use wmgwd::host::neighbours::confirm;

/// A second bridge, br8, with an address; the same station is behind it by eth1.
const SECOND_BRIDGE: &str = "ip link add br8 type bridge
    ip link add port8 type veth peer name eth1 netns station
    ip link set port8 master br8
    ip link add vxlan8 type vxlan id 8 dstport 4790 nolearning
    ip link set vxlan8 master br8
    ip address add 10.8.0.1/24 dev br8
    ip link set br8 up; ip link set port8 up
    ip -n station address add 10.8.0.9/24 dev eth1
    ip -n station link set eth1 up";

/// The MAC address of another gateway.
const OTHER: &str = "02:00:00:00:00:99";

/// What the station has for the address of a gateway.
fn station_knows(gateway: &str) -> String {
    sh(&format!("ip -n station neighbour show {gateway}"))
}

/// The state of an entry here.
fn state(bridge: u32, address: &str) -> String {
    let entry = sh(&format!(
        "ip neighbour show nud all {address} dev br{bridge}"
    ));
    entry.split_whitespace().last().unwrap_or("").to_owned()
}

fn mac(interface: &str) -> String {
    let mac = sh(&format!("cat /sys/class/net/{interface}/address"));
    mac.trim().to_owned()
}

/// Input: entries in each state at two bridges, of both families; those of one bridge are confirmed. Output: the ones
/// that the kernel keeps by asking are reachable, with their link-layer address; all others are as before.
#[test]
fn entries_that_the_kernel_keeps_are_confirmed() {
    namespace::run(
        "neighbours::entries_that_the_kernel_keeps_are_confirmed",
        &["ip", "arping"],
        || {
            bridge_with_station(SECOND_BRIDGE);
            let all = "10.7.0.20 stale;10.7.0.21 delay;10.7.0.22 probe;10.7.0.23 permanent;\
                       10.7.0.24 noarp;10.7.0.25 stale extern_learn;2001:db8:7::20 stale";
            for (bridge, prefix) in [(7, "7"), (8, "8")] {
                for (number, entry) in all.split(';').enumerate() {
                    let (address, rest) = entry.split_once(' ').unwrap();
                    let address = address.replace('7', prefix);
                    sh(&format!(
                        "ip neighbour replace {address} dev br{bridge} lladdr 02:00:00:00:01:2{number} nud {rest}"
                    ));
                }
            }
            let show = |bridge: u32| sh(&format!("ip neighbour show dev br{bridge}"));
            let index = Bridges::default().indices(&[vni(7)]).unwrap();
            assert_eq!(index.len(), 1);
            // Probes time out while this runs.
            let confirmed = confirm(&index).unwrap();
            assert!((4..=6).contains(&confirmed), "{confirmed}\n{}", show(7));
            for (number, address) in ["10.7.0.20", "10.7.0.21", "10.7.0.22"].iter().enumerate() {
                assert_eq!(state(7, address), "REACHABLE", "{}", show(7));
                let entry = sh(&format!("ip neighbour show {address} dev br7"));
                assert!(
                    entry.contains(&format!("lladdr 02:00:00:00:01:2{number} ")),
                    "{entry}"
                );
            }
            assert_eq!(state(7, "2001:db8:7::20"), "REACHABLE", "{}", show(7));
            assert_eq!(state(7, "10.7.0.23"), "PERMANENT");
            assert_eq!(state(7, "10.7.0.24"), "NOARP");
            let learned = sh("ip neighbour show 10.7.0.25 dev br7");
            assert!(
                learned.contains("extern_learn") && learned.contains("STALE"),
                "{learned}"
            );
            assert!(!show(8).contains("REACHABLE"), "{}", show(8));
            assert_eq!(confirm(&Default::default()).unwrap(), 0);
        },
    );
}

/// Input: two bridges, of which the kernel has just sent a packet to a station that it last heard long ago, and the
/// station has gone over to another gateway; the first VNI is told to be silent. Output: the station is drawn back
/// by the kernel's question at the second bridge, and not at the first.
#[test]
fn a_station_is_not_drawn_back() {
    namespace::run(
        "neighbours::a_station_is_not_drawn_back",
        &["ip", "arping", "ping"],
        || {
            bridge_with_station(SECOND_BRIDGE);
            sh("sysctl -qw net.ipv4.conf.br7.arp_ignore=8 net.ipv4.conf.br8.arp_ignore=8");
            let neighbours = Neighbours::spawn(Some(Bridges::default())).unwrap();
            let ping = |address: &str| {
                eventually("the station answers", || {
                    try_sh(&format!("ping -c 1 -W 1 {address}")).0
                });
            };
            // The kernel asks 5 s after the packet, first for the station at br7.
            for (bridge, address) in [(7, "10.7.0.9"), (8, "10.8.0.9")] {
                let gateway = address.replace(".9", ".1");
                ping(address);
                sh(&format!(
                    "ip neighbour replace {address} dev br{bridge} lladdr $(ip netns exec station \
                     cat /sys/class/net/eth{}/address) nud stale",
                    bridge - 7
                ));
                ping(address);
                sh(&format!(
                    "ip -n station neighbour replace {gateway} dev eth{} lladdr {OTHER} nud stale",
                    bridge - 7
                ));
            }
            assert_eq!(state(8, "10.8.0.9"), "DELAY");
            let begun = Instant::now();
            neighbours.silent(&[vni(7)]);
            eventually("the entry is confirmed", || {
                state(7, "10.7.0.9") == "REACHABLE"
            });
            eventually("the kernel asks at br8", || {
                station_knows("10.8.0.1").contains(&mac("br8"))
            });
            println!("drawn back after {:?}", begun.elapsed());
            assert!(
                station_knows("10.7.0.1").contains(OTHER),
                "{}",
                station_knows("10.7.0.1")
            );
        },
    );
}

/// Figures, on demand: `WMGWD_MEASURE=1 cargo test --test host neighbours::what -- --nocapture` (as root). 60 000 entries
/// of stations, of which 300 are confirmed. (The kernel counts those that it keeps by asking for all namespaces
/// together, so that there can be few: the others are permanent.)
#[test]
fn what_confirming_costs() {
    if std::env::var_os("WMGWD_MEASURE").is_none() {
        return;
    }
    namespace::run(
        "neighbours::what_confirming_costs",
        &["ip", "arping"],
        || {
            bridge_with_station(SECOND_BRIDGE);
            let entry = |number: u32, bridge: u32, state: &str| {
                let address = std::net::Ipv4Addr::from(0x0a09_0000 + number);
                format!(
                    "neighbour add {address} dev br{bridge} lladdr 02:00:00:00:03:01 nud {state}\n"
                )
            };
            let permanent = (0..60_000).map(|it| entry(it, 8, "permanent"));
            let stale = (60_000..60_300).map(|it| entry(it, 7, "stale"));
            std::fs::write("/run/entries", permanent.chain(stale).collect::<String>()).unwrap();
            sh("ip -batch /run/entries");
            let index = Bridges::default().indices(&[vni(7)]).unwrap();
            for _ in 0..3 {
                let begun = Instant::now();
                let confirmed = confirm(&index).unwrap();
                println!("{:?} for {confirmed} of 60300", begun.elapsed());
            }
        },
    );
}
