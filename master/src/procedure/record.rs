//! The records of procedures, as checked values.

use basalt_cluster::{pb as cluster, records};
use basalt_model::{Feature, FeatureLevel, RegionInfo, ServerName, TableName};
use bytes::Bytes;
use prost::Message;

use super::pb;
use crate::locks::Mode;

/// Work that survives the master that accepted it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Procedure {
    pub(crate) submitted_ms: u64,
    pub(crate) updated_ms: u64,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) work: Work,
    /// The tables that the procedure locks, in this order.
    pub(crate) locks: Vec<(TableName, Mode)>,
    pub(crate) outcome: Option<ProcedureOutcome>,
}

/// A client's id of a request that it may send twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Nonce {
    pub(crate) group: u64,
    pub(crate) number: u64,
}

/// The work of a procedure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    CreateTable { table: TableName, split_keys: Vec<Bytes>, region_id: u64 },
    DeleteTable { table: TableName },
    EnableTable { table: TableName },
    DisableTable { table: TableName },
    FlushTable { table: TableName },
    ModifyTable { table: TableName },
    TruncateTable { table: TableName, split_keys: Vec<Bytes>, region_id: u64, step: TruncateStep },
    RecoverServer(Recovery),
}

/// The progress of a truncation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TruncateStep {
    /// The old regions and their files are being deleted.
    Clearing,
    /// The new regions are being created.
    Creating,
}

/// The result of a procedure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProcedureOutcome {
    Done,
    Failed { exception: String, message: String },
}

/// The recovery of a dead server, and its progress.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recovery {
    pub(crate) server: ServerName,
    pub(crate) boot_id: String,
    pub(crate) instance: String,
    pub(crate) cause: String,
    pub(crate) learnt_ms: u64,
    pub(crate) step: RecoveryStep,
    pub(crate) regions: u32,
    pub(crate) wal_bytes: u64,
    pub(crate) detect_ms: u64,
    pub(crate) fence_ms: u64,
    pub(crate) split_ms: u64,
    pub(crate) assign_ms: u64,
}

/// The last completed step of a recovery.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum RecoveryStep {
    /// The server is declared dead.
    Detected,
    /// Every region has another owner.
    Assigned,
}

// === impl Procedure ===

