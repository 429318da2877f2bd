//! Replays a region's part of the sealed logs of a dead server.
//!
//! An edit is replayed if it is not in the region's store files yet. Replaying it twice changes
//! nothing. Replay writes nothing to our own log, so until the next flush the sealed logs are still
//! needed, and the region's record keeps naming them.

use std::path::PathBuf;
use std::sync::Arc;

use basalt_cluster::{Nodes, pb, records};
use basalt_fs::SharedFileSystem;
use basalt_model::{ServerName, log_holds_edits, paths};
use basalt_planted::{Rule, is_off};
use basalt_storage::wal;
use basalt_storage::wal::split_index::{PartReader, SharedReads, SplitIndex};
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::region::{Error, Region, Result};

/// The sealed logs of a dead server, oldest first.
#[derive(Clone)]
pub(crate) struct SealedLogs {
    pub(crate) server: ServerName,
    logs: Vec<pb::SealedLog>,
    /// Opened for the first region that is replayed from them, and shared with the others.
    indexes: Arc<OnceCell<Vec<SplitIndex>>>,
}

// === impl SealedLogs ===

impl SealedLogs {
    /// The given sealed logs, without those that are too short to hold an edit.
    pub(crate) fn new(server: ServerName, mut logs: Vec<pb::SealedLog>) -> Self {
        logs.retain(|log| log_holds_edits(log.sealed_length));
        logs.sort_by_key(|log| log_number(&log.name));
        Self { server, logs, indexes: Arc::default() }
    }

    /// Reads the list of the sealed logs of `server` and their lengths.
    pub(crate) async fn read(
        client: &basalt_zk::Client,
        nodes: &Nodes,
        server: &ServerName,
    ) -> Result<Self> {
        let unreadable = |reason: String| Error::Replay { server: server.to_string(), reason };
        let (data, _) = client
            .get_data(&nodes.fenced_server(server))
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        Self::decode(server.clone(), data).map_err(|error| unreadable(error.to_string()))
    }

    /// The logs that the record of a fenced server names.
    pub(crate) fn decode(
        server: ServerName,
        data: Bytes,
    ) -> std::result::Result<Self, basalt_cluster::Error> {
        let record: pb::FencedRecord = records::decode("fenced", data)?;
        Ok(Self::new(server, record.logs))
    }

    /// The path of a log.
    pub(crate) fn path(server: &ServerName, name: &str) -> PathBuf {
        paths::fenced_logs(server).join(name)
    }

    async fn indexes(&self, files: &SharedFileSystem) -> wal::Result<&[SplitIndex]> {
        let open = async || {
            let mut indexes = Vec::with_capacity(self.logs.len());
            let shared = Arc::new(SharedReads::default());
            for log in &self.logs {
                let path = Self::path(&self.server, &log.name);
                // The split has usually written the index. If it has not, the log is read now.
                indexes
                    .push(SplitIndex::open_sealed(files, &path, log.sealed_length, &shared).await?);
            }
            Ok(indexes)
        };
        self.indexes.get_or_try_init(open).await.map(Vec::as_slice)
    }
}

/// Opens the indexes of all of `sealed`, for several servers at a time, for [`replay`] to use.
pub(crate) async fn look_up(files: &SharedFileSystem, sealed: &[SealedLogs]) -> wal::Result<()> {
    let looked_up = futures::future::join_all(sealed.iter().map(|logs| logs.indexes(files))).await;
    looked_up.into_iter().try_for_each(|indexes| indexes.map(drop))
}

/// Replays the part of `region` in `sealed`. Returns how many bytes were read.
pub(crate) async fn replay(region: &Region, sealed: &SealedLogs) -> Result<u64> {
    let limits = region.replay_limits().await;
    let mut bytes = 0;
    for index in sealed.indexes(region.files()).await? {
        let Some(part) = index.part(region.encoded_name).await? else { continue };
        part.check_whole_after(limits.flushed)?;
        let is_in_files = *part.summary.sequence_ids.end() <= limits.flushed;
        if is_in_files && !is_off(Rule::ReplaySequence) {
            continue;
        }
        bytes += part.summary.bytes;
        let mut reader = PartReader::new(part);
        while let Some(edit) = reader.next().await? {
            region.replay_edit(edit, &limits);
        }
    }
    Ok(bytes)
}

/// The number at the end of a log's name.
fn log_number(name: &str) -> u64 {
    name.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
