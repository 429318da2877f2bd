//! The one binary; see the library of the same name.

use std::process::ExitCode;

/// mimalloc, because cells are many small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// A production binary must contain no planted bugs, and no failpoints in a release build.
const _: () = assert!(!basalt_planted::CAN_BE_PLANTED);
const _: () = assert!(cfg!(debug_assertions) || !basalt_failpoint::ARE_ON);

fn main() -> ExitCode {
    // The allocator asks for huge pages, but its memory is in small scattered pieces: a region
    // server that needs 65 MiB used 200 MiB. In a sandbox that forbids this call, nothing else is
    // lost.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    basalt::main()
}
