//! The paths of files under the storage root. They follow HBase's layout where it has one.
//!
//! ```text
//! /hbase.id                                            cluster id
//! /data/<namespace>/<table>/.tabledesc/.tableinfo.<n>  table descriptor
//! /data/<namespace>/<table>/<region>/.regioninfo
//! /data/<namespace>/<table>/<region>/.manifest/<epoch>-<n>
//! /data/<namespace>/<table>/<region>/.nonces/<epoch>-<digits>
//! /data/<namespace>/<table>/<region>/<family>/<store file>
//! /archive/data/…                                      replaced files, while they are needed
//! /WALs/<server name>/<server name>.<n>                live logs
//! /WALs/<server name>-splitting/…                      logs of a fenced server
//! ```

use std::path::PathBuf;

use crate::{EncodedRegionName, RegionEpoch, ServerName, TableName};

/// The file with the id of the cluster that a storage root belongs to.
pub fn cluster_id() -> PathBuf {
    "/hbase.id".into()
}

/// The folder of a table.
pub fn table(table: &TableName) -> PathBuf {
    PathBuf::from("/data").join(table.namespace()).join(table.qualifier())
}

/// The folder of a table's descriptors.
pub fn table_descriptors(name: &TableName) -> PathBuf {
    table(name).join(".tabledesc")
}

/// The folder of a region.
pub fn region(name: &TableName, region: EncodedRegionName) -> PathBuf {
    table(name).join(region.to_string())
}

/// The folder of a region's manifests.
pub fn manifests(name: &TableName, encoded: EncodedRegionName) -> PathBuf {
    region(name, encoded).join(".manifest")
}

/// One manifest. The numbers are padded so that the names sort in numeric order.
pub fn manifest(
    name: &TableName,
    encoded: EncodedRegionName,
    epoch: RegionEpoch,
    number: u64,
) -> PathBuf {
    manifests(name, encoded).join(format!("{:020}-{number:010}", epoch.0))
}

/// The folder of a region's nonce files.
pub fn nonces(name: &TableName, encoded: EncodedRegionName) -> PathBuf {
    region(name, encoded).join(".nonces")
}

/// The folder of a family's store files.
pub fn family(name: &TableName, encoded: EncodedRegionName, family: &str) -> PathBuf {
    region(name, encoded).join(family)
}

/// The path to which a file under the root moves once nothing refers to it.
pub fn archived(path: &std::path::Path) -> PathBuf {
    PathBuf::from("/archive").join(path.strip_prefix("/").unwrap_or(path))
}

/// The folder of all logs.
pub fn logs() -> PathBuf {
    "/WALs".into()
}

/// The folder of a living server's logs.
pub fn server_logs(server: &ServerName) -> PathBuf {
    logs().join(server.to_string())
}

/// The folder of a fenced server's logs.
pub fn fenced_logs(server: &ServerName) -> PathBuf {
    logs().join(format!("{server}-splitting"))
}
