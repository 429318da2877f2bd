//! Keeps this server alive in the coordinator, and detects when it must end.
//!
//! The serving lease is renewed by a write to the server's own node. That the quorum commits the
//! write proves that the node still exists, that is, that the server has not been declared dead.
//!
//! This runs on its own threads, so that no request delays a renewal. It continues only while the
//! serving threads make progress: a server whose requests are stuck must lose its regions to one
//! that answers.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_planted::{Rule, is_off};
use basalt_runtime::{Shutdown, WITNESS, until_stuck};
use basalt_zk::proto::ErrorCode;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{debug, trace, warn};

use crate::server::Server;

/// Why a server must end itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Dead {
    /// Its node is gone: it has been declared dead.
    #[error("this server has been declared dead: its node is gone")]
    NodeGone,
    /// Its session has ended, and its node with it.
    #[error("this server's session with the coordinator has expired")]
    SessionOver,
    /// Its serving threads are stuck, and it has given up its session.
    #[error("this server's serving threads have run no tasks for {0:?}")]
    Stuck(Duration),
}

/// How the lease is renewed, and when it is given up.
pub(crate) struct Renewals {
    /// How often the lease is renewed.
    pub(crate) interval: Duration,
    /// How long the serving threads may be stuck.
    pub(crate) standstill_max: Duration,
}

/// Renews the lease until `abort`, or until the server finds itself dead. From `stop` on, each
/// renewal says that the server is leaving, so that no master, not even a new one, assigns regions
/// to it.
pub(crate) async fn keep_alive(
    server: Arc<Server>,
    record: pb::ServerRecord,
    renewals: Renewals,
    stop: Shutdown,
    abort: Shutdown,
) -> Result<(), Dead> {
    let Renewals { interval, standstill_max } = renewals;
    let serving = server.shared.seams.threads.serving.clone();
    tokio::select! {
        biased;
        () = until_stuck(&serving, standstill_max), if !is_off(Rule::ServingProbe) => {
            // The node goes away with the session, so that others need not wait for the session
            // timeout. The serving threads may never run again, so nothing here may wait for them.
            let _ = timeout(interval * 2, server.client.close()).await;
            Err(Dead::Stuck(standstill_max))
        }
        ended = renew(&server, record, interval, stop, abort) => ended,
    }
}

async fn renew(
    server: &Server,
    mut record: pb::ServerRecord,
    interval: Duration,
    stop: Shutdown,
    abort: Shutdown,
) -> Result<(), Dead> {
    let path = server.nodes.server(&server.name);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = (server.requests(), Instant::now());
    // A renewal that has no answer before the next one is due is abandoned: a later one will do.
    let client = server.client.with_request_timeout(interval * 2);
    loop {
        tokio::select! {
            biased;
            () = abort.cancelled() => return Ok(()),
            () = stop.cancelled(), if !record.draining => record.draining = true,
            _ = ticks.tick() => {}
        }
        record.load = Some(server.load(rate(server, &mut requests)));
        trace!(target: WITNESS, server = %server.name, "renews");
        match client.set_data_timed(&path, record.encode_to_vec().into(), None).await {
            Ok(renewed) => {
                debug!(sent_at = ?renewed.sent_at, "lease renewed");
                server.shared.lease.renewed(renewed.sent_at);
                trace!(target: WITNESS, server = %server.name, "renewed");
            }
            Err(error) if error.code() == Some(ErrorCode::NoNode) => return Err(Dead::NodeGone),
            Err(error) if error.is_session_over() => return Err(Dead::SessionOver),
            Err(error) => warn!(%error, "could not renew the lease; retrying"),
        }
    }
}

/// Requests per second since the last call that was at least a second ago.
fn rate(server: &Server, last: &mut (u64, Instant)) -> u64 {
    let elapsed_ms = u64::try_from(last.1.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let now = server.requests();
    let rate = now.saturating_sub(last.0) * 1000 / elapsed_ms;
    if elapsed_ms >= 1000 {
        *last = (now, Instant::now());
    }
    rate
}
