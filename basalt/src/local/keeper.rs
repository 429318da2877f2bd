//! One child process: started, monitored, restarted when it dies, and stopped on request.
//!
//! Only its keeper reaps a child and sends it signals. So a signal never reaches an unrelated
//! process that got the same process id. A reported death is proved: the process has been reaped.
//!
//! Each child is a process group of its own. So Ctrl-C at the terminal reaches only `basalt local`,
//! which stops the children in order. The kernel wakes a paused child whose supervisor dies, so
//! that the child notices it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use crate::role::READY_LINE;
use crate::role_config::RoleName;

/// How to start a child.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its name, as `regionserver-0`.
    pub name: String,
    /// Its role.
    pub role: RoleName,
    /// The program to run.
    pub program: PathBuf,
    /// Its arguments. `--instance` is added, with a different name for each life.
    pub arguments: Vec<OsString>,
    /// The file that gets its standard error.
    pub log: PathBuf,
}

/// The state of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProcessState {
    /// It runs but does not serve yet.
    Starting {
        /// Its process id.
        pid: u32,
    },
    /// It serves.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// It died and will be restarted soon.
    Waiting,
    /// It is down, and stays down until it is released.
    Held,
    /// It was stopped permanently.
    Stopped,
}

/// A child that has been reaped. It is certainly dead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Death {
    /// The name of the process.
    pub process: String,
    /// Its role.
    pub role: RoleName,
    /// The life that ended: the value of `--instance`.
    pub instance: String,
    /// Its process id.
    pub pid: u32,
    /// How it ended, as `killed by SIGKILL`.
    pub how: String,
    /// Whether the supervisor had asked it to stop.
    pub asked: bool,
}

/// An event of a child.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// It serves.
    Ready {
        /// The name of the process.
        process: String,
        /// Its process id.
        pid: u32,
        /// How long it took to become ready.
        after: Duration,
    },
    /// It died.
    Died {
        /// The details.
        death: Death,
        /// The delay until it is restarted. `None` if it is not restarted.
        again_after: Option<Duration>,
    },
    /// It could not be started.
    NotStarted {
        /// The name of the process.
        process: String,
        /// The reason.
        reason: String,
    },
}

/// Called for each death. The returned future runs in the background, for at most `HOOK_TIMEOUT`.
pub type DeathHook = Arc<dyn Fn(Death) -> BoxFuture<'static, ()> + Send + Sync>;

/// An order to a keeper.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Send a signal, if the child runs.
    Signal(Signal),
    /// Whether to keep it down after its next death. `false` starts it again.
    Hold(bool),
    /// Stop it permanently: SIGTERM, and SIGKILL after this time.
    Stop(Duration),
}

/// Supervises one child.
pub(super) struct Keeper {
    pub(super) launch: Launch,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) state: watch::Sender<ProcessState>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) on_death: DeathHook,
    /// Distinguishes the instances of this run from those of earlier runs.
    pub(super) run: u64,
    pub(super) held: bool,
    /// When a child that was asked to stop gets SIGKILL.
    pub(super) kill_at: Option<Instant>,
}

/// How long a [`DeathHook`] may take.
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The delay after the second death in a row. It doubles with each further death.
const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long starts a new row of deaths when it dies.
const LIFE_TO_FORGIVE: Duration = Duration::from_secs(10);
/// How much of a child's standard output is read. A role prints little there.
const OUTPUT_BYTES_MAX: u64 = 4096;

/// A hook that does nothing.
pub fn ignore_death() -> DeathHook {
    Arc::new(|_: Death| Box::pin(async {}))
}

// === impl Keeper ===

impl Keeper {
    /// Keeps the child running until it is stopped permanently.
    pub(super) async fn run(mut self) {
        let mut deaths_in_a_row = 0;
        let mut life = 0_u64;
        while self.kill_at.is_none() {
            if self.held {
                self.wait_held().await;
                continue;
            }
            life += 1;
            let started = Instant::now();
            let instance = format!("{}-{:x}-{life}", self.launch.name, self.run);
            let died = self.live(&instance).await;
            if started.elapsed() >= LIFE_TO_FORGIVE {
                deaths_in_a_row = 0;
            }
            let delay = back_off(deaths_in_a_row);
            deaths_in_a_row += 1;
            self.report(died, &instance, delay);
            self.wait(delay).await;
        }
        // This must come first: whoever sees the state `Stopped` must no longer be able to send an
        // order.
        self.orders.close();
        self.state.send_replace(ProcessState::Stopped);
    }

