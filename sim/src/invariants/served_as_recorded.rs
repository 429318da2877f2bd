//! Regions are served as recorded. Once a server serves a region under a higher epoch, no other
//! server answers for it, and no other server renews its lease while it still serves the region. At
//! the end each region is served by its owner on record, under the epoch on record, and by no other
//! server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::RegionRecord;
use basalt_model::RegionState;

use super::Violation;
use crate::witness::WitnessEvent;

const INVARIANT: &str = "what is served is what is on record";
/// How far the clocks of two simulated machines may differ within one step of the simulation.
const STEP: Duration = Duration::from_millis(1);

/// The regions that each server serves with their epochs, by the server's name.
pub(crate) type ServedBy = BTreeMap<String, BTreeMap<String, u64>>;

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct ServedAsRecorded {
    served: ServedBy,
    /// The server of each process. A process that starts again is another server.
    servers: BTreeMap<Arc<str>, String>,
    /// The last process that began to serve a region under the highest epoch.
    newest: BTreeMap<String, Newest>,
    /// When each server last began to renew its lease.
    renewing: BTreeMap<String, Duration>,
}

#[derive(Debug)]
struct Newest {
    epoch: u64,
    process: Arc<str>,
    since: Duration,
}

// === impl ServedAsRecorded ===

impl ServedAsRecorded {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        match event.what.as_str() {
            "serves" => self.begins(event),
            "serves no more" => {
                let served = self.served.entry(event.server.clone()).or_default();
                served.remove(&event.region);
            }
            // The server checks its lease, and is about to answer for data that it read or logged.
            "answers" => return self.answers(event),
            "renews" => {
                self.renewing.insert(event.server.clone(), event.at);
            }
            // The server had not been declared dead.
            "renewed" => return self.renewed(event),
            _ => {}
        }
        None
    }

    /// The regions that each server reports as served, dead servers included.
    pub(crate) fn served(&self) -> &ServedBy {
        &self.served
    }

    fn begins(&mut self, event: &WitnessEvent) {
        self.servers.insert(Arc::clone(&event.process), event.server.clone());
        let served = self.served.entry(event.server.clone()).or_default();
        served.insert(event.region.clone(), event.epoch);
        if self.newest.get(&event.region).is_none_or(|known| known.epoch < event.epoch) {
            let process = Arc::clone(&event.process);
            let newest = Newest { epoch: event.epoch, process, since: event.at };
            self.newest.insert(event.region.clone(), newest);
        }
    }

    /// A server that no longer serves a region may still answer earlier requests.
    fn answers(&self, event: &WitnessEvent) -> Option<Violation> {
        let newest = self.newest.get(&event.region)?;
        let server = self.servers.get(&event.process)?;
        let serves = self.served.get(server)?.get(&event.region) == Some(&event.epoch);
        (serves && newest.passes_over(event.epoch, event.at)).then(|| {
            let by = format!("{} answers", event.process);
            newest.violation(&event.region, &by, event.epoch, event.at)
        })
    }

    fn renewed(&self, event: &WitnessEvent) -> Option<Violation> {
        let since = *self.renewing.get(&event.server)?;
        self.served.get(&event.server)?.iter().find_map(|(region, epoch)| {
            let newest = self.newest.get(region)?;
            newest.passes_over(*epoch, since).then(|| {
                let by = format!("{} renews its lease and serves it", event.server);
                newest.violation(region, &by, *epoch, since)
            })
        })
    }
}

// === impl Newest ===

impl Newest {
    /// Whether ownership under `epoch` had already been over for a while at the time `at`.
    fn passes_over(&self, epoch: u64, at: Duration) -> bool {
        epoch < self.epoch && at > self.since + STEP
    }

    fn violation(&self, region: &str, by: &str, under: u64, at: Duration) -> Violation {
        let Self { epoch, process, since } = self;
        let seen = format!(
            "region {region}: {by} under epoch {under} at {at:?}, but {process} serves it under \
             epoch {epoch} since {since:?}"
        );
        Violation::new(INVARIANT, seen)
    }
}

