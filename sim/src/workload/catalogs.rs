//! Asks each server directly for the state of a table in its copy of the catalog.

use std::time::Duration;

use basalt_hbase_rpc::{Connection, ConnectionOptions, Service, message_cells, meta, pb};
use basalt_model::{TableName, TableState};
use basalt_runtime::{Network, Seams};
use bytes::Bytes;

/// How long to wait for one server.
const WAIT: Duration = Duration::from_millis(250);

/// The servers that answer from their catalogs.
#[derive(Debug)]
pub(super) struct Catalogs {
    network: Network,
    addresses: Vec<String>,
}

// === impl Catalogs ===

impl Catalogs {
    pub(super) fn new(seams: &Seams, addresses: Vec<String>) -> Self {
        Self { network: seams.network.clone(), addresses }
    }

    /// The states of a table according to the servers that answer in time, by their addresses.
    pub(super) async fn states_of(&self, table: &TableName) -> Vec<(String, Option<TableState>)> {
        let asked = self.addresses.iter().map(|address| async move {
            let state = tokio::time::timeout(WAIT, self.ask(address, table)).await.ok()??;
            Some((address.clone(), state))
        });
        let asked: Vec<_> = asked.collect();
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask(&self, address: &str, table: &TableName) -> Option<Option<TableState>> {
        let options = ConnectionOptions::new(Service::Client, "simulated");
        let connection = Connection::open(&self.network, address, &options).await.ok()?;
        let request = pb::GetRequest {
            region: pb::RegionSpecifier {
                r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
                value: Bytes::from_static(meta::REGION_NAME),
            },
            get: pb::Get {
                row: Bytes::from(table.to_string()),
                column: vec![pb::Column {
                    family: Bytes::from_static(meta::TABLE_FAMILY),
                    qualifier: Vec::new(),
                }],
                ..Default::default()
            },
        };
        let answer = connection.call_decoded::<pb::GetResponse>("Get", &request, &[], WAIT).await;
        let (response, cells) = answer.ok()?;
        let result = response.result.unwrap_or_default();
        let cells = message_cells::cells_of(&result, &mut cells.into_iter()).ok()?;
        meta::parse_table_state(&cells).ok()
    }
}
