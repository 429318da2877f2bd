//! All operations against a running cluster: Apache HBase or Basalt.
//!
//! Run by hand, with the location of the cluster in the environment:
//! `BASALT_HBASE_ZK=host:port[,...]` (and `BASALT_HBASE_ROOT`, `/hbase` by default),
//! `BASALT_HBASE_BOOTSTRAP=host:port[,...]`, or both. Then run
//! `cargo test -p basalt-client --test cluster -- --ignored --nocapture`.
//! Each test runs once for each registry that is given.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::time::Duration;

use basalt_client::{
    Action, Append, CheckAndMutate, Columns, Comparison, Connection, ConnectionConfig, Delete,
    Error, Get, Increment, Outcome, Put, RegistryConfig, RowMutation, Scan, Table, TimeRange,
};
use basalt_hbase_rpc::ExceptionKind;
use basalt_model::{Compression, FamilyDescriptor, TableDescriptor, TableName};
use basalt_runtime::Seams;
use bytes::Bytes;

const F: &[u8] = b"f";
const REGIONS: u32 = 12;

fn registries() -> Vec<(&'static str, RegistryConfig)> {
    let list = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let mut registries = Vec::new();
    if let Some(servers) = list("BASALT_HBASE_ZK") {
        let root = std::env::var("BASALT_HBASE_ROOT").unwrap_or_else(|_| "/hbase".to_owned());
        registries.push(("zk", RegistryConfig::ZooKeeper { servers, root }));
    }
    if let Some(servers) = list("BASALT_HBASE_BOOTSTRAP") {
        registries.push(("rpc", RegistryConfig::Bootstrap { servers }));
    }
    assert!(!registries.is_empty(), "set BASALT_HBASE_ZK or BASALT_HBASE_BOOTSTRAP");
    registries
}

/// Runs `test` on a new table of [`REGIONS`] regions, split at `01`, `02` and so on.
async fn with_table<F: Future<Output = ()>>(name: &str, test: impl Fn(Connection, Table) -> F) {
    for (registry, config) in registries() {
        let connection = Connection::new(&Seams::system(), ConnectionConfig::new(config));
        let name: TableName = format!("basalt_client_{registry}_{name}").parse().unwrap();
        drop_table(&connection, &name).await;
        let family = FamilyDescriptor {
            versions_max: 3,
            compression: Compression::Gz,
            ..FamilyDescriptor::new("f")
        };
        let descriptor = TableDescriptor {
            name: name.clone(),
            families: [family, FamilyDescriptor::new("g")]
                .map(|family| (family.name.clone(), family))
                .into(),
            region_replication: 1,
            settings: [("OWNER".to_owned(), "basalt".to_owned())].into(),
        };
        let splits: Vec<_> = (1..REGIONS).map(|index| Bytes::from(format!("{index:02}"))).collect();
        connection.admin().create_table(&descriptor, &splits).await.unwrap();
        let table = connection.table(&name);
        test(connection.clone(), table).await;
        drop_table(&connection, &name).await;
        println!("{name}: passed");
    }
}

async fn drop_table(connection: &Connection, name: &TableName) {
    let admin = connection.admin();
    if !admin.table_exists(name).await.unwrap() {
        return;
    }
    if admin.is_enabled(name).await.unwrap() {
        admin.disable_table(name).await.unwrap();
    }
    admin.delete_table(name).await.unwrap();
}

/// Row `number` of region `number % REGIONS`.
fn row(number: u32) -> Bytes {
    Bytes::from(format!("{:02}-{number:06}", number % REGIONS))
}

async fn load(table: &Table, rows: u32) {
    let puts: Vec<_> = (0..rows)
        .map(|number| Action::Put(Put::new(row(number)).column(F, b"q", &number.to_be_bytes())))
        .collect();
    for result in table.batch(&puts).await {
        result.unwrap();
    }
}

