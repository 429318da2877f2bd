//! Settings, and how they are read from Hadoop's own files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// The settings of the client of one HDFS.
#[derive(Clone, Debug)]
pub struct HdfsConfig {
    /// The NameNodes of the nameservice as `host:port`; one of them is active.
    pub name_nodes: Vec<String>,
    /// The web address of each NameNode, as `host:port`.
    pub name_node_pages: Vec<String>,
    /// The user to act as. Default: `HADOOP_USER_NAME`, else `USER`, else `basalt`.
    pub user: String,
    /// How many replicas a new file has. Default 3.
    pub replication: u32,
    /// No block is begun with fewer DataNodes than this. Default 2, or `replication` if that is 1.
    pub replicas_min: usize,
    /// The maximum length of a block, in bytes. A log file should fit into one. Default 128 MiB.
    pub block_bytes: u64,
    /// The timeout for connecting to a server. It fits a data center and is no longer, because the
    /// server may be gone and callers are waiting. Default 200 ms.
    pub connect_timeout: Duration,
    /// How long a NameNode may take for one call before the call is retried there or on the other
    /// NameNode. Default 2 s.
    pub call_timeout: Duration,
    /// How long a call may take in total, over all NameNodes and attempts. Default 10 s.
    pub call_deadline: Duration,
    /// A DataNode that leaves a packet unacknowledged for longer than this has failed. Default
    /// 1.5 s.
    pub ack_timeout: Duration,
    /// An acknowledgement that takes longer than this marks its DataNode as slow. Default 500 ms.
    pub slow_ack: Duration,
    /// How often an idle writer sends a heartbeat. DataNodes give up on a silent writer after their
    /// `dfs.client.socket-timeout`, which is 60 s by default, and 1 s where a short failover is
    /// promised. Default 250 ms.
    pub heartbeat_interval: Duration,
    /// A DataNode that sends nothing for longer than this while a block is read has failed. Default
    /// 1 s.
    pub read_timeout: Duration,
    /// A read that is not answered within this time is also tried on the next DataNode. Default
    /// 50 ms.
    pub hedge_after: Duration,
    /// How long a DataNode that failed or was slow is excluded or asked last. Default 10 s. A
    /// DataNode that is still dead then refuses the connection immediately, and is excluded again.
    pub avoid_node_for: Duration,
    /// The machine that this process runs on. If it is `None`, no DataNode is considered to be on
    /// this machine.
    pub machine: Option<Machine>,
    /// How often the lease of open files is renewed. Default 10 s. Other clients may take the lease
    /// after 60 s.
    pub lease_renewal: Duration,
    /// How long one DataNode may take for one step of fencing. Default 2 s: a DataNode that has
    /// just started needs nearly 1 s for its first step.
    pub fence_step_timeout: Duration,
    /// How long fencing waits for further DataNodes once there are enough to close the file.
    /// Default 100 ms.
    pub fence_patience: Duration,
}

/// A machine that may run DataNodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// Its address or host name. With a port it means only the DataNode at that port.
    pub name: String,
    /// If the machine has several DataNodes: which of them, sorted by address, is this process's
    /// own, modulo their number. Without it all are equally near, and the first one represents
    /// them.
    pub ordinal: Option<usize>,
}

/// The default RPC port of a NameNode.
const NAME_NODE_PORT: u16 = 8020;
/// The default port of its web pages.
const NAME_NODE_PAGE_PORT: u16 = 9870;

// === impl HdfsConfig ===

impl HdfsConfig {
    /// The defaults, with these NameNodes.
    pub fn new(name_nodes: Vec<String>) -> Self {
        let user = ["HADOOP_USER_NAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
        Self {
            name_nodes,
            name_node_pages: Vec::new(),
            user: user.unwrap_or_else(|| "basalt".to_owned()),
            replication: 3,
            replicas_min: 2,
            block_bytes: 128 << 20,
            connect_timeout: Duration::from_millis(200),
            call_timeout: Duration::from_secs(2),
            call_deadline: Duration::from_secs(10),
            ack_timeout: Duration::from_millis(1500),
            slow_ack: Duration::from_millis(500),
            heartbeat_interval: Duration::from_millis(250),
            read_timeout: Duration::from_secs(1),
            hedge_after: Duration::from_millis(50),
            avoid_node_for: Duration::from_secs(10),
            machine: None,
            lease_renewal: Duration::from_secs(10),
            fence_step_timeout: Duration::from_secs(2),
            fence_patience: Duration::from_millis(100),
        }
    }

    /// Reads the settings from `core-site.xml` and `hdfs-site.xml` in a folder: the NameNodes of
    /// `nameservice` or of the default file system, the replication and the block size. All other
    /// settings keep their defaults.
    ///
    /// # Errors
    /// [`Error::Settings`]: a file cannot be read, or names no NameNode.
    pub fn from_folder(folder: &Path, nameservice: Option<&str>) -> Result<Self> {
        let mut properties = BTreeMap::new();
        for name in ["core-site.xml", "hdfs-site.xml"] {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).map_err(|error| Error::Settings {
                reason: format!("{}: {error}", path.display()),
            })?;
            properties.extend(parse_properties(&text));
        }
        Self::from_properties(&properties, nameservice)
    }

