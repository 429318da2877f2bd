//! Has the sealed logs of a dead server split by the live ones, each log by one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_cluster::pb;
use basalt_model::{ServerName, log_holds_edits};

use super::lost_logs;
use crate::error::StepError;
use crate::orders;
use crate::term::Term;

/// The shortest and the longest pause between rounds, while logs are left to split.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The contents of a dead server's logs.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    /// The regions with edits in the logs, by their digests.
    pub(super) regions: BTreeSet<[u8; 16]>,
    pub(super) bytes: u64,
}

/// Has all of `logs` split. If one server fails to split a log, another one tries, until all are
/// done.
///
/// # Errors
/// [`StepError::NotYet`] if no region server lives, [`StepError::LostLogs`] if a log is missing or
/// shorter than its sealed length.
pub(super) async fn split(
    term: &Term,
    dead: &ServerName,
    logs: &[pb::SealedLog],
) -> Result<Findings, StepError> {
    let mut findings = Findings::default();
    let with_edits = logs.iter().filter(|log| log_holds_edits(log.sealed_length));
    let mut pending: Vec<pb::SealedLog> = with_edits.cloned().collect();
    let mut pause = PAUSE_MIN;
    for round in 0.. {
        if pending.is_empty() {
            break;
        }
        let servers = term.views.servers();
        let workers: Vec<&ServerName> = servers.keys().collect();
        if workers.is_empty() {
            return Err(StepError::NotYet("no region server is live to split logs".to_owned()));
        }
        let orders = spread_logs(&pending, &workers, round).into_iter().filter_map(|(to, logs)| {
            let address = &servers.get(to)?.peer_address;
            Some(order_split(term, to, address, dead, logs))
        });
        let orders: Vec<_> = orders.collect();
        for log in futures::future::join_all(orders).await.concat() {
            if log.failure.is_empty() {
                pending.retain(|one| one.name != log.name);
                findings.take_in(&log);
            } else {
                tracing::warn!(%dead, log = log.name, failure = log.failure, "log not split");
            }
        }
        if !pending.is_empty() {
            let lost = lost_logs::of_sealed(term, dead, &pending).await;
            if !lost.is_empty() {
                lost_logs::check(term, dead, lost.clone()).await?;
                // Either the loss was accepted, which has changed the sealed lengths on record
                // since they were read. Or no region needs the lost logs.
                pending = lost_logs::without(pending, &lost);
                pending.retain(|log| log_holds_edits(log.sealed_length));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
    Ok(findings)
}

// === impl Findings ===

impl Findings {
    fn take_in(&mut self, log: &pb::SplitLog) {
        self.bytes += log.bytes;
        let digests =
            log.regions.iter().filter_map(|digest| <[u8; 16]>::try_from(&digest[..]).ok());
        self.regions.extend(digests);
    }
}

/// Assigns logs to workers. The longest log goes first, each to the worker with the fewest bytes so
/// far. Each round rotates the order of the workers, so that a failed log goes to another worker.
fn spread_logs<'a>(
    logs: &[pb::SealedLog],
    workers: &[&'a ServerName],
    round: usize,
) -> BTreeMap<&'a ServerName, Vec<pb::SealedLog>> {
    let mut logs = logs.to_vec();
    logs.sort_by(|a, b| b.sealed_length.cmp(&a.sealed_length).then_with(|| a.name.cmp(&b.name)));
    let count = workers.len();
    let mut bytes = vec![0_u64; count];
    let mut spread: BTreeMap<&ServerName, Vec<pb::SealedLog>> = BTreeMap::new();
    for log in logs {
        let places = (0..count).map(|place| (place + round) % count);
        let Some(place) = places.min_by_key(|place| bytes[*place]) else { break };
        bytes[place] += log.sealed_length;
        spread.entry(workers[place]).or_default().push(log);
    }
    spread
}

/// Orders a worker to split logs. Returns no outcomes if the result of the order is unknown.
async fn order_split(
    term: &Term,
    worker: &ServerName,
    address: &str,
    dead: &ServerName,
    logs: Vec<pb::SealedLog>,
) -> Vec<pb::SplitLog> {
    let request = pb::SplitLogsRequest {
        master_epoch: term.store.epoch().0,
        server_name: dead.to_string(),
        logs,
        excluded_nodes: orders::excluded_nodes(&term.files),
    };
    let order = async {
        let mut client = term.orders.client(worker, address)?;
        client.split_logs(orders::within(term.timers.order_timeout, request)).await
    };
    let reply = tokio::select! {
        biased;
        reply = order => reply,
        () = term.views.death_of(worker) => return Vec::new(),
    };
    match reply {
        Ok(reply) => reply.into_inner().logs,
        Err(status) => {
            if orders::is_deposed(&status) {
                term.store.verify().await;
            }
            tracing::warn!(
                %worker,
                %dead,
                status = orders::lost(&status),
                "the outcome of a split order is unknown"
            );
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;

    fn log(name: &str, sealed_length: u64) -> pb::SealedLog {
        pb::SealedLog { name: name.to_owned(), sealed_length }
    }

    #[test]
    fn logs_are_spread_by_their_length() {
        let (a, b) = (server("a"), server("b"));
        let logs = [log("1", 10), log("2", 30), log("3", 20)];
        let spread = spread_logs(&logs, &[&a, &b], 0);
        assert_eq!(spread[&a], [log("2", 30)]);
        assert_eq!(spread[&b], [log("3", 20), log("1", 10)]);
    }

    #[test]
    fn a_log_meets_another_worker_in_the_next_round() {
        let (a, b) = (server("a"), server("b"));
        let logs = [log("1", 10)];
        assert!(spread_logs(&logs, &[&a, &b], 0).contains_key(&a));
        assert!(spread_logs(&logs, &[&a, &b], 1).contains_key(&b));
    }

    #[test]
    fn findings_are_summed_up() {
        let mut findings = Findings::default();
        let found = |bytes, digest: u8| pb::SplitLog {
            bytes,
            regions: vec![vec![digest; 16], vec![1, 2]],
            ..Default::default()
        };
        findings.take_in(&found(5, 1));
        findings.take_in(&found(6, 2));
        assert_eq!(findings, Findings { regions: [[1; 16], [2; 16]].into(), bytes: 11 });
    }
}
