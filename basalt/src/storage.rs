//! The shared storage of a role: a folder on this machine or on HDFS.
//!
//! A local folder either exists or not. HDFS may be unavailable or in safe mode when a role starts.
//! That is temporary, so the role waits for it and reports it. A permanent error ends the process
//! with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use basalt_api::Timers;
use basalt_api::timers::{HdfsDeviation, HdfsServer};
use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_hdfs::{Configuration, HdfsConfig, HdfsFileSystem, Machine, ServerKind};
use basalt_runtime::{Seams, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::role_config::{HdfsSettings, MACHINE_VARIABLE, ServerSettings, StorageSettings};

/// The pause between two checks whether HDFS is available.
const PAUSE: Duration = Duration::from_millis(500);
/// The interval between two reports that it is still unavailable.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the storage, and waits while it is unavailable. `None` if the role is asked to stop
/// before.
///
/// # Errors
/// The storage settings cannot be used.
pub(crate) async fn open(
    server: &ServerSettings,
    timers: &Timers,
    seams: &Seams,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<SharedFileSystem>> {
    let hdfs = match &server.storage {
        StorageSettings::Folder(folder) => {
            return Ok(Some(Arc::new(LocalFileSystem::open(folder)?)));
        }
        StorageSettings::Hdfs(hdfs) => hdfs,
    };
    let machine = Some(machine(&server.host, hdfs, std::env::var(MACHINE_VARIABLE).ok()));
    let config = HdfsConfig { machine, ..hdfs_config(hdfs, timers)? };
    let files = HdfsFileSystem::new(seams, config, &hdfs.root)?;
    tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(None),
        there = wait_until_there(&files, hdfs, |why| warn!("waiting for HDFS: {why}")) => there?,
    }
    info!(conf = %hdfs.conf.display(), root = %hdfs.root.display(), "HDFS is available");
    if let Err(error) = files.look_for_nodes().await {
        // This is retried in the background.
        info!(%error, "the DataNode on this machine is not known yet");
    }
    Ok(Some(Arc::new(files)))
}

/// The machine of the process as DataNodes know it: the `reported` name, or else the host that the
/// process advertises.
fn machine(host: &str, hdfs: &HdfsSettings, reported: Option<String>) -> Machine {
    let name = reported.filter(|name| !name.is_empty()).unwrap_or_else(|| host.to_owned());
    Machine { name, ordinal: hdfs.data_node_ordinal }
}

/// The files of `hdfs`, without preferred DataNodes. Sends no request yet.
///
/// # Errors
/// The settings cannot be used.
pub(crate) fn hdfs_files(
    hdfs: &HdfsSettings,
    timers: &Timers,
    seams: &Seams,
) -> anyhow::Result<HdfsFileSystem> {
    Ok(HdfsFileSystem::new(seams, hdfs_config(hdfs, timers)?, &hdfs.root)?)
}

/// Returns when the root folder exists and accepts a file. Calls `report` with the reason for the
/// wait when the reason changes, and now and then.
///
/// # Errors
/// An error that is not temporary.
pub(crate) async fn wait_until_there(
    files: &HdfsFileSystem,
    hdfs: &HdfsSettings,
    report: impl Fn(&str),
) -> anyhow::Result<()> {
    let mut reported: Option<(String, Instant)> = None;
    loop {
        let reason = match files.make_root().await {
            Err(error) if !error.is_passing() => {
                let root = hdfs.root.display();
                return Err(error).with_context(|| format!("the folder {root} on HDFS"));
            }
            Err(error) => error.to_string(),
            Ok(()) => match files.check_writes().await {
                Ok(()) => return Ok(()),
                Err(error) => format!("it accepts no writes: {error}"),
            },
        };
        let is_news = reported
            .as_ref()
            .is_none_or(|(old, at)| *old != reason || at.elapsed() > REPORT_INTERVAL);
        if is_news {
            report(&reason);
            reported = Some((reason, Instant::now()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How often the settings of HDFS are checked.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Checks the settings of HDFS and rehearses the fence on it, repeatedly, while a receiver exists.
/// `None` for other storage, which has no settings.
///
/// # Errors
/// The settings cannot be used.
pub(crate) fn watch_deviations(
    settings: &StorageSettings,
    timers: &Timers,
    seams: &Seams,
) -> anyhow::Result<Option<watch::Receiver<Option<Vec<String>>>>> {
    let StorageSettings::Hdfs(hdfs) = settings else { return Ok(None) };
    let files = hdfs_files(hdfs, timers, seams)?;
    let (sender, receiver) = watch::channel(None);
    let timers = timers.clone();
    tokio::spawn(async move {
        while !sender.is_closed() {
            let mut found = deviations(&files, &timers).await;
            found.extend(rehearse(&files).await);
            let is_news = sender.borrow().as_ref() != Some(&found);
            if is_news {
                found.iter().for_each(|deviation| warn!("HDFS: {deviation}"));
                sender.send_replace(Some(found));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    });
    Ok(Some(receiver))
}

/// The problem with the fence, if there is one.
async fn rehearse(files: &HdfsFileSystem) -> Option<String> {
    let costs = "the regions of a server that dies may wait for the NameNode's lease recovery";
    match files.rehearse_fence().await {
        Ok(fenced) if fenced.is_closed => {
            debug!(?fenced, "rehearsed the fence");
            None
        }
        Ok(fenced) => Some(format!("the fence closes no files ({fenced:?}): {costs}")),
        Err(error) => Some(format!("the fence does not work ({error}): {costs}")),
    }
}

/// The effective settings of the servers that do not fit the failover target: one line per setting
/// with its value, the value that it should have, and the cost of the difference. Also names the
/// servers whose settings cannot be read.
pub(crate) async fn deviations(files: &HdfsFileSystem, timers: &Timers) -> Vec<String> {
    let mut unread = Vec::new();
    let mut servers: BTreeMap<HdfsDeviation, Vec<String>> = BTreeMap::new();
    for Configuration { kind, address, settings } in files.configurations().await {
        let server = match kind {
            ServerKind::NameNode => HdfsServer::NameNode,
            ServerKind::DataNode => HdfsServer::DataNode,
        };
        match settings {
            Ok(settings) => {
                for deviation in timers.hdfs_deviations(server, &settings) {
                    servers.entry(deviation).or_default().push(format!("{kind:?} {address}"));
                }
            }
            Err(error) => {
                unread.push(format!("the settings of {kind:?} {address} are unknown: {error}"));
            }
        }
    }
    let described = servers.into_iter().map(|(deviation, servers)| {
        let more = servers.len() - 1;
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{deviation} ({}{others})", servers.first().map_or("", String::as_str))
    });
    described.chain(unread).collect()
}

/// The settings from Hadoop's files, with the timers that follow from the failover target.
///
/// # Errors
/// The files cannot be read, or do not name the NameNodes.
pub(crate) fn hdfs_config(hdfs: &HdfsSettings, timers: &Timers) -> anyhow::Result<HdfsConfig> {
    let config = HdfsConfig::from_folder(&hdfs.conf, hdfs.nameservice.as_deref())?;
    let silence = timers.hdfs_socket_timeout;
    Ok(HdfsConfig {
        connect_timeout: silence / 5,
        call_timeout: silence * 2,
        call_deadline: timers.client_operation_timeout,
        ack_timeout: silence,
        slow_ack: silence / 2,
        heartbeat_interval: silence / 4,
        read_timeout: silence,
        hedge_after: silence / 20,
        avoid_node_for: silence * 10,
        fence_step_timeout: silence * 2,
        fence_patience: silence / 10,
        ..config
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_api::{Timespan, timers::TimerOverrides};
    use std::path::Path;

    fn settings(conf: &Path) -> HdfsSettings {
        let root = "/b".into();
        HdfsSettings { conf: conf.to_owned(), nameservice: None, root, data_node_ordinal: Some(2) }
    }

    #[test]
    fn a_machine_has_its_reported_name_or_that_of_its_process() {
        let called = |reported: Option<&str>| {
            machine("10.1.0.7", &settings("/c".as_ref()), reported.map(Into::into))
        };
        assert_eq!(called(None), Machine { name: "10.1.0.7".to_owned(), ordinal: Some(2) });
        assert_eq!(called(Some("")).name, "10.1.0.7");
        assert_eq!(called(Some("192.168.0.3")).name, "192.168.0.3");
    }

    #[test]
    fn the_timers_of_the_client_follow_from_the_promise() {
        let conf = tempfile::tempdir().unwrap();
        let property =
            "<property><name>fs.defaultFS</name><value>hdfs://nn:9000</value></property>";
        std::fs::write(conf.path().join("core-site.xml"), property).unwrap();
        std::fs::write(conf.path().join("hdfs-site.xml"), "").unwrap();
        let hdfs = settings(conf.path());
        let with = |target_s: u64| {
            let target = Timespan::from_ms(target_s * 1000);
            let timers = Timers::derive(target, &TimerOverrides::default()).unwrap();
            hdfs_config(&hdfs, &timers).unwrap()
        };
        let (short, long) = (with(3), with(30));
        assert_eq!(short.ack_timeout, Duration::from_secs(1));
        // DataNodes are asked to give up on a silent writer after `hdfsSocketTimeout`, which is 1 s
        // here.
        assert_eq!(short.heartbeat_interval, Duration::from_millis(250));
        assert!(short.ack_timeout < long.ack_timeout && short.call_timeout < long.call_timeout);
    }

    #[tokio::test]
    async fn settings_that_are_missing_are_named() {
        let server = ServerSettings {
            host: "10.1.0.7".to_owned(),
            rpc_listen: "0.0.0.0:1".parse().unwrap(),
            peer_listen: "0.0.0.0:2".parse().unwrap(),
            web_listen: "0.0.0.0:3".parse().unwrap(),
            coordinators: Vec::new(),
            nodes_parent: String::new(),
            client_parent: String::new(),
            storage: StorageSettings::Hdfs(settings("/nowhere".as_ref())),
            rack: String::new(),
        };
        let target = Timespan::from_ms(3000);
        let timers = Timers::derive(target, &TimerOverrides::default()).unwrap();
        let error = open(&server, &timers, &Seams::system(), &Shutdown::new()).await.err().unwrap();
        assert!(format!("{error:#}").contains("/nowhere/core-site.xml"), "{error:#}");
    }
}
