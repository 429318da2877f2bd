//! The regions that this server serves, and what it knows of those that it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use basalt_cluster::{Catalog, Nodes, pb};
use basalt_fs::{AVOIDED_NODES_MAX, NodeDoubt, NodeName};
use basalt_model::{EncodedRegionName, MasterEpoch, RegionState, ServerName, TableState};
use basalt_planted::{Rule, is_off};
use basalt_runtime::{Shutdown, WITNESS};
use basalt_zk::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::trace;

use crate::block_places::BlockPlaces;
use crate::ownership::Ownership;
use crate::record_writer::RecordWriter;
use crate::region::{Region, Shared};

/// How long an order waits for an earlier one for the same region.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const OPENING_POLL: Duration = Duration::from_millis(10);

/// A running region server.
pub(crate) struct Server {
    pub(crate) name: ServerName,
    pub(crate) shared: Shared,
    pub(crate) client: Client,
    pub(crate) records: RecordWriter,
    pub(crate) nodes: Nodes,
    pub(crate) catalog: Catalog,
    regions: RwLock<BTreeMap<EncodedRegionName, Arc<Served>>>,
    /// Counts the changes of `regions`.
    serving: watch::Sender<u64>,
    /// The regions that are being opened.
    opening: Mutex<BTreeSet<EncodedRegionName>>,
    /// The highest epoch of a master that has given an order.
    master_epoch: AtomicU64,
    /// Where the store files lie, as far as that is known.
    pub(crate) block_places: watch::Sender<Arc<BlockPlaces>>,
    /// Wakes the scheduler.
    pub(crate) work: Notify,
    /// Ends the server at once, regions or not: it has been declared dead, or its log failed.
    pub(crate) abort: Shutdown,
}

/// A region in service.
pub(crate) struct Served {
    pub(crate) region: Arc<Region>,
    pub(crate) ownership: Ownership,
    /// What it replayed is still in sealed logs only.
    pub(crate) flush_due: AtomicBool,
    /// When it began to be served.
    pub(crate) since: Instant,
}

/// The right to open a region, held by one task at a time.
pub(crate) struct OpeningTurn {
    server: Arc<Server>,
    name: EncodedRegionName,
}

/// Where a region is that is not served here.
pub(crate) enum Elsewhere {
    /// Another server has it open.
    Moved { server: ServerName, open_sequence_id: u64 },
    /// We are about to open it.
    Opening,
    /// Nobody is known to have it.
    Unknown,
}

/// An order of a master that is not in charge any more.
#[derive(Debug, thiserror::Error)]
#[error("an order of master epoch {given}, but {highest} has been seen")]
pub(crate) struct PassedOver {
    given: u64,
    highest: u64,
}

// === impl Server ===

impl Server {
    pub(crate) fn new(
        name: ServerName,
        shared: Shared,
        client: Client,
        nodes: Nodes,
        catalog: Catalog,
        abort: Shutdown,
    ) -> Self {
        Self {
            name,
            shared,
            records: RecordWriter::start(client.clone()),
            client,
            nodes,
            catalog,
            regions: RwLock::default(),
            serving: watch::Sender::new(0),
            opening: Mutex::default(),
            master_epoch: AtomicU64::new(0),
            block_places: watch::Sender::default(),
            work: Notify::new(),
            abort,
        }
    }

    /// The region of this name, if it is served here.
    pub(crate) fn region(&self, name: EncodedRegionName) -> Option<Arc<Served>> {
        self.regions.read().get(&name).cloned()
    }

    /// All regions in service.
    pub(crate) fn regions(&self) -> Vec<Arc<Served>> {
        self.regions.read().values().cloned().collect()
    }

    /// Begins to serve a region. One of an older epoch that is still here is dropped.
    pub(crate) fn begin_serving(&self, served: Served) {
        self.regions.write().insert(served.region.encoded_name, Arc::new(served));
        self.serving.send_modify(|changes| *changes += 1);
    }

    /// Ends the service of a region.
    pub(crate) fn end_serving(&self, served: &Arc<Served>) {
        let mut regions = self.regions.write();
        let name = served.region.encoded_name;
        if regions.get(&name).is_some_and(|present| Arc::ptr_eq(present, served)) {
            regions.remove(&name);
            self.serving.send_modify(|changes| *changes += 1);
        }
    }

