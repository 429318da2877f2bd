//! A measurement that is run on demand: increments at a steady rate, with retries and deaths of the
//! server. None may count twice, none may be rejected, and memory must stay within what
//! `docs/formats.md` says.
//!
//! `NONCE_SECONDS=1800 NONCE_RATE=5000 cargo test -p basalt-regionserver --lib nonces_measure
//! -- --ignored --nocapture`

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_cluster::{RegionRecord, pb};
use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_model::{RegionEpoch, RegionState, SequenceId, ServerName, paths};
use basalt_runtime::{Clock, Network, Random, Seams, SystemClock, TcpNetwork, Threads};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::wal::{self, Nonce, Wal, WalConfig};
use tokio::time::Instant;

use crate::config::RegionConfig;
use crate::lease::ServingLease;
use crate::recovery::replay::SealedLogs;
use crate::region::testing::{info, table, update_of};
use crate::region::{MemstoresTotal, OpenRegion, Region, RegionServices, RowRead, Update, open};
use crate::timestamps::TimestampClock;

/// How many clients there are. Each has its own row.
const CLIENTS: u64 = 100;
/// How often the server dies.
const DEATHS_EVERY: Duration = Duration::from_secs(30);
/// One in this many operations is repeated, long after it was answered.
const RETRIED_OF: u64 = 20;

/// A region with its current owner, and what is needed to recover it.
struct Owner {
    region: Arc<Region>,
    server: ServerName,
}

#[derive(Default)]
struct Counts {
    made: AtomicU64,
    retried: AtomicU64,
    unknown: AtomicU64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A new server that opens the region under the next epoch.
async fn take_over(root: &Path, epoch: u64, sealed: Vec<SealedLogs>) -> Owner {
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(root).unwrap());
    files.create_directories(&paths::logs()).await.unwrap();
    let server: ServerName = format!("rs,16020,{epoch}").parse().unwrap();
    let clock = Clock::new(SystemClock);
    let config = WalConfig::default();
    let wal = Wal::create(Arc::clone(&files), &server, "cluster", config, clock.clone()).await;
    let lease = ServingLease::new(clock.clone(), Duration::from_secs(3_600));
    lease.renewed(clock.boot_time());
    let random = Random::from_seed(epoch);
    let shared = RegionServices {
        timestamps: TimestampClock::new(clock.clone(), Duration::from_secs(1)),
        seams: Seams {
            clock,
            random,
            network: Network::new(TcpNetwork),
            threads: Threads::default(),
        },
        files,
        wal: Arc::new(wal.unwrap()),
        blocks: Arc::new(BlockCache::new(64 << 20)),
        lease,
        memstores: Arc::new(MemstoresTotal::new(4 << 30)),
        config: RegionConfig { flush_bytes: 32 << 20, ..RegionConfig::default() },
    };
    let record = RegionRecord {
        info: info(),
        state: RegionState::Opening,
        epoch: RegionEpoch(epoch),
        server: Some(server.clone()),
        unflushed: sealed.iter().map(|sealed| sealed.server.clone()).collect(),
        open_sequence_id: SequenceId(0),
    };
    let request =
        OpenRegion { record, table: Arc::new(table()), incarnations: BTreeMap::new(), sealed };
    Owner { region: open(shared, request).await.unwrap().region, server }
}

/// Ends an owner. The returned logs contain the edits that it had not flushed.
async fn die(root: &Path, owner: Owner) -> SealedLogs {
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(root).unwrap());
    let fenced = wal::fence(&files, &owner.server).await.unwrap();
    let mut logs = Vec::new();
    for log in fenced {
        let sealed_length = files.open(&log.path).await.unwrap().length();
        let name = log.path.file_name().unwrap().to_string_lossy().into_owned();
        logs.push(pb::SealedLog { name, sealed_length });
    }
    SealedLogs::new(owner.server, logs)
}

