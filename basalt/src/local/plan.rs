//! Computes the processes of a cluster. Pure.
//!
//! ```text
//! DATA/<claim>/          the shared storage, unless that is on an HDFS
//! DATA/coordinator-0/    what one member of the coordinator keeps
//! DATA/config/           the file of each process
//! DATA/logs/             the log of each process
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_api::{ValidatedCluster, ValidatedStorage};
use serde::Serialize;

use super::folder::Identity;
use super::ports::{PortName, Ports};
use crate::role_config::{
    CoordinatorMember, CoordinatorSettings, DeclaredTable, HdfsSettings, MasterSettings,
    RegionServerSettings, RoleFile, RoleName, ServerSettings, StorageSettings,
};

/// All processes of a cluster, in the order of their start.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The cluster's name.
    pub cluster: String,
    /// Folders that must exist before the first process starts.
    pub folders: Vec<PathBuf>,
    /// The processes.
    pub processes: Vec<ProcessPlan>,
}

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessPlan {
    /// Its name, as `regionserver-0`.
    pub name: String,
    /// Its role.
    pub role: RoleName,
    /// The addresses on which it listens.
    pub listens: Vec<(PortName, SocketAddr)>,
    /// Its file.
    pub file: RolePlan,
}

/// The file of one process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RolePlan {
    /// Of a member of the coordinator.
    Coordinator(RoleFile<CoordinatorSettings>),
    /// Of a master.
    Master(RoleFile<MasterSettings>),
    /// Of a region server.
    RegionServer(RoleFile<RegionServerSettings>),
}

/// The hosts of processes that do not run on this machine's loopback interface, by process name.
#[derive(Clone, Debug, Default)]
pub struct Hosts(pub BTreeMap<String, Host>);

/// The host of a process.
#[derive(Clone, Debug)]
pub struct Host {
    /// The address on which it listens.
    pub address: IpAddr,
    /// The command prefix that runs a command there.
    pub enter: Vec<OsString>,
}

/// All other processes use this address, which only this machine can reach.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The folder of the processes' files.
pub(super) const CONFIG_FOLDER: &str = "config";
/// The folder of the processes' logs.
pub(super) const LOGS_FOLDER: &str = "logs";
/// The node that contains the cluster's records.
const NODES_PARENT: &str = "/basalt";
/// The node at which stock clients look by default.
const CLIENT_PARENT: &str = "/hbase";

/// The names and roles of the processes of `cluster`, in the order of their start.
pub fn process_names(cluster: &ValidatedCluster) -> Vec<(String, RoleName)> {
    let of_role = |role: RoleName, count: u32| {
        (0..count).map(move |index| (format!("{}-{index}", role.subcommand()), role))
    };
    of_role(RoleName::Coordinator, cluster.coordinators)
        .chain(of_role(RoleName::Master, cluster.masters))
        .chain(of_role(RoleName::RegionServer, cluster.region_servers))
        .collect()
}

/// Plans `cluster` in the folder `data`, which belongs to `identity`. `hdfs_conf` is the folder
/// with the settings of HDFS. `cores` is the number of cores of the machine, which all processes
/// share.
///
/// # Errors
/// The claim has a reserved folder name, `ports` lacks a port, or the data is on HDFS and its
/// settings are missing.
pub fn plan(
    cluster: &ValidatedCluster,
    identity: &Identity,
    data: &Path,
    hdfs_conf: Option<&Path>,
    ports: &Ports,
    hosts: &Hosts,
    cores: usize,
) -> anyhow::Result<Plan> {
    let names = process_names(cluster);
    let storage = storage_settings(cluster, data, hdfs_conf, &names)?;
    let worker_threads = worker_threads(cores, cluster.region_servers);
    let planner = Planner { cluster, identity, data, ports, hosts, storage, worker_threads };
    let processes = names.iter().enumerate();
    let processes = processes.map(|(index, (name, role))| planner.process(index, name, *role));
    let mut folders = vec![data.join(CONFIG_FOLDER), data.join(LOGS_FOLDER)];
    if let StorageSettings::Folder(folder) = &planner.storage {
        folders.push(folder.clone());
    }
    let coordinators = names.iter().filter(|(_, role)| *role == RoleName::Coordinator);
    folders.extend(coordinators.map(|(name, _)| data.join(name)));
    Ok(Plan {
        cluster: cluster.name.clone(),
        folders,
        processes: processes.collect::<anyhow::Result<_>>()?,
    })
}

