//! Writes region records: in bulk, each on condition of the version on which it was decided.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::catalog::{SharedRegion, Versioned};
use basalt_cluster::{RegionRecord, TableRecord};
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableName};
use basalt_planted::{Rule, is_off};
use basalt_zk::proto::{ErrorCode, Stat};
use basalt_zk::{Op, OpResult};
use futures::StreamExt;

use crate::epoch_guarded_store;
use crate::error::{CommitError, StepError};
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// How many records are read at once.
const READS_AT_ONCE: usize = 64;
/// The pause after a batch with an unknown outcome.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

// === impl Term ===

impl Term {
    /// Writes region records in as few multis as possible. If the conditions of a batch do not
    /// hold, the batch is skipped, and the state that contradicts it is read again for the next
    /// decision.
    ///
    /// A multi that names a new owner checks that the owner is registered. So everything that is
    /// written before a server is declared dead is visible to that server's recovery. A region
    /// becomes OPENING only while its table's record is the one on which this was decided, and the
    /// table must be served. Other writes of this kind are skipped. Returns what was written.
    ///
    /// # Errors
    /// This master is no longer active, or the coordinator cannot be read.
    pub(crate) async fn write_regions(
        &self,
        writes: Vec<RegionWrite>,
    ) -> Result<Vec<SharedRegion>, StepError> {
        let nodes = self.store.nodes();
        let view = self.views.now();
        let writes = writes.into_iter().filter(|write| is_allowed(&view, write));
        let operations = writes.map(|write| {
            let path = nodes.region(write.name);
            let operation =
                epoch_guarded_store::replace(path, write.record.encode(), write.over_version);
            (write, operation)
        });
        let bytes_of = |(write, operation): &(RegionWrite, Op)| {
            // Counts the check of the table for each region, as if it were the only one of its
            // table.
            let checked =
                opened_table(write).map(|table| epoch_guarded_store::exists(nodes.table(table)));
            let checked = checked.iter().map(epoch_guarded_store::operation_bytes).sum::<usize>();
            epoch_guarded_store::operation_bytes(operation) + checked
        };
        let mut written = Vec::new();
        for batch in epoch_guarded_store::batches(operations.collect(), bytes_of) {
            let (batch, replacements): (Vec<RegionWrite>, Vec<Op>) = batch.into_iter().unzip();
            let owners: Vec<ServerName> = named_owners(&batch).into_iter().collect();
            let tables = opened_tables(&view, &batch);
            let mut operations: Vec<Op> = owners
                .iter()
                .map(|owner| epoch_guarded_store::exists(nodes.server(owner)))
                .collect();
            let checks = tables.iter();
            operations.extend(checks.map(|(table, version)| Op::Check {
                path: nodes.table(table),
                version: (!is_off(Rule::TableVersionAtOpening)).then_some(*version),
            }));
            operations.extend(replacements);
            match self.store.commit(operations).await {
                Ok(results) => {
                    let regions = committed(batch, &results[owners.len() + tables.len()..]);
                    self.views.learn(regions.iter().cloned());
                    written.extend(regions);
                }
                Err(CommitError::Refused { index, code }) => {
                    tracing::debug!(index, %code, "a batch of region records was rejected");
                    let table = index.checked_sub(owners.len()).and_then(|at| tables.get(at));
                    match (owners.get(index), table) {
                        (Some(owner), _) if code == ErrorCode::NoNode => {
                            self.views.mark_dead(owner.clone());
                        }
                        (_, Some((table, _))) => {
                            self.read_table(table).await?;
                        }
                        _ => self.read_regions(batch.iter().map(|write| write.name)).await?,
                    }
                }
                Err(CommitError::Unknown(error)) => {
                    tracing::warn!(%error, "the outcome of writing region records is unknown");
                    tokio::time::sleep(UNKNOWN_PAUSE).await;
                    self.read_regions(batch.iter().map(|write| write.name)).await?;
                }
                Err(error @ CommitError::Deposed) => return Err(error.into()),
            }
        }
        Ok(written)
    }

