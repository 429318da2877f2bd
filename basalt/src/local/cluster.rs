//! A running cluster of child processes, with its folder and its plan.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io, thread};

use anyhow::{Context, bail};
use basalt_api::{Timers, ValidatedCluster};
use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_runtime::{Network, Seams};

use super::folder::{DataFolder, write_json};
use super::keeper::Launch;
use super::plan::{CONFIG_FOLDER, Hosts, LOGS_FOLDER, Plan, ProcessPlan, plan, process_names};
use super::ports::{PortName, Ports};
use super::reaped::notify_masters;
use super::supervisor::Supervisor;
use crate::role_config::{RoleName, StorageSettings};
use crate::storage;

/// The options of a local cluster.
pub struct LocalOptions {
    /// The folder that contains all data.
    pub data: PathBuf,
    /// Whether to use free ports instead of the default ports and the ports of the last start.
    pub free_ports: bool,
    /// The folder with the settings of the HDFS that stores the data.
    pub hdfs_conf: Option<PathBuf>,
    /// The `basalt` binary.
    pub program: PathBuf,
    /// Where each process runs.
    pub hosts: Hosts,
}

/// A running cluster. Dropping it kills its processes.
#[derive(Debug)]
pub struct LocalCluster {
    supervisor: Supervisor,
    plan: Plan,
    folder: DataFolder,
}

/// A log that is longer than this is moved aside when its process is started, in bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;

// === impl LocalCluster ===

impl LocalCluster {
    /// Starts all processes. Does not wait until they are ready.
    ///
    /// # Errors
    /// The folder cannot be used or belongs to another cluster, or a port is in use.
    pub async fn start(
        manifest: &ValidatedCluster,
        options: LocalOptions,
        seams: &Seams,
    ) -> anyhow::Result<Self> {
        let folder = DataFolder::open(&options.data, manifest, &seams.random)?;
        let names = process_names(manifest);
        let ports = if options.free_ports {
            let count = Ports::default().completed(&names).all().count();
            Ports::from_free(&names, &free_ports(&seams.network, count).await?)
        } else {
            folder.ports()?.completed(&names)
        };
        let hdfs_conf = options.hdfs_conf.as_deref();
        let (data, hosts) = (&folder.path, &options.hosts);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let plan = plan(manifest, &folder.identity, data, hdfs_conf, &ports, hosts, cores)?;
        check_ports(&seams.network, &plan, &options.hosts).await?;
        folder.keep_ports(&ports)?;
        prepare(&plan, &folder.path)?;
        let launches = plan.processes.iter();
        let launches = launches.map(|process| launch(process, &options, &folder.path));
        let masters = plan.addresses(RoleName::Master, PortName::Peer);
        let on_death = notify_masters(seams.network.clone(), masters);
        let supervisor = Supervisor::start(launches.collect(), &seams.clock, &on_death);
        Ok(Self { supervisor, plan, folder })
    }

    /// The running processes.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The processes as they were planned.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The data folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// The shared storage, as the masters and region servers open it.
    ///
    /// # Errors
    /// The settings of the storage cannot be used.
    pub(crate) fn storage(
        &self,
        timers: &Timers,
        seams: &Seams,
    ) -> anyhow::Result<SharedFileSystem> {
        Ok(match self.plan.storage() {
            Some(StorageSettings::Hdfs(hdfs)) => {
                Arc::new(storage::hdfs_files(hdfs, timers, seams)?)
            }
            Some(StorageSettings::Folder(folder)) => Arc::new(LocalFileSystem::open(folder)?),
            None => bail!("the cluster has no region server"),
        })
    }

    /// The folder of the logs, with one log for each process.
    pub fn logs(&self) -> PathBuf {
        self.folder.path.join(LOGS_FOLDER)
    }

    /// The log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        log_path(&self.folder.path, process)
    }
}

fn log_path(data: &Path, process: &str) -> PathBuf {
    data.join(LOGS_FOLDER).join(format!("{process}.log"))
}

fn config_path(data: &Path, process: &str) -> PathBuf {
    data.join(CONFIG_FOLDER).join(format!("{process}.json"))
}

fn launch(process: &ProcessPlan, options: &LocalOptions, data: &Path) -> Launch {
    let config = config_path(data, &process.name);
    let mut command = options.hosts.enter(&process.name);
    command.push(options.program.clone().into());
    command.extend([process.role.subcommand().into(), "--config".into(), config.into()]);
    Launch {
        name: process.name.clone(),
        role: process.role,
        program: command.remove(0).into(),
        arguments: command,
        log: log_path(data, &process.name),
    }
}

/// Creates the folders, writes the file of each process, and moves long logs aside.
fn prepare(plan: &Plan, data: &Path) -> anyhow::Result<()> {
    for folder in &plan.folders {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for process in &plan.processes {
        write_json(&config_path(data, &process.name), &process.file)?;
        let log = log_path(data, &process.name);
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            fs::rename(&log, log.with_extension("log.old"))
                .with_context(|| format!("cannot move {} aside", log.display()))?;
        }
    }
    Ok(())
}

/// Checks that each planned port of this machine is free now.
async fn check_ports(network: &Network, plan: &Plan, hosts: &Hosts) -> anyhow::Result<()> {
    let elsewhere = |process: &&ProcessPlan| hosts.0.contains_key(&process.name);
    for process in plan.processes.iter().filter(|process| !elsewhere(process)) {
        for (name, address) in &process.listens {
            match network.listen(*address).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    bail!("{}", in_use(&process.name, *name, address.port()))
                }
                Err(error) => return Err(error).context(process.name.clone()),
            }
        }
    }
    Ok(())
}

fn in_use(process: &str, name: PortName, port: u16) -> String {
    format!(
        "port {port}, for the {name:?} port of {process}, is in use by another program. Stop that, \
         or start with --free-ports",
    )
    .replace(&format!("{name:?}"), &format!("{name:?}").to_lowercase())
}

/// `count` ports that are free now. All listeners are open at the same time, so the ports differ.
async fn free_ports(network: &Network, count: usize) -> anyhow::Result<Vec<u16>> {
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        listeners.push(network.listen(([127, 0, 0, 1], 0).into()).await?);
    }
    let ports = listeners.iter().map(|listener| listener.local_address().map(|a| a.port()));
    Ok(ports.collect::<io::Result<_>>()?)
}
