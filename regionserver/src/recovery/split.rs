//! Splits sealed logs: each is read once and checked, and an index of its parts is written beside
//! it.

use std::sync::Arc;

use basalt_cluster::pb;
use basalt_fs::SharedFileSystem;
use basalt_model::ServerName;
use basalt_storage::wal::split_index;
use futures::StreamExt;
use tracing::{info, warn};

use super::replay::SealedLogs;

/// How many logs are read at a time.
const LOGS_AT_ONCE: usize = 2;

/// Splits `logs` of `server`. The result has an entry for every log: its contents, or why it could
/// not be read.
pub(crate) async fn split(
    files: SharedFileSystem,
    server: &ServerName,
    logs: Vec<pb::SealedLog>,
) -> Vec<pb::SplitLog> {
    let splits = logs.into_iter().map(|log| {
        let files = Arc::clone(&files);
        async move { split_one(&files, server, &log).await }
    });
    futures::stream::iter(splits).buffer_unordered(LOGS_AT_ONCE).collect().await
}

async fn split_one(
    files: &SharedFileSystem,
    server: &ServerName,
    log: &pb::SealedLog,
) -> pb::SplitLog {
    let path = SealedLogs::path(server, &log.name);
    match split_index::write_split_index(files, &path, log.sealed_length).await {
        Ok(summary) => {
            info!(
                log = log.name,
                sealed_length = log.sealed_length,
                regions = summary.parts.len(),
                "split"
            );
            for part in &summary.parts {
                if let Some(damage) = part.damage {
                    let (region, offset) = (part.region, damage.offset);
                    warn!(log = log.name, %region, offset, "an edit in a log is damaged");
                }
            }
            pb::SplitLog {
                name: log.name.clone(),
                failure: String::new(),
                bytes: summary.end,
                regions: summary.parts.iter().map(|part| part.region.digest().to_vec()).collect(),
            }
        }
        Err(error) => pb::SplitLog {
            name: log.name.clone(),
            failure: error.to_string(),
            ..pb::SplitLog::default()
        },
    }
}
