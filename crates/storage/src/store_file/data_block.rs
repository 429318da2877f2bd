//! Data blocks: consecutive cells, found by walking over their lengths.
//!
//! ```text
//! cell: i32 key length | i32 value length | key | value
//!       [u16 tags length | tags] [vlong sequence id]
//! ```
//! The file info states once for all cells of a file whether they have tags and sequence ids. The
//! position of every eighth cell is kept, so that a binary search gets to within eight cells.
//! Invariant: a [`DataBlock`] was walked once when it was read, and every cell in it is complete.

use std::cmp::Ordering;
use std::ops::Range;

use basalt_model::{Cell, CellKey, SequenceId};
use bytes::{BufMut, Bytes};

use super::error::Damage;
use super::fields::{Fields, put_variable};

const LENGTHS_BYTES: usize = 8;
/// The position of one in this many cells is kept.
const CELLS_A_MARK: usize = 8;

/// The fields that follow key and value in each cell of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct CellLayout {
    pub(super) tags: bool,
    pub(super) sequence_ids: bool,
}

/// The cells of a block, decompressed and checked.
#[derive(Debug)]
pub(crate) struct DataBlock {
    bytes: Bytes,
    layout: CellLayout,
    /// The positions of every eighth cell.
    marks: Box<[u32]>,
}

/// The positions of the parts of one cell.
struct Span {
    key: Range<usize>,
    /// The end of the bytes that [`Cell::from_bytes`] accepts.
    cell_end: usize,
    sequence_id: i64,
    next: usize,
}

/// Appends a cell in the layout with tags and sequence id.
pub(super) fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    out.put_slice(cell.bytes());
    if cell.tags().is_empty() {
        out.put_u16(0);
    }
    put_variable(out, cell.sequence_id().0 as i64);
}

// === impl DataBlock ===

impl DataBlock {
    /// Parses a block, and walks over all its cells once.
    pub(super) fn parse(bytes: Bytes, layout: CellLayout) -> Result<Self, Damage> {
        if bytes.is_empty() {
            return Err(Damage::CutOff { what: "a data block's first cell" });
        }
        let mut marks = Vec::with_capacity(bytes.len() / (CELLS_A_MARK * 32) + 1);
        let (mut position, mut number) = (0, 0usize);
        let mut block = Self { bytes, layout, marks: Box::default() };
        while position < block.end() {
            if number.is_multiple_of(CELLS_A_MARK) {
                marks.push(position as u32);
            }
            (_, position) = block.cell_at(position)?;
            number += 1;
        }
        block.marks = marks.into();
        Ok(block)
    }

