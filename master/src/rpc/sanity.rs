//! Checks whether a table or a namespace may be created. Pure.

use basalt_hbase_rpc::{Exception, ExceptionKind, pb};
use basalt_model::{FamilyDescriptor, TableDescriptor};
use bytes::Bytes;

use super::settings;

/// The maximum number of regions that a table may be created with.
const REGIONS_MAX: usize = 20_000;
/// The maximum total length of the split keys. They are stored in one record.
const SPLIT_KEYS_BYTES_MAX: usize = 256 << 10;
/// The longest row key.
const ROW_BYTES_MAX: usize = i16::MAX as usize;
/// The longest family name.
const FAMILY_BYTES_MAX: usize = i8::MAX as usize;
/// The longest name of a table or namespace. Each is a folder, on Linux or HDFS.
const NAME_BYTES_MAX: usize = 255;
/// The sizes that a store-file block may have.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 1 << 10..=16 << 20;

/// Checks that a table with `descriptor` can be served.
///
/// # Errors
/// `FailedSanityCheckException`, with what is wrong and what would be right.
pub(super) fn check_descriptor(descriptor: &TableDescriptor) -> Result<(), Exception> {
    if descriptor.name.is_system() {
        return Err(failed("the namespace hbase is reserved for system tables"));
    }
    check_name_length("table", descriptor.name.qualifier())?;
    if descriptor.families.is_empty() {
        return Err(failed("a table must have at least one column family"));
    }
    if descriptor.region_replication != 1 {
        let given = descriptor.region_replication;
        return Err(failed(format!("REGION_REPLICATION {given}: only 1 is supported so far")));
    }
    if let Some(problem) = settings::of_table(&descriptor.settings) {
        return Err(failed(problem));
    }
    descriptor.families.values().try_for_each(check_family)
}

/// Checks that the name of a table or namespace is short enough for a folder.
///
/// # Errors
/// `FailedSanityCheckException`.
pub(super) fn check_name_length(kind: &str, name: &str) -> Result<(), Exception> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let bytes = name.len();
    Err(failed(format!(
        "the name of a {kind} may be at most {NAME_BYTES_MAX} bytes long, not {bytes} bytes"
    )))
}

/// Checks the settings of a namespace, which must have none.
///
/// # Errors
/// `FailedSanityCheckException`.
pub(super) fn check_namespace_settings(settings: &[pb::NameStringPair]) -> Result<(), Exception> {
    settings.first().map_or(Ok(()), |pair| Err(failed(settings::of_namespace(&pair.name))))
}

fn check_family(family: &FamilyDescriptor) -> Result<(), Exception> {
    let name = &family.name;
    let is_bad = |c: char| c.is_control() || c == ':' || c == '/' || c == '\\';
    if name.is_empty() || name.len() > FAMILY_BYTES_MAX {
        let message = format!("family {name:?}: its name must be 1 to {FAMILY_BYTES_MAX} bytes");
        return Err(failed(message));
    }
    if name.starts_with('.') || name.contains(is_bad) || name == "recovered.edits" {
        let message =
            format!("family {name:?}: its name must not begin with '.' or contain ':' or '/'");
        return Err(failed(message));
    }
    if family.versions_max == 0 {
        return Err(failed(format!("family {name:?}: VERSIONS must be at least 1")));
    }
    if family.versions_min > family.versions_max {
        return Err(failed(format!("family {name:?}: MIN_VERSIONS is above VERSIONS")));
    }
    if !BLOCK_BYTES.contains(&family.block_bytes) {
        let (min, max) = (BLOCK_BYTES.start(), BLOCK_BYTES.end());
        return Err(failed(format!("family {name:?}: BLOCKSIZE must be {min} to {max} bytes")));
    }
    if family.time_to_live_s == Some(0) {
        return Err(failed(format!("family {name:?}: TTL must be at least 1 second")));
    }
    let problem = settings::of_family(&family.settings);
    problem.map_or(Ok(()), |problem| Err(failed(format!("family {name:?}: {problem}"))))
}

