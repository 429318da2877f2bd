//! The smallest possible cluster, with one process of each role, that is killed and restarted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt::local::{Hosts, LocalCluster, LocalOptions, PortName, ProcessState};
use basalt::role_config::RoleName;
use basalt_api::{Manifests, ValidatedCluster, validate};
use basalt_client::{
    Action, Connection, ConnectionConfig, Get, Outcome, Put, RegistryConfig, Table,
};
use basalt_runtime::Seams;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const CLUSTER: &str = "
apiVersion: basalt.db/v1alpha1
kind: BasaltCluster
metadata: { name: demo }
spec:
  coordinator: { replicas: 1 }
  masters: { replicas: 1 }
  regionServers: { replicas: 1 }
  storage: { shared: { claim: storage } }
";

const TABLE: &str = "
---
apiVersion: basalt.db/v1alpha1
kind: BasaltTable
metadata: { name: NAME }
spec:
  clusterRef: { name: demo }
  families: [{ name: f }]
  regions: { count: 1 }
";

/// The manifest of a cluster with tables of one region.
pub(crate) fn manifest(tables: &[&str]) -> String {
    let tables = tables.iter().map(|name| TABLE.replace("NAME", name));
    std::iter::once(CLUSTER.to_owned()).chain(tables).collect()
}

/// A data folder, and the cluster that runs on it, if it runs.
pub(crate) struct Rig {
    folder: TempDir,
    manifest: ValidatedCluster,
    cluster: Option<LocalCluster>,
}

// === impl Rig ===

