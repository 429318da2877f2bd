//! An administrator who alters the table, and disables and enables it, while faults are injected.
//! Each request may fail, but the table must be enabled in the end.

use std::sync::Arc;
use std::time::Duration;

use basalt_client::Admin;
use basalt_cluster::{Catalog, Nodes, catalog};
use basalt_model::TableState;
use basalt_runtime::{Random, Seams};

use crate::plan::{NODES_PARENT, table_name};
use crate::simulate::connect;
use crate::witness::Witness;
use crate::workload::Workload;

/// The pause before each operation.
const PAUSE_MS: std::ops::Range<u64> = 20..250;
/// How often to check whether it is time to begin.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// An operation on the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Alters the table: every region is reopened where it is.
    Alter,
    /// Disables the table and enables it again.
    Disable,
}

/// When an administrator begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begin {
    /// With the load.
    WithLoad,
    /// Once the trap has sprung.
    WhenTrapped,
}

/// The administrator; see the module.
struct Administrator {
    workload: Arc<Workload>,
    admin: Admin,
    catalog: Catalog,
    random: Random,
}

/// Runs operations until the faults are over.
pub(super) async fn run(
    seams: Seams,
    coordinators: Vec<String>,
    (workload, witness): (Arc<Workload>, Witness),
    works: &'static [Work],
    begin: Begin,
) -> anyhow::Result<()> {
    let is_time = || match begin {
        Begin::WithLoad => workload.loading_since().is_some(),
        Begin::WhenTrapped => witness.trapped().is_some(),
    };
    while !is_time() {
        if workload.calm_for().is_some() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let client = connect(&seams, &coordinators).await?;
    let catalog = catalog::follow(client.clone(), Nodes::below(NODES_PARENT)).await?;
    let random = Random::from_seed(seams.random.next_u64());
    let admin = workload.connection(&seams).admin();
    let administrator = Administrator { workload, admin, catalog, random };
    administrator.work(works).await?;
    client.close().await;
    Ok(())
}

// === impl Administrator ===

impl Administrator {
    async fn work(&self, works: &[Work]) -> anyhow::Result<()> {
        while self.workload.calm_for().is_none() {
            self.pause().await;
            // After a failure the next operation is chosen in the same way: the same one or
            // another.
            let outcome = match self.random.pick(works) {
                Some(Work::Alter) => self.alter().await,
                Some(Work::Disable) => self.disable_and_enable().await,
                None => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "the administrator was refused");
            }
        }
        self.enable().await
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(self.random.in_range(PAUSE_MS))).await;
    }

    async fn alter(&self) -> anyhow::Result<()> {
        let mut descriptor = self.admin.descriptor(&table_name()?).await?;
        let change = self.random.next_u64().to_string();
        descriptor.settings.insert("CHANGE".to_owned(), change);
        Ok(self.admin.modify_table(&descriptor).await?)
    }

    async fn disable_and_enable(&self) -> anyhow::Result<()> {
        let disabled = self.admin.disable_table(&table_name()?).await;
        self.enable().await?;
        Ok(disabled?)
    }

    /// Enables the table, however many attempts it takes.
    async fn enable(&self) -> anyhow::Result<()> {
        let table = table_name()?;
        loop {
            match self.admin.table_state(&table).await {
                Ok(Some(TableState::Enabled)) if self.is_settled() => return Ok(()),
                Ok(Some(TableState::Disabled)) => drop(self.admin.enable_table(&table).await),
                _ => {}
            }
            self.pause().await;
        }
    }

    /// Whether the catalog shows the table as enabled too: the answer may describe an earlier
    /// state.
    fn is_settled(&self) -> bool {
        let table = table_name().ok().and_then(|name| self.catalog.table(&name));
        table.is_some_and(|table| table.record.state == TableState::Enabled)
    }
}
