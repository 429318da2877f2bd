//! Tests of which of several writes of a column counts: within one mutation, and with timestamps
//! that clients choose. All results have been compared with Apache HBase 2.6.4.

use basalt_fs::MemoryFileSystem;
use basalt_model::{Cell, CellType, LATEST_TIMESTAMP};
use basalt_storage::read::Columns;
use bytes::Bytes;

use crate::region::testing::{
    TestServer, cell, mutation, put, put_of, range, row_of, shown, update_of,
};
use crate::region::{
    Condition, Error, Mutation, Region, RowRead, RowStep, RowUpdate, ScanRange, Update,
};

/// Ahead of the test server's clock.
const FUTURE: i64 = 1_000_000 + 60_000;

fn put_at(row: &str, at: i64, values: &[&str]) -> Mutation {
    let puts = values.iter().map(|value| cell(row, "f:q", CellType::Put, at, value));
    mutation(row, puts.collect())
}

fn delete_of(row: &str, kind: CellType, at: i64) -> Mutation {
    mutation(row, vec![cell(row, "f:q", kind, at, "")])
}

fn append(row: &str, value: &str) -> RowStep {
    RowStep::Update(update_of(row, "f:q", Update::Append, value.as_bytes()))
}

/// A condition on column `f:q`: it has `value`, or it is missing.
fn holds(row: &str, value: Option<&'static str>) -> Condition {
    let columns = Columns::Some([Bytes::from_static(b"q")].into());
    Condition {
        row: Bytes::copy_from_slice(row.as_bytes()),
        read: RowRead::of_family(Bytes::from_static(b"f"), columns),
        holds: Box::new(move |cells: &[Cell]| {
            cells.first().map(Cell::value) == value.map(str::as_bytes)
        }),
    }
}

async fn check(region: &Region, condition: &Condition, steps: &[RowStep]) -> bool {
    region.check_and_mutate(condition, steps, None).await.unwrap().processed
}

async fn mutate_row(region: &Region, row: &'static str, steps: &[RowStep]) -> Vec<String> {
    let cells = region.mutate_row(&Bytes::from_static(row.as_bytes()), steps, None).await;
    cells.unwrap().iter().map(shown).collect()
}

async fn region() -> (TestServer, std::sync::Arc<Region>) {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    (server, region)
}

