//! Compares the actual state with the desired state, and starts what is needed. The decisions are
//! pure.
//!
//! Runs after each change of the view, and periodically. It also finds everything that an earlier
//! master left half done, because that is visible in the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{EncodedRegionName, RegionState, ServerName, TableState};
use tokio::time::{Instant, timeout};

use crate::balancer::{self, Loads, Move};
use crate::block_locality::ClusterLocality;
use crate::client_nodes::choose_meta_server;
use crate::error::StepError;
use crate::liveness::{compare_clocks, hold_stream};
use crate::metrics;
use crate::term::{Term, TermState};
use crate::view::View;

/// The shortest time between two rounds, because changes come in bursts.
const LOOKS_APART: Duration = Duration::from_millis(5);
/// A server that started longer ago than this does not count as a newcomer when it is first seen.
const NEWCOMER_MS: u64 = 2_000;
/// The maximum number of regions in one plan of the balancer.
const BALANCE_MOVES_MAX: usize = 64;

/// State besides the view, on which decisions depend.
#[derive(Debug, Default)]
struct Known {
    /// Servers that have been seen alive, and whose end has not been dealt with.
    seen: BTreeSet<ServerName>,
    recovering: BTreeSet<ServerName>,
    claimed: BTreeSet<EncodedRegionName>,
    /// Regions whose move is decided, and may still wait for the lock of their table.
    moving: BTreeSet<EncodedRegionName>,
    /// Servers that must get no regions.
    draining: BTreeSet<ServerName>,
    /// Those of `draining` that keep their regions, because their clocks were not compared yet.
    unchecked: BTreeSet<ServerName>,
    places: Arc<ClusterLocality>,
    /// The balancer is switched on and due.
    is_time_to_balance: bool,
}

// === impl Known ===

impl Known {
    /// Whether regions may be balanced now. A region in transition counts for neither server, so a
    /// plan that is made meanwhile would send further regions after it.
    fn may_balance(&self) -> bool {
        self.is_time_to_balance
            && self.recovering.is_empty()
            && self.claimed.is_empty()
            && self.moving.is_empty()
    }

    /// Whether a region may be moved that the view shows at rest.
    fn may_move(&self, region: &EncodedRegionName) -> bool {
        !self.claimed.contains(region) && !self.moving.contains(region)
    }
}

/// The work to start.
#[derive(Debug, Default, Eq, PartialEq)]
struct Decisions {
    /// Servers that are gone and still own regions.
    recover: Vec<ServerName>,
    /// Servers that are gone and own no regions: they stopped cleanly.
    left: Vec<ServerName>,
    /// Closed regions that must be served.
    assign: Vec<EncodedRegionName>,
    /// Regions whose live owner must be ordered to open them, because an earlier order was not sent
    /// or was lost.
    open: Vec<EncodedRegionName>,
    /// Regions to move to another server.
    moves: Vec<Move>,
}

