//! Keeps a list of this server's log files on record, so that a missing file is noticed.
//!
//! The list is in a node that outlives the server. The multi that registers the server creates it,
//! and each later write checks that the server is still registered: once the server's death is
//! committed, the list no longer changes. Each write is conditional on a version, which keeps an
//! older write with an unknown outcome from taking effect later.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::feature_level::OnRecord;
use basalt_cluster::{Nodes, pb};
use basalt_model::FeatureLevel;
use basalt_runtime::Shutdown;
use basalt_storage::wal::LogList;
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Error, Op, OpResult};
use bytes::Bytes;
use prost::Message as _;
use tracing::{error, warn};

use crate::server::Server;

/// The pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Registers the server, which knows the feature levels up to `known`: creates its node with
/// `record`, and the list of its logs. Nothing is in the logs yet.
///
/// # Errors
/// The coordinator returned an error or did not answer, or the cluster's level is too high for this
/// process.
pub(crate) async fn register(
    server: &Server,
    known: FeatureLevel,
    record: Bytes,
) -> Result<(), basalt_cluster::Error> {
    let list = server.shared.wal.list();
    let (client, nodes) = (&server.client, &server.nodes);
    let create = |path, data, mode| Op::Create { path, data, mode };
    loop {
        let level = OnRecord::read(client, nodes).await?;
        level.check_admits(known)?;
        let writes = vec![
            create(nodes.logs_of_server(&server.name), encoded(&list), CreateMode::Persistent),
            create(nodes.server(&server.name), record.clone(), CreateMode::Ephemeral),
            level.check(nodes),
        ];
        match client.multi(writes).await {
            // No master of this release has been active yet.
            Err(Error::Multi { index: 0, code: ErrorCode::NoNode, .. }) => {
                make_parent(client, nodes).await?;
            }
            // The level was raised, or is about to be raised.
            Err(Error::Multi { code: ErrorCode::BadVersion, .. }) => {}
            registered => {
                registered?;
                break;
            }
        }
    }
    server.shared.wal.listed(list);
    Ok(())
}

async fn make_parent(client: &Client, nodes: &Nodes) -> Result<(), Error> {
    match client.create(&nodes.logs(), Bytes::new(), CreateMode::Persistent).await {
        Err(error) if error.code() != Some(ErrorCode::NodeExists) => Err(error),
        _ => Ok(()),
    }
}

/// Writes the list whenever it changes, until `abort`, or until the server is no longer registered.
/// In that case its next renewal finds out that it must end.
pub(crate) async fn keep(server: Arc<Server>, abort: Shutdown) {
    let keeping = async {
        let (mut recorded, mut version) = (LogList::default(), 0);
        loop {
            server.shared.wal.list_changed().await;
            let list = server.shared.wal.list();
            if list == recorded {
                server.shared.wal.listed(list);
                continue;
            }
            match write(&server, &list, &mut version).await {
                Ok(()) => {
                    recorded = list.clone();
                    server.shared.wal.listed(list);
                }
                // The server is dead, and its next renewal will find out.
                Err(Error::Multi { index: 0, code: ErrorCode::NoNode, .. }) => return,
                Err(error) if error.is_session_over() => return,
                Err(error) => {
                    error!(%error, "the list of log files is gone; this server exits");
                    server.abort.cancel();
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = abort.cancelled() => {}
        () = keeping => {}
    }
}

/// Writes `list` over `version`, and retries as often as needed. Gives up once the server is no
/// longer registered.
async fn write(server: &Server, list: &LogList, version: &mut i32) -> Result<(), Error> {
    let path = server.nodes.logs_of_server(&server.name);
    loop {
        let data = encoded(list);
        let writes = vec![
            Op::Check { path: server.nodes.server(&server.name), version: None },
            Op::SetData { path: path.clone(), data, version: Some(*version) },
        ];
        match server.client.multi(writes).await {
            Ok(results) => {
                if let Some(OpResult::SetData(stat)) = results.last() {
                    *version = stat.version;
                }
                return Ok(());
            }
            Err(error @ Error::Multi { code: ErrorCode::NoNode, .. }) => return Err(error),
            Err(error) if error.is_session_over() => return Err(error),
            Err(error) => warn!(%error, "could not write the list of log files; retrying"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        if let Ok((_, stat)) = server.client.get_data(&path).await {
            *version = stat.version;
        }
    }
}

fn encoded(list: &LogList) -> Bytes {
    let logs = list.files.iter();
    let logs = logs.map(|(number, bytes)| pb::ListedLog { number: *number, durable_bytes: *bytes });
    pb::LogListRecord { logs: logs.collect() }.encode_to_vec().into()
}
