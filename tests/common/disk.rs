//! A disk that can stall: a file system of its own on a loop device, which `fsfreeze` stops from taking writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Enough for an etcd of a few thousand revisions: its write-ahead log alone takes 64 MB at once.
const SIZE: u64 = 256 << 20;

/// A mounted file system, unmounted when it is dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Mounts a new file system at `mount`, which is made. `Err` with the reason if this machine cannot.
    pub fn new(mount: PathBuf) -> Result<Disk, String> {
        let image = mount.with_extension("img");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(SIZE).map_err(|error| error.to_string())?;
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), &image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount])?;
        Ok(Disk { image, mount })
    }

    /// From now on every write to it waits.
    pub fn freeze(&self) {
        run("fsfreeze", &["-f".as_ref(), &self.mount]).unwrap();
    }

    /// Lets the writes go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub fn thaw(&self) -> Result<(), String> {
        run("fsfreeze", &["-u".as_ref(), &self.mount])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file system that is frozen cannot be unmounted.
        let _ = self.thaw();
        if let Err(error) = run("umount", &[&self.mount]) {
            eprintln!("{error}");
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
