//! Fences a dead server: takes its logs away, and commits their sealed lengths.
//!
//! The server has already been declared dead. Renaming its folder keeps it from creating another
//! log. Then each log is sealed. If a log's lock is free, its length is final. If its writer may
//! still live, the length is final once the writer's lease is over, because later appends are never
//! acknowledged. On storage where sealing itself keeps later appends from being acknowledged, such
//! as HDFS, a log is sealed only once. The lease is waited for all the same, because its server may
//! still answer reads. A log that may shrink later is copied up to its sealed length, and the copy
//! takes its place. The sealed lengths are committed once, by creating the node that holds them.
//! They are not committed while a log that must exist is missing.

use std::path::Path;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_failpoint::{Point, reached};
use basalt_fs::Seal;
use basalt_model::{ServerName, paths};
use basalt_planted::{Rule, is_off};
use basalt_runtime::WITNESS;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::Instant;
use tracing::{info, trace};

use super::lost_logs;
use super::record::Recovery;
use crate::epoch_guarded_store;
use crate::error::{CommitError, StepError};
use crate::term::{Files, Term};

/// How many logs are sealed at once.
const SEALS_AT_ONCE: usize = 16;
/// The longest wait for a proof of death before the logs are sealed again.
const PROOF_PAUSE: Duration = Duration::from_millis(20);

/// Fences the server. Returns its sealed logs.
///
/// # Errors
/// Files or the coordinator cannot be read or written.
pub(super) async fn fence(
    term: &Term,
    recovery: &Recovery,
) -> Result<Vec<pb::SealedLog>, StepError> {
    // The server has been declared dead, so its list of logs no longer changes.
    let (committed, listed, taken) = tokio::join!(
        sealed_logs(term, &recovery.server),
        lost_logs::listed(term, &recovery.server),
        take_folder_away(&term.files, &recovery.server)
    );
    if let Some(logs) = committed? {
        trace_sealed(&recovery.server, &logs);
        return Ok(logs);
    }
    block_making(&term.files, &recovery.server, taken?).await?;
    let listed = listed?;
    reached(Point::FenceRenamed).await;
    let folder = paths::fenced_logs(&recovery.server);
    let deadline = lease_end(term, &recovery.server);
    let mut seals = Vec::new();
    let logs = loop {
        // Read these before the lengths. Everything that was acknowledged up to a proof of death,
        // or up to the end of the lease, is below a length that is taken afterwards.
        let is_proved = term.facts.lock().proved_dead.contains(&recovery.server);
        let lease_is_over = Instant::now() >= deadline;
        seals = seal_all(&term.files, &folder, &recovery.boot_id, &seals).await?;
        if are_final(&seals, is_proved, lease_is_over) {
            break seals;
        }
        // A proof ends the wait early. Otherwise check again, because the process may end at any
        // moment.
        let _ = tokio::time::timeout(PROOF_PAUSE, term.proved.notified()).await;
    };
    check_listed(term, &recovery.server, listed, &logs).await?;
    let logs = settle_all(&term.files, &folder, logs).await?;
    reached(Point::FenceSealed).await;
    let logs = commit_sealed_lengths(term, &recovery.server, logs).await?;
    reached(Point::FenceRecorded).await;
    trace_sealed(&recovery.server, &logs);
    Ok(logs)
}

/// Compares the sealed logs with the list that the server kept while it lived.
async fn check_listed(
    term: &Term,
    server: &ServerName,
    listed: Option<Vec<pb::ListedLog>>,
    seals: &[(String, Seal)],
) -> Result<(), StepError> {
    match listed {
        Some(listed) => {
            let lost = lost_logs::of_listed(server, &listed, seals);
            lost_logs::check(term, server, lost).await
        }
        None if seals.is_empty() && term.views.now().owned_by(server).next().is_some() => {
            tracing::warn!(
                %server,
                "a server that owned regions has no log and no list of its logs: it ran an earlier \
                 release, or its logs were deleted"
            );
            Ok(())
        }
        None => Ok(()),
    }
}

fn trace_sealed(server: &ServerName, logs: &[pb::SealedLog]) {
    for log in logs {
        let sealed_length = log.sealed_length;
        trace!(target: WITNESS, %server, log = log.name, sealed_length, "sealed");
    }
}

/// The sealed lengths, if they are already committed.
pub(super) async fn sealed_logs(
    term: &Term,
    server: &ServerName,
) -> Result<Option<Vec<pb::SealedLog>>, StepError> {
    let path = term.store.nodes().fenced_server(server);
    let fenced = lost_logs::read::<pb::FencedRecord>(term, path, "fenced").await?;
    Ok(fenced.map(|(record, _)| record.logs))
}

