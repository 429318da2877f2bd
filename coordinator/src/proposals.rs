//! The commands of this member's clients that are not applied yet.
//!
//! All commands of a member go to the leader through one ordered pipeline. Each gets the next
//! number, and the state applies it if and only if its number is the next. A command may therefore
//! be sent as often as needed. After a change of leader, all commands that are not applied are sent
//! again, in order. None is applied twice, and no gap opens. A client's write thus survives the
//! loss of the leader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_zk::proto::Zxid;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::tree::{Change, Command, Origin, Verdict};

/// The pipeline of one member in one life.
pub(crate) struct Proposals {
    member: u64,
    queue: Mutex<Queue>,
    /// Notified when there is something to send.
    added: Notify,
    room: Arc<Semaphore>,
}

/// Invariant: the numbers of `pending` are consecutive and end below `next`.
struct Queue {
    life: u64,
    next: u64,
    /// The current leader has been sent all commands up to this number.
    sent: u64,
    pending: VecDeque<Pending>,
}

struct Pending {
    number: u64,
    change: Change,
    answer: Answer,
    since: Instant,
    /// Released when the command is applied.
    _room: Option<OwnedSemaphorePermit>,
}

/// Handles the outcome of a command, once it is applied here. It runs while the state is locked, so
/// it must neither block nor read the state.
pub(crate) type Answer = Box<dyn FnOnce(ProposalOutcome) + Send>;

/// The outcome of a command.
#[derive(Debug)]
pub(crate) enum ProposalOutcome {
    /// It was applied.
    Applied { zxid: Zxid, verdict: Verdict },
    /// It was applied, but this member received the state as a snapshot, which does not contain the
    /// outcome.
    Unknown,
}

/// Commands to be sent together.
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    /// The number of the last command.
    pub(crate) last: u64,
}

/// The unit in which the room for pending commands is counted.
const ROOM_UNIT_BYTES: usize = 1024;
/// The room for pending commands, in those units: 32 MiB, or 32,768 small commands.
const ROOM_UNITS: usize = 32 << 10;
/// How many bytes of commands are sent at once, at most. At least one command is always sent.
const BATCH_BYTES_MAX: usize = 4 << 20;

// === impl Proposals ===

impl Proposals {
    /// The empty pipeline of `member` in this `life`.
    pub(crate) fn new(member: u64, life: u64) -> Self {
        Self {
            member,
            queue: Mutex::new(Queue { life, next: 1, sent: 0, pending: VecDeque::new() }),
            added: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM_UNITS)),
        }
    }

    /// Appends a command, and waits while there is no room. Commands of one caller keep their
    /// order.
    pub(crate) async fn submit(&self, change: Change, answer: Answer) {
        let units = (1 + change.size_bytes() / ROOM_UNIT_BYTES).min(ROOM_UNITS);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // The semaphore is never closed, so there is always a permit.
        let room = Arc::clone(&self.room).acquire_many_owned(units).await.ok();
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.pending.push_back(Pending {
            number,
            change,
            answer,
            since: Instant::now(),
            _room: room,
        });
        drop(queue);
        self.added.notify_one();
    }

    /// Waits until there may be something to send.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// The commands to send to the current leader next.
    pub(crate) fn unsent(&self) -> Option<Batch> {
        let queue = self.queue.lock();
        let first = queue.pending.front()?.number;
        let skipped = (queue.sent + 1).saturating_sub(first);
        let mut bytes = 0;
        let mut last = 0;
        let commands: Vec<Command> = queue
            .pending
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
            .take_while(|pending| {
                let is_first = bytes == 0;
                bytes += pending.change.size_bytes();
                is_first || bytes <= BATCH_BYTES_MAX
            })
            .map(|pending| {
                last = pending.number;
                self.command(queue.life, pending)
            })
            .collect();
        (!commands.is_empty()).then_some(Batch { commands, last })
    }

    fn command(&self, life: u64, pending: &Pending) -> Command {
        Command {
            origin: Some(Origin { member: self.member, life, number: pending.number }),
            // The leader sets it.
            time_ms: 0,
            change: pending.change.clone(),
        }
    }

    /// Records that the current leader has been sent all commands up to number `last`.
    pub(crate) fn mark_sent(&self, last: u64) {
        let mut queue = self.queue.lock();
        queue.sent = queue.sent.max(last);
    }

    /// Causes all commands that are not applied to be sent again, because they may have been lost.
    pub(crate) fn rewind(&self) {
        self.queue.lock().sent = 0;
        self.added.notify_one();
    }

    /// Removes a command that was applied, and returns the handler of its outcome. Returns `None`
    /// if it is not a command of this pipeline.
    pub(crate) fn settle(&self, origin: Origin) -> Option<Answer> {
        let mut queue = self.queue.lock();
        if (origin.member, origin.life) != (self.member, queue.life) {
            return None;
        }
        let settled = queue.pending.pop_front()?;
        assert_eq!(settled.number, origin.number, "a member's commands are applied in order");
        Some(settled.answer)
    }

    /// Removes the commands up to `number` of `life`, which were applied, but not here. Returns the
    /// handlers of their outcomes.
    pub(crate) fn settle_unknown(&self, life: u64, number: u64) -> Vec<Answer> {
        let mut queue = self.queue.lock();
        let mut answers = Vec::new();
        while life == queue.life
            && let Some(settled) = queue.pending.pop_front_if(|next| next.number <= number)
        {
            answers.push(settled.answer);
        }
        answers
    }

    /// Begins a later life if the last command of this member that was applied, `number` of `life`,
    /// belongs neither to an earlier life nor to this pipeline. In the later life, all waiting
    /// commands are renumbered and sent again. Returns the later life.
    pub(crate) fn rise_above(&self, life: u64, number: u64) -> Option<u64> {
        let mut queue = self.queue.lock();
        let is_ours = life == queue.life && number < queue.next;
        if life < queue.life || is_ours {
            return None;
        }
        queue.life = life.saturating_add(1);
        queue.sent = 0;
        let mut next = 1;
        for pending in &mut queue.pending {
            pending.number = next;
            next += 1;
        }
        queue.next = next;
        Some(queue.life)
    }

    /// How long the oldest command has been waiting.
    pub(crate) fn oldest_age(&self) -> Duration {
        let queue = self.queue.lock();
        queue.pending.front().map_or(Duration::ZERO, |oldest| oldest.since.elapsed())
    }

    /// How many commands are waiting.
    pub(crate) fn count(&self) -> usize {
        self.queue.lock().pending.len()
    }
}

