//! Manifests: which store files a region consists of, and up to which edit they are complete.
//!
//! A manifest is written as a whole file named `<region epoch>-<number>`, which is never replaced.
//! The one with the highest name counts. Before an opener serves the region, it moves the newest
//! manifest to its own epoch, so anything that an earlier owner still flushes or compacts is never
//! seen. It does so by renaming: a server that takes over hundreds of regions creates no files for
//! this, and of two openers only one finds the file.
//!
//! ```text
//! magic "BASALTM1" | crc32c of the rest | protobuf message Manifest
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use basalt_fs::{Durability, SharedFileSystem};
use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId, TableName, paths};
use basalt_planted::{Rule, is_off};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::nonces::{NonceEntry, NonceFileEntry};

/// The first bytes of a manifest; the digit is the format's version.
const MAGIC: &[u8; 8] = b"BASALTM1";
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

/// One store file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileEntry {
    /// The file's name in its family's folder.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// The highest sequence id of its cells.
    pub highest: SequenceId,
    /// Whether a compaction of all files wrote it.
    pub major: bool,
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

/// The protobuf messages of the file.
mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Manifest {
        // Tags 1 and 2 were the epoch and the number, which are the file's name.
        #[prost(message, repeated, tag = "3")]
        pub(super) families: Vec<Family>,
        #[prost(uint64, tag = "4")]
        pub(super) flushed: u64,
        #[prost(uint64, tag = "5")]
        pub(super) highest: u64,
        #[prost(uint64, tag = "6")]
        pub(super) highest_timestamp_ms: u64,
        #[prost(message, repeated, tag = "7")]
        pub(super) nonces: Vec<crate::nonces::NonceMessage>,
        #[prost(message, repeated, tag = "8")]
        pub(super) nonce_files: Vec<NonceFile>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NonceFile {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) length: u64,
        #[prost(uint64, tag = "3")]
        pub(super) entries: u64,
        #[prost(uint64, tag = "4")]
        pub(super) oldest_ms: u64,
        #[prost(uint64, tag = "5")]
        pub(super) newest_ms: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Family {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) files: Vec<File>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct File {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) length: u64,
        #[prost(uint64, tag = "3")]
        pub(super) highest: u64,
        #[prost(bool, tag = "4")]
        pub(super) major: bool,
    }
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

    fn encode(&self) -> Bytes {
        let message = pb::Manifest {
            families: self.families.iter().map(encode_family).collect(),
            flushed: self.flushed.0,
            highest: self.highest.0,
            highest_timestamp_ms: self.highest_timestamp_ms,
            nonces: self.nonces.iter().map(Into::into).collect(),
            nonce_files: self.nonce_files.iter().map(encode_nonce_file).collect(),
        }
        .encode_to_vec();
        let mut bytes = BytesMut::with_capacity(MAGIC.len() + 4 + message.len());
        bytes.put_slice(MAGIC);
        bytes.put_u32(crc32c::crc32c(&message));
        bytes.put_slice(&message);
        bytes.freeze()
    }

    fn decode_file(
        contents: &[u8],
        epoch: RegionEpoch,
        number: u64,
        path: PathBuf,
    ) -> Result<Self, Error> {
        Self::decode(contents, epoch, number).map_err(|reason| Error::Damaged { path, reason })
    }

    fn decode(contents: &[u8], epoch: RegionEpoch, number: u64) -> Result<Self, String> {
        let rest = contents.strip_prefix(MAGIC).ok_or("it does not begin with BASALTM1")?;
        let (crc, message) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
        let (stored, computed) = (u32::from_be_bytes(*crc), crc32c::crc32c(message));
        if stored != computed {
            return Err(format!("its checksum is {computed:08x}, but {stored:08x} is stored"));
        }
        let message = pb::Manifest::decode(message).map_err(|error| error.to_string())?;
        let nonces = message.nonces.into_iter().map(NonceEntry::try_from);
        Ok(Self {
            epoch,
            number,
            families: message.families.into_iter().map(decode_family).collect(),
            flushed: SequenceId(message.flushed),
            highest: SequenceId(message.highest),
            highest_timestamp_ms: message.highest_timestamp_ms,
            nonce_files: message.nonce_files.into_iter().map(decode_nonce_file).collect(),
            nonces: nonces.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
        })
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

fn encode_family((name, files): (&String, &Vec<FileEntry>)) -> pb::Family {
    let files = files.iter().map(|file| pb::File {
        name: file.name.clone(),
        length: file.length,
        highest: file.highest.0,
        major: file.major,
    });
    pb::Family { name: name.clone(), files: files.collect() }
}

fn decode_family(family: pb::Family) -> (String, Vec<FileEntry>) {
    let files = family.files.into_iter().map(|file| FileEntry {
        name: file.name,
        length: file.length,
        highest: SequenceId(file.highest),
        major: file.major,
    });
    (family.name, files.collect())
}

fn encode_nonce_file(file: &NonceFileEntry) -> pb::NonceFile {
    let NonceFileEntry { name, length, entries, oldest_ms, newest_ms } = file.clone();
    pb::NonceFile { name, length, entries, oldest_ms, newest_ms }
}

fn decode_nonce_file(file: pb::NonceFile) -> NonceFileEntry {
    let pb::NonceFile { name, length, entries, oldest_ms, newest_ms } = file;
    NonceFileEntry { name, length, entries, oldest_ms, newest_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_fs::MemoryFileSystem;
    use std::sync::Arc;

    fn manifest(epoch: u64, number: u64) -> Manifest {
        let file =
            FileEntry { name: "0123".into(), length: 99, highest: SequenceId(7), major: epoch > 1 };
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
            flushed: SequenceId(7),
            highest: SequenceId(9),
            highest_timestamp_ms: 12,
            nonce_files: vec![nonce_file],
            nonces: Vec::new(),
        }
    }

    fn region() -> (SharedFileSystem, TableName, EncodedRegionName) {
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

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let whole = manifest(3, 1).encode();
        let decode = |contents: &[u8]| Manifest::decode(contents, RegionEpoch(3), 1);
        assert_eq!(decode(&whole).unwrap(), manifest(3, 1));
        for at in 0..whole.len() {
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err(), "flipped at {at}");
        }
    }
}
