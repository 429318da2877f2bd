//! The metrics of a member, which `docs/metrics.md` lists. They show the same figures as `mntr`.
//! Where there is no recorder, as in tests and in the simulation, they are discarded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{counter, gauge};

use crate::member::Member;

/// How often the metrics are recorded.
const INTERVAL: Duration = Duration::from_secs(1);

/// Records the metrics of the member, until it is dropped.
pub(crate) async fn report(member: Arc<Member>) {
    loop {
        record(&member);
        tokio::time::sleep(INTERVAL).await;
    }
}

fn record(member: &Member) {
    let (nodes, ephemerals, sessions) = member
        .replica
        .read(|state, _| (state.node_count(), state.ephemeral_count(), state.sessions().count()));
    gauge!("basalt_coordinator_nodes").set(nodes as f64);
    gauge!("basalt_coordinator_ephemerals").set(ephemerals as f64);
    gauge!("basalt_coordinator_sessions").set(sessions as f64);
    gauge!("basalt_coordinator_watches").set(member.replica.watches.lock().counts().watches as f64);
    let connections = member.connection_count.load(Ordering::Relaxed);
    gauge!("basalt_coordinator_connections").set(connections as f64);
    gauge!("basalt_coordinator_outstanding").set(member.replica.proposals.count() as f64);
    gauge!("basalt_coordinator_queued_bytes").set(member.queued.queued_bytes() as f64);
    let differs = member.state_differs.load(Ordering::Relaxed);
    gauge!("basalt_coordinator_state_differs").set(f64::from(u8::from(differs)));
    let is_short = member.log.room().is_for_leases();
    gauge!("basalt_coordinator_short_of_room").set(f64::from(u8::from(is_short)));
    let is_used_up = member.log.room().is_used_up();
    gauge!("basalt_coordinator_out_of_room").set(f64::from(u8::from(is_used_up)));
    gauge!("basalt_coordinator_leader").set(f64::from(u8::from(member.leads())));
    gauge!("basalt_coordinator_serving").set(f64::from(u8::from(*member.serving.borrow())));
    gauge!("basalt_coordinator_term").set(member.leadership.borrow().term as f64);
    gauge!("basalt_coordinator_applied").set(member.replica.applied().0 as f64);
    let latency = &member.latency;
    counter!("basalt_coordinator_writes_total").absolute(latency.count.load(Ordering::Relaxed));
    let seconds = latency.total_us.load(Ordering::Relaxed) as f64 / 1_000_000.0;
    gauge!("basalt_coordinator_write_seconds_total").set(seconds);
}
