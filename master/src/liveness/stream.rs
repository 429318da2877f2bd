//! Streams that are held for as long as both ends live.

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

/// The pause before a silent process is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// The first pause between looks at a process whose stream ended; each is twice the one before.
/// A dying process's sockets close one after the other, so the first look may still be answered.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest of them.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(64);

/// What the end of a stream tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The process has very likely ended: a hint, with its reason.
    Gone(&'static str),
    /// Nothing: it may live.
    Silent,
}

/// Holds a stream to a region server for as long as it is registered. A hint that it died is acted
/// upon at once.
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

/// Listens to the stream that `open` opens to the process at `address`, which should be `server`,
/// until it ends, and has `hear` hear what it says; then looks whether anybody is there.
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
