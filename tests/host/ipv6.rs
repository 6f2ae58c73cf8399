//! IPv6 gateway addresses against a real kernel, seen from a station.

use crate::flood::{Flood, Request, Tally};
use crate::gate::{GATE_MARGIN, MARGIN, Process, lease, range, serves};
use crate::namespace::{self, bridge_with_station, eventually, sh, try_sh};
use crate::no_guard::NoGuard;
use crate::vni;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto,
    setsockopt, socket, sockopt,
};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use wmgwd::daemon::fence::Fence;
use wmgwd::daemon::gate::{Gate, Opener, TableStatus};
use wmgwd::guard::Guard;
use wmgwd::host::Kernel;
use wmgwd::host::addresses;
use wmgwd::host::nft::KernelLease;
use wmgwd::host::nft::socket::Watch;
use wmgwd::host::nft::wire::Family;
use wmgwd::host::proc::ProcKernel;
use wmgwd::model::types::{LeaseId, Vni, VniRange};
use wmgwd::schema::KernelHold;
use wmgwd::sys::clock;

/// The gateway addresses of br7, and an address of the station.
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const STATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9);

const OTHER_STATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 10);

/// br7 with both gateway addresses and one of its own, and the station behind it.
fn dual_stack() {
    bridge_with_station(
        "sysctl -qw net.ipv6.conf.all.forwarding=1
        ip address add 2001:db8:7::1/64 dev br7 nodad; ip address add fe80::1/64 dev br7 nodad
        ip -n station address add 2001:db8:7::9/64 dev eth0 nodad",
    );
    eventually("the bridge has an address of its own", || {
        let own = sh("ip -6 -o address show dev br7 scope link");
        own.lines()
            .any(|it| !it.contains("fe80::1/") && !it.contains("tentative"))
    });
}

fn fence(line: Box<dyn Guard>) -> Fence {
    let (fence, tended) = fence_through(Arc::new(KernelLease::open), line);
    assert_eq!((tended.ipv6, tended.ipv6_lack), (1, None));
    fence
}

/// A fence that opens nf_tables so, with the gateway addresses that there are.
fn fence_through(opener: Opener, line: Box<dyn Guard>) -> (Fence, TableStatus) {
    fence_of(opener, line, range())
}

fn fence_of(opener: Opener, line: Box<dyn Guard>, range: VniRange) -> (Fence, TableStatus) {
    let kernel = Box::new(ProcKernel::new());
    let fence = Fence::new(MARGIN, kernel, line, Box::new(NoGuard)).unwrap();
    let mut gate = Gate::new(GATE_MARGIN, opener);
    gate.manage(addresses::look_for_ipv6(range).unwrap());
    let (fence, tended) = fence.gated_by(gate, range);
    assert!(tended.trouble.is_none(), "{tended:?}");
    (fence, tended)
}

/// Solicitations for an address over half a second: how many were answered, if all or none were.
#[track_caller]
fn is_answered(address: Ipv6Addr) -> bool {
    let flood = Flood::start("/run/netns/station".as_ref(), STATION, address);
    sleep(Duration::from_millis(100));
    let requests = flood.end();
    let answered = requests.iter().filter(|it| it.answered).count();
    assert!(
        requests.len() > 20 && (answered == 0 || answered == requests.len()),
        "{address}: {answered} of {}",
        requests.len()
    );
    answered > 0
}

fn own_address() -> Ipv6Addr {
    let ipv6 = addresses::look_for_ipv6(range()).unwrap();
    ipv6.bridges["br7"].unwrap()
}

/// Sends a Router Advertisement with this lifetime in seconds to all nodes on br7.
fn advertise(from: Ipv6Addr, lifetime: u16) -> Result<(), Errno> {
    let index = nix::net::if_::if_nametoindex("br7").unwrap();
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::IcmpV6,
    )
    .unwrap();
    let address = |ip| SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, index));
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255).unwrap();
    bind(socket.as_raw_fd(), &address(from)).unwrap();
    let lifetime = lifetime.to_be_bytes();
    let message = [
        134,
        0,
        0,
        0,
        64,
        0,
        lifetime[0],
        lifetime[1],
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    let all_nodes = address("ff02::1".parse().unwrap());
    sendto(socket.as_raw_fd(), &message, &all_nodes, MsgFlags::empty()).map(drop)
}

