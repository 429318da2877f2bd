//! Compares a table with its declaration, and computes its altered form. Pure.

use basalt_model::{FamilyDescriptor, TableDescriptor};

/// Describes the differences. Empty if there are none. Settings that only clients read do not
/// count.
pub(super) fn differences(written: &TableDescriptor, found: &TableDescriptor) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, family) in &written.families {
        match found.families.get(name) {
            Some(found) => differences.extend(of_family(family, found)),
            None => differences.push(format!("family {name} is declared but does not exist")),
        }
    }
    let unwritten = found.families.keys().filter(|name| !written.families.contains_key(*name));
    differences.extend(unwritten.map(|name| format!("family {name} exists but is not declared")));
    differences
}

/// The descriptor of an existing table after its manifest has changed: its families become as
/// declared. Undeclared families and their data stay, and so do settings that only clients read.
pub(super) fn altered(written: &TableDescriptor, found: &TableDescriptor) -> TableDescriptor {
    let mut altered = found.clone();
    for (name, family) in &written.families {
        let settings = found.families.get(name).map_or(&family.settings, |found| &found.settings);
        let family = FamilyDescriptor { settings: settings.clone(), ..family.clone() };
        altered.families.insert(name.clone(), family);
    }
    altered
}

fn of_family(written: &FamilyDescriptor, found: &FamilyDescriptor) -> Vec<String> {
    let name = &written.name;
    let mut differences = Vec::new();
    let mut compare = |field: &str, written: String, found: String| {
        if written != found {
            differences.push(format!("{name}.{field} is {found} but declared as {written}"));
        }
    };
    compare("versions", written.versions_max.to_string(), found.versions_max.to_string());
    compare("minVersions", written.versions_min.to_string(), found.versions_min.to_string());
    let time_to_live = |seconds: Option<u32>| {
        seconds.map_or_else(|| "for ever".to_owned(), |seconds| format!("{seconds}s"))
    };
    compare("timeToLive", time_to_live(written.time_to_live_s), time_to_live(found.time_to_live_s));
    compare(
        "compression",
        format!("{:?}", written.compression),
        format!("{:?}", found.compression),
    );
    compare("bloom", format!("{:?}", written.bloom), format!("{:?}", found.bloom));
    compare("blockBytes", written.block_bytes.to_string(), found.block_bytes.to_string());
    compare("blockCache", written.block_cache.to_string(), found.block_cache.to_string());
    compare(
        "keepDeletedCells",
        format!("{:?}", written.keep_deleted_cells),
        format!("{:?}", found.keep_deleted_cells),
    );
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(families: &str) -> TableDescriptor {
        let text = include_str!("../../../examples/minimal.yaml")
            .replace("families: [{ name: family }]", families);
        let manifests = basalt_api::Manifests::from_yaml("m", &text).unwrap();
        basalt_api::validate_table("usertable", &manifests.tables[0].spec).unwrap().descriptor
    }

    #[test]
    fn a_changed_manifest_alters_families_and_deletes_none() {
        let written = table("families: [{ name: a, versions: 3 }, { name: b }]");
        let mut found = table("families: [{ name: a }, { name: c }]");
        let kept = [("OWNER".to_owned(), "shell".to_owned())].into();
        found.families.get_mut("a").unwrap().settings = kept;
        let altered = altered(&written, &found);
        assert_eq!(differences(&written, &altered), ["family c exists but is not declared"]);
        assert_eq!(altered.families["a"].settings, found.families["a"].settings);
        assert_eq!(altered.families["c"], found.families["c"]);
    }

    #[test]
    fn what_differs_is_named_and_what_is_the_same_is_not() {
        let written = table("families: [{ name: a, versions: 3 }, { name: b }]");
        assert_eq!(differences(&written, &written), [""; 0]);
        let found = table("families: [{ name: a, compression: zstd }, { name: c }]");
        assert_eq!(
            differences(&written, &found),
            [
                "a.versions is 1 but declared as 3",
                "a.compression is Zstd but declared as None",
                "family b is declared but does not exist",
                "family c exists but is not declared",
            ]
        );
    }
}
