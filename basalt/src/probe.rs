//! `basalt probe`: a steady stream of writes and reads to every region of a table, while faults
//! happen. It works with Apache HBase as well as with Basalt.
//!
//! Other programs cause the faults. If the probe has a command that causes one, it runs the command
//! at fixed times. So it knows when each fault began and which regions it affects, and can measure
//! the cost of each fault.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_api::Timespan;
use basalt_client::Connection;
use basalt_measure::outage::FaultWindow;
use basalt_measure::probe::{Probe, ProbeConfig};
use basalt_measure::report::{Report, duration, page, picture, summary, thousands};
use basalt_measure::{
    DEFAULT_ROOT, Fault, FaultKind, Measurement, Phases, Target, describe, ensure_table,
};
use basalt_model::TableName;
use basalt_runtime::Seams;
use tokio::time::Instant;

use crate::progress::Progress;
use crate::role::Signals;
use crate::shell;

/// The arguments of `basalt probe`.
#[derive(clap::Args)]
#[group(id = "registry", args = ["zk", "bootstrap"], required = true)]
pub(crate) struct Arguments {
    /// Addresses of ZooKeeper, or of Basalt's coordinator
    #[arg(long, value_name = "HOST:PORT,…")]
    zk: Option<String>,
    /// The node under which the cluster keeps its nodes
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ROOT)]
    znode: String,
    /// Addresses of masters or region servers, instead of ZooKeeper
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: Option<String>,
    /// The table to use. It is created if it does not exist, and is kept
    #[arg(long, value_name = "TABLE", default_value = "basalt_probe")]
    table: TableName,
    /// Number of regions if the table is created
    #[arg(long, value_name = "N", default_value_t = 12)]
    regions: u32,
    /// How long to measure. By default, until Ctrl-C or until the faults are over
    #[arg(long, value_name = "TIME")]
    duration: Option<Timespan>,
    #[command(flatten)]
    faults: FaultArguments,
    #[command(flatten)]
    reports: ReportArguments,
}

/// The options for the faults that a probe causes.
#[derive(clap::Args)]
struct FaultArguments {
    /// A shell command that causes a fault. It gets $VICTIM (host:port) and $NUMBER (from 1)
    #[arg(long, value_name = "COMMAND")]
    fault_command: Option<String>,
    /// A shell command that undoes the fault once all regions are served again
    #[arg(long, value_name = "COMMAND", requires = "fault_command")]
    repair_command: Option<String>,
    /// The fault that the command causes: kill-regionserver, pause-regionserver, term-regionserver,
    /// kill-master, term-master, kill-coordinator-leader, kill-all
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "kill-regionserver")]
    fault_kind: FaultKind,
    /// The region servers to use as victims, in turn. By default, each time the one with the most
    /// regions
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    victims: Vec<String>,
    /// Number of faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    faults: u32,
    /// How long the load runs undisturbed before each fault
    #[arg(long, value_name = "TIME", default_value = "5s")]
    calm: Timespan,
    /// How long to wait for regions to be served again before giving up
    #[arg(long, value_name = "TIME", default_value = "5m")]
    patience: Timespan,
}

/// Where the reports are written.
#[derive(clap::Args)]
pub(crate) struct ReportArguments {
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with the timeline
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a picture of the first recovery, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// How long the effect of a command may be delayed: a large process that was killed still answers
/// for a moment.
const TAKES_EFFECT: Duration = Duration::from_millis(500);
/// How often to check whether regions are served.
const POLL: Duration = Duration::from_millis(20);
/// How often to check which master is active.
const MASTER_POLL: Duration = Duration::from_millis(5);
/// How often progress is printed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the probe.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let target = arguments.target()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measurement = runtime.block_on(measure(arguments, &target))?;
    arguments.reports.conclude(&measurement)
}

async fn measure(arguments: &Arguments, target: &Target) -> anyhow::Result<Measurement> {
    let seams = Seams::system();
    let connection = target.connect(&seams);
    let name = format!("{} at {target}", describe(&connection).await?);
    let table = &arguments.table;
    let family = ensure_table(&connection, table, "family", arguments.regions).await?;
    let regions = connection.admin().regions(table).await?.len();
    let mut signals = Signals::listen()?;
    let config = ProbeConfig::standard(table.clone(), &family, regions);
    print_line!(
        "{name}\ntable {table}, {regions} regions, each written and read every {:?}",
        config.pace
    );
    let probe = Probe::start(&connection, &seams, config).await?;
    let mut faults = Vec::new();
    tokio::select! {
        biased;
        () = signals.next() => {}
        () = watch(&probe) => {}
        result = inject(arguments, &connection, &probe, &mut faults) => result?,
    }
    print_line!("reading back {} acknowledged writes …", thousands(probe.acknowledged()));
    Ok(probe.finish(&name, faults).await?)
}

/// Prints the progress until it is dropped.
async fn watch(probe: &Probe) {
    let mut progress = Progress::new();
    let mut before = (probe.now(), probe.acknowledged());
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let now = (probe.now(), probe.acknowledged());
        let rate = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64();
        let out = match probe.regions_out() {
            0 => String::new(),
            out => format!(", {out} regions unavailable"),
        };
        let (elapsed, rate) = (duration(now.0), thousands(rate as u64));
        progress.show("", &format!("{elapsed}: {rate} writes a second{out}"));
        before = now;
    }
}

