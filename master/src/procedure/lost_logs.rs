//! Log files of a dead server that must exist but are missing, or are shorter than they must be.
//!
//! They may have held acknowledged edits. The regions that need these logs therefore stay closed,
//! with the reason on record, until the files are back or an operator accepts the loss. Two records
//! say what must exist: the list that the server kept while it lived (until its logs are sealed),
//! and the sealed lengths (from then on). It is unknown which regions had edits in a lost file, so
//! all regions that need logs of the server are affected.

use std::collections::BTreeSet;

use basalt_cluster::{RegionRecord, pb, records};
use basalt_fs::Seal;
use basalt_model::{RegionState, ServerName, log_holds_edits, paths};
use basalt_planted::{Rule, is_off};
use basalt_zk::proto::Stat;
use bytes::Bytes;
use prost::Message;

use super::fence;
use crate::epoch_guarded_store;
use crate::error::StepError;
use crate::term::Term;

/// A log file that has lost bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LostLog {
    /// The path within the server's folder.
    pub(crate) name: String,
    /// The length that the file must have, in bytes.
    pub(crate) expected: u64,
    /// The length that it has; `None` if it is missing.
    pub(crate) found: Option<u64>,
}

/// Why a loss was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// The request does not name exactly the lost logs.
    #[error("{0}")]
    Request(String),
    /// The loss could not be determined or recorded.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// An operator's acceptance of the loss of files.
#[derive(Debug)]
pub(crate) struct Acceptance {
    pub(crate) logs: BTreeSet<String>,
    pub(crate) by: String,
}

/// A record and its version in the coordinator.
type Read<T> = Option<(T, i32)>;

// === impl LostLog ===

impl LostLog {
    /// The record's entry for a loss that was found at this time.
    fn found_at(&self, now_ms: u64) -> pb::LostLog {
        pb::LostLog {
            name: self.name.clone(),
            expected_bytes: self.expected,
            found_bytes: self.found.unwrap_or_default(),
            is_missing: self.found.is_none(),
            found_ms: now_ms,
            ..pb::LostLog::default()
        }
    }
}

impl std::fmt::Display for LostLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.found {
            None => write!(formatter, "{} is missing; it had {} bytes", self.name, self.expected),
            Some(found) => {
                write!(formatter, "{} has {found} bytes; it had {}", self.name, self.expected)
            }
        }
    }
}

impl From<&pb::LostLog> for LostLog {
    fn from(log: &pb::LostLog) -> Self {
        Self {
            name: log.name.clone(),
            expected: log.expected_bytes,
            found: (!log.is_missing).then_some(log.found_bytes),
        }
    }
}

/// The files that `server` listed but that are missing or too short, by their sealed lengths.
pub(super) fn of_listed(
    server: &ServerName,
    listed: &[pb::ListedLog],
    seals: &[(String, Seal)],
) -> Vec<LostLog> {
    let lost = listed.iter().filter_map(|log| {
        let name = format!("{server}.{}", log.number);
        let sealed = seals.iter().find(|(sealed, _)| *sealed == name);
        let found = sealed.map(|(_, seal)| seal.length);
        let is_whole = found.is_some_and(|length| length >= log.durable_bytes);
        (!is_whole).then_some(LostLog { name, expected: log.durable_bytes, found })
    });
    lost.collect()
}

/// The sealed logs with edits that are missing or shorter than their sealed length. A file that
/// cannot be read for another reason is not lost.
pub(super) async fn of_sealed(
    term: &Term,
    server: &ServerName,
    sealed: &[pb::SealedLog],
) -> Vec<LostLog> {
    let mut lost = Vec::new();
    for log in sealed.iter().filter(|log| log_holds_edits(log.sealed_length)) {
        let found = match term.files.open(&paths::fenced_logs(server).join(&log.name)).await {
            Ok(file) if file.length() < log.sealed_length => Some(file.length()),
            Err(error) if error.is_not_found() => None,
            _ => continue,
        };
        lost.push(LostLog { name: log.name.clone(), expected: log.sealed_length, found });
    }
    lost
}

/// The files that `server` listed while it lived; `None` if its release keeps no list.
pub(super) async fn listed(
    term: &Term,
    server: &ServerName,
) -> Result<Option<Vec<pb::ListedLog>>, StepError> {
    let path = term.store.nodes().logs_of_server(server);
    let read = read::<pb::LogListRecord>(term, path, "list of logs").await?;
    Ok(read.map(|(record, _)| record.logs))
}

