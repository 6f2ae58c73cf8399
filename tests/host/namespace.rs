//! Namespaces of a test's own: network, mounts, processes. Everything in them ends with the test.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the inner run of a test which test it is.
const INSIDE: &str = "WMGWD_TEST_INSIDE";

/// Runs `body` in fresh namespaces, by starting this test binary a second time in them. Prints a line and
/// returns if that is not possible here (not root), or if one of `programs` is missing.
pub fn run(test: &str, programs: &[&str], body: fn()) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        body();
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("{test}: skipped, needs root for namespaces");
        return;
    }
    let missing = |program: &&&str| !try_sh(&format!("command -v {program}")).0;
    if let Some(program) = programs.iter().find(missing) {
        println!("{test}: skipped, needs {program}");
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("timeout")
        .args([
            "-k", "5", "300", "unshare", "--net", "--mount", "--pid", "--fork",
        ])
        .args(["--kill-child", "--mount-proc", "--"])
        .arg(exe)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
}

/// Runs a shell script; returns whether it succeeded, and its standard output.
pub fn try_sh(script: &str) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

/// Runs a shell script that must succeed; returns its standard output.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until `condition` holds, at most 90 s: half a dozen FRR daemons may start on a busy machine.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "not seen: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
