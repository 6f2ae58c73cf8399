#![allow(clippy::unwrap_used)]

use super::*;
use crate::etcd;
use crate::host::frr::EvpnFilter;
use arguments::Normal;
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

/// Input: arguments as Go takes them. Output: as argh takes them, `None` for the help.
#[test]
fn gos_spelling_becomes_arghs() {
    #[rustfmt::skip]
    const TABLE: &[(&[&str], Option<&[&str]>)] = &[
        (&[], Some(&[])),
        (&["-name", "gw1"], Some(&["--name", "gw1"])),
        (&["--name", "gw1"], Some(&["--name", "gw1"])),
        (&["-name=gw1"], Some(&["--name", "gw1"])),
        (&["--name=gw1"], Some(&["--name", "gw1"])),
        (&["--name="], Some(&["--name", ""])),
        (&["--name", ""], Some(&["--name", ""])),
        (&["--name=a=b"], Some(&["--name", "a=b"])),
        (&["--name=--minvni"], Some(&["--name", "--minvni"])),
        (&["--name", "--gw1"], Some(&["--name", "--gw1"])),
        (&["--name", "-"], Some(&["--name", "-"])),
        (&["--name", "help"], Some(&["--name", "help"])),
        (&["--name", "withdraw"], Some(&["--name", "withdraw"])),
        (&["-minvni", "-5"], Some(&["--minvni", "-5"])),
        (&["-drain-timeout=5", "-join-hold", "1.5"], Some(&["--drain-timeout", "5", "--join-hold", "1.5"])),
        (&["-mock"], Some(&["--mock"])),
        (&["--mock"], Some(&["--mock"])),
        (&["-mock=1"], Some(&["--mock"])),
        (&["-mock=t"], Some(&["--mock"])),
        (&["-mock=T"], Some(&["--mock"])),
        (&["-mock=TRUE"], Some(&["--mock"])),
        (&["--mock=true"], Some(&["--mock"])),
        (&["--mock=True"], Some(&["--mock"])),
        (&["-mock=0"], Some(&[])),
        (&["-mock=f"], Some(&[])),
        (&["-mock=F"], Some(&[])),
        (&["-mock=FALSE"], Some(&[])),
        (&["--mock=false"], Some(&[])),
        (&["--mock=False"], Some(&[])),
        (&["-mock", "-debug=0", "-name=x"], Some(&["--mock", "--name", "x"])),
        (&["-name=x", "--"], Some(&["--name", "x"])),
        (&["-h"], None),
        (&["--h"], None),
        (&["-help"], None),
        (&["--help"], None),
        (&["-name", "x", "-mock", "--help", "--what"], None),
    ];
    for (given, expected) in TABLE {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        let spelled = match arguments::normalise(&given, &Args::get_args_info()).unwrap() {
            Normal::Arguments(spelled) => Some(spelled.into_texts()),
            Normal::Help => None,
        };
        let expected = expected.map(<[_]>::to_vec);
        assert_eq!(
            spelled,
            expected.map(|texts| texts.iter().map(ToString::to_string).collect()),
            "{given:?}"
        );
    }
}

/// Any number of operands behind one.
#[derive(FromArgs, ArgsInfo, PartialEq, Eq, Debug)]
struct WithOperands {
    /// a switch
    #[argh(switch)]
    json: bool,
    /// an option
    #[argh(option)]
    etcd: Option<String>,
    /// the first one
    #[argh(positional)]
    first: String,
    /// the others
    #[argh(positional)]
    others: Vec<String>,
}

/// Contract: options and operands may stand in any order; behind `--`, and without a dash, are operands.
#[test]
fn operands_stand_among_the_options() {
    type Words = &'static [&'static str];
    #[rustfmt::skip]
    const TABLE: &[(Words, bool, Option<&str>, Words)] = &[
        (&["7"], false, None, &["7"]),
        (&["7", "-json", "8"], true, None, &["7", "8"]),
        (&["-json", "false", "-etcd", "x", "9"], true, Some("x"), &["false", "9"]),
        (&["-etcd=x", "--", "-json", "--", "-h"], false, Some("x"), &["-json", "--", "-h"]),
        (&["-json=false", "-"], false, None, &["-"]),
        (&["help"], false, None, &["help"]),
    ];
    for (given, json, etcd, operands) in TABLE {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        let filled = fill::<WithOperands>(&["wmgwd", "x"], &given, |_| None).unwrap();
        let (args, _) = filled.unwrap_or_else(|help| panic!("{given:?}: {help}"));
        assert_eq!(
            (args.json, args.etcd.as_deref()),
            (*json, *etcd),
            "{given:?}"
        );
        let mut taken = vec![args.first];
        taken.extend(args.others);
        assert_eq!(taken, *operands, "{given:?}");
    }
}

