//! Who lives: streams that end are hints, committed deaths are facts.
//!
//! A hint is a stream that ended, or never came, *and* a reconnect that is refused or meets
//! another process; or word from whoever started the process that it has ended. Silence is none:
//! it costs the session, whose end the coordinator commits by itself.

mod clocks;
mod death;
mod stream;

pub(crate) use clocks::{Clocks, compare_clocks};
pub(crate) use stream::{Verdict, hold_stream, listen};
