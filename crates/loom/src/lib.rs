//! For tests only: the primitives of lock-free code on top of [loom], which runs a test in every
//! interleaving of its threads, and with every value that the memory model allows an atomic to
//! have.
//!
//! A module that is checked takes its primitives from a module `sync` next to it. Its test includes
//! the same file a second time, next to a `sync` that takes them from here. The types have the
//! names and the contracts of the originals (`parking_lot`, `tokio::sync`, `arc_swap`), as far as
//! the checked code uses them. A wait is a future, which [`block_on`] runs.

mod arc_swap;
mod block_on;
mod notify;
mod semaphore;

use std::ops::{Deref, DerefMut};

pub use arc_swap::ArcSwap;
pub use block_on::block_on;
use loom::sync::atomic::AtomicBool;
pub use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub use loom::thread;
pub use notify::{Notified, Notify};
pub use semaphore::{Acquire, AcquireError, Semaphore, SemaphorePermit};

/// The maximum number of preemptions, in which a thread that could continue is interrupted. Nearly
/// all interleaving bugs appear with two; without a limit the tests would take hours.
const PREEMPTIONS_MAX: usize = 2;

/// Runs `test` in every interleaving with up to `PREEMPTIONS_MAX` preemptions.
pub fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(test);
}

/// `parking_lot::Mutex`.
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// The guard that [`Mutex::lock`] returns.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(loom::sync::MutexGuard<'a, T>);

/// `std::sync::OnceLock`.
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    setting: Mutex<()>,
}

// === impl Mutex ===

impl<T> Mutex<T> {
    /// A mutex that contains `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Locks the mutex.
    ///
    /// # Panics
    /// A thread panicked while it held the lock: the test has failed.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[expect(clippy::unwrap_used, reason = "the test has failed")]
        MutexGuard(self.0.lock().unwrap())
    }
}

// === impl MutexGuard ===

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

// === impl OnceLock ===

impl<T> OnceLock<T> {
    /// An empty cell.
    #[expect(clippy::new_without_default, reason = "as the one that it stands for is made")]
    pub fn new() -> Self {
        let value = std::sync::OnceLock::new();
        Self { value, is_set: AtomicBool::new(false), setting: Mutex::new(()) }
    }

    /// Sets the value, unless it is already set.
    ///
    /// # Errors
    /// The value is already set.
    pub fn set(&self, value: T) -> Result<(), T> {
        let _setting = self.setting.lock();
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    /// The value, if it is set.
    pub fn get(&self) -> Option<&T> {
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }
}

/// `tokio::task::yield_now`.
pub async fn yield_now() {
    thread::yield_now();
}
