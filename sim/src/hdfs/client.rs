//! One process's file system on the HDFS: its calls to the NameNode, and its knowledge about
//! DataNodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use basalt_fs::{
    AppendFile, DirectoryEntry, EXCLUDED_NODES_MAX, FileSystem, NodeName, NodeSuspicion, ReadFile,
    Result, Seal,
};
use basalt_runtime::Random;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::reader::HdfsRead;
use super::state::{Holder, NodeId, State, failed, in_memory};
use super::writer::{HdfsFile, Purpose};
use super::{CALL_DEADLINE, Hdfs, fence};
use crate::disk::DiskFaults;

/// A process's file system; a cheap handle.
#[derive(Clone)]
pub(crate) struct HdfsClient(Arc<Inner>);

struct Inner {
    hdfs: Hdfs,
    holder: Holder,
    random: Random,
    /// Pauses the process: its calls are sent and answered once it resumes.
    faults: DiskFaults,
    /// The DataNode on the same machine.
    own: Option<NodeId>,
    health: Mutex<Health>,
}

/// Until when each DataNode is avoided.
#[derive(Debug, Default)]
struct Health {
    failed: BTreeMap<NodeId, Instant>,
    suspected: BTreeMap<NodeId, Instant>,
}

/// The kind of a call to the NameNode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// Also answered in safe mode.
    Read,
    Change,
}

/// The one-way latency between a process and a server.
const WAY_US: std::ops::Range<u64> = 50..1_500;
/// The first pause before a call is repeated; it doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How long a DataNode that failed is avoided. A real client avoids it for ten times the socket
/// timeout, which is longer than a run.
pub(super) const AVOID_FOR: Duration = Duration::from_secs(2);
/// How long a starting process waits before it checks again whether the HDFS accepts writes.
const START_PAUSE: Duration = Duration::from_millis(500);
/// There is no kernel whose locks could prove anything.
const BOOT_ID: &str = "hdfs";

// === impl HdfsClient ===

impl HdfsClient {
    /// The file system of a process, for the current life of `writer`. `own` is the DataNode on its
    /// machine.
    pub(crate) fn new(
        hdfs: Hdfs,
        writer: u64,
        random: Random,
        faults: DiskFaults,
        own: Option<u64>,
    ) -> Self {
        let life = hdfs.state.lock().life(writer);
        let own = own.and_then(|own| NodeId::try_from(own).ok());
        let health = Mutex::default();
        let holder = (writer, life);
        Self(Arc::new(Inner { hdfs, holder, random, faults, own, health }))
    }

    /// Returns once a file can be written; a role waits for this before it starts.
    pub(crate) async fn until_it_takes_writes(&self) {
        loop {
            let path = Path::new("/").join(format!(".rehearsal-{}", self.writer_tag()));
            let written = async {
                let mut file = self.create_log(&path).await?;
                file.append_and_sync(Bytes::from_static(b"rehearsal")).await?;
                file.close().await
            };
            let written = written.await;
            // The file may not exist.
            let _deleted = self.delete_file(&path).await;
            if written.is_ok() {
                return;
            }
            sleep(START_PAUSE).await;
        }
    }

    pub(super) fn holder(&self) -> Holder {
        self.0.holder
    }

    pub(super) fn own(&self) -> Option<NodeId> {
        self.0.own
    }

