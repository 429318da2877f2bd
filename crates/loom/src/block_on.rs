//! Runs a future in a loom thread.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

use loom::sync::{Condvar, Mutex};

/// A thread that waits until its future is woken.
struct Parked {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

// === impl Parked ===

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        #[expect(clippy::unwrap_used, reason = "the test has failed")]
        let mut is_woken = self.is_woken.lock().unwrap();
        *is_woken = true;
        self.woken.notify_one();
    }
}

/// Runs `future` to completion. If it is never woken, the test ends: loom finds that no thread can
/// continue.
///
/// # Panics
/// Another thread has panicked.
#[expect(clippy::unwrap_used, reason = "the test has failed")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let parked = Arc::new(Parked { is_woken: Mutex::new(false), woken: Condvar::new() });
    let waker = Arc::clone(&parked).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let mut is_woken = parked.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = parked.woken.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }
}