/// Sorts and checks the split keys.
///
/// # Errors
/// A key is empty, too long or repeated, or there are too many keys.
pub(super) fn check_split_keys(mut keys: Vec<Bytes>) -> Result<Vec<Bytes>, Exception> {
    if keys.len() >= REGIONS_MAX {
        return Err(failed(format!("{} regions; the maximum is {REGIONS_MAX}", keys.len() + 1)));
    }
    let bytes: usize = keys.iter().map(Bytes::len).sum();
    if bytes > SPLIT_KEYS_BYTES_MAX {
        let message = format!("{bytes} bytes of split keys; the maximum is {SPLIT_KEYS_BYTES_MAX}");
        return Err(failed(message));
    }
    keys.sort();
    if keys.iter().any(|key| key.is_empty() || key.len() > ROW_BYTES_MAX) {
        return Err(failed(format!("a split key must be 1 to {ROW_BYTES_MAX} bytes long")));
    }
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(failed(format!("the split key {} occurs twice", pair[0].escape_ascii())));
    }
    // Copied, so that the memory of the request is not held for the life of the table.
    Ok(keys.iter().map(|key| Bytes::copy_from_slice(key)).collect())
}

fn failed(message: impl Into<String>) -> Exception {
    Exception::new(ExceptionKind::FailedSanityCheck, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::table;
    use basalt_model::TableState;

    fn descriptor(change: impl FnOnce(&mut TableDescriptor)) -> TableDescriptor {
        let mut descriptor = table("t", TableState::Enabled).record.descriptor;
        change(&mut descriptor);
        descriptor
    }

    fn with_family(change: impl FnOnce(&mut FamilyDescriptor)) -> TableDescriptor {
        descriptor(|table| change(table.families.values_mut().next().unwrap()))
    }

    #[test]
    fn a_usual_table_is_taken() {
        check_descriptor(&descriptor(|_| {})).unwrap();
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_its_name() {
        let cases = [
            (descriptor(|t| t.families.clear()), "family"),
            (descriptor(|t| t.region_replication = 2), "REGION_REPLICATION"),
            (descriptor(|t| t.name = "hbase:x".parse().unwrap()), "hbase"),
            (with_family(|f| f.name = "../x".to_owned()), "../x"),
            (with_family(|f| f.name = ".manifest".to_owned()), ".manifest"),
            (with_family(|f| f.versions_max = 0), "VERSIONS"),
            (with_family(|f| f.versions_min = 2), "MIN_VERSIONS"),
            (with_family(|f| f.block_bytes = 1), "BLOCKSIZE"),
            (with_family(|f| f.time_to_live_s = Some(0)), "TTL"),
        ];
        for (descriptor, word) in cases {
            let exception = check_descriptor(&descriptor).unwrap_err();
            assert_eq!(exception.kind(), ExceptionKind::FailedSanityCheck);
            assert!(exception.message().contains(word), "{exception}");
        }
    }

    #[test]
    fn a_name_that_is_no_folders_is_refused() {
        let named = |name: &str| descriptor(|table| table.name = name.parse().unwrap());
        check_descriptor(&named(&"l".repeat(255))).unwrap();
        // The limit is in bytes, not in letters.
        for name in ["l".repeat(256), "\u{e4}".repeat(128)] {
            let exception = check_descriptor(&named(&name)).unwrap_err();
            assert!(exception.message().contains("256 bytes"), "{exception}");
        }
    }

    #[test]
    fn settings_that_promise_what_is_not_kept_are_refused_by_name() {
        let set = |name: &str, value: &str| {
            descriptor(|table| _ = table.settings.insert(name.to_owned(), value.to_owned()))
        };
        let set_in_family = |name: &str, value: &str| {
            with_family(|family| _ = family.settings.insert(name.to_owned(), value.to_owned()))
        };
        for descriptor in [set("READONLY", "true"), set_in_family("ENCRYPTION", "AES")] {
            let exception = check_descriptor(&descriptor).unwrap_err();
            assert_eq!(exception.kind(), ExceptionKind::FailedSanityCheck);
        }
        check_descriptor(&set("READONLY", "false")).unwrap();
        check_descriptor(&set_in_family("IN_MEMORY", "true")).unwrap();
        let quota = "hbase.namespace.quota.maxtables".to_owned();
        let quota = pb::NameStringPair { name: quota, value: "5".to_owned() };
        assert!(check_namespace_settings(&[quota]).unwrap_err().message().contains("maxtables"));
        check_namespace_settings(&[]).unwrap();
    }

    #[test]
    fn split_keys_are_sorted_and_must_differ() {
        let keys = |texts: &[&'static str]| -> Vec<Bytes> {
            texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
        };
        assert_eq!(check_split_keys(keys(&["m", "c"])).unwrap(), keys(&["c", "m"]));
        assert!(check_split_keys(keys(&["m", ""])).is_err());
        assert!(check_split_keys(keys(&["m", "m"])).is_err());
        assert!(check_split_keys(vec![Bytes::from_static(b"x"); REGIONS_MAX]).is_err());
    }
}
