//! Tests of edits and of what reads see of them.

use basalt_fs::{Durability, FileSystem, MemoryFileSystem};
use basalt_model::{Cell, CellType, LATEST_TIMESTAMP, TableDescriptor, paths};
use basalt_storage::read::TimeRange;
use basalt_storage::wal::{self, Nonce};
use bytes::Bytes;

use crate::region::testing::{
    TestServer, cell, mutation, put, put_of, range, row_of, shown, table, update_of,
};
use crate::region::{
    Condition, Error, Mutation, Region, RowRead, RowStep, RowUpdate, ScanRange, Update,
};

async fn increment(region: &Region, by: i64, nonce: Option<u64>) -> i64 {
    let nonce = nonce.map(|nonce| Nonce { group: 1, nonce });
    let increment = update_of("r", "f:n", Update::Increment, &by.to_be_bytes());
    let cells = region.update(&increment, nonce).await;
    i64::from_be_bytes(cells.unwrap()[0].value().try_into().unwrap())
}

async fn versions(region: &Region, row: &str, versions: u32) -> Vec<(i64, String)> {
    let read = RowRead { versions, ..RowRead::all() };
    let cells = region.get(row.as_bytes(), &read).await.unwrap();
    cells.iter().map(|cell| (cell.timestamp(), shown(cell))).collect()
}

async fn rows(region: &Region, range: ScanRange) -> Vec<String> {
    let mut scanner = region.scan(&RowRead::all(), range).await.unwrap();
    let mut rows = Vec::new();
    while let Some(row) = scanner.next_row().await.unwrap() {
        let mut cells = Vec::new();
        scanner.take_row(&mut cells).await.unwrap();
        if !cells.is_empty() {
            rows.push(String::from_utf8(row.to_vec()).unwrap());
        }
    }
    rows
}

