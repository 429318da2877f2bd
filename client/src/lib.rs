//! An async Rust client of the HBase protocol, for Basalt and for Apache HBase.
