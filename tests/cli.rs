//! The command line of the real program, and that help, man page and README say the same about it.
#![allow(clippy::unwrap_used)]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::process::Output;

fn wmgwd<S: AsRef<OsStr>>(args: &[S]) -> Output {
    program::wmgwd().args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = wmgwd(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert_eq!(output.stderr, b"", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Contract: status 2, nothing on stdout, and one line on stderr that contains `part`.
fn refused<S: AsRef<OsStr> + std::fmt::Debug>(args: &[S], part: &str) {
    let output = wmgwd(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert_eq!(output.stdout, b"", "{args:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("wmgwd: "), "{args:?}: {line:?}");
    assert!(
        line.ends_with('\n') && line.matches('\n').count() == 1,
        "{args:?}: {line:?}"
    );
    assert!(line.contains(part), "{args:?}: {line:?} lacks {part:?}");
}

#[test]
fn what_cannot_be_taken_is_refused_in_one_line() {
    refused::<&str>(&[], "--name");
    for (args, part) in [
        (&["-name"][..], "--name"),
        (&["--name="], "--name"),
        (&["--name=a/b"], "--name"),
        (&["--name=a\nb"], "--name"),
        (&["--name=a", "--name=b"], "--name"),
        (&["--name=a", "--minvni=0"], "--minvni"),
        (&["--name=a", "--minvni", "-1"], "--minvni"),
        (&["--name=a", "--maxvni=16777216"], "--maxvni"),
        (&["--name=a", "--minvni=8", "--maxvni=7"], "--minvni"),
        (&["--name=a", "--mock=2"], "--mock"),
        (&["--name=a", "--debug=yes"], "--debug"),
        (&["--name=a", "--uids=1,-2"], "--uids"),
        (&["--name=a", "--etcd=nowhere"], "--etcd"),
        (&["--name=a", "--etcd=http://"], "--etcd"),
        (&["--name=a", "--settle=fast"], "--settle"),
        (&["--name=a", "--drain-timeout=-1"], "--drain-timeout"),
        (&["--name=a", "--lease-ttl=1"], "--lease-ttl"),
        (&["--name=a", "--join-hold="], "--join-hold"),
        (&["--name=a", "--evpn-filter=all"], "--evpn-filter"),
        (&["--name=a", "--takeover-cost=101"], "--takeover-cost"),
        (&["--name=a", "--metrics=localhost"], "--metrics"),
        (&["--name=a", "--metrics=:9798"], "--metrics"),
        (&["--name=a", "--notify=notify.sh"], "--notify"),
        (&["--name=a", "--version=maybe"], "--version"),
        (&["--name=a", "--wat"], "--wat"),
        (&["--name=a", "--mock", "true"], "true"),
        (&["withdraw", "--etcd=http://localhost:2379"], "--etcd"),
        (&["withdraw", "--maxvni=0"], "--maxvni"),
        (&["check", "--uids=1"], "--uids"),
        (&["status", "0"], "<vni>"),
        (&["status", "7-5"], "<vni>"),
        (&["status", "5-"], "<vni>"),
        (&["status", "5,,7"], "<vni>"),
        (&["status", "--interval=0"], "--interval"),
        (&["drain"], "<name>"),
        (&["drain", "a", "b"], "only one <name>"),
        (&["undrain", "a/b"], "<name>"),
        (&["undrian", "a"], "undrian"),
        (&["check", "--lease-ttl=1"], "--lease-ttl"),
    ] {
        refused(args, part);
    }
    let not_text = OsString::from_vec(b"--name=\xff".to_vec());
    refused(&[not_text], "--name");
}

/// Contract: what the command line lacks comes from the environment; a bad variable is named.
#[test]
fn options_come_from_the_environment() {
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = program::wmgwd();
        let output = command.envs(variables.iter().copied()).args(args).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, line) = run(&[("WMGWD_NAME", "a"), ("WMGWD_LEASE_TTL", "1")], &[]);
    assert_eq!(status, Some(2));
    assert!(
        line.starts_with("wmgwd: WMGWD_LEASE_TTL cannot be \"1\""),
        "{line}"
    );
    let mut command = program::wmgwd();
    command.env("WMGWD_NAME", OsString::from_vec(b"a\xff".to_vec()));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        output.stderr.starts_with(b"wmgwd: WMGWD_NAME cannot be"),
        "{output:?}"
    );
    // One VNI that no host has a bridge for.
    let vni = [("WMGWD_MINVNI", "16777215"), ("WMGWD_MAXVNI", "16777215")];
    let (status, log) = run(&vni, &["withdraw", "--mock"]);
    assert_eq!(status, Some(0), "{log}");
    let (status, line) = run(&vni, &["withdraw", "--mock", "--maxvni=3"]);
    assert_eq!(status, Some(2));
    assert!(
        line.contains("WMGWD_MINVNI 16777215 is greater than --maxvni 3"),
        "{line}"
    );
}

/// Input: a misspelt variable. Output: the command says so and goes on; one that only asks etcd does not.
#[test]
fn a_misspelt_variable_is_warned_of() {
    let says = "WMGWD_MAX_VNI is the variable of no option: is WMGWD_MAXVNI meant?";
    for (args, expected) in [
        (&["withdraw", "--mock"][..], true),
        (&["check", "--mock", "--etcd=http://127.0.0.1:1"], true),
        (&["status", "--etcd=http://127.0.0.1:1"], false),
    ] {
        let output = program::wmgwd()
            .env("WMGWD_MAX_VNI", "7")
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.contains(says), expected, "{args:?}: {stderr}");
        assert_ne!(output.status.code(), None);
    }
    let output = program::wmgwd().args(["withdraw", "--mock"]).output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(!stderr.contains("no option"), "{stderr}");
}

/// Input: a bad option where standard error is the journal, or so it is told, and where it is not. Output: the line
/// has the priority of an error there, and none elsewhere.
#[test]
fn the_journal_gets_a_bad_option_as_an_error() {
    let path = std::env::temp_dir().join(format!("wmgwd-journal-{}", std::process::id()));
    let log = std::fs::File::create(&path).unwrap();
    let metadata = log.metadata().unwrap();
    for (inode, begins) in [
        (metadata.ino(), "<3>wmgwd: --maxvni"),
        (0, "wmgwd: --maxvni"),
    ] {
        log.set_len(0).unwrap();
        let status = program::wmgwd()
            .env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()))
            .args(["--name=a", "--maxvni=0"])
            .stderr(
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(&path)
                    .unwrap(),
            )
            .status()
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(status.code(), Some(2));
        assert!(text.starts_with(begins), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
}

/// Input: options that can be taken, and such as cannot, or name a file that is not there. Output: 0, or 2 and the
/// line; etcd, which is not there, is not asked.
#[test]
fn options_can_be_looked_at_before_a_restart() {
    let run = |args: &[&str]| {
        let base = ["--check-config", "--name=a", "--etcd=http://127.0.0.1:1"];
        let output = program::wmgwd().args(base).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.stdout, b"", "{args:?}");
        (output.status.code(), stderr)
    };
    let (status, log) = run(&["--maxvni=7"]);
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("the options can be taken: name=a vnis=1-7"),
        "{log}"
    );
    assert_eq!(log.lines().count(), 2, "{log}");
    let (status, log) = run(&["--maxvni=0"]);
    assert_eq!(status, Some(2), "{log}");
    let (status, log) = run(&["--cacert=/nowhere/to/be/found"]);
    assert_eq!(status, Some(2), "{log}");
    assert!(
        log.contains("cannot read --cacert /nowhere/to/be/found"),
        "{log}"
    );
    let (status, log) = run(&["--notify=/nowhere/to/be/found"]);
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("--notify /nowhere/to/be/found is no program"),
        "{log}"
    );
}