#[tokio::test(start_paused = true)]
async fn the_later_of_two_puts_of_one_mutation_stays() {
    for values in [["a", "b"], ["b", "a"]] {
        let disk = MemoryFileSystem::new();
        let server = TestServer::start(&disk, 1).await;
        let region = server.region(1).await;
        for at in [LATEST_TIMESTAMP, 7] {
            let row = at.to_string();
            region.mutate(&[put_at(&row, at, &values)]).await.unwrap();
        }
        let [first, last] = values.map(|value| RowStep::Mutation(put_at("rm", 7, &[value])));
        mutate_row(&region, "rm", &[first, last]).await;
        let [first, last] = values.map(|value| RowStep::Mutation(put_of("cm", "f:q", value)));
        assert!(check(&region, &holds("cm", None), &[first, last]).await);
        let expected = [format!("f:q={}", values[1])];
        let rows = [LATEST_TIMESTAMP.to_string(), "7".into(), "rm".into(), "cm".into()];
        for row in &rows {
            assert_eq!(row_of(&region, row).await, expected, "{row} in memory");
        }
        // The same after a replay of its log ...
        let sealed = server.die().await;
        let server = TestServer::start(&disk, 2).await;
        let region = server.open(2, vec![sealed]).await.region;
        for row in &rows {
            assert_eq!(row_of(&region, row).await, expected, "{row} replayed");
        }
        // ... and from its store file.
        region.flush().await.unwrap();
        for row in &rows {
            assert_eq!(row_of(&region, row).await, expected, "{row} in a file");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mutations_of_a_row_are_made_in_their_order() {
    let (_server, region) = region().await;
    let put = |value| RowStep::Mutation(put_of("r", "f:q", value));
    // An append reads the values from before the mutation: both appends start from nothing, and the
    // last result stays.
    assert_eq!(mutate_row(&region, "r", &[append("r", "1"), append("r", "2")]).await.len(), 2);
    assert_eq!(row_of(&region, "r").await, ["f:q=2"]);
    let (_server, region) = self::region().await;
    mutate_row(&region, "r", &[append("r", "1"), put("b")]).await;
    assert_eq!(row_of(&region, "r").await, ["f:q=b"], "the put came last");
    let (_server, region) = self::region().await;
    mutate_row(&region, "r", &[put("b"), append("r", "1")]).await;
    assert_eq!(row_of(&region, "r").await, ["f:q=1"], "the append came last");
}

#[tokio::test(start_paused = true)]
async fn a_column_twice_in_one_append_is_extended_by_the_last() {
    let (_server, region) = region().await;
    put(&region, "r", "f:q", "x").await.unwrap();
    let mut update = update_of("r", "f:q", Update::Append, b"2");
    let mut first = update.changes[0].clone();
    first.operand = Bytes::from_static(b"9");
    update.changes.insert(0, first);
    let mut other = update.changes[0].clone();
    other.qualifier = Bytes::from_static(b"a");
    update.changes.push(other);
    let cells = region.update(&update, None).await.unwrap();
    assert!(cells.is_sorted_by_key(|cell| cell.qualifier().to_vec()), "clients search it");
    assert_eq!(row_of(&region, "r").await, ["f:a=9", "f:q=x2"]);
}

#[tokio::test(start_paused = true)]
async fn a_delete_hides_a_put_of_its_timestamp_whichever_comes_first() {
    for put_first in [false, true] {
        for kind in [CellType::Delete, CellType::DeleteColumn] {
            let (_server, region) = region().await;
            let mut steps = [
                RowStep::Mutation(put_at("r", 7, &["a"])),
                RowStep::Mutation(delete_of("r", kind, 7)),
            ];
            if !put_first {
                steps.reverse();
            }
            mutate_row(&region, "r", &steps).await;
            assert_eq!(row_of(&region, "r").await, [""; 0], "{kind:?} {put_first}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutation_deletes_as_many_of_the_latest_versions_as_it_names() {
    let (_server, region) = region().await;
    for (at, value) in [(1, "1"), (2, "2"), (3, "3")] {
        region.mutate(&[put_at("r", at, &[value])]).await.unwrap();
    }
    let latest = cell("r", "f:q", CellType::Delete, LATEST_TIMESTAMP, "");
    region.mutate(&[mutation("r", vec![latest.clone(), latest.clone()])]).await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:q=1"]);
    region.mutate(&[mutation("r", vec![latest.clone(), latest])]).await.unwrap();
    assert_eq!(row_of(&region, "r").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_mutation_that_was_made_is_seen() {
    let (_server, region) = region().await;
    let put = |row, value| [RowStep::Mutation(put_of(row, "f:q", value))];
    region.mutate(&[put_at("r", FUTURE, &["1"])]).await.unwrap();
    let is_one = holds("r", Some("1"));
    assert!(check(&region, &is_one, &put("r", "2")).await);
    assert!(!check(&region, &is_one, &put("r", "2")).await, "it is 2 now");
    assert_eq!(row_of(&region, "r").await, ["f:q=2"]);

    // A plain put is hidden, as in HBase.
    region.mutate(&[put_of("r", "f:q", "3")]).await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:q=2"]);

    // A lock, for example: it is released, taken, and not taken twice.
    let column = cell("r", "f:q", CellType::DeleteColumn, LATEST_TIMESTAMP, "");
    let delete = [RowStep::Mutation(mutation("r", vec![column]))];
    assert!(check(&region, &holds("r", Some("2")), &delete).await);
    assert_eq!(row_of(&region, "r").await, [""; 0]);
    assert!(check(&region, &holds("r", None), &put("r", "4")).await);
    assert_eq!(row_of(&region, "r").await, ["f:q=4"], "above the delete");
    assert!(!check(&region, &holds("r", None), &put("r", "5")).await);

    // The same holds when everything is in files.
    region.flush().await.unwrap();
    assert!(check(&region, &holds("r", Some("4")), &put("r", "6")).await);
    assert_eq!(row_of(&region, "r").await, ["f:q=6"]);
}

#[tokio::test(start_paused = true)]
async fn no_delete_of_a_later_time_hides_a_conditional_mutation() {
    let kinds = [CellType::Delete, CellType::DeleteColumn];
    for kind in kinds {
        let (_server, region) = region().await;
        region.mutate(&[delete_of("r", kind, 1_000_000), put_of("s", "f:q", "")]).await.unwrap();
        region.mutate(&[delete_of("r", kind, FUTURE)]).await.unwrap();
        let put = [RowStep::Mutation(put_of("r", "f:q", "v"))];
        assert!(check(&region, &holds("r", None), &put).await);
        assert_eq!(row_of(&region, "r").await, ["f:q=v"], "{kind:?}");
    }
    let (_server, region) = region().await;
    let row = Mutation { delete_row: Some(FUTURE), ..mutation("r", Vec::new()) };
    region.mutate(&[row]).await.unwrap();
    let steps = [append("r", "v"), RowStep::Mutation(put_of("r", "g:a", "w"))];
    assert!(check(&region, &holds("r", None), &steps).await);
    assert_eq!(row_of(&region, "r").await, ["f:q=v", "g:a=w"]);
    // Conditionally deleting the row deletes all of it.
    let row = Mutation { delete_row: Some(LATEST_TIMESTAMP), ..mutation("r", Vec::new()) };
    assert!(check(&region, &holds("r", Some("v")), &[RowStep::Mutation(row)]).await);
    assert_eq!(row_of(&region, "r").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_mutation_keeps_to_the_present_where_nothing_is_later() {
    let (_server, region) = region().await;
    region.mutate(&[put_at("other", FUTURE, &["1"])]).await.unwrap();
    region.mutate(&[delete_of("r", CellType::Delete, FUTURE)]).await.unwrap();
    let put = [RowStep::Mutation(put_of("r", "f:q", "v"))];
    assert!(check(&region, &holds("r", None), &put).await);
    let cells = region.get(b"r", &RowRead::all()).await.unwrap();
    assert!(cells[0].timestamp() < FUTURE, "{cells:?}");
}

#[tokio::test(start_paused = true)]
async fn an_increment_is_above_the_value_that_it_counts_on() {
    let (_server, region) = region().await;
    let one = 1_i64.to_be_bytes();
    let mut first = update_of("r", "f:q", Update::Increment, &one);
    first.changes[0].timestamp = 5;
    let cells = region.update(&first, None).await.unwrap();
    assert_eq!(cells[0].timestamp(), 5, "the client's, where there is no value yet");
    let mut ahead = update_of("s", "f:q", Update::Increment, &one);
    ahead.changes[0].timestamp = FUTURE;
    region.update(&ahead, None).await.unwrap();
    let cells = region.update(&ahead, None).await.unwrap();
    assert_eq!((cells[0].timestamp(), cells[0].value()), (FUTURE + 1, &2_i64.to_be_bytes()[..]));
    let mut append = update_of("t", "f:q", Update::Append, b"x");
    append.changes[0].timestamp = 5;
    assert_eq!(region.update(&append, None).await.unwrap()[0].timestamp(), 5);
    assert!(region.update(&append, None).await.unwrap()[0].timestamp() >= 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_negative_timestamp_is_refused() {
    let (_server, region) = region().await;
    let refused = |result: Result<(), Error>| match result {
        Err(Error::BadRequest(message)) => assert!(message.contains("-5"), "{message}"),
        other => panic!("{other:?}"),
    };
    refused(region.mutate(&[put_at("r", -5, &["v"])]).await);
    for kind in [CellType::Delete, CellType::DeleteColumn] {
        refused(region.mutate(&[delete_of("r", kind, -5)]).await);
    }
    let row = Mutation { delete_row: Some(-5), ..mutation("r", Vec::new()) };
    refused(region.mutate(&[row]).await);
    let mut update: RowUpdate = update_of("r", "f:q", Update::Append, b"v");
    update.changes[0].timestamp = -5;
    refused(region.update(&update, None).await.map(drop));
    let steps = [RowStep::Update(update)];
    let row = Bytes::from_static(b"r");
    refused(region.mutate_row(&row, &steps, None).await.map(drop));
    assert_eq!(row_of(&region, "r").await, [""; 0]);
    region.mutate(&[put_at("r", 0, &["v"])]).await.unwrap();
    assert_eq!(row_of(&region, "r").await, ["f:q=v"], "0 is a timestamp");
}

#[tokio::test(start_paused = true)]
async fn a_range_from_a_row_to_itself_has_that_row_only_if_both_ends_include_it() {
    let (_server, region) = region().await;
    for row in ["9", "a", "b"] {
        put(&region, row, "f:q", "v").await.unwrap();
    }
    for reversed in [false, true] {
        for (include_start, include_stop) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let stop = Bytes::from_static(b"a");
            let range = ScanRange { include_start, include_stop, stop, ..range("a", reversed) };
            let mut scanner = region.scan(&RowRead::all(), range).await.unwrap();
            let found = scanner.next_row().await.unwrap();
            let expected = (include_start && include_stop).then(|| Bytes::from_static(b"a"));
            assert_eq!(found, expected, "{include_start} {include_stop} reversed: {reversed}");
            if found.is_some() {
                assert_eq!(scanner.next_row().await.unwrap(), None);
            }
        }
    }
}
