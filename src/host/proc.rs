//! The kernel of this machine: the ARP switch below `/proc/sys`, and which bridges exist. Gratuitous ARP is
//! sent by [`super::garp`].
//!
//! Owns the packet socket (inside [`Announcer`]); everything else is read or written anew each time,
//! because bridges come and go while the daemon runs.

use super::bridges::{self, Bridges, Found};
use super::garp::Announcer;
use super::{Error, Kernel};
use crate::model::types::{Vni, VniRange};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// `arp_ignore` of a bridge that answers (Documentation/networking/ip-sysctl.rst in Linux).
const ANSWER: &[u8] = b"0";
/// `arp_ignore` of a bridge that is silent. 3 would go on answering for an address of scope global,
/// which is what `ip address add` makes; only 8 silences every local address (measured).
const SILENT: &[u8] = b"8";

/// The real kernel. Needs CAP_NET_ADMIN for the sysctls and CAP_NET_RAW for gratuitous ARP.
#[derive(Debug)]
pub struct ProcKernel {
    sysctl: PathBuf,
    bridges: Bridges,
    announcer: Announcer,
}

impl Default for ProcKernel {
    fn default() -> ProcKernel {
        ProcKernel::new()
    }
}

impl ProcKernel {
    /// The kernel as seen from this process's network namespace. Touches nothing yet.
    pub fn new() -> ProcKernel {
        ProcKernel {
            sysctl: "/proc/sys/net/ipv4/conf".into(),
            bridges: Bridges::default(),
            announcer: Announcer::default(),
        }
    }

    /// The VNIs of `range` whose bridge exists now, under any name. One dump of all links.
    pub fn existing(&self, range: &VniRange) -> BTreeSet<Vni> {
        let vnis = bridges::existing().into_keys();
        vnis.filter(|vni| range.contains(*vni)).collect()
    }

    fn write(&self, bridge: &str, value: &[u8]) -> Result<(), Error> {
        let path = self.sysctl.join(bridge).join("arp_ignore");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoInterface {
                    bridge: bridge.to_owned(),
                },
                _ => Error::Write { path, source },
            })
    }
}

impl Kernel for ProcKernel {
    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error> {
        let bridge = vni.bridge();
        match self.bridges.find(vni) {
            Found::Bridge if answer => {
                // Before it answers: from then on it must be silenced, whatever becomes of it.
                self.bridges.keep(vni);
                self.write(&bridge, ANSWER)
            }
            Found::Bridge => {
                self.write(&bridge, SILENT)?;
                self.bridges.release(vni);
                Ok(())
            }
            Found::Renamed(name) => {
                self.write(&name, SILENT)?;
                match answer {
                    true => Err(Error::Renamed { bridge, name }),
                    false => {
                        self.bridges.release(vni);
                        Ok(())
                    }
                }
            }
            Found::Foreign => Err(Error::Foreign { bridge }),
            Found::Absent => Err(Error::NoInterface { bridge }),
        }
    }

    fn keep(&mut self, vnis: &[Vni]) {
        self.bridges.learn(vnis);
        vnis.iter().for_each(|vni| self.bridges.keep(*vni));
    }

    fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        self.announcer.announce(vnis, permit)
    }
}

/// The VNIs of `range` whose bridge exists now, from one listing of `/proc/sys/net/ipv4/conf`, which shows
/// the network namespace of the reader (unlike `/sys`, which shows that of its mount).
pub(super) fn existing_bridges(range: &VniRange) -> BTreeSet<Vni> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv4/conf") else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("br")?.parse().ok()
        })
        .filter(|vni| range.contains(*vni))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_missing_bridge_is_named() {
        let mut kernel = ProcKernel::new();
        let error = kernel.set_arp(Vni::MAX, true).unwrap_err();
        assert!(
            matches!(&error, Error::NoInterface { bridge } if bridge == "br16777215"),
            "{error:?}"
        );
    }
}
