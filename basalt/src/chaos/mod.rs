//! `basalt chaos`: a cluster of real processes that is harmed at random for a given time, while a
//! linked list grows in it and clients contend for counters. At the end nothing may be missing, no
//! reference undefined, the history linearizable, and the cluster well.

mod network;
mod schedule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_api::ValidatedCluster;
use basalt_client::{Connection, ConnectionConfig, Put, RegistryConfig, RetryConfig};
use basalt_measure::history::{Contender, Contest};
use basalt_measure::linked_list::LinkedList;
use basalt_measure::report::duration;
use basalt_measure::wait_online;
use basalt_model::TableName;
use basalt_runtime::{Random, Seams, Shutdown};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::demo::Observer;
use crate::local::{Hosts, LocalCluster, LocalOptions, PortName, hdfs, run_for_a_while};
use crate::manifest::Declared;
use crate::role_config::RoleName;
use crate::shell;
use network::Namespaces;
use schedule::{Harm, Strike, Victim};

/// What `basalt chaos` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest; without it, the example with 3 + 2 + 3 processes
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// For how long harm is done
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,
    /// Who is harmed how, and when; without it, any
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Cut no links: they need network namespaces, that is root or user namespaces, `unshare`,
    /// `nsenter` and `ip`
    #[arg(long)]
    no_cuts: bool,
    /// The folder with core-site.xml and hdfs-site.xml: the data is kept on that HDFS, in a new folder
    /// beside the one that the manifest names
    #[arg(long, value_name = "DIR")]
    hdfs_conf: Option<PathBuf>,
    /// Harm this too, which is not of the cluster: a DataNode, say; may be given several times
    #[arg(long, value_name = "NAME", requires = "foreign_command")]
    foreign: Vec<String>,
    /// How those are harmed: run by the shell with $VICTIM, and kill, start, freeze or thaw as $ACTION
    #[arg(long, value_name = "COMMAND", requires = "foreign")]
    foreign_command: Option<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The folder for all data, which stays; without it, a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What was done, and what came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    seconds: u64,
    processes: usize,
    /// How many faults of each kind.
    faults: BTreeMap<&'static str, u64>,
    /// How many times two were struck at once or one after the other.
    double_blows: u64,
    acked: u64,
    unknown: u64,
    lost: u64,
    undefined: u64,
    /// The longest that a node took to be acknowledged.
    longest_wait_ms: u64,
    /// Operations on counters that were answered.
    contended: usize,
    /// Rows for whose answers there is no order.
    not_linearizable: Vec<String>,
    /// How long after the last fault all processes were ready and all regions took a write.
    healthy_after_ms: Option<u64>,
}

/// A cluster that is being harmed.
struct Chaos<'a> {
    local: &'a LocalCluster,
    namespaces: Option<&'a Namespaces>,
    observer: &'a Observer,
    processes: BTreeMap<String, RoleName>,
    foreign: &'a [String],
    /// Harms one of `foreign`.
    foreign_command: &'a str,
}

/// How long the processes may take to be there.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long they may take to be there again after a blow.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// After this time without a fault the cluster is well.
const HEALTHY_MAX: Duration = Duration::from_secs(10);
/// How long is looked whether it is, all the same.
const HEALTHY_PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether a process that was killed is dead.
const REAP_POLL: Duration = Duration::from_millis(2);
/// How long the load runs undisturbed before the first blow.
const CALM: Duration = Duration::from_secs(3);
/// How long each process may take to stop at the end.
const GRACE: Duration = Duration::from_secs(2);
/// What may come after the time of harm until the program ends.
const LIFETIME_REST: Duration = Duration::from_mins(10);
/// How many contend for counters, and the pause between two operations of each.
const CONTENDERS: usize = 4;
const CONTENDERS_PAUSE: Duration = Duration::from_millis(20);
const QUALIFIER: &[u8] = b"counter";
/// One attempt of a client, and all attempts of an operation; then it is unknown.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.no_cuts
        && let Some(status) = network::run_apart()?
    {
        // Its words are on our standard error.
        if !status.success() {
            bail!("the run in a network namespace of its own ended with {status}");
        }
        return Ok(());
    }
    let mut cluster = Declared::read_or_example(arguments.file.as_deref())?.check()?;
    let hdfs_conf = hdfs::conf(&mut cluster, arguments.hdfs_conf.as_deref())?;
    if arguments.data.is_none() {
        hdfs::begin_anew(&mut cluster);
    }
    let seed = arguments.seed.unwrap_or_else(|| Random::from_system().next_u64() >> 32);
    print_line!("seed {seed}");
    let outcome = run_for_a_while("chaos", arguments.data.as_deref(), async |data| {
        harm(arguments, &cluster, data, hdfs_conf, seed).await
    })?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&outcome)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    outcome.tell();
    match outcome.broken().as_slice() {
        [] => Ok(()),
        broken => bail!("{}", broken.join("; ")),
    }
}

