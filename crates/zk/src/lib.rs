//! The ZooKeeper client protocol: jute records and an async session client.
//!
//! [`proto`] is the wire, in both directions; the coordinator answers with the same records.
//! [`Client`] is one session at a ZooKeeper or at Basalt's coordinator, which it cannot tell apart.

mod client;
mod error;
pub mod proto;

pub use client::{Client, Op, OpResult, Options, State, Timed, WatchedEvent};
pub use error::{Error, Result};
