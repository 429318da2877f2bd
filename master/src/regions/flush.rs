//! Has regions flushed by their owners.

use std::collections::BTreeMap;

use basalt_cluster::catalog::SharedRegion;
use basalt_cluster::pb;
use basalt_model::{RegionState, ServerName};
use futures::StreamExt;

use crate::orders;
use crate::term::Term;
use crate::view::View;

/// How many servers flush at once.
const ORDERS_AT_ONCE: usize = 16;

// === impl Term ===

impl Term {
    /// Has `regions` flushed. Returns how many could not be flushed for now.
    pub(crate) async fn flush_regions<'a>(
        &self,
        view: &'a View,
        regions: impl Iterator<Item = &'a SharedRegion>,
    ) -> usize {
        let mut left = 0;
        let mut by_owner: BTreeMap<&ServerName, Vec<String>> = BTreeMap::new();
        for region in regions {
            match &region.record.server {
                Some(owner) if region.record.state == RegionState::Open && view.lives(owner) => {
                    by_owner
                        .entry(owner)
                        .or_default()
                        .push(region.record.encoded_name().to_string());
                }
                _ => left += 1,
            }
        }
        let orders: Vec<_> = by_owner
            .into_iter()
            .filter_map(|(owner, names)| {
                let address = &view.servers.get(owner)?.peer_address;
                Some(self.order_flush(owner, address, names))
            })
            .collect();
        let orders = futures::stream::iter(orders).buffer_unordered(ORDERS_AT_ONCE);
        left + orders.fold(0, async |sum, failed| sum + failed).await
    }

    /// Returns how many regions of the order were not flushed.
    async fn order_flush(&self, owner: &ServerName, address: &str, names: Vec<String>) -> usize {
        let count = names.len();
        let request =
            pb::FlushRegionsRequest { master_epoch: self.store.epoch().0, encoded_names: names };
        let order = async {
            let mut client = self.orders.client(owner, address)?;
            client.flush_regions(orders::within(self.timers.order_timeout, request)).await
        };
        let reply = tokio::select! {
            biased;
            reply = order => reply,
            () = self.views.death_of(owner) => return count,
        };
        match reply {
            Ok(reply) => {
                let outcomes = reply.into_inner().outcomes;
                count.saturating_sub(outcomes.iter().filter(|one| orders::is_done(one)).count())
            }
            Err(status) => {
                if orders::is_deposed(&status) {
                    self.store.verify().await;
                }
                tracing::warn!(
                    %owner,
                    status = orders::lost(&status),
                    "the outcome of a flush order is unknown"
                );
                count
            }
        }
    }
}
