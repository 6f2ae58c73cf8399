//! Real daemons on real FRR with real packets: the lab of `contrib/lab`.
//!
//! What a gateway shows is looked at from outside: a station asks for its gateway's MAC address, the access
//! point's EVPN table and the upstream router's routes are read, and packets cross it both ways all the time.
#![allow(clippy::unwrap_used)]

#[path = "lab/dual_stack.rs"]
mod dual_stack;
#[path = "common/flood.rs"]
mod flood;
#[path = "lab/frr.rs"]
mod frr;
#[path = "lab/network.rs"]
#[allow(dead_code)]
mod network;
#[path = "lab/probe.rs"]
#[allow(dead_code)]
mod probe;
#[path = "lab/routes.rs"]
mod routes;
#[path = "lab/traffic.rs"]
mod traffic;

use flood::{Flood, Load, Tally};
use network::{Lab, eventually, points};
use nix::sched::{CloneFlags, setns};
use probe::{Family, Flow, Probe, Way};
use std::fs::File;
use std::thread::sleep;
use std::time::Duration;
use traffic::{Prober, turns};
use wmgwd::host::nft::{Found, KernelLease};
use wmgwd::model::types::Time;
use wmgwd::sys::clock;

/// /etc/nftables.conf as Debian's package nftables has it.
const DEBIAN: &str = "\
#!/usr/sbin/nft -f

flush ruleset

table inet filter {
\tchain input {
\t\ttype filter hook input priority filter;
\t}
\tchain forward {
\t\ttype filter hook forward priority filter;
\t}
\tchain output {
\t\ttype filter hook output priority filter;
\t}
}
";

const FAST: [&str; 4] = ["--settle", "0.5", "--join-hold", "1"];

/// Probes both stations both ways in both families, and waits until all packets arrive.
fn probe(lab: &Lab) -> Probe {
    let families = [Family::V4, Family::V6];
    let probe = Probe::start(lab, 2, &[Way::Up, Way::Down], &families);
    flows(&probe);
    probe
}

fn flows(probe: &Probe) {
    eventually("packets flow both ways", || probe.flows());
}

/// How many packets of all were lost.
fn lost(flows: &[Flow]) -> u64 {
    flows.iter().map(|flow| flow.lost).sum()
}

/// Input: the configuration as the original project documents it, and as our example does, in both filter
/// modes. Output: exactly the owner of each VNI advertises it, answers for it and draws its traffic; a station
/// reaches the host; a drain loses nothing.
fn serves(test: &str, config: &str, filter: &str) {
    let Some(lab) = Lab::dual_stack(test, 2, 4, config) else {
        return;
    };
    let uids = points();
    let options =
        |node: usize| [&FAST[..], &["--evpn-filter", filter, "--uids", &uids[node]]].concat();
    let mut first = lab.start("gw1", &options(0));
    let _second = lab.start("gw2", &options(1));
    // One of the two took all at first, so that this has seen migrations.
    let owners = lab.settled(&["gw1", "gw2"]);
    lab.shows(&owners);

    let probers = [1, 2].map(|vni| Prober::start(&lab, vni));
    let probe = probe(&lab);
    probe.mark();
    for (prober, owner) in probers.into_iter().zip(&owners) {
        let answers = prober.end();
        let number: u8 = owner.strip_prefix("gw").unwrap().parse().unwrap();
        assert_eq!(turns(&answers), [number], "{owner} alone answers");
    }

    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    let owners = lab.settled(&["gw2"]);
    lab.shows(&owners);
    flows(&probe);
    let flows = probe.end();
    println!("{test}: drain: {flows:?}");
    assert_eq!(lost(&flows), 0, "{flows:?}");
}

#[test]
fn serves_with_our_configuration() {
    serves("serves_with_our_configuration", "example", "list");
}

#[test]
fn serves_with_the_documented_configuration() {
    serves(
        "serves_with_the_documented_configuration",
        "original",
        "list",
    );
}

#[test]
fn serves_with_an_entry_for_each_vni() {
    serves("serves_with_an_entry_for_each_vni", "example", "entries");
}

