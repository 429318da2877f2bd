//! Basalt's file system on HDFS.
//!
//! How it meets the contract of [`FileSystem`]: names are durable once the NameNode has answered. A
//! lease, not a lock, protects a file that is open for appending. [`FileSystem::seal`] takes the
//! file away from its writer. The length is then final, but this proves nothing about the process:
//! it may still be alive, and answer reads until its serving lease ends.

mod append_file;
mod read_file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use basalt_fs::{
    AppendFile, DirectoryEntry, EXCLUDED_NODES_MAX, FileSystem, NodeName, NodeSuspicion, ReadFile,
    Seal,
};
use basalt_runtime::{Network, Seams, Shutdown};
use futures::StreamExt;
use tracing::{debug, info};

use self::append_file::HdfsAppendFile;
use self::read_file::HdfsReadFile;
use crate::config::HdfsConfig;
use crate::data_node::transfer_address;
use crate::error::{Error, Result};
use crate::fence::{Fence, Fenced, RecoveryMethod};
use crate::live_nodes::LiveNodes;
use crate::name_node::NameNode;
use crate::node_health::NodeHealth;
use crate::pb;
use crate::read::Readers;
use crate::web;
use crate::write::{FileWriter, Purpose, Writers};

/// Files on an HDFS, below a root folder. Must be created within a tokio runtime.
#[derive(Debug)]
pub struct HdfsFileSystem {
    root: PathBuf,
    name_node: NameNode,
    writers: Writers,
    readers: Readers,
    fence: Fence,
    health: NodeHealth,
    nodes: LiveNodes,
    _stop: tokio_util::sync::DropGuard,
    next_tag: AtomicU64,
    network: Network,
    name_node_pages: Vec<String>,
}

/// The kind of server that a [`Configuration`] belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerKind {
    /// A NameNode.
    NameNode,
    /// A DataNode.
    DataNode,
}

/// The effective settings that a server reports.
#[derive(Debug)]
pub struct Configuration {
    /// The server's kind.
    pub kind: ServerKind,
    /// The address of its web pages, as `host:port`.
    pub address: Arc<str>,
    /// Its settings, by name.
    pub settings: Result<BTreeMap<String, String>>,
}

/// How many DataNodes are asked for their settings: a sample of the live ones.
const DATA_NODES_ASKED_MAX: usize = 32;
/// How many servers are asked for their settings at a time.
const ASKED_AT_ONCE: usize = 8;
/// A constant: there is no kernel whose locks could prove a death.
const BOOT_ID: &str = "hdfs";

// === impl HdfsFileSystem ===

