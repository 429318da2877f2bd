//! The file-system seam: append, sync, rename and seal.
//!
//! Everything durable goes through [`FileSystem`], which promises only this:
//! - Bytes are durable once [`AppendFile::sync`] returns. A name is durable once
//!   [`FileSystem::sync_directory`] of its folder returns. A file system that commits names by
//!   itself, such as HDFS, returns from that at once.
//! - [`FileSystem::create`] and [`FileSystem::rename`] never replace an existing file.
//! - [`FileSystem::seal`] returns the length of a file and whether its writer is *proved* gone.
//!
//! [`LocalFileSystem`] is a folder on this machine or on shared storage. [`MemoryFileSystem`] keeps
//! everything in memory and can drop whatever was not synced, as a power cut does.
//! [`RecordingFileSystem`] shows the disk as a power cut after any step would leave it.

mod error;
mod local;
mod memory;
mod node;
mod recording;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_planted::{Rule, is_off};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

pub use error::{Error, Result};
pub use local::LocalFileSystem;
pub use memory::MemoryFileSystem;
pub use node::{EXCLUDED_NODES_MAX, NodeName, NodeSuspicion};
pub use recording::{DiskStep, RecordingFileSystem};

/// A handle to a file system that all tasks of a role share.
pub type SharedFileSystem = Arc<dyn FileSystem>;

/// One entry of a folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryEntry {
    /// The last component of its path.
    pub name: String,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// Its length in bytes; 0 for a folder.
    pub length: u64,
}

/// The result of [`FileSystem::seal`]. If the writer is gone, the length is final.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seal {
    /// The length of the file in bytes. All bytes acknowledged before the seal are within it, and
    /// all bytes within it are durable.
    pub length: u64,
    /// The length will never change (but see `may_shrink`): no later append can be acknowledged. If
    /// this is false, the file may still grow, and its length is valid only after the writer's
    /// serving lease has ended. A final length does not prove that the writer is dead: it may still
    /// answer reads.
    pub is_final: bool,
    /// The writer is proved gone: its lock is free, on a local file system of the same running
    /// kernel.
    pub writer_gone: bool,
    /// The file may later become shorter than `length`, though never shorter than what was
    /// acknowledged, because not all of its copies were reached. To keep the bytes as they are now,
    /// copy them while they exist.
    pub may_shrink: bool,
}

/// The failures that durable bytes survive.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Durability {
    /// The loss of any one machine. The bytes are on the disk of the only machine, or held
    /// by several.
    #[default]
    Replicated,
    /// Also a loss of power everywhere. The bytes are on the disk of each machine that has them.
    OnDisk,
}

