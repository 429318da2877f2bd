//! Creates what is missing, and checks that the coordinator and the storage root belong together.
//!
//! Every master does this before it campaigns. Doing it twice, or at the same time as another
//! master, is safe. The writes have a fixed order: the coordinator's record of the cluster, the
//! mark of the root, the coordinator's epoch, the root's record of that epoch. Where two of them
//! are compared, the one that is written later is read first, and the coordinator is synced before
//! the other one is read. Concurrent writes of another master therefore never look like lost data.

use std::path::PathBuf;

use basalt_cluster::{Nodes, REGION_BUCKETS, feature_level, pb, records};
use basalt_fs::SharedFileSystem;
use basalt_hbase_rpc::znode;
use basalt_model::{FeatureLevel, MasterEpoch, ServerName, paths};
use basalt_runtime::Seams;
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Op};
use bytes::Bytes;
use prost::Message;

use crate::client_nodes::ClientNodes;
use crate::epoch_guarded_store;
use crate::error::Error;

/// The namespaces that every cluster has.
const NAMESPACES: [&str; 2] = ["default", "hbase"];
/// A sync covers the whole tree; its path need not exist.
const SYNC_PATH: &str = "/";
/// The longest `/hbase.id` that is read.
const ID_BYTES_MAX: u64 = 1_024;

/// Creates the nodes and folders of the cluster that are missing. Returns the cluster's id.
///
/// # Errors
/// The coordinator and the storage root do not belong together, or one of them is unreachable.
pub(crate) async fn prepare(
    client: &Client,
    nodes: &Nodes,
    client_nodes: &ClientNodes,
    files: &SharedFileSystem,
    seams: &Seams,
    server: &ServerName,
    level: FeatureLevel,
) -> Result<String, Error> {
    let in_root = read_root_id(files).await?;
    client.sync(SYNC_PATH).await?;
    let in_coordinator = read_cluster_id(client, nodes).await?;
    if let (Some(in_root), None) = (&in_root, &in_coordinator) {
        return Err(Error::ForgottenCluster { in_root: in_root.clone() });
    }
    create_nodes(client, nodes, client_nodes).await?;
    let in_coordinator = match in_coordinator {
        Some(id) => id,
        None => create_cluster(client, nodes, seams, level).await?,
    };
    let epoch = read_epoch(client, nodes).await?;
    // Another master may have marked the root since it was read.
    match read_root_id(files).await? {
        Some(in_root) if in_root != in_coordinator => {
            return Err(Error::ForeignRoot { in_root, in_coordinator });
        }
        Some(_) => {}
        // A master has been active, and a master marks its root before it becomes active.
        None if epoch > MasterEpoch(0) => return Err(Error::MissingRoot { in_coordinator }),
        None => mark_root(files, &in_coordinator, server).await?,
    }
    for folder in [PathBuf::from("/data"), PathBuf::from("/archive"), paths::logs(), epochs()] {
        files.create_directories(&folder).await?;
    }
    files.sync_directory(&PathBuf::from("/")).await?;
    let in_root = newest_in_root(files).await?;
    check_epoch(in_root, newest_epoch(client, nodes).await?)?;
    Ok(in_coordinator)
}

