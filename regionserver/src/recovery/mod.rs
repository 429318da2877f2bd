//! Recovery of a dead server's logs: splitting them, and replaying a region's part.

pub(crate) mod replay;
pub(crate) mod split;
