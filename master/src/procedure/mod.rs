//! Durable work: it survives the master that took it on.
//!
//! A procedure is a record in the coordinator and a function that takes it one step further. Each
//! step may be done again, by this master or by the next, and does no harm then. [`execute`] calls
//! the function until the procedure is finished.

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
