//! The kernel lane against a real kernel: a bridge with a station behind it, in namespaces of its own.

use crate::namespace::{self, bridge_with_station, eventually, sh, try_sh};
use crate::vni;
use std::cell::RefCell;
use std::process::{Command, Stdio};
use wmgwd::commands::check::look::{arp_ignore_of_all, at_start};
use wmgwd::host::bridges::Change;
use wmgwd::host::factory::HostFactory;
use wmgwd::host::links::{Bridges, LinkWatch};
use wmgwd::host::proc::ProcKernel;
use wmgwd::host::{Announce, ArpAudit, Error, Kernel};
use wmgwd::model::frr::EvpnFilter;
use wmgwd::model::types::VniRange;

/// A second address, and one with a label.
const MORE_ADDRESSES: &str = "ip address add 10.7.0.2/24 dev br7
    ip address add 10.8.0.1/24 dev br7 label br7:x";

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
            bridge_with_station(MORE_ADDRESSES);
            let mut kernel = ProcKernel::new();
            kernel.set_arp(vni(7), false).unwrap();
            assert!(!answers("10.7.0.1") && !answers("10.7.0.2"));
            kernel.set_arp(vni(7), true).unwrap();
            assert!(answers("10.7.0.1") && answers("10.7.0.2"));
            let error = kernel.set_arp(vni(8), true).unwrap_err();
            assert!(matches!(error, Error::NoInterface { .. }), "{error}");

            // What `check` and the daemon say of all.arp_ignore is what the kernel does.
            for all in [1, 2, 3, 4, 7, 8, 9] {
                sh(&format!("sysctl -qw net.ipv4.conf.all.arp_ignore={all}"));
                let heard = [true, false].map(|answer| {
                    kernel.set_arp(vni(7), answer).unwrap();
                    answers("10.7.0.1")
                });
                let is_well = heard == [true, false];
                assert_eq!(arp_ignore_of_all().is_none(), is_well, "{all}: {heard:?}");
            }
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
            bridge_with_station(MORE_ADDRESSES);
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            let existing = || Bridges::default().vnis(range).unwrap();
            let mut daemon = ProcKernel::new();
            let mut guard = ProcKernel::new();
            daemon.set_arp(vni(7), true).unwrap();
            guard.hold(vni(7), daemon.bridge(vni(7)).unwrap());
            let rename =
                || sh("ip link set br7 down; ip link set br7 name lan7; ip link set lan7 up");
            let back =
                || sh("ip link set lan7 down; ip link set lan7 name br7; ip link set br7 up");
            for (which, kernel) in [("daemon", &mut daemon), ("guard", &mut guard)] {
                rename();
                eventually("it answers by its new name", || answers("10.7.0.1"));
                // Twice: the node has no bridge for the VNI as long as it has the other name.
                for _ in 0..2 {
                    let error = kernel.set_arp(vni(7), false).unwrap_err();
                    assert!(matches!(error, Error::Renamed { .. }), "{which}: {error}");
                    assert!(!answers("10.7.0.1"), "{which}");
                }
                back();
                kernel.set_arp(vni(7), true).unwrap();
                eventually("it answers again", || answers("10.7.0.1"));
            }
            rename();
            // One that has never seen it under its own name, as `wmgwd withdraw`, and also without its port.
            assert_eq!(existing(), [vni(7)].into());
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
            assert!(existing().is_empty());
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
            bridge_with_station(MORE_ADDRESSES);
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
            let header = format!("{mac} > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806)");
            for (address, unused) in [
                ("10.7.0.1", "10.7.0.255"),
                ("10.7.0.2", "10.7.0.255"),
                ("10.8.0.1", "10.8.0.255"),
            ] {
                for frame in [
                    format!("Reply {address} is-at {mac}"),
                    format!("Request who-has {unused} tell {address}"),
                ] {
                    eventually(&frame, || {
                        seen()
                            .lines()
                            .any(|line| line.contains(&header) && line.contains(&frame))
                    });
                }
            }
            // The third form is worded differently by versions of tcpdump.
            eventually("three forms of each", || seen().lines().count() >= 9);
            assert_eq!(seen().lines().count(), 9, "{}", seen());
            capture.kill().unwrap();
            capture.wait().unwrap();
        },
    );
}

