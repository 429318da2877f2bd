//! Tables and servers of a cluster, managed through its master.

use std::time::Duration;

use basalt_hbase_rpc::{Service, meta, pb, schema, znode};
use basalt_model::{ServerName, TableDescriptor, TableName, TableState};
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use crate::connection::within;
use crate::locate::{Place, TableRegions};
use crate::{Connection, Error, RegionLocation, Result};

/// Creates, changes and lists tables; a cheap handle. Methods make attempts until the operation
/// timeout, then wait for the same time again for the master's procedure.
#[derive(Clone, Debug)]
pub struct Admin {
    connection: Connection,
}

/// The servers of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOverview {
    /// The active master.
    pub master: Option<ServerName>,
    /// The standby masters.
    pub backup_masters: Vec<ServerName>,
    /// The live region servers.
    pub live_servers: Vec<ServerName>,
    /// The region servers that are known to be dead.
    pub dead_servers: Vec<ServerName>,
    /// The server's version of HBase.
    pub version: Option<String>,
}

/// The pause before the first check of a procedure; it grows by half each time.
const POLL_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two checks.
const POLL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How many regions are read from the meta table at once.
const REGIONS_PER_CALL: u32 = 1000;

// === impl Admin ===

impl Admin {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Creates a table, split at `split_keys`, and waits until its regions are served.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableExists` if it already exists.
    pub async fn create_table(&self, table: &TableDescriptor, split_keys: &[Bytes]) -> Result<()> {
        let request = pb::CreateTableRequest {
            table_schema: schema::table_to_message(table),
            split_keys: split_keys.to_vec(),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::CreateTableResponse = self.ask("CreateTable", &request).await?;
        self.finish(&table.name, response.proc_id).await
    }

    /// Deletes a table, which must be disabled.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotDisabled` if it is not.
    pub async fn delete_table(&self, table: &TableName) -> Result<()> {
        let request = pb::DeleteTableRequest {
            table_name: schema::table_name_to_message(table),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::DeleteTableResponse = self.ask("DeleteTable", &request).await?;
        self.finish(table, response.proc_id).await
    }

    /// Enables a table, and waits until its regions are served.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotDisabled` if it is enabled.
    pub async fn enable_table(&self, table: &TableName) -> Result<()> {
        let request = pb::EnableTableRequest {
            table_name: schema::table_name_to_message(table),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::EnableTableResponse = self.ask("EnableTable", &request).await?;
        self.finish(table, response.proc_id).await
    }

    /// Disables a table, and waits until none of its regions is served.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotEnabled` if it is disabled.
    pub async fn disable_table(&self, table: &TableName) -> Result<()> {
        let request = pb::DisableTableRequest {
            table_name: schema::table_name_to_message(table),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::DisableTableResponse = self.ask("DisableTable", &request).await?;
        self.finish(table, response.proc_id).await
    }

    /// Deletes all rows of a disabled table and enables it. With `preserve_splits` it keeps the
    /// boundaries of its regions, otherwise it has one region.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotDisabled` if it is enabled.
    pub async fn truncate_table(&self, table: &TableName, preserve_splits: bool) -> Result<()> {
        let request = pb::TruncateTableRequest {
            table_name: schema::table_name_to_message(table),
            preserve_splits: Some(preserve_splits),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::TruncateTableResponse = self.ask("truncateTable", &request).await?;
        self.finish(table, response.proc_id).await
    }

    /// Replaces the descriptor of a table, and waits until its regions are served with the new one.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotFound` if the table does not exist.
    pub async fn modify_table(&self, table: &TableDescriptor) -> Result<()> {
        let request = pb::ModifyTableRequest {
            table_name: schema::table_name_to_message(&table.name),
            table_schema: schema::table_to_message(table),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
            reopen_regions: Some(true),
        };
        let response: pb::ModifyTableResponse = self.ask("ModifyTable", &request).await?;
        self.finish(&table.name, response.proc_id).await
    }

    /// Flushes the regions of a table, and waits for that.
    ///
    /// # Errors
    /// Any [`Error`]; the exception `TableNotEnabled` if it is disabled.
    pub async fn flush_table(&self, table: &TableName) -> Result<()> {
        let request = pb::FlushTableRequest {
            table_name: schema::table_name_to_message(table),
            column_family: Vec::new(),
            nonce_group: Some(self.connection.shared.nonce_group),
            nonce: Some(self.connection.shared.nonce()),
        };
        let response: pb::FlushTableResponse = self.ask("FlushTable", &request).await?;
        self.finish(table, response.proc_id).await
    }

    /// Requests a compaction of the regions of a table. A major compaction rewrites all files of a
    /// region. Does not wait for the compactions, which the servers queue.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn compact_table(&self, table: &TableName, is_major: bool) -> Result<()> {
        let shared = &self.connection.shared;
        let regions = shared.locator.table(table);
        for location in self.regions(table).await? {
            let row = &location.region.start_key;
            let attempt = |wait| self.compact_region(&regions, row, is_major, wait);
            shared.retried("CompactRegion", attempt).await?;
        }
        Ok(())
    }

    /// Runs the balancer now. Returns whether it ran: it does not run while it is switched off, or
    /// while a dead server's regions are being recovered.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn balance(&self) -> Result<bool> {
        let response: pb::BalanceResponse =
            self.ask("Balance", &pb::BalanceRequest::default()).await?;
        Ok(response.balancer_ran)
    }

    /// The names of all tables except HBase's own.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        let request =
            pb::GetTableNamesRequest { include_sys_tables: Some(false), ..Default::default() };
        let response: pb::GetTableNamesResponse = self.ask("GetTableNames", &request).await?;
        let names = response.table_names.iter();
        names.map(|name| Ok(schema::table_name_from_message(name)?)).collect()
    }

    /// The descriptor of a table.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], or any [`Error`].
    pub async fn descriptor(&self, table: &TableName) -> Result<TableDescriptor> {
        let request = pb::GetTableDescriptorsRequest {
            table_names: vec![schema::table_name_to_message(table)],
            include_sys_tables: Some(false),
            ..Default::default()
        };
        let response: pb::GetTableDescriptorsResponse =
            self.ask("GetTableDescriptors", &request).await?;
        match response.table_schema.first() {
            Some(found) => Ok(schema::table_from_message(found)?),
            None => Err(Error::TableNotFound { table: table.clone() }),
        }
    }

    /// The state of a table; `None` if the table does not exist.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn table_state(&self, table: &TableName) -> Result<Option<TableState>> {
        let shared = &self.connection.shared;
        let row = Bytes::from(table.to_string());
        let cells = shared
            .retried("table state", |wait| {
                let read = shared.get_meta(row.clone(), meta::TABLE_FAMILY);
                within(wait, "the table's state", read)
            })
            .await?;
        Ok(meta::parse_table_state(&cells)?)
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn table_exists(&self, table: &TableName) -> Result<bool> {
        Ok(self.table_state(table).await?.is_some())
    }

    /// Whether a table is enabled.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], or any [`Error`].
    pub async fn is_enabled(&self, table: &TableName) -> Result<bool> {
        match self.table_state(table).await? {
            Some(state) => Ok(state == TableState::Enabled),
            None => Err(Error::TableNotFound { table: table.clone() }),
        }
    }

    /// The regions of a table that have a server, in order.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn regions(&self, table: &TableName) -> Result<Vec<RegionLocation>> {
        let shared = &self.connection.shared;
        let mut regions: Vec<RegionLocation> = Vec::new();
        let mut start = meta::first_row(table);
        loop {
            let page = shared
                .retried("regions", |wait| {
                    let read = shared.table_regions(table, &start, REGIONS_PER_CALL);
                    within(wait, "the table's regions", read)
                })
                .await?;
            let full = page.len() >= REGIONS_PER_CALL as usize;
            regions.extend(page);
            match regions.last() {
                // The first row key after the last one.
                Some(last) if full => start = [&last.name[..], b"\0"].concat().into(),
                _ => return Ok(regions),
            }
        }
    }

