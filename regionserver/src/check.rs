//! Compares a region with its record, when the master finds that the regions this server reports
//! differ from those on record.
//!
//! Only the record itself counts. It is read from the coordinator and not from a copy, while no
//! task opens or closes the region here. A region is given up only if its record shows a later
//! owner or no longer exists. A region that is on record as open here but is not served is given
//! back to the master if our log holds no edit of that ownership. If the log may hold edits, only
//! its recovery brings them to the next owner, so the server ends.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::{RegionRecord, pb};
use basalt_model::{EncodedRegionName, RegionEpoch, RegionState, ServerName};

use crate::closing;
use crate::server::Server;
use crate::transitions::Purpose;

/// How long to wait for an opening or a closing in progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// The result of the comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Finding {
    /// It matches, or a transition is in progress.
    AsRecorded,
    /// It is served although that ownership has ended.
    Outdated,
    /// It is on record as open here but is not served.
    Unserved(RegionEpoch),
}

/// Compares a region with its record, and repairs what can be repaired here.
pub(crate) async fn check_region(server: &Arc<Server>, encoded_name: String) -> pb::RegionCheck {
    let (verdict, failure) = match encoded_name.parse::<EncodedRegionName>() {
        Ok(name) => match check(server, name).await {
            Ok(verdict) => (verdict, String::new()),
            Err(failure) => (pb::RegionVerdict::Failed, failure),
        },
        Err(error) => (pb::RegionVerdict::Failed, error.to_string()),
    };
    pb::RegionCheck { encoded_name, verdict: verdict.into(), failure }
}

async fn check(server: &Arc<Server>, name: EncodedRegionName) -> Result<pb::RegionVerdict, String> {
    let transition = server.transitions.begin(name, Purpose::Check, PATIENCE).await;
    let Some(transition) = transition else { return Ok(pb::RegionVerdict::UnderWay) };
    let on_record = server.newest_region(name).await.map_err(|error| error.to_string())?;
    let record = on_record.as_ref().map(|on_record| &on_record.record);
    let served = server.region(name);
    let epoch = served.as_ref().map(|served| served.region.epoch);
    match (compare(&server.name, epoch, record), served) {
        (Finding::Outdated, Some(served)) => {
            closing::let_go(server, &served, record)?;
            Ok(pb::RegionVerdict::LetGo)
        }
        (Finding::Unserved(epoch), _) if server.transitions.is_without_edits(name, epoch) => {
            transition.give_up(epoch);
            Ok(pb::RegionVerdict::WithoutEdits)
        }
        (Finding::Unserved(epoch), _) => {
            let reason = format!(
                "region {name} is recorded as open here under epoch {epoch} but is not served, and \
                 the log may hold its edits"
            );
            server.end(&reason);
            Err(reason)
        }
        _ => Ok(pb::RegionVerdict::AsRecorded),
    }
}

/// Compares the epoch under which `own` serves a region, if it does, with the region's record.
fn compare(
    own: &ServerName,
    served: Option<RegionEpoch>,
    record: Option<&RegionRecord>,
) -> Finding {
    match (served, record) {
        (Some(_), None) => Finding::Outdated,
        (Some(epoch), Some(record)) if record.epoch > epoch => Finding::Outdated,
        (None, Some(record))
            if record.state == RegionState::Open && record.server.as_ref() == Some(own) =>
        {
            Finding::Unserved(record.epoch)
        }
        _ => Finding::AsRecorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::RegionInfo;
    use bytes::Bytes;

    fn server(name: &str) -> ServerName {
        format!("{name},16020,1").parse().unwrap()
    }

    fn record(owner: &str, epoch: u64, state: RegionState) -> RegionRecord {
        let info = RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
        let record = RegionRecord::new(info).assigned_to(server(owner));
        RegionRecord { epoch: RegionEpoch(epoch), state, ..record }
    }

    #[test]
    fn a_region_is_let_go_only_if_its_record_shows_a_later_owner_or_is_gone() {
        let own = server("a");
        let serving =
            |record: Option<RegionRecord>| compare(&own, Some(RegionEpoch(5)), record.as_ref());
        assert_eq!(serving(None), Finding::Outdated);
        for state in [RegionState::Opening, RegionState::Open, RegionState::Closing] {
            assert_eq!(serving(Some(record("b", 6, state))), Finding::Outdated);
            assert_eq!(serving(Some(record("a", 6, state))), Finding::Outdated);
            assert_eq!(serving(Some(record("a", 5, state))), Finding::AsRecorded);
            assert_eq!(serving(Some(record("b", 4, state))), Finding::AsRecorded, "an old copy");
        }
    }

    #[test]
    fn a_region_that_is_open_here_and_nowhere_served_is_found() {
        let own = server("a");
        let not_serving = |record: &RegionRecord| compare(&own, None, Some(record));
        let open = record("a", 5, RegionState::Open);
        assert_eq!(not_serving(&open), Finding::Unserved(RegionEpoch(5)));
        assert_eq!(not_serving(&record("b", 5, RegionState::Open)), Finding::AsRecorded);
        for state in [RegionState::Opening, RegionState::Closing, RegionState::Closed] {
            assert_eq!(not_serving(&record("a", 5, state)), Finding::AsRecorded);
        }
        assert_eq!(compare(&own, None, None), Finding::AsRecorded);
    }
}
