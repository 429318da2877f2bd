//! The data folder of a cluster. It belongs to one cluster, and one process at a time uses it.
//!
//! `cluster.json` identifies the cluster and records its immutable properties. `ports.json` records
//! its ports. `lock` is held while the cluster runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_api::{ValidatedCluster, ValidatedStorage};
use basalt_runtime::Random;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ports::Ports;

/// Identifies the cluster that a folder belongs to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The version of this file's format.
    pub format_version: u32,
    /// The cluster's name.
    pub name: String,
    /// The cluster's id, generated when the folder is created.
    pub uid: String,
    /// The number of coordinator members. It is immutable because the members vote.
    pub coordinators: u32,
    /// The storage of the data: the claim, or the folder on HDFS.
    pub claim: String,
}

/// The data folder, with its lock held.
#[derive(Debug)]
pub struct DataFolder {
    /// Its absolute path.
    pub path: PathBuf,
    /// The cluster that it belongs to.
    pub identity: Identity,
    /// Whether it has just been created.
    pub is_new: bool,
    /// Held until the value is dropped. A second `basalt local` on the same folder is rejected.
    _lock: File,
}

/// The only version of `cluster.json` so far.
const FORMAT_VERSION: u32 = 1;
const IDENTITY_FILE: &str = "cluster.json";
const PORTS_FILE: &str = "ports.json";
const LOCK_FILE: &str = "lock";

// === impl Identity ===

impl Identity {
    /// The identity of a new folder of `cluster`.
    pub fn new(cluster: &ValidatedCluster, uid: String) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            name: cluster.name.clone(),
            uid,
            coordinators: cluster.coordinators,
            claim: storage_name(&cluster.storage),
        }
    }

    /// Checks that the folder `path` belongs to `cluster`.
    fn check(&self, cluster: &ValidatedCluster, path: &Path) -> anyhow::Result<()> {
        let path = path.display();
        if self.format_version != FORMAT_VERSION {
            bail!(
                "{path} was written in format {}; this release reads {FORMAT_VERSION}",
                self.format_version
            );
        }
        if self.name != cluster.name {
            bail!(
                "{path} holds the data of cluster {:?}; the manifest declares {:?}. Give another \
                 folder with --data",
                self.name,
                cluster.name
            );
        }
        if self.coordinators != cluster.coordinators {
            bail!(
                "{path} was created with {} coordinators; the manifest declares {}. Changing their \
                 number does not work yet",
                self.coordinators,
                cluster.coordinators
            );
        }
        let storage = storage_name(&cluster.storage);
        if self.claim != storage {
            bail!(
                "{path} was created with the storage {:?}; the manifest declares {storage:?}. \
                 spec.storage is immutable",
                self.claim,
            );
        }
        Ok(())
    }
}

/// The name of a storage in [`Identity`].
fn storage_name(storage: &ValidatedStorage) -> String {
    match storage {
        ValidatedStorage::Claim(claim) => claim.clone(),
        ValidatedStorage::Hdfs(hdfs) => {
            format!("hdfs://{}{}", hdfs.nameservice.as_deref().unwrap_or_default(), hdfs.root)
        }
    }
}

// === impl DataFolder ===

impl DataFolder {
    /// Opens the folder `path` for `cluster`. Initializes it if it is missing or empty.
    ///
    /// # Errors
    /// The folder cannot be written, is in use, contains something else, or belongs to another
    /// cluster.
    pub fn open(path: &Path, cluster: &ValidatedCluster, random: &Random) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot create the data folder {}", path.display()))?;
        let path = path.canonicalize()?;
        let identity_path = path.join(IDENTITY_FILE);
        if !identity_path.exists() {
            check_nothing_else(&path)?;
        }
        let lock = lock(&path)?;
        let (identity, is_new) = match read_json::<Identity>(&identity_path)? {
            Some(identity) => (identity, false),
            None => {
                let identity = Identity::new(cluster, new_uid(random));
                write_json(&identity_path, &identity)?;
                (identity, true)
            }
        };
        identity.check(cluster, &path)?;
        Ok(Self { path, identity, is_new, _lock: lock })
    }

    /// The recorded ports. Empty for a new folder.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn ports(&self) -> anyhow::Result<Ports> {
        Ok(read_json(&self.path.join(PORTS_FILE))?.unwrap_or_default())
    }

    /// Records `ports` for the next start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_ports(&self, ports: &Ports) -> anyhow::Result<()> {
        write_json(&self.path.join(PORTS_FILE), ports)
    }
}

