//! Compares files with records: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use basalt_model::{
    EncodedRegionName, RegionEpoch, RegionState, ServerName, TableName, TableState,
    log_holds_edits, paths,
};
use basalt_storage::manifest::Manifest;
use serde::Serialize;

use crate::{Records, Tree};

/// The newest manifest of each region, or why it could not be read.
pub(crate) type Manifests = BTreeMap<EncodedRegionName, Result<Option<Manifest>, String>>;

/// The lengths in bytes of files that were looked for, by the first path at which they may be.
/// `None`: not found. An error: it could not be found out.
pub(crate) type Found = BTreeMap<PathBuf, Result<Option<u64>, String>>;

/// A file that must exist.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct NamedFile {
    pub(crate) region: EncodedRegionName,
    /// Where it is while it is not archived.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// Something that is missing or wrong: data cannot be read, or will not be when its server dies.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Problem {
    /// The storage root belongs to another cluster than the coordinator.
    OtherCluster {
        /// The id in the root; empty if it has none.
        root: String,
        /// The id that the coordinator records.
        coordinator: String,
    },
    /// A file that a manifest names is neither in its directory nor in the archive.
    MissingFile {
        /// The region whose manifest names it.
        region: String,
        /// The path in its directory.
        path: PathBuf,
    },
    /// A file that a manifest names has another length than the manifest says.
    WrongLength {
        /// The region whose manifest names it.
        region: String,
        /// The path in its directory.
        path: PathBuf,
        /// The length in the manifest, in bytes.
        expected: u64,
        /// The length of the file, in bytes.
        found: u64,
    },
    /// A file that must exist cannot be opened.
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// The newest manifest of a region cannot be read, so nothing is known of its files.
    UnreadableManifest {
        /// The region.
        region: String,
        /// Why it cannot be read; names the file.
        reason: String,
    },
    /// A region is open, but its newest manifest is of an earlier owner, or there is none.
    StaleManifest {
        /// The region.
        region: String,
        /// The epoch under which it is open.
        epoch: u64,
        /// The epoch of the newest manifest.
        found: Option<u64>,
    },
    /// A region belongs to a table that does not exist.
    NoTable {
        /// The region.
        region: String,
        /// The table.
        table: String,
    },
    /// Some rows of a table belong to no region, or to two.
    BrokenKeySpace {
        /// The table.
        table: String,
        /// What is wrong, with the keys.
        reason: String,
    },
    /// A WAL file that is needed does not exist.
    MissingLog {
        /// The region server that wrote it.
        server: String,
        /// The path of the file.
        path: PathBuf,
    },
    /// Regions need the sealed logs of a server, but no sealed lengths are recorded.
    NotSealed {
        /// The dead region server.
        server: String,
    },
    /// A WAL file that is needed is shorter than it was when it was sealed, or than its server knew
    /// it to be.
    ShortLog {
        /// The region server that wrote it.
        server: String,
        /// The path of the file.
        path: PathBuf,
        /// The length that it must have, in bytes.
        expected: u64,
        /// The length that it has, in bytes.
        found: u64,
    },
}

/// A file that nothing needs, as far as this check can see.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreferenced {
    /// What kind of file it is.
    pub kind: UnreferencedKind,
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The kinds of files that nothing names.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum UnreferencedKind {
    /// A store file or nonce file in its region's directory that the newest manifest does not name.
    /// It may belong to a flush or a compaction that has not finished.
    RegionFile,
    /// A file in the archive that no manifest names.
    Archived,
    /// A file that was written under a temporary name. It may still be written.
    Temporary,
    /// A file in the directory of a region or a table that is not recorded.
    NoOwner,
    /// A WAL file of a server that is not alive, and whose edits are all in store files.
    Log,
    /// A file that is not part of the layout.
    Unknown,
}

/// What was read, and the files that must exist by it.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) records: Records,
    manifests: Manifests,
    /// All store files and nonce files that the manifests name.
    pub(crate) named: Vec<NamedFile>,
    pub(crate) logs: Vec<NeededLog>,
}

// === impl Evidence ===

impl Evidence {
    pub(crate) fn new(records: Records, manifests: Manifests) -> Self {
        let (named, logs) = (named_files(&records, &manifests), needed_logs(&records));
        Self { records, manifests, named, logs }
    }
}

