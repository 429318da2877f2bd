//! Which files of the log must exist if its server dies, as the coordinator is to know it.
//!
//! A file that vanishes from the disk is noticed only by who knows that there was one. So the
//! server keeps a list of its log files on record: a new file takes edits only once it is on
//! record, and a file is deleted only once a recorded list does without it. Whoever fences the
//! server misses every file that is listed and not there, or shorter than its edits were when it
//! was closed.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The files of a log that hold edits which are not in store files, or may come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LogList {
    /// Their numbers, each with how many bytes of the file are known to be durable: all of them
    /// once the file is closed, its header before.
    pub files: BTreeMap<u64, u64>,
}

/// What is on record, and who waits for it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The list that is on record; `None` where nobody keeps one.
    recorded: Option<Mutex<LogList>>,
    /// Told when the list has changed.
    changed: Notify,
    /// Told when a list is on record.
    on_record: Notify,
}

// === impl Listing ===

impl Listing {
    pub(super) fn new(is_kept: bool) -> Self {
        Self {
            recorded: is_kept.then(Mutex::default),
            changed: Notify::new(),
            on_record: Notify::new(),
        }
    }

    /// Says that the list may have changed.
    pub(super) fn change(&self) {
        self.changed.notify_one();
    }

    /// Waits until it may have.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn record(&self, list: LogList) {
        if let Some(recorded) = &self.recorded {
            *recorded.lock() = list;
        }
        self.on_record.notify_waiters();
    }

    /// Whether the record names the file; `None` where nobody keeps one.
    fn names(&self, number: u64) -> Option<bool> {
        let recorded = self.recorded.as_ref()?;
        Some(recorded.lock().files.contains_key(&number))
    }

    /// Whether the file may be deleted: the record does without it.
    pub(super) fn is_released(&self, number: u64) -> bool {
        self.names(number) != Some(true)
    }

    /// Waits until the record names the file.
    pub(super) async fn until_named(&self, number: u64) {
        loop {
            // Made before the look: what is recorded after it wakes this.
            let on_record = self.on_record.notified();
            if self.names(number) != Some(false) {
                return;
            }
            on_record.await;
        }
    }
}
