//! Detects dead servers. The end of a stream is a hint; a committed death is a fact.
//!
//! There are two kinds of hints. One is a stream that ended, or never came, *and* a reconnect that
//! is refused or reaches another process. The other is a report from whatever started the process
//! that it has ended. Silence is not a hint. It ends the session, and the coordinator commits that
//! end on its own.

mod clocks;
mod death;
mod stream;

pub(crate) use clocks::{Clocks, compare_clocks};
pub(crate) use stream::{Verdict, hold_stream, listen};
