//! Declares servers dead.

use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_model::ServerName;
use basalt_zk::Op;
use basalt_zk::proto::ErrorCode;

use crate::client_nodes;
use crate::error::CommitError;
use crate::procedure::{Death, Work};
use crate::term::Term;
use crate::views::Views;

/// How long to wait for the last writes of a server that stopped. It made them before its stream
/// ended, but they may not have arrived here yet.
const LAST_WORD_WAIT: Duration = Duration::from_millis(200);

// === impl Term ===

impl Term {
    /// Declares a region server dead. One commit starts its recovery and deletes its node, so its
    /// renewals fail from then on. Does nothing if that is already in progress.
    pub(crate) async fn declare_dead(
        self: &Arc<Self>,
        server: &ServerName,
        cause: &'static str,
        learnt_ms: u64,
    ) {
        if self.has_stopped(server).await || !self.facts.lock().dying.insert(server.clone()) {
            return;
        }
        self.commit_death(server, cause, learnt_ms).await;
        self.facts.lock().dying.remove(server);
        self.wake.notify_one();
    }

    /// Whether `server` was drained and no longer owns a region. Such a server stops on its own,
    /// and there is nothing to recover.
    async fn has_stopped(&self, server: &ServerName) -> bool {
        let is_draining = {
            let facts = self.facts.lock();
            facts.draining.contains(server) || facts.seen.get(server).is_some_and(|r| r.draining)
        };
        let owns_nothing = |views: &Views| views.now().owned_by(server).next().is_none();
        is_draining && self.views.until(LAST_WORD_WAIT, owns_nothing).await
    }

    async fn commit_death(
        self: &Arc<Self>,
        server: &ServerName,
        cause: &'static str,
        learnt_ms: u64,
    ) {
        let registered = self.views.servers().remove(server);
        let known = registered.clone().or_else(|| self.facts.lock().seen.get(server).cloned());
        let known = known.unwrap_or_default();
        let mut death = Death {
            server: server.clone(),
            boot_id: known.boot_id,
            instance: known.instance,
            cause,
            learnt_ms,
            // The catalog may not show its node: it shows no record that it cannot decode. As long
            // as the node exists, the server renews its lease.
            is_registered: true,
        };
        let mut writes = self.meta_moves_from(server);
        loop {
            match self.recover_server(death.clone(), writes.clone()).await {
                Ok(()) => break,
                Err(CommitError::Deposed) => return,
                // The session ended on its own.
                Err(error) if death.is_registered && error.is(0, ErrorCode::NoNode) => {
                    death.is_registered = false;
                }
                Err(error) => {
                    tracing::warn!(
                        %server,
                        %error,
                        "declaring a region server dead without moving the meta server's node"
                    );
                    writes.clear();
                }
            }
        }
        tracing::info!(%server, cause, "declared a region server dead");
        reached(Point::DeathRecorded).await;
        self.views.mark_dead(server.clone());
        self.orders.forget(server);
        let mut facts = self.facts.lock();
        facts.draining.remove(server);
        facts.newcomers.remove(server);
    }

    /// The write that directs clients of the meta table to another server, if they are directed to
    /// `dead`.
    fn meta_moves_from(&self, dead: &ServerName) -> Vec<Op> {
        let mut facts = self.facts.lock();
        if facts.meta_server.as_ref() != Some(dead) {
            return Vec::new();
        }
        let mut living = self.views.servers();
        living.remove(dead);
        let chosen = client_nodes::choose_meta_server(None, living.keys(), &self.server);
        facts.meta_server = Some(chosen.clone());
        vec![self.client_nodes.write_meta_server(&chosen)]
    }

    /// Records that a process has ended, as observed by whatever started it.
    pub(crate) async fn process_ended(self: &Arc<Self>, instance: &str) {
        let learnt_ms = self.clock.wall_ms();
        let living = self.views.servers();
        let registered = living.iter().find(|(_, record)| record.instance == instance);
        if let Some((server, _)) = registered {
            self.facts.lock().proved_dead.insert(server.clone());
            tracing::info!(%server, instance, "the process of a region server has ended");
            self.declare_dead(server, "process ended", learnt_ms).await;
        } else {
            let unfinished = self.procedure_store.unfinished();
            let dead = unfinished.iter().find_map(|(_, procedure)| match &procedure.work {
                Work::RecoverServer(recovery) if recovery.instance == instance => {
                    Some(recovery.server.clone())
                }
                _ => None,
            });
            self.facts.lock().proved_dead.extend(dead);
        }
        self.proved.notify_waiters();
    }
}
