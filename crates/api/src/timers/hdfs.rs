//! The settings of HDFS that the failover target needs, as in Apache Hadoop's configuration files,
//! and the differences of a given HDFS from them.
//!
//! For defaults and meanings, see `hdfs-default.xml` and `core-default.xml` of Hadoop 3.4.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Timers;

/// The shortest possible heartbeat interval of a DataNode: the NameNode counts whole seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A DataNode counts as dead twice this time after its last heartbeat, and its blocks are copied. A
/// shorter time would copy them at each restart.
const RECHECK: Duration = Duration::from_secs(30);
/// A copy of 128 MB takes less time, even if several are in progress.
const COPY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Two replicas may be lost at once.
const REPLICATION: &str = "dfs.replication";
const REPLICAS_MIN: u64 = 3;

/// One setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HdfsSetting {
    /// The file that contains it: `core-site.xml` or `hdfs-site.xml`.
    pub file: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The value that it should have.
    pub value: String,
    /// The servers that use it.
    pub server: HdfsServer,
    /// The cost of another value.
    pub cost: &'static str,
}

/// The servers of an HDFS that have settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HdfsServer {
    /// The NameNodes.
    NameNode,
    /// The DataNodes.
    DataNode,
}

/// A setting that does not have the value that it should have.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HdfsDeviation {
    /// The name of the setting.
    pub name: &'static str,
    /// Its value. `None` if the server does not know the setting.
    pub value: Option<String>,
    /// The value that it should have.
    pub wanted: String,
    /// The cost of the difference.
    pub cost: &'static str,
}

// === impl Timers ===

impl Timers {
    /// The settings of NameNodes, DataNodes and their clients that prevent waiting for a lost
    /// machine: it is avoided before the session of its region server ends, and connections to it
    /// are given up.
    pub fn hdfs_settings(&self) -> Vec<HdfsSetting> {
        let mut settings = self.hdfs_connections();
        settings.extend(self.stale_nodes());
        settings.extend(self.replicas_kept());
        settings
    }

    /// How long the holder of a connection to a lost machine waits for it.
    fn hdfs_connections(&self) -> Vec<HdfsSetting> {
        let core = |name, value, cost| HdfsSetting {
            file: "core-site.xml",
            name,
            value,
            server: HdfsServer::DataNode,
            cost,
        };
        let recovery = "a DataNode that closes a dead writer's file waits this long for a lost one";
        vec![
            core("ipc.client.connect.timeout", ms(self.rpc_connect_timeout), recovery),
            core("ipc.client.connect.max.retries.on.timeouts", "1".to_owned(), recovery),
            core("ipc.client.connect.max.retries", "1".to_owned(), recovery),
        ]
    }

    /// How soon a lost DataNode is noticed and avoided.
    fn stale_nodes(&self) -> Vec<HdfsSetting> {
        use HdfsServer::{DataNode, NameNode};
        let stale = "until then, blocks are written to and read from a lost DataNode";
        vec![
            hdfs(
                "dfs.heartbeat.interval",
                HEARTBEAT.as_secs().to_string(),
                DataNode,
                "a lost DataNode is detected later, and a file that Basalt cannot close itself is \
                 closed later",
            ),
            hdfs(
                "dfs.namenode.stale.datanode.interval",
                ms(self.hdfs_stale_interval.max(HEARTBEAT)),
                NameNode,
                stale,
            ),
            // In heartbeats. With the default of 3 the NameNode raises the interval to 3 s.
            hdfs(
                "dfs.namenode.stale.datanode.minimum.interval",
                "1".to_owned(),
                NameNode,
                "with so high a minimum, the stale interval is longer than configured",
            ),
            hdfs("dfs.namenode.avoid.read.stale.datanode", "true".to_owned(), NameNode, stale),
            hdfs("dfs.namenode.avoid.write.stale.datanode", "true".to_owned(), NameNode, stale),
        ]
    }

    /// The placement of replicas, their number, and how soon lost ones are copied.
    fn replicas_kept(&self) -> Vec<HdfsSetting> {
        use HdfsServer::{DataNode, NameNode};
        let copies = "copying the blocks of a lost DataNode stalls for this long";
        vec![
            // With few DataNodes, two connections are easily more than twice the average.
            hdfs(
                "dfs.namenode.redundancy.considerLoad",
                "false".to_owned(),
                NameNode,
                "a DataNode with twice the connections of the others gets no new blocks; without \
                 another DataNode, a block of the WAL gets fewer replicas",
            ),
            hdfs(
                "dfs.namenode.heartbeat.recheck-interval",
                ms(RECHECK),
                NameNode,
                "the blocks of a lost DataNode are copied only after twice this time; until then, \
                 the loss of other DataNodes may destroy the last replica",
            ),
            hdfs(
                REPLICATION,
                REPLICAS_MIN.to_string(),
                NameNode,
                "a server that is lost with its DataNode leaves fewer than two replicas of its \
                 WAL, and such a WAL is copied before anything is recovered from it",
            ),
            hdfs(
                "dfs.namenode.reconstruction.pending.timeout-sec",
                COPY_AGAIN_AFTER.as_secs().to_string(),
                NameNode,
                "a failed copy of a block (while a rack was unavailable, for example) is retried \
                 only after this time; until then, the loss of another DataNode may destroy the \
                 last replica",
            ),
            hdfs("dfs.client.socket-timeout", ms(self.hdfs_socket_timeout), DataNode, copies),
            hdfs(
                "dfs.datanode.socket.write.timeout",
                ms(self.hdfs_socket_timeout),
                DataNode,
                copies,
            ),
        ]
    }

