//! Writing: a file, block by block, each to all its DataNodes at once.
//!
//! There is no chain of DataNodes as in Hadoop's own client: to each goes a pipeline with itself
//! as the only member, and what all of them have acknowledged is acknowledged. So a flush costs one
//! trip to the slowest DataNode, and which one failed is known.

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
