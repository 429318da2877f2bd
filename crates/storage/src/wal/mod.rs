//! The write-ahead log of a region server.
//!
//! Each server has one log, a folder of numbered files, into which all its regions write. A
//! mutation is acknowledged once its edit is durable here ([`Ticket::synced`]); many mutations
//! share one sync. When the server dies, its log is [`fence`]d and each file is sealed at a length.
//! [`split_index::write_split_index`] then reads each file once, and the new owner of each region
//! reads only its own part.
//!
//! ```text
//! region ── reserve ──▶ Permit ── append(edit, sequence id) ──▶ Ticket ── synced ──▶ ack
//!                                      │ queue: the batch that gathers
//!                                      ▼
//!                          writer: append and sync, one batch at a time, rolls the file
//! ```
//! The format is described in `docs/formats-wal.md`. The server decides when a region flushes, and
//! what to do when the log has failed (end the process).

mod edit;
mod error;
mod folder;
mod header;
mod latch;
mod listing;
mod log;
mod open_file;
mod queue;
mod reader;
mod sequence_id_accounting;
pub mod split_index;
mod stream;
mod sync;
mod writer;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;

pub use edit::{Edit, EncodedEdit, Nonce, RECORD_BYTES_MAX};
pub use error::{Defect, Error, Result};
pub use folder::{LogFile, fence, list};
pub use header::FileHeader;
pub use listing::LogList;
pub use log::{Wal, WalConfig, WalStats};
pub use queue::{Permit, Ticket};
pub use reader::{Tail, WalReader};