/// The number of worker threads of each process. Region servers share the cores. With more threads
/// than cores, threads mostly wake each other; on 2 cores that took a quarter of the processor
/// time.
fn worker_threads(cores: usize, region_servers: u32) -> NonZeroUsize {
    let share = cores / (region_servers as usize).max(1);
    NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN)
}

fn storage_settings(
    cluster: &ValidatedCluster,
    data: &Path,
    hdfs_conf: Option<&Path>,
    names: &[(String, RoleName)],
) -> anyhow::Result<StorageSettings> {
    match &cluster.storage {
        ValidatedStorage::Claim(claim) => {
            let is_process = names.iter().any(|(name, _)| name == claim);
            if is_process || [CONFIG_FOLDER, LOGS_FOLDER].contains(&claim.as_str()) {
                bail!(
                    "spec.storage.shared.claim: {claim:?} is a folder of `basalt local`; choose \
                     another name"
                );
            }
            Ok(StorageSettings::Folder(data.join(claim)))
        }
        ValidatedStorage::Hdfs(hdfs) => {
            let conf = hdfs_conf.context(
                "spec.storage.hdfs: the ConfigMap is used on Kubernetes only; name the folder with \
                 core-site.xml and hdfs-site.xml with --hdfs-conf",
            )?;
            Ok(StorageSettings::Hdfs(HdfsSettings {
                conf: conf.to_owned(),
                nameservice: hdfs.nameservice.clone(),
                root: PathBuf::from(&hdfs.root),
                data_node_ordinal: None,
            }))
        }
    }
}

/// The input for the plan of every process.
struct Planner<'a> {
    cluster: &'a ValidatedCluster,
    identity: &'a Identity,
    data: &'a Path,
    ports: &'a Ports,
    hosts: &'a Hosts,
    storage: StorageSettings,
    worker_threads: NonZeroUsize,
}

// === impl Hosts ===

impl Hosts {
    fn address(&self, process: &str) -> IpAddr {
        self.0.get(process).map_or(HOST, |host| host.address)
    }

    /// The command prefix that runs a command at the host of `process`. Empty for this machine.
    pub(super) fn enter(&self, process: &str) -> Vec<OsString> {
        self.0.get(process).map(|host| host.enter.clone()).unwrap_or_default()
    }
}

// === impl Plan ===

impl Plan {
    /// The shared storage, as in the files of the region servers.
    pub(crate) fn storage(&self) -> Option<&StorageSettings> {
        self.processes.iter().find_map(|process| match &process.file {
            RolePlan::RegionServer(file) => Some(&file.settings.server.storage),
            _ => None,
        })
    }

    /// The addresses `host:port` of all processes of `role` that have the port `port`.
    pub fn addresses(&self, role: RoleName, port: PortName) -> Vec<String> {
        let of_role = self.processes.iter().filter(|process| process.role == role);
        of_role.filter_map(|process| process.address(port)).map(|a| a.to_string()).collect()
    }

    /// The master with the server name `server_name` (`host,port,start code`).
    pub(crate) fn master(&self, server_name: &str) -> Option<&ProcessPlan> {
        let is_it = |process: &&ProcessPlan| {
            process.role == RoleName::Master
                && process.address(PortName::Rpc).is_some_and(|address| {
                    server_name.starts_with(&format!("{},{},", address.ip(), address.port()))
                })
        };
        self.processes.iter().find(is_it)
    }
}

// === impl ProcessPlan ===

impl ProcessPlan {
    /// The address on which it listens for `port`.
    pub fn address(&self, port: PortName) -> Option<SocketAddr> {
        self.listens.iter().find(|(name, _)| *name == port).map(|(_, address)| *address)
    }
}

// === impl Planner ===