/// Writes `value` as JSON: to a second file, which is synced and then renamed over the old one.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let aside = path.with_extension("aside");
        let mut file = File::create(&aside)?;
        serde_json::to_writer_pretty(&file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(basalt_api::load::document(&path.display().to_string(), &text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A folder without `cluster.json` must be empty, or it belongs to something else. A folder with
/// only a lock file comes from a start that failed early.
fn check_nothing_else(path: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(path)
        .with_context(|| format!("cannot read the data folder {}", path.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        if name != LOCK_FILE && !name.to_string_lossy().ends_with(".aside") {
            bail!(
                "{} holds {:?} and no {IDENTITY_FILE}: it is not a data folder of Basalt. Give an \
                 empty or a new one with --data",
                path.display(),
                name
            );
        }
    }
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK_FILE))
        .with_context(|| format!("cannot write to the data folder {}", path.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("{} is in use by another `basalt local`", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn new_uid(random: &Random) -> String {
    format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(from: &str, to: &str) -> ValidatedCluster {
        let text = include_str!("../../../examples/minimal.yaml").replace(from, to);
        let manifests = basalt_api::Manifests::from_yaml("m", &text).unwrap();
        let (cluster, tables) = manifests.into_single_cluster("m").unwrap();
        basalt_api::validate(&cluster, &tables).unwrap()
    }

    fn open(path: &Path, cluster: &ValidatedCluster) -> Result<DataFolder, String> {
        DataFolder::open(path, cluster, &Random::from_seed(1)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_folder_is_found_again_with_its_id_and_ports() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let cluster = cluster("", "");
        let first = open(&path, &cluster).unwrap();
        assert!(first.is_new);
        let uid = first.identity.uid.clone();
        let processes = super::super::plan::process_names(&cluster);
        let ports = first.ports().unwrap().completed(&processes);
        first.keep_ports(&ports).unwrap();
        drop(first);
        let again = DataFolder::open(&path, &cluster, &Random::from_seed(2)).unwrap();
        assert!(!again.is_new);
        assert_eq!(again.identity.uid, uid);
        assert_eq!(again.ports().unwrap(), ports);
    }

    #[test]
    fn the_folder_of_another_cluster_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), &cluster("", "")).unwrap());
        let other = open(folder.path(), &cluster("name: demo }", "name: prod }")).unwrap_err();
        assert!(other.contains("\"demo\"") && other.contains("\"prod\""), "{other}");
        let one = "spec:\n  coordinator: { replicas: 1 }\n";
        let fewer = open(folder.path(), &cluster("spec:\n", one)).unwrap_err();
        assert!(fewer.contains("3 coordinators") && fewer.contains("does not work yet"), "{fewer}");
        let claim = open(folder.path(), &cluster("demo-data", "other")).unwrap_err();
        assert!(claim.contains("immutable"), "{claim}");
    }

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        let error = open(folder.path(), &cluster("", "")).unwrap_err();
        assert!(error.contains("thesis.tex") && error.contains("--data"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_used_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path(), &cluster("", "")).unwrap();
        let error = open(folder.path(), &cluster("", "")).unwrap_err();
        assert!(error.contains("in use"), "{error}");
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open(&file.join("data"), &cluster("", "")).unwrap_err();
        assert!(error.contains("cannot create the data folder") && error.contains("file/data"));
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_not_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IDENTITY_FILE), "{ \"name\": ").unwrap();
        let error = open(folder.path(), &cluster("", "")).unwrap_err();
        assert!(error.contains(IDENTITY_FILE), "{error}");
    }
}
