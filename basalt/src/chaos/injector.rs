//! Injects the faults that the schedule chooses, and undoes each one before the next.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_client::{Connection, Put};
use basalt_measure::linked_list::LinkedList;
use basalt_measure::report::duration;
use basalt_model::TableName;
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, timeout};

use super::drain::Drainer;
use super::network::Namespaces;
use super::outcome::Tally;
use super::schedule::{DrainEnd, FaultAction, FaultGroup, Injection, Schedule, Victim};
use super::small_disk::SmallDisk;
use crate::demo::Observer;
use crate::local::{LocalCluster, PortName, ProcessState};
use crate::role_config::RoleName;
use crate::shell;

/// Injects faults into a cluster.
pub(super) struct Injector<'a> {
    pub(super) local: &'a LocalCluster,
    pub(super) namespaces: Option<&'a Namespaces>,
    pub(super) small_disk: Option<&'a SmallDisk>,
    pub(super) observer: &'a Observer,
    pub(super) drainer: Drainer<'a>,
    /// The command that injects a fault into a process outside the cluster.
    pub(super) foreign_command: &'a str,
    /// The connection that checks whether the cluster is healthy.
    pub(super) connection: &'a Connection,
    pub(super) table: &'a TableName,
    pub(super) family: &'a str,
    pub(super) begun: Instant,
}

/// How long processes may take to be ready again after a fault.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long the cluster may take to become healthy.
const HEALTHY_PATIENCE: Duration = Duration::from_secs(60);
/// How often to check whether a process has ended.
const REAP_POLL: Duration = Duration::from_millis(2);

// === impl Injector ===

