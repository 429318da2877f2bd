//! A watched copy of the records: live servers, tables, and the location of regions.
//!
//! Every master and region server keeps one, so any of them can locate a row for a client even
//! while no master lives. A copy may lag behind the coordinator. A decision that is based on it is
//! therefore written on condition of the record's version.

mod follow;
mod state;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use basalt_model::{EncodedRegionName, ServerName, TableName};
use basalt_zk::Client;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Error, Nodes, TableRecord, pb};

pub use follow::follow;
use state::CatalogState;
pub(crate) use state::{MetaRow, MetaSubject};
pub use state::{SharedRegion, Versioned};

/// A handle of the copy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    state: Arc<RwLock<CatalogState>>,
    /// Counts the changes.
    changes: watch::Receiver<u64>,
    /// Callers that wait until all events that have arrived are applied.
    waiting: mpsc::Sender<oneshot::Sender<()>>,
    client: Client,
    nodes: Nodes,
}

// === impl Catalog ===

impl Catalog {
    /// A counter that increases with every change of the copy.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Waits until the copy shows everything that was committed before this call.
    ///
    /// # Errors
    /// [`Error::Coordinator`]: the coordinator did not answer, or the session is over.
    pub async fn catch_up(&self) -> Result<(), Error> {
        // The coordinator sends the events of earlier transactions before it answers.
        self.client.sync(self.nodes.parent()).await?;
        let over = || basalt_zk::Error::Closed { session_id: self.client.session_id() };
        let (taken_in, is_taken_in) = oneshot::channel();
        self.waiting.send(taken_in).await.map_err(|_| over())?;
        Ok(is_taken_in.await.map_err(|_| over())?)
    }

    /// The region with this name.
    pub fn region(&self, region: EncodedRegionName) -> Option<SharedRegion> {
        self.state.read().regions.get(&region).cloned()
    }

    /// All regions.
    pub fn regions(&self) -> BTreeMap<EncodedRegionName, SharedRegion> {
        self.state.read().regions.clone()
    }

    /// The regions of a table in the order of their rows.
    pub fn regions_of(&self, table: &TableName) -> Vec<SharedRegion> {
        self.state.read().regions_of(table)
    }

    /// The primary region of `table` that `row` belongs to.
    pub fn region_of(&self, table: &TableName, row: &[u8]) -> Option<SharedRegion> {
        self.state.read().region_of(table, row)
    }

    /// The table with this name.
    pub fn table(&self, table: &TableName) -> Option<Versioned<TableRecord>> {
        self.state.read().tables.get(table).cloned()
    }

    /// All tables.
    pub fn tables(&self) -> BTreeMap<TableName, Versioned<TableRecord>> {
        self.state.read().tables.clone()
    }

    /// The live region servers.
    pub fn servers(&self) -> BTreeMap<ServerName, pb::ServerRecord> {
        self.state.read().servers.clone()
    }

    /// Whether a region server is alive.
    pub fn lives(&self, server: &ServerName) -> bool {
        self.state.read().servers.contains_key(server)
    }

    /// The active master, if there is one.
    pub fn master(&self) -> Option<pb::MasterRecord> {
        self.state.read().master.clone()
    }

    /// Up to `count` rows of `hbase:meta` between two bounds, in order or in reverse.
    pub(crate) fn meta_rows(
        &self,
        from: Bound<MetaRow>,
        to: Bound<MetaRow>,
        reversed: bool,
        count: usize,
    ) -> Vec<(MetaRow, MetaSubject)> {
        if is_empty(&from, &to) {
            return Vec::new();
        }
        let state = self.state.read();
        let rows = state.rows.range((from, to)).map(|(row, of)| (row.clone(), of.clone()));
        if reversed { rows.rev().take(count).collect() } else { rows.take(count).collect() }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> String {
        self.state.read().cluster_id.clone()
    }
}

/// Whether no row can be between two bounds.
fn is_empty(from: &Bound<MetaRow>, to: &Bound<MetaRow>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
