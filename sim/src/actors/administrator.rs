//! An administrator who alters the table, and disables and enables it, while the faults last. What
//! is asked may fail; that the table is enabled in the end may not.

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

/// The pause before each work.
const PAUSE_MS: std::ops::Range<u64> = 20..250;
/// How often is looked whether it is time to begin.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// The table is altered: all its regions are opened anew where they are.
    Alter,
    /// The table is disabled, and enabled again.
    Disable,
}

/// When an administrator begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begin {
    /// With the load.
    WithLoad,
    /// When the trap has sprung.
    WhenTrapped,
}

/// See the module.
struct Administrator {
    workload: Arc<Workload>,
    admin: Admin,
    catalog: Catalog,
    random: Random,
}

/// Works until the faults are over.
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
            // What fails is tried again, or something else is.
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

    /// Enables the table for as long as it takes.
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

    /// Whether our copy shows the table enabled too: the answer may have been of before.
    fn is_settled(&self) -> bool {
        let table = table_name().ok().and_then(|name| self.catalog.table(&name));
        table.is_some_and(|table| table.record.state == TableState::Enabled)
    }
}
