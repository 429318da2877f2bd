//! `arc_swap::ArcSwap`: an atomic that selects the current value among those stored so far.

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicUsize, Ordering};

/// A load may return any value that acquire and release allow, as in the original.
#[derive(Debug)]
pub struct ArcSwap<T> {
    present: AtomicUsize,
    /// Not one of loom's locks: it must not add an ordering that the atomic does not have.
    stored: Mutex<Vec<Arc<T>>>,
}

// === impl ArcSwap ===

#[expect(clippy::unwrap_used, reason = "the test has failed")]
impl<T> ArcSwap<T> {
    /// Contains `value`.
    pub fn from_pointee(value: T) -> Self {
        Self { present: AtomicUsize::new(0), stored: Mutex::new(vec![Arc::new(value)]) }
    }

    /// Returns the current value.
    pub fn load(&self) -> Arc<T> {
        let present = self.present.load(Ordering::Acquire);
        Arc::clone(&self.stored.lock().unwrap()[present])
    }

    /// Returns the current value.
    pub fn load_full(&self) -> Arc<T> {
        self.load()
    }

    /// Replaces the current value by `value`.
    pub fn store(&self, value: Arc<T>) {
        let number = {
            let mut stored = self.stored.lock().unwrap();
            stored.push(value);
            stored.len() - 1
        };
        self.present.store(number, Ordering::Release);
    }
}