impl Procedure {
    pub(crate) fn new(work: Work, nonce: Option<Nonce>, now_ms: u64) -> Self {
        let locks = work.locks();
        Self { submitted_ms: now_ms, updated_ms: now_ms, nonce, work, locks, outcome: None }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Decodes a record, for a master that knows the feature levels up to `known`.
    ///
    /// # Errors
    /// The record is invalid, or needs a higher level.
    pub(crate) fn decode(bytes: &[u8], known: FeatureLevel) -> Result<Self, basalt_cluster::Error> {
        let record = records::decode::<pb::ProcedureRecord>("procedure", bytes)?;
        let nonce = Nonce { group: record.nonce_group, number: record.nonce };
        let outcome = record.finished.then_some(match record.failure {
            None => ProcedureOutcome::Done,
            Some(failure) => {
                ProcedureOutcome::Failed { exception: failure.exception, message: failure.message }
            }
        });
        let work = read_work(record.work.ok_or_else(no_work)?)?;
        if work.level() > known {
            return Err(basalt_cluster::Error::Undecodable {
                record: "procedure",
                reason: format!(
                    "it needs feature level {}, but this release knows {known}",
                    work.level()
                ),
            });
        }
        let locks = match record.locks.is_empty() {
            true => work.locks(),
            false => record.locks.iter().map(read_lock).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            submitted_ms: record.submitted_ms,
            updated_ms: record.updated_ms,
            nonce: nonce.given(),
            work,
            locks,
            outcome,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let failure = match &self.outcome {
            Some(ProcedureOutcome::Failed { exception, message }) => {
                Some(pb::Failure { exception: exception.clone(), message: message.clone() })
            }
            Some(ProcedureOutcome::Done) | None => None,
        };
        let record = pb::ProcedureRecord {
            submitted_ms: self.submitted_ms,
            updated_ms: self.updated_ms,
            nonce_group: self.nonce.map_or(0, |nonce| nonce.group),
            nonce: self.nonce.map_or(0, |nonce| nonce.number),
            finished: self.is_finished(),
            failure,
            locks: self.locks.iter().map(write_lock).collect(),
            work: Some(write_work(&self.work)),
        };
        record.encode_to_vec().into()
    }
}

// === impl Nonce ===

impl Nonce {
    /// The nonce, if the client sent one.
    pub(crate) fn given(self) -> Option<Self> {
        (self.group != 0 || self.number != 0).then_some(self)
    }
}

// === impl Work ===

impl Work {
    /// The table that the work changes.
    pub(crate) fn table(&self) -> Option<&TableName> {
        match self {
            Self::CreateTable { table, .. }
            | Self::DeleteTable { table }
            | Self::EnableTable { table }
            | Self::DisableTable { table }
            | Self::ModifyTable { table }
            | Self::TruncateTable { table, .. } => Some(table),
            Self::FlushTable { .. } | Self::RecoverServer(_) => None,
        }
    }

    /// How many regions the work creates, if it creates any.
    pub(crate) fn region_count(&self) -> Option<usize> {
        match self {
            Self::CreateTable { split_keys, .. } | Self::TruncateTable { split_keys, .. } => {
                Some(split_keys.len() + 1)
            }
            _ => None,
        }
    }

    /// The lock on the table that the work changes. A flush changes no table, and the recovery of a
    /// server must not wait for locks.
    fn locks(&self) -> Vec<(TableName, Mode)> {
        self.table().map(|table| (table.clone(), Mode::Exclusive)).into_iter().collect()
    }

    /// The feature level that the record needs.
    fn level(&self) -> FeatureLevel {
        match self {
            Self::TruncateTable { .. } => Feature::TruncateTable.level(),
            _ => FeatureLevel::OLDEST,
        }
    }

    /// A short name for logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::CreateTable { .. } => "create table",
            Self::DeleteTable { .. } => "delete table",
            Self::EnableTable { .. } => "enable table",
            Self::DisableTable { .. } => "disable table",
            Self::FlushTable { .. } => "flush table",
            Self::ModifyTable { .. } => "modify table",
            Self::TruncateTable { .. } => "truncate table",
            Self::RecoverServer(_) => "recover server",
        }
    }
}

// === impl Recovery ===

impl Recovery {
    /// The report of the recovery, while it runs (`ended` is `None`) and afterwards.
    pub(crate) fn report(&self, ended: Option<(u64, u64)>) -> cluster::RecoveryRecord {
        let (replay_ms, ended_ms) = ended.unwrap_or_default();
        cluster::RecoveryRecord {
            server_name: self.server.to_string(),
            cause: self.cause.clone(),
            learnt_ms: self.learnt_ms,
            regions: self.regions,
            wal_bytes: self.wal_bytes,
            detect_ms: self.detect_ms,
            fence_ms: self.fence_ms,
            split_ms: self.split_ms,
            assign_ms: self.assign_ms,
            replay_ms,
            total_ms: ended_ms.saturating_sub(self.learnt_ms),
            done: ended.is_some(),
        }
    }
}

/// The regions of a table that is split at `split_keys`, which ascend.
pub(crate) fn regions_between(
    table: &TableName,
    split_keys: &[Bytes],
    region_id: u64,
) -> Vec<RegionInfo> {
    let starts = std::iter::once(Bytes::new()).chain(split_keys.iter().cloned());
    let ends = split_keys.iter().cloned().chain(std::iter::once(Bytes::new()));
    let regions = starts
        .zip(ends)
        .map(|(start, end)| RegionInfo::primary(table.clone(), start, end, region_id));
    regions.collect()
}

fn read_work(work: pb::procedure_record::Work) -> Result<Work, basalt_cluster::Error> {
    use pb::procedure_record::Work as Record;
    let table = |name: &str| name.parse::<TableName>().map_err(invalid_name);
    Ok(match work {
        Record::CreateTable(create) => Work::CreateTable {
            table: table(&create.table)?,
            split_keys: create.split_keys.into_iter().map(Bytes::from).collect(),
            region_id: create.region_id,
        },
        Record::DeleteTable(delete) => Work::DeleteTable { table: table(&delete.table)? },
        Record::EnableTable(enable) => Work::EnableTable { table: table(&enable.table)? },
        Record::DisableTable(disable) => Work::DisableTable { table: table(&disable.table)? },
        Record::FlushTable(flush) => Work::FlushTable { table: table(&flush.table)? },
        Record::ModifyTable(modify) => Work::ModifyTable { table: table(&modify.table)? },
        Record::TruncateTable(truncate) => read_truncation(truncate)?,
        Record::RecoverServer(recovery) => Work::RecoverServer(read_recovery(recovery)?),
    })
}

