//! A region server's log that is torn or damaged. One cluster runs through all cases, because every
//! start takes time.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use basalt::local::PortName;
use basalt::role_config::RoleName;

use super::cluster::{Rig, files_below, flip_in, row_name, value, wait_until};

/// The first bytes of a batch's header, and the length of the header.
const BATCH_MAGIC: &[u8] = b"BsB\x9d";
const BATCH_HEADER_BYTES: usize = 36;

/// The log of the killed server whose records contain `needle`.
fn log_with(rig: &Rig, needle: &[u8]) -> PathBuf {
    let logs = files_below(&rig.storage().join("WALs"));
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    logs.into_iter().find(holds).unwrap()
}

/// The offset at which a log is corrupt according to `line`.
fn corrupt_at(line: &str) -> u64 {
    let offset = line.split("corrupt at byte ").nth(1).unwrap();
    offset.split(':').next().unwrap().parse().unwrap()
}

fn truncate(log: &Path, length: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(log).unwrap();
    file.set_len(length).unwrap();
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Runs `basalt accept-loss` for the server whose log is `log`. Returns its output, or the error.
fn accept_loss(rig: &Rig, log: &Path, arguments: &[&str]) -> Result<String, String> {
    let folder = file_name(log.parent().unwrap());
    let masters = rig.cluster().plan().addresses(RoleName::Master, PortName::Peer);
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["accept-loss", "--masters", &masters.join(","), "--by", "a tester"])
        .args(["--server", folder.strip_suffix("-splitting").unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    let said = |bytes| String::from_utf8(bytes).unwrap();
    if status.success() { Ok(said(stdout)) } else { Err(said(stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_log_costs_only_what_lies_there() {
    let mut rig = Rig::start(&["torn", "damaged", "other"]).await;
    a_tail_that_was_cut_or_garbled_needs_nothing(&mut rig).await;
    a_damaged_edit_keeps_its_own_region_down(&mut rig).await;
    a_damaged_header_keeps_all_regions_of_its_server_down(&mut rig).await;
}

/// Half a batch at the end, as a crash leaves it, and then the same with flipped bits. No
/// acknowledged row is lost.
async fn a_tail_that_was_cut_or_garbled_needs_nothing(rig: &mut Rig) {
    for (round, garble) in [(0, false), (1, true)] {
        let rows = round * 10..round * 10 + 10;
        rig.write("torn", rows.clone()).await;
        rig.kill().await;
        let log = log_with(rig, &value("torn", rows.end - 1));
        let mut bytes = std::fs::read(&log).unwrap();
        // A write that did not reach the disk completely: the front of an earlier batch.
        let half = bytes[512..700].to_vec();
        bytes.extend(half.iter().map(|byte| if garble { byte ^ 0x55 } else { *byte }));
        std::fs::write(&log, bytes).unwrap();
        rig.start_again().await;
        rig.check("torn", 0..rows.end).await;
    }
}

/// Damage below the synced length is corruption. Nothing is skipped silently, and other regions are
/// not affected.
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
    let line = rig.wait_log("regionserver-0", "a durable edit of this region is damaged").await;
    let name = file_name(&log);
    assert!(line.contains(&name) && line.contains("corrupt at byte"), "{line}");
    let refused = rig.try_get("damaged", 0).await;
    assert!(refused.is_err(), "no answer may come out of a part: {refused:?}");
    rig.write("other", 10..20).await;

    // The documented procedure: after the other regions are flushed, give up everything from the
    // named byte on.
    wait_until("the others are flushed", || !rig.store_files("other").is_empty()).await;
    let log = log_with(rig, &needle[..8]);
    let refusal = accept_loss(rig, &log, &["--log", &name]).unwrap_err();
    assert!(refusal.contains("is known to be lost"), "nothing is, yet: {refusal}");
    truncate(&log, corrupt_at(&line));
    // A truncated log does not go unnoticed, and no other region is affected.
    rig.wait_log("master-0", "reason=\"1 regions stay closed").await;
    let refused = rig.try_get("damaged", 0).await;
    assert!(refused.is_err(), "nobody has accepted the loss: {refused:?}");
    rig.check("other", 0..20).await;
    rig.check("torn", 0..20).await;
    rig.write("other", 10..20).await;
    let refusal = accept_loss(rig, &log, &[]).unwrap_err();
    assert!(refusal.contains(&format!("{name} has {} bytes", corrupt_at(&line))), "{refusal}");
    let given_up = accept_loss(rig, &log, &["--log", &name]).unwrap();
    assert!(given_up.contains(&format!("given up: {name} has")), "{given_up}");
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

/// If it is unknown whose edits are damaged, the recovery stops for all regions of the server until
/// an operator gives up the rest of the file.
async fn a_damaged_header_keeps_all_regions_of_its_server_down(rig: &mut Rig) {
    // The region had nothing to replay, so it is not flushed: the log is the only copy of these
    // rows.
    for row in 20..30 {
        rig.write("torn", row..row + 1).await;
    }
    rig.kill().await;
    let needle = value("torn", 25);
    let log = log_with(rig, &needle);
    let bytes = std::fs::read(&log).unwrap();
    let row = bytes.windows(needle.len()).position(|part| part == needle).unwrap();
    let header = bytes[..row].windows(4).rposition(|part| part == BATCH_MAGIC).unwrap();
    flip_in(&log, &bytes[header..header + BATCH_HEADER_BYTES], 0);
    rig.start_again().await;
    let line = rig.wait_log("master-0", "log not split").await;
    assert_eq!(corrupt_at(&line), header as u64, "{line}");
    for table in ["torn", "damaged", "other"] {
        let refused = rig.try_get(table, 0).await;
        assert!(refused.is_err(), "its edits may be what is damaged: {refused:?}");
    }

    let (log, name) = (log_with(rig, &needle), file_name(&log));
    truncate(&log, corrupt_at(&line));
    let given_up = accept_loss(rig, &log, &["--log", &name]).unwrap();
    assert!(given_up.contains(&format!("given up: {name} has {header} bytes")), "{given_up}");
    rig.check("torn", 0..25).await;
    for row in 25..30 {
        assert_eq!(rig.try_get("torn", row).await, Ok(None), "{}", row_name(row));
    }
    rig.check("damaged", 0..10).await;
    rig.check("other", 0..20).await;
    rig.write("torn", 25..30).await;
    rig.check("torn", 0..30).await;
}