/// What the station knows of an address.
fn known(address: Ipv6Addr) -> String {
    sh(&format!(
        "ip -n station -6 neighbour show to {address} dev eth0"
    ))
}

/// Input: a gateway that is not the owner, becomes it, and is not any more; then its daemon goes, and leaves. Output: it
/// answers for both gateway addresses while it is the owner, and for the bridge's own at all times. It finds a station
/// that it forwards to, and the station does not take it for its gateway. Its Router Advertisements leave while it is
/// the owner, and never one by which it takes its router back.
#[test]
fn the_owner_alone_answers_and_advertises() {
    namespace::run(
        "ipv6::the_owner_alone_answers_and_advertises",
        &["ip", "arping", "nft", "ping"],
        || {
            dual_stack();
            let own = own_address();
            assert!(
                is_answered(GLOBAL) && is_answered(LINK_LOCAL),
                "no table yet"
            );
            let fence = fence(Box::new(NoGuard));
            let ask_station = |source: Ipv6Addr| {
                sh("ip -6 neighbour flush dev br7; ip -n station -6 neighbour flush dev eth0");
                try_sh(&format!("ping -6 -c 1 -W 2 -I {source} {STATION}"));
                let found = sh(&format!("ip -6 neighbour show to {STATION} dev br7"));
                assert!(found.contains("lladdr"), "it finds the station: {found}");
            };
            let is_silent = || {
                assert!(!is_answered(GLOBAL) && !is_answered(LINK_LOCAL));
                assert!(is_answered(own));
                assert_eq!(advertise(LINK_LOCAL, 1800), Err(Errno::EPERM));
                assert_eq!(advertise(own, 1800), Err(Errno::EPERM));
                assert_eq!(advertise(LINK_LOCAL, 0), Err(Errno::EPERM));
                ask_station(GLOBAL);
                assert!(!known(GLOBAL).contains("lladdr"), "{}", known(GLOBAL));
                assert!(known(own).contains("lladdr"), "asked with its own address");
            };
            is_silent();
            fence.set_lease(Some(lease(Duration::from_secs(600))));
            fence.check_guard().unwrap();
            is_silent();
            assert!(serves(&fence));
            assert!(is_answered(GLOBAL) && is_answered(LINK_LOCAL) && is_answered(own));
            assert_eq!(advertise(LINK_LOCAL, 1800), Ok(()));
            assert_eq!(advertise(LINK_LOCAL, 0), Err(Errno::EPERM));
            ask_station(GLOBAL);
            assert!(known(GLOBAL).contains("lladdr"));
            fence.switch(Some(LeaseId(1)), &[(vni(7), false)]);
            is_silent();
            // An address that comes later.
            let later = "2001:db8:77::1".parse().unwrap();
            sh("ip address add 2001:db8:77::1/64 dev br7 nodad");
            assert!(is_answered(later));
            fence.manage_ipv6(addresses::look_for_ipv6(range()).unwrap());
            assert!(!is_answered(later));
            fence.dismiss_guard().unwrap();
            assert!(!crate::gate::has_table());
            is_silent();
            let withdraw = || {
                try_sh(&format!(
                    "{} withdraw --maxvni 9",
                    env!("CARGO_BIN_EXE_wmgwd")
                ))
            };
            sh("nft delete table ip6 wmgwd");
            assert!(is_answered(GLOBAL));
            withdraw();
            is_silent();
            sh(
                "ip address del fe80::1/64 dev br7; ip address del 2001:db8:7::1/64 dev br7
                ip address del 2001:db8:77::1/64 dev br7",
            );
            withdraw();
            assert_eq!(sh("nft list ruleset"), "", "nothing is left behind");
        },
    );
}

