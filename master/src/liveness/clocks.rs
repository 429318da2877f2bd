//! Compares the wall clocks of region servers with the master's.
//!
//! A region server assigns cell timestamps from its wall clock, and a timestamp cannot be corrected
//! later. A server whose clock is off therefore gets no regions, and its regions are moved away.
//! The master asks each server for its time, and allows for the round trip. The master's own clock
//! may be the wrong one. If most servers agree with each other but not with the master, their time
//! counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_model::ServerName;
use tonic::{Code, Status};

use crate::orders;
use crate::term::Term;

/// The interval between two comparisons.
const INTERVAL: Duration = Duration::from_millis(500);

/// How far a server's wall clock is ahead of the master's, in milliseconds, as a lower and an upper
/// bound. The server read its clock between the sending of the request and the arrival of the
/// reply.
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

    /// A server has joined.
    pub(crate) fn expect(&mut self, server: &ServerName) {
        self.unchecked.insert(server.clone());
    }

    /// A server has left.
    fn forget(&mut self, server: &ServerName) {
        self.readings.remove(server);
        self.verdict.off.remove(server);
        self.unchecked.remove(server);
    }

    /// The result of the last comparison with `server`.
    fn last(&self, server: &ServerName) -> pb::CompareClockRequest {
        let reading = self.readings.get(server);
        let own_ms = self.verdict.own_ahead_ms.unwrap_or_default();
        pb::CompareClockRequest {
            master_epoch: 0,
            ahead_ms: reading.map_or(0, |reading| reading.middle_ms().saturating_add(own_ms)),
            is_off: self.verdict.off.contains(server),
            compared_wall_ms: reading.map_or(0, |reading| reading.wall_ms),
        }
    }

    /// Records a reading. Returns whether the set of servers that may get regions has changed.
    fn take_in(&mut self, server: &ServerName, reading: Reading, bound_ms: i64) -> bool {
        self.readings.insert(server.clone(), reading);
        let was_unchecked = self.unchecked.remove(server);
        let verdict = judge(&self.readings, bound_ms);
        if verdict.own_ahead_ms.is_some() != self.verdict.own_ahead_ms.is_some() {
            match verdict.own_ahead_ms {
                Some(ahead_ms) => tracing::error!(
                    ahead_ms,
                    bound_ms,
                    "the clock of this master is off: most region servers agree on another time"
                ),
                None => tracing::info!("the clock of this master agrees with the servers again"),
            }
        }
        let has_changed = was_unchecked || verdict.off != self.verdict.off;
        self.verdict = verdict;
        has_changed
    }
}

