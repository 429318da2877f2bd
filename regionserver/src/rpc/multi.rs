//! `Multi`: actions on many rows and regions in one call.
//!
//! The regions of a call are processed concurrently, so that one sync of the log covers them all.
//! Within a region, the order of the actions is kept. Consecutive puts and deletes become one edit,
//! as long as no row occurs twice.

use std::collections::BTreeSet;

use basalt_hbase_rpc::message_cells::CellsBeside;
use basalt_hbase_rpc::{Call, Exception, Reply, pb};
use bytes::Bytes;
use futures::StreamExt;

use super::decode::Decoded;
use super::mutate::{self, RowMutations};
use super::results::Results;
use super::{Purpose, Result, Rpc, decode, get, request};
use crate::region::Mutation;
use crate::server::Served;

/// How many regions of a call are processed at a time.
const REGIONS_AT_ONCE: usize = 32;
/// An edit with at least this many bytes of cells is closed, and another one is begun.
const EDIT_BYTES: usize = 4 << 20;

/// An action. Its cells have been taken from beside the message.
enum ActionKind {
    Get(pb::Get),
    Mutation(Decoded),
}

struct Action {
    index: Option<u32>,
    /// Puts and deletes have one as well.
    nonce: Option<u64>,
    step: Result<ActionKind>,
}

/// Actions on one row that are applied atomically.
#[derive(Default)]
struct AtomicActions {
    row: Option<Bytes>,
    mutations: RowMutations,
    indexes: Vec<Option<u32>>,
}

/// The actions of one region.
struct RegionWork {
    region: pb::RegionSpecifier,
    atomic: bool,
    condition: Option<pb::Condition>,
    actions: Vec<Action>,
}

/// Consecutive puts and deletes that will become one edit.
#[derive(Default)]
struct Run {
    rows: BTreeSet<Bytes>,
    bytes: usize,
    mutations: Vec<Mutation>,
    indexes: Vec<Option<u32>>,
}

/// The outcome of an action. Its cells are added to the reply, in order, once all actions are done.
enum Done {
    Cells(Vec<basalt_model::Cell>),
    Exists(bool),
    Empty,
    Failed(Exception),
}

type Outcomes = Vec<(Option<u32>, Done)>;

// === impl Rpc ===

impl Rpc {
    pub(super) async fn multi(&self, mut call: Call) -> Result<Reply> {
        let request: pb::MultiRequest = request(&call)?;
        let mut beside = std::mem::take(&mut call.cells).into_iter();
        let group = request.nonce_group;
        let work = request.region_action.into_iter().map(|action| {
            let atomic = action.atomic();
            let condition = action.condition.or_else(|| request.condition.clone());
            RegionWork {
                region: action.region,
                atomic,
                condition,
                actions: action.action.into_iter().map(|a| take_action(a, &mut beside)).collect(),
            }
        });
        // All cells are taken in order before any action is processed.
        let work: Vec<RegionWork> = work.collect();
        let done: Vec<_> =
            futures::stream::iter(work.into_iter().map(|work| work.run(self, group)))
                .buffered(REGIONS_AT_ONCE)
                .collect()
                .await;
        let mut results = Results::of(&call);
        let mut response = pb::MultiResponse::default();
        for region in done {
            let result = region.into_message(&mut results);
            response.processed = response.processed.or(result.processed);
            response.region_action_result.push(result);
        }
        Ok(Reply::with_cells(&response, results.into_cells()))
    }
}

/// The outcome of the actions on one region.
enum RegionDone {
    Failed(Exception),
    Each { outcomes: Outcomes, processed: Option<bool> },
}

// === impl RegionWork ===