/// Compares the regions that the `living` servers serve with the records, at the end of a run.
pub(crate) fn check_served_as_recorded(
    records: &[RegionRecord],
    living: &[String],
    served: &ServedBy,
) -> Option<Violation> {
    let is_served = |server: &str, region: &str, epoch: u64| {
        served.get(server).and_then(|regions| regions.get(region)) == Some(&epoch)
    };
    for record in records {
        let (region, epoch) = (record.encoded_name().to_string(), record.epoch.0);
        let owner = record.server.as_ref().map(ToString::to_string).unwrap_or_default();
        let wrong = match record.state {
            RegionState::Closed => continue,
            RegionState::Open if !living.contains(&owner) => "its owner is dead",
            RegionState::Open if !is_served(&owner, &region, epoch) => {
                "its owner does not serve it"
            }
            RegionState::Open => continue,
            RegionState::Opening | RegionState::Closing => "it has come to no end",
        };
        let seen =
            format!("region {region} is {:?} at {owner} under {epoch}: {wrong}", record.state);
        return Some(Violation::new(INVARIANT, seen));
    }
    let on_record = |server: &str, region: &str, epoch: u64| {
        records.iter().any(|record| {
            record.state == RegionState::Open
                && record.epoch.0 == epoch
                && record.encoded_name().to_string() == region
                && record.server.as_ref().is_some_and(|owner| owner.to_string() == server)
        })
    };
    let living = served.iter().filter(|(server, _)| living.contains(server));
    for (server, regions) in living {
        for (region, epoch) in regions {
            if !on_record(server, region, *epoch) {
                let seen =
                    format!("{server} serves {region} under {epoch}, which is not on record");
                return Some(Violation::new(INVARIANT, seen));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{RegionEpoch, RegionInfo};
    use bytes::Bytes;

    fn event(what: &str, process: &str, epoch: u64, at_ms: u64) -> WitnessEvent {
        WitnessEvent {
            process: process.into(),
            server: format!("{process},1,1"),
            at: Duration::from_millis(at_ms),
            what: what.to_owned(),
            region: "r".to_owned(),
            epoch,
            ..WitnessEvent::default()
        }
    }

    #[test]
    fn a_server_that_goes_on_beside_the_next_owner_is_found() {
        let mut invariant = ServedAsRecorded::default();
        assert_eq!(invariant.check(&event("serves", "a", 1, 10)), None);
        assert_eq!(invariant.check(&event("answers", "a", 1, 20)), None);
        assert_eq!(invariant.check(&event("serves", "b", 2, 30)), None);
        assert_eq!(invariant.check(&event("answers", "b", 2, 40)), None);
        assert!(invariant.check(&event("answers", "a", 1, 40)).is_some());
        assert_eq!(invariant.check(&event("serves no more", "a", 1, 50)), None);
        assert_eq!(invariant.check(&event("answers", "a", 1, 51)), None, "it was asked before");
    }

    #[test]
    fn a_server_whose_lease_goes_on_has_let_go_of_what_others_serve() {
        let mut invariant = ServedAsRecorded::default();
        let mut check =
            |what, process, epoch, at| invariant.check(&event(what, process, epoch, at));
        assert_eq!(check("serves", "a", 1, 10), None);
        assert_eq!(check("renews", "a", 0, 20), None);
        assert_eq!(check("serves", "b", 2, 30), None);
        assert_eq!(check("renewed", "a", 0, 40), None, "it may have been declared dead since");
        assert_eq!(check("renews", "a", 0, 50), None);
        assert!(check("renewed", "a", 0, 60).is_some());
        assert_eq!(check("serves no more", "a", 1, 70), None);
        assert_eq!(check("renewed", "a", 0, 80), None);
    }

    #[test]
    fn at_the_end_each_region_is_served_by_its_owner_alone() {
        let info = RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
        let record = RegionRecord::new(info).assigned_to("a,1,1".parse().unwrap());
        let open = RegionRecord { state: RegionState::Open, ..record.clone() };
        let name = open.encoded_name().to_string();
        let serves = |server: &str, epoch: u64| -> ServedBy {
            [(server.to_owned(), [(name.clone(), epoch)].into())].into()
        };
        let living = ["a,1,1".to_owned(), "b,1,1".to_owned()];
        let check = |record: &RegionRecord, served: &ServedBy| {
            check_served_as_recorded(std::slice::from_ref(record), &living, served)
        };
        assert_eq!(check(&open, &serves("a,1,1", 1)), None);
        assert!(check(&open, &serves("a,1,1", 2)).is_some());
        assert!(check(&open, &ServedBy::new()).is_some());
        assert!(check(&record, &serves("a,1,1", 1)).is_some(), "still opening");
        let mut both = serves("a,1,1", 1);
        both.extend(serves("b,1,1", 1));
        assert!(check(&open, &both).is_some());
        let dead = RegionRecord { server: Some("c,1,1".parse().unwrap()), ..open.clone() };
        assert!(check(&dead, &serves("c,1,1", 1)).is_some());
        let closed =
            RegionRecord { state: RegionState::Closed, epoch: RegionEpoch(9), ..open.clone() };
        assert_eq!(check(&closed, &ServedBy::new()), None);
        assert!(check(&closed, &serves("a,1,1", 9)).is_some());
    }
}
