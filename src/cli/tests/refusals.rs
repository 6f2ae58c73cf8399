//! What cannot be taken: one line that says why, and shows no password.

use super::{config, error, parse_with};
use crate::cli::*;
use crate::etcd;

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
        (&["--name=a", "-name", "b"], &["--name is given twice"]),
        (&["--mock", "--mock=false"], &["--mock is given twice", "true or false"]),
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
        (&["--name=x", "--detect-window=0.09"], &["--detect-window cannot be", "0.1"]),
        (&["--name=x", "--detect-window=3601"], &["--detect-window cannot be", "3600"]),
        (&["--name=x", "--beat-address=gw1"], &["--beat-address cannot be", "IP address"]),
        (&["--name=x", "--beat-address=0.0.0.0:1"], &["--beat-address cannot be", "IP address"]),
        (&["--name=x", "--beat-address=::"], &["--beat-address cannot be", "IP address"]),
        (&["--name=x", "--beat-address=192.0.2.1:0"], &["--beat-address cannot be", "IP address"]),
        (&["--name=x", "--lease-ttl=1"], &["--lease-ttl cannot be", "2 to 600"]),
        (&["--name=x", "--lease-ttl=2.5"], &["--lease-ttl cannot be", "whole seconds"]),
        (&["--name=x", "--lease-ttl=601"], &["--lease-ttl cannot be", "2 to 600"]),
        (&["--name=x", "--evpn-filter=both"], &["--evpn-filter cannot be", "list or entries"]),
        (&["--name=x", "--announce=ospf"], &["--announce cannot be", "costs or routes"]),
        (&["--name=x", "--takeover-cost=0"], &["--takeover-cost cannot be", "1 to 100"]),
        (&["--name=x", "--takeover-cost=101"], &["--takeover-cost cannot be", "1 to 100"]),
        (&["--name=x", "--track=bgp"], &["--track cannot be", "fabric-link, evpn"]),
        (&["--name=x", "--track-fabric=eth0,"], &["--track-fabric cannot be", "the interfaces towards the fabric"]),
        (&["--name=x", "--track-uplink=an interface"], &["--track-uplink cannot be", "the interfaces towards"]),
        (&["--name=x", "--fit-hold=1e3"], &["--fit-hold cannot be", "0 to 3600"]),
        (&["drain", "gw1", "gw2"], &["\"gw2\" is too much: only one <name> is taken"]),
        (&["undrain", "gw1", "--", "-h"], &["\"-h\" is too much", "<name>"]),
        (&["drain", "gw1", "--force", "true"], &["\"true\" is too much", "after \"=\""]),
        (&["witness", "--name=x"], &["--beat-address", "(required)"]),
        (&["witness", "--beat-address=192.0.2.1"], &["--name", "(required)"]),
        (&["witness", "--name=x", "--beat-address=::1", "--minvni=1"], &["no option \"--minvni\""]),
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

/// Random arguments from a fixed seed: whatever they are, the answer is a command or one line.
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