impl Rig {
    /// Starts a cluster with these tables.
    pub(crate) async fn start(tables: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), tables).await
    }

    /// The same, with its data in the subfolder `data` of `folder`.
    pub(crate) async fn start_in(folder: TempDir, tables: &[&str]) -> Self {
        Self::start_from(folder, &manifest(tables)).await
    }

    /// The same, with sessions that survive on a busy machine: they may be silent for 10 s.
    pub(crate) async fn start_patient(tables: &[&str]) -> Self {
        let text = manifest(tables);
        let text = text.replace("  storage:", "  failover: { target: 20s }\n  storage:");
        Self::start_from(tempfile::tempdir().unwrap(), &text).await
    }

    async fn start_from(folder: TempDir, text: &str) -> Self {
        let (cluster, tables) =
            Manifests::from_yaml("m", text).unwrap().into_single_cluster("m").unwrap();
        let manifest = validate(&cluster, &tables).unwrap();
        let mut rig = Self { folder, manifest, cluster: None };
        rig.start_again().await;
        rig.cluster().supervisor().wait_all_ready(PATIENCE).await.unwrap();
        let admin = rig.connection().admin();
        let deadline = Instant::now() + PATIENCE;
        for name in rig.manifest.tables.iter().map(|table| &table.descriptor.name) {
            while !matches!(admin.is_enabled(name).await, Ok(true)) {
                assert!(Instant::now() < deadline, "{name} is not there");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        rig
    }

    /// Starts the processes without waiting for them.
    pub(crate) async fn start_again(&mut self) {
        let options = LocalOptions {
            data: self.data(),
            free_ports: true,
            hdfs_conf: None,
            program: env!("CARGO_BIN_EXE_basalt").into(),
            hosts: Hosts::default(),
        };
        let cluster = LocalCluster::start(&self.manifest, options, &Seams::system()).await;
        self.cluster = Some(cluster.unwrap());
    }

    /// Restarts a process with a single serving thread.
    pub(crate) async fn give_one_thread(&self, process: &str) {
        self.configure(process, |config| config["workerThreads"] = 1.into());
        let supervisor = self.cluster().supervisor();
        let before = supervisor.state(process).unwrap();
        supervisor.kill(process).await.unwrap();
        wait_until("it is killed", || supervisor.state(process).unwrap() != before).await;
        supervisor.wait_ready(process, PATIENCE).await.unwrap();
    }

    /// Changes the configuration file of a process, which reads it when it starts.
    pub(crate) fn configure(&self, process: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let file = self.config_file(process);
        let text = std::fs::read_to_string(&file).unwrap();
        let mut config = serde_json::from_str(&text).unwrap();
        change(&mut config);
        std::fs::write(&file, config.to_string()).unwrap();
    }

    pub(crate) fn config_file(&self, process: &str) -> PathBuf {
        self.data().join("config").join(format!("{process}.json"))
    }

    /// Sends SIGKILL to all processes at once.
    pub(crate) async fn kill(&mut self) {
        let cluster = self.cluster.take().unwrap();
        let states = cluster.supervisor().states();
        drop(cluster);
        for state in states.values() {
            if let ProcessState::Starting { pid } | ProcessState::Ready { pid } = state {
                wait_dead(*pid).await;
            }
        }
    }

    /// Stops all processes as Ctrl-C does. Every region is flushed.
    pub(crate) async fn stop(&mut self) {
        self.cluster().supervisor().stop(PATIENCE).await;
        self.cluster = None;
    }

    pub(crate) fn cluster(&self) -> &LocalCluster {
        self.cluster.as_ref().unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder in which region servers store their files.
    pub(crate) fn storage(&self) -> PathBuf {
        self.data().join("storage")
    }

    pub(crate) fn table(&self, name: &str) -> Table {
        self.connection().table(&name.parse().unwrap())
    }

    /// The addresses at which the coordinator accepts clients.
    pub(crate) fn coordinators(&self) -> Vec<String> {
        self.cluster().plan().addresses(RoleName::Coordinator, PortName::Client)
    }

    fn connection(&self) -> Connection {
        let registry =
            RegistryConfig::ZooKeeper { servers: self.coordinators(), root: "/hbase".to_owned() };
        let mut config = ConnectionConfig::new(registry);
        config.retry.operation_timeout = PATIENCE;
        Connection::new(&Seams::system(), config)
    }

    /// Writes the rows `row000`, … with values that contain their table and number.
    pub(crate) async fn write(&self, table: &str, rows: std::ops::Range<u32>) {
        let put = |row| Put::new(row_name(row)).column(b"f", b"q", &value(table, row));
        let actions: Vec<Action> = rows.map(|row| Action::Put(put(row))).collect();
        for result in self.table(table).batch(&actions).await {
            result.unwrap();
        }
    }

    /// Checks that these rows have the values that were written. Waits until they are served.
    pub(crate) async fn check(&self, table: &str, rows: std::ops::Range<u32>) {
        let actions: Vec<Action> =
            rows.clone().map(|row| Action::Get(Get::new(row_name(row)))).collect();
        let found = self.table(table).batch(&actions).await;
        for (row, found) in rows.zip(found) {
            assert_eq!(
                found.unwrap().value(b"f", b"q"),
                Some(&value(table, row)[..]),
                "{table} {row}"
            );
        }
    }

    /// One attempt to read a row: its value, or why it cannot be read.
    pub(crate) async fn try_get(&self, table: &str, row: u32) -> Result<Option<Vec<u8>>, String> {
        let wait = Duration::from_secs(5);
        match self.table(table).try_get(&Get::new(row_name(row)), wait).await {
            Outcome::Acked(found) => Ok(found.value(b"f", b"q").map(<[u8]>::to_vec)),
            Outcome::Failed(error) | Outcome::Unknown(error) => Err(error.to_string()),
        }
    }

    /// The store files of a table.
    pub(crate) fn store_files(&self, table: &str) -> Vec<PathBuf> {
        let mut files = files_below(&self.storage().join("data/default").join(table));
        files.retain(|path| path.parent().is_some_and(|folder| folder.ends_with("f")));
        files
    }

    /// Reads the log of a process until it contains `text`.
    pub(crate) async fn wait_log(&self, process: &str, text: &str) -> String {
        let path = self.data().join("logs").join(format!("{process}.log"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            if let Some(line) = log.lines().rfind(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{process} does not say {text:?}:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn row_name(row: u32) -> String {
    format!("row{row:03}")
}

/// Long enough to be unique in a file.
pub(crate) fn value(table: &str, row: u32) -> Vec<u8> {
    format!("<{table}:{row:05}>").repeat(100).into_bytes()
}

/// All files below `folder`, by their paths.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Flips a bit at the `nth` occurrence of `needle`, counted from 0. Returns its offset.
pub(crate) fn flip_in(path: &Path, needle: &[u8], nth: usize) -> usize {
    let mut bytes = std::fs::read(path).unwrap();
    let mut places = bytes.windows(needle.len()).enumerate().filter(|(_, part)| *part == needle);
    let at = places.nth(nth).unwrap().0;
    bytes[at + needle.len() / 2] ^= 1;
    std::fs::write(path, bytes).unwrap();
    at
}

/// Waits until `condition` holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_dead(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let state = stat.as_deref().ok().and_then(|stat| stat.rsplit_once(") "));
        if state.is_none_or(|(_, rest)| rest.starts_with('Z')) {
            return;
        }
        assert!(Instant::now() < deadline, "{pid} lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