    /// Becomes a higher number whenever this server begins or ends to serve a region.
    pub(crate) fn serving(&self) -> watch::Receiver<u64> {
        self.serving.subscribe()
    }

    /// Whether regions are being opened.
    pub(crate) fn is_opening(&self) -> bool {
        !self.opening.lock().is_empty()
    }

    /// Takes the turn to open a region, once an earlier order for it has been carried out. `None` if
    /// that takes too long.
    pub(crate) async fn begin_opening(
        self: &Arc<Self>,
        name: EncodedRegionName,
    ) -> Option<OpeningTurn> {
        let turn = async {
            while !self.opening.lock().insert(name) {
                tokio::time::sleep(OPENING_POLL).await;
            }
        };
        tokio::time::timeout(OPENING_PATIENCE, turn).await.ok()?;
        Some(OpeningTurn { server: Arc::clone(self), name })
    }

    /// Where to send a client that asks for a region that is not here.
    pub(crate) fn elsewhere(&self, name: EncodedRegionName) -> Elsewhere {
        let Some(known) = self.catalog.region(name) else { return Elsewhere::Unknown };
        let record = &known.record;
        match (record.state, &record.server) {
            (RegionState::Open, Some(server)) if *server != self.name => Elsewhere::Moved {
                server: server.clone(),
                open_sequence_id: record.open_sequence_id.0,
            },
            (RegionState::Opening, Some(server)) if *server == self.name => Elsewhere::Opening,
            _ => Elsewhere::Unknown,
        }
    }

    /// Whether a region that is not here will soon be somewhere: it is between two owners, or it is
    /// ours on record.
    pub(crate) fn is_on_its_way(&self, name: EncodedRegionName) -> bool {
        let Some(known) = self.catalog.region(name) else { return false };
        let record = &known.record;
        match record.state {
            RegionState::Opening | RegionState::Closing => true,
            RegionState::Open => record.is_owned_by(&self.name),
            RegionState::Closed => {
                let table = self.catalog.table(&record.info.table);
                table.is_some_and(|table| table.record.state == TableState::Enabled)
            }
        }
    }

    /// Refuses orders of masters that are no longer in charge.
    pub(crate) fn check_master(&self, epoch: MasterEpoch) -> Result<(), PassedOver> {
        let highest = self.master_epoch.fetch_max(epoch.0, Ordering::AcqRel);
        if epoch.0 < highest && !is_off(Rule::MasterEpoch) {
            return Err(PassedOver { given: epoch.0, highest });
        }
        trace!(target: WITNESS, server = %self.name, epoch = epoch.0, "ordered");
        Ok(())
    }

    /// What the server carries, for the balancer and for `status`.
    pub(crate) fn load(&self, requests_per_second: u64) -> pb::ServerLoad {
        let regions = self.regions.read();
        pb::ServerLoad {
            regions: u32::try_from(regions.len()).unwrap_or(u32::MAX),
            requests_per_second,
            memstore_bytes: regions.values().map(|served| served.region.memstore_bytes()).sum(),
            store_file_bytes: regions.values().map(|served| served.region.store_file_bytes()).sum(),
        }
    }

    /// Avoids the nodes of the storage that the master avoids.
    pub(crate) fn avoid_nodes(&self, avoided: &[pb::AvoidedNode]) {
        for told in avoided.iter().take(AVOIDED_NODES_MAX) {
            let doubt = if told.failed { NodeDoubt::Failed } else { NodeDoubt::MayBeGone };
            if let Some(node) = NodeName::told(&told.node) {
                self.shared.files.avoid_node(&node, doubt);
            }
        }
    }

    /// How many requests all regions have had.
    pub(crate) fn requests(&self) -> u64 {
        let regions = self.regions.read();
        regions.values().map(|served| served.region.requests.load(Ordering::Relaxed)).sum()
    }
}

// === impl OpeningTurn ===

impl Drop for OpeningTurn {
    fn drop(&mut self) {
        let mut opening = self.server.opening.lock();
        opening.remove(&self.name);
        if opening.is_empty() {
            // What was replayed may be flushed now.
            self.server.work.notify_one();
        }
    }
}
