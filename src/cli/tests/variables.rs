//! Options that come from the environment.

use super::{error, parse_with};
use crate::cli::*;

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
    let commands: [(&[&str], _); 7] = [
        (&[], Args::get_args_info().flags),
        (&["withdraw"], WithdrawArgs::get_args_info().flags),
        (&["check"], CheckArgs::get_args_info().flags),
        (&["status"], StatusArgs::get_args_info().flags),
        (&["drain", "gw1"], DrainArgs::get_args_info().flags),
        (&["undrain", "gw1"], UndrainArgs::get_args_info().flags),
        (&["witness"], WitnessArgs::get_args_info().flags),
    ];
    for (command, flags) in commands {
        let mut variables = 0;
        for flag in flags {
            let Some(variable) = environment::variable(flag.long) else {
                assert!(
                    ["--help", "--version", "--check-config", "--env-file"].contains(&flag.long),
                    "{}",
                    flag.long
                );
                continue;
            };
            let args = command.iter().map(OsString::from);
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

/// Input: variables of options, misspelt ones, one like none, and such as are left alone. Output: the misspelt ones,
/// each with the one that was meant, and that of no option.
#[test]
fn a_misspelt_variable_is_named() {
    let names = [
        "PATH",
        "WMGWD_MAXVNI",
        "WMGWD_UNLESS_GUARDED",
        "WMGWD_INTERVAL",
        "WMGWD_VERSION",
        "WMGWD_MOCK_DIR",
        "WMGWD_MAX_VNI",
        "WMGWD_LEASETTL",
        "WMGWD_METRIC",
        "WMGWD_PASWORD_FIEL",
        "WMGWD_OPTIONS",
    ];
    let found: Vec<(String, Option<String>)> = strangers(names.map(String::from).into_iter())
        .into_iter()
        .map(|it| (it.name, it.meant))
        .collect();
    let meant = |name: &str, meant: Option<&str>| (name.to_owned(), meant.map(str::to_owned));
    assert_eq!(
        found,
        [
            meant("WMGWD_LEASETTL", Some("WMGWD_LEASE_TTL")),
            meant("WMGWD_MAX_VNI", Some("WMGWD_MAXVNI")),
            meant("WMGWD_METRIC", Some("WMGWD_METRICS")),
            meant("WMGWD_OPTIONS", None),
            meant("WMGWD_PASWORD_FIEL", None),
        ]
    );
}