fn read_truncation(record: pb::TruncateTable) -> Result<Work, basalt_cluster::Error> {
    let step = match record.step() {
        pb::TruncateStep::Clearing => TruncateStep::Clearing,
        pb::TruncateStep::Creating => TruncateStep::Creating,
    };
    Ok(Work::TruncateTable {
        table: record.table.parse().map_err(invalid_name)?,
        split_keys: record.split_keys.into_iter().map(Bytes::from).collect(),
        region_id: record.region_id,
        step,
    })
}

fn read_lock(lock: &pb::Lock) -> Result<(TableName, Mode), basalt_cluster::Error> {
    let mode = if lock.shared { Mode::Shared } else { Mode::Exclusive };
    Ok((lock.table.parse().map_err(invalid_name)?, mode))
}

fn write_lock((table, mode): &(TableName, Mode)) -> pb::Lock {
    pb::Lock { table: table.to_string(), shared: *mode == Mode::Shared }
}

fn read_recovery(record: pb::RecoverServer) -> Result<Recovery, basalt_cluster::Error> {
    let step = match record.step() {
        pb::RecoveryStep::Detected => RecoveryStep::Detected,
        pb::RecoveryStep::Assigned => RecoveryStep::Assigned,
    };
    Ok(Recovery {
        server: record.server_name.parse().map_err(invalid_name)?,
        step,
        boot_id: record.boot_id,
        instance: record.instance,
        cause: record.cause,
        learnt_ms: record.learnt_ms,
        regions: record.regions,
        wal_bytes: record.wal_bytes,
        detect_ms: record.detect_ms,
        fence_ms: record.fence_ms,
        split_ms: record.split_ms,
        assign_ms: record.assign_ms,
    })
}

fn write_work(work: &Work) -> pb::procedure_record::Work {
    use pb::procedure_record::Work as Record;
    match work {
        Work::CreateTable { table, split_keys, region_id } => {
            Record::CreateTable(pb::CreateTable {
                table: table.to_string(),
                split_keys: split_keys.iter().map(|key| key.to_vec()).collect(),
                region_id: *region_id,
            })
        }
        Work::DeleteTable { table } => {
            Record::DeleteTable(pb::DeleteTable { table: table.to_string() })
        }
        Work::EnableTable { table } => {
            Record::EnableTable(pb::EnableTable { table: table.to_string() })
        }
        Work::DisableTable { table } => {
            Record::DisableTable(pb::DisableTable { table: table.to_string() })
        }
        Work::FlushTable { table } => {
            Record::FlushTable(pb::FlushTable { table: table.to_string() })
        }
        Work::ModifyTable { table } => {
            Record::ModifyTable(pb::ModifyTable { table: table.to_string() })
        }
        Work::TruncateTable { table, split_keys, region_id, step } => {
            let step = match step {
                TruncateStep::Clearing => pb::TruncateStep::Clearing,
                TruncateStep::Creating => pb::TruncateStep::Creating,
            };
            Record::TruncateTable(pb::TruncateTable {
                table: table.to_string(),
                split_keys: split_keys.iter().map(|key| key.to_vec()).collect(),
                region_id: *region_id,
                step: step.into(),
            })
        }
        Work::RecoverServer(recovery) => Record::RecoverServer(write_recovery(recovery)),
    }
}

