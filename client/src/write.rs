//! Writes of one row.

use basalt_hbase_rpc::message_cells;
use basalt_hbase_rpc::pb;
use basalt_hbase_rpc::pb::mutation_proto::MutationType;
use basalt_model::{Cell, CellBuilder, CellType, LATEST_TIMESTAMP};
use bytes::Bytes;
use prost::Message;

use crate::{Error, Result};

/// When a write is acknowledged. Basalt applies the table's setting, or a stronger one for
/// [`Durability::FsyncWal`], never a weaker one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// The table's setting.
    #[default]
    UseDefault,
    /// The WAL is not written.
    SkipWal,
    /// The WAL is written later.
    AsyncWal,
    /// The WAL is written.
    SyncWal,
    /// The WAL is on disk.
    FsyncWal,
}

/// The changes to the cells of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowCells {
    row: Bytes,
    cells: Vec<Cell>,
    durability: Durability,
    /// The error for the first part that was too long.
    error: Option<basalt_model::Error>,
}

macro_rules! row_write {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(crate) RowCells);

        impl $name {
            /// A write of `row` that does nothing yet.
            pub fn new(row: impl Into<Bytes>) -> Self {
                Self(RowCells::new(row.into()))
            }

            /// Sets when the write is acknowledged.
            #[must_use]
            pub fn durability(mut self, durability: Durability) -> Self {
                self.0.durability = durability;
                self
            }
        }
    };
}

row_write! {
    /// Sets values of columns.
    Put
}
row_write! {
    /// Deletes columns or families. Without either, the whole row.
    Delete
}
row_write! {
    /// Adds to counters, which are 8 bytes, big endian.
    Increment
}
row_write! {
    /// Appends to values.
    Append
}

/// A put or a delete.
#[derive(Clone, Debug)]
pub enum RowMutation {
    /// Sets values.
    Put(Put),
    /// Deletes.
    Delete(Delete),
}

/// How a value is compared with the one in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comparison {
    /// The table's value is equal.
    Equal,
    /// The table's value is not equal.
    NotEqual,
    /// The given value is less than the table's.
    Less,
    /// The given value is less than or equal to the table's.
    LessOrEqual,
    /// The given value is greater than the table's.
    Greater,
    /// The given value is greater than or equal to the table's.
    GreaterOrEqual,
}

/// A put or a delete that is performed only if one value of the same row is as expected.
#[derive(Clone, Debug)]
pub struct CheckAndMutate {
    /// The column's family.
    pub family: Bytes,
    /// The column's name.
    pub qualifier: Bytes,
    /// How to compare.
    pub comparison: Comparison,
    /// The value to compare with. `None` means that there must be no value; only
    /// [`Comparison::Equal`] can be used with it.
    pub value: Option<Bytes>,
    /// The write to perform.
    pub mutation: RowMutation,
}

// === impl RowCells ===

impl RowCells {
    fn new(row: Bytes) -> Self {
        Self { row, cells: Vec::new(), durability: Durability::default(), error: None }
    }

