//! Writes the index of one sealed file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use basalt_failpoint::{Point, reached};
use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_model::EncodedRegionName;
use basalt_planted::{Rule, is_off};

use super::directory::{Directory, REGIONS_MAX, Unreadable};
use super::ranges::RangesBuilder;
use super::{PartDamage, PartSummary, SplitIndexSummary, index_path};
use crate::wal::edit::{RECORD_PREFIX_BYTES, RecordIdentity};
use crate::wal::error::{Defect, Error, Result};
use crate::wal::reader::{Found, Record, RecordReader};

/// The data gathered about one region; a few bytes for each of its edits.
struct PartBuilder {
    summary: PartSummary,
    ranges: RangesBuilder,
}

/// An index that exists for a sealed length, with its log.
pub(super) struct Existing {
    pub(super) directory: Directory,
    pub(super) index: Arc<dyn ReadFile>,
    pub(super) log: Arc<dyn ReadFile>,
}

/// Reads and checks the file `log` up to its `sealed_length`, and writes the index beside it.
///
/// If an index for this length exists, only its front is read. A damaged index is written again.
///
/// # Errors
/// [`Error::Corrupt`] if bytes of the log that had been durable are damaged and the region that
/// they belong to is unknown. If it is known, see [`PartSummary::damage`].
pub async fn write_split_index(
    files: &SharedFileSystem,
    log: &Path,
    sealed_length: u64,
) -> Result<SplitIndexSummary> {
    match open_existing(files, log, sealed_length).await? {
        Some(existing) => Ok(existing.directory.into_summary()),
        None => make_index(files, log, sealed_length).await,
    }
}

/// Does what [`write_split_index`] does if there is no index.
pub(super) async fn make_index(
    files: &SharedFileSystem,
    log: &Path,
    sealed_length: u64,
) -> Result<SplitIndexSummary> {
    let sealed_length = trusted_length(files, log, sealed_length).await?;
    let path = index_path(log);
    reached(Point::SplitBegun).await;
    let mut reader = RecordReader::open(files, log, sealed_length).await?;
    let builders = gather(&mut reader).await?;
    let end = reader.tail().map_or(sealed_length, |tail| tail.end);
    let parts: Vec<_> = builders.into_values().map(PartBuilder::finish).collect();
    if parts.len() as u64 > REGIONS_MAX {
        let (found, max) = (parts.len() as u64, REGIONS_MAX);
        let defect = Defect::Length { part: "directory", found, min: 0, max };
        return Err(Error::Corrupt { path, offset: 0, defect });
    }
    let index = Directory::encode((sealed_length, end, reader.file_checksum()), &parts);
    match files.write_whole(&path, index).await {
        // Another process was faster, and wrote the same bytes.
        Err(error) if error.is_already_exists() => {}
        written => written?,
    }
    reached(Point::SplitIndexed).await;
    Ok(SplitIndexSummary {
        sealed_length,
        end,
        parts: parts.into_iter().map(|(summary, _)| summary).collect(),
    })
}

async fn trusted_length(files: &SharedFileSystem, log: &Path, sealed_length: u64) -> Result<u64> {
    match is_off(Rule::CommittedLength) {
        true => Ok(files.open(log).await?.length()),
        false => Ok(sealed_length),
    }
}

/// Reads all records to the end.
async fn gather(reader: &mut RecordReader) -> Result<BTreeMap<EncodedRegionName, PartBuilder>> {
    let mut builders: BTreeMap<EncodedRegionName, PartBuilder> = BTreeMap::new();
    let mut damaged: BTreeMap<EncodedRegionName, PartDamage> = BTreeMap::new();
    let mut first_error = None;
    loop {
        match reader.next_found().await {
            Ok(None) => break,
            Ok(Some(Found::Record(record))) => {
                let identity = RecordIdentity::decode(&record.body)
                    .map_err(|defect| reader.corrupt(record.offset, defect))?;
                builders
                    .entry(identity.region)
                    .or_insert_with(|| PartBuilder::new(identity))
                    .add(identity, &record);
                if let Some(damage) = damaged.get_mut(&identity.region) {
                    damage.before.get_or_insert(identity.sequence_id);
                }
            }
            Ok(Some(Found::Damaged(record, error))) => {
                let Ok(identity) = RecordIdentity::decode(&record.body) else {
                    return Err(first_error.unwrap_or(error));
                };
                let new = PartDamage { offset: record.offset, before: None };
                damaged.entry(identity.region).or_insert(new).before = None;
                first_error.get_or_insert(error);
            }
            // Reports the first damage: everything before it is certain to be readable.
            Err(error) if error.is_corrupt() => return Err(first_error.unwrap_or(error)),
            Err(error) => return Err(error),
        }
    }
    for (region, damage) in damaged {
        match (builders.get_mut(&region), &first_error) {
            (Some(part), _) => part.summary.damage = Some(damage),
            (None, Some(error)) => return Err(error.clone()),
            (None, None) => {}
        }
    }
    Ok(builders)
}

/// Opens the existing index, if it is intact and belongs to this sealed length of the file in its
/// current state. Any other index is deleted.
pub(super) async fn open_existing(
    files: &SharedFileSystem,
    log: &Path,
    sealed_length: u64,
) -> Result<Option<Existing>> {
    let sealed_length = trusted_length(files, log, sealed_length).await?;
    let path = &index_path(log);
    let index = match files.open(path).await {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened?,
    };
    let (directory, log) = futures::future::join(Directory::read(&*index), files.open(log)).await;
    match directory {
        Err(Unreadable::Files(error)) => return Err(error.into()),
        Ok(directory) => {
            let log = log?;
            let length = log.length();
            if directory.sealed_length == sealed_length && directory.end <= length {
                return Ok(Some(Existing { directory, index, log }));
            }
            tracing::warn!(
                path = %path.display(),
                found = directory.sealed_length,
                expected = sealed_length,
                length,
                "a split index was made for another sealed length of its log; rebuilding it"
            );
        }
        Err(Unreadable::Damaged(defect)) => {
            let error = Error::Corrupt { path: path.to_owned(), offset: 0, defect };
            tracing::warn!(%error, "the split index of a log is damaged; rebuilding it");
        }
    }
    match files.delete_file(path).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(None),
    }
}

// === impl PartBuilder ===

impl PartBuilder {
    fn new(first: RecordIdentity) -> Self {
        let region: EncodedRegionName = first.region;
        Self {
            summary: PartSummary {
                region,
                epochs: first.epoch..=first.epoch,
                sequence_ids: first.sequence_id..=first.sequence_id,
                edits: 0,
                bytes: 0,
                damage: None,
            },
            ranges: RangesBuilder::default(),
        }
    }

    fn add(&mut self, identity: RecordIdentity, record: &Record) {
        let length = (RECORD_PREFIX_BYTES + record.body.len()) as u64;
        let PartSummary { epochs, sequence_ids, edits, bytes, .. } = &mut self.summary;
        *epochs = *epochs.start().min(&identity.epoch)..=*epochs.end().max(&identity.epoch);
        let id = identity.sequence_id;
        *sequence_ids = *sequence_ids.start().min(&id)..=*sequence_ids.end().max(&id);
        *edits += 1;
        *bytes += length;
        self.ranges.add(record.offset..record.offset + length);
    }

    fn finish(self) -> (PartSummary, Vec<u8>) {
        (self.summary, self.ranges.finish())
    }
}