impl HdfsFileSystem {
    /// The files below `root` on the HDFS that `config` names. Does not wait for any server: the
    /// list of live DataNodes is fetched in the background.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(seams: &Seams, config: HdfsConfig, root: &Path) -> Result<Self> {
        let config = Arc::new(config);
        let name_node = NameNode::new(seams, &config)?;
        let health = NodeHealth::new(config.avoid_node_for);
        let nodes = LiveNodes::new(config.machine.clone());
        let stop = Shutdown::new();
        let looking = nodes.clone().look_now_and_then(name_node.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(looking));
        let writers = Writers::new(
            seams.clone(),
            Arc::clone(&config),
            name_node.clone(),
            health.clone(),
            nodes.clone(),
        );
        let network = &seams.network;
        let readers =
            Readers::new(network, &config, name_node.clone(), health.clone(), nodes.clone());
        let fence = Fence::new(network, &config, name_node.clone(), health.clone());
        Ok(Self {
            root: root.to_owned(),
            name_node,
            writers,
            readers,
            fence,
            health,
            nodes,
            _stop: stop.drop_guard(),
            next_tag: AtomicU64::new(0),
            network: network.clone(),
            name_node_pages: config.name_node_pages.clone(),
        })
    }

    /// Creates the root folder. Retries for no longer than one call may take, to find out whether
    /// HDFS is available.
    ///
    /// # Errors
    /// Those of the NameNode. [`Error::is_passing`] says whether an error is temporary.
    pub async fn make_root(&self) -> Result<()> {
        self.name_node.make_directories_at_once(&self.resolve(Path::new("/"))?).await
    }

    /// Writes a small file in the root folder and deletes it again, to find out whether there are
    /// enough DataNodes with space.
    ///
    /// # Errors
    /// The file cannot be written now.
    pub async fn check_writes(&self) -> Result<()> {
        self.with_small_file(async |mut writer, _| writer.close().await).await
    }

    /// Finds out which DataNodes are alive, and which of them is on this machine.
    ///
    /// # Errors
    /// The NameNode does not answer.
    pub async fn look_for_nodes(&self) -> Result<()> {
        self.nodes.look(&self.name_node).await
    }

    /// Creates a file as [`FileSystem::create_log`] does, for appending with several flushes in
    /// progress.
    ///
    /// # Errors
    /// Those of the NameNode: the file exists, or its folder is missing.
    pub async fn create_file(&self, path: &Path) -> Result<FileWriter> {
        self.writers.create(&self.resolve(path)?, Purpose::Log).await
    }

    /// Fences a file by `method`. [`FileSystem::seal`] uses [`RecoveryMethod::TakeOverAndClose`].
    ///
    /// # Errors
    /// The file is missing, or the NameNode or all DataNodes of its last block do not answer.
    pub async fn fence(&self, path: &Path, method: RecoveryMethod) -> Result<Fenced> {
        self.fence.fence(&self.resolve(path)?, method).await
    }

    /// Writes a small file, and fences it as if its server had died. This shows what an HDFS does
    /// not allow before it matters. It also makes the DataNodes load the code for a fence, which
    /// takes a Java process hundreds of milliseconds the first time.
    ///
    /// # Errors
    /// As for [`Self::create_file`] and [`Self::fence`].
    pub async fn rehearse_fence(&self) -> Result<Fenced> {
        self.with_small_file(async |writer, whole| {
            // Like the death of its process: the DataNodes see its connections end.
            drop(writer);
            self.fence.fence(whole, RecoveryMethod::TakeOverAndClose).await
        })
        .await
    }

    /// Writes a small file, does something with it, and deletes it.
    async fn with_small_file<T>(
        &self,
        work: impl AsyncFnOnce(FileWriter, &str) -> Result<T>,
    ) -> Result<T> {
        let whole = self.resolve(Path::new(&format!("/.rehearsal-{}", self.writer_tag())))?;
        let mut writer = self.writers.create(&whole, Purpose::Log).await?;
        let done = async {
            writer.append(b"rehearsal").await?;
            writer.sync().await?;
            work(writer, &whole).await
        };
        let done = done.await;
        let deleted = self.name_node.delete(&whole, false).await;
        let done = done?;
        deleted.map(|_| done)
    }

    /// The transfer addresses of the DataNodes that the NameNode considers alive.
    ///
    /// # Errors
    /// The NameNode does not answer.
    pub async fn live_data_nodes(&self) -> Result<Vec<String>> {
        let nodes = self.name_node.live_data_nodes().await?;
        Ok(nodes.iter().map(|node| transfer_address(node).to_string()).collect())
    }

    /// The effective settings of the NameNodes and of some of the live DataNodes.
    pub async fn configurations(&self) -> Vec<Configuration> {
        let pages = self.name_node_pages.iter();
        let mut servers: Vec<(ServerKind, Arc<str>)> =
            pages.map(|page| (ServerKind::NameNode, page.as_str().into())).collect();
        match self.name_node.live_data_nodes().await {
            Ok(nodes) => servers.extend(nodes.iter().take(DATA_NODES_ASKED_MAX).map(|node| {
                let page = format!("{}:{}", node.id.ip_address, node.id.info_port);
                (ServerKind::DataNode, page.into())
            })),
            Err(error) => debug!(%error, "the DataNodes are unknown"),
        }
        let asked = servers.into_iter().map(|(kind, address)| async move {
            let settings = web::effective_settings(&self.network, &address).await;
            Configuration { kind, address, settings }
        });
        let asked: Vec<_> = asked.collect();
        futures::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
    }

    async fn create_for(
        &self,
        purpose: Purpose,
        path: &Path,
    ) -> basalt_fs::Result<Box<dyn AppendFile>> {
        let whole = self.resolve_for(path, "create")?;
        let created = self.writers.create(&whole, purpose).await;
        let writer = created.map_err(|error| {
            // Another client has created it, and is writing it.
            if error.is_exception("AlreadyBeingCreatedException") {
                return basalt_fs::Error::AlreadyExists { path: path.to_owned() };
            }
            file_error(path, "create", error)
        })?;
        let fence = self.fence.clone();
        Ok(Box::new(HdfsAppendFile {
            path: path.to_owned(),
            whole,
            writer: Some(writer),
            length: 0,
            fence,
        }))
    }

    fn resolve(&self, path: &Path) -> Result<String> {
        let whole = self.root.join(path.strip_prefix("/").unwrap_or(path));
        whole.into_os_string().into_string().map_err(|path| Error::Settings {
            reason: format!("{} is not UTF-8", Path::new(&path).display()),
        })
    }

    fn resolve_for(&self, path: &Path, operation: &'static str) -> basalt_fs::Result<String> {
        self.resolve(path).map_err(|error| file_error(path, operation, error))
    }
}

