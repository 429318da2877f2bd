//! The requests of a client, one file per verb.
//!
//! Replies are sent in the order of the requests. Writes are submitted without waiting for each
//! other, and are answered when they are applied, in order. A read waits for the writes before it
//! and is answered from this member's copy. Pings are answered at once: clients accept these
//! answers out of order, and a session must not end because a write takes long.

mod acl;
mod add_watch;
mod auth;
mod check;
mod close_session;
mod create;
mod delete;
mod ephemerals;
mod exists;
mod get_children;
mod get_data;
mod multi;
mod multi_read;
mod ping;
mod remove_watches;
mod set_data;
mod set_watches;
mod sync;
mod write;

use std::sync::Arc;

use basalt_zk::proto::{
    Decode, DecodeError, Decoder, Encode, ErrorCode, OpCode, Problem, ReplyHeader, Request,
    RequestHeader, SessionId, Xid, Zxid, frame,
};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::member::Member;
use crate::outgoing::Outgoing;
use crate::tree::State;
use crate::watch::{TooManyWatches, WatchKind};

/// A client that has a session here.
pub(crate) struct Client {
    pub(crate) member: Arc<Member>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) session: SessionId,
    pub(crate) attachment: u64,
    /// Each write that is not answered yet holds a permit.
    pub(crate) writes: Arc<Semaphore>,
}

/// How many writes of one client may be in progress.
pub(crate) const WRITES_MAX: u32 = 1024;

/// Handles one request.
///
/// # Errors
/// The frame is too short for a header.
pub(crate) async fn handle(client: &Client, frame: Bytes) -> Result<(), DecodeError> {
    let mut input = Decoder::new(frame);
    let header = RequestHeader::decode(&mut input)?;
    let xid = header.xid;
    match Request::decode(header.op, &mut input) {
        Ok(request) => client.dispatch(xid, request).await,
        Err(error) => {
            let code = match error.problem {
                Problem::UnknownOp { code }
                    if OpCode::from_wire(code) == Some(OpCode::Reconfig) =>
                {
                    ErrorCode::ReconfigDisabled
                }
                Problem::UnknownOp { .. } | Problem::UnknownMultiOp { .. } => {
                    ErrorCode::Unimplemented
                }
                _ => ErrorCode::MarshallingError,
            };
            tracing::debug!(peer = %client.outgoing.peer, %error, "rejected a request");
            client.refuse(xid, code).await;
        }
    }
    Ok(())
}

// === impl Client ===

impl Client {
    async fn dispatch(&self, xid: Xid, request: Request) {
        match request {
            Request::Create(request) => create::create(self, xid, request, false).await,
            Request::Create2(request) => create::create(self, xid, request, true).await,
            Request::CreateContainer(_) | Request::CreateTtl(_) => {
                self.refuse(xid, ErrorCode::Unimplemented).await;
            }
            Request::Delete(request) => delete::delete(self, xid, request).await,
            Request::SetData(request) => set_data::set_data(self, xid, request).await,
            Request::SetAcl(request) => acl::set_acl(self, xid, request).await,
            Request::Check(request) => check::check(self, xid, request).await,
            Request::Multi(request) => multi::multi(self, xid, request).await,
            Request::CloseSession => close_session::close_session(self, xid).await,
            Request::Exists(request) => exists::exists(self, xid, request).await,
            Request::GetData(request) => get_data::get_data(self, xid, request).await,
            Request::GetAcl(request) => acl::get_acl(self, xid, request).await,
            Request::GetChildren(request) => {
                get_children::get_children(self, xid, request).await;
            }
            Request::GetChildren2(request) => {
                get_children::get_children2(self, xid, request).await;
            }
            Request::GetAllChildrenNumber(request) => {
                get_children::get_all_children_number(self, xid, request).await;
            }
            Request::GetEphemerals(request) => {
                ephemerals::get_ephemerals(self, xid, request).await;
            }
            Request::MultiRead(request) => multi_read::multi_read(self, xid, request).await,
            Request::Sync(request) => sync::sync(self, xid, request).await,
            Request::SetWatches(request) => set_watches::set_watches(self, xid, request).await,
            Request::SetWatches2(request) => set_watches::set_watches2(self, xid, request).await,
            Request::AddWatch(request) => add_watch::add_watch(self, xid, request).await,
            Request::CheckWatches(request) => {
                remove_watches::check_watches(self, xid, request).await;
            }
            Request::RemoveWatches(request) => {
                remove_watches::remove_watches(self, xid, request).await;
            }
            Request::Auth(request) => auth::auth(self, xid, request).await,
            Request::WhoAmI => auth::who_am_i(self, xid).await,
            Request::Ping => ping::ping(self, xid),
        }
    }

    /// Waits until all writes so far are answered.
    async fn settle(&self) {
        // The semaphore is never closed, and all permits come back.
        let _all = self.writes.acquire_many(WRITES_MAX).await;
    }

    /// Answers a read from this member's copy, after all writes so far. `look` returns the record
    /// of the reply. Watches that it sets take effect together with the state that it saw.
    async fn read<R: Encode>(&self, xid: Xid, look: impl FnOnce(&State) -> Result<R, ErrorCode>) {
        self.settle().await;
        self.member.replica.read(|state, zxid| match look(state) {
            Ok(record) => self.reply(xid, zxid, &[&record]),
            Err(error) => self.reply_error(xid, zxid, error),
        });
    }

    /// Rejects a request, in the order of the replies.
    async fn refuse(&self, xid: Xid, error: ErrorCode) {
        self.read(xid, |_| Err::<(), _>(error)).await;
    }

    /// Sets a watch. Must be called only while reading.
    fn watch(&self, kind: WatchKind, path: &str) -> Result<(), ErrorCode> {
        let mut watches = self.member.replica.watches.lock();
        watches.add(&self.outgoing, kind, path).map_err(|TooManyWatches| ErrorCode::QuotaExceeded)
    }

    fn reply(&self, xid: Xid, zxid: Zxid, records: &[&dyn Encode]) {
        send_reply(&self.outgoing, xid, zxid, records);
    }

    fn reply_error(&self, xid: Xid, zxid: Zxid, error: ErrorCode) {
        send_error(&self.outgoing, xid, zxid, error);
    }
}

fn send_reply(outgoing: &Outgoing, xid: Xid, zxid: Zxid, records: &[&dyn Encode]) {
    let header = ReplyHeader { xid, zxid, error: None };
    let mut all: Vec<&dyn Encode> = vec![&header];
    all.extend_from_slice(records);
    outgoing.send(frame::encode(&all));
}

fn send_error(outgoing: &Outgoing, xid: Xid, zxid: Zxid, error: ErrorCode) {
    let header = ReplyHeader { xid, zxid, error: Some(error) };
    outgoing.send(frame::encode(&[&header]));
}
