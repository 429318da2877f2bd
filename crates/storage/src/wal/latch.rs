//! A value that is set once, and can be waited for.

use super::sync::{Notify, OnceLock};

/// Empty until the value is set; setting it wakes all waiters.
#[derive(Debug)]
pub(super) struct Latch<T> {
    value: OnceLock<T>,
    set: Notify,
}

// === impl Latch ===

impl<T> Default for Latch<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), set: Notify::new() }
    }
}

impl<T: Clone> Latch<T> {
    /// Sets the value, unless it is set already.
    pub(super) fn set(&self, value: T) {
        if self.value.set(value).is_ok() {
            self.set.notify_waiters();
        }
    }

    /// The value, if it is set.
    pub(super) fn get(&self) -> Option<T> {
        self.value.get().cloned()
    }

    /// Waits for the value.
    pub(super) async fn wait(&self) -> T {
        loop {
            // Created before the value is checked: a value set after the check still wakes this.
            let set = self.set.notified();
            if let Some(value) = self.value.get() {
                return value.clone();
            }
            set.await;
        }
    }
}
