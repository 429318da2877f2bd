//! Manifests: which store files a region consists of, and up to which edit they are complete.
//!
//! A manifest is written as a whole file named `<region epoch>-<number>`, which is never replaced.
//! The one with the highest name counts. Before an opener serves the region, it moves the newest
//! manifest to its own epoch, so anything that an earlier owner still flushes or compacts is never
//! seen. It does so by renaming: a server that takes over hundreds of regions creates no files for
//! this, and of two openers only one finds the file.

mod format;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use basalt_fs::{Durability, SharedFileSystem};
use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId, TableName, paths};
use basalt_planted::{Rule, is_off};

use crate::nonces::{NonceEntry, NonceFileEntry};
use crate::store_file::FilePart;

/// The maximum length of a manifest in bytes. No longer one is written or read.
pub const LENGTH_MAX: u64 = 64 << 20;
/// How many older manifests of its own epoch an owner keeps besides the newest.
const KEPT_BEHIND: usize = 2;

/// The store files of a region and what they cover.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Manifest {
    /// The region epoch of the owner that wrote it.
    pub epoch: RegionEpoch,
    /// Its number among the manifests of this epoch.
    pub number: u64,
    /// The store files of each family, oldest first.
    pub families: BTreeMap<String, Vec<FileEntry>>,
    /// When families were added, for those that were added after their table was created.
    pub incarnations: BTreeMap<String, FamilyIncarnation>,
    /// All edits up to this one are in the store files.
    pub flushed: SequenceId,
    /// No edit had a higher sequence id when this was written.
    pub highest: SequenceId,
    /// The highest timestamp that the region has assigned, in milliseconds.
    pub highest_timestamp_ms: u64,
    /// Nonce files with the nonces whose edits are in the store files and that may still be
    /// retried, in the order of their flushes.
    pub nonce_files: Vec<NonceFileEntry>,
    /// More such nonces, from a release that had no nonce files. The next flush writes them to a
    /// nonce file.
    pub nonces: Vec<NonceEntry>,
}

/// When a family was added. A family that is removed and added again is another family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FamilyIncarnation {
    /// The number in the table's record.
    pub number: u64,
    /// The first epoch of the region whose edits belong to the family.
    pub since: RegionEpoch,
}

/// One store file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileEntry {
    /// The file's name in its family's folder.
    pub name: String,
    /// The region whose folder holds the file, if that is another region.
    pub origin: Option<Origin>,
    /// The part of the file that is read.
    pub part: FilePart,
    /// Its length in bytes.
    pub length: u64,
    /// The highest sequence id of its cells.
    pub highest: SequenceId,
    /// Whether a compaction of all files wrote it.
    pub major: bool,
}

/// A region whose folder holds a store file of another region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Its table.
    pub table: TableName,
    /// Its encoded name.
    pub region: EncodedRegionName,
}

/// Errors of manifests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system returned an error.
    #[error(transparent)]
    Files(#[from] basalt_fs::Error),
    /// A later owner has taken over the region.
    #[error("the region was taken over under epoch {}, later than {}", .found.0, .own.0)]
    TakenOver {
        /// The epoch of the newest manifest.
        found: RegionEpoch,
        /// The epoch under which the region was to be opened.
        own: RegionEpoch,
    },
    /// The newest manifest was replaced each time before it could be taken over or read.
    #[error(
        "{}: its newest manifest changed {attempts} times while it was read",
        .folder.display()
    )]
    Unsteady {
        /// The folder of the manifests.
        folder: PathBuf,
        /// How many attempts failed.
        attempts: usize,
    },
    /// The manifest lists so much that no reader would accept it.
    #[error("{}: the manifest has {length} bytes; at most {LENGTH_MAX} are read", .path.display())]
    TooLong {
        /// The file that was not written.
        path: PathBuf,
        /// The length that it would have, in bytes.
        length: u64,
    },
    /// The newest manifest is not what was written.
    #[error("{}: not a manifest: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

// === impl Manifest ===

impl Manifest {
    /// Renames the newest manifest of a region to the epoch `own`, durably, and reads it. `None` if
    /// the region never had one.
    ///
    /// # Errors
    /// [`Error::TakenOver`] if it has a later epoch, or [`Error::Damaged`] if the newest one is
    /// damaged. Older manifests are not tried, because they may lack store files.
    pub async fn take_over(
        files: &SharedFileSystem,
        table: &TableName,
        region: EncodedRegionName,
        own: RegionEpoch,
    ) -> Result<Option<Self>, Error> {
        let folder = &paths::manifests(table, region);
        Self::from_newest(files, folder, |epoch, number, name| async move {
            if epoch > own {
                return Err(Error::TakenOver { found: epoch, own });
            }
            let own = if is_off(Rule::RegionEpochInManifest) { epoch } else { own };
            let number = if epoch == own { number } else { 0 };
            let path = paths::manifest(table, region, own, number);
            if epoch < own {
                match files.rename(&folder.join(name), &path).await {
                    Err(error) if error.is_not_found() => return Ok(None),
                    renamed => renamed?,
                }
            }
            let durable = files.sync_directory(folder);
            let (contents, durable) =
                futures::future::join(files.read_whole(&path, LENGTH_MAX), durable).await;
            durable?;
            Self::decode_file(&contents?, own, number, path).map(Some)
        })
        .await
    }

