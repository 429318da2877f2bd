//! A client of HDFS that chooses its DataNodes, waits for none that is dead, and takes files away
//! from dead writers.
//!
//! [`HdfsFileSystem`] is Basalt's file system on it. Below that:
//! - `name_node` and `data_node` are calls, over `rpc`; `live_nodes` and `node_health` what is
//!   known of DataNodes, for where blocks are put and read first;
//! - `write` writes a block to all its DataNodes at once, and acknowledges what all have;
//! - `read` reads it from whichever DataNode answers first;
//! - `fence` ends a file whose writer is dead, or only thought to be, within milliseconds;
//! - `pb` are the messages, as compiled from `proto/`.
//!
//! Invariants: a writer that met any error acknowledges nothing more, for the file is given up and
//! never mended in place; an acknowledgement is given by every DataNode that the NameNode listed;
//! bytes are not believed before their checksum was compared. Decoders take any bytes: they never
//! panic, and check a length before they trust it.

mod config;
mod data_node;
mod error;
mod fence;
mod file_system;
#[cfg(fuzzing)]
pub mod fuzzing;
mod live_nodes;
mod name_node;
mod node_health;
mod read;
mod rpc;
mod transfer;
mod web;
mod wire;
mod write;

pub use config::{HdfsConfig, Machine};
pub use error::{Defect, Error, RemoteException, Result};
pub use fence::{Asked, Decision, Fenced, Member, REPLICAS_TO_CLOSE, RecoveryMethod, decide};
pub use file_system::{Configuration, HdfsFileSystem, ServerKind};
pub use pb::ReplicaState;
pub use write::{FileWriter, Flushed};

/// The messages, one module as there is one protocol package; see `proto/`.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/hdfs.rs"));
}