/// The file-system operations that Basalt needs. Paths are absolute within the file system.
#[async_trait]
pub trait FileSystem: Send + Sync + 'static {
    /// Creates a new file for appending. The file stays locked while it is open, so that
    /// [`FileSystem::seal`] can find out whether its writer is gone.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the file exists, [`Error::NotFound`] if its folder is missing.
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>>;

    /// [`FileSystem::create`] for a log. This matters where the file system chooses the machines
    /// that hold a file's copies. Other files have a copy on this machine, because they are read
    /// here. A log is read after its machine has died, so all of its copies are placed on other
    /// machines if there are enough of them.
    ///
    /// # Errors
    /// The same as for [`FileSystem::create`].
    async fn create_log(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.create(path).await
    }

    /// Opens a file for reading at any offset.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the file is missing.
    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>>;

    /// Moves a file or a folder. The target must not exist.
    ///
    /// # Errors
    /// [`Error::NotFound`] if `from` is missing, [`Error::AlreadyExists`] if `to` exists.
    async fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Creates a folder and its missing parents. Succeeds if the folder exists.
    async fn create_directories(&self, path: &Path) -> Result<()>;

    /// Lists the entries of a folder, sorted by name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the folder is missing.
    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>>;

    /// Whether a file or a folder exists at `path`.
    async fn exists(&self, path: &Path) -> Result<bool>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the file is missing.
    async fn delete_file(&self, path: &Path) -> Result<()>;

    /// Removes a folder and everything in it. Succeeds if the folder is missing.
    async fn delete_directory(&self, path: &Path) -> Result<()>;

    /// Makes the names in a folder durable.
    async fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Finds the length of a file that another process wrote, and whether that process is gone.
    /// `writer_boot_id` is the boot id of the machine that the writer ran on: a free lock proves
    /// nothing about a writer under another kernel, nor on a network file system.
    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal>;

    /// Whether unacknowledged bytes may be appended to a new file after a file has failed. True
    /// only if nothing more of a failed file can ever be acknowledged to anybody, so that its
    /// writer knows which bytes count. That does not hold for a disk of this machine: after a
    /// failed sync, neither the state of the disk nor the result of the next sync is known.
    fn failed_files_are_replaced(&self) -> bool {
        false
    }

    /// The node on this machine. `None` if it is unknown or if the file system has no nodes.
    fn own_node(&self) -> Option<NodeName> {
        None
    }

    /// How many bytes of a file each node has. Each byte is on several nodes, and nodes without any
    /// are left out. `None` if the file system has no nodes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the file is missing, or another error if the locations cannot be
    /// determined.
    async fn block_bytes(&self, _path: &Path) -> Result<Option<BTreeMap<NodeName, u64>>> {
        Ok(None)
    }

    /// Excludes `node` for a while.
    fn exclude_node(&self, _node: &NodeName, _suspicion: NodeSuspicion) {}

    /// The nodes that are currently excluded, in the order in which they failed; at most
    /// [`EXCLUDED_NODES_MAX`].
    fn excluded_nodes(&self) -> Vec<(NodeName, NodeSuspicion)> {
        Vec::new()
    }

    /// Returns a string that no other call in any process returns. It makes the names of temporary
    /// files unique.
    fn writer_tag(&self) -> String;

    /// Identifies the running kernel. A writer publishes it so that other processes can call
    /// [`FileSystem::seal`].
    fn boot_id(&self) -> &str;

    /// Writes a whole small file: under a temporary name, synced, renamed to `path`, its folder
    /// synced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if `path` exists.
    async fn write_whole(&self, path: &Path, contents: Bytes) -> Result<()> {
        self.write_whole_as(path, contents, Durability::default()).await
    }

    /// [`FileSystem::write_whole`] with the given durability.
    ///
    /// # Errors
    /// The same as for [`FileSystem::write_whole`].
    async fn write_whole_as(
        &self,
        path: &Path,
        contents: Bytes,
        durability: Durability,
    ) -> Result<()> {
        if is_off(Rule::WholeBeforeRename) {
            let mut file = self.create(path).await?;
            return file.append_and_sync(contents).await;
        }
        let aside = aside_path(path, &self.writer_tag());
        let mut file = self.create(&aside).await?;
        file.set_durability(durability);
        file.append(contents).await?;
        file.sync().await?;
        file.close().await?;
        drop(file);
        self.rename(&aside, path).await?;
        match path.parent() {
            Some(folder) => self.sync_directory(folder).await,
            None => Ok(()),
        }
    }

    /// Copies the first `length` bytes of the log `from` to the new log `to`, and syncs them. Does
    /// not sync the folder of `to`, so the new name is not durable yet.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if `from` is shorter, [`Error::AlreadyExists`] if `to` exists.
    async fn copy_start(&self, from: &Path, to: &Path, length: u64) -> Result<()> {
        let (source, mut target) = (self.open(from).await?, self.create_log(to).await?);
        while target.length() < length {
            let part = COPIED_AT_ONCE.min(length - target.length());
            target.append(source.read_at(target.length(), part as usize).await?).await?;
        }
        target.sync().await?;
        target.close().await
    }

    /// Reads a whole file of at most `length_max` bytes.
    ///
    /// # Errors
    /// [`Error::TooLong`] if it is longer.
    async fn read_whole(&self, path: &Path, length_max: u64) -> Result<Bytes> {
        let file = self.open(path).await?;
        let length = file.length();
        if length > length_max {
            return Err(Error::TooLong { path: path.to_owned(), length, length_max });
        }
        file.read_at(0, usize::try_from(length).unwrap_or(usize::MAX)).await
    }
}