    /// Reads the newest manifest of a region without renaming it to another epoch. `None` if the
    /// region has none.
    ///
    /// # Errors
    /// If the manifest is damaged, or the file system returns an error.
    pub async fn read_newest(
        files: &SharedFileSystem,
        table: &TableName,
        region: EncodedRegionName,
    ) -> Result<Option<Self>, Error> {
        let folder = &paths::manifests(table, region);
        Self::from_newest(files, folder, |epoch, number, name| async move {
            let path = folder.join(name);
            match files.read_whole(&path, LENGTH_MAX).await {
                Err(error) if error.is_not_found() => Ok(None),
                contents => Self::decode_file(&contents?, epoch, number, path).map(Some),
            }
        })
        .await
    }

    /// Calls `attempt` with the epoch, the number and the name of the newest manifest in `folder`,
    /// until it does not return `None`, which means that this manifest has been replaced or
    /// renamed: its owner replaces it with each flush, and another owner renames it.
    async fn from_newest<F>(
        files: &SharedFileSystem,
        folder: &Path,
        mut attempt: impl FnMut(RegionEpoch, u64, String) -> F,
    ) -> Result<Option<Self>, Error>
    where
        F: Future<Output = Result<Option<Self>, Error>>,
    {
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let Some((epoch, number, name)) = newest(files, folder).await? else {
                return Ok(None);
            };
            if let Some(manifest) = attempt(epoch, number, name).await? {
                return Ok(Some(manifest));
            }
        }
        Err(Error::Unsteady { folder: folder.to_owned(), attempts: ATTEMPTS })
    }

    /// Writes it. What it names must be whole and durable already.
    ///
    /// # Errors
    /// If a manifest of this name exists, because another process acts under the same epoch.
    /// [`Error::TooLong`]: nothing was written.
    pub async fn write(
        &self,
        files: &SharedFileSystem,
        table: &TableName,
        region: EncodedRegionName,
        durability: Durability,
    ) -> Result<(), Error> {
        let path = paths::manifest(table, region, self.epoch, self.number);
        let contents = self.encode();
        let length = contents.len() as u64;
        if length > LENGTH_MAX {
            return Err(Error::TooLong { path, length });
        }
        files.write_whole_as(&path, contents, durability).await?;
        Ok(())
    }

    /// Deletes older manifests that this one has replaced, except the last few. Manifests of later
    /// owners are kept.
    ///
    /// # Errors
    /// If the file system returns an error; the manifests that remain do no harm.
    pub async fn remove_older(
        &self,
        files: &SharedFileSystem,
        table: &TableName,
        region: EncodedRegionName,
    ) -> Result<(), Error> {
        let folder = paths::manifests(table, region);
        let own = paths::manifest(table, region, self.epoch, self.number);
        let own = own.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entries = files.list(&folder).await?;
        let older = entries.iter().filter(|entry| entry.name < own && !entry.name.starts_with('.'));
        for entry in older.rev().skip(KEPT_BEHIND) {
            match files.delete_file(&folder.join(&entry.name)).await {
                // A later owner has renamed it.
                Err(error) if error.is_not_found() => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    fn decode_file(
        contents: &[u8],
        epoch: RegionEpoch,
        number: u64,
        path: PathBuf,
    ) -> Result<Self, Error> {
        Self::decode(contents, epoch, number).map_err(|reason| Error::Damaged { path, reason })
    }
}

/// The epoch, the number and the name of the newest manifest in `folder`.
async fn newest(
    files: &SharedFileSystem,
    folder: &Path,
) -> Result<Option<(RegionEpoch, u64, String)>, Error> {
    let entries = match files.list(folder).await {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(newest) = entries.into_iter().rfind(|entry| !entry.name.starts_with('.')) else {
        return Ok(None);
    };
    let parsed = newest
        .name
        .split_once('-')
        .and_then(|(epoch, number)| Some((RegionEpoch(epoch.parse().ok()?), number.parse().ok()?)));
    match parsed {
        Some((epoch, number)) => Ok(Some((epoch, number, newest.name))),
        None => Err(Error::Damaged {
            path: folder.join(newest.name),
            reason: "its name is not <region epoch>-<number>".to_owned(),
        }),
    }
}

// === impl FileEntry ===

impl FileEntry {
    /// The path of the file while it is not archived, for the entry of a family in the manifest of
    /// a region.
    pub fn path(&self, table: &TableName, region: EncodedRegionName, family: &str) -> PathBuf {
        let folder = match &self.origin {
            Some(origin) => paths::family(&origin.table, origin.region, family),
            None => paths::family(table, region, family),
        };
        folder.join(&self.name)
    }

    /// Whether the region reads a whole file of its own.
    fn is_plain(&self) -> bool {
        self.origin.is_none() && self.part == FilePart::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_fs::MemoryFileSystem;
    use std::sync::Arc;

    pub(super) fn manifest(epoch: u64, number: u64) -> Manifest {
        let file = FileEntry {
            name: "0123".into(),
            length: 99,
            highest: SequenceId(7),
            major: epoch > 1,
            ..FileEntry::default()
        };
        let nonce_file = NonceFileEntry {
            name: "4567".into(),
            length: 98,
            entries: 3,
            oldest_ms: 10,
            newest_ms: 11,
        };
        Manifest {
            epoch: RegionEpoch(epoch),
            number,
            families: [("f".to_owned(), vec![file])].into(),
            incarnations: BTreeMap::new(),
            flushed: SequenceId(7),
            highest: SequenceId(9),
            highest_timestamp_ms: 12,
            nonce_files: vec![nonce_file],
            nonces: Vec::new(),
        }
    }

    pub(super) fn region() -> (SharedFileSystem, TableName, EncodedRegionName) {
        let name = EncodedRegionName::from_digest([1; 16]);
        (Arc::new(MemoryFileSystem::new()), "t".parse().unwrap(), name)
    }

    async fn write(files: &SharedFileSystem, manifest: &Manifest) -> Result<(), Error> {
        let (_, table, region) = region();
        files.create_directories(&paths::manifests(&table, region)).await.unwrap();
        manifest.write(files, &table, region, Durability::default()).await
    }

    async fn take_over(files: &SharedFileSystem, own: u64) -> Result<Option<Manifest>, Error> {
        let (_, table, region) = region();
        Manifest::take_over(files, &table, region, RegionEpoch(own)).await
    }

    #[tokio::test]
    async fn the_highest_epoch_wins_over_a_zombies_later_number() {
        let (files, ..) = region();
        assert_eq!(take_over(&files, 3).await.unwrap(), None);
        for written in [manifest(1, 0), manifest(2, 4), manifest(1, 17)] {
            write(&files, &written).await.unwrap();
        }
        let own = Manifest { epoch: RegionEpoch(3), number: 0, ..manifest(2, 4) };
        assert_eq!(take_over(&files, 3).await.unwrap(), Some(own.clone()));
        write(&files, &manifest(2, 5)).await.unwrap();
        assert_eq!(take_over(&files, 3).await.unwrap(), Some(own));
    }

    #[tokio::test]
    async fn who_has_been_passed_over_takes_nothing_over() {
        let (files, ..) = region();
        write(&files, &manifest(1, 3)).await.unwrap();
        take_over(&files, 3).await.unwrap();
        let error = take_over(&files, 2).await.unwrap_err();
        assert!(matches!(error, Error::TakenOver { found: RegionEpoch(3), .. }), "{error}");
    }

    #[tokio::test]
    async fn one_of_its_own_epoch_is_kept_as_it_is() {
        let (files, ..) = region();
        write(&files, &manifest(4, 6)).await.unwrap();
        assert_eq!(take_over(&files, 4).await.unwrap(), Some(manifest(4, 6)));
    }

    #[tokio::test]
    async fn a_manifest_is_never_replaced() {
        let (files, ..) = region();
        write(&files, &manifest(1, 0)).await.unwrap();
        assert!(write(&files, &manifest(1, 0)).await.is_err());
    }

    #[tokio::test]
    async fn older_manifests_go_and_later_owners_stay() {
        let (files, table, region) = region();
        for number in 0..6 {
            write(&files, &manifest(1, number)).await.unwrap();
        }
        write(&files, &manifest(2, 0)).await.unwrap();
        manifest(1, 5).remove_older(&files, &table, region).await.unwrap();
        let left = files.list(&paths::manifests(&table, region)).await.unwrap();
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(take_over(&files, 2).await.unwrap(), Some(manifest(2, 0)));
    }

    #[tokio::test]
    async fn what_is_written_is_as_long_as_what_is_read() {
        let (files, table, region) = region();
        let fixed = manifest(1, 0).encode().len() - "4567".len();
        let named = |length: u64, number| {
            let mut manifest = manifest(1, number);
            // This makes two length fields 3 bytes longer each.
            manifest.nonce_files[0].name = "n".repeat(length as usize - fixed - 6);
            assert_eq!(manifest.encode().len() as u64, length);
            manifest
        };
        let longest = named(LENGTH_MAX, 0);
        write(&files, &longest).await.unwrap();
        assert_eq!(take_over(&files, 1).await.unwrap(), Some(longest.clone()));
        let error = write(&files, &named(LENGTH_MAX + 1, 1)).await.unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
        assert_eq!(take_over(&files, 1).await.unwrap(), Some(longest), "nothing was written");
        let listed = files.list(&paths::manifests(&table, region)).await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
    }
}
