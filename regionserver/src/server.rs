//! The regions that this server serves, and where the other regions are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basalt_cluster::served::ServedRegions;
use basalt_cluster::{Catalog, Nodes, pb};
use basalt_fs::{EXCLUDED_NODES_MAX, NodeName, NodeSuspicion};
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableState};
use basalt_runtime::{Shutdown, WITNESS};
use basalt_zk::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, trace};

use crate::block_locality::ServerLocality;
use crate::compaction_requests::CompactionRequests;
use crate::master_epoch::HighestMaster;
use crate::ownership::Ownership;
use crate::record_writer::RecordWriter;
use crate::region::{Region, RegionServices};
use crate::transitions::{Purpose, Transition, Transitions};

/// How long an order waits for an earlier order for the same region.
const TRANSITION_PATIENCE: Duration = Duration::from_secs(10);

/// A running region server.
pub(crate) struct Server {
    pub(crate) name: ServerName,
    pub(crate) shared: RegionServices,
    pub(crate) client: Client,
    pub(crate) records: RecordWriter,
    pub(crate) nodes: Nodes,
    pub(crate) catalog: Catalog,
    regions: RwLock<BTreeMap<EncodedRegionName, Arc<Served>>>,
    /// Counts the changes of `regions`.
    serving: watch::Sender<u64>,
    pub(crate) transitions: Arc<Transitions>,
    /// The highest epoch of a master that has given an order.
    pub(crate) master: HighestMaster,
    /// Why the server must end, if it must.
    end_reason: Mutex<Option<String>>,
    /// Where the store files are, as far as that is known.
    pub(crate) block_locality: watch::Sender<Arc<ServerLocality>>,
    /// The regions whose compaction clients have requested.
    pub(crate) compactions: CompactionRequests,
    /// Wakes the scheduler.
    pub(crate) work: Notify,
    /// Ends the server at once, whether or not it serves regions: it has been declared dead, or its
    /// log has failed.
    pub(crate) abort: Shutdown,
}

/// A region in service.
pub(crate) struct Served {
    pub(crate) region: Arc<Region>,
    pub(crate) ownership: Ownership,
    /// The edits that it replayed are only in sealed logs so far.
    pub(crate) flush_due: AtomicBool,
    /// When it was opened here.
    pub(crate) since: Instant,
}

/// Where a region is that this server does not serve.
pub(crate) enum RegionLocation {
    /// Another server has it open.
    Moved { server: ServerName, open_sequence_id: u64 },
    /// This server is about to open it.
    Opening,
    /// No server is known to have it.
    Unknown,
}

// === impl Server ===

impl Server {
    pub(crate) fn new(
        name: ServerName,
        shared: RegionServices,
        client: Client,
        nodes: Nodes,
        catalog: Catalog,
        abort: Shutdown,
    ) -> Self {
        Self {
            name,
            shared,
            records: RecordWriter::start(client.clone()),
            master: HighestMaster::new(client.clone(), nodes.clone()),
            client,
            nodes,
            catalog,
            regions: RwLock::default(),
            serving: watch::Sender::new(0),
            transitions: Arc::default(),
            end_reason: Mutex::default(),
            block_locality: watch::Sender::default(),
            compactions: CompactionRequests::default(),
            work: Notify::new(),
            abort,
        }
    }

    /// The region with this name, if it is served here.
    pub(crate) fn region(&self, name: EncodedRegionName) -> Option<Arc<Served>> {
        self.regions.read().get(&name).cloned()
    }

    /// The served regions and their epochs, as reported to the master.
    pub(crate) fn served(&self) -> ServedRegions {
        let regions = self.regions.read();
        regions.iter().map(|(name, served)| (*name, served.region.epoch)).collect()
    }

    /// All served regions.
    pub(crate) fn regions(&self) -> Vec<Arc<Served>> {
        self.regions.read().values().cloned().collect()
    }