    /// One life of the child, from its start until it is reaped.
    async fn live(&mut self, instance: &str) -> io::Result<(u32, ExitStatus)> {
        let started = Instant::now();
        let mut child = self.spawn(instance)?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has no process id"))?;
        // Kept open for the child's whole life. When it closes, the child knows that its supervisor
        // has ended.
        let _input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let mut output = BufReader::new(output.take(OUTPUT_BYTES_MAX));
        let mut line = String::new();
        let mut reading = true;
        self.state.send_replace(ProcessState::Starting { pid });
        loop {
            let kill_at = self.kill_at;
            tokio::select! {
                biased;
                status = child.wait() => return Ok((pid, status?)),
                Some(order) = self.orders.recv() => self.obey(order, pid),
                () = sleep_until(kill_at), if kill_at.is_some() => {
                    send(pid, Signal::KILL);
                    return Ok((pid, child.wait().await?));
                }
                read = output.read_line(&mut line), if reading => {
                    reading = matches!(read, Ok(length) if length > 0);
                    if line.trim_end() == READY_LINE {
                        let process = self.launch.name.clone();
                        self.emit(Event::Ready { process, pid, after: started.elapsed() });
                        // After the event, so that an observer of the state can already receive the
                        // event.
                        self.state.send_replace(ProcessState::Ready { pid });
                    }
                    line.clear();
                }
            }
        }
    }

    fn spawn(&self, instance: &str) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.launch.log)?;
        Command::new(&self.launch.program)
            .args(&self.launch.arguments)
            .arg("--instance")
            .arg(instance)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Obeys an order while the child `pid` runs and has not been reaped.
    fn obey(&mut self, order: Order, pid: u32) {
        match order {
            Order::Signal(signal) => send(pid, signal),
            Order::Hold(held) => self.held = held,
            Order::Stop(grace) => {
                self.stop_within(grace);
                // A paused child would not notice that it is asked to stop.
                send(pid, Signal::CONT);
                send(pid, Signal::TERM);
            }
        }
    }

    /// Sets when the child is killed. A second order can shorten the time of the first.
    fn stop_within(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    /// Waits for `delay`, or until an order makes the wait pointless.
    async fn wait(&mut self, delay: Duration) {
        let until = Instant::now() + delay;
        while self.kill_at.is_none() && !self.held {
            tokio::select! {
                biased;
                order = self.orders.recv() => self.obey_while_down(order),
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    async fn wait_held(&mut self) {
        self.state.send_replace(ProcessState::Held);
        let order = self.orders.recv().await;
        self.obey_while_down(order);
    }

    fn obey_while_down(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Hold(held)) => self.held = held,
            Some(Order::Signal(_)) => {}
            Some(Order::Stop(grace)) => self.stop_within(grace),
            // The supervisor has been dropped.
            None => self.stop_within(Duration::ZERO),
        }
    }

    fn report(&self, died: io::Result<(u32, ExitStatus)>, instance: &str, delay: Duration) {
        self.state.send_replace(ProcessState::Waiting);
        let process = self.launch.name.clone();
        let (pid, status) = match died {
            Ok(reaped) => reaped,
            Err(error) => {
                let reason = format!("cannot run {}: {error}", self.launch.program.display());
                return self.emit(Event::NotStarted { process, reason });
            }
        };
        let death = Death {
            process,
            role: self.launch.role,
            instance: instance.to_owned(),
            pid,
            how: describe(status),
            asked: self.kill_at.is_some(),
        };
        tokio::spawn(tokio::time::timeout(HOOK_TIMEOUT, (self.on_death)(death.clone())));
        let again_after = (!death.asked && !self.held).then_some(delay);
        self.emit(Event::Died { death, again_after });
    }

    /// Sends an event. It does not matter whether anyone receives it.
    fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Sends a signal to a child that has not been reaped. It is no error if the child is already dead.
fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// How long to wait before a child is restarted that had died `deaths_before` times in a row
/// before.
fn back_off(deaths_before: u32) -> Duration {
    match deaths_before.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
            BACK_OFF_FIRST.saturating_mul(factor).min(BACK_OFF_MAX)
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(Signal::KILL)) => "killed by SIGKILL".to_owned(),
        (None, Some(Signal::TERM)) => "killed by SIGTERM".to_owned(),
        (None, Some(Signal::ABORT)) => "aborted".to_owned(),
        (None, Some(Signal::SEGV)) => "crashed (SIGSEGV)".to_owned(),
        (None, Some(signal)) => format!("killed by signal {}", signal.as_raw()),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_wait_is_bounded() {
        assert_eq!(back_off(0), Duration::ZERO);
        assert_eq!(back_off(1), Duration::from_millis(500));
        assert_eq!(back_off(2), Duration::from_secs(1));
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
    }

    #[test]
    fn exit_statuses_are_described_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(9)), "killed by SIGKILL");
        assert_eq!(describe(ExitStatus::from_raw(1 << 8)), "failed with exit code 1");
        assert_eq!(describe(ExitStatus::from_raw(0)), "ended");
    }
}