#[async_trait]
impl FileSystem for HdfsFileSystem {
    async fn create(&self, path: &Path) -> basalt_fs::Result<Box<dyn AppendFile>> {
        self.create_for(Purpose::Store, path).await
    }

    async fn create_log(&self, path: &Path) -> basalt_fs::Result<Box<dyn AppendFile>> {
        self.create_for(Purpose::Log, path).await
    }

    async fn open(&self, path: &Path) -> basalt_fs::Result<Arc<dyn ReadFile>> {
        let whole = self.resolve_for(path, "open")?;
        let opened = self.readers.open(&whole).await;
        let reader = opened.map_err(|error| file_error(path, "open", error))?;
        Ok(Arc::new(HdfsReadFile { path: path.to_owned(), reader }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> basalt_fs::Result<()> {
        let (source, target) = (self.resolve_for(from, "rename")?, self.resolve_for(to, "rename")?);
        let Err(error) = self.name_node.rename(&source, &target).await else {
            return Ok(());
        };
        // If the target exists and is not of the same kind (file or folder), the exception has a
        // class that is used for many errors.
        let is_there = error.is_exception("FileAlreadyExistsException")
            || (error.is_exception("IOException")
                && self.name_node.file_info(&target).await.is_ok_and(|info| info.is_some()));
        if is_there {
            return Err(basalt_fs::Error::AlreadyExists { path: to.to_owned() });
        }
        Err(file_error(from, "rename", error))
    }

    async fn create_directories(&self, path: &Path) -> basalt_fs::Result<()> {
        let whole = self.resolve_for(path, "make the folder")?;
        let made = self.name_node.make_directories(&whole).await;
        made.map_err(|error| file_error(path, "make the folder", error))
    }

    async fn list(&self, path: &Path) -> basalt_fs::Result<Vec<DirectoryEntry>> {
        let whole = self.resolve_for(path, "list")?;
        let listed = self.name_node.list(&whole).await;
        let entries = listed.map_err(|error| file_error(path, "list", error))?;
        let entries =
            entries.ok_or_else(|| basalt_fs::Error::NotFound { path: path.to_owned() })?;
        let mut entries: Vec<DirectoryEntry> = entries.iter().map(directory_entry).collect();
        // The NameNode also sorts by bytes, but nothing here may depend on that.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn exists(&self, path: &Path) -> basalt_fs::Result<bool> {
        let whole = self.resolve_for(path, "look for")?;
        let info = self.name_node.file_info(&whole).await;
        Ok(info.map_err(|error| file_error(path, "look for", error))?.is_some())
    }

    async fn delete_file(&self, path: &Path) -> basalt_fs::Result<()> {
        let whole = self.resolve_for(path, "delete")?;
        let deleted = self.name_node.delete(&whole, false).await;
        match deleted.map_err(|error| file_error(path, "delete", error))? {
            true => Ok(()),
            false => Err(basalt_fs::Error::NotFound { path: path.to_owned() }),
        }
    }

    async fn delete_directory(&self, path: &Path) -> basalt_fs::Result<()> {
        let whole = self.resolve_for(path, "delete")?;
        let deleted = self.name_node.delete(&whole, true).await;
        deleted.map(|_| ()).map_err(|error| file_error(path, "delete", error))
    }

    async fn sync_directory(&self, _path: &Path) -> basalt_fs::Result<()> {
        // The NameNode answers only once its edit log is durable.
        Ok(())
    }

    async fn seal(&self, path: &Path, _writer_boot_id: &str) -> basalt_fs::Result<Seal> {
        let fenced = self.fence(path, RecoveryMethod::TakeOverAndClose).await;
        let fenced = fenced.map_err(|error| file_error(path, "seal", error))?;
        info!(path = %path.display(), ?fenced, "a file is sealed");
        let Fenced { length, may_shrink, .. } = fenced;
        Ok(Seal { length, is_final: true, writer_gone: false, may_shrink })
    }

    fn failed_files_are_replaced(&self) -> bool {
        // After a failure a writer acknowledges nothing more: see `write::block`.
        true
    }

    fn own_node(&self) -> Option<NodeName> {
        self.nodes.own_address().map(NodeName::new)
    }

    async fn block_bytes(&self, path: &Path) -> basalt_fs::Result<Option<BTreeMap<NodeName, u64>>> {
        let whole = self.resolve_for(path, "look for the blocks of")?;
        let located = self.name_node.block_locations(&whole).await;
        let located = located.map_err(|error| file_error(path, "look for the blocks of", error))?;
        Ok(Some(bytes_by_node(&located)))
    }

    fn exclude_node(&self, node: &NodeName, suspicion: NodeSuspicion) {
        let known = self.nodes.known();
        let listed = known.nodes.iter().find(|listed| *transfer_address(listed) == *node.as_str());
        match (suspicion, listed) {
            (NodeSuspicion::Failed, Some(listed)) => self.health.failed_elsewhere(listed),
            // This process is alive, so its own machine is.
            _ if self.own_node().as_ref() == Some(node) => {}
            _ => self.health.suspect(node.as_str()),
        }
    }

    fn excluded_nodes(&self) -> Vec<(NodeName, NodeSuspicion)> {
        let failed = self.health.avoided().into_iter().map(|node| transfer_address(&node));
        let failed = failed.map(|node| (NodeName::new(node), NodeSuspicion::Failed));
        let suspected = self.health.suspected().into_iter();
        let suspected = suspected.map(|node| (NodeName::new(node), NodeSuspicion::MayBeGone));
        failed.chain(suspected).take(EXCLUDED_NODES_MAX).collect()
    }

    fn writer_tag(&self) -> String {
        let number = self.next_tag.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.name_node.client_name())
    }

    fn boot_id(&self) -> &str {
        BOOT_ID
    }
}

/// How many bytes of a file are on each DataNode. Blocks whose replicas are all corrupt do not
/// count.
fn bytes_by_node(located: &pb::LocatedBlocks) -> BTreeMap<NodeName, u64> {
    let mut bytes: BTreeMap<NodeName, u64> = BTreeMap::new();
    for block in located.blocks.iter().filter(|block| !block.corrupt) {
        for node in &block.locations {
            let on_node = bytes.entry(NodeName::new(transfer_address(node))).or_default();
            *on_node = on_node.saturating_add(block.block.bytes());
        }
    }
    bytes
}

fn directory_entry(status: &pb::FileStatus) -> DirectoryEntry {
    let is_directory = status.file_type() == pb::file_status::FileType::Directory;
    DirectoryEntry {
        name: String::from_utf8_lossy(&status.path).into_owned(),
        is_directory,
        length: if is_directory { 0 } else { status.length },
    }
}

/// The only place where errors of HDFS become those of the file system.
fn file_error(path: &Path, operation: &'static str, error: Error) -> basalt_fs::Error {
    let path = path.to_owned();
    let is = |class: &str| error.is_exception(class);
    if is("FileNotFoundException") || is("ParentNotDirectoryException") {
        basalt_fs::Error::NotFound { path }
    } else if is("FileAlreadyExistsException") {
        basalt_fs::Error::AlreadyExists { path }
    } else {
        basalt_fs::Error::Io { path, operation, source: io::Error::other(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RemoteException;

    #[test]
    fn the_bytes_of_a_file_are_counted_on_each_node_that_has_them() {
        let node = |port| {
            let id = pb::DatanodeId {
                ip_address: "10.0.0.1".to_owned(),
                transfer_port: port,
                ..Default::default()
            };
            pb::DatanodeInfo { id, ..Default::default() }
        };
        let block = |bytes, ports: &[u32], corrupt| pb::LocatedBlock {
            block: pb::ExtendedBlock { bytes: Some(bytes), ..Default::default() },
            locations: ports.iter().copied().map(node).collect(),
            corrupt,
            ..Default::default()
        };
        let blocks =
            vec![block(100, &[1, 2], false), block(30, &[2, 3], false), block(7, &[1], true)];
        let located = pb::LocatedBlocks { blocks, ..Default::default() };
        let bytes: Vec<_> =
            bytes_by_node(&located).into_iter().map(|(node, b)| (node.to_string(), b)).collect();
        let expected = [("10.0.0.1:1", 100), ("10.0.0.1:2", 130), ("10.0.0.1:3", 30)];
        assert_eq!(bytes, expected.map(|(node, bytes)| (node.to_owned(), bytes)));
        assert!(bytes_by_node(&pb::LocatedBlocks::default()).is_empty());
    }

    #[test]
    fn exceptions_become_the_errors_that_callers_ask_for() {
        let error = |class: &str| {
            let exception = RemoteException { class: class.into(), message: "why".into() };
            let error = Error::Remote { server: "nn:1".into(), method: "create", exception };
            file_error(Path::new("/a"), "create", error)
        };
        assert!(error("java.io.FileNotFoundException").is_not_found());
        let exists = error("org.apache.hadoop.fs.FileAlreadyExistsException");
        assert!(exists.is_already_exists());
        let other = error("org.apache.hadoop.security.AccessControlException");
        assert!(other.to_string().contains("nn:1") && other.to_string().contains("why"));
    }
}
