//! A stranger that sends region servers orders that no master sends now: earlier orders that arrive
//! late or again, and forged orders.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::catalog::SharedRegion;
use basalt_cluster::pb::region_server_orders_client::RegionServerOrdersClient;
use basalt_cluster::records::write_descriptor;
use basalt_cluster::{Catalog, Nodes, RegionRecord, catalog, pb};
use basalt_model::{RegionEpoch, RegionState, ServerName};
use basalt_runtime::{Random, Seams, grpc};
use tonic::transport::Channel;

use crate::plan::{NODES_PARENT, table_name};
use crate::simulate::connect;
use crate::workload::Workload;

/// The pause before each order.
const PAUSE_MS: std::ops::Range<u64> = 5..60;
/// How long to wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many earlier records are remembered.
const REMEMBERED_MAX: usize = 256;
/// How much higher a forged epoch is.
const JUMP: u64 = 1_000;

type OrdersClient = RegionServerOrdersClient<Channel>;

/// The sender of stray orders; see the module.
struct Stranger {
    seams: Seams,
    catalog: Catalog,
    random: Random,
    /// Earlier records of regions, from which earlier orders can be derived.
    remembered: VecDeque<SharedRegion>,
}

/// Sends stray orders until the load is over.
pub(super) async fn run(
    seams: Seams,
    coordinators: Vec<String>,
    workload: Arc<Workload>,
) -> anyhow::Result<()> {
    workload.until_loading().await;
    let client = connect(&seams, &coordinators).await?;
    let catalog = catalog::follow(client.clone(), Nodes::below(NODES_PARENT)).await?;
    let random = Random::from_seed(seams.random.next_u64());
    let mut stranger = Stranger { seams, catalog, random, remembered: VecDeque::new() };
    while !workload.is_over() {
        let pause = stranger.random.in_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stranger.remember();
        stranger.give_one();
    }
    client.close().await;
    Ok(())
}

// === impl Stranger ===

impl Stranger {
    fn remember(&mut self) {
        for region in self.catalog.regions().into_values() {
            if !self.remembered.contains(&region) {
                self.remembered.push_back(region);
            }
        }
        let too_many = self.remembered.len().saturating_sub(REMEMBERED_MAX);
        self.remembered.drain(..too_many);
    }

    /// Sends one order without waiting for its answer, so that orders overlap.
    fn give_one(&self) {
        let count = self.remembered.len() as u64;
        let Some(master) = self.catalog.master().filter(|_| count > 0) else { return };
        let place = usize::try_from(self.random.in_range(0..count)).unwrap_or(0);
        let Some(before) = self.remembered.get(place) else { return };
        let closing = self.catalog.regions().into_values();
        let closing = closing.filter(|region| region.record.state == RegionState::Closing);
        let closing: Vec<_> = closing.collect();
        match self.random.in_range(0..10) {
            // Repeats all close orders that are under way.
            0..4 if !closing.is_empty() => {
                closing.iter().for_each(|region| self.close(master.epoch, &region.record));
            }
            // An earlier close order; or one that comes too early, while the region is open.
            0..6 => self.close(master.epoch, &before.record),
            // An open order, late or repeated.
            6..8 => self.open(master.epoch, before, before.record.clone()),
            // An open order that no master sent.
            8 => {
                let epoch = RegionEpoch(before.record.epoch.0 + JUMP);
                let server = self.any_server();
                let state = RegionState::Opening;
                let made_up = RegionRecord { epoch, server, state, ..before.record.clone() };
                self.open(master.epoch, before, made_up);
            }
            // An order of a master that was never elected.
            _ => {
                let master_epoch = master.epoch + JUMP;
                self.give(self.any_server(), async move |mut orders: OrdersClient| {
                    let _ = orders.live(pb::LiveRequest { master_epoch }).await;
                });
            }
        }
    }

    fn any_server(&self) -> Option<ServerName> {
        let servers: Vec<ServerName> = self.catalog.servers().into_keys().collect();
        self.random.pick(&servers).cloned()
    }

    fn close(&self, master_epoch: u64, record: &RegionRecord) {
        let region = pb::CloseRegion {
            encoded_name: record.encoded_name().to_string(),
            epoch: record.epoch.0,
            ..Default::default()
        };
        let Some(server) = record.server.clone() else { return };
        let server_name = server.to_string();
        self.give(Some(server), async move |mut orders: OrdersClient| {
            let request =
                pb::CloseRegionsRequest { master_epoch, regions: vec![region], server_name };
            let _ = orders.close_regions(request).await;
        });
    }

    fn open(&self, master_epoch: u64, before: &SharedRegion, record: RegionRecord) {
        let table = table_name().ok().and_then(|name| self.catalog.table(&name));
        let region = pb::OpenRegion {
            encoded_name: record.encoded_name().to_string(),
            record: Some((&record).into()),
            record_version: before.version,
            table: table.as_ref().map(|table| write_descriptor(&table.record.descriptor)),
            family_incarnations: table
                .map(|table| table.record.incarnations.into_iter().collect())
                .unwrap_or_default(),
        };
        self.give(record.server, async move |mut orders: OrdersClient| {
            let regions = vec![region];
            let request =
                pb::OpenRegionsRequest { master_epoch, regions, excluded_nodes: Vec::new() };
            let _ = orders.open_regions(request).await;
        });
    }

    fn give<F>(&self, server: Option<ServerName>, order: impl FnOnce(OrdersClient) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let record = server.and_then(|server| self.catalog.servers().remove(&server));
        let Some(record) = record else { return };
        let network = &self.seams.network;
        let channel = grpc::channel(network, &record.peer_address, ANSWER_TIMEOUT);
        if let Ok(channel) = channel {
            let order = order(OrdersClient::new(channel));
            tokio::spawn(async move {
                let _ = tokio::time::timeout(ANSWER_TIMEOUT, order).await;
            });
        }
    }
}
