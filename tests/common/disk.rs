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
    /// Why this machine can have none, if so: it has no loop devices, or the tests run as another user than root.
    /// Whatever else is missing is a failure of the test.
    pub fn cannot_be() -> Option<&'static str> {
        if !nix::unistd::geteuid().is_root() {
            Some("needs root to mount a file system")
        } else if !Path::new("/dev/loop-control").exists() {
            Some("needs loop devices (no /dev/loop-control)")
        } else {
            None
        }
    }

    /// Mounts a new file system at `mount`, which is made. `Err` with the reason if this machine cannot.
    pub fn new(mount: PathBuf) -> Result<Disk, String> {
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let beside = mount.with_extension("img");
        // Not each file system of a container takes a loop device; memory does.
        let name = format!("wmgwd-disk-{}-{}", std::process::id(), beside.display());
        let in_memory = Path::new("/dev/shm").join(name.replace('/', "-"));
        Disk::with(beside, &mount).or_else(|reason| {
            Disk::with(in_memory, &mount).map_err(|error| format!("{reason}; in memory: {error}"))
        })
    }

    fn with(image: PathBuf, mount: &Path) -> Result<Disk, String> {
        let made = Disk::make(&image, mount);
        if made.is_err() {
            let _ = std::fs::remove_file(&image);
        }
        let mount = mount.to_owned();
        made.map(|()| Disk { image, mount })
    }

    fn make(image: &Path, mount: &Path) -> Result<(), String> {
        let file = File::create(image).map_err(|error| error.to_string())?;
        file.set_len(SIZE).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image, mount])
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
