//! `basalt demo`: a cluster on this machine that gets one fault after the other under load.
//!
//! The demo starts the declared cluster in its own folder and probes every region. It injects one
//! fault after the other: into the region servers, into the active master, and into the
//! coordinator's leader. It succeeds only if no acknowledged data is missing.

mod faults;
mod load;
mod observer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_api::ValidatedCluster;
use basalt_measure::probe::{Probe, ProbeConfig};
use basalt_measure::report::{Report, page, picture, summary};
use basalt_measure::{Fault, FaultKind, Measurement, Target, wait_online};
use basalt_runtime::Seams;

use crate::local::{Hosts, LocalCluster, LocalOptions, PortName, hdfs, run_for_a_while};
use crate::manifest::Declared;
use crate::role_config::RoleName;
use faults::Injector;
pub(crate) use observer::Observer;

/// The arguments of `basalt demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest. By default, the example with 3 region servers and 12 regions
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many faults to inject into region servers
    #[arg(long, value_name = "N", default_value_t = 9)]
    kills: u32,
    /// The fault of region servers: SIGKILL, SIGSTOP, SIGTERM, or only --fault-command
    #[arg(long, value_enum, default_value = "kill")]
    fault: ServerFault,
    /// How much unflushed data the log contains before each fault
    #[arg(long, value_name = "MB", default_value_t = 0)]
    unflushed_mb: u64,
    /// Number of regions of the table, instead of the number in the manifest
    #[arg(long, value_name = "N")]
    regions: Option<u32>,
    /// Kill all processes at once and start them again, instead of one after the other
    #[arg(long)]
    all_at_once: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with the timeline
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a picture of the first recovery, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The folder with core-site.xml and hdfs-site.xml. The data is stored on that HDFS, in a new
    /// folder next to the one that the manifest names
    #[arg(long, value_name = "DIR")]
    hdfs_conf: Option<PathBuf>,
    /// Run this shell command at the moment of each fault, to inject a second fault elsewhere. It
    /// gets the number of the fault, from 0, as $FAULT
    #[arg(long, value_name = "COMMAND")]
    fault_command: Option<String>,
    /// Run this shell command once a fault is over, to undo what --fault-command did
    #[arg(long, value_name = "COMMAND", requires = "fault_command")]
    repair_command: Option<String>,
    /// The folder for all data; it is kept. By default, a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// A fault of a region server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum ServerFault {
    Kill,
    Pause,
    Term,
    None,
}

/// How long the processes and the table may take to become available.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the load runs undisturbed before the first fault and after the last.
const CALM: Duration = Duration::from_secs(3);
/// How long each process may take to stop at the end.
const GRACE: Duration = Duration::from_secs(2);

// === impl ServerFault ===

impl ServerFault {
    fn kind(self) -> FaultKind {
        match self {
            Self::Kill => FaultKind::KillRegionServer,
            Self::Pause => FaultKind::PauseRegionServer,
            Self::Term => FaultKind::TermRegionServer,
            Self::None => FaultKind::Elsewhere,
        }
    }
}

/// Runs the demo.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut cluster = read_manifest(arguments)?;
    let hdfs_conf = hdfs::conf(&mut cluster, arguments.hdfs_conf.as_deref())?;
    if arguments.data.is_none() {
        hdfs::begin_anew(&mut cluster);
    }
    let measurement = run_for_a_while("demo", arguments.data.as_deref(), async |data| {
        demonstrate(arguments, &cluster, data, hdfs_conf).await
    })?;
    write_reports(arguments, &measurement)?;
    print_line!("{}", summary(&measurement));
    match measurement.violations().as_slice() {
        [] => Ok(()),
        violations => bail!("{}", violations.join("; ")),
    }
}

fn read_manifest(arguments: &Arguments) -> anyhow::Result<ValidatedCluster> {
    let mut declared = Declared::read_or_example(arguments.file.as_deref())?;
    if let Some(regions) = arguments.regions {
        let Some(table) = declared.tables.first_mut() else {
            bail!("{} declares no table", declared.file)
        };
        table.spec.regions.count = Some(regions);
    }
    if arguments.unflushed_mb > 0 {
        let config = &mut declared.cluster.spec.region_servers.config;
        load::keep_unflushed(config, arguments.unflushed_mb);
    }
    declared.check()
}

async fn demonstrate(
    arguments: &Arguments,
    cluster: &ValidatedCluster,
    data: PathBuf,
    hdfs_conf: Option<PathBuf>,
) -> anyhow::Result<Measurement> {
    let seams = Seams::system();
    let table = cluster.tables.first().context("the manifest declares no table to write to")?;
    let family = table.descriptor.families.keys().next().context("the table has no family")?;
    let program = std::env::current_exe()?;
    let hosts = Hosts::default();
    let options = LocalOptions { data, free_ports: true, hdfs_conf, program, hosts };
    print_line!("starting cluster {} ...", cluster.name);
    let local = LocalCluster::start(cluster, options, &seams).await?;
    local.supervisor().wait_all_ready(START_PATIENCE).await?;
    let servers = local.plan().addresses(RoleName::Coordinator, PortName::Client);
    let root = basalt_measure::DEFAULT_ROOT.to_owned();
    let connection = Target::ZooKeeper { servers, root }.connect(&seams);
    let name = &table.descriptor.name;
    wait_online(&connection, name).await?;
    let regions = connection.admin().regions(name).await?.len();
    print_line!(
        "{} processes are running, table {name} has {regions} regions",
        local.plan().processes.len()
    );
    let config = ProbeConfig::standard(name.clone(), family, regions);
    let probe = Probe::start(&connection, &seams, config).await?;
    let observer = Observer::connect(&seams, &local).await?;
    let files = local.storage(&cluster.timers, &seams)?;
    let mut injector =
        Injector::new(arguments, &local, &connection, &probe, observer, Arc::clone(&files));
    tokio::time::sleep(CALM).await;
    let mut faults: Vec<Fault> = Vec::new();
    if arguments.all_at_once {
        faults.push(injector.kill_all().await?);
    } else {
        for number in 0..arguments.kills {
            if arguments.unflushed_mb > 0 {
                let mebibytes = arguments.unflushed_mb;
                load::write_unflushed(&connection, name, family, mebibytes, number).await?;
            }
            faults.push(injector.inject_region_server_fault(number).await?);
        }
        faults.push(injector.kill_master().await?);
        faults.push(injector.kill_coordinator_leader().await?);
    }
    tokio::time::sleep(CALM).await;
    print_line!("reading back {} acknowledged writes ...", probe.acknowledged());
    let title = format!("Basalt {}, cluster {}", env!("CARGO_PKG_VERSION"), cluster.name);
    let measurement = probe.finish(&title, faults).await?;
    local.supervisor().stop(GRACE).await;
    if arguments.data.is_none() {
        // On this machine the temporary folder is deleted with its contents. On HDFS nothing
        // deletes it.
        files.delete_directory(Path::new("/")).await?;
    }
    Ok(measurement)
}

fn write_reports(arguments: &Arguments, measurement: &Measurement) -> anyhow::Result<()> {
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &arguments.json {
        write(path, serde_json::to_string_pretty(&Report::of(measurement))? + "\n")?;
    }
    if let Some(path) = &arguments.report {
        write(path, page(measurement))?;
    }
    if let Some(path) = &arguments.picture {
        write(path, picture(measurement, 0).context("there was no fault to draw")?)?;
    }
    Ok(())
}
