//! Manifests that `basalt local` rejects before it creates or starts anything.

use std::path::Path;
use std::process::{Command, Output};

use super::cluster::manifest;

/// Runs `basalt local` on an invalid manifest. Returns its output.
fn refused(folder: &Path, text: &str, data: &Path) -> String {
    let file = folder.join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["local", "--free-ports", "-f"])
        .arg(&file)
        .arg("--data")
        .arg(data)
        .output()
        .unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{message}");
    message
}

#[test]
fn a_field_or_value_that_is_wrong_is_named_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let manifest = manifest(&["t"]);
    let cases = [
        (
            "masters: { replicas: 1 }",
            "masters: { replica: 1 }",
            &["masters", "`replica`", "`replicas`"],
        ),
        (
            "masters: { replicas: 1 }",
            "masters: { replicas: many }",
            &["spec.masters.replicas", "many", "expected u32"],
        ),
        (
            "masters: { replicas: 1 }",
            "masters: { replicas: 20 }",
            &["spec.masters.replicas", "20", "1 to 9"],
        ),
        (
            "coordinator: { replicas: 1 }",
            "coordinator: { replicas: 2 }",
            &["spec.coordinator.replicas", "2", "1, 3 or 5"],
        ),
        ("kind: BasaltTable", "kind: BasaltTabel", &["kind", "BasaltTabel", "BasaltTable"]),
        (
            "families: [{ name: f }]",
            "families: [{ name: f, compression: zip }]",
            &["compression", "zip", "zstd"],
        ),
    ];
    for (right, wrong, parts) in cases {
        assert!(manifest.contains(right), "{right}");
        let message = refused(folder.path(), &manifest.replace(right, wrong), &data);
        for part in ["cluster.yaml"].iter().chain(parts) {
            assert!(message.contains(part), "{part:?} is not said of {wrong:?}: {message}");
        }
    }
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "a file, not a folder").unwrap();
    for data in [file.clone(), file.join("data"), Path::new("/proc/basalt-data").to_owned()] {
        let message = refused(folder.path(), &manifest(&[]), &data);
        assert!(message.contains(&*data.to_string_lossy()), "{data:?}: {message}");
        assert!(message.contains("folder"), "{data:?}: {message}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file, not a folder");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("thesis.tex"), "years of work").unwrap();
    let message = refused(folder.path(), &manifest(&[]), &data);
    assert!(message.contains("thesis.tex"), "{message}");

    std::fs::remove_file(data.join("thesis.tex")).unwrap();
    let identity = r#"{
        "formatVersion": 1, "name": "prod", "uid": "u", "coordinators": 1, "claim": "storage"
    }"#;
    std::fs::write(data.join("cluster.json"), identity).unwrap();
    let message = refused(folder.path(), &manifest(&[]), &data);
    for part in ["\"prod\"", "\"demo\"", "--data"] {
        assert!(message.contains(part), "{part:?}: {message}");
    }
    assert_eq!(std::fs::read_to_string(data.join("cluster.json")).unwrap(), identity);
}
