//! `basalt local`: a whole cluster on this machine, with one child process for each pod.
//!
//! [`plan`](plan()) is a pure function that lists the processes and their configuration.
//! [`DataFolder`] stores what must outlast the processes. [`Supervisor`] starts the processes and
//! keeps them running. [`LocalCluster`] combines the three, for `basalt local` and for other
//! commands that need a temporary cluster.

mod cluster;
mod failures;
mod folder;
pub(crate) mod hdfs;
mod keeper;
mod plan;
mod ports;
mod reaped;
mod supervisor;
mod terminal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use basalt_api::{Timespan, ValidatedCluster};
use basalt_runtime::Seams;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::output::print_text;
use crate::role::Signals;

use failures::Failures;

pub use cluster::{LocalCluster, LocalOptions};
pub use folder::{DataFolder, Identity};
pub use keeper::{Death, DeathHook, Event, Launch, ProcessState, ignore_death};
pub use plan::{Host, Hosts, Plan, ProcessPlan, RolePlan, plan, process_names};
pub use ports::{PortName, Ports};
pub use supervisor::{Error, Supervisor};

/// The arguments of `basalt local`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The folder for all data. A cluster that is started on it again has all its data
    /// [default: basalt-data/<cluster>]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder with core-site.xml and hdfs-site.xml. The data is stored on that HDFS, in the
    /// folder that the manifest names, or else in /basalt/<cluster>
    #[arg(long, value_name = "DIR")]
    hdfs_conf: Option<PathBuf>,
    /// Use free ports instead of HBase's default ports and of those of the last start
    #[arg(long)]
    free_ports: bool,
    /// How long each process may take to stop before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s")]
    grace: Timespan,
    /// The binary that the processes run; tests put a stand-in here
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
}

/// How long a cluster may take to start before it is reported as slow.
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the cluster until it is asked to stop.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut manifest = crate::manifest::read(&arguments.file)?;
    let hdfs_conf = hdfs::conf(&mut manifest, arguments.hdfs_conf.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run_until_stopped(arguments, &manifest, hdfs_conf))
}

/// Runs `work` with a folder for a cluster: `data`, or a temporary one that is deleted if the run
/// succeeds. A signal ends the work, and with it the cluster's processes.
///
/// # Errors
/// `work` fails or is interrupted.
pub(crate) fn run_for_a_while<T>(
    command: &str,
    data: Option<&Path>,
    work: impl AsyncFnOnce(PathBuf) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let prefix = format!("basalt-{command}-");
    let (data, temporary) = match data {
        Some(data) => (data.to_owned(), None),
        None => {
            let temporary = tempfile::Builder::new().prefix(&prefix).tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            biased;
            () = signals.next() => bail!("interrupted; the cluster was stopped"),
            done = work(data) => done,
        }
    });
    if done.is_err()
        && let Some(temporary) = temporary
    {
        print_line!("The logs are kept in {}.", temporary.keep().join(plan::LOGS_FOLDER).display());
    }
    done
}

async fn run_until_stopped(
    arguments: &Arguments,
    manifest: &ValidatedCluster,
    hdfs_conf: Option<PathBuf>,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    let options = LocalOptions {
        data: arguments.data.clone().unwrap_or_else(|| default_data(manifest)),
        free_ports: arguments.free_ports,
        hdfs_conf,
        program,
        hosts: Hosts::default(),
    };
    let cluster = LocalCluster::start(manifest, options, &Seams::system()).await?;
    print_text(&terminal::opening(manifest, &cluster));
    let watching = hdfs::watch(&cluster, &manifest.timers)?;
    let _watching = watching.map(AbortOnDropHandle::new);
    let failure = watch(&cluster, &mut signals).await;
    stop(&cluster, &mut signals, arguments.grace.into()).await;
    match failure {
        Some(reason) => bail!("{reason}\nIts log is in {}.", cluster.logs().display()),
        None => Ok(()),
    }
}

/// Reports events until the first signal, or until a process fails permanently. Returns the reason
/// in that case.
async fn watch(cluster: &LocalCluster, signals: &mut Signals) -> Option<String> {
    let mut events = cluster.supervisor().events();
    let started = Instant::now();
    let ready = cluster.supervisor().wait_all_ready(READY_PATIENCE);
    tokio::pin!(ready);
    let mut starting = true;
    let mut failures = Failures::default();
    loop {
        tokio::select! {
            biased;
            () = signals.next() => return None,
            event = events.recv() => match event {
                Ok(event) => {
                    print_line(terminal::event(&event, cluster));
                    let last_line = |process: &str| terminal::last_line(&cluster.log(process));
                    if let Some(reason) = failures.note(&event, last_line) {
                        return Some(reason);
                    }
                }
                Err(RecvError::Lagged(missed)) => print_line!("({missed} events were missed)"),
                Err(RecvError::Closed) => return None,
            },
            result = &mut ready, if starting => {
                starting = false;
                match result {
                    Ok(()) => print_text(&terminal::ready(cluster, started.elapsed())),
                    Err(error) => print_line!("{error}; see {}", cluster.logs().display()),
                }
            }
        }
    }
}

/// Stops the cluster. A second signal kills the remaining processes immediately.
async fn stop(cluster: &LocalCluster, signals: &mut Signals, grace: Duration) {
    let started = Instant::now();
    print_line!(
        "\nStopping: region servers, masters, coordinator (press Ctrl-C again to kill them)"
    );
    tokio::select! {
        biased;
        () = signals.next() => cluster.supervisor().stop(Duration::ZERO).await,
        () = cluster.supervisor().stop(grace) => {}
    }
    print_line!("Stopped after {}.", terminal::seconds(started.elapsed()));
}

fn default_data(manifest: &ValidatedCluster) -> PathBuf {
    PathBuf::from("basalt-data").join(&manifest.name)
}

fn print_line(line: Option<String>) {
    if let Some(line) = line {
        print_line!("{line}");
    }
}
