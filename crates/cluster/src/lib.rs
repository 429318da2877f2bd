//! The records that masters and region servers keep in the coordinator, and their gRPC services.
//!
//! The records are the cluster's only shared truth. They hold the owner and the epoch of each
//! region, the live servers, the tables, the dead servers that have been fenced, and the sealed
//! lengths of their logs. [`Nodes`] has the path of each record, [`records`] its contents.
//! [`Catalog`] keeps a watched copy, and [`meta`] shows that copy to clients as `hbase:meta`.

pub mod catalog;
mod error;
pub mod feature_level;
pub mod meta;
mod paths;
pub mod records;
pub mod served;

/// The generated messages and gRPC services of `proto/cluster.proto`.
pub mod pb {
    #![expect(missing_docs, reason = "documented in proto/cluster.proto")]
    #![allow(clippy::doc_markdown, clippy::derive_partial_eq_without_eq, unused_qualifications)]
    tonic::include_proto!("basalt.cluster.v1");
}

pub use catalog::Catalog;
pub use error::Error;
pub use paths::{Nodes, REGION_BUCKETS};
pub use records::{RegionRecord, TableRecord};
