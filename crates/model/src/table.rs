//! Tables and their column families, with HBase's settings and defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The namespace of table names that do not contain one.
const DEFAULT_NAMESPACE: &str = "default";

/// A table's name within its namespace. Written `namespace:qualifier`, or `qualifier` alone in the
/// default namespace.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableName {
    namespace: String,
    qualifier: String,
}

/// Whether a table may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TableState {
    /// Its regions are served.
    Enabled,
    /// It exists and its regions are closed.
    Disabled,
    /// It is being disabled.
    Disabling,
    /// It is being enabled or created.
    Enabling,
}

/// A table as declared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableDescriptor {
    /// Its name.
    pub name: TableName,
    /// Its column families by name.
    pub families: BTreeMap<String, FamilyDescriptor>,
    /// How many copies of each region are served.
    pub region_replication: u16,
    /// Settings that Basalt stores for clients. It does not read them, except for
    /// [`TableDescriptor::syncs_to_disk`].
    pub settings: BTreeMap<String, String>,
}

/// A column family as declared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FamilyDescriptor {
    /// Its name.
    pub name: String,
    /// How many versions of a column are kept.
    pub versions_max: u32,
    /// How many versions are kept even after their time to live is over.
    pub versions_min: u32,
    /// How long a version lives after its timestamp, in seconds; `None` means forever.
    pub time_to_live_s: Option<u32>,
    /// How store-file blocks are compressed.
    pub compression: Compression,
    /// The keys in the bloom filter of a store file.
    pub bloom: BloomType,
    /// The size at which a store-file block is closed, in bytes before compression.
    pub block_bytes: u32,
    /// Whether data blocks are kept in the block cache.
    pub block_cache: bool,
    /// Whether deleted cells stay readable.
    pub keep_deleted_cells: KeepDeletedCells,
    /// Settings that Basalt stores for clients and does not read.
    pub settings: BTreeMap<String, String>,
}

/// How the blocks of a store file are compressed.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip.
    Gz,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The keys in the bloom filter of a store file.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum BloomType {
    /// No bloom filter.
    None,
    /// Rows.
    #[default]
    Row,
    /// Rows with qualifiers.
    RowCol,
}

/// Whether deleted cells stay readable for raw and time-range reads.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum KeepDeletedCells {
    /// They are dropped at the next compaction.
    #[default]
    False,
    /// They stay until they are too many or too old.
    True,
    /// They stay until they are too old.
    Ttl,
}

// === impl TableName ===

impl TableName {
    /// A table in a namespace.
    ///
    /// # Errors
    /// [`Error::BadName`] if HBase would reject one of the names.
    pub fn new(namespace: &str, qualifier: &str) -> Result<Self, Error> {
        let bad = |name: &str, reason| Error::BadName { name: name.to_owned(), reason };
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        if namespace.is_empty() || !namespace.chars().all(letter) {
            return Err(bad(namespace, "a namespace may contain only letters, digits and '_'"));
        }
        if qualifier.is_empty() || !qualifier.chars().all(|c| letter(c) || c == '-' || c == '.') {
            let reason = "a table name may contain only letters, digits, '_', '-' and '.'";
            return Err(bad(qualifier, reason));
        }
        if qualifier.starts_with(['-', '.']) {
            return Err(bad(qualifier, "a table name must not begin with '-' or '.'"));
        }
        Ok(Self { namespace: namespace.to_owned(), qualifier: qualifier.to_owned() })
    }

    /// HBase's table of regions.
    pub fn meta() -> Self {
        Self { namespace: "hbase".to_owned(), qualifier: "meta".to_owned() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn qualifier(&self) -> &str {
        &self.qualifier
    }

    /// Whether it is one of HBase's own tables.
    pub fn is_system(&self) -> bool {
        self.namespace == "hbase"
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == DEFAULT_NAMESPACE {
            formatter.write_str(&self.qualifier)
        } else {
            write!(formatter, "{}:{}", self.namespace, self.qualifier)
        }
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split_once(':') {
            Some((namespace, qualifier)) => Self::new(namespace, qualifier),
            None => Self::new(DEFAULT_NAMESPACE, name),
        }
    }
}

// === impl TableDescriptor ===

impl TableDescriptor {
    /// The setting with which HBase's clients choose how durable an acknowledged write is.
    pub const DURABILITY: &str = "DURABILITY";
    /// The value that requires writes to be on the disks of all machines that store them.
    pub const FSYNC_WAL: &str = "FSYNC_WAL";

    /// Whether writes are acknowledged only once they are on disk. Otherwise the file system needs
    /// them only in the memory of several machines.
    pub fn syncs_to_disk(&self) -> bool {
        self.settings.get(Self::DURABILITY).is_some_and(|choice| choice == Self::FSYNC_WAL)
    }
}

// === impl FamilyDescriptor ===

impl FamilyDescriptor {
    /// A family with HBase's defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            versions_max: 1,
            versions_min: 0,
            time_to_live_s: None,
            compression: Compression::None,
            bloom: BloomType::Row,
            block_bytes: 64 << 10,
            block_cache: true,
            keep_deleted_cells: KeepDeletedCells::False,
            settings: BTreeMap::new(),
        }
    }
}

macro_rules! named_setting {
    ($type:ident, $setting:literal, $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Its name in HBase's descriptors.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                $(if name.eq_ignore_ascii_case($name) { return Ok(Self::$variant); })+
                Err(Error::BadSetting {
                    setting: $setting,
                    value: name.to_owned(),
                    allowed: concat!("it may be one of" $(, " ", $name)+),
                })
            }
        }
    };
}

named_setting!(
    Compression,
    "COMPRESSION",
    None = "NONE",
    Gz = "GZ",
    Snappy = "SNAPPY",
    Lz4 = "LZ4",
    Zstd = "ZSTD"
);
named_setting!(BloomType, "BLOOMFILTER", None = "NONE", Row = "ROW", RowCol = "ROWCOL");
named_setting!(KeepDeletedCells, "KEEP_DELETED_CELLS", False = "FALSE", True = "TRUE", Ttl = "TTL");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_default_namespace_goes_by_its_qualifier() {
        let table: TableName = "usertable".parse().unwrap();
        assert_eq!((table.namespace(), table.qualifier()), ("default", "usertable"));
        assert_eq!(table.to_string(), "usertable");
        let meta: TableName = "hbase:meta".parse().unwrap();
        assert!(meta.is_system());
        assert_eq!(meta.to_string(), "hbase:meta");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", ":t", "ns:", "-t", ".t", "a/b", "n-s:t", "t t", "../../etc"] {
            assert!(bad.parse::<TableName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_wrong_setting_says_what_it_may_be() {
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::Zstd);
        let error = "lzo".parse::<Compression>().unwrap_err().to_string();
        assert!(error.contains("COMPRESSION") && error.contains("SNAPPY"), "{error}");
    }
}
