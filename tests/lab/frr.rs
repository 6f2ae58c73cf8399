//! What FRR does to a whole daemon: it is configured late, gives routes up, misses addresses, and outlives the daemon.

use super::network::{Daemon, Lab, eventually, points};
use super::{FAST, frr_process};
use std::thread::sleep;
use std::time::Duration;

/// What wmgwd says of a bgpd without `router bgp`.
const NO_INSTANCE: [&str; 2] = ["FRR cannot be used", "there is no `router bgp AS`"];

/// How often what must not change is looked at, each time after [`MOMENT`].
const LOOKS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(500);

/// Restarts gw1's bgpd without its part of the configuration.
fn empty_bgpd(lab: &Lab) {
    lab.verb(&["frr", "gw1", "stop", "bgpd"]);
    lab.ask("gw1", &["/usr/lib/frr/bgpd", "-d", "-A", "127.0.0.1"]);
    eventually("bgpd answers", || {
        let config = lab.ask("gw1", &["vtysh", "-d", "bgpd", "-c", "show running-config"]);
        assert!(!config.contains("router bgp"), "{config}");
        config.contains("Current configuration")
    });
}

/// Gives FRR of gw1 the configuration of its file, as FRR's init script does after all daemons have started.
fn configure(lab: &Lab) {
    lab.ask("gw1", &["vtysh", "-b"]);
}

