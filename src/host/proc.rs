//! The kernel of this machine: the ARP switch below `/proc/sys`. Gratuitous ARP is sent by [`super::garp`].
//!
//! Owns the packet socket (inside [`Announcer`]); everything else is written anew each time, because bridges come
//! and go while the daemon runs. An interface is known by its index, which stays the same under every name;
//! `/proc/sys` wants the name, so that is asked for right before the write. (RTM_SETLINK takes the index, but
//! takes 15 times as long, and waits for the kernel's RTNL lock: measured 29 ms while interfaces
//! came and went, where the file took 0.3 ms.)

use super::bridges::Bridge;
use super::garp::Announcer;
use super::links::{self, Bridges};
use super::routes::Routes;
use super::{ArpAudit, Error, Kernel, RouteChange};
use crate::model::types::{Vni, VniRange};
use fnv::{FnvHashMap, FnvHashSet};
use nix::net::if_::if_nametoindex;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the kernel keeps the settings of each interface, for the network namespace of the reader.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// `arp_ignore` of a bridge that answers (Documentation/networking/ip-sysctl.rst in Linux).
const ANSWER: u32 = 0;
/// `arp_ignore` of a bridge that is silent. 3 would go on answering for an address of scope global,
/// which is what `ip address add` makes; only 8 silences every local address (measured).
const SILENT: u32 = 8;
/// How often a write is tried on an interface whose name changes at the same time.
const TRIES: usize = 8;

/// The real kernel. Needs CAP_NET_ADMIN for the sysctls and CAP_NET_RAW for gratuitous ARP.
#[derive(Debug, Default)]
pub struct ProcKernel {
    bridges: Bridges,
    /// The interface that was made to answer for a VNI.
    held: FnvHashMap<Vni, u32>,
    /// The interfaces that this object has marked.
    marked: FnvHashSet<u32>,
    announcer: Announcer,
    /// The routes that announce VNIs, where routes do.
    routes: Option<Routes>,
}

impl ProcKernel {
    /// The kernel as seen from this process's network namespace. Looks at its links when it is first asked.
    pub fn new() -> ProcKernel {
        ProcKernel::default()
    }

    /// The kernel with `bridges`, which a [`LinkWatch`](super::links::LinkWatch) may keep up to date.
    pub fn with(bridges: Bridges) -> ProcKernel {
        ProcKernel {
            bridges,
            ..ProcKernel::default()
        }
    }

    /// The same kernel, which changes `routes` ahead of FRR.
    pub fn announcing(self, routes: Routes) -> ProcKernel {
        ProcKernel {
            routes: Some(routes),
            ..self
        }
    }

    /// Looks for the bridge of `vni`, and for those that carry it under another name.
    fn look(&self, vni: Vni) -> Result<Look, Error> {
        let unknown = |source| Error::Links { source };
        let name = vni.bridge();
        let index = if_nametoindex(name.as_str()).ok();
        let (mut bridge, mut strays) = self.bridges.find(vni).map_err(unknown)?;
        let is_doubtful = bridge.index() != index || matches!(bridge, Bridge::Foreign { .. });
        if is_doubtful && !self.bridges.is_followed() {
            self.bridges.reload().map_err(unknown)?;
            (bridge, strays) = self.bridges.find(vni).map_err(unknown)?;
        }
        let found = match bridge {
            // The table of links is out of date; the kernel's message comes soon.
            _ if bridge.index() != index => Err(Error::NoInterface { bridge: name }),
            Bridge::Ours { index, marked, .. } => Ok((index, marked)),
            Bridge::Foreign { .. } => Err(Error::Foreign { bridge: name }),
            Bridge::Absent => match strays.first().map(|index| name_of(*index)).transpose()? {
                Some(Some(now)) => Err(Error::Renamed {
                    bridge: name,
                    name: now,
                }),
                _ => Err(Error::NoInterface { bridge: name }),
            },
        };
        Ok(Look { found, strays })
    }

    /// Writes the VNI into the `tag` of an interface, by which a later run knows it under another name.
    fn mark(&mut self, vni: Vni, index: u32) {
        if !self.marked.insert(index) {
            return;
        }
        let Ok(Some(name)) = name_of(index) else {
            return;
        };
        let file = setting(&name, "tag");
        // What cannot be marked is served all the same. A tag that is there is the operator's.
        if read(&file).is_ok_and(|tag| tag == 0) {
            let _ = write(&file, vni.get());
        }
    }
}

/// What there is of a VNI.
struct Look {
    /// Its bridge, and whether that is marked.
    found: Result<(u32, bool), Error>,
    /// The marked bridges that carry it under another name.
    strays: Vec<u32>,
}

impl Kernel for ProcKernel {
    fn bridge(&mut self, vni: Vni) -> Option<u32> {
        Some(self.look(vni).ok()?.found.ok()?.0)
    }

    fn answering(&mut self, range: VniRange) -> Result<Vec<Vni>, Error> {
        let told = self.bridges.arp_ignore(range);
        let told = told.map_err(|source| Error::Links { source })?;
        let answers = told.into_iter().filter(|(_, value)| *value != SILENT);
        Ok(answers.map(|(vni, _)| vni).collect())
    }

