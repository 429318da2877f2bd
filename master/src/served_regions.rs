//! Anti-entropy: compares the regions that region servers serve with the records.
//!
//! Each server reports once a second what it serves. If a server does not serve a region that it
//! owns according to the records, or serves one that it does not own, the master asks that server
//! to check the region. Only the server knows which regions it is working on, and only the record
//! decides. A region that the server then gives up is opened again by its owner, under a higher
//! epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_cluster::served::ServedRegions;
use basalt_model::{EncodedRegionName, RegionState, ServerName};
use basalt_planted::{Rule, is_off};
use futures::StreamExt;
use tonic::{Response, Status};

use crate::error::StepError;
use crate::metrics;
use crate::orders::{self, OrdersClient};
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// The interval between comparisons of the reports with the records.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a server may take to reply.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of regions in one request to check.
const CHECKS_MAX: usize = 256;
/// How many servers are asked at once.
const SERVERS_AT_ONCE: usize = 16;

/// The reports of the servers. Their size is bounded by the numbers of live servers and their
/// regions.
#[derive(Debug, Default)]
pub(crate) struct Reports(BTreeMap<ServerName, Report>);

#[derive(Clone, Debug, Default)]
struct Report {
    served: ServedRegions,
    /// Whether the known set has the server's digest. `None` before the first complete report.
    agrees: Option<bool>,
}

/// A request to a server.
#[derive(Debug, Eq, PartialEq)]
enum Question {
    /// Send all served regions, because the known set differs from the server's.
    All,
    /// Check these regions.
    Check(Vec<EncodedRegionName>),
}

// === impl Reports ===

impl Reports {
    /// A new stream to `server` has begun. Its first report contains all regions.
    pub(crate) fn begin(&mut self, server: &ServerName) {
        self.0.insert(server.clone(), Report::default());
    }

    /// Records a report of `server` on the stream.
    pub(crate) fn take_in(&mut self, server: &ServerName, message: &pb::ServedReport) {
        let report = self.0.entry(server.clone()).or_default();
        if let Some(agrees) = report.served.take_in(message) {
            report.agrees = Some(agrees);
        }
    }

    /// Records the complete set of a server.
    fn replace(&mut self, server: &ServerName, served: ServedRegions) {
        self.0.insert(server.clone(), Report { served, agrees: Some(true) });
    }

    fn keep(&mut self, is_server: impl Fn(&ServerName) -> bool) {
        self.0.retain(|server, _| is_server(server));
    }
}

/// Compares reports and records until the term is over.
pub(crate) async fn run(term: Arc<Term>) {
    if is_off(Rule::AntiEntropy) {
        return;
    }
    let mut suspects = Suspects::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let view = term.views.now();
        let reports = {
            let mut reports = term.reports.lock();
            reports.keep(|server| view.lives(server));
            reports.0.clone()
        };
        let claimed = term.claims.all();
        let (questions, found) = questions(&view, &reports, &suspects, &claimed);
        suspects = found;
        let asking = questions.into_iter().map(|(server, question)| {
            let term = Arc::clone(&term);
            async move { ask(&term, &server, question).await }
        });
        let asking: Vec<_> = asking.collect();
        futures::stream::iter(asking).for_each_concurrent(SERVERS_AT_ONCE, |asked| asked).await;
    }
}

/// The regions of each server that differ from their records.
type Suspects = BTreeMap<ServerName, BTreeSet<EncodedRegionName>>;

/// The requests to send, and the differences found. A server is asked only about differences that
/// were also found last time, because reports and records arrive by different paths and seldom show
/// the same moment.
fn questions(
    view: &View,
    reports: &BTreeMap<ServerName, Report>,
    before: &Suspects,
    claimed: &BTreeSet<EncodedRegionName>,
) -> (Vec<(ServerName, Question)>, Suspects) {
    let mut questions = Vec::new();
    let mut found = Suspects::new();
    for (server, report) in reports {
        match report.agrees {
            None => continue,
            Some(false) => questions.push((server.clone(), Question::All)),
            Some(true) => {
                found.insert(server.clone(), differences(view, server, &report.served));
            }
        }
    }
    for (server, regions) in &found {
        let Some(before) = before.get(server) else { continue };
        let lasting = regions.intersection(before).filter(|name| !claimed.contains(*name));
        let lasting: Vec<_> = lasting.take(CHECKS_MAX).copied().collect();
        if !lasting.is_empty() {
            questions.push((server.clone(), Question::Check(lasting)));
        }
    }
    (questions, found)
}

