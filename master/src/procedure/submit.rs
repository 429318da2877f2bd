//! Accepts requests of clients as procedures, or rejects them with the reason.
//!
//! A request is checked and accepted in one multi. The same multi writes the table's new state and
//! the procedure that will change the table, so that of two conflicting requests one is rejected.
//! It follows that a table has at most one unfinished procedure.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_cluster::TableRecord;
use basalt_hbase_rpc::{Exception, ExceptionKind};
use basalt_model::{Feature, RegionInfo, ServerName, TableDescriptor, TableName, TableState};
use basalt_planted::{Rule, is_off};
use basalt_zk::Op;
use basalt_zk::proto::ErrorCode;
use bytes::Bytes;

use super::execute;
use super::procedure_store::UNFINISHED_MAX;
use super::record::{
    Nonce, Procedure, Recovery, RecoveryStep, TruncateStep, Work, regions_between,
};
use crate::epoch_guarded_store;
use crate::error::CommitError;
use crate::term::Term;
use crate::view::View;

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The client receives this exception.
    #[error("{0}")]
    Refused(Exception),
    /// This master is no longer active.
    #[error("another master is active")]
    Deposed,
}

/// A server's death, and how the master learnt of it.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) server: ServerName,
    /// From the server's record, as far as it is known.
    pub(crate) boot_id: String,
    pub(crate) instance: String,
    pub(crate) cause: &'static str,
    pub(crate) learnt_ms: u64,
    /// Whether the server's node still has to be deleted.
    pub(crate) is_registered: bool,
}

// === impl Term ===

impl Term {
    /// Creates a table.
    ///
    /// # Errors
    /// The table already exists, its namespace does not exist, or too many procedures are
    /// unfinished.
    pub(crate) async fn create_table(
        self: &Arc<Self>,
        descriptor: TableDescriptor,
        split_keys: Vec<Bytes>,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let _turn = self.submissions.lock().await;
        if let Some(id) = self.known(nonce) {
            return Ok(id);
        }
        self.check_room()?;
        let table = descriptor.name.clone();
        let now_ms = self.clock.wall_ms();
        self.check_names(&table, &split_keys, now_ms)?;
        let nodes = self.store.nodes();
        let record = TableRecord::new(descriptor, TableState::Enabling);
        let writes = vec![
            epoch_guarded_store::exists(nodes.namespace(table.namespace())),
            epoch_guarded_store::create(nodes.table(&table), record.encode()),
        ];
        let work = Work::CreateTable { table: table.clone(), split_keys, region_id: now_ms };
        match self.submit(Procedure::new(work, nonce, now_ms), writes).await {
            Err(error) if error.is(0, ErrorCode::NoNode) => {
                let namespace = table.namespace();
                Err(refused(ExceptionKind::NamespaceNotFound, namespace.to_owned()))
            }
            Err(error) if error.is(1, ErrorCode::NodeExists) => {
                Err(refused(ExceptionKind::TableExists, table.to_string()))
            }
            outcome => outcome.map_err(not_submitted),
        }
    }

    /// Deletes a disabled table.
    ///
    /// # Errors
    /// The table does not exist or is not disabled, or too many procedures are unfinished.
    pub(crate) async fn delete_table(
        self: &Arc<Self>,
        table: TableName,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let work = Work::DeleteTable { table: table.clone() };
        // The table must not be enabled while it is being deleted.
        let change = (TableState::Disabled, TableState::Disabling);
        self.change_state(table, change, ExceptionKind::TableNotDisabled, work, nonce).await
    }

