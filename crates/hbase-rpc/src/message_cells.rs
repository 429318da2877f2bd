//! Cells inside messages, for connections without a codec and for clients that choose this form.
//! Also combines both places: a result or a mutation may contain some of its cells and say how many
//! more are beside the message.

use std::vec;

use basalt_model::{Cell, CellBuilder, CellType, LATEST_TIMESTAMP};
use bytes::Bytes;

use crate::pb::mutation_proto::{ColumnValue, DeleteType, MutationType, column_value};
use crate::{Error, Result, pb};

/// The cells beside a message. Its results or mutations take them in order.
pub type CellsBeside = vec::IntoIter<Cell>;

/// Encodes a cell for the inside of a message.
pub fn to_message(cell: &Cell) -> pb::Cell {
    let part = |part| Some(cell.bytes().slice_ref(part));
    let key = cell.key();
    pb::Cell {
        row: part(key.row),
        family: part(key.family),
        qualifier: part(key.qualifier),
        timestamp: Some(key.timestamp.cast_unsigned()),
        cell_type: Some(key.type_byte.into()),
        value: part(cell.value()),
        tags: Some(cell.tags()).filter(|tags| !tags.is_empty()).and_then(part),
    }
}

/// Decodes a cell from the inside of a message.
///
/// # Errors
/// [`Error::BadField`] for an unknown type; [`Error::Model`] if a part is too long.
pub fn from_message(cell: &pb::Cell) -> Result<Cell> {
    let number = cell.cell_type.unwrap_or(CellType::Put as i32);
    let cell_type = u8::try_from(number).ok().and_then(CellType::from_byte);
    let builder = CellBuilder {
        row: cell.row.as_deref().unwrap_or_default(),
        family: cell.family.as_deref().unwrap_or_default(),
        qualifier: cell.qualifier.as_deref().unwrap_or_default(),
        timestamp: cell.timestamp().cast_signed(),
        cell_type: cell_type.ok_or_else(|| {
            Error::bad_field("Cell.cell_type", format!("unknown number {number}"))
        })?,
        value: cell.value.as_deref().unwrap_or_default(),
        tags: cell.tags.as_deref().unwrap_or_default(),
    };
    Ok(builder.build()?)
}

/// A result with `cells`. They are inside it, unless the connection has a codec: then they are
/// appended to `beside`.
pub fn result_of(cells: Vec<Cell>, beside: Option<&mut Vec<Cell>>) -> pb::Result {
    match beside {
        Some(beside) => {
            let count = i32::try_from(cells.len()).unwrap_or(i32::MAX);
            beside.extend(cells);
            pb::Result { associated_cell_count: Some(count), ..Default::default() }
        }
        None => pb::Result { cell: cells.iter().map(to_message).collect(), ..Default::default() },
    }
}

/// All cells of a result: first its share of those `beside`, then those inside.
///
/// # Errors
/// [`Error::BadCellBlock`] if there are fewer cells than the result says; as [`from_message`].
pub fn cells_of(result: &pb::Result, beside: &mut CellsBeside) -> Result<Vec<Cell>> {
    let mut cells = take(result.associated_cell_count(), beside)?;
    for cell in &result.cell {
        cells.push(from_message(cell)?);
    }
    Ok(cells)
}

/// The cells of each result of a scan, beside its response or inside it.
///
/// # Errors
/// As [`cells_of`].
pub fn scanned_results(response: &pb::ScanResponse, beside: Vec<Cell>) -> Result<Vec<Vec<Cell>>> {
    let mut beside = beside.into_iter();
    if response.cells_per_result.is_empty() {
        let results = response.results.iter();
        return results.map(|result| cells_of(result, &mut beside)).collect();
    }
    let counts = response.cells_per_result.iter();
    counts.map(|count| take(i32::try_from(*count).unwrap_or(i32::MAX), &mut beside)).collect()
}

/// A mutation of `row` with `cell_count` cells beside it.
pub fn mutation(row: Bytes, kind: MutationType, cell_count: usize) -> pb::MutationProto {
    pb::MutationProto {
        row: Some(row),
        mutate_type: Some(kind.into()),
        associated_cell_count: Some(i32::try_from(cell_count).unwrap_or(i32::MAX)),
        ..Default::default()
    }
}

