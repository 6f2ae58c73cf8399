//! The values of single options: text in, value or nothing out.

use super::Timing;
use crate::model::frr::EvpnFilter;
use crate::model::types::VniRange;
use crate::witness::SHORTEST_WINDOW;
use core::net::{IpAddr, SocketAddr};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

/// How many points a node draws: enough that three nodes share the VNIs about evenly.
const RANDOM_POINTS: u64 = 100;

/// Digits only: Rust's own reading of numbers takes signs, and of floats `inf` and `1e9` too.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Seconds with an optional fraction, at most an hour.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(3600);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits::<u64>(whole)?;
    digits::<u128>(fraction)?;
    let seconds = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (seconds <= LONGEST).then_some(seconds)
}

/// The window of `--detect-window`: none, or as long as an ordinary hiccup of a scheduler does not end it.
pub(super) fn detect_window(text: &str) -> Option<Duration> {
    seconds(text).filter(|window| window.is_zero() || *window >= SHORTEST_WINDOW)
}

/// The address of `--beat-address`, which other nodes must be able to send to, and its port if there is one.
pub(super) fn beat_address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = |address: SocketAddr| (address.ip(), Some(address.port()));
    let (address, port) = match text.parse() {
        Ok(address) => (address, None),
        Err(_) => text.parse().ok().map(with_port)?,
    };
    let is_usable = !address.is_unspecified() && !address.is_multicast() && port != Some(0);
    is_usable.then_some((address, port))
}

/// A VNI, or a range of them such as `5-7`.
pub(super) fn span(text: &str) -> Option<VniRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    VniRange::new(first.parse().ok()?, last.parse().ok()?)
}

/// The lease's TTL in whole seconds: etcd grants no less than 2 with its usual election timeout.
pub(super) fn lease(text: &str) -> Option<Timing> {
    let seconds = digits(text).filter(|ttl| (2..=600).contains(ttl))?;
    Timing::new(Duration::from_secs(seconds))
}

/// One ring point. Spaces around it are taken, since lists are written with them.
pub(super) fn point(text: &str) -> Option<u64> {
    digits(text.trim_matches(' '))
}

/// Ring points by lot. The hasher's keys come from the system's source of randomness.
pub(super) fn random_points() -> Vec<u64> {
    let dice = RandomState::new();
    (0..RANDOM_POINTS).map(|n| dice.hash_one(n)).collect()
}

/// The way of `--evpn-filter`.
pub(super) fn evpn_filter(text: &str) -> Option<EvpnFilter> {
    match text {
        "list" => Some(EvpnFilter::List),
        "entries" => Some(EvpnFilter::Entries),
        _ => None,
    }
}

/// The cost of `--takeover-cost`: never worse than an owner's usual 100.
pub(super) fn takeover_cost(text: &str) -> Option<u16> {
    digits(text).filter(|cost| (1..=100).contains(cost))
}

/// Names of interfaces. The kernel takes at most 15 bytes (IFNAMSIZ), without a slash or white space.
pub(super) fn interfaces(text: &str) -> Option<Vec<String>> {
    let is_name = |name: &str| {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        (1..=15).contains(&name.len()) && name.chars().all(plain)
    };
    let names = text.split(',').map(str::to_owned);
    names.map(|name| is_name(&name).then_some(name)).collect()
}

/// The program of `--notify`. Absolute: the operator does not know the working directory of a service.
pub(super) fn program(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path)
}
