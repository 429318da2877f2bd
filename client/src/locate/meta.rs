//! Reads the meta table, from any server that has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::meta::{self, RegionRow};
use basalt_hbase_rpc::{Service, message_cells, pb};
use basalt_model::{Cell, ReplicaId, ServerName, TableName};
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Place, RegionLocation, region_specifier};
use crate::connection::{ConnectionShared, within};
use crate::{Error, Result};

/// The servers that have the meta table, as the registry last reported, without those that failed.
#[derive(Debug, Default)]
pub(super) struct MetaServers {
    known: Mutex<Arc<[ServerName]>>,
}

/// A server with a call in progress. It is forgotten unless it answers.
struct Doubted<'a> {
    servers: &'a MetaServers,
    server: &'a ServerName,
    has_answered: bool,
}

/// Which rows of the meta table to read.
#[derive(Clone, Debug)]
pub(crate) struct MetaRange {
    pub(crate) start: Bytes,
    pub(crate) stop: Bytes,
    pub(crate) include_stop: bool,
    pub(crate) reversed: bool,
    pub(crate) rows_max: u32,
}

const FIND: &str = "a server of the meta table";

// === impl MetaServers ===

impl MetaServers {
    /// Forgets `server` until the registry names it again, unless it answers. A server that failed
    /// silently costs the whole time of a lookup, and a caller that has no more time than that
    /// gives up while it waits. The server is forgotten in that case too; otherwise no caller would
    /// ever ask the registry.
    fn doubt<'a>(&'a self, server: &'a ServerName) -> Doubted<'a> {
        Doubted { servers: self, server, has_answered: false }
    }
}

// === impl Doubted ===

impl Doubted<'_> {
    fn answered(mut self) {
        self.has_answered = true;
    }
}

impl Drop for Doubted<'_> {
    fn drop(&mut self) {
        if !self.has_answered {
            let mut known = self.servers.known.lock();
            *known = known.iter().filter(|one| *one != self.server).cloned().collect();
        }
    }
}

// === impl ConnectionShared ===

impl ConnectionShared {
    /// The region at `place`, and up to `count - 1` regions before it.
    pub(super) async fn look_up(
        &self,
        table: &TableName,
        place: Place<'_>,
        count: u32,
    ) -> Result<Vec<RegionLocation>> {
        let start = match place {
            Place::Of(row) => meta::search_row(table, row),
            Place::Before([]) => meta::end_row(table),
            Place::Before(row) => [table.to_string().as_bytes(), b",", row, b","].concat().into(),
        };
        let range = MetaRange {
            start,
            stop: meta::first_row(table),
            include_stop: true,
            reversed: true,
            rows_max: count,
        };
        let rows = self.scan_meta(&range).await?;
        let no_region = |reason| Error::NoRegion {
            table: table.clone(),
            row: place.row().escape_ascii().to_string(),
            reason,
        };
        match rows.first() {
            Some(row) if row.split => return Err(no_region("it is being split")),
            Some(row) if row.region.table == *table => {}
            _ => return Err(Error::TableNotFound { table: table.clone() }),
        }
        let mut rows = rows.into_iter();
        let wanted = rows.next().and_then(location_of);
        let mut found = vec![wanted.ok_or_else(|| no_region("it has no server"))?];
        found.extend(locations(table, rows));
        Ok(found)
    }

    /// The regions of `table` that have servers, from the meta row `start` on.
    pub(crate) async fn table_regions(
        &self,
        table: &TableName,
        start: &Bytes,
        rows_max: u32,
    ) -> Result<Vec<RegionLocation>> {
        let range = MetaRange {
            start: start.clone(),
            stop: meta::end_row(table),
            include_stop: false,
            reversed: false,
            rows_max,
        };
        let rows = self.scan_meta(&range).await?;
        Ok(locations(table, rows).collect())
    }

    /// The regions in `range`.
    pub(crate) async fn scan_meta(&self, range: &MetaRange) -> Result<Vec<RegionRow>> {
        let request = scan_request(range);
        let (response, cells, server): (pb::ScanResponse, _, _) =
            self.ask_meta("Scan", &request).await?;
        parse_rows(&response, cells).map_err(|source| Error::BadAnswer { server, source })
    }

    /// The cells of one row of the meta table.
    pub(crate) async fn get_meta(&self, row: Bytes, family: &'static [u8]) -> Result<Vec<Cell>> {
        let request = pb::GetRequest {
            region: region_specifier(Bytes::from_static(meta::REGION_NAME)),
            get: pb::Get {
                row,
                column: vec![pb::Column {
                    family: Bytes::from_static(family),
                    qualifier: Vec::new(),
                }],
                ..Default::default()
            },
        };
        let (response, cells, server): (pb::GetResponse, _, _) =
            self.ask_meta("Get", &request).await?;
        let result = response.result.unwrap_or_default();
        message_cells::cells_of(&result, &mut cells.into_iter())
            .map_err(|source| Error::BadAnswer { server, source })
    }

