//! Which files of the log are still needed, and by which regions. Pure bookkeeping.
//!
//! A file is needed until it is closed and, for each region in it, the highest sequence id that it
//! holds has been flushed into store files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use basalt_model::{EncodedRegionName, SequenceId};

/// The files of one log, by number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
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
    state: FileState,
    /// It may be on a single machine: see [`AppendFile::give_up`](basalt_fs::AppendFile::give_up).
    lacks_copies: bool,
    unflushed: BTreeMap<EncodedRegionName, Unflushed>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FileState {
    Written,
    Closed,
    /// Somebody is deleting it.
    Leaving,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unflushed {
    highest: SequenceId,
    bytes: u64,
}

// === impl Ledger ===

impl Ledger {
    /// A new file, which is written from now on; the one before is closed.
    pub(super) fn open_file(&mut self, number: u64, path: PathBuf) {
        self.close_files();
        let entry = FileEntry {
            path,
            bytes: 0,
            state: FileState::Written,
            lacks_copies: false,
            unflushed: BTreeMap::new(),
        };
        self.files.insert(number, entry);
    }

    /// No file is written any more.
    pub(super) fn close_files(&mut self) {
        for entry in self.files.values_mut() {
            if entry.state == FileState::Written {
                entry.state = FileState::Closed;
            }
        }
    }

    /// Edits about to be written to a file, which is `bytes` long then.
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

    /// All edits of `region` up to `sequence_id` are in store files.
    pub(super) fn flushed(&mut self, region: EncodedRegionName, sequence_id: SequenceId) {
        for entry in self.files.values_mut() {
            if let Some(unflushed) = entry.unflushed.get(&region)
                && unflushed.highest <= sequence_id
            {
                entry.unflushed.remove(&region);
            }
        }
    }

    /// Takes the oldest file that nobody needs. It must come back by [`Ledger::deleted`] or
    /// [`Ledger::not_deleted`].
    pub(super) fn take_obsolete(&mut self) -> Option<(u64, PathBuf)> {
        let (number, entry) = self
            .files
            .iter_mut()
            .find(|(_, entry)| entry.state == FileState::Closed && entry.unflushed.is_empty())?;
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

    /// The regions that must be flushed before no more than `files_max` files are needed.
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

    /// A file that failed is in too few copies.
    pub(super) fn lacks_copies(&mut self, number: u64) {
        if let Some(entry) = self.files.get_mut(&number) {
            entry.lacks_copies = true;
        }
    }

    /// The regions that must be flushed before no file in too few copies is needed.
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

    /// The bytes of edits in files which hold later edits of the same region that are not flushed:
    /// what a recovery would have to read at most.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        let regions = self.files.values().flat_map(|entry| entry.unflushed.values());
        regions.map(|unflushed| unflushed.bytes).sum()
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

    fn obsolete(ledger: &mut Ledger) -> Option<u64> {
        ledger.take_obsolete().map(|(number, _)| number)
    }

    #[test]
    fn a_file_is_needed_until_each_region_in_it_is_flushed() {
        let mut ledger = Ledger::default();
        ledger.open_file(1, "/1".into());
        ledger.record(1, 700, &[edit(1, 10), edit(2, 5), edit(1, 11)]);
        ledger.flushed(region(2), SequenceId(5));
        ledger.open_file(2, "/2".into());
        assert_eq!(obsolete(&mut ledger), None, "11 of region 1 is not flushed");
        ledger.flushed(region(1), SequenceId(10));
        assert_eq!(ledger.unflushed_bytes(), 200);
        assert_eq!(obsolete(&mut ledger), None, "11 of region 1 is not flushed");
        ledger.flushed(region(1), SequenceId(11));
        assert_eq!(obsolete(&mut ledger), Some(1));
        assert_eq!(obsolete(&mut ledger), None, "it is being deleted already");
        ledger.not_deleted(1);
        assert_eq!(obsolete(&mut ledger), Some(1));
        ledger.deleted(1);
        assert_eq!(ledger.files(), 1);
    }

    #[test]
    fn the_file_being_written_is_never_obsolete() {
        let mut ledger = Ledger::default();
        ledger.open_file(1, "/1".into());
        assert_eq!(obsolete(&mut ledger), None);
        ledger.close_files();
        assert_eq!(obsolete(&mut ledger), Some(1));
    }

    #[test]
    fn the_regions_of_the_oldest_files_are_to_be_flushed() {
        let mut ledger = Ledger::default();
        for number in 1..=4 {
            ledger.open_file(number, format!("/{number}").into());
            ledger.record(number, 100, &[edit(number as u8, number)]);
        }
        assert_eq!(ledger.oldest_needing_flush(4), []);
        assert_eq!(ledger.oldest_needing_flush(2), [region(1), region(2)]);
        ledger.flushed(region(1), SequenceId(1));
        assert_eq!(ledger.oldest_needing_flush(2), [region(2)]);
    }

    #[test]
    fn the_regions_of_a_file_in_too_few_copies_are_to_be_flushed() {
        let mut ledger = Ledger::default();
        for number in 1..=2 {
            ledger.open_file(number, format!("/{number}").into());
            ledger.record(number, 100, &[edit(1, 10 * number), edit(number as u8 + 1, 1)]);
        }
        assert_eq!(ledger.lacking_copies(), BTreeSet::new());
        ledger.lacks_copies(1);
        assert_eq!(ledger.lacking_copies(), BTreeSet::from([region(1), region(2)]));
        ledger.flushed(region(1), SequenceId(10));
        assert_eq!(ledger.lacking_copies(), BTreeSet::from([region(2)]), "20 is in another file");
    }
}
