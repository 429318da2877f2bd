//! Reading: any range of a file, from whichever DataNode answers first.
//!
//! DataNodes in trouble are asked last. A read that is not answered at once is tried on the next
//! DataNode too, and the first answer counts: so no read waits for a dead machine's timeout.

mod block;
mod connections;
mod file;

pub(crate) use file::{FileReader, Readers};
