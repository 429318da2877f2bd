//! Recovers the regions of a dead server: fence → split → assign → open.
//!
//! Until the regions have new owners, the procedure records only the sealed lengths. A new active
//! master starts the recovery again and finds what is already done: the committed sealed lengths,
//! the split indexes beside the logs, and the regions that already have another owner. Any further
//! write would prolong the time for which the regions are unavailable.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_cluster::catalog::SharedRegion;
use basalt_failpoint::{Point, reached};
use basalt_fs::NodeSuspicion;
use basalt_model::{RegionState, ServerName};
use basalt_zk::Op;
use prost::Message;

use super::record::{Procedure, Recovery, RecoveryStep, Work};
use super::{fence, reassign, split};
use crate::balancer::Loads;
use crate::error::StepError;
use crate::term::Term;
use crate::views::Views;
use crate::{epoch_guarded_store, metrics};

/// How long to wait for a region server before the recovery is planned again.
const SERVER_WAIT: Duration = Duration::from_millis(500);
/// How long to wait for regions to open that an earlier master assigned.
const OPEN_WAIT: Duration = Duration::from_secs(1);

/// Runs recovery `id` to its end. Returns the write of its report.
pub(super) async fn run(term: &Term, id: u64) -> Result<Vec<Op>, StepError> {
    let Some((procedure, mut recovery)) = read(term, id) else { return Ok(Vec::new()) };
    if let Some(node) = term.places().node_of(&recovery.server) {
        // The machine may have failed together with the process. Each order passes this on.
        term.files.exclude_node(node, NodeSuspicion::MayBeGone);
    }
    let mut assigned_ms = procedure.updated_ms;
    if recovery.step == RecoveryStep::Detected {
        // Claim the regions before they have an owner, so that the reconciler does not order them
        // too.
        let view = term.views.now();
        let owned = view.owned_by(&recovery.server);
        let _claim = term.claims.claim(owned.map(|region| region.record.encoded_name()));
        let regions = recover(term, procedure.updated_ms, &mut recovery).await?;
        assigned_ms = term.clock.wall_ms();
        let next = Procedure {
            updated_ms: assigned_ms,
            work: Work::RecoverServer(recovery.clone()),
            ..procedure
        };
        // Saved while the regions open, because they need not wait for the write.
        let saved = term.procedure_store.update(&term.store, id, next, Vec::new());
        let (saved, opened) = tokio::join!(saved, term.open(regions));
        saved?;
        opened?;
        reached(Point::AssignOpened).await;
    }
    wait_until_settled(term, &recovery).await?;
    let replay_ms = term.clock.wall_ms().saturating_sub(assigned_ms);
    Ok(report(term, id, &recovery, replay_ms))
}

/// Fences the server, has its logs split, and assigns its regions to other owners. Returns the
/// regions to open.
async fn recover(
    term: &Term,
    detected_ms: u64,
    recovery: &mut Recovery,
) -> Result<Vec<SharedRegion>, StepError> {
    // This time may come from the clock of another master.
    let mut phase_began_ms = detected_ms;
    let mut phase_ms = || {
        let now_ms = term.clock.wall_ms();
        now_ms.saturating_sub(std::mem::replace(&mut phase_began_ms, now_ms))
    };
    let logs = fence::fence(term, recovery).await?;
    recovery.wal_bytes = logs.iter().map(|log| log.sealed_length).sum();
    recovery.fence_ms = phase_ms();
    log_step(recovery, "fenced");
    let findings = split::split(term, &recovery.server, &logs).await?;
    reached(Point::SplitDone).await;
    recovery.split_ms = phase_ms();
    log_step(recovery, "split");
    let regions = assign(term, &recovery.server, &findings.regions).await?;
    recovery.regions = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    recovery.assign_ms = phase_ms();
    recovery.step = RecoveryStep::Assigned;
    log_step(recovery, "assigned");
    Ok(regions)
}

fn read(term: &Term, id: u64) -> Option<(Procedure, Recovery)> {
    let procedure = term.procedure_store.get(id)?;
    match &procedure.work {
        Work::RecoverServer(recovery) => Some((procedure.clone(), recovery.clone())),
        _ => None,
    }
}

/// Assigns each region of the dead server to another owner. Returns the regions to open.
async fn assign(
    term: &Term,
    dead: &ServerName,
    regions_with_edits: &BTreeSet<[u8; 16]>,
) -> Result<Vec<SharedRegion>, StepError> {
    let mut given = Vec::new();
    loop {
        term.settle().await;
        let turn = term.planning.lock().await;
        let view = term.views.now();
        let loads = Loads::of(&view, &term.draining());
        let plan = reassign::plan(&view, dead, regions_with_edits, loads, &term.places());
        if plan.writes.is_empty() && plan.waiting == 0 {
            return Ok(given);
        }
        if plan.writes.is_empty() {
            drop(turn);
            tracing::warn!(
                server = %dead,
                regions = plan.waiting,
                "no region server can take over the regions"
            );
            let has_taker = |views: &Views| !Loads::of(&views.now(), &term.draining()).is_empty();
            term.views.until(SERVER_WAIT, has_taker).await;
            continue;
        }
        reached(Point::AssignPlanned).await;
        let written = term.write_regions(plan.writes).await?;
        reached(Point::AssignRecorded).await;
        let opening = |region: &SharedRegion| region.record.state == RegionState::Opening;
        given.extend(written.into_iter().filter(opening));
    }
}

/// Waits until none of the regions that need the dead server's logs is still opening on a live
/// server. If a new owner dies, that server's own recovery brings its regions back.
async fn wait_until_settled(term: &Term, recovery: &Recovery) -> Result<(), StepError> {
    let opening = || {
        let view = term.views.now();
        let opening = view.regions.values().filter(|region| {
            let record = &region.record;
            record.state == RegionState::Opening
                && record.unflushed.contains(&recovery.server)
                && record.server.as_ref().is_some_and(|owner| view.lives(owner))
        });
        opening.count()
    };
    if term.views.until(OPEN_WAIT, |_| opening() == 0).await {
        return Ok(());
    }
    Err(StepError::NotYet(format!("{} regions are not open yet", opening())))
}

fn log_step(recovery: &Recovery, step: &'static str) {
    tracing::info!(
        server = %recovery.server,
        step,
        wal_bytes = recovery.wal_bytes,
        fence_ms = recovery.fence_ms,
        split_ms = recovery.split_ms,
        assign_ms = recovery.assign_ms,
        "recovery"
    );
}

/// The write of the recovery's report. None if there was nothing to recover.
fn report(term: &Term, id: u64, recovery: &Recovery, replay_ms: u64) -> Vec<Op> {
    let report = recovery.report(Some((replay_ms, term.clock.wall_ms())));
    tracing::info!(
        server = %recovery.server,
        cause = recovery.cause,
        regions = recovery.regions,
        wal_bytes = recovery.wal_bytes,
        detect_ms = recovery.detect_ms,
        fence_ms = recovery.fence_ms,
        split_ms = recovery.split_ms,
        assign_ms = recovery.assign_ms,
        replay_ms,
        total_ms = report.total_ms,
        "recovered"
    );
    metrics::recovered(&report);
    term.facts.lock().remember(id, report.clone());
    if recovery.regions == 0 {
        return Vec::new();
    }
    let path = term.store.nodes().recovery(id);
    vec![epoch_guarded_store::create(path, report.encode_to_vec().into())]
}
