//! What a user installs: the manual page, the shell completions, the systemd unit, the OpenWrt script, the Debian
//! package. Each test says so and passes where a program that it needs is missing.
#![allow(clippy::unwrap_used)]

mod common;

use common::etcd::Etcd;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WMGWD: &str = env!("CARGO_BIN_EXE_wmgwd");

/// A directory of a test's own, gone at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let name = format!("wmgwd-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether all `programs` are there; says what is missing.
fn has(test: &str, programs: &[&str]) -> bool {
    let there = |program: &str| {
        let paths = std::env::var("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|path| path.join(program).is_file())
    };
    let missing = programs.iter().find(|program| !there(program));
    if let Some(program) = missing {
        println!("{test}: skipped, needs {program}");
    }
    missing.is_none()
}

/// Runs `command` with the program under test first in `PATH`; whether it succeeded, and all that it said.
fn run(command: &mut Command) -> (bool, String) {
    let beside = Path::new(WMGWD).parent().unwrap().display().to_string();
    let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
    let output = command
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The options that `wmgwd [subcommand] --help` lists, and the subcommands of its usage.
fn offers(subcommand: Option<&str>) -> (BTreeSet<String>, BTreeSet<String>) {
    let (_, help) = run(Command::new(WMGWD).args(subcommand).arg("--help"));
    let (usage, list) = help.split_once("Options:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let option = |line: &str| {
        let line = line.strip_prefix("  ")?.trim_start_matches("-h, ");
        line.starts_with("--")
            .then(|| line.split(' ').next().unwrap().to_owned())
    };
    let subcommand = |line: &str| {
        let word = line
            .trim_start_matches("Usage:")
            .trim()
            .strip_prefix("wmgwd ")?;
        let word = word.split(' ').next()?;
        word.starts_with(|c: char| c.is_ascii_lowercase())
            .then(|| word.to_owned())
    };
    let usage = usage.split("\n\n").next().unwrap();
    (
        list.lines().filter_map(option).collect(),
        usage.lines().filter_map(subcommand).collect(),
    )
}

fn both(one: &BTreeSet<String>, other: &BTreeSet<String>) -> BTreeSet<String> {
    one.union(other).cloned().collect()
}

/// Contract: what a shell offers is what `--help` lists, for the daemon and for every subcommand.
fn completes(complete: impl Fn(&str) -> BTreeSet<String>) {
    let (options, subcommands) = offers(None);
    assert!(
        options.len() > 10 && subcommands.contains("check"),
        "{options:?} {subcommands:?}"
    );
    let dashed = |set: BTreeSet<String>| -> BTreeSet<String> {
        set.into_iter()
            .filter(|word| word.starts_with("--"))
            .collect()
    };
    let nothing = complete("");
    // Some shells offer options only after a dash.
    assert!(subcommands.is_subset(&nothing), "{nothing:?}");
    assert!(
        nothing.is_subset(&both(&subcommands, &options)),
        "{nothing:?}"
    );
    assert_eq!(dashed(complete("--")), options);
    for subcommand in &subcommands {
        let (options, _) = offers(Some(subcommand));
        assert_eq!(
            dashed(complete(&format!("{subcommand} --"))),
            options,
            "{subcommand}"
        );
    }
    assert_eq!(complete("--evpn-filter "), words("list entries"));
    assert_eq!(complete("check --evpn-filter l"), words("list"));
}

/// What bash offers behind `wmgwd ` and `line`.
fn in_bash(line: &str, environment: &[(&str, &str)]) -> BTreeSet<String> {
    const SCRIPT: &str = r#"
        . contrib/completions/wmgwd.bash
        read -ra COMP_WORDS <<<"wmgwd $1"
        case $1 in '' | *' ') COMP_WORDS+=('') ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        complete -p wmgwd >/dev/null && _wmgwd && printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["-c", SCRIPT, "bash", line])
        .envs(environment.iter().copied());
    words(&run(&mut bash).1)
}

#[test]
fn bash_completes_what_the_help_lists() {
    if !has("bash_completes_what_the_help_lists", &["bash"]) {
        return;
    }
    let complete = |line: &str| in_bash(line, &[]);
    completes(complete);
    // As bash cuts it.
    assert_eq!(complete("--mock = f"), words("false"));
    assert_eq!(complete("-evpn-filter = "), words("list entries"));
    assert!(
        complete("--mock ").contains("--debug"),
        "no value after a space"
    );
    assert!(complete("--etcd contri").contains("contrib"));
}