/// Input: a gateway that owns a station's VNI loses its power; later it comes back. Output: the other takes
/// over, never both answer, and going back loses nothing.
#[test]
fn a_dead_gateway_is_replaced_and_comes_back() {
    let test = "a_dead_gateway_is_replaced_and_comes_back";
    let Some(lab) = Lab::dual_stack(test, 2, 2, "example") else {
        return;
    };
    let daemon = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    let _second = lab.start("gw2", &[&FAST[..], &["--uids", "1"]].concat());
    let probe = probe(&lab);
    lab.verb(&["kill", "gw1"]);
    drop(daemon);
    let owners = lab.settled(&["gw2"]);
    lab.shows(&owners);
    flows(&probe);

    lab.verb(&["revive", "gw1"]);
    // What its boot costs, before any daemon runs on it, is not the migration's.
    flows(&probe);
    probe.mark();
    // A gateway that has just booted has no routes yet: that is what the hold is for.
    let _first = lab.start("gw1", &["--settle", "0.5", "--join-hold", "25"]);
    let mut owners = Vec::new();
    eventually("gw1 has VNIs again", || {
        owners = lab
            .rows()
            .into_iter()
            .map(|(_, kind, owner)| if kind == "1" { owner } else { String::new() })
            .collect();
        owners.iter().any(|owner| owner == "gw1") && !owners.contains(&String::new())
    });
    lab.shows(&owners);
    flows(&probe);
    let flows = probe.end();
    println!("{test}: migration back: {flows:?}");
    assert_eq!(lost(&flows), 0, "a migration loses nothing: {flows:?}");
}

/// Input: the documented configuration, with which FRR gives up its route for the shared address when it
/// hears another gateway's. VNIs go from gw1 to gw2, then gw2 loses its power. Output: gw1 advertises the
/// addresses again all the same, and its log says that the routes had been lost.
#[test]
fn a_route_given_up_to_another_gateway_comes_back() {
    let test = "a_route_given_up_to_another_gateway_comes_back";
    let Some(lab) = Lab::up(test, 2, 2, "original") else {
        return;
    };
    let mut first = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    lab.shows(&lab.settled(&["gw2"]));

    let again = lab.start("gw1", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw1 is registered again", || {
        again.log().matches("registered name=gw1").count() > 1
    });
    lab.verb(&["kill", "gw2"]);
    drop(second);
    let owners = lab.settled(&["gw1"]);
    eventually("gw1 advertises every address", || {
        let advertised = lab.advertised();
        (1..)
            .zip(&owners)
            .all(|(vni, owner)| advertised.get(&vni) == Some(&vec![owner.clone()]))
    });
    eventually("gw1 says that its routes had been lost", || {
        let log = again.log();
        log.contains("had been given up to another gateway's, brought back")
    });
}

/// Input: the owner's daemon is stopped (SIGSTOP) for longer than its lease, while its kernel and FRR go on.
/// Output: its guard silences it before the other answers: never two gateways answer a station. Woken up, it
/// takes nothing that is not its own.
#[test]
fn a_stopped_daemon_is_silenced_by_its_guard() {
    let test = "a_stopped_daemon_is_silenced_by_its_guard";
    let Some(lab) = Lab::dual_stack(test, 2, 2, "example") else {
        return;
    };
    let first = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    // It has no points, as it were: only what the other lets go comes to it.
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    let prober = Prober::start(&lab, 1);
    let probe = probe(&lab);
    lab.signal(&first, "STOP");
    eventually("nothing is gw1's", || {
        lab.rows().iter().all(|(_, _, owner)| owner != "gw1")
    });
    // What the ring gives to gw1 has no owner once its registration has ended, and then gw2's.
    let owners = lab.settled(&["gw2"]);
    lab.shows(&owners);
    flows(&probe);
    lab.signal(&first, "CONT");
    eventually("gw1 has noticed", || {
        first.log().matches("registered name=gw1").count() >= 2
    });
    lab.shows(&lab.settled(&["gw2"]));
    let answers = prober.end();
    println!("{test}: answers={} {:?}", answers.len(), probe.end());
    assert_eq!(turns(&answers), [1, 2], "first gw1 alone, then gw2 alone");
}

