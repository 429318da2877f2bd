//! Files are fenced whose writers are dead, asleep, or at full speed, with all DataNodes or without
//! one. In all cases every acknowledged record is below the file's length.
//!
//! `BASALT_HDFS_RUNS` sets how often each case is run (default 3). Each case prints a row of the
//! table in `docs/hdfs.md`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use basalt_hdfs::{Fenced, RecoveryMethod};

use super::*;

/// The length of a record of `log_writer`, in bytes.
const RECORD_BYTES: u64 = 100;
/// The writer has acknowledged this many records before a fault is injected.
const WARM_RECORDS: u64 = 300;

/// Longer than a heartbeat of a DataNode.
const HEARTBEATS: Duration = Duration::from_millis(1500);

/// The fault that is injected before a file is fenced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// The writer is killed.
    Killed,
    /// The writer is paused, and wakes after the fence.
    Paused,
    /// None: the writer writes as fast as it can.
    Alive,
    /// The writer and a DataNode are killed.
    KilledWithNode,
    /// The writer is killed, and a DataNode hangs.
    KilledNodeHangs,
    /// The writer is killed, and all DataNodes but one hang: the file cannot be closed.
    KilledTwoHang,
    /// A DataNode hangs briefly under a live writer, and wakes after the fence.
    AliveNodeHangs,
}

/// `log_writer`, and its output so far.
struct LogWriter {
    process: Child,
    acked: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<String>>>,
}

/// One run of a case.
struct Run {
    fenced: Fenced,
    /// Acknowledgements that the writer saw after the fence had ended.
    late: u64,
}

// === impl LogWriter ===

