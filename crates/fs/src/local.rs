//! A folder on this machine, or one that several machines share.
//!
//! A file that is open for appending is held under an exclusive `flock`. When the process dies, for
//! whatever reason, the kernel releases the lock, and the free lock proves that no more bytes will
//! come. The lock belongs to the open file description. The standard library opens files
//! close-on-exec, so no child process keeps it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, RenameFlags};

use crate::{AppendFile, DirectoryEntry, Error, FileSystem, ReadFile, Result, Seal};

/// Files under a root folder. All paths are relative to that root.
#[derive(Debug)]
pub struct LocalFileSystem {
    root: PathBuf,
    boot_id: String,
}

struct LocalAppendFile {
    path: PathBuf,
    /// Kept open after an error as well: the lock must not look free while this process lives.
    file: Arc<File>,
    /// An operation failed or was cancelled half way. How much of it happened is unknown.
    lost: bool,
    length: u64,
    /// The offset up to which space on the disk is reserved.
    reserved: u64,
}

struct LocalReadFile {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

/// Magic numbers of `statfs(2)` for file systems where one kernel sees every lock.
const LOCAL_FILE_SYSTEMS: [(u32, &str); 6] = [
    (0x0000_ef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0xf2f5_2010, "f2fs"),
];

// === impl LocalFileSystem ===

impl LocalFileSystem {
    /// Opens the folder `root`, and creates it if it is missing.
    ///
    /// # Errors
    /// The folder cannot be created, or is not writable.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(|e| Error::from_io(root, "make the folder", e))?;
        rustix::fs::access(root, rustix::fs::Access::WRITE_OK)
            .map_err(|e| Error::from_io(root, "write to the folder", e.into()))?;
        Self::open_read_only(root)
    }

    /// Opens the folder `root`, which must exist, for a caller that only reads.
    ///
    /// # Errors
    /// The folder does not exist, or cannot be opened.
    pub fn open_read_only(root: &Path) -> Result<Self> {
        let root = root.canonicalize().map_err(|e| Error::from_io(root, "resolve", e))?;
        Ok(Self { root, boot_id: read_boot_id() })
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[async_trait]
impl FileSystem for LocalFileSystem {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        let path = self.resolve(path);
        on_disk(move || {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|e| Error::from_io(&path, "create", e))?;
            file.try_lock().map_err(|e| Error::from_io(&path, "lock", lock_error(e)))?;
            let file = Arc::new(file);
            let made = LocalAppendFile { path, file, lost: false, length: 0, reserved: 0 };
            Ok(Box::new(made) as Box<dyn AppendFile>)
        })
        .await
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let path = self.resolve(path);
        on_disk(move || {
            let file = File::open(&path).map_err(|e| Error::from_io(&path, "open", e))?;
            let length = file.metadata().map_err(|e| Error::from_io(&path, "stat", e))?.len();
            Ok(Arc::new(LocalReadFile { path, file: Arc::new(file), length }) as Arc<dyn ReadFile>)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (self.resolve(from), self.resolve(to));
        on_disk(move || rename_file(&from, &to)).await
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        let path = self.resolve(path);
        on_disk(move || {
            fs::create_dir_all(&path).map_err(|e| Error::from_io(&path, "make the folder", e))
        })
        .await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        let path = self.resolve(path);
        on_disk(move || list_directory(&path)).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        let path = self.resolve(path);
        on_disk(move || path.try_exists().map_err(|e| Error::from_io(&path, "look for", e))).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        let path = self.resolve(path);
        on_disk(move || fs::remove_file(&path).map_err(|e| Error::from_io(&path, "delete", e)))
            .await
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        let path = self.resolve(path);
        on_disk(move || match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::from_io(&path, "delete", error))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        let path = self.resolve(path);
        on_disk(move || sync_folder(&path)).await
    }

    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal> {
        let path = self.resolve(path);
        let same_kernel = !self.boot_id.is_empty() && writer_boot_id == self.boot_id;
        on_disk(move || seal_file(&path, same_kernel)).await
    }

    async fn write_whole(&self, path: &Path, contents: Bytes) -> Result<()> {
        let aside = self.resolve(&crate::aside_path(path, &self.writer_tag()));
        let path = self.resolve(path);
        on_disk(move || write_file_whole(&aside, &path, &contents)).await
    }

    async fn read_whole(&self, path: &Path, length_max: u64) -> Result<Bytes> {
        let path = self.resolve(path);
        on_disk(move || read_file_whole(path, length_max)).await
    }

    fn writer_tag(&self) -> String {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        format!("{}-{}-{call}", self.boot_id, std::process::id())
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

// === impl LocalAppendFile ===

#[async_trait]
impl AppendFile for LocalAppendFile {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.with_file("append to", move |file, path| write_all(file, path, &bytes)).await?;
        self.length += length;
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        self.with_file("sync", sync_file).await
    }

    async fn append_and_sync(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.with_file("append to and sync", move |file, path| {
            write_all(file, path, &bytes)?;
            sync_file(file, path)
        })
        .await?;
        self.length += length;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }

    async fn reserve(&mut self, bytes: u64) -> Result<()> {
        let (from, until) = (self.length, self.length.saturating_add(bytes));
        if until > self.reserved {
            let (file, path) = (Arc::clone(&self.file), self.path.clone());
            on_disk(move || allocate(&file, &path, from..until)).await?;
            self.reserved = until;
        }
        Ok(())
    }
}

impl Drop for LocalAppendFile {
    fn drop(&mut self) {
        // Not while a write may still be in flight, or after one has failed: the length on disk is
        // unknown.
        if self.reserved > self.length && !self.lost {
            // This only releases the space beyond the end. If it fails, the file just occupies more
            // space.
            let _ = self.file.set_len(self.length);
        }
    }
}

impl LocalAppendFile {
    /// Runs `operation` on the file off the async threads. If the operation fails or the caller
    /// cancels it, every later call fails.
    async fn with_file(
        &mut self,
        name: &'static str,
        operation: impl FnOnce(&File, &Path) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if self.lost {
            let given_up = io::Error::other("given up after an earlier error");
            return Err(Error::from_io(&self.path, name, given_up));
        }
        self.lost = true;
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        on_disk(move || operation(&file, &path)).await?;
        self.lost = false;
        Ok(())
    }
}

// === impl LocalReadFile ===

#[async_trait]
impl ReadFile for LocalReadFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let end = offset.saturating_add(length as u64);
        if end > self.length {
            return Err(Error::EndOfFile { path: self.path.clone(), offset, length });
        }
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        // Not allocated by the blocking thread. mimalloc keeps memory that another thread freed
        // until the allocating thread next allocates such a piece, and there are many blocking
        // threads, mostly idle.
        let mut buffer = BytesMut::zeroed(length);
        on_disk(move || {
            fill_from(&file, &path, &mut buffer, offset)?;
            Ok(buffer.freeze())
        })
        .await
    }

    async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Bytes> {
        if let Some(beyond) = ranges.iter().find(|range| range.end > self.length) {
            let length = usize::try_from(crate::range_length(beyond)).unwrap_or(usize::MAX);
            let (path, offset) = (self.path.clone(), beyond.start);
            return Err(Error::EndOfFile { path, offset, length });
        }
        let length: u64 = ranges.iter().map(crate::range_length).sum();
        let buffer = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        let (file, path, ranges) = (Arc::clone(&self.file), self.path.clone(), ranges.to_vec());
        on_disk(move || read_file_ranges(&file, &path, buffer, &ranges)).await
    }

    fn length(&self) -> u64 {
        self.length
    }
}

/// Ranges no further apart than this are read together: copying costs less than another call.
const GAP_BYTES_MAX: u64 = 4 << 10;
/// One read is at most this long, unless a single range is longer.
const SPAN_BYTES_MAX: u64 = 64 << 10;

/// Fills `buffer` with the bytes of the file from `offset` on.
fn fill_from(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::EndOfFile { path: path.to_owned(), offset, length: buffer.len() })
        }
        result => result.map_err(|e| Error::from_io(path, "read", e)),
    }
}

