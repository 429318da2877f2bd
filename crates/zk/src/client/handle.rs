//! The handle by which callers use a session.

use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::{Seams, Shutdown};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use super::multi::{self, Op, OpResult};
use super::session::{Attempt, Channels, Outgoing, Reply, Session};
use super::watches::{EVENTS_MAX, Interest};
use super::{Options, State, Timed, WatchedEvent};
use crate::error::{Error, Result};
use crate::proto::frame::FRAME_BYTES_MAX;
use crate::proto::path::{validate, validate_create};
use crate::proto::{
    Acl, AddWatchMode, AddWatchRequest, Create2Response, CreateMode, CreateRequest, Decode,
    DeleteRequest, Encode, ErrorCode, ExistsRequest, GetChildren2Response, GetChildrenRequest,
    GetDataRequest, GetDataResponse, MultiResponse, OpCode, SessionId, SetDataRequest, Stat,
    StatResponse, SyncRequest, VERSION_ANY,
};

/// How many requests may wait to be sent.
const QUEUE_MAX: usize = 1024;

/// The length of a request's header.
const HEADER_BYTES: usize = 8;

/// A session at a ZooKeeper; a cheap handle, all clones are the same session.
///
/// Each method is one request and may fail as [`Error`] says. A version of `None` means any
/// version. A future that is dropped leaves its request's outcome unknown.
///
/// The session is closed by [`Client::close`], or when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<SessionShared>,
    request_timeout: Duration,
}

#[derive(Debug)]
struct SessionShared {
    session_id: SessionId,
    requests: mpsc::Sender<Outgoing>,
    state: watch::Receiver<State>,
    closing: Shutdown,
    _close_on_drop: DropGuard,
}

/// The receiver of a one-shot watch. It gets [`WatchedEvent::Node`] when the node changes,
/// [`WatchedEvent::Expired`] or [`WatchedEvent::Closed`] when the session ends before that, and
/// outlives reconnects.
type OneShot = oneshot::Receiver<WatchedEvent>;

// === impl Client ===

