//! When a failed attempt is retried.

use std::future::Future;
use std::time::Duration;

use basalt_hbase_rpc::Reaction;
use basalt_runtime::Random;
use tokio::time::Instant;

use crate::{Error, Result};

/// How long an operation is tried, and how often.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// How long an operation may take in total. Default 60 s.
    pub operation_timeout: Duration,
    /// How long one attempt may take. Default 10 s.
    pub attempt_timeout: Duration,
    /// The pause after the first failed attempt. It grows by half after each further one, and
    /// varies randomly by up to a quarter. Default 15 ms.
    pub pause_initial: Duration,
    /// The longest pause. Default 250 ms.
    pub pause_max: Duration,
}

/// The factor for the pause after a server has reported that it is overloaded.
const OVERLOAD_FACTOR: u32 = 4;

// === impl RetryConfig ===

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            operation_timeout: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(10),
            pause_initial: Duration::from_millis(15),
            pause_max: Duration::from_millis(250),
        }
    }
}

impl RetryConfig {
    /// Makes attempts, each with its own time limit, until one succeeds, one fails permanently, or
    /// the time is over.
    pub(crate) async fn run<T, F>(
        &self,
        random: &Random,
        operation: &'static str,
        mut attempt: impl FnMut(Duration) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = Instant::now();
        let deadline = started + self.operation_timeout;
        let mut attempts = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match attempt(self.attempt_timeout.min(left)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_retried() {
                return Err(error);
            }
            attempts += 1;
            let pause = self.pause(random, attempts, &error);
            if Instant::now() + pause >= deadline {
                return Err(Error::OutOfTime {
                    operation,
                    attempts,
                    waited: started.elapsed(),
                    last: Box::new(error),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait after the `attempts`th failed attempt.
    pub(crate) fn pause(&self, random: &Random, attempts: u32, error: &Error) -> Duration {
        let exception = error.exception();
        if attempts == 1
            && exception.is_some_and(|exception| exception.reaction() == Reaction::FollowMove)
        {
            return Duration::ZERO;
        }
        let growth = 1.5_f64.powi(attempts.saturating_sub(1).min(40).cast_signed());
        let mut pause = self.pause_initial.mul_f64(growth).min(self.pause_max);
        if exception.is_some_and(basalt_hbase_rpc::Exception::server_overloaded) {
            pause *= OVERLOAD_FACTOR;
        }
        let spread = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX).max(1);
        pause * 3 / 4 + Duration::from_micros(random.in_range(0..spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_hbase_rpc::{CallError, Exception, ExceptionKind};

    fn failure(kind: ExceptionKind) -> Error {
        CallError::Remote(Exception::new(kind, "for the test")).into()
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_go_on_until_one_succeeds() {
        let (config, random) = (RetryConfig::default(), Random::from_seed(1));
        let mut attempts = 0;
        let result = config.run(&random, "test", |_| {
            attempts += 1;
            let done = attempts == 10;
            async move { if done { Ok(7) } else { Err(failure(ExceptionKind::NotServingRegion)) } }
        });
        assert_eq!(result.await.unwrap(), 7);
        assert_eq!(attempts, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_succeed_is_not_tried_again() {
        let (config, random) = (RetryConfig::default(), Random::from_seed(1));
        let mut attempts = 0;
        let result: Result<()> = config
            .run(&random, "test", |_| {
                attempts += 1;
                async { Err(failure(ExceptionKind::NoSuchColumnFamily)) }
            })
            .await;
        assert!(result.is_err());
        assert_eq!(attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_operation_is_kept() {
        let (config, random) = (RetryConfig::default(), Random::from_seed(1));
        let started = Instant::now();
        let result: Result<()> = config
            .run(&random, "test", |_| async { Err(failure(ExceptionKind::RegionTooBusy)) })
            .await;
        assert!(matches!(result, Err(Error::OutOfTime { attempts: 100.., .. })));
        assert!(started.elapsed() <= config.operation_timeout);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_a_move_is_followed_at_once() {
        let (config, random) = (RetryConfig::default(), Random::from_seed(1));
        let busy = failure(ExceptionKind::RegionTooBusy);
        let overloaded = failure(ExceptionKind::CallQueueTooBig);
        assert!(config.pause(&random, 1, &busy) <= config.pause_initial * 5 / 4);
        let last = config.pause(&random, 1000, &busy);
        assert!(last >= config.pause_max * 3 / 4 && last <= config.pause_max * 5 / 4);
        assert!(config.pause(&random, 1000, &overloaded) > last);
    }
}