/// A file that grows at its end, held by its only writer.
#[async_trait]
pub trait AppendFile: Send + 'static {
    /// Sets the durability of later syncs. Does nothing where the file system has only one kind, as
    /// a disk of this machine does.
    fn set_durability(&mut self, _durability: Durability) {}

    /// Appends bytes. They are not durable before [`AppendFile::sync`].
    async fn append(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes all appended bytes durable. After an error the file must be given up: it is unknown
    /// how much of it the operating system kept.
    ///
    /// This is a fence that needs no clock. A process that first renames the file or its folder,
    /// and then reads the file's length, finds all bytes that any sync has acknowledged.
    ///
    /// # Errors
    /// [`Error::TakenAway`] if the file is no longer under its name once all bytes are durable.
    async fn sync(&mut self) -> Result<()>;

    /// [`AppendFile::append`], then [`AppendFile::sync`]. One trip to the disk where that is
    /// cheaper.
    async fn append_and_sync(&mut self, bytes: Bytes) -> Result<()> {
        self.append(bytes).await?;
        self.sync().await
    }

    /// [`AppendFile::append`], then starts a sync. Where the file system supports several syncs in
    /// flight, more bytes may be appended before this one has ended. Elsewhere this waits for the
    /// sync. Bytes become durable in the order in which they are appended.
    async fn append_and_begin_sync(&mut self, bytes: Bytes) -> Result<Durable> {
        self.append_and_sync(bytes).await?;
        Ok(Durable::Now)
    }

    /// Closes the file, so that others may rely on its length. Nothing may be appended afterwards.
    /// A file that is dropped without this is closed too, but there is no notification of when.
    ///
    /// # Errors
    /// The file must be given up, as after an error of [`AppendFile::sync`].
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// The number of bytes appended.
    fn length(&self) -> u64;

    /// Reserves space so that the next `bytes` bytes can be appended even if the disk fills up
    /// meanwhile. Unused space is released when the file is dropped. The length of the file does
    /// not change. Does nothing where the file system cannot reserve space: HDFS, or a folder
    /// without `fallocate(2)`.
    ///
    /// # Errors
    /// [`Error::is_storage_full`] holds if there is not enough space. The file stays usable.
    async fn reserve(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }

    /// Whether the file has had too few copies for some time. A new file may get more.
    fn has_few_copies(&self) -> bool {
        false
    }

    /// Tries to close a file that has failed. False means that its acknowledged bytes may be on a
    /// single machine: a caller that has them elsewhere should write them again.
    async fn give_up(&mut self) -> bool {
        true
    }
}

/// When appended bytes are durable.
pub enum Durable {
    /// They are durable now.
    Now,
    /// They are durable when this future returns `Ok`. If it is dropped, the outcome stays unknown.
    Later(BoxFuture<'static, Result<()>>),
}

/// A file that is read at any offset.
#[async_trait]
pub trait ReadFile: Send + Sync + 'static {
    /// Reads exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if the file ends before that.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// Reads several ranges and concatenates their bytes. One trip to the disk where that is
    /// cheaper. The caller bounds the sum of their lengths.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if the file ends before the end of a range.
    async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Bytes> {
        let length: u64 = ranges.iter().map(range_length).sum();
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        for range in ranges {
            let length = usize::try_from(range_length(range)).unwrap_or(usize::MAX);
            bytes.extend_from_slice(&self.read_at(range.start, length).await?);
        }
        Ok(bytes.freeze())
    }

    /// The length of the file in bytes when it was opened.
    fn length(&self) -> u64;

    /// Whether each read is a trip to another machine, so that a few long reads are cheaper than
    /// many short ones.
    fn is_far(&self) -> bool {
        false
    }
}

/// How many bytes are in memory at a time when a file is copied.
const COPIED_AT_ONCE: u64 = 4 << 20;

fn range_length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The temporary path under which [`FileSystem::write_whole`] writes before it renames.
fn aside_path(path: &Path, tag: &str) -> std::path::PathBuf {
    let mut name = std::ffi::OsString::from(format!(".aside-{tag}-"));
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}