    /// The current state of the HDFS.
    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.0.hdfs.now()
    }

    /// Waits for the one-way latency to a server.
    pub(super) async fn one_way(&self) {
        sleep(self.draw_way()).await;
        self.0.faults.thawed().await;
    }

    pub(super) fn draw_way(&self) -> Duration {
        Duration::from_micros(self.0.random.in_range(WAY_US))
    }

    /// Waits while the process is paused.
    pub(super) async fn thawed(&self) {
        self.0.faults.thawed().await;
    }

    /// Calls the NameNode until it has answered, or until the deadline of a call has passed. In the
    /// latter case the NameNode may have executed the call all the same.
    pub(super) async fn call<T>(
        &self,
        kind: Call,
        path: &Path,
        operation: &'static str,
        mut act: impl FnMut(&mut State) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + CALL_DEADLINE;
        let (mut pause, mut done) = (PAUSE_MIN, None);
        loop {
            self.one_way().await;
            let reason = {
                let mut state = self.state();
                state.check_alive(self.0.holder, path)?;
                if state.name_node.is_away {
                    "no answer from the NameNode"
                } else if done.is_none() && kind == Call::Change && state.is_in_safe_mode() {
                    "SafeModeException: the NameNode is in safe mode"
                } else {
                    // It does not repeat a call that it executed before its answer was lost.
                    let result = done.take().unwrap_or_else(|| act(&mut state));
                    self.0.hdfs.record_events(&mut state);
                    done = Some(result);
                    ""
                }
            };
            if reason.is_empty() {
                self.one_way().await;
                // The answer is lost if the NameNode has become unavailable meanwhile.
                let is_away = self.state().name_node.is_away;
                if let Some(result) = done.take_if(|_| !is_away) {
                    return result;
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(failed(path, operation, format!("{reason} within {CALL_DEADLINE:?}")));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    // DataNodes to avoid.

    /// Records that a DataNode did not do what it was asked.
    pub(super) fn node_failed(&self, node: NodeId) {
        self.0.health.lock().failed.insert(node, Instant::now() + AVOID_FOR);
    }

    /// The DataNodes that failed, and those whose machine may be gone.
    pub(super) fn avoided(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let now = Instant::now();
        let mut health = self.0.health.lock();
        let Health { failed, suspected } = &mut *health;
        for nodes in [&mut *failed, &mut *suspected] {
            nodes.retain(|_, until| *until > now);
        }
        (failed.keys().copied().collect(), suspected.keys().copied().collect())
    }

    fn name_of(&self, node: NodeId) -> Option<NodeName> {
        Some(self.state().nodes.get(node)?.name.clone())
    }
}

#[async_trait]
impl FileSystem for HdfsClient {
    async fn create(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        Ok(Box::new(HdfsFile::create(self, path, Purpose::Store).await?))
    }

    async fn create_log(&self, path: &Path) -> Result<Box<dyn AppendFile>> {
        Ok(Box::new(HdfsFile::create(self, path, Purpose::Log).await?))
    }

    async fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(HdfsRead::open(self, path).await?))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = |state: &mut State| in_memory(from, state.names.rename(from, to));
        self.call(Call::Change, from, "rename", rename).await
    }

    async fn create_directories(&self, path: &Path) -> Result<()> {
        let make = |state: &mut State| in_memory(path, state.names.create_directories(path));
        self.call(Call::Change, path, "make the folder", make).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        self.call(Call::Read, path, "list", |state| state.list(path)).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        let look = |state: &mut State| in_memory(path, state.names.exists(path));
        self.call(Call::Read, path, "look for", look).await
    }

    async fn delete_file(&self, path: &Path) -> Result<()> {
        self.call(Call::Change, path, "delete", |state| state.delete_file(path)).await
    }

    async fn delete_directory(&self, path: &Path) -> Result<()> {
        self.call(Call::Change, path, "delete", |state| state.delete_directory(path)).await
    }

    async fn sync_directory(&self, _path: &Path) -> Result<()> {
        // The NameNode answers once its edit log is durable.
        Ok(())
    }

    async fn seal(&self, path: &Path, _writer_boot_id: &str) -> Result<Seal> {
        let fence::Fenced { length, may_shrink, .. } = fence::fence(self, path).await?;
        Ok(Seal { length, is_final: true, writer_gone: false, may_shrink })
    }

    fn failed_files_are_replaced(&self) -> bool {
        true
    }

    fn own_node(&self) -> Option<NodeName> {
        self.name_of(self.0.own?)
    }

    async fn block_bytes(&self, path: &Path) -> Result<Option<BTreeMap<NodeName, u64>>> {
        let look = |state: &mut State| {
            let (_, file) = state.file_at(path)?;
            let (length, listed) = (file.closed.unwrap_or(file.recorded), file.listed.clone());
            let known = listed.into_iter().filter(|node| state.has_reported(*node));
            Ok(Some(known.map(|node| (state.nodes[node].name.clone(), length)).collect()))
        };
        self.call(Call::Read, path, "look for the blocks of", look).await
    }

    fn exclude_node(&self, node: &NodeName, suspicion: NodeSuspicion) {
        let until = Instant::now() + AVOID_FOR;
        let id = self.state().nodes.iter().position(|listed| listed.name == *node);
        let mut health = self.0.health.lock();
        match (suspicion, id) {
            (NodeSuspicion::Failed, Some(id)) => drop(health.failed.insert(id, until)),
            // This process is alive, so its own machine is too.
            (_, Some(id)) if self.0.own != Some(id) => drop(health.suspected.insert(id, until)),
            _ => {}
        }
    }

    fn excluded_nodes(&self) -> Vec<(NodeName, NodeSuspicion)> {
        let (failed, suspected) = self.avoided();
        let named = |nodes: Vec<NodeId>, suspicion| {
            nodes.into_iter().filter_map(move |node| Some((self.name_of(node)?, suspicion)))
        };
        let failed = named(failed, NodeSuspicion::Failed);
        failed.chain(named(suspected, NodeSuspicion::MayBeGone)).take(EXCLUDED_NODES_MAX).collect()
    }

    fn writer_tag(&self) -> String {
        let ((writer, life), number) = (self.0.holder, self.state().next_id());
        format!("{writer}-{life}-{number}")
    }

    fn boot_id(&self) -> &str {
        BOOT_ID
    }
}
