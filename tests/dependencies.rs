//! What the program is made of: counted, so that nothing comes in unnoticed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// Crates in the program, itself and what expands code for it included: with TLS, and without.
const WITH_TLS: usize = 48;
const WITHOUT: usize = 39;

/// Licences that ask for no more than to be named.
const LICENCES: [&str; 6] = [
    "MIT",
    "Apache-2.0",
    "BSD-3-Clause",
    "ISC",
    "Unlicense",
    "Unicode-3.0",
];

/// The crates of a Linux build from the lock file, each with its licence.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args([
            "--no-dedupe",
            "--format",
            "{p}|{l}",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Input: the lock file. Output: no more crates than there were; who adds one raises the count here, and says
/// in the commit message why.
#[test]
fn crates_are_counted() {
    for (arguments, most) in [(&[][..], WITH_TLS), (&["--no-default-features"], WITHOUT)] {
        let crates = crates(arguments);
        assert!(
            crates.len() <= most,
            "{} crates and not {most}: {crates:#?}",
            crates.len()
        );
        assert!(
            crates.len() + 3 >= most,
            "lower the count to {}",
            crates.len()
        );
    }
}

/// Input: the licences of all crates. Output: each can be met with one of a short list.
#[test]
fn licences_are_permissive() {
    for line in crates(&[]) {
        let (name, licence) = line.split_once('|').unwrap();
        // "MIT OR Apache-2.0": one is enough; "Apache-2.0 AND ISC": all of them.
        let may = |text: &str| {
            let text = text.trim_matches(['(', ')', ' ']);
            text.split([' ', '/'])
                .filter(|word| !word.is_empty() && *word != "OR")
                .any(|word| LICENCES.contains(&word))
        };
        assert!(licence.split(" AND ").all(may), "{name}: {licence:?}");
    }
}
