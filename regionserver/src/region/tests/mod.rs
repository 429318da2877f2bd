//! Tests of a region as a whole, with a log and files in memory.

mod edits;
mod families;
mod files;
mod model;
mod nonces;
mod nonces_measure;
mod ownership;
mod recovery;
mod timestamps;
