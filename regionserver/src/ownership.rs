//! The coordinator's record of a region, as its owner writes it.
//!
//! Every write is conditional on the version that the owner knows, so the writes of a stale owner
//! fail.

use basalt_cluster::{Nodes, RegionRecord};
use basalt_model::{RegionState, SequenceId};
use basalt_zk::Client;
use basalt_zk::proto::ErrorCode;

use crate::record_writer::RecordWriter;
use crate::server::Server;

/// The record of a region that this server owns or is about to open.
pub(crate) struct Ownership {
    writer: RecordWriter,
    client: Client,
    nodes: Nodes,
    known: tokio::sync::Mutex<Known>,
}

struct Known {
    record: RegionRecord,
    version: i32,
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The record names another owner, or the region no longer exists.
    #[error("the region has been given to another owner")]
    StaleEpoch,
    /// The coordinator did not answer.
    #[error(transparent)]
    Coordinator(#[from] basalt_zk::Error),
    /// The record cannot be decoded.
    #[error(transparent)]
    Record(#[from] basalt_cluster::Error),
}

// === impl Ownership ===

impl Ownership {
    /// The ownership that `record` grants to this server.
    pub(crate) fn new(server: &Server, record: RegionRecord, version: i32) -> Self {
        Self {
            writer: server.records.clone(),
            client: server.client.clone(),
            nodes: server.nodes.clone(),
            known: tokio::sync::Mutex::new(Known { record, version }),
        }
    }

    /// Changes the state from OPENING to OPEN.
    pub(crate) async fn opened(&self, open_sequence_id: SequenceId) -> Result<(), Error> {
        self.write(|record| {
            let opening = record.state == RegionState::Opening;
            let state = RegionState::Open;
            opening.then(|| RegionRecord { state, open_sequence_id, ..record.clone() })
        })
        .await
    }

    /// Records that all edits of the sealed logs are now in store files.
    pub(crate) async fn flushed(&self) -> Result<(), Error> {
        if self.known.lock().await.record.unflushed.is_empty() {
            return Ok(());
        }
        self.write(|record| Some(RegionRecord { unflushed: Vec::new(), ..record.clone() })).await
    }

    /// Records that the region is closed and that no log is needed for it.
    pub(crate) async fn closed(&self) -> Result<(), Error> {
        self.write(|record| {
            let state = RegionState::Closed;
            Some(RegionRecord { state, unflushed: Vec::new(), ..record.clone() })
        })
        .await
    }

    /// Whether the coordinator's quorum still names this ownership.
    pub(crate) async fn is_still_ours(&self) -> Result<bool, Error> {
        let known = self.known.lock().await;
        let path = self.nodes.region(known.record.encoded_name());
        // A follower may lag behind, so it is synced before the read.
        self.client.sync(&path).await?;
        match self.client.find_data(&path).await? {
            Some((data, _)) => Ok(RegionRecord::decode(&data)?.epoch == known.record.epoch),
            None => Ok(false),
        }
    }

    /// Writes what `change` makes of the record. The master may have changed the record meanwhile
    /// without naming another owner (OPEN became CLOSING). In that case, `change` is applied to the
    /// new record, and the write fails if `change` returns `None`.
    async fn write(
        &self,
        change: impl Fn(&RegionRecord) -> Option<RegionRecord>,
    ) -> Result<(), Error> {
        /// The number of attempts; each fails because of a conflict or because there is no answer.
        const ATTEMPTS: usize = 5;
        let mut known = self.known.lock().await;
        let path = self.nodes.region(known.record.encoded_name());
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some(next) = change(&known.record) else { return Err(Error::StaleEpoch) };
            match self.writer.set_data(&path, next.encode(), known.version).await {
                Ok(stat) => {
                    *known = Known { record: next, version: stat.version };
                    return Ok(());
                }
                Err(error) if error.is_session_over() => return Err(error.into()),
                Err(error) => last = Some(error),
            }
            match self.client.get_data(&path).await {
                Ok((data, stat)) => {
                    let record = RegionRecord::decode(&data)?;
                    if record.epoch != known.record.epoch {
                        return Err(Error::StaleEpoch);
                    }
                    let written = record == next;
                    *known = Known { record, version: stat.version };
                    if written {
                        return Ok(());
                    }
                }
                Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                    return Err(Error::StaleEpoch);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(Error::StaleEpoch, Error::Coordinator))
    }
}
