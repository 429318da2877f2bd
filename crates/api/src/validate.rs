//! Turns manifests into a [`ValidatedCluster`]: the proof that everything can be run as declared.
//!
//! One pass finds all problems, each with its field. A declared feature that does not work yet is a
//! problem and is never ignored. Fields that only Kubernetes reads (pods, images, resources) are
//! accepted as they are: the same file runs on a laptop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use basalt_model::{FamilyDescriptor, TableDescriptor, TableName};
use bytes::Bytes;

use crate::cluster::{BasaltCluster, BasaltClusterSpec, HdfsStorage};
use crate::load::name_of;
use crate::role_file::RoleName;
use crate::split::{REGIONS_MAX, split_keys};
use crate::table::{
    BasaltTable, BasaltTableSpec, Bloom, Compression, Durability, Family, KeepDeletedCells,
};
use crate::{RegionServerConfig, Timers, Timespan, table};

/// A part of a manifest that cannot be run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The kind and name of the resource, such as `BasaltTable usertable`.
    pub resource: String,
    /// The path of the field, such as `spec.regions.count`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A cluster that can be run as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// Its name.
    pub name: String,
    /// Its timers.
    pub timers: Timers,
    /// The number of coordinator members.
    pub coordinators: u32,
    /// The number of masters.
    pub masters: u32,
    /// The number of region servers.
    pub region_servers: u32,
    /// The limits of the region servers.
    pub region_server_config: RegionServerConfig,
    /// Where the data is stored.
    pub storage: ValidatedStorage,
    /// The racks that `basalt local` simulates; at least one.
    pub local_racks: Vec<String>,
    /// The log level or filter.
    pub log_level: String,
    /// Its tables.
    pub tables: Vec<ValidatedTable>,
    /// The manifest, for the fields that only Kubernetes reads.
    pub spec: BasaltClusterSpec,
}

impl ValidatedCluster {
    /// The declared number of processes of `role`.
    pub fn replicas(&self, role: RoleName) -> u32 {
        match role {
            RoleName::Coordinator => self.coordinators,
            RoleName::Master => self.masters,
            RoleName::RegionServer => self.region_servers,
            RoleName::Idle => 0,
        }
    }
}

/// Where a cluster stores its data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValidatedStorage {
    /// The folder of a claim.
    Claim(String),
    /// A folder on HDFS.
    Hdfs(ValidatedHdfs),
}

/// A folder on HDFS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValidatedHdfs {
    /// The name service. Without one, the default file system in the settings.
    pub nameservice: Option<String>,
    /// The ConfigMap with its settings. Used on Kubernetes only.
    pub config_map: String,
    /// The folder. It is absolute, and not the root of the HDFS.
    pub root: String,
}

/// A table that can be created as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedTable {
    /// The `metadata.name` of its manifest.
    pub resource_name: String,
    /// The table.
    pub descriptor: TableDescriptor,
    /// The start keys of all regions except the first, in ascending order.
    pub split_keys: Vec<Bytes>,
    /// The manifest.
    pub spec: BasaltTableSpec,
}

/// Names of pods and folders consist of the cluster's name, a role and a number.
const CLUSTER_NAME_LENGTH_MAX: usize = 40;
/// Kubernetes' limit for the name of a claim.
const CLAIM_NAME_LENGTH_MAX: usize = 253;
/// HDFS accepts paths of 8,000 characters in all.
const HDFS_ROOT_LENGTH_MAX: usize = 1_000;
/// The levels in a log filter.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The filter is a line in a role's file, and an argument of a process.
const LOG_LEVEL_LENGTH_MAX: usize = 1_000;
/// HBase rejects longer rows.
const KEY_BYTES_MAX: usize = i16::MAX as usize;

/// Collects the problems of one resource.
struct Problems {
    resource: String,
    found: Vec<Problem>,
}

