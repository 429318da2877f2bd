//! The one binary; see the library of the same name.

use std::process::ExitCode;

/// Cells are many small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// What serves people keeps every rule.
const _: () = assert!(!basalt_planted::CAN_BE_PLANTED);
const _: () = assert!(cfg!(debug_assertions) || !basalt_failpoint::ARE_ON);

fn main() -> ExitCode {
    // The allocator asks for huge pages. Its memory is in small pieces all over: a region server
    // that needs 65 MiB took 200. Where a sandbox forbids the call, that is all it costs.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    basalt::main()
}
