//! Decides what to do with a Lease that was read. Pure.
//!
//! Only an active master takes the Lease, or a master that finds no active master. A standby master
//! next to a living active master leaves the Lease alone, however old it is. So an API server that
//! returns after an hour deposes no master. A process uses only its own clock to decide whether a
//! holder is gone: it measures how long the Lease has been unchanged since it first saw that
//! version. The times in the Lease are for people.

use std::time::Duration;

use basalt_master::ActiveMaster;
use tokio::time::Instant;

/// The relevant fields of a Lease.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Record {
    /// Empty if the Lease was released.
    pub(super) holder: String,
    /// The time without a renewal after which the holder counts as gone, as the Lease itself names
    /// it.
    pub(super) duration: Option<Duration>,
    /// Changes with each write.
    pub(super) version: String,
}

/// A Lease, and how long it has been unchanged.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) record: Record,
    /// When this version was first seen.
    since: Instant,
    /// When the last read was sent.
    asked: Instant,
    /// When the last read was sent that still returned a different version.
    otherwise: Option<Instant>,
}

/// The master that is active, and since when this process knows it.
#[derive(Clone, Debug)]
pub(super) struct KnownActive {
    pub(super) active: ActiveMaster,
    pub(super) since: Instant,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum LeaseAction {
    /// Nothing.
    Wait,
    /// Take the Lease, or renew it.
    Hold,
    /// Release the Lease: clear its holder.
    GiveBack,
    /// Step down in favour of this holder, which has written the Lease since this master became
    /// active.
    Yield(String),
}

/// Decides for the process `me`. `duration` applies if the Lease names none.
pub(super) fn decide(
    me: &str,
    seen: &Seen,
    known: &KnownActive,
    duration: Duration,
    now: Instant,
) -> LeaseAction {
    let holder = seen.record.holder.as_str();
    match &known.active {
        // A holder that cannot become active lets the Lease expire.
        ActiveMaster::Unknown => LeaseAction::Wait,
        ActiveMaster::Other if holder == me => LeaseAction::GiveBack,
        ActiveMaster::Other => LeaseAction::Wait,
        _ if holder.is_empty() || holder == me => LeaseAction::Hold,
        _ if seen.is_lapsed(duration, now) => LeaseAction::Hold,
        ActiveMaster::Absent { last_holder } if last_holder == holder => LeaseAction::Hold,
        ActiveMaster::This if seen.has_changed_since(known.since) => {
            LeaseAction::Yield(holder.to_owned())
        }
        ActiveMaster::Absent { .. } | ActiveMaster::This => LeaseAction::Wait,
    }
}

// === impl Seen ===

impl Seen {
    /// A Lease that is seen for the first time.
    pub(super) fn first(record: Record, asked: Instant, answered: Instant) -> Self {
        Self { record, since: answered, asked, otherwise: None }
    }

    /// The result of another read, which returned `record`.
    pub(super) fn then(self, record: Record, asked: Instant, answered: Instant) -> Self {
        if self.record == record {
            return Self { asked, ..self };
        }
        Self { record, since: answered, asked, otherwise: Some(self.asked) }
    }

    fn is_lapsed(&self, duration: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.record.duration.unwrap_or(duration)
    }

