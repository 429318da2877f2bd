//! Back-pressure: limits how much memstores may hold before edits are rejected.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Region, Result};

/// The size of the memstores of all regions of a server, in bytes.
///
/// Edits add to it as they are made, and the scheduler replaces it with what it measures. Between
/// two measurements it is too high rather than too low.
#[derive(Debug)]
pub(crate) struct MemstoresTotal {
    bytes: AtomicU64,
    bytes_max: u64,
}

// === impl MemstoresTotal ===

impl MemstoresTotal {
    /// An empty total. Above `bytes_max`, no region accepts edits.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets the total to the measured size of all memstores.
    pub(crate) fn measured(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        let (bytes, bytes_max) = (self.bytes.load(Ordering::Relaxed), self.bytes_max);
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::ServerTooBusy { bytes, bytes_max })
    }
}

// === impl Region ===

impl Region {
    /// Rejects edits while flushes of this region or of the whole server cannot keep up.
    pub(super) fn check_memstore_limit(&self) -> Result<()> {
        let bytes = self.memstore_bytes();
        let bytes_max = self.shared.config.memstore_bytes_max;
        if bytes > bytes_max {
            return Err(Error::TooBusy { region: self.info.to_string(), bytes, bytes_max });
        }
        self.shared.memstores.check()
    }
}
