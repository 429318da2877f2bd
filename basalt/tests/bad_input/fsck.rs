//! `basalt fsck` on a running cluster whose files somebody has changed.

use std::process::Command;

use super::cluster::Rig;

/// The exit code and what was printed.
fn fsck(rig: &Rig, options: &[&str]) -> (Option<i32>, String) {
    let config = rig.config_file("master-0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    let output = command.arg("fsck").arg("--config").arg(config).args(options).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_stray_files_are_found() {
    let mut rig = Rig::start(&["t"]).await;
    rig.write("t", 0..10).await;
    // Every region is flushed, so the manifest names a store file.
    rig.stop().await;
    rig.start_again().await;
    rig.check("t", 0..10).await;
    let (code, page) = fsck(&rig, &["--strict"]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.contains("tables 1, regions 1, live region servers 1"), "{page}");
    assert!(page.ends_with("no problems\n"), "{page}");

    let [file] = &rig.store_files("t")[..] else { panic!("one store file") };
    let stray = file.with_file_name("0123456789abcdef0123456789abcdef");
    std::fs::copy(file, &stray).unwrap();
    let (code, page) = fsck(&rig, &["--list"]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.contains("not in a manifest") && page.contains("0123456789abcdef"), "{page}");
    assert_eq!(fsck(&rig, &["--strict"]).0, Some(3));
    std::fs::remove_file(&stray).unwrap();

    // The server has it open, and goes on: only its next owner would notice.
    let aside = rig.data().join("aside");
    std::fs::rename(file, &aside).unwrap();
    let (code, json) = fsck(&rig, &["--json"]);
    assert_eq!(code, Some(4), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["problems"][0]["kind"], "missingFile", "{json}");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(report["problems"][0]["path"].as_str().unwrap().ends_with(name), "{json}");
    std::fs::write(file, "short").unwrap();
    let (code, page) = fsck(&rig, &[]);
    assert!(code == Some(4) && page.contains("5 bytes, but the manifest"), "{page}");
    std::fs::rename(&aside, file).unwrap();
    assert_eq!(fsck(&rig, &[]).0, Some(0));
    rig.check("t", 0..10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_down_cannot_be_checked() {
    let mut rig = Rig::start(&[]).await;
    rig.stop().await;
    // Another test may get the port that the coordinator had.
    rig.configure("master-0", |config| {
        config["settings"]["server"]["coordinators"] = serde_json::json!(["127.0.0.1:1"]);
    });
    let (code, error) = fsck(&rig, &[]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("no member of the coordinator answers"), "{error}");
}
