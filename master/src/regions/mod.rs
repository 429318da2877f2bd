//! Giving regions to servers and taking them away.
//!
//! None of this needs a record of its own: a region's record says by itself what is to be done
//! with it. Closed, and its table is to be served: it is to be assigned. Opening: its owner is to
//! be ordered to open it. Closing: its owner is to be ordered to close it, and then it is closed.
//! So whatever a master leaves half done, the next one's reconciler goes on with.

mod claims;
mod close;
mod flush;
mod open;
mod write;

pub(crate) use claims::Claims;
