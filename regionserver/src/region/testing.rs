//! Fixtures for tests of regions: a disk in memory, a clock moved by hand, and servers that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_cluster::records::FamilyIncarnations;
use basalt_cluster::{RegionRecord, pb};
use basalt_fs::{Durability, MemoryFileSystem, SharedFileSystem};
use basalt_model::{
    Cell, CellBuilder, CellType, FamilyDescriptor, LATEST_TIMESTAMP, RegionEpoch, RegionInfo,
    RegionState, SequenceId, ServerName, TableDescriptor,
};
use basalt_runtime::{Clock, ClockSource, Network, Random, Seams, TcpNetwork, Threads};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::read::TimeRange;
use basalt_storage::wal::{self, Wal, WalConfig};
use bytes::Bytes;

use super::open::{Opened, open};
use super::{
    Change, MemstoresTotal, Mutation, OpenRegion, Region, RegionServices, Result, RowRead,
    RowUpdate, ScanRange, Update,
};
use crate::config::RegionConfig;
use crate::lease::ServingLease;
use crate::recovery::replay::SealedLogs;
use crate::timestamps::TimestampClock;

/// How long a lease runs.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A clock in milliseconds that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicU64>);

/// The parts of a region server that regions use. Each server is a separate writer on the shared
/// disk.
pub(crate) struct TestServer {
    pub(crate) name: ServerName,
    pub(crate) shared: RegionServices,
    pub(crate) hand: Hand,
    /// Those of the table's record.
    pub(crate) incarnations: FamilyIncarnations,
    /// That of the region's record.
    pub(crate) open_sequence_id: SequenceId,
    disk: MemoryFileSystem,
    writer: u64,
}

impl Hand {
    pub(crate) fn move_by(&self, duration: Duration) {
        self.0.fetch_add(duration.as_millis() as u64, Ordering::Relaxed);
    }
}

