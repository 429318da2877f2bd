//! Where logs lie, and how they are taken from a server that was declared dead.

use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_model::{ServerName, paths};

use super::error::Result;

/// A file of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its place among the files of its server.
    pub number: u64,
    /// How long it was when it was looked at, in bytes.
    pub length: u64,
}

/// One file of a living server's log.
pub(super) fn log_path(server: &ServerName, number: u64) -> PathBuf {
    paths::server_logs(server).join(format!("{server}.{number}"))
}

/// Takes the log away from `server` by renaming its folder, so that it can begin no further file,
/// and returns the files, oldest first. One that never made a log can make none from now on.
///
/// What the server appends to its last file is not stopped by this: each file must be sealed, and
/// the server is proved gone only if [`basalt_fs::Seal::writer_gone`] is true of all of them.
/// May be called again, by anybody, at any time.
///
/// # Errors
/// The file system refused.
pub async fn fence(files: &SharedFileSystem, server: &ServerName) -> Result<Vec<LogFile>> {
    let (living, fenced) = (paths::server_logs(server), paths::fenced_logs(server));
    if !files.exists(&fenced).await? {
        // A folder made here keeps the server from making its own.
        files.create_directories(&living).await?;
        match files.rename(&living, &fenced).await {
            // Somebody else was faster; what was made here is nobody's.
            Err(error) if error.is_already_exists() => files.delete_directory(&living).await?,
            Err(error) if error.is_not_found() && files.exists(&fenced).await? => {}
            renamed => renamed?,
        }
    }
    files.sync_directory(&paths::logs()).await?;
    list(files, server, &fenced).await
}

/// The files of the log of `server` in `folder`, oldest first. Other files there are passed over.
///
/// # Errors
/// The file system refused.
pub async fn list(
    files: &SharedFileSystem,
    server: &ServerName,
    folder: &Path,
) -> Result<Vec<LogFile>> {
    let prefix = format!("{server}.");
    let entries = files.list(folder).await?;
    let log_file = |entry: basalt_fs::DirectoryEntry| {
        let number = entry.name.strip_prefix(&prefix)?.parse().ok()?;
        Some(LogFile { path: folder.join(&entry.name), number, length: entry.length })
    };
    let mut logs: Vec<LogFile> = entries.into_iter().filter_map(log_file).collect();
    logs.sort_by_key(|log| log.number);
    Ok(logs)
}
