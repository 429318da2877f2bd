//! The one task that writes the log. It writes batch after batch, and acknowledges each one once it
//! and all batches before it are durable.
//!
//! On a local disk, a batch is synced before the next one is written, and after one failed write
//! nothing more is written. If the file system supports several concurrent syncs, several batches
//! are in flight. If it supports replacing a failed file, the writer begins a new file and appends
//! to it all unacknowledged batches, in their order. An edit may then be in both files; replay
//! applies it once.
//!
//! A full file takes further edits until the next file exists. Where failed files are replaced, it
//! also does so while the next one cannot be created, for example while a NameNode is unavailable.
//! The writer tries to create it again later.
//!
//! The current file always has room on the disk for all edits that permits cover. If no more room
//! can be reserved, the queue issues no more permits, so that no edit meets a full disk half-way.
//! The writer tries again every [`ROOM_PAUSE`].
//!
//! Invariants: at any time the newest file is open, and therefore locked; that lock is free only
//! when the log was closed or its process is gone. Nothing is acknowledged for a file that failed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_fs::Durable;
use basalt_runtime::WITNESS;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{info, trace, warn};

use super::error::{Error, Result};
use super::listing::Listing;
use super::log::{WalConfig, WalStats};
use super::open_file::{FileMaker, OpenFile, timed_out, within};
use super::queue::{Batch, Queue, SyncOutcome, Work};
use super::sequence_id_accounting::SequenceIdAccounting;

/// State that the writer shares with the handle of the log.
#[derive(Debug)]
pub(super) struct WalShared {
    pub(super) queue: Queue,
    pub(super) accounting: Mutex<SequenceIdAccounting>,
    pub(super) listing: Listing,
    pub(super) written: Mutex<WalStats>,
}

/// The task that writes the log.
pub(super) struct Writer {
    shared: Arc<WalShared>,
    maker: Arc<FileMaker>,
    config: WalConfig,
    current: OpenFile,
    /// The creation of the next file, from its start until the file becomes the current one.
    next: Option<BoxFuture<'static, Result<OpenFile>>>,
    /// The callers that wait for that file.
    asked: Vec<SyncOutcome>,
    /// The batches that were written to the current file and are not known to be durable, in order.
    in_flight: VecDeque<InFlight>,
    /// The number of the newest file whose creation began, whether or not it could be used.
    last_number: u64,
    /// Files that failed since something last became durable.
    failures: u32,
    /// Until this time, no file is begun merely because the current one is full.
    no_roll_before: Option<Instant>,
    /// When to check again whether there is room; set while the disk is full.
    look_for_room_at: Option<Instant>,
    /// Last, so that the file is closed before the end is reported.
    end: End,
}

/// A batch that was written.
struct InFlight {
    batch: Batch,
    /// The bytes as written; their header is valid only in that file.
    bytes: Bytes,
    /// The offset in the file at which the batch ends.
    end: u64,
    started: Duration,
    sent_at: Instant,
    durable: BoxFuture<'static, basalt_fs::Result<()>>,
}

/// The events that the writer acts on.
enum Event {
    Work(Work),
    /// The oldest batch in flight is durable, or has failed.
    Settled(Result<()>),
    /// The next file exists, or could not be created.
    Next(Result<OpenFile>),
    /// There has been no work for a while.
    Idle,
    /// It is time to check again whether there is room on the disk.
    LookForRoom,
}