async fn harm(
    arguments: &Arguments,
    cluster: &ValidatedCluster,
    data: PathBuf,
    hdfs_conf: Option<PathBuf>,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let seams = Seams::system();
    let random = Random::from_seed(seed);
    let table = cluster.tables.first().context("the manifest declares no table to write to")?;
    let family = table.descriptor.families.keys().next().context("the table has no family")?;
    let table = &table.descriptor.name;
    let processes: BTreeMap<_, _> = crate::local::process_names(cluster).into_iter().collect();
    let names: Vec<String> = processes.keys().cloned().collect();
    let time = Duration::from_secs(arguments.minutes * 60);
    let namespaces = match arguments.no_cuts {
        true => None,
        false => Some(Namespaces::make(&names, time + LIFETIME_REST).await?),
    };
    let hosts = namespaces.as_ref().map_or_else(Hosts::default, Namespaces::hosts);
    let program = std::env::current_exe()?;
    let free_ports = namespaces.is_none();
    let options = LocalOptions { data, free_ports, hdfs_conf, program, hosts };
    let local = LocalCluster::start(cluster, options, &seams).await?;
    local.supervisor().wait_all_ready(START_PATIENCE).await?;
    let servers = local.plan().addresses(RoleName::Coordinator, PortName::Client);
    let connect = || connect(&seams, &servers);
    let connection = connect();
    wait_online(&connection, table).await?;
    print_line!("{} processes run, {} minutes of harm", names.len(), arguments.minutes);

    let list = LinkedList::begin(connect, table, family, &random).await?;
    let contest = contest(&connection, table, family).await?;
    let (mut contenders, stop) = (JoinSet::new(), Shutdown::new());
    for _ in 0..CONTENDERS {
        let random = Random::from_seed(random.next_u64());
        let contender = Contender::new(&contest, connect().table(table), random);
        contenders.spawn(contend(contender, stop.clone()));
    }

    let observer = Observer::connect(&seams, &local).await?;
    let namespaces = namespaces.as_ref();
    let chaos = Chaos {
        local: &local,
        namespaces,
        observer: &observer,
        processes,
        foreign: &arguments.foreign,
        foreign_command: arguments.foreign_command.as_deref().unwrap_or_default(),
    };
    let (faults, double_blows) = chaos.strike_for(time, &random, &list).await?;
    let healthy_after = chaos.wait_healthy(&connection, table, family).await;
    sleep(CALM).await;

    stop.cancel();
    while contenders.join_next().await.is_some() {}
    print_line!("reading back {} nodes ...", list.acknowledged());
    let audit = list.finish(&connection.table(table)).await?;
    let outcome = Outcome {
        seed,
        seconds: time.as_secs(),
        processes: names.len(),
        faults,
        double_blows,
        acked: audit.acked,
        unknown: audit.unknown,
        lost: audit.lost,
        undefined: audit.undefined,
        longest_wait_ms: audit.longest_wait.as_millis() as u64,
        contended: contest.history.count(),
        not_linearizable: contest.history.violations(),
        healthy_after_ms: healthy_after.map(|after| after.as_millis() as u64),
    };
    local.supervisor().stop(GRACE).await;
    Ok(outcome)
}