    fn add(
        &mut self,
        cell_type: CellType,
        family: &[u8],
        qualifier: &[u8],
        timestamp: i64,
        value: &[u8],
    ) {
        let builder = CellBuilder {
            row: &self.row,
            family,
            qualifier,
            timestamp,
            cell_type,
            value,
            tags: &[],
        };
        match builder.build() {
            Ok(cell) => self.cells.push(cell),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    pub(crate) fn row(&self) -> &Bytes {
        &self.row
    }

    pub(crate) fn bytes(&self) -> usize {
        self.cells.iter().map(|cell| cell.bytes().len()).sum()
    }

    /// The message, and the cells beside it. Nonce 0 means none.
    pub(crate) fn to_message(
        &self,
        kind: MutationType,
        nonce: u64,
    ) -> Result<(pb::MutationProto, &[Cell])> {
        if let Some(error) = &self.error {
            let reason = error.to_string();
            return Err(Error::BadRequest { reason });
        }
        if self.cells.is_empty() && kind != MutationType::Delete {
            let reason = "a write needs at least one column".to_owned();
            return Err(Error::BadRequest { reason });
        }
        let mut message = message_cells::mutation(self.row.clone(), kind, self.cells.len());
        message.durability = Some(self.durability.to_message().into());
        message.nonce = (nonce != 0).then_some(nonce);
        Ok((message, &self.cells))
    }
}

// === impl Put ===

impl Put {
    /// Sets a column. The server assigns the timestamp.
    #[must_use]
    pub fn column(self, family: &[u8], qualifier: &[u8], value: &[u8]) -> Self {
        self.column_at(family, qualifier, LATEST_TIMESTAMP, value)
    }

    /// Sets the version of a column with this `timestamp`.
    #[must_use]
    pub fn column_at(
        mut self,
        family: &[u8],
        qualifier: &[u8],
        timestamp: i64,
        value: &[u8],
    ) -> Self {
        self.0.add(CellType::Put, family, qualifier, timestamp, value);
        self
    }
}

// === impl Delete ===

impl Delete {
    /// Deletes all versions of a column.
    #[must_use]
    pub fn column(self, family: &[u8], qualifier: &[u8]) -> Self {
        self.column_until(family, qualifier, LATEST_TIMESTAMP)
    }

    /// Deletes the versions of a column up to `timestamp`.
    #[must_use]
    pub fn column_until(mut self, family: &[u8], qualifier: &[u8], timestamp: i64) -> Self {
        let kind = CellType::DeleteColumn;
        self.0.add(kind, family, qualifier, timestamp, &[]);
        self
    }

    /// Deletes one version of a column; the newest for [`LATEST_TIMESTAMP`].
    #[must_use]
    pub fn version(mut self, family: &[u8], qualifier: &[u8], timestamp: i64) -> Self {
        self.0.add(CellType::Delete, family, qualifier, timestamp, &[]);
        self
    }

    /// Deletes a whole family up to `timestamp`.
    #[must_use]
    pub fn family_until(mut self, family: &[u8], timestamp: i64) -> Self {
        let kind = CellType::DeleteFamily;
        self.0.add(kind, family, &[], timestamp, &[]);
        self
    }

    /// Deletes the versions of a family with exactly this `timestamp`.
    #[must_use]
    pub fn family_version(mut self, family: &[u8], timestamp: i64) -> Self {
        let kind = CellType::DeleteFamilyVersion;
        self.0.add(kind, family, &[], timestamp, &[]);
        self
    }

    /// Deletes a whole family.
    #[must_use]
    pub fn family(self, family: &[u8]) -> Self {
        self.family_until(family, LATEST_TIMESTAMP)
    }
}

// === impl Increment ===

impl Increment {
    /// Adds `amount` to a counter.
    #[must_use]
    pub fn column(mut self, family: &[u8], qualifier: &[u8], amount: i64) -> Self {
        let value = amount.to_be_bytes();
        self.0.add(CellType::Put, family, qualifier, LATEST_TIMESTAMP, &value);
        self
    }
}

// === impl Append ===

impl Append {
    /// Appends `value` to a column.
    #[must_use]
    pub fn column(mut self, family: &[u8], qualifier: &[u8], value: &[u8]) -> Self {
        self.0.add(CellType::Put, family, qualifier, LATEST_TIMESTAMP, value);
        self
    }
}

// === impl RowMutation ===

impl RowMutation {
    pub(crate) fn row_cells(&self) -> (&RowCells, MutationType) {
        match self {
            Self::Put(put) => (&put.0, MutationType::Put),
            Self::Delete(delete) => (&delete.0, MutationType::Delete),
        }
    }
}

// === impl Durability ===

impl Durability {
    fn to_message(self) -> pb::mutation_proto::Durability {
        use pb::mutation_proto::Durability as Message;
        match self {
            Self::UseDefault => Message::UseDefault,
            Self::SkipWal => Message::SkipWal,
            Self::AsyncWal => Message::AsyncWal,
            Self::SyncWal => Message::SyncWal,
            Self::FsyncWal => Message::FsyncWal,
        }
    }
}

// === impl Comparison ===

impl Comparison {
    fn to_message(self) -> pb::CompareType {
        match self {
            Self::Equal => pb::CompareType::Equal,
            Self::NotEqual => pb::CompareType::NotEqual,
            Self::Less => pb::CompareType::Less,
            Self::LessOrEqual => pb::CompareType::LessOrEqual,
            Self::Greater => pb::CompareType::Greater,
            Self::GreaterOrEqual => pb::CompareType::GreaterOrEqual,
        }
    }
}

// === impl CheckAndMutate ===

impl CheckAndMutate {
    pub(crate) fn condition(&self) -> pb::Condition {
        // The absence of a value is expressed as equality with an empty value.
        let value = self.value.clone().unwrap_or_default();
        let comparator =
            pb::BinaryComparator { comparable: pb::ByteArrayComparable { value: Some(value) } };
        pb::Condition {
            row: self.mutation.row_cells().0.row().clone(),
            family: Some(self.family.clone()),
            qualifier: Some(self.qualifier.clone()),
            compare_type: Some(self.comparison.to_message().into()),
            comparator: Some(pb::Comparator {
                name: "org.apache.hadoop.hbase.filter.BinaryComparator".to_owned(),
                serialized_comparator: Some(comparator.encode_to_vec().into()),
            }),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_too_long_is_refused_before_it_is_sent() {
        let put = Put::new("row").column(&[b'f'; 128], b"q", b"v");
        let error = put.0.to_message(MutationType::Put, 0).unwrap_err();
        assert!(error.to_string().contains("127"), "{error}");
    }

    #[test]
    fn a_put_without_columns_is_refused_and_a_delete_is_of_the_row() {
        assert!(Put::new("row").0.to_message(MutationType::Put, 0).is_err());
        let delete = Delete::new("row");
        let (message, cells) = delete.0.to_message(MutationType::Delete, 0).unwrap();
        assert!(cells.is_empty());
        assert_eq!(message.row.unwrap(), "row");
    }
}
