//! The write path of a region: puts, deletes, increments, appends and conditional mutations.
//!
//! The steps: lock the rows → [read the present values] → assign the timestamp → [`Region::log`]:
//! sequence id, log and memstore in one step → unlock → wait until durable → check the lease →
//! visible. The row locks are released before the sync. The next task that reads under them sees
//! the edit although it is not durable yet, and waits until it is durable before it answers (the
//! log keeps the order).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use basalt_fs::Durability;
use basalt_model::{Cell, CellBuilder, CellType, LATEST_TIMESTAMP, SequenceId};
use basalt_runtime::WITNESS;
use basalt_storage::read::{Columns, TimeRange};
use basalt_storage::wal::{EncodedEdit, Nonce, Ticket};
use bytes::{Bytes, BytesMut};
use tracing::trace;

use super::row_locks::LockedRows;
use super::{Error, Region, Result, RowRead, Taking, durability_of};

/// Cells of one row to be written. Cells with the latest timestamp get the server's time.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) row: Bytes,
    pub(crate) cells: Vec<Cell>,
    /// Deletes all families up to this timestamp as well.
    pub(crate) delete_row: Option<i64>,
    /// The requested durability; counts if it is higher than the table's.
    pub(crate) durability: Durability,
}

/// An increment or an append of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowUpdate {
    pub(crate) row: Bytes,
    pub(crate) update: Update,
    pub(crate) changes: Vec<Change>,
    /// The time range in which the present values are read.
    pub(crate) time_range: TimeRange,
    /// The requested durability; counts if it is higher than the table's.
    pub(crate) durability: Durability,
}

/// One of several mutations of a row that are applied atomically.
#[derive(Clone, Debug)]
pub(crate) enum RowStep {
    Mutation(Mutation),
    Update(RowUpdate),
}

/// One column of an increment or an append.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) family: Bytes,
    pub(crate) qualifier: Bytes,
    /// The new cell's timestamp if the column has no value yet.
    pub(crate) timestamp: i64,
    /// The 8-byte amount to add, or the bytes to append.
    pub(crate) operand: Bytes,
}

/// What to do with the present values of a row's columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Update {
    Increment,
    Append,
}

/// Decides on the cells that were read.
type Predicate = Box<dyn Fn(&[Cell]) -> bool + Send + Sync>;

/// The condition of a conditional mutation.
pub(crate) struct Condition {
    pub(crate) row: Bytes,
    pub(crate) read: RowRead,
    pub(crate) holds: Predicate,
}

/// The outcome of a conditional mutation.
#[derive(Debug)]
pub(crate) struct MutationOutcome {
    pub(crate) processed: bool,
    /// The new values of increments and appends.
    pub(crate) cells: Vec<Cell>,
}

/// An edit that is not in the log yet.
struct PendingEdit {
    /// In the order in which they were written: of two cells with the same key, the later one
    /// counts.
    cells: Vec<Cell>,
    /// The cells that are the operation's answer.
    result: Vec<Cell>,
    /// The timestamp assigned to the edit.
    timestamp_ms: u64,
    /// The timestamp of cells that request the latest timestamp.
    latest: i64,
    /// The buffer that cells are copied into.
    memory: BytesMut,
    nonce: Option<Nonce>,
    /// The highest durability that one of its mutations requests.
    durability: Durability,
}

/// An edit that is in the log and in memory but not yet durable.
struct Logged {
    ticket: Ticket,
    sequence_id: SequenceId,
}

// === impl Mutation ===

impl Mutation {
    /// Whether it contains a put to the column of `cell`.
    pub(super) fn puts(&self, cell: &Cell) -> bool {
        self.cells.iter().any(|own| {
            own.cell_type() == CellType::Put
                && own.family() == cell.family()
                && own.qualifier() == cell.qualifier()
        })
    }
}

// === impl RowUpdate ===

impl RowUpdate {
    /// Its changes in the order of the answer's cells, which are sorted because clients search the
    /// answer for a column.
    pub(super) fn in_answer_order(&self) -> Vec<&Change> {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by(|a, b| (&a.family, &a.qualifier).cmp(&(&b.family, &b.qualifier)));
        changes
    }
}

// === impl Region ===

