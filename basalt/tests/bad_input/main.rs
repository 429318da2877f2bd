//! Bad input, with real processes. Each case gives a clear error or has a documented recovery, and
//! no other data is affected. `docs/operations.md` describes the symptoms and what to do.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

mod cluster;
mod coordinator;
mod fsck;
mod full_disk;
mod large_frame;
mod refusals;
mod store_file;
mod strangers;
mod wal;
mod wire;
