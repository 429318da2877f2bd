//! What masters and region servers write down in the coordinator and say to each other.
//!
//! The records are the cluster's only shared truth: where each region lives and under which epoch,
//! which servers live, which tables there are, which dead servers have been fenced and the sealed
//! lengths of their logs. [`Nodes`] says where each is stored, [`records`] what it holds, [`Catalog`] keeps a
//! watched copy, and [`meta`] shows that copy to clients as `hbase:meta`.

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
