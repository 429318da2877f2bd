//! Injects the faults one after the other: each is injected, waited for and undone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_client::Connection;
use basalt_fs::SharedFileSystem;
use basalt_measure::outage::FaultWindow;
use basalt_measure::probe::Probe;
use basalt_measure::report::duration;
use basalt_measure::{Fault, FaultKind, Phases};
use basalt_model::paths;
use tokio::time::Instant;

use super::observer::{self, Observer};
use super::{Arguments, ServerFault};
use crate::local::{LocalCluster, PortName, ProcessState};
use crate::role_config::RoleName;
use crate::shell;

/// Injects faults into a cluster that is being probed.
pub(super) struct Injector<'a> {
    fault: ServerFault,
    local: &'a LocalCluster,
    connection: &'a Connection,
    probe: &'a Probe,
    observer: Observer,
    files: SharedFileSystem,
    fault_command: Option<&'a str>,
    repair_command: Option<&'a str>,
}

/// How long a fault may keep regions unavailable before the demo gives up.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(120);
/// How often to check whether the regions are served again.
const POLL: Duration = Duration::from_millis(10);
/// A request sent before a signal takes effect may still have been served.
const SIGNAL_TAKES: Duration = Duration::from_millis(20);
/// How long the load runs undisturbed between two faults.
const CALM: Duration = Duration::from_secs(1);
/// How long a server whose regions have new owners may take to notice and to end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a paused server stays paused after its regions are served elsewhere.
const PAUSE_GOES_ON: Duration = Duration::from_secs(2);
/// How long a process may take to be ready again, and how long until regions are spread over all
/// servers.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

// === impl Injector ===

impl<'a> Injector<'a> {
    pub(super) fn new(
        arguments: &'a Arguments,
        local: &'a LocalCluster,
        connection: &'a Connection,
        probe: &'a Probe,
        observer: Observer,
        files: SharedFileSystem,
    ) -> Self {
        let (fault_command, repair_command) =
            (arguments.fault_command.as_deref(), arguments.repair_command.as_deref());
        let fault = arguments.fault;
        Self { fault, local, connection, probe, observer, files, fault_command, repair_command }
    }

    /// Injects a fault into the next region server, and brings the server back.
    pub(super) async fn inject_region_server_fault(
        &mut self,
        number: u32,
    ) -> anyhow::Result<Fault> {
        let names = self.names(RoleName::RegionServer);
        let victim = names[number as usize % names.len()].clone();
        let port = self.port(&victim)?;
        let affected = match self.fault {
            // A fault elsewhere may affect all regions.
            ServerFault::None => self.probe.all_regions(),
            _ => self.probe.regions_on(self.connection, |server| server.port == port).await?,
        };
        let wal_bytes = self.wal_bytes(port).await;
        let supervisor = self.local.supervisor();
        supervisor.hold(&victim).await?;
        let (at, wall_ms) = (self.probe.now(), wall_ms());
        let fault_number = number.to_string();
        let start = |command| shell::start(command, &[("FAULT", &fault_number)]);
        let wait = async |command, option: &str| {
            shell::wait(command, RECOVERY_PATIENCE).await.with_context(|| option.to_owned())
        };
        let mut command = self.fault_command.map(start).transpose()?;
        match self.fault {
            ServerFault::Kill => supervisor.kill(&victim).await?,
            ServerFault::Pause => supervisor.pause(&victim).await?,
            ServerFault::Term => supervisor.terminate(&victim).await?,
            ServerFault::None => {}
        }
        if self.fault == ServerFault::None
            && let Some(command) = command.take()
        {
            // The command takes effect at some time before it has ended.
            wait(command, "--fault-command").await?;
            tokio::time::sleep(CALM).await;
        }
        let since = match self.fault {
            ServerFault::None => self.probe.now(),
            _ => at + SIGNAL_TAKES,
        };
        let recovered_at = self.wait_served(&affected, since).await?;
        let record = match self.fault {
            ServerFault::None => None,
            _ => self.observer.recovery(port, wall_ms).await,
        };
        let phases = record.map(|record| {
            let learnt_after = Duration::from_millis(record.learnt_ms - wall_ms);
            observer::phases(&record, learnt_after)
        });
        if self.fault == ServerFault::Pause {
            // It resumes as a zombie. It must notice that its regions have new owners, and end.
            tokio::time::sleep(PAUSE_GOES_ON).await;
            supervisor.resume(&victim).await?;
            self.wait_left(&victim).await?;
        }
        let kind = self.fault.kind();
        self.print(kind, &victim, affected.len(), recovered_at.saturating_sub(at));
        supervisor.release(&victim).await?;
        if let Some(command) = command {
            wait(command, "--fault-command").await?;
        }
        if let Some(command) = self.repair_command {
            wait(start(command)?, "--repair-command").await?;
        }
        self.wait_returned(&victim, port).await?;
        let window = FaultWindow { at, recovered_at: Some(recovered_at), affected };
        Ok(Fault { kind, victim, window, wal_bytes, phases })
    }

