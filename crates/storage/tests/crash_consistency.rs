//! The log, manifests and store files on a disk that loses power after every single step. Unsynced
//! data is lost, torn, left with holes, or kept.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use basalt_fs::{
    DiskStep, Durability, FileSystem, MemoryFileSystem, RecordingFileSystem, SharedFileSystem,
};
use basalt_model::{
    Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName, TableName, paths,
};
use basalt_runtime::{Clock, Random, SystemClock};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::manifest::{FileEntry, Manifest};
use basalt_storage::nonces::{Answer, NonceEntry, NonceFile, NonceFileEntry, NonceFileWriter};
use basalt_storage::store_file::{
    ScannerOptions, StoreFile, StoreFileMeta, StoreFileOptions, StoreFileWriter,
};
use basalt_storage::wal::{EncodedEdit, Nonce, Wal, WalConfig, WalReader};

/// The number of random disks to check for each step, besides the best and the worst one.
const CHANCES: u64 = 6;

/// The disks that power cuts leave, with the marks recorded before each.
fn wrecks(
    recording: &RecordingFileSystem,
) -> impl Iterator<Item = (String, Vec<u64>, MemoryFileSystem)> {
    let steps = recording.steps();
    (0..=steps.len()).flat_map(move |count| {
        let steps = steps[..count].to_vec();
        let marks: Vec<u64> = steps
            .iter()
            .filter_map(|step| if let DiskStep::Mark(mark) = step { Some(*mark) } else { None })
            .collect();
        (0..CHANCES + 2).map(move |chance| {
            let random = Random::from_seed(chance + 1_000 * count as u64);
            let disk = RecordingFileSystem::after_power_cut(&steps, |possible| match chance {
                0 => 0,
                1 => possible - 1,
                _ => random.in_range(0..possible),
            });
            (format!("after {count} steps, chance {chance}"), marks.clone(), disk)
        })
    })
}

fn server() -> ServerName {
    "rs-0.demo,16020,1700000000000".parse().unwrap()
}

fn region(number: u8) -> EncodedRegionName {
    EncodedRegionName::from_digest([number; 16])
}

fn table() -> TableName {
    "default:t".parse().unwrap()
}

fn cells(sequence_id: u64) -> Vec<Cell> {
    let row = format!("row{sequence_id:04}");
    // Some are longer than a sector.
    let value = vec![sequence_id as u8; 40 + 700 * usize::from(sequence_id.is_multiple_of(3))];
    let cell = Cell::put(row.as_bytes(), b"f", b"q", 7, &value).unwrap();
    vec![cell.with_sequence_id(SequenceId(sequence_id))]
}

