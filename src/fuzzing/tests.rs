//! Seeded noise, and mutations of what really comes (`tests/fuzz/seeds`), through every reader.
//!
//! A second for each reader; `WMGWD_FUZZ_SECONDS` has it go on for longer, and `WMGWD_FUZZ_SEED` goes
//! another way.

#![allow(clippy::unwrap_used)]
use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sebastiano Vigna's splitmix64, for bytes that can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// What the formats are made of: finds more than bytes by chance do.
const PIECES: [&[u8]; 28] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\n ",
    b"\0",
    b"null",
    b"-1",
    b"1e400",
    b"=",
    b"\\u0000",
    b"99999999999999999999",
    b"\n% ",
    b"\nline 1: ",
    b" is not running",
    b"\nip prefix-list x description ospfd is not running\n",
    b"\nbanner motd line % it is locked by me\n",
    b"line 2: % Unknown command[4]: banner motd file /etc/frr/banner\n",
    b"Exiting: failed to connect to any daemons.\n",
    b"--",
    b"permit",
    b"deny",
    b"\xff",
    b"\xc3\xa4",
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.next().to_le_bytes()[0],
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 => {
                // Something of another seed, or the same thing twice.
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
        }
    }
    bytes
}

fn seeds(reader: &str) -> Vec<Vec<u8>> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let mut files: Vec<_> = std::fs::read_dir(all.join(reader))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Input: noise and mutations. Output: every reader answers, and what it has read is what was there.
fn every_reader_stands(reader: &str) {
    let (name, read) = READERS.iter().find(|(name, _)| *name == reader).unwrap();
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| read(seed));
    let first = number("WMGWD_FUZZ_SEED").unwrap_or(1) << 32;
    let (end, rounds) = match number("WMGWD_FUZZ_SECONDS") {
        Some(seconds) => (Duration::from_secs(seconds), u64::MAX),
        None => (Duration::from_secs(20), 20_000),
    };
    let begun = Instant::now();
    let mut round = 0;
    while round < rounds && begun.elapsed() < end {
        let seed = first + round;
        let mut random = Random(seed);
        let bytes = match random.below(8) {
            0 => random.noise(),
            _ => mutate(&mut random, &seeds),
        };
        let shown = Shown(name, seed, &bytes);
        read(&bytes);
        std::mem::forget(shown);
        round += 1;
    }
    println!("{name}: {round} rounds in {:?}", begun.elapsed());
}

/// Shows, if a reader panics, at what.
struct Shown<'a>(&'a str, u64, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let Shown(name, seed, bytes) = self;
        eprintln!(
            "{name} does not stand (round {seed}) \"{}\"",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn schema_stands() {
    every_reader_stands("schema");
}

#[test]
fn wire_stands() {
    every_reader_stands("wire");
}

#[test]
fn vtysh_output_stands() {
    every_reader_stands("vtysh_output");
}

#[test]
fn config_stands() {
    every_reader_stands("config");
}

#[test]
fn targets_stand() {
    every_reader_stands("targets");
}

#[test]
fn guard_protocol_stands() {
    every_reader_stands("guard");
}

#[test]
fn datagrams_stand() {
    every_reader_stands("datagram");
}

#[test]
fn links_stand() {
    every_reader_stands("links");
}

#[test]
fn cli_stands() {
    every_reader_stands("cli");
}

#[test]
fn http_stands() {
    every_reader_stands("http");
}
