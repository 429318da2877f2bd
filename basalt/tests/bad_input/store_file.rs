//! A damaged block in a store file.

use std::time::Duration;

use super::cluster::{Rig, flip_in, row_name, value};

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_block_costs_only_its_own_rows() {
    let mut rig = Rig::start(&["damaged", "other"]).await;
    // About four blocks of 64 KiB.
    rig.write("damaged", 0..200).await;
    rig.write("other", 0..10).await;
    rig.stop().await;
    let [file] = &rig.store_files("damaged")[..] else { panic!("one store file") };
    let whole = std::fs::read(file).unwrap();
    flip_in(file, &value("damaged", 3), 0);
    rig.start_again().await;
    rig.check("other", 0..10).await;

    let error = loop {
        match rig.try_get("damaged", 3).await {
            Ok(found) => panic!("an answer out of a damaged block: {found:?}"),
            Err(error) if error.contains("checksum") => break error,
            // The region is not open yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&name) && error.contains("at 0"), "{error}");
    rig.check("damaged", 150..200).await;
    // The region continues to serve. A row whose old data is unreadable cannot be read, even with a
    // new value.
    rig.write("damaged", 200..210).await;
    rig.check("damaged", 200..210).await;
    assert!(rig.try_get("damaged", 4).await.is_err(), "{}", row_name(4));

    // The documented procedure: restore the file from a copy, under the same name.
    rig.stop().await;
    std::fs::write(file, whole).unwrap();
    rig.start_again().await;
    rig.check("damaged", 0..210).await;
}