impl Injector<'_> {
    /// Injects faults until `time` has passed since the start of the run.
    pub(super) async fn inject_for(
        &self,
        time: Duration,
        schedule: &mut Schedule,
        list: &LinkedList,
    ) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        while self.begun.elapsed() < time {
            if let Some(group) = schedule.next_group() {
                self.deal(&group, list, &mut tally).await?;
            }
            if self.begun.elapsed() >= time {
                break;
            }
            self.local.supervisor().wait_all_ready(RETURN_PATIENCE).await?;
            let nodes = list.acknowledged();
            print_line!("{:>12}  all ready, {nodes} nodes", duration(self.begun.elapsed()));
            sleep(schedule.calm()).await;
        }
        Ok(tally)
    }

    /// Injects one group of faults. `list` counts the time without a quorum as a separate outage.
    async fn deal(
        &self,
        group: &FaultGroup,
        list: &LinkedList,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        match group {
            FaultGroup::Injections(injections) => {
                tally.double_faults += u64::from(injections.len() > 1);
                for injected in
                    join_all(injections.iter().map(|injection| self.inject(injection))).await
                {
                    tally.count(injected?.name());
                }
            }
            FaultGroup::Roll { processes } => {
                for process in processes {
                    self.say("roll", process, "");
                    self.stop(process).await?;
                    self.local.supervisor().wait_ready(process, RETURN_PATIENCE).await?;
                }
                tally.count("roll");
            }
            FaultGroup::Drain { server, end, lasts } => {
                self.drain(server, *end, *lasts).await?;
                tally.count(end.name());
            }
            FaultGroup::FullDisk { lasts } => {
                let disk = self.small_disk.context("no disk can be filled")?;
                self.say("full disk", "of the coordinator", duration(*lasts));
                disk.fill()?;
                sleep(*lasts).await;
                disk.empty()?;
                tally.count("full disk");
            }
            FaultGroup::QuorumLoss { members, action, lasts } => {
                list.begin_outage();
                *tally.quorum_losses.entry(action.name()).or_default() += 1;
                self.lose_quorum(members, *action, *lasts, tally).await?;
                list.end_outage();
            }
        }
        Ok(())
    }

    async fn inject(&self, injection: &Injection) -> anyhow::Result<FaultAction> {
        sleep(injection.after).await;
        let name = match &injection.victim {
            Victim::Process(name) => name.clone(),
            Victim::ActiveMaster => self.active_master().await,
            Victim::Foreign(name) => {
                self.say(injection.action.name(), name, duration(injection.lasts));
                return self.inject_foreign(injection, name).await;
            }
        };
        match injection.action {
            FaultAction::Kill | FaultAction::Stop => self.say(injection.action.name(), &name, ""),
            FaultAction::Pause | FaultAction::Cut => {
                self.say(injection.action.name(), &name, duration(injection.lasts))
            }
        }
        match injection.action {
            FaultAction::Kill => self.kill(&name).await?,
            FaultAction::Stop => self.stop(&name).await?,
            FaultAction::Pause | FaultAction::Cut => {
                self.begin(injection.action, &name).await?;
                sleep(injection.lasts).await;
                self.end(injection.action, &name).await?;
            }
        }
        Ok(injection.action)
    }

    /// Injects a fault into a process outside the cluster, and waits until it is undone.
    async fn inject_foreign(
        &self,
        injection: &Injection,
        name: &str,
    ) -> anyhow::Result<FaultAction> {
        let act = async |action: &str| {
            let variables = [("ACTION", action), ("VICTIM", name)];
            let running = shell::start(self.foreign_command, &variables)?;
            let done = shell::wait(running, RETURN_PATIENCE).await;
            done.with_context(|| format!("--foreign-command, {action} {name}"))
        };
        let (begin, end) = match injection.action {
            FaultAction::Kill => ("kill", "start"),
            FaultAction::Pause => ("freeze", "thaw"),
            action => bail!("{name} is outside the cluster: it has no fault {}", action.name()),
        };
        act(begin).await?;
        sleep(injection.lasts).await;
        act(end).await?;
        Ok(injection.action)
    }

    /// Takes away several members of the coordinator at once. Returns when all regions accept
    /// writes again.
    async fn lose_quorum(
        &self,
        members: &[String],
        action: FaultAction,
        lasts: Duration,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        self.say(&format!("no quorum: {}", action.name()), &members.join(", "), duration(lasts));
        let before = self.pids();
        try_join_all(members.iter().map(|name| self.begin(action, name))).await?;
        sleep(lasts).await;
        try_join_all(members.iter().map(|name| self.end(action, name))).await?;
        let ended = Instant::now();
        self.local.supervisor().wait_all_ready(RETURN_PATIENCE).await?;
        let writes =
            timeout(RETURN_PATIENCE, async { while self.write_to_all().await.is_none() {} });
        writes.await.context("regions accept no writes although the quorum is back")?;
        let after = ended.elapsed();
        self.say("quorum is back:", "writes after", duration(after));
        tally.longest_return_of_quorum_ms =
            tally.longest_return_of_quorum_ms.max(after.as_millis() as u64);
        let now = self.pids();
        let others = before.iter().filter(|(name, _)| !members.contains(name));
        let ended = others.filter(|(name, pid)| now.get(*name) != Some(*pid));
        tally.ended_without_quorum += ended.count() as u64;
        Ok(())
    }

    /// Drains a region server. The drain is undone, however it ends.
    async fn drain(&self, server: &str, end: DrainEnd, lasts: Duration) -> anyhow::Result<()> {
        self.say(end.name(), server, duration(lasts));
        let processes = &self.local.plan().processes;
        let process = processes.iter().find(|process| process.name == server);
        let address = process.and_then(|process| process.address(PortName::Rpc));
        let address = address.with_context(|| format!("{server} has no port for clients"))?;
        let left = self.drainer.drain(address, lasts).await.context(server.to_owned())?;
        let left = left.map_or_else(|| "unknown".to_owned(), |left| left.to_string());
        self.say("regions left on", server, left);
        match end {
            DrainEnd::Undone => {}
            DrainEnd::ServerKilled => self.kill(server).await?,
            DrainEnd::MasterKilled => self.kill(&self.active_master().await).await?,
        }
        self.drainer.undo().await
    }

    /// Begins a fault that lasts until [`Injector::end`].
    async fn begin(&self, action: FaultAction, name: &str) -> anyhow::Result<()> {
        let supervisor = self.local.supervisor();
        match (action, self.namespaces) {
            (FaultAction::Kill, _) => {
                supervisor.hold(name).await?;
                self.kill(name).await?;
            }
            (FaultAction::Stop, _) => {
                supervisor.hold(name).await?;
                self.stop(name).await?;
            }
            (FaultAction::Pause, _) => supervisor.pause(name).await?,
            (FaultAction::Cut, Some(namespaces)) => namespaces.cut(name).await?,
            (FaultAction::Cut, None) => bail!("{name} has no link that could be cut"),
        }
        Ok(())
    }

    /// Ends what [`Injector::begin`] began.
    async fn end(&self, action: FaultAction, name: &str) -> anyhow::Result<()> {
        let supervisor = self.local.supervisor();
        match (action, self.namespaces) {
            (FaultAction::Kill | FaultAction::Stop, _) => supervisor.release(name).await?,
            (FaultAction::Pause, _) => supervisor.resume(name).await?,
            (FaultAction::Cut, Some(namespaces)) => namespaces.heal(name).await?,
            (FaultAction::Cut, None) => {}
        }
        Ok(())
    }

    /// SIGKILL.
    async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let pid = pid(self.local.supervisor().state(name)?);
        self.local.supervisor().kill(name).await?;
        // Until the process is reaped, its state does not change.
        self.wait_ended(name, pid).await.with_context(|| format!("{name} was killed"))
    }

    /// SIGTERM.
    async fn stop(&self, name: &str) -> anyhow::Result<()> {
        let pid = pid(self.local.supervisor().state(name)?);
        self.local.supervisor().terminate(name).await?;
        self.wait_ended(name, pid).await.with_context(|| format!("{name} was asked to stop"))
    }

    /// Waits until the process that had `pid` has been reaped.
    async fn wait_ended(&self, name: &str, ended: Option<u32>) -> anyhow::Result<()> {
        let waiting = async {
            while ended.is_some() && pid(self.local.supervisor().state(name)?) == ended {
                sleep(REAP_POLL).await;
            }
            anyhow::Ok(())
        };
        let waited = timeout(RETURN_PATIENCE, waiting).await;
        waited.with_context(|| format!("it has not ended after {RETURN_PATIENCE:?}"))?
    }

    fn pids(&self) -> BTreeMap<String, Option<u32>> {
        let states = self.local.supervisor().states().into_iter();
        states.map(|(name, state)| (name, pid(state))).collect()
    }

    /// The process of the active master, or of any master if none is active.
    async fn active_master(&self) -> String {
        let active = self.observer.active_master().await.unwrap_or_default();
        let plan = self.local.plan();
        let any = || plan.processes.iter().find(|process| process.role == RoleName::Master);
        plan.master(&active).or_else(any).map(|process| process.name.clone()).unwrap_or_default()
    }

    /// Waits until all processes are ready and every region accepts a write. `None` if that takes
    /// too long.
    pub(super) async fn wait_healthy(&self) -> Option<Duration> {
        let begun = Instant::now();
        let healthy = async {
            self.local.supervisor().wait_all_ready(HEALTHY_PATIENCE).await.ok()?;
            self.write_to_all().await?;
            Some(begun.elapsed())
        };
        timeout(HEALTHY_PATIENCE, healthy).await.ok().flatten()
    }

    /// Writes to every region. `None` if a region does not accept the write.
    async fn write_to_all(&self) -> Option<()> {
        let regions = self.connection.admin().regions(self.table).await.ok()?;
        let table = self.connection.table(self.table);
        for location in regions {
            let row = [&location.region.start_key[..], b"health"].concat();
            let put = Put::new(row).column(self.family.as_bytes(), b"health", b"well");
            table.put(&put).await.ok()?;
        }
        Some(())
    }

    fn say(&self, what: &str, whom: &str, more: impl std::fmt::Display) {
        print_line!("{:>12}  {what} {whom} {more}", duration(self.begun.elapsed()));
    }
}

fn pid(state: ProcessState) -> Option<u32> {
    match state {
        ProcessState::Starting { pid } | ProcessState::Ready { pid } => Some(pid),
        ProcessState::Waiting | ProcessState::Held | ProcessState::Stopped => None,
    }
}
