//! `basalt chaos`: a cluster of real processes into which random faults are injected for a given
//! time. Meanwhile a linked list grows in it, clients contend for counters, an administrator
//! changes tables and strangers connect to every port. At the end no acknowledged data may be
//! missing, no reference may be undefined, the history must be linearizable, and the cluster must
//! be healthy.

mod administrator;
mod drain;
mod injector;
mod memory;
mod network;
mod outcome;
mod schedule;
mod small_disk;
mod strangers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_api::ValidatedCluster;
use basalt_client::{Connection, ConnectionConfig, RegistryConfig, RetryConfig};
use basalt_measure::history::{Contender, Contest};
use basalt_measure::linked_list::LinkedList;
use basalt_measure::wait_online;
use basalt_model::TableName;
use basalt_runtime::{Random, Seams, Shutdown};
use clap::ValueEnum as _;
use futures::future::OptionFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::demo::Observer;
use crate::local::{
    DataFolder, Hosts, LocalCluster, LocalOptions, PortName, hdfs, run_for_a_while,
};
use crate::manifest::Declared;
use crate::role_config::RoleName;
use administrator::Administrator;
use drain::Drainer;
use injector::Injector;
use memory::Memory;
use network::Namespaces;
use outcome::ChaosOutcome;
use schedule::{Kind, Schedule, Scope};
use small_disk::SmallDisk;
use strangers::Strangers;

/// The arguments of `basalt chaos`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest. By default, the example with 3 + 2 + 3 processes
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many minutes to inject faults for
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,
    /// The seed that decides which faults are injected where, and when. By default, a random one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The kinds of faults, separated by commas. By default, all that are possible
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Do not cut links or fill a disk. Both need namespaces: root or user namespaces, `unshare`,
    /// `nsenter`, `ip` and `mount`
    #[arg(long)]
    no_cuts: bool,
    /// The folder with core-site.xml and hdfs-site.xml. The data is stored on that HDFS, in a new
    /// folder next to the one that the manifest names
    #[arg(long, value_name = "DIR")]
    hdfs_conf: Option<PathBuf>,
    /// Also inject faults into this process outside the cluster, such as a DataNode; may be
    /// repeated
    #[arg(long, value_name = "NAME", requires = "foreign_command")]
    foreign: Vec<String>,
    /// The shell command that injects faults into --foreign. It gets the name as $VICTIM, and kill,
    /// start, freeze or thaw as $ACTION
    #[arg(long, value_name = "COMMAND", requires = "foreign")]
    foreign_command: Option<String>,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The folder for all data; it is kept. By default, a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What a run works with.
struct Run<'a> {
    arguments: &'a Arguments,
    cluster: &'a ValidatedCluster,
    kinds: BTreeSet<Kind>,
    seed: u64,
}

/// The cluster that faults are injected into.
struct Cluster<'a> {
    seams: Seams,
    local: &'a LocalCluster,
    namespaces: Option<&'a Namespaces>,
    small_disk: Option<&'a SmallDisk>,
    processes: BTreeMap<String, RoleName>,
    /// The addresses by which clients find the cluster.
    servers: Vec<String>,
    /// The table that the load writes to.
    table: &'a TableName,
    family: &'a str,
}

/// The clients that contend for counters.
struct Clients {
    contest: Arc<Contest>,
    contenders: JoinSet<()>,
    stop: Shutdown,
}

/// How long the processes may take to become ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the load runs undisturbed before the first fault, and after the last.
const CALM: Duration = Duration::from_secs(3);
/// How long each process may take to stop at the end.
const GRACE: Duration = Duration::from_secs(2);
/// How long the program may run after the time of faults.
const LIFETIME_REST: Duration = Duration::from_mins(10);
/// The number of contenders for counters, and the pause between two operations of each.
const CONTENDERS: usize = 4;
const CONTENDERS_PAUSE: Duration = Duration::from_millis(20);
const QUALIFIER: &[u8] = b"counter";
/// The timeouts of one attempt and of a whole operation. After the latter the outcome of the
/// operation is unknown.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
/// The same for the administrator, whose calls must succeed despite all faults.
const ADMIN_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const ADMIN_OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `basalt chaos`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let kinds = arguments.kinds()?;
    if !arguments.no_cuts
        && let Some(status) = network::run_apart()?
    {
        // The other process has written its messages to our standard error.
        if !status.success() {
            bail!("the run in its own network namespace ended with {status}");
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
    let run = Run { arguments, cluster: &cluster, kinds, seed };
    let outcome = run_for_a_while("chaos", arguments.data.as_deref(), async |data| {
        run.execute(data, hdfs_conf).await
    })?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&outcome)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    outcome.print();
    match outcome.broken().as_slice() {
        [] => Ok(()),
        broken => bail!("{}", broken.join("; ")),
    }
}