#[cfg(test)]
mod tests {
    use basalt_zk::proto::SessionId;

    use super::*;

    fn close(session: i64) -> Change {
        Change::CloseSession { session: SessionId(session), attachment: 0 }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let numbers = batch.commands.iter().map(|command| command.origin);
        numbers.map(|origin| origin.unwrap().number).collect()
    }

    #[tokio::test]
    async fn what_is_not_applied_is_sent_again_in_order() {
        let proposals = Proposals::new(1, 9);
        for session in 0..3 {
            proposals.submit(close(session), Box::new(|_| ())).await;
        }
        let batch = proposals.unsent().unwrap();
        assert_eq!(numbers(&batch), [1, 2, 3]);
        proposals.mark_sent(batch.last);
        assert!(proposals.unsent().is_none());
        let origin = batch.commands[0].origin.unwrap();
        assert!(proposals.settle(origin).is_some());
        proposals.submit(close(3), Box::new(|_| ())).await;
        assert_eq!(numbers(&proposals.unsent().unwrap()), [4]);
        proposals.rewind();
        assert_eq!(numbers(&proposals.unsent().unwrap()), [2, 3, 4]);
    }

    #[tokio::test]
    async fn a_life_that_is_not_the_latest_is_left() {
        let proposals = Proposals::new(1, 9);
        for session in 0..2 {
            proposals.submit(close(session), Box::new(|_| ())).await;
        }
        // This life, or an earlier one.
        assert_eq!(proposals.rise_above(9, 2), None);
        assert_eq!(proposals.rise_above(8, 77), None);
        proposals.mark_sent(2);
        assert_eq!(proposals.rise_above(20, 5), Some(21));
        let batch = proposals.unsent().unwrap();
        assert_eq!(numbers(&batch), [1, 2]);
        let origin = batch.commands[0].origin.unwrap();
        assert_eq!(origin.life, 21);
        assert!(proposals.settle(origin).is_some());
        assert_eq!(proposals.rise_above(21, 1), None);
        // The clock shows exactly the millisecond of the earlier life.
        assert_eq!(proposals.rise_above(21, 50), Some(22));
    }

    #[tokio::test]
    async fn commands_of_another_life_settle_nothing() {
        let proposals = Proposals::new(1, 9);
        proposals.submit(close(0), Box::new(|_| ())).await;
        let other = Origin { member: 1, life: 8, number: 1 };
        assert!(proposals.settle(other).is_none());
        assert!(proposals.settle_unknown(8, 5).is_empty());
        assert_eq!(proposals.settle_unknown(9, 5).len(), 1);
    }
}
