//! The leader's clock of sessions: decides that one has expired.
//!
//! The decision is a command and holds only in the term in which it was made. A new leader gives
//! every session its full time again; a leader that a majority does not confirm decides nothing;
//! time in which the leader itself stood still does not count.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_zk::proto::SessionId;
use openraft::ReadPolicy;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::member::Member;
use crate::tree::{Change, Command};

/// When the leader last heard of each session.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    heard: Mutex<BTreeMap<SessionId, Instant>>,
}

/// A tick that comes later than this many intervals means that the leader stood still.
const STANDSTILL_INTERVALS: u32 = 5;

// === impl Expiry ===

impl Expiry {
    /// These sessions have shown signs of life.
    pub(crate) fn heard_of(&self, sessions: impl IntoIterator<Item = i64>) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        for session in sessions {
            // Only sessions that exist are in the map: others would stay for ever.
            if let Some(last) = heard.get_mut(&SessionId(session)) {
                *last = now;
            }
        }
    }

    /// Ends sessions that have expired, while this member leads.
    pub(crate) async fn run(&self, member: &Member) {
        let interval = member.config.timers.touch_interval();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led_term = None;
        let mut last_tick = Instant::now();
        loop {
            ticks.tick().await;
            let late = last_tick.elapsed();
            last_tick = Instant::now();
            let leadership = *member.leadership.borrow();
            let leads = leadership.leader == Some(member.id());
            if !leads || led_term != Some(leadership.term) {
                self.heard.lock().clear();
                led_term = leads.then_some(leadership.term);
            }
            if late > interval * STANDSTILL_INTERVALS {
                self.forgive(late);
            }
            let confirmed =
                leads && member.raft.get_read_linearizer(ReadPolicy::LeaseRead).await.is_ok();
            if !confirmed {
                continue;
            }
            for session in self.expired(member) {
                let command = Command {
                    origin: None,
                    time_ms: 0,
                    change: Change::ExpireSession { session, term: leadership.term },
                };
                if member.propose_as_leader(vec![command]).await.is_ok() {
                    tracing::info!(%session, "the session has expired");
                    // Should its end not be committed, it is decided on after another timeout.
                    self.heard_of([session.0]);
                }
            }
        }
    }

    /// Nobody could be heard for so long.
    fn forgive(&self, standstill: Duration) {
        for last in self.heard.lock().values_mut() {
            *last += standstill;
        }
    }

    /// The sessions that have been silent for too long.
    fn expired(&self, member: &Member) -> Vec<SessionId> {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        member.replica.read(|state, _| {
            heard.retain(|session, _| state.session(*session).is_some());
            let mut expired = Vec::new();
            for (id, session) in state.sessions() {
                let last = heard.entry(id).or_insert(now);
                let timeout = Duration::from_millis(u64::from(session.timeout_ms));
                if now.saturating_duration_since(*last) > timeout {
                    expired.push(id);
                }
            }
            expired
        })
    }
}
