//! The frame of every role: it reads the role's file, sets up telemetry, signals and seams, and
//! runs the role.
//!
//! SIGTERM and Ctrl-C ask the process to stop. A second signal ends it immediately. A supervised
//! process also ends immediately when its standard input ends: its supervisor holds the other end,
//! and so it has ended too. So no child outlives `basalt local`, however that died.
//!
//! On Kubernetes each start of a container is a separate life. The process adds a unique suffix to
//! its instance and writes the whole into the termination log. The kubelet quotes it when it
//! reports that this very container has ended (docs/decisions/0008).

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use anyhow::Context;
use basalt_runtime::{Executor, Seams, Shutdown, Threads, init_telemetry, until_stuck};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::role_config::{self, RoleFile, RoleName, Settings};
use crate::{health, output};

/// The arguments of a role's subcommand.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The role's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of this run of the process, chosen by whoever starts it
    #[arg(long, value_name = "NAME", default_value = "")]
    instance: String,
    /// Write the instance, made unique, to this file. Kubernetes quotes it once the process has
    /// ended
    #[arg(long, value_name = "FILE", requires = "instance")]
    termination_log: Option<PathBuf>,
    /// Answer /livez and /readyz at this address
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
}

/// The environment in which a role runs.
pub struct RoleContext<S> {
    /// The role's file.
    pub file: RoleFile<S>,
    /// Identifies this life of the process to its supervisor.
    pub instance: String,
    /// Access to the machine.
    pub seams: Seams,
    /// The signal to stop.
    pub shutdown: Shutdown,
}

/// The line that a process prints on standard output once it serves.
pub const READY_LINE: &str = "ready";

/// The exit code of a process that was asked twice to stop, or whose supervisor has ended.
const ENDED_AT_ONCE: i32 = 130;
/// The maximum number of threads that wait for the disk. A killed process releases its files and
/// connections only when the last of its threads has ended.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long an idle thread of this kind is kept.
const BLOCKING_THREADS_KEPT: Duration = Duration::from_secs(1);
/// A process whose serving threads run nothing for this long is ended, whatever the role itself
/// does about it.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
/// How many files a process should be able to open: as many connections as its ports accept, and
/// the files of its data.
const FILES_ADVISED: u64 = 16_384;
/// How long threads may take to end once the role has ended.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `role` with the file that `arguments` name, until it ends.
pub(crate) fn run<S, F>(
    arguments: &Arguments,
    role: impl FnOnce(RoleContext<S>) -> F,
) -> anyhow::Result<()>
where
    S: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let file: RoleFile<S> = role_config::read(&arguments.config)?;
    init_telemetry(&file.log_level).map_err(anyhow::Error::msg)?;
    if file.supervised {
        end_with_supervisor()?;
    }
    raise_file_limit();
    let runtimes = Runtimes::build(file.worker_threads, liveness_threads(S::ROLE))?;
    let threads = runtimes.threads();
    let Runtimes { serving, liveness } = runtimes;
    let ended = serving.block_on(run_on(threads, arguments, file, role));
    // A thread that hangs must not keep the process from ending. The threads that watch the serving
    // threads end first.
    liveness.shutdown_timeout(END_TIMEOUT);
    serving.shutdown_timeout(END_TIMEOUT);
    ended
}

/// Raises the limit of file descriptors to the maximum. Each connection uses one, and a server
/// without free descriptors can create no file.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit);
    let files = getrlimit(Resource::Nofile).current;
    if let Some(files) = files.filter(|files| *files < FILES_ADVISED) {
        let refused = raised.err().map(tracing::field::display);
        tracing::warn!(files, advised = FILES_ADVISED, refused, "the limit of open files is low");
    }
}

/// The number of threads for leases, sessions and heartbeats. They are mostly idle, and a second
/// thread costs each answer of the coordinator the time to wake it. The coordinator nevertheless
/// has a second one for when the first is busy: it applies entries and makes snapshots on these
/// threads.
fn liveness_threads(role: RoleName) -> usize {
    match role {
        RoleName::Coordinator => 2,
        RoleName::Master | RoleName::RegionServer | RoleName::Idle => 1,
    }
}

fn build_runtime(name: &str, threads: Option<usize>) -> std::io::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    runtime
        .thread_name(name)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREADS_KEPT)
        .enable_all()
        .build()
}

async fn run_on<S, F>(
    threads: Threads,
    arguments: &Arguments,
    file: RoleFile<S>,
    role: impl FnOnce(RoleContext<S>) -> F,
) -> anyhow::Result<()>
where
    S: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let shutdown = Shutdown::new();
    stop_on_signals(&shutdown)?;
    end_if_stuck(&threads);
    let seams = Seams { threads, ..Seams::system() };
    let process = file.process.clone();
    let instance = arguments.instance(&seams)?;
    tracing::info!(process, instance, "starting");
    health::record_metrics()?;
    if let Some(address) = arguments.health {
        health::serve(&seams.network, address).await?;
    }
    let ended = role(RoleContext { file, instance, seams, shutdown });
    match ended.await {
        Ok(()) => {
            tracing::info!(process, "stopped");
            Ok(())
        }
        Err(error) => {
            tracing::error!(process, "failed: {}", output::error_chain(&error));
            Err(error)
        }
    }
}

