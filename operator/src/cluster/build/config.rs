//! The ConfigMaps: the file of each role, and the settings of clients.
//!
//! A role's file is the same that `basalt local` writes. Values that only the pod knows, its
//! address and its name, are variables that the process replaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use basalt_api::ValidatedStorage;
use basalt_api::role_file::{
    CoordinatorMember, CoordinatorSettings, HdfsSettings, LeaseSettings, MasterSettings, PortName,
    RegionServerSettings, RoleFile, RoleName, ServerSettings, StorageSettings,
};
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Object, Plan};
use crate::names::{self, port};

/// Where the shared volume is mounted.
pub(super) const SHARED_PATH: &str = "/data/shared";
/// Where the ConfigMap with the settings of HDFS is mounted.
pub(super) const HDFS_CONF_PATH: &str = "/etc/hadoop";
/// Where the volume of a coordinator member is mounted.
pub(super) const MEMBER_PATH: &str = "/data/member";
/// The node that contains the cluster's records.
const NODES_PARENT: &str = "/basalt";
/// The node at which stock clients look by default.
const CLIENT_PARENT: &str = "/hbase";

/// The ConfigMap of a role.
pub(super) struct RoleConfig {
    pub(super) object: Object,
    /// Changes when the files change.
    pub(super) hash: String,
}

/// The Services of [`Plan::coordinator_addresses`], in the same order.
pub(crate) fn coordinator_service_names(cluster: &str, coordinators: u32) -> Vec<String> {
    (0..coordinators).map(|index| names::pod(cluster, RoleName::Coordinator, index)).collect()
}

/// The name of the file that a pod of `role` reads. It contains Kubernetes variables.
pub(super) fn file_of(role: RoleName) -> String {
    match role {
        RoleName::Coordinator => "$(POD_NAME).json".to_owned(),
        role => format!("{role}.json"),
    }
}

pub(super) fn config_map(plan: &Plan<'_>, role: RoleName) -> RoleConfig {
    let mut files = Map::new();
    match role {
        RoleName::Coordinator => {
            for index in 0..plan.cluster.coordinators {
                let name = names::pod(&plan.cluster.name, role, index);
                let file = file(plan, role, &name, coordinator(plan, index));
                files.insert(format!("{name}.json"), file);
            }
        }
        RoleName::Master => {
            let lease = LeaseSettings {
                namespace: plan.namespace.to_owned(),
                name: names::lease(&plan.cluster.name),
            };
            let settings = MasterSettings {
                server: server(plan, role),
                tables: Vec::new(),
                lease: Some(lease),
            };
            files.insert(file_of(role), file(plan, role, "${POD_NAME}", settings));
        }
        RoleName::RegionServer | RoleName::Idle => {
            let limits = plan.cluster.region_server_config.clone();
            let settings = RegionServerSettings { server: server(plan, role), limits };
            files.insert(file_of(role), file(plan, role, "${POD_NAME}", settings));
        }
    }
    let hash = format!("{:x}", Md5::digest(Value::Object(files.clone()).to_string()));
    let object = plan.role_object("v1", "ConfigMap", role, json!({ "data": files }));
    RoleConfig { object, hash }
}

/// The settings of clients: `hbase-site.xml`.
pub(super) fn hbase_site(plan: &Plan<'_>) -> Object {
    let name = &plan.cluster.name;
    let port = port(RoleName::Coordinator, PortName::Client);
    let timers = &plan.cluster.timers;
    let properties = [
        ("hbase.zookeeper.quorum", format!("{name}.{}.svc", plan.namespace)),
        ("hbase.zookeeper.property.clientPort", port.to_string()),
        ("zookeeper.znode.parent", CLIENT_PARENT.to_owned()),
        ("hbase.client.pause", timers.client_pause.as_millis().to_string()),
        ("hbase.client.operation.timeout", timers.client_operation_timeout.as_millis().to_string()),
    ];
    let body = json!({ "data": { "hbase-site.xml": site(properties) } });
    plan.object("v1", "ConfigMap", &format!("{name}-client"), body)
}

