//! One term of being active: all that the work of an active master shares.

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

/// See the module. Shared by all tasks of the term; they end when the store's term is over.
#[derive(Debug)]
pub(crate) struct Term {
    /// This master.
    pub(crate) server: ServerName,
    pub(crate) store: EpochGuardedStore,
    pub(crate) views: Views,
    pub(crate) orders: Orders,
    pub(crate) procedure_store: ProcedureStore,
    pub(crate) claims: Claims,
    /// The regions whose move is decided. Until its turn comes, a move keeps nobody else away.
    pub(crate) moves: Claims,
    pub(crate) locks: Locks,
    /// How many regions may still be moved at a time, besides those that procedures open anew.
    pub(crate) moving: Semaphore,
    /// Whether the catalogs show all that was done in earlier terms.
    pub(crate) catalogs_shown: watch::Sender<bool>,
    pub(crate) facts: Mutex<TermState>,
    /// The cluster's feature level.
    pub(crate) feature_level: Mutex<FeatureLevel>,
    /// The highest that this master knows.
    pub(crate) known_level: FeatureLevel,
    /// What region servers report that they serve.
    pub(crate) reports: Mutex<Reports>,
    /// See [`Term::places`].
    pub(crate) block_locality: Mutex<Arc<ClusterLocality>>,
    pub(crate) timers: MasterTimers,
    pub(crate) files: Files,
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    /// Held while a client's request is taken on: one that is sent twice finds what the first did.
    pub(crate) submissions: tokio::sync::Mutex<()>,
    /// Held while regions are given to servers: two plans at once would both choose the emptiest.
    pub(crate) planning: tokio::sync::Mutex<()>,
    /// Held while what is on record of lost logs changes.
    pub(crate) recording_losses: tokio::sync::Mutex<()>,
    /// Where clients look for the cluster.
    pub(crate) client_nodes: ClientNodes,
    /// Wakes the reconciler.
    pub(crate) wake: Notify,
    /// Told when a death has been proved.
    pub(crate) proved: Notify,
    pub(crate) tasks: TaskTracker,
}

/// The storage root.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) SharedFileSystem);

/// What this master alone knows; a later one finds it out again or does without.
#[derive(Debug, Default)]
pub(crate) struct TermState {
    /// Servers that have asked for their regions to be moved, because they stop.
    pub(crate) draining: BTreeSet<ServerName>,
    /// Servers whose death is being committed.
    pub(crate) dying: BTreeSet<ServerName>,
    /// When this master saw the death of a server committed.
    pub(crate) deaths: BTreeMap<ServerName, Instant>,
    /// The last records of region servers that were seen alive and may still be recovered.
    pub(crate) seen: BTreeMap<ServerName, pb::ServerRecord>,
    /// Servers whose process is proved to have ended.
    pub(crate) proved_dead: BTreeSet<ServerName>,
    /// When region servers were first seen; none for those that were there at the beginning.
    pub(crate) newcomers: BTreeMap<ServerName, Instant>,
    /// Servers of whose logs something is lost: how many regions stay closed, and why.
    pub(crate) lost_logs: BTreeMap<ServerName, (u32, String)>,
    /// The clocks of region servers.
    pub(crate) clocks: Clocks,
    /// Whether the balancer must not move regions.
    pub(crate) balancer_off: bool,
    /// Which server clients are sent to for the meta table, as this master wrote it last.
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

    /// The servers that are to be given no regions: those that have asked, that say so in their
    /// records, that Kubernetes is to stop, or whose clocks are off or not compared yet.
    pub(crate) fn draining(&self) -> BTreeSet<ServerName> {
        let view = self.views.now();
        let on_record = view.servers.iter().filter(|(_, record)| record.draining);
        let on_record = on_record.map(|(server, _)| server.clone());
        let facts = self.facts.lock();
        facts.draining.iter().chain(facts.clocks.unfit()).cloned().chain(on_record).collect()
    }

    /// Where the blocks of regions lie, as far as this master was told.
    pub(crate) fn places(&self) -> Arc<ClusterLocality> {
        Arc::clone(&*self.block_locality.lock())
    }

    /// Waits a moment if region servers are only just coming, so that the first one is not given
    /// all regions.
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

    /// Drops the oldest reports of those that are too many, and gives their ids.
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