/// Checks a cluster and its tables.
///
/// # Errors
/// All problems, in the order of the fields.
pub fn validate(
    cluster: &BasaltCluster,
    tables: &[BasaltTable],
) -> Result<ValidatedCluster, Vec<Problem>> {
    let name = name_of(&cluster.metadata);
    let spec = &cluster.spec;
    let mut problems = Problems::of(format!("BasaltCluster {name}"));
    check_name(&mut problems, &name);
    let timers = problems
        .take("spec.failover", Timers::derive(spec.failover.target, &spec.failover.overrides));
    check_roles(&mut problems, spec);
    let region_server_config = check_region_server_config(&mut problems, spec);
    let storage = check_storage(&mut problems, spec);
    check_remainder(&mut problems, spec);

    let mut found = problems.found;
    let mut validated_tables = Vec::new();
    for table in tables {
        match validate_table(&name_of(&table.metadata), &table.spec) {
            Ok(table) => validated_tables.push(table),
            Err(more) => found.extend(more),
        }
    }
    found.extend(duplicates(&validated_tables));
    match (timers, storage, region_server_config) {
        (Some(timers), Some(storage), Some(region_server_config)) if found.is_empty() => {
            Ok(ValidatedCluster {
                name,
                timers,
                coordinators: spec.coordinator.replicas,
                masters: spec.masters.replicas,
                region_servers: spec.region_servers.replicas,
                region_server_config,
                storage,
                local_racks: spec.placement.local_racks.clone(),
                log_level: spec.logging.level.clone(),
                tables: validated_tables,
                spec: spec.clone(),
            })
        }
        _ => Err(found),
    }
}

/// Validates one table. `resource_name` is its `metadata.name`.
///
/// # Errors
/// All problems, in the order of the fields.
pub fn validate_table(
    resource_name: &str,
    spec: &BasaltTableSpec,
) -> Result<ValidatedTable, Vec<Problem>> {
    let mut problems = Problems::of(format!("BasaltTable {resource_name}"));
    let (field, table_name) = match &spec.table_name {
        Some(table_name) => ("spec.tableName", table_name.as_str()),
        None => ("metadata.name", resource_name),
    };
    let name = problems.take(field, TableName::new(&spec.namespace, table_name));
    if spec.namespace != "default" {
        problems.add("spec.namespace", "only \"default\" works so far");
    }
    let families = check_families(&mut problems, &spec.families);
    let split_keys = check_regions(&mut problems, &spec.regions);
    if spec.region_replicas != 1 {
        let replicas = spec.region_replicas;
        let reason = format!("{replicas} does not work yet; it must be 1");
        problems.add("spec.regionReplicas", reason);
    }
    if spec.access.is_some() {
        problems.add("spec.access", "does not work yet; leave it out");
    }
    match name {
        Some(name) if problems.found.is_empty() => Ok(ValidatedTable {
            resource_name: resource_name.to_owned(),
            descriptor: TableDescriptor {
                name,
                families,
                region_replication: spec.region_replicas,
                settings: durability_setting(spec.durability),
            },
            split_keys,
            spec: spec.clone(),
        }),
        _ => Err(problems.found),
    }
}

fn durability_setting(durability: Durability) -> BTreeMap<String, String> {
    match durability {
        Durability::SyncWal => BTreeMap::new(),
        Durability::FsyncWal => {
            let (name, value) = (TableDescriptor::DURABILITY, TableDescriptor::FSYNC_WAL);
            [(name.to_owned(), value.to_owned())].into()
        }
    }
}

fn check_name(problems: &mut Problems, name: &str) {
    if !is_dns_name(name, CLUSTER_NAME_LENGTH_MAX) || name.contains('.') {
        problems.add(
            "metadata.name",
            format!(
                "{name:?} must be 1 to {CLUSTER_NAME_LENGTH_MAX} lower-case letters, digits and \
                 '-', with a letter or digit at both ends"
            ),
        );
    }
}

