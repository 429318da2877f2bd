//! A role that does nothing: what the tests of `basalt local` start in place of the real ones.

use crate::role::{self, RoleContext};
use crate::role_config::IdleSettings;

/// Is ready at once, and waits to be stopped.
pub(crate) async fn run(context: RoleContext<IdleSettings>) -> anyhow::Result<()> {
    role::report_ready();
    context.shutdown.cancelled().await;
    if context.file.settings.stubborn {
        std::future::pending::<()>().await;
    }
    Ok(())
}
