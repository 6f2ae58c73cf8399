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

/// br7 with vxlan7 and the address 10.7.0.1 here, and what the commands `more` add; behind it a station in a network
/// namespace.
pub fn bridge_with_station(more: &str) {
    sh(
        "mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys; mkdir /run/netns
        ip netns add station
        ip link add br7 type bridge
        ip link add port7 type veth peer name eth0 netns station
        ip link set port7 master br7
        ip link add vxlan7 type vxlan id 7 dstport 4789 nolearning
        ip link set vxlan7 master br7
        ip address add 10.7.0.1/24 dev br7",
    );
    sh(more);
    sh("ip link set lo up; ip link set br7 up; ip link set port7 up
        ip -n station address add 10.7.0.9/24 dev eth0
        ip -n station link set eth0 up");
    eventually("the bridge forwards", || {
        try_sh("nsenter --net=/run/netns/station arping -c 1 -w 1 -I eth0 10.7.0.1").0
    });
}
