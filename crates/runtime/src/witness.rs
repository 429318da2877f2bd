//! What a rule turns on, told where it happens.

/// The target of events by which the rules can be checked from outside while the cluster runs: an
/// acknowledgement under an epoch, a sealed length, an edit that was replayed. They are at level TRACE, so
/// that nothing is made of them unless somebody listens, as the simulation does. Their fields are
/// numbers and names; the message says which event it is.
pub const WITNESS: &str = "witness";
