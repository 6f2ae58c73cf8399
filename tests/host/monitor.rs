//! The kernel half of the host monitor, and the guard, against a real kernel: what is done to bridges behind the
//! daemon's back, by whatever else runs on the host.

use crate::namespace::{self, eventually, sh, try_sh};
use crate::no_guard::NoGuard;
use crate::vni;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use wmgwd::daemon::fence::Fence;
use wmgwd::daemon::host_monitor::KernelMonitor;
use wmgwd::gateway::ArpOutcome;
use wmgwd::guard::address::Address;
use wmgwd::guard::process::Process;
use wmgwd::guard::protocol::{Greeting, Order};
use wmgwd::host::bridges::Change;
use wmgwd::host::links::{Bridges, LinkWatch};
use wmgwd::host::mock::Mock;
use wmgwd::host::proc::ProcKernel;
use wmgwd::model::types::{Lease, LeaseId, Vni, VniRange};
use wmgwd::sys::clock;

/// Brings up the bridges of these VNIs.
fn bridges(vnis: std::ops::RangeInclusive<u32>) {
    let links: String = vnis
        .map(|i| {
            format!(
                "link add br{i} type bridge\nlink add vxlan{i} type vxlan id {i} dstport 4789\n\
                 link set vxlan{i} master br{i}\naddr add 10.{}.{}.1/24 dev br{i}\n\
                 link set vxlan{i} up\nlink set br{i} up\n",
                16 + i / 256,
                i % 256
            )
        })
        .collect();
    // A place of this namespace alone: tests run side by side, each as process 1.
    sh("mount -t tmpfs tmpfs /run");
    std::fs::write("/run/links", links).unwrap();
    sh("ip link set lo up; ip -batch /run/links");
}

/// Waits until every bridge has been told to be up: the kernel tells of a new one's carrier up to a second late.
fn all_are_up() {
    let is_up = || !try_sh("ip -br link show type bridge | grep -qv ' UP '").0;
    eventually("every bridge up", is_up);
}

