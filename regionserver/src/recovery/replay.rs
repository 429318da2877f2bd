//! Replaying the part that a region has in the sealed logs of a dead server.
//!
//! An edit is taken in if it is not in the region's store files yet; taking it in twice changes
//! nothing. Replay writes nothing to our own log: until the next flush the sealed logs are still
//! needed, and the region's record goes on naming them.

use std::path::PathBuf;

use basalt_cluster::{Nodes, pb};
use basalt_model::{ServerName, paths};
use basalt_storage::wal::parts::{self, PartReader};
use prost::Message;

use crate::region::{Error, Region, Result};

/// The sealed logs of a dead server, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct SealedLogs {
    pub(crate) server: ServerName,
    pub(crate) logs: Vec<pb::SealedLog>,
}

// === impl SealedLogs ===

impl SealedLogs {
    /// Reads where the logs of `server` were cut.
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
        let record =
            pb::FencedRecord::decode(data).map_err(|error| unreadable(error.to_string()))?;
        let mut logs = record.logs;
        logs.sort_by_key(|log| log_number(&log.name));
        Ok(Self { server: server.clone(), logs })
    }

    /// Where a log lies.
    pub(crate) fn path(server: &ServerName, name: &str) -> PathBuf {
        paths::fenced_logs(server).join(name)
    }
}

/// Takes in what `region` has in `sealed`. Returns how many bytes were read.
pub(crate) async fn replay(region: &Region, sealed: &SealedLogs) -> Result<u64> {
    let flushed = region.flushed().await;
    let mut bytes = 0;
    for log in &sealed.logs {
        let path = SealedLogs::path(&sealed.server, &log.name);
        // The index is made by the split; a log whose split was lost is read now.
        parts::index_parts(region.files(), &path, log.cut).await?;
        let Some(part) = parts::read_part(region.files(), &path, region.encoded_name).await? else {
            continue;
        };
        part.check_whole_after(flushed)?;
        if *part.summary.sequence_ids.end() <= flushed {
            continue;
        }
        bytes += part.summary.bytes;
        let mut reader = PartReader::open(region.files(), part).await?;
        while let Some(edit) = reader.next().await? {
            region.replay_edit(edit, flushed);
        }
    }
    Ok(bytes)
}

/// The number at the end of a log's name.
fn log_number(name: &str) -> u64 {
    name.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