/// Ends the process after its serving threads have hung for too long. Its supervisor restarts it.
fn end_if_stuck(threads: &Threads) {
    let serving = threads.serving.clone();
    // The task ends with the process.
    drop(threads.liveness.spawn(async move {
        until_stuck(&serving, STANDSTILL_MAX).await;
        tracing::error!(limit = ?STANDSTILL_MAX, "the serving threads have run nothing: ending");
        process::exit(ENDED_AT_ONCE);
    }));
}

/// Reports to the supervisor that the process serves.
pub fn report_ready() {
    print_line!("{READY_LINE}");
    health::now_ready();
}

/// The threads of a process.
struct Runtimes {
    serving: Runtime,
    liveness: Runtime,
}

/// The signals that ask a process to stop.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Arguments ===

impl Arguments {
    /// Identifies this life of the process.
    fn instance(&self, seams: &Seams) -> anyhow::Result<String> {
        let Some(log) = &self.termination_log else { return Ok(self.instance.clone()) };
        let instance = format!("{}/{:016x}", self.instance, seams.random.next_u64());
        std::fs::write(log, &instance)
            .with_context(|| format!("cannot write to {}", log.display()))?;
        Ok(instance)
    }
}

// === impl Runtimes ===

impl Runtimes {
    fn build(
        serving_threads: Option<NonZeroUsize>,
        liveness_threads: usize,
    ) -> std::io::Result<Self> {
        let liveness = build_runtime("liveness", Some(liveness_threads))?;
        let serving = build_runtime("serving", serving_threads.map(NonZeroUsize::get))?;
        Ok(Self { serving, liveness })
    }

    fn threads(&self) -> Threads {
        Threads {
            serving: Executor::new(self.serving.handle().clone()),
            liveness: Executor::new(self.liveness.handle().clone()),
        }
    }
}

// === impl Signals ===

impl Signals {
    /// Handles both signals from now on. Their default actions no longer apply.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them. Cancel safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// From now on a signal cancels `shutdown`, and a second signal ends the process.
pub(crate) fn stop_on_signals(shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("asked to stop");
        shutdown.cancel();
        signals.next().await;
        tracing::warn!("asked to stop again: exiting at once");
        process::exit(ENDED_AT_ONCE);
    });
    Ok(())
}

/// Ends this process when standard input ends. This needs its own thread: the runtime may be busy,
/// and its threads for blocking work must not wait for this one.
fn end_with_supervisor() -> anyhow::Result<()> {
    // A stopped process reads nothing, so the kernel ends it together with its parent.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot arrange to end with the supervisor")?;
    let watch = || {
        let mut bytes = [0; 64];
        // The bytes mean nothing; only the end does. An error counts as an end.
        while std::io::stdin().read(&mut bytes).is_ok_and(|length| length > 0) {}
        tracing::error!("the supervisor of this process is gone: exiting at once");
        process::exit(ENDED_AT_ONCE);
    };
    std::thread::Builder::new()
        .name("supervisor-watch".to_owned())
        .spawn(watch)
        .context("cannot watch the supervisor")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use basalt_runtime::long_step;

    use super::*;

    /// Fails with one runtime for both kinds of tasks.
    #[test]
    fn a_serving_thread_that_stands_still_delays_no_liveness_task() {
        let runtimes = Runtimes::build(NonZeroUsize::new(1), 1).unwrap();
        let threads = runtimes.threads();
        let (free, freed) = mpsc::channel();
        let (began, has_begun) = mpsc::channel();
        let stuck = threads.serving.spawn(async move {
            began.send(()).unwrap();
            freed.recv_timeout(Duration::from_secs(60)).is_ok()
        });
        has_begun.recv().unwrap();
        drop(threads.liveness.spawn(async move { free.send(()).unwrap() }));
        assert_eq!(runtimes.liveness.block_on(stuck), Ok(true));
    }

    /// Fails without the [`long_step`].
    #[test]
    fn a_long_step_delays_no_other_liveness_task() {
        let runtimes = Runtimes::build(NonZeroUsize::new(1), 1).unwrap();
        let liveness = runtimes.threads().liveness;
        let (free, freed) = mpsc::channel();
        let (began, has_begun) = mpsc::channel();
        let snapshot = liveness.spawn(async move {
            long_step(|| {
                began.send(()).unwrap();
                freed.recv_timeout(Duration::from_secs(60)).is_ok()
            })
        });
        has_begun.recv().unwrap();
        drop(liveness.spawn(async move { free.send(()).unwrap() }));
        assert_eq!(runtimes.serving.block_on(snapshot), Ok(true));
    }
}
