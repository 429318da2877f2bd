//! How edits get into a region: puts, deletes, increments, appends and conditional ones.
//!
//! Straight down: lock the rows → [read what is there] → give the timestamp → [`Region::log`]:
//! sequence id, log and memstore in one step → unlock → wait until durable → check the lease → visible.
//! The row locks are let go before the sync: whoever reads under them next sees the edit although it is
//! not durable yet, and waits for it to be before answering (the log keeps the order).

use std::sync::atomic::Ordering;

use basalt_fs::Durability;
use basalt_model::{Cell, CellBuilder, CellType, LATEST_TIMESTAMP, SequenceId};
use basalt_runtime::WITNESS;
use basalt_storage::read::{Columns, TimeRange};
use basalt_storage::wal::{EncodedEdit, Nonce, Ticket};
use bytes::{Bytes, BytesMut};
use tracing::trace;

use super::row_locks::LockedRows;
use super::{Error, Region, Result, RowRead, durability_of};

/// Cells of one row to be written, some of which may wait for the server's timestamp.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) row: Bytes,
    pub(crate) cells: Vec<Cell>,
    /// Deletes all families up to this timestamp as well.
    pub(crate) delete_row: Option<i64>,
    /// What it is to outlast, if that is more than its table promises.
    pub(crate) durability: Durability,
}

/// An increment or an append of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowUpdate {
    pub(crate) row: Bytes,
    pub(crate) update: Update,
    pub(crate) changes: Vec<Change>,
    /// Where the present values are looked for.
    pub(crate) time_range: TimeRange,
    /// What it is to outlast, if that is more than its table promises.
    pub(crate) durability: Durability,
}

/// One column of an increment or an append.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) family: Bytes,
    pub(crate) qualifier: Bytes,
    /// The 8-byte amount to add, or the bytes to append.
    pub(crate) operand: Bytes,
}

/// What to do with the present values of a row's columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Update {
    Increment,
    Append,
}

/// Decides by the cells that were read.
type Predicate = Box<dyn Fn(&[Cell]) -> bool + Send + Sync>;

/// When a conditional mutation is made.
pub(crate) struct Condition {
    pub(crate) row: Bytes,
    pub(crate) read: RowRead,
    pub(crate) holds: Predicate,
}

/// What a conditional mutation did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) processed: bool,
    /// The new values, of increments and appends.
    pub(crate) cells: Vec<Cell>,
}

/// One edit on its way into the log.
struct Draft {
    cells: Vec<Cell>,
    /// Which of the cells are the operation's answer.
    result: Vec<Cell>,
    timestamp_ms: u64,
    nonce: Option<Nonce>,
    /// The most that one of its mutations is to outlast.
    durability: Durability,
}

/// An edit that is in the log and in memory, and not yet durable.
struct Logged {
    ticket: Ticket,
    sequence_id: SequenceId,
}

// === impl Region ===

impl Region {
    /// Makes puts and deletes, all under one sequence id: they become visible at once.
    pub(crate) async fn mutate(&self, mutations: &[Mutation]) -> Result<()> {
        self.check_mutations(mutations)?;
        self.check_room()?;
        let logged = {
            let rows = mutations.iter().map(|mutation| &mutation.row[..]);
            let mut locked = self.row_locks.lock(rows).await;
            let draft = self.draft_mutations(&mut locked, mutations).await?;
            self.log(draft).await?
        };
        self.make_visible(logged).await
    }

    /// Adds to or extends columns of a row. Returns the new cells.
    pub(crate) async fn update(
        &self,
        update: &RowUpdate,
        nonce: Option<Nonce>,
    ) -> Result<Vec<Cell>> {
        self.check_row(&update.row)?;
        self.check_room()?;
        let (logged, result) = {
            let mut locked = self.row_locks.lock(std::iter::once(&update.row[..])).await;
            if let Some(result) = self.done_before(nonce) {
                drop(locked);
                self.settle().await?;
                return Ok(result);
            }
            let timestamp_ms = self.give_timestamp(&mut locked);
            let cells = self.changed(update, timestamp_ms).await?;
            let (result, durability) = (cells.clone(), update.durability);
            let draft = Draft { cells, result: result.clone(), timestamp_ms, nonce, durability };
            self.log(draft).await.map(|logged| (logged, result))?
        };
        self.make_visible(logged).await?;
        Ok(result)
    }

