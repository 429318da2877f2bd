//! An async client: one session, kept alive over connections to any of its servers.
//!
//! [`Client`] is a cheap handle; a task owns the session. `session` decides when to connect, to
//! ping and to give up a server. `link` is one connection. `watches` knows who waits for which
//! event.
//!
//! Guarantees:
//! - Requests are sent in the order in which they were made, and answered in that order.
//! - A request that was in progress when its connection was lost fails with
//!   [`crate::Error::ConnectionLoss`] and is never sent twice. A request that was not yet sent
//!   waits for the next connection until its timeout.
//! - An event reaches its watcher before the caller sees the state in any later answer.
//! - Only a server decides that a session has expired. A client that reaches no server stays
//!   [`State::Disconnected`]: anything that must not outlive the session needs its own lease.
//! - A client without watches sends none, not even when it reconnects.

mod handle;
mod link;
mod multi;
mod session;
mod watches;

use std::time::Duration;

pub use handle::Client;
pub use multi::{Op, OpResult};

use crate::proto::{EventType, SessionId};

/// The options of a [`Client`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long [`Client::connect`] tries. Default: the session timeout.
    pub connect_timeout: Option<Duration>,
    /// How long a request may take, including the wait for a connection. Default: the session
    /// timeout.
    pub request_timeout: Option<Duration>,
    /// How long a server may leave a ping or a request unanswered before the next server is tried.
    /// Default, and at most: two thirds of the negotiated session timeout. Set less to renew a
    /// lease that is shorter than the session.
    pub silence_max: Option<Duration>,
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A server serves the session.
    Connected {
        /// The session.
        session_id: SessionId,
        /// How long the client may be silent before servers let the session expire.
        negotiated_timeout: Duration,
    },
    /// Looking for a server that serves the session.
    Disconnected,
    /// The session has expired. This state is final.
    Expired,
    /// The client was closed. This state is final.
    Closed,
}

/// An event that a watcher receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchedEvent {
    /// Something has happened to a node.
    Node {
        /// What happened.
        kind: EventType,
        /// The node.
        path: String,
    },
    /// The connection was lost. Changes are not seen from now on.
    Disconnected,
    /// Connected again. Changes in between were not reported, so read watched nodes again.
    Reconnected,
    /// The watcher was too slow, and events were dropped. Read watched nodes again.
    Missed,
    /// The session has expired. No more events follow.
    Expired,
    /// The client was closed. No more events follow.
    Closed,
}

/// A result, and when its request was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    /// The result.
    pub value: T,
    /// `Clock::boot_time` just before the request was passed to the network. Whatever the request
    /// committed was committed after this time.
    pub sent_at: Duration,
}

#[cfg(test)]
mod tests;