/// What fish offers behind `wmgwd ` and `line`.
fn in_fish(line: &str, environment: &[(&str, &str)]) -> BTreeSet<String> {
    let home = Directory::new("fish");
    let script = format!(
        "source contrib/completions/wmgwd.fish; complete -C 'wmgwd {line}' | string replace -r '\\t.*' ''"
    );
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", &script])
        .env("HOME", &home.0)
        .envs(environment.iter().copied());
    words(&run(&mut fish).1)
}

#[test]
fn fish_completes_what_the_help_lists() {
    if !has("fish_completes_what_the_help_lists", &["fish"]) {
        return;
    }
    let complete = |line: &str| in_fish(line, &[]);
    completes(complete);
    assert_eq!(complete("--mock=f"), words("--mock=false"));
    assert!(complete("--mock --").contains("--debug"));
    assert!(complete("--etcd contri").contains("contrib/"));
}

/// What zsh offers behind `wmgwd ` and `line`, at a pseudo-terminal: completion works nowhere else.
fn in_zsh(line: &str, environment: &[(&str, &str)]) -> BTreeSet<String> {
    // `compadd` with -O keeps the matches instead of showing them; they are printed between marks.
    const SCRIPT: &str = r#"
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "PS1=; stty -echo; fpath=($PWD/contrib/completions \$fpath); autoload -Uz compinit; compinit -u -D"
        zpty -w z 'compadd() { local -a hits; builtin compadd -A hits "$@"; all+=($hits); builtin compadd "$@" }'
        zpty -w z '_show() { all=(); zle list-choices; print -r -- "<""<$all>"">"; BUFFER= }; zle -N _show; bindkey "^I" _show'
        zpty -w z 'unsetopt zle_bracketed_paste; unset zle_bracketed_paste; print rea""dy'
        zpty -r z said '*ready*'
        zpty -n -w z "wmgwd $1"$'\t'
        zpty -r z said '*<<*>>*'
        said=${said##*<<}
        print -r -- ${said%%>>*}"#;
    let mut zsh = Command::new("timeout");
    zsh.args(["60", "zsh", "-f", "-c", SCRIPT, "zsh", line])
        .envs(environment.iter().copied());
    words(&run(&mut zsh).1)
}

#[test]
fn zsh_completes_what_the_help_lists() {
    if !has("zsh_completes_what_the_help_lists", &["zsh"]) {
        return;
    }
    let complete = |line: &str| in_zsh(line, &[]);
    completes(complete);
    assert_eq!(complete("--mock=f"), words("false"));
}

/// Input: an etcd with two nodes. Output: each shell offers their names to drain and undrain, and to no other command.
#[test]
fn names_of_nodes_are_completed() {
    if !has(
        "names_of_nodes_are_completed",
        &["etcd", "etcdctl", "bash", "fish", "zsh"],
    ) {
        return;
    }
    let etcd = Etcd::start();
    let url = etcd.endpoint().to_string();
    for name in ["gw-a", "gw-b"] {
        let mut etcdctl = Command::new("etcdctl");
        let key = format!("/wmgwd/node/{name}");
        etcdctl.args(["--endpoints", &url, "put", &key, "[1]"]);
        let (success, said) = run(etcdctl.env("ETCDCTL_API", "3"));
        assert!(success, "{said}");
    }
    let environment = [("WMGWD_ETCD", &*url)];
    for complete in [in_bash, in_fish, in_zsh] as [fn(&str, &[(&str, &str)]) -> _; 3] {
        for command in ["drain", "undrain"] {
            let offered = complete(&format!("{command} g"), &environment);
            assert_eq!(offered, words("gw-a gw-b"), "{command}");
        }
        // fish offers options that hold a "g".
        assert!(!complete("status g", &environment).contains("gw-a"));
    }
}

#[test]
fn the_manual_pages_render_without_warnings() {
    let test = "the_manual_pages_render_without_warnings";
    for (file, section) in [
        ("man/wmgwd.7", "GUARANTEES AND LIMITS"),
        ("man/wmgwd.8", "DIAGNOSTICS"),
    ] {
        if has(test, &["mandoc"]) {
            let lint = ["-Tlint", "-Wwarning", file];
            assert_eq!(
                run(Command::new("mandoc").args(lint)),
                (true, String::new())
            );
        }
        if has(test, &["man", "groff"]) {
            let mut man = Command::new("man");
            man.args(["--warnings", "--encoding=UTF-8", "--local-file", file]);
            let output = man
                .env("MANWIDTH", "80")
                .env("LC_ALL", "C.UTF-8")
                .output()
                .unwrap();
            let warnings = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && warnings.is_empty(),
                "{file}: {warnings}"
            );
            let page = String::from_utf8_lossy(&output.stdout);
            assert!(page.contains(section), "{file}");
            let widest = page.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(80), "{file}: a line of {widest:?}");
        }
    }
}

