//! Raises the cluster's feature level once every live server knows a higher one.
//!
//! The module `basalt_cluster::feature_level` describes the steps, and why a server of an earlier
//! release cannot register in between.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::feature_level::{OnRecord, encode};
use basalt_cluster::{pb, records};
use basalt_hbase_rpc::{Exception, ExceptionKind};
use basalt_model::{Feature, FeatureLevel};
use basalt_planted::{Rule, is_off};
use metrics::gauge;
use tokio::time::Instant;

use crate::epoch_guarded_store;
use crate::error::{CommitError, StepError};
use crate::term::Term;

/// The next action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LevelAction {
    Rest,
    Announce(FeatureLevel),
    Finish(FeatureLevel),
    Withdraw,
}

/// The level that all live servers know, and since when.
type Since = Option<(FeatureLevel, Instant)>;

/// How often to log that a server does not know the cluster's level.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Compares the record with the levels that the servers know, until the term is over.
pub(crate) async fn run(term: Arc<Term>) {
    let (mut since, mut last_logged) = (None, None);
    loop {
        match advance(&term, &mut since, &mut last_logged).await {
            Ok(()) => {}
            Err(error) if error.is_deposed() => return,
            Err(error) => tracing::warn!(%error, "could not advance the feature level; retrying"),
        }
        tokio::time::sleep(term.timers.reconcile_interval).await;
    }
}

async fn advance(
    term: &Term,
    since: &mut Since,
    last_logged: &mut Option<Instant>,
) -> Result<(), StepError> {
    // The order matters: a server that is not among the live ones below has yet to register, and
    // its registration checks this record.
    let on_record = OnRecord::read(term.store.client(), term.store.nodes()).await?;
    // The answer to an earlier write may have been lost.
    *term.feature_level.lock() = on_record.level;
    let known = known_by_all(term).await?;
    if known < on_record.level && last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
        *last_logged = Some(Instant::now());
        tracing::error!(
            cluster = on_record.level.0,
            known = known.0,
            "a registered server does not know the cluster's feature level: it runs a release \
             without feature levels. Replace it"
        );
    }
    gauge!("basalt_master_feature_level").set(f64::from(on_record.level.0));
    let step = next_step(&on_record, known, since, term.timers.feature_level_delay);
    let level = on_record.level;
    let (level, raising_to) = match step {
        LevelAction::Rest => return Ok(()),
        LevelAction::Announce(next) => (level, Some(next)),
        LevelAction::Withdraw => (level, None),
        LevelAction::Finish(next) => (next, None),
    };
    let path = term.store.nodes().feature_level();
    let write = epoch_guarded_store::replace(path, encode(level, raising_to), on_record.version);
    match term.store.commit(vec![write]).await {
        // The next round reads the record again.
        Err(CommitError::Refused { .. }) => return Ok(()),
        outcome => drop(outcome?),
    }
    tracing::info!(%level, raising_to = raising_to.map(|next| next.0), ?step, "feature level");
    *term.feature_level.lock() = level;
    Ok(())
}

/// The highest level that this master and every registered server know.
async fn known_by_all(term: &Term) -> Result<FeatureLevel, StepError> {
    let (client, nodes) = (term.store.client(), term.store.nodes());
    let mut known = term.known_level;
    if is_off(Rule::LevelOfAll) {
        return Ok(known);
    }
    for parent in [nodes.servers(), nodes.masters()] {
        let (children, _) = client.get_children(&parent).await?;
        let paths: Vec<_> = children.iter().map(|name| format!("{parent}/{name}")).collect();
        for (data, _) in client.get_data_of_all(&paths).await?.into_iter().flatten() {
            let record: pb::ServerRecord = records::decode("server", data)?;
            known = known.min(FeatureLevel(record.feature_level));
        }
    }
    Ok(known)
}

/// `known` is the level that all live servers know; `since` remembers since when.
fn next_step(
    on_record: &OnRecord,
    known: FeatureLevel,
    since: &mut Since,
    delay: Duration,
) -> LevelAction {
    if let Some(next) = on_record.raising_to {
        return if known >= next { LevelAction::Finish(next) } else { LevelAction::Withdraw };
    }
    if known <= on_record.level {
        *since = None;
        return LevelAction::Rest;
    }
    let now = Instant::now();
    let (level, began) = since.filter(|(level, _)| *level == known).unwrap_or((known, now));
    *since = Some((level, began));
    match now.duration_since(began) >= delay {
        true => LevelAction::Announce(level),
        false => LevelAction::Rest,
    }
}

// === impl Term ===

impl Term {
    /// Rejects a request for a feature that the cluster's feature level does not have yet.
    pub(crate) fn check_feature(&self, feature: Feature, what: &str) -> Result<(), Exception> {
        let level = *self.feature_level.lock();
        if level.has(feature) {
            return Ok(());
        }
        let needed = feature.level();
        let delay = self.timers.feature_level_delay;
        let message = format!(
            "{what} needs feature level {needed}, but the cluster is at {level}. The level rises \
             once all masters and region servers have run a release that knows {needed} for \
             {delay:?}"
        );
        Err(Exception::new(ExceptionKind::DoNotRetry, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(level: u32, raising_to: Option<u32>) -> OnRecord {
        OnRecord {
            level: FeatureLevel(level),
            raising_to: raising_to.map(FeatureLevel),
            version: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_is_announced_once_all_have_known_it_for_long_enough() {
        let (mut since, delay) = (None, Duration::from_secs(60));
        let mut step = |known: u32| next_step(&at(1, None), FeatureLevel(known), &mut since, delay);
        assert_eq!(step(1), LevelAction::Rest);
        assert_eq!(step(2), LevelAction::Rest);
        tokio::time::advance(delay / 2).await;
        assert_eq!(step(1), LevelAction::Rest, "a server of the earlier release has come back");
        tokio::time::advance(delay).await;
        assert_eq!(step(2), LevelAction::Rest, "the time begins anew");
        tokio::time::advance(delay / 2).await;
        assert_eq!(step(2), LevelAction::Rest);
        tokio::time::advance(delay / 2).await;
        assert_eq!(step(2), LevelAction::Announce(FeatureLevel(2)));
    }

    #[test]
    fn what_was_announced_holds_if_all_know_it_and_is_withdrawn_otherwise() {
        let step =
            |known| next_step(&at(1, Some(2)), FeatureLevel(known), &mut None, Duration::ZERO);
        assert_eq!(step(2), LevelAction::Finish(FeatureLevel(2)));
        assert_eq!(step(3), LevelAction::Finish(FeatureLevel(2)));
        assert_eq!(step(1), LevelAction::Withdraw);
    }

    #[test]
    fn a_level_never_goes_down() {
        let step = next_step(&at(3, None), FeatureLevel(1), &mut None, Duration::ZERO);
        assert_eq!(step, LevelAction::Rest);
    }
}
