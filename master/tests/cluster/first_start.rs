//! Two masters that start at once on an empty storage root. Neither may give up, no matter what one
//! of them has read before the other prepared the cluster.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_fs::{AppendFile, DirectoryEntry, ReadFile, Result, Seal};
use tokio::sync::Semaphore;

use super::*;

/// The disk of a master that is held up once, at a call for `path`.
#[derive(Clone)]
struct HeldUp {
    disk: MemoryFileSystem,
    path: &'static str,
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

// === impl HeldUp ===

impl HeldUp {
    fn at(path: &'static str, disk: MemoryFileSystem) -> Self {
        let (arrived, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self { disk, path, arrived, released }
    }

    async fn hold(&self, path: &Path) {
        if path == Path::new(self.path) {
            self.arrived.add_permits(1);
            // The permit is returned, so only the first call waits.
            let _released = self.released.acquire().await.unwrap();
        }
    }
}

#[async_trait]
impl FileSystem for HeldUp {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        self.disk.create(path).await
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

    /// Held up before the listing.
    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.hold(path).await;
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

    fn writer_tag(&self) -> String {
        self.disk.writer_tag()
    }

    fn boot_id(&self) -> &str {
        self.disk.boot_id()
    }

    /// Held up after the read.
    async fn read_whole(&self, path: &Path, length_max: u64) -> Result<Bytes> {
        let found = self.disk.read_whole(path, length_max).await;
        self.hold(path).await;
        found
    }
}

/// Starts a master that is held up at `path` until another one, started after it, is active.
async fn both_start(path: &'static str) {
    let disk = MemoryFileSystem::new();
    let (address, _coordinator) = start_coordinator(disk.as_writer(1_000)).await;
    let held_up = HeldUp::at(path, disk.as_writer(2_000));
    let _first = start_master(&address, held_up.clone(), LeaseGuard::without_lease());
    held_up.arrived.acquire().await.unwrap().forget();
    let _second = start_master(&address, disk.as_writer(2_001), LeaseGuard::without_lease());
    let epochs = Path::new("/.master-epochs");
    until("the other one is active", async || {
        disk.list(epochs).await.is_ok_and(|epochs| !epochs.is_empty())
    })
    .await;
    held_up.released.add_permits(1);
    let options = Options { connect_timeout: Some(PATIENCE), ..Options::default() };
    let servers = std::slice::from_ref(&address);
    let client = Client::connect(&Seams::system(), servers, PATIENCE, options).await.unwrap();
    let masters = Nodes::below("/basalt").masters();
    until("both are registered", async || {
        client.get_children(&masters).await.is_ok_and(|(masters, _)| masters.len() == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_saw_an_unmarked_root_joins_the_one_that_marked_it() {
    both_start("/hbase.id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_saw_no_epoch_joins_the_one_that_began_the_first() {
    both_start("/.master-epochs").await;
}