fn check_roles(problems: &mut Problems, spec: &BasaltClusterSpec) {
    let coordinators = spec.coordinator.replicas;
    if ![1, 3, 5].contains(&coordinators) {
        problems.add("spec.coordinator.replicas", format!("{coordinators}; it must be 1, 3 or 5"));
    }
    if spec.coordinator.external.is_some() {
        problems.add(
            "spec.coordinator.external",
            "does not work yet; leave it out to let Basalt run its own coordinator",
        );
    }
    let masters = spec.masters.replicas;
    if !(1..=9).contains(&masters) {
        problems.add("spec.masters.replicas", format!("{masters}; it must be from 1 to 9"));
    }
    let servers = spec.region_servers.replicas;
    if !(1..=1000).contains(&servers) {
        let reason = format!("{servers}; it must be from 1 to 1000");
        problems.add("spec.regionServers.replicas", reason);
    }
    let at_once = spec.region_servers.max_unavailable;
    if !(1..=100).contains(&at_once) {
        let reason = format!("{at_once}; it must be from 1 to 100");
        problems.add("spec.regionServers.maxUnavailable", reason);
    }
    for (role, config) in
        [("coordinator", &spec.coordinator.config), ("masters", &spec.masters.config)]
    {
        if let Some(setting) = config.keys().next() {
            problems.add(
                &format!("spec.{role}.config.{setting}"),
                "settings of this role do not work yet; leave config out",
            );
        }
    }
}

fn check_region_server_config(
    problems: &mut Problems,
    spec: &BasaltClusterSpec,
) -> Option<RegionServerConfig> {
    match RegionServerConfig::from_settings(&spec.region_servers.config) {
        Ok(config) => Some(config),
        Err(bad) => {
            problems.add(&format!("spec.regionServers.config.{}", bad.name), bad.reason);
            None
        }
    }
}

fn check_storage(problems: &mut Problems, spec: &BasaltClusterSpec) -> Option<ValidatedStorage> {
    match (&spec.storage.shared, &spec.storage.hdfs) {
        (Some(shared), None) if is_dns_name(&shared.claim, CLAIM_NAME_LENGTH_MAX) => {
            return Some(ValidatedStorage::Claim(shared.claim.clone()));
        }
        (Some(shared), None) => problems.add(
            "spec.storage.shared.claim",
            format!(
                "{:?} is not a valid claim name: use lower-case letters, digits, '-' and '.', with \
                 a letter or digit at both ends",
                shared.claim
            ),
        ),
        (None, Some(hdfs)) => return check_hdfs(problems, hdfs).map(ValidatedStorage::Hdfs),
        (None, None) => {
            problems.add("spec.storage", "is empty; write shared: { claim: … } or hdfs: { … }")
        }
        (Some(_), Some(_)) => {
            problems.add("spec.storage", "must have one of shared and hdfs, not both");
        }
    }
    None
}

fn check_hdfs(problems: &mut Problems, hdfs: &HdfsStorage) -> Option<ValidatedHdfs> {
    let before = problems.found.len();
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || ".-_:".contains(sign);
    if hdfs.nameservice.is_empty() || !hdfs.nameservice.chars().all(is_plain) {
        problems.add(
            "spec.storage.hdfs.nameservice",
            format!(
                "{:?} is neither a name service as in dfs.nameservices nor the host:port of a \
                 NameNode",
                hdfs.nameservice
            ),
        );
    }
    if !is_dns_name(&hdfs.config_map, CLAIM_NAME_LENGTH_MAX) {
        problems.add(
            "spec.storage.hdfs.configMap",
            format!("{:?} is not a valid ConfigMap name", hdfs.config_map),
        );
    }
    let mut parts = hdfs.root.split('/');
    let is_absolute = parts.next() == Some("");
    let is_folder = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(':');
    if !is_absolute || !parts.all(is_folder) || hdfs.root.len() > HDFS_ROOT_LENGTH_MAX {
        problems.add(
            "spec.storage.hdfs.root",
            format!(
                "{:?} is not a valid folder for this cluster: write an absolute path such as \
                 /basalt/demo, without \"..\", ':' or a trailing '/'",
                hdfs.root
            ),
        );
    }
    (problems.found.len() == before).then(|| ValidatedHdfs {
        nameservice: Some(hdfs.nameservice.clone()),
        config_map: hdfs.config_map.clone(),
        root: hdfs.root.clone(),
    })
}

