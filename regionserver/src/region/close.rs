//! Letting a region go: no more edits, everything flushed, nothing left for a recovery to read.
//!
//! One close at a time. That nothing is left in memory is looked at in the same step, under the
//! lock that orders edits, in which the region's service ends: an edit is either before that and
//! was flushed, or it is refused.

use basalt_planted::{Rule, is_off};

use super::{Error, Region, Result, Taking};

/// How often is flushed before the close is given up. A flush taken up from before leaves what was
/// written after it, hence at least two.
const FLUSHES_MAX: usize = 4;

/// A close under way. If it is dropped before it has finished, edits are taken again.
pub(crate) struct Closing<'a> {
    region: &'a Region,
}

// === impl Region ===

impl Region {
    /// Takes no more edits. Reads go on until the region is taken off the server. `None` if a close
    /// is under way already, or has ended.
    pub(crate) fn begin_close(&self) -> Option<Closing<'_>> {
        let mut order = self.view.lock();
        if order.taking != Taking::Edits && !is_off(Rule::OneCloseAtATime) {
            return None;
        }
        order.taking = Taking::NoneForNow;
        drop(order);
        Some(Closing { region: self })
    }

    /// Whether it takes no more edits.
    pub(crate) fn is_closing(&self) -> bool {
        self.view.lock().taking != Taking::Edits
    }

    /// Ends its service by `end_serving`: it has a later owner. With `only_without_edits`, only if
    /// nothing is left in memory, looked at in the same step.
    ///
    /// # Errors
    /// It stays in service, with so many bytes in memory.
    pub(crate) fn end(
        &self,
        only_without_edits: bool,
        end_serving: impl FnOnce(),
    ) -> std::result::Result<(), u64> {
        let mut order = self.view.lock();
        if only_without_edits && !self.has_nothing_in_memory() {
            return Err(self.memstore_bytes());
        }
        order.taking = Taking::NoneEver;
        end_serving();
        drop(order);
        self.shared.wal.forget_region(self.encoded_name);
        Ok(())
    }

    /// Whether all edits and nonces are in files.
    fn has_nothing_in_memory(&self) -> bool {
        self.view.load().memstores_are_empty() && self.nonces.lock().recent_bytes() == 0
    }
}

// === impl Closing ===

impl Closing<'_> {
    /// Flushes the last edits, and ends the region's service by `end_serving` once nothing is left
    /// in memory.
    ///
    /// # Errors
    /// Of flushing: edits are taken again.
    pub(crate) async fn finish(self, end_serving: impl FnOnce()) -> Result<()> {
        let region = self.region;
        for _ in 0..FLUSHES_MAX {
            region.flush().await?;
            let mut order = region.view.lock();
            let nothing_left = order.taking == Taking::NoneForNow && region.has_nothing_in_memory();
            if nothing_left || is_off(Rule::OneCloseAtATime) {
                order.taking = Taking::NoneEver;
                end_serving();
                drop(order);
                region.shared.wal.forget_region(region.encoded_name);
                return Ok(());
            }
        }
        Err(Error::NotFlushed { region: region.info.to_string() })
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut order = self.region.view.lock();
        if order.taking == Taking::NoneForNow {
            order.taking = Taking::Edits;
        }
    }
}