#[test]
fn version_and_help_need_no_name() {
    let version = format!("wmgwd {}\n", env!("CARGO_PKG_VERSION"));
    for args in [["--version"], ["-version"], ["--version=true"], ["-v"]] {
        assert_eq!(stdout(&args), version);
    }
    for args in [["--help"], ["-help"], ["-h"], ["help"]] {
        assert!(stdout(&args).starts_with("Usage: wmgwd --name"));
    }
    assert!(stdout(&["withdraw", "--help"]).starts_with("Usage: wmgwd withdraw"));
    assert!(stdout(&["check", "--help"]).starts_with("Usage: wmgwd check"));
    for command in ["withdraw", "check", "status", "drain", "undrain", "witness"] {
        assert_eq!(stdout(&["help", command]), stdout(&[command, "--help"]));
    }
    refused(&["help", "chekc"], "there is no command \"chekc\"");
}

/// Options and their defaults; `required` where there is none.
type Options = BTreeMap<String, String>;

/// From `  --minvni   the smallest .. (default: 1)`, wrapped over lines.
fn from_help(args: &[&str]) -> Options {
    let help = stdout(args);
    let list = help.split_once("Options:\n").unwrap().1;
    let list = list.split("\n\n").next().unwrap();
    let words = list.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut options = Options::new();
    // An option starts its line; elsewhere in a text it is a mention.
    for name in list
        .lines()
        .filter_map(|line| line.strip_prefix("  --")?.split(' ').next())
    {
        let text = words
            .split_once(&format!("--{name} "))
            .map(|(_, text)| text)
            .unwrap();
        let end = text.find("(default: ").zip(text.find("(required)"));
        let default = match end {
            Some((default, required)) if required < default => "required",
            _ => text
                .split_once("(default: ")
                .unwrap()
                .1
                .split(')')
                .next()
                .unwrap(),
        };
        options.insert(name.to_owned(), default.to_owned());
    }
    options
}