/// Fills `buffer`, which is as long as all ranges together.
fn read_file_ranges(
    file: &File,
    path: &Path,
    mut buffer: BytesMut,
    ranges: &[Range<u64>],
) -> Result<Bytes> {
    let mut unfilled = &mut buffer[..];
    let mut scratch = Vec::new();
    let mut rest = ranges;
    while let Some(first) = rest.first() {
        let (together, later) = rest.split_at(count_near(rest));
        rest = later;
        let span = first.start..together.last().map_or(first.end, |last| last.end);
        let span_length = crate::range_length(&span) as usize;
        if together.len() == 1 {
            fill_from(file, path, take_front(&mut unfilled, span_length), span.start)?;
            continue;
        }
        scratch.resize(span_length, 0);
        fill_from(file, path, &mut scratch, span.start)?;
        for range in together {
            let (from, length) = (range.start - span.start, crate::range_length(range));
            let wanted = &scratch[from as usize..(from + length) as usize];
            take_front(&mut unfilled, wanted.len()).copy_from_slice(wanted);
        }
    }
    Ok(buffer.freeze())
}

/// How many of the first ranges ascend and are close enough to be read together; at least one.
fn count_near(ranges: &[Range<u64>]) -> usize {
    let start = ranges.first().map_or(0, |first| first.start);
    let near = |pair: &&[Range<u64>]| {
        pair[0].start <= pair[0].end
            && pair[0].end <= pair[1].start
            && pair[1].start <= pair[1].end
            && pair[1].start - pair[0].end <= GAP_BYTES_MAX
            && pair[1].end - start <= SPAN_BYTES_MAX
    };
    1 + ranges.windows(2).take_while(near).count()
}

fn take_front<'a>(buffer: &mut &'a mut [u8], length: usize) -> &'a mut [u8] {
    let (front, rest) = std::mem::take(buffer).split_at_mut(length);
    *buffer = rest;
    front
}

