//! The replica as openraft's state machine. The state is in memory. The log and an occasional
//! snapshot are on disk, and the entries after the snapshot are applied again after a start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::long_step;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::task::coop::consume_budget;

use crate::raft::snapshot_store::{SnapshotStore, StoreError};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership, StoredSnapshot, TypeConfig};
use crate::replica::Replica;
use crate::room::RoomWait;
use crate::tree::State;

/// The pause before a snapshot that did not fit on the disk is tried again: each attempt fills up
/// the disk.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);

/// Applies committed entries, and makes snapshots of the state.
#[derive(Clone)]
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    store: SnapshotStore,
}

// === impl StateMachine ===

impl StateMachine {
    /// The state machine of `replica`, with its snapshots in `store`.
    pub(crate) fn new(replica: Arc<Replica>, store: SnapshotStore) -> Self {
        Self { replica, store }
    }

    /// Saves a snapshot, and waits while the disk is full. Without the snapshot the log only grows,
    /// and it has space reserved. An error would end the member.
    async fn save(&self, meta: &SnapshotMeta, snapshot: &Bytes) -> io::Result<()> {
        let mut wait = RoomWait::new("a snapshot").with_pause(SNAPSHOT_PAUSE);
        loop {
            match self.store.save(meta, snapshot).await {
                Err(StoreError::File(error)) => {
                    wait.after(error).await.map_err(io::Error::other)?
                }
                saved => return saved.map_err(io::Error::other),
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.replica.applied_state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.replica.apply(entry);
            if let Some(responder) = responder {
                responder.send(());
            }
            // Thousands of entries may be ready at once, as after a start. Heartbeats must be sent
            // in between.
            consume_budget().await;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let state = long_step(|| State::decode(snapshot.clone())).map_err(io::Error::other)?;
        self.save(meta, &snapshot).await?;
        let membership = meta.last_membership.clone();
        long_step(|| self.replica.install(state, meta.last_log_id, membership));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StoredSnapshot>, io::Error> {
        self.store.newest().await.map_err(io::Error::other)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<StoredSnapshot, io::Error> {
        let (state, last_log_id, last_membership) = self.replica.freeze();
        let mut encoded = BytesMut::new();
        long_step(|| state.encode(&mut encoded)).map_err(io::Error::other)?;
        let nodes = state.node_count();
        long_step(|| drop(state));
        let meta = SnapshotMeta { last_log_id, last_membership };
        let snapshot = encoded.freeze();
        self.save(&meta, &snapshot).await?;
        tracing::info!(
            index = last_log_id.map(|last| last.index),
            bytes = snapshot.len(),
            nodes,
            "made a snapshot"
        );
        Ok(StoredSnapshot { meta, snapshot })
    }
}