    /// Begins to serve a region.
    ///
    /// # Errors
    /// The region is already served under another epoch, whose edits may be in memory only.
    pub(crate) fn begin_serving(&self, served: Served) -> Result<(), String> {
        let (name, epoch) = (served.region.encoded_name, served.region.epoch);
        match self.regions.write().entry(name) {
            Entry::Occupied(present) => {
                let present = present.get().region.epoch;
                return Err(format!("it is already served under epoch {present}"));
            }
            Entry::Vacant(place) => {
                place.insert(Arc::new(served));
            }
        }
        trace!(target: WITNESS, region = %name, epoch = epoch.0, server = %self.name, "serves");
        self.serving.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Ends the service of a region.
    pub(crate) fn end_serving(&self, served: &Arc<Served>) {
        let mut regions = self.regions.write();
        let name = served.region.encoded_name;
        if regions.get(&name).is_some_and(|present| Arc::ptr_eq(present, served)) {
            regions.remove(&name);
            let epoch = served.region.epoch.0;
            trace!(target: WITNESS, region = %name, epoch, server = %self.name, "serves no more");
            self.serving.send_modify(|changes| *changes += 1);
        }
    }

    /// A counter that increases whenever this server starts or stops serving a region.
    pub(crate) fn serving(&self) -> watch::Receiver<u64> {
        self.serving.subscribe()
    }

    /// Whether regions are being opened.
    pub(crate) fn is_opening(&self) -> bool {
        self.transitions.are_opening()
    }

    /// Begins a transition of a region once the transition of an earlier order has ended. `None` if
    /// that takes too long.
    pub(crate) async fn begin(
        &self,
        name: EncodedRegionName,
        purpose: Purpose,
    ) -> Option<Transition> {
        self.transitions.begin(name, purpose, TRANSITION_PATIENCE).await
    }

    /// Ends the server at once, because its regions can only be recovered from its log.
    pub(crate) fn end(&self, reason: &str) {
        error!(reason, "this server must exit");
        self.end_reason.lock().get_or_insert_with(|| reason.to_owned());
        self.abort.cancel();
    }

    /// Why [`Server::end`] was called, if it was.
    pub(crate) fn end_reason(&self) -> Option<String> {
        self.end_reason.lock().clone()
    }

    /// Where to send a client that asks for a region that is not served here.
    pub(crate) fn location_of(&self, name: EncodedRegionName) -> RegionLocation {
        let Some(known) = self.catalog.region(name) else { return RegionLocation::Unknown };
        let record = &known.record;
        match (record.state, &record.server) {
            (RegionState::Open, Some(server)) if *server != self.name => RegionLocation::Moved {
                server: server.clone(),
                open_sequence_id: record.open_sequence_id.0,
            },
            (RegionState::Opening, Some(server)) if *server == self.name => RegionLocation::Opening,
            _ => RegionLocation::Unknown,
        }
    }

    /// Whether a region that is not served here will soon be served somewhere: it is between two
    /// owners, or on record as owned by this server.
    pub(crate) fn is_in_transition(&self, name: EncodedRegionName) -> bool {
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

    /// The load of the server, for the balancer and for `status`.
    pub(crate) fn load(&self, requests_per_second: u64) -> pb::ServerLoad {
        let regions = self.regions.read();
        pb::ServerLoad {
            regions: u32::try_from(regions.len()).unwrap_or(u32::MAX),
            requests_per_second,
            memstore_bytes: regions.values().map(|served| served.region.memstore_bytes()).sum(),
            store_file_bytes: regions.values().map(|served| served.region.store_file_bytes()).sum(),
        }
    }

    /// Excludes the storage nodes that the master excludes.
    pub(crate) fn exclude_nodes(&self, excluded: &[pb::ExcludedNode]) {
        for reported in excluded.iter().take(EXCLUDED_NODES_MAX) {
            let suspicion =
                if reported.failed { NodeSuspicion::Failed } else { NodeSuspicion::MayBeGone };
            if let Some(node) = NodeName::reported(&reported.node) {
                self.shared.files.exclude_node(&node, suspicion);
            }
        }
    }

    /// How many requests all regions have received.
    pub(crate) fn requests(&self) -> u64 {
        let regions = self.regions.read();
        regions.values().map(|served| served.region.requests.load(Ordering::Relaxed)).sum()
    }
}
