//! The task that owns a session: it knows the server, the requests in progress, and when to ping.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use basalt_runtime::{Seams, Shutdown};
use bytes::{Buf, Bytes};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::link::{Link, Progress};
use super::watches::{Interest, WATCHES_MAX, Watches};
use super::{State, WatchedEvent};
use crate::error::{Error, Result};
use crate::proto::{
    ConnectRequest, ConnectResponse, Decode, Decoder, ErrorCode, OpCode, ReplyHeader,
    RequestHeader, SessionId, WatcherEvent, Xid, Zxid,
};

/// How many requests may be sent and not yet answered.
const IN_FLIGHT_MAX: usize = 1024;

/// No further request is sent while this much waits to be written.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// A request from a handle.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) op: OpCode,
    pub(super) path: String,
    /// The encoded record.
    pub(super) body: Bytes,
    pub(super) interest: Option<Interest>,
    pub(super) reply: oneshot::Sender<Result<Reply>>,
}

/// The answer to a request that has succeeded.
#[derive(Debug)]
pub(super) struct Reply {
    /// The encoded record.
    pub(super) body: Decoder,
    /// `Clock::boot_time` just before the request was sent.
    pub(super) sent_at: Duration,
}

/// A session and all that it owns.
#[derive(Debug)]
pub(super) struct Session {
    seams: Seams,
    /// The servers, in the order in which they are tried.
    servers: Vec<String>,
    /// The server that is tried next, counted over all rounds.
    attempts: usize,
    silence_max: Option<Duration>,
    /// The session timeout that the client requests.
    wished_timeout: Duration,
    /// The session timeout that the last server has granted. Before that, the requested one.
    timeout: Duration,
    session_id: SessionId,
    password: Bytes,
    last_zxid: Zxid,
    last_xid: Xid,
    watches: Watches,
    in_flight: VecDeque<InFlight>,
}

/// The ends of a session's channels that its task holds.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) requests: mpsc::Receiver<Outgoing>,
    pub(super) state: watch::Sender<State>,
    pub(super) closing: Shutdown,
}

/// A request that has been sent and not answered.
#[derive(Debug)]
struct InFlight {
    xid: Xid,
    outgoing: Outgoing,
    sent: Instant,
    sent_at: Duration,
}

/// The outcome of an attempt to connect.
pub(super) enum Attempt {
    Connected(Box<Link>),
    Expired,
    Failed(io::Error),
}

/// Why a connection is no longer used.
enum Ended {
    Lost(io::Error),
    Closed,
}

// === impl Session ===

impl Session {
    /// A session that has not been opened yet, at one of `servers`.
    pub(super) fn new(
        seams: Seams,
        mut servers: Vec<String>,
        timeout: Duration,
        silence_max: Option<Duration>,
    ) -> Self {
        // Spreads the clients over the servers.
        seams.random.shuffle(&mut servers);
        Self {
            seams,
            servers,
            attempts: 0,
            silence_max,
            wished_timeout: timeout,
            timeout,
            session_id: SessionId::NONE,
            password: Bytes::from_static(&[0; crate::proto::PASSWORD_BYTES]),
            last_zxid: Zxid::default(),
            last_xid: Xid::default(),
            watches: Watches::default(),
            in_flight: VecDeque::new(),
        }
    }

    /// The state of a session that has just connected.
    pub(super) fn connected_state(&self) -> State {
        State::Connected { session_id: self.session_id, negotiated_timeout: self.timeout }
    }

    /// The session's identity, once there is one.
    pub(super) fn id(&self) -> SessionId {
        self.session_id
    }

    /// Tries the next server, after a pause if all have been tried.
    pub(super) async fn attempt(&mut self) -> Attempt {
        let count = self.servers.len().max(1);
        if self.attempts > 0 && self.attempts.is_multiple_of(count) {
            tokio::time::sleep(self.pause()).await;
        }
        let index = self.attempts % count;
        let address = self.servers.get(index).map_or("", String::as_str);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: i32::try_from(self.wished_timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: self.session_id,
            password: self.password.clone(),
            read_only: Some(false),
        };
        // A load balancer in front of the servers may silently route the connection to a server
        // that is gone.
        let share = self.timeout / u32::try_from(count).unwrap_or(u32::MAX);
        let patience = share.min(self.silence() / 2);
        let opened = Link::open(&self.seams.network, address, &request, patience).await;
        let server = address.to_owned();
        self.attempts += 1;
        match opened {
            Ok((link, response)) => self.adopt(link, response, &server),
            Err(error) => {
                debug!(server, %error, "no connection to a ZooKeeper server");
                Attempt::Failed(io::Error::new(error.kind(), format!("{server}: {error}")))
            }
        }
    }

