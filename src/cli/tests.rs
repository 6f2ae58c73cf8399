//! Arguments and variables in, a configuration or an error out.

#![allow(clippy::unwrap_used)]
mod refusals;
mod spelling;
mod variables;

use super::*;
use crate::etcd;
use crate::model::fitness::SignSet;
use crate::model::frr::{Announce, EvpnFilter};
use crate::model::ring::Points;
use std::time::Duration;

fn parse_texts(texts: &[&str]) -> Result<Command, Error> {
    parse_with(&[], texts)
}

fn parse_with(variables: &[(&str, &str)], texts: &[&str]) -> Result<Command, Error> {
    parse(texts.iter().map(OsString::from), |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

fn config(texts: &[&str]) -> Config {
    match parse_texts(texts) {
        Ok(Command::Run(config)) => config,
        other => panic!("{texts:?}: {other:?}"),
    }
}

fn error(texts: &[&str]) -> String {
    match parse_texts(texts) {
        Err(error) => error.to_string(),
        other => panic!("{texts:?}: {other:?}"),
    }
}

#[test]
fn only_the_name_is_needed() {
    let config = config(&["--name", "gw1"]);
    assert_eq!(config.name.as_str(), "gw1");
    assert_eq!(
        (config.range.first().get(), config.range.last().get()),
        (1, 100)
    );
    assert_eq!((config.mock, config.debug), (false, false));
    assert!(matches!(&config.points, Points::Drawn(points) if points.len() == 100));
    assert_eq!(
        config.etcd,
        etcd::Access::plain(etcd::parse_endpoints("http://localhost:2379").unwrap())
    );
    assert_eq!(config.settle, Duration::from_millis(500));
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert_eq!(config.timing.ttl, Duration::from_secs(5));
    assert_eq!(config.join_hold, Duration::from_secs(30));
    assert_eq!(config.detect_window, Duration::from_millis(500));
    assert_eq!(config.beat_address, None);
    assert_eq!(config.evpn_filter, EvpnFilter::List);
    assert_eq!(config.announce, Announce::Costs);
    assert_eq!(config.takeover_cost, 100);
    assert_eq!(config.track, SignSet::ALL);
    assert!(config.track_fabric.is_empty() && config.track_uplink.is_empty());
    assert_eq!(config.fit_hold, Duration::from_secs(10));
}

#[test]
fn every_option_reaches_the_configuration() {
    let config = config(&[
        "-name=gw1",
        "-minvni=5",
        "-maxvni=5",
        "-mock",
        "-uids=0, 7,18446744073709551615",
        "-debug",
        "-etcd=http://10.0.0.1:2379,http://10.0.0.2:2379",
        "-cacert=ca.pem",
        "-cert=cert.pem",
        "-key=key.pem",
        "-user=wmgwd",
        "-password-file=password",
        "-settle=0.25",
        "-drain-timeout=0",
        "-lease-ttl=10",
        "-join-hold=3600",
        "-detect-window=0.1",
        "-beat-address=[2001:db8::1]:5000",
        "-evpn-filter=entries",
        "-announce",
        "routes",
        "-takeover-cost=90",
        "-track=evpn,ospf",
        "-track-fabric=eth0,bond0.7",
        "-track-uplink=up0",
        "-fit-hold=2.5",
    ]);
    assert_eq!(config.range.len(), 1);
    assert_eq!((config.mock, config.debug), (true, true));
    assert_eq!(config.points, Points::Given(vec![0, 7, u64::MAX]));
    assert_eq!(config.etcd.endpoints.len(), 2);
    assert_eq!(config.etcd.cacert, Some("ca.pem".into()));
    let (cert, key) = ("cert.pem".into(), "key.pem".into());
    assert_eq!(config.etcd.identity, Some(etcd::Identity { cert, key }));
    let login = config.etcd.login.unwrap();
    assert_eq!(login.name, "wmgwd");
    assert_eq!(login.password, etcd::Password::File("password".into()));
    assert_eq!(config.settle, Duration::from_millis(250));
    assert_eq!(config.drain_timeout, Duration::ZERO);
    assert_eq!(config.timing.ttl, Duration::from_secs(10));
    assert_eq!(config.join_hold, Duration::from_secs(3600));
    assert_eq!(config.detect_window, Duration::from_millis(100));
    let address = "2001:db8::1".parse().unwrap();
    assert_eq!(config.beat_address, Some((address, Some(5000))));
    assert_eq!(config.evpn_filter, EvpnFilter::Entries);
    assert_eq!(config.announce, Announce::Routes);
    assert_eq!(config.takeover_cost, 90);
    assert_eq!(config.track.to_string(), "evpn,ospf");
    assert_eq!(config.track_fabric, ["eth0", "bond0.7"]);
    assert_eq!(config.track_uplink, ["up0"]);
    assert_eq!(config.fit_hold, Duration::from_millis(2500));
}

#[test]
fn an_empty_list_of_points_means_random_ones_as_in_go() {
    let (one, other) = (config(&["--name=x", "--uids="]), config(&["--name=x"]));
    assert!(matches!(&one.points, Points::Drawn(points) if points.len() == 100));
    assert_ne!(one.points, other.points, "two nodes must draw differently");
}

#[test]
fn the_other_commands() {
    let Ok(Command::Withdraw(config)) = parse_texts(&[
        "withdraw",
        "-minvni=7",
        "--maxvni",
        "8",
        "-mock",
        "--evpn-filter=entries",
        "-unless-guarded",
    ]) else {
        panic!("not taken");
    };
    assert_eq!(
        (config.range.len(), config.mock, config.debug),
        (2, true, false)
    );
    assert_eq!(config.evpn_filter, EvpnFilter::Entries);
    assert!(config.unless_guarded);
    assert!(matches!(
        parse_texts(&["guard", "--help", "7"]),
        Ok(Command::Guard(rest)) if rest == ["--help", "7"]
    ));
    assert!(matches!(
        parse_texts(&["-version"]),
        Ok(Command::Print(text)) if text == format!("wmgwd {}\n", env!("CARGO_PKG_VERSION"))
    ));
    assert!(parse_texts(&["--version=false"]).is_err());
}

/// Input: VNIs and ranges of them, some named twice. Output: each once, in the order of their first time.
#[test]
fn a_vni_that_is_asked_for_twice_is_shown_once() {
    let asked = |operands: &[&str]| -> Vec<u32> {
        let Ok(Command::Status(config)) = parse_texts(&[&["status"], operands].concat()) else {
            panic!("not taken");
        };
        config.vnis.iter().map(|vni| vni.get()).collect()
    };
    assert_eq!(asked(&["7", "3", "7", "3"]), [7, 3]);
    assert_eq!(asked(&["5-7"]), [5, 6, 7]);
    assert_eq!(asked(&["9,6-7", "5-6", "8-8"]), [9, 6, 7, 5, 8]);
}

/// The defaults that the help names are those that hold.
#[test]
fn giving_the_defaults_changes_nothing() {
    let Ok(Command::Print(help)) = parse_texts(&["--help"]) else {
        panic!("no help");
    };
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut given = vec![String::from("--name=x")];
    for flag in Args::get_args_info().flags {
        assert!(help.contains(flag.long), "{}", flag.long);
        assert!(help.contains(flag.description), "{}", flag.long);
        match flag.description.split_once("(default: ") {
            None => assert!(
                flag.long == "--name" || flag.long == "--help",
                "{}",
                flag.long
            ),
            // In words: there is nothing to write that would be the same.
            Some((
                _,
                "100 random points)"
                | "those of the system)"
                | "that of the VXLAN interfaces, port 14789)"
                | "none)",
            )) => {}
            Some((_, default)) => given.push(format!(
                "{}={}",
                flag.long,
                default.strip_suffix(')').unwrap()
            )),
        }
    }
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let (mut one, mut other) = (config(&given), config(&["--name=x"]));
    one.points = Points::Given(Vec::new());
    other.points = one.points.clone();
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[test]
fn every_lease_can_be_renewed_and_fenced_in_time() {
    for ttl in 2..=600 {
        let timing = Timing::new(Duration::from_secs(ttl)).unwrap();
        let spent = timing.keepalive_interval + 2 * timing.etcd_timeout + timing.fence_margin;
        assert!(spent < timing.ttl, "{timing:?}");
        assert!(timing.guard_margin < timing.fence_margin, "{timing:?}");
    }
    assert_eq!(Timing::new(Duration::from_millis(500)), None);
    assert_eq!(Timing::new(Duration::ZERO), None);
    let usual = Timing::new(Duration::from_secs(5)).unwrap();
    assert_eq!(usual.keepalive_interval, Duration::from_secs(1));
    assert_eq!(usual.etcd_timeout, Duration::from_secs(1));
    assert_eq!(usual.fence_margin, Duration::from_millis(625));
}
