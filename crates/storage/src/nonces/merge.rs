//! Merging nonce files, and the choice of the files to merge.
//!
//! Only files of about the same time are merged, so that a file never spans more than
//! [`WINDOW_MS`]. A whole file then expires soon after its oldest entry, and can be dropped without
//! rewriting it. Among the files of one window, sizes decide as for store files, so that each entry
//! is rewritten a logarithmic number of times.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{Durability, SharedFileSystem};

use super::{Error, NonceEntry, NonceFile, NonceFileEntry, NonceFileWriter, RETENTION_MS};
use crate::compaction::CompactionPolicy;

/// Operations that are further apart are not merged into one file.
const WINDOW_MS: u64 = RETENTION_MS / 6;
/// How files of one window are chosen for a merge.
const POLICY: CompactionPolicy =
    CompactionPolicy { files_min: 4, files_max: 10, ratio_percent: 120, small_bytes: 64 << 10 };

/// What to do with some of the files, in the order of the manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Choice {
    /// Drop these files: they hold nothing that a client may still retry.
    Drop(Vec<usize>),
    /// Merge the files from `first` to before `end` into one.
    Merge {
        /// The first of them.
        first: usize,
        /// One past the last.
        end: usize,
    },
}

/// Chooses among `files`, in the order of the manifest; `None` if there is nothing to do.
pub fn choose(files: &[&NonceFileEntry], now_ms: u64) -> Option<Choice> {
    let is_over = |file: &NonceFileEntry| file.newest_ms.saturating_add(RETENTION_MS) < now_ms;
    let over: Vec<usize> = (0..).zip(files).filter(|(_, f)| is_over(f)).map(|(at, _)| at).collect();
    if !over.is_empty() {
        return Some(Choice::Drop(over));
    }
    (0..files.len()).find_map(|first| {
        let window = window(files.get(first..).unwrap_or_default());
        let lengths: Vec<u64> = window.iter().map(|file| file.length).collect();
        let choice = POLICY.choose(&lengths)?;
        Some(Choice::Merge { first: first + choice.first, end: first + choice.end })
    })
}

/// The longest run at the start of `files` that may be merged into one file.
fn window<'a, 'b>(files: &'a [&'b NonceFileEntry]) -> &'a [&'b NonceFileEntry] {
    let (mut oldest_ms, mut newest_ms, mut entries) = (u64::MAX, 0, 0_u64);
    let end = files.iter().position(|file| {
        oldest_ms = oldest_ms.min(file.oldest_ms);
        newest_ms = newest_ms.max(file.newest_ms);
        entries = entries.saturating_add(file.entries);
        newest_ms.saturating_sub(oldest_ms) > WINDOW_MS || entries > NonceFileWriter::ENTRIES_MAX
    });
    files.get(..end.unwrap_or(files.len())).unwrap_or_default()
}

/// Writes the entries of `inputs` that may still be retried to a file at `path`; its manifest entry
/// gets the name `name`.
///
/// # Errors
/// If an input cannot be read, or the file system returns an error.
pub async fn merge(
    files: &SharedFileSystem,
    path: &Path,
    name: String,
    inputs: &[Arc<NonceFile>],
    now_ms: u64,
    durability: Durability,
) -> Result<NonceFileEntry, Error> {
    let entries_max = inputs.iter().map(|input| input.entry().entries).sum();
    let mut scanners = Vec::with_capacity(inputs.len());
    let mut heads: Vec<Option<NonceEntry>> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut scanner = input.scanner();
        heads.push(scanner.next().await?);
        scanners.push(scanner);
    }
    let mut writer = NonceFileWriter::create(files, path, entries_max, durability).await?;
    while let Some(lowest) = heads.iter().flatten().map(|head| head.nonce).min() {
        let mut newest: Option<NonceEntry> = None;
        for (head, scanner) in heads.iter_mut().zip(&mut scanners) {
            if let Some(entry) = head.take_if(|head| head.nonce == lowest) {
                *head = scanner.next().await?;
                // A client used a nonce twice, a long time apart: the later operation counts.
                if newest.as_ref().is_none_or(|newest| newest.sequence_id < entry.sequence_id) {
                    newest = Some(entry);
                }
            }
        }
        let is_needed = |entry: &NonceEntry| entry.at_ms.saturating_add(RETENTION_MS) >= now_ms;
        if let Some(entry) = newest.filter(is_needed) {
            writer.append(&entry).await?;
        }
    }
    writer.finish(name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn file(minutes: std::ops::Range<u64>, length: u64) -> NonceFileEntry {
        NonceFileEntry {
            name: String::new(),
            length,
            entries: length / 90,
            oldest_ms: minutes.start * MINUTE_MS,
            newest_ms: minutes.end * MINUTE_MS,
        }
    }

    fn chosen(files: &[NonceFileEntry], now_minute: u64) -> Option<Choice> {
        choose(&files.iter().collect::<Vec<_>>(), now_minute * MINUTE_MS)
    }

    #[test]
    fn files_go_when_their_newest_operation_is_too_old() {
        let files = [file(0..1, 900), file(0..9, 900), file(1..2, 900)];
        assert_eq!(chosen(&files, 31), None);
        assert_eq!(chosen(&files, 32), Some(Choice::Drop(vec![0])));
        assert_eq!(chosen(&files, 33), Some(Choice::Drop(vec![0, 2])));
    }

    #[test]
    fn files_of_one_time_become_one() {
        let files: Vec<_> = (0..12).map(|minute| file(minute..minute + 1, 9 << 20)).collect();
        assert_eq!(chosen(&files[..3], 12), None);
        assert_eq!(chosen(&files, 12), Some(Choice::Merge { first: 0, end: 5 }));
        let merged = [&[file(0..5, 45 << 20)], &files[5..]].concat();
        assert_eq!(chosen(&merged, 12), Some(Choice::Merge { first: 1, end: 6 }));
    }

    /// Simulates the disk of a region with 5,000 operations a second and a flush every 20 seconds.
    #[test]
    fn there_are_few_files_and_each_entry_is_rewritten_a_few_times() {
        let mut files: Vec<NonceFileEntry> = Vec::new();
        let (mut flushed, mut rewritten, mut most) = (0, 0, 0);
        for round in 0..540 {
            let at = round * 20_000;
            let (entries, length) = (100_000, 9_000_000);
            let name = String::new();
            let (oldest_ms, newest_ms) = (at, at + 20_000);
            files.push(NonceFileEntry { name, length, entries, oldest_ms, newest_ms });
            flushed += length;
            while let Some(choice) = choose(&files.iter().collect::<Vec<_>>(), newest_ms) {
                match choice {
                    Choice::Drop(over) => {
                        let mut at = 0..;
                        files.retain(|_| !over.contains(&at.next().unwrap()));
                    }
                    Choice::Merge { first, end } => {
                        let inputs: Vec<_> = files.drain(first..end).collect();
                        let merged = NonceFileEntry {
                            name: String::new(),
                            length: inputs.iter().map(|file| file.length).sum(),
                            entries: inputs.iter().map(|file| file.entries).sum(),
                            oldest_ms: inputs[0].oldest_ms,
                            newest_ms: inputs[inputs.len() - 1].newest_ms,
                        };
                        rewritten += merged.length;
                        files.insert(first, merged);
                    }
                }
            }
            most = most.max(files.len());
        }
        assert!(most <= 32, "{most} files");
        assert!(rewritten < 4 * flushed, "{rewritten} bytes rewritten of {flushed}");
        let entries: u64 = files.iter().map(|file| file.entries).sum();
        assert!((9_000_000..11_000_000).contains(&entries), "{entries} entries are kept");
    }
}
