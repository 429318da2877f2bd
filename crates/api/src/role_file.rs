//! The configuration file of one process: its identity, its addresses, and the addresses of others.
//!
//! `basalt local` writes it for its child processes, and the operator puts it into a ConfigMap. It
//! is JSON or YAML. It does not contain timers, but the failover target, from which a process
//! derives the timers itself.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::Failover;
use crate::{
    BasaltTableSpec, BrokenInequality, Error, Problem, RegionServerConfig, Timers, ValidatedTable,
    load, validate_table,
};

/// The common fields of every role's file, and the settings `S` of the role.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleFile<S> {
    /// The role that the file is for.
    pub role: RoleName,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id. Another cluster of the same name has a different one.
    pub cluster_uid: String,
    /// The name of the process, such as `regionserver-0`.
    pub process: String,
    /// The log level or filter.
    pub log_level: String,
    /// Whether the process must end when its standard input ends, because its supervisor has ended.
    #[serde(default)]
    pub supervised: bool,
    /// The number of worker threads. Defaults to one for each core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_threads: Option<NonZeroUsize>,
    /// The failover target and overrides, from which all timers are derived.
    pub failover: Failover,
    /// The settings of the role.
    pub settings: S,
}

/// The roles of processes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// A member of the coordinator.
    Coordinator,
    /// A master.
    Master,
    /// A region server.
    RegionServer,
    /// A role that does nothing; see [`IdleSettings`].
    Idle,
}

/// The purpose of a port.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortName {
    /// ZooKeeper clients, at a coordinator.
    Client,
    /// HBase clients, at a master or a region server.
    Rpc,
    /// Pages and metrics.
    Web,
    /// Other processes of the cluster.
    Peer,
}

/// The settings of a role.
pub trait Settings: DeserializeOwned {
    /// The role.
    const ROLE: RoleName;
}

/// The settings of a member of the coordinator.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoordinatorSettings {
    /// The id of this member in `members`.
    pub member: u64,
    /// The address for ZooKeeper clients.
    pub client_listen: SocketAddr,
    /// The address for other members.
    pub peer_listen: SocketAddr,
    /// All members, including this one.
    pub members: Vec<CoordinatorMember>,
    /// The folder that contains its log and snapshots.
    pub data: PathBuf,
}

/// One member of the coordinator.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoordinatorMember {
    /// Its number, from 1.
    pub id: u64,
    /// The `host:port` for ZooKeeper clients.
    pub client: String,
    /// The `host:port` for the other members.
    pub peer: String,
}

/// The settings of a master.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MasterSettings {
    /// The common settings of masters and region servers.
    pub server: ServerSettings,
    /// The tables that are created if they are missing.
    pub tables: Vec<DeclaredTable>,
    /// The Lease that elects the active master. Without one the coordinator alone elects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseSettings>,
}

/// The label that the active master puts on its pod. A Service finds the pod by it.
pub const ACTIVE_MASTER_LABEL: &str = "basalt.db/active-master";

/// The namespace and name of a Kubernetes Lease. Its duration follows from the failover target.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The settings of a region server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionServerSettings {
    /// The common settings of masters and region servers.
    pub server: ServerSettings,
    /// The limits of the region server.
    pub limits: RegionServerConfig,
}

/// The common settings of masters and region servers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerSettings {
    /// The host at which clients and other servers reach this server.
    pub host: String,
    /// The address for HBase clients.
    pub rpc_listen: SocketAddr,
    /// The address for other servers.
    pub peer_listen: SocketAddr,
    /// The address of its web pages.
    pub web_listen: SocketAddr,
    /// The `host:port` of each member of the coordinator.
    pub coordinators: Vec<String>,
    /// The node that contains the cluster's records.
    pub nodes_parent: String,
    /// The node at which stock clients look for the cluster.
    pub client_parent: String,
    /// The shared storage.
    pub storage: StorageSettings,
    /// The rack of the server.
    pub rack: String,
}

/// The location of the shared storage: a path, or the settings of an HDFS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StorageSettings {
    /// A folder that all masters and region servers see.
    Folder(PathBuf),
    /// A folder on HDFS.
    Hdfs(HdfsSettings),
}

/// The environment variable with the address or host name of the machine that a process runs on, as
/// a DataNode on that machine knows it, if that is not the host that the process advertises. It is
/// not part of the file, because a process of the previous release would reject the file.
pub const MACHINE_VARIABLE: &str = "BASALT_MACHINE";

/// A folder on HDFS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HdfsSettings {
    /// The folder that contains `core-site.xml` and `hdfs-site.xml`.
    pub conf: PathBuf,
    /// The name service. Without one, the name service of `fs.defaultFS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameservice: Option<String>,
    /// The folder that contains everything.
    pub root: PathBuf,
    /// Selects the DataNode that is near this process if several run on its machine: they are
    /// sorted by address, and this is the index modulo their number. So each server of
    /// `basalt local` has its own. Without this field all of them are near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_node_ordinal: Option<usize>,
}

/// A `BasaltTable`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredTable {
    /// Its `metadata.name`.
    pub name: String,
    /// Its `spec`.
    pub spec: BasaltTableSpec,
}

