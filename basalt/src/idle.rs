//! A role that does nothing. The tests of `basalt local` start it in place of the real roles.

use crate::role::{self, RoleContext};
use crate::role_config::IdleSettings;

/// Reports that it is ready at once, and waits until it is asked to stop.
pub(crate) async fn run(context: RoleContext<IdleSettings>) -> anyhow::Result<()> {
    role::report_ready();
    context.shutdown.cancelled().await;
    if context.file.settings.stubborn {
        std::future::pending::<()>().await;
    }
    Ok(())
}