/// All cells of a mutation: first its share of those `beside`, then those inside. A cell inside
/// that has no timestamp gets that of the mutation, or [`LATEST_TIMESTAMP`].
///
/// # Errors
/// [`Error::BadCellBlock`] if there are fewer cells than the mutation says; [`Error::BadField`] if
/// a cell belongs to another row than the mutation, or if there is neither a row nor a cell.
pub fn mutated_cells(mutation: &pb::MutationProto, beside: &mut CellsBeside) -> Result<Vec<Cell>> {
    let mut cells = take(mutation.associated_cell_count(), beside)?;
    for column in &mutation.column_value {
        for value in &column.qualifier_value {
            cells.push(column_cell(mutation, column, value)?);
        }
    }
    let row = match (&mutation.row, cells.first()) {
        (Some(row), _) => &row[..],
        (None, Some(first)) => first.row(),
        (None, None) => {
            let reason = "it is missing, and there are no cells";
            return Err(Error::bad_field("MutationProto.row", reason));
        }
    };
    if cells.iter().any(|cell| cell.row() != row) {
        let reason = "a cell is of another row";
        return Err(Error::bad_field("MutationProto.row", reason));
    }
    Ok(cells)
}

fn take(count: i32, beside: &mut CellsBeside) -> Result<Vec<Cell>> {
    let count = usize::try_from(count).unwrap_or(0);
    if count > beside.len() {
        return Err(Error::BadCellBlock { reason: "it holds fewer cells than its message says" });
    }
    Ok(beside.take(count).collect())
}

fn column_cell(
    mutation: &pb::MutationProto,
    column: &ColumnValue,
    value: &column_value::QualifierValue,
) -> Result<Cell> {
    let is_delete = mutation.mutate_type() == MutationType::Delete;
    let cell_type = match value.delete_type {
        None if is_delete => {
            let reason = "a delete needs it";
            return Err(Error::bad_field("QualifierValue.delete_type", reason));
        }
        None => CellType::Put,
        Some(_) => match value.delete_type() {
            DeleteType::DeleteOneVersion => CellType::Delete,
            DeleteType::DeleteMultipleVersions => CellType::DeleteColumn,
            DeleteType::DeleteFamily => CellType::DeleteFamily,
            DeleteType::DeleteFamilyVersion => CellType::DeleteFamilyVersion,
        },
    };
    let timestamp = value.timestamp.or(mutation.timestamp);
    let builder = CellBuilder {
        row: mutation.row.as_deref().unwrap_or_default(),
        family: &column.family,
        qualifier: value.qualifier.as_deref().unwrap_or_default(),
        timestamp: timestamp.map_or(LATEST_TIMESTAMP, u64::cast_signed),
        cell_type,
        value: value.value.as_deref().unwrap_or_default(),
        tags: value.tags.as_deref().unwrap_or_default(),
    };
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: u8) -> Vec<Cell> {
        (0..count).map(|index| Cell::put(b"row", b"f", &[index], 9, b"value").unwrap()).collect()
    }

    #[test]
    fn a_cell_crosses_inside_a_message() {
        let cell = CellBuilder {
            row: b"row",
            family: b"f",
            qualifier: b"",
            timestamp: 5,
            cell_type: CellType::DeleteFamily,
            value: b"",
            tags: b"\x00\x02\x01x",
        };
        let cell = cell.build().unwrap();
        assert_eq!(from_message(&to_message(&cell)).unwrap(), cell);
    }

    #[test]
    fn results_take_their_share_of_the_cells_beside() {
        let mut beside = Vec::new();
        let first = result_of(cells(2), Some(&mut beside));
        let second = result_of(cells(3), Some(&mut beside));
        let inside = result_of(cells(1), None);
        let mut beside = beside.into_iter();
        assert_eq!(cells_of(&first, &mut beside).unwrap(), cells(2));
        assert_eq!(cells_of(&second, &mut beside).unwrap(), cells(3));
        assert_eq!(cells_of(&inside, &mut beside).unwrap(), cells(1));
        assert!(cells_of(&first, &mut beside).is_err(), "more than there are");
    }

    #[test]
    fn a_mutation_holds_cells_inside_and_beside() {
        let mut put = mutation(Bytes::from_static(b"row"), MutationType::Put, 1);
        put.timestamp = Some(77);
        put.column_value.push(ColumnValue {
            family: Bytes::from_static(b"f"),
            qualifier_value: vec![column_value::QualifierValue {
                qualifier: Some(Bytes::from_static(b"q")),
                value: Some(Bytes::from_static(b"v")),
                ..Default::default()
            }],
        });
        let found = mutated_cells(&put, &mut cells(1).into_iter()).unwrap();
        let inside = Cell::put(b"row", b"f", b"q", 77, b"v").unwrap();
        assert_eq!(found, [cells(1), vec![inside]].concat());
    }

    #[test]
    fn a_mutation_is_of_one_row() {
        let put = mutation(Bytes::from_static(b"other"), MutationType::Put, 1);
        assert!(mutated_cells(&put, &mut cells(1).into_iter()).is_err());
    }
}