/// A separate source of decisions. It depends only on the decisions that `random` has made so far.
fn child(random: &Random) -> Random {
    Random::from_seed(random.next_u64())
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

async fn contend(mut contender: Contender, stop: Shutdown) {
    while !stop.is_cancelled() {
        contender.contend_once().await;
        sleep(CONTENDERS_PAUSE).await;
    }
}

// === impl Arguments ===

impl Arguments {
    /// The kinds of faults that are injected.
    fn kinds(&self) -> anyhow::Result<BTreeSet<Kind>> {
        let impossible = |kind: Kind| match kind {
            Kind::Cut if self.no_cuts => Some("--no-cuts does not cut links"),
            Kind::FullDisk if self.no_cuts => {
                Some("it needs a mount namespace, which --no-cuts does not create")
            }
            Kind::FullDisk if self.data.is_some() => {
                Some("the disk is in memory, but --data must be kept")
            }
            _ => None,
        };
        if self.faults.is_empty() {
            let all = Kind::value_variants().iter().copied();
            return Ok(all.filter(|kind| impossible(*kind).is_none()).collect());
        }
        for kind in &self.faults {
            if let Some(reason) = impossible(*kind) {
                let value = kind.to_possible_value();
                let name = value.as_ref().map_or("", |value| value.get_name());
                bail!("--faults {name}: {reason}");
            }
        }
        Ok(self.faults.iter().copied().collect())
    }
}

// === impl Run ===

impl Run<'_> {
    async fn execute(
        &self,
        data: PathBuf,
        hdfs_conf: Option<PathBuf>,
    ) -> anyhow::Result<ChaosOutcome> {
        let seams = Seams::system();
        let random = Random::from_seed(self.seed);
        let table = self.cluster.tables.first();
        let table = table.context("the manifest declares no table to write to")?;
        let family = table.descriptor.families.keys().next().context("the table has no family")?;
        let processes: BTreeMap<_, _> =
            crate::local::process_names(self.cluster).into_iter().collect();
        let names: Vec<String> = processes.keys().cloned().collect();
        let namespaces = match self.arguments.no_cuts {
            true => None,
            false => Some(Namespaces::make(&names, self.time() + LIFETIME_REST).await?),
        };
        // Fails if a folder that is used for the first time is not empty.
        drop(DataFolder::open(&data, self.cluster, &seams.random)?);
        let small_disk = self.mount_small_disk(&data, &processes, &random)?;
        let hosts = namespaces.as_ref().map_or_else(Hosts::default, Namespaces::hosts);
        let program = std::env::current_exe()?;
        let free_ports = namespaces.is_none();
        let options = LocalOptions { data, free_ports, hdfs_conf, program, hosts };
        let local = LocalCluster::start(self.cluster, options, &seams).await?;
        local.supervisor().wait_all_ready(START_PATIENCE).await?;
        let cluster = Cluster {
            servers: local.plan().addresses(RoleName::Coordinator, PortName::Client),
            table: &table.descriptor.name,
            family,
            processes,
            namespaces: namespaces.as_ref(),
            small_disk: small_disk.as_ref(),
            local: &local,
            seams,
        };
        let outcome = self.inject(&cluster, &random).await?;
        local.supervisor().stop(GRACE).await;
        Ok(outcome)
    }

    /// Loads the cluster, injects the faults, and checks the result.
    async fn inject(&self, cluster: &Cluster<'_>, random: &Random) -> anyhow::Result<ChaosOutcome> {
        let (local, seams) = (cluster.local, &cluster.seams);
        let connection = cluster.connect();
        wait_online(&connection, cluster.table).await?;
        let minutes = self.arguments.minutes;
        print_line!("{} processes running, {minutes} minutes of faults", cluster.processes.len());
        let (table, family) = (cluster.table, cluster.family);
        let list = LinkedList::begin(|| cluster.connect(), table, family, random).await?;
        let clients = Clients::begin(cluster, random).await?;
        let stop = Shutdown::new();
        let works = self.administer(cluster, random, &stop).await?;
        let strangers = self.kinds.contains(&Kind::Strangers);
        let strangers =
            strangers.then(|| Strangers::send(&seams.network, cluster.ports(), &child(random)));

        let observer = Observer::connect(seams, local).await?;
        let injector = Injector {
            local,
            namespaces: cluster.namespaces,
            small_disk: cluster.small_disk,
            observer: &observer,
            drainer: Drainer { network: &seams.network, observer: &observer },
            foreign_command: self.arguments.foreign_command.as_deref().unwrap_or_default(),
            connection: &connection,
            table,
            family,
            begun: Instant::now(),
        };
        let mut schedule = Schedule::new(child(random), self.scope(cluster));
        let memory = RefCell::new(Memory::new(self.time()));
        let faults = async {
            sleep(CALM).await;
            let tally = injector.inject_for(self.time(), &mut schedule, &list).await?;
            // Operations in progress finish, and no others begin.
            stop.cancel();
            let strangers = OptionFuture::from(strangers.map(Strangers::leave)).await;
            anyhow::Ok((tally, strangers, injector.wait_healthy().await))
        };
        let (tally, strangers, healthy_after) = tokio::select! {
            biased;
            done = faults => done?,
            never = memory::watch(local.supervisor(), &memory) => match never {},
        };
        let report = OptionFuture::from(works).await.transpose()?.unwrap_or_default();
        sleep(CALM).await;
        let contest = clients.end().await;
        print_line!("reading back {} nodes ...", list.acknowledged());
        let audit = list.finish(&connection.table(table)).await?;
        let memory = memory.into_inner();
        Ok(ChaosOutcome {
            seed: self.seed,
            seconds: self.time().as_secs(),
            processes: cluster.processes.len(),
            tally,
            strangers: strangers.unwrap_or_default(),
            acked: audit.acked,
            unknown: audit.unknown,
            lost: audit.lost,
            undefined: audit.undefined,
            longest_wait_ms: milliseconds(audit.longest_wait),
            longest_wait_without_quorum_ms: milliseconds(audit.longest_wait_in_outage),
            contended: contest.history.count(),
            not_linearizable: contest.history.violations(),
            healthy_after_ms: healthy_after.map(milliseconds),
            grown: memory.grown(),
            memory: memory.processes().clone(),
            administration: report,
        })
    }

    /// Starts the administrator, if it is among the kinds of faults.
    async fn administer(
        &self,
        cluster: &Cluster<'_>,
        random: &Random,
        stop: &Shutdown,
    ) -> anyhow::Result<Option<AbortOnDropHandle<administrator::Report>>> {
        if !self.kinds.contains(&Kind::Administrator) {
            return Ok(None);
        }
        let connection = cluster.connect_patiently();
        let administrator = Administrator::begin(&connection, cluster.table, child(random)).await?;
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(administrator.work(stop.clone())))))
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.arguments.minutes * 60)
    }

    fn scope(&self, cluster: &Cluster<'_>) -> Scope {
        Scope {
            processes: cluster.processes.clone(),
            foreign: self.arguments.foreign.clone(),
            kinds: self.kinds.clone(),
            has_links: cluster.namespaces.is_some(),
        }
    }

    /// Mounts a disk that can be filled for one member of the coordinator, which the seed chooses.
    fn mount_small_disk(
        &self,
        data: &Path,
        processes: &BTreeMap<String, RoleName>,
        random: &Random,
    ) -> anyhow::Result<Option<SmallDisk>> {
        if !self.kinds.contains(&Kind::FullDisk) {
            return Ok(None);
        }
        let members = processes.iter().filter(|(_, role)| **role == RoleName::Coordinator);
        let members: Vec<_> = members.map(|(name, _)| name).collect();
        let member = random.pick(&members).context("there is no coordinator")?;
        Ok(Some(SmallDisk::mount(&data.join(member))?))
    }
}

