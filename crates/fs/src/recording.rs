//! Files in memory that record every step, so that a test can look at the disk as a power cut after
//! any step would have left it.
//!
//! The test chooses what the cut does to unsynced data, within exactly what [`crate`] promises.
//! Unsynced bytes are lost, kept, torn anywhere, or kept with a hole, because a disk writes sectors
//! in any order. A file whose folder was not synced has its new name or any name that it had since
//! the last sync.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    AppendFile, DirectoryEntry, Durability, FileSystem, MemoryFileSystem, ReadFile, Result, Seal,
};

/// A disk in memory that records every step. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RecordingFileSystem {
    files: MemoryFileSystem,
    steps: Arc<Mutex<Vec<DiskStep>>>,
}

/// One operation on the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiskStep {
    /// A file was created. This number identifies it from now on.
    Create(u64, PathBuf),
    /// Bytes were appended to a file.
    Append(u64, Bytes),
    /// A file was synced.
    Sync(u64),
    /// A file was renamed.
    Rename(PathBuf, PathBuf),
    /// A file was deleted.
    Delete(PathBuf),
    /// A folder and its missing parents were created.
    CreateDirectories(PathBuf),
    /// The names in a folder were synced.
    SyncDirectory(PathBuf),
    /// The test noted something, such as an acknowledgement.
    Mark(u64),
}

struct RecordedFile {
    file: Box<dyn AppendFile>,
    number: u64,
    steps: Arc<Mutex<Vec<DiskStep>>>,
}

/// The unit in which a disk writes.
const SECTOR_BYTES: usize = 512;

// === impl RecordingFileSystem ===

impl RecordingFileSystem {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records `mark` between the steps.
    pub fn mark(&self, mark: u64) {
        self.steps.lock().push(DiskStep::Mark(mark));
    }

    /// All steps so far.
    pub fn steps(&self) -> Vec<DiskStep> {
        self.steps.lock().clone()
    }

    /// The disk after a power cut that follows `steps`. For each uncertain outcome, `choose` gets
    /// the number of possibilities and returns one of them: 0 always loses the most, and the last
    /// one loses nothing.
    pub fn after_power_cut(
        steps: &[DiskStep],
        mut choose: impl FnMut(u64) -> u64,
    ) -> MemoryFileSystem {
        let mut disk = Wreck::default();
        for step in steps {
            disk.take(step);
        }
        disk.into_files(&mut choose)
    }

    fn record(&self, step: DiskStep) {
        self.steps.lock().push(step);
    }
}

