//! A disk for one process that can be filled: a file system in memory, mounted on the folder of a
//! member of the coordinator.
//!
//! It is mounted in this program's own mount namespace, and so seen by its children alone. Region
//! servers share one folder, which no process has for itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A mounted disk; dropping it takes it away.
pub(super) struct SmallDisk(PathBuf);

/// How large it is. Nothing is taken of memory but what is written.
const BYTES: u64 = 192 << 20;
/// The file that fills it.
const BALLAST: &str = "ballast";
/// Less room than this is none.
const BLOCK_BYTES: u64 = 4096;
/// How often it is tried to take what is left.
const ATTEMPTS: usize = 100;

// === impl SmallDisk ===

impl SmallDisk {
    /// Mounts one on `folder`, which is made.
    ///
    /// # Errors
    /// It may not be mounted.
    pub(super) fn mount(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let options = format!("size={BYTES},mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "basalt-chaos"]).arg(folder);
        let output = command.output().context("cannot run mount (util-linux)")?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("cannot mount the disk to fill: {reason}; choose other kinds with --faults");
        }
        Ok(Self(folder.to_owned()))
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    /// It cannot be written to for another reason.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        self.take_room().with_context(|| format!("cannot fill {}", self.0.display()))
    }

    fn take_room(&self) -> io::Result<()> {
        let ballast = File::options().create(true).append(true).open(self.ballast())?;
        for _ in 0..ATTEMPTS {
            let disk = statvfs(&self.0)?;
            let room = disk.f_bavail * disk.f_frsize;
            if room < BLOCK_BYTES {
                break;
            }
            let length = ballast.metadata()?.len();
            match fallocate(&ballast, FallocateFlags::empty(), length, room) {
                // The member has taken some of it meanwhile, or has given some back.
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// It cannot.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast())
            .with_context(|| format!("cannot free the space in {}", self.0.display()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join(BALLAST)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Processes that end at the same time may still have files open; the namespace ends anyway.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
