//! The ZooKeeper client protocol: jute records and an async session client.
//!
//! [`proto`] is the wire, in both directions; the coordinator answers with the same records.
pub mod proto;
