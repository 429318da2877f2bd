//! Copies in the charts must equal their originals.

use std::path::Path;

#[test]
fn the_chart_has_the_definitions_as_they_are_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/basalt-operator/files/crds");
    for file in basalt_api::crds::files().unwrap() {
        let path = folder.join(file.name);
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(copy == file.yaml, "{} is out of date: run `just crds`", path.display());
    }
}