fn write_recovery(recovery: &Recovery) -> pb::RecoverServer {
    let step = match recovery.step {
        RecoveryStep::Detected => pb::RecoveryStep::Detected,
        RecoveryStep::Assigned => pb::RecoveryStep::Assigned,
    };
    pb::RecoverServer {
        server_name: recovery.server.to_string(),
        boot_id: recovery.boot_id.clone(),
        instance: recovery.instance.clone(),
        cause: recovery.cause.clone(),
        learnt_ms: recovery.learnt_ms,
        step: step.into(),
        regions: recovery.regions,
        wal_bytes: recovery.wal_bytes,
        detect_ms: recovery.detect_ms,
        fence_ms: recovery.fence_ms,
        split_ms: recovery.split_ms,
        assign_ms: recovery.assign_ms,
    }
}

fn no_work() -> basalt_cluster::Error {
    let reason = "it names no work".to_owned();
    basalt_cluster::Error::Undecodable { record: "procedure", reason }
}

fn invalid_name(source: basalt_model::Error) -> basalt_cluster::Error {
    basalt_cluster::Error::InvalidName { record: "procedure", source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::view::testing::server;

    pub(crate) fn recovery(name: &str) -> Recovery {
        Recovery {
            server: server(name),
            boot_id: "boot".to_owned(),
            instance: "i-1".to_owned(),
            cause: "stream ended".to_owned(),
            learnt_ms: 1_000,
            step: RecoveryStep::Detected,
            regions: 0,
            wal_bytes: 0,
            detect_ms: 3,
            fence_ms: 0,
            split_ms: 0,
            assign_ms: 0,
        }
    }

    #[test]
    fn a_procedure_reads_as_it_was_written() {
        let table: TableName = "ns:t".parse().unwrap();
        let mut dead = recovery("a");
        dead.step = RecoveryStep::Assigned;
        let works = [
            Work::CreateTable {
                table: table.clone(),
                split_keys: vec![Bytes::from_static(b"m")],
                region_id: 9,
            },
            Work::DeleteTable { table: table.clone() },
            Work::EnableTable { table: table.clone() },
            Work::DisableTable { table: table.clone() },
            Work::FlushTable { table: table.clone() },
            Work::ModifyTable { table: table.clone() },
            Work::TruncateTable {
                table,
                split_keys: vec![Bytes::from_static(b"m")],
                region_id: 9,
                step: TruncateStep::Creating,
            },
            Work::RecoverServer(dead),
        ];
        for work in works {
            let nonce = Nonce { group: 3, number: 4 }.given();
            let mut procedure = Procedure::new(work, nonce, 5);
            assert_eq!(
                Procedure::decode(&procedure.encode(), FeatureLevel::NEWEST).unwrap(),
                procedure
            );
            procedure.outcome = Some(ProcedureOutcome::Failed {
                exception: "e".to_owned(),
                message: "m".to_owned(),
            });
            assert_eq!(
                Procedure::decode(&procedure.encode(), FeatureLevel::NEWEST).unwrap(),
                procedure
            );
        }
    }

    #[test]
    fn a_record_of_before_there_were_locks_has_those_of_its_work() {
        let table: TableName = "ns:t".parse().unwrap();
        let procedure = Procedure::new(Work::DisableTable { table: table.clone() }, None, 5);
        let mut record = pb::ProcedureRecord::decode(procedure.encode()).unwrap();
        record.locks.clear();
        let read = Procedure::decode(&record.encode_to_vec(), FeatureLevel::NEWEST).unwrap();
        assert_eq!(read.locks, [(table, Mode::Exclusive)]);
        let dead = Procedure::new(Work::RecoverServer(recovery("a")), None, 5);
        assert_eq!(dead.locks, [], "a recovery waits for nobody");
    }

    #[test]
    fn a_record_that_names_no_work_is_refused() {
        assert!(Procedure::decode(&[], FeatureLevel::NEWEST).is_err());
        assert!(Procedure::decode(&[0xff; 7], FeatureLevel::NEWEST).is_err());
    }

    #[test]
    fn split_keys_cut_a_table_into_one_region_more() {
        let keys = [Bytes::from_static(b"g"), Bytes::from_static(b"p")];
        let regions = regions_between(&"t".parse().unwrap(), &keys, 1);
        let ranges: Vec<_> = regions.iter().map(|r| (&r.start_key[..], &r.end_key[..])).collect();
        assert_eq!(ranges, [(&b""[..], &b"g"[..]), (b"g", b"p"), (b"p", b"")]);
    }
}