    /// Empties a disabled table and enables it.
    ///
    /// # Errors
    /// The table does not exist or is not disabled, or too many procedures are unfinished.
    pub(crate) async fn truncate_table(
        self: &Arc<Self>,
        table: TableName,
        preserve_splits: bool,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        self.check_feature(Feature::TruncateTable, "truncating a table")
            .map_err(SubmitError::Refused)?;
        let view = self.views.now();
        let infos: Vec<_> =
            view.of_table(&table).into_iter().map(|region| &region.record.info).collect();
        let starts = infos.iter().map(|info| info.start_key.clone());
        let split_keys: Vec<Bytes> =
            starts.filter(|key| preserve_splits && !key.is_empty()).collect();
        // The new regions need unique names, whatever the clock says.
        let last_id = infos.iter().map(|info| info.region_id).max().unwrap_or(0);
        let region_id = self.clock.wall_ms().max(last_id.saturating_add(1));
        self.check_names(&table, &split_keys, region_id)?;
        let step = TruncateStep::Clearing;
        let work = Work::TruncateTable { table: table.clone(), split_keys, region_id, step };
        // The table must not be enabled while its regions are being deleted.
        let change = (TableState::Disabled, TableState::Disabling);
        self.change_state(table, change, ExceptionKind::TableNotDisabled, work, nonce).await
    }

    /// Opens the regions of a disabled table.
    ///
    /// # Errors
    /// The table does not exist or is not disabled, or too many procedures are unfinished.
    pub(crate) async fn enable_table(
        self: &Arc<Self>,
        table: TableName,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let work = Work::EnableTable { table: table.clone() };
        let change = (TableState::Disabled, TableState::Enabling);
        self.change_state(table, change, ExceptionKind::TableNotDisabled, work, nonce).await
    }

    /// Closes the regions of an enabled table.
    ///
    /// # Errors
    /// The table does not exist or is not enabled, or too many procedures are unfinished.
    pub(crate) async fn disable_table(
        self: &Arc<Self>,
        table: TableName,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let work = Work::DisableTable { table: table.clone() };
        let change = (TableState::Enabled, TableState::Disabling);
        self.change_state(table, change, ExceptionKind::TableNotEnabled, work, nonce).await
    }

    /// Replaces a table's descriptor with the result of `change`. The regions of an enabled table
    /// are reopened with the new descriptor.
    ///
    /// # Errors
    /// The table does not exist, `change` rejects the descriptor, another procedure is changing the
    /// table, a family that is added was removed and a region may still serve it, or too many
    /// procedures are unfinished.
    pub(crate) async fn modify_table(
        self: &Arc<Self>,
        table: TableName,
        change: impl FnOnce(TableDescriptor) -> Result<TableDescriptor, Exception>,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let work = Work::ModifyTable { table: table.clone() };
        let are_recorded = self.feature_level.lock().has(Feature::FamilyIncarnations);
        let mut must_reopen = false;
        let change = |known: TableRecord, version: i32| match known.state {
            TableState::Enabled | TableState::Disabled => {
                let descriptor = change(known.descriptor.clone())?;
                if let Some(family) = known.still_served(&descriptor)
                    && !is_off(Rule::RemovedFamilies)
                {
                    must_reopen = true;
                    return Err(being_removed(&known.descriptor.name, family));
                }
                let next_version = u64::try_from(version).unwrap_or_default() + 1;
                Ok(Some(known.with_descriptor(descriptor, next_version, are_recorded)))
            }
            TableState::Enabling | TableState::Disabling => Ok(None),
        };
        let otherwise = (ExceptionKind::PleaseHold, format!("{table} is being changed"));
        let submitted = self.change_table(table.clone(), change, otherwise, work, nonce).await;
        if must_reopen {
            self.reopen_table(table).await?;
        }
        submitted
    }

    /// Completes the last alteration of a table, whose procedure failed: reopens all of the table's
    /// regions, unless another procedure is changing the table.
    async fn reopen_table(self: &Arc<Self>, table: TableName) -> Result<(), SubmitError> {
        let _turn = self.submissions.lock().await;
        self.check_room()?;
        if self.procedure_store.is_busy(&table) {
            return Ok(());
        }
        let exists = epoch_guarded_store::exists(self.store.nodes().table(&table));
        let work = Work::ModifyTable { table };
        let procedure = Procedure::new(work, None, self.clock.wall_ms());
        self.submit(procedure, vec![exists]).await.map_err(not_submitted)?;
        Ok(())
    }