/// Causes the faults, if any are requested. Returns when the measurement is over.
async fn inject(
    arguments: &Arguments,
    connection: &Connection,
    probe: &Probe,
    faults: &mut Vec<Fault>,
) -> anyhow::Result<()> {
    let calm = arguments.faults.calm.into();
    if let Some(command) = &arguments.faults.fault_command {
        for number in 1..=arguments.faults.faults {
            tokio::time::sleep(calm).await;
            let fault = arguments.faults.cause(command, number, connection, probe).await?;
            faults.push(fault);
        }
        tokio::time::sleep(calm).await;
    }
    match arguments.duration {
        Some(length) => {
            let left = Duration::from(length).saturating_sub(probe.now());
            tokio::time::sleep(left).await;
        }
        None if arguments.faults.fault_command.is_none() => std::future::pending().await,
        None => {}
    }
    Ok(())
}

// === impl Arguments ===

impl Arguments {
    fn target(&self) -> anyhow::Result<Target> {
        let text = match (&self.zk, &self.bootstrap) {
            (Some(servers), _) => format!("zk:{servers}/{}", self.znode.trim_start_matches('/')),
            (None, servers) => format!("bootstrap:{}", servers.as_deref().unwrap_or_default()),
        };
        Ok(text.parse()?)
    }
}

// === impl FaultArguments ===

impl FaultArguments {
    /// Causes one fault, waits until all regions are served again, and undoes the fault.
    async fn cause(
        &self,
        command: &str,
        number: u32,
        connection: &Connection,
        probe: &Probe,
    ) -> anyhow::Result<Fault> {
        let of_region_server = matches!(
            self.fault_kind,
            FaultKind::KillRegionServer
                | FaultKind::PauseRegionServer
                | FaultKind::TermRegionServer
        );
        let victim = match self.victims.as_slice() {
            [] if of_region_server => probe.busiest_server(connection).await?,
            [] => self.fault_kind.name().to_owned(),
            victims => victims[(number as usize - 1) % victims.len()].clone(),
        };
        let affected = match self.fault_kind {
            FaultKind::KillAll => probe.all_regions(),
            _ => probe.regions_on(connection, |server| server.address() == victim).await?,
        };
        if of_region_server && affected.is_empty() {
            bail!("{victim} has no region of the table: nothing would be measured");
        }
        let at = probe.now();
        let phases = match self.fault_kind {
            FaultKind::KillMaster | FaultKind::TermMaster => {
                let inject = run_shell(command, &victim, number);
                Some(self.replace_master(connection, inject).await?)
            }
            _ => {
                run_shell(command, &victim, number).await?;
                None
            }
        };
        let recovered_at = self.wait_served(probe, probe.now() + TAKES_EFFECT).await;
        if let Some(repair) = &self.repair_command {
            run_shell(repair, &victim, number).await?;
        }
        let window = FaultWindow { at, recovered_at, affected };
        Ok(Fault { kind: self.fault_kind, victim, window, wal_bytes: None, phases })
    }

    /// Lets `inject` end the active master, and waits until another is recorded. Returns how long
    /// that took from the end of the injection.
    async fn replace_master(
        &self,
        connection: &Connection,
        inject: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Phases> {
        let admin = connection.admin();
        let before = admin.active_master().await.context("before the fault")?;
        let replaced = async {
            while admin.active_master().await.map_or(true, |now| now == before) {
                tokio::time::sleep(MASTER_POLL).await;
            }
            Instant::now()
        };
        let injected = async { inject.await.map(|()| Instant::now()) };
        let replaced = tokio::time::timeout(self.patience.into(), replaced);
        let (injected, replaced) = tokio::join!(injected, replaced);
        let replaced =
            replaced.with_context(|| format!("{before} is still recorded as the active master"))?;
        let total = Some(replaced.saturating_duration_since(injected?));
        Ok(Phases { total, ..Phases::default() })
    }

    /// The time at which every region had served a write and a read that began after `since`.
    async fn wait_served(&self, probe: &Probe, since: Duration) -> Option<Duration> {
        let deadline = Instant::now() + self.patience.into();
        let regions = probe.all_regions();
        while !probe.serve_since(&regions, since) {
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
        Some(probe.now())
    }
}

// === impl ReportArguments ===

impl ReportArguments {
    /// Writes the reports and prints the summary. Fails if the measurement shows a violation.
    pub(crate) fn conclude(&self, measurement: &Measurement) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            write(path, &(serde_json::to_string_pretty(&Report::of(measurement))? + "\n"))?;
        }
        if let Some(path) = &self.report {
            write(path, &page(measurement))?;
        }
        if let Some(path) = &self.picture {
            write(path, &picture(measurement, 0).context("there was no fault to draw")?)?;
        }
        print_line!("{}", summary(measurement));
        match measurement.violations().as_slice() {
            [] => Ok(()),
            violations => bail!("{}", violations.join("; ")),
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn kind(name: &str) -> Result<FaultKind, String> {
    FaultKind::of_name(name).ok_or_else(|| {
        let names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("the kinds are {}", names.join(", "))
    })
}

async fn run_shell(command: &str, victim: &str, number: u32) -> anyhow::Result<()> {
    let number = number.to_string();
    let mut running = shell::start(command, &[("VICTIM", victim), ("NUMBER", &number)])?;
    shell::check(running.wait().await?).with_context(|| format!("{command:?}"))
}
