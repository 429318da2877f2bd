//! Failpoints, for tests only: named steps of operations that must survive a crash at any moment.
//!
//! The code calls [`reached`], which emits an event of target `witness`. A listener may call
//! [`answer`] while it handles the event. The task that emitted the event then stops there for
//! good, as if its process had died, or waits. A release build without the feature `failpoints` has
//! no failpoints.

#[cfg(any(debug_assertions, feature = "failpoints"))]
use std::cell::Cell;
use std::time::Duration;

/// A step at which a test may stop a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Point {
    /// A batch is about to be appended to the log.
    LogAppend,
    /// A batch is durable, and no writer has been notified.
    LogSynced,
    /// The log is about to begin another file.
    LogRoll,
    /// The next file exists, and the old one is still open.
    LogRolled,
    /// The memstores have been swapped.
    FlushBegun,
    /// A store file is in its place, and no manifest names it.
    FlushWritten,
    /// A nonce file is in its place, and no manifest names it.
    NoncesWritten,
    /// The manifest names the flushed files. Logs are still kept for the flushed edits.
    FlushRecorded,
    /// The region's record no longer names a sealed log.
    FlushReleased,
    /// The merged file is in its place, and no manifest names it.
    CompactionWritten,
    /// The manifest names the merged file. Its inputs still exist.
    CompactionRecorded,
    /// Some inputs have been archived.
    CompactionArchived,
    /// A merged nonce file is in its place, and no manifest names it.
    NoncesMerged,
    /// The death of a server and its procedure are on record.
    DeathRecorded,
    /// The dead server's folder has been renamed.
    FenceRenamed,
    /// The lengths of its logs are final but not on record.
    FenceSealed,
    /// The sealed lengths are on record.
    FenceRecorded,
    /// A region server is about to index a sealed log.
    SplitBegun,
    /// The index is beside the log. The master does not know yet.
    SplitIndexed,
    /// All logs have been split.
    SplitDone,
    /// Regions are about to be assigned to new owners.
    AssignPlanned,
    /// The regions' records name their new owners, which have not received the order yet.
    AssignRecorded,
    /// The regions are open. The procedure is not finished.
    AssignOpened,
    /// The manifest is under the opener's epoch.
    OpenTakenOver,
    /// The logs have been replayed. The record still says OPENING.
    OpenReplayed,
    /// The record says OPEN. The region is not served yet.
    OpenRecorded,
    /// The descriptor of a new table is on disk.
    TableDescribed,
    /// The records of its regions exist.
    TableRecorded,
    /// Its regions are open. The table is not enabled.
    TableServed,
    /// A procedure is done but not finished on record.
    ProcedureDone,
    /// A transaction of the master is committed, and the master does not know it yet.
    StoreCommitted,
}

/// What the task that reached a point does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It stops there. Its process is about to be killed.
    Stop,
    /// It waits this long.
    Wait(Duration),
    /// It treats what it has just done as failed. Only at points that call [`passes`].
    Fail,
}

/// Whether this build has failpoints.
pub const ARE_ON: bool = cfg!(any(debug_assertions, feature = "failpoints"));

#[cfg(any(debug_assertions, feature = "failpoints"))]
thread_local! {
    static ANSWER: Cell<Option<Answer>> = const { Cell::new(None) };
}

/// Sets the answer for the task whose event is being handled on this thread.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub fn answer(answer: Answer) {
    ANSWER.set(Some(answer));
}

/// Does nothing: this build has no failpoints.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
pub fn answer(_answer: Answer) {}

/// Reports that `point` is reached.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub async fn reached(point: Point) {
    passes(point).await;
}

/// Reports that `point` is reached. Returns whether the task is to treat what it has just done as
/// successful.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub async fn passes(point: Point) -> bool {
    tracing::trace!(target: basalt_runtime::WITNESS, point = point.name(), "reached");
    match ANSWER.take() {
        None => {}
        Some(Answer::Fail) => return false,
        Some(Answer::Stop) => std::future::pending().await,
        Some(Answer::Wait(time)) => tokio::time::sleep(time).await,
    }
    true
}

/// Does nothing: this build has no failpoints.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline(always)]
pub async fn reached(_point: Point) {}

/// Returns true: this build has no failpoints.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline(always)]
pub async fn passes(_point: Point) -> bool {
    true
}

// === impl Point ===

impl Point {
    /// All failpoints.
    pub const ALL: &[Self] = &[
        Self::LogAppend,
        Self::LogSynced,
        Self::LogRoll,
        Self::LogRolled,
        Self::FlushBegun,
        Self::FlushWritten,
        Self::NoncesWritten,
        Self::FlushRecorded,
        Self::FlushReleased,
        Self::CompactionWritten,
        Self::CompactionRecorded,
        Self::CompactionArchived,
        Self::NoncesMerged,
        Self::DeathRecorded,
        Self::FenceRenamed,
        Self::FenceSealed,
        Self::FenceRecorded,
        Self::SplitBegun,
        Self::SplitIndexed,
        Self::SplitDone,
        Self::AssignPlanned,
        Self::AssignRecorded,
        Self::AssignOpened,
        Self::OpenTakenOver,
        Self::OpenReplayed,
        Self::OpenRecorded,
        Self::TableDescribed,
        Self::TableRecorded,
        Self::TableServed,
        Self::ProcedureDone,
        Self::StoreCommitted,
    ];

    /// The name that commands use.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogAppend => "log-append",
            Self::LogSynced => "log-synced",
            Self::LogRoll => "log-roll",
            Self::LogRolled => "log-rolled",
            Self::FlushBegun => "flush-begun",
            Self::FlushWritten => "flush-written",
            Self::NoncesWritten => "nonces-written",
            Self::FlushRecorded => "flush-recorded",
            Self::FlushReleased => "flush-released",
            Self::CompactionWritten => "compaction-written",
            Self::CompactionRecorded => "compaction-recorded",
            Self::CompactionArchived => "compaction-archived",
            Self::NoncesMerged => "nonces-merged",
            Self::DeathRecorded => "death-recorded",
            Self::FenceRenamed => "fence-renamed",
            Self::FenceSealed => "fence-sealed",
            Self::FenceRecorded => "fence-recorded",
            Self::SplitBegun => "split-begun",
            Self::SplitIndexed => "split-indexed",
            Self::SplitDone => "split-done",
            Self::AssignPlanned => "assign-planned",
            Self::AssignRecorded => "assign-recorded",
            Self::AssignOpened => "assign-opened",
            Self::OpenTakenOver => "open-taken-over",
            Self::OpenReplayed => "open-replayed",
            Self::OpenRecorded => "open-recorded",
            Self::TableDescribed => "table-described",
            Self::TableRecorded => "table-recorded",
            Self::TableServed => "table-served",
            Self::ProcedureDone => "procedure-done",
            Self::StoreCommitted => "store-committed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn each_point_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn a_point_is_passed_unless_somebody_answers() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(reached(Point::LogSynced)).poll(&mut context).is_ready());
        if ARE_ON {
            answer(Answer::Stop);
            assert!(pin!(reached(Point::LogSynced)).poll(&mut context).is_pending());
            assert!(pin!(reached(Point::LogSynced)).poll(&mut context).is_ready(), "once");
            answer(Answer::Fail);
            let failed = pin!(passes(Point::OpenRecorded)).poll(&mut context);
            assert_eq!(failed, std::task::Poll::Ready(false));
        }
    }
}