    /// The `effective` settings of a server that do not have the values that they should have. A
    /// shorter time than wanted is accepted, and so are more replicas.
    pub fn hdfs_deviations(
        &self,
        server: HdfsServer,
        effective: &BTreeMap<String, String>,
    ) -> Vec<HdfsDeviation> {
        let wanted = self.hdfs_settings().into_iter().filter(|setting| setting.server == server);
        let deviating = wanted.filter_map(|setting| {
            let value = effective.get(setting.name).cloned();
            let is_fine = value.as_deref().is_some_and(|value| is_kept(&setting, value));
            let HdfsSetting { name, value: wanted, cost, .. } = setting;
            (!is_fine).then_some(HdfsDeviation { name, value, wanted, cost })
        });
        deviating.collect()
    }
}

/// A setting in hdfs-site.xml.
fn hdfs(name: &'static str, value: String, server: HdfsServer, cost: &'static str) -> HdfsSetting {
    HdfsSetting { file: "hdfs-site.xml", name, value, server, cost }
}

fn ms(length: Duration) -> String {
    length.as_millis().to_string()
}

/// Whether `value` is as good as the wanted one.
fn is_kept(setting: &HdfsSetting, value: &str) -> bool {
    // The unit of a number without a unit.
    let unit_ms = if setting.name == "dfs.heartbeat.interval" { 1000 } else { 1 };
    if setting.name == REPLICATION {
        return value.trim().parse::<u64>().is_ok_and(|replicas| replicas >= REPLICAS_MIN);
    }
    match (milliseconds(&setting.value, unit_ms), milliseconds(value, unit_ms)) {
        (Some(wanted), Some(value)) => value <= wanted,
        _ => value.trim() == setting.value,
    }
}

/// Milliseconds in `text`: a number with one of Hadoop's units of time, or without a unit.
fn milliseconds(text: &str, unit_ms: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim() {
        "" => unit_ms,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

impl fmt::Display for HdfsDeviation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, wanted, cost } = self;
        match value {
            Some(value) => write!(formatter, "{name} is {value}, should be {wanted}: {cost}"),
            None => write!(formatter, "{name} is not set, should be {wanted}: {cost}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers::{TARGET_DEFAULT, TimerOverrides};

    #[test]
    fn a_stale_node_is_avoided_before_the_session_is_over() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        let settings = timers.hdfs_settings();
        let value = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .map(|setting| setting.value.clone())
        };
        assert_eq!(value("dfs.namenode.stale.datanode.interval").unwrap(), "1200");
        assert_eq!(value("dfs.client.socket-timeout").unwrap(), "1000");
        assert!(1200 < timers.session_timeout.as_millis());
    }

    #[test]
    fn a_wrong_setting_is_reported_with_its_cost() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        let deviations = |server, changes: &[(&str, &str)]| {
            let settings = timers.hdfs_settings().into_iter();
            let mut effective: BTreeMap<String, String> =
                settings.map(|setting| (setting.name.to_owned(), setting.value)).collect();
            for (name, value) in changes {
                effective.insert((*name).to_owned(), (*value).to_owned());
            }
            timers.hdfs_deviations(server, &effective)
        };
        assert_eq!(deviations(HdfsServer::NameNode, &[]), []);
        assert_eq!(deviations(HdfsServer::DataNode, &[]), []);
        let stale = "dfs.namenode.stale.datanode.interval";
        let found = deviations(HdfsServer::NameNode, &[(stale, "30s")]);
        assert_eq!(found.len(), 1);
        let text = found[0].to_string();
        assert!(text.starts_with("dfs.namenode.stale.datanode.interval is 30s, should be 1200: "));
        assert_eq!(deviations(HdfsServer::NameNode, &[(stale, "1s")]), [], "shorter is fine");
        assert_eq!(deviations(HdfsServer::DataNode, &[("dfs.heartbeat.interval", "3")]).len(), 1);
        assert_eq!(deviations(HdfsServer::DataNode, &[("dfs.heartbeat.interval", "500ms")]), []);
        let avoid = ("dfs.namenode.avoid.read.stale.datanode", "false");
        assert_eq!(deviations(HdfsServer::NameNode, &[avoid]).len(), 1);
        assert_eq!(deviations(HdfsServer::NameNode, &[("dfs.replication", "4")]), []);
        assert_eq!(deviations(HdfsServer::NameNode, &[("dfs.replication", "2")]).len(), 1);
    }

    #[test]
    fn a_setting_that_a_server_does_not_know_deviates() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        let found = timers.hdfs_deviations(HdfsServer::DataNode, &BTreeMap::new());
        assert!(!found.is_empty());
        assert!(found.iter().all(|deviation| deviation.to_string().contains("is not set")));
    }
}
