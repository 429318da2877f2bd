//! The HBase RPC: messages, frames, cell blocks and exceptions, for clients and for servers.
