//! The files of a server's log, and how they are fenced after the server was declared dead.

use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_model::{ServerName, paths};

use super::error::Result;

/// A file of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFile {
    /// Its path.
    pub path: PathBuf,
    /// Its number among the files of its server.
    pub number: u64,
    /// Its length when it was listed, in bytes.
    pub length: u64,
}

/// One file of a living server's log.
pub(super) fn log_path(server: &ServerName, number: u64) -> PathBuf {
    paths::server_logs(server).join(format!("{server}.{number}"))
}

/// Fences the log of `server` by renaming its folder, so that the server can begin no further file.
/// Returns the files, oldest first. A server that never created a log cannot create one afterwards.
///
/// The rename does not stop the server from appending to its last file. Each file must be sealed,
/// and the server is proved gone only if [`basalt_fs::Seal::writer_gone`] is true of all of them.
/// This may be called again, by any process, at any time.
///
/// # Errors
/// When the file system returns an error.
pub async fn fence(files: &SharedFileSystem, server: &ServerName) -> Result<Vec<LogFile>> {
    let (living, fenced) = (paths::server_logs(server), paths::fenced_logs(server));
    if !files.exists(&fenced).await? {
        // A folder created here keeps the server from creating its own.
        files.create_directories(&living).await?;
        match files.rename(&living, &fenced).await {
            // Another process renamed it first; the folder created here is unused.
            Err(error) if error.is_already_exists() => files.delete_directory(&living).await?,
            Err(error) if error.is_not_found() && files.exists(&fenced).await? => {}
            renamed => renamed?,
        }
    }
    files.sync_directory(&paths::logs()).await?;
    list(files, server, &fenced).await
}

/// The files of the log of `server` in `folder`, oldest first. Other files there are ignored.
///
/// # Errors
/// When the file system returns an error.
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
