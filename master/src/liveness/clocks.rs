//! Compares the wall clocks of region servers with the master's.
//!
//! A region server assigns cell timestamps from its wall clock, and a timestamp cannot be corrected
//! later. A server whose clock is off therefore gets no regions, and its regions are moved away.
//! The master asks each server for its time, and allows for the round trip. The master's own clock
//! may be the wrong one; [`judge`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_model::ServerName;
use basalt_planted::{Rule, is_off};
use tonic::{Code, Status};

use crate::orders;
use crate::term::Term;

/// The interval between two comparisons.
const INTERVAL: Duration = Duration::from_millis(500);

/// A server's wall clock minus the boot clock of this master, in milliseconds, as a lower and an
/// upper bound. The server read its clock between the sending of the request and the arrival of the
/// reply. The boot clock cannot be set, so a reading stays true when this master's wall clock is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reading {
    least_ms: i64,
    most_ms: i64,
    /// The server's reply.
    wall_ms: u64,
}

/// The result of all readings.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// The servers whose clocks are off.
    pub(crate) off: BTreeSet<ServerName>,
    /// The right time minus the boot clock of this master; `None` before the first comparison.
    right_ms: Option<i64>,
    /// How far the master's own clock is ahead, if it is the one that is off.
    pub(crate) own_ahead_ms: Option<i64>,
}

/// The state of the clock comparison.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    readings: BTreeMap<ServerName, Reading>,
    verdict: Verdict,
    /// Servers that have joined and were not compared yet. Until then they get no regions.
    unchecked: BTreeSet<ServerName>,
    /// All servers that were not compared yet, those included that were live when this master
    /// became active.
    awaited: BTreeSet<ServerName>,
}

// === impl Reading ===

impl Reading {
    fn is_off(self, reference_ms: i64, bound_ms: i64) -> bool {
        self.least_ms.saturating_sub(reference_ms) > bound_ms
            || self.most_ms.saturating_sub(reference_ms) < -bound_ms
    }

    fn middle_ms(self) -> i64 {
        self.least_ms.saturating_add(self.most_ms) / 2
    }

    fn shift(&mut self, by_ms: i64) {
        self.least_ms = self.least_ms.saturating_add(by_ms);
        self.most_ms = self.most_ms.saturating_add(by_ms);
    }
}

// === impl Verdict ===

impl Verdict {
    /// This master's wall clock minus its boot clock, when the verdict was given.
    fn own_ms(&self) -> i64 {
        let right_ms = self.right_ms.unwrap_or_default();
        right_ms.saturating_add(self.own_ahead_ms.unwrap_or_default())
    }
}

// === impl Clocks ===

impl Clocks {
    /// The servers that must get no regions.
    pub(crate) fn unfit(&self) -> impl Iterator<Item = &ServerName> {
        self.verdict.off.iter().chain(&self.unchecked)
    }

    /// The servers that were not compared yet.
    pub(crate) fn unchecked(&self) -> &BTreeSet<ServerName> {
        &self.unchecked
    }

    /// How many clocks are off, including the master's own.
    pub(crate) fn off(&self) -> usize {
        self.verdict.off.len() + usize::from(self.verdict.own_ahead_ms.is_some())
    }

    /// A server is live. If it `has_joined` since this master became active, it gets no regions
    /// before it was compared.
    pub(crate) fn expect(&mut self, server: &ServerName, has_joined: bool) {
        self.awaited.insert(server.clone());
        if has_joined {
            self.unchecked.insert(server.clone());
        }
    }

    /// A server has left.
    fn forget(&mut self, server: &ServerName) {
        self.readings.remove(server);
        self.verdict.off.remove(server);
        self.unchecked.remove(server);
        self.awaited.remove(server);
    }