    /// Whether it was certainly written after `moment`.
    fn has_changed_since(&self, moment: Instant) -> bool {
        self.otherwise.is_some_and(|otherwise| otherwise >= moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(2);

    fn held_by(holder: &str, version: u32) -> Record {
        Record { holder: holder.to_owned(), duration: None, version: version.to_string() }
    }

    fn vacant(last_holder: &str) -> ActiveMaster {
        ActiveMaster::Absent { last_holder: last_holder.to_owned() }
    }

    /// The action of `me` at `age` after it first saw a Lease of `holder`. `active` has not changed
    /// since.
    fn after(age: Duration, holder: &str, active: ActiveMaster) -> LeaseAction {
        let start = Instant::now();
        let seen = Seen::first(held_by(holder, 1), start, start);
        decide("me", &seen, &KnownActive { active, since: start }, DURATION, start + age)
    }

    #[test]
    fn every_case_of_a_lease_that_is_fresh_or_has_lapsed() {
        let cases = [
            // active master, holder, action while the Lease is fresh, action after it has expired
            (ActiveMaster::Unknown, "", LeaseAction::Wait, LeaseAction::Wait),
            (ActiveMaster::Unknown, "me", LeaseAction::Wait, LeaseAction::Wait),
            (ActiveMaster::Unknown, "other", LeaseAction::Wait, LeaseAction::Wait),
            (vacant("gone"), "", LeaseAction::Hold, LeaseAction::Hold),
            (vacant("gone"), "me", LeaseAction::Hold, LeaseAction::Hold),
            (vacant("gone"), "gone", LeaseAction::Hold, LeaseAction::Hold),
            (vacant("gone"), "other", LeaseAction::Wait, LeaseAction::Hold),
            (vacant(""), "other", LeaseAction::Wait, LeaseAction::Hold),
            (ActiveMaster::Other, "", LeaseAction::Wait, LeaseAction::Wait),
            (ActiveMaster::Other, "me", LeaseAction::GiveBack, LeaseAction::GiveBack),
            (ActiveMaster::Other, "other", LeaseAction::Wait, LeaseAction::Wait),
            (ActiveMaster::This, "", LeaseAction::Hold, LeaseAction::Hold),
            (ActiveMaster::This, "me", LeaseAction::Hold, LeaseAction::Hold),
            (ActiveMaster::This, "other", LeaseAction::Wait, LeaseAction::Hold),
        ];
        for (active, holder, fresh, lapsed) in cases {
            let case = format!("{active:?}, held by {holder:?}");
            let moment = Duration::from_millis(1);
            assert_eq!(after(DURATION - moment, holder, active.clone()), fresh, "{case}, fresh");
            assert_eq!(after(DURATION, holder, active), lapsed, "{case}, lapsed");
        }
    }

    #[test]
    fn a_renewed_lease_starts_anew_and_a_longer_one_lasts_longer() {
        let start = Instant::now();
        let known = KnownActive { active: vacant(""), since: start };
        let seen = Seen::first(held_by("other", 1), start, start);
        let later = start + DURATION;
        let seen = seen.then(held_by("other", 1), later, later);
        assert_eq!(decide("me", &seen, &known, DURATION, later), LeaseAction::Hold);
        let renewed = seen.then(held_by("other", 2), later, later);
        assert_eq!(decide("me", &renewed, &known, DURATION, later), LeaseAction::Wait);
        assert_eq!(decide("me", &renewed, &known, DURATION, later + DURATION), LeaseAction::Hold);
        let mut longer = renewed;
        longer.record.duration = Some(DURATION * 3);
        assert_eq!(decide("me", &longer, &known, DURATION, later + DURATION), LeaseAction::Wait);
    }

    #[test]
    fn who_sits_yields_only_to_one_that_has_written_since() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let ours = KnownActive { active: ActiveMaster::This, since: second(10) };
        // This version may have been written before this master became active: the last read was
        // earlier.
        let before = Seen::first(held_by("me", 1), start, start);
        let unclear = before.then(held_by("other", 2), second(11), second(11));
        assert_eq!(decide("me", &unclear, &ours, DURATION, second(11)), LeaseAction::Wait);
        // The other holder is alive: it has renewed the Lease since.
        let clear = unclear.clone().then(held_by("other", 3), second(12), second(12));
        let yields = LeaseAction::Yield("other".to_owned());
        assert_eq!(decide("me", &clear, &ours, DURATION, second(12)), yields);
        // The other holder is dead: this was its last renewal.
        let still = unclear.then(held_by("other", 2), second(12), second(12));
        assert_eq!(decide("me", &still, &ours, DURATION, second(13)), LeaseAction::Hold);
    }
}