/// Decides whose clock is off. The master's clock is the reference, unless a majority of all clocks
/// agree on another time.
fn judge(readings: &BTreeMap<ServerName, Reading>, bound_ms: i64) -> Verdict {
    let off_from = |reference_ms: i64| {
        let off = readings.iter().filter(|(_, one)| one.is_off(reference_ms, bound_ms));
        off.map(|(server, _)| server.clone()).collect::<BTreeSet<_>>()
    };
    let off = off_from(0);
    let mut middles: Vec<i64> = readings.values().map(|one| one.middle_ms()).collect();
    middles.sort_unstable();
    let Some(&median_ms) = middles.get(middles.len() / 2) else { return Verdict::default() };
    let off_from_median = off_from(median_ms);
    let agree = readings.len() - off_from_median.len();
    // The master's clock counts as one more than those of the servers.
    if median_ms.abs() > bound_ms && agree * 2 > readings.len() + 1 {
        return Verdict { off: off_from_median, own_ahead_ms: Some(-median_ms) };
    }
    Verdict { off, own_ahead_ms: None }
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
    let (asked_at, asked_ms) = (term.clock.boot_time(), signed(term.clock.wall_ms()));
    let limit = term.timers.connect_timeout * 2;
    let reply = client.compare_clock(orders::within(limit, request)).await?;
    let wall_ms = reply.into_inner().wall_ms;
    let server_ms = signed(wall_ms);
    // Measured by the boot clock, because the wall clock may be set meanwhile.
    let took = term.clock.boot_time().saturating_sub(asked_at);
    let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    let most_ms = server_ms.saturating_sub(asked_ms);
    let reading = Reading { least_ms: most_ms.saturating_sub(took_ms), most_ms, wall_ms };
    let bound_ms = i64::try_from(term.timers.clock_bound.as_millis()).unwrap_or(i64::MAX);
    let (was_off, is_off, has_changed) = {
        let clocks = &mut term.facts.lock().clocks;
        let was_off = clocks.verdict.off.contains(server);
        let has_changed = clocks.take_in(server, reading, bound_ms);
        (was_off, clocks.verdict.off.contains(server), has_changed)
    };
    if is_off && !was_off {
        tracing::error!(
            %server, ahead_ms = reading.middle_ms(), bound_ms, server_ms, own_ms = asked_ms,
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

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;

    const DAY_MS: i64 = 86_400_000;

    fn reading(least_ms: i64, most_ms: i64) -> Reading {
        Reading { least_ms, most_ms, wall_ms: 7 }
    }

    /// The judgement over servers that are ahead by these amounts: which are off, and whether the
    /// master is.
    fn judged(ahead_ms: &[i64]) -> (Vec<usize>, bool) {
        let name = |index: usize| server(&format!("{index}"));
        let around = |ms: &i64| reading(ms - 5, ms + 5);
        let readings =
            ahead_ms.iter().enumerate().map(|(index, ms)| (name(index), around(ms))).collect();
        let verdict = judge(&readings, 1_000);
        let off = (0..ahead_ms.len()).filter(|index| verdict.off.contains(&name(*index)));
        (off.collect(), verdict.own_ahead_ms.is_some())
    }

    #[test]
    fn a_server_is_off_beyond_the_bound_in_either_direction() {
        assert_eq!(judged(&[]), (vec![], false));
        assert_eq!(judged(&[0, 900, -900]), (vec![], false));
        assert_eq!(judged(&[0, DAY_MS, -1_100]), (vec![1, 2], false));
        assert_eq!(judged(&[DAY_MS]), (vec![0], false), "of two clocks the master's counts");
    }

    #[test]
    fn a_master_that_most_servers_contradict_is_off_itself() {
        assert_eq!(judged(&[DAY_MS, DAY_MS + 300]), (vec![], true));
        assert_eq!(judged(&[-DAY_MS, -DAY_MS, 0]), (vec![0, 1], false), "two against two");
        assert_eq!(judged(&[-DAY_MS, -DAY_MS, -DAY_MS, 0]), (vec![3], true));
        assert_eq!(judged(&[DAY_MS, -DAY_MS, 2 * DAY_MS]), (vec![0, 1, 2], false), "no majority");
    }

    #[test]
    fn a_slow_answer_makes_no_clock_wrong() {
        let slow = reading(-4_000, 900);
        assert!(!slow.is_off(0, 1_000));
        assert!(reading(1_001, 9_000).is_off(0, 1_000));
        assert!(reading(-9_000, -1_001).is_off(0, 1_000));
    }

    #[test]
    fn a_server_gets_no_regions_before_its_clock_was_compared() {
        let (mut clocks, a) = (Clocks::default(), server("a"));
        clocks.expect(&a);
        assert_eq!(clocks.unfit().collect::<Vec<_>>(), [&a]);
        assert_eq!(clocks.last(&a).compared_wall_ms, 0);
        let right = reading(0, 4);
        assert!(clocks.take_in(&a, right, 1_000));
        assert_eq!(clocks.unfit().count(), 0);
        assert!(!clocks.take_in(&a, right, 1_000));
        assert!(clocks.take_in(&a, reading(5_000, 5_004), 1_000));
        assert_eq!(clocks.unfit().collect::<Vec<_>>(), [&a]);
        assert!(clocks.last(&a).is_off && clocks.last(&a).compared_wall_ms == 7);
        clocks.forget(&a);
        assert_eq!(clocks.unfit().count(), 0);
    }
}