/// Input: the owner's daemon is killed (SIGKILL) and started again within its lease. Output: its guard keeps
/// what it served, the new run takes it over: not a packet is lost.
#[test]
fn a_daemon_restarted_within_its_lease_loses_nothing() {
    let test = "a_daemon_restarted_within_its_lease_loses_nothing";
    let Some(lab) = Lab::dual_stack(test, 2, 2, "example") else {
        return;
    };
    let first = lab.start("gw1", &FAST);
    let owners = lab.settled(&["gw1"]);
    let _second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    lab.shows(&owners);
    let prober = Prober::start(&lab, 1);
    let probe = probe(&lab);
    probe.mark();
    for restarts in 1..=3 {
        lab.signal(&first, "KILL");
        let again = lab.start("gw1", &FAST);
        // All runs write into one log.
        eventually("the lease is taken over", || {
            let takeovers = "taken over from the run before";
            again.log().matches(takeovers).count() == restarts
        });
        std::mem::forget(again);
        flows(&probe);
    }
    let flows = probe.end();
    println!("{test}: {flows:?}");
    assert_eq!(lost(&flows), 0, "{flows:?}");
    assert_eq!(turns(&prober.end()), [1]);
    assert_eq!(lab.settled(&["gw1"]), owners);
}

/// Input: FRR of both gateways is reloaded by its own program (`systemctl reload frr`), which removes all that its file
/// does not have. Output: the gateway notices it and puts everything back.
#[test]
fn a_reload_of_frr_is_noticed() {
    let test = "a_reload_of_frr_is_noticed";
    let Some(lab) = Lab::up(test, 2, 4, "example") else {
        return;
    };
    let uids = points();
    let first = lab.start("gw1", &[&FAST[..], &["--uids", &uids[0]]].concat());
    let second = lab.start("gw2", &[&FAST[..], &["--uids", &uids[1]]].concat());
    let owners = lab.settled(&["gw1", "gw2"]);
    lab.shows(&owners);
    let reload = [
        "/usr/lib/frr/frr-reload.py",
        "--reload",
        "/etc/frr/frr.conf",
    ];
    for (node, daemon) in [("gw1", &first), ("gw2", &second)] {
        let begun = std::time::Instant::now();
        let said = lab.ask(node, &reload);
        let reloaded = begun.elapsed();
        eventually(&format!("{node} has noticed: {said}"), || {
            daemon
                .log()
                .contains("are not as they were left: told again")
        });
        lab.shows(&owners);
        let back = begun.elapsed() - reloaded;
        println!(
            "{test}: {node}: the reload took {reloaded:?}, all is as before {back:?} after its end"
        );
    }
    assert_eq!(lab.settled(&["gw1", "gw2"]), owners);
}

/// Input: FRR of the owner, or one of its daemons, is restarted. Output: everything is pushed again; what is
/// seen from outside is as before.
#[test]
fn frr_restarts_are_noticed() {
    let test = "frr_restarts_are_noticed";
    let Some(lab) = Lab::up(test, 2, 4, "example") else {
        return;
    };
    let uids = points();
    let _first = lab.start("gw1", &[&FAST[..], &["--uids", &uids[0]]].concat());
    let _second = lab.start("gw2", &[&FAST[..], &["--uids", &uids[1]]].concat());
    lab.shows(&lab.settled(&["gw1", "gw2"]));
    for daemon in ["ospfd", "bgpd"] {
        lab.verb(&["frr", "gw1", "restart", daemon]);
        // Whether it gave its VNIs away meanwhile or not, it ends up with its share again.
        lab.shows(&lab.settled(&["gw1", "gw2"]));
    }
    // While FRR is down, the node has no VNI.
    lab.verb(&["frr", "gw1", "stop", "bgpd"]);
    lab.shows(&lab.settled(&["gw2"]));
    lab.verb(&["frr", "gw1", "start", "bgpd"]);
    lab.shows(&lab.settled(&["gw1", "gw2"]));
}

