//! Closes regions, on a master's orders or because this server stops.

use std::sync::Arc;

use basalt_cluster::{RegionRecord, pb};
use basalt_model::{EncodedRegionName, RegionEpoch, RegionState};
use basalt_planted::{Rule, is_off};
use tracing::{error, info};

use crate::server::{Served, Server};
use crate::transitions::{Purpose, Transition};

/// Carries out a master's order to close a region.
pub(crate) async fn close_region(
    server: &Arc<Server>,
    order: pb::CloseRegion,
) -> pb::RegionOutcome {
    let encoded_name = order.encoded_name.clone();
    let closed = match order.encoded_name.parse::<EncodedRegionName>() {
        Ok(name) => close_ordered(server, name, RegionEpoch(order.epoch)).await,
        Err(error) => Err(error.to_string()),
    };
    let failure = closed.err().unwrap_or_default();
    pb::RegionOutcome { encoded_name, failure, ..Default::default() }
}

async fn close_ordered(
    server: &Arc<Server>,
    name: EncodedRegionName,
    epoch: RegionEpoch,
) -> Result<(), String> {
    // An opening in progress would end up serving the region if this did not wait for it.
    let transition = begin(server, name).await?;
    let Some(served) = server.region(name) else { return Ok(()) };
    if served.region.epoch > epoch {
        // The order is late: that ownership has ended.
        return Ok(());
    }
    let is_to_close = |record: &RegionRecord| {
        record.epoch == epoch
            && record.server.as_ref() == Some(&server.name)
            && matches!(record.state, RegionState::Closing | RegionState::Closed)
    };
    let on_record = server.region_on_record(name, is_to_close).await;
    let on_record = on_record.map_err(|error| error.to_string())?;
    if served.region.epoch < epoch {
        return let_go(server, &served, Some(&on_record.record));
    }
    close(server, &served, &transition).await
}

/// Begins to close a region once other transitions of it have ended.
pub(crate) async fn begin(
    server: &Arc<Server>,
    name: EncodedRegionName,
) -> Result<Transition, String> {
    let begun = server.begin(name, Purpose::Close).await;
    begun.ok_or_else(|| "it is still being opened or closed by an earlier order".to_owned())
}

/// Flushes and closes a region, and puts that on record. If the flush fails, the region stays in
/// service.
pub(crate) async fn close(
    server: &Server,
    served: &Arc<Served>,
    transition: &Transition,
) -> Result<(), String> {
    let region = &served.region;
    // Most of the memstore is flushed while edits are still accepted. As flushes take turns, this
    // also keeps two closes from reaching their last flush at the same time.
    if !is_off(Rule::OneCloseAtATime) {
        region.flush().await.map_err(|error| error.to_string())?;
    }
    let closing = region.begin_close().ok_or("it is already being closed")?;
    let ended = closing.finish(|| server.end_serving(served)).await;
    ended.map_err(|error| error.to_string())?;
    transition.holds_no_edits(region.epoch);
    info!(region = %region.info, "closed");
    served.ownership.closed().await.map_err(|error| error.to_string())
}

/// Ends an ownership that is over: the coordinator's `record` of the region shows a higher epoch,
/// or there is no record.
///
/// # Errors
/// The record assigns the region to this server again, and edits of it are only in memory and in
/// our log. The server then ends itself, so that recovery replays them for the region's next owner.
pub(crate) fn let_go(
    server: &Server,
    served: &Arc<Served>,
    record: Option<&RegionRecord>,
) -> Result<(), String> {
    let region = &served.region;
    let (epoch, bytes) = (region.epoch, region.memstore_bytes());
    let is_ours_again = record.is_some_and(|record| record.is_owned_by(&server.name));
    if let Err(bytes) = region.end(is_ours_again, || server.end_serving(served)) {
        let reason = format!(
            "region {} is served under epoch {epoch} with {bytes} unflushed bytes, but has been \
             given to this server again",
            region.encoded_name
        );
        server.end(&reason);
        return Err(reason);
    }
    error!(
        region = %region.info, %epoch, bytes,
        "stopped serving a region: its record shows a later owner or is gone"
    );
    Ok(())
}
