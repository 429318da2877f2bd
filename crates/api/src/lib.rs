//! The manifests `BasaltCluster` and `BasaltTable`, and what follows from them.
//!
//! [`cluster`] and [`table`] are the manifests as people write them; [`load`] reads them from a
//! file and says exactly what is wrong with it; [`validate()`] turns them into a
//! [`ValidatedCluster`], the proof that all of it can be run; [`timers`] derives every timer from
//! the promise `failover.target`; [`split`] cuts a table into regions; [`crds`] is what the
//! Kubernetes API server gets to know. All of it is pure: no I/O, no clock.

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