    /// Kills the active master.
    pub(super) async fn kill_master(&mut self) -> anyhow::Result<Fault> {
        let active = self.observer.active_master().await.context("there is no active master")?;
        let victim = self
            .local
            .plan()
            .master(&active)
            .context("the active master is not in this cluster")?;
        let victim = victim.name.clone();
        let at = self.probe.now();
        self.local.supervisor().kill(&victim).await?;
        let deadline = Instant::now() + RECOVERY_PATIENCE;
        while self.observer.active_master().await.is_none_or(|name| name == active) {
            if Instant::now() > deadline {
                bail!("no other master is active {RECOVERY_PATIENCE:?} after {victim} was killed");
            }
            tokio::time::sleep(POLL).await;
        }
        self.end(FaultKind::KillMaster, victim, at).await
    }

    /// Kills the coordinator's leader.
    pub(super) async fn kill_coordinator_leader(&mut self) -> anyhow::Result<Fault> {
        let victim = self.observer.coordinator_leader(self.local).await?;
        let at = self.probe.now();
        self.local.supervisor().kill(&victim).await?;
        let deadline = Instant::now() + RECOVERY_PATIENCE;
        while self.observer.coordinator_leader(self.local).await.is_err() {
            if Instant::now() > deadline {
                bail!(
                    "the coordinator has no leader {RECOVERY_PATIENCE:?} after {victim} was killed"
                );
            }
            tokio::time::sleep(POLL).await;
        }
        self.end(FaultKind::KillCoordinatorLeader, victim, at).await
    }

    /// Kills all processes at once, and starts them again.
    pub(super) async fn kill_all(&mut self) -> anyhow::Result<Fault> {
        let supervisor = self.local.supervisor();
        let names: Vec<String> =
            self.local.plan().processes.iter().map(|process| process.name.clone()).collect();
        for name in &names {
            supervisor.hold(name).await?;
        }
        let affected = self.probe.all_regions();
        let at = self.probe.now();
        let kills = names.iter().map(|name| supervisor.kill(name));
        for killed in futures::future::join_all(kills).await {
            killed?;
        }
        for name in &names {
            supervisor.release(name).await?;
        }
        let recovered_at = self.wait_served(&affected, at + SIGNAL_TAKES).await?;
        let outage = recovered_at.saturating_sub(at);
        self.print(FaultKind::KillAll, "all processes", affected.len(), outage);
        let phases = Some(Phases { total: Some(outage), ..Phases::default() });
        let window = FaultWindow { at, recovered_at: Some(recovered_at), affected };
        let victim = "all".to_owned();
        Ok(Fault { kind: FaultKind::KillAll, victim, window, wal_bytes: None, phases })
    }

