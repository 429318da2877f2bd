//! Many reads and writes at once, grouped by region and server. Failed ones are sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::message_cells::{self, CellsBeside};
use basalt_hbase_rpc::pb::mutation_proto::MutationType;
use basalt_hbase_rpc::{CallError, Exception, pb};
use basalt_model::Cell;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::locate::{Place, note_exception};
use crate::{Append, Delete, Error, Get, Increment, Put, RegionLocation, Result, RowResult, Table};

/// One read or write of a batch.
#[derive(Clone, Debug)]
pub enum Action {
    /// Reads a row.
    Get(Get),
    /// Sets values.
    Put(Put),
    /// Deletes.
    Delete(Delete),
    /// Adds to counters.
    Increment(Increment),
    /// Appends to values.
    Append(Append),
}

/// The result of an action: the row that was read, or the new values; empty for puts and deletes.
pub type ActionResult = RowResult;

/// The maximum number of actions in one request.
const REQUEST_ACTIONS_MAX: usize = 2000;
/// The approximate maximum number of bytes of cells in one request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// The maximum number of requests in progress at once.
const REQUESTS_MAX: usize = 32;

/// A region, and the indices of its actions, ascending.
type RegionIndices = (Arc<RegionLocation>, Vec<usize>);

/// Actions for one server in one request.
#[derive(Debug)]
struct Chunk {
    regions: Vec<RegionIndices>,
}

/// A batch in progress.
struct Batch<'a> {
    table: &'a Table,
    actions: &'a [Action],
    nonces: Vec<u64>,
    results: Vec<Option<Result<ActionResult>>>,
    /// Why an action has no result yet.
    failures: BTreeMap<usize, Error>,
}

/// Performs all of `actions`.
pub(crate) async fn run(table: &Table, actions: &[Action]) -> Vec<Result<ActionResult>> {
    let shared = &table.connection.shared;
    let retry = &shared.config.retry;
    let started = Instant::now();
    let deadline = started + retry.operation_timeout;
    let mut batch = Batch {
        table,
        actions,
        nonces: actions
            .iter()
            .map(|action| if action.needs_nonce() { shared.nonce() } else { 0 })
            .collect(),
        results: vec![None; actions.len()],
        failures: BTreeMap::new(),
    };
    let mut attempts = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        batch.attempt(retry.attempt_timeout.min(left)).await;
        attempts += 1;
        let Some(failure) = batch.failures.values().next() else {
            break;
        };
        let pause = retry.pause(&shared.seams.random, attempts, failure);
        if Instant::now() + pause >= deadline {
            batch.give_up(attempts, started.elapsed());
            break;
        }
        tokio::time::sleep(pause).await;
    }
    // Every action has a result now: it succeeded, failed permanently, or ran out of time.
    batch.results.into_iter().flatten().collect()
}

// === impl Batch ===

