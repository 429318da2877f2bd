//! Rejects settings that promise something which Basalt does not do.
//!
//! A setting that is only a hint (caches, sizes, encodings, compaction, storage media) changes
//! nothing that a client can rely on. It is kept and ignored. A setting that would protect data,
//! deny access or change the result of a read must not be accepted and ignored.

use std::collections::BTreeMap;

/// A setting that is rejected when it is on.
struct Promise {
    name: &'static str,
    /// The values that promise nothing, besides the empty one.
    off: &'static [&'static str],
    /// What to do instead.
    advice: &'static str,
}

const OF_TABLES: [Promise; 2] = [
    Promise {
        name: "READONLY",
        off: &["false"],
        advice: "read-only tables are not supported yet; leave it out",
    },
    Promise {
        name: "hbase.rsgroup.name",
        off: &["default"],
        advice: "region server groups are not supported; leave it out",
    },
];

const OF_FAMILIES: [Promise; 4] = [
    Promise {
        name: "ENCRYPTION",
        off: &["none"],
        advice: "files are not encrypted yet; leave it out, and encrypt the underlying storage if \
                 necessary",
    },
    Promise {
        name: "ENCRYPTION_KEY",
        off: &[],
        advice: "files are not encrypted yet; leave it out, and encrypt the underlying storage if \
                 necessary",
    },
    Promise {
        name: "NEW_VERSION_BEHAVIOR",
        off: &["false"],
        advice: "a delete hides earlier timestamps whenever they are written; leave it out",
    },
    Promise {
        name: "DFS_REPLICATION",
        off: &["0"],
        advice: "the storage sets the replication of all files; leave it out, and set \
                 dfs.replication there",
    },
];

/// The prefix of table settings that name a coprocessor. A number follows.
const COPROCESSOR: &str = "coprocessor$";

/// The error in the settings of a table, if there is one.
pub(super) fn of_table(settings: &BTreeMap<String, String>) -> Option<String> {
    let coprocessor = settings.iter().find(|(name, _)| name.starts_with(COPROCESSOR));
    let coprocessor = coprocessor.map(|(name, class)| {
        format!("{name} {class:?}: coprocessors are not supported; leave it out")
    });
    coprocessor.or_else(|| broken(&OF_TABLES, settings))
}

/// The error in the settings of a family, if there is one.
pub(super) fn of_family(settings: &BTreeMap<String, String>) -> Option<String> {
    broken(&OF_FAMILIES, settings)
}

/// The error in a setting of a namespace.
pub(super) fn of_namespace(name: &str) -> String {
    format!("{name}: namespaces have no settings yet, not even quotas; leave it out")
}

fn broken(promises: &[Promise], settings: &BTreeMap<String, String>) -> Option<String> {
    let is_off = |promise: &Promise, value: &str| {
        value.is_empty() || promise.off.iter().any(|off| off.eq_ignore_ascii_case(value))
    };
    promises.iter().find_map(|promise| {
        let value = settings.get(promise.name).filter(|value| !is_off(promise, value))?;
        Some(format!("{} {value:?}: {}", promise.name, promise.advice))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> BTreeMap<String, String> {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn promises_are_rejected_with_their_names_and_advice() {
        for (name, value) in [
            ("READONLY", "TRUE"),
            ("coprocessor$1", "|org.example.Observer|1|"),
            ("hbase.rsgroup.name", "fast"),
        ] {
            let problem = of_table(&settings(name, value)).unwrap();
            assert!(problem.contains(name) && problem.contains("leave it out"), "{problem}");
        }
        for (name, value) in [
            ("ENCRYPTION", "AES"),
            ("ENCRYPTION_KEY", "key"),
            ("NEW_VERSION_BEHAVIOR", "true"),
            ("DFS_REPLICATION", "5"),
        ] {
            let problem = of_family(&settings(name, value)).unwrap();
            assert!(problem.contains(name) && problem.contains("leave it out"), "{problem}");
        }
        assert!(of_namespace("hbase.namespace.quota.maxregions").contains("maxregions"));
    }

    #[test]
    fn what_is_off_and_what_is_a_hint_is_taken() {
        for (name, value) in [
            ("READONLY", "false"),
            ("READONLY", ""),
            ("MAX_FILESIZE", "1"),
            ("SPLIT_POLICY", "x"),
            ("REGION_MEMSTORE_REPLICATION", "true"),
        ] {
            assert_eq!(of_table(&settings(name, value)), None, "{name}");
        }
        for (name, value) in [
            ("NEW_VERSION_BEHAVIOR", "false"),
            ("DFS_REPLICATION", "0"),
            ("IN_MEMORY_COMPACTION", "BASIC"),
            ("IS_MOB", "true"),
            ("STORAGE_POLICY", "ALL_SSD"),
            ("CACHE_DATA_ON_WRITE", "true"),
        ] {
            assert_eq!(of_family(&settings(name, value)), None, "{name}");
        }
    }
}