/// Input: a station that drops gratuitous ARP; and an access point that drops gratuitous replies, or all that is
/// gratuitous. Output: a station that knows the dead gateway sends to this one soon.
#[test]
fn stations_behind_filters_are_told() {
    namespace::run(
        "kernel::stations_behind_filters_are_told",
        &["ip", "arping", "nft", "sysctl"],
        || {
            bridge_with_station(MORE_ADDRESSES);
            let mac = sh("cat /sys/class/net/br7/address").trim().to_string();
            let filter = |rule: &str| {
                format!(
                    "nft 'table bridge filter {{ chain output {{ type filter hook output priority 0; {rule} drop; }}; }}'"
                )
            };
            let about_itself = "arp saddr ip 10.7.0.1 arp daddr ip 10.7.0.1";
            let drops = |on: u8| {
                format!(
                    "nsenter --net=/run/netns/station sysctl -qw net.ipv4.conf.eth0.drop_gratuitous_arp={on}"
                )
            };
            let (replies, all) = (
                filter(&format!("arp operation reply {about_itself}")),
                filter(about_itself),
            );
            for (obstacle, lift) in [
                ("true".to_owned(), "true".to_owned()),
                (drops(1), drops(0)),
                (replies, "nft flush ruleset".to_owned()),
                (all, "nft flush ruleset".to_owned()),
            ] {
                if !try_sh(&obstacle).0 {
                    println!("left out, this kernel cannot: {obstacle}");
                    continue;
                }
                sh(
                    "ip -n station neigh replace 10.7.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud reachable",
                );
                let mut kernel = ProcKernel::new();
                eventually(&obstacle, || {
                    let failures = kernel.announce(&[vni(7)], &|| true);
                    assert!(failures.is_empty(), "{failures:?}");
                    sh("ip -n station neigh show 10.7.0.1").contains(&mac)
                });
                sh(&lift);
            }
        },
    );
}

/// Input: a bridge that goes down, comes up, is made anew. Output: each is told, and what defeats the switch and
/// the announcements is found.
#[test]
fn a_link_that_comes_up_again_is_noticed() {
    namespace::run(
        "kernel::a_link_that_comes_up_again_is_noticed",
        &["ip", "arping", "bridge"],
        || {
            bridge_with_station(MORE_ADDRESSES);
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            let bridges = Bridges::default();
            let vnis = |bridges: &Bridges| Vec::from_iter(bridges.vnis(range).unwrap());
            assert_eq!(vnis(&bridges), [vni(7)]);
            assert_eq!(at_start(range), []);
            let watch = RefCell::new(LinkWatch::open(bridges.clone()).unwrap().0);
            let changes = || watch.borrow_mut().changes().unwrap();
            assert_eq!(changes(), []);
            let told = [Change::Bridge(vni(7))];
            sh("ip link set br7 down; ip link set br7 up");
            // The kernel tells of a link that came up with up to a second of delay.
            eventually("risen", || changes().ends_with(&told));
            assert_eq!(changes(), []);
            sh("ip link delete br7; ip link add br7 type bridge");
            eventually("not there", || changes().contains(&told[0]));
            assert_eq!(vnis(&bridges), []);
            sh("ip link set vxlan7 master br7");
            eventually("there again", || changes().contains(&told[0]));
            assert_eq!(vnis(&bridges), [vni(7)]);

            sh(
                "ip link set vxlan7 master br7; bridge link set dev vxlan7 neigh_suppress on
            echo 8 > /proc/sys/net/ipv4/conf/all/arp_ignore",
            );
            let repairs: Vec<_> = at_start(range)
                .into_iter()
                .filter_map(|it| it.remedy)
                .collect();
            let expected = [
                "sysctl -w net.ipv4.conf.all.arp_ignore=0",
                "bridge link set dev vxlan7 neigh_suppress off",
            ];
            assert_eq!(repairs, expected);
            let failures = ProcKernel::new().announce(&[vni(7)], &|| true);
            assert!(
                matches!(&failures[..], [(_, Error::Announce { source, .. })] if source.to_string().contains("no gateway address")),
                "{failures:?}"
            );
        },
    );
}