/// The minimum time between two batches while one is in flight; edits that arrive meanwhile share
/// the next batch. A small batch costs as many round trips to the DataNodes as a large one. Most
/// batches are durable sooner, and the next ones need not wait behind a slow one.
const PACE: Duration = Duration::from_millis(1);
/// How many files in a row may fail without anything becoming durable.
const FAILURES_MAX: u32 = 8;
/// How long to wait before trying again to replace a failed file.
const REPLACE_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait before trying again to create the file that follows a full one.
const ROLL_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait before checking a full disk again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Reports the writer's end on drop, whatever ends it.
struct End {
    shared: Arc<WalShared>,
    /// Everything that was added is durable.
    clean: bool,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        shared: Arc<WalShared>,
        maker: FileMaker,
        config: WalConfig,
        first: OpenFile,
    ) -> Self {
        {
            let mut accounting = shared.accounting.lock();
            accounting.add_file(first.number, first.path.clone());
            accounting.open_file(first.number);
        }
        let end = End { shared: Arc::clone(&shared), clean: false };
        Self {
            shared,
            maker: Arc::new(maker),
            config,
            last_number: first.number,
            current: first,
            next: None,
            asked: Vec::new(),
            in_flight: VecDeque::new(),
            failures: 0,
            no_roll_before: None,
            look_for_room_at: None,
            end,
        }
    }

    /// Writes until the log is closed. After a failure it only waits for that: the file stays
    /// locked while the server may still answer clients.
    pub(super) async fn run(mut self) {
        match self.write_until_closed().await {
            Ok(()) => {
                self.shared.accounting.lock().close_files();
                self.end.clean = true;
            }
            Err(error) => {
                let unsettled = self.in_flight.iter().map(|unsettled| &unsettled.batch.outcome);
                self.shared.queue.fail(unsettled.chain(&self.asked), &error);
                while !self.shared.queue.next_work().await.close {}
            }
        }
    }

    async fn write_until_closed(&mut self) -> Result<()> {
        loop {
            let Work { batch, roll, close } = match self.next_event().await {
                Event::Work(work) => work,
                Event::Settled(Ok(())) => {
                    self.settle_oldest().await;
                    continue;
                }
                Event::Settled(Err(error)) => {
                    self.replace_file(error).await?;
                    continue;
                }
                Event::Next(made) => {
                    self.change_file(made).await?;
                    continue;
                }
                Event::Idle => {
                    self.write_commit_marker().await?;
                    continue;
                }
                Event::LookForRoom => {
                    self.keep_room().await?;
                    continue;
                }
            };
            if let Some(batch) = batch {
                self.write_batch(batch).await?;
            }
            let is_asked = roll.is_some();
            self.asked.extend(roll);
            if self.next.is_none() && (is_asked || self.is_full()) {
                self.next = Some(self.make_next());
            }
            if close {
                return self.close().await;
            }
        }
    }

    /// Waits for the next event. If there is no work for a while, and nothing is in flight, the
    /// event is [`Event::Idle`], so that a commit marker covers the last batch.
    async fn next_event(&mut self) -> Event {
        let has_room = self.in_flight.len() < self.config.batches_in_flight_max;
        let not_before = self.in_flight.back().map(|newest| newest.sent_at + PACE);
        let work = async {
            if let Some(not_before) = not_before {
                sleep_until(not_before).await;
            }
            self.shared.queue.next_work().await
        };
        let is_unmarked = self.in_flight.is_empty() && !self.current.marked;
        let look_for_room_at = self.look_for_room_at;
        let oldest = oldest_settled(&mut self.in_flight, &self.maker, &self.current.path);
        let next = async {
            match &mut self.next {
                Some(next) => next.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            settled = oldest => Event::Settled(settled),
            made = next => Event::Next(made),
            () = sleep_until_some(look_for_room_at) => Event::LookForRoom,
            work = work, if has_room => Event::Work(work),
            () = sleep(self.config.idle_before_mark), if is_unmarked => Event::Idle,
        }
    }

    async fn write_batch(&mut self, mut batch: Batch) -> Result<()> {
        let bytes = self.current.frame(std::mem::take(&mut batch.bytes), batch.touched.len());
        let number = self.current.number;
        let end = self.current.file.length() + bytes.len() as u64;
        // Before the write: no flush may cover an edit that the accounting does not know yet.
        self.shared.accounting.lock().record(number, end, &batch.touched);
        reached(Point::LogAppend).await;
        let started = self.maker.clock.boot_time();
        let sent_at = Instant::now();
        let path = self.current.path.clone();
        let write = self.current.append_batch(bytes.clone(), batch.durability);
        let written = within(&self.maker, &path, write).await;
        let (durable, failed) = match written {
            Ok(Durable::Now) => (futures::future::ready(Ok(())).boxed(), None),
            Ok(Durable::Later(durable)) => (durable, None),
            Err(error) => (futures::future::pending().boxed(), Some(error)),
        };
        self.in_flight.push_back(InFlight { batch, bytes, end, started, sent_at, durable });
        if let Some(error) = failed {
            return self.replace_file(error).await;
        }
        // Before durable edits make room in the queue for others.
        self.keep_room().await?;
        // Settles at once what is durable already.
        while let Some(settled) = self.oldest_settled().now_or_never() {
            match settled {
                Ok(()) => self.settle_oldest().await,
                Err(error) => self.replace_file(error).await?,
            }
        }
        Ok(())
    }

    /// Reserves room for further edits, or else stops the queue from issuing permits.
    async fn keep_room(&mut self) -> Result<()> {
        let path = self.current.path.clone();
        let reserve = self.current.reserve(self.maker.reserve_bytes);
        match within(&self.maker, &path, reserve).await {
            Ok(()) => {
                if self.look_for_room_at.take().is_some() {
                    let file = path.display();
                    info!(%file, "the disk has space again: accepting writes");
                    self.shared.queue.set_disk_full(None);
                }
            }
            Err(Error::Files(error)) if error.is_storage_full() => {
                if self.look_for_room_at.is_none() {
                    warn!(%error, "the disk is full: rejecting writes until there is space");
                }
                self.look_for_room_at = Some(Instant::now() + ROOM_PAUSE);
                self.shared.queue.set_disk_full(Some(error));
            }
            Err(error) => return self.replace_file(error).await,
        }
        Ok(())
    }

    /// Returns when the oldest batch in flight is durable or has failed; never if there is none.
    async fn oldest_settled(&mut self) -> Result<()> {
        oldest_settled(&mut self.in_flight, &self.maker, &self.current.path).await
    }

    /// Reports to the waiters of the oldest batch in flight that it is durable.
    async fn settle_oldest(&mut self) {
        let Some(InFlight { batch, bytes, end, started, .. }) = self.in_flight.pop_front() else {
            return;
        };
        self.failures = 0;
        self.current.synced = end;
        let took = self.maker.clock.boot_time().saturating_sub(started);
        {
            let mut written = self.shared.written.lock();
            written.batches += 1;
            written.edits += batch.touched.len() as u64;
            written.bytes += bytes.len() as u64;
            written.sync_time += took;
            written.sync_time_max = written.sync_time_max.max(took);
        }
        for touched in &batch.touched {
            let (server, region, sequence_id) =
                (&self.maker.server, touched.region, touched.sequence_id.0);
            let number = self.current.number;
            trace!(target: WITNESS, %server, log = number, end, %region, sequence_id, "durable");
        }
        reached(Point::LogSynced).await;
        self.shared.queue.settle(&batch);
    }

    /// Waits until nothing is in flight.
    async fn settle_all(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            match self.oldest_settled().await {
                Ok(()) => self.settle_oldest().await,
                Err(error) => self.replace_file(error).await?,
            }
        }
        Ok(())
    }

    /// Appends a commit marker, which states that the last batch is durable. It is not synced: it
    /// only has to be there when the process dies, and the next sync covers it.
    async fn write_commit_marker(&mut self) -> Result<()> {
        if self.current.marked {
            return Ok(());
        }
        let path = self.current.path.clone();
        match within(&self.maker, &path, self.current.append_mark()).await {
            // Nothing waits for a commit marker, and a new file does not need one.
            Err(error) => self.replace_file(error).await,
            marked => marked,
        }
    }

    fn is_full(&self) -> bool {
        (self.current.file.length() >= self.config.roll_bytes || self.current.file.has_few_copies())
            && self.no_roll_before.is_none_or(|time| Instant::now() >= time)
    }

    /// Creates a file with the next number, and waits until it is on record: if it vanishes with
    /// edits in it, that must be noticed. The wait ends with the server at the latest, because a
    /// server whose record cannot be written loses its session.
    fn make_next(&mut self) -> BoxFuture<'static, Result<OpenFile>> {
        self.last_number += 1;
        let (maker, number) = (Arc::clone(&self.maker), self.last_number);
        let shared = Arc::clone(&self.shared);
        async move {
            reached(Point::LogRoll).await;
            let made = maker.make(number).await?;
            shared.accounting.lock().add_file(number, made.path.clone());
            shared.listing.change();
            shared.listing.until_named(number).await;
            Ok(made)
        }
        .boxed()
    }

    /// Continues in the next file once nothing is in flight in the current one, then drops the
    /// current one.
    async fn change_file(&mut self, made: Result<OpenFile>) -> Result<()> {
        match made {
            Ok(next) => {
                // It may be needed sooner: if the current file fails, this one replaces it.
                self.next = Some(futures::future::ready(Ok(next)).boxed());
                self.settle_all().await?;
                self.write_commit_marker().await?;
                if self.next.is_some() {
                    // The old file is dropped here, so no edit waits until it is closed.
                    self.begin_next().await?;
                }
                Ok(())
            }
            Err(error) if !self.goes_on_without(&error) => {
                self.next = None;
                Err(error)
            }
            Err(error) => {
                self.next = None;
                warn!(%error, "no new log file yet; continuing in the full one");
                self.no_roll_before = Some(Instant::now() + ROLL_PAUSE);
                self.asked.drain(..).for_each(|asked| asked.set(Err(error.clone())));
                Ok(())
            }
        }
    }

    /// Whether the current file takes further edits although the next one could not be created.
    fn goes_on_without(&self, error: &Error) -> bool {
        !error.is_fenced()
            && (self.maker.files.failed_files_are_replaced() || error.is_storage_full())
    }

    /// Makes the next file the current one. Returns the previous one.
    async fn begin_next(&mut self) -> Result<OpenFile> {
        let next = self.next.take().unwrap_or_else(|| self.make_next()).await?;
        {
            let mut accounting = self.shared.accounting.lock();
            accounting.open_file(next.number);
            accounting.closed(self.current.number, self.current.synced);
        }
        self.shared.listing.change();
        reached(Point::LogRolled).await;
        self.no_roll_before = None;
        self.asked.drain(..).for_each(|asked| asked.set(Ok(())));
        Ok(std::mem::replace(&mut self.current, next))
    }

    /// The current file failed: begins another one, and appends the batches in flight to it.
    ///
    /// # Errors
    /// `error` if failed files are not replaced, so that this ends the log; otherwise the error
    /// that kept a new file from being used.
    async fn replace_file(&mut self, mut error: Error) -> Result<()> {
        if !self.maker.files.failed_files_are_replaced() {
            return Err(error);
        }
        let started = Instant::now();
        loop {
            self.failures += 1;
            let is_hopeless =
                self.failures > FAILURES_MAX || started.elapsed() >= self.config.replace_timeout;
            if error.is_fenced() || is_hopeless {
                return Err(error);
            }
            warn!(file = %self.current.path.display(), %error, "a log file failed");
            match self.append_again().await {
                Ok(()) => break,
                Err(again) => error = again,
            }
            sleep(REPLACE_PAUSE).await;
        }
        self.shared.written.lock().replaced_files += 1;
        let (batches, took) = (self.in_flight.len(), started.elapsed());
        let file = self.current.path.display();
        info!(%file, batches, ?took, "the log continues in a new file");
        Ok(())
    }

    async fn append_again(&mut self) -> Result<()> {
        let failed = self.begin_next().await?;
        tokio::spawn(give_up(failed, Arc::clone(&self.shared)));
        let (path, number) = (self.current.path.clone(), self.current.number);
        for unsettled in &mut self.in_flight {
            let records = unsettled.batch.touched.len();
            unsettled.bytes = self.current.frame(BytesMut::from(&unsettled.bytes[..]), records);
            unsettled.end = self.current.file.length() + unsettled.bytes.len() as u64;
            let touched = &unsettled.batch.touched;
            self.shared.accounting.lock().record(number, unsettled.end, touched);
            let durability = unsettled.batch.durability;
            let write = self.current.append_batch(unsettled.bytes.clone(), durability);
            unsettled.durable = match within(&self.maker, &path, write).await? {
                Durable::Now => futures::future::ready(Ok(())).boxed(),
                Durable::Later(durable) => durable,
            };
            unsettled.sent_at = Instant::now();
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.settle_all().await?;
        self.write_commit_marker().await?;
        let path = self.current.path.clone();
        within(&self.maker, &path, self.current.file.close()).await
    }
}

/// Ends a failed file. If it has too few copies, its regions are marked for a flush.
async fn give_up(mut failed: OpenFile, shared: Arc<WalShared>) {
    if !failed.file.give_up().await {
        warn!(file = %failed.path.display(), "a failed log file has too few replicas");
        shared.accounting.lock().lacks_copies(failed.number);
    }
}

/// Returns when the oldest batch in flight is durable or has failed; never if there is none.
async fn oldest_settled(
    in_flight: &mut VecDeque<InFlight>,
    maker: &FileMaker,
    path: &Path,
) -> Result<()> {
    let Some(oldest) = in_flight.front_mut() else {
        return std::future::pending().await;
    };
    match timeout_at(oldest.sent_at + maker.write_timeout, &mut oldest.durable).await {
        Ok(durable) => Ok(durable?),
        Err(_) => Err(timed_out(path, maker.write_timeout)),
    }
}

// === impl End ===

impl Drop for End {
    fn drop(&mut self) {
        self.shared.queue.end(self.clean);
    }
}

/// Never returns if `time` is `None`.
async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
