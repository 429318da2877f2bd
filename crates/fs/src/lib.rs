//! The file-system seam: append, sync, rename and seal.
//!
//! Everything durable goes through [`FileSystem`]. What it promises, and nothing more:
//! - bytes are durable once [`AppendFile::sync`] returned; a name is durable once
//!   [`FileSystem::sync_directory`] of its folder returned (a file system that commits names by
//!   itself, as HDFS does, answers at once);
//! - [`FileSystem::create`] and [`FileSystem::rename`] never replace an existing file;
//! - [`FileSystem::seal`] says how long a file is and whether its writer is *proved* gone.
//!
//! [`LocalFileSystem`] is a folder, on this machine or shared; [`MemoryFileSystem`] keeps all in
//! memory and can forget what was not synced, as a power cut does; [`RecordingFileSystem`] shows
//! the disk as a power cut after any step would leave it.

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

/// A file system, shared by all tasks of a role.
pub type SharedFileSystem = Arc<dyn FileSystem>;

/// One entry of a folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryEntry {
    /// The last part of its path.
    pub name: String,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// Its length in bytes; 0 for a folder.
    pub length: u64,
}

/// What [`FileSystem::seal`] found. A writer that is gone implies a length that is final.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seal {
    /// The length of the file in bytes. Everything that was acknowledged before lies below, and
    /// what lies below is durable.
    pub length: u64,
    /// The length will never change, for no later append can be acknowledged. Where this is false
    /// the file may still grow, and its length counts only after the writer's serving lease has
    /// ended. A length that is final says nothing of the process: it may still answer reads.
    pub is_final: bool,
    /// The writer is proved gone: its lock is free, on the file system of the same running kernel.
    pub writer_gone: bool,
    /// The file may end before `length` later, though never before what was acknowledged: some who
    /// keep it were not reached. What is to stay as it is now must be copied while it is there.
    pub may_shrink: bool,
}

/// What durable bytes outlast.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Durability {
    /// The death of any one machine: they are on the disk of the only one, or with several.
    #[default]
    Replicated,
    /// A loss of power everywhere, too: they are on the disk of each machine that has them.
    OnDisk,
}

