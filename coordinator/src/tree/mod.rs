//! The replicated state: a tree of small nodes, the sessions that own some of them, and what must
//! be known so that each command is applied once.
//!
//! It is a pure function of the commands: no I/O and no clock (a command carries the leader's
//! time). Every member applies the same commands in the same order and holds the same [`State`].
//! Transactions are numbered by their place in the Raft log: that number rises over changes of
//! leader, and the gaps that blank entries leave are allowed by ZooKeeper.

mod apply;
mod command;
mod digest;
mod node;
mod operations;
mod snapshot;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use apply::{Applied, Event, SessionChange, Verdict};
pub(crate) use command::{Change, Command, Operation, Origin, Write};
pub(crate) use digest::DIGEST_VERSION;
pub(crate) use operations::OperationOutcome;
pub(crate) use state::{SECRET_BYTES, State};
