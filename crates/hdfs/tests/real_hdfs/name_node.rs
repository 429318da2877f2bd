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