/// Contract: systemd finds nothing to complain about, and the exposure does not grow.
#[test]
fn systemd_takes_the_units() {
    if !has("systemd_takes_the_units", &["systemd-analyze"]) {
        return;
    }
    let directory = Directory::new("unit");
    // Of the first, 2 are real-time priority.
    for (name, threshold) in [("wmgwd.service", 25), ("wmgwd-witness.service", 15)] {
        let unit = std::fs::read_to_string(format!("contrib/{name}")).unwrap();
        let file = directory.0.join(name);
        std::fs::write(&file, unit.replace("/usr/local/sbin/wmgwd", WMGWD)).unwrap();
        let verify = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verify.stderr);
        let complains = said.contains(&format!("{name}:"));
        assert!(verify.status.success() && !complains, "{said}");
        let (fine, said) = run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={threshold}"))
            .arg(&file));
        assert!(fine, "{said}");
    }
}

/// Contract: systemd ends no daemon that is as it should be. Ready means that etcd has answered, so a start may take
/// for ever, and is taken up again after every end; a stop may take as long as a drain; the guard is left alone.
#[test]
fn the_unit_has_the_patience_that_the_daemon_needs() {
    let unit = std::fs::read_to_string("contrib/wmgwd.service").unwrap();
    let has = |line: &str| unit.lines().any(|it| it == line);
    for line in [
        "Type=notify",
        "TimeoutStartSec=infinity",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "KillMode=process",
        "ExecReload=/usr/local/sbin/wmgwd --check-config",
    ] {
        assert!(has(line), "the unit lacks {line}");
    }
    let stop = unit.lines().find_map(|it| {
        let seconds = it.strip_prefix("TimeoutStopSec=")?.strip_suffix('s')?;
        seconds.parse::<u64>().ok()
    });
    let (_, help) = run(Command::new(WMGWD).arg("--help"));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let drain = help.split_once("--drain-timeout").unwrap().1;
    let drain = drain.split_once("(default: ").unwrap().1;
    let drain: u64 = drain.split_once(')').unwrap().0.parse().unwrap();
    // Behind it an FRR that refuses holds the end up for 20 s.
    assert!(stop.is_some_and(|it| it > drain + 20), "{stop:?} {drain}");
}

/// Contract: Prometheus takes the alerts, and in the situations of `alerts_test.yml` they fire as they should.
#[test]
fn the_alerts_fire_when_they_should() {
    if !has("the_alerts_fire_when_they_should", &["promtool"]) {
        return;
    }
    for command in [
        "check rules contrib/prometheus/alerts.yml",
        "test rules contrib/prometheus/alerts_test.yml",
    ] {
        let (fine, said) = run(Command::new("promtool").args(command.split(' ')));
        assert!(fine, "promtool {command}: {said}");
    }
}

/// The names of metrics in a text: what begins with `wmgwd_` and is not part of a longer name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !of_a_name(c))
        .filter(|word| word.starts_with("wmgwd_") && word.len() > "wmgwd_".len())
        .map(str::to_owned)
        .collect()
}

