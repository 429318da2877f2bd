//! Cleans up what is no longer needed: the logs of fenced servers, old results and reports.
//!
//! The logs of a fenced server are deleted when its recovery is done and no region record names the
//! server, neither as its owner nor as a server whose edits are not in store files yet. The region
//! records are read from the coordinator itself, not from a copy. The folder is deleted before the
//! record of the sealed lengths. Therefore, a folder that exists beside such a record has been
//! fenced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::RegionRecord;
use basalt_model::{RegionState, ServerName, paths};
use basalt_zk::proto::ErrorCode;

use crate::epoch_guarded_store;
use crate::error::{CommitError, StepError};
use crate::procedure::lost_logs;
use crate::term::Term;
use crate::view::View;

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// The age that an unknown server must have, by its start code, before its log folder or log list
/// counts as a leftover. A server creates its folder a moment before it registers.
const STRANGER_AGE_MS: u64 = 60_000;
/// The maximum number of servers whose logs one round inspects.
const INSPECTED_MAX: usize = 16;
/// The suffix of a fenced server's folder.
const FENCED_SUFFIX: &str = "-splitting";

/// Runs until the term is over.
pub(crate) async fn run(term: Arc<Term>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        match clean(&term).await {
            Ok(()) => {}
            Err(error) if error.is_deposed() => return,
            Err(error) => tracing::warn!(%error, "cleanup failed; retrying"),
        }
    }
}

async fn clean(term: &Term) -> Result<(), StepError> {
    let now_ms = term.clock.wall_ms();
    forget_places(term);
    term.procedure_store.drop_old(&term.store).await?;
    let dropped = term.facts.lock().drop_old_recoveries();
    for id in dropped {
        let path = term.store.nodes().recovery(id);
        ignore_refusal(term.store.commit(vec![epoch_guarded_store::delete(path)]).await)?;
    }
    let (fenced, _) = term.store.client().get_children(&term.store.nodes().fenced()).await?;
    let mut leftovers: BTreeSet<ServerName> =
        fenced.iter().filter_map(|name| name.parse().ok()).collect();
    leftovers.extend(stranger_folders(term, now_ms).await?);
    leftovers.extend(stranger_lists(term, now_ms).await?);
    let view = term.views.now();
    inspect_logs(term, &view).await?;
    let recovering = term.procedure_store.recovering();
    leftovers.retain(|server| {
        !view.lives(server)
            && !recovering.contains_key(server)
            && !is_needed(&records(&view), server)
    });
    if leftovers.is_empty() {
        return Ok(());
    }
    let regions = term.read_all_regions().await?;
    leftovers.retain(|server| !is_needed(&regions, server));
    for server in leftovers {
        // The server may have registered a moment ago, with a clock that is behind.
        let path = term.store.nodes().server(&server);
        if term.store.client().exists(&path).await?.is_none() {
            forget_server(term, &server).await?;
        }
    }
    Ok(())
}

/// Checks for lost logs of servers whose logs are needed by regions that are still opening.
async fn inspect_logs(term: &Term, view: &View) -> Result<(), StepError> {
    let opening = view.regions.values().filter(|one| one.record.state == RegionState::Opening);
    let needed: BTreeSet<&ServerName> =
        opening.flat_map(|region| &region.record.unflushed).take(INSPECTED_MAX).collect();
    for server in needed {
        lost_logs::inspect(term, server).await?;
    }
    Ok(())
}

/// Forgets the block locality of deleted regions, and the nodes of servers that are cleaned up.
fn forget_places(term: &Term) {
    let (view, facts) = (term.views.now(), term.facts.lock());
    Arc::make_mut(&mut *term.block_locality.lock())
        .keep(|server| facts.seen.contains_key(server), |name| view.regions.contains_key(name));
}

fn records(view: &View) -> Vec<RegionRecord> {
    view.regions.values().map(|region| region.record.clone()).collect()
}

/// Whether a region still needs the logs of `server`, or is still owned by it.
fn is_needed(regions: &[RegionRecord], server: &ServerName) -> bool {
    regions.iter().any(|region| region.servers_of_logs().any(|needed| needed == server))
}

/// The servers that have a log folder and started long ago.
async fn stranger_folders(term: &Term, now_ms: u64) -> Result<Vec<ServerName>, StepError> {
    let entries = term.files.list(&paths::logs()).await?;
    let names = entries.iter().filter(|entry| entry.is_directory).map(|entry| &entry.name);
    let servers = names.filter_map(|name| {
        let name = name.strip_suffix(FENCED_SUFFIX).unwrap_or(name);
        name.parse::<ServerName>().ok()
    });
    Ok(servers.filter(|server| server.start_code + STRANGER_AGE_MS < now_ms).collect())
}

/// The servers that have a list of logs and started long ago.
async fn stranger_lists(term: &Term, now_ms: u64) -> Result<Vec<ServerName>, StepError> {
    let (lists, _) = term.store.client().get_children(&term.store.nodes().logs()).await?;
    let servers = lists.iter().filter_map(|name| name.parse::<ServerName>().ok());
    Ok(servers.filter(|server| server.start_code + STRANGER_AGE_MS < now_ms).collect())
}

async fn forget_server(term: &Term, server: &ServerName) -> Result<(), StepError> {
    // The list goes first: a listed log that does not exist counts as lost.
    let path = term.store.nodes().logs_of_server(server);
    ignore_refusal(term.store.commit(vec![epoch_guarded_store::delete(path)]).await)?;
    // Then rename the folder, so that a server that resumes finds itself fenced, not half deleted.
    let (live, fenced) = (paths::server_logs(server), paths::fenced_logs(server));
    match term.files.rename(&live, &fenced).await {
        Err(error) if !error.is_not_found() && !error.is_already_exists() => {
            return Err(error.into());
        }
        _ => {}
    }
    term.files.delete_directory(&fenced).await?;
    let path = term.store.nodes().fenced_server(server);
    ignore_refusal(term.store.commit(vec![epoch_guarded_store::delete(path)]).await)?;
    {
        let mut facts = term.facts.lock();
        facts.deaths.remove(server);
        facts.proved_dead.remove(server);
        facts.seen.remove(server);
    }
    lost_logs::settle(term, server).await?;
    tracing::info!(%server, "the logs of a dead server are no longer needed");
    Ok(())
}

/// Ignores that a node to be deleted does not exist.
fn ignore_refusal<T>(outcome: Result<T, CommitError>) -> Result<(), CommitError> {
    match outcome {
        Err(CommitError::Refused { code: ErrorCode::NoNode, .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{region, server};

    #[test]
    fn logs_are_needed_while_a_region_names_their_server() {
        let mut record = region("t", "a").assigned_to(server("b"));
        assert!(is_needed(&[record.clone()], &server("b")));
        assert!(!is_needed(&[record.clone()], &server("a")));
        record.unflushed.push(server("a"));
        assert!(is_needed(&[record.clone()], &server("a")));
        record.state = RegionState::Closed;
        assert!(is_needed(&[record.clone()], &server("a")));
        assert!(!is_needed(&[record], &server("b")));
    }
}