/// Succeeds if no logs of `server` that regions need are lost, or if the loss is accepted.
///
/// # Errors
/// [`StepError::LostLogs`] otherwise. The loss is then on record.
pub(super) async fn check(
    term: &Term,
    server: &ServerName,
    found: Vec<LostLog>,
) -> Result<(), StepError> {
    // Usually nothing is lost. Then this does not wait for the coordinator.
    if found.is_empty() && !term.facts.lock().lost_logs.contains_key(server) {
        return Ok(());
    }
    let _turn = term.recording_losses.lock().await;
    check_in_turn(term, server, found).await
}

async fn check_in_turn(
    term: &Term,
    server: &ServerName,
    found: Vec<LostLog>,
) -> Result<(), StepError> {
    if is_off(Rule::MissingLog) {
        return Ok(());
    }
    if found.is_empty() {
        let was_lost = term.facts.lock().lost_logs.contains_key(server);
        return if was_lost { settle_in_turn(term, server).await } else { Ok(()) };
    }
    let (record, version) = read_lost(term, server).await?;
    let accepted = record.logs.iter().filter(|log| log.accepted_ms > 0);
    let accepted: Vec<_> = accepted.cloned().collect();
    let is_accepted = |lost: &LostLog| accepted.iter().any(|log| LostLog::from(log) == *lost);
    let lost: Vec<LostLog> = found.into_iter().filter(|lost| !is_accepted(lost)).collect();
    if lost.is_empty() {
        return settle_in_turn(term, server).await;
    }
    let regions = concerned(&term.read_all_regions().await?, server);
    if regions == 0 {
        tracing::warn!(%server, ?lost, "lost logs that no region needs");
        return settle_in_turn(term, server).await;
    }
    let now_ms = term.clock.wall_ms();
    let open = lost.iter().map(|lost| {
        let known = record.logs.iter().find(|log| LostLog::from(*log) == *lost);
        known.cloned().unwrap_or_else(|| lost.found_at(now_ms))
    });
    let next = pb::LostLogsRecord { logs: accepted.iter().cloned().chain(open).collect(), regions };
    let reason = reason(server, &lost, regions);
    if next != record {
        tracing::error!(%server, regions, reason, "logs with acknowledged edits are lost");
        write_lost(term, server, &next, version).await?;
    }
    term.facts.lock().lost_logs.insert(server.clone(), (regions, reason.clone()));
    Err(StepError::LostLogs(reason))
}

/// Removes losses that are not accepted from the record, because the files are back or no region
/// needs them.
pub(crate) async fn settle(term: &Term, server: &ServerName) -> Result<(), StepError> {
    let _turn = term.recording_losses.lock().await;
    settle_in_turn(term, server).await
}

async fn settle_in_turn(term: &Term, server: &ServerName) -> Result<(), StepError> {
    let (mut record, version) = read_lost(term, server).await?;
    let recorded = record.logs.len();
    record.logs.retain(|log| log.accepted_ms > 0);
    if record.logs.len() < recorded {
        record.regions = 0;
        write_lost(term, server, &record, version).await?;
    }
    term.facts.lock().lost_logs.remove(server);
    Ok(())
}

async fn read_lost(
    term: &Term,
    server: &ServerName,
) -> Result<(pb::LostLogsRecord, Option<i32>), StepError> {
    let path = term.store.nodes().lost_logs_of(server);
    let recorded = read::<pb::LostLogsRecord>(term, path, "lost logs").await?;
    Ok(recorded.map_or_else(Default::default, |(record, version)| (record, Some(version))))
}

/// Replaces the record if it has `version`, or creates it.
async fn write_lost(
    term: &Term,
    server: &ServerName,
    record: &pb::LostLogsRecord,
    version: Option<i32>,
) -> Result<(), StepError> {
    let path = term.store.nodes().lost_logs_of(server);
    let write = match version {
        Some(version) => replace(path, record, version),
        None => epoch_guarded_store::create(path, encoded(record)),
    };
    term.store.commit(vec![write]).await?;
    Ok(())
}

/// Checks for lost logs of a server whose recovery is over and whose logs regions still need.
pub(crate) async fn inspect(term: &Term, server: &ServerName) -> Result<(), StepError> {
    let _turn = term.recording_losses.lock().await;
    inspect_in_turn(term, server).await
}

async fn inspect_in_turn(term: &Term, server: &ServerName) -> Result<(), StepError> {
    let Some(sealed) = fence::sealed_logs(term, server).await? else { return Ok(()) };
    let lost = of_sealed(term, server, &sealed).await;
    match check_in_turn(term, server, lost).await {
        // The loss is on record and logged.
        Err(StepError::LostLogs(_)) => Ok(()),
        checked => checked,
    }
}

