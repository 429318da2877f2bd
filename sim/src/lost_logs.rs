//! Log files that something other than Basalt deletes or shortens, and that come back later: an
//! operator who deletes the wrong folder, a file system that loses files, a backup.

use std::path::{Path, PathBuf};

use basalt_fs::MemoryFileSystem;
use basalt_model::{log_holds_edits, paths};
use basalt_runtime::Random;
use bytes::Bytes;

use crate::faults::LogLoss;

/// Files that were removed from the shared disk.
pub(crate) struct LostLogs {
    /// The files as they were.
    taken: Vec<(PathBuf, Bytes)>,
}

// === impl LostLogs ===

impl std::fmt::Debug for LostLogs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.taken.iter().map(|(path, _)| path)).finish()
    }
}

impl LostLogs {
    /// Removes data from the logs of the process `name`, or from a log that was just sealed.
    /// Returns the removed files.
    pub(crate) fn take(
        disk: &MemoryFileSystem,
        name: &str,
        loss: LogLoss,
        random: &Random,
    ) -> Self {
        let mut logs = match loss {
            LogLoss::Sealed => sealed_logs(disk),
            _ => live_logs(disk, name),
        };
        match loss {
            LogLoss::Folder => {}
            LogLoss::File => keep_one(&mut logs, random),
            // Only its server knows the length of the file that is being written, and for a moment
            // also that of the one before.
            LogLoss::Closed => {
                logs.truncate(logs.len().saturating_sub(2));
                keep_one(&mut logs, random);
            }
            LogLoss::Sealed => {
                logs.sort_by_key(|(_, bytes)| bytes.len());
                logs.drain(..logs.len().saturating_sub(1));
            }
        }
        for (path, bytes) in &logs {
            disk.remove(path);
            if matches!(loss, LogLoss::Closed | LogLoss::Sealed) {
                let kept = random.in_range(0..bytes.len() as u64);
                disk.put_file(path, &bytes[..usize::try_from(kept).unwrap_or(0)]);
            }
        }
        if loss == LogLoss::Folder
            && let Some(folder) = logs.first().and_then(|(path, _)| path.parent())
        {
            disk.remove(folder);
        }
        Self { taken: logs }
    }

    /// The server and the number of each log from which something was removed.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.taken.iter().filter_map(|(path, _)| path.file_name()?.to_str());
        files.filter_map(|name| name.rsplit_once('.'))
    }

    /// Puts the removed files back. If the server has been fenced meanwhile, they go to the folder
    /// of its fenced log, unless that log is no longer needed.
    pub(crate) fn put_back(self, disk: &MemoryFileSystem) {
        for (path, bytes) in self.taken {
            let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else { continue };
            let fenced = fenced_folder(folder);
            if disk.is_folder(&fenced) {
                disk.put_file(&fenced.join(file), &bytes);
            } else if !is_fenced(folder) {
                disk.put_folder(folder);
                disk.put_file(&path, &bytes);
            }
        }
    }
}

fn keep_one(logs: &mut Vec<(PathBuf, Bytes)>, random: &Random) {
    if logs.is_empty() {
        return;
    }
    let kept = usize::try_from(random.in_range(0..logs.len() as u64)).unwrap_or(0);
    logs.swap(0, kept);
    logs.truncate(1);
}

/// The log files of the last life of the process `name`, oldest first.
fn live_logs(disk: &MemoryFileSystem, name: &str) -> Vec<(PathBuf, Bytes)> {
    let mut logs = disk.files_below(&paths::logs());
    let is_its = |folder: &Path| {
        let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
        folder_name.starts_with(&format!("{name},")) && !is_fenced(folder)
    };
    logs.retain(|(path, _)| path.parent().is_some_and(is_its));
    let newest = logs.iter().filter_map(|(path, _)| path.parent()).max().map(Path::to_owned);
    logs.retain(|(path, _)| path.parent() == newest.as_deref());
    logs.sort_by_key(|(path, _)| number(path));
    logs
}

/// The log files of fenced servers that contain edits.
fn sealed_logs(disk: &MemoryFileSystem) -> Vec<(PathBuf, Bytes)> {
    let mut logs = disk.files_below(&paths::logs());
    logs.retain(|(path, bytes)| {
        path.parent().is_some_and(is_fenced)
            && number(path).is_some()
            && log_holds_edits(bytes.len() as u64)
    });
    logs
}

/// The number of a log file; `None` for an index.
fn number(path: &Path) -> Option<u64> {
    path.extension()?.to_str()?.parse().ok()
}

fn is_fenced(folder: &Path) -> bool {
    folder.to_string_lossy().ends_with("-splitting")
}

fn fenced_folder(folder: &Path) -> PathBuf {
    if is_fenced(folder) {
        return folder.to_owned();
    }
    let mut fenced = folder.as_os_str().to_owned();
    fenced.push("-splitting");
    fenced.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/WALs/rs-0,16020,7";

    fn disk() -> MemoryFileSystem {
        let disk = MemoryFileSystem::new();
        for folder in ["/WALs", "/WALs/rs-0,16020,3", FOLDER] {
            disk.put_folder(Path::new(folder));
        }
        disk.put_file(Path::new("/WALs/rs-0,16020,3/rs-0,16020,3.1"), &[1; 900]);
        for number in 9..=11 {
            disk.put_file(&Path::new(FOLDER).join(format!("rs-0,16020,7.{number}")), &[2; 900]);
        }
        disk
    }

    fn lengths(disk: &MemoryFileSystem) -> Vec<usize> {
        let files = disk.files_below(Path::new("/WALs"));
        files.iter().filter(|(_, bytes)| bytes.first() == Some(&2)).map(|(_, b)| b.len()).collect()
    }

    #[test]
    fn what_is_taken_comes_back_where_the_log_lies_then() {
        let random = Random::from_seed(1);
        for (loss, left) in [(LogLoss::Folder, 0), (LogLoss::File, 2), (LogLoss::Closed, 3)] {
            let disk = disk();
            let lost = LostLogs::take(&disk, "rs-0", loss, &random);
            assert!(lengths(&disk).len() <= left && lengths(&disk) != [900; 3], "{loss:?}");
            assert_eq!(disk.is_folder(Path::new(FOLDER)), loss != LogLoss::Folder);
            let fenced = fenced_folder(Path::new(FOLDER));
            disk.put_folder(&fenced);
            for (path, bytes) in disk.files_below(Path::new(FOLDER)) {
                disk.remove(&path);
                disk.put_file(&fenced.join(path.file_name().unwrap()), &bytes);
            }
            lost.put_back(&disk);
            assert_eq!(lengths(&disk), [900; 3], "{loss:?}");
        }
    }

    #[test]
    fn a_sealed_log_becomes_shorter() {
        let disk = disk();
        let fenced = PathBuf::from("/WALs/rs-1,16020,2-splitting");
        disk.put_folder(&fenced);
        disk.put_file(&fenced.join("rs-1,16020,2.4"), &[3; 700]);
        disk.put_file(&fenced.join("rs-1,16020,2.4.parts"), &[3; 9_000]);
        let lost = LostLogs::take(&disk, "master-0", LogLoss::Sealed, &Random::from_seed(2));
        let length = |disk: &MemoryFileSystem| {
            let files = disk.files_below(&fenced);
            files.iter().find(|(path, _)| number(path) == Some(4)).map(|(_, bytes)| bytes.len())
        };
        assert!(length(&disk) < Some(700));
        lost.put_back(&disk);
        assert_eq!(length(&disk), Some(700));
        assert_eq!(lengths(&disk), [900; 3]);
    }
}
