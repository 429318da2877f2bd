//! An async client of the HBase protocol, for Basalt and for Apache HBase.
//!
//! The path of a write: [`Table`] → `locate` (which server has the row) → `pool` (the connection to
//! it) → one attempt → on failure `retry`. Information from a failed attempt is used immediately:
//! the new location of a moved region is cached, and the regions of a lost server are looked up
//! again.
//!
//! There are two levels. The methods of [`Table`] and [`Admin`] retry until their deadline.
//! [`Table::try_put`] and [`Table::try_get`] make one attempt, and report exactly what is known
//! about it ([`Outcome`]).
//!
//! A write that was sent but not answered is *unknown*: it may have been applied, or may still be.

mod admin;
mod batch;
mod connection;
mod error;
mod locate;
mod outcome;
mod pool;
mod read;
mod registry;
mod retry;
mod scan;
mod table;
mod write;

pub use admin::{Admin, ClusterOverview};
pub use batch::{Action, ActionResult};
pub use connection::{Connection, ConnectionConfig};
pub use error::{Error, Result};
pub use locate::RegionLocation;
pub use outcome::Outcome;
pub use read::{Columns, Get, RowResult, TimeRange};
pub use registry::RegistryConfig;
pub use retry::RetryConfig;
pub use scan::{Scan, Scanner};
pub use table::Table;
pub use write::{
    Append, CheckAndMutate, Comparison, Delete, Durability, Increment, Put, RowMutation,
};
