//! The host of `--mock`: keeps in memory what a real host would expose, and touches nothing.
//!
//! With [`MIRROR_VARIABLE`] set it also mirrors that into files, so that a test can watch several
//! processes that act on one host (worker and guard). Clones share the same state.

use super::{ArpAudit, Error, FrrDaemons, Health, Kernel, RouteChange, RouteFailure, Router};
use crate::host::Cost;
use crate::model::types::{Vni, VniRange};
use fnv::FnvHashMap;
use log::debug;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// Environment variable that names a directory to mirror the exposure into (for tests). Its files:
/// `exposure`, 4 bytes a VNI at offset 4 x VNI: ARP 0 or 1, EVPN 0 or 1, OSPF cost (u16, big endian; 0 is
/// never set); `announced`, a u32 (little endian) a VNI at offset 4 x VNI that counts announcements; `signs`, read: the
/// names of the signs that are bad, separated by commas.
pub const MIRROR_VARIABLE: &str = "WMGWD_MOCK_DIR";

/// What a host exposes for one VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exposure {
    /// Whether it answers ARP.
    pub arp: bool,
    /// Whether it advertises EVPN routes.
    pub evpn: bool,
    /// Its OSPF cost, `None` if that was never set.
    pub cost: Option<Cost>,
    /// How many times it was announced.
    pub announced: u32,
}

/// A host that only remembers. Both lanes in one: clone it for the second.
#[derive(Clone, Debug)]
pub struct Mock {
    range: VniRange,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    exposures: FnvHashMap<Vni, Exposure>,
    mirror: Option<Mirror>,
}

#[derive(Debug)]
struct Mirror {
    exposure: File,
    announced: File,
}

impl Mock {
    /// A host that exposes nothing, mirrored if [`MIRROR_VARIABLE`] is set.
    ///
    /// # Errors
    /// The mirror's files cannot be opened.
    pub fn new(range: VniRange) -> io::Result<Mock> {
        match std::env::var_os(MIRROR_VARIABLE) {
            Some(dir) => Mock::mirrored(range, Path::new(&dir)),
            None => Ok(Mock::with(range, None)),
        }
    }

    /// A host that exposes nothing, mirrored into `dir`.
    ///
    /// # Errors
    /// The mirror's files cannot be opened.
    pub fn mirrored(range: VniRange, dir: &Path) -> io::Result<Mock> {
        // Never truncated: another process of the same node may have it open.
        let open = |name| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join(name))
        };
        let mirror = Mirror {
            exposure: open("exposure")?,
            announced: open("announced")?,
        };
        Ok(Mock::with(range, Some(mirror)))
    }

    fn with(range: VniRange, mirror: Option<Mirror>) -> Mock {
        let exposures = FnvHashMap::default();
        let state = Arc::new(Mutex::new(State { exposures, mirror }));
        Mock { range, state }
    }

    /// The VNIs that it has.
    pub fn range(&self) -> VniRange {
        self.range
    }

    /// What this host exposes for `vni`, as far as this process (all clones) set it.
    pub fn exposure(&self, vni: Vni) -> Exposure {
        let state = self.state();
        state.exposures.get(&vni).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn of(&mut self, vni: Vni) -> &mut Exposure {
        self.exposures.entry(vni).or_default()
    }

    /// Whether the host answers, whichever process has switched it last.
    fn answers(&mut self, vni: Vni) -> bool {
        let mut byte = [0];
        let mirrored = self.mirror.as_ref().is_some_and(|mirror| {
            let at = 4 * u64::from(vni.get());
            mirror.exposure.read_exact_at(&mut byte, at).is_ok()
        });
        match mirrored {
            true => byte != [0],
            false => self.of(vni).arp,
        }
    }

    fn set_arp(&mut self, vni: Vni, answer: bool) {
        self.of(vni).arp = answer;
        self.mirror(vni, 0, &[u8::from(answer)]);
    }

    fn set_evpn(&mut self, vni: Vni, advertise: bool) {
        self.of(vni).evpn = advertise;
        self.mirror(vni, 1, &[u8::from(advertise)]);
    }

    fn set_cost(&mut self, vni: Vni, cost: Cost) {
        self.of(vni).cost = Some(cost);
        self.mirror(vni, 2, &cost.0.to_be_bytes());
    }

    fn announce(&mut self, vni: Vni) {
        self.of(vni).announced += 1;
        let Some(mirror) = &self.mirror else { return };
        let at = 4 * u64::from(vni.get());
        let mut count = [0; 4];
        // Short or absent means that no mock has counted this VNI yet.
        let _ = mirror.announced.read_exact_at(&mut count, at);
        let count = u32::from_le_bytes(count).wrapping_add(1);
        if let Err(error) = mirror.announced.write_all_at(&count.to_le_bytes(), at) {
            debug!("vni={vni} cannot mirror: {error}");
        }
    }

    /// Each part by a write of its own, so that processes do not overwrite each other's parts.
    fn mirror(&self, vni: Vni, part: u64, bytes: &[u8]) {
        let Some(mirror) = &self.mirror else { return };
        let at = 4 * u64::from(vni.get()) + part;
        if let Err(error) = mirror.exposure.write_all_at(bytes, at) {
            debug!("vni={vni} cannot mirror: {error}");
        }
    }
}

impl Kernel for Mock {
    fn bridge(&mut self, vni: Vni) -> Option<u32> {
        Some(vni.get())
    }

