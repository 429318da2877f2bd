//! The file that records which ensemble a member belongs to, and what it remembers about the
//! others.
//!
//! ```text
//! <folder>/ensemble-<number>
//! | crc32c of the rest u32 | EnsembleRecord |
//! ```
//!
//! A new file is written as a whole, and then the earlier ones are deleted. If there are several,
//! the one with the highest number counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_runtime::Random;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::roll::Remembered;
use super::{EnsembleId, Nonce, Roll, Start};
use crate::error::Error;
use crate::room::RoomWait;
use crate::wire::v1;

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The ensemble that the folder belongs to, if any.
    pub(crate) ensemble: Option<EnsembleId>,
    /// Earlier ids, which its log may still name.
    pub(crate) earlier: Vec<EnsembleId>,
    /// The random number that was drawn when the folder was empty.
    pub(crate) nonce: Nonce,
    /// Rises with each start of the folder's member, and when it is readmitted.
    pub(crate) incarnation: u64,
    /// Whether every peer is known to send the id.
    pub(crate) is_strict: bool,
    /// Whether an operator has declared this member's data authoritative.
    pub(crate) is_authority: bool,
    /// What is remembered about the others.
    pub(crate) roll: Roll,
}

/// Reads and writes the record in a folder.
pub(crate) struct RecordStore {
    files: SharedFileSystem,
    folder: PathBuf,
    /// The number of the current file.
    number: u64,
}

const PREFIX: &str = "ensemble-";
const RECORD_BYTES_MAX: u64 = 64 << 10;

// === impl Record ===

impl Record {
    /// The record of a folder that has none yet.
    pub(crate) fn new(random: &Random) -> Self {
        let mut nonce = Nonce::default();
        random.fill(&mut nonce);
        Self {
            ensemble: None,
            earlier: Vec::new(),
            nonce,
            incarnation: 0,
            is_strict: false,
            is_authority: false,
            roll: Roll::default(),
        }
    }

    /// Whether a log or a snapshot that names `ensemble` belongs to this folder. One that names
    /// none, with `ensemble` empty, does.
    pub(crate) fn knows(&self, ensemble: &[u8]) -> bool {
        let mut known = self.ensemble.iter().chain(&self.earlier);
        ensemble.is_empty() || known.any(|known| known.is(ensemble))
    }

    fn encode(&self) -> Bytes {
        let peers = self.roll.peers.iter().map(|(member, remembered)| v1::PeerRecord {
            member: *member,
            incarnation: remembered.start.incarnation,
            life: remembered.start.life,
            entries: remembered.entries,
        });
        let message = v1::EnsembleRecord {
            ensemble: self.ensemble.map(EnsembleId::to_bytes).unwrap_or_default(),
            earlier: self.earlier.iter().map(|earlier| earlier.to_bytes()).collect(),
            nonce: Bytes::copy_from_slice(&self.nonce),
            incarnation: self.incarnation,
            strict: self.is_strict,
            authority: self.is_authority,
            peers: peers.collect(),
        };
        let encoded = message.encode_to_vec();
        let mut output = BytesMut::with_capacity(encoded.len() + 4);
        output.put_u32(crc32c::crc32c(&encoded));
        output.extend_from_slice(&encoded);
        output.freeze()
    }

    fn decode(mut contents: Bytes) -> Result<Self, String> {
        let checksum =
            contents.try_get_u32().map_err(|_| "it ends within its checksum".to_owned())?;
        if crc32c::crc32c(&contents) != checksum {
            return Err("its checksum does not match".to_owned());
        }
        let message = v1::EnsembleRecord::decode(contents).map_err(|error| error.to_string())?;
        let id = |bytes: &Bytes| {
            EnsembleId::from_bytes(bytes).ok_or("an id of the wrong length".to_owned())
        };
        let nonce = Nonce::try_from(message.nonce.as_ref());
        let peers = message.peers.into_iter().map(|peer| {
            let start = Start { incarnation: peer.incarnation, life: peer.life };
            (peer.member, Remembered { start, entries: peer.entries })
        });
        let ensemble = Some(message.ensemble).filter(|id| !id.is_empty());
        Ok(Self {
            ensemble: ensemble.as_ref().map(id).transpose()?,
            earlier: message.earlier.iter().map(id).collect::<Result<_, _>>()?,
            nonce: nonce.map_err(|_| "a nonce of the wrong length".to_owned())?,
            incarnation: message.incarnation,
            is_strict: message.strict,
            is_authority: message.authority,
            roll: Roll { peers: peers.collect::<BTreeMap<_, _>>() },
        })
    }
}

