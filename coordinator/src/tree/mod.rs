//! The replicated state: a tree of small nodes, the sessions that own some of them, and the
//! bookkeeping that ensures that each command is applied once.
//!
//! The state is a pure function of the commands: it uses no I/O and no clock (a command carries the
//! leader's time). Every member applies the same commands in the same order and holds the same
//! [`State`]. A transaction is numbered by its index in the Raft log. That number keeps rising
//! across changes of leader, and ZooKeeper allows the gaps that blank entries leave.

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