/// Input: a gateway's fabric is cut behind a switch and heals; then its uplink; then the fabric link flaps. Output:
/// each time the other gateway serves all VNIs, and the first gets its own back once it can forward; of the flaps the
/// VNIs leave once and come back once.
#[test]
fn a_gateway_that_cannot_forward_gives_its_vnis_away() {
    let test = "a_gateway_that_cannot_forward_gives_its_vnis_away";
    let Some(lab) = Lab::up(test, 2, 4, "example") else {
        return;
    };
    let uids = points();
    let options = |uids| [&FAST[..], &["--fit-hold", "4", "--uids", uids]].concat();
    let first = lab.start("gw1", &options(&uids[0]));
    let _second = lab.start("gw2", &options(&uids[1]));
    let shared = || lab.shows(&lab.settled(&["gw1", "gw2"]));
    shared();
    let logged = |part: &str| first.log().matches(part).count();
    // A station that the kernel of gw1 has not heard of for long.
    let station = |verb: &str, vni: usize, more: &str| {
        let command = format!("ip neighbour {verb} 10.64.{vni}.200 dev br{vni} {more}");
        lab.ask("gw1", &command.split_whitespace().collect::<Vec<_>>())
    };
    for (network, bad) in [
        ("underlay", "bad=evpn rank=0"),
        ("uplink", "bad=ospf rank=1"),
    ] {
        let owners = lab.settled(&["gw1", "gw2"]);
        for vni in 1..=owners.len() {
            station("replace", vni, "lladdr 02:00:00:00:02:00 nud stale");
        }
        lab.verb(&["cut", "gw1", network]);
        lab.settled(&["gw2"]);
        assert_eq!(
            logged(&format!("cannot forward: {bad}")),
            1,
            "{}",
            first.log()
        );
        for (vni, owner) in (1..).zip(&owners) {
            // Or the kernel would ask it soon, and so draw it back.
            let is_confirmed = || station("show", vni, "").contains("REACHABLE");
            match owner.as_str() {
                "gw1" => eventually("the station is not asked", is_confirmed),
                _ => assert!(!is_confirmed(), "VNI {vni}"),
            }
        }
        lab.verb(&["heal", "gw1", network]);
        shared();
    }
    let before = logged("from=idle to=unassigned");
    for _ in 0..4 {
        lab.verb(&["unplug", "gw1", "underlay"]);
        lab.settled(&["gw2"]);
        sleep(Duration::from_secs(1));
        lab.verb(&["replug", "gw1", "underlay"]);
        sleep(Duration::from_secs(1));
    }
    shared();
    // gw1 has two VNIs.
    assert_eq!(
        logged("from=idle to=unassigned") - before,
        2,
        "{}",
        first.log()
    );
}

