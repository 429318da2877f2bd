//! The handle through which callers use a session.

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

/// A session at a ZooKeeper. It is a cheap handle, and all clones share one session.
///
/// Each method is one request, and may fail as described in [`Error`]. A version of `None` means
/// any version. If a future is dropped, the outcome of its request is unknown.
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

/// The receiver of a one-shot watch. It gets [`WatchedEvent::Node`] when the node changes. If the
/// session ends before that, it gets [`WatchedEvent::Expired`] or [`WatchedEvent::Closed`]. It
/// survives reconnects.
type OneShot = oneshot::Receiver<WatchedEvent>;

// === impl Client ===

impl Client {
    /// Opens a session at one of `servers` (`host:port` each), which are tried in random order. The
    /// session's task, and with it the connection, runs on [`basalt_runtime::Threads::liveness`].
    ///
    /// # Errors
    /// [`Error::NoServers`], or [`Error::NotConnected`] if no server has opened a session in time.
    // Boxed, so that the future is compiled in this crate and not in each of its callers.
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

    /// A handle to the same session, with a timeout of `request_timeout` for each request.
    #[must_use]
    pub fn with_request_timeout(&self, request_timeout: Duration) -> Self {
        Self { shared: self.shared.clone(), request_timeout }
    }

    /// The session's identity, which is the owner of its ephemeral nodes.
    pub fn session_id(&self) -> SessionId {
        self.shared.session_id
    }

    /// The state of the session, now and in the future.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.clone()
    }

    /// Ends the session, and with it all handles. Its ephemeral nodes are deleted at once if a
    /// server is connected, and otherwise when the session expires. Returns when the task has
    /// ended.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        let mut state = self.state();
        // The task limits how long it waits, and the channel closes when it has ended.
        while state.changed().await.is_ok() {}
    }

    /// Creates a node. Returns its path, with the number of a sequential node, and its stat.
    ///
    /// # Errors
    /// NodeExists, NoNode (no parent), NoChildrenForEphemerals, and the errors of the session.
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
    /// NoNode, BadVersion, NotEmpty, and the errors of the session.
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<()> {
        validate(path)?;
        let request =
            DeleteRequest { path: path.to_owned(), version: version.unwrap_or(VERSION_ANY) };
        let Timed { value: (), .. } = self.ask(OpCode::Delete, path, &request).await?;
        Ok(())
    }

    /// The stat of a node, if it exists.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>> {
        self.exists_as(path, None).await
    }

    /// Like [`Client::exists`], with a watch for the node's creation, deletion or change.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn exists_watch(&self, path: &str) -> Result<(Option<Stat>, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let stat = self.exists_as(path, Some(Interest::Exist(sender))).await?;
        Ok((stat, receiver))
    }

    /// A node's data and stat.
    ///
    /// # Errors
    /// NoNode, and the errors of the session.
    pub async fn get_data(&self, path: &str) -> Result<(Bytes, Stat)> {
        self.get_data_as(path, None).await
    }

    /// Like [`Client::get_data`], but `None` if the node does not exist.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn find_data(&self, path: &str) -> Result<Option<(Bytes, Stat)>> {
        match self.get_data(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The data and stats of many nodes as they were at one moment, in few requests. `None` for
    /// nodes that do not exist. Needs ZooKeeper 3.6 or later.
    ///
    /// # Errors
    /// The errors of the session.
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

    /// Like [`Client::get_data`], with a watch for the node's change or deletion.
    ///
    /// # Errors
    /// NoNode (there is no watch then), and the errors of the session.
    pub async fn get_data_watch(&self, path: &str) -> Result<(Bytes, Stat, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let (data, stat) = self.get_data_as(path, Some(Interest::Data(sender))).await?;
        Ok((data, stat, receiver))
    }

    /// Replaces a node's data.
    ///
    /// # Errors
    /// NoNode, BadVersion, and the errors of the session.
    pub async fn set_data(&self, path: &str, data: Bytes, version: Option<i32>) -> Result<Stat> {
        Ok(self.set_data_timed(path, data, version).await?.value)
    }

    /// Like [`Client::set_data`], and also returns when the request was sent: a lease that this
    /// write renews starts at that time.
    ///
    /// # Errors
    /// See [`Client::set_data`].
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

    /// The names of a node's children, sorted, and the node's stat.
    ///
    /// # Errors
    /// NoNode, and the errors of the session.
    pub async fn get_children(&self, path: &str) -> Result<(Vec<String>, Stat)> {
        self.get_children_as(path, None).await
    }

    /// Like [`Client::get_children`], with a watch for the creation or deletion of a child, or the
    /// node's deletion.
    ///
    /// # Errors
    /// NoNode (there is no watch then), and the errors of the session.
    pub async fn get_children_watch(&self, path: &str) -> Result<(Vec<String>, Stat, OneShot)> {
        let (sender, receiver) = oneshot::channel();
        let interest = Some(Interest::Child(sender));
        let (children, stat) = self.get_children_as(path, interest).await?;
        Ok((children, stat, receiver))
    }

    /// Waits until the connected server has everything that was committed before. A read after it
    /// sees that.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn sync(&self, path: &str) -> Result<()> {
        validate(path)?;
        let request = SyncRequest { path: path.to_owned() };
        let Timed { value: (), .. } = self.ask(OpCode::Sync, path, &request).await?;
        Ok(())
    }

    /// Runs all of `ops` in order, or none.
    ///
    /// # Errors
    /// [`Error::Multi`] names the operation that was rejected. Otherwise the errors of the session.
    pub async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>> {
        Ok(self.multi_timed(ops).await?.value)
    }

    /// Like [`Client::multi`], and also returns when the request was sent.
    ///
    /// # Errors
    /// See [`Client::multi`].
    pub async fn multi_timed(&self, ops: Vec<Op>) -> Result<Timed<Vec<OpResult>>> {
        let request = multi::request(&ops)?;
        let path = ops.first().map_or("/", Op::path);
        let answer: Timed<MultiResponse> = self.ask(OpCode::Multi, path, &request).await?;
        Ok(Timed { value: multi::results(&ops, answer.value)?, sent_at: answer.sent_at })
    }

    /// Watches a node, or a node and all nodes below it, until the receiver is dropped or the
    /// session ends. The node need not exist. Events arrive in order, together with changes of the
    /// connection's state. After [`WatchedEvent::Reconnected`] and [`WatchedEvent::Missed`], read
    /// again. When the receiver returns `None`, the session is over.
    ///
    /// A ZooKeeper before 3.9 keeps one kind of watch per node and session: setting another kind on
    /// the same node, even a one-shot watch, replaces this one.
    ///
    /// # Errors
    /// The errors of the session.
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

    /// Sends a request that watches nothing, and decodes the answer.
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
            // If there is no answer, the task has ended.
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