    /// Makes `mutations` and `updates` of the condition's row, as one, if the condition holds.
    pub(crate) async fn check_and_mutate(
        &self,
        condition: &Condition,
        mutations: &[Mutation],
        updates: &[RowUpdate],
        nonce: Option<Nonce>,
    ) -> Result<Outcome> {
        self.check_row(&condition.row)?;
        self.check_room()?;
        let logged = {
            let mut locked = self.row_locks.lock(std::iter::once(&condition.row[..])).await;
            if let Some(cells) = self.done_before(nonce) {
                drop(locked);
                self.settle().await?;
                return Ok(Outcome { processed: true, cells });
            }
            let present = self.read_latest(&condition.row, &condition.read).await?;
            if !(condition.holds)(&present) {
                drop(locked);
                // What was read may not be durable yet.
                self.settle().await?;
                return Ok(Outcome { processed: false, cells: Vec::new() });
            }
            let draft = self.draft_row(&mut locked, &condition.row, mutations, updates, nonce);
            let draft = draft.await?;
            let result = draft.result.clone();
            self.log(draft).await.map(|logged| (logged, result))?
        };
        let (logged, cells) = logged;
        self.make_visible(logged).await?;
        Ok(Outcome { processed: true, cells })
    }

    /// Makes `mutations` and `updates` of one row as one.
    pub(crate) async fn mutate_row(
        &self,
        row: &Bytes,
        mutations: &[Mutation],
        updates: &[RowUpdate],
        nonce: Option<Nonce>,
    ) -> Result<Vec<Cell>> {
        let always =
            Condition { row: row.clone(), read: RowRead::nothing(), holds: Box::new(|_| true) };
        let outcome = self.check_and_mutate(&always, mutations, updates, nonce).await?;
        Ok(outcome.cells)
    }

    async fn draft_row(
        &self,
        locked: &mut LockedRows<'_>,
        row: &Bytes,
        mutations: &[Mutation],
        updates: &[RowUpdate],
        nonce: Option<Nonce>,
    ) -> Result<Draft> {
        self.check_mutations(mutations)?;
        let mutated = mutations.iter().map(|mutation| &mutation.row);
        let mut rows = mutated.chain(updates.iter().map(|update| &update.row));
        if let Some(other) = rows.find(|other| *other != row) {
            let (row, other) = (row.escape_ascii(), other.escape_ascii());
            let message = format!("one row at a time: {row} and {other} were given");
            return Err(Error::BadRequest(message));
        }
        let mut draft = self.draft_mutations(locked, mutations).await?;
        draft.nonce = nonce;
        for update in updates {
            let cells = self.changed(update, draft.timestamp_ms).await?;
            draft.result.extend(cells.iter().cloned());
            draft.cells.extend(cells);
            draft.durability = draft.durability.max(update.durability);
        }
        Ok(draft)
    }

    async fn draft_mutations(
        &self,
        locked: &mut LockedRows<'_>,
        mutations: &[Mutation],
    ) -> Result<Draft> {
        let timestamp_ms = self.give_timestamp(locked);
        let given = || mutations.iter().flat_map(|mutation| &mutation.cells);
        let mut cells = Vec::with_capacity(given().count());
        let mut memory = BytesMut::with_capacity(given().map(|cell| cell.bytes().len()).sum());
        let whole_rows = mutations.iter().filter_map(|m| Some((m.delete_row?, &m.row)));
        for (timestamp, row) in whole_rows {
            let timestamp = match timestamp {
                LATEST_TIMESTAMP => signed(timestamp_ms),
                given => given,
            };
            cells.extend(self.row_deletes(row, timestamp)?);
        }
        for cell in given() {
            let timestamp = match (cell.timestamp(), cell.cell_type()) {
                (LATEST_TIMESTAMP, CellType::Delete) => match self.latest_version(cell).await? {
                    Some(timestamp) => timestamp,
                    None => continue,
                },
                (LATEST_TIMESTAMP, _) => signed(timestamp_ms),
                (timestamp, _) => timestamp,
            };
            cells.push(cell.copy_into(&mut memory, timestamp));
        }
        let durability = mutations.iter().map(|mutation| mutation.durability).max();
        Ok(Draft {
            cells,
            result: Vec::new(),
            timestamp_ms,
            nonce: None,
            durability: durability.unwrap_or_default(),
        })
    }

    /// The marks that delete a row up to `timestamp`: one for each family.
    fn row_deletes(&self, row: &[u8], timestamp: i64) -> Result<Vec<Cell>> {
        let mark = |family: &Bytes| {
            let cell = CellBuilder {
                row,
                family,
                qualifier: &[],
                timestamp,
                cell_type: CellType::DeleteFamily,
                value: &[],
                tags: &[],
            };
            cell.build().map_err(|error| Error::BadRequest(error.to_string()))
        };
        self.state.load().families.keys().map(mark).collect()
    }

    /// The timestamp of the newest version of a cell's column: what "delete the latest version"
    /// means.
    async fn latest_version(&self, cell: &Cell) -> Result<Option<i64>> {
        let qualifier = Bytes::copy_from_slice(cell.qualifier());
        let columns = Columns::Some([qualifier].into());
        let read = RowRead::of_family(Bytes::copy_from_slice(cell.family()), columns);
        let present = self.read_latest(cell.row(), &read).await?;
        Ok(present.first().map(Cell::timestamp))
    }

