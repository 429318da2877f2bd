//! Events that the roles report while they run, with target `witness`. The invariants receive them
//! in the order in which they happen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::answer;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::faults::Trap;
use crate::invariants::{
    BelowSealedLength, OneMaster, OneOwner, OneProcedureEnd, SameState, SequenceIds,
    ServedAsRecorded, ServedBy, TableTurns, Violation, check_replay, check_timestamp,
};

/// Records the events of the roles and checks the invariants; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

/// An event that a role reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct WitnessEvent {
    /// The process that reported it.
    pub(crate) process: Arc<str>,
    /// The simulated time.
    pub(crate) at: Duration,
    /// The kind of event.
    pub(crate) what: String,
    /// The region, the server and the table that the event is about, if any.
    pub(crate) region: String,
    pub(crate) server: String,
    pub(crate) table: String,
    /// The number of the log, taken from its name or its number.
    pub(crate) log: String,
    pub(crate) epoch: u64,
    pub(crate) sequence_id: u64,
    pub(crate) flushed: u64,
    pub(crate) timestamp_ms: u64,
    pub(crate) end: u64,
    pub(crate) sealed_length: u64,
    pub(crate) took: Duration,
    pub(crate) id: u64,
    /// For the coordinator: the index of a log entry, and the digest of the state after that entry.
    pub(crate) index: u64,
    pub(crate) digest: u64,
    /// The failpoint that was reached.
    pub(crate) point: String,
}

#[derive(Debug, Default)]
struct Seen {
    one_owner: OneOwner,
    served_as_recorded: ServedAsRecorded,
    below_sealed_length: BelowSealedLength,
    sequence_ids: SequenceIds,
    one_master: OneMaster,
    one_end: OneProcedureEnd,
    table_turns: TableTurns,
    same_state: SameState,
    violations: Vec<Violation>,
    active_master: Option<Arc<str>>,
    last_opener: Option<Arc<str>>,
    /// The regions opened since the last call of [`Witness::take_opened`], with their epochs.
    opened: Vec<(String, u64)>,
    trap: Option<SetTrap>,
    count: u64,
    points: BTreeSet<String>,
}

/// A trap that waits or has sprung.
#[derive(Debug)]
struct SetTrap {
    trap: Trap,
    hits: u32,
    /// The process that sprang it.
    process: Option<Arc<str>>,
}

/// The name of the process that a span belongs to.
struct ProcessName(Arc<str>);

/// Maximum violations that are kept: most violations of one run repeat the same one.
const VIOLATIONS_MAX: usize = 50;

// === impl Witness ===

impl Witness {
    /// The violations found so far.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.0.lock().violations.clone()
    }

    /// The number of events so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// The failpoints that were reached.
    pub(crate) fn points(&self) -> BTreeSet<String> {
        self.0.lock().points.clone()
    }

    /// The process that last became the active master.
    pub(crate) fn active_master(&self) -> Option<Arc<str>> {
        self.0.lock().active_master.clone()
    }

    /// The process that last opened a region.
    pub(crate) fn last_opener(&self) -> Option<Arc<str>> {
        self.0.lock().last_opener.clone()
    }

    /// The regions that were opened since the last call.
    pub(crate) fn take_opened(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.0.lock().opened)
    }

    /// The regions that each server serves.
    pub(crate) fn served(&self) -> ServedBy {
        self.0.lock().served_as_recorded.served().clone()
    }

    /// Records that the log of a member of the coordinator is falsified from now on.
    pub(crate) fn falsify(&self, process: &str) {
        self.0.lock().same_state.falsify(process);
    }

    /// Records that the simulation has shortened the file of a server's log.
    pub(crate) fn shorten_log(&self, server: &str, number: &str) {
        self.0.lock().below_sealed_length.shorten(server, number);
    }

    /// Sets a trap, unless one is set.
    pub(crate) fn set_trap(&self, trap: Trap) {
        let set = || SetTrap { trap, hits: 0, process: None };
        self.0.lock().trap.get_or_insert_with(set);
    }

    /// Removes the trap if it has not sprung.
    pub(crate) fn take_trap(&self) {
        self.0.lock().trap.take_if(|set| set.process.is_none());
    }

    /// The process that sprang the trap.
    pub(crate) fn trapped(&self) -> Option<Arc<str>> {
        self.0.lock().trap.as_ref()?.process.clone()
    }

    fn record(&self, event: &WitnessEvent) {
        let mut seen = self.0.lock();
        seen.count += 1;
        if !event.point.is_empty() && !seen.points.contains(&event.point) {
            seen.points.insert(event.point.clone());
        }
        if let Some(set) = &mut seen.trap {
            set.record(event);
        }
        match event.what.as_str() {
            "active" => seen.active_master = Some(Arc::clone(&event.process)),
            "opened" => {
                seen.last_opener = Some(Arc::clone(&event.process));
                seen.opened.push((event.region.clone(), event.epoch));
            }
            _ => {}
        }
        let found = [
            seen.one_owner.check(event),
            seen.served_as_recorded.check(event),
            seen.below_sealed_length.check(event),
            seen.sequence_ids.check(event),
            check_replay(event),
            check_timestamp(event),
            seen.one_master.check(event),
            seen.one_end.check(event),
            seen.table_turns.check(event),
            seen.same_state.check(event),
        ];
        let room = VIOLATIONS_MAX.saturating_sub(seen.violations.len());
        seen.violations.extend(found.into_iter().flatten().take(room));
    }
}

// === impl SetTrap ===

impl SetTrap {
    fn record(&mut self, event: &WitnessEvent) {
        if event.point != self.trap.point.name() || self.process.is_some() {
            return;
        }
        self.hits += 1;
        if self.hits == self.trap.hit {
            self.process = Some(Arc::clone(&event.process));
            answer(self.trap.answer);
        }
    }
}

impl<S> Layer<S> for Witness
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut name = NodeName(None);
        attributes.record(&mut name);
        if let (Some(name), Some(span)) = (name.0, context.span(id)) {
            span.extensions_mut().insert(ProcessName(name.into()));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let mut witnessed = WitnessEvent { at, ..WitnessEvent::default() };
        let scope = context.event_scope(event).into_iter().flatten();
        for span in scope {
            if let Some(ProcessName(name)) = span.extensions().get::<ProcessName>() {
                witnessed.process = Arc::clone(name);
            }
        }
        event.record(&mut witnessed);
        self.record(&witnessed);
    }
}

impl Visit for WitnessEvent {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "epoch" => self.epoch = value,
            "sequence_id" => self.sequence_id = value,
            "flushed" => self.flushed = value,
            "timestamp_ms" => self.timestamp_ms = value,
            "end" => self.end = value,
            "sealed_length" => self.sealed_length = value,
            "took_us" => self.took = Duration::from_micros(value),
            "id" => self.id = value,
            "index" => self.index = value,
            "digest" => self.digest = value,
            "log" => self.log = value.to_string(),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.what),
            "point" => value.clone_into(&mut self.point),
            // The name of a log is `<server>.<number>`.
            "log" => value.rsplit('.').next().unwrap_or(value).clone_into(&mut self.log),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.what = format!("{value:?}"),
            "table" => self.table = format!("{value:?}"),
            "region" => self.region = format!("{value:?}"),
            "server" => self.server = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Reads the name from the span that turmoil creates around each process.
struct NodeName(Option<String>);

impl Visit for NodeName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "name" {
            self.0 = Some(format!("{value:?}").trim_matches('"').to_owned());
        }
    }
}
