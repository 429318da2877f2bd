//! Files in memory, for simulation and tests. They record what was synced, and can lose the rest.
//!
//! Several [`MemoryFileSystem`]s may share one disk under different *writers*, each a simulated
//! machine. [`MemoryFileSystem::crash`] removes a writer: its open files lose their locks, and the
//! bytes that it had not synced are lost, kept or torn, as the caller decides.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use basalt_planted::{Rule, is_off};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::{AppendFile, DirectoryEntry, Durability, Error, FileSystem, ReadFile, Result, Seal};

/// One writer's view of a disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryFileSystem {
    disk: Arc<Mutex<Disk>>,
    writer: u64,
    /// Counts the restarts of `writer`: a file opened before a restart can no longer be written.
    life: u64,
}

#[derive(Debug, Default)]
struct Disk {
    nodes: BTreeMap<PathBuf, Node>,
    lives: BTreeMap<u64, u64>,
    next_file: u64,
}

#[derive(Debug)]
enum Node {
    Directory,
    File(Contents),
}

#[derive(Debug, Default)]
struct Contents {
    /// Unchanged by renames, so that an open file can be found again.
    file: u64,
    bytes: BytesMut,
    synced: usize,
    /// The durability of its syncs.
    durability: Durability,
    holder: Option<(u64, u64)>,
}

/// The longest name of a file or folder in bytes, as on Linux and HDFS.
const NAME_BYTES_MAX: usize = 255;

struct MemoryAppendFile {
    disk: Arc<Mutex<Disk>>,
    created_as: PathBuf,
    /// Where it was last found.
    path: PathBuf,
    file: u64,
    holder: (u64, u64),
    length: u64,
}

struct MemoryReadFile {
    path: PathBuf,
    bytes: Bytes,
}

// === impl MemoryFileSystem ===

