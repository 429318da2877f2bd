//! Tests of flushes, compactions and reopening.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use basalt_fs::{
    DiskStep, Durability, FileSystem, MemoryFileSystem, RecordingFileSystem, SharedFileSystem,
};
use basalt_model::{
    CellKey, CellType, FamilyDescriptor, KeepDeletedCells, LATEST_TIMESTAMP, RegionEpoch,
    RegionInfo, SequenceId, paths,
};
use basalt_storage::manifest::{FileEntry, Manifest, Origin};
use basalt_storage::store_file::{FilePart, ScannerOptions};
use bytes::Bytes;

use crate::region::testing::{TestServer, cell, info, mutation, put, row_of, table};
use crate::region::{Error, Region, RowRead};

fn folder() -> PathBuf {
    paths::region(&info().table, info().encoded_name())
}

#[tokio::test(start_paused = true)]
async fn a_flush_moves_everything_into_files_that_the_next_opening_finds() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    put(&region, "b", "g:q", "2").await.unwrap();
    assert!(region.flush().await.unwrap() > 0);
    assert_eq!(region.memstore_bytes(), 0);
    assert_eq!(region.flush().await.unwrap(), 0, "nothing is left to flush");
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    let opened = server.open(2, Vec::new()).await;
    assert_eq!(opened.open_sequence_id, SequenceId(3));
    assert_eq!(row_of(&opened.region, "a").await, ["f:q=1"]);
    assert_eq!(row_of(&opened.region, "b").await, ["g:q=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_loses_nothing_and_is_taken_up_again() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    disk.delete_directory(&folder().join(".tmp")).await.unwrap();
    assert!(!region.needs_flush(), "it is small");
    region.flush().await.unwrap_err();
    assert!(region.needs_flush(), "whatever its size: its memstores may leave no room for edits");
    put(&region, "b", "f:q", "2").await.unwrap();
    for row in [("a", "f:q=1"), ("b", "f:q=2")] {
        assert_eq!(row_of(&region, row.0).await, [row.1]);
    }
    disk.create_directories(&folder().join(".tmp")).await.unwrap();
    region.flush().await.unwrap();
    assert!(region.memstore_bytes() > 0, "what came after the first attempt waits for the next");
    assert!(!region.needs_flush(), "it is small");
    region.flush().await.unwrap();
    assert_eq!(region.memstore_bytes(), 0);
    let region = server.region(2).await;
    for row in [("a", "f:q=1"), ("b", "f:q=2")] {
        assert_eq!(row_of(&region, row.0).await, [row.1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_manifest_is_not_written_shows_each_cell_once() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    let in_the_way = paths::manifest(&info().table, info().encoded_name(), RegionEpoch(1), 1);
    disk.write_whole(&in_the_way, Bytes::from_static(b"another's")).await.unwrap();
    let error = region.flush().await.unwrap_err();
    assert!(matches!(error, Error::Manifest(_)), "{error}");
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    disk.delete_file(&in_the_way).await.unwrap();
    region.flush().await.unwrap();
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    assert_eq!(region.view.load().families[&b"f"[..]].files.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_a_failed_flush_left_behind_is_in_nobodys_way() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    let manifests = folder().join(".manifest");
    disk.delete_directory(&manifests).await.unwrap();
    region.flush().await.unwrap_err();
    disk.create_directories(&manifests).await.unwrap();
    // As if the only failure had been the sync of its name.
    let left = paths::manifest(&info().table, info().encoded_name(), RegionEpoch(1), 1);
    disk.write_whole(&left, Bytes::from_static(b"of the failed flush")).await.unwrap();
    region.flush().await.unwrap();
    let region = server.region(2).await;
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
}

#[tokio::test(start_paused = true)]
async fn merging_all_files_drops_what_is_deleted_and_keeps_the_rest() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    for (row, value) in [("a", "1"), ("b", "2")] {
        put(&region, row, "f:q", value).await.unwrap();
        region.flush().await.unwrap();
    }
    let gone = cell("a", "f:q", CellType::DeleteColumn, i64::MAX, "");
    region.mutate(&[mutation("a", vec![gone])]).await.unwrap();
    region.flush().await.unwrap();
    let family = Bytes::from_static(b"f");
    let inputs = region.view.load().families[&family].files.clone();
    assert_eq!(inputs.len(), 3);
    region.merge(&family, &inputs, true).await.unwrap();
    let merged = region.view.load().families[&family].files.clone();
    assert_eq!(merged.len(), 1);
    let region = server.region(2).await;
    assert_eq!(row_of(&region, "a").await, [""; 0]);
    assert_eq!(row_of(&region, "b").await, ["f:q=2"]);
    assert_eq!(region.view.load().families[&family].files[0].path(), merged[0].path());
}

#[tokio::test(start_paused = true)]
async fn a_compaction_that_is_asked_for_writes_the_one_file_anew() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let mut short = table();
    let family = short.families.get_mut("f").unwrap();
    (family.time_to_live_s, family.keep_deleted_cells) = (Some(8), KeepDeletedCells::True);
    let region = server.region_of(1, short.clone()).await;
    let name = Bytes::from_static(b"f");
    let cells = async |region: &Region| {
        let snapshot = region.view.load_full();
        let files = snapshot.families[&name].files.iter();
        let mut cells = 0;
        for file in files {
            let mut scanner = file.scanner(ScannerOptions { cache_blocks: false });
            scanner.seek(&CellKey::before_row(b"")).await.unwrap();
            while scanner.next().await.unwrap().is_some() {
                cells += 1;
            }
        }
        cells
    };
    for value in ["1", "2"] {
        put(&region, "a", "f:q", value).await.unwrap();
    }
    let gone = cell("a", "f:q", CellType::DeleteColumn, LATEST_TIMESTAMP, "");
    region.mutate(&[mutation("a", vec![gone])]).await.unwrap();
    region.flush().await.unwrap();
    region.compact_family(&name, true).await.unwrap();
    assert_eq!(cells(&region).await, 3, "two versions and the delete live");
    assert!(region.view.load().families[&name].files[0].is_major_compaction());

    // The table no longer keeps deleted cells.
    let mut other = short.clone();
    other.families.get_mut("f").unwrap().keep_deleted_cells = KeepDeletedCells::False;
    put(&region, "b", "f:q", "1").await.unwrap();
    region.flush().await.unwrap();
    region.compact_family(&name, true).await.unwrap();
    let region = server.region_of(2, other).await;
    region.compact_family(&name, true).await.unwrap();
    assert_eq!(cells(&region).await, 1, "by what the table declares now");

    server.hand.move_by(Duration::from_secs(9));
    server.renew();
    region.compact_family(&name, true).await.unwrap();
    assert!(region.view.load().families[&name].files.is_empty(), "all have outlived their time");
    assert!(region.compact_family(&name, true).await.unwrap().is_empty(), "nothing to merge");
}

#[tokio::test(start_paused = true)]
async fn only_leftovers_of_lower_epochs_are_removed() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    server.region(1).await;
    for name in ["1-aa", "4-bb"] {
        let path = folder().join(".tmp").join(name);
        disk.write_whole(&path, Bytes::from_static(b"half")).await.unwrap();
    }
    let left = async || {
        let entries = disk.list(&folder().join(".tmp")).await.unwrap();
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    let flush_under = async |epoch| {
        let region = server.region(epoch).await;
        put(&region, "a", "f:q", "1").await.unwrap();
        region.flush().await.unwrap();
    };
    flush_under(3).await;
    assert_eq!(left().await, ["4-bb"], "a later owner may still be writing");
    flush_under(5).await;
    assert_eq!(left().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_store_file_in_the_archive_is_read_there_and_merged() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for row in ["a", "b"] {
        put(&region, row, "f:q", "1").await.unwrap();
        region.flush().await.unwrap();
    }
    let family = Bytes::from_static(b"f");
    let live = region.view.load().families[&family].files[0].path().to_owned();
    let archived = paths::archived(&live);
    disk.create_directories(archived.parent().unwrap()).await.unwrap();
    disk.rename(&live, &archived).await.unwrap();

    let region = server.region(2).await;
    let inputs = region.view.load().families[&family].files.clone();
    assert_eq!(inputs[0].path(), archived);
    for row in ["a", "b"] {
        assert_eq!(row_of(&region, row).await, ["f:q=1"]);
    }
    region.merge(&family, &inputs, true).await.unwrap();
    let region = server.region(3).await;
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    assert!(disk.exists(&archived).await.unwrap() && !disk.exists(&live).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_block_fails_a_merge_and_costs_only_its_own_rows() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for row in ["a", "b", "c"] {
        put(&region, row, "f:q", "1").await.unwrap();
        region.flush().await.unwrap();
    }
    let family = Bytes::from_static(b"f");
    let victim = region.view.load().families[&family].files[1].path().to_owned();
    let whole = disk.read_whole(&victim, u64::MAX).await.unwrap();
    let replace = async |contents: Bytes| {
        disk.delete_file(&victim).await.unwrap();
        disk.write_whole(&victim, contents).await.unwrap();
    };
    let mut damaged = whole.to_vec();
    damaged[40] ^= 1;
    replace(damaged.into()).await;

    let region = server.region(2).await;
    let inputs = region.view.load().families[&family].files.clone();
    let error = region.merge(&family, &inputs, true).await.unwrap_err().to_string();
    assert!(error.contains(&*victim.to_string_lossy()) && error.contains("at 0"), "{error}");
    assert_eq!(region.view.load().families[&family].files.len(), 3);
    assert!(region.get(b"b", &RowRead::all()).await.is_err(), "not absent: unreadable");
    for row in ["a", "c"] {
        assert_eq!(row_of(&region, row).await, ["f:q=1"]);
    }
    put(&region, "a", "f:q", "2").await.unwrap();
    region.flush().await.unwrap();

    replace(whole).await;
    let region = server.region(3).await;
    for (row, value) in [("a", "f:q=2"), ("b", "f:q=1"), ("c", "f:q=1")] {
        assert_eq!(row_of(&region, row).await[0], value);
    }
}

#[tokio::test(start_paused = true)]
async fn the_folder_of_a_new_family_is_synced_before_a_manifest_names_files_in_it() {
    let disk = RecordingFileSystem::default();
    let mut server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    server.shared.files = Arc::new(disk.clone());
    drop(server.region(1).await);
    let mut altered = table();
    altered.families.insert("h".to_owned(), FamilyDescriptor::new("h"));
    let region = server.region_of(2, altered).await;
    put(&region, "a", "h:q", "1").await.unwrap();
    region.flush().await.unwrap();
    let steps = disk.steps();
    let place = |is_it: &dyn Fn(&DiskStep) -> bool| steps.iter().rposition(is_it).unwrap();
    let is_manifest = |path: &PathBuf| path.starts_with(folder().join(".manifest"));
    let made = place(&|step| *step == DiskStep::CreateDirectories(folder().join("h")));
    let synced = place(&|step| *step == DiskStep::SyncDirectory(folder()));
    let named = place(&|step| matches!(step, DiskStep::Rename(_, to) if is_manifest(to)));
    assert!(made < synced && synced < named, "made {made}, synced {synced}, named {named}");
}

/// Replaces the only store file of family `f` in the manifest by these entries.
async fn rewrite_manifest(disk: &MemoryFileSystem, entries: impl Fn(FileEntry) -> Vec<FileEntry>) {
    let (table, region) = (info().table, info().encoded_name());
    let files: SharedFileSystem = Arc::new(disk.clone());
    let mut manifest = Manifest::read_newest(&files, &table, region).await.unwrap().unwrap();
    manifest.number += 1;
    let family = manifest.families.get_mut("f").unwrap();
    *family = entries(family.pop().unwrap());
    manifest.write(&files, &table, region, Durability::default()).await.unwrap();
}

fn part(start: &'static str, end: &'static str) -> FilePart {
    FilePart { start: Bytes::from(start), end: Bytes::from(end), sequence_id: None }
}

async fn server_with_one_file(disk: &MemoryFileSystem) -> TestServer {
    let server = TestServer::start(disk, 1).await;
    let region = server.region(1).await;
    for row in ["a", "b", "c", "d"] {
        put(&region, row, "f:q", "1").await.unwrap();
    }
    region.flush().await.unwrap();
    server
}

#[tokio::test(start_paused = true)]
async fn parts_of_another_regions_file_are_read_and_merged_and_the_file_stays() {
    let disk = MemoryFileSystem::new();
    let server = server_with_one_file(&disk).await;
    let other = RegionInfo { start_key: Bytes::from("other"), ..info() };
    let origin = Origin { table: other.table.clone(), region: other.encoded_name() };
    rewrite_manifest(&disk, |entry| {
        let of_other = |part| FileEntry { origin: Some(origin.clone()), part, ..entry.clone() };
        let imported = FilePart { sequence_id: Some(SequenceId(2)), ..part("c", "d") };
        vec![of_other(part("", "b")), of_other(imported), of_other(part("d", ""))]
    })
    .await;
    let name = &disk.list(&folder().join("f")).await.unwrap()[0].name;
    let there = paths::family(&other.table, other.encoded_name(), "f").join(name);
    disk.create_directories(there.parent().unwrap()).await.unwrap();
    disk.rename(&folder().join("f").join(name), &there).await.unwrap();

    let region = server.region(2).await;
    let check = async |region: &Region| {
        for (row, cells) in
            [("a", &["f:q=1"][..]), ("b", &[]), ("c", &["f:q=1"]), ("d", &["f:q=1"])]
        {
            assert_eq!(row_of(region, row).await, cells, "{row}");
        }
    };
    check(&region).await;
    let family = Bytes::from_static(b"f");
    let inputs = region.view.load().families[&family].files.clone();
    assert_eq!(inputs[1].max_cell_sequence_id(), SequenceId(2));
    region.merge(&family, &inputs[..2], false).await.unwrap();
    assert_eq!(region.view.load().families[&family].files.len(), 2, "the third part stays");
    assert!(region.no_longer_named("f", &folder().join("f"), &inputs).await.is_empty());
    for epoch in [3, 4] {
        let region = server.region(epoch).await;
        check(&region).await;
        let inputs = region.view.load().families[&family].files.clone();
        region.merge(&family, &inputs, true).await.unwrap();
    }
    let region = server.region(5).await;
    check(&region).await;
    assert_eq!(region.view.load().families[&family].files[0].part(), FilePart::default());
    assert!(disk.exists(&there).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_merged_file_of_which_another_part_is_named_is_not_archived() {
    let disk = MemoryFileSystem::new();
    let server = server_with_one_file(&disk).await;
    rewrite_manifest(&disk, |entry| {
        let of_own = |part| FileEntry { part, ..entry.clone() };
        vec![of_own(part("", "c")), of_own(part("c", ""))]
    })
    .await;
    let region = server.region(2).await;
    let family = Bytes::from_static(b"f");
    let inputs = region.view.load().families[&family].files.clone();
    let directory = folder().join("f");
    region.merge(&family, &inputs[..1], false).await.unwrap();
    assert!(region.no_longer_named("f", &directory, &inputs[..1]).await.is_empty());
    let inputs = region.view.load().families[&family].files.clone();
    region.merge(&family, &inputs, true).await.unwrap();
    assert_eq!(region.no_longer_named("f", &directory, &inputs).await.len(), 2);
    for row in ["a", "b", "c", "d"] {
        assert_eq!(row_of(&region, row).await, ["f:q=1"]);
    }
}
