//! What is done with a Lease that was read: pure.
//!
//! Only a master that sits, or finds the seat vacant, takes the Lease; a standby beside a living
//! master leaves it alone, however old it is. So an API server that comes back after an hour
//! unseats nobody. Whether a holder is gone is judged by this process' own clock alone: by how long
//! the Lease has stood unchanged since it was first seen so. The times that stand in it are for
//! people.

use std::time::Duration;

use basalt_master::Seat;
use tokio::time::Instant;

/// What counts of a Lease.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Record {
    /// Empty if it was given back.
    pub(super) holder: String,
    /// After how long without a renewal its holder says that it is gone.
    pub(super) duration: Option<Duration>,
    /// Changes with each write.
    pub(super) version: String,
}

/// A Lease, and since when it has stood as it does.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) record: Record,
    /// When it was first seen so.
    since: Instant,
    /// When it was last asked for.
    asked: Instant,
    /// When it was asked for for the last time and was not yet so.
    otherwise: Option<Instant>,
}

/// Who sits, and since when this process knows it.
#[derive(Clone, Debug)]
pub(super) struct Seated {
    pub(super) seat: Seat,
    pub(super) since: Instant,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Take the Lease, or renew it.
    Hold,
    /// Make the Lease nobody's.
    GiveBack,
    /// Give up the seat to this one, which has written the Lease since we sat down.
    Yield(String),
}

/// What `me` does. `duration` is that of a Lease that names none.
pub(super) fn decide(
    me: &str,
    seen: &Seen,
    seated: &Seated,
    duration: Duration,
    now: Instant,
) -> Step {
    let holder = seen.record.holder.as_str();
    match &seated.seat {
        // A holder that cannot sit lets the Lease lapse.
        Seat::Unknown => Step::Wait,
        Seat::Taken if holder == me => Step::GiveBack,
        Seat::Taken => Step::Wait,
        _ if holder.is_empty() || holder == me => Step::Hold,
        _ if seen.is_lapsed(duration, now) => Step::Hold,
        Seat::Vacant { last_holder } if last_holder == holder => Step::Hold,
        Seat::Ours if seen.has_changed_since(seated.since) => Step::Yield(holder.to_owned()),
        Seat::Vacant { .. } | Seat::Ours => Step::Wait,
    }
}

// === impl Seen ===

impl Seen {
    /// A Lease that is seen for the first time.
    pub(super) fn first(record: Record, asked: Instant, answered: Instant) -> Self {
        Self { record, since: answered, asked, otherwise: None }
    }

    /// The Lease, asked for again, is `record`.
    pub(super) fn then(self, record: Record, asked: Instant, answered: Instant) -> Self {
        if self.record == record {
            return Self { asked, ..self };
        }
        Self { record, since: answered, asked, otherwise: Some(self.asked) }
    }

    fn is_lapsed(&self, duration: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.record.duration.unwrap_or(duration)
    }

    /// Whether it was written after `moment` for certain.
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

    fn vacant(last_holder: &str) -> Seat {
        Seat::Vacant { last_holder: last_holder.to_owned() }
    }

    /// What `me` does `age` after it first saw a Lease of `holder`, on `seat` since the beginning.
    fn after(age: Duration, holder: &str, seat: Seat) -> Step {
        let start = Instant::now();
        let seen = Seen::first(held_by(holder, 1), start, start);
        decide("me", &seen, &Seated { seat, since: start }, DURATION, start + age)
    }

    #[test]
    fn every_case_of_a_lease_that_is_fresh_or_has_lapsed() {
        let cases = [
            // seat, holder, while it is fresh, when it has lapsed
            (Seat::Unknown, "", Step::Wait, Step::Wait),
            (Seat::Unknown, "me", Step::Wait, Step::Wait),
            (Seat::Unknown, "other", Step::Wait, Step::Wait),
            (vacant("gone"), "", Step::Hold, Step::Hold),
            (vacant("gone"), "me", Step::Hold, Step::Hold),
            (vacant("gone"), "gone", Step::Hold, Step::Hold),
            (vacant("gone"), "other", Step::Wait, Step::Hold),
            (vacant(""), "other", Step::Wait, Step::Hold),
            (Seat::Taken, "", Step::Wait, Step::Wait),
            (Seat::Taken, "me", Step::GiveBack, Step::GiveBack),
            (Seat::Taken, "other", Step::Wait, Step::Wait),
            (Seat::Ours, "", Step::Hold, Step::Hold),
            (Seat::Ours, "me", Step::Hold, Step::Hold),
            (Seat::Ours, "other", Step::Wait, Step::Hold),
        ];
        for (seat, holder, fresh, lapsed) in cases {
            let case = format!("{seat:?}, held by {holder:?}");
            let moment = Duration::from_millis(1);
            assert_eq!(after(DURATION - moment, holder, seat.clone()), fresh, "{case}, fresh");
            assert_eq!(after(DURATION, holder, seat), lapsed, "{case}, lapsed");
        }
    }

    #[test]
    fn a_renewed_lease_starts_anew_and_a_longer_one_lasts_longer() {
        let start = Instant::now();
        let seated = Seated { seat: vacant(""), since: start };
        let seen = Seen::first(held_by("other", 1), start, start);
        let later = start + DURATION;
        let seen = seen.then(held_by("other", 1), later, later);
        assert_eq!(decide("me", &seen, &seated, DURATION, later), Step::Hold);
        let renewed = seen.then(held_by("other", 2), later, later);
        assert_eq!(decide("me", &renewed, &seated, DURATION, later), Step::Wait);
        assert_eq!(decide("me", &renewed, &seated, DURATION, later + DURATION), Step::Hold);
        let mut longer = renewed;
        longer.record.duration = Some(DURATION * 3);
        assert_eq!(decide("me", &longer, &seated, DURATION, later + DURATION), Step::Wait);
    }

    #[test]
    fn who_sits_yields_only_to_one_that_has_written_since() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let ours = Seated { seat: Seat::Ours, since: second(10) };
        // Written before we sat down, perhaps: the last look was earlier.
        let before = Seen::first(held_by("me", 1), start, start);
        let unclear = before.then(held_by("other", 2), second(11), second(11));
        assert_eq!(decide("me", &unclear, &ours, DURATION, second(11)), Step::Wait);
        // It lives: it has renewed under our eyes.
        let clear = unclear.clone().then(held_by("other", 3), second(12), second(12));
        let yields = Step::Yield("other".to_owned());
        assert_eq!(decide("me", &clear, &ours, DURATION, second(12)), yields);
        // It does not: it was the dead one's last renewal.
        let still = unclear.then(held_by("other", 2), second(12), second(12));
        assert_eq!(decide("me", &still, &ours, DURATION, second(13)), Step::Hold);
    }
}
