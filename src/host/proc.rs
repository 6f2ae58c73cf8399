//! The kernel of this machine: the ARP switch below `/proc/sys`, and which bridges exist. Gratuitous ARP is
//! sent by [`super::garp`].
//!
//! Owns the packet socket (inside [`Announcer`]); everything else is read or written anew each time,
//! because bridges come and go while the daemon runs.

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
    sysfs: PathBuf,
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
            sysfs: "/sys/class/net".into(),
            announcer: Announcer::default(),
        }
    }

    /// The VNIs of `range` whose bridge exists now. One directory listing.
    pub fn existing(&self, range: &VniRange) -> BTreeSet<Vni> {
        existing_bridges(range)
    }

    /// A number that changes whenever the bridge of `vni` has come up (again) or was made anew, so that it
    /// is time for another gratuitous ARP; `None` while it does not exist. Reads two small files.
    pub fn link_generation(&self, vni: Vni) -> Option<u64> {
        let bridge = self.sysfs.join(vni.bridge());
        let number = |file| -> Option<u64> {
            fs::read_to_string(bridge.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        // The counter starts anew with a new interface, the index does not come back.
        Some(number("ifindex")? << 32 | number("carrier_up_count")? & 0xffff_ffff)
    }
}

impl Kernel for ProcKernel {
    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error> {
        let path = self.sysctl.join(vni.bridge()).join("arp_ignore");
        let value = if answer { ANSWER } else { SILENT };
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoInterface {
                    bridge: vni.bridge(),
                },
                _ => Error::Write { path, source },
            })
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
        assert_eq!(kernel.link_generation(Vni::MAX), None);
    }
}
