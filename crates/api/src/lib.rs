//! The manifests `BasaltCluster` and `BasaltTable`, and what is derived from them.
//!
//! [`cluster`] and [`table`] are the manifests as users write them. [`load`] reads them from a file
//! and reports errors precisely. [`validate()`] turns them into a [`ValidatedCluster`], the proof
//! that everything in them can be run. [`timers`] derives every timer from `failover.target`.
//! [`split`] splits a table into regions. [`crds`] contains the definitions for the Kubernetes API
//! server. All of it is pure: no I/O, no clock.

pub mod cluster;
pub mod common;
pub mod crds;
mod error;
pub mod load;
mod region_server_config;
pub mod role_file;
pub mod split;
mod strict;
pub mod table;
pub mod timers;
mod timespan;
mod validate;

pub use cluster::{BasaltCluster, BasaltClusterSpec, BasaltClusterStatus};
pub use error::Error;
pub use load::Manifests;
pub use region_server_config::{BadSetting, RegionServerConfig};
pub use table::{BasaltTable, BasaltTableSpec, BasaltTableStatus};
pub use timers::{BrokenInequality, TimerOverrides, Timers};
pub use timespan::Timespan;
pub use validate::{
    Problem, ValidatedCluster, ValidatedHdfs, ValidatedStorage, ValidatedTable, validate,
    validate_table,
};

/// The group of all our resources.
pub const GROUP: &str = "basalt.db";
/// The version of all our resources.
pub const VERSION: &str = "v1alpha1";