/// Contract: alerts and dashboard ask for metrics that the manual page lists (as the program has them, see
/// `the_man_page_lists_them_all`), and the dashboard is JSON with a query in every panel.
#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let man = include_str!("../man/wmgwd.8");
    let listed: Vec<(&str, &str)> = man
        .lines()
        .filter_map(|line| line.strip_prefix(".It Va ")?.split_once(" Pq "))
        .filter(|(name, _)| name.starts_with("wmgwd_"))
        .collect();
    let is_listed = |asked: &String| {
        listed.iter().any(|&(name, kind)| match kind {
            "histogram" => asked
                .strip_prefix(name)
                .is_some_and(|part| ["_bucket", "_sum", "_count"].contains(&part)),
            _ => asked == name,
        })
    };
    let dashboard = include_str!("../contrib/prometheus/dashboard.json");
    let files = [include_str!("../contrib/prometheus/alerts.yml"), dashboard];
    for file in files {
        let asked = metrics_in(file);
        assert!(asked.len() > 5, "{asked:?}");
        let unknown: Vec<&String> = asked.iter().filter(|name| !is_listed(name)).collect();
        assert_eq!(unknown, Vec::<&String>::new());
    }
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 5);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        let asks = targets
            .iter()
            .all(|target| !metrics_in(target["expr"].as_str().unwrap()).is_empty());
        assert!(asks && !targets.is_empty(), "{panel}");
    }
}

/// Input: the configuration that comes with the OpenWrt script, switched on and filled in; procd and UCI are
/// stand-ins. Output: what procd is told, and what the clean-up after a stop is run with.
#[test]
fn the_openwrt_script_hands_its_options_over() {
    let script = |enabled: &str, call: &str| {
        let shell = format!(
            r#"
            config_load() {{ :; }}
            config_get_bool() {{ eval "$1={enabled}"; }}
            config_get() {{
                case $3 in
                etcd) eval "$1='http://a:1 http://b:2'" ;;
                lease_ttl) eval "$1=7" ;;
                maxvni) eval "$1=9" ;;
                *) eval "$1=" ;;
                esac
            }}
            procd_open_instance() {{ echo open; }}
            procd_set_param() {{ echo "set $*"; }}
            procd_append_param() {{ echo "append $*"; }}
            procd_close_instance() {{ echo close; }}
            logger() {{ echo "log $*"; }}
            . ./contrib/openwrt/wmgwd.init
            PROG={WMGWD}
            {call}"#
        );
        run(Command::new("sh").args(["-euc", &shell])).1
    };
    let started = script("1", "start_service");
    for line in [
        "open\n",
        "append env WMGWD_ETCD=http://a:1,http://b:2\n",
        "append env WMGWD_LEASE_TTL=7\n",
        "append env WMGWD_MAXVNI=9\n",
        "set term_timeout 90\n",
    ] {
        assert!(started.contains(line), "{line:?}: {started}");
    }
    assert_eq!(started.matches("append").count(), 3, "{started}");
    let disabled = script("0", "start_service");
    assert!(
        !disabled.contains("open") && disabled.starts_with("log "),
        "{disabled}"
    );
    // Mock, so that this host is left alone; the range is what counts.
    let stopped = script(
        "1",
        "export WMGWD_MOCK=true WMGWD_MINVNI=8; service_stopped",
    );
    assert!(
        stopped.contains("vnis=8-9 count=2 do not answer ARP"),
        "{stopped}"
    );
}

/// Contract: the package is what lintian takes, installs, neither starts nor enables anything, keeps a changed
/// configuration at removal, and leaves nothing behind when purged. All of it on a copy of this machine's files
/// that is thrown away.
#[test]
fn the_debian_package_comes_and_goes() {
    let test = "the_debian_package_comes_and_goes";
    let tools = [
        "dpkg-deb",
        "dpkg-shlibdeps",
        "strip",
        "gzip",
        "unshare",
        "chroot",
        "adduser",
    ];
    if !has(test, &tools) {
        return;
    }
    let directory = Directory::new("deb");
    let output = directory.0.display().to_string();
    // In the place of a release build, which takes minutes: the program under test, where the build would leave it.
    let (bin, target) = (directory.0.join("bin"), directory.0.join("target"));
    std::fs::create_dir(&bin).unwrap();
    let cargo = bin.join("cargo");
    std::fs::write(
        &cargo,
        format!(
            "#!/bin/sh\n[ \"$1\" = build ] || exec '{}' \"$@\"\n\
             exec install -D '{WMGWD}' \"$CARGO_TARGET_DIR/release/wmgwd\"\n",
            env!("CARGO")
        ),
    )
    .unwrap();
    std::fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut build = Command::new("env");
    build.arg(format!("PATH={}:{path}", bin.display()));
    build.args(["contrib/deb.sh", "--output", &output]);
    build
        .env("CARGO_TARGET_DIR", &target)
        .env("DEBFULLNAME", "A Packager")
        .env("DEBEMAIL", "packager@wmgwd.org");
    let (built, said) = run(&mut build);
    assert!(built, "{said}");
    let package = PathBuf::from(said.trim());
    if has(test, &["lintian"]) {
        let mut lintian = Command::new("lintian");
        lintian
            .args(["--allow-root", "--fail-on", "error,warning"])
            .arg(&package);
        let (clean, said) = run(&mut lintian);
        assert!(clean, "{said}");
    }
    if !nix::unistd::geteuid().is_root() {
        println!("{test}: not installed, needs root for that");
        return;
    }
    let mut install = Command::new("unshare");
    install
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-ec",
            INSTALL,
            "sh",
        ])
        .arg(&directory.0)
        .arg(&package);
    let (installed, said) = run(&mut install);
    if said.contains("no overlay here") {
        println!("{test}: not installed, needs overlayfs");
        return;
    }
    assert!(installed && said.contains("\nas it was\n"), "{said}");
}

