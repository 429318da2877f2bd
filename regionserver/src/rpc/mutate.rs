//! `Mutate`: one put, delete, increment or append, optionally with a condition.

use basalt_hbase_rpc::{Call, Exception, Reply, pb};
use basalt_model::Cell;

use super::decode::Decoded;
use super::results::Results;
use super::{Purpose, Result, Rpc, decode, request};
use crate::filter::{self, RowFilter};
use crate::region::{Condition, MutationOutcome, RowRead, RowStep};
use crate::server::Served;

/// The mutations of one row, in order.
#[derive(Default)]
pub(super) struct RowMutations {
    pub(super) steps: Vec<RowStep>,
    pub(super) nonce: Option<u64>,
}

// === impl Rpc ===

impl Rpc {
    pub(super) async fn mutate(&self, mut call: Call) -> Result<Reply> {
        let request: pb::MutateRequest = request(&call)?;
        let served = self.region(&request.region, Purpose::Write).await?;
        let mut beside = std::mem::take(&mut call.cells).into_iter();
        let decoded = decode::mutation(&request.mutation, &mut beside)?;
        let mut results = Results::of(&call);
        let group = request.nonce_group;
        let response = match &request.condition {
            Some(condition) => {
                let condition = condition_of(condition)?;
                // Puts and deletes have a nonce as well: a repeated one would find its condition
                // changed by itself.
                let nonce = request.mutation.nonce.filter(|nonce| *nonce != 0);
                let mut row = RowMutations { nonce, ..RowMutations::default() };
                row.add(decoded);
                let outcome = check_and_mutate(&served, &condition, row, group).await?;
                pb::MutateResponse {
                    processed: Some(outcome.processed),
                    result: (!outcome.cells.is_empty()).then(|| results.add(outcome.cells)),
                    metrics: None,
                }
            }
            None => {
                let cells = apply(&served, decoded, group).await?;
                pb::MutateResponse {
                    result: cells.map(|cells| results.add(cells)),
                    ..pb::MutateResponse::default()
                }
            }
        };
        Ok(Reply::with_cells(&response, results.into_cells()))
    }
}

// === impl RowMutations ===

impl RowMutations {
    pub(super) fn add(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Blind(mutation) => self.steps.push(RowStep::Mutation(mutation)),
            Decoded::Update { update, nonce, .. } => {
                self.nonce = self.nonce.or(nonce);
                self.steps.push(RowStep::Update(update));
            }
        }
    }
}

/// Applies one mutation. Returns the new cells of an increment or an append; they are empty if the
/// client does not want them.
pub(super) async fn apply(
    served: &Served,
    decoded: Decoded,
    nonce_group: Option<u64>,
) -> Result<Option<Vec<Cell>>> {
    match decoded {
        Decoded::Blind(mutation) => {
            served.region.mutate(std::slice::from_ref(&mutation)).await?;
            Ok(None)
        }
        Decoded::Update { update, nonce, return_results } => {
            let nonce = decode::nonce(nonce_group, nonce);
            let cells = served.region.update(&update, nonce).await?;
            Ok(Some(if return_results { cells } else { Vec::new() }))
        }
    }
}

/// Applies mutations of one row if a condition holds.
pub(super) async fn check_and_mutate(
    served: &Served,
    condition: &Condition,
    row: RowMutations,
    nonce_group: Option<u64>,
) -> Result<MutationOutcome> {
    let nonce = decode::nonce(nonce_group, row.nonce);
    let region = &served.region;
    Ok(region.check_and_mutate(condition, &row.steps, nonce).await?)
}

/// Decodes the condition of a message: a comparison of one column, or a filter over the row.
pub(super) fn condition_of(condition: &pb::Condition) -> Result<Condition> {
    let row = condition.row.clone();
    let time_range = decode::time_range(condition.time_range.as_ref());
    if condition.filter.is_some() {
        let read = RowRead { time_range, ..RowRead::all() };
        let filter = condition.filter.clone();
        // Decoded here so that an invalid filter is rejected now, and again for the check, because
        // filters have state.
        let (before_filter, _) = RowFilter::of(filter.as_ref(), read.clone(), false)?;
        let row_of_filter = row.clone();
        let holds = move |cells: &[Cell]| match RowFilter::of(filter.as_ref(), read.clone(), false)
        {
            Ok((_, Some(mut filter))) => !filter.filter(&row_of_filter, cells.to_vec()).is_empty(),
            _ => false,
        };
        return Ok(Condition { row, read: before_filter, holds: Box::new(holds) });
    }
    let (Some(family), Some(comparator)) = (&condition.family, &condition.comparator) else {
        let message = "a condition needs a family and a comparator, or a filter";
        return Err(Exception::bad_request(message));
    };
    let qualifier = condition.qualifier.clone().unwrap_or_default();
    let columns = basalt_storage::read::Columns::Some([qualifier].into());
    let comparator = filter::comparator(comparator)?;
    let operator = condition.compare_type();
    let holds = move |cells: &[Cell]| comparator.holds(operator, cells.first().map(Cell::value));
    let read = RowRead { time_range, ..RowRead::of_family(family.clone(), columns) };
    Ok(Condition { row, read, holds: Box::new(holds) })
}