fn named_files(records: &Records, manifests: &Manifests) -> Vec<NamedFile> {
    let mut named = Vec::new();
    for (region, manifest) in manifests {
        let (Some(record), Ok(Some(manifest))) = (records.regions.get(region), manifest) else {
            continue;
        };
        let (table, region) = (&record.info.table, *region);
        let mut name = |path, length| named.push(NamedFile { region, path, length });
        for (family, files) in &manifest.families {
            files.iter().for_each(|file| name(file.path(table, region, family), file.length));
        }
        let folder = paths::nonces(table, region);
        manifest.nonce_files.iter().for_each(|file| name(folder.join(&file.name), file.length));
    }
    named
}

/// A WAL file that must exist.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NeededLog {
    pub(crate) server: ServerName,
    pub(crate) path: PathBuf,
    /// Where it is looked for after that: the log directory of a server is renamed when the server
    /// is declared dead.
    pub(crate) renamed: Option<PathBuf>,
    /// It has at least this length, in bytes.
    pub(crate) length: u64,
}

/// The WAL files that must exist. Those of a fenced server are its sealed files; those of any other
/// server are the files that it lists.
fn needed_logs(records: &Records) -> Vec<NeededLog> {
    let mut needed = Vec::new();
    for server in records.needed_servers() {
        let (live, fenced) = (paths::server_logs(server), paths::fenced_logs(server));
        let one = |path, renamed, length| {
            let server = server.clone();
            NeededLog { server, path, renamed, length }
        };
        if let Some(sealed) = records.sealed.get(server) {
            let sealed = sealed.iter().filter(|log| !records.accepted.contains(&log.name));
            let sealed = sealed.filter(|log| log_holds_edits(log.sealed_length));
            needed.extend(sealed.map(|log| one(fenced.join(&log.name), None, log.sealed_length)));
        } else {
            // None yet if the server has only been ordered to open a region.
            let listed = records.logs.get(server).into_iter().flatten();
            needed.extend(listed.map(|log| {
                let name = format!("{server}.{}", log.number);
                one(live.join(&name), Some(fenced.join(&name)), log.durable_bytes)
            }));
        }
    }
    needed
}

/// What is missing or wrong.
pub(crate) fn problems(
    evidence: &Evidence,
    root_id: &str,
    files: &Found,
    logs: &Found,
) -> BTreeSet<Problem> {
    let Evidence { records, manifests, named, .. } = evidence;
    let mut problems = BTreeSet::new();
    if root_id != records.cluster_id {
        let (root, coordinator) = (root_id.to_owned(), records.cluster_id.clone());
        problems.insert(Problem::OtherCluster { root, coordinator });
    }
    for file in named {
        let (region, path, expected) = (file.region.to_string(), file.path.clone(), file.length);
        match files.get(&path) {
            Some(Ok(Some(found))) if *found == expected => {}
            Some(Ok(Some(found))) => {
                let found = *found;
                problems.insert(Problem::WrongLength { region, path, expected, found });
            }
            Some(Err(reason)) => {
                problems.insert(Problem::Unreadable { path, reason: reason.clone() });
            }
            Some(Ok(None)) | None => {
                problems.insert(Problem::MissingFile { region, path });
            }
        }
    }
    for (name, record) in &records.regions {
        let region = name.to_string();
        if !records.tables.contains_key(&record.info.table) {
            let table = record.info.table.to_string();
            problems.insert(Problem::NoTable { region: region.clone(), table });
        }
        let found = match manifests.get(name) {
            Some(Err(reason)) => {
                problems.insert(Problem::UnreadableManifest { region, reason: reason.clone() });
                continue;
            }
            Some(Ok(manifest)) => manifest.as_ref().map(|manifest| manifest.epoch),
            None => None,
        };
        let is_stale = found.is_none_or(|found: RegionEpoch| found < record.epoch);
        if record.state == RegionState::Open && is_stale {
            let (epoch, found) = (record.epoch.0, found.map(|found| found.0));
            problems.insert(Problem::StaleManifest { region, epoch, found });
        }
    }
    // Any other table may be about to be created, truncated or deleted.
    let enabled = records.tables.iter().filter(|(_, table)| table.state == TableState::Enabled);
    for (table, _) in enabled {
        if let Some(reason) = broken_key_space(records, table) {
            problems.insert(Problem::BrokenKeySpace { table: table.to_string(), reason });
        }
    }
    problems.extend(log_problems(evidence, logs));
    problems
}

