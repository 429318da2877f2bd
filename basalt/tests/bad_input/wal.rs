//! A region server's log that is torn or damaged. One cluster goes through all of it: every start
//! is paid for once.

use std::path::PathBuf;

use super::cluster::{Rig, files_below, flip_in, row_name, value, wait_until};

/// The log of the server that was killed, whose records hold `value`.
fn log_with(rig: &Rig, needle: &[u8]) -> PathBuf {
    let logs = files_below(&rig.storage().join("WALs"));
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    logs.into_iter().find(holds).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_log_costs_only_what_lies_there() {
    let mut rig = Rig::start(&["torn", "damaged", "other"]).await;
    a_tail_that_was_cut_or_garbled_needs_nothing(&mut rig).await;
    a_damaged_edit_keeps_its_own_region_down(&mut rig).await;
}

/// Half a batch at the end, as a crash leaves it, then bits flipped in it: every acknowledged row
/// is there.
async fn a_tail_that_was_cut_or_garbled_needs_nothing(rig: &mut Rig) {
    for (round, garble) in [(0, false), (1, true)] {
        let rows = round * 10..round * 10 + 10;
        rig.write("torn", rows.clone()).await;
        rig.kill().await;
        let log = log_with(rig, &value("torn", rows.end - 1));
        let mut bytes = std::fs::read(&log).unwrap();
        // A write that did not reach the disk whole: the front of an earlier batch.
        let half = bytes[512..700].to_vec();
        bytes.extend(half.iter().map(|byte| if garble { byte ^ 0x55 } else { *byte }));
        std::fs::write(&log, bytes).unwrap();
        rig.start_again().await;
        rig.check("torn", 0..rows.end).await;
    }
}

/// Below what had been synced it is corruption: nothing is skipped silently, and the rest goes on.
async fn a_damaged_edit_keeps_its_own_region_down(rig: &mut Rig) {
    for row in 0..10 {
        rig.write("damaged", row..row + 1).await;
        rig.write("other", row..row + 1).await;
    }
    rig.kill().await;
    let needle = value("damaged", 5);
    let log = log_with(rig, &needle);
    flip_in(&log, &needle, 0);
    rig.start_again().await;
    rig.check("other", 0..10).await;
    rig.check("torn", 0..20).await;
    let line =
        rig.wait_log("regionserver-0", "an edit of this region, which had been durable").await;
    let name = log.file_name().unwrap().to_string_lossy().into_owned();
    assert!(line.contains(&name) && line.contains("corrupt at byte"), "{line}");
    let refused = rig.try_get("damaged", 0).await;
    assert!(refused.is_err(), "no answer may come out of a part: {refused:?}");
    rig.write("other", 10..20).await;

    // The documented way: once the others are flushed, give up what begins at the byte named.
    wait_until("the others are flushed", || !rig.store_files("other").is_empty()).await;
    let offset = line.split("corrupt at byte ").nth(1).unwrap();
    let offset: u64 = offset.split(':').next().unwrap().parse().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(log_with(rig, &needle[..8])).unwrap();
    file.set_len(offset).unwrap();
    rig.check("damaged", 0..5).await;
    for row in 5..10 {
        assert_eq!(rig.try_get("damaged", row).await, Ok(None), "{}", row_name(row));
    }
    rig.check("other", 0..20).await;
    rig.write("damaged", 5..10).await;
    rig.kill().await;
    rig.start_again().await;
    rig.check("damaged", 0..10).await;
    rig.check("other", 0..20).await;
    rig.check("torn", 0..20).await;
}
