//! `basalt regionserver`: from the role's file to the role's `run`.

use anyhow::bail;

use crate::role::RoleContext;
use crate::role_config::RegionServerSettings;

/// Runs the role until it is told to stop.
pub(crate) async fn run(context: RoleContext<RegionServerSettings>) -> anyhow::Result<()> {
    let RoleContext { file, .. } = context;
    let timers = file.timers()?;
    bail!(
        "{}: the role regionserver is not built into this binary yet (session {:?})",
        file.process,
        timers.session_timeout,
    )
}
