//! A clean stop: hands the regions over, closes the log, and leaves the cluster.
//!
//! The master moves the regions, while this server keeps serving those that are still here. Without
//! a master, the server closes them itself, and the next master finds them closed and assigns them.
//! The log is deleted only once the coordinator names this server as the owner of no region.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_model::paths;
use basalt_runtime::grpc;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::closing;
use crate::server::Server;

/// How long the master may take to answer one drain call. Longer than the master itself waits.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long connecting to the master may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many regions are closed at a time.
const REGIONS_AT_ONCE: usize = 8;
/// How long to wait for regions that a master assigned before it knew of the stop.
const LATE_REGIONS_WAIT: Duration = Duration::from_secs(3);
/// How often to look for them.
const LATE_REGIONS_POLL: Duration = Duration::from_millis(50);

/// Hands all regions over and leaves the cluster.
pub(crate) async fn hand_over(server: &Arc<Server>) {
    let mut asked = drain(server).await;
    if let Err(error) = &asked {
        info!(error, "no master is moving the regions; closing them here");
    }
    let deadline = Instant::now() + LATE_REGIONS_WAIT;
    loop {
        // A master that became active in the meantime would assign regions to this server.
        let active = server.catalog.master().map(|master| master.server_name);
        if active.is_some_and(|active| asked.as_ref() != Ok(&active)) {
            let again = timeout_at(deadline, drain(server)).await;
            asked = again.unwrap_or_else(|_| Err("the master does not answer".to_owned()));
        }
        close_all(server).await;
        let is_over = server.regions().is_empty() && on_record(server) == 0;
        if is_over || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(LATE_REGIONS_POLL).await;
    }
    if let Err(error) = leave(server).await {
        warn!(error, "the log stays for the master to recover");
    }
}

async fn close_all(server: &Arc<Server>) {
    let closes = server.regions().into_iter().map(|served| {
        let server = Arc::clone(server);
        async move {
            let closed = async {
                let transition = closing::begin(&server, served.region.encoded_name).await?;
                match server.region(served.region.encoded_name) {
                    Some(present) if Arc::ptr_eq(&present, &served) => {
                        closing::close(&server, &served, &transition).await
                    }
                    // A master had it closed in the meantime.
                    _ => Ok(()),
                }
            };
            if let Err(error) = closed.await {
                warn!(region = %served.region.info, error, "could not close a region");
            }
        }
    });
    futures::stream::iter(closes).for_each_concurrent(REGIONS_AT_ONCE, |close| close).await;
}

/// How many regions the coordinator says this server owns.
fn on_record(server: &Server) -> usize {
    let regions = server.catalog.regions();
    regions.values().filter(|region| region.record.is_owned_by(&server.name)).count()
}

/// Asks the active master to move all regions away, as long as their number decreases. Returns the
/// master's name.
async fn drain(server: &Server) -> Result<String, String> {
    let master = server.catalog.master().ok_or("there is no active master")?;
    let channel =
        grpc::channel(&server.shared.seams.network, &master.peer_address, CONNECT_TIMEOUT)
            .map_err(|error| error.to_string())?;
    let mut client = MasterPeerClient::new(channel);
    let mut left_before = u32::MAX;
    // At least once, so that the master knows why our session ends.
    loop {
        let request = pb::DrainRequest { server_name: server.name.to_string() };
        let answered = tokio::time::timeout(DRAIN_TIMEOUT, client.drain(request)).await;
        let reply = answered.map_err(|_| "the master does not answer")?;
        let left = reply.map_err(|status| status.to_string())?.into_inner().regions_left;
        if left == 0 || left >= left_before {
            break;
        }
        left_before = left;
    }
    Ok(master.server_name)
}

/// Ends the session, and removes the log if no region needs it.
async fn leave(server: &Server) -> Result<(), String> {
    let still_here = server.regions().len();
    server.abort.cancel();
    let closed = server.shared.wal.close().await;
    if still_here == 0 && closed.is_ok() {
        let path = server.nodes.regions();
        server.client.sync(&path).await.map_err(|error| error.to_string())?;
        match on_record(server) {
            0 => {
                let folder = paths::server_logs(&server.name);
                let deleted = server.shared.files.delete_directory(&folder).await;
                deleted.map_err(|error| error.to_string())?;
            }
            count => warn!(count, "regions are still recorded as ours; the log stays"),
        }
    }
    server.client.close().await;
    closed.map_err(|error| error.to_string())
}
