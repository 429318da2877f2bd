//! Reports the served regions to the master: once a second the changes, and a digest of the whole
//! set.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_cluster::served::ServedRegions;
use futures::Stream;
use tokio::time::{Interval, MissedTickBehavior};

use crate::server::Server;

/// How often the regions are reported.
const INTERVAL: Duration = Duration::from_secs(1);

/// The pending reports of one stream.
struct Reporter {
    server: Arc<Server>,
    ticks: Interval,
    reported: ServedRegions,
    queue: VecDeque<pb::ServedReport>,
}

/// The reports on one stream. The first report names all regions. Never ends.
pub(crate) fn reports(server: Arc<Server>) -> impl Stream<Item = pb::Alive> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reported = ServedRegions::default();
    let reporter = Reporter { server, ticks, reported, queue: VecDeque::new() };
    futures::stream::unfold(reporter, |mut reporter| async move {
        let word = reporter.next().await;
        Some((word, reporter))
    })
}

// === impl Reporter ===

impl Reporter {
    async fn next(&mut self) -> pb::Alive {
        loop {
            if let Some(report) = self.queue.pop_front() {
                let server_name = self.server.name.to_string();
                return pb::Alive { server_name, served: Some(report), ..Default::default() };
            }
            self.ticks.tick().await;
            let served = self.server.served();
            self.queue = served.report_since(&self.reported);
            self.reported = served;
        }
    }
}
