//! The switches of HBase's master. Those without a counterpart here report a fixed state.

use std::sync::Arc;

use basalt_hbase_rpc::{Call, Exception, Reply, pb};

use super::{Answer, read};
use crate::term::Term;

pub(super) async fn answer(term: &Arc<Term>, call: &Call) -> Answer {
    Ok(match call.method.as_str() {
        "SetBalancerRunning" => {
            let request: pb::SetBalancerRunningRequest = read(call)?;
            let was_off = std::mem::replace(&mut term.facts.lock().balancer_off, !request.on);
            Reply::new(&pb::SetBalancerRunningResponse { prev_balance_value: Some(!was_off) })
        }
        "IsBalancerEnabled" => {
            let enabled = !term.facts.lock().balancer_off;
            Reply::new(&pb::IsBalancerEnabledResponse { enabled })
        }
        "Balance" => {
            let request: pb::BalanceRequest = read(call)?;
            let moves = term.balance(request.dry_run.unwrap_or(false));
            Reply::new(&pb::BalanceResponse {
                balancer_ran: moves.is_some(),
                moves_calculated: moves,
                moves_executed: moves.filter(|_| !request.dry_run.unwrap_or(false)),
            })
        }
        // There are no splits, merges, normalizer or snapshots. These switches are always off.
        "IsSplitOrMergeEnabled" => {
            Reply::new(&pb::IsSplitOrMergeEnabledResponse { enabled: false })
        }
        "IsNormalizerEnabled" => Reply::new(&pb::IsNormalizerEnabledResponse { enabled: false }),
        "IsSnapshotCleanupEnabled" => {
            Reply::new(&pb::IsSnapshotCleanupEnabledResponse { enabled: false })
        }
        // These always run.
        "IsCatalogJanitorEnabled" => {
            Reply::new(&pb::IsCatalogJanitorEnabledResponse { value: true })
        }
        "IsCleanerChoreEnabled" => Reply::new(&pb::IsCleanerChoreEnabledResponse { value: true }),
        method => return Err(Exception::unknown_method(method)),
    })
}