// === impl RecordStore ===

impl RecordStore {
    /// Opens the store in `folder`, which must exist, and reads the record, if there is one.
    ///
    /// # Errors
    /// The record cannot be read, or is damaged.
    pub(crate) async fn open(
        files: SharedFileSystem,
        folder: &Path,
    ) -> Result<(Self, Option<Record>), Error> {
        let mut store = Self { files, folder: folder.to_owned(), number: 0 };
        let Some(newest) = store.numbers().await?.pop() else {
            return Ok((store, None));
        };
        store.number = newest;
        let path = store.path(newest);
        let contents = store.files.read_whole(&path, RECORD_BYTES_MAX).await?;
        match Record::decode(contents) {
            Ok(record) => Ok((store, Some(record))),
            Err(problem) => Err(Error::EnsembleRecord { path, problem }),
        }
    }

    /// Replaces the record, and waits until the disk has room for it. It is durable when this
    /// returns.
    pub(crate) async fn save(&mut self, record: &Record) -> basalt_fs::Result<()> {
        let mut wait = RoomWait::new("the record of the ensemble");
        while let Err(error) = self.try_save(record).await {
            wait.after(error).await?;
        }
        Ok(())
    }

    /// Replaces the record, if the disk has room for it. It is durable when this returns.
    pub(crate) async fn try_save(&mut self, record: &Record) -> basalt_fs::Result<()> {
        let number = self.number + 1;
        self.files.write_whole(&self.path(number), record.encode()).await?;
        self.number = number;
        for older in self.numbers().await? {
            if older < number {
                self.files.delete_file(&self.path(older)).await?;
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{number:020}"))
    }

    /// The numbers of the existing files, in ascending order.
    async fn numbers(&self) -> basalt_fs::Result<Vec<u64>> {
        let entries = self.files.list(&self.folder).await?;
        let numbers = entries.iter().filter_map(|entry| entry.name.strip_prefix(PREFIX));
        let mut numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use basalt_fs::MemoryFileSystem;

    use super::*;
    use crate::tree::SECRET_BYTES;

    fn record() -> Record {
        let remembered = Remembered { start: Start { incarnation: 4, life: 99 }, entries: 12 };
        Record {
            ensemble: Some(EnsembleId::of_secret(&[1; SECRET_BYTES])),
            earlier: vec![EnsembleId::of_secret(&[2; SECRET_BYTES])],
            incarnation: 7,
            is_strict: true,
            is_authority: true,
            roll: Roll { peers: [(2, remembered)].into() },
            ..Record::new(&Random::from_seed(1))
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_damage_is_believed() {
        let written = record().encode();
        assert_eq!(Record::decode(written.clone()).unwrap(), record());
        for length in 0..written.len() {
            assert!(Record::decode(written.slice(..length)).is_err(), "{length}");
        }
        for place in 0..written.len() {
            let mut flipped = written.to_vec();
            flipped[place] ^= 4;
            assert!(Record::decode(flipped.into()).is_err(), "{place}");
        }
    }

    #[tokio::test]
    async fn the_newest_record_counts() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let folder = Path::new("/data");
        files.create_directories(folder).await.unwrap();
        let (mut store, none) = RecordStore::open(Arc::clone(&files), folder).await.unwrap();
        assert_eq!(none, None);
        for incarnation in 1..12 {
            store.save(&Record { incarnation, ..record() }).await.unwrap();
        }
        let (_, found) = RecordStore::open(Arc::clone(&files), folder).await.unwrap();
        assert_eq!(found.unwrap().incarnation, 11);
        assert_eq!(files.list(folder).await.unwrap().len(), 1);
    }

    #[test]
    fn a_log_of_another_ensemble_is_not_known() {
        let other = EnsembleId::of_secret(&[3; SECRET_BYTES]);
        assert!(record().knows(&[]) && record().knows(record().earlier[0].as_bytes()));
        assert!(!record().knows(other.as_bytes()));
    }
}
