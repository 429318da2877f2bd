//! Reading: any range of a file, from the first DataNode that answers.
//!
//! DataNodes in trouble are asked last. A read that is not answered quickly is also tried on the
//! next DataNode, and the first answer counts. So no read waits for the timeout of a dead machine.

mod block;
mod connections;
mod file;

pub(crate) use file::{FileReader, Readers};