fn log_problems(evidence: &Evidence, logs: &Found) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Evidence { records, .. } = evidence;
    for server in records.regions.values().flat_map(|region| &region.unflushed) {
        if !records.sealed.contains_key(server) {
            problems.push(Problem::NotSealed { server: server.to_string() });
        }
    }
    for log in &evidence.logs {
        let (server, path, expected) = (log.server.to_string(), log.path.clone(), log.length);
        match logs.get(&path) {
            Some(Ok(Some(found))) if *found >= expected => {}
            Some(Ok(Some(found))) => {
                problems.push(Problem::ShortLog { server, path, expected, found: *found });
            }
            Some(Err(reason)) => {
                problems.push(Problem::Unreadable { path, reason: reason.clone() });
            }
            Some(Ok(None)) | None => problems.push(Problem::MissingLog { server, path }),
        }
    }
    problems
}

/// Why the primaries of `table` do not cover all rows once. `None` if they do.
fn broken_key_space(records: &Records, table: &TableName) -> Option<String> {
    let regions = records.regions.values().map(|record| &record.info);
    let mut primaries: Vec<_> =
        regions.filter(|info| info.table == *table && info.replica.0 == 0).collect();
    primaries.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    let key = |key: &[u8]| format!("\"{}\"", key.escape_ascii());
    let mut end: Option<&[u8]> = Some(&[]);
    for info in primaries {
        let start = &info.start_key[..];
        match end {
            None => return Some(format!("the region that begins at {} has no rows", key(start))),
            Some(end) if start > end => {
                return Some(format!("no region has the rows from {} to {}", key(end), key(start)));
            }
            Some(end) if start < end => {
                return Some(format!("two regions have the rows from {}", key(start)));
            }
            Some(_) => {}
        }
        end = Some(&info.end_key[..]).filter(|end| !end.is_empty());
    }
    match end {
        None => None,
        Some(b"") => Some("it has no regions".to_owned()),
        Some(end) => Some(format!("no region has the rows from {}", key(end))),
    }
}

/// The files of `tree` that nothing names. Files of a region whose manifest cannot be read are not
/// among them: they may be named.
pub(crate) fn unreferenced(evidence: &Evidence, tree: &Tree) -> BTreeSet<Unreferenced> {
    let Evidence { records, manifests, named, .. } = evidence;
    let named: BTreeSet<&Path> = named.iter().map(|file| file.path.as_path()).collect();
    let needed = records.needed_servers();
    let logs: BTreeSet<PathBuf> = needed
        .into_iter()
        .flat_map(|server| [paths::server_logs(server), paths::fenced_logs(server)])
        .collect();
    let classifier = Classifier { records, manifests, named, logs };
    let classified = tree.files.iter().filter_map(|(path, bytes)| {
        let kind = classifier.kind(path)?;
        Some(Unreferenced { kind, path: path.clone(), bytes: *bytes })
    });
    classified.collect()
}

struct Classifier<'a> {
    records: &'a Records,
    manifests: &'a Manifests,
    named: BTreeSet<&'a Path>,
    /// The log directories that are needed.
    logs: BTreeSet<PathBuf>,
}

// === impl Classifier ===

