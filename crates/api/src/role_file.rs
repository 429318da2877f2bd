//! The file that one process is started with: who it is, where it listens, whom it talks to.
//!
//! `basalt local` writes it for its children, the operator puts it into a ConfigMap. It is JSON or
//! YAML. Timers are not in it, but the promise that they follow from: a process derives them
//! itself.

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

/// What every role's file holds, and the settings `S` of the role.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleFile<S> {
    /// Which role it is for.
    pub role: RoleName,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id: another cluster of the same name has another one.
    pub cluster_uid: String,
    /// The name of the process, as `regionserver-0`.
    pub process: String,
    /// What is logged.
    pub log_level: String,
    /// Whether the end of standard input means that whoever started it is gone, and it must end.
    #[serde(default)]
    pub supervised: bool,
    /// On how many threads its tasks run; one for each core if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_threads: Option<NonZeroUsize>,
    /// The promise that all timers are derived from.
    pub failover: Failover,
    /// What only this role needs.
    pub settings: S,
}

/// The roles that a process can have.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// A member of the coordinator.
    Coordinator,
    /// A master.
    Master,
    /// A region server.
    RegionServer,
    /// One that does nothing; see [`IdleSettings`].
    Idle,
}

/// What a port is for.
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
    /// Which of `members` it is.
    pub member: u64,
    /// Where ZooKeeper clients are accepted.
    pub client_listen: SocketAddr,
    /// Where the other members are accepted.
    pub peer_listen: SocketAddr,
    /// All members, itself included.
    pub members: Vec<CoordinatorMember>,
    /// The folder of its log and snapshots.
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
    /// What masters and region servers have in common.
    pub server: ServerSettings,
    /// The tables that are made if they are missing.
    pub tables: Vec<DeclaredTable>,
    /// The Lease that elects; without one the coordinator does so alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseSettings>,
}

/// The label that the active master puts on its pod, and by which a Service finds it.
pub const ACTIVE_MASTER_LABEL: &str = "basalt.db/active-master";

/// A Kubernetes Lease, by its place. How long it lasts follows from the promise.
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
    /// What masters and region servers have in common.
    pub server: ServerSettings,
    /// Its limits.
    pub limits: RegionServerConfig,
}

/// What masters and region servers have in common.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerSettings {
    /// The host by which clients and other servers reach it.
    pub host: String,
    /// Where HBase clients are accepted.
    pub rpc_listen: SocketAddr,
    /// Where other servers are accepted.
    pub peer_listen: SocketAddr,
    /// Where its pages are served.
    pub web_listen: SocketAddr,
    /// The `host:port` of each member of the coordinator.
    pub coordinators: Vec<String>,
    /// The node below which the cluster's records lie.
    pub nodes_parent: String,
    /// The node below which stock clients look for the cluster.
    pub client_parent: String,
    /// The shared storage.
    pub storage: StorageSettings,
    /// The rack it stands in.
    pub rack: String,
}

/// Where the shared storage is: a path, or what tells the way to an HDFS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StorageSettings {
    /// A folder that all masters and region servers see.
    Folder(PathBuf),
    /// A folder of an HDFS.
    Hdfs(HdfsSettings),
}

/// The environment variable with the address or the host name of the machine that a process runs
/// on, as a DataNode on it has it, where that is not the host that the process advertises. No part
/// of the file: a process of the release before would refuse it.
pub const MACHINE_VARIABLE: &str = "BASALT_MACHINE";

/// A folder of an HDFS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HdfsSettings {
    /// The folder that `core-site.xml` and `hdfs-site.xml` lie in.
    pub conf: PathBuf,
    /// The name service; without one, that of `fs.defaultFS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameservice: Option<String>,
    /// The folder below which everything is kept.
    pub root: PathBuf,
    /// Of several DataNodes on the machine of this process, sorted by address, which one is near
    /// it, modulo their number: so that the servers of `basalt local` have one each. Without it all
    /// are.
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
    /// Whether it goes on when it is asked to stop, to be killed in the end.
    #[serde(default)]
    pub stubborn: bool,
}

// === impl RoleFile ===

impl<S: Settings> RoleFile<S> {
    /// Reads `text`, which stands in the file `name`. What it says as `${NAME}` is taken from
    /// `variable`: what only the machine knows that runs the process, as its address.
    ///
    /// # Errors
    /// It is not what it should be (with the field), is another role's, or names a variable that
    /// is not set.
    pub fn parse(
        name: &str,
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let text = substituted(name, text, variable)?;
        // The role first: the settings of another role would read as a heap of unknown fields.
        let RoleOnly { role } = load::part_of_document(name, &text)?;
        if role != S::ROLE {
            let reason = format!("it is for the role {role}, not for {}", S::ROLE);
            return Err(Error::BadFile { file: name.to_owned(), reason });
        }
        load::document(name, &text)
    }
}

impl<S> RoleFile<S> {
    /// The timers that follow from the promise.
    ///
    /// # Errors
    /// An inequality does not hold.
    pub fn timers(&self) -> Result<Timers, BrokenInequality> {
        Timers::derive(self.failover.target, &self.failover.overrides)
    }
}

/// `text` with each `${NAME}` replaced.
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

/// The one field that says what the others are.
#[derive(Deserialize)]
struct RoleOnly {
    role: RoleName,
}

// === impl RoleName ===

impl RoleName {
    /// Its subcommand; also how its processes are named.
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
    /// The declared tables, ready to be made.
    ///
    /// # Errors
    /// The problems of the first that cannot be made as it is declared.
    pub fn validated_tables(&self) -> Result<Vec<ValidatedTable>, Vec<Problem>> {
        self.tables.iter().map(|table| validate_table(&table.name, &table.spec)).collect()
    }
}

// === impl PortName ===

impl PortName {
    /// The ports that a process of `role` needs, each with its default.
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