    /// Serves the session, from its first connection to its end.
    pub(super) async fn run(mut self, link: Box<Link>, mut channels: Channels) {
        let mut connected = Some(link);
        let last = loop {
            let mut link = match connected.take() {
                Some(link) => link,
                None => tokio::select! {
                    biased;
                    () = channels.closing.cancelled() => break State::Closed,
                    attempt = self.attempt() => match attempt {
                        Attempt::Connected(link) => self.resume(link, &channels),
                        Attempt::Expired => break State::Expired,
                        Attempt::Failed(_) => continue,
                    },
                },
            };
            let connected_at = Instant::now();
            match self.serve(&mut link, &mut channels).await {
                Ended::Closed => break State::Closed,
                Ended::Lost(error) => {
                    warn!(session = %self.session_id, %error, "connection to ZooKeeper lost");
                    // After a connection that was useful, a new round begins without a pause.
                    if connected_at.elapsed() >= self.silence() / 2 {
                        self.attempts %= self.servers.len().max(1);
                    }
                    channels.state.send_replace(State::Disconnected);
                    self.lose_requests();
                    self.watches.announce(&WatchedEvent::Disconnected);
                }
            }
        };
        self.finish(last, channels);
    }

    fn adopt(&mut self, link: Link, response: ConnectResponse, server: &str) -> Attempt {
        if response.is_expired() {
            return if self.session_id == SessionId::NONE {
                Attempt::Failed(io::Error::other(format!("{server}: granted no session")))
            } else {
                Attempt::Expired
            };
        }
        let timeout_ms = u64::try_from(response.timeout_ms).unwrap_or(0);
        self.timeout = Duration::from_millis(timeout_ms);
        self.session_id = response.session_id;
        self.password = response.password;
        info!(session = %self.session_id, server, timeout_ms, "connected to ZooKeeper");
        Attempt::Connected(Box::new(link))
    }

    /// Sets the watches again on a new connection, and then announces the connection. A caller that
    /// reads again now does so after the watches are set, because requests keep their order.
    fn resume(&mut self, mut link: Box<Link>, channels: &Channels) -> Box<Link> {
        for request in self.watches.set_again(self.last_zxid) {
            let header = RequestHeader { xid: Xid::SET_WATCHES, op: request.op_code().code() };
            link.send(&[&header, &request]);
        }
        channels.state.send_replace(self.connected_state());
        self.watches.announce(&WatchedEvent::Reconnected);
        link
    }

    /// Serves the session over one connection, until the connection ends.
    async fn serve(&mut self, link: &mut Link, channels: &mut Channels) -> Ended {
        loop {
            let ping_due = link.last_sent + self.silence() / 2;
            if Instant::now() >= ping_due {
                link.send(&[&RequestHeader { xid: Xid::PING, op: OpCode::Ping.code() }]);
                continue;
            }
            let silent_since = match self.in_flight.front() {
                Some(oldest) => link.last_received.min(oldest.sent),
                None => link.last_received,
            };
            let silent_at = silent_since + self.silence();
            tokio::select! {
                biased;
                () = channels.closing.cancelled() => {
                    self.say_goodbye(link).await;
                    return Ended::Closed;
                }
                progress = link.step() => {
                    if let Err(error) = progress.and_then(|progress| self.receive(progress)) {
                        return Ended::Lost(error);
                    }
                }
                () = tokio::time::sleep_until(silent_at.min(ping_due)) => {
                    if Instant::now() >= silent_at {
                        let problem = format!("no answer for {:?}", self.silence());
                        return Ended::Lost(io::Error::new(io::ErrorKind::TimedOut, problem));
                    }
                }
                outgoing = channels.requests.recv(), if self.may_send(link) => {
                    let Some(outgoing) = outgoing else {
                        self.say_goodbye(link).await;
                        return Ended::Closed;
                    };
                    self.send(outgoing, link);
                    // Waiting requests are sent in the same write.
                    while self.may_send(link) && let Ok(outgoing) = channels.requests.try_recv() {
                        self.send(outgoing, link);
                    }
                }
            }
        }
    }

