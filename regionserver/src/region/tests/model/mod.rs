//! Random histories of a region, compared with a model of HBase's rules after every step.
//!
//! A history declares two families at random. Then it writes, flushes, merges files, reopens the
//! region (in order or after a crash), lets time pass, and reads. The seed is fixed.
//! `MODEL_HISTORIES` sets the number of histories.

mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_fs::MemoryFileSystem;
use basalt_model::{Cell, CellType, LATEST_TIMESTAMP, TableDescriptor};
use basalt_reference::{ModelCell, ModelFamily, ModelRead, Rules};
use basalt_storage::read::{Columns, TimeRange};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::filter::RowFilter;
use crate::recovery::replay::SealedLogs;
use crate::region::testing::{TestServer, cell, mutation, update_of};
use crate::region::{Condition, Mutation, Region, RowRead, RowStep, ScanLimits, ScanRange, Update};
use histories::{
    BEGIN_MS, FAMILIES, FilterKind, HistoryStep, Kind, NUMBER, QUALIFIERS, ROWS, Read, Write,
    families, number, read, step, value_of,
};

const HISTORIES: u32 = 300;
/// A newly opened region assigns times above those of the owner before.
const AFTER_OPENING_MS: u64 = 100;

/// The region under test, and its expected contents according to the model.
struct Bench {
    disk: MemoryFileSystem,
    server: Option<TestServer>,
    region: Arc<Region>,
    table: TableDescriptor,
    families: [ModelFamily; 2],
    /// Logs of dead servers, with edits that are in no file yet.
    sealed: Vec<SealedLogs>,
    servers: u64,
    epoch: u64,
    edits: u64,
    now: i64,
}

// === impl Bench ===

impl Bench {
    async fn start(table: TableDescriptor) -> Self {
        let disk = MemoryFileSystem::new();
        let server = TestServer::start(&disk, 1).await;
        let region = server.region_of(1, table.clone()).await;
        Self {
            disk,
            server: Some(server),
            region,
            table,
            families: Default::default(),
            sealed: Vec::new(),
            servers: 1,
            epoch: 1,
            edits: 0,
            now: BEGIN_MS,
        }
    }

    fn server(&self) -> &TestServer {
        self.server.as_ref().unwrap()
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms as i64;
        self.server().hand.move_by(Duration::from_millis(ms));
        self.server().renew();
    }

