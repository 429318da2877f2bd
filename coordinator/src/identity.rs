//! The file that says which member's data a folder holds.

use std::path::Path;

use basalt_fs::SharedFileSystem;
use bytes::Bytes;

use crate::error::Error;
use crate::room::RoomWait;

/// The longest identity file.
const IDENTITY_BYTES_MAX: u64 = 4096;
/// The first line of the file. The number is the version of the folder's layout.
const FIRST_LINE: &str = "basalt coordinator 1";

/// Checks that `folder` belongs to `member` of `cluster`. Claims a folder that has no identity yet.
///
/// # Errors
/// The folder belongs to another member or cluster, or cannot be read or written.
pub(crate) async fn claim(
    files: &SharedFileSystem,
    folder: &Path,
    cluster: &str,
    member: u64,
) -> Result<(), Error> {
    files.create_directories(folder).await?;
    let path = folder.join("identity");
    if !files.exists(&path).await? {
        let contents = format!("{FIRST_LINE}\ncluster={cluster}\nmember={member}\n");
        let contents = Bytes::from(contents);
        let mut wait = RoomWait::new("the folder's identity");
        while let Err(error) = files.write_whole(&path, contents.clone()).await {
            wait.after(error).await?;
        }
        return Ok(());
    }
    let contents = files.read_whole(&path, IDENTITY_BYTES_MAX).await?;
    let Some((found_cluster, found_member)) = parse(&contents) else {
        return Err(Error::Identity { path });
    };
    if (found_cluster.as_str(), found_member) != (cluster, member) {
        return Err(Error::ForeignFolder {
            path: folder.to_owned(),
            found_cluster,
            found_member,
            cluster: cluster.to_owned(),
            member,
        });
    }
    Ok(())
}

fn parse(contents: &[u8]) -> Option<(String, u64)> {
    let mut lines = std::str::from_utf8(contents).ok()?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let cluster = lines.next()?.strip_prefix("cluster=")?;
    let member = lines.next()?.strip_prefix("member=")?.parse().ok()?;
    Some((cluster.to_owned(), member))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use basalt_fs::MemoryFileSystem;

    use super::*;

    #[tokio::test]
    async fn a_folder_of_another_member_is_refused() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let folder = Path::new("/data");
        claim(&files, folder, "demo", 1).await.unwrap();
        claim(&files, folder, "demo", 1).await.unwrap();
        let error = claim(&files, folder, "demo", 2).await.unwrap_err();
        assert!(error.to_string().contains("member 1 of coordinator \"demo\""), "{error}");
        assert!(claim(&files, folder, "prod", 1).await.is_err());
    }
}
