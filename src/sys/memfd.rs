//! Anonymous memory as a file (memfd_create(2)): what a child process reads or writes goes through it, with no
//! disk that could be full and no pipe that could fill up or be held open by a grandchild.

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;

/// From Linux's include/uapi/linux/memfd.h; nix does not name it.
const MFD_NOEXEC_SEAL: u32 = 8;

/// An empty file that goes with its last descriptor.
///
/// # Errors
/// The kernel has none to give.
pub fn create() -> io::Result<File> {
    let (name, flags) = (c"wmgwd", MFdFlags::MFD_CLOEXEC);
    // With the sysctl vm.memfd_noexec=2 Linux insists on this flag; before 6.3 it does not know it.
    let noexec = MFdFlags::from_bits_retain(MFD_NOEXEC_SEAL);
    let memory = match memfd_create(name, flags | noexec) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    Ok(File::from(memory))
}
