//! Which files of the log are still needed, and by which regions. Pure bookkeeping without I/O.
//!
//! A file is needed until it is closed and all its edits have been flushed: for each region in it,
//! the highest sequence id that the file holds is in store files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use basalt_model::{EncodedRegionName, LOG_HEADER_BYTES, SequenceId};

use super::listing::LogList;

/// The files of one log, by number.
#[derive(Debug, Default)]
pub(super) struct SequenceIdAccounting {
    files: BTreeMap<u64, FileEntry>,
}

/// An edit that was added to a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub(super) region: EncodedRegionName,
    pub(super) sequence_id: SequenceId,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct FileEntry {
    path: PathBuf,
    bytes: u64,
    /// How many bytes are known to be durable; updated only when the file is closed.
    durable_bytes: u64,
    state: FileState,
    /// The file may exist on a single machine: see
    /// [`AppendFile::give_up`](basalt_fs::AppendFile::give_up).
    lacks_copies: bool,
    unflushed: BTreeMap<EncodedRegionName, Unflushed>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FileState {
    /// It exists, and will later replace the file being written.
    Next,
    Written,
    Closed,
    /// It is being deleted.
    Leaving,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unflushed {
    highest: SequenceId,
    bytes: u64,
}

// === impl SequenceIdAccounting ===

impl SequenceIdAccounting {
    /// Adds a new file.
    pub(super) fn add_file(&mut self, number: u64, path: PathBuf) {
        let entry = FileEntry {
            path,
            bytes: 0,
            durable_bytes: LOG_HEADER_BYTES,
            state: FileState::Next,
            lacks_copies: false,
            unflushed: BTreeMap::new(),
        };
        self.files.insert(number, entry);
    }

    /// Marks a file as the one being written, and the one before as closed.
    pub(super) fn open_file(&mut self, number: u64) {
        self.close_files();
        if let Some(entry) = self.files.get_mut(&number) {
            entry.state = FileState::Written;
        }
    }

    /// Records that the first `bytes` bytes of a file are durable, and that no more will be added.
    pub(super) fn closed(&mut self, number: u64, bytes: u64) {
        if let Some(entry) = self.files.get_mut(&number) {
            entry.durable_bytes = bytes;
        }
    }

    /// The files that must not vanish.
    pub(super) fn list(&self) -> LogList {
        let is_needed = |entry: &FileEntry| !entry.is_obsolete();
        let needed = self.files.iter().filter(|(_, entry)| is_needed(entry));
        LogList { files: needed.map(|(number, entry)| (*number, entry.durable_bytes)).collect() }
    }

    /// Records that no file is being written any more.
    pub(super) fn close_files(&mut self) {
        for entry in self.files.values_mut() {
            if entry.state == FileState::Written {
                entry.state = FileState::Closed;
            }
        }
    }

    /// Records edits that are about to be written to a file, whose length will then be `bytes`.
    pub(super) fn record(&mut self, number: u64, bytes: u64, edits: &[Touched]) {
        let Some(entry) = self.files.get_mut(&number) else {
            return;
        };
        entry.bytes = bytes;
        for edit in edits {
            let unflushed = entry.unflushed.entry(edit.region).or_default();
            unflushed.highest = unflushed.highest.max(edit.sequence_id);
            unflushed.bytes += edit.bytes;
        }
    }

    /// Records that all edits of `region` up to `sequence_id` are in store files.
    pub(super) fn flushed(&mut self, region: EncodedRegionName, sequence_id: SequenceId) {
        for entry in self.files.values_mut() {
            if let Some(unflushed) = entry.unflushed.get(&region)
                && unflushed.highest <= sequence_id
            {
                entry.unflushed.remove(&region);
            }
        }
    }

    /// Takes the oldest file that is obsolete and released. The caller must report the result with
    /// [`SequenceIdAccounting::deleted`] or [`SequenceIdAccounting::not_deleted`].
    pub(super) fn take_obsolete(
        &mut self,
        is_released: impl Fn(u64) -> bool,
    ) -> Option<(u64, PathBuf)> {
        let (number, entry) = self.files.iter_mut().find(|(number, entry)| {
            entry.state == FileState::Closed && entry.is_obsolete() && is_released(**number)
        })?;
        entry.state = FileState::Leaving;
        Some((*number, entry.path.clone()))
    }

    pub(super) fn deleted(&mut self, number: u64) {
        self.files.remove(&number);
    }

    pub(super) fn not_deleted(&mut self, number: u64) {
        if let Some(entry) = self.files.get_mut(&number) {
            entry.state = FileState::Closed;
        }
    }

    /// The regions that must be flushed for at most `files_max` files to be needed.
    pub(super) fn oldest_needing_flush(&self, files_max: usize) -> Vec<EncodedRegionName> {
        let too_many = self.files.len().saturating_sub(files_max);
        let regions: BTreeSet<_> = self
            .files
            .values()
            .take(too_many)
            .flat_map(|entry| entry.unflushed.keys().copied())
            .collect();
        regions.into_iter().collect()
    }

    /// Records that a failed file has too few copies.
    pub(super) fn lacks_copies(&mut self, number: u64) {
        if let Some(entry) = self.files.get_mut(&number) {
            entry.lacks_copies = true;
        }
    }

    /// The regions that must be flushed for no file with too few copies to be needed.
    pub(super) fn lacking_copies(&self) -> BTreeSet<EncodedRegionName> {
        let lacking = self.files.values().filter(|entry| entry.lacks_copies);
        lacking.flat_map(|entry| entry.unflushed.keys().copied()).collect()
    }

    /// The number of files.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// The length of all files in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }

    /// The bytes of edits of regions whose latest edits in the same file are not flushed. This is
    /// an upper bound of what a recovery would have to read.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        let regions = self.files.values().flat_map(|entry| entry.unflushed.values());
        regions.map(|unflushed| unflushed.bytes).sum()
    }
}

// === impl FileEntry ===

impl FileEntry {
    /// Whether the file is closed and all its edits are flushed.
    fn is_obsolete(&self) -> bool {
        let is_closed = matches!(self.state, FileState::Closed | FileState::Leaving);
        is_closed && self.unflushed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: u8) -> EncodedRegionName {
        EncodedRegionName::from_digest([number; 16])
    }

    fn edit(number: u8, sequence_id: u64) -> Touched {
        Touched { region: region(number), sequence_id: SequenceId(sequence_id), bytes: 100 }
    }

    fn obsolete(accounting: &mut SequenceIdAccounting) -> Option<u64> {
        accounting.take_obsolete(|_| true).map(|(number, _)| number)
    }

    fn open_file(accounting: &mut SequenceIdAccounting, number: u64) {
        accounting.add_file(number, format!("/{number}").into());
        accounting.open_file(number);
    }

    #[test]
    fn a_file_is_needed_until_each_region_in_it_is_flushed() {
        let mut accounting = SequenceIdAccounting::default();
        open_file(&mut accounting, 1);
        accounting.record(1, 700, &[edit(1, 10), edit(2, 5), edit(1, 11)]);
        accounting.flushed(region(2), SequenceId(5));
        open_file(&mut accounting, 2);
        assert_eq!(obsolete(&mut accounting), None, "11 of region 1 is not flushed");
        accounting.flushed(region(1), SequenceId(10));
        assert_eq!(accounting.unflushed_bytes(), 200);
        assert_eq!(obsolete(&mut accounting), None, "11 of region 1 is not flushed");
        accounting.flushed(region(1), SequenceId(11));
        assert_eq!(obsolete(&mut accounting), Some(1));
        assert_eq!(obsolete(&mut accounting), None, "it is being deleted already");
        accounting.not_deleted(1);
        assert_eq!(obsolete(&mut accounting), Some(1));
        accounting.deleted(1);
        assert_eq!(accounting.files(), 1);
    }

    #[test]
    fn the_file_being_written_is_never_obsolete() {
        let mut accounting = SequenceIdAccounting::default();
        open_file(&mut accounting, 1);
        assert_eq!(obsolete(&mut accounting), None);
        accounting.close_files();
        assert_eq!(obsolete(&mut accounting), Some(1));
    }

    #[test]
    fn a_file_is_listed_until_nobody_needs_it() {
        let mut accounting = SequenceIdAccounting::default();
        let listed = |accounting: &SequenceIdAccounting| Vec::from_iter(accounting.list().files);
        open_file(&mut accounting, 1);
        accounting.record(1, 700, &[edit(1, 10)]);
        assert_eq!(listed(&accounting), [(1, 512)], "what is durable of it is not kept up to date");
        accounting.add_file(2, "/2".into());
        assert_eq!(listed(&accounting), [(1, 512), (2, 512)]);
        accounting.open_file(2);
        accounting.closed(1, 700);
        assert_eq!(listed(&accounting), [(1, 700), (2, 512)]);
        accounting.flushed(region(1), SequenceId(10));
        assert_eq!(listed(&accounting), [(2, 512)]);
        assert_eq!(
            accounting.take_obsolete(|number| number != 1),
            None,
            "the record names it still"
        );
        assert_eq!(obsolete(&mut accounting), Some(1));
        assert_eq!(listed(&accounting), [(2, 512)], "it is being deleted");
    }

    #[test]
    fn the_regions_of_the_oldest_files_are_to_be_flushed() {
        let mut accounting = SequenceIdAccounting::default();
        for number in 1..=4 {
            open_file(&mut accounting, number);
            accounting.record(number, 100, &[edit(number as u8, number)]);
        }
        assert_eq!(accounting.oldest_needing_flush(4), []);
        assert_eq!(accounting.oldest_needing_flush(2), [region(1), region(2)]);
        accounting.flushed(region(1), SequenceId(1));
        assert_eq!(accounting.oldest_needing_flush(2), [region(2)]);
    }

    #[test]
    fn the_regions_of_a_file_in_too_few_copies_are_to_be_flushed() {
        let mut accounting = SequenceIdAccounting::default();
        for number in 1..=2 {
            open_file(&mut accounting, number);
            accounting.record(number, 100, &[edit(1, 10 * number), edit(number as u8 + 1, 1)]);
        }
        assert_eq!(accounting.lacking_copies(), BTreeSet::new());
        accounting.lacks_copies(1);
        assert_eq!(accounting.lacking_copies(), BTreeSet::from([region(1), region(2)]));
        accounting.flushed(region(1), SequenceId(10));
        assert_eq!(
            accounting.lacking_copies(),
            BTreeSet::from([region(2)]),
            "20 is in another file"
        );
    }
}
