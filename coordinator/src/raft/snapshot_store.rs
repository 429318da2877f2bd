//! Snapshots on disk. Each is one file that is written as a whole.
//!
//! ```text
//! <folder>/snapshot-<index>-<term>
//! | crc32c of the rest u32 | SnapshotHeader with its length | the state's parts |
//! ```

use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_runtime::long_step;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::ensemble::{Ensemble, EnsembleId};
use crate::raft::types::{LogId, SnapshotMeta, StoredSnapshot, term};
use crate::wire::{
    log_id_from_wire, log_id_to_wire, stored_membership_from_wire, stored_membership_to_wire, v1,
};

/// The snapshots in a folder. Only the newest is kept.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    files: SharedFileSystem,
    folder: PathBuf,
    ensemble: Ensemble,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system failed.
    #[error(transparent)]
    File(#[from] basalt_fs::Error),
    /// The file differs from what was written.
    #[error(
        "{}: the snapshot is damaged: {problem}. If the other members are healthy, stop this \
         member, move its data folder away and start it with an empty one", .path.display()
    )]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The longest snapshot that is read.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

// === impl SnapshotStore ===

impl SnapshotStore {
    /// The snapshots in `folder`, which must exist.
    pub(crate) fn new(files: SharedFileSystem, folder: &Path, ensemble: Ensemble) -> Self {
        Self { files, folder: folder.to_owned(), ensemble }
    }

    /// Makes a snapshot durable, then deletes the older ones.
    pub(crate) async fn save(&self, meta: &SnapshotMeta, state: &Bytes) -> Result<(), StoreError> {
        let path = self.path(meta.last_log_id.as_ref());
        if !self.files.exists(&path).await? {
            let encoded = long_step(|| encode(meta, state, self.ensemble.id()));
            let contents = encoded.map_err(|error| StoreError::Damaged {
                path: path.clone(),
                problem: error.to_string(),
            })?;
            self.files.write_whole(&path, contents).await?;
        }
        for (_, older) in self.list().await? {
            if older < path {
                self.files.delete_file(&older).await?;
            }
        }
        Ok(())
    }

    /// The newest snapshot, if there is one.
    pub(crate) async fn newest(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        Ok(self.newest_of().await?.map(|(snapshot, _)| snapshot))
    }

    /// The newest snapshot, if there is one, and the ensemble that it names.
    pub(crate) async fn newest_of(&self) -> Result<Option<(StoredSnapshot, Bytes)>, StoreError> {
        let Some((_, path)) = self.list().await?.pop() else {
            return Ok(None);
        };
        let contents = self.files.read_whole(&path, SNAPSHOT_BYTES_MAX).await?;
        let decoded = long_step(|| decode(contents));
        decoded.map(Some).map_err(|problem| StoreError::Damaged { path, problem })
    }

    fn path(&self, last: Option<&LogId>) -> PathBuf {
        let (index, term) = last.map_or((0, 0), |last| (last.index, term(last)));
        self.folder.join(format!("snapshot-{index:020}-{term:020}"))
    }

    /// The snapshots with their names, oldest first.
    async fn list(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let mut snapshots: Vec<_> = self
            .files
            .list(&self.folder)
            .await?
            .into_iter()
            .filter(|entry| entry.name.starts_with("snapshot-"))
            .map(|entry| (entry.name.clone(), self.folder.join(entry.name)))
            .collect();
        snapshots.sort();
        Ok(snapshots)
    }
}

fn encode(
    meta: &SnapshotMeta,
    state: &Bytes,
    ensemble: Option<EnsembleId>,
) -> Result<Bytes, prost::EncodeError> {
    let header = v1::SnapshotHeader {
        last: meta.last_log_id.map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(&meta.last_membership)),
        ensemble: ensemble.map(EnsembleId::to_bytes).unwrap_or_default(),
    };
    let mut output = BytesMut::with_capacity(state.len() + header.encoded_len() + 16);
    output.put_u32(0);
    header.encode_length_delimited(&mut output)?;
    output.extend_from_slice(state);
    const CHECKSUM_BYTES: usize = 4;
    let checksum = crc32c::crc32c(output.get(CHECKSUM_BYTES..).unwrap_or_default());
    if let Some(place) = output.first_chunk_mut::<CHECKSUM_BYTES>() {
        *place = checksum.to_be_bytes();
    }
    Ok(output.freeze())
}

fn decode(mut contents: Bytes) -> Result<(StoredSnapshot, Bytes), String> {
    let checksum = contents.try_get_u32().map_err(|_| "it ends within its checksum".to_owned())?;
    if crc32c::crc32c(&contents) != checksum {
        return Err("its checksum does not match".to_owned());
    }
    let header = v1::SnapshotHeader::decode_length_delimited(&mut contents)
        .map_err(|error| error.to_string())?;
    let last_membership =
        stored_membership_from_wire(header.membership).map_err(|error| error.to_string())?;
    let meta = SnapshotMeta { last_log_id: header.last.map(log_id_from_wire), last_membership };
    Ok((StoredSnapshot { meta, snapshot: contents }, header.ensemble))
}
