//! The code that all writes share: submitting them, and answering when they are applied.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use basalt_zk::proto::{
    Create2Response, CreateResponse, ErrorCode, MultiResponse, MultiResult, StatResponse, Xid, Zxid,
};
use tokio::time::Instant;

use crate::member::{Latency, Member};
use crate::outgoing::Outgoing;
use crate::proposals::ProposalOutcome;
use crate::request::{Client, send_error, send_reply};
use crate::tree::{Change, Operation, OperationOutcome, Verdict, Write};

/// The form of the reply to a write.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// As one operation. `with_stat` says whether the reply has the stat of a created node, too.
    One { with_stat: bool },
    /// As a multi, with the same for each operation.
    Multi { with_stat: Vec<bool> },
}

/// The longest write of the holder of a lease while the remaining space is for lease holders. A
/// renewal is shorter, and so is what a master records for about a hundred regions.
const LEASE_WRITE_BYTES_MAX: usize = 64 << 10;

// === impl Client ===

impl Client {
    /// Submits a write. Its reply is sent when it is applied here. While the remaining disk space
    /// is for sessions that hold leases, writes of other sessions are rejected.
    pub(super) async fn write(&self, xid: Xid, operations: Vec<Operation>, reply: Reply) {
        if self.member.keeps_room_for_leases() && !self.holds_lease(&operations) {
            return self.refuse(xid, ErrorCode::ThrottledOp).await;
        }
        let multi = matches!(reply, Reply::Multi { .. });
        let change = Change::Write(Write {
            session: self.session,
            attachment: self.attachment,
            operations,
            multi,
        });
        self.submit(change, move |outgoing, zxid, verdict| match verdict {
            Verdict::Refused(error) => send_error(outgoing, xid, zxid, error),
            verdict => match &reply {
                Reply::One { with_stat } => reply_one(outgoing, xid, zxid, verdict, *with_stat),
                Reply::Multi { with_stat } => {
                    let response = multi_response(verdict, with_stat);
                    send_reply(outgoing, xid, zxid, &[&response]);
                }
            },
        })
        .await;
    }

    /// Whether the session owns or creates an ephemeral node, and writes little. Sessions of
    /// masters and region servers do: their leases are ephemeral nodes.
    fn holds_lease(&self, operations: &[Operation]) -> bool {
        let bytes: usize = operations.iter().map(Operation::size_bytes).sum();
        let begins_lease =
            |operation: &Operation| matches!(operation, Operation::Create { ephemeral: true, .. });
        let holds = || {
            let replica = &self.member.replica;
            replica.read(|state, _| state.ephemerals(self.session).next().is_some())
        };
        bytes <= LEASE_WRITE_BYTES_MAX && (operations.iter().any(begins_lease) || holds())
    }

    /// Submits a change. `answer` queues the reply when it is applied here.
    pub(super) async fn submit(
        &self,
        change: Change,
        answer: impl FnOnce(&Outgoing, Zxid, Verdict) + Send + 'static,
    ) {
        // The semaphore is never closed, so there is always a permit.
        let permit = Arc::clone(&self.writes).acquire_owned().await;
        let (member, outgoing) = (Arc::clone(&self.member), Arc::clone(&self.outgoing));
        let since = Instant::now();
        let settled = move |outcome| {
            match outcome {
                ProposalOutcome::Applied { zxid, verdict } => answer(&outgoing, zxid, verdict),
                // Close the connection, because any answer may be wrong.
                ProposalOutcome::Unknown => outgoing.close(),
            }
            note_latency(&member, since);
            drop(permit);
        };
        let proposals = &self.member.replica.proposals;
        proposals.submit(change, Box::new(settled)).await;
    }
}

fn note_latency(member: &Member, since: Instant) {
    let latency: &Latency = &member.latency;
    let took_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    latency.count.fetch_add(1, Ordering::Relaxed);
    latency.total_us.fetch_add(took_us, Ordering::Relaxed);
    latency.max_us.fetch_max(took_us, Ordering::Relaxed);
}

fn reply_one(outgoing: &Outgoing, xid: Xid, zxid: Zxid, verdict: Verdict, with_stat: bool) {
    let outcome = match verdict {
        Verdict::Done(outcomes) => outcomes.into_iter().next(),
        Verdict::Failed { error, .. } | Verdict::Refused(error) => {
            return send_error(outgoing, xid, zxid, error);
        }
    };
    match outcome {
        Some(OperationOutcome::Created { path, stat }) if with_stat => {
            send_reply(outgoing, xid, zxid, &[&Create2Response { path, stat }]);
        }
        Some(OperationOutcome::Created { path, .. }) => {
            send_reply(outgoing, xid, zxid, &[&CreateResponse { path }]);
        }
        Some(OperationOutcome::Changed(stat)) => {
            send_reply(outgoing, xid, zxid, &[&StatResponse { stat }]);
        }
        Some(OperationOutcome::Deleted | OperationOutcome::Checked) | None => {
            send_reply(outgoing, xid, zxid, &[]);
        }
    }
}

fn multi_response(verdict: Verdict, with_stat: &[bool]) -> MultiResponse {
    let results = match verdict {
        Verdict::Done(outcomes) => outcomes
            .into_iter()
            .zip(with_stat)
            .map(|(outcome, with_stat)| match outcome {
                OperationOutcome::Created { path, stat } if *with_stat => {
                    MultiResult::Create2(Create2Response { path, stat })
                }
                OperationOutcome::Created { path, .. } => {
                    MultiResult::Create(CreateResponse { path })
                }
                OperationOutcome::Deleted => MultiResult::Delete,
                OperationOutcome::Changed(stat) => MultiResult::SetData(StatResponse { stat }),
                OperationOutcome::Checked => MultiResult::Check,
            })
            .collect(),
        Verdict::Failed { at: failed, error } => (0..with_stat.len())
            .map(|at| match at.cmp(&failed) {
                std::cmp::Ordering::Less => MultiResult::Error(None),
                std::cmp::Ordering::Equal => MultiResult::Error(Some(error)),
                std::cmp::Ordering::Greater => {
                    MultiResult::Error(Some(ErrorCode::RuntimeInconsistency))
                }
            })
            .collect(),
        Verdict::Refused(error) => vec![MultiResult::Error(Some(error)); with_stat.len()],
    };
    MultiResponse { results }
}