    /// The position after the last cell.
    pub(super) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// The memory of the block, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<u32>()
    }

    /// The cell at `position`, and the position after it.
    #[inline]
    pub(super) fn cell_at(&self, position: usize) -> Result<(Cell, usize), Damage> {
        let bad = |reason: &str| Damage::Cell { position, reason: reason.to_owned() };
        let span = self.span(position).ok_or_else(|| bad("a length does not fit the block"))?;
        let sequence_id =
            u64::try_from(span.sequence_id).map_err(|_| bad("its sequence id is negative"))?;
        let bytes = self.bytes.slice(position..span.cell_end);
        match Cell::from_bytes(bytes, SequenceId(sequence_id)) {
            Ok(cell) => Ok((cell, span.next)),
            Err(error) => Err(bad(&error.to_string())),
        }
    }

    /// The first position from `from` on whose cell is at or after `key`, or [`Self::end`]. `from`
    /// must be the position of a cell that is not after the result.
    pub(super) fn seek(&self, key: &CellKey<'_>, from: usize) -> usize {
        let passed = self.marks.partition_point(|mark| *mark as usize <= from);
        let later = self.marks.get(passed..).unwrap_or_default();
        let before = later.partition_point(|mark| self.is_before(*mark as usize, key));
        let mut position = match before.checked_sub(1).and_then(|last| later.get(last)) {
            Some(mark) => *mark as usize,
            None => from,
        };
        while self.is_before(position, key) {
            position = self.next(position);
        }
        position
    }

    /// The position of the last cell before `key`; `None` if there is none.
    pub(super) fn seek_before(&self, key: &CellKey<'_>) -> Option<usize> {
        let before = self.marks.partition_point(|mark| self.is_before(*mark as usize, key));
        let mut position = *self.marks.get(before.checked_sub(1)?)? as usize;
        loop {
            let next = self.next(position);
            if !self.is_before(next, key) {
                return Some(position);
            }
            position = next;
        }
    }

    /// The position of the last cell.
    pub(super) fn last(&self) -> usize {
        let mut position = self.marks.last().copied().unwrap_or_default() as usize;
        loop {
            match self.next(position) {
                next if next >= self.end() => return position,
                next => position = next,
            }
        }
    }

    /// Whether there is a cell at `position`, and it sorts before `key`.
    fn is_before(&self, position: usize, key: &CellKey<'_>) -> bool {
        self.span(position)
            .and_then(|span| self.bytes.get(span.key))
            .and_then(|bytes| CellKey::parse(bytes).ok())
            .is_some_and(|found| found.compare(key) == Ordering::Less)
    }

    fn next(&self, position: usize) -> usize {
        self.span(position).map_or(self.end(), |span| span.next)
    }

    #[inline]
    fn span(&self, position: usize) -> Option<Span> {
        let rest = self.bytes.get(position..)?;
        let (&[a, b, c, d, e, f, g, h], _) = rest.split_first_chunk::<LENGTHS_BYTES>()?;
        let key_length = usize::try_from(i32::from_be_bytes([a, b, c, d])).ok()?;
        let value_length = usize::try_from(i32::from_be_bytes([e, f, g, h])).ok()?;
        let key_start = position + LENGTHS_BYTES;
        let key_end = key_start + key_length;
        let mut next = key_end + value_length;
        let mut cell_end = next;
        if self.layout.tags {
            let (&[high, low], _) = self.bytes.get(next..)?.split_first_chunk::<2>()?;
            let tags_length = usize::from(u16::from_be_bytes([high, low]));
            next += 2 + tags_length;
            if tags_length > 0 {
                cell_end = next;
            }
        }
        let mut sequence_id = 0;
        if self.layout.sequence_ids {
            let mut fields = Fields::new(self.bytes.get(next..)?, "a sequence id");
            sequence_id = fields.variable().ok()?;
            next = self.end() - fields.rest().len();
        }
        (next <= self.end()).then_some(Span {
            key: key_start..key_end,
            cell_end,
            sequence_id,
            next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{CellBuilder, CellType};

    const LAYOUT: CellLayout = CellLayout { tags: true, sequence_ids: true };

    fn cells() -> Vec<Cell> {
        (0..100u64)
            .map(|number| {
                let tags: &[u8] = if number % 3 == 0 { &[0, 2, 7, 9] } else { &[] };
                CellBuilder {
                    row: format!("row{:03}", number * 2).as_bytes(),
                    family: b"f",
                    qualifier: b"q",
                    timestamp: 5,
                    cell_type: CellType::Put,
                    value: &vec![b'v'; number as usize],
                    tags,
                }
                .build()
                .unwrap()
                .with_sequence_id(SequenceId(number * 1000))
            })
            .collect()
    }

    fn block(cells: &[Cell]) -> DataBlock {
        let mut bytes = Vec::new();
        cells.iter().for_each(|cell| put_cell(&mut bytes, cell));
        DataBlock::parse(bytes.into(), LAYOUT).unwrap()
    }

    #[test]
    fn cells_come_back_in_order() {
        let (cells, mut position) = (cells(), 0);
        let block = block(&cells);
        for cell in &cells {
            let (read, next) = block.cell_at(position).unwrap();
            assert_eq!(&read, cell);
            position = next;
        }
        assert_eq!(position, block.end());
        assert_eq!(block.cell_at(block.last()).unwrap().0, cells[99]);
    }

    #[test]
    fn a_search_finds_what_a_walk_finds() {
        let cells = cells();
        let block = block(&cells);
        for number in 0..=200 {
            let row = format!("row{number:03}");
            let key = CellKey::before_row(row.as_bytes());
            let expected = cells.iter().find(|cell| cell.row() >= row.as_bytes());
            let position = block.seek(&key, 0);
            let found = (position < block.end()).then(|| block.cell_at(position).unwrap().0);
            assert_eq!(found.as_ref(), expected, "{row}");
            let expected = cells.iter().rfind(|cell| cell.row() < row.as_bytes());
            let found = block.seek_before(&key);
            let found = found.map(|position| block.cell_at(position).unwrap().0);
            assert_eq!(found.as_ref(), expected, "before {row}");
        }
    }

    #[test]
    fn a_search_from_a_cell_does_not_go_back() {
        let cells = cells();
        let block = block(&cells);
        let (_, from) = block.cell_at(0).unwrap();
        let key = cells[50].key();
        let position = block.seek(&key, from);
        assert_eq!(block.cell_at(position).unwrap().0, cells[50]);
        assert_eq!(block.seek(&cells[0].key(), from), from);
    }

    #[test]
    fn cells_that_do_not_fit_are_refused() {
        let mut bytes = Vec::new();
        put_cell(&mut bytes, &cells()[3]);
        let whole = Bytes::from(bytes);
        for length in 0..whole.len() {
            assert!(DataBlock::parse(whole.slice(..length), LAYOUT).is_err(), "{length}");
        }
        for position in 0..8 {
            let mut broken = whole.to_vec();
            broken[position] = 0xff;
            assert!(DataBlock::parse(broken.into(), LAYOUT).is_err(), "{position}");
        }
    }
}
