//! The timestamp of "the latest" for a conditional mutation.
//!
//! Clients may use timestamps that are ahead of the server's clock. Existing cells then hide a
//! mutation with the current time. For a plain put, this is HBase's documented behaviour. For a
//! conditional mutation it would be wrong, because its client learns that the mutation was applied.

use std::collections::{BTreeMap, BTreeSet};

use basalt_model::{CellType, LATEST_TIMESTAMP};
use basalt_storage::read::Columns;
use bytes::Bytes;

use super::{Region, Result, RowRead, RowStep};

/// The columns that a mutation writes with the latest timestamp.
#[derive(Debug, Default, Eq, PartialEq)]
struct Written {
    whole_row: bool,
    families: BTreeMap<Bytes, Columns>,
}

// === impl Region ===

impl Region {
    /// Returns `latest`, or a later timestamp if that is needed so that existing cells or deletes
    /// with later timestamps, which clients may have chosen, do not hide what `steps` write.
    pub(super) async fn latest_above(
        &self,
        row: &[u8],
        steps: &[RowStep],
        latest: i64,
    ) -> Result<i64> {
        if self.view.load().highest_timestamp() < latest {
            return Ok(latest);
        }
        let Written { whole_row, families } = Written::by(steps);
        let families = (!whole_row).then_some(families);
        let seen = RowRead { families, ..RowRead::all() };
        let all = RowRead { raw: true, versions: u32::MAX, ..seen.clone() };
        let seen = self.read_latest(row, &seen).await?.into_iter().map(|cell| cell.timestamp());
        let mut latest = seen.fold(latest, i64::max);
        let mut of_one_version = BTreeSet::new();
        for cell in self.read_latest(row, &all).await? {
            match cell.cell_type() {
                CellType::DeleteColumn | CellType::DeleteFamily => {
                    latest = latest.max(cell.timestamp().saturating_add(1));
                }
                CellType::Delete | CellType::DeleteFamilyVersion => {
                    of_one_version.insert(cell.timestamp());
                }
                _ => {}
            }
        }
        while of_one_version.contains(&latest) {
            latest += 1;
        }
        Ok(latest.min(LATEST_TIMESTAMP - 1))
    }
}

// === impl Written ===

impl Written {
    fn by(steps: &[RowStep]) -> Self {
        let mut written = Self::default();
        for step in steps {
            match step {
                RowStep::Mutation(mutation) => {
                    written.whole_row |= mutation.delete_row == Some(LATEST_TIMESTAMP);
                    let cells = mutation.cells.iter();
                    for cell in cells.filter(|cell| cell.timestamp() == LATEST_TIMESTAMP) {
                        let whole_family = cell.cell_type() == CellType::DeleteFamily;
                        written.add(cell.family(), (!whole_family).then_some(cell.qualifier()));
                    }
                }
                RowStep::Update(update) => {
                    for change in &update.changes {
                        written.add(&change.family, Some(&change.qualifier));
                    }
                }
            }
        }
        written
    }

    fn add(&mut self, family: &[u8], qualifier: Option<&[u8]>) {
        let none = || Columns::Some(BTreeSet::new());
        let columns = self.families.entry(Bytes::copy_from_slice(family)).or_insert_with(none);
        match (columns, qualifier) {
            (Columns::Some(names), Some(name)) => {
                names.insert(Bytes::copy_from_slice(name));
            }
            (columns, None) => *columns = Columns::All,
            (Columns::All, Some(_)) => {}
        }
    }
}
