//! Letting a region go: no more edits, everything flushed, nothing left for a recovery to read.

use super::{Region, Result};

// === impl Region ===

impl Region {
    /// Takes no more edits. Reads go on until the region is taken off the server.
    pub(crate) fn begin_close(&self) {
        self.order.lock().closing = true;
    }

    /// Whether it takes no more edits.
    pub(crate) fn is_closing(&self) -> bool {
        self.order.lock().closing
    }

    /// Takes edits again: the close was given up.
    pub(crate) fn give_up_close(&self) {
        self.order.lock().closing = false;
    }

    /// Flushes the last edits; [`Region::begin_close`] comes first. A flush taken up from before
    /// leaves what was written after it, hence the second one.
    pub(crate) async fn finish_close(&self) -> Result<()> {
        self.flush().await?;
        self.flush().await?;
        self.shared.wal.forget_region(self.encoded_name);
        Ok(())
    }
}
