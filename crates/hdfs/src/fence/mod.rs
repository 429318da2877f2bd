//! Fences a file: takes it away from its writer, in the time of a few calls.
//!
//! ```text
//! freeze     │ recoverLease: the NameNode lets the writer begin, repair and close nothing more
//! locate     │ the last block, its generation stamp and its DataNodes, which are final from now on
//! take over  │ on all DataNodes at once: stop the writer and truncate to the acknowledged bytes
//! length     │ the shortest of those replicas; all acknowledged bytes are below it
//! close      │ the block's recovery, by us instead of by a DataNode at its next heartbeat
//! ```
//! On each DataNode the recovery begins right after the takeover, without waiting for the other
//! DataNodes.
//!
//! `docs/hdfs.md` explains why this is safe. In short: an acknowledgement needs every DataNode of
//! the frozen list, so stopping one of them stops all acknowledgements. Each DataNode counts bytes
//! as acknowledged before it acknowledges them, so each has all acknowledged bytes. This requires a
//! writer that never repairs a pipeline in place, like ours.
//!
//! No step waits for a machine that is gone, even if it fails during the step: each long call ends
//! when a new connection to its DataNode fails. Once there are enough replicas to close the file,
//! the fence waits [`HdfsConfig::fence_patience`] for DataNodes that hang. If the file cannot be
//! closed, the NameNode's own recovery closes it later; the length is final before that. But if not
//! *every* DataNode was reached, one that only hung may come back with a shorter replica, and the
//! NameNode's recovery would truncate the file to that. No acknowledged data is lost by that. A
//! caller that depends on the other bytes copies the file first ([`Fenced::may_shrink`]).

mod close;
mod recovery;
mod stop_writer;

use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::Network;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

pub use recovery::{Asked, Decision, Member, REPLICAS_TO_CLOSE, RecoveryMethod, decide};

use crate::config::HdfsConfig;
use crate::data_node::{DataNodeCalls, transfer_address};
use crate::error::{Error, Result};
use crate::name_node::NameNode;
use crate::node_health::NodeHealth;
use crate::pb;
use crate::rpc::until_unreachable;
use close::Closing;
use stop_writer::StopWriter;

/// Fences files.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    network: Network,
    config: Arc<HdfsConfig>,
    name_node: NameNode,
    health: NodeHealth,
    calls: DataNodeCalls,
}

/// A file whose writer gets no further acknowledgements.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fenced {
    /// Its length in bytes. Everything that was acknowledged is below it. While the file is open it
    /// may be longer; nobody may read beyond this length.
    pub length: u64,
    /// Whether the NameNode says that the file is closed.
    pub is_closed: bool,
    /// Whether the file may be closed with fewer bytes than `length`, though never fewer than were
    /// acknowledged.
    pub may_shrink: bool,
    /// The method that was used.
    pub method: RecoveryMethod,
    /// From the first call until the writer was stopped.
    pub stopped_after: Duration,
    /// From the first call until the end.
    pub took: Duration,
}

/// The result of stopping a writer.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    /// The length of the last block, in bytes, if the writer was stopped on any DataNode.
    block_length: Option<u64>,
    /// Whether it was stopped on every listed DataNode, so that no recovery makes the block
    /// shorter.
    is_everywhere: bool,
    is_closed: bool,
    at: Instant,
}

/// The pause between two checks whether an ordinary recovery has closed the file.
const POLL_PAUSE: Duration = Duration::from_millis(50);
/// The pause between two calls of `recoverLease` for a file that stays open.
const RECOVER_PAUSE: Duration = Duration::from_secs(1);
/// How often a file that could not be closed immediately is checked again.
const CLOSE_LATER_ATTEMPTS: u32 = 300;

// === impl Fence ===

impl Fence {
    pub(crate) fn new(
        network: &Network,
        config: &Arc<HdfsConfig>,
        name_node: NameNode,
        health: NodeHealth,
    ) -> Self {
        let calls = DataNodeCalls::new(network, config, &health, config.fence_step_timeout);
        Self { network: network.clone(), config: Arc::clone(config), name_node, health, calls }
    }

    /// Fences the file by `method`. Any process may repeat this at any time.
    ///
    /// # Errors
    /// The file is missing, no NameNode answers, or too few of the file's DataNodes do. The file
    /// may then not even be frozen, and the caller must fence it again.
    pub(crate) async fn fence(&self, path: &str, method: RecoveryMethod) -> Result<Fenced> {
        let started = Instant::now();
        let fenced = |length, method, stopped_at: Instant| Fenced {
            length,
            is_closed: true,
            may_shrink: false,
            method,
            stopped_after: stopped_at - started,
            took: started.elapsed(),
        };
        if self.freeze(path).await? {
            let length = self.closed_length(path).await?;
            return Ok(fenced(length, RecoveryMethod::Closed, Instant::now()));
        }
        let located = self.name_node.block_locations(path).await?;
        let last = match located.last_block {
            Some(last) if located.under_construction && !located.is_last_block_complete => last,
            // Closed in the meantime, or without a block that could still grow.
            _ => return Ok(fenced(located.file_length, RecoveryMethod::Closed, Instant::now())),
        };
        let stopped = match method {
            RecoveryMethod::TakeOver | RecoveryMethod::TakeOverAndClose => {
                self.stop(path, &last, method).await
            }
            RecoveryMethod::LeaseRecovery | RecoveryMethod::Closed => Stopped::nowhere(),
        };
        match stopped.block_length {
            Some(block_length) => {
                if !stopped.is_closed {
                    self.close_later(path);
                }
                Ok(Fenced {
                    is_closed: stopped.is_closed,
                    may_shrink: !stopped.is_closed && !stopped.is_everywhere,
                    ..fenced(last.offset + block_length, method, stopped.at)
                })
            }
            None => {
                let length = self.wait_until_closed(path).await?;
                Ok(fenced(length, RecoveryMethod::LeaseRecovery, Instant::now()))
            }
        }
    }