fn check_remainder(problems: &mut Problems, spec: &BasaltClusterSpec) {
    if spec.placement.local_racks.is_empty() {
        problems.add("spec.placement.localRacks", "is empty; name at least one rack");
    }
    if let Some(reason) = bad_log_level(&spec.logging.level) {
        problems.add("spec.logging.level", reason);
    }
    for (field, value) in [("spec.tls", &spec.tls), ("spec.access", &spec.access)] {
        if value.is_some() {
            problems.add(field, "does not work yet; leave it out");
        }
    }
}

/// Why a text is not a log filter, or `None`. The logging library accepts more: it treats any other
/// word as the name of a target, so a misspelt level would turn off all logging.
fn bad_log_level(level: &str) -> Option<String> {
    if level.len() > LOG_LEVEL_LENGTH_MAX {
        return Some(format!("is {} bytes long; at most {LOG_LEVEL_LENGTH_MAX}", level.len()));
    }
    let is_target = |target: &str| {
        let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
        !target.is_empty() && target.bytes().all(is_of_path)
    };
    let is_good = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_target(target) && LOG_LEVELS.contains(&level),
        None => LOG_LEVELS.contains(&part),
    };
    let bad = level.split(',').find(|part| !is_good(part))?;
    let levels = LOG_LEVELS.join(", ");
    Some(format!(
        "{bad:?} is neither a level ({levels}) nor a target with its level, such as \
         basalt_master=debug"
    ))
}

fn check_families(
    problems: &mut Problems,
    families: &[Family],
) -> BTreeMap<String, FamilyDescriptor> {
    let mut descriptors = BTreeMap::new();
    if families.is_empty() {
        problems.add("spec.families", "is empty; a table needs at least one family");
    }
    for (index, family) in families.iter().enumerate() {
        let field = |name: &str| format!("spec.families[{index}].{name}");
        if let Some(reason) = bad_family_name(&family.name) {
            problems.add(&field("name"), format!("{:?} {reason}", family.name));
        }
        if family.versions < 1 {
            problems.add(&field("versions"), "0; it must be at least 1");
        }
        if family.min_versions > family.versions {
            let (least, most) = (family.min_versions, family.versions);
            let reason = format!("{least} is greater than versions ({most})");
            problems.add(&field("minVersions"), reason);
        }
        let time_to_live = family.time_to_live.map(Timespan::as_ms);
        if time_to_live.is_some_and(|ms| ms == 0 || ms % 1_000 != 0) {
            problems.add(&field("timeToLive"), "must be whole seconds, at least 1s");
        }
        if !(1 << 10..=16 << 20).contains(&family.block_bytes) {
            let bytes = family.block_bytes;
            let reason = format!("{bytes}; it must be from 1024 to 16777216");
            problems.add(&field("blockBytes"), reason);
        }
        let descriptor = family_descriptor(family);
        if descriptors.insert(family.name.clone(), descriptor).is_some() {
            problems.add(&field("name"), format!("{:?} is declared twice", family.name));
        }
    }
    descriptors
}

fn family_descriptor(family: &Family) -> FamilyDescriptor {
    use basalt_model as model;
    let seconds = |timespan: Timespan| u32::try_from(timespan.as_ms() / 1_000).unwrap_or(u32::MAX);
    FamilyDescriptor {
        versions_max: family.versions,
        versions_min: family.min_versions,
        time_to_live_s: family.time_to_live.map(seconds),
        compression: match family.compression {
            Compression::None => model::Compression::None,
            Compression::Gz => model::Compression::Gz,
            Compression::Snappy => model::Compression::Snappy,
            Compression::Lz4 => model::Compression::Lz4,
            Compression::Zstd => model::Compression::Zstd,
        },
        bloom: match family.bloom {
            Bloom::None => model::BloomType::None,
            Bloom::Row => model::BloomType::Row,
            Bloom::RowCol => model::BloomType::RowCol,
        },
        block_bytes: family.block_bytes,
        block_cache: family.block_cache,
        keep_deleted_cells: match family.keep_deleted_cells {
            KeepDeletedCells::Never => model::KeepDeletedCells::False,
            KeepDeletedCells::Always => model::KeepDeletedCells::True,
            KeepDeletedCells::UntilTimeToLive => model::KeepDeletedCells::Ttl,
        },
        ..FamilyDescriptor::new(&family.name)
    }
}