    /// Flushes the regions of an enabled table.
    ///
    /// # Errors
    /// The table does not exist or is not enabled, or too many procedures are unfinished.
    pub(crate) async fn flush_table(
        self: &Arc<Self>,
        table: TableName,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let _turn = self.submissions.lock().await;
        if let Some(id) = self.known(nonce) {
            return Ok(id);
        }
        self.check_room()?;
        match self.read_table_record(&table).await?.0.state {
            TableState::Enabled => {
                let work = Work::FlushTable { table };
                let procedure = Procedure::new(work, nonce, self.clock.wall_ms());
                self.submit(procedure, Vec::new()).await.map_err(not_submitted)
            }
            _ => Err(refused(ExceptionKind::TableNotEnabled, table.to_string())),
        }
    }

    /// Checks that the regions of a table get unique names. Regions are identified by the MD5 of
    /// their names, which may collide.
    fn check_names(
        &self,
        table: &TableName,
        split_keys: &[Bytes],
        region_id: u64,
    ) -> Result<(), SubmitError> {
        let taken = names_taken(&self.views.now(), &regions_between(table, split_keys, region_id));
        let refusal = |message| refused(ExceptionKind::FailedSanityCheck, message);
        taken.map_or(Ok(()), |message| Err(refusal(message)))
    }

    /// Declares a server dead and starts its recovery. Does nothing if the recovery is unfinished.
    ///
    /// # Errors
    /// A rejected write; index 0 means that the server's node is already deleted. Or
    /// [`CommitError::Deposed`].
    pub(crate) async fn recover_server(
        self: &Arc<Self>,
        death: Death,
        mut writes: Vec<Op>,
    ) -> Result<(), CommitError> {
        if self.procedure_store.recovering().contains_key(&death.server) {
            return Ok(());
        }
        if death.is_registered {
            writes.insert(0, epoch_guarded_store::delete(self.store.nodes().server(&death.server)));
        }
        let now_ms = self.clock.wall_ms();
        let recovery = Recovery {
            server: death.server.clone(),
            boot_id: death.boot_id,
            instance: death.instance,
            cause: death.cause.to_owned(),
            learnt_ms: death.learnt_ms,
            step: RecoveryStep::Detected,
            regions: 0,
            wal_bytes: 0,
            detect_ms: now_ms.saturating_sub(death.learnt_ms),
            fence_ms: 0,
            split_ms: 0,
            assign_ms: 0,
        };
        let procedure = Procedure::new(Work::RecoverServer(recovery), None, now_ms);
        self.submit(procedure, writes).await?;
        Ok(())
    }

    /// Submits work on a table in state `from`, and puts the table into state `to`.
    async fn change_state(
        self: &Arc<Self>,
        table: TableName,
        (from, to): (TableState, TableState),
        otherwise: ExceptionKind,
        work: Work,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let change = |known: TableRecord, _| {
            Ok((known.state == from).then_some(TableRecord { state: to, ..known }))
        };
        let otherwise = (otherwise, table.to_string());
        self.change_table(table, change, otherwise, work, nonce).await
    }

    /// Submits work on a table, and replaces its record with the result of `change`, which gets the
    /// record and its version. Fails with `otherwise` if `change` returns `None`, or if another
    /// procedure is changing the table.
    async fn change_table(
        self: &Arc<Self>,
        table: TableName,
        change: impl FnOnce(TableRecord, i32) -> Result<Option<TableRecord>, Exception>,
        otherwise: (ExceptionKind, String),
        work: Work,
        nonce: Option<Nonce>,
    ) -> Result<u64, SubmitError> {
        let _turn = self.submissions.lock().await;
        if let Some(id) = self.known(nonce) {
            return Ok(id);
        }
        self.check_room()?;
        let otherwise = || refused(otherwise.0, otherwise.1.clone());
        let (known, version) = self.read_table_record(&table).await?;
        let changed = change(known, version).map_err(SubmitError::Refused)?;
        let record = changed.ok_or_else(otherwise)?;
        if self.procedure_store.is_busy(&table) {
            return Err(refused(ExceptionKind::PleaseHold, format!("{table} is being changed")));
        }
        let path = self.store.nodes().table(&table);
        let writes = vec![epoch_guarded_store::replace(path, record.encode(), version)];
        let procedure = Procedure::new(work, nonce, self.clock.wall_ms());
        match self.submit(procedure, writes).await {
            // Another request came first.
            Err(CommitError::Refused { .. }) => Err(otherwise()),
            outcome => outcome.map_err(not_submitted),
        }
    }