    fn rules(&self, family: usize) -> Rules<'_> {
        Rules { family: &self.table.families[FAMILIES[family]], now: self.now }
    }

    fn name(family: usize) -> Bytes {
        Bytes::from_static(FAMILIES[family].as_bytes())
    }

    async fn take(&mut self, step: &HistoryStep) {
        match step {
            // Time passes so that the region assigns the clock's time.
            HistoryStep::Mutate(writes) => {
                self.pass(1);
                let row = ROWS[usize::from(writes[0].value) % ROWS.len()];
                let one = Self::mutation_of(row, writes);
                self.expect(row, std::slice::from_ref(&RowStep::Mutation(one.clone())), self.now);
                self.region.mutate(&[one]).await.unwrap();
            }
            HistoryStep::MutateRow(writes) => {
                self.pass(1);
                let row = ROWS[usize::from(writes[0].value) % ROWS.len()];
                let steps = Self::steps_of(row, writes);
                self.expect(row, &steps, self.now);
                let row = Bytes::from_static(row.as_bytes());
                self.region.mutate_row(&row, &steps, None).await.unwrap();
            }
            HistoryStep::Check { family, qualifier, holds, writes } => {
                self.pass(1);
                self.check(*family, QUALIFIERS[*qualifier], *holds, writes).await;
            }
            HistoryStep::Flush => self.flush().await,
            HistoryStep::Merge { family, first, count } => {
                self.merge(*family, *first, *count).await
            }
            HistoryStep::MergeAll { family } => {
                self.region.compact_family(&Self::name(*family), true).await.unwrap();
                let files = self.families[*family].files.len();
                if files > 0 {
                    let rules =
                        Rules { family: &self.table.families[FAMILIES[*family]], now: self.now };
                    self.families[*family].compact(rules, 0, files);
                }
            }
            HistoryStep::Reopen => {
                self.flush().await;
                self.epoch += 1;
                self.region = self.server().region_of(self.epoch, self.table.clone()).await;
                self.pass(AFTER_OPENING_MS);
            }
            HistoryStep::Crash => self.crash().await,
            HistoryStep::Pass { ms } => self.pass(*ms),
            HistoryStep::Read(read) => self.compare(read).await,
        }
    }

    async fn flush(&mut self) {
        self.region.flush().await.unwrap();
        self.sealed.clear();
        for (name, family) in FAMILIES.iter().zip(&mut self.families) {
            family.flush(Rules { family: &self.table.families[*name], now: self.now });
        }
    }

    async fn merge(&mut self, family: usize, first: usize, count: usize) {
        let name = Self::name(family);
        let files = self.region.view.load().families[&name].files.clone();
        if files.is_empty() {
            return;
        }
        let first = first % files.len();
        let end = (first + count).min(files.len());
        let all = first == 0 && end == files.len();
        self.region.merge(&name, &files[first..end], all).await.unwrap();
        let rules = Rules { family: &self.table.families[FAMILIES[family]], now: self.now };
        self.families[family].compact(rules, first, end);
    }

    async fn crash(&mut self) {
        self.sealed.push(self.server.take().unwrap().die().await);
        (self.servers, self.epoch) = (self.servers + 1, self.epoch + 1);
        let server = TestServer::start(&self.disk, self.servers).await;
        let ms = (self.now - BEGIN_MS).unsigned_abs();
        server.hand.move_by(Duration::from_millis(ms));
        server.renew();
        self.server = Some(server);
        let (sealed, table) = (self.sealed.clone(), self.table.clone());
        self.region = self.server().open_as(self.epoch, sealed, table).await.region;
        self.pass(AFTER_OPENING_MS);
    }

    async fn check(&mut self, family: usize, qualifier: &str, holds: bool, writes: &[Write]) {
        let row = ROWS[usize::from(writes[0].value) % ROWS.len()];
        let steps = Self::steps_of(row, writes);
        let present = self.newest(row, family, qualifier, 1).pop().map(|cell| cell.value);
        let expected = if holds { present } else { Some(b"something else".to_vec()) };
        if holds {
            let latest = self.latest(row, &steps);
            self.expect(row, &steps, latest);
        }
        let column = Bytes::copy_from_slice(qualifier.as_bytes());
        let condition = Condition {
            row: Bytes::from_static(row.as_bytes()),
            read: RowRead::of_family(Self::name(family), Columns::Some([column].into())),
            holds: Box::new(move |cells: &[Cell]| {
                cells.first().map(Cell::value) == expected.as_deref()
            }),
        };
        let outcome = self.region.check_and_mutate(&condition, &steps, None).await.unwrap();
        assert_eq!(outcome.processed, holds);
    }

    /// The expected timestamp of a conditional mutation.
    fn latest(&self, row: &str, steps: &[RowStep]) -> i64 {
        let mut written: [Option<Vec<Option<String>>>; 2] = [None, None];
        let mut add = |family: &[u8], qualifier: Option<&[u8]>| {
            let at = FAMILIES.iter().position(|name| name.as_bytes() == family).unwrap();
            let qualifier = qualifier.map(|name| String::from_utf8(name.to_vec()).unwrap());
            written[at].get_or_insert_default().push(qualifier);
        };
        for step in steps {
            match step {
                RowStep::Mutation(mutation) => {
                    if mutation.delete_row == Some(LATEST_TIMESTAMP) {
                        FAMILIES.iter().for_each(|family| add(family.as_bytes(), None));
                    }
                    for cell in mutation.cells.iter().filter(|c| c.timestamp() == LATEST_TIMESTAMP)
                    {
                        let whole = cell.cell_type() == CellType::DeleteFamily;
                        add(cell.family(), (!whole).then_some(cell.qualifier()));
                    }
                }
                RowStep::Update(update) => {
                    let changes = update.changes.iter();
                    changes.for_each(|change| add(&change.family, Some(&change.qualifier)));
                }
            }
        }
        // All of it gets one timestamp, which must suit each family.
        let mut latest = self.now;
        loop {
            let mut next = latest;
            for (family, columns) in written.iter().enumerate() {
                if let Some(columns) = columns {
                    let rules = Rules { now: next, ..self.rules(family) };
                    next = next.max(rules.latest(&self.families[family].all(), row, columns));
                }
            }
            if next == latest {
                return latest;
            }
            latest = next;
        }
    }

    /// The newest versions of a column, the newest first.
    fn newest(&self, row: &str, family: usize, qualifier: &str, count: u32) -> Vec<ModelCell> {
        let read = ModelRead { versions: count, range: (0, i64::MAX), raw: false };
        let mut cells = self.rules(family).read(&self.families[family].all(), &read);
        cells.retain(|cell| cell.row == row && cell.qualifier == qualifier);
        cells.sort_by_key(|cell| std::cmp::Reverse(cell.timestamp));
        cells
    }

    /// Applies `steps` to the model; `latest` is the timestamp that they get.
    fn expect(&mut self, row: &str, steps: &[RowStep], latest: i64) {
        self.edits += 1;
        let mut made = Vec::new();
        for step in steps {
            match step {
                RowStep::Mutation(mutation) => {
                    self.expect_mutation(row, mutation, latest, &mut made)
                }
                RowStep::Update(update) => {
                    let change = &update.changes[0];
                    let family =
                        FAMILIES.iter().position(|name| name.as_bytes() == change.family).unwrap();
                    let qualifier = String::from_utf8(change.qualifier.to_vec()).unwrap();
                    let old = self.newest(row, family, &qualifier, 1).pop();
                    let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
                    let value = match (&old, update.update) {
                        (None, _) => change.operand.to_vec(),
                        (Some(old), Update::Append) => [&old.value[..], &change.operand].concat(),
                        (Some(old), Update::Increment) => {
                            let sum = number(&old.value) + number(&change.operand);
                            sum.to_be_bytes().to_vec()
                        }
                    };
                    let timestamp = match old {
                        Some(old) => latest.max(old.timestamp + 1),
                        None if change.timestamp == LATEST_TIMESTAMP => latest,
                        None => change.timestamp,
                    };
                    let row = row.to_owned();
                    let (kind, edit) = (CellType::Put, self.edits);
                    made.push((family, ModelCell { row, qualifier, timestamp, kind, edit, value }));
                }
            }
        }
        for (family, cell) in made {
            let memory = &mut self.families[family].memory;
            // Of two writes to the same key in one edit, the later one stays.
            let same = |other: &ModelCell| {
                (&other.row, &other.qualifier) == (&cell.row, &cell.qualifier)
                    && (other.timestamp, other.kind) == (cell.timestamp, cell.kind)
                    && other.edit == cell.edit
            };
            memory.retain(|other| !same(other));
            memory.push(cell);
        }
    }

    fn expect_mutation(
        &self,
        row: &str,
        mutation: &Mutation,
        latest: i64,
        made: &mut Vec<(usize, ModelCell)>,
    ) {
        let edit = self.edits;
        let time = |given| if given == LATEST_TIMESTAMP { latest } else { given };
        if let Some(at) = mutation.delete_row {
            for family in 0..FAMILIES.len() {
                let (row, qualifier) = (row.to_owned(), String::new());
                let (timestamp, kind) = (time(at), CellType::DeleteFamily);
                let value = Vec::new();
                made.push((family, ModelCell { row, qualifier, timestamp, kind, edit, value }));
            }
        }
        let mut deleted: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for cell in &mutation.cells {
            let family = FAMILIES.iter().position(|name| name.as_bytes() == cell.family()).unwrap();
            let qualifier = String::from_utf8(cell.qualifier().to_vec()).unwrap();
            let kind = cell.cell_type();
            let timestamp = if (kind, cell.timestamp()) == (CellType::Delete, LATEST_TIMESTAMP) {
                let nth = deleted.entry((family, qualifier.clone())).or_default();
                *nth += 1;
                let newest = self.newest(row, family, &qualifier, *nth as u32);
                match newest.get(*nth - 1) {
                    Some(newest) => newest.timestamp,
                    None => continue,
                }
            } else {
                time(cell.timestamp())
            };
            let (row, value) = (row.to_owned(), cell.value().to_vec());
            made.push((family, ModelCell { row, qualifier, timestamp, kind, edit, value }));
        }
    }

    /// A mutation of only puts and deletes.
    fn mutation_of(row: &str, writes: &[Write]) -> Mutation {
        let mut made = mutation(row, Vec::new());
        for write in writes {
            Self::add_write(row, write, &mut made);
        }
        made
    }

    fn add_write(row: &str, write: &Write, to: &mut Mutation) {
        let at = write.at.map_or(LATEST_TIMESTAMP, |offset| BEGIN_MS + offset);
        let kind = match write.kind {
            Kind::DeleteRow => {
                to.delete_row = Some(at);
                return;
            }
            Kind::Update => CellType::Put,
            Kind::Cell(kind) => kind,
        };
        let family = FAMILIES[write.family];
        let of_family = matches!(kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion);
        let qualifier = if of_family { "" } else { QUALIFIERS[write.qualifier] };
        let times = if write.twice { 2 } else { 1 };
        for time in 0..times {
            let value = match (kind, qualifier) {
                (CellType::Put, NUMBER) => {
                    String::from_utf8(number(write.value + time).into()).unwrap()
                }
                // The value of the second write may be greater or smaller than that of the first.
                (CellType::Put, _) => value_of(write.value ^ (time * 3)),
                _ => String::new(),
            };
            to.cells.push(cell(row, &format!("{family}:{qualifier}"), kind, at, &value));
        }
    }

    fn steps_of(row: &str, writes: &[Write]) -> Vec<RowStep> {
        let mut steps = Vec::new();
        for write in writes {
            if write.kind != Kind::Update {
                let mut one = mutation(row, Vec::new());
                Self::add_write(row, write, &mut one);
                steps.push(RowStep::Mutation(one));
                continue;
            }
            let qualifier = QUALIFIERS[write.qualifier];
            let column = format!("{}:{qualifier}", FAMILIES[write.family]);
            let mut update = match qualifier {
                NUMBER => update_of(row, &column, Update::Increment, &number(write.value)),
                _ => update_of(row, &column, Update::Append, value_of(write.value).as_bytes()),
            };
            if let Some(offset) = write.at {
                update.changes[0].timestamp = BEGIN_MS + offset;
            }
            steps.push(RowStep::Update(update));
        }
        steps
    }

    /// Reads, and compares the result with the model.
    async fn compare(&self, read: &Read) {
        let named = read.qualifiers.as_ref();
        let columns = match named {
            None => Columns::All,
            Some(named) => Columns::Some(
                named.iter().map(|at| Bytes::from_static(QUALIFIERS[*at].as_bytes())).collect(),
            ),
        };
        let families = FAMILIES.map(|name| (Bytes::from_static(name.as_bytes()), columns.clone()));
        let (from, to) = read.range.unwrap_or((-BEGIN_MS, i64::MAX - BEGIN_MS));
        let (from, to) = (BEGIN_MS + from, BEGIN_MS + to);
        let row_read = RowRead {
            families: Some(families.into()),
            versions: read.versions,
            time_range: TimeRange { from, to },
            raw: read.raw,
            ..RowRead::all()
        };
        let bytes =
            |row: usize| Bytes::from_static(ROWS.get(row).copied().unwrap_or_default().as_bytes());
        let range = ScanRange {
            start: bytes(read.start.0),
            include_start: read.start.1,
            stop: bytes(read.stop.0),
            include_stop: read.stop.1,
            reversed: read.reversed,
        };
        let filter = read.filter.map(FilterKind::message);
        let (row_read, filter) = RowFilter::of(filter.as_ref(), row_read, read.reversed).unwrap();
        let found = scan(&self.region, &row_read, range, filter, read.room).await;
        let expected = self.expected(read, (from, to));
        let is_same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(cell, (family, model))| model.is(family, cell));
        assert!(is_same, "{read:?}\n  found {found:?}\n  expected {expected:?}");
        self.compare_gets(read, &row_read, (from, to)).await;
    }

    async fn compare_gets(&self, read: &Read, row_read: &RowRead, range: (i64, i64)) {
        if read.filter.is_some() {
            return;
        }
        let all = Read {
            start: (ROWS.len(), true),
            stop: (ROWS.len(), true),
            reversed: false,
            ..read.clone()
        };
        let expected = self.expected(&all, range);
        for row in ROWS {
            let found = self.region.get(row.as_bytes(), row_read).await.unwrap();
            let expected: Vec<_> = expected.iter().filter(|(_, cell)| cell.row == row).collect();
            let is_same = found.len() == expected.len()
                && found
                    .iter()
                    .zip(&expected)
                    .all(|(cell, (family, model))| model.is(family, cell));
            assert!(is_same, "get {row} {read:?}\n  found {found:?}\n  expected {expected:?}");
        }
    }

    /// The result of `read` according to the model, in order.
    fn expected(&self, read: &Read, range: (i64, i64)) -> Vec<(&'static str, ModelCell)> {
        let mut rows: BTreeMap<&str, Vec<(&'static str, ModelCell)>> = BTreeMap::new();
        let versions = if read.filter.is_some() { u32::MAX } else { read.versions };
        for (family, name) in FAMILIES.into_iter().enumerate() {
            let model_read = ModelRead { versions, range, raw: read.raw };
            let mut cells = self.rules(family).read(&self.families[family].all(), &model_read);
            cells.retain(|cell| {
                let of_family =
                    matches!(cell.kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion);
                let is_named = |named: &BTreeSet<usize>| {
                    named.iter().any(|at| QUALIFIERS[*at] == cell.qualifier)
                };
                of_family || read.qualifiers.as_ref().is_none_or(is_named)
            });
            cells.sort_by_key(|c| {
                let newest_first = (std::cmp::Reverse(c.timestamp), std::cmp::Reverse(c.kind));
                (c.row.clone(), c.qualifier.clone(), newest_first)
            });
            for cell in cells {
                let row = ROWS.into_iter().find(|row| *row == cell.row).unwrap();
                rows.entry(row).or_default().push((name, cell));
            }
        }
        let mut names: Vec<&str> = rows.keys().copied().filter(|row| read.covers(row)).collect();
        if read.reversed {
            names.reverse();
        }
        let mut found = Vec::new();
        let mut taken = 0;
        for name in names {
            let cells = rows.remove(name).unwrap_or_default();
            let cells = match read.filter {
                None => cells,
                Some(filter) => filter.expected(name, cells, read.versions, &mut taken),
            };
            found.extend(cells);
        }
        found
    }
}

