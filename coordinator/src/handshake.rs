//! The first message of a client: opens a session, or resumes one.

use std::sync::Arc;

use basalt_zk::proto::{ConnectRequest, ConnectResponse, Decode, ErrorCode, SessionId, frame};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::member::Member;
use crate::outgoing::Outgoing;
use crate::proposals::ProposalOutcome;
use crate::request::Client;
use crate::session;
use crate::tree::{Change, Verdict};

/// How many ids are tried for a new session, in case an id is already in use.
const ID_ATTEMPTS_MAX: usize = 4;

/// Answers a client's first message. Returns `None` if the connection must be closed.
pub(crate) async fn shake_hands(
    member: &Arc<Member>,
    outgoing: &Arc<Outgoing>,
    first: Bytes,
) -> Option<Client> {
    let request = match ConnectRequest::from_message(first) {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(peer = %outgoing.peer, %error, "no connect request");
            return None;
        }
    };
    let applied = member.replica.applied();
    if request.last_zxid_seen > applied {
        tracing::info!(
            peer = %outgoing.peer, seen = %request.last_zxid_seen, %applied,
            "the client has seen a later zxid than this member: it must connect to another member"
        );
        return None;
    }
    let timers = &member.config.timers;
    let wished = std::time::Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let timeout = wished.clamp(timers.session_timeout_min, timers.session_timeout_max);
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let secret = member.replica.read(|state, _| state.secret().copied())?;

    let opened = if request.session_id == SessionId::NONE {
        let sessions = member.replica.read(|state, _| state.session_count());
        if sessions >= member.config.limits.sessions_max {
            tracing::debug!(peer = %outgoing.peer, sessions, "rejected: too many sessions");
            return None;
        }
        open(member, outgoing, timeout_ms).await
    } else if session::is_password(&secret, request.session_id, &request.password) {
        // This is a sign of life, however long it takes to attach the session here.
        member.touch(request.session_id);
        let attachment = member.seams.random.next_u64();
        let change = Change::AttachSession { session: request.session_id, timeout_ms, attachment };
        attach(member, outgoing, request.session_id, attachment, change).await
    } else {
        tracing::info!(session = %request.session_id, "wrong password");
        Err(ErrorCode::SessionExpired)
    };
    let Ok(client) = opened else {
        // Clients must be able to distinguish a lost connection from an expired session: only the
        // second is final.
        if opened.err() == Some(ErrorCode::SessionExpired) {
            outgoing.send(frame::encode(&[&ConnectResponse::expired(request.read_only)]));
            outgoing.finish();
        }
        return None;
    };
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
        session_id: client.session,
        password: session::password(&secret, client.session),
        read_only: request.read_only.map(|_| false),
    };
    outgoing.send(frame::encode(&[&response]));
    Some(client)
}

async fn open(
    member: &Arc<Member>,
    outgoing: &Arc<Outgoing>,
    timeout_ms: u32,
) -> Result<Client, ErrorCode> {
    for _ in 0..ID_ATTEMPTS_MAX {
        let session = session::new_id(member.id(), &member.seams.random);
        let attachment = member.seams.random.next_u64();
        let change = Change::CreateSession { session, timeout_ms, attachment };
        match attach(member, outgoing, session, attachment, change).await {
            Err(ErrorCode::NodeExists) => {}
            outcome => return outcome,
        }
    }
    Err(ErrorCode::SystemError)
}

/// Binds the session to this connection, with a command that the members agree on.
async fn attach(
    member: &Arc<Member>,
    outgoing: &Arc<Outgoing>,
    session: SessionId,
    attachment: u64,
    change: Change,
) -> Result<Client, ErrorCode> {
    let (sender, attached) = oneshot::channel();
    let (replica, out) = (Arc::clone(&member.replica), Arc::clone(outgoing));
    let answer = move |outcome| {
        let outcome = match outcome {
            ProposalOutcome::Applied { verdict: Verdict::Done(_), .. } => {
                // Register the connection at the very moment when the session is attached, so that
                // it misses no later change.
                replica.connect(session, attachment, &out);
                Ok(())
            }
            ProposalOutcome::Applied {
                verdict: Verdict::Refused(error) | Verdict::Failed { error, .. },
                ..
            } => Err(error),
            ProposalOutcome::Unknown => Err(ErrorCode::ConnectionLoss),
        };
        // The connection may have been closed meanwhile.
        let _closed = sender.send(outcome);
    };
    member.replica.proposals.submit(change, Box::new(answer)).await;
    attached.await.unwrap_or(Err(ErrorCode::ConnectionLoss))?;
    member.touch(session);
    Ok(Client {
        member: Arc::clone(member),
        outgoing: Arc::clone(outgoing),
        session,
        attachment,
        writes: Arc::new(Semaphore::new(crate::request::WRITES_MAX as usize)),
    })
}