/// The regions that `server` serves but should not, or should serve but does not.
fn differences(
    view: &View,
    server: &ServerName,
    served: &ServedRegions,
) -> BTreeSet<EncodedRegionName> {
    let unserved = view.owned_by(server).filter(|region| {
        let record = &region.record;
        let served = served.epoch(record.encoded_name());
        record.state == RegionState::Open && served != Some(record.epoch)
    });
    let unserved = unserved.map(|region| region.record.encoded_name());
    let outdated = served.iter().filter(|(name, epoch)| match view.regions.get(name) {
        None => true,
        // If the view has an older epoch, it lags behind.
        Some(region) => {
            region.record.epoch > *epoch
                || (region.record.epoch == *epoch && region.record.server.as_ref() != Some(server))
        }
    });
    unserved.chain(outdated.map(|(name, _)| name)).collect()
}

async fn ask(term: &Arc<Term>, server: &ServerName, question: Question) {
    match question {
        Question::All => {
            let request = pb::ReportRegionsRequest {
                master_epoch: term.store.epoch().0,
                server_name: server.to_string(),
            };
            let reply = term.order(server, async move |mut client: OrdersClient| {
                client.report_regions(orders::within(ANSWER_TIMEOUT, request)).await
            });
            if let Some(reply) = reply.await {
                tracing::info!(
                    %server,
                    "a server's reports had a gap; fetched all of its regions"
                );
                term.reports.lock().replace(server, ServedRegions::from_messages(&reply.served));
            }
        }
        Question::Check(names) => check(term, server, names).await,
    }
}

async fn check(term: &Arc<Term>, server: &ServerName, names: Vec<EncodedRegionName>) {
    tracing::warn!(%server, regions = names.len(), "regions are not served as recorded");
    let request = pb::CheckRegionsRequest {
        master_epoch: term.store.epoch().0,
        server_name: server.to_string(),
        encoded_names: names.iter().map(ToString::to_string).collect(),
    };
    let reply = term.order(server, async move |mut client: OrdersClient| {
        client.check_regions(orders::within(ANSWER_TIMEOUT, request)).await
    });
    let Some(reply) = reply.await else { return };
    let mut given_back = Vec::new();
    for check in reply.checks {
        let (region, verdict) = (&check.encoded_name, check.verdict());
        tracing::warn!(%server, region, ?verdict, failure = check.failure, "checked");
        metrics::region_checked(verdict);
        if let (pb::RegionVerdict::WithoutEdits, Ok(name)) = (verdict, region.parse()) {
            given_back.push(name);
        }
    }
    if !given_back.is_empty() {
        let (opening, server) = (Arc::clone(term), server.clone());
        let claim = term.claims.claim(given_back.iter().copied());
        // In a task of its own, so that the other servers do not wait.
        term.spawn(async move {
            let _claim = claim;
            if let Err(error) = opening.open_again(&server, given_back).await {
                tracing::warn!(%server, %error, "regions were not opened again; retrying");
            }
        });
    }
}

// === impl Term ===

impl Term {
    /// Sends an order to `server`. Returns `None` if its outcome is unknown.
    async fn order<T>(
        &self,
        server: &ServerName,
        give: impl AsyncFnOnce(OrdersClient) -> Result<Response<T>, Status>,
    ) -> Option<T> {
        let address = self.views.servers().get(server)?.peer_address.clone();
        let client = self.orders.client(server, &address).ok()?;
        let reply = tokio::select! {
            biased;
            reply = give(client) => reply,
            () = self.views.death_of(server) => return None,
        };
        match reply {
            Ok(reply) => Some(reply.into_inner()),
            Err(status) => {
                if orders::is_deposed(&status) {
                    self.store.verify().await;
                }
                tracing::warn!(
                    %server,
                    status = orders::lost(&status),
                    "the outcome of a check order is unknown"
                );
                None
            }
        }
    }

    /// Reopens regions under a higher epoch that `server` owns on record and has given up, because
    /// its log holds no edits of them. They stay on that server; the balancer may move them later.
    async fn open_again(
        &self,
        server: &ServerName,
        names: Vec<EncodedRegionName>,
    ) -> Result<(), StepError> {
        self.read_regions(names.iter().copied()).await?;
        let writes = plan_again(&self.views.now(), server, &names);
        let written = self.write_regions(writes).await?;
        self.open(written).await
    }
}

