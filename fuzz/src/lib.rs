//! Shared by the fuzz targets: a runtime, files in memory, corrected checksums, and the seed inputs
//! of a corpus.
//!
//! A target accepts any bytes. Where a checksum would reject nearly all of them, the target
//! corrects the checksums first so that the code behind the check is reached: see [`checksums`].

pub mod checksums;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(runtime());
}

fn runtime() -> Runtime {
    // Paused: a timeout expires as soon as nothing else can happen.
    let built = Builder::new_current_thread().enable_time().start_paused(true).build();
    built.unwrap_or_else(|error| panic!("no runtime: {error}"))
}

/// Runs `future` to completion.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with_borrow(|runtime| runtime.block_on(future))
}

/// A disk with one file, which holds `contents`.
pub async fn disk_with(path: &Path, contents: &[u8]) -> SharedFileSystem {
    let disk: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    put(&disk, path, contents).await;
    disk
}

/// Writes a file.
pub async fn put(disk: &SharedFileSystem, path: &Path, contents: &[u8]) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    ok(disk.create_directories(folder).await);
    ok(disk.write_whole(path, Bytes::copy_from_slice(contents)).await);
}

/// The value of a result that cannot be an error here, such as one of the memory file system.
pub fn ok<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Splits the input into its first byte, by which a target selects what to do, and the rest.
pub fn choice(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, &[]), |(first, rest)| (*first, rest))
}

/// Splits the input into two parts. Its first two bytes are the length of the first part.
pub fn two_parts(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return (input, &[]);
    };
    rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()))
}

/// The input that [`two_parts`] splits into `first` and `second`.
pub fn join_parts(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], first, second].concat()
}

/// Writes the seed inputs of a corpus into the folder that `FUZZ_SEEDS` names, if it is set.
pub fn seed(inputs: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else {
        return;
    };
    let folder = Path::new(&folder);
    ok(std::fs::create_dir_all(folder));
    for (number, input) in inputs().iter().enumerate() {
        ok(std::fs::write(folder.join(format!("seed-{number:02}")), input));
    }
}
