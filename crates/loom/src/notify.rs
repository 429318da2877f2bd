//! `tokio::sync::Notify`.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Mutex;

/// Wakes one waiter, or all.
#[derive(Debug, Default)]
pub struct Notify(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// One call of `notify_one` that no task has waited for yet.
    has_permit: bool,
    /// How often all waiters were woken.
    all: u64,
    next_waiter: u64,
    /// In the order of their arrival.
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    waker: Waker,
    /// Whether `notify_one` has woken it.
    is_woken: bool,
}

/// A wait. [`Notify::notify_waiters`] wakes it from its creation on, [`Notify::notify_one`] only
/// once it was polled.
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    all: u64,
    number: Option<u64>,
}

// === impl Notify ===

impl Notify {
    /// Starts without waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a wait.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, all: self.0.lock().all, number: None }
    }

    /// Wakes the first waiter. If there is none, the next one does not wait.
    pub fn notify_one(&self) {
        let waker = {
            let mut state = self.0.lock();
            match state.waiters.iter_mut().find(|waiter| !waiter.is_woken) {
                Some(waiter) => {
                    waiter.is_woken = true;
                    Some(waiter.waker.clone())
                }
                None => {
                    state.has_permit = true;
                    None
                }
            }
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Wakes all current waiters.
    pub fn notify_waiters(&self) {
        let waiters = {
            let mut state = self.0.lock();
            state.all += 1;
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|waiter| waiter.waker.wake());
    }
}

// === impl Notified ===

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = self.notify.0.lock();
        if state.all != self.all {
            drop(state);
            self.number = None;
            return Poll::Ready(());
        }
        if let Some(number) = self.number {
            let place = state.waiters.iter().position(|waiter| waiter.number == number);
            let Some(place) = place else { return Poll::Ready(()) };
            if state.waiters[place].is_woken {
                state.waiters.remove(place);
                drop(state);
                self.number = None;
                return Poll::Ready(());
            }
            state.waiters[place].waker = waker;
            return Poll::Pending;
        }
        if std::mem::take(&mut state.has_permit) {
            return Poll::Ready(());
        }
        let number = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.push(Waiter { number, waker, is_woken: false });
        drop(state);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let was_woken = {
            let mut state = self.notify.0.lock();
            let place = state.waiters.iter().position(|waiter| waiter.number == number);
            place.is_some_and(|place| state.waiters.remove(place).is_woken)
        };
        // Dropped after it was woken and before it was polled: wake the next waiter instead.
        if was_woken {
            self.notify.notify_one();
        }
    }
}