/// Input: a daemon and its guard, both killed at the same moment, under floods in both families. Output: nothing that is
/// asked after the end of the last grant is answered, for no address, and all come to their end within 50 ms of each
/// other.
#[test]
fn both_families_end_at_the_same_moment() {
    namespace::run(
        "ipv6::both_families_end_at_the_same_moment",
        &["ip", "arping", "nft"],
        || {
            dual_stack();
            let mut tally = Tally::default();
            let mut apart = Vec::new();
            for round in 0..10 {
                sh("nft flush ruleset");
                let (guard, line) = Process::start(&format!("wmgwd/ipv6-{round}"));
                let fence = fence(Box::new(line.clone()));
                let mut granted = line.clone();
                let renew = || {
                    let lease = lease(Duration::from_millis(1800));
                    fence.set_lease(Some(lease));
                    lease.valid_until - GATE_MARGIN
                };
                let first = renew();
                eventually("the guard grants", || granted.has_granted(first));
                eventually("it serves", || {
                    renew();
                    serves(&fence)
                });
                let station = "/run/netns/station".as_ref();
                let floods = [
                    Flood::start(station, [10, 7, 0, 9], [10, 7, 0, 1]),
                    Flood::start(station, STATION, GLOBAL),
                    // From another address: the kernel has one neighbour for each.
                    Flood::start(station, OTHER_STATION, LINK_LOCAL),
                ];
                let mut end = renew();
                eventually("the guard grants", || {
                    end = end.max(renew());
                    sleep(Duration::from_millis(40));
                    granted.has_granted(end)
                });
                guard.signal(Signal::SIGKILL);
                let killed = clock::now();
                sleep(end.since(killed) + Duration::from_millis(150));
                let last: Vec<_> = floods
                    .map(|flood| {
                        let requests: Vec<Request> = flood.end();
                        tally.add(&requests, killed, end);
                        requests.iter().rfind(|it| it.answered).unwrap().sent
                    })
                    .into();
                let (first, newest) = (last.iter().min().unwrap(), last.iter().max().unwrap());
                apart.push(newest.since(*first).as_millis());
            }
            apart.sort_unstable();
            println!("{tally}; apart by so many ms: {apart:?}");
            assert_eq!((tally.late, tally.again), (0, 0));
            // The median: a flood's thread may be held up.
            assert!(apart[apart.len() / 2] <= 50, "{apart:?}");
        },
    );
}

/// Input: on the owner, and then on a gateway that is not: something else deletes or changes the tables, or empties a set
/// of the one family alone. Output: put back each time, and what is answered is what it was before, in each family; what
/// was changed is as it was.
#[test]
fn what_is_done_to_the_tables_is_put_back() {
    namespace::run(
        "ipv6::what_is_done_to_the_tables_is_put_back",
        &["ip", "arping", "nft"],
        || {
            dual_stack();
            let fence = fence(Box::new(NoGuard));
            let mut watch = Watch::open().unwrap();
            let table = || {
                sh(
                    "nft list table ip6 wmgwd | grep -v -e expires -e counter; nft list set arp wmgwd owned",
                )
            };
            let handle = "handle() { nft -a list chain ip6 wmgwd $1 | sed -n \"/$2/s/.*handle //p\" | head -n 1; }";
            for owns in [true, false] {
                if owns {
                    fence.set_lease(Some(lease(Duration::from_secs(600))));
                    fence.check_guard().unwrap();
                    assert!(serves(&fence));
                } else {
                    fence.switch(Some(LeaseId(1)), &[(vni(7), false)]);
                }
                let whole = table();
                for meddle in [
                    "nft flush ruleset",
                    "nft delete table ip6 wmgwd",
                    "nft delete table arp wmgwd",
                    "nft flush chain ip6 wmgwd input",
                    "nft flush chain ip6 wmgwd output",
                    "nft insert rule ip6 wmgwd input accept",
                    "nft delete rule ip6 wmgwd output handle $(handle output set)",
                    "nft flush set ip6 wmgwd managed",
                    "nft flush set ip6 wmgwd shared",
                    "nft flush map ip6 wmgwd self",
                    "nft flush set ip6 wmgwd owned",
                    "nft add element ip6 wmgwd owned '{ br7, br9 }'",
                    "nft add element ip6 wmgwd managed '{ br9 }'",
                    "nft add table ip6 wmgwd '{ flags dormant; }'",
                ] {
                    sh(&format!("{handle}; {meddle}"));
                    let tended = fence.tend_gate(watch.look(fence.gate_port()).unwrap());
                    assert!(tended.trouble.is_none(), "{meddle}: {tended:?}");
                    assert_eq!(
                        (tended.gated, tended.ipv6),
                        (usize::from(owns), 1),
                        "{meddle}"
                    );
                    assert_eq!(table(), whole, "{meddle}");
                    let answered = [
                        try_sh(
                            "nsenter --net=/run/netns/station arping -c 1 -w 1 -I eth0 10.7.0.1",
                        )
                        .0,
                        is_answered(GLOBAL),
                        is_answered(LINK_LOCAL),
                    ];
                    assert_eq!(answered, [owns; 3], "{meddle}");
                }
            }
        },
    );
}

