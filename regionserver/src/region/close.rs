//! Closes a region: edits are rejected, everything is flushed, and nothing is left for a recovery
//! to read.
//!
//! At most one close runs at a time. Checking that nothing is left in memory and ending the
//! region's service are one step under the lock that orders edits. An edit either comes before that
//! step and was flushed, or it is rejected.

use basalt_planted::{Rule, is_off};

use super::{Error, Region, Result, Taking};

/// How many flushes are tried before the close is given up. At least two are needed: the first may
/// only resume an earlier flush, which leaves out later edits.
const FLUSHES_MAX: usize = 4;

/// A close in progress. If it is dropped before it has finished, edits are accepted again.
pub(crate) struct Closing<'a> {
    region: &'a Region,
}

// === impl Region ===

impl Region {
    /// Stops accepting edits. Reads are served until the region's service ends. `None` if a close
    /// is in progress already or has ended.
    pub(crate) fn begin_close(&self) -> Option<Closing<'_>> {
        let mut order = self.view.lock();
        if order.taking != Taking::Edits && !is_off(Rule::OneCloseAtATime) {
            return None;
        }
        order.taking = Taking::NoneForNow;
        drop(order);
        Some(Closing { region: self })
    }

    /// Whether it has stopped accepting edits.
    pub(crate) fn is_closing(&self) -> bool {
        self.view.lock().taking != Taking::Edits
    }

    /// Ends the region's service with `end_serving`, because it has a later owner. With
    /// `only_without_edits`, this is done only if nothing is left in memory, which is checked in
    /// the same step.
    ///
    /// # Errors
    /// The region stays in service. The value is the number of bytes in memory.
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
    /// Flushes the last edits, and ends the region's service with `end_serving` once nothing is
    /// left in memory.
    ///
    /// # Errors
    /// A flush failed, or edits are still left after the last try: edits are accepted again.
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