/// The records with which `server` reopens those of `names` that are open on it according to the
/// records.
fn plan_again(view: &View, server: &ServerName, names: &[EncodedRegionName]) -> Vec<RegionWrite> {
    let regions = names.iter().filter_map(|name| view.regions.get(name));
    let given_back = regions.filter(|region| {
        let record = &region.record;
        record.state == RegionState::Open
            && record.server.as_ref() == Some(server)
            && view.is_to_be_served(&record.info.table)
    });
    given_back
        .map(|region| RegionWrite::over(region, region.record.assigned_to(server.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_of, server, view};
    use basalt_model::{RegionEpoch, TableState};

    /// The regions that `name` serves if it serves exactly what is on record.
    fn served(view: &View, name: &str) -> ServedRegions {
        let owner = server(name);
        let owned = view.owned_by(&owner);
        owned.map(|region| (region.record.encoded_name(), region.record.epoch)).collect()
    }

    fn report(served: &ServedRegions) -> Report {
        Report { served: served.clone(), agrees: Some(true) }
    }

    #[test]
    fn what_is_served_as_it_is_on_record_is_left_alone() {
        let view = view(&["a", "b"], 6);
        let reports: BTreeMap<_, _> =
            ["a", "b"].map(|name| (server(name), report(&served(&view, name)))).into();
        let (asked, found) = questions(&view, &reports, &Suspects::new(), &BTreeSet::new());
        assert!(asked.is_empty() && found.values().all(BTreeSet::is_empty));
    }

    #[test]
    fn a_region_is_asked_about_when_it_was_found_twice_and_nobody_is_at_work_on_it() {
        let view = view(&["a"], 3);
        let name = *view.regions.keys().next().unwrap();
        let without = served(&view, "a").iter().filter(|(other, _)| *other != name).collect();
        let reports = [(server("a"), report(&without))].into();
        let nobody = BTreeSet::new();
        let (asked, found) = questions(&view, &reports, &Suspects::new(), &nobody);
        assert_eq!(asked, [], "the first time it may be on its way");
        let (asked, again) = questions(&view, &reports, &found, &nobody);
        assert_eq!(asked, [(server("a"), Question::Check(vec![name]))]);
        let (asked, _) = questions(&view, &reports, &again, &[name].into());
        assert_eq!(asked, [], "somebody is at work on it");
    }

    #[test]
    fn what_is_served_under_another_epoch_or_by_another_server_is_found() {
        let mut view = view(&["a", "b"], 4);
        let serves = served(&view, "a");
        let names: Vec<_> = serves.iter().map(|(name, _)| name).collect();
        let record = record_of(&mut view, &names[0]);
        *record = record.assigned_to(server("b"));
        assert_eq!(differences(&view, &server("a"), &serves), [names[0]].into());
        record_of(&mut view, &names[0]).epoch = RegionEpoch(0);
        assert_eq!(differences(&view, &server("a"), &serves), BTreeSet::new(), "an old view");
        view.regions.remove(&names[1]);
        assert_eq!(differences(&view, &server("a"), &serves), [names[1]].into());
    }

    #[test]
    fn who_has_another_digest_is_asked_for_all() {
        let view = view(&["a"], 2);
        let mut reports = Reports::default();
        reports.begin(&server("a"));
        let whole = served(&view, "a").report_since(&ServedRegions::default());
        let quiet = questions(&view, &reports.0, &Suspects::new(), &BTreeSet::new());
        assert_eq!(quiet.0, [], "nothing is known before its first report");
        let torn = pb::ServedReport { begun: Vec::new(), ..whole[0].clone() };
        reports.take_in(&server("a"), &torn);
        let (asked, _) = questions(&view, &reports.0, &Suspects::new(), &BTreeSet::new());
        assert_eq!(asked, [(server("a"), Question::All)]);
        reports.replace(&server("a"), served(&view, "a"));
        let (asked, _) = questions(&view, &reports.0, &Suspects::new(), &BTreeSet::new());
        assert_eq!(asked, []);
    }

    #[test]
    fn a_region_that_was_given_back_stays_with_its_owner_under_a_higher_epoch() {
        let mut view = view(&["a", "b"], 4);
        let names: Vec<_> = served(&view, "a").iter().map(|(name, _)| name).collect();
        record_of(&mut view, &names[1]).state = RegionState::Closing;
        let writes = plan_again(&view, &server("a"), &names);
        assert_eq!(writes.len(), 1, "the other one is being closed");
        assert_eq!(writes[0].record.server, Some(server("a")));
        assert_eq!(writes[0].record.state, RegionState::Opening);
        assert_eq!(writes[0].record.epoch, view.regions[&names[0]].record.epoch.next());
        view.tables.values_mut().for_each(|table| table.record.state = TableState::Disabling);
        assert_eq!(plan_again(&view, &server("a"), &names), []);
    }
}