/// Input: a takeover of a bridge whose addresses a station has at another gateway. Output: the announcement moves the
/// station for both, and it keeps them as routers.
#[test]
fn an_announcement_moves_both_addresses() {
    namespace::run(
        "ipv6::an_announcement_moves_both_addresses",
        &["ip", "arping", "nft"],
        || {
            dual_stack();
            for address in [GLOBAL, LINK_LOCAL] {
                sh(&format!(
                    "ip -n station neighbour replace {address} lladdr 02:00:00:00:00:66 dev eth0 nud stale router"
                ));
            }
            let mac = sh("cat /sys/class/net/br7/address");
            let failures = ProcKernel::new().announce(&[vni(7)], &|| true);
            assert!(failures.is_empty(), "{failures:?}");
            for address in [GLOBAL, LINK_LOCAL] {
                eventually("the station moves", || known(address).contains(mac.trim()));
                assert!(known(address).contains("router"), "{}", known(address));
            }
        },
    );
}

/// Input: bridges whose own link-local address the kernel makes of the MAC address, and of something else. Output: it is
/// not announced: it is not the gateway's.
#[test]
fn the_own_address_of_a_bridge_is_not_announced() {
    namespace::run(
        "ipv6::the_own_address_of_a_bridge_is_not_announced",
        &["ip", "arping"],
        || {
            dual_stack();
            sh("sysctl -qw net.ipv6.conf.br7.keep_addr_on_down=1");
            for mode in ["eui64", "random"] {
                sh(&format!(
                    "ip link set br7 down; ip link set br7 addrgenmode {mode}; ip link set br7 up"
                ));
                let mut own = None;
                eventually("the bridge has an address of its own", || {
                    own = addresses::look_for_ipv6(range()).unwrap().bridges["br7"];
                    own.is_some()
                });
                let own = own.unwrap();
                assert_eq!(
                    own.octets()[11..13] == [0xff, 0xfe],
                    mode == "eui64",
                    "{own}"
                );
                for address in [GLOBAL, own] {
                    sh(&format!(
                        "ip -n station neighbour replace {address} lladdr 02:00:00:00:00:66 dev eth0 nud stale router"
                    ));
                }
                let mac = sh("cat /sys/class/net/br7/address");
                let failures = ProcKernel::new().announce(&[vni(7)], &|| true);
                assert!(failures.is_empty(), "{failures:?}");
                // Announced after the other, had it been.
                eventually("the station moves", || known(GLOBAL).contains(mac.trim()));
                assert!(known(own).contains("02:00:00:00:00:66"), "{}", known(own));
            }
        },
    );
}

