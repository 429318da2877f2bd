//! What a region server does about the logs of a dead one: split them, and replay its part.

pub(crate) mod replay;
pub(crate) mod split;
