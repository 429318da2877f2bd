//! Opens a file that a manifest names, at its live path or in the archive.
//!
//! A replaced file moves from its live directory to the archive at the same path
//! ([`basalt_model::paths::archived`]). A reader may still need it, and a manifest may name it. So
//! a file is looked up live, then in the archive, then live again: that finds a file that moves
//! once during the lookup, in either direction. The lookup itself never moves a file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use basalt_fs::{Error, ReadFile, Result, SharedFileSystem};
use basalt_model::paths;
use bytes::Bytes;
use parking_lot::Mutex;

/// A file that is open for reading and may move to the archive meanwhile.
///
/// A file system may look for a file by its path again after it was opened: HDFS does when the
/// DataNodes that it knows do not answer. Such a read looks the file up again.
pub(crate) struct NamedFile {
    files: SharedFileSystem,
    live: PathBuf,
    length: u64,
    opened: Mutex<Arc<dyn ReadFile>>,
}

// === impl NamedFile ===

impl NamedFile {
    /// Opens the file whose path is `live` while it is not archived. Also returns the path at which
    /// it was found.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the path `live` if it is in neither place.
    pub(crate) async fn open(files: &SharedFileSystem, live: &Path) -> Result<(PathBuf, Self)> {
        let (path, opened) = look_up(files, live).await?;
        let (files, live, length) = (Arc::clone(files), live.to_owned(), opened.length());
        Ok((path, Self { files, live, length, opened: Mutex::new(opened) }))
    }

    fn opened(&self) -> Arc<dyn ReadFile> {
        Arc::clone(&self.opened.lock())
    }

    /// Looks the file up again after a read did not find it. A file of another length is not the
    /// one that was opened.
    async fn open_again(&self) -> Result<Arc<dyn ReadFile>> {
        let (_, opened) = look_up(&self.files, &self.live).await?;
        if opened.length() != self.length {
            return Err(Error::NotFound { path: self.live.clone() });
        }
        *self.opened.lock() = Arc::clone(&opened);
        Ok(opened)
    }
}

#[async_trait]
impl ReadFile for NamedFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        match self.opened().read_at(offset, length).await {
            Err(error) if error.is_not_found() => {
                self.open_again().await?.read_at(offset, length).await
            }
            result => result,
        }
    }

    async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Bytes> {
        match self.opened().read_ranges(ranges).await {
            Err(error) if error.is_not_found() => {
                self.open_again().await?.read_ranges(ranges).await
            }
            result => result,
        }
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn is_far(&self) -> bool {
        self.opened().is_far()
    }
}

/// Opens the file whose path is `live` while it is not archived, and returns where it was found.
///
/// # Errors
/// [`Error::NotFound`] with the path `live`: it is in neither place.
pub async fn look_up(
    files: &SharedFileSystem,
    live: &Path,
) -> Result<(PathBuf, Arc<dyn ReadFile>)> {
    let archived = paths::archived(live);
    let mut missing = Error::NotFound { path: live.to_owned() };
    for path in [live, archived.as_path(), live] {
        match files.open(path).await {
            Ok(opened) => return Ok((path.to_owned(), opened)),
            Err(error) if error.is_not_found() && path == live => missing = error,
            Err(error) if error.is_not_found() => {}
            // The file may exist: one that cannot be read is not missing.
            Err(error) => return Err(error),
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use basalt_fs::{FileSystem, MemoryFileSystem};

    use super::*;

    const LIVE: &str = "/data/default/t/r/f/a";

    async fn disk() -> (Arc<MemoryFileSystem>, SharedFileSystem) {
        let disk = Arc::new(MemoryFileSystem::new());
        let archived = paths::archived(Path::new(LIVE));
        for path in [Path::new(LIVE), archived.as_path()] {
            disk.create_directories(path.parent().unwrap()).await.unwrap();
        }
        let mut file = disk.create(Path::new(LIVE)).await.unwrap();
        file.append_and_sync(Bytes::from_static(b"cells")).await.unwrap();
        let files: SharedFileSystem = disk.clone();
        (disk, files)
    }

    #[tokio::test]
    async fn a_file_is_found_in_both_places_and_stays_where_it_is() {
        let (disk, files) = disk().await;
        let (live, archived) = (Path::new(LIVE), paths::archived(Path::new(LIVE)));
        let (path, file) = NamedFile::open(&files, live).await.unwrap();
        assert_eq!((path.as_path(), file.length()), (live, 5));
        disk.rename(live, &archived).await.unwrap();
        let (path, file) = NamedFile::open(&files, live).await.unwrap();
        assert_eq!(path, archived);
        assert_eq!(file.read_at(1, 3).await.unwrap(), "ell");
        assert!(!disk.exists(live).await.unwrap(), "it was not moved");
        disk.delete_file(&archived).await.unwrap();
        let error = NamedFile::open(&files, live).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::NotFound { path } if path == live));
    }

    /// A file that is gone from its path, as HDFS finds it when it looks for its blocks again.
    struct Moved;

    #[async_trait]
    impl ReadFile for Moved {
        async fn read_at(&self, _offset: u64, _length: usize) -> Result<Bytes> {
            Err(Error::NotFound { path: LIVE.into() })
        }

        fn length(&self) -> u64 {
            5
        }
    }

    #[tokio::test]
    async fn a_file_that_was_archived_while_it_is_read_is_read_there() {
        let (disk, files) = disk().await;
        let (live, archived) = (Path::new(LIVE), paths::archived(Path::new(LIVE)));
        let (_, file) = NamedFile::open(&files, live).await.unwrap();
        disk.rename(live, &archived).await.unwrap();
        *file.opened.lock() = Arc::new(Moved);
        assert_eq!(file.read_at(0, 5).await.unwrap(), "cells");
        *file.opened.lock() = Arc::new(Moved);
        assert_eq!(file.read_ranges(&[0..1, 4..5]).await.unwrap(), "cs");
        // Another file under the same name is not treated as this file.
        disk.delete_file(&archived).await.unwrap();
        disk.create(live).await.unwrap().append_and_sync(Bytes::new()).await.unwrap();
        *file.opened.lock() = Arc::new(Moved);
        assert!(file.read_at(0, 5).await.unwrap_err().is_not_found());
    }
}