impl Region {
    /// Applies puts and deletes under one sequence id, so that they become visible together.
    pub(crate) async fn mutate(&self, mutations: &[Mutation]) -> Result<()> {
        mutations.iter().try_for_each(|mutation| self.check_mutation(mutation))?;
        self.check_memstore_limit()?;
        let logged = {
            let rows = mutations.iter().map(|mutation| &mutation.row[..]);
            let mut locked = self.row_locks.lock(rows).await;
            let mut pending = PendingEdit::new(self.assign_timestamp(&mut locked)?, None);
            pending.make_room(mutations.iter());
            for mutation in mutations {
                self.pend_mutation(&mut pending, mutation).await?;
            }
            if pending.changes_nothing() {
                drop(locked);
                self.settle().await?;
                return Ok(());
            }
            self.log(pending).await?
        };
        self.make_visible(logged).await
    }

    /// Increments or appends to columns of a row. Returns the new cells.
    pub(crate) async fn update(
        &self,
        update: &RowUpdate,
        nonce: Option<Nonce>,
    ) -> Result<Vec<Cell>> {
        self.check_update(update)?;
        self.check_memstore_limit()?;
        let (logged, result) = {
            let mut locked = self.row_locks.lock(std::iter::once(&update.row[..])).await;
            if let Some(done) = self.done_before(nonce).await? {
                drop(locked);
                return self.answer_again(&done, &update.row, &[], &[update]).await;
            }
            let mut pending = PendingEdit::new(self.assign_timestamp(&mut locked)?, nonce);
            self.pend_update(&mut pending, update).await?;
            if pending.changes_nothing() {
                drop(locked);
                self.settle().await?;
                return Ok(Vec::new());
            }
            let result = pending.result.clone();
            self.log(pending).await.map(|logged| (logged, result))?
        };
        self.make_visible(logged).await?;
        Ok(result)
    }

    /// Applies `steps`, which are all on the condition's row, atomically if the condition holds.
    pub(crate) async fn check_and_mutate(
        &self,
        condition: &Condition,
        steps: &[RowStep],
        nonce: Option<Nonce>,
    ) -> Result<MutationOutcome> {
        self.mutate_if(&condition.row, Some(condition), steps, nonce).await
    }

    /// Applies `steps` of one row atomically. Returns the new cells of increments and appends.
    pub(crate) async fn mutate_row(
        &self,
        row: &Bytes,
        steps: &[RowStep],
        nonce: Option<Nonce>,
    ) -> Result<Vec<Cell>> {
        Ok(self.mutate_if(row, None, steps, nonce).await?.cells)
    }

    async fn mutate_if(
        &self,
        row: &Bytes,
        condition: Option<&Condition>,
        steps: &[RowStep],
        nonce: Option<Nonce>,
    ) -> Result<MutationOutcome> {
        self.check_row(row)?;
        self.check_memstore_limit()?;
        let logged = {
            let mut locked = self.row_locks.lock(std::iter::once(&row[..])).await;
            if let Some(done) = self.done_before(nonce).await? {
                drop(locked);
                let mutations: Vec<&Mutation> =
                    steps.iter().filter_map(RowStep::mutation).collect();
                let updates: Vec<&RowUpdate> = steps.iter().filter_map(RowStep::update).collect();
                let cells = self.answer_again(&done, row, &mutations, &updates).await?;
                return Ok(MutationOutcome { processed: true, cells });
            }
            if let Some(Condition { read, holds, .. }) = condition
                && !holds(&self.read_latest(row, read).await?)
            {
                drop(locked);
                // The cells that were read may not be durable yet.
                self.settle().await?;
                return Ok(MutationOutcome { processed: false, cells: Vec::new() });
            }
            let mut pending = PendingEdit::new(self.assign_timestamp(&mut locked)?, nonce);
            if condition.is_some() {
                // A client that learns that its condition held must find what it wrote.
                pending.latest = self.latest_above(row, steps, pending.latest).await?;
            }
            self.pend_row(&mut pending, row, steps).await?;
            if pending.changes_nothing() {
                drop(locked);
                self.settle().await?;
                return Ok(MutationOutcome { processed: true, cells: Vec::new() });
            }
            let result = pending.result.clone();
            self.log(pending).await.map(|logged| (logged, result))?
        };
        let (logged, cells) = logged;
        self.make_visible(logged).await?;
        Ok(MutationOutcome { processed: true, cells })
    }