async fn folder(recording: &RecordingFileSystem, path: &Path) {
    recording.create_directories(path).await.unwrap();
    for above in path.ancestors().skip(1) {
        recording.sync_directory(above).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_holds_what_was_acknowledged_and_nothing_by_halves() {
    let recording = RecordingFileSystem::new();
    folder(&recording, &paths::logs()).await;
    let files: SharedFileSystem = Arc::new(recording.clone());
    let config = WalConfig { roll_bytes: 3_000, ..WalConfig::default() };
    let clock = Clock::new(SystemClock);
    let wal = Wal::create(files, &server(), "test", config, clock).await.unwrap();
    let mut tickets = Vec::new();
    for id in 1..=24 {
        let edit = EncodedEdit::new(region((id % 2) as u8), RegionEpoch(3), 7, None, &cells(id));
        let edit = edit.unwrap();
        let permit = wal.reserve(edit.record_bytes()).await.unwrap();
        tickets.push((id, permit.append(&edit, SequenceId(id), Durability::default())));
        // Some edits share a batch.
        if id % 5 != 0 {
            for (id, ticket) in tickets.drain(..) {
                ticket.synced().await.unwrap();
                recording.mark(id);
            }
        }
    }
    wal.close().await.unwrap();
    let mut looked_at = 0;
    for (what, acknowledged, disk) in wrecks(&recording) {
        let found = read_log(&disk, &what).await;
        for id in acknowledged {
            assert_eq!(found.get(&id), Some(&cells(id)), "{what}: edit {id} was acknowledged");
        }
        for (id, found) in found {
            assert_eq!(found, cells(id), "{what}: edit {id} is not whole");
        }
        looked_at += 1;
    }
    assert!(looked_at > 500, "{looked_at} disks");
}

/// The cells of all edits in the log, by sequence id.
async fn read_log(disk: &MemoryFileSystem, what: &str) -> BTreeMap<u64, Vec<Cell>> {
    let files: SharedFileSystem = Arc::new(disk.clone());
    let mut found = BTreeMap::new();
    let folder = paths::server_logs(&server());
    let Ok(entries) = disk.list(&folder).await else { return found };
    for entry in entries {
        let path = folder.join(&entry.name);
        let opened = WalReader::open(&files, &path, entry.length).await;
        let mut reader = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        while let Some(edit) = reader.next().await.unwrap_or_else(|error| panic!("{what}: {error}"))
        {
            found.insert(edit.sequence_id.0, edit.cells);
        }
    }
    found
}

/// Flushes like a region: writes a store file and a nonce file under temporary names, moves them to
/// their places, then writes the manifest that names them. From time to time another owner takes
/// over.
#[tokio::test]
async fn a_manifest_names_whole_files_and_the_newest_one_is_found() {
    let recording = RecordingFileSystem::new();
    let files: SharedFileSystem = Arc::new(recording.clone());
    let (table, region) = (table(), region(1));
    let place = paths::region(&table, region);
    for below in [".tmp", ".manifest", ".nonces", "f"] {
        folder(&recording, &place.join(below)).await;
    }
    let mut manifest = Manifest { epoch: RegionEpoch(1), ..Manifest::default() };
    for round in 1..=6 {
        if round % 3 == 0 {
            let own = RegionEpoch(round);
            manifest = Manifest::take_over(&files, &table, region, own).await.unwrap().unwrap();
        }
        let name = format!("{round:032x}");
        let length = write_store_file(&files, &place, &name, round * 10).await;
        manifest.number += 1;
        manifest.flushed = SequenceId(round * 10);
        let highest = SequenceId(round * 10);
        let entry = FileEntry { name, length, highest, ..FileEntry::default() };
        manifest.families.entry("f".to_owned()).or_default().push(entry);
        manifest.nonce_files.push(write_nonce_file(&files, &place, round * 10).await);
        manifest.write(&files, &table, region, Durability::default()).await.unwrap();
        recording.mark(round * 10);
        manifest.remove_older(&files, &table, region).await.unwrap();
    }
    let mut looked_at = 0;
    for (what, marks, disk) in wrecks(&recording) {
        let files: SharedFileSystem = Arc::new(disk);
        let found = Manifest::take_over(&files, &table, region, RegionEpoch(99)).await;
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        let flushed = found.as_ref().map_or(0, |manifest| manifest.flushed.0);
        assert!(flushed >= marks.last().copied().unwrap_or(0), "{what}: flushed {flushed}");
        for entry in found.iter().flat_map(|manifest| manifest.families.values().flatten()) {
            read_store_file(&files, &place, entry, &what).await;
        }
        for entry in found.iter().flat_map(|manifest| &manifest.nonce_files) {
            read_nonce_file(&files, &place, entry, &what).await;
        }
        looked_at += 1;
    }
    assert!(looked_at > 500, "{looked_at} disks");
}

async fn write_store_file(files: &SharedFileSystem, place: &Path, name: &str, highest: u64) -> u64 {
    let aside = place.join(".tmp").join(name);
    let options = StoreFileOptions { block_bytes: 600, ..StoreFileOptions::default() };
    let mut writer = StoreFileWriter::create(files, &aside, options).await.unwrap();
    for id in highest - 9..=highest {
        for cell in cells(id) {
            writer.append(&cell).await.unwrap();
        }
    }
    let meta = StoreFileMeta { max_sequence_id: SequenceId(highest), is_major_compaction: false };
    let length = writer.finish(meta).await.unwrap().length;
    files.rename(&aside, &place.join("f").join(name)).await.unwrap();
    files.sync_directory(&place.join("f")).await.unwrap();
    length
}

async fn read_store_file(files: &SharedFileSystem, place: &Path, entry: &FileEntry, what: &str) {
    let path = place.join("f").join(&entry.name);
    let blocks = Arc::new(BlockCache::new(1 << 20));
    let file = StoreFile::open(files, &path, blocks).await;
    let file = file.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut scanner = file.scanner(ScannerOptions { cache_blocks: false });
    scanner.seek_to_first().await.unwrap();
    let mut found = Vec::new();
    while let Some(cell) = scanner.next().await.unwrap() {
        found.push(cell);
    }
    let highest = entry.highest.0;
    let written: Vec<Cell> = (highest - 9..=highest).flat_map(cells).collect();
    assert_eq!(found, written, "{what}: {}", entry.name);
}

fn nonces(highest: u64) -> Vec<NonceEntry> {
    let entry = |id| NonceEntry {
        nonce: Nonce { group: 1, nonce: id },
        sequence_id: SequenceId(id),
        at_ms: 5,
        answer: Answer::of(&cells(id)),
    };
    (highest - 9..=highest).map(entry).collect()
}

async fn write_nonce_file(files: &SharedFileSystem, place: &Path, highest: u64) -> NonceFileEntry {
    let name = format!("1-{highest:016x}");
    let (aside, folder) = (place.join(".tmp").join(&name), place.join(".nonces"));
    let writer = NonceFileWriter::create(files, &aside, 10, Durability::default()).await;
    let mut writer = writer.unwrap();
    for entry in nonces(highest) {
        writer.append(&entry).await.unwrap();
    }
    let entry = writer.finish(name).await.unwrap();
    files.rename(&aside, &folder.join(&entry.name)).await.unwrap();
    files.sync_directory(&folder).await.unwrap();
    entry
}

async fn read_nonce_file(
    files: &SharedFileSystem,
    place: &Path,
    entry: &NonceFileEntry,
    what: &str,
) {
    let file = NonceFile::new(files, &place.join(".nonces"), entry.clone());
    let highest = u64::from_str_radix(&entry.name[2..], 16).unwrap();
    for expected in nonces(highest) {
        let found = file.get(expected.nonce).await;
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(found, Some(expected), "{what}: {}", entry.name);
    }
}
