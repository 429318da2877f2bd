//! The protocol for reading blocks from DataNodes and writing blocks to them, version 28.
//!
//! ```text
//! client │ u16 version │ u8 operation │ varint-delimited message │
//! node   │ varint-delimited response │
//! data   │ packets, in either direction; see packet.rs │
//! ```

pub(crate) mod operation;
pub(crate) mod packet;
