//! Memory that stays: a process that has to silence ARP in time must not wait for a disk, neither for what was swapped
//! out nor for its own program.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::fs;

/// From Linux's include/uapi/asm-generic/mman.h; nix does not name it.
const MCL_ONFAULT: i32 = 4;
/// The bit of CAP_IPC_LOCK, from include/uapi/linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;

/// Locks the memory of this process: what there is by now at once, what comes later as it is touched, so that the
/// unused part of each thread's stack costs nothing.
///
/// # Errors
/// Why that is not possible here.
pub fn lock() -> Result<(), String> {
    may_lock()?;
    let later = MlockAllFlags::MCL_FUTURE | MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT)
        .and_then(|()| mlockall(MlockAllFlags::MCL_CURRENT | later))
        .map_err(|errno| errno.desc().to_owned())
}

/// Whether all memory may be locked. Under a limit it must not be tried: what does not fit under it any more later is
/// no lock that fails, but an allocation.
///
/// # Errors
/// What is missing.
pub fn may_lock() -> Result<(), String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|errno| errno.to_string())?;
    if limit == RLIM_INFINITY || has_capability() {
        return Ok(());
    }
    Err(format!("RLIMIT_MEMLOCK is {} KiB", limit / 1024))
}

fn has_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    let effective = line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    effective.is_some_and(|it| it & (1 << CAP_IPC_LOCK) != 0)
}
