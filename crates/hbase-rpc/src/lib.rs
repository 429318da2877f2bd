//! The RPC of HBase: messages, frames, cell blocks and exceptions, for clients and for servers.
//!
//! - [`pb`] contains the messages compiled from `proto/`.
//! - [`CellBlockCodec`] and [`message_cells`] encode cells beside a message and inside one.
//! - [`Exception`] is an error on the wire, with its exact Java name.
//! - [`serve`] answers calls and [`Connection`] makes them, both over [`frame`]s.
//! - [`meta`], [`schema`] and [`znode`] contain the data that clients read to find tables and
//!   servers.
//!
//! The roles define what a call does. Decoders accept any bytes: they never panic, and check a
//! length before they rely on it.

mod cell_block;
mod client;
mod error;
mod exception;
pub mod frame;
pub mod message_cells;
pub mod meta;
mod outbox;
pub mod schema;
mod server;
mod service;
pub mod znode;

pub use cell_block::CellBlockCodec;
pub use client::{CallError, CallResult, Connection, ConnectionOptions, Response};
pub use error::{Error, Result};
pub use exception::{Exception, ExceptionKind, MovedRegion, Reaction};
pub use server::{Call, Caller, Handler, Reply, ServerOptions, serve};
pub use service::Service;

/// The messages, in one module because there is one protobuf package; see `proto/`.
#[expect(missing_docs, reason = "generated; the fields are documented by Apache HBase")]
#[allow(
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/hbase.pb.rs"));
}
