//! Tests of the log as a whole, and the files that they run on.

mod damage;
mod faulty_files;
mod full_disk;
mod measure;
mod random;
mod replaced_files;
mod split_index;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{Durability, FileSystem, MemoryFileSystem, SharedFileSystem};
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName};
use basalt_runtime::{Clock, SystemClock};

use super::{Edit, EncodedEdit, Nonce, Ticket, Wal, WalConfig, WalReader};
use crate::wal::folder::log_path;

fn server() -> ServerName {
    "rs-0.demo,16020,1700000000000".parse().unwrap()
}

fn log(number: u64) -> PathBuf {
    log_path(&server(), number)
}

fn region(number: u8) -> EncodedRegionName {
    EncodedRegionName::from_digest([number; 16])
}

async fn create(files: &SharedFileSystem, config: WalConfig) -> super::Result<Wal> {
    let clock = Clock::new(SystemClock);
    Wal::create(Arc::clone(files), &server(), "test cluster", config, clock).await
}

/// An edit whose cells identify it.
fn edit(number: u8, sequence_id: u64, value_bytes: usize) -> Edit {
    let sequence_id = SequenceId(sequence_id);
    let row = format!("row{sequence_id}");
    let value = vec![number ^ sequence_id.0 as u8; value_bytes];
    let cells = (0..1 + sequence_id.0 % 2).map(|column| {
        Cell::put(row.as_bytes(), b"f", &[column as u8], 7, &value)
            .unwrap()
            .with_sequence_id(sequence_id)
    });
    Edit {
        region: region(number),
        epoch: RegionEpoch(3 + sequence_id.0 / 10),
        sequence_id,
        write_time_ms: 1_700_000_000_000 + sequence_id.0,
        nonce: (sequence_id.0.is_multiple_of(3))
            .then_some(Nonce { group: 1, nonce: sequence_id.0 }),
        cells: cells.collect(),
    }
}

fn encode(edit: &Edit) -> EncodedEdit {
    EncodedEdit::new(edit.region, edit.epoch, edit.write_time_ms, edit.nonce, &edit.cells).unwrap()
}

async fn append(wal: &Wal, edit: &Edit) -> super::Result<Ticket> {
    let encoded = encode(edit);
    let permit = wal.reserve(encoded.record_bytes()).await?;
    Ok(permit.append(&encoded, edit.sequence_id, Durability::default()))
}

async fn append_synced(wal: &Wal, edit: &Edit) -> super::Result<()> {
    append(wal, edit).await?.synced().await
}

/// Lets the writer do everything that it can do now.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn length(files: &SharedFileSystem, path: &Path) -> u64 {
    files.open(path).await.unwrap().length()
}

async fn read_all(reader: &mut WalReader) -> super::Result<Vec<Edit>> {
    let mut edits = Vec::new();
    while let Some(edit) = reader.next().await? {
        edits.push(edit);
    }
    Ok(edits)
}

async fn read_log(files: &SharedFileSystem, number: u64) -> Vec<Edit> {
    let mut reader =
        WalReader::open(files, &log(number), length(files, &log(number)).await).await.unwrap();
    let edits = read_all(&mut reader).await.unwrap();
    assert_eq!(reader.tail().unwrap().torn_bytes, 0);
    edits
}

/// A disk with one file, which holds `bytes`.
async fn disk_with(bytes: &[u8]) -> SharedFileSystem {
    let disk = MemoryFileSystem::new();
    let contents = bytes::Bytes::copy_from_slice(bytes);
    disk.write_whole(Path::new("/log"), contents).await.unwrap();
    Arc::new(disk)
}