impl Batch<'_> {
    /// Sends the actions that have no result yet. Boxed like the attempt of [`Table::try_put`].
    fn attempt(&mut self, wait: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.attempt_here(wait))
    }

    async fn attempt_here(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let chunks = self.group(wait).await;
        let left = deadline.saturating_duration_since(Instant::now());
        let this = &*self;
        let requests: Vec<_> = chunks
            .into_iter()
            .map(|chunk| async move {
                let answers = this.send(&chunk, left).await;
                (chunk, answers)
            })
            .collect();
        let answered: Vec<_> =
            futures::stream::iter(requests).buffer_unordered(REQUESTS_MAX).collect().await;
        for (chunk, answers) in answered {
            let (answers, error) = match answers {
                Ok(answers) => (answers, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            for (index, answer) in answers {
                self.settle(index, answer);
            }
            for (location, indices) in &chunk.regions {
                let unanswered = || bad_answer(location, "an action has no answer");
                for index in indices {
                    if self.is_open(*index) {
                        let error = error.clone().unwrap_or_else(unanswered);
                        self.settle(*index, Err(error));
                    }
                }
            }
        }
    }

    /// Finds the regions of the actions that have no result yet, and groups the actions into
    /// requests.
    async fn group(&mut self, wait: Duration) -> Vec<Chunk> {
        self.failures.clear();
        let shared = &self.table.connection.shared;
        let mut servers: BTreeMap<String, BTreeMap<Bytes, RegionIndices>> = BTreeMap::new();
        let deadline = Instant::now() + wait;
        for index in 0..self.actions.len() {
            if self.results[index].is_some() {
                continue;
            }
            let place = Place::Of(self.actions[index].row());
            let left = deadline.saturating_duration_since(Instant::now());
            match shared.locate(&self.table.regions, place, left).await {
                Ok(location) => servers
                    .entry(location.server.address())
                    .or_default()
                    .entry(location.name.clone())
                    .or_insert_with(|| (location, Vec::new()))
                    .1
                    .push(index),
                Err(error) => self.settle(index, Err(error)),
            }
        }
        let mut chunks = Vec::new();
        for regions in servers.into_values() {
            self.cut(regions.into_values(), &mut chunks);
        }
        chunks
    }

    fn cut(&self, regions: impl Iterator<Item = RegionIndices>, chunks: &mut Vec<Chunk>) {
        let mut chunk = Chunk { regions: Vec::new() };
        let (mut count, mut bytes) = (0, 0);
        for (location, indices) in regions {
            let mut here = Vec::new();
            for index in indices {
                let length = self.actions[index].bytes();
                if count > 0 && (count == REQUEST_ACTIONS_MAX || bytes + length > REQUEST_BYTES_MAX)
                {
                    if !here.is_empty() {
                        chunk.regions.push((location.clone(), std::mem::take(&mut here)));
                    }
                    let regions = std::mem::take(&mut chunk.regions);
                    chunks.push(Chunk { regions });
                    (count, bytes) = (0, 0);
                }
                here.push(index);
                count += 1;
                bytes += length;
            }
            chunk.regions.push((location, here));
        }
        chunks.push(chunk);
    }

    async fn send(
        &self,
        chunk: &Chunk,
        wait: Duration,
    ) -> Result<Vec<(usize, Result<ActionResult>)>> {
        let Some((first, _)) = chunk.regions.first() else {
            return Ok(Vec::new());
        };
        let mut answers = Vec::new();
        let mut request = pb::MultiRequest {
            nonce_group: Some(self.table.connection.shared.nonce_group),
            ..Default::default()
        };
        let mut beside = Vec::new();
        let mut sent = Vec::new();
        for (location, indices) in &chunk.regions {
            let mut region =
                pb::RegionAction { region: location.specifier(), ..Default::default() };
            for index in indices {
                match self.actions[*index].to_message(self.nonces[*index], &mut beside) {
                    Ok(mut action) => {
                        action.index = u32::try_from(*index).ok();
                        region.action.push(action);
                    }
                    Err(error) => answers.push((*index, Err(error))),
                }
            }
            request.region_action.push(region);
            sent.push((location, indices));
        }
        let called = self.table.call_at(first, "Multi", &request, &beside, wait).await;
        let (response, cells): (pb::MultiResponse, _) = match called {
            Ok(answer) => answer,
            Err(error) => {
                if let Error::Call(error) = &error {
                    self.note_failure(chunk, error);
                }
                return Err(error);
            }
        };
        let mut cells = cells.into_iter();
        if response.region_action_result.len() != sent.len() {
            return Err(bad_answer(first, "it answers the wrong number of regions"));
        }
        for ((location, indices), result) in sent.into_iter().zip(response.region_action_result) {
            answers.extend(self.read_region(location, indices, result, &mut cells)?);
        }
        Ok(answers)
    }

    /// The answers of one region's actions.
    fn read_region(
        &self,
        location: &Arc<RegionLocation>,
        indices: &[usize],
        result: pb::RegionActionResult,
        cells: &mut CellsBeside,
    ) -> Result<Vec<(usize, Result<ActionResult>)>> {
        if let Some(pair) = &result.exception {
            let error = self.exception(location, pair);
            let failed = indices.iter().map(|index| (*index, Err(error.clone())));
            return Ok(failed.collect());
        }
        let mut answers = Vec::with_capacity(indices.len());
        for entry in result.result_or_exception {
            let index = entry.index() as usize;
            if indices.binary_search(&index).is_err() {
                return Err(bad_answer(location, "it answers an action that was not requested"));
            }
            let answer = match (&entry.exception, &entry.result) {
                (Some(pair), _) => Err(self.exception(location, pair)),
                (None, Some(result)) => Ok(RowResult {
                    cells: message_cells::cells_of(result, cells).map_err(|source| {
                        Error::BadAnswer { server: location.server.clone(), source }
                    })?,
                    stale: result.stale(),
                }),
                (None, None) => Ok(RowResult::default()),
            };
            answers.push((index, answer));
        }
        Ok(answers)
    }

    fn exception(&self, location: &Arc<RegionLocation>, pair: &pb::NameBytesPair) -> Error {
        let exception = Exception::from_name_bytes(pair);
        note_exception(&self.table.regions, location, &exception);
        CallError::Remote(exception).into()
    }

    /// The whole request failed, so the error applies to all its regions. The first is already
    /// noted.
    fn note_failure(&self, chunk: &Chunk, error: &CallError) {
        for (location, _) in chunk.regions.iter().skip(1) {
            let shared = &self.table.connection.shared;
            shared.note_failure(&self.table.regions, location, error);
        }
    }

    fn is_open(&self, index: usize) -> bool {
        self.results[index].is_none() && !self.failures.contains_key(&index)
    }

    fn settle(&mut self, index: usize, answer: Result<ActionResult>) {
        match answer {
            Err(error) if error.is_retried() => {
                self.failures.insert(index, error);
            }
            answer => self.results[index] = Some(answer),
        }
    }

    fn give_up(&mut self, attempts: u32, waited: Duration) {
        for (index, last) in std::mem::take(&mut self.failures) {
            let last = Box::new(last);
            self.results[index] =
                Some(Err(Error::OutOfTime { operation: "batch", attempts, waited, last }));
        }
    }
}

// === impl Action ===

impl Action {
    fn row(&self) -> &Bytes {
        match self {
            Self::Get(get) => &get.row,
            Self::Put(put) => put.0.row(),
            Self::Delete(delete) => delete.0.row(),
            Self::Increment(increment) => increment.0.row(),
            Self::Append(append) => append.0.row(),
        }
    }

    fn needs_nonce(&self) -> bool {
        matches!(self, Self::Increment(_) | Self::Append(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Get(get) => get.row.len(),
            Self::Put(put) => put.0.bytes(),
            Self::Delete(delete) => delete.0.bytes(),
            Self::Increment(increment) => increment.0.bytes(),
            Self::Append(append) => append.0.bytes(),
        }
    }

    fn to_message(&self, nonce: u64, beside: &mut Vec<Cell>) -> Result<pb::Action> {
        let (cells, kind) = match self {
            Self::Get(get) => {
                return Ok(pb::Action { get: Some(get.to_message(false)), ..Default::default() });
            }
            Self::Put(put) => (&put.0, MutationType::Put),
            Self::Delete(delete) => (&delete.0, MutationType::Delete),
            Self::Increment(increment) => (&increment.0, MutationType::Increment),
            Self::Append(append) => (&append.0, MutationType::Append),
        };
        let (mutation, cells) = cells.to_message(kind, nonce)?;
        beside.extend_from_slice(cells);
        Ok(pb::Action { mutation: Some(mutation), ..Default::default() })
    }
}

fn bad_answer(location: &RegionLocation, reason: &'static str) -> Error {
    Error::BadAnswer {
        server: location.server.clone(),
        source: basalt_hbase_rpc::Error::BadFrame { reason },
    }
}
