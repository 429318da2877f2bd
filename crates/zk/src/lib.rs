//! The ZooKeeper client protocol: jute records and an async session client.
//!
//! [`proto`] is the wire format, in both directions. The coordinator uses the same records.
//! [`Client`] is one session at a ZooKeeper or at Basalt's coordinator. It cannot distinguish them.

mod client;
mod error;
pub mod proto;

pub use client::{Client, Op, OpResult, Options, State, Timed, WatchedEvent};
pub use error::{Error, Result};
