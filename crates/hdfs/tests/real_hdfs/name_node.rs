//! What a NameNode that takes no changes, or is away, means for those who write.

use basalt_fs::AppendFile;

use super::*;

/// How long a call to the NameNode is repeated here.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// What may come to that: the last attempt has a timeout of its own.
const FAILS_WITHIN: Duration = Duration::from_secs(8);

/// A log that is being written, and all that was acknowledged of it.
struct Log {
    file: Box<dyn AppendFile>,
    acknowledged: Vec<u8>,
}

impl Log {
    /// Needs no NameNode.
    async fn go_on(&mut self) {
        for number in 0..50 {
            let bytes = pattern(300, number);
            self.file.append_and_sync(bytes.clone()).await.unwrap();
            self.acknowledged.extend_from_slice(&bytes);
        }
    }
}

// With threads: the log's heartbeats go on while a script is waited for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_log_goes_on_while_the_name_node_takes_no_changes_and_while_it_is_away() {
    let config = HdfsConfig { call_deadline: CALL_DEADLINE, ..config() };
    let files = files_with(config, "without-name-node").await;
    all_nodes_run();
    all_nodes_live(&files).await;
    let file = files.create_log(Path::new("/log")).await.unwrap();
    let mut log = Log { file, acknowledged: Vec::new() };
    log.go_on().await;

    server("enter-safe-mode", "nn");
    log.go_on().await;
    let failure = fails_in_time(&files, "/in-safe-mode").await;
    assert!(failure.contains("SafeMode") || failure.contains("safe mode"), "{failure}");
    server("leave-safe-mode", "nn");
    files.check_writes().await.unwrap();

    server("kill", "nn");
    log.go_on().await;
    fails_in_time(&files, "/without-name-node").await;
    server("start", "nn");
    log.go_on().await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = files.check_writes().await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(200)).await;
    }
    log.go_on().await;
    log.file.close().await.unwrap();
    let read = files.read_whole(Path::new("/log"), 1 << 20).await.unwrap();
    assert!(read[..] == log.acknowledged);
    all_nodes_live(&files).await;
}

/// Making a file fails, and not later than it should. Gives the reason.
async fn fails_in_time(files: &HdfsFileSystem, path: &str) -> String {
    let started = Instant::now();
    let failure = files.create_log(Path::new(path)).await.err().unwrap();
    let took = started.elapsed();
    assert!(took < FAILS_WITHIN, "{took:?}");
    println!("after {took:?}: {failure}");
    std::error::Error::source(&failure).map_or_else(String::new, ToString::to_string)
}

// The NameNode forgets where an open block is; only its edit log tells how long it is at least.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_log_outlasts_a_restart_of_the_name_node_while_its_data_nodes_are_away() {
    let config = HdfsConfig { call_deadline: CALL_DEADLINE, ..config() };
    let files = files_with(config.clone(), "restarted-name-node").await;
    all_nodes_run();
    all_nodes_live(&files).await;
    let file = files.create_log(Path::new("/log")).await.unwrap();
    let mut log = Log { file, acknowledged: Vec::new() };
    log.go_on().await;
    // The file stays open: to drop it would close it.
    let Log { file: _open, acknowledged } = log;
    (1..=3).for_each(|number| node("kill", number));
    server("kill", "nn");
    server("start", "nn");
    // It would wait for the DataNodes of closed files; an HDFS of open ones only would not.
    server("leave-safe-mode", "nn");

    let root = Path::new("/basalt-tests/restarted-name-node");
    let fencer = HdfsFileSystem::new(&Seams::system(), config, root).unwrap();
    for _ in 0..2 {
        let sealed = fencer.seal(Path::new("/log"), "").await;
        assert!(sealed.is_err(), "no DataNode is there, but {sealed:?}");
        assert!(fencer.open(Path::new("/log")).await.is_err(), "it has no length yet");
    }
    (1..=3).for_each(|number| node("start", number));
    all_nodes_live(&fencer).await;
    let deadline = Instant::now() + PATIENCE;
    let sealed = loop {
        match fencer.seal(Path::new("/log"), "").await {
            Ok(sealed) => break sealed,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    assert!(sealed.length >= acknowledged.len() as u64, "{sealed:?}");
    let read = fencer.read_whole(Path::new("/log"), 1 << 20).await.unwrap();
    assert!(read[..acknowledged.len()] == acknowledged, "acknowledged bytes are lost");
}