    /// Finishes a fault that affects no region by itself.
    async fn end(&self, kind: FaultKind, victim: String, at: Duration) -> anyhow::Result<Fault> {
        let took_over = self.probe.now();
        let recovered_at = self.wait_served(&self.probe.all_regions(), took_over).await?;
        self.print(kind, &victim, 0, took_over.saturating_sub(at));
        self.local.supervisor().wait_ready(&victim, RETURN_PATIENCE).await?;
        tokio::time::sleep(CALM).await;
        let total = Some(took_over.saturating_sub(at));
        let window =
            FaultWindow { at, recovered_at: Some(recovered_at), affected: BTreeSet::new() };
        let phases = Some(Phases { total, ..Phases::default() });
        Ok(Fault { kind, victim, window, wal_bytes: None, phases })
    }

    async fn wait_served(
        &self,
        regions: &BTreeSet<usize>,
        since: Duration,
    ) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + RECOVERY_PATIENCE;
        while !self.probe.serve_since(regions, since) {
            if Instant::now() > deadline {
                bail!("not all regions are served {RECOVERY_PATIENCE:?} after the fault");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(self.probe.now())
    }

    /// Waits until the victim runs and has regions again.
    async fn wait_returned(&self, victim: &str, port: u16) -> anyhow::Result<()> {
        self.local.supervisor().wait_ready(victim, RETURN_PATIENCE).await?;
        let deadline = Instant::now() + RETURN_PATIENCE;
        let fair = self.probe.regions() / self.names(RoleName::RegionServer).len();
        loop {
            // Without this the master would leave the regions where they are for some seconds.
            let _ = self.connection.admin().balance().await;
            let on_victim = self.probe.regions_on(self.connection, |server| server.port == port);
            if on_victim.await.is_ok_and(|regions| regions.len() + 1 >= fair) {
                break;
            }
            if Instant::now() > deadline {
                print_line!("     {victim} has only a few regions again; continuing");
                break;
            }
            tokio::time::sleep(POLL * 10).await;
        }
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    /// Waits until a server that was resumed has ended. It is then held down.
    async fn wait_left(&self, victim: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        while self.local.supervisor().state(victim)? != ProcessState::Held {
            if Instant::now() > deadline {
                bail!("{victim} resumed after its regions were served elsewhere, and did not end");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn names(&self, role: RoleName) -> Vec<String> {
        let processes = self.local.plan().processes.iter();
        processes.filter(|p| p.role == role).map(|p| p.name.clone()).collect()
    }

    fn port(&self, name: &str) -> anyhow::Result<u16> {
        let processes = &self.local.plan().processes;
        let process = processes.iter().find(|process| process.name == name);
        let address = process.and_then(|process| process.address(PortName::Rpc));
        Ok(address.with_context(|| format!("{name} has no port for clients"))?.port())
    }

    /// The length of the logs of the server at `port`, in bytes. The length of a file that is being
    /// written on HDFS is unknown.
    async fn wal_bytes(&self, port: u16) -> Option<u64> {
        let server = format!(",{port},");
        let mut bytes = 0;
        for folder in self.files.list(&paths::logs()).await.ok()? {
            if !folder.name.contains(&server) || folder.name.ends_with("-splitting") {
                continue;
            }
            let files = self.files.list(&paths::logs().join(folder.name)).await.ok()?;
            bytes += files.iter().map(|file| file.length).sum::<u64>();
        }
        Some(bytes)
    }

    fn print(&self, kind: FaultKind, victim: &str, regions: usize, outage: Duration) {
        let at = duration(self.probe.now());
        let on = if regions == 0 { String::new() } else { format!(" ({regions} regions)") };
        print_line!("{at:>8}  {} {victim}{on}: over after {}", kind.name(), duration(outage));
    }
}

/// Milliseconds since 1970, by the clock that the servers of this machine use.
fn wall_ms() -> u64 {
    basalt_runtime::Seams::system().clock.wall_ms()
}