    /// Calls the known servers of the meta table in turn, then those that the registry names.
    async fn ask_meta<M: prost::Message + Default>(
        &self,
        method: &'static str,
        request: &impl prost::Message,
    ) -> Result<(M, Vec<Cell>, ServerName)> {
        let servers = &self.locator.meta;
        let mut known = servers.known.lock().clone();
        let mut last = None;
        for is_fresh in [false, true] {
            if is_fresh {
                known = self.refresh_meta_servers().await?;
            }
            for server in known.iter() {
                let doubted = servers.doubt(server);
                match self.ask_meta_server(server, method, request).await {
                    Ok((message, cells)) => {
                        doubted.answered();
                        return Ok((message, cells, server.clone()));
                    }
                    Err(error) if error.is_retried() => last = Some(error),
                    Err(error) => {
                        doubted.answered();
                        return Err(error);
                    }
                }
            }
        }
        let waited = self.config.lookup_timeout;
        Err(last.unwrap_or(Error::NotFoundInTime { what: FIND, waited }))
    }

    async fn refresh_meta_servers(&self) -> Result<Arc<[ServerName]>> {
        let wait = self.config.lookup_timeout;
        let servers = within(wait, FIND, self.registry.meta_servers(&self.pool, wait)).await?;
        let servers: Arc<[ServerName]> = servers.into();
        *self.locator.meta.known.lock() = servers.clone();
        Ok(servers)
    }

    async fn ask_meta_server<M: prost::Message + Default>(
        &self,
        server: &ServerName,
        method: &'static str,
        request: &impl prost::Message,
    ) -> Result<(M, Vec<Cell>)> {
        let wait: Duration = self.config.lookup_timeout;
        let ask = async {
            let connection = self.pool.get(&server.address(), Service::Client).await?;
            let answer = connection.call_decoded(method, request, &[], wait).await;
            if let Err(error) = &answer {
                self.pool.note_failure(&connection, Service::Client, error);
            }
            Ok(answer?)
        };
        within(wait, FIND, ask).await
    }
}

fn scan_request(range: &MetaRange) -> pb::ScanRequest {
    pb::ScanRequest {
        region: Some(region_specifier(Bytes::from_static(meta::REGION_NAME))),
        scan: Some(pb::Scan {
            column: vec![pb::Column {
                family: Bytes::from_static(meta::REGION_FAMILY),
                qualifier: Vec::new(),
            }],
            start_row: Some(range.start.clone()),
            stop_row: Some(range.stop.clone()),
            include_start_row: Some(true),
            include_stop_row: Some(range.include_stop),
            reversed: Some(range.reversed),
            caching: Some(range.rows_max),
            read_type: Some(pb::scan::ReadType::Pread.into()),
            ..Default::default()
        }),
        number_of_rows: Some(range.rows_max),
        limit_of_rows: Some(range.rows_max),
        close_scanner: Some(true),
        // Whole rows only.
        client_handles_partials: Some(false),
        client_handles_heartbeats: Some(false),
        ..Default::default()
    }
}

fn parse_rows(
    response: &pb::ScanResponse,
    cells: Vec<Cell>,
) -> basalt_hbase_rpc::Result<Vec<RegionRow>> {
    let mut rows = Vec::new();
    for result in message_cells::scanned_results(response, cells)? {
        rows.extend(meta::parse_region_row(&result)?);
    }
    Ok(rows)
}

/// The locations of those regions of `table` that have servers.
fn locations(
    table: &TableName,
    rows: impl IntoIterator<Item = RegionRow>,
) -> impl Iterator<Item = RegionLocation> {
    let here = move |row: &RegionRow| row.region.table == *table && !row.split;
    rows.into_iter().filter(here).filter_map(location_of)
}

fn location_of(row: RegionRow) -> Option<RegionLocation> {
    let mut replicas: BTreeMap<_, _> = row
        .replicas
        .into_iter()
        .filter_map(|(replica, at)| Some((replica, (at.server?, at.open_sequence_id))))
        .collect();
    let (server, open_sequence_id) = replicas.remove(&ReplicaId(0))?;
    Some(RegionLocation {
        name: row.region.name(),
        region: row.region,
        server,
        open_sequence_id: open_sequence_id.unwrap_or(0),
        replicas: replicas.into_iter().map(|(replica, (server, _))| (replica, server)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_forgotten_unless_it_answers() {
        let names = ["a,1,1", "b,1,1"].map(|name| name.parse::<ServerName>().unwrap());
        let servers = MetaServers::default();
        *servers.known.lock() = names.clone().into();
        servers.doubt(&names[0]).answered();
        assert_eq!(servers.known.lock()[..], names);
        // As if the caller stopped waiting.
        drop(servers.doubt(&names[0]));
        assert_eq!(servers.known.lock()[..], names[1..]);
    }
}
