//! The daemon with no more rights than `contrib/wmgwd.service` gives it, in the lab (`contrib/lab`): another user,
//! its groups and capabilities, a file system that it can only read, FRR's files closed as Debian has them.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "lab/network.rs"]
mod network;

use network::{Lab, eventually};
use std::process::Child;

/// What the unit says after `key=`.
fn unit(key: &str) -> &'static str {
    let unit = include_str!("../contrib/wmgwd.service");
    let line = |line: &'static str| line.strip_prefix(key)?.strip_prefix('=');
    let mut values = unit.lines().filter_map(line);
    let value = values
        .next()
        .unwrap_or_else(|| panic!("the unit has no {key}"));
    assert_eq!(values.next(), None, "{key} stands there twice");
    value
}

/// A command for `sh -c` in a gateway that becomes `wmgwd ARGUMENTS` as the unit runs it.
fn confined(arguments: &str) -> String {
    assert_eq!(unit("ProtectSystem"), "strict");
    assert_eq!(unit("NoNewPrivileges"), "yes");
    assert_eq!(unit("AmbientCapabilities"), unit("CapabilityBoundingSet"));
    let capabilities: Vec<String> = unit("AmbientCapabilities")
        .split(' ')
        .map(|it| format!("+{}", it.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    let set = format!("-all,{}", capabilities.join(","));
    let groups = unit("SupplementaryGroups").replace(' ', ",");
    // The package makes a user; here it is nobody (vtysh wants one that has a name).
    format!(
        "for mount in /etc/frr /run /var/tmp/frr /; do mount -o remount,bind,ro $mount; done
         exec setpriv --reuid 65534 --regid 65534 --groups \"$(getent group $(echo {groups} | tr , ' ') |
             cut -d: -f3 | paste -sd,)\" --inh-caps={set} --ambient-caps={set} --bounding-set={set} --no-new-privs \
             /run/wmgwd {arguments}"
    )
}

const SEEN: &str = "--maxvni 2 --etcd http://10.0.3.100:2379";

fn start(lab: &Lab) -> Child {
    let command = confined(&format!("--name gw1 --join-hold 0 --settle 0.2 {SEEN}"));
    lab.background(
        "gw1",
        "wmgwd",
        &["unshare", "--mount", "sh", "-ec", &command],
    )
    .0
}

fn ask(lab: &Lab, arguments: &str) -> String {
    let command = format!("({}); echo status=$?", confined(arguments));
    lab.ask("gw1", &["unshare", "--mount", "sh", "-c", &command])
}

fn signal(lab: &Lab, signal: &str) {
    let command = format!("kill -{signal} $(pgrep -xo wmgwd)");
    lab.ask("gw1", &["sh", "-c", &command]);
}

/// Nothing of gw1 is on show: ARP, EVPN, OSPF.
fn is_silent(lab: &Lab) {
    eventually("gw1 is silent", || {
        let files = [
            "cat",
            "/proc/sys/net/ipv4/conf/br1/arp_ignore",
            "/proc/sys/net/ipv4/conf/br2/arp_ignore",
        ];
        let costs = lab.vtysh("gw1", "show ip ospf interface json");
        lab.ask("gw1", &files) == "8\n8\n"
            && lab.advertised().is_empty()
            && costs.matches("\"cost\":65535").count() == 2
    });
}

/// Input: the whole life of a daemon, its guard and the clean-up after it, without root. Output: it serves, its
/// guard withdraws after a crash, it drains, and a check by that user finds nothing that it may not do.
#[test]
fn a_daemon_without_root_serves() {
    let Some(lab) = Lab::up("a_daemon_without_root_serves", 1, 2, "example") else {
        return;
    };
    let exe = env!("CARGO_BIN_EXE_wmgwd");
    let prepare = format!(
        "cp {exe} /run/wmgwd && chmod 755 /run /run/wmgwd && chmod 640 /etc/frr/* && chmod 750 /etc/frr && echo done"
    );
    let said = lab.ask("gw1", &["sh", "-c", &prepare]);
    assert!(said.ends_with("done\n"), "{said}");

    let said = ask(&lab, &format!("check --name gw1 {SEEN}"));
    assert!(
        said.ends_with("status=0\n") && said.contains("0 unknown, 0 fail"),
        "{said}"
    );

    let mut crashed = start(&lab);
    let owners = lab.settled(&["gw1"]);
    lab.shows(&owners);
    let status = "grep -h -e ^Uid -e ^CapEff -e ^NoNewPrivs /proc/$(pgrep -xo wmgwd)/status";
    let status = lab.ask("gw1", &["sh", "-c", status]);
    // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13 (capabilities(7)).
    for line in [
        "Uid:\t65534\t65534",
        "CapEff:\t0000000000003000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }

    signal(&lab, "KILL");
    crashed.wait().unwrap();
    is_silent(&lab);

    let mut drained = start(&lab);
    lab.shows(&lab.settled(&["gw1"]));
    signal(&lab, "TERM");
    assert!(drained.wait().unwrap().success());
    is_silent(&lab);

    let said = ask(&lab, "withdraw --unless-guarded --maxvni 2");
    assert!(said.contains("everything is withdrawn from FRR"), "{said}");
    assert!(said.starts_with("status=0\n"), "{said}");
}
