//! Opens a member's folder when it starts: the log, the newest snapshot and the record of its
//! ensemble. Checks that they belong together.

use basalt_fs::SharedFileSystem;
use basalt_runtime::Seams;
use bytes::Bytes;

use crate::config::Config;
use crate::ensemble::{Ensemble, EnsembleId, Record, RecordStore};
use crate::error::Error;
use crate::raft::SnapshotStore;
use crate::raft::log::{self, Log, Writer};
use crate::raft::types::SnapshotMeta;
use crate::rejoin::Rejoin;
use crate::tree::State;

/// An open folder.
pub(crate) struct Opened {
    pub(crate) log: Log,
    /// Writes the log. The caller must run it.
    pub(crate) writer: Writer,
    /// The life of this member that begins with this start.
    pub(crate) life: u64,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) state: State,
    pub(crate) meta: SnapshotMeta,
    pub(crate) rejoin: Rejoin,
    pub(crate) ensemble: Ensemble,
    pub(crate) record: Record,
    pub(crate) records: RecordStore,
}

/// After a majority was lost for good, an operator puts a file of this name into the folder of the
/// member whose data becomes authoritative.
const ACCEPT_LOSS: &str = "accept-loss";

/// Opens the folder of the member of `config`. It must belong to that member.
///
/// # Errors
/// The folder cannot be read or written, is damaged, or its parts do not belong together.
pub(crate) async fn open(
    files: &SharedFileSystem,
    config: &Config,
    seams: &Seams,
) -> Result<Opened, Error> {
    let folder = &config.data;
    let (mut records, record) = RecordStore::open(files.clone(), folder).await?;
    let mut record = record.unwrap_or_else(|| Record::new(&seams.random));
    let opened = log::open(files.clone(), folder, seams.clock.wall_ms()).await?;
    let rejoin = Rejoin::open(files.clone(), folder).await?;
    // The ensemble is set once it is known.
    let unnamed = SnapshotStore::new(files.clone(), folder, Ensemble::new(None, false, false));
    let newest = unnamed.newest_of().await?;
    let has_data = newest.is_some() || !opened.log.is_empty();
    let (state, meta, named) = match newest {
        None => (State::new(), SnapshotMeta::default(), Bytes::new()),
        Some((snapshot, named)) => {
            let state = State::decode(snapshot.snapshot)
                .map_err(|error| Error::Snapshot { problem: error.to_string() })?;
            (state, snapshot.meta, named)
        }
    };
    let mut named = opened.ensembles.iter().chain([&named]).filter(|named| !named.is_empty());
    if let Some(unknown) = named.clone().find(|named| !record.knows(named)) {
        // The record is written before any file names the ensemble. So the record was lost, or it
        // comes from another folder.
        tracing::error!(ensemble = ?EnsembleId::from_bytes(unknown), record = ?record.ensemble);
        return Err(Error::MixedFolder { folder: folder.clone() });
    }
    if config.members.len() == 1 {
        // There is no other member to ask.
        rejoin.settle().await?;
    }
    if files.exists(&folder.join(ACCEPT_LOSS)).await? {
        if !has_data {
            return Err(Error::NothingLeft { folder: folder.clone() });
        }
        accept_loss(&mut record, &mut named, seams);
        rejoin.settle().await?;
    }
    record.incarnation = record.incarnation.saturating_add(1);
    records.save(&record).await?;
    if record.is_authority && files.exists(&folder.join(ACCEPT_LOSS)).await? {
        files.delete_file(&folder.join(ACCEPT_LOSS)).await?;
    }
    let ensemble = Ensemble::new(record.ensemble, has_data, record.is_strict);
    Ok(Opened {
        log: opened.log,
        writer: opened.writer,
        life: opened.life,
        snapshots: SnapshotStore::new(files.clone(), folder, ensemble.clone()),
        state,
        meta,
        rejoin,
        ensemble,
        record,
        records,
    })
}

/// Makes this folder's data authoritative, under the id of a new ensemble. A member that comes back
/// with the data that is given up can therefore not take part in it.
fn accept_loss<'a>(
    record: &mut Record,
    named: &mut impl Iterator<Item = &'a Bytes>,
    seams: &Seams,
) {
    let before = record.ensemble.take();
    record.earlier.extend(before);
    record.earlier.extend(named.filter_map(|named| EnsembleId::from_bytes(named)));
    record.earlier.dedup();
    record.ensemble = Some(EnsembleId::drawn(&seams.random));
    record.is_strict = true;
    record.is_authority = true;
    record.roll = Default::default();
    tracing::warn!(
        from = ?before, to = ?record.ensemble,
        "an operator has accepted the loss of the other members' data: this member's data is \
         authoritative"
    );
}
