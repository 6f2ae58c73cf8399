//! The kernel of this machine: the ARP switch below `/proc/sys`, what stands in its way, and which
//! bridges exist. Gratuitous ARP is sent by [`super::garp`].
//!
//! Owns the packet socket (inside [`Announcer`]); everything else is read or written anew each time,
//! because bridges come and go while the daemon runs.

use super::garp::Announcer;
use super::{Error, Kernel};
use crate::report::all_spans;
use crate::types::{Vni, VniRange};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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

    /// What on this machine defeats the ARP switch or the announcements, one line each, with the command
    /// that mends it. Reads one file a VNI of `range` that exists here; meant for the start.
    pub fn startup_warnings(&self, range: &VniRange) -> Vec<String> {
        let mut warnings = Vec::new();
        let all = fs::read_to_string(self.sysctl.join("all/arp_ignore")).unwrap_or_default();
        let all = all.trim();
        // The kernel uses the greater of conf/all and conf/<interface> (ip-sysctl.rst).
        if !all.is_empty() && all != "0" {
            warnings.push(format!(
                "net.ipv4.conf.all.arp_ignore={all} keeps this gateway from answering ARP: \
                 run: sysctl -w net.ipv4.conf.all.arp_ignore=0"
            ));
        }
        let suppressed: Vec<Vni> = numbered(&self.sysfs, "vxlan", range)
            .into_iter()
            .filter(|vni| {
                let flag = format!("vxlan{vni}/brport/neigh_suppress");
                fs::read_to_string(self.sysfs.join(flag)).is_ok_and(|on| on.trim() == "1")
            })
            .collect();
        if let Some(first) = suppressed.first() {
            warnings.push(format!(
                "neigh_suppress is on at the vxlan port of VNI {}: gratuitous ARP does not reach the stations behind it; \
                 for each, run: bridge link set dev vxlan{first} neigh_suppress off",
                all_spans(&suppressed)
            ));
        }
        warnings
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
    numbered(Path::new("/proc/sys/net/ipv4/conf"), "br", range)
}

/// The VNIs of `range` for which `dir` has an entry `<prefix><VNI>`.
fn numbered(dir: &Path, prefix: &str, range: &VniRange) -> BTreeSet<Vni> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix(prefix)?.parse().ok()
        })
        .filter(|vni| range.contains(*vni))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn spans_draw_runs_together() {
        let spans_of = |numbers: &[u32]| {
            let vnis: Vec<Vni> = numbers.iter().map(|n| vni(*n)).collect();
            all_spans(&vnis)
        };
        assert_eq!(spans_of(&[]), "");
        assert_eq!(spans_of(&[1]), "1");
        assert_eq!(spans_of(&[1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10");
    }

    /// Input: a tree like the kernel's, with values that warrant a warning.
    /// Output: one line for arp_ignore, one for all vxlan ports.
    #[test]
    fn warnings_are_grouped_and_name_the_remedy() {
        let root = std::env::temp_dir().join(format!("wmgwd-proc-{}", std::process::id()));
        let kernel = ProcKernel {
            sysctl: root.join("conf"),
            sysfs: root.join("net"),
            announcer: Announcer::default(),
        };
        fs::create_dir_all(root.join("conf/all")).unwrap();
        fs::write(root.join("conf/all/arp_ignore"), "1\n").unwrap();
        for (port, suppress) in [
            ("vxlan1", "1"),
            ("vxlan2", "1"),
            ("vxlan3", "0"),
            ("x", "1"),
        ] {
            fs::create_dir_all(root.join("net").join(port).join("brport")).unwrap();
            let file = root.join("net").join(port).join("brport/neigh_suppress");
            fs::write(file, format!("{suppress}\n")).unwrap();
        }
        let range = VniRange::new(vni(1), vni(10)).unwrap();
        let warnings = kernel.startup_warnings(&range);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("sysctl -w net.ipv4.conf.all.arp_ignore=0"));
        assert!(warnings[1].contains("VNI 1-2:"));
        assert!(warnings[1].contains("bridge link set dev vxlan1 neigh_suppress off"));
    }

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