/// Records that an operator accepts the loss of logs of `server`. Returns what is permanently lost.
///
/// # Errors
/// The request does not name exactly the lost logs, or the coordinator does not answer.
pub(crate) async fn accept(
    term: &Term,
    server: &ServerName,
    acceptance: &Acceptance,
) -> Result<Vec<LostLog>, AcceptError> {
    // A recovery may be recording the same loss.
    let _turn = term.recording_losses.lock().await;
    let nodes = term.store.nodes();
    let fenced = read::<pb::FencedRecord>(term, nodes.fenced_server(server), "fenced").await?;
    if fenced.is_some() {
        inspect_in_turn(term, server).await?;
    }
    let (mut record, version) = read_lost(term, server).await?;
    let is_open = |log: &&mut pb::LostLog| log.accepted_ms == 0;
    let open: Vec<&mut pb::LostLog> = record.logs.iter_mut().filter(is_open).collect();
    let lost: Vec<LostLog> = open.iter().map(|log| LostLog::from(&**log)).collect();
    check_request(server, &lost, acceptance)?;
    for log in open {
        log.accepted_ms = term.clock.wall_ms().max(1);
        log.accepted_by.clone_from(&acceptance.by);
    }
    // Something is lost, so the record exists.
    let version = version.unwrap_or_default();
    let mut writes = vec![replace(nodes.lost_logs_of(server), &record, version)];
    if let Some((fenced, version)) = fenced {
        let logs = without(fenced.logs, &lost);
        let path = nodes.fenced_server(server);
        writes.push(replace(path, &pb::FencedRecord { logs }, version));
    }
    term.store.commit(writes).await.map_err(StepError::from)?;
    tracing::warn!(%server, by = acceptance.by, ?lost, "the loss of logs has been accepted");
    term.facts.lock().lost_logs.remove(server);
    term.wake.notify_one();
    Ok(lost)
}

fn check_request(
    server: &ServerName,
    lost: &[LostLog],
    acceptance: &Acceptance,
) -> Result<(), AcceptError> {
    if acceptance.by.is_empty() {
        return Err(AcceptError::Request("the request must name who accepts the loss".to_owned()));
    }
    if lost.is_empty() {
        let reason = format!("no log of {server} is known to be lost");
        return Err(AcceptError::Request(reason));
    }
    let names: BTreeSet<String> = lost.iter().map(|log| log.name.clone()).collect();
    if names == acceptance.logs {
        return Ok(());
    }
    let reason = format!("name exactly the logs that are lost: {}", shown(lost));
    Err(AcceptError::Request(reason))
}

/// The sealed logs once `lost` is accepted, without those that are missing. Those that are too
/// short have their present length as the new sealed length.
pub(super) fn without(sealed: Vec<pb::SealedLog>, lost: &[LostLog]) -> Vec<pb::SealedLog> {
    let kept = sealed.into_iter().filter_map(|mut log| {
        match lost.iter().find(|lost| lost.name == log.name) {
            Some(LostLog { found: None, .. }) => return None,
            Some(LostLog { found: Some(found), .. }) => {
                log.sealed_length = log.sealed_length.min(*found)
            }
            None => {}
        }
        Some(log)
    });
    kept.collect()
}

/// How many regions need the logs of `server`. A region that it was only assigned to open does not:
/// a server accepts edits only once the region's record says that it is open. Otherwise a server
/// that stopped cleanly and removed its logs would seem to have lost edits, if a master that did
/// not know of the stop had assigned regions to it.
fn concerned(regions: &[RegionRecord], server: &ServerName) -> u32 {
    let took_edits = |region: &RegionRecord| {
        matches!(region.state, RegionState::Open | RegionState::Closing)
            && region.server.as_ref() == Some(server)
    };
    let needs = |region: &&RegionRecord| region.unflushed.contains(server) || took_edits(region);
    u32::try_from(regions.iter().filter(needs).count()).unwrap_or(u32::MAX)
}

fn reason(server: &ServerName, lost: &[LostLog], regions: u32) -> String {
    let folder = paths::fenced_logs(server);
    let lost = shown(lost);
    format!(
        "{regions} regions stay closed because acknowledged edits may be lost: in {}, {lost}. \
         Restore the files, or accept the loss with `basalt accept-loss --server {server}`",
        folder.display()
    )
}