    async fn pend_row(
        &self,
        pending: &mut PendingEdit,
        row: &Bytes,
        steps: &[RowStep],
    ) -> Result<()> {
        for step in steps {
            if step.row() != row {
                let (row, other) = (row.escape_ascii(), step.row().escape_ascii());
                let message = format!("only one row is allowed: {row} and {other} were given");
                return Err(Error::BadRequest(message));
            }
            match step {
                RowStep::Mutation(mutation) => self.check_mutation(mutation)?,
                RowStep::Update(update) => self.check_update(update)?,
            }
        }
        pending.make_room(steps.iter().filter_map(RowStep::mutation));
        for step in steps {
            match step {
                RowStep::Mutation(mutation) => self.pend_mutation(pending, mutation).await?,
                RowStep::Update(update) => self.pend_update(pending, update).await?,
            }
        }
        Ok(())
    }

    async fn pend_mutation(&self, pending: &mut PendingEdit, mutation: &Mutation) -> Result<()> {
        if let Some(timestamp) = mutation.delete_row {
            let timestamp = pending.timestamp_of(timestamp);
            pending.cells.extend(self.row_deletes(&mutation.row, timestamp)?);
        }
        // How many of the latest versions of each column the mutation has deleted so far.
        let mut deleted: BTreeMap<(&[u8], &[u8]), u32> = BTreeMap::new();
        for cell in &mutation.cells {
            let timestamp = match (cell.timestamp(), cell.cell_type()) {
                (LATEST_TIMESTAMP, CellType::Delete) => {
                    let deleted = deleted.entry((cell.family(), cell.qualifier())).or_default();
                    *deleted += 1;
                    match self.latest_version(cell, *deleted).await? {
                        Some(timestamp) => timestamp,
                        None => continue,
                    }
                }
                (timestamp, _) => pending.timestamp_of(timestamp),
            };
            pending.cells.push(cell.copy_into(&mut pending.memory, timestamp));
        }
        pending.durability = pending.durability.max(mutation.durability);
        Ok(())
    }

    async fn pend_update(&self, pending: &mut PendingEdit, update: &RowUpdate) -> Result<()> {
        let cells = self.changed(update, pending.latest).await?;
        pending.result.extend(cells.iter().cloned());
        pending.cells.extend(cells);
        pending.durability = pending.durability.max(update.durability);
        Ok(())
    }

