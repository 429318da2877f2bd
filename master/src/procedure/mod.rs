//! Durable work, which survives the master that accepted it.
//!
//! A procedure is a record in the coordinator and a function that advances it. Each step is
//! idempotent: this master or the next one may repeat it. [`execute`] calls the function until the
//! procedure is finished.

mod create_table;
mod delete_table;
mod disable_table;
mod enable_table;
mod execute;
mod failure;
mod fence;
mod flush_table;
pub(crate) mod lost_logs;
mod modify_table;
mod procedure_store;
mod reassign;
mod record;
mod recover_server;
mod split;
mod submit;
mod table_regions;
mod truncate_table;
mod visibility;

/// The generated messages of `proto/procedure.proto`.
mod pb {
    #![expect(unreachable_pub, reason = "documented in proto/procedure.proto")]
    #![allow(clippy::derive_partial_eq_without_eq, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/basalt.master.v1.rs"));
}

pub(crate) use execute::execute;
pub(crate) use procedure_store::ProcedureStore;
pub(crate) use record::{Nonce, Procedure, ProcedureOutcome, Work};
pub(crate) use submit::{Death, SubmitError};
pub(crate) use visibility::show_earlier_ends;