/// Input: arguments that cannot be taken. Output: an error of one line that contains each of the texts.
#[test]
fn errors_name_the_option_and_what_it_takes() {
    #[rustfmt::skip]
    const TABLE: &[(&[&str], &[&str])] = &[
        (&[], &["--name is missing", "text"]),
        (&["--name"], &["--name has no value", "text"]),
        (&["--name", "--mock"], &["--name has no value"]),
        (&["--name", "--mock=1"], &["--name has no value"]),
        (&["--name", "--"], &["--name has no value"]),
        (&["--name", "-h"], &["--name has no value"]),
        (&["--name", ""], &["--name cannot be \"\"", "not empty"]),
        (&["--name=a/b"], &["--name cannot be \"a/b\"", "no slash"]),
        (&["--name=a\nb"], &["--name cannot be \"a\\nb\"", "no control character"]),
        (&["--name=a", "-name", "b"], &["--name stands there twice"]),
        (&["--mock", "--mock=false"], &["--mock stands there twice", "true or false"]),
        (&["--mock=maybe"], &["--mock cannot be \"maybe\"", "true or false"]),
        (&["--mock="], &["--mock cannot be \"\"", "true or false"]),
        (&["--mock", "false"], &["\"false\" is no option", "="]),
        (&["wat"], &["no command \"wat\"", "--help"]),
        (&["--wat=1"], &["no option \"--wat\"", "--help"]),
        (&["-x"], &["no option \"-x\""]),
        (&["---name=x"], &["no option \"---name\""]),
        (&["--=x"], &["no option \"--\""]),
        (&["-"], &["\"-\" is no option"]),
        (&["--", "--name=x"], &["\"--name=x\" is no option"]),
        (&["--name=x", "withdraw"], &["\"withdraw\" is no option"]),
        (&["--name=x", "--minvni=0"], &["--minvni cannot be \"0\"", "1 to 16777215"]),
        (&["--name=x", "--minvni", "-5"], &["--minvni cannot be \"-5\"", "1 to 16777215"]),
        (&["--name=x", "--maxvni=16777216"], &["--maxvni cannot be", "1 to 16777215"]),
        (&["--name=x", "--minvni=9", "--maxvni=8"], &["--minvni 9", "--maxvni 8"]),
        (&["--name=x", "--minvni=101"], &["--minvni 101", "--maxvni 100"]),
        (&["--name=x", "--uids=1,x,3"], &["--uids cannot be \"x\"", "18446744073709551615"]),
        (&["--name=x", "--uids=18446744073709551616"], &["--uids cannot be", "numbers"]),
        (&["--name=x", "--uids=-1"], &["--uids cannot be \"-1\""]),
        (&["--name=x", "--uids=1,"], &["--uids cannot be \"\""]),
        (&["--name=x", "--uids=[]"], &["--uids cannot be \"[]\""]),
        (&["--name=x", "--etcd="], &["--etcd: ", "http://"]),
        (&["--name=x", "--etcd=localhost"], &["--etcd: ", "http://"]),
        (&["--name=x", "--etcd=http://"], &["--etcd: ", "http://"]),
        (&["--name=x", "--etcd=http://a:99999"], &["--etcd: ", "http://"]),
        (&["--name=x", "--etcd=http://a:1,ftp://b"], &["--etcd: ", "http://"]),
        (&["--name=x", "--cert=a"], &["--cert is of no use without --key"]),
        (&["--name=x", "--key=a"], &["--key is of no use without --cert"]),
        (&["--name=x", "--user=a"], &["--user is of no use without --password-file"]),
        (&["--name=x", "--password-file=a"], &["--password-file is of no use without --user"]),
        (&["--name=x", "--user=a:b", "--password-file=a"], &["--user holds a password", "--password-file"]),
        (&["--name=x", "--settle=-1"], &["--settle cannot be", "seconds"]),
        (&["--name=x", "--settle=1e3"], &["--settle cannot be", "seconds"]),
        (&["--name=x", "--settle=inf"], &["--settle cannot be", "seconds"]),
        (&["--name=x", "--settle=."], &["--settle cannot be", "seconds"]),
        (&["--name=x", "--settle="], &["--settle cannot be", "seconds"]),
        (&["--name=x", "--settle=3600.1"], &["--settle cannot be", "3600"]),
        (&["--name=x", "--drain-timeout=1m"], &["--drain-timeout cannot be", "seconds"]),
        (&["--name=x", "--join-hold=x"], &["--join-hold cannot be", "seconds"]),
        (&["--name=x", "--lease-ttl=1"], &["--lease-ttl cannot be", "2 to 600"]),
        (&["--name=x", "--lease-ttl=2.5"], &["--lease-ttl cannot be", "whole seconds"]),
        (&["--name=x", "--lease-ttl=601"], &["--lease-ttl cannot be", "2 to 600"]),
        (&["--name=x", "--evpn-filter=both"], &["--evpn-filter cannot be", "list or entries"]),
        (&["--name=x", "--takeover-cost=0"], &["--takeover-cost cannot be", "1 to 100"]),
        (&["--name=x", "--takeover-cost=101"], &["--takeover-cost cannot be", "1 to 100"]),
        (&["drain", "gw1", "gw2"], &["\"gw2\" is too much: only one <name> is taken"]),
        (&["undrain", "gw1", "--", "-h"], &["\"-h\" is too much", "<name>"]),
        (&["drain", "gw1", "--force", "true"], &["\"true\" is too much", "after \"=\""]),
        (&["withdraw", "--name=x"], &["no option \"--name\""]),
        (&["withdraw", "--minvni=7", "--maxvni=6"], &["--minvni 7", "--maxvni 6"]),
    ];
    for (given, parts) in TABLE {
        let text = error(given);
        assert!(!text.contains('\n'), "{given:?}: {text}");
        for part in *parts {
            assert!(text.contains(part), "{given:?}: {text:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_bad_value_is_shown_in_part_only() {
    let text = error(&["--name=x", &format!("--uids={}", "y".repeat(100_000))]);
    assert!(text.len() < 400, "{text}");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_the_option_before_them() {
    use std::os::unix::ffi::OsStringExt;
    let args = [
        OsString::from("--name"),
        OsString::from_vec(vec![b'g', 0xff]),
    ];
    let text = parse(args.into_iter(), |_| None).unwrap_err().to_string();
    assert!(
        text.contains("\"--name\"") && text.contains("UTF-8"),
        "{text}"
    );
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
    assert_eq!((config.points.len(), config.points_given), (100, false));
    assert_eq!(
        config.etcd,
        etcd::Access::plain(etcd::parse_endpoints("http://localhost:2379").unwrap())
    );
    assert_eq!(config.settle, Duration::from_millis(500));
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert_eq!(config.timing.ttl, Duration::from_secs(5));
    assert_eq!(config.join_hold, Duration::from_secs(30));
    assert_eq!(config.evpn_filter, EvpnFilter::List);
    assert_eq!(config.takeover_cost, 100);
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
        "-evpn-filter=entries",
        "-takeover-cost=90",
    ]);
    assert_eq!(config.range.len(), 1);
    assert_eq!((config.mock, config.debug), (true, true));
    assert_eq!(config.points, [0, 7, u64::MAX]);
    assert!(config.points_given);
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
    assert_eq!(config.evpn_filter, EvpnFilter::Entries);
    assert_eq!(config.takeover_cost, 90);
}

#[test]
fn an_empty_list_of_points_means_by_lot_as_in_go() {
    let (one, other) = (config(&["--name=x", "--uids="]), config(&["--name=x"]));
    assert_eq!((one.points.len(), one.points_given), (100, false));
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

/// Input: VNIs that are named twice. Output: each once, in the order of their first time.
#[test]
fn a_vni_that_is_asked_for_twice_is_shown_once() {
    let Ok(Command::Status(config)) = parse_texts(&["status", "7", "3", "7", "3"]) else {
        panic!("not taken");
    };
    let vnis: Vec<u32> = config.vnis.iter().map(|vni| vni.get()).collect();
    assert_eq!(vnis, [7, 3]);
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
            Some((_, "100 random points)" | "those of the system)" | "none)")) => {}
            Some((_, default)) => given.push(format!(
                "{}={}",
                flag.long,
                default.strip_suffix(')').unwrap()
            )),
        }
    }
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let (mut one, mut other) = (config(&given), config(&["--name=x"]));
    one.points.clear();
    other.points.clear();
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

/// Input: variables and arguments. Output: the name, first VNI, whether mock, and the lease's seconds.
#[test]
fn options_come_from_the_environment_and_the_command_line_wins() {
    type Row<'a> = (
        &'a [(&'a str, &'a str)],
        &'a [&'a str],
        (&'a str, u32, bool, u64),
    );
    #[rustfmt::skip]
    const TABLE: &[Row] = &[
        (&[("WMGWD_NAME", "gw1")], &[], ("gw1", 1, false, 5)),
        (&[("WMGWD_NAME", "gw1")], &["-name=gw2"], ("gw2", 1, false, 5)),
        (&[("WMGWD_NAME", "gw1"), ("WMGWD_MINVNI", "7")], &[], ("gw1", 7, false, 5)),
        (&[("WMGWD_MINVNI", "7")], &["--name=a", "--minvni", "9"], ("a", 9, false, 5)),
        (&[("WMGWD_MINVNI", "")], &["--name=a"], ("a", 1, false, 5)),
        (&[("WMGWD_LEASE_TTL", "9")], &["--name=a"], ("a", 1, false, 9)),
        (&[("WMGWD_MOCK", "1")], &["--name=a"], ("a", 1, true, 5)),
        (&[("WMGWD_MOCK", "True")], &["--name=a"], ("a", 1, true, 5)),
        (&[("WMGWD_MOCK", "F")], &["--name=a"], ("a", 1, false, 5)),
        (&[("WMGWD_MOCK", "")], &["--name=a"], ("a", 1, false, 5)),
        (&[("WMGWD_MOCK", "true")], &["--name=a", "-mock=false"], ("a", 1, false, 5)),
        (&[("WMGWD_NAME", "--mock")], &[], ("--mock", 1, false, 5)),
        // A bad one does not matter where the command line has the option.
        (&[("WMGWD_LEASE_TTL", "x"), ("WMGWD_MOCK", "x")], &["-name=a", "-lease-ttl=2", "-mock"], ("a", 1, true, 2)),
        // Not ours: of other programs, of another spelling, of tests, of start scripts.
        (&[("NAME", "x"), ("wmgwd_minvni", "x"), ("WMGWD_SIM_SEEDS", "1"), ("WMGWD_OPTIONS", "x"), ("WMGWD_HELP", "1"), ("WMGWD_VERSION", "1")], &["--name=a"], ("a", 1, false, 5)),
    ];
    for (variables, texts, expected) in TABLE {
        let Ok(Command::Run(config)) = parse_with(variables, texts) else {
            panic!("{variables:?} {texts:?}");
        };
        let first = config.range.first().get();
        let read = (
            config.name.as_str(),
            first,
            config.mock,
            config.timing.ttl.as_secs(),
        );
        assert_eq!(read, *expected, "{variables:?} {texts:?}");
    }
}

/// Input: a bad variable. Output: an error that names it, and not the option.
#[test]
fn a_bad_variable_is_named() {
    for (variable, value, part) in [
        (
            "WMGWD_NAME",
            "a/b",
            "WMGWD_NAME cannot be \"a/b\"; it takes",
        ),
        ("WMGWD_MINVNI", "x", "WMGWD_MINVNI cannot be \"x\""),
        (
            "WMGWD_MINVNI",
            "101",
            "WMGWD_MINVNI 101 is greater than --maxvni 100",
        ),
        (
            "WMGWD_MOCK",
            "yes",
            "WMGWD_MOCK cannot be \"yes\"; it takes true or false",
        ),
        ("WMGWD_UIDS", "1,z", "WMGWD_UIDS cannot be \"z\""),
        ("WMGWD_ETCD", "nowhere", "WMGWD_ETCD: \"nowhere\""),
        ("WMGWD_TAKEOVER_COST", "0", "WMGWD_TAKEOVER_COST cannot be"),
    ] {
        let texts: &[&str] = if variable == "WMGWD_NAME" {
            &[]
        } else {
            &["--name=a"]
        };
        let text = parse_with(&[(variable, value)], texts)
            .unwrap_err()
            .to_string();
        assert!(text.starts_with(part), "{text:?} lacks {part:?}");
        assert!(parse_with(&[(variable, value)], &["--version"]).is_ok());
        assert!(parse_with(&[(variable, value)], &["--help"]).is_ok());
    }
    let text = error(&[]);
    assert!(
        text.ends_with("may be given as WMGWD_NAME in the environment"),
        "{text}"
    );
}

/// Input: every option of each command by its variable. Output: it is read, since a bad one is refused.
#[test]
fn every_option_of_every_command_has_its_variable() {
    use std::os::unix::ffi::OsStringExt;
    for (command, flags) in [
        (None, Args::get_args_info().flags),
        (Some("withdraw"), WithdrawArgs::get_args_info().flags),
    ] {
        let mut variables = 0;
        for flag in flags {
            let Some(variable) = environment::variable(flag.long) else {
                assert!(
                    ["--help", "--version"].contains(&flag.long),
                    "{}",
                    flag.long
                );
                continue;
            };
            let args = command.into_iter().map(OsString::from);
            let text = parse(args, |name| match name {
                // No option takes what is no text.
                _ if name == variable => Some(OsString::from_vec(vec![0xff])),
                "WMGWD_NAME" => Some(OsString::from("a")),
                _ => None,
            });
            let text = text.unwrap_err().to_string();
            assert!(text.starts_with(&variable), "{variable}: {text}");
            variables += 1;
        }
        assert!(variables >= 6, "{command:?}");
    }
}

/// Input: a password in every place where something is wrong. Output: an error, or a configuration that is
/// printed; none shows the password.
#[test]
fn a_password_is_never_shown() {
    use std::os::unix::ffi::OsStringExt;
    let wrong: [&[&str]; 8] = [
        &["--name=x", "--user=:s3cret"],
        &["--name=x", "--user", ":s3cret"],
        &["--name=x", "--user=a\n:s3cret"],
        &["--name=x", "--user=a:s3cret", "--user=b:s3cret"],
        &["--name=x", "--user=a:s3cret", "--password-file=f"],
        &["--name=x", "--user=a:s3cret", "--minvni=0"],
        &["--name=x", "--usr=a:s3cret"],
        &["--user=a:s3cret"],
    ];
    for texts in wrong {
        let text = error(texts);
        assert!(!text.contains("s3cret"), "{texts:?}: {text}");
    }
    let broken = || OsString::from_vec(b"a:s3cret\xff".to_vec());
    let mut joined = OsString::from("--user=");
    joined.push(broken());
    for args in [
        vec![OsString::from("--user"), broken()],
        vec![joined],
        vec![OsString::from("--user=a:s3cret"), broken()],
        ["--user", "a:s3cret"]
            .map(OsString::from)
            .into_iter()
            .chain([broken()])
            .collect(),
    ] {
        let text = parse(args.into_iter(), |_| None).unwrap_err().to_string();
        assert!(!text.contains("s3cret"), "{text}");
    }
    let variable = |name: &str| (name == "WMGWD_USER").then(broken);
    let text = parse([OsString::from("--name=x")].into_iter(), variable)
        .unwrap_err()
        .to_string();
    assert_eq!(text.find("WMGWD_USER cannot be"), Some(0));
    assert!(!text.contains("s3cret"), "{text}");

    let given = config(&["--name=x", "--user=a:s3cret:more"]);
    assert!(!format!("{given:?}").contains("s3cret"));
    let password = given.etcd.login.unwrap().password;
    assert_eq!(
        password,
        etcd::Password::Argument(String::from("s3cret:more"))
    );
    let Ok(Command::Run(given)) = parse_with(&[("WMGWD_USER", "a:s3cret")], &["--name=x"]) else {
        panic!("not taken");
    };
    assert!(!format!("{given:?}").contains("s3cret"));
    let password = given.etcd.login.unwrap().password;
    assert_eq!(password, etcd::Password::Variable(String::from("s3cret")));
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

/// Random arguments from a fixed seed: whatever stands there, the answer is a command or one line.
#[test]
fn no_arguments_make_it_panic() {
    const PIECES: &[&str] = &[
        "-",
        "--",
        "=",
        "name",
        "minvni",
        "maxvni",
        "mock",
        "uids",
        "debug",
        "etcd",
        "settle",
        "lease-ttl",
        "help",
        "h",
        "version",
        "withdraw",
        "guard",
        "http://",
        "localhost",
        ":",
        "0",
        "1",
        "9",
        ".",
        ",",
        "16777215",
        "99999999999999999999999999999999999999999",
        "true",
        "e",
        "\n",
        "\0",
        "é",
        "/",
        " ",
        "[",
        "]",
    ];
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        // xorshift64: any sequence will do, as long as it is the same each time.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for _ in 0..50_000 {
        let args: Vec<String> = (0..random(5))
            .map(|_| {
                (0..random(6))
                    .map(|_| PIECES[random(PIECES.len())])
                    .collect()
            })
            .collect();
        let texts: Vec<&str> = args.iter().map(String::as_str).collect();
        let variables = [("WMGWD_NAME", texts.last().copied().unwrap_or_default())];
        if let Err(error) = parse_with(&variables, &texts) {
            let line = error.to_string();
            assert!(!line.chars().any(char::is_control), "{args:?}: {line:?}");
            assert!(!matches!(error, Error::Argh { .. }), "{args:?}: {line}");
        }
    }
}