impl LogWriter {
    fn start(path: &str) -> Self {
        let mut binary = std::env::current_exe().unwrap();
        binary.pop();
        binary.pop();
        binary.push("examples/log_writer");
        let mut command = Command::new(&binary);
        command.arg(settings()).arg(path).arg("64").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error}; cargo build -p basalt-hdfs --example log_writer", binary.display())
        });
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (acked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let (acks, failure) = (Arc::clone(&acked), Arc::clone(&failed));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.split_once(' ') {
                    Some(("acked", count)) => acks.store(count.parse().unwrap(), Ordering::SeqCst),
                    Some(("failed", why)) => *failure.lock().unwrap() = Some(why.to_owned()),
                    _ => panic!("log_writer says {line}"),
                }
            }
        });
        Self { process, acked, failed }
    }

    fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    fn send(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success(), "kill {signal} of the writer");
    }

    async fn warm_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.acked() < WARM_RECORDS {
            assert!(Instant::now() < deadline, "{:?}", self.failed.lock().unwrap());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, and returns how many records it has acknowledged.
    async fn end(mut self) -> u64 {
        // Time to read all acknowledgements that the writer has printed.
        sleep(Duration::from_millis(200)).await;
        let _gone_already = self.process.kill();
        self.process.wait().unwrap();
        sleep(Duration::from_millis(50)).await;
        self.acked()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

async fn run(
    files: &HdfsFileSystem,
    root: &str,
    fault: Fault,
    method: RecoveryMethod,
    number: usize,
) -> Run {
    let path = format!("/{fault:?}-{method:?}-{number}");
    let victim = 1 + number % 3;
    let writer = LogWriter::start(&format!("{root}{path}"));
    let path = Path::new(&path);
    writer.warm_up().await;
    match fault {
        Fault::Killed => writer.send("-KILL"),
        Fault::Paused => writer.send("-STOP"),
        Fault::Alive => {}
        Fault::KilledWithNode => {
            writer.send("-KILL");
            node("kill", victim);
        }
        Fault::KilledNodeHangs => {
            node("freeze", victim);
            writer.send("-KILL");
        }
        Fault::KilledTwoHang => {
            node("freeze", victim);
            node("freeze", 1 + victim % 3);
            writer.send("-KILL");
        }
        Fault::AliveNodeHangs => node("freeze", victim),
    }
    let fenced = files.fence(path, method).await.unwrap();
    let at_fence = writer.acked();
    // If the method closes the file and enough DataNodes are alive, the file is closed.
    let stays_open = fault == Fault::KilledTwoHang || method == RecoveryMethod::TakeOver;
    assert!(!fenced.may_shrink || stays_open, "{fenced:?}");
    if fenced.may_shrink {
        // Checked now, while everything is there: the file may become shorter later.
        check_contents(files, path, &fenced, at_fence).await;
    }
    if fault == Fault::Paused {
        sleep(Duration::from_millis(100)).await;
        writer.send("-CONT");
        sleep(Duration::from_millis(300)).await;
    }
    if matches!(fault, Fault::KilledNodeHangs | Fault::KilledTwoHang | Fault::AliveNodeHangs) {
        node("thaw", victim);
        node("thaw", 1 + victim % 3);
        // Until the NameNode gives it blocks again: this test is about one fault at a time.
        sleep(HEARTBEATS).await;
        all_nodes_serve().await;
    }
    let acked = writer.end().await;
    if !fenced.may_shrink {
        check_contents(files, path, &fenced, acked).await;
    }
    if fault == Fault::KilledWithNode {
        node("start", victim);
        sleep(HEARTBEATS).await;
        all_nodes_serve().await;
        // As the masters do each minute.
        files.rehearse_fence().await.unwrap();
    }
    Run { fenced, late: acked - at_fence }
}

/// Everything that was acknowledged is below the file's length, in order. A closed file has not
/// grown.
async fn check_contents(files: &HdfsFileSystem, path: &Path, fenced: &Fenced, acked: u64) {
    let length = fenced.length;
    assert!(
        acked * RECORD_BYTES <= length,
        "{acked} records acknowledged, but the length is {length}: {fenced:?}"
    );
    let reader = files.open(path).await.unwrap();
    assert!(reader.length() >= length, "{} bytes, sealed at {length}", reader.length());
    if fenced.is_closed {
        assert_eq!(reader.length(), length, "a closed file has grown or shrunk");
    }
    let bytes = reader.read_at(0, usize::try_from(length).unwrap()).await.unwrap();
    for (number, record) in bytes.chunks_exact(RECORD_BYTES as usize).enumerate() {
        assert_eq!(record, format!("{number:099}\n").as_bytes(), "record {number}");
    }
}

fn milliseconds(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
    format!("{} / {}", ms(times.get(times.len() / 2)), ms(times.last()))
}

async fn run_case(fault: Fault, method: RecoveryMethod) {
    let runs = std::env::var("BASALT_HDFS_RUNS").map_or(3, |runs| runs.parse().unwrap());
    let name = format!("fence-{fault:?}-{method:?}");
    let files = files(&name).await;
    let mut done = Vec::new();
    for number in 0..runs {
        done.push(run(&files, &format!("/basalt-tests/{name}"), fault, method, number).await);
    }
    let closed = done.iter().filter(|run| run.fenced.is_closed).count();
    let late: u64 = done.iter().map(|run| run.late).sum();
    let stopped = milliseconds(done.iter().map(|run| run.fenced.stopped_after).collect());
    let took = milliseconds(done.iter().map(|run| run.fenced.took).collect());
    let row = format!("{runs} | {stopped} | {took} | {closed} | {runs}/{runs} | {late}");
    println!("| {fault:?} | {method:?} | {row} |");
}

macro_rules! cases {
    ($($name:ident: $fault:ident by $method:ident;)*) => {$(
        #[tokio::test]
        #[ignore = "needs a real HDFS and its processes"]
        async fn $name() {
            run_case(Fault::$fault, RecoveryMethod::$method).await;
        }
    )*};
}

cases! {
    killed_h: Killed by TakeOverAndClose;
    paused_h: Paused by TakeOverAndClose;
    alive_h: Alive by TakeOverAndClose;
    killed_with_node_h: KilledWithNode by TakeOverAndClose;
    killed_node_hangs_h: KilledNodeHangs by TakeOverAndClose;
    killed_two_hang_h: KilledTwoHang by TakeOverAndClose;
    alive_node_hangs_h: AliveNodeHangs by TakeOverAndClose;
    killed_g: Killed by TakeOver;
    paused_g: Paused by TakeOver;
    alive_g: Alive by TakeOver;
    killed_with_node_g: KilledWithNode by TakeOver;
    killed_plain: Killed by LeaseRecovery;
}

/// Two processes that fence at the same time, like an old and a new master, agree on what matters:
/// neither cuts off acknowledged records, and the file is closed in the end.
#[tokio::test]
#[ignore = "needs a real HDFS and its processes"]
async fn two_fences_at_once_do_no_harm() {
    let files = files("fence-twice").await;
    let other =
        HdfsFileSystem::new(&Seams::system(), config(), Path::new("/basalt-tests/fence-twice"));
    let other = other.unwrap();
    for number in 0..5 {
        let path = format!("/log.{number}");
        let writer = LogWriter::start(&format!("/basalt-tests/fence-twice{path}"));
        writer.warm_up().await;
        let path = Path::new(&path);
        let method = RecoveryMethod::TakeOverAndClose;
        let (first, second) = tokio::join!(files.fence(path, method), other.fence(path, method));
        let (first, second) = (first.unwrap(), second.unwrap());
        let acked = writer.end().await;
        println!("both at once: {first:?}, {second:?}");
        for fenced in [first, second] {
            assert!(acked * RECORD_BYTES <= fenced.length, "{acked} acknowledged, {fenced:?}");
        }
        let again = files.fence(path, method).await.unwrap();
        assert!(again.length >= first.length.min(second.length));
    }
}