/// HBase's rules for the name of a family. It is also the name of a folder.
fn bad_family_name(name: &str) -> Option<&'static str> {
    let bad_character = |c: char| c.is_control() || c == ':' || c == '/' || c == '\\';
    if name.is_empty() || name.len() > 127 {
        Some("must be 1 to 127 bytes long")
    } else if name.starts_with('.') {
        Some("must not begin with '.'")
    } else if name.contains(bad_character) {
        Some("must not contain ':', '/', '\\' or control characters")
    } else if name == "recovered.edits" {
        Some("is reserved by HBase")
    } else {
        None
    }
}

fn check_regions(problems: &mut Problems, regions: &table::Regions) -> Vec<Bytes> {
    let count = regions.count.unwrap_or(1);
    let Some(split) = &regions.split else {
        if count != 1 {
            problems.add(
                "spec.regions.split",
                format!("is missing: {count} regions need algorithm or keys"),
            );
        }
        return Vec::new();
    };
    let prefix = split.prefix.as_deref().unwrap_or_default();
    match (split.algorithm, &split.keys) {
        (Some(algorithm), None) => problems
            .take("spec.regions.count", split_keys(algorithm, count, prefix))
            .unwrap_or_default(),
        (None, Some(keys)) => check_keys(problems, regions.count, prefix, keys),
        (None, None) => {
            let reason = "needs algorithm: HexString, Uniform or DecimalString; or keys: [...]";
            problems.add("spec.regions.split", reason);
            Vec::new()
        }
        (Some(_), Some(_)) => {
            problems.add("spec.regions.split", "must have one of algorithm and keys, not both");
            Vec::new()
        }
    }
}

fn check_keys(
    problems: &mut Problems,
    count: Option<u32>,
    prefix: &str,
    keys: &[String],
) -> Vec<Bytes> {
    if !prefix.is_empty() {
        problems.add("spec.regions.split.prefix", "requires algorithm; write each key in full");
    }
    let regions = keys.len() + 1;
    if regions > REGIONS_MAX as usize {
        let reason = format!("make {regions} regions; at most {REGIONS_MAX} are allowed");
        problems.add("spec.regions.split.keys", reason);
    }
    if count.is_some_and(|count| count as usize != regions) {
        let reason = format!("is not {regions}, the number that split.keys make; leave it out");
        problems.add("spec.regions.count", reason);
    }
    if let Some(index) = keys.iter().position(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        let field = format!("spec.regions.split.keys[{index}]");
        problems.add(&field, format!("must be 1 to {KEY_BYTES_MAX} bytes long"));
    }
    if let Some(index) = keys.windows(2).position(|pair| pair[0] >= pair[1]) {
        let field = format!("spec.regions.split.keys[{}]", index + 1);
        problems.add(&field, "must be greater than the key before it: keys must ascend");
    }
    keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect()
}

fn duplicates(tables: &[ValidatedTable]) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let repeated = tables.iter().filter(|table| !seen.insert(table.descriptor.name.to_string()));
    repeated
        .map(|table| Problem {
            resource: format!("BasaltTable {}", table.resource_name),
            field: "spec.tableName".to_owned(),
            reason: format!("table {} is declared twice", table.descriptor.name),
        })
        .collect()
}

/// Whether `name` is a valid name of a Kubernetes object: a DNS-1123 subdomain.
fn is_dns_name(name: &str, length_max: usize) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= length_max && name.split('.').all(label)
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.resource, self.field, self.reason)
    }
}

// === impl Problems ===

impl Problems {
    fn of(resource: String) -> Self {
        Self { resource, found: Vec::new() }
    }

    fn add(&mut self, field: &str, reason: impl Into<String>) {
        self.found.push(Problem {
            resource: self.resource.clone(),
            field: field.to_owned(),
            reason: reason.into(),
        });
    }

    /// The value of `result`. An error becomes a problem of `field`.
    fn take<T>(&mut self, field: &str, result: Result<T, impl fmt::Display>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, error.to_string());
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
