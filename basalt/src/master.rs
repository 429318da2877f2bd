//! `basalt master`: from the role's file to the role's `run`.

use anyhow::bail;

use crate::role::RoleContext;
use crate::role_config::MasterSettings;

/// Runs the role until it is told to stop.
pub(crate) async fn run(context: RoleContext<MasterSettings>) -> anyhow::Result<()> {
    let RoleContext { file, .. } = context;
    let timers = file.timers()?;
    bail!(
        "{}: the role master is not built into this binary yet (session {:?})",
        file.process,
        timers.session_timeout,
    )
}