fn kind(error: &Error) -> ExceptionKind {
    error.exception().unwrap_or_else(|| panic!("no exception: {error}")).kind()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn tables_are_made_listed_and_removed() {
    with_table("admin", |connection, table| async move {
        let (admin, name) = (connection.admin(), table.name().clone());
        assert!(!connection.cluster_id().await.unwrap().is_empty());
        assert!(admin.tables().await.unwrap().contains(&name));
        assert!(admin.is_enabled(&name).await.unwrap());
        let regions = admin.regions(&name).await.unwrap();
        assert_eq!(regions.len(), REGIONS as usize);
        assert!(regions.is_sorted_by_key(|location| location.region.start_key.clone()));
        let descriptor = admin.descriptor(&name).await.unwrap();
        let family = &descriptor.families["f"];
        assert_eq!((family.versions_max, family.compression), (3, Compression::Gz));
        assert_eq!(descriptor.settings["OWNER"], "basalt");
        let again = admin.create_table(&descriptor, &[]).await.unwrap_err();
        assert_eq!(kind(&again), ExceptionKind::TableExists);
        let enabled = admin.delete_table(&name).await.unwrap_err();
        assert_eq!(kind(&enabled), ExceptionKind::TableNotDisabled);
        admin.disable_table(&name).await.unwrap();
        assert!(!admin.is_enabled(&name).await.unwrap());
        admin.enable_table(&name).await.unwrap();
        assert!(admin.is_enabled(&name).await.unwrap());
        let cluster = admin.cluster().await.unwrap();
        assert!(cluster.master.is_some() && !cluster.live_servers.is_empty(), "{cluster:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn rows_are_written_read_and_deleted() {
    with_table("rows", |_, table| async move {
        let put = |timestamp, value: &str| {
            let put = Put::new("05x").column_at(F, b"q", timestamp, value.as_bytes());
            put.column_at(b"g", b"other", 1, b"o")
        };
        assert!(table.get(&Get::new("05x")).await.unwrap().is_empty());
        assert!(!table.exists(&Get::new("05x")).await.unwrap());
        for (timestamp, value) in [(10, "old"), (20, "middle"), (30, "new")] {
            table.put(&put(timestamp, value)).await.unwrap();
        }
        let row = table.get(&Get::new("05x")).await.unwrap();
        assert_eq!(row.value(F, b"q"), Some(&b"new"[..]));
        assert_eq!(row.cells.len(), 2);
        let get = Get { versions_max: 3, ..Get::new("05x").family(F) };
        assert_eq!(table.get(&get).await.unwrap().cells.len(), 3);
        let range = Some(TimeRange { from: 15, to: 30 });
        let get = Get { time_range: range, ..Get::new("05x").column(F, b"q") };
        assert_eq!(table.get(&get).await.unwrap().value(F, b"q"), Some(&b"middle"[..]));
        let get = Get { timeline: true, ..Get::new("05x") };
        assert_eq!(table.get(&get).await.unwrap().cells.len(), 2);
        assert!(table.exists(&Get::new("05x").column(b"g", b"other")).await.unwrap());
        assert!(!table.exists(&Get::new("05x").column(b"g", b"none")).await.unwrap());
        table.delete(&Delete::new("05x").version(F, b"q", 30)).await.unwrap();
        let row = table.get(&Get::new("05x")).await.unwrap();
        assert_eq!(row.value(F, b"q"), Some(&b"middle"[..]));
        table.delete(&Delete::new("05x").column(F, b"q")).await.unwrap();
        assert_eq!(table.get(&Get::new("05x")).await.unwrap().cells.len(), 1);
        table.delete(&Delete::new("05x")).await.unwrap();
        assert!(table.get(&Get::new("05x")).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn counters_appends_and_conditions() {
    with_table("atomic", |_, table| async move {
        let increment = Increment::new("07x").column(F, b"n", 5);
        for expected in [5_i64, 10] {
            let row = table.increment(&increment).await.unwrap();
            assert_eq!(row.value(F, b"n"), Some(&expected.to_be_bytes()[..]));
        }
        let append = Append::new("07x").column(F, b"a", b"ab");
        for expected in ["ab", "abab"] {
            let row = table.append(&append).await.unwrap();
            assert_eq!(row.value(F, b"a"), Some(expected.as_bytes()));
        }
        let check = |comparison, value: Option<&'static str>, mutation| CheckAndMutate {
            family: Bytes::from_static(F),
            qualifier: Bytes::from_static(b"a"),
            comparison,
            value: value.map(Bytes::from_static_str),
            mutation,
        };
        let put = |value: &str| RowMutation::Put(Put::new("07x").column(F, b"a", value.as_bytes()));
        let delete = RowMutation::Delete(Delete::new("07x").column(F, b"a"));
        for (check, done) in [
            (check(Comparison::Equal, Some("nonsense"), put("x")), false),
            (check(Comparison::Equal, Some("abab"), put("one")), true),
            (check(Comparison::NotEqual, Some("one"), put("x")), false),
            (check(Comparison::Less, Some("one"), put("x")), false),
            (check(Comparison::Greater, Some("two"), put("two")), true),
            (check(Comparison::Equal, None, put("x")), false),
            (check(Comparison::Equal, Some("two"), delete), true),
            (check(Comparison::Equal, None, put("back")), true),
        ] {
            assert_eq!(table.check_and_mutate(&check).await.unwrap(), done, "{check:?}");
        }
        let row = table.get(&Get::new("07x")).await.unwrap();
        assert_eq!(row.value(F, b"a"), Some(&b"back"[..]));
    })
    .await;
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn batches_cross_regions_and_fail_action_by_action() {
    with_table("batch", |_, table| async move {
        load(&table, 5000).await;
        let mut actions: Vec<_> =
            (0..200).map(|number| Action::Get(Get::new(row(number)))).collect();
        actions.push(Action::Increment(Increment::new(row(1)).column(F, b"n", 3)));
        actions.push(Action::Append(Append::new(row(2)).column(F, b"a", b"x")));
        actions.push(Action::Delete(Delete::new(row(3))));
        actions.push(Action::Put(Put::new(row(4)).column(b"nonsense", b"q", b"v")));
        actions.push(Action::Put(Put::new(row(5)).column(F, b"new", b"v")));
        let results = table.batch(&actions).await;
        assert_eq!(results.len(), actions.len());
        for (number, result) in (0..200_u32).zip(&results) {
            let found = result.as_ref().unwrap();
            assert_eq!(found.value(F, b"q"), Some(&number.to_be_bytes()[..]), "row {number}");
        }
        let counter = results[200].as_ref().unwrap();
        assert_eq!(counter.value(F, b"n"), Some(&3_i64.to_be_bytes()[..]));
        assert_eq!(results[201].as_ref().unwrap().value(F, b"a"), Some(&b"x"[..]));
        assert!(results[202].is_ok());
        let refused = results[203].as_ref().unwrap_err();
        assert_eq!(kind(refused), ExceptionKind::NoSuchColumnFamily);
        assert!(results[204].is_ok());
        assert!(table.get(&Get::new(row(3))).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn scans_cross_regions_both_ways() {
    with_table("scan", |_, table| async move {
        load(&table, 3000).await;
        let mut expected: Vec<_> = (0..3000).map(row).collect();
        expected.sort();
        let read = async |scan: Scan| -> Vec<Bytes> {
            let rows = table.scan(scan).rows().await.unwrap();
            rows.iter().map(|row| Bytes::copy_from_slice(row.row().unwrap())).collect()
        };
        assert_eq!(read(Scan::default()).await, expected);
        for rows_per_call in [1, 7, 100] {
            let scan = Scan { rows_per_call, rows_max: Some(300), ..Scan::default() };
            assert_eq!(read(scan).await, expected[..300]);
        }
        let small = Scan { bytes_max: 500, ..Scan::range("03", "05") };
        let range: Vec<_> = expected
            .iter()
            .filter(|row| row.starts_with(b"03") || row.starts_with(b"04"))
            .cloned()
            .collect();
        assert_eq!(read(small).await, range);
        let mut downwards = expected.clone();
        downwards.reverse();
        assert_eq!(read(Scan { reversed: true, ..Scan::default() }).await, downwards);
        let bounds = |include_start, include_stop, reversed| {
            let (low, high) = (expected[100].clone(), expected[900].clone());
            let (start, stop) = if reversed { (high, low) } else { (low, high) };
            Scan { include_start, include_stop, reversed, ..Scan::range(start, stop) }
        };
        assert_eq!(read(bounds(true, false, false)).await, expected[100..900]);
        assert_eq!(read(bounds(false, true, false)).await, expected[101..901]);
        let mut inner = expected[100..901].to_vec();
        inner.reverse();
        assert_eq!(read(bounds(true, true, true)).await, inner);
        assert_eq!(read(bounds(false, false, true)).await, inner[1..800]);
        let at_split = Scan { include_stop: true, ..Scan::range("02", "03") };
        assert!(read(at_split).await.iter().all(|row| row.starts_with(b"02")));
        let at_split = Scan { reversed: true, include_start: false, ..Scan::range("03", "02") };
        assert_eq!(read(at_split).await.len(), 250);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn a_large_row_comes_whole_and_scanners_are_kept_and_closed() {
    with_table("partial", |_, table| async move {
        for name in ["01a", "01b", "01c"] {
            let mut put = Put::new(name);
            for column in 0..300_u32 {
                put = put.column(F, &column.to_be_bytes(), &[7; 1000]);
            }
            table.put(&put).await.unwrap();
        }
        let mut columns = Columns::default();
        columns.add_family(F);
        let scan = Scan { bytes_max: 10_000, columns, ..Scan::default() };
        let mut scanner = table.scan(scan.clone());
        let first = scanner.next().await.unwrap().unwrap();
        assert_eq!((first.row(), first.cells.len()), (Some(&b"01a"[..]), 300));
        scanner.renew().await.unwrap();
        let second = scanner.next().await.unwrap().unwrap();
        assert_eq!((second.row(), second.cells.len()), (Some(&b"01b"[..]), 300));
        // Reopened after the last row.
        scanner.close().await;
        let third = scanner.next().await.unwrap().unwrap();
        assert_eq!((third.row(), third.cells.len()), (Some(&b"01c"[..]), 300));
        assert!(scanner.next().await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster; see the file's doc"]
async fn single_attempts_say_what_is_known() {
    with_table("attempts", |connection, table| async move {
        let wait = Duration::from_secs(2);
        let put = Put::new("03x").column(F, b"q", b"v");
        assert!(table.try_put(&put, wait).await.is_acked());
        let outcome = table.try_get(&Get::new("03x"), wait).await;
        assert!(matches!(outcome, Outcome::Acked(row) if !row.is_empty()));
        let wrong = Put::new("03x").column(b"nonsense", b"q", b"v");
        assert!(matches!(table.try_put(&wrong, wait).await, Outcome::Failed(_)));
        connection.admin().disable_table(table.name()).await.unwrap();
        assert!(matches!(table.try_put(&put, wait).await, Outcome::Failed(_)));
        connection.admin().enable_table(table.name()).await.unwrap();
        table.put(&put).await.unwrap();
        let unknown = connection.table(&"no_such_table".parse().unwrap());
        let outcome = unknown.try_put(&put, wait).await;
        assert!(matches!(outcome, Outcome::Failed(Error::TableNotFound { .. })), "{outcome:?}");
    })
    .await;
}

/// Writes to all regions while `BASALT_HBASE_FAULT` (a shell command that kills a server) runs, for
/// `BASALT_HBASE_FAULT_SECONDS` (30). No error may reach the program, no acknowledged write may be
/// lost, and each increment must count once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and a fault; see its doc"]
async fn a_fault_is_felt_as_a_pause_only() {
    let Ok(fault) = std::env::var("BASALT_HBASE_FAULT") else {
        println!("BASALT_HBASE_FAULT is not set: nothing to do");
        return;
    };
    let seconds =
        std::env::var("BASALT_HBASE_FAULT_SECONDS").map_or(30, |text| text.parse().unwrap());
    let fault = &fault;
    with_table("fault", |_, table| async move {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let streams: Vec<_> = (0..REGIONS)
            .map(|region| tokio::spawn(write_until(table.clone(), region, end)))
            .collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let status = std::process::Command::new("sh").args(["-c", fault]).status().unwrap();
        assert!(status.success(), "{fault}");
        for (region, stream) in (0..REGIONS).zip(streams) {
            let (writes, longest) = stream.await.unwrap();
            println!("region {region}: {writes} writes, the longest took {longest:?}");
            let count = table.get(&Get::new(row(region)).column(F, b"n")).await.unwrap();
            assert_eq!(count.value(F, b"n"), Some(&writes.to_be_bytes()[..]));
        }
    })
    .await;
}

async fn write_until(table: Table, region: u32, end: tokio::time::Instant) -> (i64, Duration) {
    let (mut writes, mut longest) = (0_i64, Duration::ZERO);
    while tokio::time::Instant::now() < end {
        let started = tokio::time::Instant::now();
        let put = Put::new(row(region)).column(F, b"q", &writes.to_be_bytes());
        table.put(&put).await.unwrap();
        let read = table.get(&Get::new(row(region)).column(F, b"q")).await.unwrap();
        assert_eq!(read.value(F, b"q"), Some(&writes.to_be_bytes()[..]));
        table.increment(&Increment::new(row(region)).column(F, b"n", 1)).await.unwrap();
        writes += 1;
        longest = longest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (writes, longest)
}