/// Installs, looks, removes and purges package `$2`, on an overlay in `$1` that ends with this shell.
const INSTALL: &str = r#"
    mount --make-rprivate /
    mkdir "$1/over" "$1/root"
    mount -t tmpfs tmpfs "$1/over"
    mkdir "$1/over/upper" "$1/over/work"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/over/upper,workdir=$1/over/work" "$1/root" || {
        echo 'no overlay here'
        exit 1
    }
    mount -t proc proc "$1/root/proc"
    mount -t tmpfs tmpfs "$1/root/run"
    mount -t tmpfs tmpfs "$1/root/tmp"
    cp "$2" "$1/root/tmp/wmgwd.deb"
    exec chroot "$1/root" sh -ec '
        export DEBIAN_FRONTEND=noninteractive LC_ALL=C
        # "! command" does not end a shell with -e, whatever comes of it (POSIX, set).
        not() {
            if "$@"; then
                echo "must not be so: $*"
                exit 1
            fi
        }
        # What of FRR is not here is not what this is about.
        dpkg --force-depends --install /tmp/wmgwd.deb
        echo "-- installed"
        /usr/sbin/wmgwd --version
        getent passwd wmgwd | grep -q nologin
        unit=/usr/lib/systemd/system/wmgwd.service
        dpkg --listfiles wmgwd | grep -qx "$unit"
        test -s "$unit"
        not grep local/sbin "$unit"
        test "$(stat -c %a /etc/default/wmgwd)" = 640
        test ! -e /etc/systemd/system/multi-user.target.wants/wmgwd.service
        not pgrep -x wmgwd
        for file in /usr/share/man/man8/wmgwd.8.gz /usr/share/man/man7/wmgwd.7.gz \
            /usr/share/doc/wmgwd/etcd.md /usr/share/doc/wmgwd/examples/prometheus/alerts.yml \
            /usr/share/doc/wmgwd/examples/prometheus/dashboard.json /usr/share/doc/wmgwd/upgrading.md /usr/share/bash-completion/completions/wmgwd \
            /usr/share/zsh/vendor-completions/_wmgwd /usr/share/fish/vendor_completions.d/wmgwd.fish \
            /usr/share/doc/wmgwd/examples/frr.conf.example /usr/share/doc/wmgwd/examples/wmgwd-witness.service /usr/share/doc/wmgwd/copyright; do
            test -s "$file"
        done
        dpkg --verify wmgwd
        echo WMGWD_MAXVNI=7 >>/etc/default/wmgwd
        dpkg --force-depends --install /tmp/wmgwd.deb
        grep -q WMGWD_MAXVNI=7 /etc/default/wmgwd
        echo "-- again"
        mkdir -p /tmp/said
        dpkg --remove wmgwd 2>&1 | tee /tmp/said/remove
        test ! -e /usr/sbin/wmgwd
        grep -q WMGWD_MAXVNI=7 /etc/default/wmgwd
        echo "-- removed"
        dpkg --purge wmgwd 2>&1 | tee /tmp/said/purge
        # A directory that the package should not have named.
        not grep "not empty" /tmp/said/*
        test ! -e /etc/default/wmgwd
        not getent passwd wmgwd
        not dpkg --status wmgwd
        echo as it was
    '
"#;