/// The time when the server's lease is certainly over, counted from when this master saw that the
/// server was declared dead.
fn lease_end(term: &Term, server: &ServerName) -> Instant {
    let now = Instant::now();
    let seen = *term.facts.lock().deaths.entry(server.clone()).or_insert(now);
    seen + term.timers.lease_ends_after()
}

/// Whether the lengths are final. If there are no logs, locks prove nothing: a server that has
/// acknowledged no write may still answer reads.
fn are_final(seals: &[(String, Seal)], is_proved: bool, lease_is_over: bool) -> bool {
    let locks_are_free = !seals.is_empty() && seals.iter().all(|(_, seal)| seal.writer_gone);
    locks_are_free || is_proved || lease_is_over || is_off(Rule::WalFence)
}

/// The result of taking away a server's log folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Folder {
    /// The folder has been renamed.
    Taken,
    /// The folder is not in its place: it was taken away before, or never created.
    Missing,
}

/// Renames the folder, if it is in its place. Further calls change nothing.
async fn take_folder_away(files: &Files, server: &ServerName) -> Result<Folder, StepError> {
    let (live, fenced) = (paths::server_logs(server), paths::fenced_logs(server));
    match files.rename(&live, &fenced).await {
        Ok(()) => {}
        Err(error) if error.is_already_exists() => move_stragglers(files, &live, &fenced).await?,
        Err(error) if error.is_not_found() => return Ok(Folder::Missing),
        Err(error) => return Err(error.into()),
    }
    files.sync_directory(&paths::logs()).await?;
    Ok(Folder::Taken)
}

/// Creates the missing folder under the name that a fenced one has. It is the marker that keeps the
/// server from creating its own.
async fn block_making(files: &Files, server: &ServerName, folder: Folder) -> Result<(), StepError> {
    if folder == Folder::Missing {
        files.create_directories(&paths::fenced_logs(server)).await?;
        files.sync_directory(&paths::logs()).await?;
    }
    Ok(())
}

/// Handles the case that both folders exist: the server created its own while the marker was
/// created.
async fn move_stragglers(files: &Files, live: &Path, fenced: &Path) -> Result<(), StepError> {
    let entries = match files.list(live).await {
        Err(error) if error.is_not_found() => return Ok(()),
        listed => listed?,
    };
    for entry in entries {
        match files.rename(&live.join(&entry.name), &fenced.join(&entry.name)).await {
            Err(error) if !error.is_not_found() && !error.is_already_exists() => {
                return Err(error.into());
            }
            _ => {}
        }
    }
    files.sync_directory(fenced).await?;
    Ok(files.delete_directory(live).await?)
}

/// Seals all logs, except those whose length was found to be final `earlier`.
async fn seal_all(
    files: &Files,
    folder: &Path,
    boot_id: &str,
    earlier: &[(String, Seal)],
) -> Result<Vec<(String, Seal)>, StepError> {
    let entries = files.list(folder).await?;
    let logs = entries.into_iter().filter(|entry| !entry.is_directory).map(|entry| entry.name);
    let seals = logs.map(|name| async move {
        let sealed = earlier.iter().find(|(sealed, seal)| *sealed == name && seal.is_final);
        let seal = match sealed {
            Some((_, seal)) => *seal,
            None => files.seal(&folder.join(&name), boot_id).await?,
        };
        Ok::<_, StepError>((name, seal))
    });
    let seals: Vec<_> = seals.collect();
    futures::stream::iter(seals).buffered(SEALS_AT_ONCE).try_collect().await
}

/// The logs to commit. Logs that may shrink are replaced by copies.
async fn settle_all(
    files: &Files,
    folder: &Path,
    seals: Vec<(String, Seal)>,
) -> Result<Vec<pb::SealedLog>, StepError> {
    let settled = seals.into_iter().map(|(name, seal)| async move {
        let is_copied = seal.may_shrink && !is_off(Rule::ShrinkingLog);
        let name = if is_copied { copy(files, folder, name, seal.length).await? } else { name };
        Ok::<_, StepError>(pb::SealedLog { name, sealed_length: seal.length })
    });
    let settled: Vec<_> = settled.collect();
    futures::stream::iter(settled).buffered(SEALS_AT_ONCE).try_collect().await
}

/// Copies a log up to its sealed length into a subfolder of this attempt's own. Logs are listed
/// only in `folder` itself, so a copy never counts as a log. Returns the path of the copy relative
/// to `folder`.
async fn copy(
    files: &Files,
    folder: &Path,
    name: String,
    sealed_length: u64,
) -> Result<String, StepError> {
    let attempt = format!("copy-{}", files.writer_tag());
    let copy = format!("{attempt}/{name}");
    info!(log = name, copy, sealed_length, "a log may shrink; a copy replaces it");
    files.create_directories(&folder.join(&attempt)).await?;
    files.copy_start(&folder.join(name), &folder.join(&copy), sealed_length).await?;
    files.sync_directory(&folder.join(&attempt)).await?;
    files.sync_directory(folder).await?;
    Ok(copy)
}

