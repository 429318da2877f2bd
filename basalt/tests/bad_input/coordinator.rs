//! A coordinator and a storage root that do not belong together.

use super::cluster::{PATIENCE, Rig, files_below};

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_emptied_does_not_get_the_old_storage() {
    let mut rig = Rig::start(&["t"]).await;
    rig.write("t", 0..10).await;
    rig.stop().await;
    let folder = rig.data().join("coordinator-0");
    let aside = rig.data().join("coordinator-0.aside");
    std::fs::rename(&folder, &aside).unwrap();
    let before = snapshot(&rig);
    rig.start_again().await;
    let line = rig.wait_log("master-0", "but the coordinator knows no cluster").await;
    assert!(line.contains("the storage root holds cluster"), "{line}");
    rig.kill().await;
    let after = snapshot(&rig);
    let lost: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
    assert!(lost.is_empty(), "no file of the storage may change: {lost:?}");

    // The documented procedure: restore the coordinator's folder from a copy.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    rig.start_again().await;
    rig.cluster().supervisor().wait_all_ready(PATIENCE).await.unwrap();
    rig.check("t", 0..10).await;
}

/// The data below the storage root: paths and contents of the files.
fn snapshot(rig: &Rig) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = files_below(&rig.storage().join("data")).into_iter();
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}
