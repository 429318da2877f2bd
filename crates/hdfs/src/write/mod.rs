//! Writing: a file, block by block, each to all its DataNodes at once.
//!
//! There is no chain of DataNodes as in Hadoop's own client. Each DataNode has a pipeline with
//! itself as the only member, and data is acknowledged once all of them have acknowledged it. So a
//! flush costs one round trip to the slowest DataNode, and it is known which one failed.

mod block;
mod chunks;
mod file;
mod lease;
mod node;
mod placement;

pub use block::Flushed;
pub use file::FileWriter;
pub(crate) use file::Writers;
pub(crate) use placement::{Purpose, Wish};
