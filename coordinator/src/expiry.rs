//! Session expiry: the leader decides that a session has expired.
//!
//! The decision is a command, and is valid only in the term in which it was made. Only silence that
//! the session's client could have broken counts against a session. A new leader therefore gives
//! every session its full timeout again, and so does a leader that had lost its quorum. A shorter
//! time without confirmation by the quorum, or in which the leader itself was stalled, does not
//! count.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
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

/// Tracks from tick to tick whether this member leads and is confirmed by a quorum.
#[derive(Debug)]
struct Watchman {
    /// If more time than this passes between two ticks, the leader was stalled.
    late: Duration,
    /// How much older the quorum's last confirmation may be than it seems.
    lease: Duration,
    led_term: Option<u64>,
    last_tick: Instant,
    unconfirmed_since: Option<Instant>,
}

/// What one tick means for the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tick {
    /// This member does not lead, or has just become the leader. All sessions get their full
    /// timeout again.
    Anew,
    /// No quorum confirms the leader, so nothing is decided.
    Unconfirmed,
    /// Sessions that have been silent for too long have expired. `uncounted` is the part of the
    /// silence that does not count.
    Confirmed { uncounted: Duration },
}
/// If more than this many intervals pass between two ticks, the leader was stalled.
const STANDSTILL_INTERVALS: u32 = 5;

// === impl Expiry ===

impl Expiry {
    /// Records a sign of life from each of `sessions`.
    pub(crate) fn heard_of(&self, sessions: impl IntoIterator<Item = i64>) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        for session in sessions {
            // Do not insert sessions: those that do not exist would stay in the map for ever.
            if let Some(last) = heard.get_mut(&SessionId(session)) {
                *last = now;
            }
        }
    }

    /// Ends sessions that have expired, while this member leads.
    pub(crate) async fn run(&self, member: &Member) {
        let timers = &member.config.timers;
        let interval = timers.touch_interval();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchman = Watchman::new(interval * STANDSTILL_INTERVALS, timers.leader_lease());
        loop {
            ticks.tick().await;
            let leadership = *member.leadership.borrow();
            let term = (leadership.leader == Some(member.id())).then_some(leadership.term);
            let confirmed = term.is_some()
                && !member.state_differs.load(Ordering::Relaxed)
                && member.raft.get_read_linearizer(ReadPolicy::LeaseRead).await.is_ok();
            match watchman.tick(Instant::now(), term, confirmed) {
                Tick::Anew => self.heard.lock().clear(),
                Tick::Unconfirmed => {}
                Tick::Confirmed { uncounted } => {
                    self.forgive(uncounted);
                    self.expire_silent(member, leadership.term).await;
                }
            }
        }
    }

    async fn expire_silent(&self, member: &Member, term: u64) {
        for session in self.expired(member) {
            let change = Change::ExpireSession { session, term };
            let command = Command { origin: None, time_ms: 0, change };
            if member.propose_as_leader(vec![command]).await.is_ok() {
                tracing::info!(%session, "the session has expired");
                // If the command is not committed, it is proposed again after another timeout.
                self.heard_of([session.0]);
            }
        }
    }

    /// Extends each session by `uncounted`, a time in which no session could be heard.
    fn forgive(&self, uncounted: Duration) {
        if uncounted.is_zero() {
            return;
        }
        for last in self.heard.lock().values_mut() {
            *last += uncounted;
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

// === impl Watchman ===

impl Watchman {
    fn new(late: Duration, lease: Duration) -> Self {
        let last_tick = Instant::now();
        Self { late, lease, led_term: None, last_tick, unconfirmed_since: None }
    }

    /// Evaluates a tick at `now`. `term` is the term in which this member leads, if it does. A
    /// leader that has lost its quorum for longer than an election takes has stepped down, and
    /// passes no term.
    fn tick(&mut self, now: Instant, term: Option<u64>, confirmed: bool) -> Tick {
        let elapsed = now.saturating_duration_since(self.last_tick);
        let before = std::mem::replace(&mut self.last_tick, now);
        if term.is_none() || self.led_term != term {
            self.led_term = term;
            self.unconfirmed_since = None;
            return Tick::Anew;
        }
        if !confirmed && !basalt_planted::is_off(basalt_planted::Rule::QuorumTime) {
            // The quorum may have been lost right after the last tick, or even earlier by the
            // length of the lease.
            self.unconfirmed_since.get_or_insert(before - self.lease);
            return Tick::Unconfirmed;
        }
        let standstill = if elapsed > self.late { elapsed } else { Duration::ZERO };
        let unconfirmed = self.unconfirmed_since.take();
        let unconfirmed =
            unconfirmed.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Tick::Confirmed { uncounted: standstill.max(unconfirmed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(250);
    const LEASE: Duration = Duration::from_millis(240);
    const INTERVAL: Duration = Duration::from_millis(50);

    /// The outcome of each tick of one leader, with `confirmations` by its quorum.
    fn ticks(confirmations: &[bool]) -> Vec<Tick> {
        let mut watchman = Watchman::new(LATE, LEASE);
        let mut now = watchman.last_tick;
        let each = confirmations.iter().map(|confirmed| {
            now += INTERVAL;
            watchman.tick(now, Some(1), *confirmed)
        });
        each.collect()
    }

    fn uncounted(duration: Duration) -> Tick {
        Tick::Confirmed { uncounted: duration }
    }

    #[tokio::test]
    async fn time_without_a_confirmation_is_not_counted() {
        let judged = ticks(&[true, true, false, false, true, true]);
        let none = uncounted(Duration::ZERO);
        let gap = uncounted(INTERVAL * 3 + LEASE);
        assert_eq!(judged, [Tick::Anew, none, Tick::Unconfirmed, Tick::Unconfirmed, gap, none]);
    }

    #[tokio::test]
    async fn sessions_begin_anew_with_each_term_and_after_stepping_down() {
        let mut watchman = Watchman::new(LATE, LEASE);
        let now = watchman.last_tick + INTERVAL;
        let none = uncounted(Duration::ZERO);
        for (term, expected) in [
            (Some(1), Tick::Anew),
            (Some(1), none),
            (Some(2), Tick::Anew),
            (Some(2), none),
            (None, Tick::Anew),
            (Some(2), Tick::Anew),
            (Some(2), none),
        ] {
            assert_eq!(watchman.tick(now, term, true), expected);
        }
    }

    #[tokio::test]
    async fn a_standstill_of_the_leader_is_not_counted() {
        let mut watchman = Watchman::new(LATE, LEASE);
        let now = watchman.last_tick + INTERVAL;
        watchman.tick(now, Some(1), true);
        let stood_still = Duration::from_secs(3);
        assert_eq!(watchman.tick(now + stood_still, Some(1), true), uncounted(stood_still));
    }
}
