//! A cluster on this machine that stores its data on a given HDFS.

use std::path::{Path, PathBuf};

use anyhow::Context;
use basalt_api::{Timers, ValidatedCluster, ValidatedHdfs, ValidatedStorage};
use basalt_hdfs::HdfsConfig;
use basalt_runtime::Seams;
use tokio::task::JoinHandle;

use super::cluster::LocalCluster;
use crate::output::error_chain;
use crate::role_config::StorageSettings;
use crate::storage;

/// Checks the folder with the settings of HDFS. Returns its absolute path. If the manifest names no
/// HDFS, the cluster is moved to the HDFS of `folder`.
///
/// # Errors
/// The settings cannot be used.
pub(crate) fn conf(
    cluster: &mut ValidatedCluster,
    folder: Option<&Path>,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = folder else { return Ok(None) };
    let folder =
        folder.canonicalize().with_context(|| format!("--hdfs-conf {}", folder.display()))?;
    if let ValidatedStorage::Claim(_) = cluster.storage {
        let root = format!("/basalt/{}", cluster.name);
        let config_map = String::new();
        cluster.storage =
            ValidatedStorage::Hdfs(ValidatedHdfs { nameservice: None, config_map, root });
    }
    if let ValidatedStorage::Hdfs(hdfs) = &cluster.storage {
        HdfsConfig::from_folder(&folder, hdfs.nameservice.as_deref())?;
    }
    Ok(Some(folder))
}

/// Moves the files of a cluster on HDFS to an unused folder next to the one that its manifest
/// names. For a cluster whose coordinator starts empty and must therefore find an empty storage.
pub(crate) fn begin_anew(cluster: &mut ValidatedCluster) {
    if let ValidatedStorage::Hdfs(hdfs) = &mut cluster.storage {
        hdfs.root = format!("{}-{:016x}", hdfs.root, Seams::system().random.next_u64());
    }
}

/// Reports what the processes wait for while HDFS is unavailable. After that, reports the settings
/// of HDFS that do not fit the failover target. `None` if the data is not on HDFS.
///
/// # Errors
/// The settings cannot be used.
pub(super) fn watch(
    cluster: &LocalCluster,
    timers: &Timers,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(StorageSettings::Hdfs(hdfs)) = cluster.plan().storage() else { return Ok(None) };
    let files = storage::hdfs_files(hdfs, timers, &Seams::system())?;
    let (hdfs, timers) = (hdfs.clone(), timers.clone());
    let report = |what: &str| print_line!("{:<16} {what}", "HDFS");
    Ok(Some(tokio::spawn(async move {
        let waits = |reason: &str| report(&format!("waiting for it: {reason}"));
        if let Err(error) = storage::wait_until_there(&files, &hdfs, waits).await {
            return report(&error_chain(&error));
        }
        let mut known = Vec::new();
        loop {
            let deviations = storage::deviations(&files, &timers).await;
            deviations.iter().filter(|line| !known.contains(*line)).for_each(|line| report(line));
            if deviations.is_empty() && !known.is_empty() {
                report("its settings are now as the failover target needs them");
            }
            known = deviations;
            tokio::time::sleep(storage::LOOK_INTERVAL).await;
        }
    })))
}
