//! The basic types of Basalt: cells, tables, regions, server names, epochs and paths.
//!
//! No I/O and no async: everything here is a value with its invariants. All other crates build on
//! this one.

mod cell;
mod error;
mod feature_level;
mod numbers;
pub mod paths;
mod region;
mod server_name;
mod table;

pub use cell::{
    Cell, CellBuilder, CellKey, CellType, LATEST_TIMESTAMP, OLDEST_TIMESTAMP, compare_keys,
};
pub use error::Error;
pub use feature_level::{Feature, FeatureLevel};
pub use numbers::{LOG_HEADER_BYTES, MasterEpoch, RegionEpoch, SequenceId, log_holds_edits};
pub use region::{EncodedRegionName, RegionInfo, RegionState, ReplicaId};
pub use server_name::ServerName;
pub use table::{
    BloomType, Compression, FamilyDescriptor, KeepDeletedCells, TableDescriptor, TableName,
    TableState,
};