/// Runs until the term is over.
pub(crate) async fn run(term: Arc<Term>) {
    let mut changes = term.views.catalog().changes();
    let (mut streams, mut is_first_look) = (BTreeSet::new(), true);
    let mut balanced_at = Instant::now();
    let (mut takers, mut takers_since) = (BTreeSet::new(), Instant::now());
    let _active = metrics::ActiveTerm::begin(term.store.epoch().0);
    loop {
        changes.borrow_and_update();
        if term.views.catalog().master().map(|master| master.epoch) != Some(term.store.epoch().0) {
            // Another master may be active. A write shows for certain.
            term.store.verify().await;
        }
        let view = term.views.now();
        hold_streams(&term, &view, &mut streams, is_first_look);
        is_first_look = false;
        let mut known = known(&term);
        let takers_now: BTreeSet<ServerName> =
            balancer::takers(&view, &known.draining).map(|(name, _)| name.clone()).collect();
        if takers_now != takers {
            (takers, takers_since) = (takers_now, Instant::now());
        }
        let is_time = balanced_at.elapsed() >= term.timers.balance_interval
            && takers_since.elapsed() >= term.timers.balance_rest;
        known.is_time_to_balance &= is_time;
        metrics::record(&view, known.recovering.len());
        record_facts(&term.facts.lock());
        if is_time {
            balanced_at = Instant::now();
        }
        act(&term, &view, decide(&view, &known));
        place_meta(&term, &view).await;
        tokio::time::sleep(LOOKS_APART).await;
        let changed = async {
            tokio::select! {
                biased;
                () = term.wake.notified() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        // The catalog ended with the session. The term will end too, in a moment.
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        // A timeout means that nothing has changed. The next round runs anyway.
        let _ = timeout(term.timers.reconcile_interval, changed).await;
    }
}

fn record_facts(facts: &TermState) {
    metrics::record_lost_logs(facts.lost_logs.values().map(|(regions, _)| regions).sum());
    metrics::record_clocks(facts.clocks.off());
}

/// Keeps a stream open to each live region server, and compares its clock. Servers that an earlier
/// master knew keep their regions meanwhile.
fn hold_streams(
    term: &Arc<Term>,
    view: &View,
    streams: &mut BTreeSet<ServerName>,
    is_first_look: bool,
) {
    streams.retain(|server| view.lives(server));
    let mut facts = term.facts.lock();
    for (server, record) in &view.servers {
        facts.seen.insert(server.clone(), record.clone());
        if streams.insert(server.clone()) {
            if server.start_code + NEWCOMER_MS > term.clock.wall_ms() {
                facts.newcomers.insert(server.clone(), Instant::now());
            }
            facts.clocks.expect(server, !is_first_look);
            tracing::info!(%server, "a region server is live");
            let address = record.peer_address.clone();
            term.spawn(compare_clocks(Arc::clone(term), server.clone(), address));
            term.spawn(hold_stream(Arc::clone(term), server.clone(), record.clone()));
        }
    }
}

fn known(term: &Term) -> Known {
    let recovering: BTreeSet<ServerName> = term.procedure_store.recovering().into_keys().collect();
    let claimed = term.claims.all();
    // Read this first: a server that is compared in between must not seem to be draining.
    let unchecked = term.facts.lock().clocks.unchecked().clone();
    let draining = term.draining();
    let facts = term.facts.lock();
    Known {
        is_time_to_balance: !facts.balancer_off,
        seen: facts.seen.keys().cloned().collect(),
        recovering: recovering.into_iter().chain(facts.dying.iter().cloned()).collect(),
        claimed,
        moving: term.moves.all(),
        draining,
        unchecked,
        places: term.places(),
    }
}

/// Decides what work to start.
fn decide(view: &View, known: &Known) -> Decisions {
    let mut decisions = Decisions::default();
    let mut gone: BTreeMap<&ServerName, usize> =
        known.seen.iter().filter(|server| !view.lives(server)).map(|server| (server, 0)).collect();
    let mut loads = Loads::of(view, &known.draining);
    for (name, region) in &view.regions {
        let record = &region.record;
        let owner = record.server.as_ref().filter(|_| record.state != RegionState::Closed);
        let owner_lives = match owner {
            Some(owner) if !view.lives(owner) => {
                *gone.entry(owner).or_default() += 1;
                continue;
            }
            Some(_) => true,
            None => false,
        };
        if known.claimed.contains(name) || !view.is_to_be_served(&record.info.table) {
            continue;
        }
        // In other states, a procedure works on the table.
        let is_served = view.table_state(&record.info.table) == Some(TableState::Enabled);
        match record.state {
            RegionState::Closed if is_served && !loads.is_empty() => decisions.assign.push(*name),
            // The master that assigned the region may have died before it sent the order.
            RegionState::Opening if owner_lives => decisions.open.push(*name),
            RegionState::Closing if is_served && owner_lives && known.may_move(name) => {
                if let (Some(source), Some(destination)) = (owner, loads.take_least()) {
                    let source = source.clone();
                    decisions.moves.push(Move { region: *name, source, destination });
                }
            }
            RegionState::Closed
            | RegionState::Opening
            | RegionState::Open
            | RegionState::Closing => {}
        }
    }
    for (server, regions) in gone {
        match regions {
            _ if known.recovering.contains(server) => {}
            0 => decisions.left.push(server.clone()),
            _ => decisions.recover.push(server.clone()),
        }
    }
    let left = known.draining.difference(&known.unchecked);
    for server in left.filter(|server| view.lives(server)) {
        decisions.moves.extend(balancer::empty(view, server, &known.draining, &known.places));
    }
    if known.may_balance() && decisions.recover.is_empty() && decisions.moves.is_empty() {
        decisions.moves =
            balancer::even_out(view, &known.draining, &known.places, BALANCE_MOVES_MAX);
    }
    decisions.moves.retain(|one| known.may_move(&one.region));
    decisions
}

/// Starts the decided work. Claims the regions before the task begins, so that the next round
/// leaves them alone.
fn act(term: &Arc<Term>, view: &View, decisions: Decisions) {
    for server in decisions.left {
        tracing::info!(%server, "a region server has left and owned no regions");
        let mut facts = term.facts.lock();
        facts.seen.remove(&server);
        facts.draining.remove(&server);
        facts.newcomers.remove(&server);
        term.orders.forget(&server);
    }
    for server in decisions.recover {
        let term = Arc::clone(term);
        let learnt_ms = term.clock.wall_ms();
        let was_seen = term.facts.lock().seen.contains_key(&server);
        let cause = if was_seen { "session expired" } else { "found at start" };
        Arc::clone(&term).spawn(async move {
            term.declare_dead(&server, cause, learnt_ms).await;
        });
    }
    if !decisions.assign.is_empty() {
        let claim = term.claims.claim(decisions.assign.iter().copied());
        spawn_step(term, "assign regions", async move |term: Arc<Term>| {
            let _claim = claim;
            term.assign(&decisions.assign).await
        });
    }
    if !decisions.open.is_empty() {
        let claim = term.claims.claim(decisions.open.iter().copied());
        let regions = decisions.open.iter().filter_map(|name| view.regions.get(name)).cloned();
        let regions: Vec<_> = regions.collect();
        spawn_step(term, "open regions", async move |term: Arc<Term>| {
            let _claim = claim;
            term.open(regions).await
        });
    }
    if !decisions.moves.is_empty() {
        tracing::info!(regions = decisions.moves.len(), "moving regions");
        let claim = term.moves.claim(decisions.moves.iter().map(|one| one.region));
        spawn_step(term, "move regions", async move |term: Arc<Term>| {
            let _claim = claim;
            term.move_regions(decisions.moves).await
        });
    }
}

// === impl Term ===

impl Term {
    /// Balances the regions now, if the balancer may run. Returns the number of moves, or `None` if
    /// it may not.
    pub(crate) fn balance(self: &Arc<Self>, is_dry_run: bool) -> Option<u32> {
        let known = known(self);
        if !known.may_balance() {
            return None;
        }
        let view = self.views.now();
        let mut moves = balancer::even_out(&view, &known.draining, &known.places, usize::MAX);
        moves.retain(|one| known.may_move(&one.region));
        let count = u32::try_from(moves.len()).unwrap_or(u32::MAX);
        if !is_dry_run {
            act(self, &view, Decisions { moves, ..Decisions::default() });
        }
        Some(count)
    }
}

/// Runs work that the next round repeats if it fails.
fn spawn_step<F>(
    term: &Arc<Term>,
    name: &'static str,
    work: impl FnOnce(Arc<Term>) -> F + Send + 'static,
) where
    F: Future<Output = Result<(), StepError>> + Send + 'static,
{
    let working = Arc::clone(term);
    term.spawn(async move {
        match work(Arc::clone(&working)).await {
            Ok(()) => working.wake.notify_one(),
            Err(error) if error.is_deposed() => {}
            Err(error) => tracing::warn!(%error, "could not {name}; retrying"),
        }
    });
}

/// Directs clients of the meta table to a live server.
async fn place_meta(term: &Arc<Term>, view: &View) {
    let present = term.facts.lock().meta_server.clone();
    let chosen = choose_meta_server(present.as_ref(), view.servers.keys(), &term.server);
    if present.as_ref() == Some(&chosen) {
        return;
    }
    match term.store.commit(vec![term.client_nodes.write_meta_server(&chosen)]).await {
        Ok(_) => term.facts.lock().meta_server = Some(chosen),
        Err(error) => tracing::warn!(%error, "could not write the meta server's node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_in, record_of, server, view};

    fn known(seen: &[&str]) -> Known {
        Known { seen: seen.iter().map(|name| server(name)).collect(), ..Known::default() }
    }

    #[test]
    fn a_quiet_cluster_is_left_alone() {
        let mut known = known(&["a", "b"]);
        known.is_time_to_balance = true;
        assert_eq!(decide(&view(&["a", "b"], 7), &known), Decisions::default());
    }

    #[test]
    fn a_server_that_is_gone_with_regions_is_recovered() {
        let mut view = view(&["a", "b"], 4);
        view.servers.remove(&server("a"));
        assert_eq!(decide(&view, &known(&["a", "b"])).recover, [server("a")]);
        // This also holds if this master never saw the server alive.
        assert_eq!(decide(&view, &known(&[])).recover, [server("a")]);
        let mut known = known(&["a"]);
        known.recovering.insert(server("a"));
        known.is_time_to_balance = true;
        assert_eq!(decide(&view, &known), Decisions::default());
    }

    #[test]
    fn a_server_that_is_gone_without_regions_has_left() {
        let decisions = decide(&view(&["b"], 4), &known(&["a", "b"]));
        assert_eq!((decisions.left, decisions.recover), (vec![server("a")], vec![]));
    }

    #[test]
    fn what_another_master_left_half_done_is_taken_up() {
        let mut view = view(&["a", "b"], 3);
        let names: Vec<_> = view.regions.keys().copied().collect();
        let states = [RegionState::Closed, RegionState::Opening, RegionState::Closing];
        for (name, state) in names.iter().zip(states) {
            record_of(&mut view, name).state = state;
        }
        let mut known = known(&["a", "b"]);
        let decisions = decide(&view, &known);
        assert_eq!(decisions.assign, names[..1]);
        assert_eq!(decisions.open, names[1..2]);
        assert_eq!(decisions.moves[0].region, names[2]);
        known.claimed = names.into_iter().collect();
        assert_eq!(decide(&view, &known), Decisions::default());
    }

    #[test]
    fn tables_that_a_procedure_is_at_work_on_are_left_to_it() {
        for state in [TableState::Enabling, TableState::Disabling, TableState::Disabled] {
            let mut view = view(&["a"], 2);
            view.tables.values_mut().for_each(|table| table.record.state = state);
            view.regions.values_mut().for_each(|r| record_in(r).state = RegionState::Closed);
            assert_eq!(decide(&view, &known(&["a"])), Decisions::default());
        }
    }

    #[test]
    fn a_living_owner_is_ordered_again_to_open() {
        let opening = |state: TableState| {
            let mut view = view(&["a"], 3);
            view.tables.values_mut().for_each(|table| table.record.state = state);
            let names: Vec<_> = view.regions.keys().copied().collect();
            for name in &names[..2] {
                record_of(&mut view, name).state = RegionState::Opening;
            }
            (view, names)
        };
        let (mut view, names) = opening(TableState::Enabling);
        let mut known = known(&["a"]);
        assert_eq!(decide(&view, &known).open, names[..2]);
        known.claimed = names[..1].iter().copied().collect();
        assert_eq!(decide(&view, &known).open, names[1..2], "somebody is at the first");
        view.servers.clear();
        assert_eq!(decide(&view, &known).open, [], "a dead owner opens nothing");
        for state in [TableState::Disabling, TableState::Disabled] {
            assert_eq!(decide(&opening(state).0, &known).open, [], "{state:?}");
        }
    }

    #[test]
    fn a_server_whose_clock_was_not_compared_keeps_what_it_has_and_gets_nothing() {
        let view = view(&["a", "b"], 6);
        let mut known = known(&[]);
        known.draining.insert(server("a"));
        known.unchecked.insert(server("a"));
        assert_eq!(decide(&view, &known).moves, []);
    }

    #[test]
    fn a_draining_server_is_emptied_and_not_filled_again() {
        let mut known = known(&["a", "b"]);
        known.draining.insert(server("a"));
        known.is_time_to_balance = true;
        let moves = decide(&view(&["a", "b"], 4), &known).moves;
        assert_eq!(moves.len(), 2);
        assert!(moves.iter().all(|one| one.destination == server("b")));
    }

    #[test]
    fn nothing_is_given_to_servers_that_all_stop() {
        let mut view = view(&["a", "b"], 4);
        record_in(view.regions.values_mut().next().unwrap()).state = RegionState::Closed;
        let mut known = known(&["a", "b"]);
        known.draining = view.servers.keys().cloned().collect();
        assert_eq!(decide(&view, &known), Decisions::default());
    }

    #[test]
    fn a_move_that_waits_for_its_table_is_not_decided_again_and_keeps_nothing_else_waiting() {
        let mut view = view(&["a", "b"], 3);
        let names: Vec<_> = view.regions.keys().copied().collect();
        record_of(&mut view, &names[0]).state = RegionState::Opening;
        record_of(&mut view, &names[1]).state = RegionState::Closing;
        let mut known = known(&["a", "b"]);
        known.draining.insert(server("a"));
        known.moving = names.iter().copied().collect();
        let decisions = decide(&view, &known);
        assert_eq!(decisions.moves, []);
        assert_eq!(decisions.open, names[..1], "a procedure may hold the lock and wait for it");
    }

    #[test]
    fn nothing_is_balanced_while_a_region_is_on_its_way() {
        let mut view = view(&["a", "b"], 9);
        view.servers.insert(server("d"), Default::default());
        let mut known = known(&[]);
        known.is_time_to_balance = true;
        assert_ne!(decide(&view, &known).moves, []);
        known.claimed = view.regions.keys().take(1).copied().collect();
        assert_eq!(decide(&view, &known).moves, []);
    }

    #[test]
    fn nothing_is_balanced_while_a_server_is_to_be_recovered() {
        let mut view = view(&["a", "b", "c"], 9);
        view.servers.remove(&server("a"));
        view.servers.insert(server("d"), Default::default());
        let mut known = known(&[]);
        known.is_time_to_balance = true;
        assert_eq!(decide(&view, &known).moves, []);
    }
}