/// Input: a gateway whose br4 is the host's own, without the VNI's VXLAN port; something switches ARP and neighbour
/// suppression behind the daemon's back; then the bridge of a served VNI is renamed, and the daemon ends. Output: br4
/// stays as it is, ARP is put back, and of the renamed bridge's VNI one gateway answers after the other.
#[test]
fn a_host_that_is_not_only_a_gateway() {
    let test = "a_host_that_is_not_only_a_gateway";
    let Some(lab) = Lab::up(test, 2, 4, "example") else {
        return;
    };
    let arp_ignore = |node: &str, interface: &str| {
        let name = format!("net.ipv4.conf.{interface}.arp_ignore");
        lab.ask(node, &["sysctl", "-n", &name]).trim().to_owned()
    };
    let set_arp_ignore = |node: &str, interface: &str, value: u8| {
        let setting = format!("net.ipv4.conf.{interface}.arp_ignore={value}");
        lab.ask(node, &["sysctl", "-qw", &setting]);
    };
    lab.ask("gw1", &["ip", "link", "set", "vxlan4", "nomaster"]);
    set_arp_ignore("gw1", "br4", 0);

    let uids = points();
    let options = |node: usize| [&FAST[..], &["--uids", &uids[node]]].concat();
    let second = lab.start("gw2", &options(1));
    lab.settled(&["gw2"]);
    let mut first = lab.start("gw1", &options(0));
    let owners = lab.settled(&["gw1", "gw2"]);
    assert_eq!(owners, ["gw1", "gw2", "gw1", "gw2"]);
    lab.shows(&owners);
    assert_eq!(arp_ignore("gw1", "br4"), "0");
    eventually("gw1 says that br4 is not its own", || {
        first.log().contains("no VXLAN interface of its VNI")
    });

    set_arp_ignore("gw2", "br2", 8);
    set_arp_ignore("gw2", "br3", 0);
    eventually("ARP is put back", || {
        [arp_ignore("gw2", "br2"), arp_ignore("gw2", "br3")] == ["0", "8"]
    });
    let suppress = |word: &str| {
        let command = ["bridge", "link", "set", "dev", "vxlan2", "neigh_suppress"];
        lab.ask("gw2", &[&command[..], &[word]].concat());
    };
    suppress("on");
    eventually("gw2 warns", || {
        second.log().contains("neigh_suppress is on")
    });
    suppress("off");
    eventually("gw2 says that it is over", || {
        second.log().contains("neigh_suppress is off")
    });
    assert!(second.log().contains("kernel: vnis="), "{}", second.log());

    let prober = Prober::start(&lab, 1);
    eventually("gw1 answers", || arp_ignore("gw1", "br1") == "0");
    lab.ask("gw1", &["ip", "link", "set", "br1", "name", "lan1"]);
    // Before or after its worker has found that br1 is gone.
    eventually("gw1 has noticed", || {
        first.log().contains("br1 was renamed to lan1")
    });
    assert_eq!(arp_ignore("gw1", "lan1"), "8");
    eventually("gw2 has it", || {
        lab.settled(&["gw1", "gw2"]) == ["gw2", "gw2", "gw1", "gw2"]
    });
    lab.signal(&first, "TERM");
    assert!(first.ended(), "a drained daemon ends well: {}", first.log());
    // A gateway without the bridge is passed over for as long as that is so.
    assert!(
        !first.log().contains("vnis=1 can be served here again"),
        "{}",
        first.log()
    );
    let owners = lab.settled(&["gw2"]);
    eventually("gw2 alone has routes", || {
        lab.routed().get(&1) == Some(&vec![owners[0].clone()])
    });
    assert_eq!(turns(&prober.end()), [1, 2], "first gw1 alone, then gw2");
    assert_eq!(arp_ignore("gw1", "lan1"), "8");
    assert_eq!(arp_ignore("gw1", "br4"), "0");
}