// === impl Cluster ===

impl Cluster<'_> {
    fn connect(&self) -> Connection {
        self.connect_with(OPERATION_TIMEOUT, ATTEMPT_TIMEOUT)
    }

    fn connect_patiently(&self) -> Connection {
        self.connect_with(ADMIN_OPERATION_TIMEOUT, ADMIN_ATTEMPT_TIMEOUT)
    }

    fn connect_with(&self, operation_timeout: Duration, attempt_timeout: Duration) -> Connection {
        let root = basalt_measure::DEFAULT_ROOT.to_owned();
        let registry = RegistryConfig::ZooKeeper { servers: self.servers.clone(), root };
        let retry = RetryConfig { operation_timeout, attempt_timeout, ..RetryConfig::default() };
        let config = ConnectionConfig { retry, ..ConnectionConfig::new(registry) };
        Connection::new(&self.seams, config)
    }

    /// The addresses on which all processes listen.
    fn ports(&self) -> Vec<String> {
        let processes = self.local.plan().processes.iter();
        let ports = processes.flat_map(|process| &process.listens);
        ports.map(|(_, address)| address.to_string()).collect()
    }
}

// === impl Clients ===

impl Clients {
    async fn begin(cluster: &Cluster<'_>, random: &Random) -> anyhow::Result<Self> {
        let regions = cluster.connect().admin().regions(cluster.table).await?;
        let prefix = |start: &[u8]| format!("{}count-", String::from_utf8_lossy(start));
        let contest = Arc::new(Contest {
            history: Arc::default(),
            prefixes: regions.iter().map(|location| prefix(&location.region.start_key)).collect(),
            family: cluster.family.to_owned(),
            qualifier: QUALIFIER.into(),
            attempt_timeout: ATTEMPT_TIMEOUT,
        });
        let (mut contenders, stop) = (JoinSet::new(), Shutdown::new());
        for _ in 0..CONTENDERS {
            let table = cluster.connect().table(cluster.table);
            let contender = Contender::new(&contest, table, child(random));
            contenders.spawn(contend(contender, stop.clone()));
        }
        Ok(Self { contest, contenders, stop })
    }

    /// Lets the contenders finish their current operations.
    async fn end(mut self) -> Arc<Contest> {
        self.stop.cancel();
        while self.contenders.join_next().await.is_some() {}
        self.contest
    }
}
