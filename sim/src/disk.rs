//! The file seam: files in memory whose syncs take time, as those of a disk do. So a crash finds
//! bytes that were appended and not yet synced.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use basalt_fs::{AppendFile, DirectoryEntry, FileSystem, MemoryFileSystem, ReadFile, Result, Seal};
use basalt_runtime::Random;
use bytes::Bytes;

/// How long a sync takes.
const SYNC_US: std::ops::Range<u64> = 0..4_000;

/// Whether what a disk says to have synced is durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Syncs {
    /// It is.
    #[default]
    Honest,
    /// It is not: a planted fault, by which the simulation shows that it sees lost writes.
    Lying,
}

/// One writer's view of a simulated disk.
pub(crate) struct SimulatedDisk {
    files: MemoryFileSystem,
    random: Random,
    syncs: Syncs,
}

struct SimulatedFile {
    file: Box<dyn AppendFile>,
    random: Random,
    syncs: Syncs,
}

// === impl SimulatedDisk ===

impl SimulatedDisk {
    pub(crate) fn new(files: MemoryFileSystem, random: Random, syncs: Syncs) -> Self {
        Self { files, random, syncs }
    }
}

#[async_trait]
impl FileSystem for SimulatedDisk {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        let file = self.files.create(path).await?;
        Ok(Box::new(SimulatedFile { file, random: self.random.clone(), syncs: self.syncs }))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.files.open(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.files.rename(from, to).await
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        self.files.create_directories(path).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.files.list(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.files.exists(path).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.files.delete_file(path).await
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.files.delete_directory(path).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        sync_time(&self.random).await;
        self.files.sync_directory(path).await
    }

    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal> {
        self.files.seal(path, writer_boot_id).await
    }

    fn writer_tag(&self) -> String {
        self.files.writer_tag()
    }

    fn boot_id(&self) -> &str {
        self.files.boot_id()
    }
}

// === impl SimulatedFile ===

#[async_trait]
impl AppendFile for SimulatedFile {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.file.append(bytes).await
    }

    async fn sync(&mut self) -> Result<()> {
        sync_time(&self.random).await;
        match self.syncs {
            Syncs::Honest => self.file.sync().await,
            Syncs::Lying => Ok(()),
        }
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}

async fn sync_time(random: &Random) {
    tokio::time::sleep(Duration::from_micros(random.in_range(SYNC_US))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a synced file after its writer crashed.
    async fn left_after_a_crash(syncs: Syncs) -> Bytes {
        let disk = MemoryFileSystem::new();
        let writer = SimulatedDisk::new(disk.as_writer(1), Random::from_seed(1), syncs);
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
}