impl Default for MemoryFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFileSystem {
    /// An empty disk, seen by writer 0.
    pub fn new() -> Self {
        let disk =
            Disk { nodes: [(PathBuf::from("/"), Node::Directory)].into(), ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)), writer: 0, life: 0 }
    }

    /// The same disk, as seen by `writer` since its last crash.
    pub fn as_writer(&self, writer: u64) -> Self {
        let life = *self.disk.lock().lives.entry(writer).or_default();
        Self { disk: Arc::clone(&self.disk), writer, life }
    }

    /// Crashes `writer`. For each file that it held open, `keep` gets the number of unsynced bytes
    /// and returns how many of them reached the disk nevertheless.
    pub fn crash(&self, writer: u64, mut keep: impl FnMut(u64) -> u64) {
        let mut disk = self.disk.lock();
        *disk.lives.entry(writer).or_default() += 1;
        for node in disk.nodes.values_mut() {
            let Node::File(contents) = node else { continue };
            if contents.holder.is_some_and(|(holder, _)| holder == writer) {
                let unsynced = contents.bytes.len() - contents.synced;
                let kept = usize::try_from(keep(unsynced as u64)).unwrap_or(unsynced);
                contents.bytes.truncate(contents.synced + kept.min(unsynced));
                contents.holder = None;
            }
        }
    }

    /// The durability that the writer of a file chose last. It does not affect what a crash of this
    /// disk loses.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such file.
    pub fn durability(&self, path: &Path) -> Result<Durability> {
        match self.disk.lock().nodes.get(path) {
            Some(Node::File(contents)) => Ok(contents.durability),
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    /// The files below `folder` with their contents, sorted by path.
    pub fn files_below(&self, folder: &Path) -> Vec<(PathBuf, Bytes)> {
        let disk = self.disk.lock();
        let files = disk.below(folder).filter_map(|(path, node)| match node {
            Node::File(contents) => Some((path.clone(), contents.bytes.clone().freeze())),
            Node::Directory => None,
        });
        files.collect()
    }

    /// Whether there is a folder.
    pub fn is_folder(&self, path: &Path) -> bool {
        matches!(self.disk.lock().nodes.get(path), Some(Node::Directory))
    }

    /// Removes a file, or a folder and everything in it, as another program would.
    pub fn remove(&self, path: &Path) {
        self.disk.lock().nodes.retain(|node, _| !node.starts_with(path));
    }

    /// Creates a folder, durably.
    pub fn put_folder(&self, path: &Path) {
        self.disk.lock().nodes.insert(path.to_owned(), Node::Directory);
    }

    /// Creates a file, durably, and replaces any other.
    pub fn put_file(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk.lock();
        disk.next_file += 1;
        let (file, bytes) = (disk.next_file, BytesMut::from(bytes));
        let synced = bytes.len();
        let contents = Contents { file, bytes, synced, ..Contents::default() };
        disk.nodes.insert(path.to_owned(), Node::File(contents));
    }

    fn read(&self, path: &Path) -> Result<Bytes> {
        match self.disk.lock().nodes.get(path) {
            Some(Node::File(contents)) => Ok(contents.bytes.clone().freeze()),
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    /// A writer whose machine has crashed must no longer reach the disk.
    fn check_alive(&self, path: &Path) -> Result<()> {
        self.disk.lock().check_alive((self.writer, self.life), path)
    }
}

#[async_trait]
impl FileSystem for MemoryFileSystem {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.check_alive(path)?;
        check_names(path)?;
        let mut disk = self.disk.lock();
        if disk.nodes.contains_key(path) {
            return Err(Error::AlreadyExists { path: path.to_owned() });
        }
        disk.check_directory(path.parent().unwrap_or(Path::new("/")))?;
        disk.next_file += 1;
        let (file, holder) = (disk.next_file, (self.writer, self.life));
        let contents = Contents { file, holder: Some(holder), ..Contents::default() };
        disk.nodes.insert(path.to_owned(), Node::File(contents));
        let disk = Arc::clone(&self.disk);
        let (created_as, path) = (path.to_owned(), path.to_owned());
        Ok(Box::new(MemoryAppendFile { disk, created_as, path, file, holder, length: 0 }))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(MemoryReadFile { path: path.to_owned(), bytes: self.read(path)? }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check_alive(from)?;
        check_names(to)?;
        let mut disk = self.disk.lock();
        if disk.nodes.contains_key(to) {
            return Err(Error::AlreadyExists { path: to.to_owned() });
        }
        disk.check_directory(to.parent().unwrap_or(Path::new("/")))?;
        if !disk.nodes.contains_key(from) {
            return Err(Error::NotFound { path: from.to_owned() });
        }
        let moved: Vec<PathBuf> = disk.below(from).map(|(path, _)| path.clone()).collect();
        for old in moved {
            let below = old.strip_prefix(from).unwrap_or(Path::new(""));
            let new = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
            if let Some(node) = disk.nodes.remove(&old) {
                disk.nodes.insert(new, node);
            }
        }
        Ok(())
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        self.check_alive(path)?;
        check_names(path)?;
        let mut disk = self.disk.lock();
        for folder in path.ancestors() {
            disk.nodes.entry(folder.to_owned()).or_insert(Node::Directory);
        }
        Ok(())
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        let disk = self.disk.lock();
        disk.check_directory(path)?;
        let children = disk.below(path).filter(|(node, _)| node.parent() == Some(path));
        Ok(children
            .map(|(node, contents)| DirectoryEntry {
                name: node.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                is_directory: matches!(contents, Node::Directory),
                length: match contents {
                    Node::Directory => 0,
                    Node::File(contents) => contents.bytes.len() as u64,
                },
            })
            .collect())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.disk.lock().nodes.contains_key(path))
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.check_alive(path)?;
        let mut disk = self.disk.lock();
        match disk.nodes.get(path) {
            Some(Node::File(_)) => {
                disk.nodes.remove(path);
                Ok(())
            }
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.check_alive(path)?;
        self.disk.lock().nodes.retain(|node, _| !node.starts_with(path));
        Ok(())
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        self.check_alive(path)?;
        self.disk.lock().check_directory(path)
    }

    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal> {
        self.check_alive(path)?;
        match self.disk.lock().nodes.get_mut(path) {
            Some(Node::File(contents)) => {
                if !is_off(Rule::SyncAtSeal) {
                    contents.synced = contents.bytes.len();
                }
                let writer_gone = contents.holder.is_none() && writer_boot_id == BOOT_ID;
                let length = contents.bytes.len() as u64;
                Ok(Seal { length, is_final: writer_gone, writer_gone, may_shrink: false })
            }
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    fn writer_tag(&self) -> String {
        let mut disk = self.disk.lock();
        disk.next_file += 1;
        format!("{}-{}", self.writer, disk.next_file)
    }

    fn boot_id(&self) -> &str {
        BOOT_ID
    }
}

/// All writers of a disk in memory run in one process.
const BOOT_ID: &str = "memory";

// === impl Disk ===

impl Disk {
    /// A node and everything below it, sorted. Paths are ordered by their components, so these are
    /// adjacent.
    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let from = (Bound::Included(path), Bound::Unbounded);
        let nodes = self.nodes.range::<Path, _>(from);
        nodes.take_while(move |(node, _)| node.starts_with(path))
    }

    fn check_directory(&self, path: &Path) -> Result<()> {
        match self.nodes.get(path) {
            Some(Node::Directory) => Ok(()),
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    fn check_alive(&self, (writer, life): (u64, u64), path: &Path) -> Result<()> {
        if self.lives.get(&writer).copied().unwrap_or_default() == life {
            return Ok(());
        }
        let source = std::io::Error::other("the simulated machine has crashed");
        Err(Error::Io { path: path.to_owned(), operation: "write", source })
    }

    /// Finds an open file under its current name.
    fn open_file(&mut self, path: &mut PathBuf, file: u64) -> Option<&mut Contents> {
        let is_it = |node: &Node| matches!(node, Node::File(contents) if contents.file == file);
        if !self.nodes.get(path).is_some_and(is_it) {
            *path = self.nodes.iter().find(|(_, node)| is_it(node))?.0.clone();
        }
        match self.nodes.get_mut(path) {
            Some(Node::File(contents)) => Some(contents),
            _ => None,
        }
    }
}

/// Rejects a path that a real file system would reject.
fn check_names(path: &Path) -> Result<()> {
    if path.iter().all(|name| name.len() <= NAME_BYTES_MAX) {
        return Ok(());
    }
    let source = std::io::Error::from(std::io::ErrorKind::InvalidFilename);
    Err(Error::Io { path: path.to_owned(), operation: "create", source })
}

// === impl MemoryAppendFile ===

impl MemoryAppendFile {
    /// Runs `operation` on the contents. Writes to a file that was deleted while open are dropped.
    /// Returns whether the file is still under the name that it was created under.
    fn with_contents(&mut self, operation: impl FnOnce(&mut Contents)) -> Result<bool> {
        let mut disk = self.disk.lock();
        disk.check_alive(self.holder, &self.path)?;
        let contents = disk.open_file(&mut self.path, self.file);
        let is_there = contents.is_some();
        contents.map(operation);
        Ok(is_there && self.path == self.created_as)
    }
}

#[async_trait]
impl AppendFile for MemoryAppendFile {
    fn set_durability(&mut self, durability: Durability) {
        let _crashed_already = self.with_contents(|contents| contents.durability = durability);
    }

    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.with_contents(|contents| contents.bytes.extend_from_slice(&bytes))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        match self.with_contents(|contents| contents.synced = contents.bytes.len())? {
            true => Ok(()),
            false if is_off(Rule::NameAtSync) => Ok(()),
            false => Err(Error::TakenAway { path: self.created_as.clone() }),
        }
    }

    fn length(&self) -> u64 {
        self.length
    }
}

impl Drop for MemoryAppendFile {
    fn drop(&mut self) {
        let holder = self.holder;
        let _crashed_already = self.with_contents(|contents| {
            if contents.holder == Some(holder) {
                contents.holder = None;
            }
        });
    }
}

// === impl MemoryReadFile ===

#[async_trait]
impl ReadFile for MemoryReadFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let out_of_range = || Error::EndOfFile { path: self.path.clone(), offset, length };
        let start = usize::try_from(offset).map_err(|_| out_of_range())?;
        let end = start.checked_add(length).ok_or_else(out_of_range)?;
        if end > self.bytes.len() {
            return Err(out_of_range());
        }
        Ok(self.bytes.slice(start..end))
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crash_keeps_what_was_synced_and_frees_the_lock() {
        let disk = MemoryFileSystem::new();
        let machine = disk.as_writer(1);
        let mut file = machine.create(Path::new("/log")).await.unwrap();
        file.append(Bytes::from_static(b"durable")).await.unwrap();
        file.sync().await.unwrap();
        file.append(Bytes::from_static(b" lost")).await.unwrap();
        disk.crash(1, |_| 2);
        assert!(file.append(Bytes::from_static(b"zombie")).await.is_err());
        assert_eq!(&disk.read_whole(Path::new("/log"), 100).await.unwrap()[..], b"durable l");
        assert!(disk.seal(Path::new("/log"), disk.boot_id()).await.unwrap().writer_gone);
    }

    #[tokio::test]
    async fn a_crash_keeps_what_was_sealed() {
        let disk = MemoryFileSystem::new();
        let (writer, master) = (disk.as_writer(1), disk.as_writer(2));
        let mut file = writer.create(Path::new("/log")).await.unwrap();
        file.append(Bytes::from_static(b"sealed")).await.unwrap();
        let seal = master.seal(Path::new("/log"), master.boot_id()).await.unwrap();
        assert_eq!((seal.length, seal.writer_gone), (6, false));
        file.append(Bytes::from_static(b" or not")).await.unwrap();
        disk.crash(1, |_| 0);
        assert_eq!(&disk.read_whole(Path::new("/log"), 100).await.unwrap()[..], b"sealed");
        disk.crash(2, |_| 0);
        assert!(master.seal(Path::new("/log"), master.boot_id()).await.is_err(), "it has crashed");
    }

    #[tokio::test]
    async fn ranges_are_read_one_after_another_whatever_lies_between() {
        let disk = MemoryFileSystem::new();
        let contents: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        disk.write_whole(Path::new("/log"), contents.clone().into()).await.unwrap();
        let reader = disk.open(Path::new("/log")).await.unwrap();
        let ranges = [0..10, 10..20, 500..501, 90_000..90_000, 700_000..2_000_000, 40..50];
        let expected: Vec<u8> =
            ranges.iter().flat_map(|range| contents[range.start..range.end].to_vec()).collect();
        let ranges = ranges.map(|range| range.start as u64..range.end as u64);
        assert_eq!(&reader.read_ranges(&ranges).await.unwrap()[..], expected);
        assert!(reader.read_ranges(&[0..1, 2_999_999..3_000_001]).await.is_err());
    }

    #[tokio::test]
    async fn a_name_is_at_most_255_bytes_long() {
        let disk = MemoryFileSystem::new();
        let path = |length: usize| PathBuf::from("/").join("n".repeat(length));
        drop(disk.create(&path(255)).await.unwrap());
        assert!(disk.create(&path(256)).await.is_err());
        assert!(disk.create_directories(&path(256)).await.is_err());
        assert!(disk.rename(&path(255), &path(256)).await.is_err());
    }

    #[tokio::test]
    async fn an_open_file_follows_its_rename() {
        let disk = MemoryFileSystem::new();
        disk.create_directories(Path::new("/wal")).await.unwrap();
        let mut file = disk.create(Path::new("/wal/1")).await.unwrap();
        disk.rename(Path::new("/wal"), Path::new("/wal-splitting")).await.unwrap();
        file.append(Bytes::from_static(b"late")).await.unwrap();
        let renamed = disk.read_whole(Path::new("/wal-splitting/1"), 10).await.unwrap();
        assert_eq!(&renamed[..], b"late");
        assert!(matches!(file.sync().await, Err(Error::TakenAway { .. })));
        assert!(disk.create(Path::new("/wal/2")).await.err().unwrap().is_not_found());
    }
}
