//! A server that serves a region has written a manifest under its own epoch. So a manifest that an
//! earlier owner still writes is never the newest.

use std::path::Path;

use basalt_fs::{FileSystem, MemoryFileSystem};
use futures::FutureExt;

use super::Violation;
use crate::plan::table_name;

/// Checks the newest manifest of a region that was just opened under `epoch`.
pub(crate) fn check_newest_manifest(
    disk: &MemoryFileSystem,
    region: &str,
    epoch: u64,
) -> Option<Violation> {
    let table = table_name().ok()?;
    let folder = format!("/data/{}/{}/{region}/.manifest", table.namespace(), table.qualifier());
    // Files in memory answer at once.
    let entries = disk.list(Path::new(&folder)).now_or_never()?.ok()?;
    let names = entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with('.'));
    let newest = names.max().unwrap_or_default();
    let found: u64 = newest.split('-').next().and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let seen = || format!("region {region}: open under epoch {epoch}, newest manifest {newest:?}");
    (found < epoch).then(|| Violation::new("the newest manifest is the owner's", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_manifest_is_a_violation() {
        let disk = MemoryFileSystem::new();
        let folder = Path::new("/data/default/usertable/r/.manifest");
        disk.create_directories(folder).now_or_never().unwrap().unwrap();
        let path = folder.join("00000000000000000002-0000000007");
        let file = disk.create(&path);
        drop(file.now_or_never().unwrap().unwrap());
        assert_eq!(check_newest_manifest(&disk, "r", 2), None);
        assert!(check_newest_manifest(&disk, "r", 3).is_some());
    }
}
