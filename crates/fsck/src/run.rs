//! Reads, checks and reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::{Nodes, catalog};
use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_hbase_rpc::znode;
use basalt_model::paths;
use basalt_storage::manifest::Manifest;
use basalt_storage::named_file;
use basalt_zk::Client;
use futures::{StreamExt, stream};
use serde::Serialize;

use crate::check::{
    Evidence, Found, Manifests, NeededLog, Problem, Unreferenced, UnreferencedKind, problems,
    unreferenced,
};
use crate::{Records, Tree};

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was looked at.
    pub summary: Summary,
    /// What is missing or wrong.
    pub problems: Vec<Problem>,
    /// The files that nothing names, by kind and path.
    pub unreferenced: Vec<Unreferenced>,
}

/// What a check looked at.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The cluster's id.
    pub cluster_id: String,
    /// How many tables there are.
    pub tables: usize,
    /// How many regions there are.
    pub regions: usize,
    /// How many region servers are alive.
    pub region_servers: usize,
    /// How many store files and nonce files the newest manifests name.
    pub named_files: usize,
    /// The sum of their lengths, in bytes.
    pub named_bytes: u64,
    /// How many files are stored under the root.
    pub files: usize,
    /// The sum of their lengths, in bytes.
    pub bytes: u64,
}

/// What one pass found.
struct Pass {
    summary: Summary,
    problems: BTreeSet<Problem>,
    unreferenced: BTreeSet<Unreferenced>,
}

/// The pause before problems are looked for again: longer than a file takes to move.
const CONFIRM_PAUSE: Duration = Duration::from_secs(2);
/// How many manifests are read, and files looked up, at a time.
const READS_AT_ONCE: usize = 32;
/// No cluster id is longer, in bytes.
const ID_BYTES_MAX: u64 = 1 << 10;

/// Compares the files below the root of `files` with the records below `nodes`. A second pass
/// confirms what the first one finds.
///
/// # Errors
/// The coordinator or the file system does not answer. Nothing is known then.
pub async fn fsck(
    files: &SharedFileSystem,
    client: &Client,
    nodes: &Nodes,
) -> crate::Result<Report> {
    let catalog = catalog::follow(client.clone(), nodes.clone()).await?;
    let first = pass(files, client, nodes, &catalog).await?;
    let Pass { summary, mut problems, mut unreferenced } = first;
    if !problems.is_empty() {
        tokio::time::sleep(CONFIRM_PAUSE).await;
        let second = pass(files, client, nodes, &catalog).await?;
        problems.retain(|problem| second.problems.contains(problem));
        unreferenced.retain(|file| second.unreferenced.contains(file));
    }
    let (problems, unreferenced) = (problems.into_iter(), unreferenced.into_iter());
    Ok(Report { summary, problems: problems.collect(), unreferenced: unreferenced.collect() })
}

async fn pass(
    files: &SharedFileSystem,
    client: &Client,
    nodes: &Nodes,
    catalog: &catalog::Catalog,
) -> crate::Result<Pass> {
    let tree = Tree::list(files).await?;
    let records = Records::read(client, nodes, catalog).await?;
    let manifests = read_manifests(files, &records).await;
    let evidence = Evidence::new(records, manifests);
    let Evidence { records, named, .. } = &evidence;
    let found = look_up(files, &tree, named.iter().map(|file| file.path.clone())).await;
    let logs = look_up_logs(files, &evidence.logs).await;
    let root_id = read_cluster_id(files).await?;
    let mut unreferenced = unreferenced(&evidence, &tree);
    let summary = Summary {
        cluster_id: records.cluster_id.clone(),
        tables: records.tables.len(),
        regions: records.regions.len(),
        region_servers: records.servers.len(),
        named_files: named.len(),
        named_bytes: named.iter().map(|file| file.length).sum(),
        files: tree.files.len(),
        bytes: tree.files.values().sum(),
    };
    let problems = problems(&evidence, &root_id, &found, &logs);
    // Two listings at once would need twice the memory.
    drop((tree, found, evidence));
    let now = Tree::list(files).await?;
    unreferenced.retain(|file| now.files.contains_key(&file.path));
    Ok(Pass { summary, problems, unreferenced })
}

/// The newest manifests of all regions. What cannot be read is a finding, and does not keep the
/// rest from being checked.
async fn read_manifests(files: &SharedFileSystem, records: &Records) -> Manifests {
    let reads: Vec<_> = records
        .regions
        .iter()
        .map(|(name, record)| async move {
            let read = Manifest::read_newest(files, &record.info.table, *name).await;
            (*name, read.map_err(|error| error.to_string()))
        })
        .collect();
    stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect().await
}

/// The lengths of files that have these paths while they are not archived. Those that `tree` does
/// not have are looked for: they may be newer than it.
async fn look_up(
    files: &SharedFileSystem,
    tree: &Tree,
    named: impl Iterator<Item = PathBuf>,
) -> Found {
    let mut found = Found::new();
    let mut unknown = Vec::new();
    for path in named {
        let listed = tree.files.get(&path).or_else(|| tree.files.get(&paths::archived(&path)));
        if let Some(length) = listed {
            found.insert(path, Ok(Some(*length)));
        } else {
            unknown.push(path);
        }
    }
    let looking: Vec<_> = unknown
        .into_iter()
        .map(|path| async move {
            let opened = named_file::look_up(files, &path).await;
            let length = length(opened.map(|(_, file)| file));
            (path, length)
        })
        .collect();
    let looked_up: Vec<_> = stream::iter(looking).buffer_unordered(READS_AT_ONCE).collect().await;
    found.extend(looked_up);
    found
}

/// The lengths of WAL files. Each is opened: the listing of HDFS does not have the length of a file
/// that is not closed.
async fn look_up_logs(files: &SharedFileSystem, logs: &[NeededLog]) -> Found {
    let looking: Vec<_> = logs
        .iter()
        .map(|log| async move {
            let mut found = length(files.open(&log.path).await);
            if let (Ok(None), Some(renamed)) = (&found, &log.renamed) {
                found = length(files.open(renamed).await);
            }
            (log.path.clone(), found)
        })
        .collect();
    stream::iter(looking).buffer_unordered(READS_AT_ONCE).collect().await
}

fn length(opened: basalt_fs::Result<Arc<dyn ReadFile>>) -> Result<Option<u64>, String> {
    match opened {
        Ok(file) => Ok(Some(file.length())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The id of the cluster that the root belongs to; empty if it has none that can be decoded.
async fn read_cluster_id(files: &SharedFileSystem) -> crate::Result<String> {
    match files.read_whole(&paths::cluster_id(), ID_BYTES_MAX).await {
        Ok(id) => Ok(znode::decode_cluster_id(id).unwrap_or_default()),
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

// === impl Report ===

impl Report {
    /// How many unreferenced files of each kind there are, their bytes, and the first of them.
    pub fn kinds(&self) -> BTreeMap<UnreferencedKind, (usize, u64, &Path)> {
        let mut kinds = BTreeMap::new();
        for file in &self.unreferenced {
            let kind = kinds.entry(file.kind).or_insert((0, 0, file.path.as_path()));
            kind.0 += 1;
            kind.1 += file.bytes;
        }
        kinds
    }
}
