//! Tests of a region as a whole, over a log and files in memory.

mod edits;
mod files;
mod model;
mod nonces;
mod ownership;
mod recovery;
mod timestamps;
