//! What the promise needs of an HDFS, as Apache Hadoop's configuration files have it.
//!
//! Defaults and meanings: `hdfs-default.xml` and `core-default.xml` of Hadoop 3.4.

use std::time::Duration;

use super::Timers;

/// A DataNode cannot be asked for a heartbeat more often: the NameNode counts whole seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// One setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HdfsSetting {
    /// The file that it belongs into: `core-site.xml` or `hdfs-site.xml`.
    pub file: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it should be.
    pub value: String,
}

// === impl Timers ===

impl Timers {
    /// The settings of NameNodes, DataNodes and their clients that keep a lost machine from being
    /// waited for: it is avoided before the session of its region server is over, and no connection
    /// to it is held on to.
    pub fn hdfs_settings(&self) -> Vec<HdfsSetting> {
        let ms = |length: Duration| length.as_millis().to_string();
        let hdfs = |name, value| HdfsSetting { file: "hdfs-site.xml", name, value };
        let core = |name, value| HdfsSetting { file: "core-site.xml", name, value };
        vec![
            core("ipc.client.connect.timeout", ms(self.rpc_connect_timeout)),
            core("ipc.client.connect.max.retries.on.timeouts", "1".to_owned()),
            core("ipc.client.connect.max.retries", "1".to_owned()),
            hdfs("dfs.heartbeat.interval", HEARTBEAT.as_secs().to_string()),
            hdfs(
                "dfs.namenode.stale.datanode.interval",
                ms(self.hdfs_stale_interval.max(HEARTBEAT)),
            ),
            // In heartbeats; with the default of 3 the NameNode raises the interval to 3 s.
            hdfs("dfs.namenode.stale.datanode.minimum.interval", "1".to_owned()),
            hdfs("dfs.namenode.avoid.read.stale.datanode", "true".to_owned()),
            hdfs("dfs.namenode.avoid.write.stale.datanode", "true".to_owned()),
            hdfs("dfs.client.socket-timeout", ms(self.hdfs_socket_timeout)),
            hdfs("dfs.datanode.socket.write.timeout", ms(self.hdfs_socket_timeout)),
        ]
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
}
