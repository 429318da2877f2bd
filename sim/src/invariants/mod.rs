//! The invariants, which must hold whatever faults are injected: one file for each.
//!
//! Some are checked from outside, from the answers that clients received. The others are checked
//! from the events that the roles report ([`crate::witness`]).

mod acknowledged_writes;
mod below_sealed_length;
mod full_disk;
mod leftovers;
mod newest_manifest;
mod no_healthy_end;
mod one_master;
mod one_owner;
mod one_procedure_end;
mod registered_servers;
mod replay;
mod same_state;
mod sequence_ids;
mod served_as_recorded;
mod standstill;
mod table_turns;
mod timestamps;
mod versions;
mod whole_rows;
mod write_outage;

use std::fmt;

pub(crate) use acknowledged_writes::ACKNOWLEDGED_WRITES;
pub use acknowledged_writes::AcknowledgedWrites;
pub(crate) use below_sealed_length::BelowSealedLength;
pub(crate) use full_disk::check_full_disk;
pub(crate) use leftovers::{Leftovers, tables_on_disk};
pub(crate) use newest_manifest::check_newest_manifest;
pub(crate) use no_healthy_end::check_no_healthy_end;
pub(crate) use one_master::OneMaster;
pub(crate) use one_owner::OneOwner;
pub(crate) use one_procedure_end::OneProcedureEnd;
pub(crate) use registered_servers::check_registered;
pub(crate) use replay::check_replay;
pub(crate) use same_state::SameState;
pub(crate) use sequence_ids::SequenceIds;
pub(crate) use served_as_recorded::{ServedAsRecorded, ServedBy, check_served_as_recorded};
pub(crate) use standstill::check_standstill;
pub(crate) use table_turns::TableTurns;
pub(crate) use timestamps::check_timestamp;
pub(crate) use versions::{ClockSpan, DELETES_AND_VERSIONS, ModelRow, ModelWrite};
pub use whole_rows::WholeRows;
pub(crate) use write_outage::check_write_outage;

/// A violation of an invariant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// The observation that contradicts it.
    pub seen: String,
}

// === impl Violation ===

impl Violation {
    pub(crate) fn new(invariant: &'static str, seen: impl Into<String>) -> Self {
        Self { invariant, seen: seen.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.seen)
    }
}
