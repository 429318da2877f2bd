//! Stops a region server at a named step of its work, as the simulation does.

use std::sync::{Mutex, OnceLock};

use basalt_failpoint::{Answer, Point, answer};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// The trap that is set. Only one at a time, because failpoints do not say which process reached
/// them.
static SET: Mutex<Option<(Point, Answer)>> = Mutex::new(None);
static TURN: OnceLock<tokio::sync::Mutex<()>> = OnceLock::new();

struct Traps;

/// Keeps a trap set until it is dropped.
pub(crate) struct Trap {
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// Sets a trap: the next task that reaches `point` does what `answer` says.
pub(crate) async fn set(point: Point, answer: Answer) -> Trap {
    let turn = TURN.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Traps);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        tokio::sync::Mutex::default()
    });
    let turn = turn.lock().await;
    *SET.lock().unwrap() = Some((point, answer));
    Trap { _turn: turn }
}

/// Prevents other tests from setting traps, without setting one.
pub(crate) async fn none() -> Trap {
    let trap = set(Point::OpenRecorded, Answer::Stop).await;
    *SET.lock().unwrap() = None;
    trap
}

impl Drop for Trap {
    fn drop(&mut self) {
        *SET.lock().unwrap() = None;
    }
}

impl<S: Subscriber> Layer<S> for Traps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != basalt_runtime::WITNESS {
            return;
        }
        let mut reached = Reached(String::new());
        event.record(&mut reached);
        let mut set = SET.lock().unwrap();
        if let Some((_, what)) = set.take_if(|(point, _)| point.name() == reached.0) {
            answer(what);
        }
    }
}

struct Reached(String);

impl Visit for Reached {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "point" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