    pub(crate) fn from_properties(
        properties: &BTreeMap<String, String>,
        nameservice: Option<&str>,
    ) -> Result<Self> {
        let mut config = Self::new(name_nodes(properties, nameservice)?);
        config.name_node_pages =
            config.name_nodes.iter().map(|address| page_address(properties, address)).collect();
        let number = |name: &str| properties.get(name).and_then(|value| parse_size(value));
        if let Some(replication) = number("dfs.replication") {
            config.replication = u32::try_from(replication).unwrap_or(u32::MAX);
            config.replicas_min = config.replicas_min.min(config.replication as usize);
        }
        if let Some(block_bytes) = number("dfs.blocksize") {
            config.block_bytes = block_bytes;
        }
        Ok(config)
    }
}

/// The RPC addresses of the NameNodes of `nameservice`, or of the default file system if it is
/// `None`. `nameservice` may also be the `host:port` of a single NameNode.
fn name_nodes(
    properties: &BTreeMap<String, String>,
    nameservice: Option<&str>,
) -> Result<Vec<String>> {
    let unusable = |reason: String| Error::Settings { reason };
    let default = match properties.get("fs.defaultFS") {
        Some(root) => root
            .strip_prefix("hdfs://")
            .map(|rest| rest.split('/').next().unwrap_or_default())
            .filter(|authority| !authority.is_empty())
            .ok_or_else(|| unusable(format!("fs.defaultFS is {root}, not hdfs://…"))),
        None => Err(unusable("core-site.xml does not set fs.defaultFS".to_owned())),
    };
    let authority = match nameservice {
        Some(nameservice) => nameservice,
        None => default.clone()?,
    };
    if let Some(members) = properties.get(&format!("dfs.ha.namenodes.{authority}")) {
        let address = |member: &str| {
            let name = format!("dfs.namenode.rpc-address.{authority}.{}", member.trim());
            properties.get(&name).cloned().ok_or_else(|| unusable(format!("{name} is not set")))
        };
        return members.split(',').map(address).collect();
    }
    if let Some(address) = properties.get(&format!("dfs.namenode.rpc-address.{authority}")) {
        return Ok(vec![address.clone()]);
    }
    if authority.contains(':') {
        return Ok(vec![authority.to_owned()]);
    }
    let is_default = default.is_ok_and(|default| host_of(default) == authority);
    match nameservice {
        Some(nameservice) if !is_default => Err(unusable(format!(
            "the NameNodes of {nameservice} are unknown: neither dfs.ha.namenodes.{nameservice} \
             nor fs.defaultFS names it"
        ))),
        // Exactly as the default file system names it, including the port.
        Some(_) => name_nodes(properties, None),
        None => Ok(vec![format!("{authority}:{NAME_NODE_PORT}")]),
    }
}

/// The web address of the NameNode whose RPC address is `address`.
fn page_address(properties: &BTreeMap<String, String>, address: &str) -> String {
    let rpc = "dfs.namenode.rpc-address";
    let of_member = properties
        .iter()
        .find(|(name, value)| name.starts_with(rpc) && value.as_str() == address)
        .and_then(|(name, _)| properties.get(&name.replacen("rpc-address", "http-address", 1)));
    let written = of_member.or_else(|| properties.get("dfs.namenode.http-address"));
    match written.map(|page| page.rsplit_once(':')) {
        Some(Some(("0.0.0.0" | "", port))) => format!("{}:{port}", host_of(address)),
        Some(Some((host, port))) => format!("{host}:{port}"),
        _ => format!("{}:{NAME_NODE_PAGE_PORT}", host_of(address)),
    }
}

