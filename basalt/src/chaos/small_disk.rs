//! A disk for one process that can be filled: a file system in memory that is mounted on the folder
//! of a member of the coordinator.
//!
//! It is mounted in this program's own mount namespace, so only its child processes see it. Region
//! servers cannot have one, because they all share one folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A mounted disk. Dropping it unmounts the disk.
pub(super) struct SmallDisk(PathBuf);

/// The size of the disk. Only written data uses memory.
const BYTES: u64 = 192 << 20;
/// The file that fills it.
const BALLAST: &str = "ballast";
/// A free space smaller than this counts as none.
const BLOCK_BYTES: u64 = 4096;
/// The number of attempts to use up the remaining space.
const ATTEMPTS: usize = 100;

// === impl SmallDisk ===

impl SmallDisk {
    /// Mounts a disk on `folder`, which is created.
    ///
    /// # Errors
    /// The disk cannot be mounted.
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

    /// Uses up all free space.
    ///
    /// # Errors
    /// The disk cannot be written to for another reason.
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
                // In the meantime the member has used or freed some of the space.
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// The file that fills the disk cannot be deleted.
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
        // Processes that end at the same time may still have files open. The namespace ends anyway.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