    /// The record of a table and its version. It is read from the coordinator instead of the
    /// watched copy, because the client may have just learnt of the present state from another
    /// server.
    async fn read_table_record(
        &self,
        table: &TableName,
    ) -> Result<(TableRecord, i32), SubmitError> {
        let path = self.store.nodes().table(table);
        let (data, stat) = match self.store.client().get_data(&path).await {
            Ok(read) => read,
            Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                return Err(refused(ExceptionKind::TableNotFound, table.to_string()));
            }
            Err(error) => return Err(not_submitted(CommitError::Unknown(error))),
        };
        let known = TableRecord::decode(&data)
            .map_err(|error| refused(ExceptionKind::Other, error.to_string()))?;
        Ok((known, stat.version))
    }

    async fn submit(
        self: &Arc<Self>,
        procedure: Procedure,
        writes: Vec<Op>,
    ) -> Result<u64, CommitError> {
        let name = procedure.work.name();
        let table = procedure.work.table().map(ToString::to_string);
        let id = self.procedure_store.submit(&self.store, procedure, writes).await?;
        tracing::info!(id, name, table, "procedure submitted");
        execute(self, id);
        Ok(id)
    }

    fn known(&self, nonce: Option<Nonce>) -> Option<u64> {
        self.procedure_store.with_nonce(nonce?)
    }

    fn check_room(&self) -> Result<(), SubmitError> {
        if self.procedure_store.unfinished().len() < UNFINISHED_MAX {
            return Ok(());
        }
        let message = format!("there are already {UNFINISHED_MAX} unfinished procedures");
        Err(refused(ExceptionKind::CallQueueTooBig, message))
    }
}

/// What is wrong with the names of `regions`, if two of them have the same encoded name, or if one
/// has the encoded name of another table's region.
fn names_taken(view: &View, regions: &[RegionInfo]) -> Option<String> {
    let mut names = BTreeMap::new();
    for region in regions {
        let name = region.encoded_name();
        if let Some(other) = names.insert(name, region) {
            let (one, other) = (other.start_key.escape_ascii(), region.start_key.escape_ascii());
            return Some(format!(
                "the regions that begin at {one} and {other} have the same encoded name {name}: \
                 leave out one of these split keys"
            ));
        }
        let known = view.regions.get(&name).map(|known| &known.record.info);
        if let Some(other) = known.filter(|known| *known != region) {
            let key = region.start_key.escape_ascii();
            return Some(format!(
                "the region that begins at {key} has the same encoded name {name} as {other}: \
                 leave out this split key"
            ));
        }
    }
    None
}

/// Clients retry after this exception.
fn being_removed(table: &TableName, family: &str) -> Exception {
    let message = format!(
        "{table} had a family {family:?} that was removed, and some regions may still serve it: \
         they are reopened first"
    );
    Exception::new(ExceptionKind::PleaseHold, message)
}

fn refused(kind: ExceptionKind, message: String) -> SubmitError {
    SubmitError::Refused(Exception::new(kind, message))
}

fn not_submitted(error: CommitError) -> SubmitError {
    match error {
        CommitError::Deposed => SubmitError::Deposed,
        // Clients retry after this exception.
        error => refused(ExceptionKind::PleaseHold, error.to_string()),
    }
}
