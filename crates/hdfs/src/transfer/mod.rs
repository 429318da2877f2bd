//! The protocol by which blocks are read from and written to DataNodes, version 28.
//!
//! ```text
//! client │ u16 version │ u8 operation │ varint-delimited message │
//! node   │ varint-delimited response │
//! data   │ packets, in either direction; see packet.rs │
//! ```

pub(crate) mod operation;
pub(crate) mod packet;