    /// Stops the writer, and closes the file unless `method` leaves it open.
    async fn stop(&self, path: &str, last: &pb::LocatedBlock, method: RecoveryMethod) -> Stopped {
        let (stop_writer, closing) =
            (StopWriter { fence: self, last }, Closing { fence: self, path, last });
        let recovery_id = match method {
            RecoveryMethod::TakeOver => None,
            _ => closing.recovery_id().await.inspect_err(|error| not_closed(path, error)).ok(),
        };
        let listed = last.locations.len();
        let answers = stop_writer.ask(recovery_id).await;
        let mut stopped = Stopped {
            block_length: answers.stopped().min(),
            is_everywhere: answers.are_all_stopped(listed),
            is_closed: false,
            at: Instant::now(),
        };
        let has_unreachable = answers.has_unreachable();
        if let Some(recovery_id) = recovery_id {
            let members = answers.into_members(last);
            match closing.run(recovery_id, members, stopped.block_length).await {
                Ok(length) => {
                    (stopped.block_length, stopped.is_closed) = (Some(length), true);
                    return stopped;
                }
                Err(error) => not_closed(path, &error),
            }
        }
        if !stopped.is_everywhere && !has_unreachable && method != RecoveryMethod::TakeOver {
            // A recovery that was begun before, by us or by another process, has stopped the writer
            // too.
            let answers = stop_writer.ask_under_recovery().await;
            if answers.are_all_stopped(listed) {
                stopped.block_length = answers.stopped().min();
                stopped.is_everywhere = true;
            }
        }
        stopped
    }

    /// Runs a call to a DataNode, but fails early if the DataNode becomes unreachable.
    async fn while_reachable<T>(
        &self,
        node: &pb::DatanodeInfo,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (server, config) = (transfer_address(node), &self.config);
        let (pause, limit) = (config.fence_patience, config.connect_timeout);
        tokio::select! {
            biased;
            result = call => result,
            error = until_unreachable(&self.network, &server, pause, limit) => {
                self.health.heed(node, Err(error))
            }
        }
    }

    /// From now on the NameNode lets no other client change the file. Returns true if it is closed.
    async fn freeze(&self, path: &str) -> Result<bool> {
        let deadline = Instant::now() + self.config.call_deadline;
        loop {
            match self.name_node.recover_lease(path).await {
                // The last block is finished, and only its DataNodes' reports are missing.
                Err(error)
                    if error.is_exception("AlreadyBeingCreatedException")
                        && Instant::now() < deadline =>
                {
                    debug!(path, %error, "waiting for a file to be frozen");
                    sleep(POLL_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn closed_length(&self, path: &str) -> Result<u64> {
        Ok(self.name_node.block_locations(path).await?.file_length)
    }

    /// Waits until the NameNode's own recovery has closed the file, and returns its length.
    async fn wait_until_closed(&self, path: &str) -> Result<u64> {
        let limit = self.config.call_deadline;
        let deadline = Instant::now() + limit;
        while !self.name_node.is_file_closed(path).await? {
            if Instant::now() >= deadline {
                return Err(Error::NotClosed { path: path.into(), limit });
            }
            sleep(POLL_PAUSE).await;
        }
        self.closed_length(path).await
    }

    /// Asks the NameNode repeatedly to recover the file, until it is closed. This client holds the
    /// lease. If this process dies, the NameNode continues once the lease has expired.
    fn close_later(&self, path: &str) {
        let (name_node, path) = (self.name_node.clone(), path.to_owned());
        tokio::spawn(async move {
            for _ in 0..CLOSE_LATER_ATTEMPTS {
                sleep(RECOVER_PAUSE).await;
                match name_node.recover_lease(&path).await {
                    Ok(true) => return info!(path, "a fenced file is closed"),
                    Ok(false) => {}
                    // Renamed or deleted. Other errors pass, for example while its blocks are not
                    // reported yet.
                    Err(error) if error.is_exception("FileNotFoundException") => return,
                    Err(error) => debug!(path, %error, "a fenced file is not closed yet"),
                }
            }
            warn!(path, "a fenced file stays open");
        });
    }
}

// === impl Stopped ===

impl Stopped {
    fn nowhere() -> Self {
        Self { block_length: None, is_everywhere: false, is_closed: false, at: Instant::now() }
    }
}

fn not_closed(path: &str, error: &Error) {
    info!(path, %error, "a file was not closed immediately");
}
