//! The kernel lane against a real kernel: a bridge with a station behind it, in namespaces of its own.

use crate::namespace::{self, eventually, sh, try_sh};
use crate::vni;
use std::cell::RefCell;
use std::process::{Command, Stdio};
use wmgwd::commands::check::look::at_start;
use wmgwd::host::links::{LinkChanges, LinkWatch};
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::{Error, Kernel};
use wmgwd::model::types::VniRange;

/// br7 with two addresses and vxlan7 here; behind it a station in a network namespace.
fn bridge_with_station() {
    sh(
        "mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys; mkdir /run/netns
        ip netns add station
        ip link add br7 type bridge
        ip link add port7 type veth peer name eth0 netns station
        ip link set port7 master br7
        ip link add vxlan7 type vxlan id 7 dstport 4789 nolearning
        ip link set vxlan7 master br7
        ip address add 10.7.0.1/24 dev br7
        ip address add 10.7.0.2/24 dev br7
        ip address add 10.8.0.1/24 dev br7 label br7:x
        ip link set lo up; ip link set br7 up; ip link set port7 up
        ip -n station address add 10.7.0.9/24 dev eth0
        ip -n station link set eth0 up",
    );
    eventually("the bridge forwards", || answers("10.7.0.1"));
}

fn answers(address: &str) -> bool {
    try_sh(&format!(
        "nsenter --net=/run/netns/station arping -c 1 -w 1 -I eth0 {address}"
    ))
    .0
}

/// Input: the switch turned by `ProcKernel`. Output: what a station's ARP requests bring.
#[test]
fn a_silent_bridge_answers_no_arp() {
    namespace::run(
        "kernel::a_silent_bridge_answers_no_arp",
        &["ip", "arping"],
        || {
            bridge_with_station();
            let mut kernel = ProcKernel::new();
            kernel.set_arp(vni(7), false).unwrap();
            assert!(!answers("10.7.0.1") && !answers("10.7.0.2"));
            kernel.set_arp(vni(7), true).unwrap();
            assert!(answers("10.7.0.1") && answers("10.7.0.2"));
            let error = kernel.set_arp(vni(8), true).unwrap_err();
            assert!(matches!(error, Error::NoInterface { .. }), "{error}");
        },
    );
}

/// Input: the bridge of a VNI under another name; a bridge of the host's own with a VNI's name. Output: the first is
/// silenced in each way, and made to answer in none; the second is not touched.
#[test]
fn a_bridge_is_known_by_its_port_and_not_by_its_name() {
    namespace::run(
        "kernel::a_bridge_is_known_by_its_port_and_not_by_its_name",
        &["ip", "arping"],
        || {
            bridge_with_station();
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            let mut daemon = ProcKernel::new();
            let mut guard = ProcKernel::new();
            daemon.set_arp(vni(7), true).unwrap();
            guard.keep(&[vni(7)]);
            let rename =
                || sh("ip link set br7 down; ip link set br7 name lan7; ip link set lan7 up");
            let back =
                || sh("ip link set lan7 down; ip link set lan7 name br7; ip link set br7 up");
            for (which, kernel) in [("daemon", &mut daemon), ("guard", &mut guard)] {
                rename();
                eventually("it answers by its new name", || answers("10.7.0.1"));
                kernel.set_arp(vni(7), false).unwrap();
                assert!(!answers("10.7.0.1"), "{which}");
                back();
                kernel.set_arp(vni(7), true).unwrap();
                eventually("it answers again", || answers("10.7.0.1"));
            }
            rename();
            // One that has never seen it under its own name, as `wmgwd withdraw`, and also without its port.
            assert_eq!(ProcKernel::new().existing(&range), [vni(7)].into());
            let error = ProcKernel::new().set_arp(vni(7), true).unwrap_err();
            assert!(matches!(error, Error::Renamed { .. }), "{error}");
            assert!(!answers("10.7.0.1"));
            back();
            daemon.set_arp(vni(7), true).unwrap();
            sh("ip link set vxlan7 nomaster");
            daemon.set_arp(vni(7), false).unwrap();
            assert!(!answers("10.7.0.1"));

            sh("ip link add br50 type bridge; sysctl -qw net.ipv4.conf.br50.arp_ignore=1");
            let mut kernel = ProcKernel::new();
            for answer in [true, false] {
                let error = kernel.set_arp(vni(50), answer).unwrap_err();
                assert!(matches!(error, Error::Foreign { .. }), "{error}");
            }
            assert!(kernel.existing(&range).is_empty());
            assert_eq!(sh("sysctl -n net.ipv4.conf.br50.arp_ignore").trim(), "1");
            // A port that comes later makes it wmgwd's.
            sh(
                "ip link add vxlan50 type vxlan id 50 dstport 4789; ip link set vxlan50 master br50",
            );
            kernel.set_arp(vni(50), false).unwrap();
            assert_eq!(sh("sysctl -n net.ipv4.conf.br50.arp_ignore").trim(), "8");
        },
    );
}

