//! Settings, and where they are taken from Hadoop's own files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// How to work with one HDFS.
#[derive(Clone, Debug)]
pub struct HdfsConfig {
    /// The NameNodes of the nameservice as `host:port`; one of them is active.
    pub name_nodes: Vec<String>,
    /// The user to act as. Default: `HADOOP_USER_NAME`, else `USER`, else `basalt`.
    pub user: String,
    /// How many replicas a new file has. Default 3.
    pub replication: u32,
    /// With fewer DataNodes than this no block is begun. Default 2, or `replication` if that is 1.
    pub replicas_min: usize,
    /// How long a block may be, in bytes. A log should fit into one. Default 128 MiB.
    pub block_bytes: u64,
    /// Whether a flush waits until the DataNodes have their disks synced (`hsync`), not only until
    /// they have the bytes (`hflush`). Default false.
    pub hsync: bool,
    /// How long connecting to a server may take. Default 500 ms.
    pub connect_timeout: Duration,
    /// How long a NameNode may take for one call before it is asked again or the other one is
    /// asked. Default 2 s.
    pub call_timeout: Duration,
    /// How long a call may take in all, over all NameNodes and attempts. Default 10 s.
    pub call_deadline: Duration,
    /// A DataNode that leaves a packet unacknowledged for longer has failed. Default 1.5 s.
    pub ack_timeout: Duration,
    /// An acknowledgement that takes longer marks its DataNode as slow. Default 500 ms.
    pub slow_ack: Duration,
    /// An idle writer says this often that it is there. Default 5 s; DataNodes give up after 60 s.
    pub heartbeat_interval: Duration,
    /// A DataNode that sends nothing of a block that is being read for longer has failed.
    /// Default 1 s.
    pub read_timeout: Duration,
    /// A read without an answer after this is also tried on the next DataNode. Default 50 ms.
    pub hedge_after: Duration,
    /// How long a DataNode that failed or was slow is left out or asked last. Default 60 s.
    pub avoid_node_for: Duration,
    /// How often the lease of open files is renewed. Default 10 s; others may take it after 60 s.
    pub lease_renewal: Duration,
    /// How long one DataNode may take for one step of fencing. Default 2 s: one that has just
    /// started takes nearly 1 s for its first.
    pub fence_step_timeout: Duration,
    /// How long fencing waits for further DataNodes once there are enough to close the file.
    /// Default 100 ms.
    pub fence_patience: Duration,
}

/// The port of a NameNode whose address has none.
const NAME_NODE_PORT: u16 = 8020;

// === impl HdfsConfig ===

impl HdfsConfig {
    /// The defaults, for these NameNodes.
    pub fn new(name_nodes: Vec<String>) -> Self {
        let user = ["HADOOP_USER_NAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
        Self {
            name_nodes,
            user: user.unwrap_or_else(|| "basalt".to_owned()),
            replication: 3,
            replicas_min: 2,
            block_bytes: 128 << 20,
            hsync: false,
            connect_timeout: Duration::from_millis(500),
            call_timeout: Duration::from_secs(2),
            call_deadline: Duration::from_secs(10),
            ack_timeout: Duration::from_millis(1500),
            slow_ack: Duration::from_millis(500),
            heartbeat_interval: Duration::from_secs(5),
            read_timeout: Duration::from_secs(1),
            hedge_after: Duration::from_millis(50),
            avoid_node_for: Duration::from_secs(60),
            lease_renewal: Duration::from_secs(10),
            fence_step_timeout: Duration::from_secs(2),
            fence_patience: Duration::from_millis(100),
        }
    }

    /// The settings of the `core-site.xml` and `hdfs-site.xml` in a folder: NameNodes,
    /// replication and block size. All else keeps its default.
    ///
    /// # Errors
    /// [`Error::Settings`]: a file cannot be read, or names no NameNode.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let mut properties = BTreeMap::new();
        for name in ["core-site.xml", "hdfs-site.xml"] {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).map_err(|error| Error::Settings {
                reason: format!("{}: {error}", path.display()),
            })?;
            properties.extend(parse_properties(&text));
        }
        Self::from_properties(&properties)
    }

    fn from_properties(properties: &BTreeMap<String, String>) -> Result<Self> {
        let mut config = Self::new(name_nodes(properties)?);
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

/// The RPC addresses of the default file system's NameNodes.
fn name_nodes(properties: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let unusable = |reason: String| Error::Settings { reason };
    let root = properties
        .get("fs.defaultFS")
        .ok_or_else(|| unusable("core-site.xml does not set fs.defaultFS".to_owned()))?;
    let authority = root
        .strip_prefix("hdfs://")
        .map(|rest| rest.split('/').next().unwrap_or_default())
        .filter(|authority| !authority.is_empty())
        .ok_or_else(|| unusable(format!("fs.defaultFS is {root}, not hdfs://…")))?;
    let Some(members) = properties.get(&format!("dfs.ha.namenodes.{authority}")) else {
        let has_port = authority.contains(':');
        return Ok(vec![if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{NAME_NODE_PORT}")
        }]);
    };
    let address = |member: &str| {
        let name = format!("dfs.namenode.rpc-address.{authority}.{}", member.trim());
        properties.get(&name).cloned().ok_or_else(|| unusable(format!("{name} is not set")))
    };
    members.split(',').map(address).collect()
}

/// The `<name>` and `<value>` of each `<property>` in Hadoop's form of XML, without comments.
fn parse_properties(text: &str) -> Vec<(String, String)> {
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

/// A number with Hadoop's suffixes for powers of 1,024.
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
        HdfsConfig::from_properties(&parse_properties(text).into_iter().collect())
    }

    #[test]
    fn settings_are_read_from_hadoops_files() {
        let folder = tempfile::tempdir().unwrap();
        let core = "<configuration><property>\n<name>fs.defaultFS</name>\n  <value> hdfs://nn:9000/x \
                    </value></property></configuration>";
        let site = "<property><name>dfs.replication</name><value>1</value></property>\
                    <!-- <property><name>dfs.blocksize</name><value>1</value></property> -->\
                    <property><name>dfs.blocksize</name><value>256m</value></property>";
        std::fs::write(folder.path().join("core-site.xml"), core).unwrap();
        assert!(HdfsConfig::from_folder(folder.path()).is_err(), "hdfs-site.xml is missing");
        std::fs::write(folder.path().join("hdfs-site.xml"), site).unwrap();
        let config = HdfsConfig::from_folder(folder.path()).unwrap();
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
