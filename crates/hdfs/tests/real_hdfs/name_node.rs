//! How a NameNode that accepts no changes, or is unavailable, affects writers.

use basalt_fs::AppendFile;

use super::*;

/// How long a call to the NameNode is retried here.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// An upper bound for the failure of such a call: its last attempt has a timeout of its own.
const FAILS_WITHIN: Duration = Duration::from_secs(8);

/// A log that is being written, and its acknowledged bytes.
struct Log {
    file: Box<dyn AppendFile>,
    acknowledged: Vec<u8>,
}

impl Log {
    /// Creates the log, and writes to it.
    async fn begin(files: &HdfsFileSystem) -> Self {
        let file = files.create_log(Path::new("/log")).await.unwrap();
        let mut log = Self { file, acknowledged: Vec::new() };
        log.go_on().await;
        log
    }

    /// Needs no NameNode.
    async fn go_on(&mut self) {
        for number in 0..50 {
            let bytes = pattern(300, number);
            self.file.append_and_sync(bytes.clone()).await.unwrap();
            self.acknowledged.extend_from_slice(&bytes);
        }
    }
}

// With threads: the log's heartbeats continue while the test waits for a script.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_log_goes_on_while_the_name_node_takes_no_changes_and_while_it_is_away() {
    let files = files("without-name-node").await;
    let mut log = Log::begin(&files).await;

    server("enter-safe-mode", "nn");
    log.go_on().await;
    let failure = fails_in_time("/in-safe-mode").await;
    assert!(failure.contains("SafeMode") || failure.contains("safe mode"), "{failure}");
    server("leave-safe-mode", "nn");
    files.check_writes().await.unwrap();

    server("kill", "nn");
    log.go_on().await;
    fails_in_time("/without-name-node").await;
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
    all_nodes_serve().await;
}

/// Creating a file fails, and not later than it should. Returns the reason.
async fn fails_in_time(path: &str) -> String {
    let files = impatient("without-name-node", CALL_DEADLINE);
    let started = Instant::now();
    let failure = files.create_log(Path::new(path)).await.err().unwrap();
    let took = started.elapsed();
    assert!(took < FAILS_WITHIN, "{took:?}");
    println!("after {took:?}: {failure}");
    std::error::Error::source(&failure).map_or_else(String::new, ToString::to_string)
}

// A restarted NameNode does not know where an open block is; only its edit log has the block's
// minimum length.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_log_outlasts_a_restart_of_the_name_node_while_its_data_nodes_are_away() {
    let files = files("restarted-name-node").await;
    let log = Log::begin(&files).await;
    // The file stays open: dropping it would close it.
    let Log { file: _open, acknowledged } = log;
    (1..=3).for_each(|number| node("kill", number));
    server("kill", "nn");
    server("start", "nn");
    // It would stay in safe mode until the DataNodes of closed files report. An HDFS with only open
    // files would not wait.
    server("leave-safe-mode", "nn");

    let fencer = impatient("restarted-name-node", CALL_DEADLINE);
    for _ in 0..2 {
        let sealed = fencer.seal(Path::new("/log"), "").await;
        assert!(sealed.is_err(), "no DataNode is there, but {sealed:?}");
        assert!(fencer.open(Path::new("/log")).await.is_err(), "it has no length yet");
    }
    (1..=3).for_each(|number| node("start", number));
    all_nodes_serve().await;
    let opened = fencer.open(Path::new("/log")).await.map(|file| file.length());
    assert!(opened.is_err(), "restarted DataNodes do not say how long it is, but {opened:?}");
    seal_in_time(&fencer, &acknowledged).await;
    check_contents(&files, &acknowledged).await;
}

// A DataNode answers before it has found its replicas, so the answer that it has none means nothing
// then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_log_outlasts_a_restart_of_all_its_data_nodes() {
    let files = files("restarted-data-nodes").await;
    let log = Log::begin(&files).await;
    let Log { file: _open, acknowledged } = log;
    (1..=3).for_each(|number| node("kill", number));
    let starting = (1..=3).map(|number| tokio::task::spawn_blocking(move || node("start", number)));
    let starting: Vec<_> = starting.collect();
    // It does not wait long for DataNodes, so it asks them often.
    let fencer = impatient("restarted-data-nodes", Duration::from_millis(100));
    seal_in_time(&fencer, &acknowledged).await;
    for started in starting {
        started.await.unwrap();
    }
    check_contents(&files, &acknowledged).await;
}

/// The files of a test, with calls to the NameNode that are retried only briefly.
fn impatient(name: &str, call_deadline: Duration) -> HdfsFileSystem {
    let root = format!("/basalt-tests/{name}");
    let config = HdfsConfig { call_deadline, ..config() };
    HdfsFileSystem::new(&Seams::system(), config, Path::new(&root)).unwrap()
}

/// Seals the log as soon as that succeeds. Its length includes all acknowledged bytes.
async fn seal_in_time(fencer: &HdfsFileSystem, acknowledged: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    let sealed = loop {
        match fencer.seal(Path::new("/log"), "").await {
            Ok(sealed) => break sealed,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(sealed.length, acknowledged.len() as u64, "nothing more was appended: {sealed:?}");
}

/// All acknowledged bytes are in the log.
async fn check_contents(files: &HdfsFileSystem, acknowledged: &[u8]) {
    all_nodes_serve().await;
    let read = files.read_whole(Path::new("/log"), 1 << 20).await.unwrap();
    assert!(read[..acknowledged.len()] == *acknowledged, "acknowledged bytes are lost");
}
