//! The output of `basalt local`, for readers who see it for the first time: what runs, how to
//! connect to it, where its data and logs are, and what happens.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use basalt_api::{Timespan, ValidatedCluster};

use super::cluster::LocalCluster;
use super::keeper::Event;
use super::plan::Plan;
use super::ports::PortName;
use crate::role_config::RoleName;

/// How much of the end of a log is read, in bytes.
const LAST_LINE_BYTES_MAX: u64 = 2048;

/// Describes what is started, and where.
pub(super) fn opening(manifest: &ValidatedCluster, cluster: &LocalCluster) -> String {
    let folder = cluster.folder();
    let age = if folder.is_new { "new" } else { "existing" };
    let timers = &manifest.timers;
    let header = format!(
        "Cluster {} on this machine\n\
         data      {} ({age})\n\
         logs      {}\n\
         failover  within {}: session {}, serving lease {}\n\n",
        manifest.name,
        folder.path.display(),
        cluster.logs().display(),
        Timespan::from(timers.target),
        Timespan::from(timers.session_timeout),
        Timespan::from(timers.serving_lease),
    );
    header + &table(cluster.plan())
}

/// Describes how to connect to a cluster that serves.
pub(super) fn ready(cluster: &LocalCluster, after: Duration) -> String {
    let plan = cluster.plan();
    format!(
        "\nReady after {}. HBase clients connect with\n  \
         hbase.zookeeper.quorum = {}\n\
         or\n  \
         hbase.client.registry.impl = org.apache.hadoop.hbase.client.RpcConnectionRegistry\n  \
         hbase.masters = {}\n\
         Ctrl-C stops the cluster.\n\n",
        seconds(after),
        plan.addresses(RoleName::Coordinator, PortName::Client).join(","),
        plan.addresses(RoleName::Master, PortName::Rpc).join(","),
    )
}

/// Describes an event in one line. `None` if it is not worth a line.
pub(super) fn event(event: &Event, cluster: &LocalCluster) -> Option<String> {
    match event {
        Event::Ready { process, pid, after } => {
            Some(format!("{process:<16} ready after {} (pid {pid})", seconds(*after)))
        }
        Event::Died { death, again_after } => {
            let next = match again_after {
                Some(Duration::ZERO) => "; starting it again".to_owned(),
                Some(delay) => format!("; starting it again in {}", Timespan::from(*delay)),
                None => String::new(),
            };
            let log = match last_line(&cluster.log(&death.process)) {
                Some(line) if death.how.starts_with("failed") => format!("\n{:<16} {line}", ""),
                _ => String::new(),
            };
            Some(format!("{:<16} {} (pid {}){next}{log}", death.process, death.how, death.pid))
        }
        Event::NotStarted { process, reason } => Some(format!("{process:<16} {reason}")),
    }
}

/// A duration as readable text: `0.8 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The last line of a log. It usually is the reason why its process ended.
pub(super) fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(LAST_LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut tail = Vec::new();
    file.take(LAST_LINE_BYTES_MAX).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let last = tail.lines().rev().find(|line| !line.trim().is_empty());
    last.map(str::to_owned)
}

fn table(plan: &Plan) -> String {
    let mut lines = vec![format!("{:<16} clients connect to", "process")];
    for process in &plan.processes {
        let client = process.address(PortName::Client).or(process.address(PortName::Rpc));
        let client = client.map(|address| address.to_string()).unwrap_or_default();
        lines.push(format!("{:<16} {client}", process.name));
    }
    lines.join("\n") + "\n\n"
}