impl RegionWork {
    async fn run(self, rpc: &Rpc, group: Option<u64>) -> RegionDone {
        let is_write = |action: &Action| matches!(action.step, Ok(ActionKind::Mutation(_)));
        let purpose = match self.actions.iter().any(is_write) {
            true => Purpose::Write,
            false => Purpose::Read,
        };
        let served = match rpc.region(&self.region, purpose).await {
            Ok(served) => served,
            Err(exception) => return RegionDone::Failed(exception),
        };
        if self.atomic || self.condition.is_some() {
            return run_atomic(&served, self.condition, self.actions, group)
                .await
                .unwrap_or_else(RegionDone::Failed);
        }
        let mut outcomes = Vec::with_capacity(self.actions.len());
        let mut run = Run::default();
        for action in self.actions {
            match action.step {
                Err(exception) => outcomes.push((action.index, Done::Failed(exception))),
                Ok(ActionKind::Mutation(Decoded::Blind(mutation))) => {
                    if run.is_full_for(&mutation) {
                        run.apply(&served, &mut outcomes).await;
                    }
                    run.add(action.index, mutation);
                }
                Ok(ActionKind::Mutation(update)) => {
                    run.apply(&served, &mut outcomes).await;
                    let done = match mutate::apply(&served, update, group).await {
                        Ok(cells) => cells.map_or(Done::Empty, Done::Cells),
                        Err(exception) => Done::Failed(exception),
                    };
                    outcomes.push((action.index, done));
                }
                Ok(ActionKind::Get(get)) => {
                    run.apply(&served, &mut outcomes).await;
                    outcomes.push((action.index, read(&served, &get).await));
                }
            }
        }
        run.apply(&served, &mut outcomes).await;
        RegionDone::Each { outcomes, processed: None }
    }
}

/// Applies the mutations of one row atomically, optionally with a condition.
async fn run_atomic(
    served: &Served,
    condition: Option<pb::Condition>,
    actions: Vec<Action>,
    group: Option<u64>,
) -> Result<RegionDone> {
    let AtomicActions { row: first_row, mutations: row, indexes } =
        AtomicActions::gather(actions, condition.is_some())?;
    let Some(first_row) = first_row else {
        return Ok(RegionDone::Each { outcomes: Vec::new(), processed: Some(false) });
    };
    let (processed, cells) = match condition {
        Some(condition) => {
            let condition = mutate::condition_of(&condition)?;
            let outcome = mutate::check_and_mutate(served, &condition, row, group).await?;
            (outcome.processed, outcome.cells)
        }
        None => {
            let nonce = decode::nonce(group, row.nonce);
            let cells = served.region.mutate_row(&first_row, &row.steps, nonce).await?;
            (true, cells)
        }
    };
    // The client expects one outcome per action, with all new values in the first.
    let mut cells = Some(cells).filter(|cells| !cells.is_empty());
    let outcomes = indexes
        .into_iter()
        .map(|index| (index, cells.take().map_or(Done::Empty, Done::Cells)))
        .collect();
    Ok(RegionDone::Each { outcomes, processed: Some(processed) })
}

async fn read(served: &Served, get: &pb::Get) -> Done {
    match get::cells(served, get).await {
        Ok(cells) if get.existence_only() => Done::Exists(!cells.is_empty()),
        Ok(cells) => Done::Cells(cells),
        Err(exception) => Done::Failed(exception),
    }
}

fn take_action(action: pb::Action, beside: &mut CellsBeside) -> Action {
    let step = match (&action.mutation, action.get) {
        (Some(mutation), _) => decode::mutation(mutation, beside).map(ActionKind::Mutation),
        (None, Some(get)) => Ok(ActionKind::Get(get)),
        (None, None) => Err(Exception::bad_request("an action needs a get or a mutation")),
    };
    let nonce = action.mutation.and_then(|mutation| mutation.nonce).filter(|nonce| *nonce != 0);
    Action { index: action.index, nonce, step }
}

// === impl AtomicActions ===

impl AtomicActions {
    fn gather(actions: Vec<Action>, is_conditional: bool) -> Result<Self> {
        let mut gathered = Self::default();
        for (position, action) in (0..).zip(actions) {
            let ActionKind::Mutation(decoded) = action.step? else {
                return Err(Exception::bad_request("an atomic action cannot hold a get"));
            };
            gathered.row.get_or_insert_with(|| decoded.row().clone());
            if is_conditional {
                // Repeated, they would find their condition changed by themselves.
                gathered.mutations.nonce = gathered.mutations.nonce.or(action.nonce);
            }
            gathered.mutations.add(decoded);
            // The mutations of one row are identified by their positions.
            gathered.indexes.push(action.index.or(Some(position)));
        }
        Ok(gathered)
    }
}

