//! A term of the active master: the state that its tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_cluster::pb;
use basalt_fs::SharedFileSystem;
use basalt_model::{FeatureLevel, ServerName};
use basalt_runtime::{Clock, Network};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::block_locality::ClusterLocality;
use crate::client_nodes::ClientNodes;
use crate::config::MasterTimers;
use crate::epoch_guarded_store::EpochGuardedStore;
use crate::liveness::Clocks;
use crate::locks::Locks;
use crate::orders::Orders;
use crate::procedure::ProcedureStore;
use crate::regions::Claims;
use crate::served_regions::Reports;
use crate::views::Views;

/// The state of a term; see the module. All tasks of the term share it, and end with the store's
/// term.
#[derive(Debug)]
pub(crate) struct Term {
    /// This master.
    pub(crate) server: ServerName,
    pub(crate) store: EpochGuardedStore,
    pub(crate) views: Views,
    pub(crate) orders: Orders,
    pub(crate) procedure_store: ProcedureStore,
    pub(crate) claims: Claims,
    /// The regions whose move is decided. A move excludes other work only after it has its locks.
    pub(crate) moves: Claims,
    pub(crate) locks: Locks,
    /// How many more regions may be moved at once, not counting those that procedures reopen.
    pub(crate) moving: Semaphore,
    /// Whether the catalogs show the effects of all earlier terms.
    pub(crate) catalogs_shown: watch::Sender<bool>,
    pub(crate) facts: Mutex<TermState>,
    /// The cluster's feature level.
    pub(crate) feature_level: Mutex<FeatureLevel>,
    /// The highest level that this master knows.
    pub(crate) known_level: FeatureLevel,
    /// The reports of region servers about the regions that they serve.
    pub(crate) reports: Mutex<Reports>,
    /// See [`Term::places`].
    pub(crate) block_locality: Mutex<Arc<ClusterLocality>>,
    pub(crate) timers: MasterTimers,
    pub(crate) files: Files,
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    /// Held while a client's request is accepted, so that a repeated request finds the first one's
    /// procedure.
    pub(crate) submissions: tokio::sync::Mutex<()>,
    /// Held while regions are assigned: two concurrent plans would both choose the emptiest server.
    pub(crate) planning: tokio::sync::Mutex<()>,
    /// Held while the record of lost logs changes.
    pub(crate) recording_losses: tokio::sync::Mutex<()>,
    /// The nodes through which clients find the cluster.
    pub(crate) client_nodes: ClientNodes,
    /// Wakes the reconciler.
    pub(crate) wake: Notify,
    /// Notified when a death has been proved.
    pub(crate) proved: Notify,
    pub(crate) tasks: TaskTracker,
}

/// The storage root.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) SharedFileSystem);

/// State that only this master has. The next master determines it again, or does without it.
#[derive(Debug, Default)]
pub(crate) struct TermState {
    /// Servers that have asked for their regions to be moved away because they stop.
    pub(crate) draining: BTreeSet<ServerName>,
    /// Servers that are being declared dead.
    pub(crate) dying: BTreeSet<ServerName>,
    /// When this master saw that a server was declared dead.
    pub(crate) deaths: BTreeMap<ServerName, Instant>,
    /// The last records of region servers that were seen alive and may still need recovery.
    pub(crate) seen: BTreeMap<ServerName, pb::ServerRecord>,
    /// Servers whose process is proved to have ended.
    pub(crate) proved_dead: BTreeSet<ServerName>,
    /// When region servers were first seen. Those that were registered at the beginning are
    /// missing.
    pub(crate) newcomers: BTreeMap<ServerName, Instant>,
    /// Servers whose logs have lost bytes: how many regions stay closed, and why.
    pub(crate) lost_logs: BTreeMap<ServerName, (u32, String)>,
    /// The clocks of region servers.
    pub(crate) clocks: Clocks,
    /// Whether the balancer must not move regions.
    pub(crate) balancer_off: bool,
    /// The server of the meta table for clients, as this master last wrote it.
    pub(crate) meta_server: Option<ServerName>,
    /// The reports of the last recoveries, by the ids of their procedures.
    pub(crate) recoveries: BTreeMap<u64, pb::RecoveryRecord>,
}

/// How many reports of recoveries are kept.
pub(crate) const RECOVERIES_MAX: usize = 100;

// === impl Term ===

impl Term {
    /// Runs `work` until it ends or the term does.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let over = self.store.term().clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// The servers that must get no regions: those that have asked to be drained, whose records say
    /// that they are draining, that Kubernetes is about to stop, or whose clocks are off or were
    /// not compared yet.
    pub(crate) fn draining(&self) -> BTreeSet<ServerName> {
        let view = self.views.now();
        let on_record = view.servers.iter().filter(|(_, record)| record.draining);
        let on_record = on_record.map(|(server, _)| server.clone());
        let facts = self.facts.lock();
        facts.draining.iter().chain(facts.clocks.unfit()).cloned().chain(on_record).collect()
    }

    /// The block locality of regions, as far as it was reported to this master.
    pub(crate) fn places(&self) -> Arc<ClusterLocality> {
        Arc::clone(&*self.block_locality.lock())
    }

    /// Waits a moment if region servers are still joining, so that the first one does not get all
    /// regions.
    pub(crate) async fn settle(&self) {
        let latest = self.facts.lock().newcomers.values().max().copied();
        if let Some(latest) = latest {
            tokio::time::sleep_until(latest + self.timers.settle).await;
        }
    }
}

// === impl TermState ===

impl TermState {
    /// Keeps the report of a recovery.
    pub(crate) fn remember(&mut self, id: u64, report: pb::RecoveryRecord) {
        if report.regions > 0 {
            self.recoveries.insert(id, report);
        }
    }

    /// Drops the oldest reports beyond the maximum number, and returns their ids.
    pub(crate) fn drop_old_recoveries(&mut self) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.recoveries.len() > RECOVERIES_MAX
            && let Some((id, _)) = self.recoveries.pop_first()
        {
            dropped.push(id);
        }
        dropped
    }
}

// === impl Files ===

impl std::fmt::Debug for Files {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Files")
    }
}

impl std::ops::Deref for Files {
    type Target = SharedFileSystem;

    fn deref(&self) -> &SharedFileSystem {
        &self.0
    }
}