/// Runs a blocking operation on tokio's blocking threads.
async fn on_disk<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(operation).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Io {
                path: PathBuf::new(),
                operation: "finish: the process is stopping",
                source: io::ErrorKind::Interrupted.into(),
            }),
        },
    }
}

/// Implements [`FileSystem::write_whole`] in one trip to a blocking thread.
fn write_file_whole(aside: &Path, path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(aside)
        .map_err(|e| Error::from_io(aside, "create", e))?;
    let written = file
        .write_all(contents)
        .map_err(|e| Error::from_io(aside, "append to", e))
        .and_then(|()| file.sync_data().map_err(|e| Error::from_io(aside, "sync", e)));
    drop(file);
    if let Err(error) = written {
        // On a full disk, each attempt would leave another file behind.
        let _ = fs::remove_file(aside);
        return Err(error);
    }
    rename_file(aside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn read_file_whole(path: PathBuf, length_max: u64) -> Result<Bytes> {
    let mut file = File::open(&path).map_err(|e| Error::from_io(&path, "open", e))?;
    let length = file.metadata().map_err(|e| Error::from_io(&path, "stat", e))?.len();
    if length > length_max {
        return Err(Error::TooLong { path, length, length_max });
    }
    let mut contents = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact(&mut contents).map_err(|e| Error::from_io(&path, "read", e))?;
    Ok(contents.into())
}

fn rename_file(from: &Path, to: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Error::AlreadyExists { path: to.to_owned() }),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rename_by_link(from, to),
        Err(errno) => Err(Error::from_io(from, "rename", errno.into())),
    }
}

/// For file systems without `RENAME_NOREPLACE`, such as NFS: a hard link never replaces anything
/// either. After a crash in between, the file has both names. Folders cannot be linked. Renaming a
/// folder replaces at most an empty folder.
fn rename_by_link(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            Error::AlreadyExists { path: to.to_owned() }
        }
        _ => Error::from_io(from, "rename", e),
    };
    let is_folder = fs::symlink_metadata(from).map_err(failed)?.is_dir();
    if !is_folder {
        fs::hard_link(from, to).map_err(failed)?;
        return fs::remove_file(from).map_err(failed);
    }
    if to.try_exists().map_err(failed)? {
        return Err(Error::AlreadyExists { path: to.to_owned() });
    }
    fs::rename(from, to).map_err(failed)
}

fn write_all(mut file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(|e| Error::from_io(path, "append to", e))
}

/// Reserves disk space for a range of a file without changing its length.
fn allocate(file: &File, path: &Path, range: Range<u64>) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    let length = crate::range_length(&range);
    match fallocate(file, FallocateFlags::KEEP_SIZE, range.start, length) {
        // Some network file systems do not support this.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(Error::from_io(path, "reserve room for", errno.into())),
    }
}

/// Implements [`AppendFile::sync`]. The name is checked after all bytes are durable, not before.
fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map_err(|e| Error::from_io(path, "sync", e))?;
    let held = file.metadata().map_err(|e| Error::from_io(path, "stat", e))?;
    match fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::from_io(path, "stat", error))
        }
        _ => Err(Error::TakenAway { path: path.to_owned() }),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = File::open(path).map_err(|e| Error::from_io(path, "open", e))?;
    folder.sync_all().map_err(|e| Error::from_io(path, "sync", e))
}

fn list_directory(path: &Path) -> Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Error::from_io(path, "list", e))? {
        let entry = entry.map_err(|e| Error::from_io(path, "list", e))?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Renamed or deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::from_io(&entry.path(), "stat", error)),
        };
        entries.push(DirectoryEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_directory: metadata.is_dir(),
            length: if metadata.is_dir() { 0 } else { metadata.len() },
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn seal_file(path: &Path, same_kernel: bool) -> Result<Seal> {
    // Opened for writing only because some file systems require it for an exclusive lock.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| Error::from_io(path, "open", e))?;
    let lock_free = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => return Err(Error::from_io(path, "lock", error)),
    };
    let writer_gone = lock_free && same_kernel && is_local(&file, path)?;
    // The length is read after the lock was found free: before that, the file might still have
    // grown. It is read before the sync: bytes that a living writer appends during the sync may not
    // be durable.
    let length = file.metadata().map_err(|e| Error::from_io(path, "stat", e))?.len();
    file.sync_all().map_err(|e| Error::from_io(path, "sync", e))?;
    Ok(Seal { length, is_final: writer_gone, writer_gone, may_shrink: false })
}

fn is_local(file: &File, path: &Path) -> Result<bool> {
    let statistics =
        rustix::fs::fstatfs(file).map_err(|e| Error::from_io(path, "statfs", e.into()))?;
    let kind = statistics.f_type as u32;
    Ok(LOCAL_FILE_SYSTEMS.iter().any(|(magic, _)| *magic == kind))
}

fn lock_error(error: TryLockError) -> io::Error {
    match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::other("locked by another process"),
    }
}

/// The kernel's boot id. Empty if there is none; an empty id proves no writer gone.
fn read_boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
