//! Brings back the type-2 route of a gateway's own address, which FRR drops when another gateway advertises the
//! address.
//!
//! With `advertise-svi-ip` and the same address on every gateway (the configuration that the original project
//! documents) zebra has one entry for the address of `br<VNI>` in its EVPN neighbour table. Another gateway's type-2
//! route turns that entry into a remote one, and bgpd drops its own route. When the other gateway withdraws its route,
//! zebra deletes the entry, and does not make it local again (`process_neigh_remote_macip_add` in FRR's
//! zebra/zebra_evpn_neigh.c). The next owner then advertises only the link-local address of its bridge.
//!
//! An inbound route-map that denies other gateways' type-2 routes (frr.conf.example) prevents this. On a gateway that
//! has one, this module looks at the routes only with each audit of FRR: while another gateway's outbound filter leaked
//! for some seconds, the others gave their routes up all the same (FRR 8.4.4).
//!
//! What this module does, as measured with FRR 8.4.4 on two busy CPUs:
//! - It asks zebra with `show evpn arp-cache vni N ip A`. zebra answers local, remote or absent, and the time does not
//!   grow with the number of stations. 300 questions in one run take 0.15 s.
//! - It sets `advertise-svi-ip` under `vni N`, although it is already set for all VNIs. zebra then adds the addresses
//!   of that bridge again as local ones, whatever the entry was. 300 VNIs in one run take 0.2 s. The line stays in the
//!   running configuration, where it is redundant. So the module removes the line first and then adds it: without that,
//!   a second attempt would have no effect. bgpd sends no update for a route that comes back at once (10 times in a
//!   row: no update, no packet lost).
//! - It does not do the same for all VNIs at once. That would also touch VNIs whose routes are in order, and a vtysh
//!   that ended between the two lines would leave the whole gateway without `advertise-svi-ip`.
//!
//! The module waits [`PATIENCE`] before it overrides a remote entry: in a migration the other gateway withdraws its
//! route in a moment. A remote entry that stays belongs to a dead gateway whose BGP hold time is not over, or to a
//! gateway that dropped the route without withdrawing it (seen after one of three starts with the filter open). In both
//! cases etcd says that this node owns the VNI. The other gateways drop their own routes when this node advertises, and
//! only the node with the lease brings its route back. So two nodes never compete.

use super::push::Push;
use super::run::{Daemon, Vtysh};
use super::script::Job;
use crate::host::{Error, Readvertised};
use crate::model::types::{Time, Vni};
use crate::sys::clock;
use nix::ifaddrs::getifaddrs;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// If another gateway's route is still there this long after the claim, this node advertises its own route beside it. A
/// migration with the default settle time takes 5 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest and the longest time between two looks. Between these limits it is a quarter of the time since the
/// claim.
const LOOKS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// After so many attempts to bring a route back wmgwd warns: zebra does not know every address (it knew 730 of 1 000
/// that were added while FRR 8.4.4 ran).
const TRIES: u32 = 3;
/// After the warning, and after each further attempt, the module waits this long. The next audit of FRR after that
/// makes the attempt.
const LATER: Duration = Duration::from_secs(300);

/// Which VNIs are looked at, and how that went.
#[derive(Debug, Default)]
pub struct Svi {
    watched: BTreeMap<Vni, Watched>,
    /// VNIs whose routes bgpd may have advertised while the filter was open, and dropped without a withdrawal.
    stale: BTreeSet<Vni>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    /// When the VNI was claimed.
    since: Time,
    /// The next look includes this VNI. If not, an audit of FRR includes it again.
    open: bool,
    /// How often the module has tried to bring the route back since it was found last.
    tries: u32,
    /// wmgwd has warned of it.
    is_told: bool,
    /// When the next attempt may be made after the warning.
    later: Time,
}

/// What to do about a route that is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remedy {
    BringBack,
    Warn,
    Leave,
}

impl Watched {
    fn new(now: Time, open: bool) -> Watched {
        Watched {
            since: now,
            open,
            tries: 0,
            is_told: false,
            later: now,
        }
    }

    /// The route is there. Says whether it had been lost.
    fn note_found(&mut self, now: Time) -> bool {
        let had_been_lost = self.tries > 0;
        *self = Watched {
            since: self.since,
            ..Watched::new(now, false)
        };
        had_been_lost
    }

    /// The route is lost.
    fn note_lost(&mut self, now: Time) -> Remedy {
        if self.tries < TRIES || self.is_told && now >= self.later {
            self.tries = self.tries.saturating_add(1);
            self.later = now + LATER;
            return Remedy::BringBack;
        }
        self.open = false;
        if std::mem::replace(&mut self.is_told, true) {
            return Remedy::Leave;
        }
        self.later = now + LATER;
        Remedy::Warn
    }

