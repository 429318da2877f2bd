//! Reads and writes of a table's rows.

use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::pb::mutation_proto::MutationType;
use basalt_hbase_rpc::{Service, message_cells, pb};
use basalt_model::{Cell, ReplicaId, ServerName, TableName};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use prost::Message;
use tokio::time::Instant;

use crate::connection::within;
use crate::locate::{Place, TableRegions};
use crate::write::RowCells;
use crate::{
    Action, ActionResult, Append, CheckAndMutate, Connection, Delete, Error, Get, Increment,
    Outcome, Put, RegionLocation, Result, RowResult, Scan, Scanner,
};

/// A handle to a table; cheap to clone. Methods whose names do not begin with `try` make attempts
/// until the operation timeout.
///
/// A retried [`Increment`], [`Append`] or [`CheckAndMutate`] is applied once, because it carries a
/// nonce. Apache HBase accepts no nonce with a [`CheckAndMutate`]: there, a retry may find the
/// value of its own earlier attempt, and then reports that the write was not performed.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) connection: Connection,
    pub(crate) regions: Arc<TableRegions>,
}

/// One write to a region.
struct RowWrite<'a> {
    cells: &'a RowCells,
    kind: MutationType,
    nonce: u64,
    condition: Option<pb::Condition>,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(connection: Connection, name: &TableName) -> Self {
        let regions = connection.shared.locator.table(name);
        Self { connection, regions }
    }

    /// The table's name.
    pub fn name(&self) -> &TableName {
        self.regions.table()
    }

    /// The location of the region of `row`, as far as it is known.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], [`Error::OutOfTime`].
    pub async fn locate(&self, row: &[u8]) -> Result<Arc<RegionLocation>> {
        let shared = &self.connection.shared;
        shared.retried("locate", |wait| shared.locate(&self.regions, Place::Of(row), wait)).await
    }

    /// Reads a row.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn get(&self, get: &Get) -> Result<RowResult> {
        let attempt = |wait| self.get_once(get, wait);
        self.connection.shared.retried("get", attempt).await
    }

    /// Whether a row, or the requested part of it, exists.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn exists(&self, get: &Get) -> Result<bool> {
        let attempt = |wait| async move {
            let row = get.row.clone();
            let (response, _, _) = self.get_primary(&row, get.to_message(true), wait).await?;
            Ok(response.result.unwrap_or_default().exists())
        };
        self.connection.shared.retried("exists", attempt).await
    }

    /// Writes columns of a row.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn put(&self, put: &Put) -> Result<()> {
        self.write("put", RowWrite::new(&put.0, MutationType::Put)).await?;
        Ok(())
    }

    /// Deletes parts of a row.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn delete(&self, delete: &Delete) -> Result<()> {
        self.write("delete", RowWrite::new(&delete.0, MutationType::Delete)).await?;
        Ok(())
    }

    /// Adds to counters, and returns their new values.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn increment(&self, increment: &Increment) -> Result<RowResult> {
        let mut write = RowWrite::new(&increment.0, MutationType::Increment);
        write.nonce = self.connection.shared.nonce();
        Ok(self.write("increment", write).await?.0)
    }

    /// Appends to values, and returns the new ones.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn append(&self, append: &Append) -> Result<RowResult> {
        let mut write = RowWrite::new(&append.0, MutationType::Append);
        write.nonce = self.connection.shared.nonce();
        Ok(self.write("append", write).await?.0)
    }

    /// Writes if a value is as expected, atomically. Returns whether it was.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn check_and_mutate(&self, check: &CheckAndMutate) -> Result<bool> {
        let (cells, kind) = check.mutation.row_cells();
        let mut write = RowWrite::new(cells, kind);
        // Without it, after an attempt whose answer was lost, the next attempt would find its own
        // value and return false.
        write.nonce = self.connection.shared.nonce();
        write.condition = Some(check.condition());
        Ok(self.write("check and mutate", write).await?.1)
    }

    /// Performs many reads and writes, grouped by region and server. Those of a region are sent
    /// together, but are not atomic. Results are in the order of `actions`.
    pub async fn batch(&self, actions: &[Action]) -> Vec<Result<ActionResult>> {
        crate::batch::run(self, actions).await
    }

    /// Reads rows in order, region by region.
    pub fn scan(&self, scan: Scan) -> Scanner {
        Scanner::new(self.clone(), scan)
    }

    /// Makes one attempt to write a row, within `wait`; retrying is left to the caller. If this
    /// attempt finds that a location is wrong, the next attempt looks it up.
    pub async fn try_put(&self, put: &Put, wait: Duration) -> Outcome<()> {
        let write = RowWrite::new(&put.0, MutationType::Put);
        Outcome::of(self.write_once(&write, wait).await.map(|_| ()))
    }

    /// Makes one attempt to delete parts of a row, within `wait`. See [`Table::try_put`].
    pub async fn try_delete(&self, delete: &Delete, wait: Duration) -> Outcome<()> {
        let write = RowWrite::new(&delete.0, MutationType::Delete);
        Outcome::of(self.write_once(&write, wait).await.map(|_| ()))
    }

    /// Makes the next attempt look up the location of `row` again. For callers that stop waiting
    /// before the attempt itself does.
    pub fn doubt(&self, row: &[u8]) {
        if let Some(location) = self.regions.fresh(Place::Of(row)) {
            self.connection.shared.deny(&self.regions, &location);
        }
    }

    /// Makes one attempt to read a row, within `wait`. See [`Table::try_put`].
    pub async fn try_get(&self, get: &Get, wait: Duration) -> Outcome<RowResult> {
        Outcome::of(self.get_once(get, wait).await)
    }

    // Boxed like all attempts, so that this crate compiles their code, and not each crate that
    // calls it.
    fn get_once<'a>(&'a self, get: &'a Get, wait: Duration) -> BoxFuture<'a, Result<RowResult>> {
        Box::pin(async move {
            let (response, cells, server) = if get.timeline {
                self.get_any(get, wait).await?
            } else {
                self.get_primary(&get.row, get.to_message(false), wait).await?
            };
            row_result(response.result, cells, &server)
        })
    }

    async fn get_primary(
        &self,
        row: &[u8],
        get: pb::Get,
        wait: Duration,
    ) -> Result<(pb::GetResponse, Vec<Cell>, ServerName)> {
        let request =
            |location: &RegionLocation| pb::GetRequest { region: location.specifier(), get };
        self.call(row, "Get", request, &[], wait).await
    }

    /// Calls the primary, and also the replicas if it does not answer soon. The first answer
    /// counts.
    async fn get_any(
        &self,
        get: &Get,
        wait: Duration,
    ) -> Result<(pb::GetResponse, Vec<Cell>, ServerName)> {
        let shared = &self.connection.shared;
        let deadline = Instant::now() + wait;
        let mut primary = Box::pin(self.get_primary(&get.row, get.to_message(false), wait));
        let soon = tokio::time::timeout(shared.config.primary_wait, &mut primary).await;
        if let Ok(Ok(answer)) = soon {
            return Ok(answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let location = shared.locate(&self.regions, Place::Of(&get.row), left).await?;
        let mut replicas: FuturesUnordered<_> = location
            .replicas
            .iter()
            .map(|(replica, server)| self.get_replica(&location, *replica, server, get, left))
            .collect();
        // The call to the primary is still in progress unless it has failed.
        let mut failed = match soon {
            Ok(answer) => answer.err(),
            Err(_) => None,
        };
        while failed.is_none() || !replicas.is_empty() {
            let answer = tokio::select! {
                biased;
                answer = &mut primary, if failed.is_none() => {
                    if let Err(error) = &answer {
                        failed = Some(error.clone());
                    }
                    answer
                }
                Some(answer) = replicas.next() => answer,
            };
            if answer.is_ok() {
                return answer;
            }
        }
        let what = "an answering replica of the region";
        Err(failed.unwrap_or(Error::NotFoundInTime { what, waited: wait }))
    }

    async fn get_replica(
        &self,
        location: &RegionLocation,
        replica: ReplicaId,
        server: &ServerName,
        get: &Get,
        wait: Duration,
    ) -> Result<(pb::GetResponse, Vec<Cell>, ServerName)> {
        let request = pb::GetRequest {
            region: location.replica_specifier(replica),
            get: get.to_message(false),
        };
        let pool = &self.connection.shared.pool;
        let ask = async {
            let open = pool.get(&server.address(), Service::Client).await?;
            let (response, cells) = open.call_decoded("Get", &request, &[], wait).await?;
            Ok((response, cells, server.clone()))
        };
        within(wait, "a replica", ask).await
    }

    async fn write(&self, name: &'static str, write: RowWrite<'_>) -> Result<(RowResult, bool)> {
        let attempt = |wait| self.write_once(&write, wait);
        self.connection.shared.retried(name, attempt).await
    }

    fn write_once<'a>(
        &'a self,
        write: &'a RowWrite<'_>,
        wait: Duration,
    ) -> BoxFuture<'a, Result<(RowResult, bool)>> {
        Box::pin(self.write_once_here(write, wait))
    }

    async fn write_once_here(
        &self,
        write: &RowWrite<'_>,
        wait: Duration,
    ) -> Result<(RowResult, bool)> {
        let (mutation, cells) = write.cells.to_message(write.kind, write.nonce)?;
        let nonce_group = self.connection.shared.nonce_group;
        let request = |location: &RegionLocation| pb::MutateRequest {
            region: location.specifier(),
            mutation,
            condition: write.condition.clone(),
            nonce_group: (write.nonce != 0).then_some(nonce_group),
        };
        let (response, cells, server): (pb::MutateResponse, _, _) =
            self.call(write.cells.row(), "Mutate", request, cells, wait).await?;
        let processed = response.processed();
        Ok((row_result(response.result, cells, &server)?, processed))
    }

    /// One call to the primary of the region of `row`, including the lookup, within `wait`.
    async fn call<Q: Message, M: Message + Default>(
        &self,
        row: &[u8],
        method: &'static str,
        request: impl FnOnce(&RegionLocation) -> Q,
        cells: &[Cell],
        wait: Duration,
    ) -> Result<(M, Vec<Cell>, ServerName)> {
        let shared = &self.connection.shared;
        let deadline = Instant::now() + wait;
        let location = shared.locate(&self.regions, Place::Of(row), wait).await?;
        let request = request(&location);
        let left = deadline.saturating_duration_since(Instant::now());
        let (message, cells) = self.call_at(&location, method, &request, cells, left).await?;
        Ok((message, cells, location.server.clone()))
    }

    /// One call to the server of `location`.
    pub(crate) async fn call_at<M: Message + Default>(
        &self,
        location: &Arc<RegionLocation>,
        method: &'static str,
        request: &impl Message,
        cells: &[Cell],
        wait: Duration,
    ) -> Result<(M, Vec<Cell>)> {
        let shared = &self.connection.shared;
        let deadline = Instant::now() + wait;
        let address = location.server.address();
        let opened = tokio::time::timeout(wait, shared.pool.get(&address, Service::Client)).await;
        let open = match opened {
            Ok(Ok(open)) => open,
            Ok(Err(error)) => {
                shared.note_failure(&self.regions, location, &error);
                return Err(error.into());
            }
            Err(_) => {
                // The server may have failed silently; the meta table learns that first.
                shared.deny(&self.regions, location);
                let what = "a connection to the region's server";
                return Err(Error::NotFoundInTime { what, waited: wait });
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match open.call_decoded(method, request, cells, left).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                shared.pool.note_failure(&open, Service::Client, &error);
                shared.note_failure(&self.regions, location, &error);
                Err(error.into())
            }
        }
    }
}

// === impl RowWrite ===

impl<'a> RowWrite<'a> {
    fn new(cells: &'a RowCells, kind: MutationType) -> Self {
        Self { cells, kind, nonce: 0, condition: None }
    }
}

fn row_result(
    result: Option<pb::Result>,
    cells: Vec<Cell>,
    server: &ServerName,
) -> Result<RowResult> {
    let result = result.unwrap_or_default();
    let stale = result.stale();
    match message_cells::cells_of(&result, &mut cells.into_iter()) {
        Ok(cells) => Ok(RowResult { cells, stale }),
        Err(source) => Err(Error::BadAnswer { server: server.clone(), source }),
    }
}