    fn put_back(&mut self, vni: Vni, answer: bool) -> Result<ArpAudit, Error> {
        let mut state = self.state();
        if state.answers(vni) == answer {
            return Ok(ArpAudit::AsTold);
        }
        state.set_arp(vni, answer);
        Ok(ArpAudit::PutBack)
    }

    fn set_arp(&mut self, vni: Vni, answer: bool) -> Result<(), Error> {
        debug!("mock: vni={vni} arp={answer}");
        self.state().set_arp(vni, answer);
        Ok(())
    }

    fn announce(&mut self, vnis: &[Vni], permit: &dyn Fn() -> bool) -> Vec<(Vni, Error)> {
        let mut failures = Vec::new();
        for vni in vnis {
            if permit() {
                debug!("mock: vni={vni} announced");
                self.state().announce(*vni);
            } else {
                failures.push((*vni, Error::NotPermitted));
            }
        }
        failures
    }
}

impl Router for Mock {
    fn withdraw(
        &mut self,
        parts: FrrDaemons,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (first, last) = (self.range.first(), self.range.last());
        debug!("mock: vni={first}-{last} withdrawn from FRR: {parts:?} but for {keep:?}");
        for vni in self.range.iter().filter(|vni| !keep.contains(vni)) {
            if !permit() {
                return Err(Error::NotPermitted);
            }
            let mut state = self.state();
            if parts.bgpd {
                state.set_evpn(vni, false);
            }
            if parts.ospfd {
                state.set_cost(vni, Cost::OTHERS);
            }
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[RouteChange], permit: &dyn Fn() -> bool) -> Vec<RouteFailure> {
        // As with FRR: whatever releases first, and whatever claims only with permission.
        for change in changes {
            debug!("mock: {change:?}");
            let mut state = self.state();
            if change.evpn == Some(false) {
                state.set_evpn(change.vni, false);
            }
            if let Some(cost) = change.cost.filter(|cost| *cost >= Cost::OTHERS) {
                state.set_cost(change.vni, cost);
            }
        }
        let mut failures = Vec::new();
        for change in changes.iter().filter(|change| change.claims()) {
            if !permit() {
                let error = Error::NotPermitted;
                failures.push(RouteFailure {
                    vni: change.vni,
                    error,
                });
                continue;
            }
            let mut state = self.state();
            if change.evpn == Some(true) {
                state.set_evpn(change.vni, true);
            }
            if let Some(cost) = change.cost.filter(|cost| *cost < Cost::OTHERS) {
                state.set_cost(change.vni, cost);
            }
        }
        failures
    }

    fn health(&mut self) -> Health {
        Health {
            bgpd: Some(1),
            ospfd: Some(1),
            zebra: Some(1),
            ..Health::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    fn claim(number: u32) -> RouteChange {
        RouteChange {
            vni: vni(number),
            evpn: Some(true),
            cost: Some(Cost::OWNER),
        }
    }

    /// Input: two processes' worth of mocks on one mirror. Output: neither overwrites the other's part.
    #[test]
    fn mirror_holds_the_parts_of_both_writers() {
        let dir = std::env::temp_dir().join(format!("wmgwd-mock-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let range = VniRange::new(vni(1), vni(3)).unwrap();
        let mut worker = Mock::mirrored(range, &dir).unwrap();
        let mut guard = Mock::mirrored(range, &dir).unwrap();
        worker.withdraw_all().unwrap();
        assert!(worker.apply(&[claim(2)], &|| true).is_empty());
        guard.set_arp(vni(2), true).unwrap();
        guard.announce(&[vni(2)], &|| true);
        worker.announce(&[vni(2)], &|| true);
        let exposure = fs::read(dir.join("exposure")).unwrap();
        let announced = fs::read(dir.join("announced")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(exposure[4..8], [0, 0, 0xff, 0xff]);
        assert_eq!(exposure[8..12], [1, 1, 0, 100]);
        assert_eq!(announced[8..12], [2, 0, 0, 0]);
    }

    /// Input: the guard silences a VNI that the daemon has switched on. Output: the daemon's look finds that, as it
    /// would on a real host, and switches it on again.
    #[test]
    fn what_another_process_switched_is_put_back() {
        let dir = std::env::temp_dir().join(format!("wmgwd-put-back-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let range = VniRange::new(vni(1), vni(3)).unwrap();
        let mut daemon = Mock::mirrored(range, &dir).unwrap();
        let mut guard = Mock::mirrored(range, &dir).unwrap();
        daemon.set_arp(vni(2), true).unwrap();
        guard.silence(vni(2)).unwrap();
        assert_eq!(daemon.put_back(vni(2), true).unwrap(), ArpAudit::PutBack);
        assert_eq!(daemon.put_back(vni(2), true).unwrap(), ArpAudit::AsTold);
        let exposure = fs::read(dir.join("exposure")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(exposure[8], 1);
    }

    #[test]
    fn without_permission_only_releases_happen() {
        let range = VniRange::new(vni(1), vni(3)).unwrap();
        let mut mock = Mock::with(range, None);
        let release = RouteChange {
            vni: vni(1),
            evpn: Some(false),
            cost: None,
        };
        let failures = mock.apply(&[claim(2), release], &|| false);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].vni, vni(2));
        assert_eq!(mock.exposure(vni(2)), Exposure::default());
        assert!(!mock.clone().exposure(vni(1)).evpn);
    }
}
