//! A client of HDFS that chooses its DataNodes, waits for no dead one, and fences the files of dead
//! writers.
//!
//! [`HdfsFileSystem`] is Basalt's file system on top of it. The layers below are:
//! - `name_node` and `data_node` make calls, over `rpc`. `live_nodes` and `node_health` hold what
//!   is known about DataNodes, to decide where blocks are placed and read first.
//! - `write` writes a block to all its DataNodes at once, and acknowledges data once all of them
//!   have it.
//! - `read` reads a block from the first DataNode that answers.
//! - `fence` ends the file of a writer that is dead or believed dead, within milliseconds.
//! - `pb` contains the messages compiled from `proto/`.
//!
//! Invariants:
//! - After any error, a writer acknowledges nothing more. The file is abandoned, never repaired in
//!   place.
//! - Data is acknowledged only once every DataNode that the NameNode listed has acknowledged it.
//! - Bytes are not used before their checksum is verified.
//! - Decoders accept any bytes: they never panic, and check a length before they rely on it.

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

/// The messages, in one module because there is one protobuf package; see `proto/`.
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