/// A client that increments at its share of the rate, and retries each increment until it is
/// answered. Now and then it repeats an old one.
async fn client(
    number: u64,
    owners: tokio::sync::watch::Receiver<Arc<Region>>,
    counts: Arc<Counts>,
    until: Instant,
) {
    let row = format!("r{number:03}");
    let random = Random::from_seed(number);
    let pause = Duration::from_micros(1_000_000 * CLIENTS / setting("NONCE_RATE", 5_000));
    let mut answers: VecDeque<(u64, i64)> = VecDeque::new();
    let mut next = tokio::time::interval(pause);
    for operation in 1.. {
        if Instant::now() >= until {
            return;
        }
        next.tick().await;
        let answer = increment(&row, number, operation, &owners, &counts).await;
        assert_eq!(answer, operation as i64, "{row}: an increment was lost or counted twice");
        counts.made.fetch_add(1, Ordering::Relaxed);
        answers.push_back((operation, answer));
        if operation % RETRIED_OF == 0 {
            let (old, answer) = answers[random.in_range(0..answers.len() as u64) as usize];
            let again = increment(&row, number, old, &owners, &counts).await;
            assert_eq!(again, answer, "{row}: operation {old} answered otherwise");
            counts.retried.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn increment(
    row: &str,
    group: u64,
    operation: u64,
    owners: &tokio::sync::watch::Receiver<Arc<Region>>,
    counts: &Counts,
) -> i64 {
    let update = update_of(row, "g:n", Update::Increment, &1_i64.to_be_bytes());
    let mut owners = owners.clone();
    loop {
        let region = Arc::clone(&owners.borrow_and_update());
        // If the owner dies, the outcome of the attempt is unknown.
        let attempt = region.update(&update, Some(Nonce { group, nonce: operation }));
        tokio::select! {
            biased;
            changed = owners.changed() => changed.unwrap(),
            answer = attempt => match answer {
                Ok(cells) => return i64::from_be_bytes(cells[0].value().try_into().unwrap()),
                Err(error) => {
                    assert!(matches!(error, crate::region::Error::Wal(_)), "refused: {error}");
                    owners.changed().await.unwrap();
                }
            },
        }
        counts.unknown.fetch_add(1, Ordering::Relaxed);
    }
}

/// Does what the schedulers do.
async fn maintain(region: &Region) {
    if region.needs_flush() {
        region.flush().await.unwrap();
        region.shared.wal.delete_obsolete().await.unwrap();
    }
    let folder = paths::nonces(&region.info.table, region.encoded_name);
    for name in region.replace_nonce_files().await.unwrap() {
        region.delete_if_there(&folder.join(name)).await.unwrap();
    }
    for (family, state) in region.view.load_full().families.clone() {
        if state.files.len() > 8 {
            region.merge(&family, &state.files, false).await.unwrap();
        }
    }
}

fn report(region: &Region, counts: &Counts, seconds: u64, deaths: u64) {
    let files = region.nonces.lock().files().len();
    let recent_bytes = region.nonces.lock().recent_bytes();
    println!(
        "{seconds} s: {} increments, {} repeated, {} unknown attempts, {deaths} deaths; {} files \
         with {} nonces, {} MiB on disk, {} KiB of filters; {} KiB in memory; resident {} MiB",
        counts.made.load(Ordering::Relaxed),
        counts.retried.load(Ordering::Relaxed),
        counts.unknown.load(Ordering::Relaxed),
        files,
        region.nonces(),
        region.nonce_file_bytes() >> 20,
        region.nonce_filter_bytes() >> 10,
        recent_bytes >> 10,
        resident_mib(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes NONCE_SECONDS"]
async fn increments_count_once_at_a_steady_rate_over_deaths() {
    let seconds = setting("NONCE_SECONDS", 20);
    let root = tempfile::tempdir().unwrap();
    let mut owner = take_over(root.path(), 1, Vec::new()).await;
    let (owners, receiver) = tokio::sync::watch::channel(Arc::clone(&owner.region));
    let (begun, counts) = (Instant::now(), Arc::new(Counts::default()));
    let until = begun + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, receiver.clone(), Arc::clone(&counts), until)))
        .collect();
    let (mut deaths, mut reported) = (0_u32, 0);
    while !clients.iter().all(|client| client.is_finished()) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        maintain(&owner.region).await;
        let elapsed = begun.elapsed();
        if elapsed >= DEATHS_EVERY * (deaths + 1) && Instant::now() < until {
            deaths += 1;
            let sealed = vec![die(root.path(), owner).await];
            owner = take_over(root.path(), u64::from(deaths) + 1, sealed).await;
            owners.send_replace(Arc::clone(&owner.region));
            // As after a recovery, so that the sealed logs are no longer needed.
            owner.region.flush().await.unwrap();
        }
        if elapsed.as_secs() >= reported + 10 {
            reported = elapsed.as_secs();
            report(&owner.region, &counts, reported, deaths.into());
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    report(&owner.region, &counts, begun.elapsed().as_secs(), deaths.into());
    let mut sum = 0;
    for number in 0..CLIENTS {
        let row = format!("r{number:03}");
        let cells = owner.region.get(row.as_bytes(), &RowRead::all()).await.unwrap();
        sum += cells.first().map_or(0, |cell| i64::from_be_bytes(cell.value().try_into().unwrap()));
    }
    assert_eq!(sum as u64, counts.made.load(Ordering::Relaxed), "each counts once");
}