impl ClockSource for Hand {
    fn boot_time(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TestServer {
    /// A server with a new log and a running lease.
    pub(crate) async fn start(disk: &MemoryFileSystem, writer: u64) -> Self {
        let name: ServerName = format!("rs,16020,{writer}").parse().unwrap();
        let hand = Hand(Arc::new(AtomicU64::new(1_000_000)));
        let clock = Clock::new(hand.clone());
        let files: SharedFileSystem = Arc::new(disk.as_writer(writer));
        let config = WalConfig::default();
        let wal = Wal::create(Arc::clone(&files), &name, "cluster", config, clock.clone()).await;
        let random = Random::from_seed(writer);
        let shared = RegionServices {
            seams: Seams {
                clock: clock.clone(),
                random,
                network: Network::new(TcpNetwork),
                threads: Threads::default(),
            },
            files,
            wal: Arc::new(wal.unwrap()),
            blocks: Arc::new(BlockCache::new(1 << 20)),
            timestamps: TimestampClock::new(clock.clone(), Duration::from_secs(1)),
            lease: ServingLease::new(clock, LEASE),
            memstores: Arc::new(MemstoresTotal::new(1 << 30)),
            config: RegionConfig::default(),
        };
        let server = Self {
            name,
            shared,
            hand,
            incarnations: FamilyIncarnations::new(),
            open_sequence_id: SequenceId(0),
            disk: disk.clone(),
            writer,
        };
        server.renew();
        server
    }

    /// Renews the lease as of now.
    pub(crate) fn renew(&self) {
        self.shared.lease.renewed(self.shared.seams.clock.boot_time());
    }

    pub(crate) async fn open(&self, epoch: u64, sealed: Vec<SealedLogs>) -> Opened {
        self.open_as(epoch, sealed, table()).await
    }

    pub(crate) async fn open_as(
        &self,
        epoch: u64,
        sealed: Vec<SealedLogs>,
        table: TableDescriptor,
    ) -> Opened {
        self.try_open_as(epoch, sealed, table).await.unwrap()
    }

    pub(crate) async fn try_open_as(
        &self,
        epoch: u64,
        sealed: Vec<SealedLogs>,
        table: TableDescriptor,
    ) -> Result<Opened> {
        let record = RegionRecord {
            info: info(),
            state: RegionState::Opening,
            epoch: RegionEpoch(epoch),
            server: Some(self.name.clone()),
            unflushed: sealed.iter().map(|sealed| sealed.server.clone()).collect(),
            open_sequence_id: self.open_sequence_id,
        };
        let incarnations = self.incarnations.clone();
        let request = OpenRegion { record, table: Arc::new(table), incarnations, sealed };
        open(self.shared.clone(), request).await
    }

    pub(crate) async fn region(&self, epoch: u64) -> Arc<Region> {
        self.region_of(epoch, table()).await
    }

    pub(crate) async fn region_of(&self, epoch: u64, table: TableDescriptor) -> Arc<Region> {
        self.open_as(epoch, Vec::new(), table).await.region
    }

    /// Loses what was not synced, and seals the log at its remaining length, as a master would.
    pub(crate) async fn die(self) -> SealedLogs {
        self.disk.crash(self.writer, |_| 0);
        let files: SharedFileSystem = Arc::new(self.disk.as_writer(0));
        let mut logs = Vec::new();
        for log in wal::fence(&files, &self.name).await.unwrap() {
            let seal = files.seal(&log.path, files.boot_id()).await.unwrap();
            assert!(seal.writer_gone);
            let name = log.path.file_name().unwrap().to_string_lossy().into_owned();
            logs.push(pb::SealedLog { name, sealed_length: seal.length });
        }
        SealedLogs::new(self.name, logs)
    }
}

/// The only region of the tests. It ends before row `z`.
pub(crate) fn info() -> RegionInfo {
    RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::from_static(b"z"), 1)
}

/// A table with family `f`, of three versions, and family `g`, of one.
pub(crate) fn table() -> TableDescriptor {
    let f = FamilyDescriptor { versions_max: 3, ..FamilyDescriptor::new("f") };
    let families = [f, FamilyDescriptor::new("g")];
    TableDescriptor {
        name: "t".parse().unwrap(),
        families: families.into_iter().map(|family| (family.name.clone(), family)).collect(),
        region_replication: 1,
        settings: Default::default(),
    }
}

/// A put or a delete of one column. The server assigns the timestamp if `at` is the latest one.
pub(crate) fn cell(row: &str, column: &str, cell_type: CellType, at: i64, value: &str) -> Cell {
    let (family, qualifier) = column.split_once(':').unwrap();
    let builder = CellBuilder {
        row: row.as_bytes(),
        family: family.as_bytes(),
        qualifier: qualifier.as_bytes(),
        timestamp: at,
        cell_type,
        value: value.as_bytes(),
        tags: &[],
    };
    builder.build().unwrap()
}

pub(crate) fn mutation(row: &str, cells: Vec<Cell>) -> Mutation {
    Mutation {
        row: Bytes::copy_from_slice(row.as_bytes()),
        cells,
        delete_row: None,
        durability: Durability::default(),
    }
}

/// An increment or an append of one column.
pub(crate) fn update_of(row: &str, column: &str, update: Update, operand: &[u8]) -> RowUpdate {
    let (family, qualifier) = column.split_once(':').unwrap();
    let change = Change {
        family: Bytes::copy_from_slice(family.as_bytes()),
        qualifier: Bytes::copy_from_slice(qualifier.as_bytes()),
        timestamp: LATEST_TIMESTAMP,
        operand: Bytes::copy_from_slice(operand),
    };
    RowUpdate {
        row: Bytes::copy_from_slice(row.as_bytes()),
        update,
        changes: vec![change],
        time_range: TimeRange::ALL,
        durability: Durability::default(),
    }
}

/// A put at the server's time.
pub(crate) fn put_of(row: &str, column: &str, value: &str) -> Mutation {
    mutation(row, vec![cell(row, column, CellType::Put, LATEST_TIMESTAMP, value)])
}

pub(crate) async fn put(region: &Region, row: &str, column: &str, value: &str) -> Result<()> {
    region.mutate(&[put_of(row, column, value)]).await
}

/// A row's newest cells, as `column=value`.
pub(crate) async fn row_of(region: &Region, row: &str) -> Vec<String> {
    let cells = region.get(row.as_bytes(), &RowRead::all()).await.unwrap();
    cells.iter().map(shown).collect()
}

pub(crate) fn shown(cell: &Cell) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}:{}={}", text(cell.family()), text(cell.qualifier()), text(cell.value()))
}

/// The whole region, or the part that starts at `start`.
pub(crate) fn range(start: &str, reversed: bool) -> ScanRange {
    ScanRange {
        start: Bytes::copy_from_slice(start.as_bytes()),
        include_start: true,
        stop: Bytes::new(),
        include_stop: false,
        reversed,
    }
}