    /// The result of the last comparison with `server`, for that server. A clock is not reported as
    /// off before half of the servers were compared: this master may be the one that is wrong.
    fn last(&self, server: &ServerName) -> pb::CompareClockRequest {
        let is_off = self.verdict.off.contains(server);
        let are_compared = self.readings.len() >= self.awaited.len();
        let reading = self.readings.get(server).filter(|_| are_compared || !is_off);
        let (Some(reading), Some(right_ms)) = (reading, self.verdict.right_ms) else {
            return pb::CompareClockRequest::default();
        };
        pb::CompareClockRequest {
            master_epoch: 0,
            ahead_ms: reading.middle_ms().saturating_sub(right_ms),
            is_off,
            compared_wall_ms: reading.wall_ms,
        }
    }

    /// Records a reading. `own_ms` is this master's wall clock minus its boot clock. Returns
    /// whether the set of servers that may get regions has changed.
    fn take_in(
        &mut self,
        server: &ServerName,
        reading: Reading,
        own_ms: i64,
        bound_ms: i64,
    ) -> bool {
        if is_off(Rule::ReadingsByBootClock) {
            // As if each reading had been made against the wall clock of its time.
            let set_by_ms = own_ms.saturating_sub(self.verdict.own_ms());
            self.readings.values_mut().for_each(|earlier| earlier.shift(set_by_ms));
        }
        self.readings.insert(server.clone(), reading);
        self.awaited.remove(server);
        let was_unchecked = self.unchecked.remove(server);
        let verdict = judge(&self.readings, own_ms, self.verdict.right_ms, bound_ms);
        if verdict.own_ahead_ms.is_some() != self.verdict.own_ahead_ms.is_some() {
            match verdict.own_ahead_ms {
                Some(ahead_ms) => tracing::error!(
                    ahead_ms,
                    bound_ms,
                    "the clock of this master is off: the region servers agree on another time"
                ),
                None => tracing::info!("the clock of this master agrees with the servers again"),
            }
        }
        let has_changed = was_unchecked || verdict.off != self.verdict.off;
        self.verdict = verdict;
        has_changed
    }
}

/// Decides whose clock is off. `own_ms` is the master's wall clock minus its boot clock, and
/// `right_ms` the right time minus its boot clock according to the previous comparison, if any.
///
/// The master's clock is the reference, with two exceptions:
/// - It was set since it was last found right, and more servers agree with the time from before.
///   Whether that step was a mistake or a correction cannot be seen: the servers decide.
/// - A majority of all clocks, the master's included, agree on another time.
fn judge(
    readings: &BTreeMap<ServerName, Reading>,
    own_ms: i64,
    right_ms: Option<i64>,
    bound_ms: i64,
) -> Verdict {
    let agree = |reference_ms: i64| {
        let agree = readings.values().filter(|one| !one.is_off(reference_ms, bound_ms));
        agree.copied().collect::<Vec<Reading>>()
    };
    // A difference within the bound is no step. Otherwise a server at the edge of the bound would
    // pull the reference along.
    let is_step = |right_ms: &i64| own_ms.saturating_sub(*right_ms).saturating_abs() > bound_ms;
    let before_ms = right_ms.filter(is_step);
    let with_before = before_ms.map(agree).unwrap_or_default();
    let all: Vec<Reading> = readings.values().copied().collect();
    let median_ms = median(&all).unwrap_or(own_ms);
    let reference_ms = if let Some(before_ms) = before_ms
        && with_before.len() > agree(own_ms).len()
    {
        // In the long run, the boot clock drifts away from the servers.
        let least_ms = with_before.iter().map(|one| one.least_ms).min().unwrap_or(before_ms);
        let most_ms = with_before.iter().map(|one| one.most_ms).max().unwrap_or(before_ms);
        before_ms.max(least_ms).min(most_ms)
    } else if agree(median_ms).len() * 2 > all.len() + 1 {
        median_ms
    } else {
        own_ms
    };
    let ahead_ms = own_ms.saturating_sub(reference_ms);
    let is_own_off = ahead_ms.saturating_abs() > bound_ms;
    let right_ms = if is_own_off { reference_ms } else { own_ms };
    let off = readings.iter().filter(|(_, one)| one.is_off(right_ms, bound_ms));
    Verdict {
        off: off.map(|(server, _)| server.clone()).collect(),
        right_ms: Some(right_ms),
        own_ahead_ms: is_own_off.then_some(ahead_ms),
    }
}

