//! The version before this one, built from the repository's own history.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The last version without early detection.
const COMMIT: &str = "de05214";

/// Its program, built on first use into the target directory, where it stays; or why it cannot be had: a shallow clone,
/// or a source without its history.
pub fn wmgwd() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, String> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = tmp.join(format!("wmgwd-{COMMIT}"));
    let program = dir.join("target/debug/wmgwd");
    if program.exists() {
        return Ok(program);
    }
    let source = dir.join("source");
    std::fs::create_dir_all(&source).unwrap();
    let unpack = format!("git archive {COMMIT} | tar -x -C '{}'", source.display());
    let unpacked = Command::new("bash")
        .args(["-o", "pipefail", "-c", &unpack])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    if !unpacked.status.success() {
        let why = String::from_utf8_lossy(&unpacked.stderr);
        return Err(format!("commit {COMMIT} cannot be had: {}", why.trim()));
    }
    // A directory of its own: cargo would put the program in the place of the one under test.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--bin", "wmgwd", "--target-dir"])
        .arg(dir.join("target"))
        .current_dir(&source)
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "commit {COMMIT} builds: {why}");
    Ok(program)
}
