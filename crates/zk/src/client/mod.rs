//! An async client: one session, kept alive over connections to any of its servers.
//!
//! [`Client`] is a cheap handle; a task owns the session. `session` decides when to connect, ping
//! and give a server up, `link` is one connection, `watches` knows who waits for which event.
//!
//! What holds:
//! - Requests are sent in the order in which they were made and answered in that order.
//! - A request that was under way when its connection was lost fails as
//!   [`crate::Error::ConnectionLoss`] and is never sent twice; one that was not yet sent waits for
//!   the next connection until its time is over.
//! - An event reaches its watcher before the client's caller sees any later answer's state.
//! - Only a server says that a session has expired. A client that reaches none stays
//!   [`State::Disconnected`]: what must not outlive the session needs a lease of its own.
//! - A client that is asked for no watch sends none, at a reconnect neither.

mod handle;
mod link;
mod multi;
mod session;
mod watches;

use std::time::Duration;

pub use handle::Client;
pub use multi::{Op, OpResult};

use crate::proto::{EventType, SessionId};

/// What may be set of a [`Client`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long [`Client::connect`] tries. Default: the session timeout.
    pub connect_timeout: Option<Duration>,
    /// How long a request may take, waiting for a connection included. Default: the session
    /// timeout.
    pub request_timeout: Option<Duration>,
    /// How long a server may leave a ping or a request unanswered before the next one is tried.
    /// Default, and at most: two thirds of the negotiated session timeout. Who renews a lease
    /// shorter than the session sets less.
    pub silence_max: Option<Duration>,
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A server serves the session.
    Connected {
        /// The session.
        session_id: SessionId,
        /// After how long a silence servers let the session expire.
        negotiated_timeout: Duration,
    },
    /// Looking for a server that serves the session.
    Disconnected,
    /// The session has expired; final.
    Expired,
    /// The client was closed; final.
    Closed,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchedEvent {
    /// Something has happened to a node.
    Node {
        /// What.
        kind: EventType,
        /// The node.
        path: String,
    },
    /// The connection was lost; what happens now is not seen.
    Disconnected,
    /// Connected again. Changes in between were not reported: read again what is watched.
    Reconnected,
    /// The watcher was too slow and events were dropped: read again what is watched.
    Missed,
    /// The session has expired; nothing more will come.
    Expired,
    /// The client was closed; nothing more will come.
    Closed,
}

/// A result, and when its request was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    /// The result.
    pub value: T,
    /// The reading of `Clock::boot_time` just before the request was handed to the network; what
    /// the request committed was committed after it.
    pub sent_at: Duration,
}

#[cfg(test)]
mod tests;