    fn may_send(&self, link: &Link) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX && link.unwritten_bytes() < UNWRITTEN_BYTES_MAX
    }

    fn send(&mut self, outgoing: Outgoing, link: &mut Link) {
        if outgoing.reply.is_closed() {
            return; // Its time was over before it could be sent.
        }
        if outgoing.interest.is_some() && self.watches.is_full() {
            let watches_max = WATCHES_MAX;
            let _ = outgoing.reply.send(Err(Error::TooManyWatches { watches_max }));
            return;
        }
        let xid = self.next_xid();
        let op = outgoing.op.code();
        let sent_at = self.seams.clock.boot_time();
        link.send(&[&RequestHeader { xid, op }, &Raw(&outgoing.body)]);
        self.in_flight.push_back(InFlight { xid, outgoing, sent: link.last_sent, sent_at });
    }

    fn receive(&mut self, progress: Progress) -> io::Result<()> {
        let Progress::Received(frame) = progress else {
            return Ok(());
        };
        let mut input = Decoder::new(frame);
        let header = ReplyHeader::decode(&mut input).map_err(io::Error::other)?;
        match header.xid {
            Xid::PING | Xid::AUTH => Ok(()),
            Xid::EVENT => {
                let event = WatcherEvent::decode(&mut input).map_err(io::Error::other)?;
                if !self.watches.dispatch(event.clone()) {
                    warn!(?event, "a ZooKeeper event of unknown type");
                }
                Ok(())
            }
            Xid::SET_WATCHES => match header.error {
                None => Ok(()),
                Some(code) => Err(io::Error::other(format!("watches were not set again: {code}"))),
            },
            _ => self.answer(header, input),
        }
    }

    /// Passes an answer to the caller that waits for it.
    fn answer(&mut self, header: ReplyHeader, body: Decoder) -> io::Result<()> {
        let expected = self.in_flight.front().map(|oldest| oldest.xid);
        let Some(answered) = self.in_flight.pop_front_if(|oldest| oldest.xid == header.xid) else {
            return Err(io::Error::other(format!(
                "got an answer to request {:?}, but expected {expected:?}",
                header.xid
            )));
        };
        self.last_zxid = self.last_zxid.max(header.zxid);
        let InFlight { outgoing, sent_at, .. } = answered;
        let is_absent = header.error == Some(ErrorCode::NoNode);
        match outgoing.interest {
            Some(interest) if header.error.is_none() => {
                self.watches.add(&outgoing.path, interest, true);
            }
            Some(interest @ Interest::Exist(_)) if is_absent => {
                self.watches.add(&outgoing.path, interest, false);
            }
            _ => {}
        }
        // A caller that has stopped waiting needs no answer.
        let _ = outgoing.reply.send(match header.error {
            None => Ok(Reply { body, sent_at }),
            Some(code) => Err(Error::Server { op: outgoing.op, path: outgoing.path, code }),
        });
        Ok(())
    }

    /// Ends the session at the server, so that its ephemeral nodes are deleted at once. Requests
    /// that were sent before are still answered.
    async fn say_goodbye(&mut self, link: &mut Link) {
        let patience = self.timeout;
        let goodbye = self.next_xid();
        link.send(&[&RequestHeader { xid: goodbye, op: OpCode::CloseSession.code() }]);
        let answered = async {
            loop {
                let progress = link.step().await?;
                if let Progress::Received(frame) = &progress
                    && Xid::from_message(frame.clone()).is_ok_and(|xid| xid == goodbye)
                {
                    return io::Result::Ok(());
                }
                self.receive(progress)?;
            }
        };
        if !matches!(tokio::time::timeout(patience, answered).await, Ok(Ok(()))) {
            debug!("a ZooKeeper server did not confirm the end of a session");
        }
    }

    /// Fails the requests that were in progress on a lost connection. Their outcome is unknown.
    fn lose_requests(&mut self) {
        for InFlight { outgoing, .. } in self.in_flight.drain(..) {
            let _ = outgoing
                .reply
                .send(Err(Error::ConnectionLoss { op: outgoing.op, path: outgoing.path }));
        }
    }

    fn finish(mut self, last: State, mut channels: Channels) {
        info!(session = %self.session_id, state = ?last, "ZooKeeper session is over");
        channels.state.send_replace(last);
        self.lose_requests();
        self.watches.finish(&match last {
            State::Expired => WatchedEvent::Expired,
            _ => WatchedEvent::Closed,
        });
        // Handles whose requests are dropped here read the state.
        channels.requests.close();
    }

    fn next_xid(&mut self) -> Xid {
        self.last_xid = Xid(self.last_xid.0.checked_add(1).unwrap_or(1));
        self.last_xid
    }

    /// How long a server may be silent.
    fn silence(&self) -> Duration {
        let of_session = self.timeout * 2 / 3;
        self.silence_max.map_or(of_session, |wished| wished.min(of_session))
    }

    /// How long to wait when no server was available.
    fn pause(&self) -> Duration {
        let unit_ms = u64::try_from(self.timeout.as_millis() / 40).unwrap_or(u64::MAX);
        let unit_ms = unit_ms.clamp(1, 500);
        Duration::from_millis(self.seams.random.in_range(unit_ms..unit_ms * 2))
    }
}

/// Bytes that are encoded already.
struct Raw<'a>(&'a Bytes);

// === impl Raw ===

impl crate::proto::Encode for Raw<'_> {
    fn encode(&self, output: &mut bytes::BytesMut) {
        output.extend_from_slice(self.0.chunk());
    }
}