fn tell(strike: &Strike, name: &str, begun: Instant) {
    let lasts = if strike.harm == Harm::Kill { String::new() } else { duration(strike.lasts) };
    print_line!("{:>12}  {} {name} {lasts}", duration(begun.elapsed()), strike.harm.name());
}

fn connect(seams: &Seams, coordinators: &[String]) -> Connection {
    let root = basalt_measure::DEFAULT_ROOT.to_owned();
    let registry = RegistryConfig::ZooKeeper { servers: coordinators.to_vec(), root };
    let retry = RetryConfig {
        operation_timeout: OPERATION_TIMEOUT,
        attempt_timeout: ATTEMPT_TIMEOUT,
        ..RetryConfig::default()
    };
    Connection::new(seams, ConnectionConfig { retry, ..ConnectionConfig::new(registry) })
}

async fn contest(
    connection: &Connection,
    table: &TableName,
    family: &str,
) -> anyhow::Result<Arc<Contest>> {
    let regions = connection.admin().regions(table).await?;
    let prefix = |start: &[u8]| format!("{}count-", String::from_utf8_lossy(start));
    Ok(Arc::new(Contest {
        history: Arc::default(),
        prefixes: regions.iter().map(|location| prefix(&location.region.start_key)).collect(),
        family: family.to_owned(),
        qualifier: QUALIFIER.into(),
        attempt_timeout: ATTEMPT_TIMEOUT,
    }))
}

async fn contend(mut contender: Contender, stop: Shutdown) {
    while !stop.is_cancelled() {
        contender.contend_once().await;
        sleep(CONTENDERS_PAUSE).await;
    }
}

// === impl Chaos ===

impl Chaos<'_> {
    /// Strikes again and again for `time`. Returns how many faults of each kind there were, and how
    /// many blows of two.
    async fn strike_for(
        &self,
        time: Duration,
        random: &Random,
        list: &LinkedList,
    ) -> anyhow::Result<(BTreeMap<&'static str, u64>, u64)> {
        let harms: &[Harm] = match self.namespaces {
            Some(_) => &[Harm::Kill, Harm::Pause, Harm::Cut],
            None => &[Harm::Kill, Harm::Pause],
        };
        let begun = Instant::now();
        let (mut faults, mut double_blows) = (BTreeMap::new(), 0);
        sleep(CALM).await;
        while begun.elapsed() < time {
            let blow = schedule::next_blow(random, &self.processes, self.foreign, harms);
            double_blows += u64::from(blow.len() > 1);
            let strikes = blow.iter().map(|strike| self.strike(strike, begun));
            for struck in futures::future::join_all(strikes).await {
                *faults.entry(struck?.name()).or_default() += 1;
            }
            if begun.elapsed() >= time {
                break;
            }
            self.local.supervisor().wait_all_ready(RETURN_PATIENCE).await?;
            print_line!(
                "{:>12}  all ready, {} nodes",
                duration(begun.elapsed()),
                list.acknowledged()
            );
            sleep(schedule::calm(random)).await;
        }
        Ok((faults, double_blows))
    }

    async fn strike(&self, strike: &Strike, begun: Instant) -> anyhow::Result<Harm> {
        sleep(strike.after).await;
        let name = match &strike.victim {
            Victim::Process(name) => name.clone(),
            Victim::ActiveMaster => self.active_master().await,
            Victim::Foreign(name) => {
                tell(strike, name, begun);
                return self.strike_foreign(strike, name).await;
            }
        };
        let supervisor = self.local.supervisor();
        tell(strike, &name, begun);
        match (strike.harm, self.namespaces) {
            (Harm::Kill, _) => {
                let alive = supervisor.state(&name)?;
                supervisor.kill(&name).await?;
                // Until it is reaped it still counts as what it was.
                let reaped = async {
                    while supervisor.state(&name)? == alive {
                        sleep(REAP_POLL).await;
                    }
                    anyhow::Ok(())
                };
                let reaped = timeout(RETURN_PATIENCE, reaped).await;
                reaped.with_context(|| format!("{name} was killed and does not die"))??;
            }
            (Harm::Pause, _) => {
                supervisor.pause(&name).await?;
                sleep(strike.lasts).await;
                supervisor.resume(&name).await?;
            }
            (Harm::Cut, Some(namespaces)) => {
                namespaces.cut(&name).await?;
                sleep(strike.lasts).await;
                namespaces.heal(&name).await?;
            }
            (Harm::Cut, None) => bail!("{name} has no link that could be cut"),
        }
        Ok(strike.harm)
    }

    /// Strikes one that is not of the cluster, and waits until it is as before.
    async fn strike_foreign(&self, strike: &Strike, name: &str) -> anyhow::Result<Harm> {
        let act = async |action: &str| {
            let variables = [("ACTION", action), ("VICTIM", name)];
            let running = shell::start(self.foreign_command, &variables)?;
            let done = shell::wait(running, RETURN_PATIENCE).await;
            done.with_context(|| format!("--foreign-command, {action} {name}"))
        };
        let (begin, end) = match strike.harm {
            Harm::Kill => ("kill", "start"),
            Harm::Pause => ("freeze", "thaw"),
            Harm::Cut => bail!("{name} has no link that could be cut"),
        };
        act(begin).await?;
        sleep(strike.lasts).await;
        act(end).await?;
        Ok(strike.harm)
    }

    /// The process that is the active master; any master while there is none.
    async fn active_master(&self) -> String {
        let active = self.observer.active_master().await.unwrap_or_default();
        let plan = self.local.plan();
        let any = || plan.processes.iter().find(|process| process.role == RoleName::Master);
        plan.master(&active).or_else(any).map(|process| process.name.clone()).unwrap_or_default()
    }

    /// Waits until all processes are ready and every region takes a write; `None` if that takes too
    /// long.
    async fn wait_healthy(
        &self,
        connection: &Connection,
        table: &TableName,
        family: &str,
    ) -> Option<Duration> {
        let begun = Instant::now();
        let healthy = async {
            self.local.supervisor().wait_all_ready(HEALTHY_PATIENCE).await.ok()?;
            let regions = connection.admin().regions(table).await.ok()?;
            let table = connection.table(table);
            for location in regions {
                let row = [&location.region.start_key[..], b"health"].concat();
                let put = Put::new(row).column(family.as_bytes(), b"health", b"well");
                table.put(&put).await.ok()?;
            }
            Some(begun.elapsed())
        };
        timeout(HEALTHY_PATIENCE, healthy).await.ok().flatten()
    }
}

