//! `tokio::sync::Semaphore`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Mutex;

/// Grants permits in the order of the requests.
#[derive(Debug)]
pub struct Semaphore(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    is_closed: bool,
    next_waiter: u64,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    wanted: usize,
    waker: Waker,
    is_given: bool,
}

/// The semaphore is closed.
#[derive(Clone, Copy, Debug)]
pub struct AcquireError;

/// Some permits. They are returned when this is dropped.
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

/// A wait for permits.
#[derive(Debug)]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    wanted: usize,
    number: Option<u64>,
}

// === impl Semaphore ===

impl Semaphore {
    /// A semaphore with this many permits.
    pub fn new(permits: usize) -> Self {
        let waiters = VecDeque::new();
        Self(Mutex::new(State { free: permits, is_closed: false, next_waiter: 0, waiters }))
    }

    /// Waits for permits.
    pub fn acquire_many(&self, wanted: u32) -> Acquire<'_> {
        Acquire { semaphore: self, wanted: wanted as usize, number: None }
    }

    /// Grants no further permits; waiters get an error.
    pub fn close(&self) {
        let waiters = {
            let mut state = self.0.lock();
            state.is_closed = true;
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            if waiter.is_given {
                self.0.lock().free += waiter.wanted;
            }
            waiter.waker.wake();
        }
    }

    /// Adds permits.
    pub fn add_permits(&self, count: usize) {
        let mut woken = Vec::new();
        {
            let mut state = self.0.lock();
            state.free += count;
            let State { free, waiters, .. } = &mut *state;
            for waiter in waiters.iter_mut().filter(|waiter| !waiter.is_given) {
                if waiter.wanted > *free {
                    break;
                }
                *free -= waiter.wanted;
                waiter.is_given = true;
                woken.push(waiter.waker.clone());
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Removes up to `count` free permits, and returns how many.
    pub fn forget_permits(&self, count: usize) -> usize {
        let mut state = self.0.lock();
        let forgotten = count.min(state.free);
        state.free -= forgotten;
        forgotten
    }

    /// How many permits are free.
    pub fn available_permits(&self) -> usize {
        self.0.lock().free
    }
}

// === impl SemaphorePermit ===

impl SemaphorePermit<'_> {
    /// The number of permits.
    pub fn num_permits(&self) -> usize {
        self.count
    }

    /// Drops the permits without returning them.
    pub fn forget(mut self) {
        self.count = 0;
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.add_permits(self.count);
        }
    }
}

// === impl Acquire ===

impl<'a> Future for Acquire<'a> {
    type Output = Result<SemaphorePermit<'a>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (semaphore, wanted) = (self.semaphore, self.wanted);
        let mut state = semaphore.0.lock();
        if state.is_closed {
            return Poll::Ready(Err(AcquireError));
        }
        if let Some(number) = self.number {
            let place = state.waiters.iter().position(|waiter| waiter.number == number);
            let Some(place) = place else { return Poll::Ready(Err(AcquireError)) };
            if !state.waiters[place].is_given {
                state.waiters[place].waker = context.waker().clone();
                return Poll::Pending;
            }
            state.waiters.remove(place);
        } else if state.waiters.is_empty() && state.free >= wanted {
            state.free -= wanted;
        } else {
            let (number, waker) = (state.next_waiter, context.waker().clone());
            state.next_waiter += 1;
            state.waiters.push_back(Waiter { number, wanted, waker, is_given: false });
            drop(state);
            self.number = Some(number);
            return Poll::Pending;
        }
        drop(state);
        self.number = None;
        Poll::Ready(Ok(SemaphorePermit { semaphore, count: wanted }))
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let given = {
            let mut state = self.semaphore.0.lock();
            let place = state.waiters.iter().position(|waiter| waiter.number == number);
            place.and_then(|place| state.waiters.remove(place)).filter(|waiter| waiter.is_given)
        };
        if let Some(waiter) = given {
            self.semaphore.add_permits(waiter.wanted);
        }
    }
}
