//! Logs of a dead server that are missing or too short.

use basalt_cluster::pb::{AcceptLossReply, AcceptLossRequest, LostLogsRecord};
use prost::Message as _;
use tonic::{Code, Status};

use super::*;
use crate::region_server::LOG_BYTES;

/// Longer than a recovery takes that is not held up.
const HELD_UP: Duration = Duration::from_secs(3);

impl Cluster {
    async fn accept(&self, dead: &ServerName, logs: &[String]) -> Result<AcceptLossReply, Status> {
        let request = AcceptLossRequest {
            server_name: dead.to_string(),
            logs: logs.to_vec(),
            by: "a tester".to_owned(),
        };
        Ok(self.peer().await.accept_loss(request).await?.into_inner())
    }

    async fn lost(&self, dead: &ServerName) -> LostLogsRecord {
        let path = Nodes::below("/basalt").lost_logs_of(dead);
        match self.client.get_data(&path).await {
            Ok((data, _)) => LostLogsRecord::decode(data).unwrap(),
            Err(_) => LostLogsRecord::default(),
        }
    }

    async fn served(regions: u8) -> Self {
        let cluster = Self::start(1, 3).await;
        cluster.finished(cluster.create_table("t", regions, 1).await).await;
        cluster.all_open(regions.into()).await;
        cluster
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_stay_closed_while_a_log_is_missing_until_the_loss_is_accepted() {
    let mut cluster = Cluster::served(6).await;
    let dead = cluster.servers[0].name.clone();
    cluster.disk.remove(&paths::server_logs(&dead));
    cluster.kill_server(0);
    until("the loss is on record", async || !cluster.lost(&dead).await.logs.is_empty()).await;
    tokio::time::sleep(HELD_UP).await;
    assert_eq!(cluster.open_regions().values().sum::<usize>(), 4, "two stay closed");
    let record = cluster.lost(&dead).await;
    let name = format!("{dead}.1");
    assert_eq!((record.regions, record.logs.len()), (2, 1));
    let log = &record.logs[0];
    let expected = (&name, LOG_BYTES as u64, true, 0);
    assert_eq!((&log.name, log.expected_bytes, log.is_missing, log.accepted_ms), expected);
    let reply = cluster.peer().await.recoveries(cluster::RecoveriesRequest {}).await.unwrap();
    let reported = reply.into_inner().lost_logs;
    assert!(
        reported.len() == 1 && reported[0].contains(&format!("{name} is missing")),
        "{reported:?}"
    );

    for wrong in [vec![], vec![format!("{dead}.2")], vec![name.clone(), format!("{dead}.2")]] {
        let refusal = cluster.accept(&dead, &wrong).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(refusal.message().contains(&name), "{}", refusal.message());
    }
    let accepted = cluster.accept(&dead, std::slice::from_ref(&name)).await.unwrap();
    assert!(accepted.lost.len() == 1 && accepted.lost[0].contains(&name));
    cluster.all_open_without(&dead, 6).await;
    let log = &cluster.lost(&dead).await.logs[0];
    assert!(log.accepted_ms > 0 && log.accepted_by == "a tester");
    let again = cluster.accept(&dead, &[name]).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition, "there is nothing left to accept");
}

/// This happens when a server stops cleanly and removes its logs while a new master assigns regions
/// to it.
#[tokio::test(flavor = "multi_thread")]
async fn regions_that_a_server_was_only_to_open_need_no_log_of_it() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.controls.hold_opens(true);
    let created = cluster.create_table("t", 6, 1).await;
    until("each server is to open regions", async || cluster.controls.held_opens() == 3).await;
    let dead = cluster.servers[0].name.clone();
    cluster.disk.remove(&paths::server_logs(&dead));
    cluster.kill_server(0);
    cluster.controls.hold_opens(false);
    cluster.finished(created).await;
    cluster.all_open_without(&dead, 6).await;
    assert_eq!(cluster.lost(&dead).await.logs, [], "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_open_by_themselves_once_a_log_is_back() {
    let mut cluster = Cluster::served(6).await;
    let dead = cluster.servers[0].name.clone();
    let log = paths::server_logs(&dead).join(format!("{dead}.1"));
    let contents = cluster.disk.read_whole(&log, 1_000).await.unwrap();
    cluster.disk.remove(&log);
    cluster.disk.put_file(&log, &contents[..LOG_BYTES - 1]);
    cluster.kill_server(0);
    let is_short = async || cluster.lost(&dead).await.logs.iter().any(|log| !log.is_missing);
    until("the loss is on record", is_short).await;
    assert_eq!(cluster.lost(&dead).await.logs[0].found_bytes, LOG_BYTES as u64 - 1);
    tokio::time::sleep(HELD_UP).await;
    assert_eq!(cluster.open_regions().values().sum::<usize>(), 4);

    cluster.disk.put_file(&paths::fenced_logs(&dead).join(format!("{dead}.1")), &contents);
    cluster.all_open_without(&dead, 6).await;
    assert_eq!(cluster.lost(&dead).await.logs, [], "nothing is lost");
}

/// A corrupt log stops the recovery during the split. The operator truncates it and accepts the
/// loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_accepted_while_the_logs_are_split_ends_the_recovery() {
    for remaining in [Some(LOG_BYTES - 50), None] {
        let mut cluster = Cluster::served(6).await;
        let dead = cluster.servers[0].name.clone();
        let name = format!("{dead}.1");
        let log = paths::fenced_logs(&dead).join(&name);
        cluster.controls.hold_splits(true);
        cluster.kill_server(0);
        until("a split is under way", async || cluster.controls.held_splits() > 0).await;
        let contents = cluster.disk.read_whole(&log, 1_000).await.unwrap();
        cluster.disk.remove(&log);
        if let Some(remaining) = remaining {
            cluster.disk.put_file(&log, &contents[..remaining]);
        }
        let accepted = cluster.accept(&dead, std::slice::from_ref(&name)).await.unwrap();
        assert!(accepted.lost.len() == 1 && accepted.lost[0].contains(&name));
        cluster.controls.hold_splits(false);
        cluster.all_open_without(&dead, 6).await;
        let record = cluster.lost(&dead).await;
        assert!(record.logs.len() == 1 && record.logs[0].accepted_ms > 0, "{record:?}");
    }
}