/// Input: an announcement. Output: the frames that reach the station, one for each address.
#[test]
fn announcements_reach_the_station() {
    namespace::run(
        "kernel::announcements_reach_the_station",
        &["ip", "arping", "tcpdump"],
        || {
            bridge_with_station();
            let mut capture = Command::new("nsenter")
                .args(["--net=/run/netns/station", "tcpdump", "-i", "eth0", "-U"])
                .args([
                    "-w",
                    "/run/frames",
                    "ether proto 0x0806 and ether broadcast",
                ])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // The file's header is written once the capture runs.
            eventually("capture", || {
                std::fs::metadata("/run/frames").is_ok_and(|m| m.len() >= 24)
            });
            let failures = ProcKernel::new().announce(&[vni(7), vni(8)], &|| true);
            assert!(
                matches!(failures[..], [(vni, Error::NoInterface { .. })] if vni.get() == 8),
                "{failures:?}"
            );
            let mac = sh("cat /sys/class/net/br7/address").trim().to_string();
            let seen = || try_sh("tcpdump -r /run/frames -e -n").1;
            for address in ["10.7.0.1", "10.7.0.2", "10.8.0.1"] {
                let header = format!("{mac} > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806)");
                let reply = format!("Reply {address} is-at {mac}");
                eventually(address, || {
                    seen()
                        .lines()
                        .any(|line| line.contains(&header) && line.contains(&reply))
                });
            }
            assert_eq!(seen().lines().count(), 3, "{}", seen());
            capture.kill().unwrap();
            capture.wait().unwrap();
        },
    );
}

/// Input: a bridge that goes down, comes up, is made anew. Output: what is there, and a new generation.
#[test]
fn a_link_that_comes_up_again_is_noticed() {
    namespace::run(
        "kernel::a_link_that_comes_up_again_is_noticed",
        &["ip", "arping", "bridge"],
        || {
            bridge_with_station();
            let kernel = ProcKernel::new();
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            assert_eq!(
                kernel.existing(&range).into_iter().collect::<Vec<_>>(),
                [vni(7)]
            );
            assert_eq!(at_start(range), []);
            let watch = RefCell::new(LinkWatch::open().unwrap());
            let changes = || watch.borrow_mut().changes().unwrap();
            let changed = || changes().vnis.contains(&vni(7));
            assert_eq!(changes(), LinkChanges::default());
            sh("ip link set br7 down; ip link set br7 up");
            // The kernel tells of a link that came up with up to a second of delay.
            eventually("up again", changed);
            assert_eq!(changes(), LinkChanges::default());
            sh("ip link set br7 name lan7");
            eventually("renamed", changed);
            sh("ip link set lan7 name br7");
            eventually("renamed back", changed);
            sh("ip link set vxlan7 nomaster");
            eventually("its port left", changed);
            sh("ip link set vxlan7 master br7");
            eventually("its port is back", changed);
            for on in [true, false] {
                let word = if on { "on" } else { "off" };
                sh(&format!("bridge link set dev vxlan7 neigh_suppress {word}"));
                eventually("suppression", || {
                    changes().suppression.get(&vni(7)) == Some(&on)
                });
            }
            sh("ip link delete br7");
            eventually("gone", changed);
            sh("ip link add br7 type bridge");
            eventually("there again", changed);

            sh(
                "ip link set vxlan7 master br7; bridge link set dev vxlan7 neigh_suppress on
            echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
            );
            let mends: Vec<_> = at_start(range)
                .into_iter()
                .filter_map(|it| it.mend)
                .collect();
            let expected = [
                "sysctl -w net.ipv4.conf.all.arp_ignore=0",
                "bridge link set dev vxlan7 neigh_suppress off",
            ];
            assert_eq!(mends, expected);
            let mut kernel = kernel;
            let failures = kernel.announce(&[vni(7)], &|| true);
            assert!(
                matches!(&failures[..], [(_, Error::Announce { source, .. })] if source.to_string().contains("IPv4")),
                "{failures:?}"
            );
        },
    );
}
