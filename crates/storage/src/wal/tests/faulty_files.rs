//! A file system that counts syncs, and that can delay or fail syncs and new files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use basalt_fs::{
    AppendFile, DirectoryEntry, Durable, Error, FileSystem, MemoryFileSystem, ReadFile, Result,
    Seal,
};
use bytes::Bytes;
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(super) struct FaultyFiles {
    pub(super) disk: MemoryFileSystem,
    pub(super) faults: Arc<Faults>,
    /// Whether it supports concurrent syncs and replacing failed files.
    replaces: bool,
}

pub(super) struct Faults {
    syncs: AtomicUsize,
    failing: AtomicBool,
    /// There is no room except what is reserved.
    full: AtomicBool,
    /// The number of syncs to fail next.
    failing_next: AtomicUsize,
    /// Each sync needs a permit.
    gate: Semaphore,
    /// Each new file needs a permit.
    creates: Semaphore,
}

struct FaultyFile {
    path: std::path::PathBuf,
    inner: Box<dyn AppendFile>,
    reserved: u64,
    faults: Arc<Faults>,
    replaces: bool,
}

// === impl FaultyFiles ===

impl FaultyFiles {
    pub(super) fn new() -> Self {
        let faults = Faults {
            syncs: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            full: AtomicBool::new(false),
            failing_next: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            creates: Semaphore::new(Semaphore::MAX_PERMITS),
        };
        Self { disk: MemoryFileSystem::new(), faults: Arc::new(faults), replaces: false }
    }

    /// A file system that behaves like HDFS.
    pub(super) fn replacing() -> Self {
        Self { replaces: true, ..Self::new() }
    }
}

// === impl Faults ===

impl Faults {
    pub(super) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }

    pub(super) fn fail_syncs(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub(super) fn fail_next_syncs(&self, count: usize) {
        self.failing_next.store(count, Ordering::SeqCst);
    }

    pub(super) fn fill_up(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn check_room(&self, path: &Path) -> Result<()> {
        if !self.full.load(Ordering::SeqCst) {
            return Ok(());
        }
        let source = std::io::ErrorKind::StorageFull.into();
        Err(Error::Io { path: path.to_owned(), operation: "write", source })
    }

    /// Waits for a permit, and fails if a failure is set.
    async fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let one_less = |count: usize| count.checked_sub(1);
        let (get, set) = (Ordering::SeqCst, Ordering::SeqCst);
        let fails = self.failing_next.fetch_update(get, set, one_less).is_ok();
        if fails || self.failing.load(Ordering::SeqCst) {
            return Err(Error::Io {
                path: "/".into(),
                operation: "sync",
                source: std::io::Error::other("planted"),
            });
        }
        Ok(())
    }

    /// From now on each sync waits for a permit.
    pub(super) fn hold_syncs(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn let_syncs(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// From now on each new file waits for a permit.
    pub(super) fn hold_creates(&self) {
        self.creates.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn let_creates(&self, count: usize) {
        self.creates.add_permits(count);
    }
}

#[async_trait]
impl FileSystem for FaultyFiles {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.faults.creates.acquire().await.unwrap().forget();
        self.faults.check_room(path)?;
        Ok(Box::new(FaultyFile {
            path: path.to_owned(),
            inner: self.disk.create(path).await?,
            reserved: 0,
            faults: Arc::clone(&self.faults),
            replaces: self.replaces,
        }))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.disk.open(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to).await
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        self.disk.create_directories(path).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.disk.list(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.disk.exists(path).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.disk.delete_file(path).await
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.disk.delete_directory(path).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<()> {
        self.disk.sync_directory(path).await
    }

    async fn seal(&self, path: &Path, writer_boot_id: &str) -> Result<Seal> {
        self.disk.seal(path, writer_boot_id).await
    }

    fn failed_files_are_replaced(&self) -> bool {
        self.replaces
    }

    fn writer_tag(&self) -> String {
        self.disk.writer_tag()
    }

    fn boot_id(&self) -> &str {
        self.disk.boot_id()
    }
}

// === impl FaultyFile ===

#[async_trait]
impl AppendFile for FaultyFile {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        if self.inner.length() + bytes.len() as u64 > self.reserved {
            self.faults.check_room(&self.path)?;
        }
        self.inner.append(bytes).await
    }

    async fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.faults.check_room(&self.path)?;
        self.reserved = self.inner.length() + bytes;
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        self.faults.sync().await?;
        self.inner.sync().await
    }

    async fn append_and_begin_sync(&mut self, bytes: Bytes) -> Result<Durable> {
        if !self.replaces {
            self.append_and_sync(bytes).await?;
            return Ok(Durable::Now);
        }
        // Durable at once, but reported later or never.
        self.inner.append(bytes).await?;
        self.inner.sync().await?;
        let faults = Arc::clone(&self.faults);
        Ok(Durable::Later(Box::pin(async move { faults.sync().await })))
    }

    fn length(&self) -> u64 {
        self.inner.length()
    }
}
