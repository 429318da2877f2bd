//! Changes to a coordinator's folder while its process is down: it is copied, lost, replaced by an
//! earlier copy, or falsified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use basalt_fs::MemoryFileSystem;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::plan::FAMILY_SECOND;

/// What is done to a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Folder {
    /// A copy is made; it replaces an earlier copy.
    Copied,
    /// A copy is made, and the folder is emptied.
    Lost,
    /// The folder is restored from the copy.
    Restored,
    /// An entry of the log differs from what was written, with a correct checksum: a bug might do
    /// this to one member alone.
    Falsified,
}

/// The copy of a folder; a cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct FolderCopy(Arc<Mutex<Vec<(PathBuf, Bytes)>>>);

/// The position of the checksum in a frame of the log. Length and checksum have four bytes each.
const CHECKSUM: std::ops::Range<usize> = 4..8;
/// The header of a frame ends with its offset in the file. The checksum covers the offset, but not
/// the length.
const HEAD_BYTES: usize = 16;
/// The text to falsify. It is in the record of the table, which the coordinator keeps while the
/// table exists.
const WRITTEN: &str = FAMILY_SECOND;

// === impl FolderCopy ===

impl FolderCopy {
    /// Applies `what` to the folder, which is the whole `disk`.
    ///
    /// # Errors
    /// No log contains the text to falsify.
    pub(crate) fn apply(&self, disk: &MemoryFileSystem, what: Folder) -> anyhow::Result<()> {
        let files = disk.files_below(Path::new("/"));
        match what {
            Folder::Copied => *self.0.lock() = files,
            Folder::Lost => {
                remove_all(disk, &files);
                *self.0.lock() = files;
            }
            Folder::Restored => {
                remove_all(disk, &files);
                for (path, contents) in self.0.lock().iter() {
                    disk.put_file(path, contents);
                }
            }
            Folder::Falsified => {
                let mut falsified = 0;
                for (path, contents) in files.iter().filter(|(path, _)| is_log(path)) {
                    let (contents, count) = falsify(contents);
                    disk.remove(path);
                    disk.put_file(path, &contents);
                    falsified += count;
                }
                ensure!(falsified > 0, "{WRITTEN:?} is in no log: nothing was falsified");
            }
        }
        Ok(())
    }
}

fn remove_all(disk: &MemoryFileSystem, files: &[(PathBuf, Bytes)]) {
    for (path, _) in files {
        disk.remove(path);
    }
}

fn is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"))
}

/// Changes a letter of [`WRITTEN`] wherever a whole frame of the log contains it. Returns the log
/// and the number of changes.
fn falsify(log: &[u8]) -> (Vec<u8>, usize) {
    let (mut falsified, mut count, mut begin) = (log.to_vec(), 0, 0);
    while let Some(frame) = falsified.get_mut(begin..) {
        let Some(length) = frame.first_chunk().map(|length| u32::from_be_bytes(*length)) else {
            break;
        };
        let end = usize::try_from(length).map_or(usize::MAX, |length| HEAD_BYTES + length);
        // The last frame may be cut off.
        let Some(frame) = frame.get_mut(..end) else { break };
        let places = frame.windows(WRITTEN.len()).enumerate();
        let places = places.filter(|(_, bytes)| *bytes == WRITTEN.as_bytes());
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        for place in &places {
            frame[*place].make_ascii_uppercase();
        }
        if !places.is_empty() {
            let checksum = crc32c::crc32c(&frame[CHECKSUM.end..]);
            frame[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        }
        count += places.len();
        begin += end;
    }
    (falsified, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(files: &[(&str, &[u8])]) -> MemoryFileSystem {
        let disk = MemoryFileSystem::new();
        for (path, contents) in files {
            disk.put_file(Path::new(path), contents);
        }
        disk
    }

    #[test]
    fn a_folder_is_lost_and_found_and_an_old_copy_comes_back() {
        let disk = disk(&[("/log-1", b"old"), ("/life", b"1")]);
        let before = disk.files_below(Path::new("/"));
        let copy = FolderCopy::default();
        copy.apply(&disk, Folder::Copied).unwrap();
        disk.put_file(Path::new("/log-2"), b"new");
        copy.apply(&disk, Folder::Restored).unwrap();
        assert_eq!(disk.files_below(Path::new("/")), before);
        copy.apply(&disk, Folder::Lost).unwrap();
        assert_eq!(disk.files_below(Path::new("/")), []);
        copy.apply(&disk, Folder::Restored).unwrap();
        assert_eq!(disk.files_below(Path::new("/")), before);
    }

    #[test]
    fn a_falsified_frame_has_a_right_checksum_and_others_stay() {
        let frame = |contents: &str| {
            let mut frame = u32::try_from(contents.len()).unwrap().to_be_bytes().to_vec();
            let checked = [&[0; 8][..], contents.as_bytes()].concat();
            frame.extend(crc32c::crc32c(&checked).to_be_bytes());
            frame.extend(checked);
            frame
        };
        let torn = &frame("a second one")[..20];
        let log = [frame("the first one"), frame("a second one"), torn.to_vec()].concat();
        let wrong = [frame("the first one"), frame("a Second one"), torn.to_vec()].concat();
        let disk = disk(&[("/log-1", &log), ("/identity", b"second")]);
        let copy = FolderCopy::default();
        copy.apply(&disk, Folder::Falsified).unwrap();
        let files = disk.files_below(Path::new("/"));
        let contents: Vec<&[u8]> = files.iter().map(|(_, contents)| &contents[..]).collect();
        assert_eq!(contents, [b"second", &wrong[..]]);
        assert!(copy.apply(&disk, Folder::Falsified).is_err());
    }
}