impl Classifier<'_> {
    /// What kind of unreferenced file `path` is; `None` if something needs it.
    fn kind(&self, path: &Path) -> Option<UnreferencedKind> {
        let parts: Vec<&str> = path.components().filter_map(part).collect();
        let is_temporary = |name: &&str| name.starts_with(".aside-") || **name == *".tmp";
        match parts[..] {
            [_] if path == paths::cluster_id() => None,
            [".master-epochs", _] => None,
            [name] if name.starts_with(".hbase.id") => Some(UnreferencedKind::Temporary),
            [name, ..] if name.starts_with(".rehearsal-") => Some(UnreferencedKind::Temporary),
            ["archive", ..] => self.archived(path),
            ["WALs", ..] => self.log(path),
            ["data", namespace, table, ..] => {
                let Ok(table) = TableName::new(namespace, table) else {
                    return Some(UnreferencedKind::Unknown);
                };
                if !self.records.tables.contains_key(&table) {
                    return Some(UnreferencedKind::NoOwner);
                }
                match &parts[3..] {
                    rest if rest.iter().any(is_temporary) => Some(UnreferencedKind::Temporary),
                    [".tabledesc", _] => None,
                    [region, rest @ ..] => self.region_file(path, &table, region, rest),
                    [] => Some(UnreferencedKind::Unknown),
                }
            }
            _ => Some(UnreferencedKind::Unknown),
        }
    }

    fn archived(&self, path: &Path) -> Option<UnreferencedKind> {
        let live = Path::new("/").join(path.strip_prefix("/archive").unwrap_or(path));
        (!self.named.contains(live.as_path())).then_some(UnreferencedKind::Archived)
    }

    fn log(&self, path: &Path) -> Option<UnreferencedKind> {
        let is_needed = path.ancestors().any(|folder| self.logs.contains(folder));
        (!is_needed).then_some(UnreferencedKind::Log)
    }

    fn region_file(
        &self,
        path: &Path,
        table: &TableName,
        region: &str,
        rest: &[&str],
    ) -> Option<UnreferencedKind> {
        let Ok(region) = region.parse::<EncodedRegionName>() else {
            return Some(UnreferencedKind::Unknown);
        };
        let record = self.records.regions.get(&region).filter(|one| one.info.table == *table);
        if record.is_none() {
            return Some(UnreferencedKind::NoOwner);
        }
        match rest {
            [".manifest", _] | [".regioninfo"] => None,
            [_, _] if matches!(self.manifests.get(&region), Some(Err(_)) | None) => None,
            [_, _] => (!self.named.contains(path)).then_some(UnreferencedKind::RegionFile),
            _ => Some(UnreferencedKind::Unknown),
        }
    }
}

fn part(component: Component<'_>) -> Option<&str> {
    match component {
        Component::Normal(name) => OsStr::to_str(name),
        _ => None,
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster { root, coordinator } => write!(
                formatter,
                "the storage root belongs to cluster {root:?}, the coordinator to {coordinator:?}"
            ),
            Self::MissingFile { region, path } => {
                write!(formatter, "{}: missing; region {region} needs it", path.display())
            }
            Self::WrongLength { region, path, expected, found } => write!(
                formatter,
                "{}: {found} bytes, but the manifest of region {region} says {expected}",
                path.display()
            ),
            Self::Unreadable { path, reason } => {
                write!(formatter, "{}: cannot be opened: {reason}", path.display())
            }
            Self::UnreadableManifest { region, reason } => {
                write!(formatter, "region {region}: its manifest cannot be read: {reason}")
            }
            Self::StaleManifest { region, epoch, found: Some(found) } => write!(
                formatter,
                "region {region} is open under epoch {epoch}, but its newest manifest is of epoch \
                 {found}"
            ),
            Self::StaleManifest { region, epoch, found: None } => {
                write!(formatter, "region {region} is open under epoch {epoch} without a manifest")
            }
            Self::NoTable { region, table } => {
                write!(formatter, "region {region} belongs to table {table}, which does not exist")
            }
            Self::BrokenKeySpace { table, reason } => write!(formatter, "table {table}: {reason}"),
            Self::MissingLog { server, path } => {
                write!(formatter, "{}: missing; it is a WAL file of {server}", path.display())
            }
            Self::NotSealed { server } => {
                write!(formatter, "regions need the logs of {server}, which have not been sealed")
            }
            Self::ShortLog { server, path, expected, found } => write!(
                formatter,
                "{}: {found} bytes, but this WAL file of {server} must have {expected}",
                path.display()
            ),
        }
    }
}

impl fmt::Display for UnreferencedKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::RegionFile => "not in a manifest",
            Self::Archived => "archived",
            Self::Temporary => "temporary",
            Self::NoOwner => "no table or region",
            Self::Log => "WAL of a dead server",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