/// The settings of HDFS that the failover target needs: `core-site.xml`, `hdfs-site.xml`.
pub(super) fn hdfs_site(plan: &Plan<'_>) -> Object {
    let settings = plan.cluster.timers.hdfs_settings();
    let file = |name: &str| {
        let of_file = settings.iter().filter(|setting| setting.file == name);
        site(of_file.map(|setting| (setting.name, setting.value.clone())))
    };
    let files = ["core-site.xml", "hdfs-site.xml"].map(|name| (name, file(name)));
    let body = json!({ "data": BTreeMap::from(files) });
    plan.object("v1", "ConfigMap", &format!("{}-hdfs", plan.cluster.name), body)
}

/// A configuration file of Hadoop or HBase. No value contains characters that XML would have to
/// escape.
fn site<'a>(properties: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines: String = properties
        .into_iter()
        .map(|(name, value)| {
            format!("  <property><name>{name}</name><value>{value}</value></property>\n")
        })
        .collect();
    format!("<configuration>\n{lines}</configuration>\n")
}

fn file<S: Serialize>(plan: &Plan<'_>, role: RoleName, process: &str, settings: S) -> Value {
    let file = RoleFile {
        role,
        cluster: plan.cluster.name.clone(),
        // Not the resource's uid: a new cluster of this name uses the volumes that were kept.
        cluster_uid: format!("{}/{}", plan.namespace, plan.cluster.name),
        process: process.to_owned(),
        log_level: plan.cluster.log_level.clone(),
        supervised: false,
        // The default is the number of cores in the pod's limit.
        worker_threads: None,
        failover: plan.cluster.spec.failover.clone(),
        settings,
    };
    let text = serde_json::to_string_pretty(&file);
    // This cannot fail: the structs contain only strings and numbers, which JSON can express.
    Value::String(text.unwrap_or_default())
}

fn coordinator(plan: &Plan<'_>, index: u32) -> CoordinatorSettings {
    let address = |address: &IpAddr, port_name| {
        SocketAddr::new(*address, port(RoleName::Coordinator, port_name)).to_string()
    };
    let members = plan.coordinator_addresses.iter().zip(1..).map(|(ip, id)| CoordinatorMember {
        id,
        client: address(ip, PortName::Client),
        peer: address(ip, PortName::Peer),
    });
    CoordinatorSettings {
        member: u64::from(index) + 1,
        client_listen: listen(RoleName::Coordinator, PortName::Client),
        peer_listen: listen(RoleName::Coordinator, PortName::Peer),
        members: members.collect(),
        data: PathBuf::from(MEMBER_PATH),
    }
}

fn server(plan: &Plan<'_>, role: RoleName) -> ServerSettings {
    let client_port = port(RoleName::Coordinator, PortName::Client);
    let coordinators = plan.coordinator_addresses.iter();
    ServerSettings {
        host: "${POD_IP}".to_owned(),
        rpc_listen: listen(role, PortName::Rpc),
        peer_listen: listen(role, PortName::Peer),
        web_listen: listen(role, PortName::Web),
        coordinators: coordinators
            .map(|ip| SocketAddr::new(*ip, client_port).to_string())
            .collect(),
        nodes_parent: NODES_PARENT.to_owned(),
        client_parent: CLIENT_PARENT.to_owned(),
        storage: match &plan.cluster.storage {
            ValidatedStorage::Claim(_) => StorageSettings::Folder(PathBuf::from(SHARED_PATH)),
            ValidatedStorage::Hdfs(hdfs) => StorageSettings::Hdfs(HdfsSettings {
                conf: PathBuf::from(HDFS_CONF_PATH),
                nameservice: hdfs.nameservice.clone(),
                root: PathBuf::from(&hdfs.root),
                data_node_ordinal: None,
            }),
        },
        rack: String::new(),
    }
}

fn listen(role: RoleName, name: PortName) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port(role, name))
}
