//! The coordinator: a replicated tree of small nodes that speaks the ZooKeeper protocol.
