//! The threads of a role's tasks: some serve, others keep leases and sessions alive.
//!
//! One long request can occupy a serving thread for longer than a lease lasts. Renewals, sessions
//! and the coordinator's heartbeats therefore have threads of their own. But these must not keep a
//! process's leases and leadership alive when it no longer answers requests. So they probe the
//! serving threads ([`until_stuck`]), and give up when those have not run a task for too long.
//!
//! In tests and in the simulation, both kinds run on the caller's runtime.
//!
//! A step that computes for a long time, such as the decoding of a request with millions of cells,
//! delays all tasks of its thread. It runs as a [`long_step`], so that another thread takes over
//! those tasks.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval_at};

/// The executors of a role; see the module.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// For requests and all other work of a role.
    pub serving: Executor,
    /// For leases, sessions and heartbeats.
    pub liveness: Executor,
}

/// Runs tasks.
#[derive(Clone)]
pub struct Executor(Arc<dyn Spawn>);

/// Where an [`Executor`] runs its tasks.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` until it or the process ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Runs tasks on the runtime of the caller.
struct Caller;

impl Spawn for Caller {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

impl Spawn for Handle {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        Handle::spawn(self, task);
    }
}

/// A task was dropped before it ended: its threads have stopped, or it panicked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a task was dropped before it ended")]
pub struct Dropped;

/// A future whose polls and drop are each a [`long_step`].
pub struct LongSteps<T>(Option<BoxFuture<'static, T>>);

/// How many times within its limit [`until_stuck`] checks for an answer.
const LOOKS: u32 = 10;

// === impl Executor ===

impl Executor {
    /// Runs tasks on `spawn`.
    pub fn new(spawn: impl Spawn) -> Self {
        Self(Arc::new(spawn))
    }

    /// Runs tasks on the current runtime, no matter where they are spawned from.
    pub fn current() -> Self {
        Self::new(Handle::current())
    }

    /// Starts `task`, and returns a future of its result. The task continues if that future is
    /// dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Dropped>> + Send + Unpin + 'static {
        let (ended, end) = oneshot::channel();
        self.0.spawn(Box::pin(async move {
            // The receiver may have been dropped.
            let _ = ended.send(task.await);
        }));
        Box::pin(async { end.await.map_err(|_| Dropped) })
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new(Caller)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Executor")
    }
}

// === impl LongSteps ===

impl<T> LongSteps<T> {
    /// Runs each poll of `future` as a long step.
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T> Future for LongSteps<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let step = long_step(|| future.as_mut().poll(context));
        if step.is_ready() {
            self.0 = None;
        }
        step
    }
}

impl<T> Drop for LongSteps<T> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            long_step(|| drop(future));
        }
    }
}

/// Runs `step`, which computes for a long time, on this thread. Meanwhile a replacement thread runs
/// the other tasks of this thread, so each long step in progress costs one thread.
///
/// On a single-threaded runtime, such as the simulation's, other tasks wait for `step`.
pub fn long_step<T>(step: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(step),
        _ => step(),
    }
}

/// Ends when the threads of `serving` have not run a short task for `limit`, or have stopped.
///
/// It counts checks instead of measuring time. A standstill of the whole process therefore counts
/// as a single check, and the serving threads get their full time again.
pub async fn until_stuck(serving: &Executor, limit: Duration) {
    let pause = limit / LOOKS;
    let mut looks = interval_at(tokio::time::Instant::now() + pause, pause);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer = ask(serving);
    let mut unanswered = 0;
    loop {
        looks.tick().await;
        match answer.try_recv() {
            Ok(()) => {
                unanswered = 0;
                answer = ask(serving);
            }
            Err(oneshot::error::TryRecvError::Closed) => return,
            Err(oneshot::error::TryRecvError::Empty) => {
                unanswered += 1;
                if unanswered >= LOOKS {
                    return;
                }
            }
        }
    }
}

fn ask(serving: &Executor) -> oneshot::Receiver<()> {
    let (sender, answer) = oneshot::channel();
    serving.0.spawn(Box::pin(async move {
        // The prober may have given up.
        let _ = sender.send(());
    }));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const LIMIT: Duration = Duration::from_secs(1);

    /// Stores tasks and never runs them.
    #[derive(Default)]
    struct Stuck(parking_lot::Mutex<Vec<BoxFuture<'static, ()>>>);

    impl Spawn for Stuck {
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            self.0.lock().push(task);
        }
    }

    /// Blocks the thread until `freed` receives a message. Returns whether one came.
    fn block(freed: &std::sync::mpsc::Receiver<()>) -> bool {
        freed.recv_timeout(Duration::from_secs(60)).is_ok()
    }

    #[test]
    fn others_run_while_the_only_thread_takes_a_long_step() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        for at_drop in [false, true] {
            let (free, freed) = std::sync::mpsc::channel();
            let (began, has_begun) = std::sync::mpsc::channel();
            let step = move || {
                began.send(()).unwrap();
                block(&freed)
            };
            let blocked = if at_drop {
                let (sender, was_freed) = oneshot::channel();
                let guard = OnDrop(Some(move || sender.send(step()).unwrap()));
                let mut steps = LongSteps::new(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                });
                runtime.spawn(async move {
                    assert!(futures::poll!(&mut steps).is_pending());
                    drop(steps);
                    was_freed.await.unwrap()
                })
            } else {
                runtime.spawn(LongSteps::new(async move { step() }))
            };
            has_begun.recv().unwrap();
            runtime.spawn(async move { free.send(()).unwrap() });
            assert!(runtime.block_on(blocked).unwrap(), "at drop: {at_drop}");
        }
    }

    struct OnDrop<F: FnOnce()>(Option<F>);

    impl<F: FnOnce()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            self.0.take().unwrap()();
        }
    }

    #[tokio::test]
    async fn a_single_thread_takes_long_steps_itself() {
        assert_eq!(long_step(|| 7), 7);
        assert_eq!(LongSteps::new(async { 7 }).await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn threads_that_answer_are_never_stuck() {
        let serving = Executor::default();
        let stuck = timeout(Duration::from_secs(60), until_stuck(&serving, LIMIT)).await;
        assert!(stuck.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn threads_that_run_nothing_are_stuck_after_the_limit() {
        let begun = Instant::now();
        let serving = Executor::new(Stuck::default());
        until_stuck(&serving, LIMIT).await;
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= LIMIT * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_standstill_of_the_whole_process_counts_as_one_look() {
        let serving = Executor::new(Stuck::default());
        let begun = Instant::now();
        let stuck = tokio::spawn(async move { until_stuck(&serving, LIMIT).await });
        tokio::task::yield_now().await;
        tokio::time::advance(LIMIT * 5).await;
        stuck.await.unwrap();
        assert!(begun.elapsed() >= LIMIT * 5 + LIMIT / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn threads_that_have_stopped_are_stuck() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let serving = Executor::new(runtime.handle().clone());
        assert_eq!(serving.spawn(async { 7 }).await, Ok(7));
        runtime.shutdown_background();
        until_stuck(&serving, LIMIT).await;
        assert_eq!(serving.spawn(async { 7 }).await, Err(Dropped));
    }
}
