//! Trace events that let tests check the safety rules from outside.

/// The target of the events from which the rules can be checked while the cluster runs: an
/// acknowledgement under an epoch, a sealed length, a replayed edit. The events have level TRACE,
/// so they are not built unless a subscriber listens, as the simulation does. Their fields are
/// numbers and names; the message identifies the event.
pub const WITNESS: &str = "witness";