#[async_trait]
impl FileSystem for RecordingFileSystem {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        let file = self.files.create(path).await?;
        let mut steps = self.steps.lock();
        let number = steps.len() as u64;
        steps.push(DiskStep::Create(number, path.to_owned()));
        Ok(Box::new(RecordedFile { file, number, steps: Arc::clone(&self.steps) }))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.files.open(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.files.rename(from, to).await?;
        self.record(DiskStep::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        self.files.create_directories(path).await?;
        self.record(DiskStep::CreateDirectories(path.to_owned()));
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.files.list(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.files.exists(path).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.files.delete_file(path).await?;
        self.record(DiskStep::Delete(path.to_owned()));
        Ok(())
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.files.delete_directory(path).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        self.files.sync_directory(path).await?;
        self.record(DiskStep::SyncDirectory(path.to_owned()));
        Ok(())
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

// === impl RecordedFile ===

#[async_trait]
impl AppendFile for RecordedFile {
    fn set_durability(&mut self, durability: Durability) {
        self.file.set_durability(durability);
    }

    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.file.append(bytes.clone()).await?;
        self.steps.lock().push(DiskStep::Append(self.number, bytes));
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        self.file.sync().await?;
        self.steps.lock().push(DiskStep::Sync(self.number));
        Ok(())
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}

/// The possible states of a disk whose power was cut.
#[derive(Debug, Default)]
struct Wreck {
    files: BTreeMap<u64, WreckedFile>,
    /// The folders, and whether their names are durable.
    folders: BTreeMap<PathBuf, bool>,
}

#[derive(Debug, Default)]
struct WreckedFile {
    bytes: Vec<u8>,
    synced: usize,
    /// Its names, in order; `None` before it was created and after it was deleted.
    names: Vec<Option<PathBuf>>,
    /// Index of the name that is durable. The names before it are gone.
    durable: usize,
}

// === impl Wreck ===

impl Wreck {
    fn take(&mut self, step: &DiskStep) {
        match step {
            DiskStep::Create(number, path) => {
                let names = vec![None, Some(path.clone())];
                self.files.insert(*number, WreckedFile { names, ..WreckedFile::default() });
            }
            DiskStep::Append(number, bytes) => {
                if let Some(file) = self.files.get_mut(number) {
                    file.bytes.extend_from_slice(bytes);
                }
            }
            DiskStep::Sync(number) => {
                if let Some(file) = self.files.get_mut(number) {
                    file.synced = file.bytes.len();
                }
            }
            DiskStep::Rename(from, to) => self.call(from, Some(to.clone())),
            DiskStep::Delete(path) => self.call(path, None),
            DiskStep::CreateDirectories(path) => {
                for folder in path.ancestors() {
                    self.folders.entry(folder.to_owned()).or_insert(folder.parent().is_none());
                }
            }
            DiskStep::SyncDirectory(folder) => self.sync(folder),
            DiskStep::Mark(_) => {}
        }
    }

    /// Renames the file at `path`.
    fn call(&mut self, path: &Path, name: Option<PathBuf>) {
        let called = |file: &&mut WreckedFile| file.name() == Some(path);
        if let Some(file) = self.files.values_mut().find(called) {
            file.names.push(name);
        }
    }

    fn sync(&mut self, folder: &Path) {
        for (path, durable) in &mut self.folders {
            *durable |= path.parent() == Some(folder);
        }
        let is_in = |name: &PathBuf| name.parent() == Some(folder);
        for file in self.files.values_mut() {
            // Its current name, or a name that it lost in this folder.
            let known = file
                .names
                .last()
                .and_then(Option::as_ref)
                .or_else(|| file.names.iter().rev().nth(1).and_then(Option::as_ref));
            if known.is_some_and(is_in) {
                file.durable = file.names.len() - 1;
            }
        }
    }

    fn into_files(self, choose: &mut impl FnMut(u64) -> u64) -> MemoryFileSystem {
        let disk = MemoryFileSystem::new();
        let mut lost = Vec::new();
        for (folder, durable) in self.folders {
            let is_lost = lost.iter().any(|lost: &PathBuf| folder.starts_with(lost));
            if is_lost || (!durable && choose(2) == 0) {
                lost.push(folder);
            } else {
                disk.put_folder(&folder);
            }
        }
        for file in self.files.into_values() {
            let possible = (file.names.len() - file.durable) as u64;
            let name = file.durable + usize::try_from(choose(possible)).unwrap_or(0);
            let bytes = file.left(choose);
            let Some(Some(path)) = file.names.get(name) else { continue };
            if !lost.iter().any(|lost| path.starts_with(lost)) {
                disk.put_file(path, &bytes);
            }
        }
        disk
    }
}

// === impl WreckedFile ===

impl WreckedFile {
    fn name(&self) -> Option<&Path> {
        self.names.last()?.as_deref()
    }

    /// The bytes that survive.
    fn left(&self, choose: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
        let unsynced = self.bytes.len() - self.synced;
        let mut left = self.bytes.clone();
        let place = |chosen: u64| usize::try_from(chosen).unwrap_or(0);
        match choose(4) {
            0 => left.truncate(self.synced),
            1 => left.truncate(self.synced + place(choose(unsynced as u64 + 1))),
            2 if unsynced > 0 => {
                // A sector that was not written, between sectors that were.
                let begin = self.synced + place(choose(unsynced as u64));
                let sector_end = (begin / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let end = sector_end.min(left.len());
                if let Some(hole) = left.get_mut(begin..end) {
                    hole.fill(0);
                }
            }
            _ => {}
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(disk: &MemoryFileSystem, path: &str) -> Option<Bytes> {
        disk.read_whole(Path::new(path), 1 << 20).await.ok()
    }

    #[tokio::test]
    async fn what_was_synced_is_left_and_what_was_not_is_chosen() {
        let disk = RecordingFileSystem::new();
        disk.create_directories(Path::new("/d")).await.unwrap();
        disk.sync_directory(Path::new("/")).await.unwrap();
        let mut file = disk.create(Path::new("/d/a")).await.unwrap();
        file.append_and_sync(Bytes::from_static(b"synced")).await.unwrap();
        disk.sync_directory(Path::new("/d")).await.unwrap();
        file.append(Bytes::from_static(b" or not")).await.unwrap();
        disk.rename(Path::new("/d/a"), Path::new("/d/b")).await.unwrap();
        let steps = disk.steps();
        let worst = RecordingFileSystem::after_power_cut(&steps, |_| 0);
        assert_eq!(read(&worst, "/d/a").await.unwrap(), "synced");
        assert_eq!(read(&worst, "/d/b").await, None);
        let best = RecordingFileSystem::after_power_cut(&steps, |possible| possible - 1);
        assert_eq!(read(&best, "/d/b").await.unwrap(), "synced or not");
        assert_eq!(read(&best, "/d/a").await, None);
        // After the first step only: not even the folder is certain.
        let begun = RecordingFileSystem::after_power_cut(&steps[..1], |_| 0);
        assert!(!begun.exists(Path::new("/d")).await.unwrap());
    }

    #[tokio::test]
    async fn a_name_is_certain_once_its_folder_was_synced() {
        let disk = RecordingFileSystem::new();
        disk.write_whole(Path::new("/a"), Bytes::from_static(b"1")).await.unwrap();
        disk.delete_file(Path::new("/a")).await.unwrap();
        let steps = disk.steps();
        let worst = RecordingFileSystem::after_power_cut(&steps, |_| 0);
        assert_eq!(read(&worst, "/a").await.unwrap(), "1", "its deletion was not synced");
        disk.sync_directory(Path::new("/")).await.unwrap();
        let worst = RecordingFileSystem::after_power_cut(&disk.steps(), |_| 0);
        assert_eq!(read(&worst, "/a").await, None);
    }
}