    /// vtysh did not run or the lease ended, so the last attempt does not count.
    fn note_untried(&mut self, now: Time) {
        self.tries = self.tries.saturating_sub(1);
        self.later = now;
    }
}

impl Svi {
    /// The filter has just begun to let the routes of `vnis` out. With `doubtful`, bgpd may drop them soon, so the next
    /// look includes them. Without it, only the next audit of FRR does.
    pub fn note_claimed(&mut self, vnis: &[Vni], doubtful: bool) {
        let watched = Watched::new(clock::now(), doubtful);
        self.watched.extend(vnis.iter().map(|vni| (*vni, watched)));
    }

    /// An audit of FRR begins: the next look includes all VNIs.
    pub fn look_again(&mut self) {
        for watched in self.watched.values_mut() {
            watched.open = true;
        }
    }

    /// The filter was open, so bgpd may have advertised the routes of all `vnis`. If bgpd then dropped a route without
    /// a withdrawal, its peers still have it. The module brings such a route back, and the closed filter withdraws it.
    pub fn filter_was_open(&mut self, vnis: BTreeSet<Vni>) {
        self.stale = vnis;
    }

    /// Asks zebra about the VNIs that are due, and brings back the routes that are lost.
    ///
    /// # Errors
    /// What vtysh or zebra said.
    pub fn readvertise(
        &mut self,
        vtysh: &Vtysh,
        asn: u32,
        batch: usize,
        shown: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<Readvertised, Error> {
        self.watched.retain(|vni, _| shown.contains(vni));
        let mut result = Readvertised::default();
        let open = self.watched.iter().filter(|(_, watched)| watched.open);
        let open: Vec<Vni> = open.map(|(vni, _)| *vni).collect();
        let stale: Vec<Vni> = self.stale.iter().copied().take(batch).collect();
        if open.is_empty() && stale.is_empty() {
            return Ok(result);
        }
        let addresses = addresses()?;
        let now = clock::now();
        let mut lost = Vec::new();
        for some in open.chunks(batch.max(1)) {
            for (vni, found) in ask(vtysh, &addresses, some)? {
                let Some(watched) = self.watched.get_mut(&vni) else {
                    continue;
                };
                match judge(&found, now.since(watched.since) >= PATIENCE) {
                    Found::Ours => {
                        let had_been_lost = watched.note_found(now);
                        result.back.extend(had_been_lost.then_some(vni));
                    }
                    Found::Theirs => {}
                    Found::Lost => match watched.note_lost(now) {
                        Remedy::BringBack => lost.push(vni),
                        Remedy::Warn => result.given_up.push(vni),
                        Remedy::Leave => {}
                    },
                    Found::Unknown => watched.open = false,
                }
            }
        }
        for vni in bring_back(vtysh, asn, batch, &lost, Some(permit)) {
            if let Some(watched) = self.watched.get_mut(&vni) {
                watched.note_untried(now);
            }
        }
        self.withdraw_stale(vtysh, asn, &addresses, &stale, shown)?;
        result.again = match lost.is_empty() {
            true => self.again(now),
            // zebra and bgpd need an instant.
            false => Some(LOOKS[0]),
        };
        Ok(result)
    }

    /// Brings back the routes of `stale` VNIs that this node does not show, so that the closed filter withdraws them at
    /// the peers. The filter lets no route out, so no lease is needed.
    fn withdraw_stale(
        &mut self,
        vtysh: &Vtysh,
        asn: u32,
        addresses: &BTreeMap<Vni, Vec<IpAddr>>,
        stale: &[Vni],
        shown: &BTreeSet<Vni>,
    ) -> Result<(), Error> {
        let hidden = stale.iter().copied().filter(|vni| !shown.contains(vni));
        let hidden: Vec<Vni> = hidden.collect();
        let found = ask(vtysh, addresses, &hidden)?;
        let dropped = found
            .iter()
            .filter(|(_, found)| judge(found, true) == Found::Lost);
        let dropped: Vec<Vni> = dropped.map(|(vni, _)| *vni).collect();
        bring_back(vtysh, asn, dropped.len(), &dropped, None);
        for vni in stale {
            self.stale.remove(vni);
        }
        Ok(())
    }

    fn again(&self, now: Time) -> Option<Duration> {
        if !self.stale.is_empty() {
            return Some(Duration::ZERO);
        }
        let open = self.watched.values().filter(|watched| watched.open);
        let age = open.map(|watched| now.since(watched.since)).min()?;
        Some((age / 4).clamp(LOOKS[0], LOOKS[1]))
    }
}

/// What zebra has for one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Local,
    Remote,
    Absent,
    /// zebra does not know the VNI, or its answer cannot be read. The module does nothing.
    Unknown,
}