/// The operations that Basalt asks of a file system. Paths are absolute within it.
#[async_trait]
pub trait FileSystem: Send + Sync + 'static {
    /// Makes a new file for appending. It is locked for as long as it is open, so that
    /// [`FileSystem::seal`] can tell that its writer is gone.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is a file; [`Error::NotFound`] if its folder is missing.
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>>;

    /// [`FileSystem::create`] for a log. Where the file system chooses the machines of a file's
    /// copies, other files have one on this machine, where they are read; a log is read when its
    /// machine is dead, so all of its copies lie elsewhere if there are enough others.
    ///
    /// # Errors
    /// Those of [`FileSystem::create`].
    async fn create_log(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.create(path).await
    }

    /// Opens a file for reading at any place.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>>;

    /// Moves a file or a folder. Where it ends up must not exist yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] if `from` is missing, [`Error::AlreadyExists`] if `to` is there.
    async fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Makes a folder and all that lead to it; one that exists is fine.
    async fn create_directories(&self, path: &Path) -> Result<()>;

    /// The entries of a folder, sorted by name.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>>;

    /// Whether there is a file or a folder.
    async fn exists(&self, path: &Path) -> Result<bool>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn delete_file(&self, path: &Path) -> Result<()>;

    /// Removes a folder and all in it; a missing one is fine.
    async fn delete_directory(&self, path: &Path) -> Result<()>;

    /// Makes the names in a folder durable.
    async fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Finds the length of a file that another process wrote, and whether that process is gone.
    /// `writer_boot_id` is the boot id of the machine it ran on: a free lock proves nothing about
    /// a writer under another kernel, nor on a network file system.
    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal>;

    /// Whether what was not acknowledged may be appended again to a new file when one has failed.
    /// True only where a file that failed acknowledges nothing more, whoever asks: then its writer
    /// knows what counts. On a disk of this machine it does not: after a failed sync nobody knows
    /// what is on the disk, nor what the next sync will say.
    fn failed_files_are_replaced(&self) -> bool {
        false
    }

    /// The node that is on this machine; none where that is not known, or there are no nodes.
    fn own_node(&self) -> Option<NodeName> {
        None
    }

    /// How many bytes of a file are on each node that has some; each byte is on several. `None`
    /// where the file system has no nodes.
    ///
    /// # Errors
    /// [`Error::NotFound`], or nobody tells.
    async fn block_bytes(&self, _path: &Path) -> Result<Option<BTreeMap<NodeName, u64>>> {
        Ok(None)
    }

    /// `node` is excluded for a while.
    fn exclude_node(&self, _node: &NodeName, _suspicion: NodeSuspicion) {}

    /// The nodes that are excluded at the moment, those that failed first; at most
    /// [`EXCLUDED_NODES_MAX`].
    fn excluded_nodes(&self) -> Vec<(NodeName, NodeSuspicion)> {
        Vec::new()
    }

    /// A text that no other call, by any process, has given: what files are written aside under.
    fn writer_tag(&self) -> String;

    /// Identifies the running kernel; a writer publishes it so that others can call
    /// [`FileSystem::seal`].
    fn boot_id(&self) -> &str;

    /// Writes a whole small file: aside, synced, then renamed to `path`, its folder synced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is one.
    async fn write_whole(&self, path: &Path, contents: Bytes) -> Result<()> {
        self.write_whole_as(path, contents, Durability::default()).await
    }

    /// [`FileSystem::write_whole`], with a choice of what it is to outlast.
    ///
    /// # Errors
    /// As there.
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

    /// Writes the first `length` bytes of the log `from` to the new log `to`, whole and synced; the
    /// name in its folder is not.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if `from` is shorter, [`Error::AlreadyExists`] if there is a file `to`.
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
    /// What syncs have the bytes outlast from now on. On a disk of this machine there is one
    /// answer.
    fn set_durability(&mut self, _durability: Durability) {}

    /// Adds bytes at the end. They are not durable before [`AppendFile::sync`].
    async fn append(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes all appended bytes durable. After an error the file must be given up: what the
    /// operating system kept of it is unknown.
    ///
    /// This is a fence that needs no clock: whoever renames the file, or its folder, and looks at
    /// its length then, finds all that any sync has said yes to.
    ///
    /// # Errors
    /// [`Error::TakenAway`] if the file is not under its name when all is durable.
    async fn sync(&mut self) -> Result<()>;

    /// [`AppendFile::append`], then [`AppendFile::sync`]: one trip to the disk where that is
    /// cheaper.
    async fn append_and_sync(&mut self, bytes: Bytes) -> Result<()> {
        self.append(bytes).await?;
        self.sync().await
    }

    /// [`AppendFile::append`], then begins to sync it. More may be appended before it is durable,
    /// where the file system can have several syncs under way; elsewhere this waits for the sync.
    /// What is appended becomes durable in its order.
    async fn append_and_begin_sync(&mut self, bytes: Bytes) -> Result<Durable> {
        self.append_and_sync(bytes).await?;
        Ok(Durable::Now)
    }

    /// Ends the file: others may rely on its length. Nothing is appended afterwards. A file that is
    /// dropped without this is ended too, but nobody is told when.
    ///
    /// # Errors
    /// The file must be given up, as after [`AppendFile::sync`].
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// How many bytes have been appended.
    fn length(&self) -> u64;

    /// Sees to it that the next `bytes` bytes can be appended even if the disk runs full meanwhile.
    /// What is not used is given back when the file is dropped. It changes no length, and nothing
    /// where the file system keeps no such promise: HDFS, or a folder without `fallocate(2)`.
    ///
    /// # Errors
    /// [`Error::is_storage_full`]: there is no room. The file is as good as before.
    async fn reserve(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }

    /// Whether the file has had fewer copies than it should for some time: a new one may have more.
    fn has_few_copies(&self) -> bool {
        false
    }

    /// Ends a file that has failed, as far as that goes. False: what was acknowledged of it may be
    /// on a single machine; who has it elsewhere should write it down anew.
    async fn give_up(&mut self) -> bool {
        true
    }
}

/// When appended bytes are durable.
pub enum Durable {
    /// They are.
    Now,
    /// When this has returned. It may be dropped: nothing is known then.
    Later(BoxFuture<'static, Result<()>>),
}

/// A file that is read at any place.
#[async_trait]
pub trait ReadFile: Send + Sync + 'static {
    /// Exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if the file ends before.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// The bytes of several ranges, one after another: one trip to the disk where that is cheaper.
    /// The caller bounds their sum.
    ///
    /// # Errors
    /// [`Error::EndOfFile`] if the file ends before the last of them.
    async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Bytes> {
        let length: u64 = ranges.iter().map(range_length).sum();
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        for range in ranges {
            let length = usize::try_from(range_length(range)).unwrap_or(usize::MAX);
            bytes.extend_from_slice(&self.read_at(range.start, length).await?);
        }
        Ok(bytes.freeze())
    }

    /// The length when the file was opened, in bytes.
    fn length(&self) -> u64;

    /// Whether each read is a trip to another machine: a few long ones are cheaper than many then.
    fn is_far(&self) -> bool {
        false
    }
}

/// How many bytes of a file that is copied are in memory.
const COPIED_AT_ONCE: u64 = 4 << 20;

fn range_length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Where [`FileSystem::write_whole`] writes before it renames.
fn aside_path(path: &Path, tag: &str) -> std::path::PathBuf {
    let mut name = std::ffi::OsString::from(format!(".aside-{tag}-"));
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}
