//! The file seam: files in memory whose syncs take time, like those of a real disk. A crash
//! therefore finds bytes that were appended and not yet synced. A disk may be frozen, slow or full,
//! and a sync may fail. After a failed sync, as on Linux, later syncs of the file succeed without
//! writing anything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use basalt_fs::{
    AppendFile, DirectoryEntry, Error, FileSystem, MemoryFileSystem, ReadFile, Result, Seal,
};
use basalt_model::paths;
use basalt_runtime::Random;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The duration of a sync, normally and on a slow disk.
const SYNC_US: std::ops::Range<u64> = 0..4_000;
const SLOW_SYNC_US: std::ops::Range<u64> = 50_000..400_000;

/// The folder of store files and manifests.
const DATA: &str = "/data";

/// Whether bytes that a disk reports as synced are durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Syncs {
    /// They are.
    #[default]
    Honest,
    /// They are not: a planted bug that shows that the simulation detects lost writes.
    Lying,
}

/// The faults of a disk, as one process sees them; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct DiskFaults(Arc<Faults>);

#[derive(Debug)]
struct Faults {
    frozen: watch::Sender<bool>,
    other: Mutex<Other>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Other {
    slow: bool,
    full: bool,
    /// How many of the next syncs fail.
    failing_syncs: u32,
    /// Whether syncs of logs are exempt from failing.
    spares_logs: bool,
    /// One of this many reads of data has a flipped bit; 0 for none.
    flips_one_of: u32,
}

/// One writer's view of a simulated disk.
pub(crate) struct SimulatedDisk {
    files: MemoryFileSystem,
    random: Random,
    syncs: Syncs,
    faults: DiskFaults,
}

/// A data file that is open for reading.
struct SimulatedRead {
    file: Arc<dyn ReadFile>,
    random: Random,
    faults: DiskFaults,
}

struct SimulatedFile {
    file: Box<dyn AppendFile>,
    path: PathBuf,
    random: Random,
    syncs: Syncs,
    faults: DiskFaults,
    /// Whether a sync has failed: the kernel has discarded the data that it could not write.
    failed: bool,
    /// Writes up to this offset succeed, however full the disk is.
    reserved: u64,
}

// === impl DiskFaults ===

impl Default for DiskFaults {
    fn default() -> Self {
        let frozen = watch::Sender::new(false);
        Self(Arc::new(Faults { frozen, other: Mutex::default() }))
    }
}

impl DiskFaults {
    /// Freezes or thaws the disk. Operations on a frozen disk complete once it thaws.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.0.frozen.send_replace(frozen);
    }

    pub(crate) fn slow_down(&self, slow: bool) {
        self.0.other.lock().slow = slow;
    }

    pub(crate) fn fill_up(&self, full: bool) {
        self.0.other.lock().full = full;
    }

    /// Makes the next `count` syncs fail, including syncs of logs unless `spares_logs`.
    pub(crate) fn fail_syncs(&self, count: u32, spares_logs: bool) {
        let mut other = self.0.other.lock();
        (other.failing_syncs, other.spares_logs) = (count, spares_logs);
    }

    /// Flips a bit in one of this many reads of store files and manifests; 0 for none. Logs are
    /// exempt: damage to synced log data blocks their regions until an operator acts.
    pub(crate) fn flip_bits(&self, one_of: u32) {
        self.0.other.lock().flips_one_of = one_of;
    }

    /// Returns `bytes`, perhaps with a flipped bit.
    fn flipped(&self, random: &Random, bytes: Bytes) -> Bytes {
        let one_of = u64::from(self.0.other.lock().flips_one_of);
        if one_of == 0 || bytes.is_empty() || random.in_range(0..one_of) != 0 {
            return bytes;
        }
        let mut bytes = bytes.to_vec();
        let place = random.in_range(0..bytes.len() as u64) as usize;
        bytes[place] ^= 1 << random.in_range(0..8);
        bytes.into()
    }

    pub(crate) async fn thawed(&self) {
        let mut frozen = self.0.frozen.subscribe();
        // An error means that the simulation is over.
        let _over = frozen.wait_for(|frozen| !frozen).await;
    }

    fn check_room(&self, path: &Path) -> Result<()> {
        if self.0.other.lock().full {
            Err(broken(path, "write", io::ErrorKind::StorageFull))
        } else {
            Ok(())
        }
    }

    async fn sync_time(&self, random: &Random) {
        let range = if self.0.other.lock().slow { SLOW_SYNC_US } else { SYNC_US };
        tokio::time::sleep(Duration::from_micros(random.in_range(range))).await;
        self.thawed().await;
    }

    /// Whether a sync that completes now fails.
    fn fails_sync(&self, path: &Path) -> bool {
        let mut other = self.0.other.lock();
        let is_spared = other.spares_logs && path.starts_with(paths::logs());
        let fails = other.failing_syncs > 0 && !is_spared;
        other.failing_syncs -= u32::from(fails);
        fails
    }
}

fn broken(path: &Path, operation: &'static str, kind: io::ErrorKind) -> Error {
    Error::Io { path: path.to_owned(), operation, source: kind.into() }
}

// === impl SimulatedDisk ===