/// Input: a host whose bridge has no IPv6 gateway address, and one without IPv6. Output: ARP is gated and answered as
/// ever, nothing is said to be lacking, and nothing of IPv6 is kept from the stations.
#[test]
fn a_host_without_ipv6_addresses_notices_nothing() {
    namespace::run(
        "ipv6::a_host_without_ipv6_addresses_notices_nothing",
        &["ip", "arping", "nft"],
        || {
            bridge_with_station(
                "sysctl -qw net.ipv6.conf.all.forwarding=1
                ip -n station address add 2001:db8:7::9/64 dev eth0 nodad",
            );
            let link_local = "ip -6 -o address show dev br7 scope link | sed -n 's,.*inet6 \\([^/]*\\)/.*,\\1,p'";
            let mut own = String::new();
            eventually("the bridge has an address of its own", || {
                own = sh(link_local).trim().to_owned();
                !own.is_empty() && !sh("ip -6 address show dev br7").contains("tentative")
            });
            let own: Ipv6Addr = own.parse().unwrap();
            for has_ipv6 in [true, false] {
                if !has_ipv6 {
                    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
                }
                sh("nft flush ruleset");
                let (fence, tended) = fence_through(Arc::new(KernelLease::open), Box::new(NoGuard));
                assert_eq!((tended.ipv6, tended.ipv6_lack), (0, None));
                let hold = fence.ipv6_hold().unwrap();
                assert_eq!((hold.bridges, hold.lack), (0, None));
                let answers = || {
                    try_sh("nsenter --net=/run/netns/station arping -c 1 -w 1 -I eth0 10.7.0.1").0
                };
                let may_advertise = |expected: Result<(), Errno>| {
                    if has_ipv6 {
                        assert!(is_answered(own));
                        assert_eq!(advertise(own, 1800), expected);
                    }
                };
                may_advertise(Ok(()));
                fence.set_lease(Some(lease(Duration::from_secs(600))));
                fence.check_guard().unwrap();
                assert!(serves(&fence) && answers());
                may_advertise(Ok(()));
                fence.switch(Some(LeaseId(1)), &[(vni(7), false)]);
                assert!(!answers());
                may_advertise(Ok(()));
                fence.dismiss_guard().unwrap();
                assert_eq!(sh("nft list ruleset"), "", "nothing is left behind");
            }
        },
    );
}

/// Input: a kernel that has the table of ARP and not that of IPv6, under gateway addresses. Output: ARP is gated and
/// switched, the addresses are answered at all times, and it is said how many and why.
#[test]
fn a_kernel_without_the_table_of_ipv6_switches_arp_alone() {
    namespace::run(
        "ipv6::a_kernel_without_the_table_of_ipv6_switches_arp_alone",
        &["ip", "arping", "nft"],
        || {
            dual_stack();
            let (fence, tended) =
                fence_through(Arc::new(crate::gate::without_ipv6), Box::new(NoGuard));
            let lack = tended.ipv6_lack.unwrap();
            assert_eq!(tended.ipv6, 1);
            assert!(lack.contains("not supported"), "{lack}");
            let hold = fence.ipv6_hold().unwrap();
            assert_eq!((hold.bridges, hold.lack), (1, Some(lack)));
            assert_eq!(fence.kernel_hold(), Some(KernelHold::Held));
            fence.set_lease(Some(lease(Duration::from_secs(600))));
            fence.check_guard().unwrap();
            let arp =
                || try_sh("nsenter --net=/run/netns/station arping -c 1 -w 1 -I eth0 10.7.0.1").0;
            let all = || [arp(), is_answered(GLOBAL), is_answered(LINK_LOCAL)];
            assert!(serves(&fence));
            assert_eq!(all(), [true; 3]);
            fence.switch(Some(LeaseId(1)), &[(vni(7), false)]);
            assert_eq!(all(), [false, true, true]);
            assert!(!sh("nft list tables").contains("ip6"));
        },
    );
}