/// The cells of a scan that takes at most `room` at a time.
async fn scan(
    region: &Region,
    read: &RowRead,
    range: ScanRange,
    mut filter: Option<RowFilter>,
    room: usize,
) -> Vec<Cell> {
    let mut scanner = region.scan(read, range).await.unwrap();
    let mut found = Vec::new();
    while let Some(row) = scanner.next_row().await.unwrap() {
        if filter.as_ref().is_some_and(RowFilter::is_done) {
            break;
        }
        let mut cells = Vec::new();
        while scanner
            .take_cells(ScanLimits { cells: room, bytes: u64::MAX }, &mut cells)
            .await
            .unwrap()
        {}
        match &mut filter {
            None => found.extend(cells),
            Some(filter) => found.extend(filter.filter(&row, cells)),
        }
    }
    found
}

#[test]
fn a_region_agrees_with_a_model_of_hbase() {
    let histories = std::env::var("MODEL_HISTORIES").ok();
    let cases = histories.map_or(HISTORIES, |count| count.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let history = (families(), vec(step(), 1..40), read());
    let ran = runner.run(&history, |(table, steps, last)| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut bench = Bench::start(table).await;
            for step in &steps {
                bench.take(step).await;
            }
            // Finally, read everything, whatever the history read.
            let whole = Read {
                start: (ROWS.len(), true),
                stop: (ROWS.len(), true),
                qualifiers: None,
                range: None,
                filter: None,
                ..last
            };
            for raw in [false, true] {
                bench.compare(&Read { raw, versions: 9, ..whole.clone() }).await;
            }
        });
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}