/// What that means for a VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Ours,
    Theirs,
    Lost,
    Unknown,
}

fn judge(entries: &[Entry], impatient: bool) -> Found {
    let has = |entry| entries.contains(&entry);
    if entries.is_empty() || has(Entry::Unknown) {
        Found::Unknown
    } else if has(Entry::Remote) && !impatient {
        Found::Theirs
    } else if has(Entry::Remote) || has(Entry::Absent) {
        Found::Lost
    } else {
        Found::Ours
    }
}

/// Asks zebra for the addresses of `vnis`.
fn ask(
    vtysh: &Vtysh,
    addresses: &BTreeMap<Vni, Vec<IpAddr>>,
    vnis: &[Vni],
) -> Result<Vec<(Vni, Vec<Entry>)>, Error> {
    let of = |vni: &Vni| addresses.get(vni).map_or(&[][..], Vec::as_slice);
    let questions: Vec<String> = vnis
        .iter()
        .flat_map(|vni| of(vni).iter().map(move |ip| question(*vni, *ip)))
        .collect();
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let text = vtysh.questions(Daemon::Zebra, &questions)?;
    let entries = parse_entries(&text);
    if entries.len() != questions.len() {
        return Err(Error::Refused {
            daemon: Daemon::Zebra.name(),
            output: format!("{} answers to {} questions", entries.len(), questions.len()),
        });
    }
    let mut entries = entries.into_iter();
    let found = vnis
        .iter()
        .map(|vni| (*vni, entries.by_ref().take(of(vni).len()).collect()));
    Ok(found.collect())
}

fn question(vni: Vni, ip: IpAddr) -> String {
    format!("show evpn arp-cache vni {vni} ip {ip}")
}

/// Reads the answers to [`question`]s, in their order: each begins at the left margin, with `IP:` or with a
/// remark.
fn parse_entries(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        // vtysh's own configuration file is optional; vtysh mentions its absence.
        if line.contains("Can't open configuration file") {
            continue;
        }
        if line.starts_with("% Requested neighbor does not exist") {
            entries.push(Entry::Absent);
        } else if line.starts_with('%') || line.starts_with("IP: ") {
            entries.push(Entry::Unknown);
        } else if let (Some(kind), Some(entry)) = (line.strip_prefix(" Type: "), entries.last_mut())
        {
            *entry = match kind.trim() {
                "local" => Entry::Local,
                "remote" => Entry::Remote,
                _ => Entry::Unknown,
            };
        }
    }
    entries
}

/// Makes zebra take the addresses of `vnis` for its own again. Returns those for which it was not tried.
fn bring_back(
    vtysh: &Vtysh,
    asn: u32,
    batch: usize,
    vnis: &[Vni],
    permit: Option<&dyn Fn() -> bool>,
) -> Vec<Vni> {
    let jobs: Vec<Job> = vnis.iter().map(|vni| again(*vni)).collect();
    let push = Push {
        vtysh,
        daemon: Daemon::Bgpd,
        prologue: &[
            format!("router bgp {asn}"),
            "address-family l2vpn evpn".to_string(),
        ],
        batch,
        permit,
    };
    let mut untried = Vec::new();
    for failure in push.push(&jobs) {
        log::debug!("vni={} cannot bring back: {}", failure.vni, failure.error);
        if !matches!(failure.error, Error::Refused { .. }) {
            untried.push(failure.vni);
        }
    }
    untried
}

fn again(vni: Vni) -> Job {
    let lines = [
        format!("vni {vni}"),
        "no advertise-svi-ip".to_string(),
        "advertise-svi-ip".to_string(),
    ];
    Job {
        vni,
        lines: lines.to_vec(),
    }
}

/// The addresses of all bridges `br<VNI>` that gateways may share: all but link-local ones.
fn addresses() -> Result<BTreeMap<Vni, Vec<IpAddr>>, Error> {
    let entries = getifaddrs().map_err(|errno| Error::Spawn {
        source: errno.into(),
    })?;
    let mut addresses: BTreeMap<Vni, Vec<IpAddr>> = BTreeMap::new();
    for entry in entries {
        // A label (`br7:1`) takes the place of the name of the interface of a labelled address.
        let name = entry.interface_name.split(':').next();
        let vni = name.and_then(Vni::of_bridge);
        let (Some(vni), Some(address)) = (vni, entry.address) else {
            continue;
        };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(address), _) => IpAddr::V4(address.ip()),
            (_, Some(address)) if !address.ip().is_unicast_link_local() => IpAddr::V6(address.ip()),
            _ => continue,
        };
        addresses.entry(vni).or_default().push(ip);
    }
    Ok(addresses)
}

#[cfg(test)]
#[path = "svi_tests.rs"]
mod tests;
