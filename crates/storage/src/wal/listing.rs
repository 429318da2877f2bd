//! The list of log files that must exist if the server dies, as kept in the coordinator.
//!
//! A log file that vanishes from the disk is noticed only if something else records that it
//! existed. So the server keeps a list of its log files on record. A new file takes edits only once
//! it is on record, and a file is deleted only once the recorded list no longer names it. The
//! process that fences the server can then detect every file that is listed but missing, or shorter
//! than it was when it was closed.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The files of a log that hold edits which are in no store file, or that may come to hold some.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LogList {
    /// The number of each file, with how many of its bytes are known to be durable: all of them
    /// once the file is closed, its header before that.
    pub files: BTreeMap<u64, u64>,
}

/// The list on record, and the notifications about it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The list that is on record; `None` if no list is kept.
    recorded: Option<Mutex<LogList>>,
    /// Notified when the list has changed.
    changed: Notify,
    /// Notified when a list is on record.
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

    /// Notifies that the list may have changed.
    pub(super) fn change(&self) {
        self.changed.notify_one();
    }

    /// Waits until the list may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn record(&self, list: LogList) {
        if let Some(recorded) = &self.recorded {
            *recorded.lock() = list;
        }
        self.on_record.notify_waiters();
    }

    /// Whether the record names the file; `None` if no list is kept.
    fn names(&self, number: u64) -> Option<bool> {
        let recorded = self.recorded.as_ref()?;
        Some(recorded.lock().files.contains_key(&number))
    }

    /// Whether the file may be deleted because the record does not name it.
    pub(super) fn is_released(&self, number: u64) -> bool {
        self.names(number) != Some(true)
    }

    /// Waits until the record names the file. Returns at once if no list is kept.
    pub(super) async fn until_named(&self, number: u64) {
        loop {
            // Created before the record is checked: a list recorded after the check still wakes
            // this.
            let on_record = self.on_record.notified();
            if self.names(number) != Some(false) {
                return;
            }
            on_record.await;
        }
    }
}