// === impl Outcome ===

impl Outcome {
    /// What must not have happened and did, in words.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.lost > 0 {
            broken.push(format!("{} of {} acknowledged nodes are lost", self.lost, self.acked));
        }
        if self.undefined > 0 {
            broken.push(format!("{} references lead to nodes that are not there", self.undefined));
        }
        for row in &self.not_linearizable {
            broken.push(format!("not linearizable: {row}"));
        }
        let healthy_max = HEALTHY_MAX.as_millis() as u64;
        if self.healthy_after_ms.is_none_or(|after| after > healthy_max) {
            broken.push(format!("the cluster was not well {HEALTHY_MAX:?} after the last fault"));
        }
        broken
    }

    fn tell(&self) {
        let faults: u64 = self.faults.values().sum();
        let kinds: Vec<_> =
            self.faults.iter().map(|(kind, count)| format!("{count} times {kind}")).collect();
        print_line!("\nseed {}: {faults} faults ({})", self.seed, kinds.join(", "));
        print_line!("  {} of the blows hit two", self.double_blows);
        let Self { acked, unknown, lost, undefined, contended, .. } = self;
        print_line!(
            "nodes: {acked} acknowledged, {unknown} unknown, {lost} lost, {undefined} undefined"
        );
        print_line!(
            "longest wait for a write: {}",
            duration(Duration::from_millis(self.longest_wait_ms))
        );
        let rows = self.not_linearizable.len();
        print_line!("counters: {contended} operations, {rows} rows not linearizable");
        match self.healthy_after_ms {
            Some(after) => print_line!("well again {after} ms after the last fault"),
            None => print_line!("NOT well after the last fault"),
        }
    }
}