fn host_of(authority: &str) -> &str {
    authority.split(':').next().unwrap_or_default()
}

/// The `<name>` and `<value>` of each `<property>` in Hadoop's XML files. Comments are skipped.
pub(crate) fn parse_properties(text: &str) -> Vec<(String, String)> {
    let mut visible = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("<!--") {
        visible.push_str(before);
        rest = comment.split_once("-->").map_or("", |(_, after)| after);
    }
    visible.push_str(rest);
    let element = |property: &str, tag: &str| {
        let (_, after) = property.split_once(&format!("<{tag}>"))?;
        let (content, _) = after.split_once(&format!("</{tag}>"))?;
        Some(unescape(content.trim()))
    };
    let properties = visible.split("<property>").skip(1);
    properties.filter_map(|text| Some((element(text, "name")?, element(text, "value")?))).collect()
}

fn unescape(text: &str) -> String {
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, sign)| text.replace(entity, sign))
}

/// Parses a number that may have one of Hadoop's suffixes for powers of 1,024.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let shift = match text.chars().last()? {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        _ => return text.parse().ok(),
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<HdfsConfig> {
        of_nameservice(text, None)
    }

    fn of_nameservice(text: &str, nameservice: Option<&str>) -> Result<HdfsConfig> {
        HdfsConfig::from_properties(&parse_properties(text).into_iter().collect(), nameservice)
    }

    #[test]
    fn settings_are_read_from_hadoops_files() {
        let folder = tempfile::tempdir().unwrap();
        let core = "<configuration><property>\n<name>fs.defaultFS</name>\n  <value> \
                    hdfs://nn:9000/x </value></property></configuration>";
        let site = "<property><name>dfs.replication</name><value>1</value></property>\
                    <!-- <property><name>dfs.blocksize</name><value>1</value></property> -->\
                    <property><name>dfs.blocksize</name><value>256m</value></property>";
        std::fs::write(folder.path().join("core-site.xml"), core).unwrap();
        assert!(HdfsConfig::from_folder(folder.path(), None).is_err(), "hdfs-site.xml is missing");
        std::fs::write(folder.path().join("hdfs-site.xml"), site).unwrap();
        let config = HdfsConfig::from_folder(folder.path(), None).unwrap();
        assert_eq!(config.name_nodes, ["nn:9000"]);
        assert_eq!((config.replication, config.replicas_min), (1, 1));
        assert_eq!(config.block_bytes, 256 << 20);
    }

    #[test]
    fn a_nameservice_has_several_name_nodes() {
        let property = |name: &str, value: &str| {
            format!("<property><name>{name}</name><value>{value}</value></property>")
        };
        let text = property("fs.defaultFS", "hdfs://prod")
            + &property("dfs.ha.namenodes.prod", "nn1, nn2")
            + &property("dfs.namenode.rpc-address.prod.nn1", "a:8020");
        assert!(config(&text).unwrap_err().to_string().contains("prod.nn2 is not set"));
        let text = text + &property("dfs.namenode.rpc-address.prod.nn2", "b:8020");
        assert_eq!(config(&text).unwrap().name_nodes, ["a:8020", "b:8020"]);
        let text = text + &property("dfs.namenode.http-address.prod.nn2", "0.0.0.0:50070");
        assert_eq!(config(&text).unwrap().name_node_pages, ["a:9870", "b:50070"]);
        assert_eq!(of_nameservice(&text, Some("prod")).unwrap().name_nodes, ["a:8020", "b:8020"]);
    }

    #[test]
    fn a_nameservice_that_nothing_is_said_of_is_named() {
        let text = "<property><name>fs.defaultFS</name><value>hdfs://nn-0:9000</value></property>";
        let of = |nameservice| of_nameservice(text, Some(nameservice)).map(|c| c.name_nodes);
        assert_eq!(of("nn-0").unwrap(), ["nn-0:9000"]);
        assert_eq!(of("other:8020").unwrap(), ["other:8020"]);
        assert!(of("prod").unwrap_err().to_string().contains("NameNodes of prod"));
    }

    #[test]
    fn another_file_system_is_refused() {
        assert!(
            config("<property><name>fs.defaultFS</name><value>file:///</value></property>")
                .is_err()
        );
        assert!(config("").is_err());
    }
}