impl Client {
    /// Opens a session at one of `servers` (`host:port` each), tried in random order. Its task, and
    /// with it the connection, is run by [`basalt_runtime::Threads::liveness`].
    ///
    /// # Errors
    /// [`Error::NoServers`]; [`Error::NotConnected`] if none has opened a session in time.
    // Boxed: this crate, and not each one that calls it, compiles what it does.
    pub fn connect(
        seams: &Seams,
        servers: &[String],
        session_timeout: Duration,
        options: Options,
    ) -> BoxFuture<'static, Result<Self>> {
        let (seams, servers) = (seams.clone(), servers.to_vec());
        let threads = seams.threads.liveness.clone();
        let names = servers.join(",");
        let connecting = async move {
            Box::pin(Self::connect_here(&seams, &servers, session_timeout, options)).await
        };
        Box::pin(async move {
            threads.spawn(connecting).await.unwrap_or_else(|dropped| {
                let (waited, last_attempt) = (Duration::ZERO, dropped.to_string());
                Err(Error::NotConnected { servers: names, waited, last_attempt })
            })
        })
    }

    async fn connect_here(
        seams: &Seams,
        servers: &[String],
        session_timeout: Duration,
        options: Options,
    ) -> Result<Self> {
        if servers.is_empty() {
            return Err(Error::NoServers);
        }
        let waited = options.connect_timeout.unwrap_or(session_timeout);
        let deadline = Instant::now() + waited;
        let mut session =
            Session::new(seams.clone(), servers.to_vec(), session_timeout, options.silence_max);
        let mut last_attempt = "no server has answered yet".to_owned();
        let link = loop {
            match timeout_at(deadline, session.attempt()).await {
                Ok(Attempt::Connected(link)) => break link,
                Ok(Attempt::Failed(error)) => last_attempt = error.to_string(),
                Ok(Attempt::Expired) => "the session has expired".clone_into(&mut last_attempt),
                Err(_) => {
                    return Err(Error::NotConnected {
                        servers: servers.join(","),
                        waited,
                        last_attempt,
                    });
                }
            }
        };
        let (requests, requests_end) = mpsc::channel(QUEUE_MAX);
        let (state_end, state) = watch::channel(session.connected_state());
        let closing = Shutdown::new();
        let client = Self {
            shared: Arc::new(SessionShared {
                session_id: session.id(),
                requests,
                state,
                closing: closing.clone(),
                _close_on_drop: closing.clone().drop_guard(),
            }),
            request_timeout: options.request_timeout.unwrap_or(session_timeout),
        };
        tokio::spawn(
            session.run(link, Channels { requests: requests_end, state: state_end, closing }),
        );
        Ok(client)
    }

    /// A handle on the same session whose requests may take `request_timeout`.
    #[must_use]
    pub fn with_request_timeout(&self, request_timeout: Duration) -> Self {
        Self { shared: self.shared.clone(), request_timeout }
    }

    /// The session's identity, which is the owner of its ephemeral nodes.
    pub fn session_id(&self) -> SessionId {
        self.shared.session_id
    }

    /// The state of the session, now and from now on.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.clone()
    }

    /// Ends the session, and with it all handles: its ephemeral nodes go at once if a server is
    /// connected, else when the session expires. Returns when the task has ended.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        let mut state = self.state();
        // The task bounds its waiting; when it has ended the channel is closed.
        while state.changed().await.is_ok() {}
    }

    /// Creates a node; gives its path, with the number of a sequential one, and its state.
    ///
    /// # Errors
    /// NodeExists, NoNode (no parent), NoChildrenForEphemerals, and those of the session.
    pub async fn create(
        &self,
        path: &str,
        data: Bytes,
        mode: CreateMode,
    ) -> Result<(String, Stat)> {
        validate_create(path, mode.is_sequential())?;
        let op = match mode {
            CreateMode::Container => OpCode::CreateContainer,
            _ => OpCode::Create2,
        };
        let request = CreateRequest {
            path: path.to_owned(),
            data: Some(data),
            acl: Acl::open(),
            flags: mode.flags(),
        };
        let created: Create2Response = self.ask(op, path, &request).await?.value;
        Ok((created.path, created.stat))
    }

    /// Deletes a node.
    ///
    /// # Errors
    /// NoNode, BadVersion, NotEmpty, and those of the session.
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<()> {
        validate(path)?;
        let request =
            DeleteRequest { path: path.to_owned(), version: version.unwrap_or(VERSION_ANY) };
        let Timed { value: (), .. } = self.ask(OpCode::Delete, path, &request).await?;
        Ok(())
    }

    /// The state of a node, if it exists.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>> {
        self.exists_as(path, None).await
    }

    /// [`Client::exists`], and a watch for the node's creation, deletion or change.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn exists_watch(&self, path: &str) -> Result<(Option<Stat>, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let stat = self.exists_as(path, Some(Interest::Exist(sender))).await?;
        Ok((stat, receiver))
    }

    /// A node's data and state.
    ///
    /// # Errors
    /// NoNode, and those of the session.
    pub async fn get_data(&self, path: &str) -> Result<(Bytes, Stat)> {
        self.get_data_as(path, None).await
    }

    /// [`Client::get_data`]; `None` if there is no such node.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn find_data(&self, path: &str) -> Result<Option<(Bytes, Stat)>> {
        match self.get_data(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The data and state of many nodes as they were at one moment, in few requests; `None` for
    /// those that do not exist. Needs a ZooKeeper of 3.6 or later.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn get_data_of_all(&self, paths: &[String]) -> Result<Vec<Option<(Bytes, Stat)>>> {
        let mut all = Vec::with_capacity(paths.len());
        for paths in paths.chunks(multi::READS_MAX) {
            let request = multi::read_request(paths)?;
            let path = paths.first().map_or("/", String::as_str);
            let answer: Timed<MultiResponse> = self.ask(OpCode::MultiRead, path, &request).await?;
            all.extend(multi::read_results(paths, answer.value)?);
        }
        Ok(all)
    }

    /// [`Client::get_data`], and a watch for the node's change or deletion.
    ///
    /// # Errors
    /// NoNode (there is no watch then), and those of the session.
    pub async fn get_data_watch(&self, path: &str) -> Result<(Bytes, Stat, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let (data, stat) = self.get_data_as(path, Some(Interest::Data(sender))).await?;
        Ok((data, stat, receiver))
    }

    /// Replaces a node's data.
    ///
    /// # Errors
    /// NoNode, BadVersion, and those of the session.
    pub async fn set_data(&self, path: &str, data: Bytes, version: Option<i32>) -> Result<Stat> {
        Ok(self.set_data_timed(path, data, version).await?.value)
    }

    /// [`Client::set_data`], and when the request was sent: a lease that this write renews runs
    /// from then.
    ///
    /// # Errors
    /// As of [`Client::set_data`].
    pub async fn set_data_timed(
        &self,
        path: &str,
        data: Bytes,
        version: Option<i32>,
    ) -> Result<Timed<Stat>> {
        validate(path)?;
        let request = SetDataRequest {
            path: path.to_owned(),
            data: Some(data),
            version: version.unwrap_or(VERSION_ANY),
        };
        let written: Timed<StatResponse> = self.ask(OpCode::SetData, path, &request).await?;
        Ok(Timed { value: written.value.stat, sent_at: written.sent_at })
    }

    /// The names of a node's children, sorted, and the node's state.
    ///
    /// # Errors
    /// NoNode, and those of the session.
    pub async fn get_children(&self, path: &str) -> Result<(Vec<String>, Stat)> {
        self.get_children_as(path, None).await
    }

    /// [`Client::get_children`], and a watch for the creation or deletion of a child, or the
    /// node's deletion.
    ///
    /// # Errors
    /// NoNode (there is no watch then), and those of the session.
    pub async fn get_children_watch(&self, path: &str) -> Result<(Vec<String>, Stat, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let interest = Some(Interest::Child(sender));
        let (children, stat) = self.get_children_as(path, interest).await?;
        Ok((children, stat, receiver))
    }

    /// Waits until the connected server has all that was committed before; a read after it sees
    /// that.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn sync(&self, path: &str) -> Result<()> {
        validate(path)?;
        let request = SyncRequest { path: path.to_owned() };
        let Timed { value: (), .. } = self.ask(OpCode::Sync, path, &request).await?;
        Ok(())
    }

    /// Does all of `ops`, in their order, or none.
    ///
    /// # Errors
    /// [`Error::Multi`] names the operation that was refused; and those of the session.
    pub async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>> {
        Ok(self.multi_timed(ops).await?.value)
    }

    /// [`Client::multi`], and when the request was sent.
    ///
    /// # Errors
    /// As of [`Client::multi`].
    pub async fn multi_timed(&self, ops: Vec<Op>) -> Result<Timed<Vec<OpResult>>> {
        let request = multi::request(&ops)?;
        let path = ops.first().map_or("/", Op::path);
        let answer: Timed<MultiResponse> = self.ask(OpCode::Multi, path, &request).await?;
        Ok(Timed { value: multi::results(&ops, answer.value)?, sent_at: answer.sent_at })
    }

    /// Watches a node, or it and all below it, until the receiver is dropped or the session ends;
    /// the node need not exist. Events come in their order, together with the connection's state;
    /// after [`WatchedEvent::Reconnected`] and [`WatchedEvent::Missed`], read again. When the
    /// receiver gives `None` the session is over.
    ///
    /// A ZooKeeper before 3.9 keeps one kind of watch for a node and session: setting another kind
    /// on the same node, a one-shot one too, replaces this one.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn add_watch(
        &self,
        path: &str,
        mode: AddWatchMode,
    ) -> Result<mpsc::Receiver<WatchedEvent>> {
        validate(path)?;
        let request = AddWatchRequest { path: path.to_owned(), mode: mode.code() };
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let interest = Some(Interest::Lasting(mode, sender));
        self.request(OpCode::AddWatch, path, &request, interest).await?;
        Ok(receiver)
    }

    async fn exists_as(&self, path: &str, interest: Option<Interest>) -> Result<Option<Stat>> {
        validate(path)?;
        let request = ExistsRequest { path: path.to_owned(), watch: interest.is_some() };
        let reply = self.request(OpCode::Exists, path, &request, interest).await;
        match reply {
            Ok(reply) => {
                let found: StatResponse = read(OpCode::Exists, path, reply)?.value;
                Ok(Some(found.stat))
            }
            Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_data_as(&self, path: &str, interest: Option<Interest>) -> Result<(Bytes, Stat)> {
        validate(path)?;
        let op = OpCode::GetData;
        let request = GetDataRequest { path: path.to_owned(), watch: interest.is_some() };
        let reply = self.request(op, path, &request, interest).await?;
        let found: GetDataResponse = read(op, path, reply)?.value;
        Ok((found.data.unwrap_or_default(), found.stat))
    }

    async fn get_children_as(
        &self,
        path: &str,
        interest: Option<Interest>,
    ) -> Result<(Vec<String>, Stat)> {
        validate(path)?;
        let op = OpCode::GetChildren2;
        let request = GetChildrenRequest { path: path.to_owned(), watch: interest.is_some() };
        let reply = self.request(op, path, &request, interest).await?;
        let mut found: GetChildren2Response = read(op, path, reply)?.value;
        found.children.sort_unstable();
        Ok((found.children, found.stat))
    }

    /// A request that watches nothing, and its decoded answer.
    async fn ask<T: Decode>(
        &self,
        op: OpCode,
        path: &str,
        record: &dyn Encode,
    ) -> Result<Timed<T>> {
        let reply = self.request(op, path, record, None).await?;
        read(op, path, reply)
    }

    async fn request(
        &self,
        op: OpCode,
        path: &str,
        record: &dyn Encode,
        interest: Option<Interest>,
    ) -> Result<Reply> {
        let mut body = BytesMut::new();
        record.encode(&mut body);
        if HEADER_BYTES + body.len() > FRAME_BYTES_MAX {
            return Err(Error::TooLarge {
                op,
                path: path.to_owned(),
                bytes: HEADER_BYTES + body.len(),
                bytes_max: FRAME_BYTES_MAX,
            });
        }
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { op, path: path.to_owned(), body: body.freeze(), interest, reply };
        let answered = async {
            let sent = self.shared.requests.send(outgoing).await;
            // Without an answer, the task has ended.
            match sent {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(self.over())),
                Err(_) => Err(self.over()),
            }
        };
        let deadline = Instant::now() + self.request_timeout;
        timeout_at(deadline, answered).await.unwrap_or_else(|_| {
            Err(Error::Timeout { op, path: path.to_owned(), waited: self.request_timeout })
        })
    }

    fn over(&self) -> Error {
        let session_id = self.shared.session_id;
        match *self.shared.state.borrow() {
            State::Expired => Error::SessionExpired { session_id },
            _ => Error::Closed { session_id },
        }
    }
}

fn read<T: Decode>(op: OpCode, path: &str, mut reply: Reply) -> Result<Timed<T>> {
    match T::decode(&mut reply.body) {
        Ok(value) => Ok(Timed { value, sent_at: reply.sent_at }),
        Err(error) => Err(Error::BadReply { op, path: path.to_owned(), error }),
    }
}