impl SimulatedDisk {
    pub(crate) fn new(
        files: MemoryFileSystem,
        random: Random,
        syncs: Syncs,
        faults: DiskFaults,
    ) -> Self {
        Self { files, random, syncs, faults }
    }
}

#[async_trait]
impl FileSystem for SimulatedDisk {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.faults.thawed().await;
        self.faults.check_room(path)?;
        let file = self.files.create(path).await?;
        Ok(Box::new(SimulatedFile {
            file,
            path: path.to_owned(),
            random: self.random.clone(),
            syncs: self.syncs,
            faults: self.faults.clone(),
            failed: false,
            reserved: 0,
        }))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.faults.thawed().await;
        let file = self.files.open(path).await?;
        if !path.starts_with(DATA) {
            return Ok(file);
        }
        let (random, faults) = (self.random.clone(), self.faults.clone());
        Ok(Arc::new(SimulatedRead { file, random, faults }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.faults.thawed().await;
        self.files.rename(from, to).await
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        self.faults.thawed().await;
        self.files.create_directories(path).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.faults.thawed().await;
        self.files.list(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.faults.thawed().await;
        self.files.exists(path).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.faults.thawed().await;
        self.files.delete_file(path).await
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.faults.thawed().await;
        self.files.delete_directory(path).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        self.faults.sync_time(&self.random).await;
        if self.faults.fails_sync(path) {
            return Err(broken(path, "sync", io::ErrorKind::Other));
        }
        self.files.sync_directory(path).await
    }

    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal> {
        self.faults.sync_time(&self.random).await;
        if self.faults.fails_sync(path) {
            return Err(broken(path, "sync", io::ErrorKind::Other));
        }
        self.files.seal(path, writer_boot_id).await
    }

    fn writer_tag(&self) -> String {
        self.files.writer_tag()
    }

    fn boot_id(&self) -> &str {
        self.files.boot_id()
    }
}

// === impl SimulatedRead ===

#[async_trait]
impl ReadFile for SimulatedRead {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let bytes = self.file.read_at(offset, length).await?;
        Ok(self.faults.flipped(&self.random, bytes))
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}

// === impl SimulatedFile ===

#[async_trait]
impl AppendFile for SimulatedFile {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.faults.thawed().await;
        if self.file.length() + bytes.len() as u64 > self.reserved {
            self.faults.check_room(&self.path)?;
        }
        self.file.append(bytes).await
    }

    async fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.faults.thawed().await;
        let until = self.file.length() + bytes;
        if until > self.reserved {
            self.faults.check_room(&self.path)?;
            self.reserved = until;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        self.faults.sync_time(&self.random).await;
        if self.faults.fails_sync(&self.path) {
            self.failed = true;
            return Err(broken(&self.path, "sync", io::ErrorKind::Other));
        }
        match self.syncs {
            Syncs::Honest if !self.failed => self.file.sync().await,
            _ => Ok(()),
        }
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(disk: &MemoryFileSystem, syncs: Syncs, faults: &DiskFaults) -> SimulatedDisk {
        SimulatedDisk::new(disk.as_writer(1), Random::from_seed(1), syncs, faults.clone())
    }

    /// The contents of a synced file after its writer crashed.
    async fn left_after_a_crash(syncs: Syncs) -> Bytes {
        let disk = MemoryFileSystem::new();
        let writer = writer(&disk, syncs, &DiskFaults::default());
        let mut file = writer.create(Path::new("/log")).await.unwrap();
        file.append_and_sync(Bytes::from_static(b"synced")).await.unwrap();
        file.append(Bytes::from_static(b" not")).await.unwrap();
        disk.crash(1, |_| 0);
        disk.read_whole(Path::new("/log"), 100).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_leaves_what_was_synced_unless_the_disk_lies() {
        assert_eq!(&left_after_a_crash(Syncs::Honest).await[..], b"synced");
        assert_eq!(&left_after_a_crash(Syncs::Lying).await[..], b"");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failed_sync_nothing_more_becomes_durable() {
        let (disk, faults) = (MemoryFileSystem::new(), DiskFaults::default());
        let writer = writer(&disk, Syncs::Honest, &faults);
        let mut file = writer.create(Path::new("/log")).await.unwrap();
        faults.fail_syncs(1, false);
        assert!(file.append_and_sync(Bytes::from_static(b"a")).await.is_err());
        assert!(file.append_and_sync(Bytes::from_static(b"b")).await.is_ok());
        disk.crash(1, |_| 0);
        assert_eq!(&disk.read_whole(Path::new("/log"), 100).await.unwrap()[..], b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_takes_nothing_and_a_frozen_one_waits() {
        let (disk, faults) = (MemoryFileSystem::new(), DiskFaults::default());
        let writer = writer(&disk, Syncs::Honest, &faults);
        faults.fill_up(true);
        assert!(writer.create(Path::new("/log")).await.is_err());
        faults.fill_up(false);
        faults.freeze(true);
        let mut waits = Box::pin(writer.create(Path::new("/log")));
        assert!(tokio::time::timeout(Duration::from_secs(9), &mut waits).await.is_err());
        assert!(!disk.exists(Path::new("/log")).await.unwrap());
        faults.freeze(false);
        assert!(waits.await.is_ok());
    }
}
