//! The highest master epoch that this server accepts.
//!
//! An order with a lower epoch is rejected. A higher epoch is accepted only once the coordinator's
//! record shows it: anybody who can reach the port can send orders, and a forged epoch would make
//! the server reject the real master.

use std::sync::atomic::{AtomicU64, Ordering};

use basalt_cluster::Nodes;
use basalt_model::MasterEpoch;
use basalt_planted::{Rule, is_off};
use basalt_zk::Client;

/// The highest master epoch; see the module.
pub(crate) struct HighestMaster {
    client: Client,
    nodes: Nodes,
    epoch: AtomicU64,
    /// Held while the coordinator is queried, so that many concurrent orders cause one query at a
    /// time.
    asking: tokio::sync::Mutex<()>,
}

/// Why an order is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The master has been replaced.
    #[error("the order is from master epoch {given}, but epoch {highest} has been seen")]
    Outdated { given: MasterEpoch, highest: MasterEpoch },
    /// No master has had this epoch yet.
    #[error("the order is from master epoch {given}, but the coordinator's record says {recorded}")]
    Unrecorded { given: MasterEpoch, recorded: MasterEpoch },
    /// The epoch cannot be verified now.
    #[error("the master's epoch cannot be read: {0}")]
    Unknown(#[from] basalt_zk::Error),
}

// === impl HighestMaster ===

impl HighestMaster {
    pub(crate) fn new(client: Client, nodes: Nodes) -> Self {
        Self { client, nodes, epoch: AtomicU64::new(0), asking: tokio::sync::Mutex::default() }
    }

    /// Rejects a master that is not active. Remembers the epoch of a new one.
    pub(crate) async fn check(&self, given: MasterEpoch) -> Result<(), Refused> {
        if given > self.highest() && !is_off(Rule::RecordedMasterEpoch) {
            let _turn = self.asking.lock().await;
            if given > self.highest() {
                let recorded = self.check_recorded(given).await?;
                self.epoch.fetch_max(recorded.0, Ordering::AcqRel);
            }
        }
        let highest = MasterEpoch(self.epoch.fetch_max(given.0, Ordering::AcqRel));
        if given < highest && !is_off(Rule::MasterEpoch) {
            return Err(Refused::Outdated { given, highest });
        }
        Ok(())
    }

    fn highest(&self) -> MasterEpoch {
        MasterEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// The epoch on record, if it is at least `given`.
    async fn check_recorded(&self, given: MasterEpoch) -> Result<MasterEpoch, Refused> {
        let mut recorded = self.recorded().await?;
        if recorded < given {
            // The member that we are connected to may lag behind.
            self.client.sync(&self.nodes.master_epoch()).await?;
            recorded = self.recorded().await?;
        }
        if recorded < given {
            return Err(Refused::Unrecorded { given, recorded });
        }
        Ok(recorded)
    }

    /// The epoch on record: the version of its node.
    async fn recorded(&self) -> Result<MasterEpoch, basalt_zk::Error> {
        let (_, stat) = self.client.get_data(&self.nodes.master_epoch()).await?;
        Ok(MasterEpoch(u64::try_from(stat.version).unwrap_or(0)))
    }
}
