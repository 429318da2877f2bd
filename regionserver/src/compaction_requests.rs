//! Compactions that clients have requested: a bounded queue that contains each region at most once.

use std::collections::{BTreeMap, VecDeque};

use basalt_model::EncodedRegionName;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many regions may wait.
const WAITING_MAX: usize = 1_024;

/// The queued regions; see the module.
#[derive(Debug, Default)]
pub(crate) struct CompactionRequests {
    queue: Mutex<Queue>,
    /// Notified of each request.
    pub(crate) came: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of the requests.
    names: VecDeque<EncodedRegionName>,
    /// Whether all store files are to be merged into one.
    are_major: BTreeMap<EncodedRegionName, bool>,
}

/// The queue is full.
#[derive(Debug, thiserror::Error)]
#[error("{WAITING_MAX} regions are already waiting for compaction: try again later")]
pub(crate) struct QueueFull;

// === impl CompactionRequests ===

impl CompactionRequests {
    /// Queues a region for compaction. A region that is queued already keeps its place.
    ///
    /// # Errors
    /// [`QueueFull`] if no more regions may wait.
    pub(crate) fn add(&self, name: EncodedRegionName, is_major: bool) -> Result<(), QueueFull> {
        let mut queue = self.queue.lock();
        if let Some(waits_for_major) = queue.are_major.get_mut(&name) {
            *waits_for_major |= is_major;
            return Ok(());
        }
        if queue.names.len() >= WAITING_MAX {
            return Err(QueueFull);
        }
        queue.names.push_back(name);
        queue.are_major.insert(name, is_major);
        drop(queue);
        self.came.notify_one();
        Ok(())
    }

    /// The region that has waited longest, and whether all of its files are to be merged into one.
    pub(crate) fn take(&self) -> Option<(EncodedRegionName, bool)> {
        let mut queue = self.queue.lock();
        let name = queue.names.pop_front()?;
        let is_major = queue.are_major.remove(&name).unwrap_or_default();
        Some((name, is_major))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: usize) -> EncodedRegionName {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        EncodedRegionName::from_digest(digest)
    }

    #[test]
    fn each_region_waits_once_and_no_more_than_so_many() {
        let requests = CompactionRequests::default();
        for number in 0..WAITING_MAX {
            requests.add(region(number), false).unwrap();
        }
        requests.add(region(1), true).unwrap();
        assert!(requests.add(region(WAITING_MAX), false).is_err());
        assert_eq!(requests.take(), Some((region(0), false)));
        assert_eq!(requests.take(), Some((region(1), true)), "the greater request counts");
        requests.add(region(0), false).unwrap();
        assert_eq!(std::iter::from_fn(|| requests.take()).count(), WAITING_MAX - 1);
    }
}