// === impl Run ===

impl Run {
    fn is_full_for(&self, mutation: &Mutation) -> bool {
        self.bytes >= EDIT_BYTES || self.rows.contains(&mutation.row)
    }

    fn add(&mut self, index: Option<u32>, mutation: Mutation) {
        self.bytes += mutation.cells.iter().map(|cell| cell.bytes().len()).sum::<usize>();
        self.rows.insert(mutation.row.clone());
        self.mutations.push(mutation);
        self.indexes.push(index);
    }

    /// Applies the mutations as one edit. If one of them is invalid, each is applied separately, so
    /// that the valid ones are not lost.
    async fn apply(&mut self, served: &Served, outcomes: &mut Outcomes) {
        let run = std::mem::take(self);
        if run.mutations.is_empty() {
            return;
        }
        match served.region.mutate(&run.mutations).await {
            Ok(()) => outcomes.extend(run.indexes.into_iter().map(|index| (index, Done::Empty))),
            Err(error) if !error.concerns_one_mutation() => {
                let exception = Exception::from(error);
                let failed = |index| (index, Done::Failed(exception.clone()));
                outcomes.extend(run.indexes.into_iter().map(failed));
            }
            Err(_) => {
                for (index, mutation) in run.indexes.into_iter().zip(&run.mutations) {
                    let done = match served.region.mutate(std::slice::from_ref(mutation)).await {
                        Ok(()) => Done::Empty,
                        Err(error) => Done::Failed(error.into()),
                    };
                    outcomes.push((index, done));
                }
            }
        }
    }
}

// === impl RegionDone ===

impl RegionDone {
    fn into_message(self, results: &mut Results) -> pb::RegionActionResult {
        match self {
            Self::Failed(exception) => pb::RegionActionResult {
                exception: Some(exception.to_name_bytes()),
                ..pb::RegionActionResult::default()
            },
            Self::Each { outcomes, processed } => pb::RegionActionResult {
                result_or_exception: outcomes
                    .into_iter()
                    .map(|(index, done)| done.into_message(index, results))
                    .collect(),
                processed,
                exception: None,
            },
        }
    }
}

// === impl Done ===

impl Done {
    fn into_message(self, index: Option<u32>, results: &mut Results) -> pb::ResultOrException {
        let mut message = pb::ResultOrException { index, ..pb::ResultOrException::default() };
        match self {
            Self::Cells(cells) => message.result = Some(results.add(cells)),
            Self::Exists(exists) => {
                message.result = Some(pb::Result { exists: Some(exists), ..Default::default() });
            }
            Self::Empty => message.result = Some(pb::Result::default()),
            Self::Failed(exception) => message.exception = Some(exception.to_name_bytes()),
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action_of_put(nonce: u64) -> Action {
        let mutation = pb::MutationProto {
            row: Some(Bytes::from_static(b"r")),
            mutate_type: Some(pb::mutation_proto::MutationType::Put.into()),
            nonce: Some(nonce),
            ..pb::MutationProto::default()
        };
        let action = pb::Action { mutation: Some(mutation), ..pb::Action::default() };
        take_action(action, &mut Vec::new().into_iter())
    }

    #[test]
    fn a_conditional_put_in_a_batch_keeps_its_nonce() {
        let gather = |nonces: [u64; 2], is_conditional| {
            let actions = nonces.map(action_of_put).into();
            let gathered = AtomicActions::gather(actions, is_conditional).unwrap();
            assert_eq!(gathered.indexes, [Some(0), Some(1)]);
            gathered.mutations.nonce
        };
        assert_eq!(gather([5, 6], true), Some(5));
        assert_eq!(gather([0, 6], true), Some(6));
        assert_eq!(gather([0, 0], true), None, "zero is none");
        assert_eq!(gather([5, 6], false), None, "repeated, it writes the same again");
    }
}