fn median(readings: &[Reading]) -> Option<i64> {
    let mut middles: Vec<i64> = readings.iter().map(|reading| reading.middle_ms()).collect();
    middles.sort_unstable();
    middles.get(middles.len() / 2).copied()
}

/// Compares the clock of `server` periodically while it is registered.
pub(crate) async fn compare_clocks(term: Arc<Term>, server: ServerName, address: String) {
    loop {
        let asked = async {
            match compare(&term, &server, &address).await {
                Ok(()) => {}
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::warn!(
                        %server,
                        "the server runs an earlier release: its clock is not compared"
                    );
                    term.facts.lock().clocks.forget(&server);
                    term.wake.notify_one();
                    std::future::pending::<()>().await;
                }
                Err(status) if orders::is_deposed(&status) => term.store.verify().await,
                Err(status) => tracing::debug!(%server, %status, "its clock was not compared"),
            }
            tokio::time::sleep(INTERVAL).await;
        };
        tokio::select! {
            biased;
            () = term.views.death_of(&server) => {
                term.facts.lock().clocks.forget(&server);
                return;
            }
            () = asked => {}
        }
    }
}

async fn compare(term: &Term, server: &ServerName, address: &str) -> Result<(), Status> {
    let mut client = term.orders.client(server, address)?;
    let last = term.facts.lock().clocks.last(server);
    let request = pb::CompareClockRequest { master_epoch: term.store.epoch().0, ..last };
    let limit = term.timers.connect_timeout * 2;
    let asked_ms = term.clock.boot_ms();
    let reply = client.compare_clock(orders::within(limit, request)).await?;
    let answered_ms = term.clock.boot_ms();
    let wall_ms = reply.into_inner().wall_ms;
    let server_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    let reading = Reading {
        least_ms: server_ms.saturating_sub(answered_ms),
        most_ms: server_ms.saturating_sub(asked_ms),
        wall_ms,
    };
    let own_ms = term.clock.wall_minus_boot_ms();
    let bound_ms = i64::try_from(term.timers.clock_bound.as_millis()).unwrap_or(i64::MAX);
    let (was_off, is_off, has_changed, right_ms) = {
        let clocks = &mut term.facts.lock().clocks;
        let was_off = clocks.verdict.off.contains(server);
        let has_changed = clocks.take_in(server, reading, own_ms, bound_ms);
        (was_off, clocks.verdict.off.contains(server), has_changed, clocks.verdict.right_ms)
    };
    if is_off && !was_off {
        let ahead_ms = reading.middle_ms().saturating_sub(right_ms.unwrap_or(own_ms));
        tracing::error!(
            %server, ahead_ms, bound_ms, server_ms,
            "the clock of a region server is off: it gets no regions, and its regions move away"
        );
    } else if was_off && !is_off {
        tracing::info!(%server, "the clock of a region server is right again");
    }
    if has_changed {
        term.wake.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;

    const DAY_MS: i64 = 86_400_000;

    /// The boot clock of these tests, in wall-clock time.
    const BOOTED_MS: i64 = 1_767_225_600_000;
    const BOUND_MS: i64 = 1_000;

    /// A server that is ahead of true time by this much.
    fn reading(ahead_ms: i64) -> Reading {
        let middle_ms = BOOTED_MS + ahead_ms;
        Reading { least_ms: middle_ms - 5, most_ms: middle_ms + 5, wall_ms: 7 }
    }

    /// The judgement over servers that are ahead by these amounts, of a master that is right: which
    /// are off, and by how much the master is ahead in its own judgement.
    fn judged(ahead_ms: &[i64]) -> (Vec<usize>, Option<i64>) {
        judged_by(0, ahead_ms, None)
    }

    /// The judgement of a master that is ahead, and was at the previous comparison.
    fn judged_by(own: i64, ahead_ms: &[i64], previous: Option<i64>) -> (Vec<usize>, Option<i64>) {
        let name = |index: usize| server(&format!("{index}"));
        let ahead = ahead_ms.iter().enumerate();
        let readings = ahead.map(|(index, ms)| (name(index), reading(*ms))).collect();
        let right_ms = previous.map(|ahead| BOOTED_MS + ahead);
        let verdict = judge(&readings, BOOTED_MS + own, right_ms, BOUND_MS);
        let off = (0..ahead_ms.len()).filter(|index| verdict.off.contains(&name(*index)));
        (off.collect(), verdict.own_ahead_ms)
    }

    #[test]
    fn a_server_is_off_beyond_the_bound_in_either_direction() {
        assert_eq!(judged(&[]), (vec![], None));
        assert_eq!(judged(&[0, 900, -900]), (vec![], None));
        assert_eq!(judged(&[0, DAY_MS, -1_100]), (vec![1, 2], None));
        assert_eq!(judged(&[DAY_MS]), (vec![0], None), "of two clocks the master's counts");
    }

    #[test]
    fn a_master_that_most_servers_contradict_is_off_itself() {
        assert_eq!(judged(&[DAY_MS, DAY_MS + 300]), (vec![], Some(-DAY_MS - 300)));
        assert_eq!(judged(&[-DAY_MS, -DAY_MS, 0]), (vec![0, 1], None), "two against two");
        assert_eq!(judged(&[-DAY_MS, -DAY_MS, -DAY_MS, 0]), (vec![3], Some(DAY_MS)));
        assert_eq!(judged(&[DAY_MS, -DAY_MS, 2 * DAY_MS]), (vec![0, 1, 2], None), "no majority");
    }

    #[test]
    fn a_master_whose_clock_was_set_is_off_unless_servers_agree_with_the_new_time() {
        for previous in [0, 300, -300] {
            let judged = |own, ahead_ms: &[i64]| {
                let (off, own_ahead_ms) = judged_by(own, ahead_ms, Some(previous));
                // It is known as closely as the readings show it.
                (off, own_ahead_ms.map(|ms| (ms + 500).div_euclid(1_000) * 1_000))
            };
            assert_eq!(judged(DAY_MS, &[0]), (vec![], Some(DAY_MS)));
            assert_eq!(judged(DAY_MS, &[0, DAY_MS]), (vec![0], None), "one each");
            assert_eq!(judged(-DAY_MS, &[0, DAY_MS, 0]), (vec![1], Some(-DAY_MS)));
            assert_eq!(judged(DAY_MS, &[DAY_MS, DAY_MS]), (vec![], None), "it was wrong before");
        }
        // It was wrong before and is right again, as its only server was all the time.
        assert_eq!(judged_by(0, &[0], Some(DAY_MS)), (vec![], None));
    }

    /// What `judge` finds right, comparison after comparison, while a server's clock and the boot
    /// clock drift apart.
    #[test]
    fn a_master_that_stays_off_follows_the_servers() {
        let (name, mut right_ms) = (server("a"), Some(BOOTED_MS));
        for ahead_ms in (0..5_000).step_by(100) {
            let readings = [(name.clone(), reading(ahead_ms))].into();
            let verdict = judge(&readings, BOOTED_MS + DAY_MS, right_ms, BOUND_MS);
            assert!(verdict.off.is_empty());
            right_ms = verdict.right_ms;
        }
        assert_eq!(right_ms, Some(BOOTED_MS + 4_895), "as far as its reading is certain");
    }

    #[test]
    fn a_server_at_the_edge_of_the_bound_does_not_pull_the_master_along() {
        // The difference of two clocks in whole milliseconds varies by one.
        let (name, mut right_ms) = (server("a"), None);
        for ahead_ms in 900..1_100 {
            let own_ms = BOOTED_MS - ahead_ms % 2;
            let verdict =
                judge(&[(name.clone(), reading(ahead_ms))].into(), own_ms, right_ms, BOUND_MS);
            assert_eq!(verdict.own_ahead_ms, None);
            assert_eq!(verdict.right_ms, Some(own_ms));
            right_ms = verdict.right_ms;
            assert_eq!(
                verdict.off.len(),
                usize::from(ahead_ms + ahead_ms % 2 > 1_005),
                "{ahead_ms}"
            );
        }
    }

    #[test]
    fn wide_readings_move_no_reference() {
        let wide = |least_ms, most_ms| Reading {
            least_ms: BOOTED_MS + least_ms,
            most_ms: BOOTED_MS + most_ms,
            wall_ms: 7,
        };
        for other in [wide(0, 4_000), wide(-4_000, 0), wide(595, 605)] {
            let readings = [(server("a"), other), (server("b"), reading(-600))].into();
            let own_ms = BOOTED_MS + DAY_MS;
            let verdict = judge(&readings, own_ms, Some(BOOTED_MS), BOUND_MS);
            assert!(verdict.off.is_empty());
            assert_eq!(verdict.right_ms, Some(BOOTED_MS));
        }
    }

    #[test]
    fn a_slow_answer_makes_no_clock_wrong() {
        let between = |least_ms, most_ms| Reading { least_ms, most_ms, wall_ms: 7 };
        assert!(!between(-4_000, 900).is_off(0, 1_000));
        assert!(between(1_001, 9_000).is_off(0, 1_000));
        assert!(between(-9_000, -1_001).is_off(0, 1_000));
    }

    #[test]
    fn a_server_gets_no_regions_before_its_clock_was_compared() {
        let (mut clocks, a) = (Clocks::default(), server("a"));
        let take_in = |clocks: &mut Clocks, ahead_ms| {
            clocks.take_in(&a, reading(ahead_ms), BOOTED_MS, BOUND_MS)
        };
        clocks.expect(&a, true);
        assert_eq!(clocks.unfit().collect::<Vec<_>>(), [&a]);
        assert_eq!(clocks.last(&a).compared_wall_ms, 0);
        assert!(take_in(&mut clocks, 4));
        assert_eq!(clocks.unfit().count(), 0);
        assert!(!take_in(&mut clocks, 4));
        assert!(take_in(&mut clocks, 5_000));
        assert_eq!(clocks.unfit().collect::<Vec<_>>(), [&a]);
        let last = clocks.last(&a);
        assert_eq!((last.is_off, last.ahead_ms, last.compared_wall_ms), (true, 5_000, 7));
        clocks.forget(&a);
        assert_eq!(clocks.unfit().count(), 0);
    }

    #[test]
    fn no_server_is_off_because_the_clock_of_the_master_is_set() {
        let names = ["a", "b", "c"].map(server);
        let mut clocks = Clocks::default();
        names.iter().for_each(|name| clocks.expect(name, true));
        for own_ahead_ms in [0, DAY_MS, 0, -DAY_MS, 2 * DAY_MS, 0] {
            for name in &names {
                clocks.take_in(name, reading(0), BOOTED_MS + own_ahead_ms, BOUND_MS);
                assert!(clocks.verdict.off.is_empty(), "{own_ahead_ms}");
                assert_eq!(clocks.verdict.own_ahead_ms.is_some(), own_ahead_ms != 0);
                assert_eq!(clocks.last(name).ahead_ms, 0);
            }
        }
    }

    #[test]
    fn a_new_master_that_is_wrong_reports_no_server_before_it_has_compared_half() {
        let [a, b, c] = ["a", "b", "c"].map(server);
        let mut clocks = Clocks::default();
        [&a, &b, &c].iter().for_each(|name| clocks.expect(name, false));
        assert_eq!(clocks.unfit().count(), 0, "they have regions");
        clocks.take_in(&a, reading(0), BOOTED_MS + DAY_MS, BOUND_MS);
        assert!(clocks.verdict.off.contains(&a));
        assert_eq!(clocks.last(&a), pb::CompareClockRequest::default());
        clocks.take_in(&b, reading(0), BOOTED_MS + DAY_MS, BOUND_MS);
        let last = clocks.last(&a);
        assert_eq!((last.is_off, last.ahead_ms, last.compared_wall_ms), (false, 0, 7));
    }
}