impl Planner<'_> {
    fn process(&self, index: usize, name: &str, role: RoleName) -> anyhow::Result<ProcessPlan> {
        let listens = PortName::of_role(role).iter();
        let listens = listens.map(|(port, _)| Ok((*port, self.address(name, *port)?)));
        let file = match role {
            RoleName::Coordinator => {
                RolePlan::Coordinator(self.file(name, role, self.coordinator(index, name)?))
            }
            RoleName::Master => RolePlan::Master(self.file(name, role, self.master(index, name)?)),
            RoleName::RegionServer | RoleName::Idle => {
                let server = self.server(index, name)?;
                let limits = self.cluster.region_server_config.clone();
                let settings = RegionServerSettings { server, limits };
                RolePlan::RegionServer(self.file(name, role, settings))
            }
        };
        Ok(ProcessPlan {
            name: name.to_owned(),
            role,
            listens: listens.collect::<anyhow::Result<_>>()?,
            file,
        })
    }

    fn file<S>(&self, name: &str, role: RoleName, settings: S) -> RoleFile<S> {
        RoleFile {
            role,
            cluster: self.cluster.name.clone(),
            cluster_uid: self.identity.uid.clone(),
            process: name.to_owned(),
            log_level: self.cluster.log_level.clone(),
            supervised: true,
            worker_threads: Some(self.worker_threads),
            failover: self.cluster.spec.failover.clone(),
            settings,
        }
    }

    fn coordinator(&self, index: usize, name: &str) -> anyhow::Result<CoordinatorSettings> {
        let member = |index: u32| {
            let name = format!("{}-{index}", RoleName::Coordinator.subcommand());
            Ok(CoordinatorMember {
                id: u64::from(index) + 1,
                client: self.address(&name, PortName::Client)?.to_string(),
                peer: self.address(&name, PortName::Peer)?.to_string(),
            })
        };
        Ok(CoordinatorSettings {
            member: index as u64 + 1,
            client_listen: self.address(name, PortName::Client)?,
            peer_listen: self.address(name, PortName::Peer)?,
            members: (0..self.cluster.coordinators).map(member).collect::<anyhow::Result<_>>()?,
            data: self.data.join(name),
        })
    }

    fn master(&self, index: usize, name: &str) -> anyhow::Result<MasterSettings> {
        let tables = self.cluster.tables.iter().map(|table| DeclaredTable {
            name: table.resource_name.clone(),
            spec: table.spec.clone(),
        });
        let server = self.server(index, name)?;
        Ok(MasterSettings { server, tables: tables.collect(), lease: None })
    }

    fn server(&self, index: usize, name: &str) -> anyhow::Result<ServerSettings> {
        let coordinators = (0..self.cluster.coordinators).map(|index| {
            let name = format!("{}-{index}", RoleName::Coordinator.subcommand());
            Ok(self.address(&name, PortName::Client)?.to_string())
        });
        // Region servers come after the coordinators and masters. The first region server gets the
        // first rack.
        let racks = &self.cluster.local_racks;
        let before = self.cluster.coordinators as usize
            + if name.starts_with(RoleName::RegionServer.subcommand()) {
                self.cluster.masters as usize
            } else {
                0
            };
        let ordinal = index.saturating_sub(before);
        let rack = racks.iter().cycle().nth(ordinal % racks.len().max(1));
        let mut storage = self.storage.clone();
        if let StorageSettings::Hdfs(hdfs) = &mut storage {
            // All processes run on one machine. If several DataNodes run there, they are assigned
            // in turn, as the racks are.
            hdfs.data_node_ordinal = Some(ordinal);
        }
        Ok(ServerSettings {
            host: self.hosts.address(name).to_string(),
            rpc_listen: self.address(name, PortName::Rpc)?,
            peer_listen: self.address(name, PortName::Peer)?,
            web_listen: self.address(name, PortName::Web)?,
            coordinators: coordinators.collect::<anyhow::Result<_>>()?,
            nodes_parent: NODES_PARENT.to_owned(),
            client_parent: CLIENT_PARENT.to_owned(),
            storage,
            rack: rack.cloned().unwrap_or_default(),
        })
    }

    fn address(&self, process: &str, name: PortName) -> anyhow::Result<SocketAddr> {
        let port = self.ports.get(process, name);
        let port = port.with_context(|| format!("{process} has no {name:?} port"))?;
        Ok(SocketAddr::new(self.hosts.address(process), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role_config;

    fn planned(manifest: &str) -> anyhow::Result<Plan> {
        let manifests = basalt_api::Manifests::from_yaml("m.yaml", manifest)?;
        let (cluster, tables) = manifests.into_single_cluster("m.yaml")?;
        let cluster = basalt_api::validate(&cluster, &tables).unwrap();
        let ports = Ports::default().completed(&process_names(&cluster));
        let identity = Identity::new(&cluster, "uid-1".to_owned());
        plan(&cluster, &identity, Path::new("/data"), None, &ports, &Hosts::default(), 2)
    }

    fn demo() -> Plan {
        planned(include_str!("../../../examples/cluster.yaml")).unwrap()
    }

    #[test]
    fn the_demo_is_eight_processes_in_the_order_of_starting() {
        let plan = demo();
        let names: Vec<_> = plan.processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "coordinator-0",
                "coordinator-1",
                "coordinator-2",
                "master-0",
                "master-1",
                "regionserver-0",
                "regionserver-1",
                "regionserver-2",
            ]
        );
        assert!(plan.folders.contains(&PathBuf::from("/data/demo-data")));
        assert!(plan.folders.contains(&PathBuf::from("/data/coordinator-2")));
        assert_eq!(
            plan.addresses(RoleName::Coordinator, PortName::Client),
            ["127.0.0.1:2181", "127.0.0.1:2182", "127.0.0.1:2183"]
        );
    }

    #[test]
    fn members_know_each_other_and_keep_their_own_folders() {
        let RolePlan::Coordinator(file) = &demo().processes[1].file else {
            panic!("the second process is a coordinator");
        };
        assert_eq!(file.settings.member, 2);
        assert_eq!(file.settings.data, Path::new("/data/coordinator-1"));
        assert_eq!(file.settings.members.len(), 3);
        assert_eq!(file.settings.members[1].client, file.settings.client_listen.to_string());
        assert_eq!(file.settings.members[1].peer, file.settings.peer_listen.to_string());
        assert!(file.supervised);
    }

    #[test]
    fn masters_know_the_tables_and_region_servers_are_dealt_to_racks() {
        let plan = demo();
        let RolePlan::Master(master) = &plan.processes[3].file else {
            panic!("the fourth process is a master");
        };
        assert_eq!(master.settings.validated_tables().unwrap()[0].split_keys.len(), 11);
        let racks = plan.processes.iter().filter_map(|process| match &process.file {
            RolePlan::RegionServer(file) => Some(file.settings.server.rack.as_str()),
            _ => None,
        });
        assert_eq!(racks.collect::<Vec<_>>(), ["r1", "r2", "r3"]);
    }

    #[test]
    fn a_process_reads_the_file_that_was_planned_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for process in demo().processes {
            let path = folder.path().join(&process.name);
            std::fs::write(&path, serde_json::to_string_pretty(&process.file).unwrap()).unwrap();
            match process.file {
                RolePlan::Coordinator(file) => assert_eq!(role_config::read(&path).unwrap(), file),
                RolePlan::Master(file) => assert_eq!(role_config::read(&path).unwrap(), file),
                RolePlan::RegionServer(file) => assert_eq!(role_config::read(&path).unwrap(), file),
            }
        }
    }

    #[test]
    fn the_cores_are_shared_by_the_region_servers() {
        let shares = [(1, 3), (2, 3), (3, 3), (16, 3), (4, 1), (4, 0)];
        let shares = shares.map(|(cores, servers)| worker_threads(cores, servers).get());
        assert_eq!(shares, [1, 1, 1, 5, 4, 4]);
    }

    #[test]
    fn an_hdfs_needs_its_settings() {
        let hdfs = "hdfs: { nameservice: prod, configMap: c, root: /b }";
        let manifest = include_str!("../../../examples/minimal.yaml");
        let manifest = manifest.replace("shared: { claim: demo-data }", hdfs);
        let error = planned(&manifest).unwrap_err().to_string();
        assert!(error.contains("--hdfs-conf"), "{error}");
    }

    #[test]
    fn a_claim_that_is_called_like_a_folder_of_ours_is_refused() {
        let manifest = include_str!("../../../examples/minimal.yaml");
        for claim in ["logs", "coordinator-0"] {
            let error = planned(&manifest.replace("demo-data", claim)).unwrap_err().to_string();
            assert!(error.contains("spec.storage.shared.claim"), "{error}");
        }
    }
}