/// Records in the storage root that `epoch` has begun.
///
/// # Errors
/// The root has recorded a higher epoch, or cannot be written.
pub(crate) async fn record_epoch(
    files: &SharedFileSystem,
    epoch: MasterEpoch,
) -> Result<(), Error> {
    check_epoch(newest_in_root(files).await?, epoch)?;
    match files.write_whole(&epoch_file(epoch.0), Bytes::new()).await {
        Err(error) if !error.is_already_exists() => return Err(error.into()),
        _ => {}
    }
    for older in read_epochs(files).await?.into_iter().filter(|older| *older < epoch.0) {
        match files.delete_file(&epoch_file(older)).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The current epoch: the version of its node.
///
/// # Errors
/// The coordinator cannot be read.
pub(crate) async fn read_epoch(client: &Client, nodes: &Nodes) -> Result<MasterEpoch, Error> {
    let (_, stat) = client.get_data(&nodes.master_epoch()).await?;
    Ok(MasterEpoch(u64::try_from(stat.version).unwrap_or(0)))
}

/// Like [`read_epoch`], but never older than this call.
///
/// # Errors
/// The coordinator cannot be read.
pub(crate) async fn newest_epoch(client: &Client, nodes: &Nodes) -> Result<MasterEpoch, Error> {
    client.sync(SYNC_PATH).await?;
    read_epoch(client, nodes).await
}

fn check_epoch(in_root: MasterEpoch, epoch: MasterEpoch) -> Result<(), Error> {
    if in_root > epoch {
        return Err(Error::ForgottenEpochs { in_root: in_root.0, in_coordinator: epoch.0 });
    }
    Ok(())
}

async fn newest_in_root(files: &SharedFileSystem) -> Result<MasterEpoch, Error> {
    Ok(MasterEpoch(read_epochs(files).await?.into_iter().max().unwrap_or(0)))
}

async fn read_epochs(files: &SharedFileSystem) -> Result<Vec<u64>, Error> {
    let entries = files.list(&epochs()).await?;
    Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
}

/// The folder whose single file has the highest epoch as its name.
fn epochs() -> PathBuf {
    "/.master-epochs".into()
}

fn epoch_file(epoch: u64) -> PathBuf {
    epochs().join(format!("{epoch:020}"))
}

async fn read_root_id(files: &SharedFileSystem) -> Result<Option<String>, Error> {
    match files.read_whole(&paths::cluster_id(), ID_BYTES_MAX).await {
        Ok(contents) => {
            let id = znode::decode_cluster_id(contents).map_err(|_| Error::BadRootFile {
                path: paths::cluster_id().display().to_string(),
                reason: "it does not hold a cluster id in HBase's format",
            })?;
            Ok(Some(id))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes the cluster's id into an unmarked root, unless another master does so first.
async fn mark_root(
    files: &SharedFileSystem,
    cluster_id: &str,
    server: &ServerName,
) -> Result<(), Error> {
    // A temporary name with this process's name, because several masters may do this at once.
    let aside = PathBuf::from(format!("/.hbase.id-{server}"));
    files.write_whole(&aside, znode::encode_cluster_id(cluster_id)).await?;
    match files.rename(&aside, &paths::cluster_id()).await {
        Err(error) if error.is_already_exists() => files.delete_file(&aside).await?,
        renamed => renamed?,
    }
    match read_root_id(files).await? {
        Some(in_root) if in_root != cluster_id => {
            Err(Error::ForeignRoot { in_root, in_coordinator: cluster_id.to_owned() })
        }
        _ => Ok(()),
    }
}

async fn read_cluster_id(client: &Client, nodes: &Nodes) -> Result<Option<String>, Error> {
    let Some((data, _)) = client.find_data(&nodes.cluster()).await? else { return Ok(None) };
    let record: pb::ClusterRecord = records::decode("cluster", data)?;
    Ok(Some(record.cluster_id))
}

/// Creates the cluster, at the feature level of its first master.
async fn create_cluster(
    client: &Client,
    nodes: &Nodes,
    seams: &Seams,
    level: FeatureLevel,
) -> Result<String, Error> {
    let record =
        pb::ClusterRecord { cluster_id: fresh_id(seams), created_ms: seams.clock.wall_ms() };
    let created = vec![
        epoch_guarded_store::create(nodes.cluster(), record.encode_to_vec().into()),
        epoch_guarded_store::create(nodes.feature_level(), feature_level::encode(level, None)),
    ];
    match client.multi(created).await {
        Ok(_) => {
            tracing::info!(cluster_id = record.cluster_id, "created a new cluster");
            Ok(record.cluster_id)
        }
        Err(error) if error.code() == Some(ErrorCode::NodeExists) => {
            Ok(read_cluster_id(client, nodes).await?.unwrap_or_default())
        }
        Err(error) => Err(error.into()),
    }
}

/// A random UUID as text.
fn fresh_id(seams: &Seams) -> String {
    let mut bytes = [0; 16];
    seams.random.fill(&mut bytes);
    // Version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let digits = format!("{number:032x}");
    let (a, rest) = digits.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

async fn create_nodes(
    client: &Client,
    nodes: &Nodes,
    client_nodes: &ClientNodes,
) -> Result<(), Error> {
    create_path(client, nodes.parent()).await?;
    create_path(client, client_nodes.parent()).await?;
    let lists = [
        nodes.master_epoch(),
        nodes.masters(),
        nodes.servers(),
        nodes.tables(),
        nodes.namespaces(),
        nodes.regions(),
        nodes.fenced(),
        nodes.logs(),
        nodes.lost_logs(),
        nodes.procedures(),
        nodes.recoveries(),
    ];
    create_missing(client, nodes.parent(), lists.into()).await?;
    let namespaces = NAMESPACES.iter().map(|name| nodes.namespace(name)).collect();
    create_missing(client, &nodes.namespaces(), namespaces).await?;
    let buckets = (0..REGION_BUCKETS).map(|bucket| nodes.region_bucket(bucket as u8)).collect();
    create_missing(client, &nodes.regions(), buckets).await?;
    let found_by_clients =
        vec![client_nodes.cluster_id(), client_nodes.master(), client_nodes.meta_server()];
    create_missing(client, client_nodes.parent(), found_by_clients).await
}

/// Creates `path` and all its ancestors.
async fn create_path(client: &Client, path: &str) -> Result<(), Error> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(Error::BadNodePath { path: path.to_owned() });
    }
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        match client.create(&path[..end], Bytes::new(), CreateMode::Persistent).await {
            Err(error) if error.code() != Some(ErrorCode::NodeExists) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Creates the missing ones of `paths`, which are all children of `parent`.
async fn create_missing(client: &Client, parent: &str, paths: Vec<String>) -> Result<(), Error> {
    loop {
        let (children, _) = client.get_children(parent).await?;
        let is_missing = |path: &&String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            children.binary_search_by(|child| child.as_str().cmp(name)).is_err()
        };
        let missing: Vec<Op> = paths
            .iter()
            .filter(is_missing)
            .map(|path| epoch_guarded_store::create(path.clone(), Bytes::new()))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        match client.multi(missing).await {
            // Another master creates nodes too. List the children again.
            Err(error) if error.code() != Some(ErrorCode::NodeExists) => return Err(error.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;
    use basalt_fs::MemoryFileSystem;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_root_remembers_the_highest_epoch() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        files.create_directories(&epochs()).await.unwrap();
        record_epoch(&files, MasterEpoch(3)).await.unwrap();
        record_epoch(&files, MasterEpoch(5)).await.unwrap();
        record_epoch(&files, MasterEpoch(5)).await.unwrap();
        assert_eq!(read_epochs(&files).await.unwrap(), [5]);
        let error = record_epoch(&files, MasterEpoch(4)).await.unwrap_err();
        assert!(matches!(error, Error::ForgottenEpochs { in_root: 5, in_coordinator: 4 }));
        assert!(error.to_string().contains("Restore"), "{error}");
    }

    #[tokio::test]
    async fn a_root_is_marked_by_one_cluster() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let (first, second) = (server("a"), server("b"));
        mark_root(&files, "one", &first).await.unwrap();
        mark_root(&files, "one", &second).await.unwrap();
        assert_eq!(read_root_id(&files).await.unwrap().as_deref(), Some("one"));
        let error = mark_root(&files, "two", &second).await.unwrap_err();
        assert!(error.to_string().contains("one") && error.to_string().contains("two"), "{error}");
        assert_eq!(files.list(&PathBuf::from("/")).await.unwrap().len(), 1);
    }

    #[test]
    fn a_fresh_id_is_a_uuid() {
        let id = fresh_id(&Seams::system());
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
    }
}
