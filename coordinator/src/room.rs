//! Waits for space on a full disk, which delays a member but does not stop it.

use std::time::Duration;

use tokio::time::Instant;

/// The pause before a full disk is checked again.
pub(crate) const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// How often a wait is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A write that waits for space on the disk.
#[derive(Debug)]
pub(crate) struct RoomWait {
    what: &'static str,
    pause: Duration,
    last_logged: Option<Instant>,
}

// === impl RoomWait ===

impl RoomWait {
    /// A wait to write `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, pause: ROOM_PAUSE, last_logged: None }
    }

    /// The same wait, with another pause between attempts.
    pub(crate) fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Waits before the next attempt, after one that failed with `error`.
    ///
    /// # Errors
    /// `error`, unless it says that the disk is full.
    pub(crate) async fn after(&mut self, error: basalt_fs::Error) -> basalt_fs::Result<()> {
        if !error.is_storage_full() {
            return Err(error);
        }
        if self.last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.last_logged = Some(Instant::now());
            tracing::error!(%error, "the disk is full: waiting for space for {}", self.what);
        }
        tokio::time::sleep(self.pause).await;
        Ok(())
    }
}