/// Commits the sealed lengths. If an earlier attempt has committed some, returns those.
async fn commit_sealed_lengths(
    term: &Term,
    server: &ServerName,
    logs: Vec<pb::SealedLog>,
) -> Result<Vec<pb::SealedLog>, StepError> {
    let record = pb::FencedRecord { logs: logs.clone() }.encode_to_vec();
    let path = term.store.nodes().fenced_server(server);
    match term.store.commit(vec![epoch_guarded_store::create(path, record.into())]).await {
        Ok(_) => Ok(logs),
        Err(error @ CommitError::Deposed) => Err(error.into()),
        Err(error) => match sealed_logs(term, server).await? {
            Some(committed) => Ok(committed),
            None => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;
    use basalt_fs::MemoryFileSystem;
    use std::sync::Arc;

    const ON_HDFS: Seal = Seal { length: 1, is_final: true, writer_gone: false, may_shrink: false };

    fn seals(gone: &[bool]) -> Vec<(String, Seal)> {
        let seal = |gone: &bool| Seal { writer_gone: *gone, ..ON_HDFS };
        gone.iter().map(|gone| (String::new(), seal(gone))).collect()
    }

    #[test]
    fn lengths_are_final_when_the_writer_is_proved_gone_or_its_lease_is_over() {
        assert!(are_final(&seals(&[true, true]), false, false));
        assert!(!are_final(&seals(&[true, false]), false, false));
        assert!(!are_final(&seals(&[]), false, false));
        assert!(are_final(&seals(&[false]), true, false));
        assert!(are_final(&seals(&[false]), false, true));
        assert!(are_final(&seals(&[]), false, true));
        let sealed = [(String::new(), ON_HDFS)];
        assert!(!are_final(&sealed, false, false), "its server may still answer reads");
    }

    #[tokio::test]
    async fn a_log_that_may_shrink_is_copied_up_to_its_sealed_length() {
        let files = Files(Arc::new(MemoryFileSystem::default()));
        let folder = paths::fenced_logs(&server("a"));
        files.create_directories(&folder).await.unwrap();
        let mut log = files.create(&folder.join("log.1")).await.unwrap();
        log.append_and_sync("acknowledged, and not".into()).await.unwrap();
        for may_shrink in [true, false] {
            let seals = vec![("log.1".to_owned(), Seal { length: 12, may_shrink, ..ON_HDFS })];
            let settled = settle_all(&files, &folder, seals).await.unwrap();
            let [log] = &settled[..] else { panic!("{settled:?}") };
            assert_eq!((log.name != "log.1", log.sealed_length), (may_shrink, 12));
            let contents = files.read_whole(&folder.join(&log.name), 100).await.unwrap();
            assert!(contents.starts_with(b"acknowledged") && (contents.len() == 12) == may_shrink);
        }
        let sealed = seal_all(&files, &folder, "", &[]).await.unwrap();
        assert_eq!(sealed.len(), 1, "a copy is no log of the server");
    }

    async fn take_and_block(files: &Files, name: &ServerName) {
        let folder = take_folder_away(files, name).await.unwrap();
        block_making(files, name, folder).await.unwrap();
    }

    #[tokio::test]
    async fn fencing_a_folder_again_changes_nothing() {
        let files = Files(Arc::new(MemoryFileSystem::default()));
        let name = server("a");
        files.create_directories(&paths::server_logs(&name)).await.unwrap();
        let mut log = files.create(&paths::server_logs(&name).join("log.1")).await.unwrap();
        log.append("abc".into()).await.unwrap();
        for _ in 0..2 {
            take_and_block(&files, &name).await;
            let entries = files.list(&paths::fenced_logs(&name)).await.unwrap();
            assert_eq!(entries.len(), 1);
            assert!(!files.exists(&paths::server_logs(&name)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_server_without_a_folder_gets_a_marker() {
        let files = Files(Arc::new(MemoryFileSystem::default()));
        let name = server("a");
        files.create_directories(&paths::logs()).await.unwrap();
        assert_eq!(take_folder_away(&files, &name).await.unwrap(), Folder::Missing);
        assert!(!files.exists(&paths::fenced_logs(&name)).await.unwrap(), "not by looking");
        take_and_block(&files, &name).await;
        assert!(files.exists(&paths::fenced_logs(&name)).await.unwrap());
        // The server looked for the marker before it existed.
        files.create_directories(&paths::server_logs(&name)).await.unwrap();
        drop(files.create(&paths::server_logs(&name).join("log.1")).await.unwrap());
        take_and_block(&files, &name).await;
        assert_eq!(files.list(&paths::fenced_logs(&name)).await.unwrap().len(), 1);
        assert!(!files.exists(&paths::server_logs(&name)).await.unwrap());
    }
}