/// Input: the owner's daemon and its guard, killed at the same moment, and stopped at the same moment, while a station
/// asks; `nft flush ruleset` before. Output: the table is put back, and said once; then the kernel stops answering when
/// its hold on the lease ends, although `arp_ignore` lets it answer. The next run serves again, an orderly end and a
/// withdrawal leave no table.
#[test]
fn the_kernel_stops_answering_by_itself() {
    let test = "the_kernel_stops_answering_by_itself";
    let Some(lab) = Lab::up(test, 1, 1, "example") else {
        return;
    };
    let options = [
        &["--settle", "0.5", "--join-hold", "0", "--lease-ttl", "3"][..],
        &["--metrics", "127.0.0.1:9100"],
    ]
    .concat();
    let shell = |command: &str| lab.ask("gw1", &["sh", "-c", command]);
    let table = || shell("nft list table arp wmgwd 2>&1");
    let holds = || table().contains("expires");
    let arping = "arping -c 1 -w 1 -I eth0 10.64.1.1 >/dev/null && echo answered";
    let answers = || lab.ask("st1", &["sh", "-c", arping]) == "answered\n";
    let both = "$(pgrep -x wmgwd-guard) $(pgrep -f '[w]mgwd --name')";
    for (round, signal) in ["KILL", "KILL", "STOP"].iter().enumerate() {
        let mut daemon = lab.start("gw1", &options);
        lab.settled(&["gw1"]);
        eventually("gw1 answers", answers);
        eventually("the kernel holds the lease", holds);
        assert!(table().contains("br1"), "{}", table());
        if round == 0 {
            shell("nft flush ruleset");
            eventually("the table is back", || {
                let table = table();
                table.contains("br1") && table.contains("expires")
            });
            assert!(answers());
            let told = || daemon.log().matches("gate: the table").count();
            eventually("the daemon logs it once", || told() == 1);
        }
        shell(&format!("kill -{signal} {both}"));
        eventually("the kernel's hold ends", || !holds());
        assert!(!answers() && !answers(), "round {round}");
        let switch = "cat /proc/sys/net/ipv4/conf/br1/arp_ignore";
        assert_eq!(shell(switch), "0\n", "nothing else has silenced it");
        assert!(table().contains("br1"));
        if *signal == "STOP" {
            shell(&format!("kill -KILL {both}"));
        }
        assert!(!daemon.ended());
    }
    shell(&format!(
        "{} withdraw --maxvni 1",
        env!("CARGO_BIN_EXE_wmgwd")
    ));
    assert!(table().contains("No such file"), "{}", table());
    let mut daemon = lab.start("gw1", &options);
    lab.settled(&["gw1"]);
    eventually("gw1 answers", answers);
    eventually("the kernel holds the lease", holds);
    let status = format!(
        "{} status --json --etcd http://10.0.3.100:2379",
        env!("CARGO_BIN_EXE_wmgwd")
    );
    let published = |hold: &str| shell(&status).contains(&format!(r#""kernel_lease":{hold}"#));
    let is_held = || published(r#"{"held":true,"why":null}"#);
    eventually("status shows that the kernel holds the lease", is_held);
    let metric = |name: &str| -> f64 {
        let page = shell("curl -s http://127.0.0.1:9100/metrics");
        let name = format!("wmgwd_kernel_lease_{name} ");
        let line = page.lines().find_map(|it| it.strip_prefix(&name));
        line.expect("it is there").parse().unwrap()
    };
    eventually("the metrics know it", || metric("held") == 1.0);
    let left = metric("remaining_seconds");
    assert!(left > 0.0 && left < 5.0, "{left}");
    assert_eq!(metric("tables_lost_total"), 0.0);
    let before = daemon.log().matches("gate: the table").count();
    // What Debian's nftables.service does on a reload.
    shell(&format!("nft -f - <<'END'\n{DEBIAN}END"));
    eventually("the table is back", holds);
    assert!(answers());
    let told = || daemon.log().matches("gate: the table").count() - before;
    eventually("the daemon logs it once", || told() == 1);
    assert_eq!(metric("tables_lost_total"), 1.0);
    let foreign =
        "delete table arp wmgwd; add table arp wmgwd; add set arp wmgwd mine { type mark; }";
    shell(&format!("nft '{foreign}'"));
    eventually("status shows that it does not", || {
        published(r#"{"held":false,"why":"there is a table"#)
    });
    eventually("so do the metrics", || metric("held") == 0.0);
    assert_eq!(metric("remaining_seconds"), 0.0);
    assert!(answers());
    shell("nft delete table arp wmgwd");
    eventually("status shows that it does again", is_held);
    assert!(answers() && holds());
    lab.signal(&daemon, "TERM");
    assert!(daemon.ended(), "{}", daemon.log());
    assert!(table().contains("No such file"), "{}", table());
}

/// When the kernel's hold on gw1's lease is over at the latest; `None` if it is over.
fn end_of_hold(lab: &Lab) -> Option<Time> {
    let namespace = File::open(lab.namespace("gw1")).unwrap();
    let look = std::thread::spawn(move || {
        // Only this thread moves (setns(2)).
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let found = KernelLease::open().unwrap().find().unwrap();
        let Found::Whole { left, .. } = found else {
            panic!("{found:?}");
        };
        left.map(|left| clock::now() + left)
    });
    look.join().unwrap()
}

/// Input: daemon and guard killed at the same moment, `rounds` times, under load and a flood of ARP. Output: nothing
/// that is asked after the end of the kernel's hold is answered, and nothing after a request that was not. `arp_ignore`
/// says the whole time that the bridge answers.
fn double_kills(test: &str, rounds: u32) {
    let Some(lab) = Lab::up(test, 1, 1, "example") else {
        return;
    };
    let options = ["--settle", "0.5", "--join-hold", "0", "--lease-ttl", "3"];
    let shell = |command: &str| lab.ask("gw1", &["sh", "-c", command]);
    let arping = "arping -c 1 -w 1 -I eth0 10.64.1.1 >/dev/null && echo answered";
    let answers = || lab.ask("st1", &["sh", "-c", arping]) == "answered\n";
    let key = ["env", "ETCDCTL_API=3", "etcdctl", "get", "/wmgwd/node/gw1"];
    let is_registered = || lab.ask("etcd1", &key).contains("/wmgwd/node/gw1");
    let _load = Load::start();
    let mut tally = Tally::default();
    for round in 0..rounds {
        let mut daemon = lab.start("gw1", &options);
        lab.settled(&["gw1"]);
        eventually("gw1 answers", answers);
        eventually("the kernel holds the lease", || end_of_hold(&lab).is_some());
        let flood = Flood::start(&lab.namespace("st1"), [10, 64, 1, 10], [10, 64, 1, 1]);
        // At any moment between two renewals.
        sleep(Duration::from_millis(u64::from(round) * 97 % 1000));
        shell("kill -KILL $(pgrep -x wmgwd-guard) $(pgrep -f '[w]mgwd --name')");
        let killed = clock::now();
        // Over by now, if it is over.
        let end = end_of_hold(&lab).unwrap_or_else(clock::now);
        sleep(end.since(clock::now()) + Duration::from_millis(150));
        let requests = flood.end();
        let switch = "cat /proc/sys/net/ipv4/conf/br1/arp_ignore";
        assert_eq!(shell(switch), "0\n", "nothing else has silenced it");
        tally.add(&requests, killed, end);
        assert!(!daemon.ended());
        eventually("its lease is over", || !is_registered());
    }
    println!("{rounds} double kills: {tally}");
    assert!(tally.answered > 0);
    assert_eq!((tally.late, tally.again), (0, 0));
}

#[test]
fn a_double_kill_is_silent_in_time() {
    double_kills("a_double_kill_is_silent_in_time", 2);
}

/// Takes some minutes: see CONTRIBUTING.md.
#[test]
#[ignore = "takes minutes; a_double_kill_is_silent_in_time is its short form"]
fn twenty_double_kills_are_silent_in_time() {
    double_kills("twenty_double_kills_are_silent_in_time", 20);
}

/// Sends a signal to an FRR daemon of gw1.
fn frr_process(lab: &Lab, daemon: &str, signal: &str) {
    let command = format!("kill -{signal} $(cat /run/frr/{daemon}.pid)");
    lab.ask("gw1", &["sh", "-c", &command]);
}

/// Input: an FRR daemon of the owner is stopped (SIGSTOP), and the owner's daemon is told to end. Output: what is
/// stopped goes on showing what it showed: the daemon ends with an error, the VNIs are another's, and the guard stays,
/// until FRR goes on and it has withdrawn.
fn stopped_at_a_drain(test: &str, daemon: &str) {
    let Some(lab) = Lab::up(test, 2, 2, "example") else {
        return;
    };
    let mut first = lab.start("gw1", &[&FAST[..], &["--drain-timeout", "3"]].concat());
    lab.shows(&lab.settled(&["gw1"]));
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    let frr = |signal: &str| frr_process(&lab, daemon, signal);
    let guards = || lab.ask("gw1", &["pgrep", "-x", "wmgwd-guard"]);
    frr("STOP");
    lab.signal(&first, "TERM");
    assert!(!first.ended(), "{}", first.log());
    assert!(first.log().contains("not everything is withdrawn"));
    let owners = lab.settled(&["gw2"]);
    assert!(!guards().trim().is_empty(), "the guard stays");
    frr("CONT");
    eventually("the guard has withdrawn and ended", || {
        guards().trim().is_empty()
    });
    lab.shows(&owners);
}

#[test]
fn a_bgpd_that_is_stopped_at_a_drain() {
    stopped_at_a_drain("a_bgpd_that_is_stopped_at_a_drain", "bgpd");
}

#[test]
fn an_ospfd_that_is_stopped_at_a_drain() {
    stopped_at_a_drain("an_ospfd_that_is_stopped_at_a_drain", "ospfd");
}

/// Input: an EVPN neighbour without `filter-vni`, for a while. Output: it is named in a warning while it is there.
#[test]
fn a_neighbour_without_the_filter_is_warned_of() {
    let test = "a_neighbour_without_the_filter_is_warned_of";
    let Some(lab) = Lab::up(test, 1, 2, "example") else {
        return;
    };
    let daemon = lab.start("gw1", &FAST);
    lab.settled(&["gw1"]);
    unfiltered_neighbour(&lab, &daemon);
}

fn unfiltered_neighbour(lab: &Lab, daemon: &network::Daemon) {
    const NEIGHBOUR: &str = "10.0.1.99";
    let configure = |lines: &[&str]| {
        let mut command = vec![
            "vtysh",
            "-c",
            "configure terminal",
            "-c",
            "router bgp 65000",
        ];
        command.extend(lines.iter().flat_map(|line| ["-c", line]));
        lab.ask("gw1", &command);
    };
    let add = format!("neighbor {NEIGHBOUR} remote-as 65000");
    let activate = format!("neighbor {NEIGHBOUR} activate");
    configure(&[&add, "address-family l2vpn evpn", &activate]);
    let says = |level: &str| {
        let log = daemon.log();
        log.lines()
            .any(|line| line.contains(level) && line.contains(NEIGHBOUR))
    };
    eventually("it is warned of", || says("FRR: filter-vni"));
    configure(&[&format!("no {add}")]);
    eventually("it is no longer so", || says("no longer so"));
}

/// Input: a range of more VNIs than get their OSPF costs ahead of their bridges; a bridge that comes later on a gateway
/// that does not own its VNI. Output: there it has the greatest cost, also before ospfd's default draws traffic for
/// long.
#[test]
fn a_bridge_that_comes_late_in_a_large_range() {
    let test = "a_bridge_that_comes_late_in_a_large_range";
    let Some(lab) = Lab::up(test, 2, 2, "example") else {
        return;
    };
    const LAST: u32 = 4_500;
    let bridge = |node: &str, address: &str| {
        let command = format!(
            "ip link add br7 type bridge && ip link add vxlan7 type vxlan id 7 local {address} dstport 4789 nolearning \
             && ip link set vxlan7 master br7 && ip address add 10.64.7.1/24 dev br7 && ip link set vxlan7 up \
             && ip link set br7 up && echo done"
        );
        let said = lab.ask(node, &["sh", "-c", &command]);
        assert!(said.contains("done"), "{said}");
    };
    let cost = |node: &str| {
        let config = lab.ask(node, &["vtysh", "-d", "ospfd", "-c", "show running-config"]);
        let (_, rest) = config.split_once("\ninterface br7\n ip ospf cost ")?;
        rest.split_whitespace().next()?.parse::<u32>().ok()
    };
    bridge("gw1", "10.0.1.11");
    let _first = lab.start_for("gw1", LAST, &FAST);
    lab.settled(&["gw1"]);
    eventually("gw1 owns VNI 7", || {
        cost("gw1").is_some_and(|cost| cost < 65_535)
    });
    let second = lab.start_for("gw2", LAST, &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    assert_eq!(cost("gw2"), None, "the test shows nothing");
    bridge("gw2", "10.0.1.12");
    eventually("it draws no traffic", || cost("gw2") == Some(65_535));
}