/// What gw1 says of itself in etcd: its rank.
fn rank(lab: &Lab) -> String {
    let key = [
        "env",
        "ETCDCTL_API=3",
        "etcdctl",
        "get",
        "/wmgwd/meta/node/gw1",
    ];
    let said = lab.ask("etcd1", &key);
    let (_, rest) = said.split_once(r#""rank":"#).unwrap_or_default();
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// Whether every VNI is idle at gw2.
fn is_all_gw2s(lab: &Lab) -> bool {
    let mut rows = lab.rows().into_iter();
    rows.all(|(_, kind, owner)| kind == "1" && owner == "gw2")
}

/// gw1 takes nothing, however long its bgpd has no instance.
fn stays_out(lab: &Lab, daemon: &Daemon, times: usize) {
    eventually("gw1 says why it takes nothing", || {
        let log = daemon.log();
        let says = |line: &&str| NO_INSTANCE.iter().all(|part| line.contains(part));
        log.lines().filter(says).count() == times
    });
    eventually("gw1 is unfit", || rank(lab) == "0");
    lab.settled(&["gw2"]);
    for _ in 0..LOOKS {
        sleep(MOMENT);
        assert!(is_all_gw2s(lab), "{:?}", lab.rows());
    }
    assert_eq!(rank(lab), "0");
}

/// Input: bgpd of a gateway comes up without `router bgp`, and is configured some time later, while the gateway's
/// daemon runs, and before it is started. Output: meanwhile the gateway takes no VNI; then it has its share again, by
/// itself.
#[test]
fn a_bgpd_that_is_configured_late_is_used_then() {
    let test = "a_bgpd_that_is_configured_late_is_used_then";
    let Some(lab) = Lab::up(test, 2, 4, "example") else {
        return;
    };
    let uids = points();
    let options = |node: usize| [&FAST[..], &["--fit-hold", "1", "--uids", &uids[node]]].concat();
    let mut first = lab.start("gw1", &options(0));
    let _second = lab.start("gw2", &options(1));
    let owners = lab.settled(&["gw1", "gw2"]);
    lab.shows(&owners);
    let process = || lab.ask("gw1", &["pgrep", "-f", "wmgwd --name"]);
    let before = process();

    empty_bgpd(&lab);
    stays_out(&lab, &first, 1);
    configure(&lab);
    assert_eq!(lab.settled(&["gw1", "gw2"]), owners);
    lab.shows(&owners);
    assert_eq!(process(), before, "the daemon was not restarted");

    lab.signal(&first, "TERM");
    assert!(first.ended(), "{}", first.log());
    empty_bgpd(&lab);
    let again = lab.start("gw1", &options(0));
    stays_out(&lab, &again, 2);
    configure(&lab);
    assert_eq!(lab.settled(&["gw1", "gw2"]), owners);
    lab.shows(&owners);
}

/// Input: for a while, a gateway that owns nothing has no `filter-vni`: its routes go out without the community by
/// which the owner's inbound route-map keeps them away. Output: the owner's bgpd gives its own routes up when it hears
/// them, and wmgwd brings them back after the leak has ended.
#[test]
fn routes_given_up_after_a_leak_come_back() {
    let test = "routes_given_up_after_a_leak_come_back";
    let Some(lab) = Lab::up(test, 2, 2, "example") else {
        return;
    };
    let first = lab.start("gw1", &FAST);
    let owners = lab.settled(&["gw1"]);
    let second = lab.start("gw2", &["--settle", "0.5", "--join-hold", "3600"]);
    eventually("gw2 is registered", || {
        second.log().contains("registered name=gw2")
    });
    lab.shows(&owners);
    let filter = |line: &str| {
        let mut command = vec!["vtysh", "-c", "configure terminal"];
        let lines = ["router bgp 65000", "address-family l2vpn evpn", line];
        command.extend(lines.iter().flat_map(|line| ["-c", line]));
        lab.ask("gw2", &command);
    };
    filter("no neighbor fabric route-map filter-vni out");
    eventually("gw1's routes are given up", || {
        let advertised = lab.advertised();
        let is_gw1s = |vni| {
            advertised
                .get(&vni)
                .is_some_and(|by| by.contains(&owners[0]))
        };
        !(1..=2).any(is_gw1s)
    });
    filter("neighbor fabric route-map filter-vni out");
    lab.shows(&owners);
    let brought_back = "had been given up to another gateway's, brought back";
    eventually("the daemon logs it", || first.log().contains(brought_back));
}

/// Input: a zebra with a small socket that is held up while bridges get their addresses. Output: the daemon says for
/// which VNIs zebra has missed addresses, and then each has its OSPF network and its type-2 route.
#[test]
fn addresses_that_zebra_missed_are_told_again() {
    let test = "addresses_that_zebra_missed_are_told_again";
    const VNIS: u32 = 40;
    let Some(lab) = Lab::up(test, 1, VNIS, "example") else {
        return;
    };
    let shell = |command: &str| lab.ask("gw1", &["sh", "-c", command]);
    lab.verb(&["frr", "gw1", "stop", "zebra"]);
    shell("/usr/lib/frr/zebra -d -A 127.0.0.1 -s 20000");
    configure(&lab);
    let known = || {
        let text = shell("vtysh -d zebra -c 'show interface brief'");
        let is_known = |vni: &u32| text.contains(&format!(" 10.64.{vni}.1/24"));
        (1..=VNIS).filter(is_known).count()
    };
    eventually("zebra knows the addresses", || known() == VNIS as usize);
    let of_all = |verb: &str| {
        let one = |vni: u32| {
            format!(
                "addr {verb} 10.64.{vni}.1/24 dev br{vni}\naddr {verb} fd00:{vni}::1/64 dev br{vni}\n"
            )
        };
        (1..=VNIS).map(one).collect::<String>()
    };
    // (There was no IPv6 address: what cannot be removed is no fault.)
    std::fs::write(lab.dir().join("remove"), of_all("del")).unwrap();
    std::fs::write(lab.dir().join("add"), of_all("add")).unwrap();
    let batch = |name: &str| {
        shell(&format!(
            "ip -force -batch {}",
            lab.dir().join(name).display()
        ))
    };
    batch("remove");
    eventually("zebra knows no address", || known() == 0);
    frr_process(&lab, "zebra", "STOP");
    batch("add");
    frr_process(&lab, "zebra", "CONT");
    eventually("zebra has heard all that it will", || {
        shell("ip address replace 192.0.2.7/32 dev lo");
        shell("vtysh -d zebra -c 'show interface brief'").contains("192.0.2.7")
    });
    assert!(
        known() < VNIS as usize,
        "zebra lost nothing: the test shows nothing"
    );

    let daemon = lab.start("gw1", &FAST);
    let owners = lab.settled(&["gw1"]);
    eventually("the daemon says what zebra missed", || {
        daemon
            .log()
            .contains("zebra had missed addresses of their bridges: told again")
    });
    lab.shows(&owners);
    assert_eq!(known(), VNIS as usize);
}

#[test]
fn a_run_under_another_name_keeps_its_routes() {
    let test = "a_run_under_another_name_keeps_its_routes";
    if let Some(lab) = Lab::up(test, 1, 4, "example") {
        under_another_name(&lab, &FAST);
    }
}

#[test]
fn a_run_under_another_name_keeps_its_kernel_routes() {
    let test = "a_run_under_another_name_keeps_its_kernel_routes";
    if let Some(lab) = Lab::with(test, 4, &["--gateways", "1", "--upstream", "ospf"]) {
        under_another_name(&lab, &[&FAST[..], &["--announce", "routes"]].concat());
    }
}

/// Input: the owner's daemon is killed and started under another name at once, while its guard runs, and in a second
/// round while its guard is stopped and goes on later. Output: the guards of the runs before are gone, and what the
/// new run shows stays.
fn under_another_name(lab: &Lab, options: &[&str]) {
    let shell = |command: &str| lab.ask("gw1", &["sh", "-c", command]);
    let guards = || shell("pgrep -x wmgwd-guard");
    let mut daemon = lab.start("gw1", options);
    lab.settled(&["gw1"]);
    let shown = vec!["gw1".to_owned(); 4];
    lab.shows(&shown);
    for (name, is_stopped) in [("east", false), ("west", true)] {
        let old = guards();
        lab.signal(&daemon, "KILL");
        if is_stopped {
            // After its parent's end: the kernel continues a stopped process when its parent has ended.
            shell("kill -STOP $(pgrep -x wmgwd-guard)");
        }
        daemon = lab.start_as("gw1", name, 4, options);
        assert!(lab.settled(&[name]).iter().all(|owner| owner == name));
        lab.shows(&shown);
        // One of them may be gone.
        shell(&format!(
            "kill -CONT {}",
            old.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
        for _ in 0..LOOKS {
            sleep(MOMENT);
            for seen in [lab.advertised(), lab.routed()] {
                assert!(
                    (1..=4).all(|vni| seen.get(&vni) == Some(&vec!["gw1".to_owned()])),
                    "{seen:?}"
                );
            }
        }
        lab.shows(&shown);
        assert_eq!(guards().lines().count(), 1, "the guard of {name} alone");
        assert_ne!(guards(), old);
    }
}