/// From `.It Fl -minvni Ar vni`, then `Default: 1.` or `Required.` on a line of its own.
fn from_man() -> Options {
    let man = include_str!("../man/wmgwd.8");
    let mut options = Options::new();
    for item in man.split("\n.It Fl -").skip(1) {
        let name = item.split_whitespace().next().unwrap();
        let default = item.lines().find_map(|line| {
            if line == "Required." {
                return Some("required");
            }
            line.strip_prefix("Default: ")?.strip_suffix('.')
        });
        match default {
            Some(default) => {
                options.insert(name.to_owned(), default.to_owned());
            }
            None => assert_eq!(name, "help", "the man page lacks the default"),
        }
    }
    options
}

/// From the rows of the table: "| `--minvni` | the smallest .. | 1 |".
fn from_readme() -> Options {
    include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            let (_, default) = rest.strip_suffix(" |").unwrap().rsplit_once(" | ").unwrap();
            (name.to_owned(), default.to_owned())
        })
        .collect()
}

/// Contract: `--help`, `man/wmgwd.8` and `README.md` have the same options with the same defaults.
#[test]
fn help_man_page_and_readme_agree() {
    let run = from_help(&["--help"]);
    assert_eq!(run.len(), 30, "{run:?}");
    assert_eq!(from_readme(), run);

    let mut both = run;
    both.extend(from_help(&["withdraw", "--help"]));
    // What a check has alone; of what it shares, it alone can do without a name.
    for (name, default) in from_help(&["check", "--help"]) {
        let shared = both.entry(name.clone()).or_insert(default.clone());
        assert!(*shared == default || name == "name", "{name}");
    }
    for command in ["status", "drain", "undrain"] {
        for (name, default) in from_help(&[command, "--help"]) {
            let shared = both.entry(name.clone()).or_insert(default.clone());
            assert_eq!(*shared, default, "{command} {name}");
        }
    }
    // What a witness has to be told a gateway finds out.
    for (name, default) in from_help(&["witness", "--help"]) {
        assert!(both[&name] == default || name == "beat-address", "{name}");
    }
    assert_eq!(from_man(), both);
    let readme = include_str!("../README.md");
    for name in both.keys() {
        assert!(
            readme.contains(&format!("`--{name}`")),
            "README lacks --{name}"
        );
    }
}

/// Contract: `wmgwd withdraw` takes what it shares with the daemon under the same name and default.
#[test]
fn withdraw_shares_its_options_with_the_daemon() {
    let (run, withdraw) = (from_help(&["--help"]), from_help(&["withdraw", "--help"]));
    for (name, default) in withdraw {
        if name != "unless-guarded" {
            assert_eq!(run.get(&name), Some(&default), "{name}");
        }
    }
}
