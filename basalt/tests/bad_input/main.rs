//! Bad input, with real processes: each gives a clear error or a documented recovery, and no other
//! data suffers. `docs/operations.md` says what one sees and what to do.

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
