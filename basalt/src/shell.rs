//! Commands that a caller of the tools gives, run by the shell.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Starts a command, with variables in its environment. It is killed if the result is dropped.
pub(crate) fn start(command: &str, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    let started = Command::new("sh")
        .args(["-c", command])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    started.with_context(|| format!("cannot run {command:?}"))
}

/// Waits until it has ended.
///
/// # Errors
/// It has failed, or takes longer than `limit`.
pub(crate) async fn wait(mut running: Child, limit: Duration) -> anyhow::Result<()> {
    let ended = timeout(limit, running.wait()).await;
    check(ended.with_context(|| format!("a command has not finished within {limit:?}"))??)
}

/// Whether a command has ended well.
///
/// # Errors
/// It has failed.
pub(crate) fn check(ended: ExitStatus) -> anyhow::Result<()> {
    if !ended.success() {
        bail!("a command failed: {ended}");
    }
    Ok(())
}