    /// Reads the record of a table from the coordinator into the view. Returns `None` if there is
    /// none.
    ///
    /// # Errors
    /// The coordinator cannot be read.
    pub(crate) async fn read_table(
        &self,
        table: &TableName,
    ) -> Result<Option<Versioned<TableRecord>>, StepError> {
        match self.store.client().get_data(&self.store.nodes().table(table)).await {
            Ok((data, stat)) => {
                let record = TableRecord::decode(&data)?;
                let read = Versioned { record, version: stat.version, zxid: stat.mzxid.0 };
                self.views.learn_table(read.clone());
                Ok(Some(read))
            }
            Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                self.views.forget_table(table);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads region records from the coordinator into the view.
    ///
    /// # Errors
    /// The coordinator cannot be read.
    pub(crate) async fn read_regions(
        &self,
        names: impl IntoIterator<Item = EncodedRegionName>,
    ) -> Result<(), StepError> {
        let nodes = self.store.nodes();
        let client = self.store.client();
        let reads: Vec<_> = names
            .into_iter()
            .map(|name| async move { (name, client.get_data(&nodes.region(name)).await) })
            .collect();
        let mut reads = futures::stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok((data, stat)) => {
                    self.views.learn([versioned(RegionRecord::decode(&data)?, &stat)]);
                }
                Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                    self.views.forget(&[name]);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads all region records from the coordinator itself, not from a copy.
    ///
    /// # Errors
    /// The coordinator cannot be read, or holds an invalid record.
    pub(crate) async fn read_all_regions(&self) -> Result<Vec<RegionRecord>, StepError> {
        let nodes = self.store.nodes();
        let client = self.store.client();
        client.sync(nodes.parent()).await?;
        let buckets: Vec<_> =
            (0..basalt_cluster::REGION_BUCKETS)
                .map(|bucket| async move {
                    client.get_children(&nodes.region_bucket(bucket as u8)).await
                })
                .collect();
        let mut buckets = futures::stream::iter(buckets).buffered(READS_AT_ONCE);
        let mut names: Vec<EncodedRegionName> = Vec::new();
        while let Some(bucket) = buckets.next().await {
            let (children, _) = bucket?;
            names.extend(children.iter().filter_map(|name| name.parse::<EncodedRegionName>().ok()));
        }
        let reads: Vec<_> = names
            .into_iter()
            .map(|name| async move { client.get_data(&nodes.region(name)).await })
            .collect();
        let mut reads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        let mut regions = Vec::new();
        while let Some(read) = reads.next().await {
            match read {
                Ok((data, _)) => regions.push(RegionRecord::decode(&data)?),
                Err(error) if error.code() == Some(ErrorCode::NoNode) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(regions)
    }

    /// Creates the records of regions that have never had an owner. Existing records stay as they
    /// are.
    ///
    /// # Errors
    /// This master is no longer active, or the coordinator does not answer.
    pub(crate) async fn create_regions(&self, records: Vec<RegionRecord>) -> Result<(), StepError> {
        let mut missing = records;
        loop {
            let known = self.views.now();
            missing.retain(|record| !known.regions.contains_key(&record.encoded_name()));
            if missing.is_empty() {
                return Ok(());
            }
            let operations = missing.iter().map(|record| {
                let path = self.store.nodes().region(record.encoded_name());
                epoch_guarded_store::create(path, record.encode())
            });
            let operations: Vec<Op> = operations.collect();
            let mut done = 0;
            for batch in
                epoch_guarded_store::batches(operations, epoch_guarded_store::operation_bytes)
            {
                let records = missing[done..done + batch.len()].to_vec();
                done += batch.len();
                match self.store.commit(batch).await {
                    Ok(results) => self.views.learn(created(records, &results)),
                    Err(CommitError::Refused { code: ErrorCode::NodeExists, .. }) => {
                        self.read_regions(records.iter().map(RegionRecord::encoded_name)).await?;
                        self.check_same_regions(&records)?;
                    }
                    Err(CommitError::Unknown(error)) => {
                        tracing::warn!(%error, "the outcome of creating regions is unknown");
                        tokio::time::sleep(UNKNOWN_PAUSE).await;
                        self.read_regions(records.iter().map(RegionRecord::encoded_name)).await?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// A region whose encoded name belongs to another region can never be created.
    fn check_same_regions(&self, records: &[RegionRecord]) -> Result<(), StepError> {
        let taken = records.iter().find_map(|record| {
            let known = self.views.region(record.encoded_name())?;
            (known.record.info != record.info).then_some((record, known))
        });
        let Some((record, known)) = taken else { return Ok(()) };
        let (name, of) = (record.encoded_name(), &known.record.info);
        let reason = format!("the encoded name {name} of {} is already used by {of}", record.info);
        Err(StepError::Impossible(reason))
    }

    /// Deletes the records of closed regions, as far as they still exist.
    ///
    /// # Errors
    /// This master is no longer active, or the coordinator does not answer.
    pub(crate) async fn delete_regions(
        &self,
        names: Vec<EncodedRegionName>,
    ) -> Result<(), StepError> {
        let nodes = self.store.nodes();
        let operations: Vec<(EncodedRegionName, Op)> = names
            .into_iter()
            .map(|name| (name, epoch_guarded_store::delete(nodes.region(name))))
            .collect();
        let bytes_of = |(_, op): &(EncodedRegionName, Op)| epoch_guarded_store::operation_bytes(op);
        for batch in epoch_guarded_store::batches(operations, bytes_of) {
            let (names, operations): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            match self.store.commit(operations.clone()).await {
                Ok(_) => {}
                Err(CommitError::Refused { code: ErrorCode::NoNode, .. }) => {
                    for operation in operations {
                        match self.store.commit(vec![operation]).await {
                            Ok(_) | Err(CommitError::Refused { .. }) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
            self.views.forget(&names);
        }
        Ok(())
    }
}

/// The table of the region, if the write makes it OPENING.
fn opened_table(write: &RegionWrite) -> Option<&TableName> {
    (write.record.state == RegionState::Opening).then_some(&write.record.info.table)
}

/// Whether a region may be written like this. It may become OPENING only if its table must be
/// served.
fn is_allowed(view: &View, write: &RegionWrite) -> bool {
    is_off(Rule::TableVersionAtOpening)
        || opened_table(write).is_none_or(|table| view.is_to_be_served(table))
}

/// The tables of the regions that a batch makes OPENING, with the version of each table's record.
fn opened_tables(view: &View, batch: &[RegionWrite]) -> Vec<(TableName, i32)> {
    let tables: BTreeSet<&TableName> = batch.iter().filter_map(opened_table).collect();
    let versioned = |table: &TableName| Some((table.clone(), view.tables.get(table)?.version));
    tables.into_iter().filter_map(versioned).collect()
}

/// The servers that a batch names as new owners.
fn named_owners(batch: &[RegionWrite]) -> BTreeSet<ServerName> {
    let opening = batch.iter().filter(|write| write.record.state == RegionState::Opening);
    opening.filter_map(|write| write.record.server.clone()).collect()
}

fn committed(batch: Vec<RegionWrite>, results: &[OpResult]) -> Vec<SharedRegion> {
    let regions = batch.into_iter().zip(results).filter_map(|(write, result)| match result {
        OpResult::SetData(stat) => Some(versioned(write.record, stat)),
        _ => None,
    });
    regions.collect()
}

fn created(records: Vec<RegionRecord>, results: &[OpResult]) -> Vec<SharedRegion> {
    let regions = records.into_iter().zip(results).filter_map(|(record, result)| match result {
        OpResult::Create { stat, .. } => Some(versioned(record, stat)),
        _ => None,
    });
    regions.collect()
}

fn versioned(record: RegionRecord, stat: &Stat) -> SharedRegion {
    Arc::new(Versioned { record, version: stat.version, zxid: stat.mzxid.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{server, view};
    use basalt_model::TableState;

    #[test]
    fn a_region_is_opened_only_in_a_table_that_is_to_be_served_and_as_it_was_seen() {
        let mut view = view(&["a"], 2);
        let regions: Vec<SharedRegion> = view.regions.values().cloned().collect();
        let opening = regions
            .iter()
            .map(|region| RegionWrite::over(region, region.record.assigned_to(server("b"))));
        let opening: Vec<_> = opening.collect();
        let mut closing = opening[0].clone();
        closing.record.state = RegionState::Closing;
        let table: TableName = "t".parse().unwrap();
        view.tables.get_mut(&table).unwrap().version = 7;
        assert_eq!(opened_tables(&view, &opening), [(table, 7)], "checked once for all");
        assert_eq!(opened_tables(&view, std::slice::from_ref(&closing)), []);
        assert!(is_allowed(&view, &opening[0]));
        for state in [TableState::Disabling, TableState::Disabled] {
            view.tables.values_mut().for_each(|table| table.record.state = state);
            assert!(!is_allowed(&view, &opening[0]), "{state:?}");
            assert!(is_allowed(&view, &closing), "it may be closed in any");
        }
        view.tables.clear();
        assert!(!is_allowed(&view, &opening[0]), "the table is gone");
    }

    #[test]
    fn a_batch_names_each_new_owner_once() {
        let view = view(&["a"], 2);
        let mut writes: Vec<_> = view
            .regions
            .values()
            .map(|region| RegionWrite::over(region, region.record.assigned_to(server("b"))))
            .collect();
        writes[1].record.state = RegionState::Closed;
        assert_eq!(named_owners(&writes), [server("b")].into());
    }
}