    /// The servers of the cluster.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn cluster(&self) -> Result<ClusterOverview> {
        let options = [
            pb::Option::Master,
            pb::Option::BackupMasters,
            pb::Option::LiveServers,
            pb::Option::ServersName,
            pb::Option::DeadServers,
            pb::Option::HbaseVersion,
        ];
        let request = pb::GetClusterStatusRequest { options: options.map(i32::from).to_vec() };
        let response: pb::GetClusterStatusResponse = self.ask("GetClusterStatus", &request).await?;
        let status = response.cluster_status;
        let names = |servers: &[pb::ServerName]| -> Result<Vec<ServerName>> {
            servers.iter().map(|server| Ok(znode::server_from_message(server)?)).collect()
        };
        let live: Vec<_> = match &status.servers_name[..] {
            [] => status.live_servers.into_iter().map(|live| live.server).collect(),
            names => names.to_vec(),
        };
        Ok(ClusterOverview {
            master: names(status.master.as_slice())?.pop(),
            backup_masters: names(&status.backup_masters)?,
            live_servers: names(&live)?,
            dead_servers: names(&status.dead_servers)?,
            version: status.hbase_version.map(|version| version.version),
        })
    }

    /// The active master according to the registry. The master itself is not called.
    ///
    /// # Errors
    /// The registry does not answer, or knows no active master.
    pub async fn active_master(&self) -> Result<ServerName> {
        let shared = &self.connection.shared;
        shared.registry.active_master(&shared.pool, shared.config.lookup_timeout).await
    }

    /// Calls the active master, or its successor.
    async fn ask<M: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<M> {
        let shared = &self.connection.shared;
        let attempt = |wait| async move {
            let deadline = Instant::now() + wait;
            let lookup = wait.min(shared.config.lookup_timeout);
            let find = async {
                let master = shared.registry.active_master(&shared.pool, lookup).await?;
                Ok(shared.pool.get(&master.address(), Service::Master).await?)
            };
            let master = within(wait, "the active master", find).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            match master.call_decoded(method, request, &[], left).await {
                Ok((response, _)) => Ok(response),
                Err(error) => {
                    shared.pool.note_failure(&master, Service::Master, &error);
                    Err(error.into())
                }
            }
        };
        shared.retried(method, attempt).await
    }

    /// Calls the server of the region that has `row`, once.
    async fn compact_region(
        &self,
        regions: &TableRegions,
        row: &[u8],
        is_major: bool,
        wait: Duration,
    ) -> Result<()> {
        let shared = &self.connection.shared;
        let deadline = Instant::now() + wait;
        let location = shared.locate(regions, Place::Of(row), wait).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let address = location.server.address();
        let connect = async { Ok(shared.pool.get(&address, Service::Admin).await?) };
        let server = match within(left, "the region's server", connect).await {
            Ok(server) => server,
            Err(error) => {
                shared.deny(regions, &location);
                return Err(error);
            }
        };
        let request = pb::CompactRegionRequest {
            region: location.specifier(),
            major: Some(is_major),
            family: None,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let answer: std::result::Result<(pb::CompactRegionResponse, _), _> =
            server.call_decoded("CompactRegion", &request, &[], left).await;
        answer.map(drop).map_err(|error| {
            shared.pool.note_failure(&server, Service::Admin, &error);
            shared.note_failure(regions, &location, &error);
            error.into()
        })
    }

    /// Waits for a procedure of the master, then forgets the cached regions of the table.
    async fn finish(&self, table: &TableName, procedure_id: Option<u64>) -> Result<()> {
        use pb::get_procedure_result_response::State;
        let shared = &self.connection.shared;
        let waited = shared.config.retry.operation_timeout;
        let deadline = Instant::now() + waited;
        let mut pause = POLL_PAUSE_MIN;
        while let Some(proc_id) = procedure_id {
            let request = pb::GetProcedureResultRequest { proc_id };
            let response: pb::GetProcedureResultResponse =
                self.ask("getProcedureResult", &request).await?;
            if let Some(failure) = &response.exception {
                shared.locator.forget(table);
                return Err(failed(proc_id, failure));
            }
            match response.state() {
                State::Running => {}
                State::Finished => break,
                State::NotFound => {
                    let reason = "the master does not (or no longer) know it".to_owned();
                    return Err(Error::Procedure { procedure_id: proc_id, reason });
                }
            }
            if Instant::now() + pause >= deadline {
                let reason = format!("not finished within {waited:?}");
                return Err(Error::Procedure { procedure_id: proc_id, reason });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL_PAUSE_MAX);
        }
        shared.locator.forget(table);
        Ok(())
    }
}

fn failed(procedure_id: u64, failure: &pb::ForeignExceptionMessage) -> Error {
    let generic = failure.generic_exception.clone().unwrap_or_default();
    let reason = format!(
        "{}: {}",
        generic.class_name.unwrap_or_default(),
        generic.message.unwrap_or_default()
    );
    Error::Procedure { procedure_id, reason }
}