fn arp_ignore(interface: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// The lease of all tests.
const ID: LeaseId = LeaseId(1);

/// A gateway that serves VNIs 1 and 2 and not 3 and 4, and its monitor.
fn scene() -> (Arc<Fence>, Mutex<KernelMonitor>) {
    bridges(1..=4);
    let range = VniRange::new(vni(1), vni(100)).unwrap();
    let bridges = Bridges::default();
    let kernel = Box::new(ProcKernel::with(bridges.clone()));
    let fence = Fence::new(
        Duration::from_millis(100),
        kernel,
        Box::new(NoGuard),
        Box::new(NoGuard),
    );
    let fence = Arc::new(fence.unwrap());
    fence.set_lease(Some(Lease {
        id: ID,
        valid_until: clock::now() + Duration::from_secs(600),
    }));
    let monitor = KernelMonitor::new(bridges, range, fence.clone());
    let switches: Vec<(Vni, bool)> = (1..=4).map(|i| (vni(i), i < 3)).collect();
    for (vni, outcome, _) in fence.switch(Some(ID), &switches) {
        assert_eq!(outcome, ArpOutcome::Answers(vni.get() < 3));
    }
    (fence, Mutex::new(monitor))
}

/// Input: a serving bridge is renamed; another has its place, or has not. Output: silent, and the core is told;
/// named back, it is told again.
#[test]
fn a_bridge_renamed_in_use_is_silenced_at_once() {
    namespace::run(
        "monitor::a_bridge_renamed_in_use_is_silenced_at_once",
        &["ip"],
        || {
            let (fence, monitor) = scene();
            let look = || monitor.lock().unwrap().look();
            sh("ip link set br1 name lan1");
            eventually("VNI 1 has no bridge", || look().contains(&vni(1)));
            assert_eq!(arp_ignore("lan1"), "8");
            assert_eq!(fence.answering(), [vni(2)].into());
            sh("ip link set lan1 name br1");
            eventually("VNI 1 has a bridge", || look().contains(&vni(1)));
            fence.switch(Some(ID), &[(vni(1), true)]);
            assert_eq!(arp_ignore("br1"), "0");

            sh(
                "ip link set br1 name lan1; ip link add br1 type bridge; ip link set vxlan1 master br1",
            );
            eventually("VNI 1 has another bridge", || look().contains(&vni(1)));
            assert_eq!(arp_ignore("lan1"), "8");
            assert!(!fence.answering().contains(&vni(1)));
        },
    );
}

/// Input: something on the host switches ARP of bridges on and off, and of a renamed one; and all of them at once.
/// Output: each is put back by a look that nothing else caused.
#[test]
fn arp_switched_behind_our_back_is_put_back() {
    namespace::run(
        "monitor::arp_switched_behind_our_back_is_put_back",
        &["ip", "sysctl"],
        || {
            let (_fence, monitor) = scene();
            let look = || monitor.lock().unwrap().look();
            let is_right = || {
                look();
                (1..=4).all(|i| arp_ignore(&format!("br{i}")) == if i < 3 { "0" } else { "8" })
            };
            assert!(is_right());
            for value in [0, 1, 8] {
                for vnis in [1..=1, 3..=3, 1..=4] {
                    for i in vnis {
                        sh(&format!(
                            "sysctl -qw net.ipv4.conf.br{i}.arp_ignore={value}"
                        ));
                    }
                    eventually("put back", is_right);
                }
            }
            sh("ip link set br4 name lan4");
            eventually("told", || look().contains(&vni(4)));
            sh("sysctl -qw net.ipv4.conf.lan4.arp_ignore=0");
            let is_silent = || {
                look();
                arp_ignore("lan4") == "8"
            };
            eventually("silent again", is_silent);
        },
    );
}

/// Input: the switch of a bridge that has to answer is off and cannot be written; then it can. Output: the core is told
/// once, so that it tries and gives the VNI up; then put back.
#[test]
fn a_switch_that_cannot_be_put_back_is_told_to_the_core() {
    namespace::run(
        "monitor::a_switch_that_cannot_be_put_back_is_told_to_the_core",
        &["ip", "sysctl", "mount"],
        || {
            let (_fence, monitor) = scene();
            let look = || monitor.lock().unwrap().look();
            eventually("all told", || look().is_empty());
            sh("sysctl -qw net.ipv4.conf.br1.arp_ignore=8");
            let switch = "/proc/sys/net/ipv4/conf/br1/arp_ignore";
            sh(&format!(
                "mount --bind {switch} {switch}; mount -o remount,bind,ro {switch}"
            ));
            eventually("the core is told", || look().contains(&vni(1)));
            let until = clock::now() + Duration::from_secs(3);
            eventually("more looks", || {
                assert!(!look().contains(&vni(1)), "told once");
                clock::now() > until
            });
            assert_eq!(arp_ignore("br1"), "8");
            sh(&format!("umount {switch}"));
            eventually("put back", || {
                look();
                arp_ignore("br1") == "0"
            });
        },
    );
}

/// Input: so many bridges come up that the kernel cannot tell it all, while one that is there goes down and up.
/// Output: these are told, and no other of those that were there before.
#[test]
fn lost_messages_tell_only_of_what_rose() {
    namespace::run(
        "monitor::lost_messages_tell_only_of_what_rose",
        &["ip"],
        || {
            bridges(1..=20);
            all_are_up();
            let known = Bridges::default();
            // Room for a message or two.
            let watch = LinkWatch::with_buffer(known.clone(), 4096).unwrap().0;
            let watch = Mutex::new(watch);
            let changes = || watch.lock().unwrap().changes().unwrap();
            eventually("quiet", || changes().is_empty());
            let count = |vni: u32| {
                let path = format!("/sys/class/net/br{vni}/carrier_up_count");
                std::fs::read_to_string(path).unwrap()
            };
            sh("mount -t sysfs sysfs /sys");
            let before = count(9);
            sh("ip link set br9 down; ip link set br9 up");
            eventually("up again", || count(9) != before);
            bridges(21..=60);
            let mut told = std::collections::BTreeSet::new();
            let expected = Vec::from_iter([9].into_iter().chain(21..=60));
            eventually("all that came up", || {
                let mut told_now = changes();
                told_now.retain(|it| matches!(it, Change::Bridge(_)));
                told.extend(told_now);
                told.len() >= expected.len()
            });
            let told = told.into_iter().map(|change| match change {
                Change::Bridge(vni) => vni.get(),
                other => panic!("{other:?}"),
            });
            assert_eq!(Vec::from_iter(told), expected);
        },
    );
}

/// Input: `neigh_suppress` of a VXLAN port goes on and off. Output: told each time, once.
#[test]
fn suppression_is_noticed() {
    namespace::run("monitor::suppression_is_noticed", &["ip", "bridge"], || {
        bridges(1..=2);
        let watch = Mutex::new(LinkWatch::open(Bridges::default()).unwrap().0);
        for (flag, on) in [("on", true), ("off", false), ("on", true)] {
            sh(&format!("bridge link set dev vxlan2 neigh_suppress {flag}"));
            let expected = Change::Suppression {
                vni: vni(2),
                port: "vxlan2".into(),
                on,
            };
            let changes = || watch.lock().unwrap().changes().unwrap();
            let mut told = Vec::new();
            let told = Mutex::new(&mut told);
            eventually(flag, || {
                let mut told = told.lock().unwrap();
                told.extend(changes());
                !told.is_empty()
            });
            assert_eq!(**told.lock().unwrap(), [expected]);
        }
    });
}

/// Input: a daemon that is gone, its lease over, and a bridge that was renamed since it was told of. Output: the
/// guard silences the bridge.
#[test]
fn a_guard_silences_a_renamed_bridge() {
    namespace::run(
        "monitor::a_guard_silences_a_renamed_bridge",
        &["ip"],
        || {
            bridges(1..=2);
            let mut kernel = ProcKernel::new();
            let index = wmgwd::host::Kernel::bridge(&mut kernel, vni(1)).unwrap();
            wmgwd::host::Kernel::set_arp(&mut kernel, vni(1), true).unwrap();
            let name = format!("renamed-{}", std::process::id()).parse().unwrap();
            let address = Address::new(&name, Some("host-test"));
            let range = VniRange::new(vni(1), vni(9)).unwrap();
            let router = Box::new(Mock::new(range).unwrap());
            let kernel = Box::new(ProcKernel::new());
            let guard =
                Process::bind(&address, Duration::from_millis(100), kernel, router).unwrap();
            let guard = std::thread::spawn(|| guard.run());
            let mut daemon = address.connect().unwrap();
            daemon.set_nonblocking(false).unwrap();
            daemon.write_all(Order::Hello.line().as_bytes()).unwrap();
            let mut greeting = String::new();
            BufReader::new(&daemon).read_line(&mut greeting).unwrap();
            assert_eq!(Greeting::read(&greeting), Some(Greeting::Fresh));
            let mut say = |order: Order| daemon.write_all(order.line().as_bytes()).unwrap();
            let lease = |lasts| {
                Order::Lease(Lease {
                    id: ID,
                    valid_until: clock::now() + Duration::from_secs(lasts),
                })
            };
            say(lease(600));
            say(Order::Serves(vec![(vni(1), index)]));
            sh("ip link set br1 name lan1");
            assert_eq!(arp_ignore("lan1"), "0");
            say(lease(0));
            drop(daemon);
            guard.join().unwrap();
            assert_eq!(arp_ignore("lan1"), "8");
        },
    );
}

/// What following and comparing costs: `WMGWD_MEASURE=10000 cargo test --test host monitor -- --nocapture`.
#[test]
fn figures() {
    let Ok(count) = std::env::var("WMGWD_MEASURE") else {
        println!("monitor: skipped, set WMGWD_MEASURE to a number of bridges");
        return;
    };
    assert!(count.parse::<u32>().is_ok());
    namespace::run("monitor::figures", &["ip"], || {
        let count: u32 = std::env::var("WMGWD_MEASURE").unwrap().parse().unwrap();
        bridges(1..=count);
        let range = VniRange::new(vni(1), vni(count)).unwrap();
        let known = Bridges::default();
        let begun = clock::now();
        let cpu = || {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            let nanoseconds = text.split_whitespace().next().unwrap().parse().unwrap();
            Duration::from_nanos(nanoseconds)
        };
        known.reload().unwrap();
        println!("all links, first: {:?}", clock::now().since(begun));
        let fence = Fence::new(
            Duration::from_millis(100),
            Box::new(ProcKernel::with(known.clone())),
            Box::new(NoGuard),
            Box::new(NoGuard),
        );
        let fence = Arc::new(fence.unwrap());
        fence.set_lease(Some(Lease {
            id: ID,
            valid_until: clock::now() + Duration::from_secs(6000),
        }));
        let mut monitor = KernelMonitor::new(known, range, fence.clone());
        for (what, answer) in [
            ("silenced and marked", false),
            ("answer", true),
            ("silenced", false),
            ("answer", true),
        ] {
            let switches: Vec<(Vni, bool)> = range.iter().map(|vni| (vni, answer)).collect();
            let before = cpu();
            fence.switch(Some(ID), &switches);
            println!("{count} {what}: {:?}", cpu() - before);
        }
        let begun = clock::now();
        let before = cpu();
        let mut longest = Duration::ZERO;
        while clock::now().since(begun) < Duration::from_secs(40) {
            let start = cpu();
            monitor.look();
            longest = longest.max(cpu() - start);
            std::thread::sleep(Duration::from_secs(1));
        }
        let took = cpu() - before;
        println!("40 s of looks: {took:?} in all, the longest {longest:?}");
        let switches: Vec<(Vni, bool)> = range.iter().map(|vni| (vni, true)).collect();
        for i in (1..=count).filter(|i| i % 2 == 0) {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/br{i}/arp_ignore"), "8").unwrap();
        }
        let begun = clock::now();
        eventually("put back", || {
            monitor.look();
            arp_ignore(&format!("br{}", count / 2 * 2)) == "0"
        });
        println!(
            "{} switched off are put back after {:?}",
            switches.len() / 2,
            clock::now().since(begun)
        );
    });
}