    /// The delete markers that delete a row up to `timestamp`: one for each family.
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
        self.view.load().families.keys().map(mark).collect()
    }

    /// The timestamp of the `nth` newest version of a cell's column. This is the version that
    /// "delete the latest version" refers to.
    async fn latest_version(&self, cell: &Cell, nth: u32) -> Result<Option<i64>> {
        let qualifier = Bytes::copy_from_slice(cell.qualifier());
        let columns = Columns::Some([qualifier].into());
        let family = Bytes::copy_from_slice(cell.family());
        let read = RowRead { versions: nth, ..RowRead::of_family(family, columns) };
        let present = self.read_latest(cell.row(), &read).await?;
        Ok(present.get(nth as usize - 1).map(Cell::timestamp))
    }

    async fn changed(&self, update: &RowUpdate, latest: i64) -> Result<Vec<Cell>> {
        let RowUpdate { row, changes, .. } = update;
        let read = RowRead::of_changes(changes, update.time_range);
        let present = self.read_latest(row, &read).await?;
        let changes = update.in_answer_order();
        let mut cells = Vec::with_capacity(changes.len());
        for change in changes {
            let old = present.iter().find(|cell| {
                cell.family() == &change.family[..] && cell.qualifier() == &change.qualifier[..]
            });
            let value = match update.update {
                Update::Increment => add(old, change)?,
                Update::Append => extend(old, change),
            };
            let timestamp = match (old, change.timestamp) {
                (Some(old), _) => (old.timestamp() + 1).clamp(latest, LATEST_TIMESTAMP - 1),
                (None, LATEST_TIMESTAMP) => latest,
                (None, given) => given,
            };
            let cell = Cell::put(row, &change.family, &change.qualifier, timestamp, &value);
            cells.push(cell.map_err(|error| Error::BadRequest(error.to_string()))?);
        }
        Ok(cells)
    }

    /// Assigns the sequence id and puts the edit into the log and the memstore, in one step.
    async fn log(&self, pending: PendingEdit) -> Result<Logged> {
        let PendingEdit { cells, result, timestamp_ms, nonce, durability, .. } = pending;
        let edit = EncodedEdit::new(self.encoded_name, self.epoch, timestamp_ms, nonce, &cells)?;
        let permit = self.shared.wal.reserve(edit.record_bytes()).await?;
        let mut order = self.view.lock();
        if order.taking != Taking::Edits {
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
        let snapshot = order.snapshot();
        for cell in cells {
            if let Some(family) = snapshot.families.get(cell.family()) {
                family.active.insert(&cell.with_sequence_id(sequence_id));
            }
        }
        // Not the edit's timestamp, which runs ahead of the clock in a row that is written often.
        self.remember(nonce, sequence_id, self.now_ms(), &result);
        Ok(Logged { ticket, sequence_id })
    }

    async fn make_visible(&self, logged: Logged) -> Result<()> {
        logged.ticket.synced().await?;
        self.check_lease().await?;
        let (region, epoch) = (self.encoded_name, self.epoch.0);
        let sequence_id = logged.sequence_id.0;
        trace!(target: WITNESS, %region, epoch, sequence_id, "acknowledged");
        self.view.show(logged.sequence_id);
        Ok(())
    }

    fn assign_timestamp(&self, locked: &mut LockedRows<'_>) -> Result<u64> {
        let floor_ms = self.timestamp_floor_ms.load(Ordering::Relaxed);
        let timestamp_ms = locked.assign_timestamp(self.shared.timestamps.now_ms()?, floor_ms);
        trace!(target: WITNESS, region = %self.encoded_name, timestamp_ms, "timestamp");
        Ok(timestamp_ms)
    }

    fn check_mutation(&self, mutation: &Mutation) -> Result<()> {
        self.check_row(&mutation.row)?;
        if mutation.row.is_empty() {
            return Err(Error::BadRequest("a row must have at least one byte".to_owned()));
        }
        mutation.delete_row.map_or(Ok(()), check_timestamp)?;
        for cell in &mutation.cells {
            if cell.row() != &mutation.row[..] {
                let (row, other) = (mutation.row.escape_ascii(), cell.row().escape_ascii());
                let message = format!("a mutation of row {row} holds a cell of row {other}");
                return Err(Error::BadRequest(message));
            }
            check_timestamp(cell.timestamp())?;
            self.check_family(cell.family())?;
        }
        Ok(())
    }

    fn check_update(&self, update: &RowUpdate) -> Result<()> {
        self.check_row(&update.row)?;
        for change in &update.changes {
            check_timestamp(change.timestamp)?;
            self.check_family(&change.family)?;
        }
        Ok(())
    }

    pub(super) fn check_family(&self, family: &[u8]) -> Result<()> {
        if self.view.load().families.contains_key(family) {
            return Ok(());
        }
        let family = Bytes::copy_from_slice(family);
        Err(Error::NoSuchFamily { family, region: self.info.to_string() })
    }
}

// === impl RowStep ===

impl RowStep {
    pub(crate) fn row(&self) -> &Bytes {
        match self {
            Self::Mutation(mutation) => &mutation.row,
            Self::Update(update) => &update.row,
        }
    }

    fn mutation(&self) -> Option<&Mutation> {
        match self {
            Self::Mutation(mutation) => Some(mutation),
            Self::Update(_) => None,
        }
    }

    fn update(&self) -> Option<&RowUpdate> {
        match self {
            Self::Mutation(_) => None,
            Self::Update(update) => Some(update),
        }
    }
}

// === impl PendingEdit ===

impl PendingEdit {
    fn new(timestamp_ms: u64, nonce: Option<Nonce>) -> Self {
        Self {
            cells: Vec::new(),
            result: Vec::new(),
            timestamp_ms,
            latest: signed(timestamp_ms),
            memory: BytesMut::new(),
            nonce,
            durability: Durability::default(),
        }
    }

    /// Whether there is nothing to log: it deletes the latest version of columns that have none. An
    /// edit without cells would take a sequence id that no flush records.
    fn changes_nothing(&self) -> bool {
        self.cells.is_empty() && self.nonce.is_none()
    }

    fn make_room<'a>(&mut self, mutations: impl Iterator<Item = &'a Mutation> + Clone) {
        let given = || mutations.clone().flat_map(|mutation| &mutation.cells);
        self.cells.reserve(given().count());
        self.memory.reserve(given().map(|cell| cell.bytes().len()).sum());
    }

    fn timestamp_of(&self, given: i64) -> i64 {
        if given == LATEST_TIMESTAMP { self.latest } else { given }
    }
}

fn check_timestamp(timestamp: i64) -> Result<()> {
    if timestamp < 0 {
        let message = format!("a timestamp cannot be negative, and {timestamp} was given");
        return Err(Error::BadRequest(message));
    }
    Ok(())
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