fn arp_ignore(interface: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Input: bridges that have the name of a VNI's, but are the host's own. Output: not touched by anything, until
/// they get the VXLAN port; silenced when they lose it.
#[test]
fn a_bridge_of_the_hosts_own_is_left_alone() {
    namespace::run(
        "kernel::a_bridge_of_the_hosts_own_is_left_alone",
        &["ip", "arping"],
        || {
            bridge_with_station(MORE_ADDRESSES);
            sh("ip link add br50 type bridge; ip link add vxlan50 type vxlan id 50 dstport 4789
                ip link add br51 type bridge; ip link add vx51 type vxlan id 52 dstport 4789; ip link set vx51 master br51
                ip link add br53 type veth peer name far53; ip link add own type bridge
                ip link add vx54 type vxlan id 54 dstport 4789; ip link set vx54 master own");
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            let host = HostFactory::open(false, range, EvpnFilter::List, Announce::Costs).unwrap();
            assert_eq!(host.vnis().unwrap(), [vni(7)]);
            let mut kernel = host.kernel();
            for number in [50, 51, 53] {
                for answer in [false, true] {
                    let error = kernel.set_arp(vni(number), answer).unwrap_err();
                    assert!(matches!(error, Error::Foreign { .. }), "{error}");
                }
                let audit = kernel.put_back(vni(number), false).unwrap();
                assert_eq!(audit, ArpAudit::Absent);
                assert_eq!(kernel.bridge(vni(number)), None);
                assert_eq!(arp_ignore(&format!("br{number}")), "0");
            }
            let error = kernel.set_arp(vni(54), false).unwrap_err();
            assert!(matches!(error, Error::NoInterface { .. }), "{error}");
            assert_eq!(arp_ignore("own"), "0");

            sh("ip link set vxlan50 master br50");
            // No watch follows the links for this kernel.
            host.bridges().unwrap().reload().unwrap();
            kernel.set_arp(vni(50), false).unwrap();
            assert_eq!(arp_ignore("br50"), "8");
            kernel.set_arp(vni(50), true).unwrap();
            assert_eq!(arp_ignore("br50"), "0");
            sh("ip link set vxlan50 nomaster");
            host.bridges().unwrap().reload().unwrap();
            let error = kernel.set_arp(vni(50), true).unwrap_err();
            assert!(matches!(error, Error::Foreign { .. }), "{error}");
            assert_eq!(arp_ignore("br50"), "8", "it answered for the VNI");
        },
    );
}

/// Input: a bridge that answers and is renamed, with and without another bridge in its place. Output: silenced by
/// the kernel that switched it, and by one of another run, which has not seen that.
#[test]
fn a_renamed_bridge_is_silenced() {
    namespace::run(
        "kernel::a_renamed_bridge_is_silenced",
        &["ip", "arping"],
        || {
            bridge_with_station(MORE_ADDRESSES);
            let range = VniRange::new(vni(1), vni(100)).unwrap();
            let mut kernel = ProcKernel::new();
            kernel.set_arp(vni(7), true).unwrap();
            let mut guard = ProcKernel::new();
            guard.hold(vni(7), kernel.bridge(vni(7)).unwrap());
            for silencer in [&mut kernel, &mut guard, &mut ProcKernel::new()] {
                sh("ip link set br7 name lan7; sysctl -qw net.ipv4.conf.lan7.arp_ignore=0");
                assert!(answers("10.7.0.1"));
                silencer.silence(vni(7)).unwrap();
                assert!(!answers("10.7.0.1") && !answers("10.7.0.2"));
                sh("ip link set lan7 name br7");
            }

            // Another in its place, that is not the VNI's; by a run that wants to answer.
            kernel.set_arp(vni(7), true).unwrap();
            sh("ip link set br7 name lan7; ip link add br7 type bridge");
            assert!(answers("10.7.0.1"));
            let mut next = ProcKernel::new();
            assert!(matches!(
                next.set_arp(vni(7), true),
                Err(Error::Foreign { .. })
            ));
            assert!(!answers("10.7.0.1"));
            assert_eq!(arp_ignore("br7"), "0");
            // A run that has nothing to say of the VNI finds it, too.
            sh("sysctl -qw net.ipv4.conf.lan7.arp_ignore=0");
            let host = HostFactory::open(false, range, EvpnFilter::List, Announce::Costs).unwrap();
            assert_eq!(host.vnis().unwrap(), [vni(7)]);
            assert!(host.kernel().silence_strays(vni(7)).unwrap());
            assert!(!host.kernel().silence_strays(vni(7)).unwrap());
            assert!(!answers("10.7.0.1"));
            // Without its VXLAN port it is not in the VNI: the operator's again.
            sh("ip link set vxlan7 nomaster; sysctl -qw net.ipv4.conf.lan7.arp_ignore=0");
            assert!(!ProcKernel::new().silence_strays(vni(7)).unwrap());
            assert_eq!(arp_ignore("lan7"), "0");
        },
    );
}

/// Input: a bridge that answers is deleted, and made anew with another index. Output: it is absent meanwhile, to the
/// daemon and to the guard, which has it silenced; the new one answers and is silenced as the old one was.
#[test]
fn a_bridge_that_answered_and_is_made_anew_answers_again() {
    namespace::run(
        "kernel::a_bridge_that_answered_and_is_made_anew_answers_again",
        &["ip", "arping"],
        || {
            bridge_with_station("");
            let mut kernel = ProcKernel::new();
            kernel.set_arp(vni(7), true).unwrap();
            let mut guard = ProcKernel::new();
            guard.hold(vni(7), kernel.bridge(vni(7)).unwrap());
            sh("ip link set vxlan7 nomaster; ip link del br7");
            guard.silence(vni(7)).unwrap();
            for answer in [true, false, true] {
                let error = kernel.set_arp(vni(7), answer).unwrap_err();
                assert!(error.is_absence(), "{error}");
            }
            kernel.silence(vni(7)).unwrap();

            kernel.hold(vni(7), u32::from(u16::MAX));
            sh("ip link add br7 type bridge; ip link set vxlan7 master br7; ip link set br7 up");
            for (answer, value) in [(true, "0"), (false, "8"), (true, "0")] {
                kernel.set_arp(vni(7), answer).unwrap();
                assert_eq!(arp_ignore("br7"), value);
            }
        },
    );
}