fn equals(value: &'static str) -> Condition {
    Condition {
        row: Bytes::from_static(b"r"),
        read: RowRead::all(),
        holds: Box::new(move |cells: &[Cell]| {
            cells.first().is_some_and(|cell| cell.value() == value.as_bytes())
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn scans_go_both_ways_over_memory_and_files() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    for row in ["b", "d", "a"] {
        put(&region, row, "f:q", "old").await.unwrap();
    }
    region.flush().await.unwrap();
    for row in ["c", "b", "e"] {
        put(&region, row, "g:q", "new").await.unwrap();
    }
    assert_eq!(row_of(&region, "b").await, ["f:q=old", "g:q=new"]);
    assert_eq!(rows(&region, range("", false)).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(rows(&region, range("", true)).await, ["e", "d", "c", "b", "a"]);
    assert_eq!(rows(&region, range("c", true)).await, ["c", "b", "a"]);
    let excluded = ScanRange { include_start: false, ..range("b", false) };
    assert_eq!(rows(&region, excluded).await, ["c", "d", "e"]);
    let bounded = ScanRange { stop: Bytes::from_static(b"d"), ..range("b", false) };
    assert_eq!(rows(&region, bounded).await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_scan_sees_the_moment_at_which_it_began() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "old").await.unwrap();
    let mut scanner = region.scan(&RowRead::all(), range("", false)).await.unwrap();
    put(&region, "a", "f:q", "new").await.unwrap();
    region.flush().await.unwrap();
    put(&region, "b", "f:q", "new").await.unwrap();
    assert_eq!(scanner.next_row().await.unwrap().unwrap(), "a");
    let mut cells = Vec::new();
    scanner.take_row(&mut cells).await.unwrap();
    assert_eq!(cells.iter().map(shown).collect::<Vec<_>>(), ["f:q=old"]);
    assert_eq!(scanner.next_row().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn as_many_versions_are_kept_as_the_family_declares() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    for at in [1, 2, 3, 4] {
        let value = at.to_string();
        let cells = ["f:q", "g:q"].map(|column| cell("r", column, CellType::Put, at, &value));
        region.mutate(&[mutation("r", cells.to_vec())]).await.unwrap();
    }
    let expected = [(4, "f:q=4"), (3, "f:q=3"), (2, "f:q=2"), (4, "g:q=4")];
    let expected = expected.map(|(at, cell)| (at, cell.to_owned()));
    assert_eq!(versions(&region, "r", 9).await, expected);
    region.flush().await.unwrap();
    assert_eq!(versions(&region, "r", 9).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_family_may_have_a_time_range_of_its_own() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    for at in [1, 2] {
        let cells = ["f:q", "g:q"].map(|column| cell("r", column, CellType::Put, at, "v"));
        region.mutate(&[mutation("r", cells.to_vec())]).await.unwrap();
    }
    let first = TimeRange { from: 1, to: 2 };
    let family_time_ranges = [(Bytes::from_static(b"f"), first)].into();
    let read = RowRead { family_time_ranges, ..RowRead::all() };
    let cells = region.get(b"r", &read).await.unwrap();
    assert_eq!(cells.iter().map(Cell::timestamp).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_delete_hides_what_it_names() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    let fill = async || {
        for at in [1, 2, 3] {
            let cells = ["f:a", "f:b"].map(|column| cell("r", column, CellType::Put, at, "v"));
            region.mutate(&[mutation("r", cells.to_vec())]).await.unwrap();
        }
    };
    let left = async || {
        let cells = versions(&region, "r", 9).await;
        cells.into_iter().map(|(at, cell)| format!("{}{at}", &cell[2..3])).collect::<String>()
    };
    fill().await;
    let delete = |kind, at| mutation("r", vec![cell("r", "f:a", kind, at, "")]);
    region.mutate(&[delete(CellType::Delete, 2)]).await.unwrap();
    assert_eq!(left().await, "a3a1b3b2b1");
    region.mutate(&[delete(CellType::Delete, LATEST_TIMESTAMP)]).await.unwrap();
    assert_eq!(left().await, "a1b3b2b1", "the latest version");
    region.flush().await.unwrap();
    region.mutate(&[delete(CellType::DeleteColumn, LATEST_TIMESTAMP)]).await.unwrap();
    assert_eq!(left().await, "b3b2b1");
    let whole = |at| Mutation { delete_row: Some(at), ..mutation("r", Vec::new()) };
    region.mutate(&[whole(2)]).await.unwrap();
    assert_eq!(left().await, "b3");
    region.mutate(&[whole(LATEST_TIMESTAMP)]).await.unwrap();
    assert_eq!(left().await, "");
    put(&region, "r", "f:a", "again").await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:a=again"]);
}

#[tokio::test(start_paused = true)]
async fn an_increment_that_is_repeated_counts_once() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    assert_eq!(increment(&region, 5, None).await, 5);
    assert_eq!(increment(&region, 3, Some(1)).await, 8);
    assert_eq!(increment(&region, -1, Some(2)).await, 7);
    assert_eq!(increment(&region, 3, Some(1)).await, 8, "a repetition gets the first answer");
    region.flush().await.unwrap();
    assert_eq!(increment(&region, 3, Some(1)).await, 8, "after a flush as well");
    assert_eq!(increment(&region, 0, None).await, 7);
}

#[tokio::test(start_paused = true)]
async fn an_increment_of_what_is_no_long_is_refused() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "r", "f:n", "12").await.unwrap();
    let increment = update_of("r", "f:n", Update::Increment, &1_i64.to_be_bytes());
    let result = region.update(&increment, None).await;
    assert!(matches!(result, Err(Error::BadRequest(_))), "{result:?}");
    assert_eq!(row_of(&region, "r").await, ["f:n=12"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_extends_what_is_there() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    for (operand, expected) in [("ab", "f:q=ab"), ("c", "f:q=abc")] {
        let append = update_of("r", "f:q", Update::Append, operand.as_bytes());
        let cells = region.update(&append, None).await;
        assert_eq!(shown(&cells.unwrap()[0]), expected);
    }
    assert_eq!(row_of(&region, "r").await, ["f:q=abc"]);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_mutation_is_made_only_if_its_condition_holds() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "r", "f:a", "1").await.unwrap();
    let put = RowStep::Mutation(put_of("r", "f:b", "made"));
    let append = RowStep::Update(update_of("r", "f:a", Update::Append, b"!"));
    let steps = [put, append];
    let refused = region.check_and_mutate(&equals("2"), &steps, None).await.unwrap();
    assert!(!refused.processed);
    assert_eq!(row_of(&region, "r").await, ["f:a=1"]);
    let nonce = Some(Nonce { group: 1, nonce: 9 });
    for attempt in ["the first", "its repetition"] {
        let made = region.check_and_mutate(&equals("1"), &steps, nonce).await;
        let made = made.unwrap();
        assert!(made.processed, "{attempt}");
        assert_eq!(made.cells.iter().map(shown).collect::<Vec<_>>(), ["f:a=1!"], "{attempt}");
    }
    assert_eq!(row_of(&region, "r").await, ["f:a=1!", "f:b=made"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_among_the_mutations_of_another_row_is_refused() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    let row = Bytes::from_static(b"r");
    let put = RowStep::Mutation(put_of("r", "f:a", "1"));
    let append = RowStep::Update(update_of("s", "f:a", Update::Append, b"!"));
    let refused = region.mutate_row(&row, &[put, append], None).await;
    assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    assert!(rows(&region, range("", false)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_update_among_a_rows_mutations_keeps_to_its_time_range() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "r", "f:a", "old").await.unwrap();
    let none = TimeRange { from: 0, to: 1 };
    let append = RowUpdate { time_range: none, ..update_of("r", "f:a", Update::Append, b"alone") };
    let row = Bytes::from_static(b"r");
    region.mutate_row(&row, &[RowStep::Update(append)], None).await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:a=alone"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_outlasts_what_it_asks_for_or_its_table_whichever_is_more() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let logs = paths::server_logs(&server.name);
    let log = logs.join(&disk.list(&logs).await.unwrap()[0].name);
    let region = server.region(1).await;
    let put = |durability| Mutation { durability, ..put_of("r", "f:a", "1") };
    let append =
        |durability| RowUpdate { durability, ..update_of("r", "f:a", Update::Append, b"!") };
    use Durability::{OnDisk, Replicated};
    for batch in [&[Replicated][..], &[OnDisk], &[Replicated], &[OnDisk, Replicated]] {
        let mutations: Vec<_> = batch.iter().copied().map(put).collect();
        region.mutate(&mutations).await.unwrap();
        let most = batch.iter().copied().max().unwrap();
        assert_eq!(disk.durability(&log).unwrap(), most, "mutations as {batch:?}");
    }
    for durability in [Replicated, OnDisk] {
        region.update(&append(durability), None).await.unwrap();
        assert_eq!(disk.durability(&log).unwrap(), durability, "an update");
        let row = Bytes::from_static(b"r");
        let steps = [RowStep::Mutation(put(Replicated)), RowStep::Update(append(durability))];
        region.mutate_row(&row, &steps, None).await.unwrap();
        assert_eq!(disk.durability(&log).unwrap(), durability, "an update among mutations");
    }
    let mut on_disk = table();
    on_disk
        .settings
        .insert(TableDescriptor::DURABILITY.to_owned(), TableDescriptor::FSYNC_WAL.to_owned());
    let region = server.region_of(2, on_disk).await;
    region.mutate(&[put(Replicated)]).await.unwrap();
    assert_eq!(disk.durability(&log).unwrap(), OnDisk, "as the table says");
    region.flush().await.unwrap();
    let families = &region.view.load().families;
    let file = families[&b"f"[..]].files[0].path();
    assert_eq!(disk.durability(file).unwrap(), OnDisk, "the store file too");
}

#[tokio::test(start_paused = true)]
async fn a_conditional_put_that_is_repeated_says_again_that_it_was_made() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "r", "f:a", "1").await.unwrap();
    let steps = [RowStep::Mutation(put_of("r", "f:a", "2"))];
    let nonce = |nonce| Some(Nonce { group: 1, nonce });
    for (number, processed) in [(5, true), (5, true), (6, false)] {
        let made = region.check_and_mutate(&equals("1"), &steps, nonce(number)).await;
        assert_eq!(made.unwrap().processed, processed, "nonce {number}");
    }
    assert_eq!(row_of(&region, "r").await, ["f:a=2"]);
}

#[tokio::test(start_paused = true)]
async fn two_mutations_of_a_row_in_one_millisecond_are_two_versions() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "r", "f:q", "first").await.unwrap();
    put(&region, "r", "f:q", "second").await.unwrap();
    let cells = versions(&region, "r", 9).await;
    assert_eq!(
        cells.iter().map(|(_, cell)| &cell[..]).collect::<Vec<_>>(),
        ["f:q=second", "f:q=first"]
    );
    assert_eq!(cells[0].0, cells[1].0 + 1);
}

#[tokio::test(start_paused = true)]
async fn edits_outside_of_the_region_or_its_families_are_refused_whole() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    let wrong_row = region.mutate(&[put_of("a", "f:q", "v"), put_of("zz", "f:q", "v")]).await;
    assert!(matches!(wrong_row, Err(Error::WrongRegion { .. })), "{wrong_row:?}");
    let wrong_family = region.mutate(&[put_of("a", "f:q", "v"), put_of("b", "x:q", "v")]).await;
    assert!(matches!(wrong_family, Err(Error::NoSuchFamily { .. })), "{wrong_family:?}");
    assert!(rows(&region, range("", false)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_no_record_holds_is_the_fault_of_its_mutation() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    let value = "v".repeat(wal::RECORD_BYTES_MAX);
    let error = put(&region, "r", "f:q", &value).await.unwrap_err();
    assert!(matches!(error, Error::Wal(wal::Error::EditTooLong { .. })), "{error}");
    assert!(error.concerns_one_mutation());
    put(&region, "r", "f:q", "short").await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:q=short"]);
}

#[tokio::test(start_paused = true)]
async fn edits_are_refused_while_the_memstores_of_the_server_are_too_full() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    server.shared.memstores.measured(u64::MAX / 2);
    let refused = put(&region, "r", "f:q", "v").await;
    assert!(matches!(refused, Err(Error::ServerTooBusy { .. })), "{refused:?}");
    server.shared.memstores.measured(0);
    put(&region, "r", "f:q", "v").await.unwrap();
}
