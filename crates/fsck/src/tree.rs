//! All files below the storage root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{Error, Result};

/// The files below the storage root, with their lengths in bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    /// The length of each file by its path.
    pub files: BTreeMap<PathBuf, u64>,
}

/// How many files and directories are kept in memory: some 300 MB.
const ENTRIES_MAX: usize = 2_000_000;
/// How many directories are listed at a time.
const LISTS_AT_ONCE: usize = 16;

// === impl Tree ===

impl Tree {
    /// Lists everything below `/`. A directory that is deleted or renamed meanwhile is passed over.
    ///
    /// # Errors
    /// [`Error::TooMany`], or the file system rejects a listing.
    pub async fn list(files: &SharedFileSystem) -> Result<Self> {
        let mut tree = Self::default();
        let mut level = vec![PathBuf::from("/")];
        let mut entries = 0;
        while !level.is_empty() {
            let listing: Vec<_> = level.iter().map(|directory| list(files, directory)).collect();
            let mut lists = stream::iter(listing).buffered(LISTS_AT_ONCE);
            let mut next = Vec::new();
            while let Some(children) = lists.try_next().await? {
                entries += children.len();
                if entries > ENTRIES_MAX {
                    return Err(Error::TooMany { limit: ENTRIES_MAX });
                }
                for (path, length) in children {
                    if let Some(length) = length {
                        tree.files.insert(path, length);
                    } else {
                        next.push(path);
                    }
                }
            }
            drop(lists);
            level = next;
        }
        Ok(tree)
    }
}

/// The entries of a directory, each with its length unless it is a directory itself.
async fn list(
    files: &SharedFileSystem,
    directory: &Path,
) -> basalt_fs::Result<Vec<(PathBuf, Option<u64>)>> {
    let entries = match files.list(directory).await {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        listed => listed?,
    };
    let child = |entry: basalt_fs::DirectoryEntry| {
        (directory.join(entry.name), (!entry.is_directory).then_some(entry.length))
    };
    Ok(entries.into_iter().map(child).collect())
}