    fn hold(&mut self, vni: Vni, index: u32) {
        self.held.insert(vni, index);
    }

    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error> {
        if !answer && let Some(&index) = self.held.get(&vni) {
            // Whatever it is called by now, and without a look at anything else: it may be in the nick of time.
            let name = set(index, SILENT)?;
            self.held.remove(&vni);
            let bridge = vni.bridge();
            return match name {
                Some(name) if name == bridge.as_str() => Ok(()),
                Some(name) => Err(Error::Renamed { bridge, name }),
                None => Err(Error::NoInterface { bridge }),
            };
        }
        let Look { found, strays } = self.look(vni)?;
        for &index in &strays {
            set(index, SILENT)?;
        }
        let index = found.as_ref().ok().map(|&(index, _)| index);
        if let Some(&held) = self.held.get(&vni)
            && Some(held) != index
        {
            set(held, SILENT)?;
            self.held.remove(&vni);
        }
        let (index, marked) = found?;
        if !marked {
            self.mark(vni, index);
        }
        if answer {
            // Before it answers: a write that fails half-way is silenced, too.
            self.held.insert(vni, index);
        }
        set(index, if answer { ANSWER } else { SILENT }).map(drop)
    }

    fn silence_strays(&mut self, vni: Vni) -> Result<bool, Error> {
        let strays = match self.bridges.is_followed() {
            // The host monitor asks for many bridges each second: the table is up to date, and no name is asked for.
            true => self.bridges.find(vni).map(|(_, strays)| strays),
            false => Ok(self.look(vni)?.strays),
        };
        let mut answered = false;
        for index in strays.map_err(|source| Error::Links { source })? {
            answered |= put(index, SILENT)?;
        }
        Ok(answered)
    }

    fn put_back(&mut self, vni: Vni, answer: bool) -> Result<ArpAudit, Error> {
        let Ok((index, _)) = self.look(vni)?.found else {
            return Ok(ArpAudit::Absent);
        };
        Ok(match put(index, if answer { ANSWER } else { SILENT })? {
            true => ArpAudit::PutBack,
            false => ArpAudit::AsTold,
        })
    }

    fn hasten(&mut self, changes: &[RouteChange], permit: &dyn Fn() -> bool) {
        if let Some(routes) = &mut self.routes {
            routes.hasten(changes, permit);
        }
    }

    fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        self.announcer.announce(vnis, permit)
    }
}

/// The name of an interface now; `None` if it is gone.
fn name_of(index: u32) -> Result<Option<String>, Error> {
    links::name_of(index).map_err(|source| Error::Links { source })
}

fn setting(interface: &str, file: &str) -> PathBuf {
    Path::new(SETTINGS).join(interface).join(file)
}

/// Sets `arp_ignore` of an interface; returns the name that it had then, `None` if it is gone.
fn set(index: u32, value: u32) -> Result<Option<String>, Error> {
    with_file(index, |file| write(file, value)).map(|found| found.map(|(name, ())| name))
}

/// Sets `arp_ignore` of an interface if it is another; says whether it was.
fn put(index: u32, value: u32) -> Result<bool, Error> {
    let put = |file: &Path| {
        let differs = read(file)? != value;
        if differs {
            write(file, value)?;
        }
        Ok(differs)
    };
    Ok(with_file(index, put)?.is_some_and(|(_, differs)| differs))
}

/// Does something to `arp_ignore` of an interface, whatever its name is at that moment; `None` if it is gone.
fn with_file<T>(
    index: u32,
    act: impl Fn(&Path) -> io::Result<T>,
) -> Result<Option<(String, T)>, Error> {
    let mut tries = 0;
    while let Some(name) = name_of(index)? {
        let path = setting(&name, "arp_ignore");
        tries += 1;
        match act(&path) {
            Ok(done) => return Ok(Some((name, done))),
            // Renamed or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            Err(source) => return Err(Error::Write { path, source }),
        }
    }
    Ok(None)
}

fn write(file: &Path, value: u32) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(file)?
        .write_all(value.to_string().as_bytes())
}

fn read(file: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(file)?;
    let number = text.trim().parse();
    number.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The index of no interface.
    const GONE: u32 = i32::MAX as u32;

    #[test]
    fn an_interface_that_is_gone_has_no_name() {
        assert_eq!(name_of(1).unwrap().as_deref(), Some("lo"));
        assert_eq!(name_of(GONE).unwrap(), None);
        assert_eq!(set(GONE, SILENT).unwrap(), None);
    }

    #[test]
    fn a_missing_bridge_is_named() {
        let mut kernel = ProcKernel::new();
        let error = kernel.set_arp(Vni::MAX, true).unwrap_err();
        assert!(
            matches!(&error, Error::NoInterface { bridge } if bridge == "br16777215"),
            "{error:?}"
        );
        assert_eq!(kernel.bridge(Vni::MAX), None);
        let audit = kernel.put_back(Vni::MAX, false);
        assert_eq!(audit.unwrap(), ArpAudit::Absent);
        kernel.hold(Vni::MAX, GONE);
        assert!(kernel.set_arp(Vni::MAX, false).unwrap_err().is_absence());
    }
}