/// The settings of a process that does nothing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdleSettings {
    /// Whether it ignores the request to stop, so that it must be killed.
    #[serde(default)]
    pub stubborn: bool,
}

// === impl RoleFile ===

impl<S: Settings> RoleFile<S> {
    /// Reads `text`, the contents of the file `name`. Each `${NAME}` is replaced by the result of
    /// `variable`, for values that only the machine of the process knows, such as its address.
    ///
    /// # Errors
    /// The text is invalid (the error names the field), is for another role, or names a variable
    /// that is not set.
    pub fn parse(
        name: &str,
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let text = substituted(name, text, variable)?;
        // The role first. Otherwise a file for another role would be reported as many unknown
        // fields.
        let RoleOnly { role } = load::part_of_document(name, &text)?;
        if role != S::ROLE {
            let reason = format!("it is for the role {role}, not for {}", S::ROLE);
            return Err(Error::BadFile { file: name.to_owned(), reason });
        }
        load::document(name, &text)
    }
}

impl<S> RoleFile<S> {
    /// The timers that follow from the failover target.
    ///
    /// # Errors
    /// An inequality does not hold.
    pub fn timers(&self) -> Result<Timers, BrokenInequality> {
        Timers::derive(self.failover.target, &self.failover.overrides)
    }
}

/// Returns `text` with each `${NAME}` replaced.
fn substituted(
    file: &str,
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Error> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let bad = |reason| Error::BadFile { file: file.to_owned(), reason };
        let (name, behind) =
            after.split_once('}').ok_or_else(|| bad("\"${\" without \"}\"".to_owned()))?;
        let value = variable(name)
            .ok_or_else(|| bad(format!("the environment variable {name} is not set")))?;
        replaced.push_str(before);
        replaced.push_str(&value);
        rest = behind;
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// The field that determines the type of the others.
#[derive(Deserialize)]
struct RoleOnly {
    role: RoleName,
}

// === impl RoleName ===

impl RoleName {
    /// Its subcommand. The names of its processes begin with it.
    pub fn subcommand(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Master => "master",
            Self::RegionServer => "regionserver",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.subcommand())
    }
}

// === impl Settings ===

impl Settings for CoordinatorSettings {
    const ROLE: RoleName = RoleName::Coordinator;
}

impl Settings for MasterSettings {
    const ROLE: RoleName = RoleName::Master;
}

impl Settings for RegionServerSettings {
    const ROLE: RoleName = RoleName::RegionServer;
}

impl Settings for IdleSettings {
    const ROLE: RoleName = RoleName::Idle;
}

// === impl MasterSettings ===

impl MasterSettings {
    /// The declared tables, after validation.
    ///
    /// # Errors
    /// The problems of the first table that cannot be created as it is declared.
    pub fn validated_tables(&self) -> Result<Vec<ValidatedTable>, Vec<Problem>> {
        self.tables.iter().map(|table| validate_table(&table.name, &table.spec)).collect()
    }
}

// === impl PortName ===

impl PortName {
    /// The ports that a process of `role` needs, with their defaults.
    pub fn of_role(role: RoleName) -> &'static [(Self, u16)] {
        match role {
            RoleName::Coordinator => &[(Self::Client, 2181), (Self::Peer, 2888)],
            RoleName::Master => &[(Self::Rpc, 16000), (Self::Web, 16010), (Self::Peer, 16100)],
            RoleName::RegionServer => {
                &[(Self::Rpc, 16020), (Self::Web, 16030), (Self::Peer, 16200)]
            }
            RoleName::Idle => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<S: Settings + fmt::Debug>(text: &str) -> Result<RoleFile<S>, String> {
        let variable = |name: &str| (name == "POD_IP").then(|| "10.0.0.7".to_owned());
        RoleFile::parse("role.json", text, variable).map_err(|error| error.to_string())
    }

    const IDLE: &str = r#"{ "role": "idle", "cluster": "c", "clusterUid": "u", "process": "idle-0",
        "logLevel": "info", "failover": { "target": "3s" }, "settings": {} }"#;

    #[test]
    fn a_file_is_read_and_gives_its_timers() {
        let file = read::<IdleSettings>(IDLE).unwrap();
        assert!(!file.supervised);
        assert_eq!(file.timers().unwrap().session_timeout.as_millis(), 1_500);
    }

    #[test]
    fn the_file_of_another_role_is_refused_as_that() {
        let error = read::<CoordinatorSettings>(IDLE).unwrap_err();
        assert!(error.contains("for the role idle, not for coordinator"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = read::<IdleSettings>(&IDLE.replace("{}", "{ \"stuborn\": true }")).unwrap_err();
        assert!(error.contains("settings") && error.contains("`stubborn`"), "{error}");
    }

    #[test]
    fn variables_are_put_in_and_a_missing_one_is_named() {
        let file = read::<IdleSettings>(&IDLE.replace("idle-0", "idle@${POD_IP}")).unwrap();
        assert_eq!(file.process, "idle@10.0.0.7");
        let error = read::<IdleSettings>(&IDLE.replace("idle-0", "${NODE}")).unwrap_err();
        assert!(error.contains("NODE") && error.contains("role.json"), "{error}");
        assert!(read::<IdleSettings>(&IDLE.replace("idle-0", "${NODE")).is_err());
    }
}
