//! Which FRR daemons run, from their pid files and /proc. No vtysh: a stopped daemon would block it.

use crate::host::Health;
use std::fs;
use std::path::{Path, PathBuf};

/// Looks for the daemons whose pid files stand in one of `run_dirs` (the first that has one counts).
pub fn look(run_dirs: &[PathBuf]) -> Health {
    let identity = |daemon| run_dirs.iter().find_map(|dir| identity(dir, daemon));
    Health {
        bgpd: identity("bgpd"),
        ospfd: identity("ospfd"),
        zebra: identity("zebra"),
    }
}

/// Whether `daemon` has a process, be it one that is stopped and does not answer.
pub fn runs(run_dirs: &[PathBuf], daemon: &str) -> bool {
    run_dirs.iter().any(|dir| {
        let pid = fs::read_to_string(dir.join(format!("{daemon}.pid"))).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
        !pid.trim().is_empty() && name.trim() == daemon
    })
}

fn identity(run_dir: &Path, daemon: &str) -> Option<u64> {
    let pid = fs::read_to_string(run_dir.join(format!("{daemon}.pid"))).ok()?;
    let pid: u64 = pid.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The start in clock ticks since boot tells a new process with an old number; a Linux pid has at most
    // 22 bits (PID_MAX_LIMIT).
    Some(started(&stat, daemon)? << 22 | pid & 0x003f_ffff)
}

/// Start time in clock ticks since boot from `/proc/<pid>/stat` (proc_pid_stat(5)), if that process is
/// `daemon` and can act: one that is stopped or a zombie does not answer, which is as bad as none.
fn started(stat: &str, daemon: &str) -> Option<u64> {
    // The name stands in parentheses and may contain anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    if name != daemon || matches!(state, "T" | "Z" | "X") {
        return None;
    }
    // Field 22 of all, the third is the state.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "29 (bgpd) S 1 29 29 0 -1 4194624 711 0 0 0 0 1 0 0 20 0 4 0 91938 185737216 3830 18446744073709551615";

    #[test]
    fn start_time_of_the_right_process() {
        assert_eq!(started(STAT, "bgpd"), Some(91938));
        assert_eq!(started(STAT, "zebra"), None);
        assert_eq!(started(&STAT.replace(" S ", " T "), "bgpd"), None);
        assert_eq!(started("29 (a) b) S 1", "bgpd"), None);
        assert_eq!(started("", "bgpd"), None);
    }

    #[test]
    fn nothing_there() {
        assert_eq!(look(&["/nonexistent".into()]), Health::default());
    }
}
