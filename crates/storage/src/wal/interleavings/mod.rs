//! Tests of the queue and its latches in every interleaving of the writer and the tasks that add
//! edits.
//!
//! The files under test are those of the log, with the primitives of `basalt_loom` instead of
//! tokio's. Each waiter is answered exactly once and none is lost, whether the writer continues,
//! fails or is dropped. Loom reports a lost waiter as a deadlock.

#![allow(dead_code, unreachable_pub, reason = "the files are here for a part of what they hold")]

mod sync {
    pub(super) use basalt_loom::{Mutex, Notify, OnceLock, Semaphore, SemaphorePermit, yield_now};
}

#[allow(clippy::duplicate_mod, reason = "with other primitives")]
#[path = "../latch.rs"]
mod latch;
#[allow(clippy::duplicate_mod, reason = "with other primitives")]
#[path = "../queue.rs"]
mod queue;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use basalt_fs::Durability;
use basalt_loom::{block_on, check, thread};
use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId};
use futures::future::{Either, select};

use super::{edit, error, header, sequence_id_accounting};
use edit::EncodedEdit;
use error::{Error, Result};
use latch::Latch;
use queue::{Queue, Work};

/// What happens to the writer once it has taken its first work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It writes until the log is closed.
    Writes,
    /// It cannot write.
    Fails,
    /// Its task is dropped.
    IsDropped,
}

/// A log without files.
struct Log {
    queue: Queue,
    /// The edits that were settled. Not a lock of loom's: it orders nothing.
    settled: std::sync::Mutex<BTreeSet<SequenceId>>,
}

// === impl Log ===

impl Log {
    /// A log whose queue has room for one edit.
    fn new() -> Arc<Self> {
        let queue = Queue::new(edit().record_bytes() as u32);
        Arc::new(Self { queue, settled: std::sync::Mutex::default() })
    }

    /// Adds an edit, waits until it is durable, and returns the outcome.
    fn add(&self, sequence_id: SequenceId) -> Result<()> {
        let edit = edit();
        block_on(async {
            let permit = self.queue.reserve(edit.record_bytes()).await?;
            permit.append(&edit, sequence_id, Durability::default()).synced().await
        })
    }

    fn is_settled(&self, sequence_id: SequenceId) -> bool {
        self.settled.lock().unwrap().contains(&sequence_id)
    }

    /// The writer's use of the queue, as in `writer.rs`.
    fn write(&self, fate: Fate) {
        loop {
            let Work { batch, roll, close } = block_on(self.queue.next_work());
            match fate {
                Fate::Writes => {
                    if let Some(batch) = batch {
                        let added = batch.touched.iter().map(|touched| touched.sequence_id);
                        self.settled.lock().unwrap().extend(added);
                        self.queue.settle(&batch);
                    }
                    if let Some(roll) = roll {
                        roll.set(Ok(()));
                    }
                    if close {
                        break;
                    }
                }
                Fate::Fails => {
                    let failed = batch.iter().map(|batch| &batch.outcome).chain(&roll);
                    self.queue.fail(failed, &failure());
                    while !block_on(self.queue.next_work()).close {}
                    break;
                }
                // Its batch is dropped with it.
                Fate::IsDropped => break,
            }
        }
        self.queue.end(fate == Fate::Writes);
    }
}

fn edit() -> EncodedEdit {
    let region = EncodedRegionName::from_digest([1; 16]);
    EncodedEdit::new(region, RegionEpoch(1), 1, None, &[]).unwrap()
}

fn failure() -> Error {
    Error::TimedOut { path: "log".into(), limit_ms: 1 }
}

fn begin_writer(log: &Arc<Log>, fate: Fate) -> thread::JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || log.write(fate))
}

fn begin_close(log: &Arc<Log>) -> thread::JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || log.queue.ask_close())
}

/// Two tasks add an edit each while the writer has `fate`; then the log is closed.
fn add_two(fate: Fate) {
    check(move || {
        let log = Log::new();
        let writer = begin_writer(&log, fate);
        let other = thread::spawn({
            let log = Arc::clone(&log);
            move || log.add(SequenceId(2))
        });
        let ends = [log.add(SequenceId(1)), other.join().unwrap()];
        log.queue.ask_close();
        writer.join().unwrap();
        for (sequence_id, end) in [SequenceId(1), SequenceId(2)].into_iter().zip(&ends) {
            assert_eq!(end.is_ok(), log.is_settled(sequence_id), "{end:?}");
        }
        match fate {
            Fate::Writes => assert!(ends.iter().all(Result::is_ok), "{ends:?}"),
            Fate::Fails => {
                let is_timeout = |end: &Result<()>| matches!(end, Err(Error::TimedOut { .. }));
                assert!(ends.iter().all(is_timeout), "{ends:?}");
                assert!(matches!(log.queue.failure.get(), Some(Error::TimedOut { .. })));
            }
            Fate::IsDropped => {
                assert!(ends.iter().all(Result::is_err), "{ends:?}");
                assert!(log.queue.failure.get().is_some());
            }
        }
        let room = edit().record_bytes();
        assert!(fate != Fate::Writes || log.queue.queued_bytes() == 0, "{room} bytes are free");
    });
}

#[test]
fn each_edit_is_answered_once_while_the_writer_writes() {
    add_two(Fate::Writes);
}

#[test]
fn each_edit_is_answered_once_when_the_writer_fails() {
    add_two(Fate::Fails);
}

#[test]
fn each_edit_is_answered_once_when_the_writer_is_dropped() {
    add_two(Fate::IsDropped);
}

#[test]
fn an_edit_that_meets_the_close_is_written_or_refused() {
    check(|| {
        let log = Log::new();
        let writer = begin_writer(&log, Fate::Writes);
        let closer = begin_close(&log);
        let end = log.add(SequenceId(1));
        closer.join().unwrap();
        writer.join().unwrap();
        assert_eq!(end.is_ok(), log.is_settled(SequenceId(1)), "{end:?}");
        assert!(end.is_ok() || matches!(end, Err(Error::Closed)), "{end:?}");
    });
}

#[test]
fn a_roll_that_is_asked_for_ends_whatever_becomes_of_the_writer() {
    for fate in [Fate::Writes, Fate::Fails, Fate::IsDropped] {
        check(move || {
            let log = Log::new();
            let writer = begin_writer(&log, fate);
            let closer = begin_close(&log);
            // As `Wal::roll` waits.
            let outcome = log.queue.ask_roll();
            block_on(async {
                let (rolled, ended) = (pin!(outcome.wait()), pin!(log.queue.ended.wait()));
                match select(rolled, ended).await {
                    Either::Left((result, _)) => assert!(result.is_err() || fate == Fate::Writes),
                    Either::Right(_) => {}
                }
            });
            closer.join().unwrap();
            writer.join().unwrap();
        });
    }
}

#[test]
fn a_latch_is_set_once_and_wakes_all_who_wait() {
    check(|| {
        let latch = Arc::new(Latch::default());
        let waiter = thread::spawn({
            let latch = Arc::clone(&latch);
            move || block_on(latch.wait())
        });
        let other = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.set(2)
        });
        latch.set(1);
        let found = block_on(latch.wait());
        other.join().unwrap();
        assert_eq!(waiter.join().unwrap(), found);
        assert_eq!(latch.get(), Some(found));
    });
}
