//! Assigns regions to servers, and has them opened, closed and flushed.
//!
//! None of this needs a record of its own, because a region's record itself says what to do next.
//! If the region is closed and its table must be served, it must be assigned. If it is opening, its
//! owner must be ordered to open it. If it is closing, its owner must be ordered to close it, and
//! then it is closed. The reconciler of the next master therefore continues whatever a master
//! leaves half done.

mod claims;
mod close;
mod flush;
mod open;
mod write;

pub(crate) use claims::Claims;
