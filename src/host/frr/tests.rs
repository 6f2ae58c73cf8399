//! [`Frr`] against a vtysh that misbehaves: a shell script that stands in for it.

#![allow(clippy::unwrap_used)]

use super::*;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

/// A directory with a fake vtysh, removed with it.
struct Fake {
    dir: PathBuf,
}

impl Fake {
    /// `body` is shell; `$daemon`, `$how` (`-f` or `-c`), `$what` are vtysh's arguments, `$script` is what it
    /// is fed with, `$dir` is the directory. Scripts are logged into `$dir/log`, one after the other.
    fn new(name: &str, body: &str) -> Fake {
        let dir = std::env::temp_dir().join(format!("wmgwd-vtysh-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("vtysh");
        let text = format!(
            "#!/bin/sh\ndir={}\ndaemon=$2; how=$3; what=$4\n\
             [ $how = -f ] && script=$(cat $what) && echo \"== $daemon\n$script\" >> $dir/log\n\
             case $what in \"show running\"*) echo 'router bgp 65000'; cat $dir/config 2>/dev/null;; esac\n\
             case $what in *json) cat $dir/json 2>/dev/null || echo '{{}}';; esac\n{body}\nexit 0\n",
            dir.display()
        );
        // Under another name first: a script that is still open for writing cannot be started.
        fs::write(dir.join("new"), text).unwrap();
        fs::set_permissions(dir.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(dir.join("new"), program).unwrap();
        Fake { dir }
    }

    fn frr(&self) -> Frr {
        let range = VniRange::new(vni(1), vni(100)).unwrap();
        Frr::new(FrrConfig {
            vtysh: self.dir.join("vtysh"),
            timeout: Duration::from_millis(700),
            run_dirs: vec![self.dir.clone()],
            ..FrrConfig::new(range)
        })
    }

    /// The scripts that were fed, in order.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn cost_changes(count: u32) -> Vec<RouteChange> {
    let change = |number| RouteChange {
        vni: vni(number),
        evpn: None,
        cost: Some(Cost::OWNER),
    };
    (1..=count).map(change).collect()
}

/// A claim of all, and a release of all.
fn both(claimed: u32, released: u32) -> [RouteChange; 2] {
    let change = |number, evpn, cost| RouteChange {
        vni: vni(number),
        evpn: Some(evpn),
        cost: Some(cost),
    };
    [
        change(claimed, true, Cost::OWNER),
        change(released, false, Cost::OTHERS),
    ]
}

fn failed(failures: &[RouteFailure]) -> Vec<u32> {
    failures.iter().map(|failure| failure.vni.get()).collect()
}

/// Shaped, with VNI 2 listed.
const SHAPED: &str = "\
bgp extcommunity-list standard wmgwd seq 2 permit rt 65000:2
route-map filter-vni permit 10
 match extcommunity wmgwd
exit
route-map filter-vni deny 65535
exit
";

#[test]
fn releases_go_before_claims_and_evpn_before_costs() {
    let fake = Fake::new("order", "");
    fs::write(fake.dir.join("config"), SHAPED).unwrap();
    assert!(fake.frr().apply(&both(1, 2), &|| true).is_empty());
    let shape =
        "route-map filter-vni deny 65535\nroute-map filter-vni permit 10\nmatch extcommunity wmgwd";
    assert_eq!(
        fake.log(),
        format!(
            "== bgpd\n{shape}\nno bgp extcommunity-list standard wmgwd seq 2 permit rt 65000:2\n\
             == ospfd\ninterface br2\nip ospf cost 65535\n\
             == bgpd\n{shape}\nbgp extcommunity-list standard wmgwd seq 1 permit rt 65000:1\n\
             == ospfd\ninterface br1\nip ospf cost 100\n"
        )
    );
}

#[test]
fn a_vtysh_that_hangs_is_ended_with_its_children() {
    let fake = Fake::new("hang", "sleep 300 & echo $! > $dir/child; wait");
    let start = Instant::now();
    let failures = fake.frr().apply(&cost_changes(100), &|| true);
    // One run for all: what hangs once is not tried for each VNI.
    assert_eq!(fake.log().matches("== ospfd").count(), 1);
    assert_eq!(failures.len(), 100);
    assert!(matches!(
        failures[0].error,
        Error::TimedOut {
            daemon: "ospfd",
            ..
        }
    ));
    let child = fs::read_to_string(fake.dir.join("child")).unwrap();
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        // Gone, or a zombie until init reaps the orphan.
        stat.map_or(true, |stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
        })
    };
    // The signal is sent; under load the kernel delivers it only when it next runs the process.
    while !ended() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the child still runs"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn permission_that_ends_ends_the_run() {
    let fake = Fake::new("permit", "[ $how = -f ] && sleep 300");
    let start = Instant::now();
    let asked = Cell::new(0);
    let permit = || {
        asked.set(asked.get() + 1);
        start.elapsed() < Duration::from_millis(300)
    };
    let failures = fake.frr().apply(&cost_changes(3), &permit);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert!(asked.get() >= 5);
    assert_eq!(failed(&failures), [1, 2, 3]);
    assert!(
        failures
            .iter()
            .all(|f| matches!(f.error, Error::NotPermitted))
    );

    let fake = Fake::new("forbidden", "");
    let failures = fake.frr().apply(&both(1, 2), &|| false);
    assert_eq!(failed(&failures), [1]);
    assert!(
        !fake.log().contains("br1\n") && fake.log().contains("br2\n"),
        "{}",
        fake.log()
    );
}

#[test]
fn permission_is_asked_between_batches() {
    let fake = Fake::new("batches", "");
    let mut frr = fake.frr();
    frr.batch = 10;
    let failures = frr.apply(&cost_changes(30), &|| fake.log().matches("==").count() < 2);
    assert!(
        failures
            .iter()
            .all(|f| matches!(f.error, Error::NotPermitted))
    );
    let failed = failed(&failures);
    assert!(failed.contains(&30) && !failed.contains(&10), "{failed:?}");
    assert!(fake.log().matches("==").count() <= 2, "{}", fake.log());
}

/// Input: VNI 3 is let out by its route target; then the operator gives VNI 4 that target, too. Output: VNI 3 is taken
/// out, and is to be given to FRR again, which refuses it with the reason.
#[test]
fn a_target_that_another_vni_gets_lets_nothing_out_any_more() {
    let targets = |third: &str, fourth: &str| {
        format!(r#"{{"3":{{"exportRTs":["{third}"]}},"4":{{"exportRTs":["{fourth}"]}}}}"#)
    };
    let fake = Fake::new("mixed", "");
    fs::write(fake.dir.join("config"), SHAPED).unwrap();
    fs::write(fake.dir.join("json"), targets("65000:3", "65000:4")).unwrap();
    let mut frr = fake.frr();
    let claim = [RouteChange {
        vni: vni(3),
        evpn: Some(true),
        cost: None,
    }];
    assert!(frr.apply(&claim, &|| true).is_empty());
    let line = "bgp extcommunity-list standard wmgwd seq 3 permit rt 65000:3\n";
    assert!(fake.log().ends_with(line), "{}", fake.log());
    fs::write(fake.dir.join("config"), format!("{line}{SHAPED}")).unwrap();
    assert!(!frr.drifted(&|| true).unwrap().contains(&vni(3)));
    assert!(!frr.take_lost().contains(&vni(3)));

    fs::write(fake.dir.join("json"), targets("65000:3", "65000:3")).unwrap();
    frr.drifted(&|| true).unwrap();
    assert!(
        fake.log().ends_with(&format!("no {line}")),
        "{}",
        fake.log()
    );
    assert!(frr.take_lost().contains(&vni(3)));
    fs::write(fake.dir.join("config"), SHAPED).unwrap();
    let failures = frr.apply(&claim, &|| true);
    assert!(
        failures[0].error.to_string().contains("VNI 4"),
        "{:?}",
        failures[0].error
    );
}

#[test]
fn a_numbered_line_names_the_bad_vni() {
    let body = r#"n=$(echo "$script" | grep -n 'br7$' | cut -d: -f1)
[ -n "$n" ] && echo "line $n: % Unknown command[4]: interface br7" >&2 && exit 2"#;
    let fake = Fake::new("numbered", body);
    let failures = fake.frr().apply(&cost_changes(50), &|| true);
    assert_eq!(failed(&failures), [7]);
    assert!(failures[0].error.to_string().contains("interface br7"));
    // All, the good ones, the bad one.
    assert_eq!(fake.log().matches("==").count(), 3);
}

/// Input: a vtysh that refuses a line of its own configuration file in each run, and VNI 7. Output: only what is said
/// of VNI 7 counts; it is asked once what it says in each run. Input: later it does not answer that. Output: what it
/// said before counts, and it is asked again in the next run.
#[test]
fn what_vtysh_says_in_each_run_is_not_about_this_one() {
    let body = r#"echo x >> $dir/runs
echo 'line 2: % Unknown command[4]: banner motd file /etc/frr/banner' >&2
[ "$how$what" = -c ] && echo x >> $dir/asked && [ -e $dir/fails ] && exit 1
n=$(echo "$script" | grep -n 'br7$' | cut -d: -f1)
[ -n "$n" ] && echo "line $n: % Unknown command[4]: interface br7" >&2 && exit 2"#;
    let fake = Fake::new("remarks", body);
    let mut frr = fake.frr();
    assert!(frr.apply(&both(1, 2), &|| true).is_empty());
    let count = |file: &str| fs::read_to_string(fake.dir.join(file)).unwrap().len() / 2;
    assert_eq!(count("asked"), 1);
    let before = count("runs");
    let failures = frr.apply(&cost_changes(50), &|| true);
    assert_eq!(failed(&failures), [7]);
    assert_eq!((count("runs"), count("asked")), (before + 3, 1));
    fs::write(fake.dir.join("fails"), "").unwrap();
    frr.vtysh.age_remarks();
    for asked in [2, 3] {
        frr.costs.know(BTreeMap::new());
        assert!(frr.apply(&cost_changes(5), &|| true).is_empty());
        assert_eq!(count("asked"), asked);
    }
}

#[test]
fn an_unnumbered_refusal_is_cornered_by_halves() {
    let body = r#"echo "$script" | grep -q 'br7$' && echo '% Something is wrong.'"#;
    let fake = Fake::new("bisect", body);
    let failures = fake.frr().apply(&cost_changes(64), &|| true);
    assert_eq!(failed(&failures), [7]);
    assert!(fake.log().matches("==").count() <= 14);
}

/// Input: a takeover of ten VNIs and of a thousand. Output: vtysh runs equally often.
#[test]
fn the_number_of_runs_does_not_grow_with_the_vnis() {
    let runs = |count| {
        let fake = Fake::new(&format!("runs-{count}"), "echo run >> $dir/runs");
        let claim = |number| RouteChange {
            vni: vni(number),
            evpn: Some(true),
            cost: Some(Cost::OWNER),
        };
        let claims: Vec<RouteChange> = (1..=count).map(claim).collect();
        let failures = fake.frr().apply(&claims, &|| true);
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(
            fake.log().matches("ip ospf cost 100").count(),
            count as usize
        );
        let runs = fs::read_to_string(fake.dir.join("runs")).unwrap();
        runs.lines().count()
    };
    assert_eq!(runs(10), runs(1000));
}

#[test]
fn cornering_ends() {
    let fake = Fake::new("all-bad", "[ $how = -f ] && exit 3");
    let failures = fake.frr().apply(&cost_changes(100), &|| true);
    let mut vnis = failed(&failures);
    vnis.sort();
    assert_eq!(vnis, (1..=100).collect::<Vec<_>>());
    assert!(fake.log().matches("==").count() <= 60);
    assert!(
        failures
            .iter()
            .all(|f| f.error.to_string().contains("status 3"))
    );
}

#[test]
fn a_daemon_that_is_down_is_asked_once() {
    let fake = Fake::new("down", "echo \"$daemon is not running\" >&2; exit 1");
    let failures = fake.frr().apply(&cost_changes(100), &|| true);
    assert_eq!(failures.len(), 100);
    assert!(
        failures
            .iter()
            .all(|f| matches!(f.error, Error::Down { daemon: "ospfd" }))
    );
    assert_eq!(fake.log().matches("==").count(), 1);
    assert!(matches!(
        fake.frr().withdraw_all(),
        Err(Error::Down { daemon: "bgpd" })
    ));
}

#[test]
fn a_lock_is_waited_for() {
    let body = "echo x >> $dir/tries; [ $(wc -l < $dir/tries) -gt 2 ] || echo '% could not lock candidate DS'";
    let fake = Fake::new("lock", body);
    assert!(fake.frr().apply(&cost_changes(1), &|| true).is_empty());
    let fake = Fake::new("locked", "echo '% could not lock candidate DS'");
    let failures = fake.frr().apply(&cost_changes(1), &|| true);
    assert!(
        failures[0].error.to_string().contains("locked"),
        "{failures:?}"
    );
}

#[test]
fn one_daemon_down_does_not_keep_the_other_from_withdrawing() {
    let fake = Fake::new(
        "half",
        "[ $daemon = bgpd ] && echo 'bgpd is not running' >&2 && exit 1",
    );
    assert!(matches!(
        fake.frr().withdraw_all(),
        Err(Error::Down { daemon: "bgpd" })
    ));
    assert_eq!(fake.log().matches("ip ospf cost 65535").count(), 100);
}

#[test]
fn costs_that_stand_are_not_pushed_again() {
    let fake = Fake::new("warm", "");
    let costs: String = (1..=99)
        .map(|i| format!("interface br{i}\n ip ospf cost 65535\nexit\n"))
        .collect();
    fs::write(fake.dir.join("config"), costs + SHAPED).unwrap();
    fake.frr().withdraw_all().unwrap();
    assert_eq!(
        fake.log(),
        "== bgpd\nno bgp extcommunity-list standard wmgwd\n\
         == ospfd\ninterface br100\nip ospf cost 65535\n"
    );
}

#[test]
fn no_vtysh_at_all() {
    let range = VniRange::new(vni(1), vni(2)).unwrap();
    let mut frr = Frr::new(FrrConfig {
        vtysh: "/nonexistent/vtysh".into(),
        ..FrrConfig::new(range)
    });
    assert!(matches!(frr.withdraw_all(), Err(Error::Spawn { .. })));
    assert_eq!(frr.apply(&cost_changes(2), &|| true).len(), 2);
}

/// Output beyond any reason is neither kept nor waited for.
#[test]
fn a_vtysh_that_does_not_stop_writing_is_ended() {
    let fake = Fake::new("flood", "exec cat /dev/zero");
    let failures = fake.frr().apply(&cost_changes(1), &|| true);
    assert!(
        matches!(
            failures[0].error,
            Error::Spawn { .. } | Error::TimedOut { .. }
        ),
        "{failures:?}"
    );
}

/// Input: random bytes, and real text with bytes knocked out. Output: no parser panics.
#[test]
fn parsers_survive_anything() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<&str> = "route-map filter-vni permit deny 10 65535 99999999999 \n \u{e9} match evpn vni interface \
        br br7 ip ospf cost router bgp 1.2 . : line line\u{20}3:\u{20}x % {\"1\":{\"exportRTs\":[\"1:1\"]}} [13] bgp \
        extcommunity-list standard wmgwd seq rt ( ) bgpd S"
        .split(' ')
        .collect();
    for _ in 0..20_000 {
        let length = random() % 60;
        let mut text = String::new();
        for _ in 0..length {
            let pick = random();
            if pick % 7 == 0 {
                text.extend(char::from_u32((pick >> 8) as u32 % 0x300));
            } else {
                text.push_str(words[(pick >> 8) as usize % words.len()]);
                text.push([' ', '\n'][(pick >> 40) as usize % 2]);
            }
        }
        let config = config::parse_bgp(&text);
        for filter in [EvpnFilter::List, EvpnFilter::Entries] {
            script::withdraw_filter(&config, filter, &BTreeSet::new());
        }
        config::parse_ospf(&text);
        let _ = targets::parse_targets(&text);
        vtysh_output::judge(&vtysh_output::Output {
            status: Some(0),
            stdout: text.clone(),
            stderr: text,
        });
    }
}