fn shown(lost: &[LostLog]) -> String {
    lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn encoded(record: &impl Message) -> Bytes {
    record.encode_to_vec().into()
}

fn replace(path: String, record: &impl Message, version: i32) -> basalt_zk::Op {
    epoch_guarded_store::replace(path, encoded(record), version)
}

pub(super) async fn read<T: Message + Default>(
    term: &Term,
    path: String,
    what: &'static str,
) -> Result<Read<T>, StepError> {
    let found = term.store.client().find_data(&path).await?;
    let decode = |(data, stat): (Bytes, Stat)| {
        records::decode(what, data).map(|record| (record, stat.version))
    };
    Ok(found.map(decode).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{region, server};

    fn seal(name: &str, length: u64) -> (String, Seal) {
        let seal = Seal { length, is_final: true, writer_gone: true, may_shrink: false };
        (format!("{}.{name}", server("a")), seal)
    }

    fn listed(number: u64, durable_bytes: u64) -> pb::ListedLog {
        pb::ListedLog { number, durable_bytes }
    }

    fn lost(number: u64, expected: u64, found: Option<u64>) -> LostLog {
        LostLog { name: format!("{}.{number}", server("a")), expected, found }
    }

    #[test]
    fn a_listed_file_must_be_there_and_as_long_as_its_edits_were() {
        let listed = [listed(2, 900), listed(4, 700), listed(5, 512)];
        let of = |seals: &[(String, Seal)]| of_listed(&server("a"), &listed, seals);
        let whole = [seal("2", 900), seal("4", 736), seal("5", 512), seal("6", 0)];
        assert_eq!(of(&whole), [], "a newer one is in the making, and 3 was deleted");
        assert_eq!(of(&[]), [lost(2, 900, None), lost(4, 700, None), lost(5, 512, None)]);
        let short = [seal("2", 899), seal("4", 700), seal("5", 0)];
        assert_eq!(of(&short), [lost(2, 900, Some(899)), lost(5, 512, Some(0))]);
    }

    #[test]
    fn a_loss_is_accepted_file_by_file_and_by_somebody() {
        let missing = [lost(2, 900, None), lost(3, 600, Some(512))];
        let accept = |numbers: &[u64], by: &str| {
            let logs = numbers.iter().map(|number| lost(*number, 0, None).name).collect();
            let acceptance = Acceptance { logs, by: by.to_owned() };
            check_request(&server("a"), &missing, &acceptance).map_err(|error| error.to_string())
        };
        assert_eq!(accept(&[2, 3], "me"), Ok(()));
        assert!(accept(&[2], "me").unwrap_err().contains("a,16020,1.3 has 512 bytes; it had 600"));
        assert!(accept(&[2, 3, 4], "me").is_err());
        assert!(accept(&[2, 3], "").is_err());
        let nothing = Acceptance { logs: BTreeSet::new(), by: "me".to_owned() };
        assert!(check_request(&server("a"), &[], &nothing).is_err());
    }

    #[test]
    fn what_is_lost_is_no_longer_looked_for_once_that_is_accepted() {
        let sealed = |number: u64, sealed_length| pb::SealedLog {
            name: lost(number, 0, None).name,
            sealed_length,
        };
        let logs = vec![sealed(1, 900), sealed(2, 800), sealed(3, 700)];
        let accepted = [lost(1, 900, None), lost(3, 700, Some(600))];
        assert_eq!(without(logs, &accepted), [sealed(2, 800), sealed(3, 600)]);
    }

    #[test]
    fn regions_that_need_the_logs_are_concerned() {
        let mut owned = region("t", "a").assigned_to(server("a"));
        owned.state = RegionState::Open;
        let mut unflushed = region("t", "b").assigned_to(server("b"));
        unflushed.unflushed.push(server("a"));
        let regions = [owned.clone(), unflushed.clone(), region("t", "c")];
        assert_eq!(concerned(&regions, &server("a")), 2);
        for (state, count) in [
            (RegionState::Opening, 0),
            (RegionState::Open, 1),
            (RegionState::Closing, 1),
            (RegionState::Closed, 0),
        ] {
            owned.state = state;
            assert_eq!(concerned(std::slice::from_ref(&owned), &server("a")), count, "{state:?}");
        }
    }

    #[test]
    fn a_server_that_was_only_to_open_regions_has_lost_no_edits_of_them() {
        // The state that a new master leaves if it did not know that the server was stopping.
        let opening = region("t", "a").assigned_to(server("a"));
        assert_eq!(concerned(std::slice::from_ref(&opening), &server("a")), 0);
        let mut recovering = opening.assigned_to(server("b"));
        recovering.unflushed.push(server("a"));
        assert_eq!(concerned(&[recovering], &server("a")), 1, "what it had before counts");
    }
}
