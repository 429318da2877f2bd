//! Streams that stay open while both ends live.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_model::{EncodedRegionName, ServerName};
use basalt_runtime::Network;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use crate::orders;
use crate::term::Term;

/// The pause before a silent process is contacted again.
const PAUSE: Duration = Duration::from_millis(100);
/// The first pause between probes of a process whose stream ended. Each later one is twice as long.
/// A dying process closes its sockets one after the other, so the first probe may still succeed.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause between probes.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(64);

/// The conclusion from the end of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The process has very likely ended: a hint, with the cause.
    Gone(&'static str),
    /// No conclusion: the process may be alive.
    Silent,
}

/// Keeps a stream open to a region server while it is registered. Acts at once on a hint that the
/// server died.
pub(crate) async fn hold_stream(term: Arc<Term>, server: ServerName, record: pb::ServerRecord) {
    let address = record.peer_address.as_str();
    loop {
        let request = pb::LiveRequest { master_epoch: term.store.epoch().0 };
        let open = async {
            let reply = term.orders.separate_client(address)?.live(request).await;
            if reply.as_ref().is_err_and(orders::is_deposed) {
                term.store.verify().await;
            }
            reply
        };
        term.reports.lock().begin(&server);
        let hear = |word: &pb::Alive| {
            if let Some(report) = &word.served {
                term.reports.lock().take_in(&server, report);
            }
            let view = term.views.now();
            let known = |name: &EncodedRegionName| view.regions.contains_key(name);
            Arc::make_mut(&mut *term.block_locality.lock()).take_in(&server, word, known);
        };
        let verdict = tokio::select! {
            biased;
            () = term.views.death_of(&server) => return,
            verdict = listen(
                &term.network, address, &server, term.timers.connect_timeout, open, hear
            ) => verdict,
        };
        if let Verdict::Gone(cause) = verdict {
            let learnt_ms = term.clock.wall_ms();
            tracing::warn!(%server, cause, "a region server seems to have died");
            term.declare_dead(&server, cause, learnt_ms).await;
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Opens a stream with `open` to the process at `address`, which should be `server`. Passes its
/// messages to `hear` until it ends. Then probes whether a process still listens there.
pub(crate) async fn listen(
    network: &Network,
    address: &str,
    server: &ServerName,
    connect_timeout: Duration,
    open: impl Future<Output = Result<Response<Streaming<pb::Alive>>, Status>>,
    hear: impl Fn(&pb::Alive),
) -> Verdict {
    match timeout(connect_timeout * 2, open).await {
        Ok(Ok(stream)) => {
            let mut stream = stream.into_inner();
            while let Ok(Some(alive)) = stream.message().await {
                if alive.server_name != server.to_string() {
                    return Verdict::Gone("another process answers");
                }
                hear(&alive);
            }
        }
        Ok(Err(status)) => tracing::debug!(%server, %status, "no stream"),
        Err(_) => return Verdict::Silent,
    }
    let mut pause = LOOK_PAUSE_MIN;
    while pause <= LOOK_PAUSE_MAX {
        match timeout(connect_timeout, network.connect(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Verdict::Gone("stream ended");
            }
            Ok(_) => tokio::time::sleep(pause).await,
            Err(_) => break,
        }
        pause *= 2;
    }
    Verdict::Silent
}