    async fn changed(&self, update: &RowUpdate, timestamp_ms: u64) -> Result<Vec<Cell>> {
        let RowUpdate { row, changes, .. } = update;
        let read = RowRead::of_changes(changes, update.time_range);
        let present = self.read_latest(row, &read).await?;
        let mut cells = Vec::with_capacity(changes.len());
        for change in changes {
            let old = present.iter().find(|cell| {
                cell.family() == &change.family[..] && cell.qualifier() == &change.qualifier[..]
            });
            let value = match update.update {
                Update::Increment => add(old, change)?,
                Update::Append => extend(old, change),
            };
            let timestamp = old.map_or(i64::MIN, Cell::timestamp).max(signed(timestamp_ms));
            let cell = Cell::put(row, &change.family, &change.qualifier, timestamp, &value);
            cells.push(cell.map_err(|error| Error::BadRequest(error.to_string()))?);
        }
        Ok(cells)
    }

    /// Gives the edit its sequence id and puts it into the log and the memstore, in one step.
    async fn log(&self, draft: Draft) -> Result<Logged> {
        let Draft { cells, result, timestamp_ms, nonce, durability } = draft;
        let edit = EncodedEdit::new(self.encoded_name, self.epoch, timestamp_ms, nonce, &cells)?;
        let permit = self.shared.wal.reserve(edit.record_bytes()).await?;
        let mut order = self.order.lock();
        if order.closing {
            return Err(Error::Closing { region: self.info.to_string() });
        }
        let sequence_id = order.last.next();
        let durability = durability.max(durability_of(&self.table));
        let ticket = permit.append(&edit, sequence_id, durability);
        let (region, epoch) = (self.encoded_name, self.epoch.0);
        trace!(target: WITNESS, %region, epoch, sequence_id = sequence_id.0, "given");
        order.last = sequence_id;
        order.last_ticket = Some(ticket.clone());
        self.shared.memstores.add(edit.record_bytes() as u64);
        self.timestamp_floor_ms.fetch_max(timestamp_ms, Ordering::Relaxed);
        let state = self.state.load();
        for cell in cells {
            if let Some(family) = state.families.get(cell.family()) {
                family.active.insert(&cell.with_sequence_id(sequence_id));
            }
        }
        self.remember(nonce, sequence_id, timestamp_ms, &result);
        Ok(Logged { ticket, sequence_id })
    }

    async fn make_visible(&self, logged: Logged) -> Result<()> {
        logged.ticket.synced().await?;
        self.check_lease().await?;
        let (region, epoch) = (self.encoded_name, self.epoch.0);
        let sequence_id = logged.sequence_id.0;
        trace!(target: WITNESS, %region, epoch, sequence_id, "acknowledged");
        self.read_point.fetch_max(logged.sequence_id.0, Ordering::AcqRel);
        Ok(())
    }

    fn give_timestamp(&self, locked: &mut LockedRows<'_>) -> u64 {
        let floor_ms = self.timestamp_floor_ms.load(Ordering::Relaxed);
        locked.give_timestamp(self.shared.seams.clock.wall_ms(), floor_ms)
    }

    fn check_mutations(&self, mutations: &[Mutation]) -> Result<()> {
        for mutation in mutations {
            self.check_row(&mutation.row)?;
            if mutation.row.is_empty() {
                return Err(Error::BadRequest("a row must have at least one byte".to_owned()));
            }
            for cell in &mutation.cells {
                if cell.row() != &mutation.row[..] {
                    let (row, other) = (mutation.row.escape_ascii(), cell.row().escape_ascii());
                    let message = format!("a mutation of row {row} holds a cell of row {other}");
                    return Err(Error::BadRequest(message));
                }
                self.check_family(cell.family())?;
            }
        }
        Ok(())
    }

    pub(super) fn check_family(&self, family: &[u8]) -> Result<()> {
        if self.state.load().families.contains_key(family) {
            return Ok(());
        }
        let family = Bytes::copy_from_slice(family);
        Err(Error::NoSuchFamily { family, region: self.info.to_string() })
    }
}

// === impl Change ===

fn add(old: Option<&Cell>, change: &Change) -> Result<Bytes> {
    let amount = read_long(&change.operand, "the amount")?;
    let present = match old {
        Some(cell) => read_long(cell.value(), "the field")?,
        None => 0,
    };
    Ok(Bytes::copy_from_slice(&present.wrapping_add(amount).to_be_bytes()))
}

fn extend(old: Option<&Cell>, change: &Change) -> Bytes {
    match old {
        Some(cell) => [cell.value(), &change.operand].concat().into(),
        None => change.operand.clone(),
    }
}

fn read_long(bytes: &[u8], what: &str) -> Result<i64> {
    let bytes: [u8; 8] = bytes.try_into().map_err(|_| {
        Error::BadRequest(format!("{what} is not a long, it is {} bytes wide", bytes.len()))
    })?;
    Ok(i64::from_be_bytes(bytes))
}

fn signed(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX - 1)
}
