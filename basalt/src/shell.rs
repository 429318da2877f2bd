//! Shell commands that the user of a tool provides.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Starts a command with additional environment variables. Dropping the result kills it.
pub(crate) fn start(command: &str, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    let started = Command::new("sh")
        .args(["-c", command])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    started.with_context(|| format!("cannot run {command:?}"))
}

/// Waits until the command has ended.
///
/// # Errors
/// The command has failed, or takes longer than `limit`.
pub(crate) async fn wait(mut running: Child, limit: Duration) -> anyhow::Result<()> {
    let ended = timeout(limit, running.wait()).await;
    check(ended.with_context(|| format!("a command has not finished within {limit:?}"))??)
}

/// Checks that a command has succeeded.
///
/// # Errors
/// The command has failed.
pub(crate) fn check(ended: ExitStatus) -> anyhow::Result<()> {
    if !ended.success() {
        bail!("a command failed: {ended}");
    }
    Ok(())
}