/// Input: a kernel that has both families. Output: a trial of each says so, and makes nothing.
#[test]
fn a_trial_of_ipv6_makes_nothing() {
    namespace::run("ipv6::a_trial_of_ipv6_makes_nothing", &["nft"], || {
        let mut table = KernelLease::open().unwrap();
        table.try_to_make(Family::Ip6).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Input: 1000 bridges with an IPv4 gateway address each; then with two of IPv6 as well. Output: the CPU time that it
/// takes to find the latter, to switch all on, to announce and to fence them, on demand: `WMGWD_MEASURE=1`.
#[test]
fn what_a_thousand_bridges_cost() {
    if std::env::var_os("WMGWD_MEASURE").is_none() {
        println!("what_a_thousand_bridges_cost: skipped, set WMGWD_MEASURE=1");
        return;
    }
    namespace::run("ipv6::what_a_thousand_bridges_cost", &["ip", "nft"], || {
        sh("ip link set lo up; mount -t tmpfs tmpfs /run");
        let batch = |lines: &dyn Fn(u32) -> String| {
            let all: String = (1..=BRIDGES).map(lines).collect();
            std::fs::write("/run/batch", all).unwrap();
            sh("ip -batch /run/batch");
        };
        batch(&|i| {
            format!(
                "link add br{i} type bridge\nlink add vxlan{i} type vxlan id {i} dstport 4789 nolearning\n\
                 link set vxlan{i} master br{i} up\naddress add 10.{}.{}.1/24 dev br{i}\nlink set br{i} up\n",
                64 + i / 256,
                i % 256
            )
        });
        let alone = switch_a_thousand();
        batch(&|i| {
            format!(
                "address add 2001:db8:{i:x}::1/64 dev br{i} nodad\naddress add fe80::1/64 dev br{i} nodad\n"
            )
        });
        let both = switch_a_thousand();
        for ((what, alone), (_, both)) in alone.iter().zip(&both) {
            let ratio = both.as_secs_f64() / alone.as_secs_f64();
            println!(
                "{what}: {alone:?} with ARP alone, {both:?} with both families, {ratio:.1} times as much"
            );
        }
    });
}

const BRIDGES: u32 = 1000;

/// The medians of five times each.
fn switch_a_thousand() -> Vec<(&'static str, Duration)> {
    let last = Vni::new(BRIDGES).unwrap();
    let range = VniRange::new(Vni::MIN, last).unwrap();
    let vnis: Vec<Vni> = range.iter().collect();
    let on: Vec<(Vni, bool)> = vnis.iter().map(|vni| (*vni, true)).collect();
    let mut rounds: Vec<Vec<(&str, Duration)>> = Vec::new();
    for _ in 0..5 {
        sh("nft flush ruleset");
        let mut times = Vec::new();
        let mut timed = |what, act: &mut dyn FnMut()| {
            let begun = clock::thread_cpu_time();
            act();
            times.push((what, clock::thread_cpu_time() - begun));
        };
        timed("addresses found", &mut || {
            addresses::look_for_ipv6(range).unwrap();
        });
        let (fence, _) = fence_of(Arc::new(KernelLease::open), Box::new(NoGuard), range);
        fence.set_lease(Some(lease(Duration::from_secs(600))));
        fence.check_guard().unwrap();
        timed("switched on", &mut || {
            assert_eq!(fence.switch(Some(LeaseId(1)), &on).len(), vnis.len());
        });
        assert_eq!(fence.answering().len(), vnis.len());
        let mut kernel = ProcKernel::new();
        timed("announced", &mut || {
            let failures = kernel.announce(&vnis, &|| true);
            assert!(failures.is_empty(), "{failures:?}");
        });
        timed("fenced", &mut || {
            assert_eq!(fence.silence().silenced, vnis.len());
        });
        rounds.push(times);
    }
    (0..rounds[0].len())
        .map(|at| {
            let mut all: Vec<Duration> = rounds.iter().map(|round| round[at].1).collect();
            all.sort_unstable();
            (rounds[0][at].0, all[all.len() / 2])
        })
        .collect()
}
