//! `arc_swap::ArcSwap`: an atomic that says which of the values stored so far is the present one.

use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicUsize, Ordering};

/// A load may show any value that acquire and release allow, as in the original.
#[derive(Debug)]
pub struct ArcSwap<T> {
    present: AtomicUsize,
    /// Not a lock of loom's: it must not order what the atomic does not.
    stored: Mutex<Vec<Arc<T>>>,
}

// === impl ArcSwap ===

#[expect(clippy::unwrap_used, reason = "the test has failed")]
impl<T> ArcSwap<T> {
    /// Holds `value`.
    pub fn from_pointee(value: T) -> Self {
        Self { present: AtomicUsize::new(0), stored: Mutex::new(vec![Arc::new(value)]) }
    }

    /// The value.
    pub fn load(&self) -> Arc<T> {
        let present = self.present.load(Ordering::Acquire);
        Arc::clone(&self.stored.lock().unwrap()[present])
    }

    /// The value.
    pub fn load_full(&self) -> Arc<T> {
        self.load()
    }

    /// Puts `value` in the place of the present one.
    pub fn store(&self, value: Arc<T>) {
        let number = {
            let mut stored = self.stored.lock().unwrap();
            stored.push(value);
            stored.len() - 1
        };
        self.present.store(number, Ordering::Release);
    }
}
